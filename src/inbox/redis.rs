//! Redis: dedupe and queue in one script, per stream.
//!
//! Keeps true: an event is in its stream and remembered, or neither; a dead Redis is known within a second, and from then
//! on nobody waits for it. Not here: what is done with an event that Redis did not take.
//!
//! An admission goes to the lane of its partition (`lane`), which takes everything that waits to the script (`script`,
//! `admit.lua`) in one call over the one connection (`link`). What is remembered of an identity lies under
//! `{STREAM}:seen:SOURCE:IDENTITY`: of each body seen, its SHA-256 and one letter (`F` the first, `C` entered as a conflict,
//! `D` dropped), for the window counted from the latest new body.

mod lane;
mod link;
mod reader;
mod retention;
mod script;
mod stream;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::admin::Readiness;
use crate::inbox::{Admission, Unavailable, Verdict};
use crate::metrics::{EnqueueFailure, QueueMetrics};
use crate::secret::Secret;

use lane::{Lane, Waiting};
use link::{Backlog, Link};
use retention::Written;
use script::Scripts;
use stream::Streams;

pub use reader::{ReadError, Reader};

/// The inbox on Redis streams.
pub struct RedisInbox {
    lanes: Vec<mpsc::Sender<Waiting>>,
    streams: Arc<Streams>,
    link: Arc<Link>,
    metrics: QueueMetrics,
    /// The lanes' tasks: they end by themselves when the lanes are closed and empty.
    workers: TaskTracker,
    /// The link's and retention's tasks: they end when told, or when the inbox is dropped.
    keepers: TaskTracker,
    stop: DropGuard,
}

/// What a Redis queue is configured with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The stream's name; may hold `{provider}`, `{source}`, `{type}`.
    pub name: String,
    /// How many streams; above one, they are numbered.
    pub partitions: u32,
    /// At this length a stream takes no more.
    pub max_backlog: u64,
    /// How long a body is remembered.
    pub window: Duration,
    /// How old an entry gets that everybody has read.
    pub retain: Duration,
}

/// Why a Redis queue cannot be opened. Never holds the URL.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL is not one.
    #[error("the redis url is not of the form redis://[[user]:password@]host[:port][/database]")]
    Url,
    /// The URL asks for what is not built in.
    #[error("the redis url asks for TLS, which is not built in yet; use redis://")]
    Tls,
    /// The stream name is unusable.
    #[error("unusable queue name: {0}")]
    Name(String),
}

impl RedisInbox {
    /// Starts the lanes and the link, and returns at once: whether Redis is there shows in `readiness`.
    ///
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the URL or the name is unusable.
    pub fn open(
        url: &Secret,
        options: Options,
        metrics: QueueMetrics,
        readiness: Arc<Readiness>,
    ) -> Result<RedisInbox, OpenError> {
        let streams = Arc::new(Streams::parse(&options.name, options.partitions).map_err(OpenError::Name)?);
        let scripts = Arc::new(Scripts::new());
        let fixed = streams.fixed();
        let backlog = Backlog::new(fixed.as_ref().map(Vec::len), options.max_backlog);
        let link = Arc::new(Link::new(client(url)?, scripts.clone(), metrics.clone(), readiness, backlog));
        let written = Arc::new(Written::with(fixed.unwrap_or_default()));
        let (workers, keepers, stop) = (TaskTracker::new(), TaskTracker::new(), CancellationToken::new());
        keepers.spawn(link.clone().keep(stop.clone()));
        keepers.spawn(retention::run(
            link.clone(),
            scripts.clone(),
            written.clone(),
            options.retain,
            stop.clone(),
        ));
        // Redis takes no PX of zero.
        let window_ms = u64::try_from(options.window.as_millis()).unwrap_or(u64::MAX).clamp(1, WINDOW_MAX_MS);
        let lanes = (0..options.partitions)
            .map(|partition| {
                let (sender, queue) = mpsc::channel(LANE_CAPACITY);
                let lane = Lane {
                    partition,
                    streams: streams.clone(),
                    window_ms,
                    max_backlog: options.max_backlog,
                    link: link.clone(),
                    scripts: scripts.clone(),
                    written: written.clone(),
                    metrics: metrics.clone(),
                };
                workers.spawn(lane.run(queue));
                sender
            })
            .collect();
        Ok(RedisInbox { lanes, streams, link, metrics, workers, keepers, stop: stop.drop_guard() })
    }

    /// Admits a delivery.
    ///
    /// # Errors
    /// When Redis refused, is away, or did not answer.
    pub async fn admit(&self, admission: Admission) -> Result<Verdict, Unavailable> {
        if !self.link.is_up() {
            self.metrics.failed(EnqueueFailure::Unreachable, 1);
            return Err(Unavailable::Unreachable);
        }
        let partition = self.streams.partition(&admission.event.partition_key);
        let lane = self.lanes.get(partition as usize).ok_or(Unavailable::Unreachable)?;
        let (answer, answered) = oneshot::channel();
        lane.try_send(Waiting { admission, answer }).map_err(|why| match why {
            mpsc::error::TrySendError::Full(_) => Unavailable::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Unavailable::Unreachable,
        })?;
        // A lane that ends without an answer, as when the runtime goes down, may have sent it.
        answered.await.unwrap_or(Err(Unavailable::Unknown))
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

/// A client for a URL, with errors that do not repeat it.
fn client(url: &Secret) -> Result<redis::Client, OpenError> {
    let url = url.expose();
    if url.starts_with("rediss:") || url.starts_with("valkeys:") {
        return Err(OpenError::Tls);
    }
    redis::Client::open(url).map_err(|_| OpenError::Url)
}

/// Admissions that may wait in a lane.
const LANE_CAPACITY: usize = 16384;
/// 100 years: Redis refuses an expiry that overflows its clock.
const WINDOW_MAX_MS: u64 = 100 * 365 * 86_400_000;
