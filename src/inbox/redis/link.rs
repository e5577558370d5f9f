//! The connection to Redis, and the breaker before it.
//!
//! Keeps true: a dead Redis is known within a second, and from then on nothing waits for it; what was sent and not answered
//! by then is told as such at once. It comes back by itself, and counts as up only once it would take a write.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Pipeline, Value};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::admin::Readiness;
use crate::clock;
use crate::metrics::QueueMetrics;

use super::script::Scripts;

/// The way to Redis, shared by all that call it.
pub(super) struct Link {
    client: Client,
    /// Host and port, for the log; never the URL, which may hold a password.
    address: String,
    session: watch::Sender<Option<Arc<Session>>>,
    scripts: Arc<Scripts>,
    metrics: QueueMetrics,
    readiness: Arc<Readiness>,
}

/// One stretch of being up.
struct Session {
    connection: MultiplexedConnection,
    over: CancellationToken,
}

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Redis is known to be away; nothing was sent.
    Unreachable,
    /// Sent, and no answer.
    Unknown,
}

impl Link {
    /// A link that is down until [`Link::keep`] runs.
    pub(super) fn new(
        client: Client,
        scripts: Arc<Scripts>,
        metrics: QueueMetrics,
        readiness: Arc<Readiness>,
    ) -> Link {
        let address = client.get_connection_info().addr().to_string();
        let (session, _) = watch::channel(None);
        let link = Link { client, address, session, scripts, metrics, readiness };
        link.tell(false);
        link
    }

    /// Whether calls are sent at all.
    pub(super) fn is_up(&self) -> bool {
        self.session.borrow().is_some()
    }

    /// Sends commands in one write and waits for all their replies; a refusal is one of the replies.
    pub(super) async fn call(&self, commands: &Pipeline) -> Result<Vec<Value>, Fault> {
        let session = self.session.borrow().clone();
        let Some(session) = session else { return Err(Fault::Unreachable) };
        let mut connection = session.connection.clone();
        // An answer that is here already is worth more than the news that the session is over.
        tokio::select! {
            biased;
            replies = connection.send_packed_commands(commands, 0, commands.len()) => replies.map_err(|why| {
                self.end(&session, &why.to_string());
                Fault::Unknown
            }),
            () = session.over.cancelled() => Err(Fault::Unknown),
        }
    }

    /// Gives the present session up: Redis answered that it cannot serve.
    pub(super) fn give_up(&self, why: &str) {
        let session = self.session.borrow().clone();
        if let Some(session) = session {
            self.end(&session, why);
        }
    }

    /// Holds the link up until stopped.
    pub(super) async fn keep(self: Arc<Link>, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.hold() => {}
        }
        self.give_up("it is closed");
    }

    async fn hold(&self) {
        let mut pause = PAUSE_MIN;
        let mut told = false;
        loop {
            match self.connect().await {
                Ok((session, probe)) => {
                    tracing::info!(redis = %self.address, "redis is up");
                    self.session.send_replace(Some(session.clone()));
                    self.tell(true);
                    self.watch(&session, probe).await;
                    (pause, told) = (PAUSE_MIN, true);
                }
                Err(why) if !told => {
                    tracing::warn!(redis = %self.address, %why, "redis cannot be reached; trying on");
                    told = true;
                }
                Err(_) => {}
            }
            // Half to whole, so that the gateways of a fleet do not come back in step.
            let [chance] = clock::random::<1>();
            tokio::time::sleep(pause.mul_f64(0.5 + f64::from(chance) / 512.0)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Two connections, so that a probe never stands behind a batch.
    async fn connect(&self) -> Result<(Arc<Session>, MultiplexedConnection), String> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let open = || self.client.get_multiplexed_async_connection_with_config(&config);
        let within = |why: redis::RedisError| why.to_string();
        let mut probe = open().await.map_err(within)?;
        ask(&mut probe).await?;
        let mut connection = open().await.map_err(within)?;
        self.scripts.load(&mut connection).await.map_err(within)?;
        Ok((Arc::new(Session { connection, over: CancellationToken::new() }), probe))
    }

    /// Returns when the session is over.
    async fn watch(&self, session: &Arc<Session>, mut probe: MultiplexedConnection) {
        loop {
            tokio::select! {
                () = session.over.cancelled() => return,
                () = tokio::time::sleep(PROBE_EVERY) => {}
            }
            if let Err(why) = ask(&mut probe).await {
                self.end(session, &why);
                return;
            }
        }
    }

    fn end(&self, session: &Arc<Session>, why: &str) {
        let ended = self.session.send_if_modified(|present| {
            // A late failure of an earlier session says nothing of the present one.
            let same = present.as_ref().is_some_and(|present| Arc::ptr_eq(present, session));
            if same {
                *present = None;
            }
            same
        });
        if ended {
            self.tell(false);
            tracing::warn!(redis = %self.address, %why, "redis is down");
        }
        session.over.cancel();
    }

    fn tell(&self, up: bool) {
        self.readiness.set_queue(up);
        self.readiness.set_dedupe(up);
        self.metrics.up.set(i64::from(up));
    }
}

/// Whether an error's code says that this server does not serve now, whatever is asked of it.
pub(super) fn is_down(code: &str) -> bool {
    matches!(code, "LOADING" | "READONLY" | "MASTERDOWN" | "CLUSTERDOWN" | "BUSY" | "NOAUTH")
}

/// Asks whether a write would be taken. A PING would also be answered by a replica or past a demotion, and the link would
/// then go up and down with every batch.
async fn ask(probe: &mut MultiplexedConnection) -> Result<(), String> {
    let mut ask = redis::cmd("EVAL");
    ask.arg(WRITE_PROBE).arg(0);
    match tokio::time::timeout(PROBE_TIMEOUT, probe.send_packed_command(&ask)).await {
        Err(_) => Err(format!("no answer to a probe within {} ms", PROBE_TIMEOUT.as_millis())),
        Ok(Err(why)) if why.code().is_none_or(is_down) => Err(why.to_string()),
        Ok(Ok(Value::ServerError(why))) if is_down(why.code()) => Err(why.to_string()),
        // Out of memory and the like: an answer all the same, and each event's own refusal says it better.
        Ok(_) => Ok(()),
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// Redis serves one command at a time, so that a call slower than this is a stall that the probe sees too.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(1000);
const PROBE_EVERY: Duration = Duration::from_millis(250);
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
const PAUSE_MIN: Duration = Duration::from_millis(25);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// A script with a shebang and no flags may write, so that Redis 7 refuses it wherever a write would be refused; it does
/// nothing. An older server does not know the shebang: an error like any other, hence an answer.
const WRITE_PROBE: &str = "#!lua\nreturn 1";
