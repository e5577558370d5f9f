//! The connection to RabbitMQ: made, watched, and made again for ever.
//!
//! Keeps true: no error text repeats a part of a URL; other parts get a link only while its connection is open; a broker that hangs
//! counts as away after two missed heartbeats; a channel is idle, or in one publish's hands.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::ConfirmSelectOptions;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind, Event};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::health::BrokerHealth;
use super::super::url::{self, IN_A_LOGIN};
use super::routed::Routed;
use crate::base::clock;
use crate::config::secret::Secret;

/// A connection, and the channels on it that nobody uses.
pub(super) struct Link {
    connection: Connection,
    idle: Mutex<Vec<Channel>>,
}

impl Link {
    /// A channel to be used by the caller alone, with confirms on.
    pub(super) async fn channel(&self) -> lapin::Result<Channel> {
        while let Some(channel) = self.idle().pop() {
            if channel.status().connected() {
                return Ok(channel);
            }
        }
        let channel = self.connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    }

    /// Takes back a channel that owes no answer.
    pub(super) fn give_back(&self, channel: Channel) {
        self.idle().push(channel);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Channel>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a link up.
pub(super) struct Keeper {
    pub(super) uris: Vec<AMQPUri>,
    pub(super) standing: Arc<BrokerHealth>,
    pub(super) routed: Arc<Routed>,
    pub(super) link: watch::Sender<Option<Arc<Link>>>,
}

impl Keeper {
    /// Connects, and connects again whenever that fails or ends, until stopped.
    pub(super) async fn run(self, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.keep()).await;
        if let Some(link) = self.link.send_replace(None) {
            let _ = timeout(CLOSE_TIMEOUT, link.connection.close(200, "OK".into())).await;
        }
    }

    async fn keep(&self) {
        let (mut delay, mut patience) = (RECONNECT_FIRST, PATIENCE_FIRST);
        for uri in self.uris.iter().cycle() {
            match connect(uri, "hookgate", patience).await {
                Ok(connection) => {
                    self.serve(connection).await;
                    (delay, patience) = (RECONNECT_FIRST, PATIENCE_FIRST);
                }
                Err(Unconnected { why, timed_out }) => {
                    self.standing.unconnected(format!("RabbitMQ {why}"));
                    if timed_out {
                        patience = (patience * 2).min(PATIENCE_MAX);
                    }
                }
            }
            let [chance] = clock::random::<1>();
            tokio::time::sleep(delay.mul_f64(1.0 - f64::from(chance) / 512.0)).await;
            delay = (delay * 2).min(RECONNECT_MAX);
        }
    }

    /// Tells of a connection for as long as it lasts.
    async fn serve(&self, connection: Connection) {
        let mut events = pin!(connection.events_listener());
        let link = Arc::new(Link { connection, idle: Mutex::default() });
        self.link.send_replace(Some(link.clone()));
        self.routed.forget();
        self.standing.connected();
        while link.connection.status().connected() {
            match events.next().await {
                Some(Event::ConnectionBlocked(reason)) => {
                    self.standing.blocked(Some(format!("it has blocked publishers: {reason}")));
                }
                Some(Event::ConnectionUnblocked) => self.standing.blocked(None),
                Some(_) => {}
                None => break,
            }
        }
        self.link.send_replace(None);
        self.standing.lost();
    }
}

/// Why there is no connection.
pub(crate) struct Unconnected {
    /// In words, with what to look at.
    pub(crate) why: String,
    /// Nothing was said within the time.
    timed_out: bool,
}

/// Connects to one server.
pub(crate) async fn connect(
    uri: &AMQPUri,
    name: &str,
    patience: Duration,
) -> Result<Connection, Unconnected> {
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    match timeout(patience, Connection::connect_uri(uri.clone(), properties)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(Unconnected { why: explain(&error, uri), timed_out: false }),
        Err(_) => Err(Unconnected {
            why: format!(
                "cannot be reached: nothing answers as RabbitMQ does within {} s; check host, port and scheme (amqp, or amqps for \
                 TLS) in queue.url",
                patience.as_secs()
            ),
            timed_out: true,
        }),
    }
}

fn explain(error: &lapin::Error, uri: &AMQPUri) -> String {
    let tls = uri.scheme == AMQPScheme::AMQPS;
    match error.kind() {
        ErrorKind::ProtocolError(said) => match said.kind() {
            AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => {
                format!("refuses the login: check user and password in queue.url; {IN_A_LOGIN}")
            }
            AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => {
                "refuses the virtual host: check the end of queue.url, where / alone is written %2F, and the user's rights on it"
                    .to_owned()
            }
            AMQPErrorKind::Soft(_) | AMQPErrorKind::Hard(_) => {
                format!("refuses the connection: {}", said.get_message())
            }
        },
        ErrorKind::ParsingError(_) | ErrorKind::InvalidProtocolVersion(_) => {
            "cannot be reached: what answers at the host and port in queue.url speaks no AMQP 0-9-1; for TLS the scheme is amqps"
                .to_owned()
        }
        _ => url::failed(error, tls, "amqp", "amqps"),
    }
}

/// Reads one or several URLs, separated by commas. The error does not repeat them.
pub(crate) fn read(url: &Secret) -> Result<Vec<AMQPUri>, &'static str> {
    url::check(url)?;
    let uris = url.expose().split(',').map(|one| {
        let mut uri: AMQPUri = one.trim().parse().map_err(|_| MALFORMED)?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
        Ok(uri)
    });
    uris.collect()
}

const MALFORMED: &str = "it is not of the form amqp://[user:password@]host[:port][/vhost], or several of these with commas between them";
/// Unless the URL says otherwise. The broker is taken for dead after twice this time without a sign of life.
const HEARTBEAT_SECONDS: u16 = 2;
/// How long connecting may take. An attempt that is given up holds a thread and a socket for as long as the broker accepts and
/// says nothing, so the longer that lasts, the rarer they get.
const PATIENCE_FIRST: Duration = Duration::from_secs(3);
const PATIENCE_MAX: Duration = Duration::from_secs(15);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
const RECONNECT_FIRST: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(1);
