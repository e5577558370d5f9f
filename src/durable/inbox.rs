//! The one durable step: "have we seen this event, and if not, put it in the queue", as one atomic act of the store.
//!
//! Keeps true, for every store:
//! - `Ok` is given only after the store confirmed. The answer then survives a crash.
//! - Per identity, a body enters the queue at most once within the window, however concurrently it is delivered. An
//!   unknown body is the same as any other.
//! - A failure leaves nothing remembered that is not in the queue. If the outcome is unknown, the error says so, and
//!   enqueueing the same delivery again is safe.
//! - [`Inbox::enqueue`] finishes its work even if the caller drops the future after the first poll.

pub mod claimed;
pub mod embedded;
pub mod event_filter;
pub mod redis;
#[cfg(test)]
pub mod scripted;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::OnConflict;
use crate::config::queue_name::PlaceholderValues;
use crate::durable::broker::http::Routes;
use crate::event::{BodyHash, Event, Identity};
use crate::observe::metrics::EnqueueFailure;

/// A verified, normalized delivery that is to enter the queue.
#[derive(Clone, Debug)]
pub struct EnqueueRequest {
    /// The configured source's name.
    pub source: Arc<str>,
    /// The provider's name.
    pub provider: Cow<'static, str>,
    /// The key for dedupe.
    pub identity: Identity,
    /// The raw body's hash. With [`BodyHash::UNKNOWN`] the delivery counts as the same as any other of its identity.
    pub body: BodyHash,
    /// What to do if the identity is known with another body.
    pub on_conflict: OnConflict,
    /// Drawn at random on arrival and kept while the delivery waits. It marks the delivery's own claim.
    pub owner: Owner,
    /// The event to enqueue if its identity is new.
    pub event: Event,
}

/// Tells apart two deliveries of the same event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner(pub [u8; 16]);

impl EnqueueRequest {
    /// The values for the placeholders in the queue's name.
    pub fn names(&self) -> PlaceholderValues<'_> {
        PlaceholderValues { provider: &self.provider, source: &self.source, kind: &self.event.kind }
    }
}

/// An event that was found in a queue.
#[derive(Clone, Debug)]
pub struct Found {
    /// The cursor to read on after it.
    pub cursor: String,
    /// The whole event, as stored.
    pub event: String,
    /// Where the queue has it.
    pub place: Place,
}

/// Where a queue has an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The row of the embedded queue.
    Row(i64),
    /// The entry of a Redis stream.
    Entry {
        /// The stream's name.
        stream: String,
        /// The entry's id.
        id: String,
    },
}

/// What the store did with a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enqueued {
    /// The event is in the queue now. `conflict`: its identity was known with another body.
    Accepted {
        /// The event's id.
        id: String,
        /// Whether the event is marked as a conflict.
        conflict: bool,
    },
    /// The event was not put in the queue.
    Duplicate {
        /// The id under which this body entered. For a dropped conflict, the id of the identity's first event.
        id: String,
        /// True when a new body of a known identity was dropped now. Later deliveries of that body get false.
        dropped: bool,
    },
}

/// Why an event did not, or perhaps did not, enter the queue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnqueueError {
    /// The store refused, as it would refuse any event now: it is full, read-only or out of space.
    #[error("the queue refused: {0}")]
    Refused(String),
    /// The queue has no destination for this event now. Its operator can change that.
    #[error("the queue has no destination for this event: {0}")]
    Unroutable(String),
    /// The service that the event goes to does not want it.
    #[error("the service refused this event: {0}")]
    Rejected(String),
    /// The queue will never accept this event, for example because it is too large.
    #[error("the queue can never take this event: {0}")]
    Unacceptable(String),
    /// The store is known to be down. Nothing was sent.
    #[error("the queue is unreachable")]
    Unreachable,
    /// The event was sent, but no answer came. It may be in the queue.
    #[error("the queue gave no answer in time")]
    Unknown,
    /// The event was sent, but the answer (given here) does not tell whether it is in the queue.
    #[error("the queue did not say whether it has the event: {0}")]
    Unclear(String),
    /// Too many events wait already. Nothing was sent.
    #[error("too many events wait for the queue")]
    Overloaded,
    /// Another delivery of the same event has claimed it and awaits its confirm.
    #[error("another delivery of this event is in progress")]
    InProgress,
}

/// How many events of one source the drainer may enqueue at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// This many. They enter in the order in which they were enqueued.
    InOrder(usize),
    /// This many, in any order. Events with the same partition key or identity go one after the other.
    ByKey(usize),
}

impl EnqueueError {
    /// The label in `hookgate_enqueue_failures_total`; none if the queue did not fail.
    fn counted(&self) -> Option<EnqueueFailure> {
        match self {
            EnqueueError::Refused(_)
            | EnqueueError::Unroutable(_)
            | EnqueueError::Rejected(_)
            | EnqueueError::Unacceptable(_) => Some(EnqueueFailure::Refused),
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
    /// A claim in a dedupe store, then a broker's publish.
    Claimed(claimed::Claimed),
    /// Answers as a test tells it to.
    #[cfg(test)]
    Scripted(scripted::Scripted),
}

impl Inbox {
    /// Looks up the delivery, enqueues it if it is new, and remembers it, in one atomic step.
    ///
    /// # Errors
    /// When the store failed, or did not answer.
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

    /// Whether an event of the request's identity is in the queue, so that the request with [`BodyHash::UNKNOWN`] would
    /// be a duplicate. Writes nothing.
    ///
    /// # Errors
    /// When the store failed, or did not answer.
    pub async fn is_known(&self, request: &EnqueueRequest) -> Result<bool, EnqueueError> {
        match self {
            Inbox::Embedded(store) => store.is_known(request.identity).await,
            Inbox::Redis(store) => store.is_known(request).await,
            Inbox::Claimed(store) => store.is_known(request).await,
            #[cfg(test)]
            Inbox::Scripted(scripted) => scripted.is_known(request),
        }
    }

    /// What a delivery of this body is told if its event is known not to be new, by the claims before a broker. Writes
    /// nothing. None: it is new, or only an enqueue tells.
    ///
    /// # Errors
    /// When the store failed, or did not answer.
    pub async fn entered(&self, request: &EnqueueRequest) -> Result<Option<Enqueued>, EnqueueError> {
        match self {
            Inbox::Claimed(store) => store.entered(request).await,
            _ => Ok(None),
        }
    }

    /// Where each event goes, if it is to HTTP services.
    pub fn routes(&self) -> Option<&Arc<Routes>> {
        match self {
            Inbox::Embedded(_) | Inbox::Redis(_) => None,
            Inbox::Claimed(store) => store.routes(),
            #[cfg(test)]
            Inbox::Scripted(scripted) => scripted.routes(),
        }
    }

    /// Replaces the names that the queue's name template expands to.
    pub fn set_names(&self, names: &BTreeSet<String>) {
        match self {
            Inbox::Redis(store) => store.set_names(names),
            Inbox::Claimed(store) => store.set_names(names),
            Inbox::Embedded(_) => {}
            #[cfg(test)]
            Inbox::Scripted(_) => {}
        }
    }

    /// How the drainer may enqueue the waiting events of one source.
    pub fn drain(&self) -> Drain {
        match self {
            // A partition writer keeps the order of arrival, and takes this many in one call.
            Inbox::Redis(_) => Drain::InOrder(redis::BATCH_EVENTS),
            Inbox::Embedded(_) => Drain::InOrder(1),
            Inbox::Claimed(_) => Drain::ByKey(CLAIMED_AT_ONCE),
            #[cfg(test)]
            Inbox::Scripted(_) => Drain::ByKey(32),
        }
    }

    /// Accepts no more deliveries, and finishes the pending ones.
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

/// Enough that concurrent claims share a commit.
const CLAIMED_AT_ONCE: usize = 32;
