//! The gateway as a whole: builds every part in order, and takes them down in order.
//!
//! Keeps true: nothing is accepted before every part that it needs is open; at the end readiness goes first, then the
//! listener, then the connections, then what drains the spool, then the inbox, then the reject log, then the database, and the
//! admin listener last.

mod stores;
mod turn;

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
use crate::config::{Config, Problem};
use crate::database::OpenError;
use crate::database::writer::{Database, Failure};
use crate::inbox::redis;
use crate::listener::{self, Stop};
use crate::live;
use crate::metrics::Metrics;
use crate::pipeline::Pipeline;
use crate::route::Routes;
use crate::secret::SecretError;
use stores::{Stores, Surroundings};
use turn::Turn;

/// A gateway that serves.
pub struct Gateway {
    edge: Vec<SocketAddr>,
    admin: SocketAddr,
    pipeline: Arc<Pipeline>,
    database: Option<Arc<Database>>,
    turn: Option<Turn>,
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
    /// The database in the data folder cannot be opened.
    #[error("data_dir: {0}")]
    Database(#[from] OpenError),
    /// Redis cannot be used as configured.
    #[error("redis: {0}")]
    Redis(#[from] redis::OpenError),
    /// The broker cannot be opened.
    #[error("queue: {0}")]
    Broker(#[from] crate::broker::OpenError),
    /// What an earlier run left in the spool cannot be read.
    #[error("spool: {0}")]
    Spool(#[from] Failure),
    /// The URL of Redis or of the broker cannot be read.
    #[error("url: {0}")]
    Url(#[from] SecretError),
    /// The metrics cannot be registered: a bug.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// The name of the database in the data folder.
pub fn database_file(data_dir: &Path) -> PathBuf {
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
        let data_dir = |why| StartError::DataDir { path: config.data_dir.clone(), why };
        let shared = config.edge.reuse_port;
        let mut turn =
            if shared { Some(Turn::take(&config.data_dir).await.map_err(data_dir)?) } else { None };
        // Before the stores, so that a port in use is told before anything is touched.
        let (admin_listener, admin) = bind("admin.listen", config.admin.listen, shared)?;
        let listeners: Vec<(TcpListener, SocketAddr)> = config
            .edge
            .listen
            .iter()
            .map(|address| bind("edge.listen", *address, shared))
            .collect::<Result<_, _>>()?;
        if let Some(turn) = &mut turn {
            turn.listens().map_err(data_dir)?;
        }

        let readiness = Arc::new(Readiness::default());
        let (admin_tasks, admin_stop) = (TaskTracker::new(), CancellationToken::new());
        // Before anything that may take its time: whoever asks is told that it is not ready yet.
        let telling = Admin { metrics: metrics.clone(), readiness: readiness.clone() };
        admin_tasks.spawn(telling.serve(admin_listener, admin_tasks.clone(), admin_stop.clone()));
        let open_audit = || {
            let options = audit::Options::new(config.audit.retain, config.audit.max_bytes);
            let dir = audit_dir(&config.data_dir);
            Audit::open(&dir, options, clock.clone(), metrics.clone(), readiness.clone())
        };
        // Who gave the turn up may still be answering; whoever connects meanwhile waits to be accepted.
        let audit = loop {
            match open_audit() {
                Err(audit::OpenError::Held(_)) if shared => tokio::time::sleep(LOOK_AGAIN).await,
                opened => break opened?,
            }
        };
        let with = Surroundings { clock: &clock, metrics: &metrics, readiness: &readiness };
        let Stores { handover, database } = loop {
            match stores::open(&config, &with).await {
                Err(StartError::Database(OpenError::InUse { .. })) if shared => {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                opened => break opened?,
            }
        };
        let watch = live::watch(config.clone(), clock.clone(), metrics.clone());
        admin_tasks.spawn(admin_stop.clone().run_until_cancelled_owned(watch));
        metrics.config_loaded.set(clock.now().as_microsecond() as f64 / 1e6);
        let tasks = TaskTracker::new();
        let pipeline = Arc::new(Pipeline {
            routes,
            handover: Arc::new(handover),
            audit,
            metrics,
            readiness: readiness.clone(),
            clock,
            edge: config.edge,
            tasks,
        });
        pipeline.handover.start(Arc::downgrade(&pipeline));

        // A queue that is there answers in a moment; one that is away must not hold the start up.
        let _ = tokio::time::timeout(FIRST_CONTACT, up(&readiness)).await;
        let (accepting, stop, open) = (TaskTracker::new(), Stop::default(), Arc::default());
        let mut edge = Vec::new();
        for (listener, address) in listeners {
            accepting.spawn(listener::serve(listener, pipeline.clone(), Arc::clone(&open), stop.clone()));
            edge.push(address);
        }
        Ok(Gateway { edge, admin, pipeline, database, turn, accepting, stop, admin_tasks, admin_stop })
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
        let Gateway { pipeline, database, turn, accepting, stop, admin_tasks, admin_stop, .. } = self;
        let begun = clock::instant();
        let timeout = pipeline.edge.drain_timeout;
        let left = || timeout.saturating_sub(clock::instant().saturating_duration_since(begun));
        pipeline.readiness.set_draining();
        if tokio::time::timeout(left(), may_close(&pipeline, turn)).await.is_err() {
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
        // Drainers tell the pipeline what they do; once they are gone, nothing but requests can hold it.
        pipeline.handover.stop().await;
        match Arc::try_unwrap(pipeline) {
            Ok(Pipeline { handover, audit, .. }) => {
                if let Some(handover) = Arc::into_inner(handover) {
                    handover.close().await;
                }
                audit.close();
            }
            // A task that does not end holds it. What was answered is durable all the same.
            Err(pipeline) => pipeline.audit.close(),
        }
        if let Some(database) = database.and_then(Arc::into_inner) {
            database.close().await;
        }
        admin_stop.cancel();
        admin_tasks.close();
        admin_tasks.wait().await;
    }
}

async fn up(readiness: &Readiness) {
    while !readiness.is_up() {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Returns once the listener may close: nothing is in flight, or another gateway listens on the same port. Until then it
/// accepts, since whoever sends the requests needs a moment to see that readiness is off.
async fn may_close(pipeline: &Pipeline, turn: Option<Turn>) {
    let idle = async {
        while pipeline.metrics.in_flight.get() > 0 {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let Some(turn) = turn else { return idle.await };
    let mut given = turn.give_up();
    tokio::select! {
        () = given.taken_over() => return,
        () = idle => {}
    }
    if given.is_wanted().await {
        given.taken_over().await;
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

fn bind(
    key: &'static str,
    address: SocketAddr,
    shared: bool,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |why| StartError::Listen { key, address, why };
    let listener = listener::bind(address, shared).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

const PRIVATE: u32 = 0o700;
const FIRST_CONTACT: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
const LAST_MOMENT: Duration = Duration::from_millis(500);
const MAX_DETACHED: Duration = Duration::from_secs(5);
