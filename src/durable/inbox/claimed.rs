//! A dedupe store before a broker: claim the identity, publish and await the confirm, commit.
//!
//! Keeps true:
//! - An event is remembered as seen only after the broker confirmed it. So no delivery is called a duplicate of an
//!   event that is not in the queue.
//! - While an owner's claim lasts, other deliveries of its identity are not published; they get "in progress".
//! - Each step compares and acts atomically in the store. A claim ends by its owner's commit or release, or with its
//!   lease. A slow owner never touches a later owner's claim.
//! - A claim is released only if the broker said that it does not have the message. After an unknown outcome the claim
//!   stays, and its owner retries under the same message id. If the message can no longer reach the broker, the owner
//!   ends the lease and keeps the claim. So a message may be in the queue twice, but only under one id. This happens
//!   after an unknown outcome if the lease ends or a retry is refused.
//! - The message id does not change with the config: the claim records whether the id names the source.
//! - A publish ends before its lease. Both count from before the claim. A broker gets at most half of the lease. An HTTP
//!   service may take longer: its claim is renewed until it has answered.
//! - A first body with an unknown outcome keeps its plain id. Another body of its identity enters as a conflict;
//!   otherwise a broker that drops a repeated id would drop it.
//!
//! Events that are enqueued at the same time may enter in any order. `tests/pure/model.rs` tries every order of these
//! steps, with every fault between them.

mod claims;
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
use crate::durable::broker::http::Routes;
use crate::durable::broker::{Broker, Message, PublishError};
use crate::durable::inbox::{EnqueueError, EnqueueRequest, Enqueued};
use crate::event::Event;
use crate::observe::metrics::QueueMetrics;
use crate::observe::telemetry::LogThrottle;

pub use claims::Claims;
pub use embedded::EmbeddedClaims;
use records::Flag;
pub use redis::RedisClaims;

/// The tables for claims in the data folder.
pub const TABLES: &str = embedded::TABLES;

/// The settings of a claimed inbox.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a body is remembered.
    pub window: Duration,
    /// How long a claim lasts. Within it the owner publishes and commits, and no other owner can claim.
    pub lease: Duration,
    /// The longest time from before the claim to the end of the publish. If it is longer than the lease, the claim is
    /// renewed meanwhile.
    pub publish_within: Duration,
    /// The sources that share their provider with another source. Event ids may collide, so their message ids name the
    /// source too.
    pub qualified: Arc<ArcSwap<HashSet<String>>>,
}

/// The inbox of a dedupe store and a broker.
pub struct Claimed {
    publisher: Arc<ClaimingPublisher>,
    tasks: TaskTracker,
    /// Runs each claim to its end, even if the caller's runtime ends.
    runtime: Handle,
    in_flight: Arc<Semaphore>,
}

/// Whether a body enters the queue as the first of its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EntryKind {
    /// It enters under the event's own id.
    First,
    /// It enters as another body of a known identity.
    Conflict,
}

/// The form of a message id, by which a broker may drop a repeated message. After an unknown outcome a body keeps its
/// form, even if the config changes meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naming {
    /// The event's id.
    Plain,
    /// `SOURCE/ID`, because another source may have an event with this id.
    WithSource,
}

/// What the owner of a claim may publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grant {
    kind: EntryKind,
    naming: Naming,
    /// The same body was claimed before with an unknown outcome, so it may be in the queue.
    claimed_before: bool,
}

/// The store's answer to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// The owner has the claim for the lease, and may publish.
    Granted(Grant),
    /// This body is already in the queue.
    Entered(EntryKind),
    /// This body is dropped as a conflict. `newly`: this claim decided it.
    Dropped { newly: bool },
    /// Another owner has the claim.
    InProgress,
}

impl Claimed {
    /// Takes an open store and an open broker. Must be called inside the tokio runtime that is to serve them.
    pub fn new(claims: Claims, broker: Broker, options: Options, metrics: QueueMetrics) -> Claimed {
        Claimed {
            publisher: Arc::new(ClaimingPublisher {
                claims,
                broker,
                options,
                metrics,
                uncommitted: Mutex::default(),
            }),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT)),
        }
    }

    /// Enqueues a delivery, unless it is a duplicate.
    ///
    /// # Errors
    /// When the publish failed, its outcome is unknown, or another delivery of the event is in progress.
    pub async fn enqueue(&self, request: impl Into<Arc<EnqueueRequest>>) -> Result<Enqueued, EnqueueError> {
        let request = request.into();
        let Ok(permit) = self.in_flight.clone().try_acquire_owned() else {
            return Err(EnqueueError::Overloaded);
        };
        let publisher = self.publisher.clone();
        // A task of its own, so that the claim ends properly even if the caller drops the future.
        let work = async move {
            let _permit = permit;
            publisher.enqueue(&request).await
        };
        let task = self.tasks.spawn_on(work, &self.runtime);
        // A task that ends without an answer, for example at a shutdown, may have published.
        task.await.unwrap_or(Err(EnqueueError::Unknown))
    }

    /// Whether an event of the request's identity is in the queue. Writes nothing.
    ///
    /// # Errors
    /// When the dedupe store fails.
    pub async fn is_known(&self, request: &EnqueueRequest) -> Result<bool, EnqueueError> {
        Ok(self.publisher.claims.records(request).await?.is_known())
    }

    /// What a delivery of this body is told if its event is in the queue, or was dropped as a conflict. Writes nothing.
    ///
    /// # Errors
    /// When the dedupe store fails.
    pub async fn entered(&self, request: &EnqueueRequest) -> Result<Option<Enqueued>, EnqueueError> {
        let id = match self.publisher.claims.records(request).await?.taken(&request.body) {
            None | Some(Flag::Perhaps) => return Ok(None),
            Some(Flag::First | Flag::Dropped) => request.event.id.clone(),
            Some(Flag::Conflict) => event_as(request, EntryKind::Conflict).id.clone(),
        };
        Ok(Some(Enqueued::Duplicate { id, dropped: false }))
    }

    /// Where each event goes, if it is to HTTP services.
    pub fn routes(&self) -> Option<&Arc<Routes>> {
        self.publisher.broker.routes()
    }

    /// Replaces the names that the queue's name template expands to.
    pub fn set_names(&self, names: &BTreeSet<String>) {
        self.publisher.broker.set_names(names);
    }

    /// Waits a bounded time for the pending events, then closes the store and the broker.
    pub async fn close(self) {
        self.tasks.close();
        if tokio::time::timeout(CLOSE_WITHIN, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                events = self.tasks.len(),
                "events are still in progress at the broker or the dedupe store; closing without them"
            );
        }
        if let Some(publisher) = Arc::into_inner(self.publisher) {
            publisher.claims.close().await;
            publisher.broker.close().await;
        }
    }
}

/// The time for a broker's confirm, counted from before the claim.
pub fn publish_within(lease: Duration) -> Duration {
    PUBLISH_WITHIN.min(lease / 2)
}

/// Claims, publishes and commits.
struct ClaimingPublisher {
    claims: Claims,
    broker: Broker,
    options: Options,
    metrics: QueueMetrics,
    /// Throttles the log about published events that the store could not commit.
    uncommitted: Mutex<LogThrottle>,
}

impl ClaimingPublisher {
    async fn enqueue(&self, request: &EnqueueRequest) -> Result<Enqueued, EnqueueError> {
        let asked = clock::instant();
        let done = self.claim_and_publish(request, asked).await;
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

    /// Claims, publishes, commits. `asked` is the start time. The lease begins then or later.
    async fn claim_and_publish(
        &self,
        request: &EnqueueRequest,
        asked: Instant,
    ) -> Result<Enqueued, EnqueueError> {
        let id = || request.event.id.clone();
        let grant = match self.claims.claim(request, &self.options).await? {
            Claim::Granted(grant) => grant,
            Claim::Entered(kind) => {
                return Ok(Enqueued::Duplicate { id: event_as(request, kind).id.clone(), dropped: false });
            }
            Claim::Dropped { newly } => return Ok(Enqueued::Duplicate { id: id(), dropped: newly }),
            Claim::InProgress => return Err(EnqueueError::InProgress),
        };
        let (kind, event) = (grant.kind, event_as(request, grant.kind));
        let (published, claimed) = self.publish_renewing(request, &event, grant.naming, asked).await;
        if let Err(why) = published {
            use PublishError::{NotNow, Unconfirmed, Unknown};
            let may_be_in = matches!(why, Unknown | Unconfirmed(_) | NotNow(_));
            if !may_be_in || !self.broker.may_arrive_later() {
                self.release(request, grant.claimed_before || may_be_in).await;
            }
            return Err(why.into());
        }
        self.commit(request, kind, claimed).await?;
        Ok(Enqueued::Accepted { id: event.id.clone(), conflict: kind == EntryKind::Conflict })
    }

    /// Publishes. Renews the claim for as long as that takes. Returns when the claim was made or renewed last.
    async fn publish_renewing(
        &self,
        request: &EnqueueRequest,
        event: &Event,
        naming: Naming,
        asked: Instant,
    ) -> (Result<(), PublishError>, Instant) {
        let Options { lease, publish_within, .. } = self.options;
        let mut claimed = asked;
        let publish = self.publish(request, event, naming, asked);
        let published = if publish_within < lease {
            publish.await
        } else {
            let renew = async {
                loop {
                    // A store that fails is asked again; the claim may end before the publish then.
                    tokio::time::sleep(lease / 3).await;
                    let now = clock::instant();
                    if let Ok(Claim::Granted(_)) = self.claims.claim(request, &self.options).await {
                        claimed = now;
                    }
                }
            };
            tokio::select! {
                biased;
                published = publish => published,
                () = renew => Err(PublishError::Unknown),
            }
        };
        (published, claimed)
    }

    async fn publish(
        &self,
        request: &EnqueueRequest,
        event: &Event,
        naming: Naming,
        asked: Instant,
    ) -> Result<(), PublishError> {
        let deadline = asked + self.options.publish_within;
        if clock::instant() >= deadline {
            // The store took too long. A message sent now could arrive after the lease.
            return Err(PublishError::Unreachable);
        }
        let id = match naming {
            Naming::WithSource => Cow::Owned(format!("{}/{}", request.source, event.id)),
            Naming::Plain => Cow::Borrowed(&*event.id),
        };
        self.broker.publish(Message { id: &id, names: request.names(), event }, deadline).await
    }

    /// Commits a confirmed message, `claimed` at that time. It retries, because an uncommitted event may enter the queue
    /// again.
    async fn commit(
        &self,
        request: &EnqueueRequest,
        kind: EntryKind,
        claimed: Instant,
    ) -> Result<(), EnqueueError> {
        let mut pauses = COMMIT_PAUSES.into_iter();
        loop {
            let Err(why) = self.claims.commit(request, kind, &self.options).await else { return Ok(()) };
            match pauses.next() {
                Some(pause) if claimed.elapsed() + pause < self.options.lease => {
                    tokio::time::sleep(pause).await;
                }
                _ => {
                    if let Some(events) =
                        self.uncommitted.lock().unwrap_or_else(PoisonError::into_inner).record()
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

    async fn release(&self, request: &EnqueueRequest, claimed_before: bool) {
        if let Err(why) = self.claims.release(request, claimed_before).await {
            tracing::debug!(source = &*request.source, %why, "a claim is not released; its lease will end");
        }
    }
}

impl Options {
    /// The form of a new message id of this source.
    fn naming(&self, source: &str) -> Naming {
        if self.qualified.load().contains(source) { Naming::WithSource } else { Naming::Plain }
    }
}

/// The event in the form for this kind.
fn event_as(request: &EnqueueRequest, kind: EntryKind) -> Cow<'_, Event> {
    match kind {
        EntryKind::First => Cow::Borrowed(&request.event),
        EntryKind::Conflict => Cow::Owned(request.event.conflicting(&request.body)),
    }
}

impl From<PublishError> for EnqueueError {
    fn from(why: PublishError) -> EnqueueError {
        match why {
            PublishError::Refused(why) => EnqueueError::Refused(why),
            PublishError::Unroutable(why) => EnqueueError::Unroutable(why),
            PublishError::NotNow(why) => EnqueueError::Refused(why),
            PublishError::Rejected(why) => EnqueueError::Rejected(why),
            PublishError::Unacceptable(why) => EnqueueError::Unacceptable(why),
            PublishError::Unreachable => EnqueueError::Unreachable,
            PublishError::Unknown => EnqueueError::Unknown,
            PublishError::Unconfirmed(why) => EnqueueError::Unclear(why),
        }
    }
}

/// The most events between claim and commit.
const IN_FLIGHT: usize = 4096;
const PUBLISH_WITHIN: Duration = Duration::from_secs(5);
const COMMIT_PAUSES: [Duration; 5] = [
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
];
/// Longer than a claim, a publish and all tries of a commit together.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);
