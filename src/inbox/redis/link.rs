//! The connection to Redis, and the breaker before it.
//!
//! Keeps true: a dead Redis is known within a second, and from then on nothing waits for it; what was sent and not answered
//! by then is told as such at once. It comes back by itself, and counts as up only once it would take a write.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    backlog: Backlog,
}

/// Which streams are at their limit.
pub(super) struct Backlog {
    /// How many streams there are; none where the name is a template, so that nobody knows.
    pub(super) streams: Option<usize>,
    /// At this length a stream takes no more.
    pub(super) limit: u64,
    full: Mutex<BTreeSet<String>>,
}

impl Backlog {
    /// No stream is full, as far as is known.
    pub(super) fn new(streams: Option<usize>, limit: u64) -> Backlog {
        Backlog { streams, limit, full: Mutex::default() }
    }

    fn full(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.full.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no stream is left that would take an event.
    fn everywhere(&self) -> bool {
        self.streams.is_some_and(|streams| self.full().len() >= streams)
    }
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
        backlog: Backlog,
    ) -> Link {
        let address = client.get_connection_info().addr().to_string();
        let (session, _) = watch::channel(None);
        let link = Link { client, address, session, scripts, metrics, readiness, backlog };
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

    /// A stream was found full: the probes look when it takes events again.
    pub(super) fn is_full(&self, stream: &str) {
        if self.backlog.full().insert(stream.to_owned()) {
            tracing::warn!(%stream, limit = self.backlog.limit, "a stream is at max_backlog and takes no more events");
            if self.backlog.everywhere() {
                self.tell(false);
            }
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
                Ok((session, probe, found)) => {
                    tracing::info!(redis = %self.address, "redis is up");
                    self.session.send_replace(Some(session.clone()));
                    self.watch(&session, probe, found).await;
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
    async fn connect(&self) -> Result<(Arc<Session>, MultiplexedConnection, Option<String>), String> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let open = || self.client.get_multiplexed_async_connection_with_config(&config);
        let within = |why: redis::RedisError| why.to_string();
        let mut probe = open().await.map_err(within)?;
        let found = ask(&mut probe).await?;
        let mut connection = open().await.map_err(within)?;
        self.scripts.load(&mut connection).await.map_err(within)?;
        Ok((Arc::new(Session { connection, over: CancellationToken::new() }), probe, found))
    }

    /// Returns when the session is over. `found` is what the probe was told last: why no writes are taken, if so.
    async fn watch(
        &self,
        session: &Arc<Session>,
        mut probe: MultiplexedConnection,
        mut found: Option<String>,
    ) {
        let mut told = None;
        loop {
            if let Some(why) = &found
                && told != found
            {
                tracing::warn!(redis = %self.address, %why, "redis takes no writes");
            }
            // Under the lock, so that it never comes after `end` has told the opposite.
            self.session.send_if_modified(|present| {
                if present.as_ref().is_some_and(|present| Arc::ptr_eq(present, session)) {
                    self.tell(found.is_none());
                }
                false
            });
            told = found;
            tokio::select! {
                () = session.over.cancelled() => return,
                () = tokio::time::sleep(PROBE_EVERY) => {}
            }
            found = match ask(&mut probe).await {
                Err(why) => return self.end(session, &why),
                Ok(found) => found,
            };
            self.look_for_room(&mut probe).await;
        }
    }

    /// Looks at every full stream. What cannot be looked at stays full.
    async fn look_for_room(&self, probe: &mut MultiplexedConnection) {
        let full: Vec<String> = self.backlog.full().iter().cloned().collect();
        for stream in full {
            let length = redis::cmd("XLEN").arg(&stream).query_async::<u64>(probe).await;
            if length.is_ok_and(|length| length < self.backlog.limit) {
                self.backlog.full().remove(&stream);
                tracing::info!(%stream, "the stream takes events again");
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
        let takes = up && !self.backlog.everywhere();
        self.readiness.set_queue(takes);
        self.readiness.set_dedupe(up);
        self.metrics.up.set(i64::from(takes));
    }
}

/// Whether an error's code says that this server does not serve now, whatever is asked of it.
pub(super) fn is_down(code: &str) -> bool {
    matches!(code, "LOADING" | "READONLY" | "MASTERDOWN" | "CLUSTERDOWN" | "BUSY" | "NOAUTH")
}

/// Whether an error's code says that this server takes no writes now: no memory, no disk, no replicas.
fn refuses(code: &str) -> bool {
    matches!(code, "OOM" | "MISCONF" | "NOREPLICAS")
}

/// Asks whether a write would be taken: the code of the refusal if not, an error if nothing is served at all. A PING would
/// also be answered by a replica or past a demotion, and the link would then go up and down with every batch.
async fn ask(probe: &mut MultiplexedConnection) -> Result<Option<String>, String> {
    let mut ask = redis::cmd("EVAL");
    ask.arg(WRITE_PROBE).arg(0);
    match tokio::time::timeout(PROBE_TIMEOUT, probe.send_packed_command(&ask)).await {
        Err(_) => Err(format!("no answer to a probe within {} ms", PROBE_TIMEOUT.as_millis())),
        Ok(Err(why)) if why.code().is_none_or(is_down) => Err(why.to_string()),
        Ok(Ok(Value::ServerError(why))) if is_down(why.code()) => Err(why.to_string()),
        // Events are still sent: each one's own refusal says it best. But nothing is ready that takes none.
        Ok(Ok(Value::ServerError(why))) if refuses(why.code()) => Ok(Some(why.code().to_owned())),
        Ok(Err(why)) if why.code().is_some_and(refuses) => Ok(why.code().map(str::to_owned)),
        Ok(_) => Ok(None),
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
