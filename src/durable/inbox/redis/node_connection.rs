//! The connection to one Redis server, and the breaker before it.
//!
//! Keeps true: a dead Redis is known within a second, and from then on nothing waits for it; what was sent and not answered
//! by then is told as such at once. It comes back by itself, and counts as up only once it would take a write.

use std::ops::RangeInclusive;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::base::clock;

use super::health::{RedisHealth, Takes};
use super::probe::{OUT_OF_MEMORY, Probe};
use super::servers::{self, Address, Kind, Patience, Server, Servers};
use super::topology::{Master, slot};
use super::write_probe::{self, WriteProbe};

/// The way to one server, shared by all that call it.
pub(in crate::durable::inbox) struct NodeConnection {
    servers: Arc<Servers>,
    server: Server,
    /// That it has: the streams in them are those that are asked about here.
    slots: RwLock<Vec<RangeInclusive<u16>>>,
    /// For the log; never the URL, which may hold a password.
    name: String,
    session: watch::Sender<Option<Arc<Session>>>,
    loads: Arc<Pipeline>,
    board: Arc<RedisHealth>,
    /// Its number on the board.
    number: u64,
    /// What is asked to know whether a write would be taken.
    probe: Probe,
}

/// One stretch of being up.
struct Session {
    connection: MultiplexedConnection,
    /// The server that it leads to.
    to: Option<Address>,
    over: CancellationToken,
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::durable::inbox) enum Fault {
    /// Redis is known to be away; nothing was sent.
    Unreachable,
    /// Sent, and no answer.
    Unknown,
    /// Sent, and instead of an answer the connection broke, with these words.
    Unclear(String),
}

impl NodeConnection {
    /// A link that is down until [`NodeConnection::keep`] runs.
    pub(super) fn new(
        servers: Arc<Servers>,
        master: &Master,
        loads: Arc<Pipeline>,
        board: Arc<RedisHealth>,
        probe: Probe,
    ) -> NodeConnection {
        let (server, slots) = (master.server.clone(), RwLock::new(master.slots.clone()));
        let (name, number) = (servers.name(&server), board.enter());
        let (session, _) = watch::channel(None);
        NodeConnection { servers, server, slots, name, session, loads, board, number, probe }
    }

    /// From now on the server has these slots.
    pub(super) fn set_slots(&self, slots: &[RangeInclusive<u16>]) {
        let mut present = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *present, slots.to_vec());
        if before != slots {
            self.board.forget(|stream| has(&before, stream) && !has(slots, stream));
        }
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
                let text = why.to_string();
                self.end(&session, &text);
                if why.is_timeout() { Fault::Unknown } else { Fault::Unclear(text) }
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
    pub(super) async fn keep(self: Arc<NodeConnection>, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.hold() => {}
        }
        self.let_go();
        self.board.leave(self.number);
    }

    /// Ends the present session of a link that is given up. That is no outage.
    fn let_go(&self) {
        let session = self.session.send_replace(None);
        if let Some(session) = session {
            self.forget_streams();
            session.over.cancel();
        }
    }

    async fn hold(&self) {
        let mut pause = PAUSE_MIN;
        let mut told = false;
        loop {
            match self.connect().await {
                Ok((session, probe, found)) => {
                    tracing::info!(redis = %self.name, "redis is up");
                    self.session.send_replace(Some(session.clone()));
                    tokio::select! {
                        () = self.watch(&session, probe, found) => {}
                        other = self.another_master(&session) => {
                            self.end(&session, &format!("the Sentinels name another master, {other}"));
                        }
                    }
                    (pause, told) = (PAUSE_MIN, true);
                }
                Err(why) if !told => {
                    let why = self.servers.advise(&self.server, why).await;
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
        let (to, over) = (servers::leads_to(&client), CancellationToken::new());
        Ok((Arc::new(Session { connection, to, over }), probe, found))
    }

    /// Returns once the Sentinels name another server, which agrees that it is the master. The present one may not know that it
    /// has been replaced, and what it takes from now on would be lost.
    async fn another_master(&self, session: &Session) -> Address {
        if self.server != Server::Master || !matches!(self.servers.kind(), Kind::Sentinel(_)) {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(SENTINELS_EVERY).await;
            // One that cannot be asked, or names nothing that agrees, says nothing of the present one.
            let named = self.servers.find(&self.server, PATIENCE).await;
            if let Some(named) = named.ok().as_ref().and_then(servers::leads_to)
                && session.to.as_ref() != Some(&named)
            {
                return named;
            }
        }
    }

    /// Returns when the session is over. `found` is what the probe was told last: why no writes are taken, if so.
    async fn watch(
        &self,
        session: &Arc<Session>,
        mut probe: MultiplexedConnection,
        mut found: Option<String>,
    ) {
        let (mut told, mut turn) = (None, 0);
        loop {
            // A server that takes nothing need not be asked about each stream.
            if found.is_none()
                && let Err(why) = self.ask_streams(session, &mut probe, turn).await
            {
                return self.end(session, &why);
            }
            turn = turn.wrapping_add(1);
            if let Some(why) = &found
                && told != found
            {
                tracing::warn!(redis = %self.name, %why, "redis takes no writes");
            } else if found.is_none() && told.is_some() {
                tracing::info!(redis = %self.name, "redis takes writes again");
            }
            self.tell(session, || {
                if found.is_some() {
                    self.forget_streams();
                }
                self.board.set(
                    self.number,
                    match found.as_deref() {
                        None => Takes::Writes,
                        Some(OUT_OF_MEMORY) => Takes::NoMore,
                        Some(_) => Takes::Nothing,
                    },
                );
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
        }
    }

    /// Asks about some of the streams that the server has; one without an answer stands as it stood.
    async fn ask_streams(
        &self,
        session: &Arc<Session>,
        probe: &mut MultiplexedConnection,
        turn: usize,
    ) -> Result<(), String> {
        let streams = {
            let slots = self.slots();
            self.board.streams(|stream| has(&slots, stream), turn)
        };
        let Some(backlog) = self.board.backlog().filter(|_| !streams.is_empty()) else { return Ok(()) };
        let doors = match tokio::time::timeout(WITHIN, write_probe::ask(probe, &streams, backlog)).await {
            Err(_) => return Err(format!("no answer about its streams within {} ms", WITHIN.as_millis())),
            Ok(doors) => doors.map_err(|why| why.to_string())?,
        };
        self.tell(session, || {
            // Some may have got another server meanwhile.
            let slots = self.slots();
            for (stream, door) in streams.iter().zip(doors).filter(|(stream, _)| has(&slots, stream)) {
                match door {
                    Some(WriteProbe::Writable) => self.board.takes_events(stream),
                    Some(WriteProbe::Full(holders)) => self.board.is_full(stream, &holders),
                    Some(WriteProbe::Rejected(why)) => self.board.refuses(stream, &why),
                    None => {}
                }
            }
        });
        Ok(())
    }

    /// Tells the board something of a session, under the lock: never after `end` has told the opposite.
    fn tell(&self, session: &Arc<Session>, tell: impl FnOnce()) {
        self.session.send_if_modified(|present| {
            if present.as_ref().is_some_and(|present| Arc::ptr_eq(present, session)) {
                tell();
            }
            false
        });
    }

    /// No events are taken here.
    fn forget_streams(&self) {
        let slots = self.slots();
        self.board.forget(|stream| has(&slots, stream));
    }

    fn slots(&self) -> RwLockReadGuard<'_, Vec<RangeInclusive<u16>>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, session: &Arc<Session>, why: &str) {
        let ended = self.session.send_if_modified(|present| {
            // A late failure of an earlier session says nothing of the present one.
            let same = present.as_ref().is_some_and(|present| Arc::ptr_eq(present, session));
            if same {
                *present = None;
                self.forget_streams();
                self.board.set(self.number, Takes::Nothing);
            }
            same
        });
        if ended {
            tracing::warn!(redis = %self.name, %why, "redis is down");
        }
        session.over.cancel();
    }
}

fn has(slots: &[RangeInclusive<u16>], stream: &str) -> bool {
    let slot = slot(stream);
    slots.iter().any(|range| range.contains(&slot))
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
/// For what is asked about streams.
const WITHIN: Duration = Duration::from_millis(500);
/// What a replaced master takes in the meantime is lost when it finds out.
const SENTINELS_EVERY: Duration = Duration::from_secs(1);
const PROBE_EVERY: Duration = Duration::from_millis(250);
const PAUSE_MIN: Duration = Duration::from_millis(25);
const PAUSE_MAX: Duration = Duration::from_millis(500);
