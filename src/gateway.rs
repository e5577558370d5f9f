//! The gateway as a whole: builds every part in order, and takes them down in order.
//!
//! Keeps true: nothing is accepted before every part that it needs is open; at the end readiness goes first, then the
//! listener, then the connections, then the inbox, then the reject log, and the admin listener last.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{Admin, Readiness};
use crate::audit::{self, Audit};
use crate::clock::{self, Clock};
use crate::config::{Config, Problem, QueueKind};
use crate::inbox::{Inbox, embedded, redis};
use crate::listener::{self, Stop};
use crate::metrics::Metrics;
use crate::pipeline::Pipeline;
use crate::route::Routes;
use crate::secret::SecretError;

/// A gateway that serves.
pub struct Gateway {
    edge: Vec<SocketAddr>,
    admin: SocketAddr,
    pipeline: Arc<Pipeline>,
    accepting: TaskTracker,
    stop: Stop,
    admin_tasks: TaskTracker,
    admin_stop: CancellationToken,
}

/// Why a gateway does not start. Each says what to do where that is known.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The config has errors.
    #[error("the config has {} problems", .0.len())]
    Config(Vec<Problem>),
    /// The data folder cannot be used.
    #[error("data_dir: cannot use {path}: {why}")]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// An address cannot be listened on.
    #[error("{key}: cannot listen on {address}: {why}")]
    Listen {
        /// The config key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        why: io::Error,
    },
    /// The reject log cannot be opened.
    #[error("audit: {0}")]
    Audit(#[from] audit::OpenError),
    /// The embedded store cannot be opened.
    #[error("queue: {0}")]
    Embedded(#[from] embedded::OpenError),
    /// The Redis queue cannot be opened.
    #[error("queue: {0}")]
    Redis(#[from] redis::OpenError),
    /// The URL of the Redis server cannot be read.
    #[error("redis.url: {0}")]
    RedisUrl(#[from] SecretError),
    /// The metrics cannot be registered: a bug.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// The name of the embedded store in the data folder.
pub fn database(data_dir: &Path) -> PathBuf {
    data_dir.join("hookgate.db")
}

/// The folder of the reject log in the data folder.
pub fn audit_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("audit")
}

impl Gateway {
    /// Opens every part and starts to serve.
    ///
    /// # Errors
    /// When the config has errors, or a part cannot be opened.
    pub async fn start(config: Config, clock: Clock) -> Result<Gateway, StartError> {
        let metrics = Arc::new(Metrics::new()?);
        let mut problems = Vec::new();
        let routes = Routes::build(&config, &metrics, &mut problems);
        problems.retain(|problem| !problem.warning);
        if !problems.is_empty() {
            return Err(StartError::Config(problems));
        }
        make_data_dir(&config.data_dir)?;
        // Before the stores, so that a port in use is told before anything is touched.
        let (admin_listener, admin) = bind("admin.listen", config.admin.listen)?;
        let listeners: Vec<(TcpListener, SocketAddr)> = config
            .edge
            .listen
            .iter()
            .map(|address| bind("edge.listen", *address))
            .collect::<Result<_, _>>()?;

        let readiness = Arc::new(Readiness::default());
        let audit = Audit::open(
            &audit_dir(&config.data_dir),
            audit::Options::new(config.audit.retain, config.audit.max_bytes),
            clock.clone(),
            metrics.clone(),
            readiness.clone(),
        )?;
        let inbox = open_inbox(&config, &clock, &metrics, &readiness)?;
        metrics.config_loaded.set(clock.now().as_microsecond() as f64 / 1e6);
        let tasks = TaskTracker::new();
        let pipeline = Arc::new(Pipeline {
            routes,
            inbox,
            audit,
            metrics: metrics.clone(),
            readiness: readiness.clone(),
            clock,
            edge: config.edge,
            tasks,
        });

        let (admin_tasks, admin_stop) = (TaskTracker::new(), CancellationToken::new());
        let serve =
            Admin { metrics, readiness }.serve(admin_listener, admin_tasks.clone(), admin_stop.clone());
        admin_tasks.spawn(serve);
        let (accepting, stop, open) = (TaskTracker::new(), Stop::default(), Arc::default());
        let mut edge = Vec::new();
        for (listener, address) in listeners {
            accepting.spawn(listener::serve(listener, pipeline.clone(), Arc::clone(&open), stop.clone()));
            edge.push(address);
        }
        Ok(Gateway { edge, admin, pipeline, accepting, stop, admin_tasks, admin_stop })
    }

    /// Where it takes deliveries, ports resolved.
    pub fn edge(&self) -> &[SocketAddr] {
        &self.edge
    }

    /// Where it tells of itself, port resolved.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Stops: nothing answered 200 is lost, and what is in flight is answered if it can be within `drain_timeout`.
    pub async fn drain(self) {
        let Gateway { pipeline, accepting, stop, admin_tasks, admin_stop, .. } = self;
        let begun = clock::instant();
        let timeout = pipeline.edge.drain_timeout;
        let left = || timeout.saturating_sub(clock::instant().saturating_duration_since(begun));
        pipeline.readiness.set_draining();
        // Still accepting: whoever sends the requests needs a moment to see that readiness is off.
        let idle = async {
            while pipeline.metrics.in_flight.get() > 0 {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        if tokio::time::timeout(left(), idle).await.is_err() {
            tracing::warn!(in_flight = pipeline.metrics.in_flight.get(), "drain_timeout is over");
        }
        stop.accepting.cancel();
        accepting.close();
        accepting.wait().await;
        pipeline.tasks.close();
        if tokio::time::timeout(left().max(LAST_MOMENT), pipeline.tasks.wait()).await.is_err() {
            stop.everything.cancel();
            // What was detached from its connection still has the inbox to wait for, which is bounded.
            let bound = pipeline.edge.request_timeout;
            let _ = tokio::time::timeout(bound.min(MAX_DETACHED), pipeline.tasks.wait()).await;
        }
        match Arc::try_unwrap(pipeline) {
            Ok(Pipeline { inbox, audit, .. }) => {
                inbox.close().await;
                audit.close();
            }
            // A task that does not end holds it. What was answered is durable all the same.
            Err(pipeline) => pipeline.audit.close(),
        }
        admin_stop.cancel();
        admin_tasks.close();
        admin_tasks.wait().await;
    }
}

fn open_inbox(
    config: &Config,
    clock: &Clock,
    metrics: &Metrics,
    readiness: &Arc<Readiness>,
) -> Result<Inbox, StartError> {
    let (window, retain) = (config.dedupe.window.value, config.queue.retain);
    match config.queue.kind {
        QueueKind::Embedded => {
            let (db, options) = (database(&config.data_dir), embedded::Options { window, retain });
            let series = metrics.queue("embedded");
            Ok(Inbox::Embedded(embedded::Embedded::open(
                &db,
                options,
                clock.clone(),
                series,
                readiness.clone(),
            )?))
        }
        QueueKind::Redis => {
            let options = redis::Options {
                name: config.queue.name.clone(),
                partitions: config.queue.partitions,
                max_backlog: config.queue.max_backlog,
                window,
                retain,
            };
            let url = config.redis.url.value.resolve()?;
            Ok(Inbox::Redis(redis::RedisInbox::open(
                &url,
                options,
                metrics.queue("redis"),
                readiness.clone(),
            )?))
        }
    }
}

fn make_data_dir(path: &Path) -> Result<(), StartError> {
    let failed = |why| StartError::DataDir { path: path.to_owned(), why };
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(PRIVATE).create(path).map_err(failed)?;
    // A umask may have taken bits away, and must not add any.
    std::fs::set_permissions(path, Permissions::from_mode(PRIVATE)).map_err(failed)
}

fn bind(key: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |why| StartError::Listen { key, address, why };
    let listener = listener::bind(address).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

const PRIVATE: u32 = 0o700;
const LOOK_AGAIN: Duration = Duration::from_millis(10);
const LAST_MOMENT: Duration = Duration::from_millis(500);
const MAX_DETACHED: Duration = Duration::from_secs(5);
