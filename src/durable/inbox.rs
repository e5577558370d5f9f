//! The one durable step: "have we seen it, and if not, put it in the queue", as one atomic act of the store.
//!
//! Invariants, whichever variant:
//! - An answer `Ok` is given only after the store has confirmed: what it says of an event survives a crash.
//! - Per identity, a body enters the queue at most once within the window, however concurrently it is delivered.
//! - A failure leaves nothing remembered that is not in the queue; where the outcome is unknown, the error says so, and
//!   admitting the same delivery again is safe.
//! - [`Inbox::admit`] does its work whether or not its caller still waits: once it has been polled, dropping the future
//!   cancels nothing.

pub mod claimed;
pub mod embedded;
pub mod redis;
#[cfg(test)]
pub mod scripted;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::OnConflict;
use crate::config::queue_name::Filling;
use crate::event::{BodyHash, Event, Identity};
use crate::observe::metrics::EnqueueFailure;

/// A verified, normalized delivery, asking to enter the queue.
#[derive(Clone, Debug)]
pub struct EnqueueRequest {
    /// The configured source's name.
    pub source: Arc<str>,
    /// The provider's name.
    pub provider: Cow<'static, str>,
    /// Under which it is deduped.
    pub identity: Identity,
    /// The raw body's hash.
    pub body: BodyHash,
    /// What to do when the identity is known with another body.
    pub on_conflict: OnConflict,
    /// Drawn at random when it came in, and kept wherever it waits: whoever shows it is the owner of its claim.
    pub owner: Owner,
    /// The event as it enters when nothing is known of its identity.
    pub event: Event,
}

/// Tells one request from another of the same event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner(pub [u8; 16]);

impl EnqueueRequest {
    /// What fills in the name of its queue.
    pub fn names(&self) -> Filling<'_> {
        Filling { provider: &self.provider, source: &self.source, kind: &self.event.kind }
    }
}

/// What the store did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enqueued {
    /// It is in the queue now, under this id. `conflict`: as another body under a known identity.
    Accepted {
        /// The event's id.
        id: String,
        /// Marked as a conflict.
        conflict: bool,
    },
    /// It is not put in the queue (again).
    Duplicate {
        /// The id that this body entered under; for a dropped conflict, the id that its identity entered under.
        id: String,
        /// True once per body: now, for the first time, a new body under a known identity was dropped.
        dropped: bool,
    },
}

/// Why nothing can be said to be in the queue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnqueueError {
    /// The store answered, and said no, as it would to any event now: full, read-only, out of space.
    #[error("the queue refused: {0}")]
    Refused(String),
    /// The queue has nowhere to put this event, as things stand: its operator can change that.
    #[error("the queue has no place for this event: {0}")]
    Unroutable(String),
    /// The queue refuses this very event, and always will: too large.
    #[error("the queue can never take this event: {0}")]
    Unacceptable(String),
    /// The store is known to be away; nothing was sent.
    #[error("the queue is unreachable")]
    Unreachable,
    /// Sent, and no answer: it may be in.
    #[error("the queue gave no answer in time")]
    Unknown,
    /// Sent, and what came back does not say whether it is in. What came back.
    #[error("the queue did not say whether it has the event: {0}")]
    Unclear(String),
    /// Too much is waiting already; nothing was sent.
    #[error("too many events wait for the queue")]
    Overloaded,
    /// Another delivery of the same event is between claim and confirm.
    #[error("another delivery of this event is in progress")]
    InProgress,
}

/// How many requests of one source may be in flight at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// So many: they enter in the order they were begun in.
    InOrder(usize),
    /// So many, in whatever order they enter: those of one partition key or identity only one after the other.
    ByKey(usize),
}

impl EnqueueError {
    /// As what it counts in `hookgate_enqueue_failures_total`; none where the queue did not fail.
    fn counted(&self) -> Option<EnqueueFailure> {
        match self {
            EnqueueError::Refused(_) | EnqueueError::Unroutable(_) | EnqueueError::Unacceptable(_) => {
                Some(EnqueueFailure::Refused)
            }
            EnqueueError::Unreachable => Some(EnqueueFailure::Unreachable),
            EnqueueError::Unknown | EnqueueError::Unclear(_) => Some(EnqueueFailure::Timeout),
            EnqueueError::Overloaded | EnqueueError::InProgress => None,
        }
    }
}

/// The configured inbox.
pub enum Inbox {
    /// SQLite in the data folder.
    Embedded(embedded::Embedded),
    /// Redis streams.
    Redis(redis::RedisInbox),
    /// A claim in a dedupe store around a broker's publish.
    Claimed(claimed::Claimed),
    /// What a test says.
    #[cfg(test)]
    Scripted(scripted::Scripted),
}

impl Inbox {
    /// Admits a delivery: looks, enqueues and remembers in one atomic step.
    ///
    /// # Errors
    /// When the store could not do it, or did not say whether it did.
    pub async fn enqueue(&self, request: impl Into<Arc<EnqueueRequest>>) -> Result<Enqueued, EnqueueError> {
        let request = request.into();
        match self {
            Inbox::Embedded(store) => store.enqueue(request).await,
            Inbox::Redis(store) => store.enqueue(request).await,
            Inbox::Claimed(store) => store.enqueue(request).await,
            #[cfg(test)]
            Inbox::Scripted(scripted) => scripted.enqueue(&request).await,
        }
    }

    /// From now on the queue's name stands for these names.
    pub fn set_names(&self, names: &BTreeSet<String>) {
        match self {
            Inbox::Redis(store) => store.set_names(names),
            Inbox::Claimed(store) => store.set_names(names),
            Inbox::Embedded(_) => {}
            #[cfg(test)]
            Inbox::Scripted(_) => {}
        }
    }

    /// How the events of one source may be admitted when many of them wait.
    pub fn drain(&self) -> Drain {
        match self {
            // A lane keeps the order of arrival, and takes this many in one call.
            Inbox::Redis(_) => Drain::InOrder(redis::BATCH_EVENTS),
            Inbox::Embedded(_) => Drain::InOrder(1),
            Inbox::Claimed(_) => Drain::ByKey(CLAIMED_AT_ONCE),
            #[cfg(test)]
            Inbox::Scripted(_) => Drain::ByKey(32),
        }
    }

    /// Takes no more and waits for what it has.
    pub async fn close(self) {
        match self {
            Inbox::Embedded(store) => store.close().await,
            Inbox::Redis(store) => store.close().await,
            Inbox::Claimed(store) => store.close().await,
            #[cfg(test)]
            Inbox::Scripted(_) => {}
        }
    }
}

/// Enough to share the commits of their claims.
const CLAIMED_AT_ONCE: usize = 32;
