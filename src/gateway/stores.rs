//! Opens what makes events durable: the inbox that the config names, and the spool behind it.
//!
//! Keeps true: what shares the database in the data folder shares one writer of it; whatever the config says of the spool now,
//! what an earlier run has left in it is drained, or else there is no start.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;

use super::StartError;
use crate::base::clock::Clock;
use crate::base::runtime;
use crate::config::queue_name::QueueName;
use crate::config::{Config, QueueKind, Store};
use crate::durable::broker::{self, Broker, Watch, amqp, nats};
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

/// The durable part of a gateway.
pub(super) struct Stores {
    /// The inbox, and the spool.
    pub(super) enqueuer: Enqueuer,
    /// What the spool and claims are kept in, where they are. Closed last.
    pub(super) database: Option<Arc<Database>>,
}

/// What opening needs besides the config.
pub(super) struct Dependencies<'a> {
    pub(super) clock: &'a Clock,
    pub(super) metrics: &'a Arc<Metrics>,
    pub(super) readiness: &'a Arc<Readiness>,
    /// What [`sharing_a_provider`] says, as of the last load of the config.
    pub(super) qualified: &'a Arc<ArcSwap<HashSet<String>>>,
}

/// Opens the inbox and the spool. What the inbox runs beside requests runs on `runtime`.
pub(super) async fn open(
    config: &Config,
    with: &Dependencies<'_>,
    runtime: &Handle,
) -> Result<Stores, StartError> {
    let database = match config.queue.kind {
        // It has the file to itself, and a spool in the same file would be full when it is full.
        QueueKind::Embedded => None,
        _ => {
            let tables = format!("{}{}", spool::TABLES, claimed::TABLES);
            Some(Arc::new(Database::open(&data_dir::database_file(&config.data_dir), &tables)?))
        }
    };
    let inbox = match (config.queue.kind, &database) {
        (QueueKind::Redis, _) => {
            let _entered = runtime.enter();
            open_redis(config, with)?
        }
        (QueueKind::Nats | QueueKind::Amqp | QueueKind::Kafka, Some(database)) => {
            runtime::within(runtime, open_claimed(config, with, database)).await?
        }
        _ => open_embedded(config, with)?,
    };
    let enqueuer = match &database {
        Some(database) => {
            let (metrics, readiness) = (with.metrics.spool.clone(), with.readiness.clone());
            let max_bytes = config.spool.enabled.then_some(config.spool.max_bytes);
            let spool =
                Spool::open(database.clone(), max_bytes, with.clock.clone(), metrics, readiness).await?;
            Enqueuer::spooling(inbox, spool)
        }
        None => {
            let state = if config.spool.enabled { SpoolState::Beside } else { SpoolState::Off };
            with.readiness.set_spool(state);
            Enqueuer::direct(inbox)
        }
    };
    Ok(Stores { enqueuer, database })
}

/// Puts the quarantine's series of every source at zero, or leaves them at what they are.
pub(super) fn quarantine_series(config: &Config, metrics: &Metrics) {
    for source in &config.sources {
        metrics.quarantine.source(&source.name.value);
    }
}

/// Opens the quarantine; `patient` waits for another gateway to let go of it.
pub(super) async fn open_quarantine(
    config: &Config,
    key: Key,
    with: &Dependencies<'_>,
    patient: bool,
) -> Result<Quarantine, StartError> {
    quarantine_series(config, with.metrics);
    let metrics = &with.metrics.quarantine;
    let key = Arc::new(key);
    loop {
        let (clock, metrics) = (with.clock.clone(), metrics.clone());
        match Quarantine::open(&config.data_dir, &config.quarantine, key.clone(), clock, metrics) {
            Err(OpenError::InUse { .. }) if patient => tokio::time::sleep(super::LOOK_AGAIN).await,
            opened => return Ok(opened?),
        }
    }
}

/// The quarantine of a gateway, where it has the key to one.
pub(super) async fn quarantine(
    config: &Config,
    key: Option<Key>,
    with: &Dependencies<'_>,
) -> Result<Option<Quarantine>, StartError> {
    match key {
        Some(key) => Ok(Some(open_quarantine(config, key, with, config.edge.reuse_port).await?)),
        None => {
            leave_quarantine(config);
            Ok(None)
        }
    }
}

/// Says so if there is one from before: what is in it is nobody's care now.
fn leave_quarantine(config: &Config) {
    let file = data_dir::quarantine_file(&config.data_dir);
    if file.exists() {
        tracing::warn!(
            file = %file.display(),
            "the quarantine is off, but is there from before: nothing in it is purged or verified; see `hookgate quarantine`"
        );
    }
}

fn open_embedded(config: &Config, with: &Dependencies<'_>) -> Result<Inbox, StartError> {
    let options = embedded::Options { window: config.dedupe.window.value, retain: config.queue.retain };
    let file = data_dir::database_file(&config.data_dir);
    let waiting = spool::left_behind(&file);
    if waiting > 0 {
        return Err(OpenError::Spooled { db: file, waiting }.into());
    }
    let series = with.metrics.queue(config.queue.kind.label());
    let readiness = with.readiness.clone();
    Ok(Inbox::Embedded(embedded::Embedded::open(&file, options, with.clock.clone(), series, readiness)?))
}

fn open_redis(config: &Config, with: &Dependencies<'_>) -> Result<Inbox, StartError> {
    let options = redis::Options {
        name: config.queue.name.value.clone(),
        names: live::names(config),
        partitions: config.queue.partitions,
        max_backlog: config.queue.max_backlog,
        window: config.dedupe.window.value,
        retain: config.queue.retain,
        ignore_idle_groups: config.queue.ignore_idle_groups,
        ack_replicas: config.queue.ack_replicas,
    };
    let series = with.metrics.queue(config.queue.kind.label());
    Ok(Inbox::Redis(redis::RedisInbox::open(
        redis::Servers::of(&config.redis)?,
        options,
        series,
        with.readiness.clone(),
    )?))
}

async fn open_claimed(
    config: &Config,
    with: &Dependencies<'_>,
    database: &Arc<Database>,
) -> Result<Inbox, StartError> {
    let claims = match config.dedupe.store {
        Store::Embedded => {
            let (clock, readiness) = (with.clock.clone(), with.readiness.clone());
            Claims::Embedded(EmbeddedClaims::new(database.clone(), clock, readiness))
        }
        Store::Redis => {
            let (servers, queue) = (redis::Servers::of(&config.redis)?, &config.queue.name.value);
            Claims::Redis(RedisClaims::open(servers, queue, with.readiness.clone()))
        }
    };
    let metrics = with.metrics.queue(config.queue.kind.label());
    let broker = open_broker(config, with).await?;
    let options = claimed::Options {
        window: config.dedupe.window.value,
        lease: config.dedupe.lease,
        qualified: with.qualified.clone(),
    };
    Ok(Inbox::Claimed(Claimed::new(claims, broker, options, metrics)))
}

async fn open_broker(config: &Config, with: &Dependencies<'_>) -> Result<Broker, StartError> {
    let name = QueueName::parse(&config.queue.name.value).map_err(broker::OpenError::Name)?;
    let within = claimed::publish_within(config.dedupe.lease);
    let options =
        broker::Options { name, names: live::names(config), url: config.queue.url.value.resolve()?, within };
    let metrics = with.metrics.queue(config.queue.kind.label());
    let watch = Watch { metrics, readiness: with.readiness.clone() };
    Ok(match config.queue.kind {
        QueueKind::Amqp => Broker::Amqp(amqp::Amqp::open(options, watch).await?),
        #[cfg(feature = "kafka")]
        QueueKind::Kafka => Broker::Kafka(broker::kafka::Kafka::open(options, watch).await?),
        _ => Broker::Nats(nats::Nats::open(options, watch).await?),
    })
}

/// The sources whose provider sends to another source too: the same event may come in by both, under one id.
pub(super) fn sharing_a_provider(config: &Config) -> HashSet<String> {
    let mut by_provider: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for source in &config.sources {
        by_provider.entry(&source.provider.value).or_default().push(&source.name.value);
    }
    let shared = by_provider.into_values().filter(|names| names.len() > 1);
    shared.flatten().map(str::to_owned).collect()
}
