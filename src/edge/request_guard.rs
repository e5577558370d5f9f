//! A stream between an HTTP/1.x connection and hyper that passes on only complete, valid heads and their bodies.
//!
//! Keeps true: hyper never sees an incomplete or invalid head, so it never answers one itself. Nothing after a refused
//! head passes, and requests before it are answered first. A body of known length is not parsed. Bytes are copied only
//! if a head arrives in pieces.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::chunks::{ChunkProgress, Chunks};
use super::connection_limit::ConnectionPressure;
use super::head::{Framing, Head, Refusal};
use crate::base::clock;
use crate::base::reason::Reason;
use crate::net::forward::forward_writes;

/// Why the guard reads no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client closed its side.
    ClientClosed,
    /// No further request came in time.
    Idle,
    /// No request ever came.
    NoRequest,
    /// A head was refused, and the listener answers it.
    Refused(Refusal),
    /// A chunked body is broken. Its request is answered like any other.
    BrokenBody,
}

/// Divides a connection's bytes into heads and bodies.
pub struct Framer {
    state: State,
    /// Complete heads so far.
    heads: u64,
}

enum State {
    Head(Head),
    Length(u64),
    Chunks(Chunks),
}

impl Default for Framer {
    /// At the start of a connection.
    fn default() -> Framer {
        Framer { state: State::Head(Head::default()), heads: 0 }
    }
}

impl Framer {
    /// Returns how many of the bytes may be passed on, and the reason to end the connection, if any. The caller passes
    /// the rest again, followed by more.
    pub fn read(&mut self, bytes: &[u8]) -> (usize, Option<CloseReason>) {
        let mut passed = 0;
        while passed < bytes.len() {
            let rest = &bytes[passed..];
            self.state = match &mut self.state {
                State::Head(head) => match head.read(rest) {
                    Ok(None) => return (passed, None),
                    Err(refusal) => return (passed, Some(CloseReason::Refused(refusal))),
                    Ok(Some((length, framing))) => {
                        passed += length;
                        self.heads += 1;
                        match framing {
                            Framing::Length(0) => State::Head(Head::default()),
                            Framing::Length(length) => State::Length(length),
                            Framing::Chunked => State::Chunks(Chunks::default()),
                        }
                    }
                },
                State::Length(left) => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    passed += take;
                    *left -= take as u64;
                    if *left > 0 {
                        return (passed, None);
                    }
                    State::Head(Head::default())
                }
                State::Chunks(chunks) => match chunks.read(rest) {
                    ChunkProgress::Continues => return (bytes.len(), None),
                    ChunkProgress::Broken(after) => return (passed + after, Some(CloseReason::BrokenBody)),
                    ChunkProgress::Ended(after) => {
                        passed += after;
                        State::Head(Head::default())
                    }
                },
            };
        }
        (passed, None)
    }

    fn in_head(&self) -> bool {
        matches!(self.state, State::Head(_))
    }
}

/// How long the guard waits for heads.
pub(super) struct Times {
    /// When the connection was opened. The first head's time begins here.
    pub(super) opened: Instant,
    /// From a head's first byte to its last.
    pub(super) head: Duration,
    /// From an answer to the next head's first byte.
    pub(super) idle: Duration,
    /// While this is high, an idle connection gets no more than the time of a head.
    pub(super) pressure: ConnectionPressure,
}

/// The stream that hyper reads.
pub(super) struct RequestGuard<S> {
    stream: S,
    framer: Framer,
    /// Bytes read and not yet passed to hyper.
    held: BytesMut,
    /// How many of `held` may be passed on. The rest is an incomplete head.
    valid: usize,
    end: Option<CloseReason>,
    /// Whether hyper has seen `end`.
    reported: bool,
    times: Times,
    /// When the wait for the next head began.
    waiting_since: Instant,
    /// A request was passed on, and its answer may be outstanding.
    answering: bool,
    timer: Option<Pin<Box<Sleep>>>,
    head_in_progress: Arc<AtomicBool>,
}

impl<S: AsyncRead + Unpin> RequestGuard<S> {
    /// Guards a stream of which `first` was read already. `head_in_progress` is kept true while a head is incomplete.
    pub(super) fn new(
        stream: S,
        first: Vec<u8>,
        times: Times,
        head_in_progress: Arc<AtomicBool>,
    ) -> RequestGuard<S> {
        let mut guard = RequestGuard {
            stream,
            framer: Framer::default(),
            held: BytesMut::from(&first[..]),
            valid: 0,
            end: None,
            reported: false,
            waiting_since: times.opened,
            times,
            answering: false,
            timer: None,
            head_in_progress,
        };
        guard.frame_held();
        guard
    }

    /// Why the guard read no more, if that ended the connection.
    pub(super) fn end(&self) -> Option<CloseReason> {
        self.end.filter(|_| self.reported)
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    /// Frames the held bytes that are not framed yet.
    fn frame_held(&mut self) {
        let (passed, end) = self.framer.read(&self.held[self.valid..]);
        self.note_framed(passed > 0, end);
        self.valid += passed;
        self.update_head_in_progress();
    }

    fn note_framed(&mut self, passed: bool, end: Option<CloseReason>) {
        self.end = end;
        self.answering |= passed;
    }

    fn update_head_in_progress(&self) {
        let head_in_progress = self.framer.in_head() && self.held.len() > self.valid;
        self.head_in_progress.store(head_in_progress, Ordering::Relaxed);
    }

    /// Reads into hyper's own buffer, and takes back the bytes that may not be passed on.
    fn poll_directly(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let new = &buf.filled()[before..];
        if new.is_empty() {
            self.end = Some(CloseReason::ClientClosed);
            return Poll::Ready(Ok(()));
        }
        let (passed, end) = self.framer.read(new);
        if passed < new.len() {
            if self.framer.heads > 0 || passed > 0 {
                self.waiting_since = clock::instant();
            }
            self.held.extend_from_slice(&new[passed..]);
            self.update_head_in_progress();
        }
        self.note_framed(passed > 0, end);
        buf.set_filled(before + passed);
        Poll::Ready(Ok(()))
    }

    /// Reads more of an incomplete head.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.held.reserve(READ);
        // This future keeps no state, so it may be dropped while it waits.
        let read = ready!(pin!(self.stream.read_buf(&mut self.held)).poll(cx))?;
        if read == 0 {
            self.end = Some(CloseReason::ClientClosed);
        } else {
            self.frame_held();
        }
        Poll::Ready(Ok(()))
    }

    /// Ends a connection that has waited too long for a head; otherwise registers a wakeup for that time.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let State::Head(head) = &self.framer.state else { return Poll::Pending };
        let idle = self.framer.heads > 0 && self.held.is_empty();
        let Times { head: brief, idle: long, .. } = self.times;
        let within = if idle { long } else { brief };
        loop {
            let due = self.waiting_since + within;
            let first = due.min(self.waiting_since + brief);
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(first.into())));
            // Once a head has begun, the shorter timeout applies.
            if timer.deadline() > due.into() {
                timer.as_mut().reset(due.into());
            }
            ready!(timer.as_mut().poll(cx));
            let now = clock::instant();
            let evict = idle && now >= first && self.times.pressure.is_high();
            if (now >= due || evict) && !self.answering {
                break;
            }
            // The time of an answer does not count as the client's, so restart the wait.
            if now >= due {
                self.waiting_since = now;
                self.answering = false;
            }
            // An idle connection rechecks regularly whether connections run short.
            let next = (self.waiting_since + within).min(now + brief);
            timer.as_mut().reset(if idle { next } else { self.waiting_since + within }.into());
        }
        let begun = head.has_begun(&self.held[self.valid..]);
        self.end = Some(match (begun, self.framer.heads) {
            (true, _) => CloseReason::Refused(Refusal {
                reason: Reason::HeaderTimeout,
                detail: "the request's head was not complete in time",
            }),
            (false, 0) => CloseReason::NoRequest,
            (false, _) => CloseReason::Idle,
        });
        Poll::Ready(())
    }
}

/// Passes on held bytes, at most `valid` of them.
pub(super) fn copy_held(held: &mut BytesMut, valid: &mut usize, buf: &mut ReadBuf<'_>) {
    let length = (*valid).min(buf.remaining());
    buf.put_slice(&held[..length]);
    held.advance(length);
    *valid -= length;
    if held.is_empty() {
        // Free the buffer: a connection may stay idle for long.
        *held = BytesMut::new();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for RequestGuard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let guard = &mut *self;
        loop {
            if guard.valid > 0 {
                copy_held(&mut guard.held, &mut guard.valid, buf);
                return Poll::Ready(Ok(()));
            }
            if let Some(end) = guard.end {
                guard.reported = true;
                return Poll::Ready(match end {
                    CloseReason::BrokenBody => {
                        Err(io::Error::new(io::ErrorKind::InvalidData, "a broken chunk"))
                    }
                    CloseReason::ClientClosed
                    | CloseReason::Idle
                    | CloseReason::NoRequest
                    | CloseReason::Refused(_) => Ok(()),
                });
            }
            let before = buf.filled().len();
            let read = if guard.held.is_empty() { guard.poll_directly(cx, buf) } else { guard.poll_held(cx) };
            match read {
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) if buf.filled().len() > before => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => {}
                Poll::Pending => ready!(guard.poll_overdue(cx)),
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> RequestGuard<S> {
    fn note_write(&mut self, written: &Poll<io::Result<usize>>) {
        if written.is_ready() {
            self.waiting_since = clock::instant();
            self.answering = false;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for RequestGuard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note_write(&written);
        written
    }

    forward_writes!(poll_flush, is_write_vectored);

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(CloseReason::Refused(_)) = self.end() {
            // The listener has yet to send the refusal.
            return Pin::new(&mut self.stream).poll_flush(cx);
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.note_write(&written);
        written
    }
}

const READ: usize = 4 << 10;
