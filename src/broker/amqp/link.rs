//! The connection to RabbitMQ: made, watched, and made again for ever.
//!
//! Keeps true: a link is told of only while its connection is open; a broker that hangs is known to be away after two missed
//! heartbeats; a channel is idle, or in one publish's hands.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::ConfirmSelectOptions;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, Event};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::super::standing::Standing;
use crate::clock;
use crate::secret::Secret;

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
    pub(super) standing: Arc<Standing>,
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
            let name = ConnectionProperties::default().with_connection_name("hookgate".into());
            match timeout(patience, Connection::connect_uri(uri.clone(), name)).await {
                Ok(Ok(connection)) => {
                    self.serve(connection).await;
                    (delay, patience) = (RECONNECT_FIRST, PATIENCE_FIRST);
                }
                Ok(Err(error)) => tracing::debug!(%error, "RabbitMQ cannot be reached"),
                Err(_) => {
                    tracing::debug!("RabbitMQ cannot be reached in time");
                    patience = (patience * 2).min(PATIENCE_MAX);
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

/// Reads one or several URLs, separated by commas. The error does not repeat them.
pub(crate) fn read(url: &Secret) -> Result<Vec<AMQPUri>, &'static str> {
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
