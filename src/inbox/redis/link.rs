//! The connection to one Redis server, and the breaker before it.
//!
//! Keeps true: a dead Redis is known within a second, and from then on nothing waits for it; what was sent and not answered
//! by then is told as such at once. It comes back by itself, and counts as up only once it would take a write.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock;

use super::board::Board;
use super::probe::Probe;
use super::servers::{self, Patience, Server, Servers};

/// The way to one server, shared by all that call it.
pub(in crate::inbox) struct Link {
    servers: Arc<Servers>,
    server: Server,
    /// For the log; never the URL, which may hold a password.
    name: String,
    session: watch::Sender<Option<Arc<Session>>>,
    loads: Arc<Pipeline>,
    board: Arc<Board>,
    /// Its number on the board.
    number: u64,
    /// What is asked to know whether a write would be taken.
    probe: Probe,
}

/// One stretch of being up.
struct Session {
    connection: MultiplexedConnection,
    over: CancellationToken,
}

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::inbox) enum Fault {
    /// Redis is known to be away; nothing was sent.
    Unreachable,
    /// Sent, and no answer.
    Unknown,
}

impl Link {
    /// A link that is down until [`Link::keep`] runs.
    pub(super) fn new(
        servers: Arc<Servers>,
        server: Server,
        loads: Arc<Pipeline>,
        board: Arc<Board>,
        probe: Probe,
    ) -> Link {
        let (name, number) = (servers.name(&server), board.enter());
        let (session, _) = watch::channel(None);
        Link { servers, server, name, session, loads, board, number, probe }
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
        self.board.leave(self.number);
    }

    async fn hold(&self) {
        let mut pause = PAUSE_MIN;
        let mut told = false;
        loop {
            match self.connect().await {
                Ok((session, probe, found)) => {
                    tracing::info!(redis = %self.name, "redis is up");
                    self.session.send_replace(Some(session.clone()));
                    self.watch(&session, probe, found).await;
                    (pause, told) = (PAUSE_MIN, true);
                }
                Err(why) if !told => {
                    tracing::warn!(redis = %self.name, %why, "redis cannot be reached; trying on");
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

    /// Two connections to the same server, so that a probe never stands behind a batch.
    async fn connect(&self) -> Result<(Arc<Session>, MultiplexedConnection, Option<String>), String> {
        let client = self.servers.find(&self.server, PATIENCE).await?;
        let within = |why: redis::RedisError| why.to_string();
        let mut probe = servers::connect(&client, PATIENCE).await.map_err(within)?;
        let found = self.probe.ask(&mut probe).await?;
        let mut connection = servers::connect(&client, PATIENCE).await.map_err(within)?;
        if !self.loads.is_empty() {
            self.loads.exec_async(&mut connection).await.map_err(within)?;
        }
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
                tracing::warn!(redis = %self.name, %why, "redis takes no writes");
            }
            // Under the lock, so that it never comes after `end` has told the opposite.
            self.session.send_if_modified(|present| {
                if present.as_ref().is_some_and(|present| Arc::ptr_eq(present, session)) {
                    self.board.set(self.number, found.is_none());
                }
                false
            });
            told = found;
            tokio::select! {
                () = session.over.cancelled() => return,
                () = tokio::time::sleep(PROBE_EVERY) => {}
            }
            found = match self.probe.ask(&mut probe).await {
                Err(why) => return self.end(session, &why),
                Ok(found) => found,
            };
            self.look_for_room(&mut probe).await;
        }
    }

    /// Looks at every full stream. What cannot be looked at stays full, and so does what another master has.
    async fn look_for_room(&self, probe: &mut MultiplexedConnection) {
        for stream in self.board.full_streams() {
            if let Ok(length) = redis::cmd("XLEN").arg(&stream).query_async::<u64>(probe).await {
                self.board.has_length(&stream, length);
            }
        }
    }

    fn end(&self, session: &Arc<Session>, why: &str) {
        let ended = self.session.send_if_modified(|present| {
            // A late failure of an earlier session says nothing of the present one.
            let same = present.as_ref().is_some_and(|present| Arc::ptr_eq(present, session));
            if same {
                *present = None;
                self.board.set(self.number, false);
            }
            same
        });
        if ended {
            tracing::warn!(redis = %self.name, %why, "redis is down");
        }
        session.over.cancel();
    }
}

/// Whether an error's code says that this server does not serve now, whatever is asked of it.
pub(super) fn is_down(code: &str) -> bool {
    matches!(code, "LOADING" | "READONLY" | "MASTERDOWN" | "CLUSTERDOWN" | "BUSY" | "NOAUTH")
}

/// Whether an error's code says that another server has the key, or is about to.
pub(super) fn is_astray(code: &str) -> bool {
    matches!(code, "MOVED" | "ASK" | "TRYAGAIN")
}

/// A server serves one command at a time, so that a call slower than this is a stall that the probe sees too.
pub(super) const PATIENCE: Patience =
    Patience { connect: Duration::from_millis(500), response: Duration::from_millis(1000) };
const PROBE_EVERY: Duration = Duration::from_millis(250);
const PAUSE_MIN: Duration = Duration::from_millis(25);
const PAUSE_MAX: Duration = Duration::from_millis(500);
