//! Publishes to a broker or an HTTP service and awaits its confirm. They have no dedupe that hookgate could rely on.
//!
//! Keeps true:
//! - `Ok` means that the broker confirmed the message. The broker's own settings decide how durable that is.
//! - An error never claims more about the message than is known.
//! - Every publish ends by its deadline.
//! - Each broker reconnects by itself, and reports to metrics and readiness whether it accepts messages.
//!
//! A new broker is a variant of [`Broker`] with `open`, `publish`, `set_names` and `close`, like `nats.rs`. It tells a
//! `BrokerHealth` what happens to its connection. The [`PublishError`] decides an event's fate: an error after which the
//! broker does not have the message ends the claim, any other keeps it. `Unacceptable` makes a dead letter at once.

pub mod amqp;
mod health;
pub mod http;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod nats;
#[cfg(test)]
pub mod scripted;
mod url;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::QueueKind;
use crate::config::queue_name::{PlaceholderValues, QueueName};
use crate::event::Event;
use crate::observe::admin::{QueueState, Readiness};
use crate::observe::metrics::QueueMetrics;

/// A message to publish.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The message id, by which the broker or a consumer may drop a second copy. Every retry has the same one.
    pub id: &'a str,
    /// The values for the placeholders in the subject, exchange or topic.
    pub names: PlaceholderValues<'a>,
    /// The event. Its JSON is the payload, and its attributes fill the broker's own fields.
    pub event: &'a Event,
}

/// The configured broker.
pub enum Broker {
    /// NATS JetStream.
    Nats(nats::Nats),
    /// RabbitMQ, by AMQP 0-9-1.
    Amqp(amqp::Amqp),
    /// Kafka.
    #[cfg(feature = "kafka")]
    Kafka(kafka::Kafka),
    /// Internal HTTP services.
    Http(Box<http::Http>),
    /// Answers as a test tells it to.
    #[cfg(test)]
    Scripted(scripted::Scripted),
}

/// The header or property that carries an event's trace to its consumer.
const TRACEPARENT: &str = "traceparent";

/// The settings of a broker.
#[derive(Clone, Debug)]
pub struct Options {
    /// Subject, exchange or topic.
    pub name: QueueName,
    /// The names that the template can expand to, as far as they are known. At least one of them must exist on the
    /// broker.
    pub names: BTreeSet<String>,
    /// The servers, as the client library expects them. Never shown: the URL may hold a password.
    pub url: crate::config::secret::Secret,
    /// The longest time from the start of a publish to its deadline.
    pub within: Duration,
}

/// Where a broker reports its state.
#[derive(Clone)]
pub struct Watch {
    /// The queue's metrics.
    pub metrics: QueueMetrics,
    /// The readiness whose `queue` part the broker sets.
    pub readiness: Arc<Readiness>,
}

impl Watch {
    /// Reports the queue's state, and why it accepts no messages.
    pub fn set(&self, state: QueueState, why: Option<&str>) {
        self.metrics.up.set(i64::from(state == QueueState::Up));
        self.metrics.full.set(i64::from(state == QueueState::Full));
        self.readiness.set_queue(state);
        self.readiness.set_queue_detail(why);
    }
}

/// Why a publish was not confirmed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The broker refused, as it would refuse any message now. It does not have this one.
    #[error("the broker refused: {0}")]
    Refused(String),
    /// The broker has no destination for this message now, for example no bound queue. It does not have the message.
    #[error("the broker returned the message: {0}")]
    Unroutable(String),
    /// An HTTP service does not want this message. It does not have it.
    #[error("the service refused this event: {0}")]
    Rejected(String),
    /// An HTTP service may take this message later. It may have it already.
    #[error("the service does not take it now: {0}")]
    NotNow(String),
    /// The broker will never accept this message, for example because it is too large. It does not have it.
    #[error("the broker can never take this message: {0}")]
    Unacceptable(String),
    /// There is no connection; nothing was sent.
    #[error("the broker is unreachable")]
    Unreachable,
    /// The message was sent, but the deadline passed or the connection was lost first. The broker may have it.
    #[error("the broker gave no answer in time")]
    Unknown,
    /// The broker answered without confirming the message. It may have it.
    #[error("the broker did not confirm the message: {0}")]
    Unconfirmed(String),
}

/// Why a broker cannot be opened. No text holds the URL.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL cannot be used.
    #[error("unusable queue.url: {0}")]
    Url(String),
    /// The broker does not allow such a name.
    #[error("unusable queue.name: {0}")]
    Name(String),
    /// The client library did not start.
    #[error("the client cannot be started: {0}")]
    Client(String),
}

/// Checks that a queue of this kind can have this name.
///
/// # Errors
/// The rule that the name breaks.
pub fn check_name(kind: QueueKind, name: &QueueName) -> Result<(), &'static str> {
    match kind {
        QueueKind::Nats => nats::check(name),
        #[cfg(feature = "kafka")]
        QueueKind::Kafka => kafka::check(name),
        #[cfg(not(feature = "kafka"))]
        QueueKind::Kafka => Ok(()),
        QueueKind::Embedded | QueueKind::Redis | QueueKind::Amqp | QueueKind::Http => Ok(()),
    }
}

impl Broker {
    /// Publishes and awaits the confirm, until the deadline.
    ///
    /// # Errors
    /// When the broker did not confirm.
    pub async fn publish(&self, message: Message<'_>, deadline: Instant) -> Result<(), PublishError> {
        match self {
            Broker::Nats(nats) => nats.publish(message, deadline).await,
            Broker::Amqp(amqp) => amqp.publish(message, deadline).await,
            #[cfg(feature = "kafka")]
            Broker::Kafka(kafka) => kafka.publish(message, deadline).await,
            Broker::Http(http) => http.publish(message, deadline).await,
            #[cfg(test)]
            Broker::Scripted(scripted) => scripted.publish(message).await,
        }
    }

    /// Whether a message may still arrive after its publish has ended without a confirm. A request to an HTTP service is
    /// over by then.
    pub fn may_arrive_later(&self) -> bool {
        match self {
            Broker::Nats(_) | Broker::Amqp(_) => true,
            #[cfg(feature = "kafka")]
            Broker::Kafka(_) => true,
            Broker::Http(_) => false,
            #[cfg(test)]
            Broker::Scripted(_) => true,
        }
    }

    /// Where each event goes, if it is to HTTP services.
    pub fn routes(&self) -> Option<&Arc<http::Routes>> {
        match self {
            Broker::Nats(_) | Broker::Amqp(_) => None,
            #[cfg(feature = "kafka")]
            Broker::Kafka(_) => None,
            Broker::Http(http) => Some(http.routes()),
            #[cfg(test)]
            Broker::Scripted(_) => None,
        }
    }

    /// Replaces the names that the queue's name template expands to.
    pub fn set_names(&self, names: &BTreeSet<String>) {
        match self {
            Broker::Nats(nats) => nats.set_names(names),
            Broker::Amqp(amqp) => amqp.set_names(names),
            #[cfg(feature = "kafka")]
            Broker::Kafka(kafka) => kafka.set_names(names),
            Broker::Http(_) => {}
            #[cfg(test)]
            Broker::Scripted(_) => {}
        }
    }

    /// Closes the connection. No publish may be in flight.
    pub async fn close(self) {
        match self {
            Broker::Nats(nats) => nats.close().await,
            Broker::Amqp(amqp) => amqp.close().await,
            #[cfg(feature = "kafka")]
            Broker::Kafka(kafka) => kafka.close().await,
            Broker::Http(http) => http.close().await,
            #[cfg(test)]
            Broker::Scripted(_) => {}
        }
    }
}
