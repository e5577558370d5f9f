//! A gateway without listeners: verifies quarantined requests again, and enqueues those that pass, while no gateway
//! runs.
//!
//! Keeps true: it opens the same stores under the same locks, so it never runs beside a gateway.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use super::stores::{self, Dependencies, Stores};
use super::{StartError, reject_log, wait_until_up};
use crate::base::clock::Clock;
use crate::config::Config;
use crate::durable::database::OpenError;
use crate::durable::database::writer::Database;
use crate::durable::quarantine::{Key, KeyError};
use crate::observe::admin::Readiness;
use crate::observe::audit;
use crate::observe::metrics::Metrics;
use crate::request::pipeline::{Pipeline, RuntimeConfig};

/// A gateway without listeners.
pub struct OfflineGateway {
    pipeline: Arc<Pipeline>,
    database: Option<Arc<Database>>,
}

/// Why an [`OfflineGateway`] cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// A running gateway has the quarantine open; it does the work instead.
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
    /// Opens every part except the listeners, and starts to verify the requests that commands ask for.
    ///
    /// # Errors
    /// When a gateway runs, the config has errors, or a part cannot be opened.
    pub async fn open(config: &Config, clock: Clock) -> Result<OfflineGateway, OfflineError> {
        let metrics = Arc::new(Metrics::new().map_err(StartError::from)?);
        let mut problems = Vec::new();
        let rules = RuntimeConfig::build(config, &metrics, None, &mut problems);
        let key = Key::configured(&config.quarantine);
        let readiness = Arc::new(Readiness::default());
        let qualified = Arc::new(ArcSwap::from_pointee(stores::sharing_a_provider(config)));
        let deps =
            Dependencies { clock: &clock, metrics: &metrics, readiness: &readiness, qualified: &qualified };
        // The quarantine first: if a gateway runs, its config counts, and problems of this one do not matter.
        let quarantine = match key {
            Ok(Some(key)) => stores::open_quarantine(config, key, &deps, false).await,
            Ok(None) => return Err(OfflineError::NoKey),
            Err(why) => return Err(why.into()),
        };
        let quarantine = quarantine.map_err(|why| if_in_use(why, OfflineError::Running))?;
        problems.retain(|problem| !problem.warning);
        if !problems.is_empty() {
            return Err(StartError::Config(problems).into());
        }
        let audit = reject_log::try_open(config, &deps);
        let audit = audit.map_err(|why| if_in_use(why, OfflineError::RunningWithout))?;
        let opened = stores::open(config, &deps, &Handle::current()).await;
        let Stores { enqueuer, database } =
            opened.map_err(|why| if_in_use(why, OfflineError::RunningWithout))?;
        reject_log::attach_ledger(config, &audit, &deps);
        let pipeline = Arc::new(Pipeline {
            rules: Arc::new(ArcSwap::from_pointee(rules)),
            enqueuer: Arc::new(enqueuer),
            audit,
            quarantine: Some(quarantine),
            metrics,
            readiness: readiness.clone(),
            clock,
            tasks: TaskTracker::new(),
        });
        let _ = tokio::time::timeout(FIRST_CONTACT, wait_until_up(&readiness)).await;
        if let Some(quarantine) = &pipeline.quarantine {
            quarantine.start(Arc::downgrade(&pipeline));
        }
        Ok(OfflineGateway { pipeline, database })
    }

    /// Finishes the work that has begun, then closes every part.
    pub async fn close(self) {
        let OfflineGateway { pipeline, database } = self;
        if let Some(quarantine) = &pipeline.quarantine {
            quarantine.stop().await;
        }
        pipeline.tasks.close();
        pipeline.tasks.wait().await;
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

/// `error` if another process has the part open, else the start error.
fn if_in_use(why: StartError, error: OfflineError) -> OfflineError {
    match why {
        StartError::Database(OpenError::InUse { .. }) | StartError::Audit(audit::OpenError::Held(_)) => error,
        why => why.into(),
    }
}

/// How long to wait for the queue at first. If it stays down, the answers say so.
const FIRST_CONTACT: Duration = Duration::from_secs(5);
