//! A stream between an HTTP/2 connection and hyper that checks incoming frames.
//!
//! Keeps true: hyper gets a head only when it is complete. An error that [`Frames`] finds ends the connection. Bytes
//! are copied only if a head arrives in pieces.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

use super::frames::Frames;
use super::request_guard::copy_held;
use super::stream_activity::StreamActivity;
use crate::net::forward::forward_writes;

/// The stream that hyper reads.
pub(super) struct FrameGuard<S> {
    stream: S,
    frames: Frames,
    /// Bytes read and not yet passed to hyper.
    held: BytesMut,
    /// How many of `held` may be passed on. The rest is an incomplete frame or head.
    valid: usize,
    /// The time limit for a head.
    within: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// Cancelled when a head takes longer. Other streams may still be answered.
    overdue: CancellationToken,
    activity: Arc<StreamActivity>,
    /// Why this guard ended the connection.
    ended: Option<h2::Reason>,
}

impl<S: AsyncRead + Unpin> FrameGuard<S> {
    /// Guards a stream of which `first` was read already.
    pub(super) fn new(
        stream: S,
        first: Vec<u8>,
        within: Duration,
        overdue: CancellationToken,
        activity: Arc<StreamActivity>,
    ) -> FrameGuard<S> {
        let (frames, held) = (Frames::new(), BytesMut::from(&first[..]));
        let mut guard = FrameGuard {
            stream,
            frames,
            held,
            valid: 0,
            within,
            timer: None,
            overdue,
            activity,
            ended: None,
        };
        guard.frame_held();
        guard
    }

    /// Whether a head is incomplete.
    pub(super) fn in_head(&self) -> bool {
        self.frames.in_head
    }

    /// Why this guard ended the connection, if it did.
    pub(super) fn ended(&self) -> Option<h2::Reason> {
        self.ended
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    /// Checks the held bytes.
    fn frame_held(&mut self) {
        match self.frames.read(&mut self.held, self.activity.answers()) {
            Ok(valid) => self.valid = valid,
            Err(reason) => self.ended = Some(reason),
        }
    }

    /// Reads into hyper's own buffer, and takes back the bytes that may not be passed on. False at the end of the
    /// stream.
    fn poll_directly(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let new = &mut buf.filled_mut()[before..];
        if new.is_empty() {
            return Poll::Ready(Ok(false));
        }
        match self.frames.read(new, self.activity.answers()) {
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

    /// Reads more of an incomplete frame or head. False at the end of the stream.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.held.reserve(READ);
        // This future keeps no state, so it may be dropped while it waits.
        let read = ready!(pin!(self.stream.read_buf(&mut self.held)).poll(cx))?;
        self.frame_held();
        Poll::Ready(Ok(read > 0))
    }

    /// Cancels `overdue` when the incomplete head has taken too long; otherwise registers a wakeup for that time.
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

impl<S: AsyncRead + Unpin> AsyncRead for FrameGuard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let guard = &mut *self;
        let before = buf.filled().len();
        loop {
            if let Some(reason) = guard.ended {
                return Poll::Ready(Err(io::Error::other(reason.description())));
            }
            if guard.valid > 0 {
                copy_held(&mut guard.held, &mut guard.valid, buf);
            }
            if buf.filled().len() > before {
                guard.timer = None;
                return Poll::Ready(Ok(()));
            }
            // h2 reads more only after it has processed everything before.
            guard.activity.set_read(guard.frames.requests);
            let read = if guard.held.is_empty() { guard.poll_directly(cx, buf) } else { guard.poll_held(cx) };
            match read {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(ended) => return Poll::Ready(ended.map(|_| ())),
                Poll::Pending => {
                    guard.poll_overdue(cx);
                    return Poll::Pending;
                }
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FrameGuard<S> {
    forward_writes!();
}

const READ: usize = 4 << 10;
