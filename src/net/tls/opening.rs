//! A stream that looks at its own first byte, to tell plain HTTP from TLS before anything is answered in TLS.
//!
//! Keeps true: of a stream that begins like HTTP nothing is given on, so that TLS has nothing to answer with an alert.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::forward::forward_writes;

/// The stream.
pub struct Opening<S> {
    stream: S,
    begins: Begins,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Begins {
    NotYet,
    LikeHttp,
    Otherwise,
}

impl<S> Opening<S> {
    pub(super) fn of(stream: S) -> Opening<S> {
        Opening { stream, begins: Begins::NotYet }
    }

    pub(super) fn is_http(&self) -> bool {
        self.begins == Begins::LikeHttp
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Opening<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.begins == Begins::Otherwise {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let Some(first) = buf.filled().get(before) else { return Poll::Ready(Ok(())) };
        // A method begins with a letter; a TLS record, of whatever type, does not.
        if !first.is_ascii_alphabetic() {
            self.begins = Begins::Otherwise;
            return Poll::Ready(Ok(()));
        }
        self.begins = Begins::LikeHttp;
        buf.set_filled(before);
        Poll::Ready(Err(io::ErrorKind::InvalidData.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Opening<S> {
    forward_writes!();
}
