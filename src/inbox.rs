//! The one durable step: "have we seen it, and if not, put it in the queue", as one atomic act of the store.
//!
//! Invariants, whichever variant:
//! - An answer `Ok` is given only after the store has confirmed: what it says of an event survives a crash.
//! - Per identity, a body enters the queue at most once within the window, however concurrently it is delivered.
//! - A failure leaves nothing remembered that is not in the queue; where the outcome is unknown, the error says so, and
//!   admitting the same delivery again is safe.
//! - [`Inbox::admit`] does its work whether or not its caller still waits: once it has been polled, dropping the future
//!   cancels nothing.

pub mod embedded;
pub mod redis;

use std::sync::Arc;

use crate::config::OnConflict;
use crate::event::{BodyHash, Event, Identity};

/// A verified, normalized delivery, asking to enter the queue.
#[derive(Clone, Debug)]
pub struct Admission {
    /// The configured source's name.
    pub source: Arc<str>,
    /// The provider's name.
    pub provider: &'static str,
    /// Under which it is deduped.
    pub identity: Identity,
    /// The raw body's hash.
    pub body: BodyHash,
    /// What to do when the identity is known with another body.
    pub on_conflict: OnConflict,
    /// The event as it enters when nothing is known of its identity.
    pub event: Event,
}

/// What the store did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
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
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unavailable {
    /// The store answered, and said no: full, read-only, out of space.
    #[error("the queue refused: {0}")]
    Refused(String),
    /// The store is known to be away; nothing was sent.
    #[error("the queue is unreachable")]
    Unreachable,
    /// Sent, and no answer: it may be in.
    #[error("the queue gave no answer in time")]
    Unknown,
    /// Too much is waiting already; nothing was sent.
    #[error("too many events wait for the queue")]
    Overloaded,
}

/// The configured inbox.
pub enum Inbox {
    /// SQLite in the data folder.
    Embedded(embedded::Embedded),
    /// Redis streams.
    Redis(redis::RedisInbox),
}

impl Inbox {
    /// Admits a delivery: looks, enqueues and remembers in one atomic step.
    ///
    /// # Errors
    /// When the store could not do it, or did not say whether it did.
    pub async fn admit(&self, admission: Admission) -> Result<Verdict, Unavailable> {
        match self {
            Inbox::Embedded(store) => store.admit(admission).await,
            Inbox::Redis(store) => store.admit(admission).await,
        }
    }

    /// Takes no more and waits for what it has.
    pub async fn close(self) {
        match self {
            Inbox::Embedded(store) => store.close().await,
            Inbox::Redis(store) => store.close().await,
        }
    }
}
