//! The PROXY protocol, versions 1 and 2: the header in which a proxy says whose connection it passes on.
//!
//! Keeps true: of a connection the header's bytes are read and not one more; a header is taken whole or not at all; no header
//! is longer than [`MAX_HEADER`]; a checksum that is there is right.
//! Source of the rules: HAProxy's `proxy-protocol.txt`, sections 2.1 and 2.2; of the checksum: RFC 9260, appendix A.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// What a connection's first bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// All of them may be a header's, and more are needed to tell.
    Incomplete,
    /// No header, however they go on. Why.
    Invalid(&'static str),
    /// A header.
    Header {
        /// Bytes.
        len: usize,
        /// The client's address. None where the proxy speaks for itself (LOCAL), or where the connection is not TCP over IP
        /// (UNKNOWN, UNSPEC, UNIX, datagrams). Version 1 writes UNKNOWN for both, so both are taken alike: the client is then the
        /// proxy, and its X-Forwarded-For is not read.
        source: Option<SocketAddr>,
    },
}

/// Reads a header from a connection's first bytes. Of [`MAX_HEADER`] bytes it always knows what they are.
pub fn parse(bytes: &[u8]) -> Parsed {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(is, ought)| is == ought);
    if begins(V2_SIGNATURE) {
        v2(bytes)
    } else if begins(V1_PREFIX) {
        v1(bytes)
    } else {
        Parsed::Invalid("the connection does not begin with one")
    }
}

/// What a connection began with.
pub(super) enum Begun {
    /// A header, and where it says that the connection comes from.
    Header(Option<SocketAddr>),
    /// Something else. Nothing is known of how much of it was read.
    Invalid(&'static str),
    /// The client went away before it had said anything whole.
    Gone,
}

/// Reads the header, and nothing of what follows it.
pub(super) async fn read(stream: &mut TcpStream) -> Begun {
    let mut bytes = vec![0; MAX_HEADER];
    let mut read = 0;
    loop {
        let more = match stream.peek(&mut bytes[read..]).await {
            Ok(more @ 1..) => more,
            Ok(0) | Err(_) => return Begun::Gone,
        };
        let (until, begun) = match parse(&bytes[..read + more]) {
            // They are the header's, whatever comes. Left where they are they would be seen again at once, over and over.
            Parsed::Incomplete => (read + more, None),
            Parsed::Invalid(why) => return Begun::Invalid(why),
            Parsed::Header { len, source } => (len, Some(Begun::Header(source))),
        };
        if stream.read_exact(&mut bytes[read..until]).await.is_err() {
            return Begun::Gone;
        }
        if let Some(begun) = begun {
            return begun;
        }
        read = until;
    }
}

fn v1(bytes: &[u8]) -> Parsed {
    let line = &bytes[..bytes.len().min(V1_MAX)];
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        return if line.len() < V1_MAX {
            Parsed::Incomplete
        } else {
            Parsed::Invalid("version 1: the line is over 107 bytes")
        };
    };
    let told = line[..end].strip_suffix(b"\r").and_then(|line| line.strip_prefix(V1_PREFIX));
    match told.ok_or("version 1: the line does not end in CRLF").and_then(v1_source) {
        Ok(source) => Parsed::Header { len: end + 1, source },
        Err(why) => Parsed::Invalid(why),
    }
}

/// The source in a version 1 line, given without its first word and its end.
fn v1_source(line: &[u8]) -> Result<Option<SocketAddr>, &'static str> {
    // Whatever else a proxy says of a connection that it does not know is to be ignored.
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Ok(None);
    }
    let line = str::from_utf8(line).map_err(|_| "version 1: the line is not ASCII")?;
    let (family, rest) = line.split_once(' ').unwrap_or((line, ""));
    let address: fn(&str) -> Option<IpAddr> = match family {
        "TCP4" => |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::from),
        "TCP6" => |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        _ => return Err("version 1: the family is neither TCP4, TCP6 nor UNKNOWN"),
    };
    let mut fields = rest.split(' ');
    let (Some(source), Some(destination), Some(port), Some(destination_port), None) =
        (fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err("version 1: not two addresses and two ports with one space between them");
    };
    let (Some(source), Some(_)) = (address(source), address(destination)) else {
        return Err("version 1: an address is none of its family");
    };
    let (Some(port), Some(_)) = (v1_port(port), v1_port(destination_port)) else {
        return Err("version 1: a port is no number up to 65535 without leading zeros");
    };
    Ok(Some(SocketAddr::new(source, port)))
}

fn v1_port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

fn v2(bytes: &[u8]) -> Parsed {
    let Some((fixed, _)) = bytes.split_first_chunk::<V2_FIXED>() else { return Parsed::Incomplete };
    let [.., version_and_command, family, high, low] = *fixed;
    let len = V2_FIXED + usize::from(u16::from_be_bytes([high, low]));
    if version_and_command >> 4 != 2 {
        return Parsed::Invalid("the binary header's version is not 2");
    }
    if len > MAX_HEADER {
        return Parsed::Invalid("version 2: the header is over 4096 bytes");
    }
    let Some(header) = bytes.get(..len) else { return Parsed::Incomplete };
    let source = match version_and_command & 0xf {
        // LOCAL: the proxy's own connection, such as a health check. The rest is to be skipped, the family too.
        0 => Ok(None),
        1 => v2_source(header, family),
        _ => Err("version 2: the command is neither LOCAL nor PROXY"),
    };
    match source {
        Ok(source) => Parsed::Header { len, source },
        Err(why) => Parsed::Invalid(why),
    }
}

/// The source in a whole version 2 header.
fn v2_source(header: &[u8], family: u8) -> Result<Option<SocketAddr>, &'static str> {
    let short = "version 2: the header is shorter than its addresses";
    let after = &header[V2_FIXED..];
    let (source, extensions) = match (family >> 4, family & 0xf) {
        (INET, STREAM) => {
            let ([a, b, c, d, _, _, _, _, high, low, _, _], rest) =
                after.split_first_chunk::<12>().ok_or(short)?;
            (SocketAddr::from(([*a, *b, *c, *d], u16::from_be_bytes([*high, *low]))), rest)
        }
        (INET6, STREAM) => {
            let (address, rest) = after.split_first_chunk::<16>().ok_or(short)?;
            let ([.., high, low, _, _], rest) = rest.split_first_chunk::<20>().ok_or(short)?;
            (SocketAddr::from((*address, u16::from_be_bytes([*high, *low]))), rest)
        }
        (..=UNIX, ..=DATAGRAM) => return Ok(None),
        _ => return Err("version 2: the family or the transport is none that version 2 knows"),
    };
    check_extensions(header, header.len() - extensions.len())?;
    Ok(Some(source))
}

/// Walks the extensions, which begin `at` that byte, and checks the header's checksum where one of them is that.
fn check_extensions(header: &[u8], mut at: usize) -> Result<(), &'static str> {
    let mut checksum = None;
    while let Some(extension) = header.get(at..).filter(|left| !left.is_empty()) {
        let cut = "version 2: an extension goes beyond the header's end";
        let [kind, high, low] = *extension.first_chunk().ok_or(cut)?;
        let value = at + 3..at + 3 + usize::from(u16::from_be_bytes([high, low]));
        let told = header.get(value.clone()).ok_or(cut)?;
        at = value.end;
        if kind == CRC32C {
            let told = <[u8; 4]>::try_from(told).map_err(|_| "version 2: the checksum is not 4 bytes")?;
            if checksum.replace((value, u32::from_be_bytes(told))).is_some() {
                return Err("version 2: there are two checksums");
            }
        }
    }
    let Some((place, told)) = checksum else { return Ok(()) };
    let bytes = header.iter().enumerate().map(|(at, byte)| if place.contains(&at) { 0 } else { *byte });
    if crc32c(bytes) == told { Ok(()) } else { Err("version 2: the checksum is wrong") }
}

/// Bit by bit: a header is short and comes once a connection.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    let crc = bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { CASTAGNOLI } else { 0 })
    });
    !crc
}

/// Bytes. Addresses take 232 at most; what a proxy tells besides (host names, certificate names) is much shorter than the rest.
pub const MAX_HEADER: usize = 4096;
const V1_PREFIX: &[u8] = b"PROXY ";
const V1_MAX: usize = 107;
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length.
const V2_FIXED: usize = 16;
const INET: u8 = 1;
const INET6: u8 = 2;
const UNIX: u8 = 3;
const STREAM: u8 = 1;
const DATAGRAM: u8 = 2;
const CRC32C: u8 = 3;
/// The polynomial, its bits in the order in which they come.
const CASTAGNOLI: u32 = 0x82f6_3b78;

#[cfg(test)]
mod tests;
