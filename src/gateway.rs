//! The gateway as a whole: builds every part in order, and takes them down in order.
//!
//! Keeps true: nothing is accepted before every part that it needs is open; at the end readiness goes first, then the
//! listener, then the connections, then the quarantine and what drains the spool, then when sources last had an event, then
//! the inbox, then the reject log, then the database, which another gateway may wait for, and the admin listener last.

mod handoff_lock;
mod listeners;
pub mod live;
mod load;
mod offline;
mod reject_log;
mod reload;
mod stores;
mod watch;

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use arc_swap::access::Map;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::base::clock::{self, Clock};
use crate::base::runtime::RuntimeThread;
use crate::config::secret::SecretError;
use crate::config::{Config, Problem};
use crate::durable::data_dir;
use crate::durable::database::OpenError;
use crate::durable::database::writer::{Database, Failure};
use crate::durable::inbox::redis;
use crate::durable::last_accepted::LastAccepted;
use crate::durable::quarantine::Key;
use crate::edge::{self, EdgeThreads};
use crate::observe::admin::{Admin, Readiness};
use crate::observe::audit;
use crate::observe::metrics::Metrics;
use crate::request::pipeline::{Pipeline, RuntimeConfig};
pub use handoff_lock::HandoffLock;
use listeners::{AdminListener, EdgeListeners, Sockets};
use load::RestartOnlySecret;
pub use load::{Loaded, load, unread_for};
pub use offline::{OfflineGateway, StoppedError};
pub use reject_log::record_acts;
pub use reload::{Changes, Reloads};
use stores::{Dependencies, Stores};

/// A gateway that serves.
pub struct Gateway {
    /// In force.
    config: Config,
    pipeline: Arc<Pipeline>,
    database: Option<Arc<Database>>,
    last_accepted: LastAccepted,
    /// The sources that share a provider, as the inbox is to know them.
    qualified: Arc<ArcSwap<HashSet<String>>>,
    turn: Option<HandoffLock>,
    edge: EdgeListeners,
    /// Runs what writes to Redis and the brokers.
    store_thread: RuntimeThread,
    admin: AdminListener,
    /// Ends the look at the servers' settings.
    looking: CancellationToken,
    /// As of the start.
    lasting: Vec<RestartOnlySecret>,
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
    #[error("{key}: cannot listen on {address}: {why}{}", listen_advice(why))]
    Listen {
        /// The config key.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        why: io::Error,
    },
    /// The system gives no thread.
    #[error("edge.threads: cannot start a thread: {0}")]
    Threads(io::Error),
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
    Broker(#[from] crate::durable::broker::OpenError),
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

impl Gateway {
    /// Opens every part and starts to serve. Waits for the turn, where another gateway may have it.
    ///
    /// # Errors
    /// When the config has errors, or a part cannot be opened.
    pub async fn start(config: Config, clock: Clock) -> Result<Gateway, StartError> {
        let turn = HandoffLock::of(&config).await?;
        Gateway::start_in_turn(turn, config, clock).await
    }

    /// The same with the turn that [`HandoffLock::of`] gives.
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub async fn start_in_turn(
        mut turn: Option<HandoffLock>,
        config: Config,
        clock: Clock,
    ) -> Result<Gateway, StartError> {
        let metrics = Arc::new(Metrics::new()?);
        let (rules, key) = rules(&config, &metrics)?;
        make_data_dir(&config.data_dir)?;
        let data_dir = |why| StartError::DataDir { path: config.data_dir.clone(), why };
        // Before the stores, so that a port in use is told before anything is touched.
        let sockets = Sockets::of(&config)?;
        if let Some(turn) = &mut turn {
            turn.listens().map_err(data_dir)?;
        }
        let edge_threads = EdgeThreads::start(config.edge.threads).map_err(StartError::Threads)?;
        let store_thread = RuntimeThread::start("store").map_err(StartError::Threads)?;

        let readiness = Arc::new(Readiness::default());
        // Before anything that may take its time: whoever asks is told that it is not ready yet.
        let rules = Arc::new(ArcSwap::from_pointee(rules));
        let of_admin = Arc::new(Map::new(rules.clone(), |rules: &RuntimeConfig| &rules.admin));
        let telling = Admin { metrics: metrics.clone(), readiness: readiness.clone(), rules: of_admin };
        let admin = AdminListener::serve(telling, sockets.admin);
        let qualified = Arc::new(ArcSwap::from_pointee(stores::sharing_a_provider(&config)));
        let with =
            Dependencies { clock: &clock, metrics: &metrics, readiness: &readiness, qualified: &qualified };
        let audit = reject_log::open(&config, &with).await?;
        let Stores { enqueuer, database } = open_stores(&config, &with, store_thread.handle()).await?;
        let last_accepted = LastAccepted::open(&data_dir::database_file(&config.data_dir), clock.clone());
        last_accepted.serve(rules.load().last_accepted(&metrics));
        reject_log::keep(&config, &audit, &with);
        let quarantine = stores::quarantine(&config, key, &with).await?;
        let lasting = load::lasting(&config);
        let looking = admin.beside(live::watch(config.clone(), clock.clone(), metrics.clone()));
        metrics.gateway.config_loaded.set(clock.now().as_microsecond() as f64 / 1e6);
        let pipeline = Arc::new(Pipeline {
            rules,
            enqueuer: Arc::new(enqueuer),
            audit,
            quarantine,
            metrics,
            readiness: readiness.clone(),
            clock,
            tasks: TaskTracker::new(),
        });
        pipeline.enqueuer.start(Arc::downgrade(&pipeline));

        // A queue that is there answers in a moment; one that is away must not hold the start up.
        let _ = tokio::time::timeout(FIRST_CONTACT, up(&readiness)).await;
        // Whoever waits for what it asked of the last gateway is not to be told that the queue is away, when it is not.
        if let Some(quarantine) = &pipeline.quarantine {
            quarantine.start(Arc::downgrade(&pipeline));
        }
        edge::descriptors::raise(pipeline.rules.load().edge.max_connections);
        let mut edge = EdgeListeners::new(edge_threads);
        for socket in sockets.edge {
            edge.serve(socket, &pipeline);
        }
        Ok(Gateway {
            config,
            pipeline,
            database,
            last_accepted,
            qualified,
            turn,
            edge,
            store_thread,
            admin,
            looking,
            lasting,
        })
    }

    /// Where it takes deliveries, ports resolved.
    pub fn edge(&self) -> Vec<SocketAddr> {
        self.edge.addresses()
    }

    /// Where it tells of itself, port resolved.
    pub fn admin(&self) -> SocketAddr {
        self.admin.address()
    }

    /// Stops: nothing answered 200 is lost, and what is in flight is answered if it can be within `drain_timeout`.
    pub async fn drain(self) {
        let Gateway { pipeline, database, last_accepted, turn, edge, store_thread, admin, .. } = self;
        let begun = clock::instant();
        let timeout = pipeline.rules.load().edge.drain_timeout;
        let left = || timeout.saturating_sub(clock::instant().saturating_duration_since(begun));
        pipeline.readiness.set_draining();
        // What it verifies just now has until the requests are done.
        if let Some(quarantine) = &pipeline.quarantine {
            quarantine.stop_verifying();
        }
        if tokio::time::timeout(left(), may_close(&pipeline, turn)).await.is_err() {
            tracing::warn!(in_flight = pipeline.metrics.edge.in_flight.get(), "drain_timeout is over");
        }
        edge.stop_accepting().await;
        pipeline.tasks.close();
        if tokio::time::timeout(left().max(LAST_MOMENT), pipeline.tasks.wait()).await.is_err() {
            edge.drop_everything();
            // What was detached from its connection still has the inbox to wait for, which is bounded.
            let bound = pipeline.rules.load().edge.request_timeout;
            let _ = tokio::time::timeout(bound.min(MAX_DETACHED), pipeline.tasks.wait()).await;
        }
        edge.close().await;
        // Drainers tell the pipeline what they do, and the quarantine asks it; once they are gone, nothing but requests can
        // hold it.
        if let Some(quarantine) = &pipeline.quarantine {
            quarantine.stop().await;
        }
        pipeline.enqueuer.stop().await;
        // Before the inbox and the database let go of the lock on the file.
        last_accepted.close().await;
        match Arc::try_unwrap(pipeline) {
            Ok(Pipeline { enqueuer, audit, quarantine, .. }) => {
                if let Some(quarantine) = quarantine {
                    quarantine.close().await;
                }
                if let Some(enqueuer) = Arc::into_inner(enqueuer) {
                    enqueuer.close().await;
                }
                audit.close();
            }
            // A task that does not end holds it. What was answered is durable all the same.
            Err(pipeline) => pipeline.audit.close(),
        }
        store_thread.stop().await;
        if let Some(database) = database.and_then(Arc::into_inner) {
            database.close().await;
        }
        admin.close().await;
    }
}

/// What to do about an address that cannot be listened on, where the system's words tell.
fn listen_advice(why: &io::Error) -> &'static str {
    match why.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program has the port (`ss -ltnp` shows which): stop it, or name another port"
        }
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address: name one that it has",
        io::ErrorKind::PermissionDenied => {
            "; a port below 1024 needs the capability CAP_NET_BIND_SERVICE: give it, or name a higher port"
        }
        _ => "",
    }
}

/// What requests are held against, and what quarantined ones are sealed with, if nothing is wrong with either.
fn rules(config: &Config, metrics: &Metrics) -> Result<(RuntimeConfig, Option<Key>), StartError> {
    let mut problems = Vec::new();
    let rules = RuntimeConfig::build(config, metrics, None, &mut problems);
    let key = Key::build(&config.quarantine, &mut problems);
    problems.retain(|problem| !problem.warning);
    if problems.is_empty() { Ok((rules, key)) } else { Err(StartError::Config(problems)) }
}

async fn open_stores(
    config: &Config,
    with: &Dependencies<'_>,
    runtime: &Handle,
) -> Result<Stores, StartError> {
    loop {
        match stores::open(config, with, runtime).await {
            Err(StartError::Database(OpenError::InUse { .. })) if config.edge.reuse_port => {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            opened => return opened,
        }
    }
}

async fn up(readiness: &Readiness) {
    while !readiness.is_up() {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Returns once the listener may close: nothing is in flight, or another gateway listens on the same port. Until then it
/// accepts, since whoever sends the requests needs a moment to see that readiness is off.
async fn may_close(pipeline: &Pipeline, turn: Option<HandoffLock>) {
    let idle = async {
        while pipeline.metrics.edge.in_flight.get() > 0 {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    let Some(turn) = turn else { return idle.await };
    let mut given = turn.give_up();
    tokio::select! {
        () = given.taken_over() => return,
        () = idle => {}
    }
    given.succeeded().await;
}

fn make_data_dir(path: &Path) -> Result<(), StartError> {
    data_dir::make(path).map_err(|why| StartError::DataDir { path: path.to_owned(), why })
}

const FIRST_CONTACT: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
const LAST_MOMENT: Duration = Duration::from_millis(500);
const MAX_DETACHED: Duration = Duration::from_secs(5);
