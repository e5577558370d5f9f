//! The keys of the sections about storage: `[redis]`, `[dedupe]`, `[queue]`, `[spool]`, `[audit]`, `[quarantine]`.

use std::path::PathBuf;
use std::time::Duration;

use super::Located;
use super::http_queue::{self, HttpRoute};
use super::keys::table;
use super::kinds::inline;
use super::section::Section;
use super::urls::{broker_urls, redis_urls};
use super::values::{
    DAY, MIB, POSITIVE_TIME, SECOND, UNBOUNDED, choice, duration, file, flag, secret, size, text, whole,
};
use crate::base::label::{Label, labels};
use crate::config::queue_name::QueueName;
use crate::config::secret::SecretRef;

table! {
    /// `[redis]`.
    pub struct Redis, checked by check_redis {
        /// Where Redis is: one URL, or a list. `rediss://` is over TLS. Use a secret for a URL with a password.
        url: Vec<Located<SecretRef>> = redis_urls(), restart;
        /// With `true`, `url` lists nodes of a cluster. The gateway finds the other nodes from them.
        cluster: bool = flag(false), restart;
        /// The name by which Sentinels know the master. Then `url` lists Sentinels. The first URL's user and password
        /// are the master's. A Sentinel gets them only if it asks for them.
        sentinel: Option<String> = text("the name of a master", "").optional(), restart, "\"mymaster\"";
        /// The PEM file of the authorities to trust over TLS, instead of the system's.
        ca: Option<Located<PathBuf>> = file("a path").optional(), restart, "\"redis-ca.pem\"";
    }
}

labels! {
    /// Where identities are remembered.
    pub enum Store {
        /// `hookgate.db`.
        Embedded = "embedded",
        /// `[redis]`.
        Redis = "redis",
    }
}

table! {
    /// `[dedupe]`.
    pub struct Dedupe {
        /// Where identities are remembered. The queues `embedded` and `redis` need the same store. A broker works with
        /// either.
        store: Store = choice(Store::ALL, Store::Embedded), restart;
        /// How long an identity is remembered. Keep it longer than the providers retry.
        window: Located<Duration> = duration(POSITIVE_TIME, 7 * DAY).located(), restart;
        /// Brokers, http: how long one delivery of an event, between claim and confirm, keeps the others waiting if its
        /// gateway dies.
        // Long enough for a broker's confirm, and over before a provider's next attempt.
        lease: Duration = duration(SECOND..=3600 * SECOND, 10 * SECOND), restart;
    }
}

labels! {
    /// What kind of queue takes the events.
    pub enum QueueKind {
        /// `hookgate.db`.
        Embedded = "embedded",
        /// Redis streams.
        Redis = "redis",
        /// NATS JetStream.
        Nats = "nats",
        /// RabbitMQ, by AMQP 0-9-1.
        Amqp = "amqp",
        /// Kafka.
        Kafka = "kafka",
        /// Internal HTTP services.
        Http = "http",
    }
}

impl QueueKind {
    /// Whether an event is claimed in a dedupe store, of either kind, before it goes there. Such a queue has a
    /// `queue.url`.
    pub const fn is_claimed(self) -> bool {
        match self {
            QueueKind::Embedded | QueueKind::Redis => false,
            QueueKind::Nats | QueueKind::Amqp | QueueKind::Kafka | QueueKind::Http => true,
        }
    }
}

table! {
    /// `[queue]`.
    pub struct Queue, checked by check_queue {
        /// `embedded` is `hookgate.db`, `nats` is JetStream, `amqp` is RabbitMQ. `kafka` needs a build with `--features
        /// kafka`. `http` posts each event to a service of yours.
        kind: QueueKind = choice(QueueKind::ALL, QueueKind::Embedded), restart;
        /// Stream, subject, exchange or topic. It may hold `{provider}`, `{source}` and `{type}`.
        name: Located<String> = text("a name", "hookgate.events").located(), restart;
        /// Redis: how many streams. Above 1 they are NAME.0, NAME.1, …, and an event's partition key chooses among
        /// them.
        partitions: u32 = whole(1..=4096, 1), restart;
        /// Redis: at this length a stream loses entries that every consumer group has acknowledged, however young they
        /// are. Without such entries it takes no more events. They go to the spool, and providers get 503 when that is
        /// full.
        max_backlog: u64 = whole(1..=UNBOUNDED, 1_000_000), restart;
        /// How long events are kept. Redis keeps them until every consumer group has acknowledged them, too.
        retain: Duration = duration(POSITIVE_TIME, 7 * DAY), restart;
        /// Redis: a consumer group that was not seen for this long holds no entry back.
        ignore_idle_groups: Option<Duration> = duration(POSITIVE_TIME, DAY).optional(), restart, "\"30d\"";
        /// Redis: how many replicas must have an event before it counts as queued.
        ack_replicas: u32 = whole(0..=16, 0), restart;
        /// nats, amqp, kafka: where the broker is, one URL or a list. Use a secret for a URL with a password. http: where
        /// events go that fit no route. It may hold `{provider}`, `{source}` and `{type}`.
        url: Located<SecretRef> = broker_urls(), restart, "\"nats://127.0.0.1:4222\"";
        /// http: an event goes to the first route whose `type` fits; `*` there stands for any characters. `secret` and
        /// `deadline` replace those of the queue.
        routes: Vec<HttpRoute> = inline().list(http_queue::ROUTES), restart,
            "[{ type = \"invoice.*\", url = \"http://127.0.0.1:3000/invoices\" }]";
        /// http: signs each request, as Standard Webhooks do. One secret, or two while one replaces the other.
        secret: Vec<Located<SecretRef>> = http_queue::signing_secrets(), restart, "{ env = \"QUEUE_SECRET\" }";
        /// http: the value of the header `Authorization`.
        authorization: Option<Located<SecretRef>> = secret().optional(), restart, "{ env = \"QUEUE_AUTHORIZATION\" }";
        /// http: the PEM file of the authorities to trust over TLS, instead of the system's.
        ca: Option<Located<PathBuf>> = file("a path").optional(), restart, "\"services-ca.pem\"";
        /// http: how long a provider waits for the service's answer, 1 s by default. Then the event goes to the spool, and
        /// the request to the service goes on.
        deadline: Option<Located<Duration>> = duration(POSITIVE_TIME, SECOND).located().optional(), restart, "\"1s\"";
    }
}

table! {
    /// `[spool]`.
    pub struct Spool {
        /// Whether the gateway keeps events on disk while the queue is away. It has no effect on the embedded queue.
        enabled: bool = flag(true), restart;
        /// The size of all events in it. Beyond it providers get 503.
        max_bytes: u64 = size(1..=UNBOUNDED, 1024 * MIB), restart;
    }
}

table! {
    /// `[audit]`.
    pub struct Audit {
        /// How long files are kept.
        retain: Duration = duration(POSITIVE_TIME, 90 * DAY), restart;
        /// The size of all files. Beyond it the oldest files are deleted.
        max_bytes: u64 = size(1..=UNBOUNDED, 1024 * MIB), restart;
        /// The key that signs anchors. Without anchors, an attacker could write the chain anew from any record on.
        key: Option<Located<SecretRef>> = secret().optional(), restart, "{ file = \"audit.key\" }";
    }
}

table! {
    /// `[quarantine]`.
    pub struct Quarantine, checked by check_quarantine {
        /// Whether the gateway keeps deliveries that it refused for `signature_mismatch` or
        /// `timestamp_outside_tolerance`.
        enabled: bool = flag(false), restart;
        /// The size of all deliveries in it.
        max_bytes: u64 = size(1..=UNBOUNDED, 256 * MIB), restart;
        /// How long a delivery is kept.
        retain: Duration = duration(POSITIVE_TIME, 7 * DAY), restart;
        /// The key that encrypts them. Required if the quarantine is enabled.
        key: Option<Located<SecretRef>> = secret().optional(), restart, "{ file = \"quarantine.key\" }";
    }
}

fn check_redis(redis: &mut Redis, section: &Section<'_>) {
    if redis.cluster && redis.sentinel.is_some() {
        let what = "a cluster has no Sentinels; either cluster = true or sentinel";
        section.problem(section.position_of("sentinel"), "sentinel", what);
    }
    if let [first, _, ..] = redis.url.as_slice()
        && !redis.cluster
        && redis.sentinel.is_none()
    {
        let what =
            "several URLs need a cluster or Sentinels: set cluster = true, or sentinel to the master's name";
        section.problem(first.at, "url", what);
    }
    if let Some(ca) = &redis.ca
        // A URL that is a reference is not read here.
        && redis.url.iter().all(|url| matches!(&url.value, SecretRef::Plain(url) if url.expose().starts_with("redis:")))
    {
        let what = "no effect without TLS: redis:// is plain text, and rediss:// is over TLS";
        section.warning(ca.at, "ca", what);
    }
}

fn check_queue(queue: &mut Queue, section: &Section<'_>) {
    if queue.kind == QueueKind::Kafka && !cfg!(feature = "kafka") {
        let what = "this build has no Kafka; build it with `--features kafka`";
        section.problem(section.position_of("kind"), "kind", what);
    }
    if let Err(what) = QueueName::parse(&queue.name.value) {
        section.problem(queue.name.at, "name", what);
    }
    if section.is_invalid("kind") {
        return;
    }
    if queue.kind == QueueKind::Http {
        return http_queue::check(queue, section);
    }
    http_queue::refuse_keys(queue.kind, section);
    let for_redis = [
        ("partitions", queue.partitions > 1),
        ("ack_replicas", queue.ack_replicas > 0),
        ("ignore_idle_groups", queue.ignore_idle_groups.is_some()),
    ];
    if queue.kind != QueueKind::Redis {
        let what = format!("no effect on a queue of kind {}; only for redis", queue.kind.label());
        for (key, _) in for_redis.into_iter().filter(|(_, is_set)| *is_set) {
            section.warning(section.position_of(key), key, what.as_str());
        }
    }
}

fn check_quarantine(quarantine: &mut Quarantine, section: &Section<'_>) {
    if quarantine.enabled && section.item("key").is_none() {
        section.missing(
            "key",
            "missing; the quarantine is encrypted: expected { env = \"NAME\" } or { file = \"PATH\" }",
        );
    }
}
