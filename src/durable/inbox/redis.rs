//! Redis: dedupe and queue in one script, per stream.
//!
//! Keeps true: an event is in its stream and remembered, or neither. A dead Redis is noticed within a second; from then
//! on, enqueues fail at once.
//!
//! An enqueue goes to the writer of its partition (`partition_writer`). The writer sends everything that waits in one
//! call of the script (`script`, `admit.lua`). `cluster_client` and `topology` find the master that has the stream,
//! `node_connection` keeps the connection to it, and `servers` knows the addresses and TLS.
//!
//! `{STREAM}:seen:SOURCE:IDENTITY` remembers an identity: for each body seen, its SHA-256 and one letter (`F` the
//! first, `C` entered as a conflict, `D` dropped). It expires one window after the latest new body.

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
mod scan;
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

use redis::Value;
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
use node_connection::Fault;
use partition_writer::{PartitionWriter, Waiting};
use replicas::Replicas;
use retention::{Retention, Written};
use script::Scripts;
use stream::Streams;

pub(super) use partition_writer::BATCH_EVENTS;
pub use reader::{ReadError, Reader};
pub use scan::Scan;
pub(in crate::durable::inbox) use script::said;
pub use servers::{Kind, Servers};
pub use stream::numbered;

/// The inbox on Redis streams.
pub struct RedisInbox {
    writers: Vec<mpsc::Sender<Waiting>>,
    streams: Arc<Streams>,
    client: Arc<ClusterClient>,
    metrics: QueueMetrics,
    /// The writers' tasks. They end when their channels are closed and empty.
    workers: TaskTracker,
    /// The tasks for connections, retention and consumer groups. They end on `stop`, or when the inbox is dropped.
    background: TaskTracker,
    stop: DropGuard,
}

/// The settings of a Redis queue.
#[derive(Clone, Debug)]
pub struct Options {
    /// The stream's name; may hold `{provider}`, `{source}`, `{type}`.
    pub name: String,
    /// The names that a template expands to, as far as they are known.
    pub names: BTreeSet<String>,
    /// The number of streams per name. If above one, a number ends each stream's name.
    pub partitions: u32,
    /// At this length a stream drops its acknowledged entries. If it has none, it accepts no more events.
    pub max_backlog: u64,
    /// How long a body is remembered.
    pub window: Duration,
    /// The age at which an entry is trimmed that every consumer group has acknowledged.
    pub retain: Duration,
    /// A consumer group that was idle for this long no longer keeps entries in the stream.
    pub ignore_idle_groups: Option<Duration>,
    /// How many replicas must have an event before it counts as queued.
    pub ack_replicas: u32,
}

/// Why Redis cannot be used as configured. No text holds a URL.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A URL that is a secret cannot be read.
    #[error("url: {0}")]
    Secret(#[from] crate::config::secret::SecretError),
    /// A URL is malformed.
    #[error(
        "a redis url is not of the form redis://[[user]:password@]host[:port][/database], or rediss://… for TLS"
    )]
    Url,
    /// A URL is malformed in this way.
    #[error(
        "a redis url is not of the form redis://[[user]:password@]host[:port][/database], or rediss://… for TLS: it {0}"
    )]
    Flawed(&'static str),
    /// A password holds an unescaped character that ends the host.
    #[error("a redis url {}", crate::config::PASSWORD_BREAKS_URL)]
    Password,
    /// Some URLs ask for TLS and some do not.
    #[error("the redis urls are in part redis:// and in part rediss://; use one for all")]
    Mixed,
    /// A cluster's URL names a database.
    #[error("a redis url names a database, and a cluster has none but 0; leave it out")]
    Database,
    /// The file of certificate authorities cannot be used.
    #[error("redis.ca: cannot use {path}: {why}")]
    Ca {
        /// The file's path.
        path: String,
        /// Why it cannot be used.
        why: String,
    },
    /// The stream name is unusable.
    #[error("unusable queue name: {0}")]
    Name(String),
}

impl RedisInbox {
    /// Starts the tasks, and returns at once. `readiness` reports whether Redis is reachable.
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
        let (health, replicas) = (RedisHealth::new(readiness, Some(queue)), Replicas(options.ack_replicas));
        let client = Arc::new(ClusterClient::new(servers, scripts.load_all(), health, replicas, None));
        let (workers, background, stop) = (TaskTracker::new(), TaskTracker::new(), CancellationToken::new());
        background.spawn(client.clone().run(stop.clone()));
        let retention = Retention {
            client: client.clone(),
            scripts: scripts.clone(),
            written: written.clone(),
            backlog: backlog.clone(),
            retain: options.retain,
        };
        background.spawn(retention.run(stop.clone()));
        let monitor = groups::GroupMonitor {
            client: client.clone(),
            scripts: scripts.clone(),
            written: written.clone(),
            backlog: backlog.clone(),
            metrics: metrics.clone(),
            fixed: streams.fixed().into_iter().flatten().collect(),
        };
        background.spawn(monitor.run(stop.clone()));
        // Redis takes no PX of zero.
        let window_ms = u64::try_from(options.window.as_millis()).unwrap_or(u64::MAX).clamp(1, WINDOW_MAX_MS);
        let writers = (0..options.partitions)
            .map(|partition| {
                let (sender, queue) = mpsc::channel(WRITER_CAPACITY);
                let writer = PartitionWriter {
                    partition,
                    streams: streams.clone(),
                    window_ms,
                    backlog: backlog.clone(),
                    client: client.clone(),
                    replicas,
                    scripts: scripts.clone(),
                    written: written.clone(),
                    metrics: metrics.clone(),
                    known: HashSet::new(),
                    answers: Answers::default(),
                };
                workers.spawn(writer.run(queue));
                sender
            })
            .collect();
        Ok(RedisInbox { writers, streams, client, metrics, workers, background, stop: stop.drop_guard() })
    }

    /// Replaces the names that the queue's name template expands to.
    pub fn set_names(&self, names: &BTreeSet<String>) {
        self.client.health().set_streams(self.streams.all(names));
    }

    /// Enqueues a delivery, unless it is a duplicate.
    ///
    /// # Errors
    /// When Redis refused, is down, or did not answer.
    pub async fn enqueue(&self, request: impl Into<Arc<EnqueueRequest>>) -> Result<Enqueued, EnqueueError> {
        let request = request.into();
        if !self.client.is_up() {
            self.metrics.failed(EnqueueFailure::Unreachable, 1);
            return Err(EnqueueError::Unreachable);
        }
        let partition = self.streams.partition(&request.event.partition_key);
        let writer = self.writers.get(partition as usize).ok_or(EnqueueError::Unreachable)?;
        let (reply, answered) = reply();
        writer.try_send(Waiting { request, reply }).map_err(|why| match why {
            mpsc::error::TrySendError::Full(_) => EnqueueError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => EnqueueError::Unreachable,
        })?;
        // A writer that ends without an answer, for example at a shutdown, may have sent the event.
        answered.await.unwrap_or(Err(EnqueueError::Unknown))
    }

    /// Whether an event of the request's identity is remembered. Writes nothing.
    ///
    /// # Errors
    /// When Redis refused, is down, or did not answer.
    pub async fn is_known(&self, request: &EnqueueRequest) -> Result<bool, EnqueueError> {
        let partition = self.streams.partition(&request.event.partition_key);
        let stream = self.streams.stream(request, partition);
        let mut look = redis::pipe();
        look.cmd("EXISTS").arg(stream::seen_key(&stream, &request.source, &request.identity));
        let replies = self.client.call(&stream, &look).await.map_err(|fault| match fault {
            Fault::Unreachable => EnqueueError::Unreachable,
            Fault::Unknown => EnqueueError::Unknown,
            Fault::Unclear(why) => EnqueueError::Unclear(why),
        })?;
        match replies.first() {
            Some(Value::Int(known)) => Ok(*known > 0),
            Some(Value::ServerError(why)) if is_away(why.code()) => Err(EnqueueError::Unreachable),
            Some(Value::ServerError(why)) => Err(EnqueueError::Refused(said(why))),
            _ => Err(EnqueueError::Unknown),
        }
    }

    /// Accepts no more deliveries, finishes the pending ones, and ends the tasks.
    pub async fn close(self) {
        drop(self.writers);
        self.workers.close();
        self.workers.wait().await;
        drop(self.stop);
        self.background.close();
        self.background.wait().await;
    }
}

/// Whether an error code means that this server does not serve now, or that another server has the key.
pub(in crate::durable::inbox) fn is_away(code: &str) -> bool {
    node_connection::is_down(code) || node_connection::is_redirect(code)
}

/// How many deliveries may wait for one writer.
const WRITER_CAPACITY: usize = 16384;
/// 100 years: Redis refuses an expiry that overflows its clock.
const WINDOW_MAX_MS: u64 = 100 * 365 * 86_400_000;
