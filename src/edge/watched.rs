//! Between an HTTP/2 connection and hyper: a stream whose incoming frames are followed.
//!
//! Keeps true: hyper gets nothing of a head before it is whole. What [`Frames`] finds wrong ends the connection. Bytes are copied
//! only where a head came in pieces.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

use super::busy::Busy;
use super::frames::Frames;
use crate::net::forward::forward_writes;

/// The stream, as hyper gets it.
pub(super) struct Watched<S> {
    stream: S,
    frames: Frames,
    /// Bytes read and not given to hyper: `valid` of them may be, the rest is of a frame or a head that is not whole.
    held: BytesMut,
    valid: usize,
    /// How long a head may take.
    within: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// Cancelled once a head takes longer. Other streams may still be answered.
    overdue: CancellationToken,
    busy: Arc<Busy>,
    /// Why the connection was ended here.
    ended: Option<h2::Reason>,
}

impl<S: AsyncRead + Unpin> Watched<S> {
    /// A stream of which `first` was read already.
    pub(super) fn new(
        stream: S,
        first: Vec<u8>,
        within: Duration,
        overdue: CancellationToken,
        busy: Arc<Busy>,
    ) -> Watched<S> {
        let (frames, held) = (Frames::new(), BytesMut::from(&first[..]));
        let mut watched =
            Watched { stream, frames, held, valid: 0, within, timer: None, overdue, busy, ended: None };
        watched.look();
        watched
    }

    /// The connection ended in the middle of a head.
    pub(super) fn in_head(&self) -> bool {
        self.frames.in_head
    }

    /// Why the connection was ended here, if it was.
    pub(super) fn ended(&self) -> Option<h2::Reason> {
        self.ended
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    /// Reads the frames that are held.
    fn look(&mut self) {
        match self.frames.read(&mut self.held, self.busy.answers()) {
            Ok(valid) => self.valid = valid,
            Err(reason) => self.ended = Some(reason),
        }
    }

    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let give = self.valid.min(buf.remaining());
        buf.put_slice(&self.held[..give]);
        self.held.advance(give);
        self.valid -= give;
        if self.held.is_empty() {
            // Kept connections live long; the memory need not.
            self.held = BytesMut::new();
        }
    }

    /// Reads into hyper's own memory, and takes back what may not be passed on. False at the stream's end.
    fn poll_directly(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let new = &mut buf.filled_mut()[before..];
        if new.is_empty() {
            return Poll::Ready(Ok(false));
        }
        match self.frames.read(new, self.busy.answers()) {
            Ok(passed) => {
                self.held.extend_from_slice(&new[passed..]);
                buf.set_filled(before + passed);
            }
            Err(reason) => {
                self.ended = Some(reason);
                buf.set_filled(before);
            }
        }
        Poll::Ready(Ok(true))
    }

    /// Reads on after a frame or a head that is not whole. False at the stream's end.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.held.reserve(READ);
        // Without a state of its own, so that it may be dropped while it waits.
        let read = ready!(pin!(self.stream.read_buf(&mut self.held)).poll(cx))?;
        self.look();
        Poll::Ready(Ok(read > 0))
    }

    /// Registers to be woken when the head under way is overdue.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) {
        if !self.frames.in_head {
            return;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.within)));
        if timer.as_mut().poll(cx).is_ready() {
            self.overdue.cancel();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let watched = &mut *self;
        let before = buf.filled().len();
        loop {
            if let Some(reason) = watched.ended {
                return Poll::Ready(Err(io::Error::other(reason.description())));
            }
            if watched.valid > 0 {
                watched.give(buf);
            }
            if buf.filled().len() > before {
                watched.timer = None;
                return Poll::Ready(Ok(()));
            }
            // h2 asks for more once it has read all that it was given.
            watched.busy.has_read(watched.frames.requests);
            let read =
                if watched.held.is_empty() { watched.poll_directly(cx, buf) } else { watched.poll_held(cx) };
            match read {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(ended) => return Poll::Ready(ended.map(|_| ())),
                Poll::Pending => {
                    watched.poll_overdue(cx);
                    return Poll::Pending;
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    forward_writes!();
}

const READ: usize = 4 << 10;
