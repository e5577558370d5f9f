//! Opens the durable stores: the configured inbox, the spool behind it, and the quarantine.
//!
//! Keeps true: every user of hookgate.db shares one writer. Events that an earlier run left in the spool are drained
//! even if the spool is now off; if that is impossible, the gateway does not start.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;

use super::StartError;
use crate::base::clock::Clock;
use crate::base::runtime;
use crate::config::queue_name::QueueName;
use crate::config::{Config, QueueKind, Store};
use crate::durable::broker::{self, Broker, Watch, amqp, http, nats};
use crate::durable::data_dir;
use crate::durable::database::OpenError;
use crate::durable::database::writer::Database;
use crate::durable::inbox::claimed::{self, Claimed, Claims, EmbeddedClaims, RedisClaims};
use crate::durable::inbox::{Inbox, embedded, redis};
use crate::durable::quarantine::{Key, Quarantine};
use crate::durable::spool::{self, Enqueuer, Spool};
use crate::gateway::live;
use crate::observe::admin::{Readiness, SpoolState};
use crate::observe::metrics::Metrics;

/// The open stores of a gateway.
pub(super) struct Stores {
    pub(super) enqueuer: Enqueuer,
    /// Holds the spool and the embedded claims. Absent with the embedded queue, which has the file to itself. Closed
    /// last.
    pub(super) database: Option<Arc<Database>>,
}

/// What opening a store needs besides the config.
pub(super) struct Dependencies<'a> {
    pub(super) clock: &'a Clock,
    pub(super) metrics: &'a Arc<Metrics>,
    pub(super) readiness: &'a Arc<Readiness>,
    /// The result of [`sharing_a_provider`] for the config in force.
    pub(super) qualified: &'a Arc<ArcSwap<HashSet<String>>>,
}

/// Opens the inbox and the spool. The inbox's background tasks run on `runtime`.
pub(super) async fn open(
    config: &Config,
    deps: &Dependencies<'_>,
    runtime: &Handle,
) -> Result<Stores, StartError> {
    let (inbox, database) = match config.queue.kind {
        // The embedded queue owns the file. A spool in the same file would be full whenever the queue is.
        QueueKind::Embedded => {
            let inbox = open_embedded(config, deps)?;
            let state = if config.spool.enabled { SpoolState::Beside } else { SpoolState::Off };
            deps.readiness.set_spool(state);
            return Ok(Stores { enqueuer: Enqueuer::direct(inbox), database: None });
        }
        QueueKind::Redis => {
            let database = open_database(config)?;
            let _entered = runtime.enter();
            (Inbox::Redis(open_redis(config, redis_options(config), deps)?), database)
        }
        QueueKind::Nats | QueueKind::Amqp | QueueKind::Kafka | QueueKind::Http => {
            let database = open_database(config)?;
            (runtime::within(runtime, open_claimed(config, deps, &database)).await?, database)
        }
    };
    let (metrics, readiness) = (deps.metrics.spool.clone(), deps.readiness.clone());
    let max_bytes = config.spool.enabled.then_some(config.spool.max_bytes);
    let spool = Spool::open(database.clone(), max_bytes, deps.clock.clone(), metrics, readiness).await?;
    Ok(Stores { enqueuer: Enqueuer::spooling(inbox, spool), database: Some(database) })
}

fn open_database(config: &Config) -> Result<Arc<Database>, OpenError> {
    let tables = format!("{}{}", spool::TABLES, claimed::TABLES);
    Ok(Arc::new(Database::open(&data_dir::database_file(&config.data_dir), &tables)?))
}

/// Creates the quarantine's metric series of every source at zero. Existing series keep their values.
pub(super) fn quarantine_series(config: &Config, metrics: &Metrics) {
    for source in &config.sources {
        metrics.quarantine.source(&source.name.value);
    }
}

/// Opens the quarantine. With `wait`, waits until another gateway has closed it.
pub(super) async fn open_quarantine(
    config: &Config,
    key: Key,
    deps: &Dependencies<'_>,
    wait: bool,
) -> Result<Quarantine, StartError> {
    quarantine_series(config, deps.metrics);
    let metrics = &deps.metrics.quarantine;
    let key = Arc::new(key);
    loop {
        let (clock, metrics) = (deps.clock.clone(), metrics.clone());
        match Quarantine::open(&config.data_dir, &config.quarantine, key.clone(), clock, metrics) {
            Err(OpenError::InUse { .. }) if wait => tokio::time::sleep(super::POLL).await,
            opened => return Ok(opened?),
        }
    }
}

/// Opens the quarantine if it has a key; otherwise warns about kept requests of an earlier run.
pub(super) async fn quarantine(
    config: &Config,
    key: Option<Key>,
    deps: &Dependencies<'_>,
) -> Result<Option<Quarantine>, StartError> {
    match key {
        Some(key) => Ok(Some(open_quarantine(config, key, deps, config.edge.reuse_port).await?)),
        None => {
            warn_if_left(config);
            Ok(None)
        }
    }
}

fn warn_if_left(config: &Config) {
    let file = data_dir::quarantine_file(&config.data_dir);
    if file.exists() {
        tracing::warn!(
            file = %file.display(),
            "the quarantine is off, but requests from before are still kept: they are not purged and not verified again; see `hookgate quarantine`"
        );
    }
}

fn open_embedded(config: &Config, deps: &Dependencies<'_>) -> Result<Inbox, StartError> {
    let options = embedded::Options { window: config.dedupe.window.value, retain: config.queue.retain };
    let file = data_dir::database_file(&config.data_dir);
    let spooled = spool::left_behind(&file);
    if spooled > 0 {
        return Err(OpenError::Spooled { db: file, waiting: spooled }.into());
    }
    let series = deps.metrics.queue(config.queue.kind.label());
    let readiness = deps.readiness.clone();
    Ok(Inbox::Embedded(embedded::Embedded::open(&file, options, deps.clock.clone(), series, readiness)?))
}

/// The settings of the Redis queue.
pub(super) fn redis_options(config: &Config) -> redis::Options {
    redis::Options {
        name: config.queue.name.value.clone(),
        names: live::queue_names(config),
        partitions: config.queue.partitions,
        max_backlog: config.queue.max_backlog,
        window: config.dedupe.window.value,
        retain: config.queue.retain,
        ignore_idle_groups: config.queue.ignore_idle_groups,
        ack_replicas: config.queue.ack_replicas,
    }
}

/// Opens the Redis inbox. Must be called inside the runtime of its background tasks.
pub(super) fn open_redis(
    config: &Config,
    options: redis::Options,
    deps: &Dependencies<'_>,
) -> Result<redis::RedisInbox, StartError> {
    let series = deps.metrics.queue(config.queue.kind.label());
    Ok(redis::RedisInbox::open(redis::Servers::of(&config.redis)?, options, series, deps.readiness.clone())?)
}

async fn open_claimed(
    config: &Config,
    deps: &Dependencies<'_>,
    database: &Arc<Database>,
) -> Result<Inbox, StartError> {
    let claims = match config.dedupe.store {
        Store::Embedded => {
            let (clock, readiness) = (deps.clock.clone(), deps.readiness.clone());
            Claims::Embedded(EmbeddedClaims::new(database.clone(), clock, readiness))
        }
        Store::Redis => {
            let (servers, queue) = (redis::Servers::of(&config.redis)?, &config.queue.name.value);
            Claims::Redis(RedisClaims::open(servers, queue, deps.readiness.clone()))
        }
    };
    let metrics = deps.metrics.queue(config.queue.kind.label());
    let broker = open_broker(config, deps).await?;
    let lease = config.dedupe.lease;
    let publish_within = match config.queue.kind {
        QueueKind::Http => http::POST_TIMEOUT,
        _ => claimed::publish_within(lease),
    };
    let options = claimed::Options {
        window: config.dedupe.window.value,
        lease,
        publish_within,
        qualified: deps.qualified.clone(),
    };
    Ok(Inbox::Claimed(Claimed::new(claims, broker, options, metrics)))
}

async fn open_broker(config: &Config, deps: &Dependencies<'_>) -> Result<Broker, StartError> {
    let metrics = deps.metrics.queue(config.queue.kind.label());
    let watch = Watch { metrics, readiness: deps.readiness.clone() };
    if config.queue.kind == QueueKind::Http {
        let settings = http::Settings::of(&config.queue).map_err(StartError::Config)?;
        let http = http::Http::open(settings, watch, deps.metrics, deps.clock.clone())?;
        return Ok(Broker::Http(Box::new(http)));
    }
    let name = QueueName::parse(&config.queue.name.value).map_err(broker::OpenError::Name)?;
    let within = claimed::publish_within(config.dedupe.lease);
    let options = broker::Options {
        name,
        names: live::queue_names(config),
        url: config.queue.url.value.resolve()?,
        within,
    };
    Ok(match config.queue.kind {
        QueueKind::Nats => Broker::Nats(nats::Nats::open(options, watch).await?),
        QueueKind::Amqp => Broker::Amqp(amqp::Amqp::open(options, watch).await?),
        #[cfg(feature = "kafka")]
        QueueKind::Kafka => Broker::Kafka(broker::kafka::Kafka::open(options, watch).await?),
        #[cfg(not(feature = "kafka"))]
        QueueKind::Kafka => {
            return Err(broker::OpenError::Client("this build has no Kafka".to_owned()).into());
        }
        kind @ (QueueKind::Embedded | QueueKind::Redis | QueueKind::Http) => {
            let what = format!("a queue of kind {} is not a broker", kind.label());
            return Err(broker::OpenError::Client(what).into());
        }
    })
}

/// The sources whose provider also sends to another source: one event may arrive at both, with the same id.
pub(super) fn sharing_a_provider(config: &Config) -> HashSet<String> {
    let mut by_provider: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for source in &config.sources {
        by_provider.entry(&source.provider.value).or_default().push(&source.name.value);
    }
    let shared = by_provider.into_values().filter(|names| names.len() > 1);
    shared.flatten().map(str::to_owned).collect()
}
