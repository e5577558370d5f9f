//! Between an HTTP/1.x connection and hyper: a stream that gives hyper nothing but whole, valid heads and what belongs to them.
//!
//! Keeps true: hyper never sees a head that is not whole and valid, so it never answers one by itself; after what is refused
//! comes nothing, and what came before it is answered first. Bodies are not looked at where their length is known, and bytes
//! are copied only where a head came in pieces.

use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use super::chunks::{Came, Chunks};
use super::connection_limit::Crowd;
use super::head::{Framing, Head, Refusal};
use crate::base::clock;
use crate::base::reason::Reason;
use crate::net::forward::forward_writes;

/// Why no more is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client has closed its side.
    Left,
    /// Nothing was asked for a while, after something was.
    Idle,
    /// Nothing was ever asked.
    Silent,
    /// To be answered by the listener.
    Refused(Refusal),
    /// The request that it belongs to is answered, as any other.
    BrokenBody,
}

/// Where in a connection's messages one is.
pub struct Framer {
    at: At,
    /// Heads so far.
    heads: u64,
}

enum At {
    Head(Head),
    Length(u64),
    Chunks(Chunks),
}

impl Default for Framer {
    /// At the start of a connection.
    fn default() -> Framer {
        Framer { at: At::Head(Head::default()), heads: 0 }
    }
}

impl Framer {
    /// Reads on: how many of the bytes may be passed on, and what ends the connection. What is not passed on is to be given
    /// again, with more after it.
    pub fn read(&mut self, bytes: &[u8]) -> (usize, Option<CloseReason>) {
        let mut passed = 0;
        while passed < bytes.len() {
            let rest = &bytes[passed..];
            self.at = match &mut self.at {
                At::Head(head) => match head.read(rest) {
                    Ok(None) => return (passed, None),
                    Err(refusal) => return (passed, Some(CloseReason::Refused(refusal))),
                    Ok(Some((length, framing))) => {
                        passed += length;
                        self.heads += 1;
                        match framing {
                            Framing::Length(0) => At::Head(Head::default()),
                            Framing::Length(length) => At::Length(length),
                            Framing::Chunked => At::Chunks(Chunks::default()),
                        }
                    }
                },
                At::Length(left) => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    passed += take;
                    *left -= take as u64;
                    if *left > 0 {
                        return (passed, None);
                    }
                    At::Head(Head::default())
                }
                At::Chunks(chunks) => match chunks.read(rest) {
                    Came::OnAndOn => return (bytes.len(), None),
                    Came::Broken(after) => return (passed + after, Some(CloseReason::BrokenBody)),
                    Came::CloseReason(after) => {
                        passed += after;
                        At::Head(Head::default())
                    }
                },
            };
        }
        (passed, None)
    }

    fn between_bodies(&self) -> bool {
        matches!(self.at, At::Head(_))
    }
}

/// How long heads are waited for, and what shortens that.
pub(super) struct Times {
    /// When the connection was opened: the first head's time begins with it.
    pub(super) opened: Instant,
    /// From a head's first byte to its last.
    pub(super) head: Duration,
    /// From an answer to the next head's first byte.
    pub(super) idle: Duration,
    /// Where this is dense, an idle connection has no more than the time of a head.
    pub(super) crowd: Crowd,
}

/// The stream, as hyper gets it.
pub(super) struct RequestGuard<S> {
    stream: S,
    framer: Framer,
    /// Bytes read and not given to hyper: `valid` of them may be, the rest is a head that is not whole.
    held: BytesMut,
    valid: usize,
    end: Option<CloseReason>,
    /// Hyper has been told of the end.
    told: bool,
    times: Times,
    /// Since when a head is awaited.
    since: Instant,
    /// A request was passed on whose answer may still be to come.
    answering: bool,
    timer: Option<Pin<Box<Sleep>>>,
    head_in_progress: Arc<AtomicBool>,
}

impl<S: AsyncRead + Unpin> RequestGuard<S> {
    /// A stream of which `first` was read already. `head_in_progress` says at any time whether a head has begun that is not whole.
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
            told: false,
            since: times.opened,
            times,
            answering: false,
            timer: None,
            head_in_progress,
        };
        guard.look();
        guard
    }

    /// Why no more was read, where that is what ended the connection.
    pub(super) fn end(&self) -> Option<CloseReason> {
        self.end.filter(|_| self.told)
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }

    /// Frames what is held and was not framed yet.
    fn look(&mut self) {
        let (passed, end) = self.framer.read(&self.held[self.valid..]);
        self.framed(passed > 0, end);
        self.valid += passed;
        self.head_in_progress();
    }

    fn framed(&mut self, passed: bool, end: Option<CloseReason>) {
        self.end = end;
        self.answering |= passed;
    }

    fn head_in_progress(&self) {
        let head_in_progress = self.framer.between_bodies() && self.held.len() > self.valid;
        self.head_in_progress.store(head_in_progress, Ordering::Relaxed);
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

    /// Reads into hyper's own memory, and takes back what may not be passed on.
    fn poll_directly(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let new = &buf.filled()[before..];
        if new.is_empty() {
            self.end = Some(CloseReason::Left);
            return Poll::Ready(Ok(()));
        }
        let (passed, end) = self.framer.read(new);
        if passed < new.len() {
            if self.framer.heads > 0 || passed > 0 {
                self.since = clock::instant();
            }
            self.held.extend_from_slice(&new[passed..]);
            self.head_in_progress();
        }
        self.framed(passed > 0, end);
        buf.set_filled(before + passed);
        Poll::Ready(Ok(()))
    }

    /// Reads on after a head that is not whole.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.held.reserve(READ);
        // Without a state of its own, so that it may be dropped while it waits.
        let read = ready!(pin!(self.stream.read_buf(&mut self.held)).poll(cx))?;
        if read == 0 {
            self.end = Some(CloseReason::Left);
        } else {
            self.look();
        }
        Poll::Ready(Ok(()))
    }

    /// Ends what has waited too long for a head. Registers to be woken when it will have.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let At::Head(head) = &self.framer.at else { return Poll::Pending };
        let idle = self.framer.heads > 0 && self.held.is_empty();
        let Times { head: brief, idle: long, .. } = self.times;
        let within = if idle { long } else { brief };
        loop {
            let due = self.since + within;
            let first = due.min(self.since + brief);
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(first.into())));
            // A head that has begun is due sooner than the silence before it was.
            if timer.deadline() > due.into() {
                timer.as_mut().reset(due.into());
            }
            ready!(timer.as_mut().poll(cx));
            let now = clock::instant();
            let wanted = idle && now >= first && self.times.crowd.is_dense();
            if (now >= due || wanted) && !self.answering {
                break;
            }
            // The time that an answer took is not the client's: it begins anew with the answer.
            if now >= due {
                self.since = now;
                self.answering = false;
            }
            // An idle one looks again and again whether its place is wanted.
            let next = (self.since + within).min(now + brief);
            timer.as_mut().reset(if idle { next } else { self.since + within }.into());
        }
        let begun = head.has_begun(&self.held[self.valid..]);
        self.end = Some(match (begun, self.framer.heads) {
            (true, _) => CloseReason::Refused(Refusal {
                reason: Reason::HeaderTimeout,
                detail: "the request's head was not whole in time",
            }),
            (false, 0) => CloseReason::Silent,
            (false, _) => CloseReason::Idle,
        });
        Poll::Ready(())
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
                guard.give(buf);
                return Poll::Ready(Ok(()));
            }
            if let Some(end) = guard.end {
                guard.told = true;
                return Poll::Ready(match end {
                    CloseReason::BrokenBody => {
                        Err(io::Error::new(io::ErrorKind::InvalidData, "a broken chunk"))
                    }
                    CloseReason::Left | CloseReason::Idle | CloseReason::Silent | CloseReason::Refused(_) => {
                        Ok(())
                    }
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
    fn wrote(&mut self, written: &Poll<io::Result<usize>>) {
        if written.is_ready() {
            self.since = clock::instant();
            self.answering = false;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for RequestGuard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(&written);
        written
    }

    forward_writes!(poll_flush, is_write_vectored);

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(CloseReason::Refused(_)) = self.end() {
            // One more answer is to come.
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
        self.wrote(&written);
        written
    }
}

const READ: usize = 4 << 10;
