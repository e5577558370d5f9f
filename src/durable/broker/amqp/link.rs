//! Opens the connection to RabbitMQ, watches it, and reconnects forever.
//!
//! Keeps true:
//! - No error text repeats a part of a URL.
//! - A channel pool is available only while its connection is open.
//! - A hanging broker counts as down after two missed heartbeats.
//! - A channel is either idle or used by one publish.

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

/// A connection and its idle channels.
pub(super) struct ChannelPool {
    connection: Connection,
    idle: Mutex<Vec<Channel>>,
}

impl ChannelPool {
    /// Gives the caller a channel of its own, with publisher confirms on.
    pub(super) async fn acquire(&self) -> lapin::Result<Channel> {
        while let Some(channel) = self.idle().pop() {
            if channel.status().connected() {
                return Ok(channel);
            }
        }
        let channel = self.connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    }

    /// Takes back a channel on which no answer is pending.
    pub(super) fn release(&self, channel: Channel) {
        self.idle().push(channel);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Channel>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects, and reconnects whenever the connection ends.
pub(super) struct Reconnector {
    pub(super) uris: Vec<AMQPUri>,
    pub(super) health: Arc<BrokerHealth>,
    pub(super) routed: Arc<Routed>,
    pub(super) pool: watch::Sender<Option<Arc<ChannelPool>>>,
}

impl Reconnector {
    /// Runs until stopped, then closes the connection.
    pub(super) async fn run(self, stop: CancellationToken) {
        let _ = stop.run_until_cancelled(self.reconnect_forever()).await;
        if let Some(pool) = self.pool.send_replace(None) {
            let _ = timeout(CLOSE_TIMEOUT, pool.connection.close(200, "OK".into())).await;
        }
    }

    async fn reconnect_forever(&self) {
        let (mut delay, mut connect_timeout) = (RECONNECT_FIRST, CONNECT_TIMEOUT_MIN);
        for uri in self.uris.iter().cycle() {
            match connect(uri, "hookgate", connect_timeout).await {
                Ok(connection) => {
                    self.serve(connection).await;
                    (delay, connect_timeout) = (RECONNECT_FIRST, CONNECT_TIMEOUT_MIN);
                }
                Err(Unconnected { why, timed_out }) => {
                    self.health.on_connect_failed(format!("RabbitMQ {why}"));
                    if timed_out {
                        connect_timeout = (connect_timeout * 2).min(CONNECT_TIMEOUT_MAX);
                    }
                }
            }
            let [chance] = clock::random::<1>();
            tokio::time::sleep(delay.mul_f64(1.0 - f64::from(chance) / 512.0)).await;
            delay = (delay * 2).min(RECONNECT_MAX);
        }
    }

    /// Reports the connection's events to the health until the connection ends.
    async fn serve(&self, connection: Connection) {
        let mut events = pin!(connection.events_listener());
        let pool = Arc::new(ChannelPool { connection, idle: Mutex::default() });
        self.pool.send_replace(Some(pool.clone()));
        self.routed.clear();
        self.health.on_connected();
        while pool.connection.status().connected() {
            match events.next().await {
                Some(Event::ConnectionBlocked(reason)) => {
                    self.health.set_blocked(Some(format!("it has blocked publishers: {reason}")));
                }
                Some(Event::ConnectionUnblocked) => self.health.set_blocked(None),
                Some(_) => {}
                None => break,
            }
        }
        self.pool.send_replace(None);
        self.health.on_disconnected();
    }
}

/// Why a connect failed.
pub(crate) struct Unconnected {
    /// The reason, and what to check.
    pub(crate) why: String,
    /// The broker did not answer in time.
    timed_out: bool,
}

/// Connects to one server.
pub(crate) async fn connect(
    uri: &AMQPUri,
    name: &str,
    connect_timeout: Duration,
) -> Result<Connection, Unconnected> {
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    match timeout(connect_timeout, Connection::connect_uri(uri.clone(), properties)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(Unconnected { why: explain(&error, uri), timed_out: false }),
        Err(_) => Err(Unconnected {
            why: format!(
                "cannot be reached: nothing answers as RabbitMQ does within {} s; check host, port and scheme (amqp, or amqps for \
                 TLS) in queue.url",
                connect_timeout.as_secs()
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

/// Parses one or several URLs, separated by commas. The error does not repeat them.
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
/// The default when the URL sets no heartbeat. After twice this time without traffic, the broker counts as down.
const HEARTBEAT_SECONDS: u16 = 2;
/// An abandoned attempt keeps its thread and socket while the broker accepts the connection but stays silent.
/// So each timeout doubles the next one: fewer attempts pile up.
const CONNECT_TIMEOUT_MIN: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(15);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
const RECONNECT_FIRST: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(1);
