//! Kafka: produce to a topic with an idempotent producer, await the delivery report.
//!
//! Keeps true:
//! - `Ok` means that every in-sync replica has the record.
//! - The producer gets no record while no broker answers.
//! - The producer gives up a record before the publish's deadline.
//! - A produced record that was not certainly refused counts as possibly in the topic.
//!
//! librdkafka connects by itself. hookgate asks it for metadata every second; "up" means that a broker answered.

mod producers;
pub(crate) mod reasons;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureRecord, Producer};
use tokio::time::{sleep, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use self::producers::{Idempotent, Producers};
use super::health::BrokerHealth;
use super::{Message, OpenError, Options, PublishError, TRACEPARENT, Watch};
use crate::config::queue_name::{Part, QueueName};
use crate::config::secret::Secret;

/// A Kafka topic.
pub struct Kafka {
    topic: QueueName,
    producers: Arc<Producers>,
    health: Arc<BrokerHealth>,
    tasks: TaskTracker,
    stop: DropGuard,
}

impl Kafka {
    /// Starts to connect, and returns at once. Readiness reports whether the broker is reachable.
    ///
    /// # Errors
    /// When the URL or the name is unusable.
    pub async fn open(options: Options, watch: Watch) -> Result<Kafka, OpenError> {
        check(&options.name).map_err(|why| OpenError::Name(why.to_owned()))?;
        let servers = servers(&options.url).map_err(|why| OpenError::Url(why.to_owned()))?;
        let mut config = ClientConfig::new();
        for (key, value) in SETTINGS {
            config.set(*key, *value);
        }
        config.set("bootstrap.servers", servers);
        // librdkafka gives up a record before the publish does.
        let within = options.within.mul_f64(0.9).as_millis().max(1).to_string();
        config.set("message.timeout.ms", &within).set("request.timeout.ms", &within);
        let fixed = options.name.fixed().map(str::to_owned);
        let health = Arc::new(BrokerHealth::new(watch, fixed.is_some(), options.names));
        let producers = Producers::new(config, health.clone())
            .map_err(|error: KafkaError| OpenError::Client(error.to_string()))?;
        let producers = Arc::new(producers);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(stop.clone().run_until_cancelled_owned(watch_metadata(
            producers.clone(),
            health.clone(),
            fixed,
        )));
        Ok(Kafka { topic: options.name, producers, health, tasks, stop: stop.drop_guard() })
    }

    pub(super) async fn publish(&self, message: Message<'_>, deadline: Instant) -> Result<(), PublishError> {
        self.health.observe(self.send(message, deadline)).await
    }

    async fn send(&self, message: Message<'_>, deadline: Instant) -> Result<(), PublishError> {
        if !self.health.is_connected() {
            return Err(PublishError::Unreachable);
        }
        let topic = self.topic.fill(message.names);
        let mut headers = OwnedHeaders::new()
            .insert(Header { key: "content-type", value: Some("application/cloudevents+json") });
        if let Some(trace) = message.event.traceparent() {
            headers = headers.insert(Header { key: TRACEPARENT, value: Some(trace) });
        }
        let record = || {
            let of_event =
                FutureRecord::to(&topic).key(&message.event.partition_key).payload(&message.event.json);
            of_event.headers(headers.clone())
        };
        let (mut producer, confirmed) = (self.producers.current(), self.producers.confirmed());
        let mut produced = produce(&producer, record());
        if produced.is_err() && self.producers.replace_if_fatal() {
            // The failed producer kept nothing, so the new one may try at once.
            producer = self.producers.current();
            produced = produce(&producer, record());
        }
        let report = produced.map_err(|code| self.explain_rejection(code, &topic))?;
        match timeout_at(deadline.into(), report).await {
            Ok(Ok(Ok(_))) => {
                self.producers.count_confirmed();
                self.health.on_confirmed();
                Ok(())
            }
            Ok(Ok(Err((error, _)))) => Err(self.explain(&error, &topic, confirmed)),
            Ok(Err(_)) | Err(_) => {
                self.producers.replace_if_stuck(confirmed);
                Err(PublishError::Unknown)
            }
        }
    }

    /// Turns the producer's rejection of a record into an error.
    fn explain_rejection(&self, code: Option<Code>, topic: &str) -> PublishError {
        match code {
            // The producer checks this record's own size before it batches.
            Some(code @ Code::MessageSizeTooLarge) => PublishError::Unacceptable(code.to_string()),
            Some(Code::UnknownTopic | Code::UnknownPartition) => self.no_topic(topic),
            Some(code) => PublishError::Refused(code.to_string()),
            None => PublishError::Refused("the producer does not take it".to_owned()),
        }
    }

    fn no_topic(&self, topic: &str) -> PublishError {
        // The producer does not recognize a topic that was deleted and recreated.
        self.producers.mark_outdated();
        self.health.unroutable(no_topic(topic))
    }

    /// Turns a failed delivery report into an error. `confirmed` is the number of confirmed records when this one was
    /// produced.
    fn explain(&self, error: &KafkaError, topic: &str, confirmed: u64) -> PublishError {
        self.producers.replace_if_fatal();
        let Some(code) = error.rdkafka_error_code() else { return PublishError::Unknown };
        match code {
            Code::InvalidRecord => PublishError::Unacceptable(code.to_string()),
            // Perhaps only the batch that held this record was too large.
            Code::MessageSizeTooLarge | Code::InvalidMessageSize => {
                PublishError::Unroutable(code.to_string())
            }
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
                self.no_topic(topic)
            }
            Code::InvalidTopic | Code::TopicAuthorizationFailed => {
                self.health.unroutable(format!("the topic {topic}: {code}"))
            }
            Code::QueueFull
            | Code::InvalidMessage
            | Code::ClusterAuthorizationFailed
            | Code::NotEnoughReplicas
            | Code::PolicyViolation => PublishError::Refused(code.to_string()),
            Code::MessageTimedOut | Code::PurgeQueue | Code::PurgeInflight => {
                self.producers.replace_if_stuck(confirmed);
                PublishError::Unknown
            }
            // For example too few replicas after the append: some broker may have the record.
            _ => PublishError::Unconfirmed(code.to_string()),
        }
    }

    pub(super) fn set_names(&self, names: &BTreeSet<String>) {
        self.health.set_names(names.iter().cloned());
    }

    pub(super) async fn close(self) {
        drop(self.stop);
        self.tasks.close();
        self.tasks.wait().await;
        let producers = self.producers;
        // Dropping a producer blocks: it joins the producer's thread.
        let _ = tokio::task::spawn_blocking(move || drop(producers)).await;
        self.health.on_disconnected();
    }
}

/// Hands a record to a producer. On an error the producer does not have it.
fn produce(
    producer: &Idempotent,
    record: FutureRecord<'_, String, String>,
) -> Result<DeliveryFuture, Option<Code>> {
    producer.send_result(record).map_err(|(error, _)| error.rdkafka_error_code())
}

/// Asks for metadata every second and reports the result to the health.
async fn watch_metadata(producers: Arc<Producers>, health: Arc<BrokerHealth>, fixed: Option<String>) {
    loop {
        let (producer, fixed, names) = (producers.current(), fixed.clone(), health.names());
        // librdkafka's metadata call blocks.
        let asked =
            tokio::task::spawn_blocking(move || missing_topics(&producer, fixed.as_deref(), &names)).await;
        match asked {
            Ok(Ok(None)) => {
                producers.replace_if_outdated();
                health.on_destination_found();
                health.on_connected();
            }
            Ok(Ok(Some(why))) => {
                producers.mark_outdated();
                health.on_destination_missing(why);
                health.on_connected();
            }
            Ok(Err(_)) => health.on_connect_failed(format!("Kafka {}", producers.why_unreachable())),
            Err(_) => health.on_disconnected(),
        }
        producers.replace_if_fatal();
        producers.drop_idle().await;
        sleep(METADATA_INTERVAL).await;
    }
}

/// Why none of the topics can be used; `None` if one can. An error when no broker answers.
fn missing_topics(
    producer: &Idempotent,
    fixed: Option<&str>,
    names: &[String],
) -> KafkaResult<Option<String>> {
    let metadata = producer.client().fetch_metadata(fixed, METADATA_TIMEOUT)?;
    let found = |name: &str| metadata.topics().iter().find(|topic| topic.name() == name);
    let why = |name: &String| match found(name) {
        None => Some(no_topic(name)),
        Some(topic) => match topic.error().map(Code::from) {
            None if topic.partitions().is_empty() => Some(format!("the topic {name} has no partitions")),
            None => None,
            Some(Code::UnknownTopicOrPartition) => Some(no_topic(name)),
            Some(code) => Some(format!("the topic {name} cannot be used: {code}")),
        },
    };
    let mut reasons = names.iter().map(why);
    let Some(Some(first)) = reasons.next() else { return Ok(None) };
    let others = names.len() - 1;
    Ok(match reasons.all(|why| why.is_some()) {
        true if others > 0 => Some(format!("{first} ({others} other names have none either)")),
        true => Some(first),
        false => None,
    })
}

pub(crate) fn no_topic(topics: &str) -> String {
    format!("no such topic: {topics}; make it")
}

/// Parses the bootstrap servers, each with or without `kafka://`, into librdkafka's form. The error does not repeat
/// them.
pub(crate) fn servers(url: &Secret) -> Result<String, &'static str> {
    let one = |url: &'_ str| url.trim().trim_start_matches("kafka://").trim_end_matches('/').to_owned();
    let servers = url.expose().split(',').map(one).collect::<Vec<_>>().join(",");
    match servers {
        servers if servers.contains('@') => Err(
            "it holds a user or password, and there is no login for Kafka: it is of the form host:port,host:port, of \
             listeners that ask for none",
        ),
        servers if servers.contains('/') => {
            Err("it is not of the form host:port,host:port; there is no TLS for Kafka")
        }
        servers => Ok(servers),
    }
}

/// Checks the topic's name, with `x` for each placeholder.
pub(super) fn check(name: &QueueName) -> Result<(), &'static str> {
    let texts = name.parts().iter().map(|part| match part {
        Part::Text(text) => text.as_str(),
        Part::Provider | Part::Source | Part::Type => "x",
    });
    let topic: String = texts.collect();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !topic.chars().all(allowed) || topic.len() > 249 || matches!(&*topic, "." | "..") {
        return Err("a topic is made of up to 249 letters, digits, dots, underscores and hyphens");
    }
    Ok(())
}

const SETTINGS: &[(&str, &str)] = &[
    ("client.id", "hookgate"),
    ("enable.idempotence", "true"),
    ("acks", "all"),
    ("socket.timeout.ms", "3000"),
    ("linger.ms", "1"),
    ("reconnect.backoff.ms", "50"),
    ("reconnect.backoff.max.ms", "1000"),
    // High enough that the broker's own limit decides.
    ("message.max.bytes", "20000000"),
    ("queue.buffering.max.messages", "4096"),
    ("queue.buffering.max.kbytes", "262144"),
    ("topic.metadata.propagation.max.ms", "1000"),
    // librdkafka's log is not needed, and could hold secrets.
    ("log_level", "2"),
];
const METADATA_TIMEOUT: Duration = Duration::from_secs(1);
const METADATA_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_may_have_a_scheme() {
        let read = |url: &str| servers(&Secret::new(url));
        assert_eq!(read("a:9092").as_deref(), Ok("a:9092"));
        assert_eq!(read("kafka://a:9092, kafka://b:9092/").as_deref(), Ok("a:9092,b:9092"));
        for bad in ["http://a:9092", "kafka://me:hush@a:9092", "a:9092/x"] {
            assert!(read(bad).is_err_and(|why| !why.contains("hush")), "{bad}");
        }
    }

    #[test]
    fn a_topic_has_only_the_characters_that_kafka_allows() {
        for good in ["hookgate.events", "h.{provider}.{type}", "{source}"] {
            assert_eq!(check(&QueueName::parse(good).unwrap()), Ok(()), "{good}");
        }
        for bad in ["a/b", "a:{type}", "é", "..", &"x".repeat(250)] {
            assert!(check(&QueueName::parse(bad).unwrap()).is_err(), "{bad}");
        }
    }
}
