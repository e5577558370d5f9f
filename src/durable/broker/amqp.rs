//! RabbitMQ, by AMQP 0-9-1: publish to an exchange, await the publisher confirm.
//!
//! Keeps true:
//! - `Ok` means that RabbitMQ confirmed the message and routed it to at least one queue.
//! - A channel carries one message at a time, so its confirm, return or error belongs to that message.
//! - Nothing is sent while the connection is down, or while the broker blocks publishers.
//!
//! `link` keeps one connection up. Each message in flight has a channel of its own, up to a bound.

mod link;
mod routed;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lapin::options::{BasicPublishOptions, ExchangeDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, ErrorKind};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, watch};
use tokio::time::{timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::health::{BrokerHealth, Lookup};
use super::{Message, OpenError, Options, PublishError, TRACEPARENT, Watch};
use crate::config::queue_name::QueueName;

use link::{ChannelPool, Reconnector};
pub(crate) use link::{connect, read};
use routed::Routed;

/// A RabbitMQ exchange.
pub struct Amqp {
    exchange: QueueName,
    /// None while there is no connection.
    pool: watch::Receiver<Option<Arc<ChannelPool>>>,
    in_flight: Semaphore,
    health: Arc<BrokerHealth>,
    routed: Arc<Routed>,
    tasks: TaskTracker,
    stop: DropGuard,
}

impl Amqp {
    /// Starts to connect, and returns at once. Readiness reports whether the broker is reachable.
    ///
    /// # Errors
    /// When the URL or the name is unusable.
    pub async fn open(options: Options, watch: Watch) -> Result<Amqp, OpenError> {
        let uris = read(&options.url).map_err(|why| OpenError::Url(why.to_owned()))?;
        let fixed = options.name.fixed();
        if fixed.is_some_and(|name| name.len() > SHORT_STRING_MAX) {
            return Err(OpenError::Name(TOO_LONG.to_owned()));
        }
        let health = Arc::new(BrokerHealth::new(watch, fixed.is_some(), options.names));
        let routed = Arc::<Routed>::default();
        let (told, pool) = watch::channel(None);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let reconnector = Reconnector { uris, health: health.clone(), routed: routed.clone(), pool: told };
        tasks.spawn(reconnector.run(stop.clone()));
        let search = search(pool.clone(), health.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(search));
        let in_flight = Semaphore::new(IN_FLIGHT);
        Ok(Amqp { exchange: options.name, pool, in_flight, health, routed, tasks, stop: stop.drop_guard() })
    }

    pub(super) async fn publish(&self, message: Message<'_>, deadline: Instant) -> Result<(), PublishError> {
        self.health.observe(self.send(message, deadline)).await
    }

    async fn send(&self, message: Message<'_>, deadline: Instant) -> Result<(), PublishError> {
        let pool = self.pool.borrow().clone().ok_or(PublishError::Unreachable)?;
        if let Some(reason) = self.health.why_blocked() {
            return Err(PublishError::Refused(reason));
        }
        let name = self.exchange.fill(message.names);
        let exchange =
            ShortString::try_new(&*name).map_err(|_| PublishError::Unacceptable(TOO_LONG.to_owned()))?;
        let Ok(permit) = timeout_at(deadline.into(), self.in_flight.acquire()).await else {
            return Err(PublishError::Refused("too many messages await its confirm".to_owned()));
        };
        // Nothing is sent without a channel, so the message is certainly not in the queue.
        let Ok(Ok(channel)) = timeout_at(deadline.into(), pool.acquire()).await else {
            return Err(PublishError::Unreachable);
        };
        let confirmed = timeout_at(deadline.into(), send(&channel, exchange, message)).await;
        drop(permit);
        let confirmation = match confirmed {
            Ok(Ok(confirmation)) => confirmation,
            Ok(Err(error)) => return Err(self.explain(&error, &name)),
            // The broker may still answer on this channel, so it is not reused.
            Err(_) => return Err(PublishError::Unknown),
        };
        pool.release(channel);
        self.read_confirmation(confirmation, &name, &message.event.kind)
    }

    /// Turns the broker's answer into a result, and records it in the health.
    fn read_confirmation(
        &self,
        confirmation: Confirmation,
        exchange: &str,
        key: &str,
    ) -> Result<(), PublishError> {
        match confirmation {
            Confirmation::Ack(None) => {
                self.health.on_confirmed();
                self.routed.add(exchange, key);
                Ok(())
            }
            Confirmation::Ack(Some(returned)) => {
                let why = format!(
                    "no queue is bound to the exchange {exchange} for the routing key {key}; bind one (RabbitMQ says {})",
                    returned.reply_text
                );
                if self.routed.remove(exchange, key) {
                    self.health.on_refused(why.clone());
                }
                Err(PublishError::Unroutable(why))
            }
            // With several bound queues, some may have the message: a nack only says that not all do.
            Confirmation::Nack(_) => {
                let why = format!(
                    "a queue bound to the exchange {exchange} did not take it (basic.nack): it is full, or fails"
                );
                self.health.on_destination_refused(why.clone(), true);
                Err(PublishError::Unconfirmed(why))
            }
            Confirmation::NotRequested => Err(PublishError::Unknown),
        }
    }

    /// Turns an error on the message's channel into a result. Either the broker closed the channel because of the
    /// message, or the connection ended.
    fn explain(&self, error: &lapin::Error, exchange: &str) -> PublishError {
        match soft(error) {
            Some(AMQPSoftError::PRECONDITIONFAILED) => PublishError::Unacceptable(error.to_string()),
            Some(AMQPSoftError::NOTFOUND) => self.health.unroutable(no_exchange(exchange)),
            Some(AMQPSoftError::ACCESSREFUSED) => self.health.unroutable(format!(
                "its user may not publish to the exchange {exchange}: grant it the right to write there ({error})"
            )),
            Some(_) => PublishError::Refused(error.to_string()),
            None => PublishError::Unknown,
        }
    }

    pub(super) fn set_names(&self, names: &BTreeSet<String>) {
        self.health.set_names(names.iter().cloned());
    }

    pub(super) async fn close(self) {
        drop(self.stop);
        self.tasks.close();
        self.tasks.wait().await;
        self.health.on_disconnected();
    }
}

/// Publishes on a channel that carries no other message, and awaits the confirm.
async fn send(channel: &Channel, exchange: ShortString, of: Message<'_>) -> lapin::Result<Confirmation> {
    let mut properties = BasicProperties::default()
        .with_message_id(message_id(of.id))
        .with_content_type("application/cloudevents+json".into())
        .with_type(cut(&of.event.kind))
        .with_app_id("hookgate".into())
        .with_delivery_mode(PERSISTENT);
    if let Some(trace) = of.event.traceparent() {
        let mut headers = FieldTable::default();
        headers.insert(TRACEPARENT.into(), AMQPValue::LongString(trace.into()));
        properties = properties.with_headers(headers);
    }
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let body = of.event.json.as_bytes();
    channel.basic_publish(exchange, cut(&of.event.kind), options, body, properties).await?.await
}

/// The error's soft code: a soft error closes one channel, a hard error the connection.
pub(crate) fn soft(error: &lapin::Error) -> Option<&AMQPSoftError> {
    match error.kind() {
        ErrorKind::ProtocolError(said) => match said.kind() {
            AMQPErrorKind::Soft(soft) => Some(soft),
            AMQPErrorKind::Hard(_) => None,
        },
        _ => None,
    }
}

/// Looks up the exchanges, forever.
async fn search(pools: watch::Receiver<Option<Arc<ChannelPool>>>, health: Arc<BrokerHealth>) {
    let pools = &pools;
    health.watch_destinations(|exchange| async move { is_there(pools, &exchange).await }).await;
}

async fn is_there(pools: &watch::Receiver<Option<Arc<ChannelPool>>>, exchange: &str) -> Lookup {
    let pool = pools.borrow().clone();
    let Ok(name) = ShortString::try_new(exchange) else { return Lookup::Missing(TOO_LONG.to_owned()) };
    let Some(pool) = pool else { return Lookup::NoAnswer(NO_ANSWER) };
    // A passive declaration that fails closes its channel.
    let declared = timeout(LOOKUP_TIMEOUT, async {
        let channel = pool.acquire().await?;
        let passive = ExchangeDeclareOptions { passive: true, ..Default::default() };
        let kind = lapin::ExchangeKind::Topic;
        channel.exchange_declare(name, kind, passive, Default::default()).await?;
        lapin::Result::Ok(channel)
    });
    match declared.await {
        Ok(Ok(channel)) => {
            pool.release(channel);
            Lookup::Found
        }
        Ok(Err(why)) => match soft(&why) {
            Some(AMQPSoftError::NOTFOUND) => Lookup::Missing(no_exchange(exchange)),
            Some(AMQPSoftError::ACCESSREFUSED) => Lookup::NotAllowed,
            Some(_) | None => Lookup::NoAnswer(NO_ANSWER),
        },
        Err(_) => Lookup::NoAnswer(NO_ANSWER),
    }
}

pub(crate) fn no_exchange(exchanges: &str) -> String {
    format!("no such exchange: {exchanges}; declare it and bind queues to it")
}

/// The id, or its SHA-256 when the id is too long for the protocol.
fn message_id(id: &str) -> ShortString {
    let digest = |_| ShortString::from(hex::encode(Sha256::digest(id)));
    ShortString::try_new(id).unwrap_or_else(digest)
}

/// The type, cut to the protocol's length limit.
fn cut(kind: &str) -> ShortString {
    ShortString::from(&kind[..kind.floor_char_boundary(SHORT_STRING_MAX)])
}

/// How many messages may await their confirm.
const IN_FLIGHT: usize = 128;
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);
const NO_ANSWER: &str = "RabbitMQ does not answer whether the exchange is there";
/// The longest AMQP short string, in bytes.
const SHORT_STRING_MAX: usize = 255;
const TOO_LONG: &str = "the name of the exchange is over 255 bytes long";
const PERSISTENT: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_id_is_hashed_and_a_long_type_is_cut() {
        let long = "unmapped.".repeat(100);
        assert_eq!(message_id("ä-1").as_str(), "ä-1");
        assert_eq!(message_id(&long).as_str().len(), 64);
        assert_eq!(cut(&long).as_str().len(), SHORT_STRING_MAX);
    }
}
