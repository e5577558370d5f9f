//! The PROXY protocol, versions 1 and 2: a header in which a proxy names the client of the connection that it forwards.
//!
//! Keeps true: not one byte beyond the header is read; an incomplete header is never used; no header is longer than
//! [`MAX_HEADER`]; a checksum, if present, is correct.
//! Source of the rules: HAProxy's `proxy-protocol.txt`, sections 2.1 and 2.2; of the checksum: RFC 9260, appendix A.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// The result of parsing a connection's first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// They may begin a header; more bytes are needed.
    Incomplete,
    /// They cannot begin a header, for this reason.
    Invalid(&'static str),
    /// A complete header.
    Header {
        /// Its length in bytes.
        len: usize,
        /// The client's address. None for the proxy's own connection (LOCAL) and for anything but TCP over IP (UNKNOWN,
        /// UNSPEC, UNIX, datagrams). Version 1 writes UNKNOWN for both, so both are treated alike: the client address
        /// is the proxy's, and X-Forwarded-For is ignored.
        source: Option<SocketAddr>,
    },
}

/// Parses a header from a connection's first bytes. The result for [`MAX_HEADER`] bytes is never `Incomplete`.
pub fn parse(bytes: &[u8]) -> Parsed {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(is, ought)| is == ought);
    if begins(V2_SIGNATURE) {
        v2(bytes)
    } else if begins(V1_PREFIX) {
        v1(bytes)
    } else {
        Parsed::Invalid("the connection begins with other bytes")
    }
}

/// The result of [`read`].
pub(super) enum HeaderRead {
    /// A header, and the client's address in it.
    Header(Option<SocketAddr>),
    /// No header, for this reason. Some of the bytes may have been read.
    Invalid(&'static str),
    /// The connection closed before the header was complete.
    Gone,
}

/// Reads the header, and no byte after it.
pub(super) async fn read(stream: &mut TcpStream) -> HeaderRead {
    let mut bytes = vec![0; MAX_HEADER];
    let mut read = 0;
    loop {
        let more = match stream.peek(&mut bytes[read..]).await {
            Ok(more @ 1..) => more,
            Ok(0) | Err(_) => return HeaderRead::Gone,
        };
        let (until, read_result) = match parse(&bytes[..read + more]) {
            // All these bytes belong to the header. Peeking returns unread bytes again at once, which would be a busy
            // loop.
            Parsed::Incomplete => (read + more, None),
            Parsed::Invalid(why) => return HeaderRead::Invalid(why),
            Parsed::Header { len, source } => (len, Some(HeaderRead::Header(source))),
        };
        if stream.read_exact(&mut bytes[read..until]).await.is_err() {
            return HeaderRead::Gone;
        }
        if let Some(read_result) = read_result {
            return read_result;
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
    let line = line[..end].strip_suffix(b"\r").and_then(|line| line.strip_prefix(V1_PREFIX));
    match line.ok_or("version 1: the line does not end in CRLF").and_then(v1_source) {
        Ok(source) => Parsed::Header { len: end + 1, source },
        Err(why) => Parsed::Invalid(why),
    }
}

/// The source in a version 1 line, without the prefix and the line end.
fn v1_source(line: &[u8]) -> Result<Option<SocketAddr>, &'static str> {
    // Everything after UNKNOWN is to be ignored.
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
        return Err("version 1: not two addresses and two ports separated by single spaces");
    };
    let (Some(source), Some(_)) = (address(source), address(destination)) else {
        return Err("version 1: an address does not match the family");
    };
    let (Some(port), Some(_)) = (v1_port(port), v1_port(destination_port)) else {
        return Err("version 1: a port is not a number up to 65535 without leading zeros");
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
        // LOCAL is the proxy's own connection, such as a health check. The family and the rest are to be skipped.
        0 => Ok(None),
        1 => v2_source(header, family),
        _ => Err("version 2: the command is neither LOCAL nor PROXY"),
    };
    match source {
        Ok(source) => Parsed::Header { len, source },
        Err(why) => Parsed::Invalid(why),
    }
}

/// The source in a complete version 2 header.
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
        _ => return Err("version 2: the family or the transport is unknown"),
    };
    check_extensions(header, header.len() - extensions.len())?;
    Ok(Some(source))
}

/// Walks the extensions, which begin at byte `at`, and verifies the checksum if one of them is a checksum.
fn check_extensions(header: &[u8], mut at: usize) -> Result<(), &'static str> {
    let mut checksum = None;
    while let Some(extension) = header.get(at..).filter(|left| !left.is_empty()) {
        let cut = "version 2: an extension goes beyond the header's end";
        let [kind, high, low] = *extension.first_chunk().ok_or(cut)?;
        let value = at + 3..at + 3 + usize::from(u16::from_be_bytes([high, low]));
        let value_bytes = header.get(value.clone()).ok_or(cut)?;
        at = value.end;
        if kind == CRC32C {
            let value_bytes =
                <[u8; 4]>::try_from(value_bytes).map_err(|_| "version 2: the checksum is not 4 bytes")?;
            if checksum.replace((value, u32::from_be_bytes(value_bytes))).is_some() {
                return Err("version 2: there are two checksums");
            }
        }
    }
    let Some((range, expected)) = checksum else { return Ok(()) };
    let bytes = header.iter().enumerate().map(|(at, byte)| if range.contains(&at) { 0 } else { *byte });
    if crc32c(bytes) == expected { Ok(()) } else { Err("version 2: the checksum is wrong") }
}

/// Works bit by bit, which is fast enough for one short header for each connection.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    let crc = bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { CASTAGNOLI } else { 0 })
    });
    !crc
}

/// Bytes. Addresses take 232 bytes at most, which leaves ample room for extensions such as host and certificate names.
pub const MAX_HEADER: usize = 4096;
const V1_PREFIX: &[u8] = b"PROXY ";
const V1_MAX: usize = 107;
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of the signature, version and command, family and transport, and length.
const V2_FIXED: usize = 16;
const INET: u8 = 1;
const INET6: u8 = 2;
const UNIX: u8 = 3;
const STREAM: u8 = 1;
const DATAGRAM: u8 = 2;
const CRC32C: u8 = 3;
/// The CRC-32C polynomial, bit-reversed.
const CASTAGNOLI: u32 = 0x82f6_3b78;

#[cfg(test)]
mod tests;
