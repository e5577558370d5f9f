//! Finds settings of Redis, the brokers and HTTP services that put events at risk, by asking the servers. `check --live` and the
//! gateway use it.
//!
//! Keeps true: it changes no setting. A server that cannot be asked is a finding, not an error. No finding holds a URL.

mod amqp;
mod http;
#[cfg(feature = "kafka")]
mod kafka;
mod nats;
mod redis;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Clock;
use crate::base::label::{Label, labels};
use crate::config::queue_name::{PlaceholderValues, QueueName};
use crate::config::secret::{Secret, SecretRef};
use crate::config::{Config, Position, Problem, QueueKind, Store};
use crate::durable::inbox::redis::backlog::Backlog;
use crate::durable::inbox::redis::{Servers, numbered};
use crate::observe::metrics::Metrics;
use crate::provider::Catalog;

labels! {
    /// A kind of finding. The names are the label values of `hookgate_unsafe_settings`.
    pub enum Setting {
        /// Redis cannot be asked.
        RedisUnreachable = "redis_unreachable",
        /// Redis is older than 7.0.
        RedisVersion = "redis_version",
        /// Redis may evict claims or events.
        RedisEviction = "redis_maxmemory_policy",
        /// Redis loses its data at a restart.
        RedisPersistence = "redis_persistence",
        /// Redis' clock differs from ours.
        RedisClock = "redis_clock",
        /// This user may not read Redis' settings.
        RedisUnreadable = "redis_unreadable",
        /// Redis refuses all writes now, or has too few replicas.
        RedisWrites = "redis_writes",
        /// Redis refuses events for a stream: a right is missing, or the key is not a stream.
        RedisStream = "redis_stream",
        /// A stream is at `queue.max_backlog` and takes no more events.
        RedisBacklog = "redis_backlog",
        /// A stream's last id is ahead of the server's clock.
        RedisIds = "redis_ids",
        /// Redis refuses claims: a right is missing.
        RedisClaims = "redis_claims",
        /// The broker cannot be asked.
        QueueUnreachable = "queue_unreachable",
        /// No stream takes the subject.
        NatsStream = "nats_stream",
        /// The stream forgets message ids before a claim's lease is over.
        NatsDuplicateWindow = "nats_duplicate_window",
        /// The stream acknowledges nothing.
        NatsNoAck = "nats_no_ack",
        /// The stream drops events that it acknowledged.
        NatsDrops = "nats_drops",
        /// Only one server of the cluster has the stream.
        NatsReplicas = "nats_replicas",
        /// This user may not read NATS' streams.
        NatsUnreadable = "nats_unreadable",
        /// The exchange does not exist.
        AmqpExchange = "amqp_exchange",
        /// No queue is bound to the exchange.
        AmqpUnbound = "amqp_unbound",
        /// A queue drops events that it confirmed.
        AmqpDrops = "amqp_drops",
        /// This user may not read RabbitMQ's queues.
        AmqpUnreadable = "amqp_unreadable",
        /// The topic does not exist.
        KafkaTopic = "kafka_topic",
        /// One broker's acknowledgement is enough.
        KafkaMinInsync = "kafka_min_insync_replicas",
        /// The topic keeps only the last record of a key.
        KafkaCompaction = "kafka_compaction",
        /// The topic keeps records for less than a day.
        KafkaRetention = "kafka_retention",
        /// The topic keeps only so many bytes.
        KafkaRetentionBytes = "kafka_retention_bytes",
        /// This user may not read the topics' settings.
        KafkaUnreadable = "kafka_unreadable",
    }
}

impl Setting {
    /// Whether the inbox itself logs it when it happens.
    fn is_logged_by_inbox(self) -> bool {
        matches!(self, Setting::RedisWrites | Setting::RedisBacklog | Setting::RedisIds)
    }

    /// Whether no accepted event is known to be at risk.
    fn is_warning(self) -> bool {
        matches!(
            self,
            Setting::RedisUnreadable
                | Setting::NatsReplicas
                | Setting::NatsUnreadable
                | Setting::AmqpUnreadable
                | Setting::KafkaRetentionBytes
                | Setting::KafkaUnreadable
        )
    }
}

/// An unsafe setting that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its kind.
    pub setting: Setting,
    /// The text for the operator, with the remedy.
    pub what: String,
}

impl Finding {
    fn new(setting: Setting, what: impl Into<String>) -> Finding {
        Finding { setting, what: what.into() }
    }
}

/// A finding, with the config key of the server.
#[derive(Clone, Debug)]
pub struct LocatedFinding {
    /// The key, for example `redis.url`.
    pub key: &'static str,
    /// The key's position in the file.
    pub at: Position,
    /// The finding.
    pub finding: Finding,
}

impl LocatedFinding {
    /// The finding as a problem of the config.
    pub fn problem(&self) -> Problem {
        Problem {
            at: self.at,
            key: self.key.to_owned(),
            what: self.finding.what.clone(),
            warning: self.finding.setting.is_warning(),
        }
    }
}

/// Checks every server that the config uses.
pub async fn check(config: &Config, clock: &Clock) -> Vec<LocatedFinding> {
    let mut found = Vec::new();
    let urls = config.urls_in_use();
    if let Some((key, url)) = urls.iter().find(|(key, _)| *key == "redis.url") {
        let locate = |finding| LocatedFinding { key, at: url.at, finding };
        let findings = match Servers::of(&config.redis) {
            Ok(servers) => {
                let claimed = config.queue.kind != QueueKind::Redis && config.dedupe.store == Store::Redis;
                let claims = claimed.then(|| config.queue.name.value.clone());
                let backlog = Backlog::new(config.queue.max_backlog, config.queue.ignore_idle_groups);
                let cluster = servers.is_cluster();
                let (streams, ack_replicas) = (streams(config), config.queue.ack_replicas);
                let usage = redis::Usage { streams, backlog, ack_replicas, cluster, claims };
                redis::check(&servers, &usage, clock).await
            }
            Err(why) => vec![Finding::new(Setting::RedisUnreachable, why.to_string())],
        };
        found.extend(findings.into_iter().map(locate));
    }
    if config.queue.kind == QueueKind::Http {
        found.extend(http::check(&config.queue).await);
    } else if let Some((key, url)) = urls.iter().find(|(key, _)| *key == "queue.url") {
        let locate = |finding| LocatedFinding { key, at: url.at, finding };
        found.extend(check_broker(config, &url.value).await.into_iter().map(locate));
    }
    found
}

/// Checks again and again. Logs each new finding, and exports all of them as metrics.
pub async fn watch(config: Config, clock: Clock, metrics: Arc<Metrics>) {
    for &setting in Setting::ALL {
        // A reload restarts this task. The earlier findings stay in the metrics until the first check is done.
        metrics.gateway.init_unsafe_setting(setting.label());
    }
    let mut logged: Vec<Finding> = Vec::new();
    loop {
        let found: Vec<Finding> = check(&config, &clock).await.into_iter().map(|one| one.finding).collect();
        let is_new = |finding: &&Finding| !finding.setting.is_logged_by_inbox() && !logged.contains(finding);
        for finding in found.iter().filter(is_new) {
            tracing::warn!(setting = finding.setting.label(), "{}", finding.what);
        }
        for &setting in Setting::ALL {
            let is_found = found.iter().any(|finding| finding.setting == setting);
            metrics.gateway.unsafe_setting(setting.label(), is_found);
        }
        // Findings that keep events out are checked again sooner: an operator is working on them.
        let urgent = |finding: &Finding| {
            matches!(
                finding.setting,
                Setting::RedisUnreachable
                    | Setting::RedisWrites
                    | Setting::QueueUnreachable
                    | Setting::NatsStream
                    | Setting::NatsNoAck
                    | Setting::AmqpExchange
                    | Setting::AmqpUnbound
                    | Setting::KafkaTopic
            )
        };
        let pause = if found.iter().any(urgent) { RECHECK_URGENT } else { RECHECK };
        logged = found;
        tokio::time::sleep(pause).await;
    }
}

/// The queue's streams, if it is Redis; only the first of many.
fn streams(config: &Config) -> Vec<String> {
    if config.queue.kind != QueueKind::Redis {
        return Vec::new();
    }
    let names = queue_names(config);
    names.iter().flat_map(|name| numbered(name, config.queue.partitions)).take(MAX_STREAMS).collect()
}

async fn check_broker(config: &Config, url: &SecretRef) -> Vec<Finding> {
    let unreachable = |what: String| vec![Finding::new(Setting::QueueUnreachable, what)];
    let url = match url.resolve() {
        Ok(url) => url,
        Err(why) => return unreachable(why.to_string()),
    };
    let names = queue_names(config);
    match tokio::time::timeout(TIMEOUT, check_names(config, &url, &names)).await {
        Ok(found) => found,
        Err(_) => unreachable(no_answer()),
    }
}

async fn check_names(config: &Config, url: &Secret, names: &BTreeSet<String>) -> Vec<Finding> {
    match config.queue.kind {
        QueueKind::Nats => nats::check(url, names, config.dedupe.lease).await,
        QueueKind::Amqp => amqp::check(url, names).await,
        #[cfg(feature = "kafka")]
        QueueKind::Kafka => kafka::check(url, names).await,
        // The config's own check refuses this kind in a build without Kafka.
        #[cfg(not(feature = "kafka"))]
        QueueKind::Kafka => Vec::new(),
        QueueKind::Embedded | QueueKind::Redis | QueueKind::Http => Vec::new(),
    }
}

/// Every name that `queue.name` can expand to, with these sources and their providers' event types.
pub fn queue_names(config: &Config) -> BTreeSet<String> {
    let Ok(name) = QueueName::parse(&config.queue.name.value) else { return BTreeSet::new() };
    let mut names = BTreeSet::new();
    let catalog = Catalog::of(&config.providers, &mut Vec::new());
    for source in &config.sources {
        let provider = &source.provider.value;
        let types = catalog.by_name(provider).and_then(|provider| provider.types).unwrap_or_default();
        for (_, kind) in types {
            names.insert(name.fill(PlaceholderValues { provider, source: &source.name.value, kind }));
        }
    }
    names
}

/// The first few of a list, since a template may expand to a hundred names: `a, b, c, d, e and 2 more`.
fn listed<T: AsRef<str>>(names: &[T]) -> String {
    let (shown, rest) = names.split_at(names.len().min(SHOWN));
    let shown = shown.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    if rest.is_empty() { shown } else { format!("{shown} and {} more", rest.len()) }
}

/// A duration for people, such as `5 min`.
fn human_duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{} s", time.as_secs_f64()),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

fn no_answer() -> String {
    format!("no answer within {} s", TIMEOUT.as_secs())
}

const SHOWN: usize = 5;
/// A missing right is usually missing on every stream.
const MAX_STREAMS: usize = 256;
/// For all answers of one server together.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The least time for which a broker must keep an event: an operator needs a night to bring a consumer back.
const MIN_RETENTION: Duration = Duration::from_secs(86_400);
const RECHECK: Duration = Duration::from_secs(300);
const RECHECK_URGENT: Duration = Duration::from_secs(15);
const CONNECT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn findings_stay_until_the_first_check_after_a_reload() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let text = format!(
            "redis.url = \"redis://{}\"\nqueue.kind = \"redis\"\ndedupe.store = \"redis\"\n",
            silent.local_addr().unwrap()
        );
        let (config, _) = crate::config::parse(&text, std::path::Path::new("."));
        let metrics = Arc::new(Metrics::new().unwrap());
        metrics.gateway.unsafe_setting("redis_persistence", true);
        let mut watch = pin!(watch(config, Clock::System, metrics.clone()));
        let looked = std::future::poll_fn(|context| Poll::Ready(watch.as_mut().poll(context))).await;
        assert!(looked.is_pending());
        let series = metrics.render().unwrap().0;
        let value = |setting: &str, value: u8| {
            let line = format!("hookgate_unsafe_settings{{setting=\"{setting}\"}} {value}\n");
            assert!(series.contains(&line), "{series}");
        };
        value("redis_persistence", 1);
        value("redis_version", 0);
    }

    #[test]
    fn only_the_first_of_many_names_are_shown() {
        assert_eq!(listed(&["a"]), "a");
        assert_eq!(listed(&["a", "b", "c", "d", "e"]), "a, b, c, d, e");
        assert_eq!(listed(&["a", "b", "c", "d", "e", "f", "g"]), "a, b, c, d, e and 2 more");
    }

    #[test]
    fn every_setting_has_a_label_of_its_own() {
        let labels: BTreeSet<_> = Setting::LABELS.iter().collect();
        assert_eq!(labels.len(), Setting::ALL.len());
    }
}
