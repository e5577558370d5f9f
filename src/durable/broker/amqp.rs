//! RabbitMQ, by AMQP 0-9-1: publish to an exchange, await the publisher confirm.
//!
//! Keeps true: `Ok` is the confirm of a message that went to a queue at least; each channel carries one message at a time, so a
//! confirm, a return or an error of a channel is that message's and no other's; nothing is sent while the connection is known
//! to be away, or while the broker has blocked publishers.
//!
//! One connection, kept up by `link`, with as many channels as there are messages in flight, up to a bound.

mod link;
mod routed;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lapin::options::{BasicPublishOptions, ExchangeDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, ErrorKind};
use sha2::{Digest, Sha256};
use tokio::sync::{Semaphore, watch};
use tokio::time::{timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::health::{BrokerHealth, Lookup};
use super::{Message, OpenError, Options, PublishError, Watch};
use crate::config::queue_name::QueueName;

use link::{Keeper, Link};
pub(crate) use link::{connect, read};
use routed::Routed;

/// The connection.
pub struct Amqp {
    exchange: QueueName,
    /// None while there is no connection.
    link: watch::Receiver<Option<Arc<Link>>>,
    places: Semaphore,
    standing: Arc<BrokerHealth>,
    routed: Arc<Routed>,
    keepers: TaskTracker,
    stop: DropGuard,
}

impl Amqp {
    /// Starts to connect, and returns at once: whether the broker is there shows in readiness.
    ///
    /// # Errors
    /// When the URL or the name is unusable.
    pub async fn open(options: Options, watch: Watch) -> Result<Amqp, OpenError> {
        let uris = read(&options.url).map_err(|why| OpenError::Url(why.to_owned()))?;
        let fixed = options.name.fixed();
        if fixed.is_some_and(|name| name.len() > SHORT) {
            return Err(OpenError::Name(TOO_LONG.to_owned()));
        }
        let standing = Arc::new(BrokerHealth::new(watch, fixed.is_some(), options.names));
        let routed = Arc::<Routed>::default();
        let (told, link) = watch::channel(None);
        let (keepers, stop) = (TaskTracker::new(), CancellationToken::new());
        let keeper = Keeper { uris, standing: standing.clone(), routed: routed.clone(), link: told };
        keepers.spawn(keeper.run(stop.clone()));
        let search = search(link.clone(), standing.clone());
        keepers.spawn(stop.clone().run_until_cancelled_owned(search));
        let places = Semaphore::new(IN_FLIGHT);
        Ok(Amqp { exchange: options.name, link, places, standing, routed, keepers, stop: stop.drop_guard() })
    }

    pub(super) async fn publish(&self, message: Message<'_>, deadline: Instant) -> Result<(), PublishError> {
        self.standing.watch(self.send(message, deadline)).await
    }

    async fn send(&self, message: Message<'_>, deadline: Instant) -> Result<(), PublishError> {
        let link = self.link.borrow().clone().ok_or(PublishError::Unreachable)?;
        if let Some(reason) = self.standing.why_blocked() {
            return Err(PublishError::Refused(reason));
        }
        let name = self.exchange.fill(message.names);
        let exchange =
            ShortString::try_new(&*name).map_err(|_| PublishError::Unacceptable(TOO_LONG.to_owned()))?;
        let Ok(place) = timeout_at(deadline.into(), self.places.acquire()).await else {
            return Err(PublishError::Refused("too many messages await its confirm".to_owned()));
        };
        // Until it has a channel, nothing is sent.
        let Ok(Ok(channel)) = timeout_at(deadline.into(), link.channel()).await else {
            return Err(PublishError::Unreachable);
        };
        let confirmed = timeout_at(deadline.into(), send(&channel, exchange, message)).await;
        drop(place);
        let confirmation = match confirmed {
            Ok(Ok(confirmation)) => confirmation,
            Ok(Err(error)) => return Err(self.explain(&error, &name)),
            // The channel still owes an answer: it is not used again.
            Err(_) => return Err(PublishError::Unknown),
        };
        link.give_back(channel);
        self.conclude(confirmation, &name, &message.event.kind)
    }

    /// What an answer says of the message, and of those to come.
    fn conclude(&self, confirmation: Confirmation, exchange: &str, key: &str) -> Result<(), PublishError> {
        match confirmation {
            Confirmation::Ack(None) => {
                self.standing.found();
                self.routed.took(exchange, key);
                Ok(())
            }
            Confirmation::Ack(Some(returned)) => {
                let why = format!(
                    "no queue is bound to the exchange {exchange} for the routing key {key}; bind one (RabbitMQ says {})",
                    returned.reply_text
                );
                if self.routed.returned(exchange, key) {
                    self.standing.refused(why.clone());
                }
                Err(PublishError::Unroutable(why))
            }
            // Of several queues some may have it: all that is said is that not all do.
            Confirmation::Nack(_) => {
                let why = format!(
                    "a queue bound to the exchange {exchange} did not take it (basic.nack): it is full, or fails"
                );
                self.standing.refused_there(why.clone(), true);
                Err(PublishError::Unvouched(why))
            }
            Confirmation::NotRequested => Err(PublishError::Unknown),
        }
    }

    /// What an error on a message's own channel says of the message: the broker closed the channel over it, or the
    /// connection ended.
    fn explain(&self, error: &lapin::Error, exchange: &str) -> PublishError {
        match soft(error) {
            Some(AMQPSoftError::PRECONDITIONFAILED) => PublishError::Unacceptable(error.to_string()),
            Some(AMQPSoftError::NOTFOUND) => self.standing.nowhere(no_exchange(exchange)),
            Some(AMQPSoftError::ACCESSREFUSED) => self.standing.nowhere(format!(
                "its user may not publish to the exchange {exchange}: grant it the right to write there ({error})"
            )),
            Some(_) => PublishError::Refused(error.to_string()),
            None => PublishError::Unknown,
        }
    }

    pub(super) fn set_names(&self, names: &BTreeSet<String>) {
        self.standing.set_names(names.iter().cloned());
    }

    pub(super) async fn close(self) {
        drop(self.stop);
        self.keepers.close();
        self.keepers.wait().await;
        self.standing.lost();
    }
}

/// Publishes on a channel that nobody else uses meanwhile, and awaits the confirm.
async fn send(channel: &Channel, exchange: ShortString, of: Message<'_>) -> lapin::Result<Confirmation> {
    let properties = BasicProperties::default()
        .with_message_id(message_id(of.id))
        .with_content_type("application/cloudevents+json".into())
        .with_type(cut(&of.event.kind))
        .with_app_id("hookgate".into())
        .with_delivery_mode(PERSISTENT);
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let body = of.event.json.as_bytes();
    channel.basic_publish(exchange, cut(&of.event.kind), options, body, properties).await?.await
}

/// An error of one channel.
pub(crate) fn soft(error: &lapin::Error) -> Option<&AMQPSoftError> {
    match error.kind() {
        ErrorKind::ProtocolError(said) => match said.kind() {
            AMQPErrorKind::Soft(soft) => Some(soft),
            AMQPErrorKind::Hard(_) => None,
        },
        _ => None,
    }
}

/// Looks for the exchanges.
async fn search(links: watch::Receiver<Option<Arc<Link>>>, standing: Arc<BrokerHealth>) {
    let links = &links;
    standing.keep_looking(|exchange| async move { is_there(links, &exchange).await }).await;
}

async fn is_there(links: &watch::Receiver<Option<Arc<Link>>>, exchange: &str) -> Lookup {
    let link = links.borrow().clone();
    let Ok(name) = ShortString::try_new(exchange) else { return Lookup::Absent(TOO_LONG.to_owned()) };
    let Some(link) = link else { return Lookup::NoAnswer(NO_ANSWER) };
    // A passive declaration that fails closes its channel.
    let declared = timeout(LOOK_TIMEOUT, async {
        let channel = link.channel().await?;
        let passive = ExchangeDeclareOptions { passive: true, ..Default::default() };
        let kind = lapin::ExchangeKind::Topic;
        channel.exchange_declare(name, kind, passive, Default::default()).await?;
        lapin::Result::Ok(channel)
    });
    match declared.await {
        Ok(Ok(channel)) => {
            link.give_back(channel);
            Lookup::There
        }
        Ok(Err(why)) => match soft(&why) {
            Some(AMQPSoftError::NOTFOUND) => Lookup::Absent(no_exchange(exchange)),
            Some(AMQPSoftError::ACCESSREFUSED) => Lookup::Hidden,
            Some(_) | None => Lookup::NoAnswer(NO_ANSWER),
        },
        Err(_) => Lookup::NoAnswer(NO_ANSWER),
    }
}

pub(crate) fn no_exchange(exchanges: &str) -> String {
    format!("no such exchange: {exchanges}; declare it and bind queues to it")
}

/// The id, or its digest where it is too long for the protocol.
fn message_id(id: &str) -> ShortString {
    let digest = |_| ShortString::from(hex::encode(Sha256::digest(id)));
    ShortString::try_new(id).unwrap_or_else(digest)
}

/// A type, as much of it as the protocol takes.
fn cut(kind: &str) -> ShortString {
    ShortString::from(&kind[..kind.floor_char_boundary(SHORT)])
}

/// Messages that may await their confirm, each with a channel of its own.
const IN_FLIGHT: usize = 128;
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);
const NO_ANSWER: &str = "RabbitMQ does not answer whether the exchange is there";
/// Bytes in a short string.
const SHORT: usize = 255;
const TOO_LONG: &str = "the name of the exchange is over 255 bytes long";
const PERSISTENT: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_for_the_protocol_is_made_to_fit() {
        let long = "unmapped.".repeat(100);
        assert_eq!(message_id("ä-1").as_str(), "ä-1");
        assert_eq!(message_id(&long).as_str().len(), 64);
        assert_eq!(cut(&long).as_str().len(), SHORT);
    }
}
