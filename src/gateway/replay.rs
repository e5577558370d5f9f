//! Puts events once more into the queue, past the dedupe, for an operator's command.
//!
//! Keeps true: it works whether or not a gateway runs, and an event counts as replayed only once it is durable. Redis
//! gets it by the script that gateways use, so `max_backlog`, partitions and `ack_replicas` hold. Its identity there is
//! drawn at random, so that no event is a duplicate of it, and is forgotten soon.

use std::sync::Arc;
use std::time::Duration;

use super::stores::{self, Dependencies};
use super::{FIRST_CONTACT, StartError, wait_until_up};
use crate::base::clock::{self, Clock};
use crate::config::queue_name::{Part, QueueName};
use crate::config::{Config, OnConflict, QueueKind};
use crate::durable::data_dir;
use crate::durable::inbox::embedded::{self, Replays};
use crate::durable::inbox::redis::RedisInbox;
use crate::durable::inbox::{EnqueueError, EnqueueRequest, Owner, Place};
use crate::event::{BodyHash, Event, Identity};
use crate::observe::admin::Readiness;
use crate::observe::metrics::Metrics;

/// The queue, opened to replay events.
pub enum Replayer {
    /// SQLite in the data folder.
    Embedded(Replays),
    /// Redis streams.
    Redis(RedisInbox),
}

/// An event to replay.
#[derive(Clone, Debug)]
pub struct Replay {
    /// Where the queue has it.
    pub place: Place,
    /// The event, as it is to enter.
    pub event: Event,
    /// The provider's name.
    pub provider: String,
    /// The configured source's name.
    pub source: Arc<str>,
}

/// Why events cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// A part of the queue cannot be opened.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The embedded queue refused.
    #[error(transparent)]
    Embedded(#[from] embedded::ReplayError),
    /// Redis refused, or may have taken the event without saying so.
    #[error("the event {id}: {why}")]
    Redis {
        /// The event's id.
        id: String,
        /// What Redis said.
        why: EnqueueError,
    },
    /// Brokers keep no events for hookgate to read.
    #[error("a queue of kind {0} cannot be replayed from; use the broker's own tools")]
    Kind(&'static str),
}

impl Replayer {
    /// Opens the configured queue. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the queue cannot be opened, or is a broker.
    pub async fn open(config: &Config, clock: Clock) -> Result<Replayer, ReplayError> {
        match config.queue.kind {
            QueueKind::Embedded => {
                let replays = Replays::open(&data_dir::database_file(&config.data_dir), clock);
                Ok(Replayer::Embedded(replays.map_err(StartError::from)?))
            }
            QueueKind::Redis => {
                let metrics = Arc::new(Metrics::new().map_err(StartError::from)?);
                let (readiness, qualified) = (Arc::new(Readiness::default()), Arc::default());
                let deps = Dependencies {
                    clock: &clock,
                    metrics: &metrics,
                    readiness: &readiness,
                    qualified: &qualified,
                };
                let mut options = stores::redis_options(config);
                (options.window, options.retain) = (REMEMBERED, NEVER);
                let inbox = stores::open_redis(config, options, &deps)?;
                let _ = tokio::time::timeout(FIRST_CONTACT, wait_until_up(&readiness)).await;
                Ok(Replayer::Redis(inbox))
            }
            kind => Err(ReplayError::Kind(kind.label())),
        }
    }

    /// Replays these events in this order. Returns how many are durable in the queue, and why the next one is not. Of
    /// the embedded queue's, all are or none.
    pub async fn replay(&mut self, events: &[Replay]) -> (usize, Result<(), ReplayError>) {
        match self {
            Replayer::Embedded(replays) => {
                let rows: Vec<embedded::Replay<'_>> = events.iter().filter_map(row).collect();
                match replays.replay(&rows) {
                    Ok(()) => (rows.len(), Ok(())),
                    Err(why) => (0, Err(why.into())),
                }
            }
            Replayer::Redis(inbox) => {
                for (done, replay) in events.iter().enumerate() {
                    if let Err(why) = enqueue(inbox, replay).await {
                        let id = replay.event.id.clone();
                        return (done, Err(ReplayError::Redis { id, why }));
                    }
                }
                (events.len(), Ok(()))
            }
        }
    }

    /// Lets a running gateway write between two calls of [`Replayer::replay`].
    pub fn pause(&self) {
        if let Replayer::Embedded(replays) = self {
            replays.pause();
        }
    }

    /// Ends the connections.
    pub async fn close(self) {
        if let Replayer::Redis(inbox) = self {
            inbox.close().await;
        }
    }
}

/// Whether an event's stream depends on the name of its source.
pub fn needs_source(config: &Config) -> bool {
    config.queue.kind == QueueKind::Redis
        && QueueName::parse(&config.queue.name.value).is_ok_and(|name| name.parts().contains(&Part::Source))
}

fn row(replay: &Replay) -> Option<embedded::Replay<'_>> {
    match replay.place {
        Place::Row(row) => Some(embedded::Replay { row, event: &replay.event }),
        Place::Entry { .. } => None,
    }
}

/// Enqueues an event, and asks again where it is not known whether that worked: a second copy would be a duplicate.
async fn enqueue(inbox: &RedisInbox, replay: &Replay) -> Result<(), EnqueueError> {
    let request = Arc::new(EnqueueRequest {
        source: replay.source.clone(),
        provider: replay.provider.clone().into(),
        identity: Identity(clock::random()),
        body: BodyHash::of(replay.event.json.as_bytes()),
        on_conflict: OnConflict::Drop,
        owner: Owner(clock::random()),
        event: replay.event.clone(),
    });
    let begun = clock::instant();
    loop {
        match inbox.enqueue(request.clone()).await {
            // A duplicate is the event itself, of an attempt without an answer.
            Ok(_) => return Ok(()),
            Err(why @ (EnqueueError::Refused(_) | EnqueueError::Unacceptable(_))) => return Err(why),
            Err(why) if clock::instant().saturating_duration_since(begun) > PATIENCE => return Err(why),
            Err(_) => tokio::time::sleep(RETRY_INTERVAL).await,
        }
    }
}

/// How long an event that Redis does not confirm is tried again.
const PATIENCE: Duration = Duration::from_secs(10);
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// How long Redis remembers the random identity of a replayed event: much longer than [`PATIENCE`].
const REMEMBERED: Duration = Duration::from_secs(600);
/// A command trims no stream by age.
const NEVER: Duration = Duration::from_secs(100 * 365 * 86_400);
