//! The client of a connection: its address, and the names in its certificate.
//!
//! Keeps true: the address is the socket's, unless a trusted proxy supplied another. A certificate's name must match
//! entirely; only a leading `*.` stands for one label of a host.

pub mod forwarded;
mod networks;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use networks::{Network, NetworkError, covers_all, within};

/// The client of a connection, or of one request on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address, never an IPv4-mapped IPv6 address.
    pub address: IpAddr,
    /// Its verified certificate, if it showed one.
    pub certificate: Option<Arc<Certificate>>,
    /// Whether a trusted proxy forwarded the connection without naming the client. `address` is then the proxy's, and
    /// X-Forwarded-For is ignored, because the unknown client itself may have written it.
    pub client_unknown: bool,
}

impl Peer {
    /// A client with only a known address.
    pub fn at(address: IpAddr) -> Peer {
        Peer { address: address.to_canonical(), certificate: None, client_unknown: false }
    }
}

/// The network that counts as one client: a single IPv4 address, or the /64 of an IPv6 address, since one host usually
/// has all of its addresses.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK).into(),
        address => address,
    }
}

/// The names in a verified certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The subject in the format of RFC 4514, such as `CN=sender,O=Example`.
    pub subject: String,
    /// The common names in the subject.
    pub common_names: Vec<String>,
    /// The alternative names.
    pub names: Vec<Name>,
}

/// An alternative name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Name {
    /// A host name.
    Dns(String),
    /// An IP address.
    Address(IpAddr),
    /// An e-mail address.
    Email(String),
    /// A URI.
    Uri(String),
}

impl Certificate {
    /// The forms that [`Certificate::matches`] accepts, for error texts.
    pub const EXPECTED: &str = "a name in the certificate (host, address, e-mail address or URI), *.DOMAIN for a host one \
        label below DOMAIN, or the whole subject such as CN=sender,O=Example";

    /// Whether `expected` has a form that [`Certificate::matches`] accepts.
    pub fn can_match(expected: &str) -> bool {
        let name = expected.strip_prefix("*.").unwrap_or(expected);
        let of_hosts = name.len() < expected.len();
        !(name.is_empty() || name.contains('*') || of_hosts && name.contains(['=', '@', ':', '/']))
    }

    /// Whether `expected` equals the subject or one of the names. Host names and common names are compared without
    /// case, and a leading `*.` in `expected` stands for one label.
    pub fn matches(&self, expected: &str) -> bool {
        let name = |name: &Name| match name {
            Name::Dns(host) => is_host(expected, host),
            Name::Address(address) => expected
                .parse()
                .is_ok_and(|expected: IpAddr| expected.to_canonical() == address.to_canonical()),
            Name::Email(name) | Name::Uri(name) => expected == name,
        };
        Certificate::can_match(expected)
            && (expected == self.subject
                || self.common_names.iter().any(|common| is_host(expected, common))
                || self.names.iter().any(name))
    }
}

fn is_host(expected: &str, host: &str) -> bool {
    let (expected, host) = match expected.strip_prefix("*.") {
        Some(domain) => (domain, host.split_once('.').map_or("", |(_, domain)| domain)),
        None => (expected, host),
    };
    expected.eq_ignore_ascii_case(host)
}

/// The first 64 bits. A /64 is the smallest network that providers assign.
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
    fn a_name_matches_whole_or_by_the_domain_of_its_host() {
        for expected in [
            "sender.basiq.io",
            "SENDER.basiq.io",
            "*.basiq.io",
            "*.eu.BASIQ.io",
            "hooks.eu.basiq.io",
            "203.0.113.7",
            "::ffff:203.0.113.7",
            "hooks@mail.acme.com",
            "spiffe://acme.com/prod/hooks",
            "CN=sender.basiq.io,O=Acme\\, Inc.,DC=evil.com",
        ] {
            assert!(Certificate::can_match(expected) && certificate().matches(expected), "{expected}");
        }
        for expected in [
            "basiq.io",
            "*.io",
            "*.com",
            "*.sender.basiq.io",
            "evil.com",
            "acme.com",
            "*.acme.com",
            "*.0.113.7",
            "203.0.113.70",
            "CN=sender.basiq.io",
            "O=Acme\\, Inc.",
            "CN=sender.basiq.io,O=Acme",
            "HOOKS@mail.acme.com",
            "mail.acme.com",
            "spiffe://acme.com",
            "spiffe://acme.com/prod",
        ] {
            assert!(Certificate::can_match(expected) && !certificate().matches(expected), "{expected}");
        }
    }

    #[test]
    fn anything_but_a_name_a_domain_and_a_subject_is_no_kind_of_name() {
        let odd = Certificate {
            names: vec![Name::Dns("*".to_owned()), Name::Dns(".".to_owned())],
            ..Certificate::default()
        };
        for expected in [
            "",
            "*",
            "*.",
            "**",
            "*.*.basiq.io",
            "*basiq.io",
            "sender.*.io",
            "203.0.113.*",
            "*@mail.acme.com",
            "*.acme@mail.com",
            "spiffe://*",
            "*.://acme.com",
            "CN=*.basiq.io",
            "CN=sender.basiq.io,*",
            "*.basiq.io,O=Acme",
        ] {
            assert!(!Certificate::can_match(expected), "{expected}");
            assert!(!certificate().matches(expected) && !odd.matches(expected), "{expected}");
        }
    }
}
