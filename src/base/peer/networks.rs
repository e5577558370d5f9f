//! IP networks, as the config and `audit query` write them.
//!
//! Keeps true: an IPv4-mapped IPv6 network (RFC 4291, section 2.5.5.2) is treated as the IPv4 network, because it would
//! match nothing otherwise.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

/// A network of IPv4 or IPv6 addresses. An IPv6 network holds no IPv4 address, not even `::/0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

/// Why a text is not a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// The text is neither an address nor an address with a prefix length.
    #[error("not an IP address or network")]
    Malformed,
    /// The network is wider than the range of IPv4-mapped addresses, so it would hold other addresses than the text
    /// suggests.
    #[error("a prefix under 96 holds more than IPv4-mapped addresses; write 0.0.0.0/0 for all of IPv4")]
    TooWide,
}

impl Network {
    /// Whether the network holds an address. An IPv4-mapped IPv6 address counts as the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    /// Parses `203.0.113.0/24`, or a single address.
    fn from_str(text: &str) -> Result<Network, NetworkError> {
        let network: Result<IpNet, _> = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        match network.map_err(|_| NetworkError::Malformed)? {
            IpNet::V6(network) => match network.addr().to_ipv4_mapped() {
                Some(address) => mapped(address, network.prefix_len()),
                None => Ok(Network(network.into())),
            },
            IpNet::V4(network) => Ok(Network(network.into())),
        }
    }
}

fn mapped(address: Ipv4Addr, prefix: u8) -> Result<Network, NetworkError> {
    let prefix = prefix.checked_sub(MAPPED_PREFIX).ok_or(NetworkError::TooWide)?;
    Ipv4Net::new(address, prefix).map(|network| Network(network.into())).map_err(|_| NetworkError::Malformed)
}

impl fmt::Display for Network {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

/// Whether an address is in one of these networks.
pub fn within(address: IpAddr, networks: &[Network]) -> bool {
    networks.iter().any(|network| network.contains(address))
}

/// Whether these networks together cover all of IPv4 or all of IPv6.
pub fn covers_all(networks: &[Network]) -> bool {
    let networks: Vec<IpNet> = networks.iter().map(|network| network.0).collect();
    IpNet::aggregate(&networks).iter().any(|network| network.prefix_len() == 0)
}

/// The prefix length of the range of IPv4-mapped addresses.
const MAPPED_PREFIX: u8 = 96;

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn an_ipv4_mapped_network_is_the_ipv4_network_that_it_maps() {
        for (written, meant) in [
            ("::ffff:127.0.0.1", "127.0.0.1/32"),
            ("::ffff:127.0.0.1/128", "127.0.0.1/32"),
            ("::FFFF:7f00:1", "127.0.0.1/32"),
            ("0:0:0:0:0:ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3/104", "10.1.2.3/8"),
            ("::ffff:203.0.113.128/121", "203.0.113.128/25"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:192.0.2.1/96", "192.0.2.1/0"),
        ] {
            assert_eq!(written.parse::<Network>().unwrap().to_string(), meant, "{written}");
        }
        let inside = |network: &str, address: &str| within(address.parse().unwrap(), &networks(&[network]));
        for address in ["10.9.8.7", "::ffff:10.9.8.7"] {
            assert!(inside("::ffff:10.0.0.0/104", address) && inside("10.0.0.0/8", address), "{address}");
            assert!(inside("::ffff:0:0/96", address) && !inside("::ffff:11.0.0.0/104", address), "{address}");
        }
        assert!(!inside("::ffff:0:0/96", "2001:db8::1") && !inside("::ffff:127.0.0.1", "::1"));
    }

    #[test]
    fn other_ipv6_networks_hold_no_ipv4_address() {
        for network in ["::/0", "::/64", "::/8", "::1", "::127.0.0.1", "64:ff9b::/96", "::fffe:0:0/95"] {
            let network = networks(&[network]);
            assert!(!within([127, 0, 0, 1].into(), &network), "{network:?}");
        }
        assert!(within("::1".parse().unwrap(), &networks(&["::/8"])));
        for wide in ["::ffff:0:0/95", "::ffff:0:0/90", "::ffff:127.0.0.1/0", "::ffff:10.0.0.0/8"] {
            assert_eq!(wide.parse::<Network>(), Err(NetworkError::TooWide), "{wide}");
        }
        for none in ["", "localhost", "10.0.0.0/33", "::ffff:10.0.0.0/129", "10.0.0/8", "fe80::1%2", " ::1"] {
            assert_eq!(none.parse::<Network>(), Err(NetworkError::Malformed), "{none}");
        }
    }

    #[test]
    fn one_network_or_several_can_cover_all_addresses() {
        let covers_all = |texts: &[&str]| covers_all(&networks(texts));
        assert!(covers_all(&["0.0.0.0/0"]) && covers_all(&["10.0.0.0/8", "::/0"]));
        assert!(covers_all(&["128.0.0.0/1", "0.0.0.0/2", "64.0.0.0/2"]));
        assert!(covers_all(&["::ffff:0:0/96"]) && covers_all(&["::ffff:0.0.0.0/97", "::ffff:128.0.0.0/97"]));
        assert!(covers_all(&["::ffff:0.0.0.0/97", "128.0.0.0/1"]));
        assert!(!covers_all(&[]) && !covers_all(&["0.0.0.0/1", "::/1", "::ffff:0.0.0.0/97"]));
    }
}
