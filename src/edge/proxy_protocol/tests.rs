use proptest::prelude::*;

use super::*;

fn header(len: usize, source: Option<&str>) -> Parsed {
    Parsed::Header { len, source: source.map(|source| source.parse().unwrap()) }
}

/// A version 2 header from its version and command, its family and transport, and its payload.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    [V2_SIGNATURE, &[command, family], &(rest.len() as u16).to_be_bytes(), rest].concat()
}

fn v4(extensions: &[u8]) -> Vec<u8> {
    let addresses = [203, 0, 113, 7, 192, 0, 2, 1, 0xc8, 0x15, 0x01, 0xbb];
    binary(0x21, 0x11, &[&addresses, extensions].concat())
}

fn v6(address: &str) -> Vec<u8> {
    let address: Ipv6Addr = address.parse().unwrap();
    binary(0x21, 0x21, &[&address.octets()[..], &[0; 16], &[0x1f, 0x90, 0, 80]].concat())
}

/// A header with a correct checksum extension in the middle.
fn checked() -> Vec<u8> {
    let mut header = v4(&[4, 0, 1, 0xff, CRC32C, 0, 4, 0, 0, 0, 0, 4, 0, 0]);
    let place = header.len() - 7..header.len() - 3;
    let sum = crc32c(header.iter().copied());
    header[place].copy_from_slice(&sum.to_be_bytes());
    header
}

#[test]
fn version_1_says_who_the_client_is() {
    let good = [
        ("PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\r\n", Some("203.0.113.7:56324")),
        ("PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", Some("0.0.0.0:0")),
        ("PROXY TCP6 2001:db8::7 ::1 56324 443\r\n", Some("[2001:db8::7]:56324")),
        ("PROXY TCP6 ::ffff:203.0.113.7 2001:DB8::1 1 2\r\n", Some("[::ffff:203.0.113.7]:1")),
        (
            "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            Some("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"),
        ),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN 203.0.113.7 and whatever\r\n", None),
        (
            "PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            None,
        ),
    ];
    for (line, source) in good {
        let with_more = format!("{line}POST / HTTP/1.1\r\n");
        assert_eq!(parse(with_more.as_bytes()), header(line.len(), source), "{line}");
        for end in 0..line.len() {
            assert_eq!(parse(&line.as_bytes()[..end]), Parsed::Incomplete, "{end} bytes of {line}");
        }
    }
}

#[test]
fn version_1_is_taken_as_it_is_written_or_not_at_all() {
    let too_long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
    assert_eq!(too_long.len(), V1_MAX + 1);
    let bad = [
        "GET / HTTP/1.1\r\n",
        "PROXYTCP4 203.0.113.7 192.0.2.1 1 2\r\n",
        "proxy TCP4 203.0.113.7 192.0.2.1 1 2\r\n",
        " PROXY TCP4 203.0.113.7 192.0.2.1 1 2\r\n",
        "PROXY \r\n",
        "PROXY\r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 1 2\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 1 2\r\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 1 2 \r\n",
        "PROXY TCP4  203.0.113.7 192.0.2.1 1 2\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 1\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 1 2 3\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 01 2\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 1 00\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 65536 2\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 +1 2\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 -1 2\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1  2\r\n",
        "PROXY TCP4 203.0.113.07 192.0.2.1 1 2\r\n",
        "PROXY TCP4 203.0.113 192.0.2.1 1 2\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.256 1 2\r\n",
        "PROXY TCP4 2001:db8::7 ::1 1 2\r\n",
        "PROXY TCP4 203.0.113.7 ::1 1 2\r\n",
        "PROXY TCP6 203.0.113.7 192.0.2.1 1 2\r\n",
        "PROXY TCP6 2001:db8::7%eth0 ::1 1 2\r\n",
        "PROXY TCP6 [2001:db8::7] ::1 1 2\r\n",
        "PROXY TCP5 203.0.113.7 192.0.2.1 1 2\r\n",
        "PROXY UDP4 203.0.113.7 192.0.2.1 1 2\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY unknown\r\n",
        "PROXY TCP4\t203.0.113.7 192.0.2.1 1 2\r\n",
        "PROXY TCP4 203.0.113.7 192.0.2.1 1 \u{661}\r\n",
        &too_long,
    ];
    for line in bad {
        assert!(matches!(parse(line.as_bytes()), Parsed::Invalid(_)), "{line}");
    }
    assert!(matches!(parse(b"PROXY TCP4 \xff.0.113.7 192.0.2.1 1 2\r\n"), Parsed::Invalid(_)));
    assert!(matches!(parse(&[b"PROXY ", &[b'x'; V1_MAX][..]].concat()), Parsed::Invalid(_)));
}

#[test]
fn version_2_says_who_the_client_is() {
    let unix = binary(0x21, 0x31, &[0; 216]);
    let good = [
        (v4(&[]), Some("203.0.113.7:51221")),
        (v4(&[1, 0, 2, b'h', b'2', 0xe0, 0, 0]), Some("203.0.113.7:51221")),
        (checked(), Some("203.0.113.7:51221")),
        (v6("2001:db8::7"), Some("[2001:db8::7]:8080")),
        // Anything other than TCP over IP keeps the socket's address.
        (unix, None),
        (binary(0x21, 0x32, &[1, 2, 3]), None),
        (binary(0x21, 0x00, &[]), None),
        (binary(0x21, 0x00, b"anything"), None),
        (binary(0x21, 0x12, &[203, 0, 113, 7, 192, 0, 2, 1, 0, 1, 0, 2]), None),
        (binary(0x21, 0x10, &[203, 0, 113, 7, 192, 0, 2, 1, 0, 1, 0, 2]), None),
        // The rest of a LOCAL header is skipped.
        (binary(0x20, 0x00, &[]), None),
        (binary(0x20, 0x11, &[203, 0, 113, 7, 192, 0, 2, 1, 0, 1, 0, 2]), None),
        (binary(0x20, 0xff, b"anything"), None),
        (binary(0x20, 0x00, &[0; MAX_HEADER - V2_FIXED]), None),
    ];
    for (bytes, source) in good {
        let with_more = [&bytes[..], b"POST / HTTP/1.1\r\n"].concat();
        assert_eq!(parse(&with_more), header(bytes.len(), source), "{bytes:?}");
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end]), Parsed::Incomplete, "{end} bytes of {bytes:?}");
        }
    }
}

#[test]
fn version_2_is_taken_as_it_is_written_or_not_at_all() {
    let mut altered = checked();
    altered[V2_FIXED + 3] ^= 1;
    let mut another_signature = v4(&[]);
    another_signature[4] = 1;
    let two_sums = [&[CRC32C, 0, 4, 0, 0, 0, 0][..], &[CRC32C, 0, 4, 0, 0, 0, 0]].concat();
    let bad = [
        altered,
        another_signature,
        binary(0x11, 0x11, &[0; 12]),
        binary(0x31, 0x11, &[0; 12]),
        binary(0x22, 0x11, &[0; 12]),
        binary(0x2f, 0x11, &[0; 12]),
        binary(0x21, 0x13, &[0; 12]),
        binary(0x21, 0x41, &[0; 12]),
        binary(0x21, 0xf0, &[]),
        binary(0x21, 0x11, &[0; 11]),
        binary(0x21, 0x21, &[0; 12]),
        binary(0x21, 0x21, &[0; 35]),
        v4(&[1]),
        v4(&[1, 0]),
        v4(&[1, 0, 1]),
        v4(&[1, 0, 2, b'h']),
        v4(&[1, 0xff, 0xff, b'h']),
        v4(&[CRC32C, 0, 4, 1, 2, 3, 4]),
        v4(&[CRC32C, 0, 3, 1, 2, 3]),
        v4(&two_sums),
        binary(0x21, 0x00, &[0; MAX_HEADER - V2_FIXED + 1]),
        binary(0x20, 0x00, &[0; u16::MAX as usize]),
    ];
    for bytes in bad {
        assert!(matches!(parse(&bytes), Parsed::Invalid(_)), "{bytes:?}");
    }
}

#[test]
fn the_checksum_is_crc32c() {
    // The commonly published CRC-32C of "123456789".
    assert_eq!(crc32c(b"123456789".iter().copied()), 0xe306_9283);
    assert_eq!(crc32c([0; 32].into_iter()), 0x8a91_36aa, "RFC 3720, B.4");
}

/// Bytes that begin like a header, followed by arbitrary bytes.
fn nearly() -> impl Strategy<Value = Vec<u8>> {
    let begin = prop::sample::select(vec![
        Vec::new(),
        b"PROXY TCP4 203.0.113.7 ".to_vec(),
        b"PROXY TCP6 ::1 ".to_vec(),
        V2_SIGNATURE.to_vec(),
        [V2_SIGNATURE, &[0x21, 0x11, 0]].concat(),
        [V2_SIGNATURE, &[0x21, 0x21, 0]].concat(),
    ]);
    (begin, prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(begin, rest)| [begin, rest].concat())
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_and_every_prefix_of_a_header_waits_for_the_rest(bytes in nearly()) {
        match parse(&bytes) {
            Parsed::Header { len, source } => {
                prop_assert!(len <= bytes.len() && len <= MAX_HEADER);
                for end in 0..len {
                    prop_assert_eq!(parse(&bytes[..end]), Parsed::Incomplete);
                }
                for end in len..bytes.len() {
                    prop_assert_eq!(parse(&bytes[..end]), Parsed::Header { len, source });
                }
            }
            Parsed::Incomplete => {
                for end in 0..bytes.len() {
                    prop_assert_eq!(parse(&bytes[..end]), Parsed::Incomplete);
                }
            }
            Parsed::Invalid(_) => {}
        }
    }

    #[test]
    fn enough_bytes_are_always_told_apart(length in MAX_HEADER..MAX_HEADER + 9, mut bytes in nearly()) {
        bytes.resize(length, b' ');
        prop_assert_ne!(parse(&bytes), Parsed::Incomplete);
    }

    #[test]
    fn every_address_that_a_proxy_can_tell_is_read_back(address: IpAddr, port: u16) {
        let family = if address.is_ipv4() { "TCP4" } else { "TCP6" };
        let line = format!("PROXY {family} {address} {address} {port} 443\r\n");
        let source = Some(SocketAddr::new(address, port));
        prop_assert_eq!(parse(line.as_bytes()), Parsed::Header { len: line.len(), source });
        let (family, octets) = match address {
            IpAddr::V4(address) => (0x11, address.octets().to_vec()),
            IpAddr::V6(address) => (0x21, address.octets().to_vec()),
        };
        let bytes = binary(0x21, family, &[&octets[..], &octets, &port.to_be_bytes(), &[0, 80]].concat());
        prop_assert_eq!(parse(&bytes), Parsed::Header { len: bytes.len(), source });
    }
}
