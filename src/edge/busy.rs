//! The requests under way on an HTTP/2 connection, and since when it has none.
//!
//! Keeps true: a connection is quiet from the moment at which its last request was processed, whether or not its client takes
//! the answer.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::base::clock;
use crate::request::answer::Body;

/// A connection's streams, counted.
pub(super) struct Busy {
    opened: Instant,
    processing: AtomicUsize,
    sending: AtomicUsize,
    answers: AtomicUsize,
    /// Requests that h2 has read, and those of them that the service has. h2 has refused the others; so many of those were told of.
    read: AtomicUsize,
    served: AtomicUsize,
    refused: AtomicUsize,
    /// Milliseconds from `opened` to the last request's end; 0 before the first.
    quiet: AtomicU64,
}

/// How long a connection may be quiet.
#[derive(Clone, Copy)]
pub(super) struct Allowed {
    /// Before anything was asked.
    pub(super) fresh: Duration,
    /// While its client has not taken every answer.
    pub(super) sending: Duration,
    /// Once everything that was asked is answered.
    pub(super) idle: Duration,
}

impl Allowed {
    /// The same for all of these.
    pub(super) fn always(long: Duration) -> Allowed {
        Allowed { fresh: long, sending: long, idle: long }
    }
}

impl Busy {
    pub(super) fn since(opened: Instant) -> Busy {
        let [processing, sending, answers, read, served, refused] = [const { AtomicUsize::new(0) }; 6];
        Busy { opened, processing, sending, answers, read, served, refused, quiet: AtomicU64::new(0) }
    }

    /// A request is processed from here on, until the returned value is dropped.
    pub(super) fn enter(busy: &Arc<Busy>) -> Processing {
        busy.processing.fetch_add(1, Ordering::Relaxed);
        busy.served.fetch_add(1, Ordering::Relaxed);
        Processing(busy.clone())
    }

    /// How many requests were answered so far.
    pub(super) fn answers(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
    }

    /// h2 has read so many requests.
    pub(super) fn has_read(&self, requests: usize) {
        self.read.store(requests, Ordering::Relaxed);
    }

    /// How many requests h2 has refused since this was last asked. To be asked once the service has all that h2 did not refuse.
    pub(super) fn refused(&self) -> usize {
        let all = self.read.load(Ordering::Relaxed).saturating_sub(self.served.load(Ordering::Relaxed));
        let more = all.saturating_sub(self.refused.load(Ordering::Relaxed));
        self.refused.fetch_add(more, Ordering::Relaxed);
        more
    }

    /// Whether something was asked, and all of it is answered.
    fn is_idle(&self) -> bool {
        self.sending.load(Ordering::Relaxed) == 0 && self.quiet.load(Ordering::Relaxed) > 0
    }

    /// Since when no request is processed; none while one is.
    fn quiet_since(&self) -> Option<Instant> {
        let quiet = Duration::from_millis(self.quiet.load(Ordering::Relaxed));
        (self.processing.load(Ordering::Relaxed) == 0).then(|| self.opened + quiet)
    }

    /// Whether everything that was asked is answered, and nothing was asked for so long.
    pub(super) fn is_idle_for(&self, long: Duration) -> bool {
        self.is_idle() && self.quiet_since().is_some_and(|since| since + long <= clock::instant())
    }

    /// Ends once no request was processed for as long as its state allows, counted from `from` at the earliest.
    pub(super) async fn until_quiet(&self, from: Instant, allowed: Allowed) {
        let Allowed { fresh, sending, idle } = allowed;
        loop {
            let is_sending = self.sending.load(Ordering::Relaxed) > 0;
            let long = if is_sending {
                sending
            } else if self.is_idle() {
                idle
            } else {
                fresh
            };
            let now = clock::instant();
            let due = self.quiet_since().unwrap_or(now).max(from) + long;
            if now >= due {
                return;
            }
            // The next state may allow less.
            let soon = now + fresh.min(sending).min(idle);
            tokio::time::sleep_until(due.min(soon).into()).await;
        }
    }
}

/// A request that is being processed.
pub(super) struct Processing(Arc<Busy>);

impl Processing {
    /// It is answered with this body, which is then sent.
    pub(super) fn answered(self, body: Body) -> Sending {
        self.0.sending.fetch_add(1, Ordering::Relaxed);
        self.0.answers.fetch_add(1, Ordering::Relaxed);
        Sending { body, busy: self.0.clone() }
    }
}

impl Drop for Processing {
    fn drop(&mut self) {
        let Processing(busy) = self;
        let quiet = clock::instant().saturating_duration_since(busy.opened).as_millis();
        busy.quiet.store(u64::try_from(quiet).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
        busy.processing.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer's body, until the client has taken it.
pub(super) struct Sending {
    body: Body,
    busy: Arc<Busy>,
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.busy.sending.fetch_sub(1, Ordering::Relaxed);
    }
}
