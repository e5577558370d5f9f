//! The gateway as a whole: starts and stops every part in order.
//!
//! Keeps true: the gateway accepts no connection before every part is open. It stops in this order: readiness, edge
//! listeners, connections, quarantine, spool drainers, `last_accepted`, orders of reconcile, inbox, reject log, database,
//! spans, admin listener.

mod console;
mod handoff_lock;
mod listeners;
pub mod live;
mod load;
mod offline;
mod passed;
pub mod reconcile;
mod reject_log;
mod reload;
pub mod replay;
mod stores;
pub mod subscriptions;
mod traces;
mod watch;

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
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
use crate::observe::admin::Readiness;
use crate::observe::audit;
use crate::observe::metrics::Metrics;
use crate::observe::traces::Exporter;
use crate::request::pipeline::{Pipeline, RuntimeConfig};
use console::ConsoleFacts;
pub use handoff_lock::HandoffLock;
use listeners::{AdminListener, EdgeListeners, Sockets};
use load::RestartOnlySecret;
pub use load::{Loaded, load, unread_for};
pub use offline::{OfflineError, OfflineGateway};
pub use passed::PassedError;
use reconcile::{OrderDesk, Periodic};
pub use reject_log::record_acts;
pub use reload::{Changes, Reloads};
use stores::{Dependencies, Stores};
use subscriptions::Looks;

/// A running gateway.
pub struct Gateway {
    /// The config in force.
    config: Config,
    pipeline: Arc<Pipeline>,
    database: Option<Arc<Database>>,
    last_accepted: LastAccepted,
    desk: OrderDesk,
    periodic: Periodic,
    /// The sources that share a provider; the inbox reads them.
    qualified: Arc<ArcSwap<HashSet<String>>>,
    handoff: Option<HandoffLock>,
    edge: EdgeListeners,
    /// Runs the writers to Redis and the brokers.
    store_thread: RuntimeThread,
    exporter: Option<Exporter>,
    admin: AdminListener,
    console: Arc<ConsoleFacts>,
    /// Ends [`watch_others`].
    live_watch: CancellationToken,
    /// As they were at the start.
    restart_only: Vec<RestartOnlySecret>,
}

/// Why a gateway does not start, with the remedy where one is known.
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
    /// The sockets that systemd passed do not fit the config.
    #[error("the sockets that systemd passed: {0}")]
    Passed(#[from] PassedError),
    /// The system cannot start a thread.
    #[error("edge.threads: cannot start a thread: {0}")]
    Threads(io::Error),
    /// The reject log cannot be opened.
    #[error("audit: {0}")]
    Audit(#[from] audit::OpenError),
    /// The database in the data folder cannot be opened.
    #[error("data_dir: {0}")]
    Database(#[from] OpenError),
    /// Redis cannot be used with this config.
    #[error("redis: {0}")]
    Redis(#[from] redis::OpenError),
    /// The broker cannot be opened.
    #[error("queue: {0}")]
    Broker(#[from] crate::durable::broker::OpenError),
    /// The events that an earlier run left in the spool cannot be read.
    #[error("spool: {0}")]
    Spool(#[from] Failure),
    /// The URL of Redis or of the broker cannot be read.
    #[error("url: {0}")]
    Url(#[from] SecretError),
    /// Spans cannot be exported.
    #[error("tracing: {0}")]
    Tracing(String),
    /// The metrics cannot be registered: a bug.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Gateway {
    /// Opens every part and starts to serve. Waits for the handoff lock if another gateway holds it.
    ///
    /// # Errors
    /// When the config has errors, or a part cannot be opened.
    pub async fn start(config: Config, clock: Clock) -> Result<Gateway, StartError> {
        let handoff = HandoffLock::acquire(&config).await?;
        Gateway::start_with(handoff, config, clock).await
    }

    /// Like [`Gateway::start`], with a lock from [`HandoffLock::acquire`].
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub async fn start_with(
        mut handoff: Option<HandoffLock>,
        config: Config,
        clock: Clock,
    ) -> Result<Gateway, StartError> {
        let metrics = Arc::new(Metrics::new()?);
        let (rules, key) = rules(&config, &metrics)?;
        make_data_dir(&config.data_dir)?;
        let data_dir = |why| StartError::DataDir { path: config.data_dir.clone(), why };
        // Before the stores: a start that fails on a port in use must change nothing.
        let sockets = Sockets::bind(&config)?;
        if let Some(handoff) = &mut handoff {
            handoff.mark_listening().map_err(data_dir)?;
        }
        let edge_threads = EdgeThreads::start(config.edge.threads).map_err(StartError::Threads)?;
        let store_thread = RuntimeThread::start("store").map_err(StartError::Threads)?;
        let (traces, exporter) = traces::start(&config, &metrics)?.unzip();

        let readiness = Arc::new(Readiness::default());
        // Before anything slow: until the start is done, /readyz answers "not ready".
        let rules = Arc::new(ArcSwap::from_pointee(rules));
        let qualified = Arc::new(ArcSwap::from_pointee(stores::sharing_a_provider(&config)));
        let deps =
            Dependencies { clock: &clock, metrics: &metrics, readiness: &readiness, qualified: &qualified };
        let (admin, console) = console::admin(&config, &rules, &deps);
        let admin = AdminListener::serve(admin, sockets.admin);
        admin.spawn(console.clone().sample());
        let audit = reject_log::open(&config, &deps).await?;
        let Stores { enqueuer, database } = open_stores(&config, &deps, store_thread.handle()).await?;
        let last_accepted = LastAccepted::open(&data_dir::database_file(&config.data_dir), clock.clone());
        last_accepted.serve(rules.load().last_accepted(&metrics));
        reject_log::attach_ledger(&config, &audit, &deps);
        let quarantine = stores::quarantine(&config, key, &deps).await?;
        let restart_only = load::read_restart_only(&config);
        let looks = console.looks.clone();
        let live_watch = admin.spawn(watch_others(config.clone(), clock.clone(), metrics.clone(), looks));
        metrics.gateway.config_loaded.set(clock.now().as_microsecond() as f64 / 1e6);
        let pipeline = Arc::new(Pipeline {
            rules,
            enqueuer: Arc::new(enqueuer),
            audit,
            quarantine,
            sequences: Arc::default(),
            metrics,
            readiness: readiness.clone(),
            traces,
            clock,
            tasks: TaskTracker::new(),
        });
        pipeline.enqueuer.start(Arc::downgrade(&pipeline));

        // A queue that is up answers in a moment; one that is down must not delay the start.
        let _ = tokio::time::timeout(FIRST_CONTACT, wait_until_up(&readiness)).await;
        // After the first contact: a `quarantine reverify` that still waits must not hear that a healthy queue is down.
        if let Some(quarantine) = &pipeline.quarantine {
            quarantine.start(Arc::downgrade(&pipeline));
        }
        let desk = OrderDesk::start(&config.data_dir, &pipeline, true);
        let periodic = Periodic::start(&config, &pipeline, desk.db());
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
            desk,
            periodic,
            qualified,
            handoff,
            edge,
            store_thread,
            exporter,
            admin,
            console,
            live_watch,
            restart_only,
        })
    }

    /// The addresses of the edge listeners, ports resolved.
    pub fn edge(&self) -> Vec<SocketAddr> {
        self.edge.addresses()
    }

    /// The address of the admin listener, port resolved.
    pub fn admin(&self) -> SocketAddr {
        self.admin.address()
    }

    /// Stops. Loses no event that was answered 200. Answers the requests in flight, for at most `drain_timeout`.
    pub async fn drain(self) {
        let Gateway {
            pipeline,
            database,
            last_accepted,
            desk,
            periodic,
            handoff,
            edge,
            store_thread,
            exporter,
            admin,
            ..
        } = self;
        let begun = clock::instant();
        let timeout = pipeline.rules.load().edge.drain_timeout;
        let left = || timeout.saturating_sub(clock::instant().saturating_duration_since(begun));
        pipeline.readiness.set_draining();
        // A verification under way may go on until the requests are done.
        if let Some(quarantine) = &pipeline.quarantine {
            quarantine.stop_verifying();
        }
        desk.stop_taking();
        periodic.stop().await;
        if tokio::time::timeout(left(), wait_to_close(&pipeline, handoff)).await.is_err() {
            tracing::warn!(
                in_flight = pipeline.metrics.edge.in_flight.get(),
                "drain_timeout is over; closing with requests in flight"
            );
        }
        edge.stop_accepting().await;
        pipeline.tasks.close();
        if tokio::time::timeout(left().max(MIN_GRACE), pipeline.tasks.wait()).await.is_err() {
            edge.drop_connections();
            // A detached enqueue still waits for the inbox, at most this long.
            let bound = pipeline.rules.load().edge.request_timeout;
            let _ = tokio::time::timeout(bound.min(MAX_DETACHED), pipeline.tasks.wait()).await;
        }
        // The drainers and the quarantine hold the pipeline; once they have stopped, only requests can.
        pipeline.enqueuer.stop().await;
        edge.close().await;
        if let Some(quarantine) = &pipeline.quarantine {
            quarantine.stop().await;
        }
        // Before the inbox and the database release the lock on the file.
        last_accepted.close().await;
        desk.close().await;
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
            // A task that does not end holds the pipeline. Every answered event is durable anyway.
            Err(pipeline) => pipeline.audit.close(),
        }
        store_thread.stop().await;
        if let Some(database) = database.and_then(Arc::into_inner) {
            database.close().await;
        }
        if let Some(exporter) = exporter {
            exporter.stop().await;
        }
        admin.close().await;
    }
}

/// Looks at the servers and the providers' side, again and again. A reload restarts it.
async fn watch_others(config: Config, clock: Clock, metrics: Arc<Metrics>, looks: Arc<Looks>) {
    let servers = live::watch(config.clone(), clock.clone(), metrics.clone());
    tokio::join!(servers, subscriptions::watch(config, clock, metrics, &looks));
}

/// The remedy for an address that cannot be listened on, where the error tells it.
fn listen_advice(why: &io::Error) -> &'static str {
    match why.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program has the port (`ss -ltnp` shows which): stop it, or choose another port"
        }
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address: choose one that it has",
        io::ErrorKind::PermissionDenied => {
            "; a port below 1024 needs the capability CAP_NET_BIND_SERVICE: grant it, or choose a higher port"
        }
        _ => "",
    }
}

/// The rules that requests must meet, and the key that encrypts quarantined requests.
fn rules(config: &Config, metrics: &Metrics) -> Result<(RuntimeConfig, Option<Key>), StartError> {
    let mut problems = Vec::new();
    let rules = RuntimeConfig::build(config, metrics, None, &mut problems);
    let key = Key::build(&config.quarantine, &mut problems);
    problems.retain(|problem| !problem.warning);
    if problems.is_empty() { Ok((rules, key)) } else { Err(StartError::Config(problems)) }
}

/// Opens the stores. Where ports are shared, waits until the draining gateway has closed the database.
async fn open_stores(
    config: &Config,
    deps: &Dependencies<'_>,
    runtime: &Handle,
) -> Result<Stores, StartError> {
    loop {
        match stores::open(config, deps, runtime).await {
            Err(StartError::Database(OpenError::InUse { .. })) if config.edge.reuse_port => {
                tokio::time::sleep(POLL).await;
            }
            opened => return opened,
        }
    }
}

async fn wait_until_up(readiness: &Readiness) {
    while !readiness.is_up() {
        tokio::time::sleep(POLL).await;
    }
}

/// Returns once the edge listeners may close: no request is in flight, or another gateway listens on the same port.
/// Until then they accept, since a load balancer needs a moment to see that readiness is off.
async fn wait_to_close(pipeline: &Pipeline, handoff: Option<HandoffLock>) {
    let idle = async {
        while pipeline.metrics.edge.in_flight.get() > 0 {
            tokio::time::sleep(POLL).await;
        }
    };
    let Some(handoff) = handoff else { return idle.await };
    let mut released = handoff.release();
    tokio::select! {
        () = released.wait_for_takeover() => return,
        () = idle => {}
    }
    released.wait_for_successor().await;
}

fn make_data_dir(path: &Path) -> Result<(), StartError> {
    data_dir::make(path).map_err(|why| StartError::DataDir { path: path.to_owned(), why })
}

const FIRST_CONTACT: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(10);
/// The least time for requests in flight, even when `drain_timeout` is over.
const MIN_GRACE: Duration = Duration::from_millis(500);
const MAX_DETACHED: Duration = Duration::from_secs(5);
