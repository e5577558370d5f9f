//! Brokers without a dedupe of their own that could be relied on: publish, and await the confirm.
//!
//! Keeps true: `Ok` is the broker's confirm that it has the message, durably where its own settings make it so; an error
//! says what is known of the message, and never better than it is; every publish ends by its deadline. Each broker
//! reconnects by itself, and tells metrics and readiness whether it takes messages.

pub mod amqp;
mod health;
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
use crate::config::queue_name::{Filling, QueueName};
use crate::event::Event;
use crate::observe::admin::{QueueState, Readiness};
use crate::observe::metrics::QueueMetrics;

/// A message on its way.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Under which the broker, or a consumer, may drop a second copy: the same at every try.
    pub id: &'a str,
    /// What fills in the subject, exchange or topic.
    pub names: Filling<'a>,
    /// What is sent: its JSON, and attributes for the broker's own fields.
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
    /// What a test says.
    #[cfg(test)]
    Scripted(scripted::Scripted),
}

/// What a broker is configured with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Subject, exchange or topic.
    pub name: QueueName,
    /// Every name that it can stand for, as far as these are known: one of them has to have a place for messages.
    pub names: BTreeSet<String>,
    /// Servers, each as its client library takes it. Never shown: it may hold a password.
    pub url: crate::config::secret::Secret,
    /// How long before its deadline a publish begins, at most.
    pub within: Duration,
}

/// Where a broker tells how it fares.
#[derive(Clone)]
pub struct Watch {
    /// The queue's metrics.
    pub metrics: QueueMetrics,
    /// Its `queue`.
    pub readiness: Arc<Readiness>,
}

impl Watch {
    /// Tells how the queue stands, and why it takes no messages.
    pub fn set(&self, state: QueueState, why: Option<&str>) {
        self.metrics.up.set(i64::from(state == QueueState::Up));
        self.metrics.full.set(i64::from(state == QueueState::Full));
        self.readiness.set_queue(state);
        self.readiness.set_queue_detail(why);
    }
}

/// Why a message is not known to be in the queue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The broker said no, as it would to any message now. It does not have it.
    #[error("the broker refused: {0}")]
    Refused(String),
    /// The broker has nowhere to put this message, as things stand. It does not have it.
    #[error("the broker returned the message: {0}")]
    Unroutable(String),
    /// The broker will never take this message. It does not have it.
    #[error("the broker can never take this message: {0}")]
    Unacceptable(String),
    /// There is no connection; nothing was sent.
    #[error("the broker is unreachable")]
    Unreachable,
    /// Sent, and no answer by the deadline or before the connection was lost: it may have it.
    #[error("the broker gave no answer in time")]
    Unknown,
    /// It answered, but does not vouch for the message: it may have it.
    #[error("the broker does not vouch for the message: {0}")]
    Unvouched(String),
}

/// Why a broker cannot be opened. Never holds the URL.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL cannot be used.
    #[error("unusable queue.url: {0}")]
    Url(String),
    /// The name cannot be one of this broker's.
    #[error("unusable queue.name: {0}")]
    Name(String),
    /// The client library did not start.
    #[error("the client cannot be started: {0}")]
    Client(String),
}

/// Whether a queue of this kind can have such a name.
///
/// # Errors
/// What the name may not hold.
pub fn check_name(kind: QueueKind, name: &QueueName) -> Result<(), &'static str> {
    match kind {
        QueueKind::Nats => nats::check(name),
        #[cfg(feature = "kafka")]
        QueueKind::Kafka => kafka::check(name),
        _ => Ok(()),
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
            #[cfg(test)]
            Broker::Scripted(scripted) => scripted.publish(message).await,
        }
    }

    /// From now on the queue's name stands for these names.
    pub fn set_names(&self, names: &BTreeSet<String>) {
        match self {
            Broker::Nats(nats) => nats.set_names(names),
            Broker::Amqp(amqp) => amqp.set_names(names),
            #[cfg(feature = "kafka")]
            Broker::Kafka(kafka) => kafka.set_names(names),
            #[cfg(test)]
            Broker::Scripted(_) => {}
        }
    }

    /// Lets go of the connection. Nothing may be in flight any more.
    pub async fn close(self) {
        match self {
            Broker::Nats(nats) => nats.close().await,
            Broker::Amqp(amqp) => amqp.close().await,
            #[cfg(feature = "kafka")]
            Broker::Kafka(kafka) => kafka.close().await,
            #[cfg(test)]
            Broker::Scripted(_) => {}
        }
    }
}
