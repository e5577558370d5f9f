//! Kafka: produce to a topic with an idempotent producer, await the delivery report.
//!
//! Keeps true: `Ok` is the report that every in-sync replica has the record; nothing is handed to the producer while no broker
//! answers; the producer gives up a record by itself before the deadline of whoever awaits it. What was handed over and is not
//! known to be refused may be in the topic.
//!
//! librdkafka connects by itself. It is asked for metadata every second: that is what "up" means here.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{ClientConfig, ClientContext};
use tokio::time::{sleep, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::standing::Standing;
use super::{Message, OpenError, Options, PublishError, Watch};
use crate::queue_name::{Part, QueueName};
use crate::secret::Secret;

/// The connection.
pub struct Kafka {
    topic: QueueName,
    producers: Arc<Producers>,
    standing: Arc<Standing>,
    keepers: TaskTracker,
    stop: DropGuard,
}

type Idempotent = FutureProducer<Reports>;

/// The producer, and how to make another: one that met a fatal error never works again.
struct Producers {
    config: ClientConfig,
    standing: Arc<Standing>,
    current: Mutex<Idempotent>,
}

/// Hears what librdkafka has to say of its connections.
#[derive(Clone)]
struct Reports(Arc<Standing>);

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, _reason: &str) {
        if error.rdkafka_error_code() == Some(Code::AllBrokersDown) {
            self.0.lost();
        }
    }
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
        let standing = Arc::new(Standing::new(watch, options.name.fixed()));
        let producer = config
            .create_with_context(Reports(standing.clone()))
            .map_err(|error: KafkaError| OpenError::Client(error.to_string()))?;
        let producers =
            Arc::new(Producers { config, standing: standing.clone(), current: Mutex::new(producer) });
        let (keepers, stop) = (TaskTracker::new(), CancellationToken::new());
        keepers.spawn(stop.clone().run_until_cancelled_owned(look(producers.clone(), standing.clone())));
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
        let content_type = Header { key: "content-type", value: Some("application/cloudevents+json") };
        let record = FutureRecord::to(&topic)
            .key(&message.event.partition_key)
            .payload(&message.event.json)
            .headers(OwnedHeaders::new().insert(content_type));
        let producer = self.producers.current();
        let report = producer.send_result(record).map_err(|(error, _)| match error.rdkafka_error_code() {
            // Said of this record alone, before it is in any batch.
            Some(code @ Code::MessageSizeTooLarge) => PublishError::Unacceptable(code.to_string()),
            _ => self.explain(&error, &producer),
        })?;
        match timeout_at(deadline.into(), report).await {
            Ok(Ok(Ok(_))) => {
                self.standing.found();
                Ok(())
            }
            Ok(Ok(Err((error, _)))) => Err(self.explain(&error, &producer)),
            Ok(Err(_)) | Err(_) => Err(PublishError::Unknown),
        }
    }

    fn explain(&self, error: &KafkaError, producer: &Idempotent) -> PublishError {
        if producer.client().fatal_error().is_some() {
            self.producers.replace();
        }
        let Some(code) = error.rdkafka_error_code() else { return PublishError::Unknown };
        match code {
            Code::InvalidRecord => PublishError::Unacceptable(code.to_string()),
            // It may be the batch that is too large, of which this was one.
            Code::MessageSizeTooLarge | Code::InvalidMessageSize => {
                PublishError::Unroutable(code.to_string())
            }
            Code::UnknownTopicOrPartition
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::InvalidTopic
            | Code::TopicAuthorizationFailed => self.standing.nowhere(code.to_string()),
            Code::QueueFull
            | Code::InvalidMessage
            | Code::ClusterAuthorizationFailed
            | Code::NotEnoughReplicas
            | Code::PolicyViolation => PublishError::Refused(code.to_string()),
            // Timed out, or not enough replicas after it was appended: some broker may have it.
            _ => PublishError::Unknown,
        }
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

impl Producers {
    fn current(&self) -> Idempotent {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another producer in place of one that met a fatal error; what it still held is of unknown fate.
    fn replace(&self) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.client().fatal_error().is_none() {
            return;
        }
        match self.config.create_with_context(Reports(self.standing.clone())) {
            Ok(producer) => *current = producer,
            Err(error) => tracing::error!(%error, "no new Kafka producer can be made"),
        }
    }
}

/// Asks for metadata every second, and tells what that shows.
async fn look(producers: Arc<Producers>, standing: Arc<Standing>) {
    loop {
        let (producer, topic) = (producers.current(), standing.fixed().map(str::to_owned));
        // The one call that tells is a blocking one.
        let asked = tokio::task::spawn_blocking(move || topic_is_there(&producer, topic.as_deref())).await;
        match asked {
            Ok(Ok(there)) => {
                standing.connected();
                if there { standing.found() } else { standing.missing() }
            }
            Ok(Err(_)) | Err(_) => standing.lost(),
        }
        producers.replace();
        sleep(LOOK_AGAIN).await;
    }
}

/// Whether the topic has partitions that can be written to, if there is a topic to ask for. An error when no broker answers.
fn topic_is_there(producer: &Idempotent, topic: Option<&str>) -> KafkaResult<bool> {
    let metadata = producer.client().fetch_metadata(topic, LOOK_TIMEOUT)?;
    let topics = metadata.topics();
    Ok(topic.is_none()
        || topics.iter().any(|topic| topic.error().is_none() && !topic.partitions().is_empty()))
}

/// Reads the bootstrap servers, each with or without `kafka://`, as librdkafka takes them. The error does not repeat them.
pub(crate) fn servers(url: &Secret) -> Result<String, &'static str> {
    let one = |url: &'_ str| url.trim().trim_start_matches("kafka://").trim_end_matches('/').to_owned();
    let servers = url.expose().split(',').map(one).collect::<Vec<_>>().join(",");
    match servers.contains(['/', '@']) {
        true => Err("it is not of the form host:port,host:port"),
        false => Ok(servers),
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
