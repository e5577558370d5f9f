//! What verifies and admits out of the quarantine while no gateway runs: a gateway without listeners.
//!
//! Keeps true: it opens the same stores under the same locks, so that it never works beside a gateway.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use super::stores::{self, Dependencies, Stores};
use super::{StartError, reject_log, up};
use crate::base::clock::Clock;
use crate::config::Config;
use crate::durable::database::OpenError;
use crate::durable::database::writer::Database;
use crate::durable::quarantine::{Key, KeyError};
use crate::observe::admin::Readiness;
use crate::observe::audit;
use crate::observe::metrics::Metrics;
use crate::request::pipeline::{Pipeline, RuntimeConfig};

/// The parts, open.
pub struct OfflineGateway {
    pipeline: Arc<Pipeline>,
    database: Option<Arc<Database>>,
}

/// Why it cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StoppedError {
    /// Somebody else has the quarantine open, and does what is asked.
    #[error("a gateway runs")]
    Running,
    /// A gateway has the stores, and the quarantine is none of its business.
    #[error(
        "a gateway runs on this data_dir without a quarantine: restart it with quarantine.enabled = true, or stop it, and \
         ask again"
    )]
    RunningWithout,
    /// Nothing that is kept can be opened.
    #[error("quarantine.key is not set, and what is kept cannot be opened without it")]
    NoKey,
    /// The key cannot be used.
    #[error("quarantine.key: {0}")]
    Key(#[from] KeyError),
    /// As a gateway would not start.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl OfflineGateway {
    /// Opens every part but the listeners, and verifies what is asked for.
    ///
    /// # Errors
    /// When a gateway runs, the config has errors, or a part cannot be opened.
    pub async fn open(config: &Config, clock: Clock) -> Result<OfflineGateway, StoppedError> {
        let metrics = Arc::new(Metrics::new().map_err(StartError::from)?);
        let mut problems = Vec::new();
        let rules = RuntimeConfig::build(config, &metrics, None, &mut problems);
        let key = Key::configured(&config.quarantine);
        let readiness = Arc::new(Readiness::default());
        let qualified = Arc::new(ArcSwap::from_pointee(stores::sharing_a_provider(config)));
        let with =
            Dependencies { clock: &clock, metrics: &metrics, readiness: &readiness, qualified: &qualified };
        // A gateway that runs goes by its own config: what is wrong with this one is no matter then.
        let quarantine = match key {
            Ok(Some(key)) => stores::open_quarantine(config, key, &with, false).await,
            Ok(None) => return Err(StoppedError::NoKey),
            Err(why) => return Err(why.into()),
        };
        let quarantine = quarantine.map_err(|why| held(why, StoppedError::Running))?;
        problems.retain(|problem| !problem.warning);
        if !problems.is_empty() {
            return Err(StartError::Config(problems).into());
        }
        let audit = reject_log::audit(config, &with);
        let audit = audit.map_err(|why| held(why, StoppedError::RunningWithout))?;
        let opened = stores::open(config, &with, &Handle::current()).await;
        let Stores { enqueuer, database } = opened.map_err(|why| held(why, StoppedError::RunningWithout))?;
        reject_log::keep(config, &audit, &with);
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
        let _ = tokio::time::timeout(FIRST_CONTACT, up(&readiness)).await;
        if let Some(quarantine) = &pipeline.quarantine {
            quarantine.start(Arc::downgrade(&pipeline));
        }
        Ok(OfflineGateway { pipeline, database })
    }

    /// Lets go of everything, once what has begun is done.
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

/// What it means that somebody else has a part.
fn held(why: StartError, means: StoppedError) -> StoppedError {
    match why {
        StartError::Database(OpenError::InUse { .. }) | StartError::Audit(audit::OpenError::Held(_)) => means,
        why => why.into(),
    }
}

/// For a queue that is there. One that is not shows in the verdicts.
const FIRST_CONTACT: Duration = Duration::from_secs(5);
