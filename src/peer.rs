//! Who is at the other end of a connection: an address, and the names that its certificate vouches for.
//!
//! Keeps true: an address is the socket's own unless a proxy that the config trusts has said another; a pattern for one kind of
//! name never matches a name of another kind.

pub mod forwarded;
mod networks;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use networks::{Network, NoNetwork, everybody, within};

/// The client of a connection, or of one request on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address; an IPv4 one is never written as IPv6.
    pub address: IpAddr,
    /// What its verified certificate says, where it showed one.
    pub certificate: Option<Arc<Certificate>>,
    /// A trusted proxy has passed the connection on without naming the client. The address is the proxy's. A header that names
    /// another comes from the unknown client itself, and is not believed.
    pub hidden: bool,
}

impl Peer {
    /// A client of which nothing but the address is known.
    pub fn at(address: IpAddr) -> Peer {
        Peer { address: address.to_canonical(), certificate: None, hidden: false }
    }
}

/// A client as it is counted: an IPv4 address, or the network of an IPv6 one. Whoever has one of its addresses has them all.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK).into(),
        address => address,
    }
}

/// The names in a verified certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The subject, as RFC 4514 writes it: `CN=sender,O=Example`.
    pub subject: String,
    /// The common names in it alone.
    pub common_names: Vec<String>,
    /// The alternative names.
    pub names: Vec<Name>,
}

/// An alternative name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Name {
    /// A host's.
    Dns(String),
    /// An address.
    Address(IpAddr),
    /// An e-mail address.
    Email(String),
    /// A URI.
    Uri(String),
}

impl Certificate {
    /// Whether any of the names looks like `pattern`, in which `*` stands for any text; in the name of a host, and in a common
    /// name, which mostly is one, for text without a dot, and case is not heeded there. A pattern with a `=` may be a subject's:
    /// part by part, where `*` alone stands for any number of parts. One with an `@` may be an e-mail address', one with a `:` a
    /// URI's. `*` alone matches whoever has a certificate.
    pub fn matches(&self, pattern: &str) -> bool {
        let name = |name: &Name| match name {
            Name::Dns(host) => host_like(pattern, host),
            Name::Address(address) => host_like(pattern, &address.to_canonical().to_string()),
            Name::Email(address) => pattern.contains('@') && like(pattern, address),
            Name::Uri(uri) => pattern.contains(':') && like(pattern, uri),
        };
        pattern == "*"
            || pattern.contains('=') && subject_like(&parts(pattern), &parts(&self.subject))
            || self.common_names.iter().any(|common| host_like(pattern, common))
            || self.names.iter().any(name)
    }
}

/// A subject's attributes, which commas and plus signs separate that are not escaped.
fn parts(subject: &str) -> Vec<&str> {
    let (mut parts, mut begin, mut escaped) = (Vec::new(), 0, false);
    for (at, byte) in subject.bytes().enumerate() {
        if b",+".contains(&byte) && !escaped {
            parts.push(&subject[begin..at]);
            begin = at + 1;
        }
        escaped = byte == b'\\' && !escaped;
    }
    parts.push(&subject[begin..]);
    parts
}

/// Part by part: whoever may choose one part must not be taken for who has another.
fn subject_like(pattern: &[&str], subject: &[&str]) -> bool {
    match (pattern, subject) {
        ([], []) => true,
        (["*", rest @ ..], _) => (0..=subject.len()).any(|skipped| subject_like(rest, &subject[skipped..])),
        ([first, rest @ ..], [part, others @ ..]) => part_like(first, part) && subject_like(rest, others),
        _ => false,
    }
}

fn part_like(pattern: &str, part: &str) -> bool {
    match (pattern.strip_prefix(COMMON_NAME), part.strip_prefix(COMMON_NAME)) {
        (Some("*"), Some(_)) => true,
        (Some(pattern), Some(name)) => host_like(pattern, name),
        _ => like(pattern, part),
    }
}

/// Label by label, since no `*` crosses a dot.
fn host_like(pattern: &str, host: &str) -> bool {
    let (pattern, host) = (pattern.to_ascii_lowercase(), host.to_ascii_lowercase());
    let labels = || pattern.split('.').zip(host.split('.'));
    pattern.split('.').count() == host.split('.').count()
        && labels().all(|(pattern, label)| like(pattern, label))
}

fn like(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    let Some(between) = rest.strip_suffix(last) else { return false };
    rest = between;
    // The earliest place for each part leaves the most for those after it.
    parts.all(|part| match rest.split_once(part) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

const COMMON_NAME: &str = "CN=";
/// The first 64 bits: a /64 is the smallest network that anybody is given.
const NETWORK: u128 = u128::MAX << 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_addresses_is_one_client() {
        let same = |a: &str, b: &str| network(a.parse().unwrap()) == network(b.parse().unwrap());
        assert!(same("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert!(!same("2001:db8:1:2::1", "2001:db8:1:3::1"));
        assert!(!same("203.0.113.1", "203.0.113.2"));
        assert!(same("203.0.113.1", "::ffff:203.0.113.1"));
        assert!(!same("::ffff:203.0.113.1", "::ffff:203.0.113.2"));
    }

    fn certificate() -> Certificate {
        Certificate {
            subject: "CN=sender.basiq.io,O=Acme\\, Inc.,DC=evil.com".to_owned(),
            common_names: vec!["sender.basiq.io".to_owned()],
            names: vec![
                Name::Dns("Hooks.EU.basiq.io".to_owned()),
                Name::Address([203, 0, 113, 7].into()),
                Name::Email("hooks@mail.acme.com".to_owned()),
                Name::Uri("spiffe://acme.com/prod/hooks".to_owned()),
            ],
        }
    }

    #[test]
    fn a_star_crosses_no_dot_in_a_host_and_anything_elsewhere() {
        for pattern in [
            "*",
            "sender.basiq.io",
            "SENDER.*.io",
            "*.basiq.io",
            "hooks.eu.basiq.io",
            "h*s.e*u.basiq.io",
            "*.*.basiq.io",
            "203.0.113.7",
            "203.0.113.*",
            "hooks@mail.acme.com",
            "*@mail.acme.com",
            "*@*.com",
            "spiffe://acme.com/prod/hooks",
            "spiffe://*/hooks",
            "spiffe://*",
            "CN=sender.basiq.io,*",
            "CN=SENDER.*.io,*",
            "CN=*,*",
            "*,O=Acme\\, Inc.,*",
            "*,O=Acme*,DC=evil.com",
            "*,CN=*.basiq.io,*,DC=*",
        ] {
            assert!(certificate().matches(pattern), "{pattern}");
        }
        for pattern in [
            "",
            "**.example",
            "basiq.io",
            "*.io",
            "*.eu.basiq.com",
            "*.com",
            "*hooks",
            "*evil.com",
            "acme.com",
            "*acme.com",
            "203.0.*",
            "cn=sender.basiq.io,*",
            "CN=*",
            "CN=*.com",
            "CN=*.io,*",
            "CN=sender.basiq.io*",
            "*O=Acme\\, Inc.,*",
            "O=*,*",
            "CN=sender.basiq.io,O=Acme\\,*",
            "O=Acme*",
            "CN=sender.basiq.io",
            "HOOKS@mail.acme.com",
            "spiffe://acme.com",
            "https://*",
        ] {
            assert!(!certificate().matches(pattern), "{pattern}");
        }
        assert!(!Certificate::default().matches(""), "a certificate without names is nobody's");
        assert!(Certificate::default().matches("*"));
    }

    #[test]
    fn parts_are_found_in_order_and_not_twice() {
        for (pattern, text, matches) in [
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
            ("*b*", "b", true),
            ("**", "", true),
            ("é*", "éa", true),
        ] {
            assert_eq!(like(pattern, text), matches, "{pattern} {text}");
        }
    }
}
