//! A gateway without listeners, for commands that enqueue events while no gateway runs: kept requests out of the
//! quarantine that pass, and events that a provider's API handed over.
//!
//! Keeps true: it opens the same stores under the same locks, so it never runs beside a gateway.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use super::reconcile::OrderDesk;
use super::stores::{self, Dependencies, Stores};
use super::{StartError, make_data_dir, reject_log, wait_until_up};
use crate::base::clock::Clock;
use crate::config::Config;
use crate::durable::data_dir;
use crate::durable::database::writer::Database;
use crate::durable::database::{self, OpenError};
use crate::durable::quarantine::{Key, KeyError};
use crate::observe::admin::Readiness;
use crate::observe::audit;
use crate::observe::metrics::Metrics;
use crate::request::pipeline::{Pipeline, RuntimeConfig};

/// A gateway without listeners.
pub struct OfflineGateway {
    pub(super) pipeline: Arc<Pipeline>,
    database: Option<Arc<Database>>,
    desk: OrderDesk,
}

/// Why an [`OfflineGateway`] cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// A running gateway has open what the command needs; it does the work instead.
    #[error("a gateway runs")]
    Running,
    /// A running gateway has the stores open, but not the quarantine.
    #[error(
        "a gateway runs on this data_dir without a quarantine: restart it with quarantine.enabled = true, or stop it, and \
         ask again"
    )]
    RunningWithout,
    /// No key is configured, so no kept request can be decrypted.
    #[error("quarantine.key is not set; kept requests cannot be read without it")]
    NoKey,
    /// The key is invalid.
    #[error("quarantine.key: {0}")]
    Key(#[from] KeyError),
    /// A gateway would not start either.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl OfflineGateway {
    /// Opens every part except the listeners and the quarantine.
    ///
    /// # Errors
    /// When a gateway runs, the config has errors, or a part cannot be opened.
    pub async fn open(config: &Config, clock: Clock) -> Result<OfflineGateway, OfflineError> {
        OfflineGateway::open_parts(config, clock, None).await
    }

    /// Opens every part except the listeners, and starts to verify the requests that commands ask for.
    ///
    /// # Errors
    /// When a gateway runs, the config has errors, no key is configured, or a part cannot be opened.
    pub async fn open_with_quarantine(config: &Config, clock: Clock) -> Result<OfflineGateway, OfflineError> {
        let key = Key::configured(&config.quarantine)?.ok_or(OfflineError::NoKey)?;
        OfflineGateway::open_parts(config, clock, Some(key)).await
    }

    async fn open_parts(
        config: &Config,
        clock: Clock,
        key: Option<Key>,
    ) -> Result<OfflineGateway, OfflineError> {
        // If a gateway runs, its config counts, and problems of this one do not matter: this command may lack a secret.
        if key.is_none() && is_in_use(config) {
            return Err(OfflineError::Running);
        }
        let metrics = Arc::new(Metrics::new().map_err(StartError::from)?);
        let mut problems = Vec::new();
        let rules = RuntimeConfig::build(config, &metrics, None, &mut problems);
        let readiness = Arc::new(Readiness::default());
        let qualified = Arc::new(ArcSwap::from_pointee(stores::sharing_a_provider(config)));
        let deps =
            Dependencies { clock: &clock, metrics: &metrics, readiness: &readiness, qualified: &qualified };
        // The quarantine first: if a gateway runs, its config counts, and problems of this one do not matter.
        let quarantine = match key {
            Some(key) => {
                let opened = stores::open_quarantine(config, key, &deps, false).await;
                Some(opened.map_err(|why| if_in_use(why, OfflineError::Running))?)
            }
            None => None,
        };
        let in_use =
            || if quarantine.is_some() { OfflineError::RunningWithout } else { OfflineError::Running };
        problems.retain(|problem| !problem.warning);
        if !problems.is_empty() {
            return Err(StartError::Config(problems).into());
        }
        make_data_dir(&config.data_dir)?;
        let audit = reject_log::try_open(config, &deps);
        let audit = audit.map_err(|why| if_in_use(why, in_use()))?;
        let opened = stores::open(config, &deps, &Handle::current()).await;
        let Stores { enqueuer, database } = opened.map_err(|why| if_in_use(why, in_use()))?;
        reject_log::attach_ledger(config, &audit, &deps);
        let pipeline = Arc::new(Pipeline {
            rules: Arc::new(ArcSwap::from_pointee(rules)),
            enqueuer: Arc::new(enqueuer),
            audit,
            quarantine,
            sequences: Arc::default(),
            traces: None,
            metrics,
            readiness: readiness.clone(),
            clock,
            tasks: TaskTracker::new(),
        });
        let _ = tokio::time::timeout(FIRST_CONTACT, wait_until_up(&readiness)).await;
        if let Some(quarantine) = &pipeline.quarantine {
            quarantine.start(Arc::downgrade(&pipeline));
        }
        let desk = OrderDesk::start(&config.data_dir, &pipeline, false);
        Ok(OfflineGateway { pipeline, database, desk })
    }

    /// Finishes the work that has begun, then closes every part.
    pub async fn close(self) {
        let OfflineGateway { pipeline, database, desk } = self;
        desk.stop_taking();
        if let Some(quarantine) = &pipeline.quarantine {
            quarantine.stop().await;
        }
        pipeline.tasks.close();
        pipeline.tasks.wait().await;
        // Before the inbox and the database release the lock on the file.
        desk.close().await;
        if let Ok(Pipeline { enqueuer, audit, quarantine, .. }) = Arc::try_unwrap(pipeline) {
            if let Some(quarantine) = quarantine {
                quarantine.close().await;
            }
            if let Some(enqueuer) = Arc::into_inner(enqueuer) {
                enqueuer.close().await;
            }
            audit.close();
        }
        if let Some(database) = database.and_then(Arc::into_inner) {
            database.close().await;
        }
    }
}

/// Whether a process has the database open.
fn is_in_use(config: &Config) -> bool {
    // Any other error shows when the database is opened.
    matches!(database::lock(&data_dir::database_file(&config.data_dir)), Err(OpenError::InUse { .. }))
}

/// `error` if another process has the part open, else the start error.
fn if_in_use(why: StartError, error: OfflineError) -> OfflineError {
    match why {
        StartError::Database(OpenError::InUse { .. }) | StartError::Audit(audit::OpenError::Held(_)) => error,
        why => why.into(),
    }
}

/// How long to wait for the queue at first. If it stays down, the answers say so.
const FIRST_CONTACT: Duration = Duration::from_secs(5);
