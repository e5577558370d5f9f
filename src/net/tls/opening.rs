//! A stream that checks its first byte, to detect plain HTTP before TLS answers anything.
//!
//! Keeps true: if a stream begins like HTTP, TLS gets none of its bytes, so that it sends no alert.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::forward::forward_writes;

/// The checked stream.
pub struct HttpDetector<S> {
    stream: S,
    first: FirstByte,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FirstByte {
    Unread,
    Letter,
    Other,
}

impl<S> HttpDetector<S> {
    pub(super) fn of(stream: S) -> HttpDetector<S> {
        HttpDetector { stream, first: FirstByte::Unread }
    }

    pub(super) fn is_http(&self) -> bool {
        self.first == FirstByte::Letter
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HttpDetector<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first == FirstByte::Other {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let Some(first) = buf.filled().get(before) else { return Poll::Ready(Ok(())) };
        // An HTTP method begins with a letter; no type of TLS record does.
        if !first.is_ascii_alphabetic() {
            self.first = FirstByte::Other;
            return Poll::Ready(Ok(()));
        }
        self.first = FirstByte::Letter;
        buf.set_filled(before);
        Poll::Ready(Err(io::ErrorKind::InvalidData.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HttpDetector<S> {
    forward_writes!();
}
