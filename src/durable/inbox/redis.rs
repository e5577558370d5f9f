//! Redis: dedupe and queue in one script, per stream.
//!
//! Keeps true: an event is in its stream and remembered, or neither; a dead Redis is known within a second, and from then
//! on nobody waits for it. Not here: what is done with an event that Redis did not take.
//!
//! An request goes to the lane of its partition (`lane`), which takes everything that waits to the script (`script`,
//! `admit.lua`) in one call over the connection (`link`) to the server that has the stream (`links`, `topology`); how that is
//! found and reached is for `servers`. What is remembered of an identity lies under
//! `{STREAM}:seen:SOURCE:IDENTITY`: of each body seen, its SHA-256 and one letter (`F` the first, `C` entered as a conflict,
//! `D` dropped), for the window counted from the latest new body.

pub(crate) mod advice;
pub mod backlog;
pub mod claims;
pub(in crate::durable::inbox) mod cluster_client;
mod groups;
pub(in crate::durable::inbox) mod health;
pub mod inspect;
pub mod lag;
pub(in crate::durable::inbox) mod node_connection;
mod partition_writer;
mod probe;
mod reader;
pub(in crate::durable::inbox) mod replicas;
mod retention;
mod script;
mod servers;
mod stream;
#[cfg(test)]
pub(in crate::durable::inbox) mod tests;
mod topology;
pub mod write_probe;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::base::runtime::{Answers, reply};
use crate::durable::inbox::{EnqueueError, EnqueueRequest, Enqueued};
use crate::observe::admin::Readiness;
use crate::observe::metrics::{EnqueueFailure, QueueMetrics};

use backlog::Backlog;
use cluster_client::ClusterClient;
use health::{Queue, RedisHealth};
use partition_writer::{PartitionWriter, Waiting};
use replicas::Replicas;
use retention::{Retention, Written};
use script::Scripts;
use stream::Streams;

pub(super) use partition_writer::BATCH_EVENTS;
pub use reader::{ReadError, Reader};
pub(in crate::durable::inbox) use script::said;
pub use servers::{Kind, Servers};
pub use stream::numbered;

/// The inbox on Redis streams.
pub struct RedisInbox {
    lanes: Vec<mpsc::Sender<Waiting>>,
    streams: Arc<Streams>,
    links: Arc<ClusterClient>,
    metrics: QueueMetrics,
    /// The lanes' tasks: they end by themselves when the lanes are closed and empty.
    workers: TaskTracker,
    /// The links' and retention's tasks: they end when told, or when the inbox is dropped.
    keepers: TaskTracker,
    stop: DropGuard,
}

/// What a Redis queue is configured with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The stream's name; may hold `{provider}`, `{source}`, `{type}`.
    pub name: String,
    /// What the name stands for, where it holds any of these.
    pub names: BTreeSet<String>,
    /// How many streams; above one, they are numbered.
    pub partitions: u32,
    /// At this length a stream loses its acknowledged entries. Where it has none, it takes no more.
    pub max_backlog: u64,
    /// How long a body is remembered.
    pub window: Duration,
    /// How old an entry gets that everybody has read.
    pub retain: Duration,
    /// A consumer group that was not seen for so long keeps nothing in a stream.
    pub ignore_idle_groups: Option<Duration>,
    /// How many replicas must have an event before it counts as queued.
    pub ack_replicas: u32,
}

/// Why Redis cannot be used as configured. Never holds a URL.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A URL that is a secret cannot be read.
    #[error("url: {0}")]
    Secret(#[from] crate::config::secret::SecretError),
    /// A URL is not one.
    #[error(
        "a redis url is not of the form redis://[[user]:password@]host[:port][/database], or rediss://… for TLS"
    )]
    Url,
    /// The same, with the mistake.
    #[error(
        "a redis url is not of the form redis://[[user]:password@]host[:port][/database], or rediss://… for TLS: it {0}"
    )]
    Flawed(&'static str),
    /// A password in it holds a sign that ends the host.
    #[error("a redis url {}", crate::config::PASSWORD_BREAKS_URL)]
    Password,
    /// Some URLs ask for TLS and some do not.
    #[error("the redis urls are in part redis:// and in part rediss://; use one for all")]
    Mixed,
    /// A cluster's URL names a database.
    #[error("a redis url names a database, and a cluster has none but 0; leave it out")]
    Database,
    /// The file of authorities cannot be used.
    #[error("redis.ca: cannot use {path}: {why}")]
    Ca {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The stream name is unusable.
    #[error("unusable queue name: {0}")]
    Name(String),
}

impl RedisInbox {
    /// Starts the lanes and the links, and returns at once: whether Redis is there shows in `readiness`.
    ///
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the name is unusable.
    pub fn open(
        servers: Servers,
        options: Options,
        metrics: QueueMetrics,
        readiness: Arc<Readiness>,
    ) -> Result<RedisInbox, OpenError> {
        let streams = Arc::new(Streams::parse(&options.name, options.partitions).map_err(OpenError::Name)?);
        let scripts = Arc::new(Scripts::new());
        let all = streams.all(&options.names);
        let written = Arc::new(Written::with(all.iter().cloned()));
        let backlog = Arc::new(Backlog::new(options.max_backlog, options.ignore_idle_groups));
        let queue = Queue { metrics: metrics.clone(), streams: all, backlog: backlog.clone() };
        let (board, replicas) = (RedisHealth::new(readiness, Some(queue)), Replicas(options.ack_replicas));
        let links = Arc::new(ClusterClient::new(servers, scripts.loads(), board, replicas, None));
        let (workers, keepers, stop) = (TaskTracker::new(), TaskTracker::new(), CancellationToken::new());
        keepers.spawn(links.clone().keep(stop.clone()));
        let retention = Retention {
            links: links.clone(),
            scripts: scripts.clone(),
            written: written.clone(),
            backlog: backlog.clone(),
            retain: options.retain,
        };
        keepers.spawn(retention.run(stop.clone()));
        let watch = groups::Watch {
            links: links.clone(),
            scripts: scripts.clone(),
            written: written.clone(),
            backlog: backlog.clone(),
            metrics: metrics.clone(),
            fixed: streams.fixed().into_iter().flatten().collect(),
        };
        keepers.spawn(watch.run(stop.clone()));
        // Redis takes no PX of zero.
        let window_ms = u64::try_from(options.window.as_millis()).unwrap_or(u64::MAX).clamp(1, WINDOW_MAX_MS);
        let lanes = (0..options.partitions)
            .map(|partition| {
                let (sender, queue) = mpsc::channel(LANE_CAPACITY);
                let lane = PartitionWriter {
                    partition,
                    streams: streams.clone(),
                    window_ms,
                    backlog: backlog.clone(),
                    links: links.clone(),
                    replicas,
                    scripts: scripts.clone(),
                    written: written.clone(),
                    metrics: metrics.clone(),
                    known: HashSet::new(),
                    answers: Answers::default(),
                };
                workers.spawn(lane.run(queue));
                sender
            })
            .collect();
        Ok(RedisInbox { lanes, streams, links, metrics, workers, keepers, stop: stop.drop_guard() })
    }

    /// From now on the queue's name stands for these names.
    pub fn set_names(&self, names: &BTreeSet<String>) {
        self.links.board().set_streams(self.streams.all(names));
    }

    /// Admits a delivery.
    ///
    /// # Errors
    /// When Redis refused, is away, or did not answer.
    pub async fn enqueue(&self, request: impl Into<Arc<EnqueueRequest>>) -> Result<Enqueued, EnqueueError> {
        let request = request.into();
        if !self.links.is_up() {
            self.metrics.failed(EnqueueFailure::Unreachable, 1);
            return Err(EnqueueError::Unreachable);
        }
        let partition = self.streams.partition(&request.event.partition_key);
        let lane = self.lanes.get(partition as usize).ok_or(EnqueueError::Unreachable)?;
        let (reply, answered) = reply();
        lane.try_send(Waiting { request, reply }).map_err(|why| match why {
            mpsc::error::TrySendError::Full(_) => EnqueueError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => EnqueueError::Unreachable,
        })?;
        // A lane that ends without an answer, as when the runtime goes down, may have sent it.
        answered.await.unwrap_or(Err(EnqueueError::Unknown))
    }

    /// Takes no more, finishes what waits, and ends the tasks.
    pub async fn close(self) {
        drop(self.lanes);
        self.workers.close();
        self.workers.wait().await;
        drop(self.stop);
        self.keepers.close();
        self.keepers.wait().await;
    }
}

/// Whether an error's code says that the server does not serve now, or is not the one to ask.
pub(in crate::durable::inbox) fn is_away(code: &str) -> bool {
    node_connection::is_down(code) || node_connection::is_astray(code)
}

/// Admissions that may wait in a lane.
const LANE_CAPACITY: usize = 16384;
/// 100 years: Redis refuses an expiry that overflows its clock.
const WINDOW_MAX_MS: u64 = 100 * 365 * 86_400_000;
