//! Kafka: produce to a topic with an idempotent producer, await the delivery report.
//!
//! Keeps true: `Ok` is the report that every in-sync replica has the record; nothing is handed to the producer while no broker
//! answers; the producer gives up a record by itself before the deadline of whoever awaits it. What was handed over and is not
//! known to be refused may be in the topic.
//!
//! librdkafka connects by itself. It is asked for metadata every second: that is what "up" means here.

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
use super::{Message, OpenError, Options, PublishError, Watch};
use crate::config::queue_name::{Part, QueueName};
use crate::config::secret::Secret;

/// The connection.
pub struct Kafka {
    topic: QueueName,
    producers: Arc<Producers>,
    standing: Arc<BrokerHealth>,
    keepers: TaskTracker,
    stop: DropGuard,
}

impl Kafka {
    /// Starts to connect, and returns at once: whether the broker is there shows in readiness.
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
        // It gives a record up before whoever waits for it does.
        let within = options.within.mul_f64(0.9).as_millis().max(1).to_string();
        config.set("message.timeout.ms", &within).set("request.timeout.ms", &within);
        let fixed = options.name.fixed().map(str::to_owned);
        let standing = Arc::new(BrokerHealth::new(watch, fixed.is_some(), options.names));
        let producers = Producers::new(config, standing.clone())
            .map_err(|error: KafkaError| OpenError::Client(error.to_string()))?;
        let producers = Arc::new(producers);
        let (keepers, stop) = (TaskTracker::new(), CancellationToken::new());
        keepers.spawn(stop.clone().run_until_cancelled_owned(look(
            producers.clone(),
            standing.clone(),
            fixed,
        )));
        Ok(Kafka { topic: options.name, producers, standing, keepers, stop: stop.drop_guard() })
    }

    pub(super) async fn publish(&self, message: Message<'_>, deadline: Instant) -> Result<(), PublishError> {
        self.standing.watch(self.send(message, deadline)).await
    }

    async fn send(&self, message: Message<'_>, deadline: Instant) -> Result<(), PublishError> {
        if !self.standing.is_connected() {
            return Err(PublishError::Unreachable);
        }
        let topic = self.topic.fill(message.names);
        let record = || {
            FutureRecord::to(&topic).key(&message.event.partition_key).payload(&message.event.json).headers(
                OwnedHeaders::new()
                    .insert(Header { key: "content-type", value: Some("application/cloudevents+json") }),
            )
        };
        let (mut producer, confirmed) = (self.producers.current(), self.producers.confirmed());
        let mut handed = hand_over(&producer, record());
        if handed.is_err() && self.producers.replace_if_fatal() {
            // It had taken nothing: the next one has its turn at once.
            producer = self.producers.current();
            handed = hand_over(&producer, record());
        }
        let report = handed.map_err(|code| self.untaken(code, &topic))?;
        match timeout_at(deadline.into(), report).await {
            Ok(Ok(Ok(_))) => {
                self.producers.has_confirmed();
                self.standing.found();
                Ok(())
            }
            Ok(Ok(Err((error, _)))) => Err(self.explain(&error, &topic, confirmed)),
            Ok(Err(_)) | Err(_) => {
                self.producers.replace_if_stuck(confirmed);
                Err(PublishError::Unknown)
            }
        }
    }

    /// What the producer says of a record that it did not take.
    fn untaken(&self, code: Option<Code>, topic: &str) -> PublishError {
        match code {
            // Said of this record alone, before it is in any batch.
            Some(code @ Code::MessageSizeTooLarge) => PublishError::Unacceptable(code.to_string()),
            Some(Code::UnknownTopic | Code::UnknownPartition) => self.no_topic(topic),
            Some(code) => PublishError::Refused(code.to_string()),
            None => PublishError::Refused("the producer does not take it".to_owned()),
        }
    }

    fn no_topic(&self, topic: &str) -> PublishError {
        // A topic that is made anew is another one, which the producer does not know.
        self.producers.outdated();
        self.standing.nowhere(no_topic(topic))
    }

    /// What a report says of a record. `confirmed` is how many had been confirmed when it was handed over.
    fn explain(&self, error: &KafkaError, topic: &str, confirmed: u64) -> PublishError {
        self.producers.replace_if_fatal();
        let Some(code) = error.rdkafka_error_code() else { return PublishError::Unknown };
        match code {
            Code::InvalidRecord => PublishError::Unacceptable(code.to_string()),
            // It may be the batch that is too large, of which this was one.
            Code::MessageSizeTooLarge | Code::InvalidMessageSize => {
                PublishError::Unroutable(code.to_string())
            }
            Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
                self.no_topic(topic)
            }
            Code::InvalidTopic | Code::TopicAuthorizationFailed => {
                self.standing.nowhere(format!("the topic {topic}: {code}"))
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
            // Not enough replicas after it was appended, say: some broker may have it.
            _ => PublishError::Unvouched(code.to_string()),
        }
    }

    pub(super) fn set_names(&self, names: &BTreeSet<String>) {
        self.standing.set_names(names.iter().cloned());
    }

    pub(super) async fn close(self) {
        drop(self.stop);
        self.keepers.close();
        self.keepers.wait().await;
        let producers = self.producers;
        // It joins the producer's thread.
        let _ = tokio::task::spawn_blocking(move || drop(producers)).await;
        self.standing.lost();
    }
}

/// Hands a record to a producer. An error means that it did not take it.
fn hand_over(
    producer: &Idempotent,
    record: FutureRecord<'_, String, String>,
) -> Result<DeliveryFuture, Option<Code>> {
    producer.send_result(record).map_err(|(error, _)| error.rdkafka_error_code())
}

/// Asks for metadata every second, and tells what that shows.
async fn look(producers: Arc<Producers>, standing: Arc<BrokerHealth>, fixed: Option<String>) {
    loop {
        let (producer, fixed, names) = (producers.current(), fixed.clone(), standing.names());
        // The one call that tells is a blocking one.
        let asked = tokio::task::spawn_blocking(move || why_none(&producer, fixed.as_deref(), &names)).await;
        match asked {
            Ok(Ok(None)) => {
                producers.replace_if_outdated();
                standing.has_place();
                standing.connected();
            }
            Ok(Ok(Some(why))) => {
                producers.outdated();
                standing.has_none(why);
                standing.connected();
            }
            Ok(Err(_)) => standing.unconnected(format!("Kafka {}", producers.why_unreachable())),
            Err(_) => standing.lost(),
        }
        producers.replace_if_fatal();
        producers.let_go().await;
        sleep(LOOK_AGAIN).await;
    }
}

/// Why no record has a topic, if so. An error when no broker answers.
fn why_none(producer: &Idempotent, fixed: Option<&str>, names: &[String]) -> KafkaResult<Option<String>> {
    let metadata = producer.client().fetch_metadata(fixed, LOOK_TIMEOUT)?;
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
        true if others > 0 => Some(format!("{first} (nor is there one for any of {others} other names)")),
        true => Some(first),
        false => None,
    })
}

pub(crate) fn no_topic(topics: &str) -> String {
    format!("no such topic: {topics}; make it")
}

/// Reads the bootstrap servers, each with or without `kafka://`, as librdkafka takes them. The error does not repeat them.
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

/// Says what no topic may hold; it may be filled in with anything else.
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
    // What one record may be is for the broker to say.
    ("message.max.bytes", "20000000"),
    ("queue.buffering.max.messages", "4096"),
    ("queue.buffering.max.kbytes", "262144"),
    ("topic.metadata.propagation.max.ms", "1000"),
    // Nothing it logs is needed, and a log may name more than it should.
    ("log_level", "2"),
];
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_secs(1);

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
    fn a_topic_is_of_the_characters_that_kafka_takes() {
        for good in ["hookgate.events", "h.{provider}.{type}", "{source}"] {
            assert_eq!(check(&QueueName::parse(good).unwrap()), Ok(()), "{good}");
        }
        for bad in ["a/b", "a:{type}", "é", "..", &"x".repeat(250)] {
            assert!(check(&QueueName::parse(bad).unwrap()).is_err(), "{bad}");
        }
    }
}
