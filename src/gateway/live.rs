//! What the servers' own settings put at risk: asked of the servers themselves, for `check --live` and at the start.
//!
//! Keeps true: it changes nothing; a server that cannot be asked is a finding, not an error; nothing that is told holds a URL.

mod amqp;
#[cfg(feature = "kafka")]
mod kafka;
mod nats;
mod redis;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Clock;
use crate::config::queue_name::{PlaceholderValues, QueueName};
use crate::config::secret::{Secret, SecretRef};
use crate::config::{Config, Position, Problem, QueueKind, Store};
use crate::durable::inbox::redis::backlog::Backlog;
use crate::durable::inbox::redis::{Servers, numbered};
use crate::observe::metrics::Metrics;
use crate::provider;

/// What can be found. The names are the label values of `hookgate_unsafe_settings`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    /// Redis cannot be asked.
    RedisUnreachable,
    /// Redis is older than 7.0.
    RedisVersion,
    /// Redis may evict what is remembered.
    RedisEviction,
    /// Redis keeps nothing over a restart.
    RedisPersistence,
    /// Redis' clock is apart from ours.
    RedisClock,
    /// Redis does not let its settings be read.
    RedisUnreadable,
    /// Redis takes no writes of anybody now, or not from enough replicas.
    RedisWrites,
    /// Redis takes no events into a stream: a right is missing, or the key is none.
    RedisStream,
    /// A stream is at `queue.max_backlog` and takes no more.
    RedisBacklog,
    /// A stream's last id is ahead of the server's clock.
    RedisIds,
    /// Redis takes no claims: a right is missing.
    RedisClaims,
    /// The broker cannot be asked.
    QueueUnreachable,
    /// No stream takes the subject.
    NatsStream,
    /// The stream forgets message ids before a claim's lease is over.
    NatsDuplicateWindow,
    /// The stream acknowledges nothing.
    NatsNoAck,
    /// The stream drops what it acknowledged.
    NatsDrops,
    /// One server of a cluster alone has the stream.
    NatsReplicas,
    /// NATS does not let its streams be looked at.
    NatsUnreadable,
    /// There is no such exchange.
    AmqpExchange,
    /// No queue is bound to the exchange.
    AmqpUnbound,
    /// A queue drops what it confirmed.
    AmqpDrops,
    /// RabbitMQ does not let its queues be looked at.
    AmqpUnreadable,
    /// There is no such topic.
    KafkaTopic,
    /// One broker's word is enough.
    KafkaMinInsync,
    /// The topic keeps the last record of a key alone.
    KafkaCompaction,
    /// The topic keeps records for less than a day.
    KafkaRetention,
    /// The topic keeps so many bytes alone.
    KafkaRetentionBytes,
    /// Kafka does not let its topics' settings be read.
    KafkaUnreadable,
}

impl Setting {
    /// Every one.
    pub const ALL: [Setting; 28] = [
        Setting::RedisUnreachable,
        Setting::RedisVersion,
        Setting::RedisEviction,
        Setting::RedisPersistence,
        Setting::RedisClock,
        Setting::RedisUnreadable,
        Setting::RedisWrites,
        Setting::RedisStream,
        Setting::RedisBacklog,
        Setting::RedisIds,
        Setting::RedisClaims,
        Setting::QueueUnreachable,
        Setting::NatsStream,
        Setting::NatsDuplicateWindow,
        Setting::NatsNoAck,
        Setting::NatsDrops,
        Setting::NatsReplicas,
        Setting::NatsUnreadable,
        Setting::AmqpExchange,
        Setting::AmqpUnbound,
        Setting::AmqpDrops,
        Setting::AmqpUnreadable,
        Setting::KafkaTopic,
        Setting::KafkaMinInsync,
        Setting::KafkaCompaction,
        Setting::KafkaRetention,
        Setting::KafkaRetentionBytes,
        Setting::KafkaUnreadable,
    ];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Setting::RedisUnreachable => "redis_unreachable",
            Setting::RedisVersion => "redis_version",
            Setting::RedisEviction => "redis_maxmemory_policy",
            Setting::RedisPersistence => "redis_persistence",
            Setting::RedisClock => "redis_clock",
            Setting::RedisUnreadable => "redis_unreadable",
            Setting::RedisWrites => "redis_writes",
            Setting::RedisStream => "redis_stream",
            Setting::RedisBacklog => "redis_backlog",
            Setting::RedisIds => "redis_ids",
            Setting::RedisClaims => "redis_claims",
            Setting::QueueUnreachable => "queue_unreachable",
            Setting::NatsStream => "nats_stream",
            Setting::NatsDuplicateWindow => "nats_duplicate_window",
            Setting::NatsNoAck => "nats_no_ack",
            Setting::NatsDrops => "nats_drops",
            Setting::NatsReplicas => "nats_replicas",
            Setting::NatsUnreadable => "nats_unreadable",
            Setting::AmqpExchange => "amqp_exchange",
            Setting::AmqpUnbound => "amqp_unbound",
            Setting::AmqpDrops => "amqp_drops",
            Setting::AmqpUnreadable => "amqp_unreadable",
            Setting::KafkaTopic => "kafka_topic",
            Setting::KafkaMinInsync => "kafka_min_insync_replicas",
            Setting::KafkaCompaction => "kafka_compaction",
            Setting::KafkaRetention => "kafka_retention",
            Setting::KafkaRetentionBytes => "kafka_retention_bytes",
            Setting::KafkaUnreadable => "kafka_unreadable",
        }
    }

    /// Whether the inbox itself tells of it, at the moment it happens.
    fn is_told_by_the_inbox(self) -> bool {
        matches!(self, Setting::RedisWrites | Setting::RedisBacklog | Setting::RedisIds)
    }

    /// Whether it leaves the promise as it is, as far as can be seen.
    fn is_mere_warning(self) -> bool {
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

/// Something found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub setting: Setting,
    /// In words, with what to do about it.
    pub what: String,
}

impl Finding {
    fn new(setting: Setting, what: impl Into<String>) -> Finding {
        Finding { setting, what: what.into() }
    }
}

/// A finding, and the place in the config that led there.
#[derive(Clone, Debug)]
pub struct Located {
    /// The key.
    pub key: &'static str,
    /// Where it stands.
    pub at: Position,
    /// What was found.
    pub finding: Finding,
}

impl Located {
    /// As a problem of the config.
    pub fn problem(&self) -> Problem {
        Problem {
            at: self.at,
            key: self.key.to_owned(),
            what: self.finding.what.clone(),
            warning: self.finding.setting.is_mere_warning(),
        }
    }
}

/// Asks every server that the config names and uses.
pub async fn look(config: &Config, clock: &Clock) -> Vec<Located> {
    let mut found = Vec::new();
    let urls = config.urls_in_use();
    if let Some((key, url)) = urls.iter().find(|(key, _)| *key == "redis.url") {
        let locate = |finding| Located { key, at: url.at, finding };
        let findings = match Servers::of(&config.redis) {
            Ok(servers) => {
                let claimed = config.queue.kind != QueueKind::Redis && config.dedupe.store == Store::Redis;
                let claims = claimed.then(|| config.queue.name.value.clone());
                let backlog = Backlog::new(config.queue.max_backlog, config.queue.ignore_idle_groups);
                let cluster = servers.is_cluster();
                let (streams, ack_replicas) = (streams(config), config.queue.ack_replicas);
                let asked = redis::Use { streams, backlog, ack_replicas, cluster, claims };
                redis::look(&servers, &asked, clock).await
            }
            Err(why) => vec![Finding::new(Setting::RedisUnreachable, why.to_string())],
        };
        found.extend(findings.into_iter().map(locate));
    }
    if let Some((key, url)) = urls.iter().find(|(key, _)| *key == "queue.url") {
        let locate = |finding| Located { key, at: url.at, finding };
        found.extend(broker(config, &url.value).await.into_iter().map(locate));
    }
    found
}

/// Looks again and again: logs what is new, and tells all of it in the metrics.
pub async fn watch(config: Config, clock: Clock, metrics: Arc<Metrics>) {
    for setting in Setting::ALL {
        // A reload starts this anew. The findings of before stay until the first look is over.
        metrics.gateway.init_unsafe_setting(setting.as_str());
    }
    let mut told: Vec<Finding> = Vec::new();
    loop {
        let found: Vec<Finding> = look(&config, &clock).await.into_iter().map(|one| one.finding).collect();
        let is_new = |finding: &&Finding| !finding.setting.is_told_by_the_inbox() && !told.contains(finding);
        for finding in found.iter().filter(is_new) {
            tracing::warn!(setting = finding.setting.as_str(), "{}", finding.what);
        }
        for setting in Setting::ALL {
            let is_found = found.iter().any(|finding| finding.setting == setting);
            metrics.gateway.unsafe_setting(setting.as_str(), is_found);
        }
        // What keeps events out is mended soon.
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
        let pause = if found.iter().any(urgent) { LOOK_AGAIN_SOON } else { LOOK_AGAIN };
        told = found;
        tokio::time::sleep(pause).await;
    }
}

/// The streams that the queue is, if it is Redis; of many the first few.
fn streams(config: &Config) -> Vec<String> {
    if config.queue.kind != QueueKind::Redis {
        return Vec::new();
    }
    let names = names(config);
    names.iter().flat_map(|name| numbered(name, config.queue.partitions)).take(STREAMS_ASKED).collect()
}

async fn broker(config: &Config, url: &SecretRef) -> Vec<Finding> {
    let unreachable = |what: String| vec![Finding::new(Setting::QueueUnreachable, what)];
    let url = match url.resolve() {
        Ok(url) => url,
        Err(why) => return unreachable(why.to_string()),
    };
    let names = names(config);
    match tokio::time::timeout(PATIENCE, ask(config, &url, &names)).await {
        Ok(found) => found,
        Err(_) => unreachable(no_answer()),
    }
}

async fn ask(config: &Config, url: &Secret, names: &BTreeSet<String>) -> Vec<Finding> {
    match config.queue.kind {
        QueueKind::Nats => nats::look(url, names, config.dedupe.lease).await,
        QueueKind::Amqp => amqp::look(url, names).await,
        #[cfg(feature = "kafka")]
        QueueKind::Kafka => kafka::look(url, names).await,
        _ => Vec::new(),
    }
}

/// Every name that the queue's template can stand for with these sources and the types that are known of their providers.
pub fn names(config: &Config) -> BTreeSet<String> {
    let Ok(name) = QueueName::parse(&config.queue.name.value) else { return BTreeSet::new() };
    let mut names = BTreeSet::new();
    for source in &config.sources {
        let provider = &source.provider.value;
        let types = provider::by_name(provider).map_or(&[][..], |provider| provider.types);
        for (_, kind) in types {
            names.insert(name.fill(PlaceholderValues { provider, source: &source.name.value, kind }));
        }
    }
    names
}

/// The first few of a list: a template may stand for a hundred names.
fn listed<T: AsRef<str>>(names: &[T]) -> String {
    let (shown, rest) = names.split_at(names.len().min(SHOWN));
    let shown = shown.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    if rest.is_empty() { shown } else { format!("{shown} and {} more", rest.len()) }
}

/// A time in words.
fn spelled(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{} s", time.as_secs_f64()),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

fn no_answer() -> String {
    format!("no answer within {} s", PATIENCE.as_secs())
}

const SHOWN: usize = 5;
/// A right that is missing is mostly missing on all.
const STREAMS_ASKED: usize = 256;
/// For all of one server's answers together.
const PATIENCE: Duration = Duration::from_secs(10);
/// The least time that a broker has to keep an event: an operator needs a night to bring a consumer back.
const SHORT: Duration = Duration::from_secs(86_400);
const LOOK_AGAIN: Duration = Duration::from_secs(300);
const LOOK_AGAIN_SOON: Duration = Duration::from_secs(15);
const CONNECT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn what_was_found_stays_until_a_reload_has_looked_for_itself() {
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
    fn of_many_names_a_few_are_shown() {
        assert_eq!(listed(&["a"]), "a");
        assert_eq!(listed(&["a", "b", "c", "d", "e"]), "a, b, c, d, e");
        assert_eq!(listed(&["a", "b", "c", "d", "e", "f", "g"]), "a, b, c, d, e and 2 more");
    }

    #[test]
    fn every_setting_has_a_label_of_its_own() {
        let labels: BTreeSet<_> = Setting::ALL.iter().map(|setting| setting.as_str()).collect();
        assert_eq!(labels.len(), Setting::ALL.len());
        assert!(Setting::ALL.is_sorted());
    }
}
