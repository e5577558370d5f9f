//! What a connection's first bytes say it speaks, and a stream that gives them back.
//!
//! Keeps true: the caller can put a deadline on the first bytes, which hyper-util's own detection does not have.
//! Source of the preface: RFC 9113, section 3.4.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Reads until the bytes differ from HTTP/2's preface, or are all of it. They are all put into `bytes`.
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

/// A stream whose first bytes were read already, and are read again.
pub(super) struct FirstBytes<S> {
    bytes: Vec<u8>,
    given: usize,
    stream: S,
}

impl<S> FirstBytes<S> {
    pub(super) fn replay(bytes: Vec<u8>, stream: S) -> FirstBytes<S> {
        FirstBytes { bytes, given: 0, stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstBytes<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = &self.bytes[self.given..];
        if left.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let give = left.len().min(buf.remaining());
        buf.put_slice(&left[..give]);
        self.given += give;
        if self.given == self.bytes.len() {
            // Kept connections live long; the bytes need not.
            self.bytes = Vec::new();
            self.given = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FirstBytes<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FIRST_READ: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    async fn told(chunks: &[&[u8]]) -> io::Result<(Protocol, Vec<u8>)> {
        let mut mock = Chunks(chunks.iter().map(|chunk| chunk.to_vec()).collect());
        let mut bytes = Vec::new();
        let protocol = read(&mut mock, &mut bytes).await?;
        let mut all = Vec::new();
        FirstBytes::replay(bytes, mock).read_to_end(&mut all).await?;
        Ok((protocol, all))
    }

    struct Chunks(std::collections::VecDeque<Vec<u8>>);

    impl AsyncRead for Chunks {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if let Some(chunk) = self.0.pop_front() {
                buf.put_slice(&chunk);
            }
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn tells_the_protocol_and_gives_every_byte_back() {
        let (http1, http2) = (Protocol::Http1, Protocol::Http2);
        assert_eq!(
            told(&[b"POST / HTTP/1.1\r\n", b"\r\n"]).await.unwrap(),
            (http1, b"POST / HTTP/1.1\r\n\r\n".to_vec())
        );
        assert_eq!(told(&[b"P", b"R", b"OPFIND"]).await.unwrap(), (http1, b"PROPFIND".to_vec()));
        let (protocol, bytes) = told(&[&PREFACE[..5], &PREFACE[5..], b"rest"]).await.unwrap();
        assert_eq!((protocol, bytes.len()), (http2, PREFACE.len() + 4));
        assert!(told(&[&PREFACE[..5]]).await.is_err(), "half a preface is nothing");
        assert!(told(&[]).await.is_err());
    }
}
