//! `X-Forwarded-For`: finds the client of a request that came through proxies.
//!
//! Keeps true: only entries written by trusted proxies count, so a client cannot spoof its own address. The work for
//! one request is bounded. `Forwarded` (RFC 7239) is ignored.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Network, within};

/// The client of a request. `lines` are its `X-Forwarded-For` lines in order. The client is the last address that is
/// not `trusted`, or the first address if all are trusted. An entry other than an address ends the search at the proxy
/// that wrote it.
pub fn client<'a>(
    connection: IpAddr,
    lines: impl DoubleEndedIterator<Item = &'a [u8]>,
    trusted: &[Network],
) -> IpAddr {
    // Each proxy appends the address that it received the request from, so read the list from its end.
    let mut hops = lines.rev().flat_map(|line| line.rsplit(|byte| *byte == b',')).take(MAX_HOPS);
    let mut client = connection;
    while within(client, trusted)
        && let Some(address) = hops.next().and_then(address)
    {
        client = address;
    }
    client
}

/// Parses an address with or without a port: `203.0.113.7`, `203.0.113.7:80`, `2001:db8::7`, `[2001:db8::7]`,
/// `[2001:db8::7]:80`.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(entry.trim_ascii()).ok()?;
    let (address, port) = if let Some(bracketed) = text.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        (address.parse::<Ipv6Addr>().ok()?.into(), port)
    } else if let Ok(address) = text.parse::<Ipv6Addr>() {
        (address.into(), "")
    } else {
        let (address, port) = text.split_at(text.find(':').unwrap_or(text.len()));
        (address.parse::<Ipv4Addr>().ok()?.into(), port)
    };
    (port.is_empty() || is_port(port)).then_some(IpAddr::to_canonical(&address))
}

fn is_port(text: &str) -> bool {
    let digits = text.strip_prefix(':').unwrap_or_default();
    digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok()
}

/// No real chain of proxies is this long. A longer list is an attack.
const MAX_HOPS: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks() -> Vec<Network> {
        ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap()).to_vec()
    }

    fn found(connection: &str, lines: &[&str]) -> String {
        let lines = lines.iter().map(|line| line.as_bytes());
        client(connection.parse().unwrap(), lines, &networks()).to_string()
    }

    #[test]
    fn the_last_address_that_no_trusted_proxy_has_is_the_client() {
        let cases: &[(&[&str], &str)] = &[
            (&[], "10.0.0.1"),
            (&["203.0.113.7"], "203.0.113.7"),
            (&["203.0.113.7, 10.0.0.2"], "203.0.113.7"),
            (&["203.0.113.7,10.0.0.2 ,\t10.0.0.3"], "203.0.113.7"),
            (&["203.0.113.7", "10.0.0.2"], "203.0.113.7"),
            // An entry that the client sent itself is to the left of its address.
            (&["192.0.2.1, 203.0.113.7"], "203.0.113.7"),
            (&["192.0.2.1", "203.0.113.7"], "203.0.113.7"),
            (&["10.0.0.9, 203.0.113.7, fd00::2"], "203.0.113.7"),
            // All are trusted, so the first counts.
            (&["10.0.0.4, 10.0.0.2"], "10.0.0.4"),
            (&["fd00::4"], "fd00::4"),
        ];
        for (lines, client) in cases {
            assert_eq!(found("10.0.0.1", lines), *client, "{lines:?}");
        }
    }

    #[test]
    fn an_untrusted_connections_header_is_ignored() {
        assert_eq!(found("192.0.2.1", &["203.0.113.7"]), "192.0.2.1");
        assert_eq!(found("192.0.2.1", &["203.0.113.7, 10.0.0.1"]), "192.0.2.1");
        let everything = [&b"203.0.113.7"[..]].into_iter();
        let connection = "10.0.0.1".parse().unwrap();
        assert_eq!(client(connection, everything, &[]), connection);
    }

    #[test]
    fn an_entry_other_than_an_address_ends_the_search_at_the_proxy_that_wrote_it() {
        for garbage in [
            "unknown",
            "_hidden",
            "",
            "-",
            "client.example",
            "203.0.113",
            "203.0.113.7.1",
            "203.0.113.256",
            "203.0.113.07",
            "203.0.113.7:",
            "203.0.113.7:x",
            "203.0.113.7:65536",
            "203.0.113.7:+1",
            "203.0.113.7:1:2",
            "203.0.113.7 10.0.0.2",
            "\"203.0.113.7\"",
            "\"[2001:db8::7]:80\"",
            "for=203.0.113.7",
            "[203.0.113.7]",
            "[2001:db8::7",
            "2001:db8::7]",
            "[2001:db8::7]80",
            "[2001:db8::7]:",
            "[2001:db8::7%eth0]",
            "fe80::1%2",
            "203.0.113.7/32",
        ] {
            assert_eq!(found("10.0.0.1", &[garbage]), "10.0.0.1", "{garbage}");
            let chain = format!("203.0.113.7, {garbage}, 10.0.0.2");
            assert_eq!(found("10.0.0.1", &[&chain]), "10.0.0.2", "{garbage}");
        }
        let bytes = [&b"203.0.113.\xff"[..]].into_iter();
        assert_eq!(client("10.0.0.1".parse().unwrap(), bytes, &networks()).to_string(), "10.0.0.1");
    }

    #[test]
    fn these_notations_of_an_address_are_accepted() {
        for (entry, address) in [
            ("203.0.113.7", "203.0.113.7"),
            ("203.0.113.7:51221", "203.0.113.7"),
            ("::1", "::1"),
            ("2001:DB8::7", "2001:db8::7"),
            ("2001:db8::7:8080", "2001:db8::7:8080"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:0", "2001:db8::7"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
            ("[::ffff:203.0.113.7]:1", "203.0.113.7"),
            (" \t203.0.113.7 ", "203.0.113.7"),
        ] {
            assert_eq!(found("10.0.0.1", &[entry]), address, "{entry}");
        }
        // A trusted IPv4 proxy is also trusted in IPv6 notation.
        assert_eq!(found("10.0.0.1", &["203.0.113.7, ::ffff:10.0.0.2"]), "203.0.113.7");
    }

    #[test]
    fn the_search_ends_after_a_bounded_number_of_hops() {
        let list = |hops: usize| "203.0.113.7".to_owned() + &", 10.0.0.2".repeat(hops);
        assert_eq!(found("10.0.0.1", &[&list(MAX_HOPS - 1)]), "203.0.113.7");
        assert_eq!(found("10.0.0.1", &[&list(MAX_HOPS)]), "10.0.0.2");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..5)) {
            client("10.0.0.1".parse().unwrap(), lines.iter().map(Vec::as_slice), &networks());
        }

        #[test]
        fn the_client_is_the_address_that_the_trusted_proxy_saw(sent in "[ -~]{0,60}", saw: IpAddr) {
            prop_assume!(!within(saw.to_canonical(), &networks()));
            let lines = [sent.clone(), saw.to_string()];
            prop_assert_eq!(found("10.0.0.1", &[&lines[0], &lines[1]]), saw.to_canonical().to_string());
            prop_assert_eq!(found("10.0.0.1", &[&lines.join(", ")]), saw.to_canonical().to_string());
        }
    }
}
