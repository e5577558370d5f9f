//! Tells HTTP/1.x from HTTP/2 by a connection's first bytes.
//!
//! Keeps true: the caller can set a deadline for the first bytes. hyper-util's own detection has none.
//! Source of the preface: RFC 9113, section 3.4.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Reads until the bytes differ from the HTTP/2 preface or complete it. `bytes` gets everything that was read.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> io::Result<Protocol> {
    bytes.reserve(FIRST_READ);
    loop {
        if stream.read_buf(bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let shared = bytes.iter().zip(PREFACE).take_while(|(sent, preface)| sent == preface).count();
        if shared == PREFACE.len() {
            return Ok(Protocol::Http2);
        }
        if shared < bytes.len() {
            return Ok(Protocol::Http1);
        }
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FIRST_READ: usize = 4096;

#[cfg(test)]
mod tests {
    use super::super::tests::Pieces;
    use super::*;

    async fn detect(pieces: &[&[u8]]) -> io::Result<(Protocol, Vec<u8>)> {
        let mut bytes = Vec::new();
        let pieces = pieces.iter().map(|piece| piece.to_vec()).collect();
        Ok((read(&mut Pieces(pieces, true), &mut bytes).await?, bytes))
    }

    #[tokio::test]
    async fn tells_the_protocol_and_keeps_every_byte() {
        let (http1, http2) = (Protocol::Http1, Protocol::Http2);
        let whole = |protocol, bytes: &[u8]| (protocol, bytes.to_vec());
        assert_eq!(
            detect(&[b"POST / HTTP/1.1\r\n", b"\r\n"]).await.unwrap(),
            whole(http1, b"POST / HTTP/1.1\r\n")
        );
        assert_eq!(detect(&[b"P", b"R", b"OPFIND"]).await.unwrap(), whole(http1, b"PROPFIND"));
        let more = [&PREFACE[5..], b"rest"].concat();
        assert_eq!(
            detect(&[&PREFACE[..5], &more]).await.unwrap(),
            whole(http2, &[PREFACE, b"rest"].concat())
        );
        assert!(detect(&[&PREFACE[..5]]).await.is_err(), "part of a preface is neither protocol");
        assert!(detect(&[]).await.is_err());
    }
}
