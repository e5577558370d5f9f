//! Between an HTTP/2 connection and hyper: a stream whose frames are followed both ways.
//!
//! Keeps true: bytes pass as they are; a flood of control frames ends the connection.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

use super::frames::{Answered, Asked};
use super::targets::Targets;
use crate::reason::Reason;

/// How long a head may take from its first frame, and what becomes of one that takes longer.
pub(super) struct HeadTime {
    within: Duration,
    /// Cancelled then. Other streams may still be answered.
    pub(super) overdue: CancellationToken,
    /// For the head of that number.
    timer: Option<(usize, Pin<Box<Sleep>>)>,
}

impl HeadTime {
    pub(super) fn new(within: Duration) -> HeadTime {
        HeadTime { within, overdue: CancellationToken::new(), timer: None }
    }

    /// While no more comes: registers to be woken when the head under way is overdue.
    fn poll(&mut self, cx: &mut Context<'_>, asked: &Asked) {
        if !asked.in_head() {
            self.timer = None;
            return;
        }
        let (number, within) = (asked.heads(), self.within);
        let timer = self.timer.take().filter(|(of, _)| *of == number);
        let (_, timer) =
            self.timer.insert(timer.unwrap_or_else(|| (number, Box::pin(tokio::time::sleep(within)))));
        if timer.as_mut().poll(cx).is_ready() {
            self.overdue.cancel();
        }
    }
}

/// The stream, as hyper gets it.
pub(super) struct Watched<S, T> {
    stream: S,
    asked: Asked,
    answered: Answered,
    flooded: bool,
    head: HeadTime,
    /// Told of what the library refuses: the reason, the status that it answered (0: none), and what it was.
    tell: T,
}

impl<S, T> Watched<S, T> {
    pub(super) fn new(stream: S, head: HeadTime, targets: Arc<Mutex<Targets>>, tell: T) -> Watched<S, T> {
        Watched { stream, asked: Asked::new(targets), answered: Answered::new(), flooded: false, head, tell }
    }

    /// What was asked.
    pub(super) fn asked(&self) -> &Asked {
        &self.asked
    }

    /// What the library answered.
    pub(super) fn answered(&self) -> &Answered {
        &self.answered
    }

    /// It was ended for its control frames.
    pub(super) fn flooded(&self) -> bool {
        self.flooded
    }

    /// Ends the connection of a client that makes little but mistakes.
    fn afford_mistakes(&mut self) -> io::Result<()> {
        if self.asked.mistook(self.answered.take_resets()) {
            return Ok(());
        }
        self.flooded = true;
        Err(io::Error::other("a flood of malformed requests"))
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin, T: Unpin> AsyncRead for Watched<S, T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let watched = &mut *self;
        let Poll::Ready(read) = Pin::new(&mut watched.stream).poll_read(cx, buf) else {
            watched.head.poll(cx, &watched.asked);
            return Poll::Pending;
        };
        read?;
        self.flooded |= !self.asked.read(&buf.filled()[before..]);
        if self.flooded {
            return Poll::Ready(Err(io::Error::other("a flood of control frames")));
        }
        if self.asked.begins_wrong() {
            return Poll::Ready(Err(io::Error::other("SETTINGS are missing")));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin, T: FnMut(Reason, u16, &'static str) + Unpin> AsyncWrite for Watched<S, T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let watched = &mut *self;
        let written = ready!(Pin::new(&mut watched.stream).poll_write(cx, bytes))?;
        watched.answered.read(&bytes[..written], &mut watched.tell);
        watched.afford_mistakes()?;
        Poll::Ready(Ok(written))
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
        let watched = &mut *self;
        let written = ready!(Pin::new(&mut watched.stream).poll_write_vectored(cx, slices))?;
        let mut left = written;
        for slice in slices {
            let part = left.min(slice.len());
            watched.answered.read(&slice[..part], &mut watched.tell);
            left -= part;
        }
        watched.afford_mistakes()?;
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
