//! A dedupe store before a broker: claim, publish and await the confirm, commit.
//!
//! Keeps true:
//! - Nothing is remembered as seen before the broker has confirmed it. So nobody is told "duplicate" of what is not there.
//! - While one owner's claim lasts, nobody else publishes under its identity; they are told "in progress".
//! - Each step compares and acts within the store, in one piece. A claim ends by its owner's commit, by its owner's release,
//!   or by the end of its lease; a slow owner never touches the claim of the one that came after it.
//! - A claim is released only when the broker said that it did not take the message. As long as nobody knows, it stays, and its
//!   owner tries again under the same message id. So a message may be in the queue twice (after an unknown outcome, when the
//!   lease is over or a further try is refused), but only under one id.
//! - That message id does not change with the config: the claim says whether it names the source.
//! - A publish ends before its lease does: both are counted from before the claim was asked for, and the publish has at most
//!   half of it.
//! - A first body whose publish nobody knows the end of keeps its plain id: another body of its identity enters as a conflict,
//!   or a broker that drops the second message of one id would drop it.
//!
//! The order of events that are admitted at the same time is not kept. `tests/pure/model.rs` tries every order of these steps, with
//! every fault between them.

mod embedded;
mod records;
mod redis;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::base::clock;
use crate::durable::broker::{Broker, Message, PublishError};
use crate::durable::inbox::{EnqueueError, EnqueueRequest, Enqueued};
use crate::event::Event;
use crate::observe::metrics::QueueMetrics;
use crate::observe::telemetry::LogThrottle;

pub use embedded::EmbeddedClaims;
pub use redis::RedisClaims;

/// The tables that claims in the data folder need.
pub const TABLES: &str = embedded::TABLES;

/// What a claimed inbox is configured with.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a body is remembered.
    pub window: Duration,
    /// How long a claim lasts: within it the owner publishes and commits, and nobody else can claim.
    pub lease: Duration,
    /// The sources whose events' ids may also be another source's: their message ids name the source too.
    pub qualified: Arc<ArcSwap<HashSet<String>>>,
}

/// A dedupe store before a broker.
pub struct Claimed {
    desk: Arc<ClaimingPublisher>,
    tasks: TaskTracker,
    /// Where a claim is carried to its end, whatever becomes of the thread that asked.
    runtime: Handle,
    room: Arc<Semaphore>,
}

/// The configured dedupe store.
pub enum Claims {
    /// Tables of the database in the data folder.
    Embedded(EmbeddedClaims),
    /// Redis.
    Redis(RedisClaims),
}

/// As what a body enters the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EntryKind {
    /// Under the event's own id.
    First,
    /// As another body of a known identity.
    Conflict,
}

/// What a message is called, for a broker that drops the second one of a name. A body of unknown outcome keeps its own: a config
/// that is read meanwhile changes those of others only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naming {
    /// The event's id.
    Plain,
    /// `SOURCE/ID`: another source may have an event of that id.
    WithSource,
}

/// What the owner of a claim may publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grant {
    place: EntryKind,
    naming: Naming,
    /// The same body was claimed before, and that came to no known end: it may be in the queue.
    again: bool,
}

/// What the store says to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// It is the owner's for the lease: it may publish.
    Granted(Grant),
    /// This body is in the queue already.
    Entered(EntryKind),
    /// This body is not in the queue, nor will it be. `anew`: that was decided just now.
    Dropped { anew: bool },
    /// Another owner has it.
    InProgress,
}

impl Claimed {
    /// Both parts are open already. Must be called inside the tokio runtime that is to serve them.
    pub fn new(claims: Claims, broker: Broker, options: Options, metrics: QueueMetrics) -> Claimed {
        Claimed {
            desk: Arc::new(ClaimingPublisher {
                claims,
                broker,
                options,
                metrics,
                unremembered: Mutex::default(),
            }),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
            room: Arc::new(Semaphore::new(IN_FLIGHT)),
        }
    }

    /// Admits a delivery.
    ///
    /// # Errors
    /// When it could not be published, nobody knows whether it was, or another delivery of it is at it.
    pub async fn enqueue(&self, request: impl Into<Arc<EnqueueRequest>>) -> Result<Enqueued, EnqueueError> {
        let request = request.into();
        let Ok(place) = self.room.clone().try_acquire_owned() else { return Err(EnqueueError::Overloaded) };
        let desk = self.desk.clone();
        // A task of its own: whoever asked may go, but a claim wants its end.
        let work = async move {
            let _place = place;
            desk.enqueue(&request).await
        };
        let task = self.tasks.spawn_on(work, &self.runtime);
        // A task that ends without an answer, as when the runtime goes down, may have published.
        task.await.unwrap_or(Err(EnqueueError::Unknown))
    }

    /// From now on the queue's name stands for these names.
    pub fn set_names(&self, names: &BTreeSet<String>) {
        self.desk.broker.set_names(names);
    }

    /// Ends what it runs: waits for what is in flight, but not for ever.
    pub async fn close(self) {
        self.tasks.close();
        if tokio::time::timeout(CLOSE_WITHIN, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                events = self.tasks.len(),
                "the broker or the dedupe store does not let go of events"
            );
        }
        if let Some(desk) = Arc::into_inner(self.desk) {
            desk.claims.close().await;
            desk.broker.close().await;
        }
    }
}

/// What a publish may take, counted from the claim: it ends before the lease can.
pub fn publish_within(lease: Duration) -> Duration {
    PUBLISH_WITHIN.min(lease / 2)
}

/// Where claims are turned into messages.
struct ClaimingPublisher {
    claims: Claims,
    broker: Broker,
    options: Options,
    metrics: QueueMetrics,
    /// Events that are in the queue and that the store could not note.
    unremembered: Mutex<LogThrottle>,
}

impl ClaimingPublisher {
    async fn enqueue(&self, request: &EnqueueRequest) -> Result<Enqueued, EnqueueError> {
        let asked = clock::instant();
        let done = self.hand_over(request, asked).await;
        match &done {
            Ok(Enqueued::Accepted { .. }) => {
                self.metrics.duration.observe(asked.elapsed().as_secs_f64());
                self.metrics.batch.observe(1.0);
            }
            Ok(Enqueued::Duplicate { .. }) => {}
            Err(why) => {
                if let Some(kind) = why.counted() {
                    self.metrics.failed(kind, 1);
                }
            }
        }
        done
    }

    /// Claims, publishes, commits. `asked` is when it began: the lease runs from then on at the earliest.
    async fn hand_over(&self, request: &EnqueueRequest, asked: Instant) -> Result<Enqueued, EnqueueError> {
        let id = || request.event.id.clone();
        let grant = match self.claims.claim(request, &self.options).await? {
            Claim::Granted(grant) => grant,
            Claim::Entered(place) => {
                return Ok(Enqueued::Duplicate { id: entering(request, place).id.clone(), dropped: false });
            }
            Claim::Dropped { anew } => return Ok(Enqueued::Duplicate { id: id(), dropped: anew }),
            Claim::InProgress => return Err(EnqueueError::InProgress),
        };
        let (place, event) = (grant.place, entering(request, grant.place));
        if let Err(why) = self.publish(request, &event, grant.naming, asked).await {
            if !matches!(why, PublishError::Unknown | PublishError::Unvouched(_)) {
                self.release(request, grant.again).await;
            }
            return Err(why.into());
        }
        self.commit(request, place, asked).await?;
        Ok(Enqueued::Accepted { id: event.id.clone(), conflict: place == EntryKind::Conflict })
    }

    async fn publish(
        &self,
        request: &EnqueueRequest,
        event: &Event,
        naming: Naming,
        asked: Instant,
    ) -> Result<(), PublishError> {
        let deadline = asked + publish_within(self.options.lease);
        if clock::instant() >= deadline {
            // The store took too long. What was sent now could arrive after the lease.
            return Err(PublishError::Unreachable);
        }
        let id = match naming {
            Naming::WithSource => Cow::Owned(format!("{}/{}", request.source, event.id)),
            Naming::Plain => Cow::Borrowed(&*event.id),
        };
        self.broker.publish(Message { id: &id, names: request.names(), event }, deadline).await
    }

    /// The message is in the queue: what remains is to remember that, and that is worth a few tries.
    async fn commit(
        &self,
        request: &EnqueueRequest,
        place: EntryKind,
        asked: Instant,
    ) -> Result<(), EnqueueError> {
        let mut pauses = COMMIT_PAUSES.into_iter();
        loop {
            let Err(why) = self.claims.commit(request, place, &self.options).await else { return Ok(()) };
            match pauses.next() {
                Some(pause) if asked.elapsed() + pause < self.options.lease => {
                    tokio::time::sleep(pause).await;
                }
                _ => {
                    if let Some(events) =
                        self.unremembered.lock().unwrap_or_else(PoisonError::into_inner).record()
                    {
                        tracing::warn!(
                            source = &*request.source, %why, events,
                            "events are in the queue and cannot be remembered; they may enter again under their ids"
                        );
                    }
                    return Err(EnqueueError::Unknown);
                }
            }
        }
    }

    async fn release(&self, request: &EnqueueRequest, again: bool) {
        if let Err(why) = self.claims.release(request, again).await {
            tracing::debug!(source = &*request.source, %why, "a claim is not released; its lease will end");
        }
    }
}

impl Options {
    /// What a message of this source is called, where nothing else is known of it.
    fn naming(&self, source: &str) -> Naming {
        if self.qualified.load().contains(source) { Naming::WithSource } else { Naming::Plain }
    }
}

/// The event as it enters at this place.
fn entering(request: &EnqueueRequest, place: EntryKind) -> Cow<'_, Event> {
    match place {
        EntryKind::First => Cow::Borrowed(&request.event),
        EntryKind::Conflict => Cow::Owned(request.event.conflicting(&request.body)),
    }
}

impl From<PublishError> for EnqueueError {
    fn from(why: PublishError) -> EnqueueError {
        match why {
            PublishError::Refused(why) => EnqueueError::Refused(why),
            PublishError::Unroutable(why) => EnqueueError::Unroutable(why),
            PublishError::Unacceptable(why) => EnqueueError::Unacceptable(why),
            PublishError::Unreachable => EnqueueError::Unreachable,
            PublishError::Unknown => EnqueueError::Unknown,
            PublishError::Unvouched(why) => EnqueueError::Unclear(why),
        }
    }
}

impl Claims {
    /// Looks, and claims what may be published. An error means that there is nothing to publish.
    async fn claim(&self, request: &EnqueueRequest, options: &Options) -> Result<Claim, EnqueueError> {
        match self {
            Claims::Embedded(claims) => claims.claim(request, options).await,
            Claims::Redis(claims) => claims.claim(request, options).await,
        }
    }

    /// Remembers the body and ends the owner's claim; where another owner's claim lasts, it does nothing.
    async fn commit(
        &self,
        request: &EnqueueRequest,
        place: EntryKind,
        options: &Options,
    ) -> Result<(), EnqueueError> {
        match self {
            Claims::Embedded(claims) => claims.commit(request, place, options).await,
            Claims::Redis(claims) => claims.commit(request, place, options).await,
        }
    }

    /// Ends the claim if it is this owner's. One that was claimed `again` is kept, as if its lease were over: what an earlier try
    /// came to is still not known.
    async fn release(&self, request: &EnqueueRequest, again: bool) -> Result<(), EnqueueError> {
        match self {
            Claims::Embedded(claims) => claims.release(request, again).await,
            Claims::Redis(claims) => claims.release(request, again).await,
        }
    }

    async fn close(self) {
        match self {
            Claims::Embedded(claims) => claims.close().await,
            Claims::Redis(claims) => claims.close().await,
        }
    }
}

/// Events between claim and commit at most.
const IN_FLIGHT: usize = 4096;
const PUBLISH_WITHIN: Duration = Duration::from_secs(5);
const COMMIT_PAUSES: [Duration; 5] = [
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
];
/// Longer than a claim, a publish and the tries of a commit take together.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);
