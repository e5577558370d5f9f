//! Counts the requests in progress on an HTTP/2 connection, and measures how long it has had none.
//!
//! Keeps true: a connection is quiet from the moment its last request was processed, even if its client has not read
//! the answer yet.

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

pub(super) struct StreamActivity {
    opened: Instant,
    processing: AtomicUsize,
    sending: AtomicUsize,
    answers: AtomicUsize,
    /// Requests that h2 has read.
    read: AtomicUsize,
    /// Requests that h2 has passed to the service. h2 refuses the others.
    served: AtomicUsize,
    /// Refused requests that [`StreamActivity::take_refused`] has returned.
    refused: AtomicUsize,
    /// Milliseconds from `opened` to the end of the last request; 0 before the first.
    quiet: AtomicU64,
}

/// How long a connection may be quiet, by its state.
#[derive(Clone, Copy)]
pub(super) struct QuietTimeouts {
    /// Before its first request.
    pub(super) fresh: Duration,
    /// While its client still reads answers.
    pub(super) sending: Duration,
    /// Once every answer is sent.
    pub(super) idle: Duration,
}

impl QuietTimeouts {
    /// The same timeout for every state.
    pub(super) fn same(long: Duration) -> QuietTimeouts {
        QuietTimeouts { fresh: long, sending: long, idle: long }
    }
}

impl StreamActivity {
    pub(super) fn new(opened: Instant) -> StreamActivity {
        let [processing, sending, answers, read, served, refused] = [const { AtomicUsize::new(0) }; 6];
        StreamActivity {
            opened,
            processing,
            sending,
            answers,
            read,
            served,
            refused,
            quiet: AtomicU64::new(0),
        }
    }

    /// Counts a request as in progress until the returned value is dropped.
    pub(super) fn begin(activity: &Arc<StreamActivity>) -> Processing {
        activity.processing.fetch_add(1, Ordering::Relaxed);
        activity.served.fetch_add(1, Ordering::Relaxed);
        Processing(activity.clone())
    }

    /// The number of requests answered so far.
    pub(super) fn answers(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
    }

    /// Sets the number of requests that h2 has read.
    pub(super) fn set_read(&self, requests: usize) {
        self.read.store(requests, Ordering::Relaxed);
    }

    /// The number of requests that h2 has refused since the last call. Call it only when the service has every request
    /// that h2 did not refuse.
    pub(super) fn take_refused(&self) -> usize {
        let all = self.read.load(Ordering::Relaxed).saturating_sub(self.served.load(Ordering::Relaxed));
        let more = all.saturating_sub(self.refused.load(Ordering::Relaxed));
        self.refused.fetch_add(more, Ordering::Relaxed);
        more
    }

    /// Whether there was a request, and every answer is sent.
    fn is_idle(&self) -> bool {
        self.sending.load(Ordering::Relaxed) == 0 && self.quiet.load(Ordering::Relaxed) > 0
    }

    /// When the last request was processed; none while one is in progress.
    fn quiet_since(&self) -> Option<Instant> {
        let quiet = Duration::from_millis(self.quiet.load(Ordering::Relaxed));
        (self.processing.load(Ordering::Relaxed) == 0).then(|| self.opened + quiet)
    }

    /// Whether every answer is sent and no request came for `long`.
    pub(super) fn is_idle_for(&self, long: Duration) -> bool {
        self.is_idle() && self.quiet_since().is_some_and(|since| since + long <= clock::instant())
    }

    /// Returns once the connection has been quiet for as long as its state allows, counted from `from` at the earliest.
    pub(super) async fn until_quiet(&self, from: Instant, timeouts: QuietTimeouts) {
        let QuietTimeouts { fresh, sending, idle } = timeouts;
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
            // The state may change to one with a shorter timeout.
            let soon = now + fresh.min(sending).min(idle);
            tokio::time::sleep_until(due.min(soon).into()).await;
        }
    }
}

/// A request in progress.
pub(super) struct Processing(Arc<StreamActivity>);

impl Processing {
    /// Counts the request as answered. The returned body counts as being sent until it is dropped.
    pub(super) fn answered(self, body: Body) -> Sending {
        self.0.sending.fetch_add(1, Ordering::Relaxed);
        self.0.answers.fetch_add(1, Ordering::Relaxed);
        Sending { body, activity: self.0.clone() }
    }
}

impl Drop for Processing {
    fn drop(&mut self) {
        let Processing(activity) = self;
        let quiet = clock::instant().saturating_duration_since(activity.opened).as_millis();
        activity.quiet.store(u64::try_from(quiet).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
        activity.processing.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer's body that counts as being sent until it is dropped.
pub(super) struct Sending {
    body: Body,
    activity: Arc<StreamActivity>,
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
        self.activity.sending.fetch_sub(1, Ordering::Relaxed);
    }
}
