//! The connection to one Redis server, with a circuit breaker.
//!
//! Keeps true: a dead Redis is noticed within a second, and from then on every call fails at once. Calls in flight then
//! end as unknown. It reconnects by itself, and counts as up only once Redis would accept a write.

use std::ops::RangeInclusive;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::base::clock;

use super::health::{NodeState, RedisHealth};
use super::probe::{OUT_OF_MEMORY, Probe};
use super::servers::{self, Address, Kind, Server, Servers, Timeouts};
use super::topology::{Master, slot};
use super::write_probe::{self, WriteProbe};

/// The connection to one server, shared by all callers.
pub(in crate::durable::inbox) struct NodeConnection {
    servers: Arc<Servers>,
    server: Server,
    /// The server's slots. The probe asks about the streams in them.
    slots: RwLock<Vec<RangeInclusive<u16>>>,
    /// The name for the log. Never the URL, which may hold a password.
    name: String,
    session: watch::Sender<Option<Arc<Session>>>,
    load_scripts: Arc<Pipeline>,
    health: Arc<RedisHealth>,
    /// The node's number in `health`.
    number: u64,
    /// The question whether the server would accept a write.
    probe: Probe,
}

/// One period of being connected.
struct Session {
    connection: MultiplexedConnection,
    /// The server's address.
    to: Option<Address>,
    over: CancellationToken,
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::durable::inbox) enum Fault {
    /// The server is known to be down. Nothing was sent.
    Unreachable,
    /// The commands were sent, but no answer came.
    Unknown,
    /// The commands were sent, and the connection broke with this error.
    Unclear(String),
}

impl NodeConnection {
    /// The connection is down until [`NodeConnection::run`] runs.
    pub(super) fn new(
        servers: Arc<Servers>,
        master: &Master,
        load_scripts: Arc<Pipeline>,
        health: Arc<RedisHealth>,
        probe: Probe,
    ) -> NodeConnection {
        let (server, slots) = (master.server.clone(), RwLock::new(master.slots.clone()));
        let (name, number) = (servers.name(&server), health.add_node());
        let (session, _) = watch::channel(None);
        NodeConnection { servers, server, slots, name, session, load_scripts, health, number, probe }
    }

    /// Replaces the server's slots.
    pub(super) fn set_slots(&self, slots: &[RangeInclusive<u16>]) {
        let mut present = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *present, slots.to_vec());
        if before != slots {
            self.health.mark_unknown(|stream| has(&before, stream) && !has(slots, stream));
        }
    }

    /// Whether the server is connected.
    pub(super) fn is_up(&self) -> bool {
        self.session.borrow().is_some()
    }

    /// Sends commands in one write and waits for all replies. A refusal is one of the replies.
    pub(super) async fn call(&self, commands: &Pipeline) -> Result<Vec<Value>, Fault> {
        let session = self.session.borrow().clone();
        let Some(session) = session else { return Err(Fault::Unreachable) };
        let mut connection = session.connection.clone();
        // Prefers an answer that has arrived over the end of the session.
        tokio::select! {
            biased;
            replies = connection.send_packed_commands(commands, 0, commands.len()) => replies.map_err(|why| {
                let text = why.to_string();
                self.end_session(&session, &text);
                if why.is_timeout() { Fault::Unknown } else { Fault::Unclear(text) }
            }),
            () = session.over.cancelled() => Err(Fault::Unknown),
        }
    }

    /// Ends the current session, because Redis answered that it cannot serve.
    pub(super) fn disconnect(&self, why: &str) {
        let session = self.session.borrow().clone();
        if let Some(session) = session {
            self.end_session(&session, why);
        }
    }

    /// Keeps the connection up until stopped.
    pub(super) async fn run(self: Arc<NodeConnection>, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.reconnect_forever() => {}
        }
        self.close_session();
        self.health.remove_node(self.number);
    }

    /// Ends the session without logging an outage, because the node is no longer used.
    fn close_session(&self) {
        let session = self.session.send_replace(None);
        if let Some(session) = session {
            self.mark_streams_unknown();
            session.over.cancel();
        }
    }

    async fn reconnect_forever(&self) {
        let mut pause = PAUSE_MIN;
        let mut logged = false;
        loop {
            match self.connect().await {
                Ok((session, probe_connection, refusal)) => {
                    tracing::info!(redis = %self.name, "redis is up");
                    self.session.send_replace(Some(session.clone()));
                    tokio::select! {
                        () = self.probe_until_over(&session, probe_connection, refusal) => {}
                        other = self.wait_for_new_master(&session) => {
                            self.end_session(&session, &format!("the Sentinels name another master, {other}"));
                        }
                    }
                    (pause, logged) = (PAUSE_MIN, true);
                }
                Err(why) if !logged => {
                    let why = self.servers.advise(&self.server, why).await;
                    tracing::warn!(redis = %self.name, %why, "redis cannot be reached; retrying");
                    logged = true;
                }
                Err(_) => {}
            }
            // Waits between half and all of the pause, so that the gateways of a fleet do not reconnect at the same
            // time.
            let [chance] = clock::random::<1>();
            tokio::time::sleep(pause.mul_f64(0.5 + f64::from(chance) / 512.0)).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Opens two connections to the same server, so that a probe never waits behind a batch.
    async fn connect(&self) -> Result<(Arc<Session>, MultiplexedConnection, Option<String>), String> {
        let client = self.servers.find(&self.server, TIMEOUTS).await?;
        let within = |why: redis::RedisError| why.to_string();
        let mut probe_connection = servers::connect(&client, TIMEOUTS).await.map_err(within)?;
        let refusal = self.probe.ask(&mut probe_connection).await?;
        let mut connection = servers::connect(&client, TIMEOUTS).await.map_err(within)?;
        if !self.load_scripts.is_empty() {
            self.load_scripts.exec_async(&mut connection).await.map_err(within)?;
        }
        let (to, over) = (servers::address_of(&client), CancellationToken::new());
        Ok((Arc::new(Session { connection, to, over }), probe_connection, refusal))
    }

    /// Returns when the Sentinels name another server that confirms to be the master. The old master may not know that
    /// it was replaced, and its later writes would be lost.
    async fn wait_for_new_master(&self, session: &Session) -> Address {
        if self.server != Server::Master || !matches!(self.servers.kind(), Kind::Sentinel(_)) {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(ASK_SENTINELS_EVERY).await;
            // An error, or a server that does not confirm its role, leaves the current master in place.
            let named = self.servers.find(&self.server, TIMEOUTS).await;
            if let Some(named) = named.ok().as_ref().and_then(servers::address_of)
                && session.to.as_ref() != Some(&named)
            {
                return named;
            }
        }
    }

    /// Probes until the session ends. `refusal` is the last probe's result: why the server refuses writes.
    async fn probe_until_over(
        &self,
        session: &Arc<Session>,
        mut probe_connection: MultiplexedConnection,
        mut refusal: Option<String>,
    ) {
        let (mut logged, mut turn) = (None, 0);
        loop {
            // A server that refuses writes is not asked about its streams.
            if refusal.is_none()
                && let Err(why) = self.ask_streams(session, &mut probe_connection, turn).await
            {
                return self.end_session(session, &why);
            }
            turn = turn.wrapping_add(1);
            if let Some(why) = &refusal
                && logged != refusal
            {
                tracing::warn!(redis = %self.name, %why, "redis takes no writes");
            } else if refusal.is_none() && logged.is_some() {
                tracing::info!(redis = %self.name, "redis takes writes again");
            }
            self.if_current(session, || {
                if refusal.is_some() {
                    self.mark_streams_unknown();
                }
                self.health.set_node(
                    self.number,
                    match refusal.as_deref() {
                        None => NodeState::Writable,
                        Some(OUT_OF_MEMORY) => NodeState::OutOfMemory,
                        Some(_) => NodeState::Down,
                    },
                );
            });
            logged = refusal;
            tokio::select! {
                () = session.over.cancelled() => return,
                () = tokio::time::sleep(PROBE_EVERY) => {}
            }
            refusal = match self.probe.ask(&mut probe_connection).await {
                Err(why) => return self.end_session(session, &why),
                Ok(refusal) => refusal,
            };
        }
    }

    /// Probes some of the server's streams. A stream without an answer keeps its state.
    async fn ask_streams(
        &self,
        session: &Arc<Session>,
        connection: &mut MultiplexedConnection,
        turn: usize,
    ) -> Result<(), String> {
        let streams = {
            let slots = self.slots();
            self.health.due_for_probe(|stream| has(&slots, stream), turn)
        };
        let Some(backlog) = self.health.backlog().filter(|_| !streams.is_empty()) else { return Ok(()) };
        let probes = match tokio::time::timeout(
            STREAMS_TIMEOUT,
            write_probe::ask(connection, &streams, backlog),
        )
        .await
        {
            Err(_) => {
                return Err(format!("no answer about its streams within {} ms", STREAMS_TIMEOUT.as_millis()));
            }
            Ok(probes) => probes.map_err(|why| why.to_string())?,
        };
        self.if_current(session, || {
            // Some streams may have moved to another server meanwhile.
            let slots = self.slots();
            for (stream, probe) in streams.iter().zip(probes).filter(|(stream, _)| has(&slots, stream)) {
                match probe {
                    Some(WriteProbe::Writable) => self.health.set_writable(stream),
                    Some(WriteProbe::Full(holders)) => self.health.set_full(stream, &holders),
                    Some(WriteProbe::Rejected(why)) => self.health.set_rejecting(stream, &why),
                    None => {}
                }
            }
        });
        Ok(())
    }

    /// Runs `act` under the lock if the session is current, so that it cannot follow `end_session` of that session.
    fn if_current(&self, session: &Arc<Session>, act: impl FnOnce()) {
        self.session.send_if_modified(|present| {
            if present.as_ref().is_some_and(|present| Arc::ptr_eq(present, session)) {
                act();
            }
            false
        });
    }

    /// Forgets that this server's streams were writable.
    fn mark_streams_unknown(&self) {
        let slots = self.slots();
        self.health.mark_unknown(|stream| has(&slots, stream));
    }

    fn slots(&self) -> RwLockReadGuard<'_, Vec<RangeInclusive<u16>>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_session(&self, session: &Arc<Session>, why: &str) {
        let ended = self.session.send_if_modified(|present| {
            // A late failure of an earlier session must not end the current one.
            let same = present.as_ref().is_some_and(|present| Arc::ptr_eq(present, session));
            if same {
                *present = None;
                self.mark_streams_unknown();
                self.health.set_node(self.number, NodeState::Down);
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

/// Whether an error code means that this server cannot serve any command now.
pub(super) fn is_down(code: &str) -> bool {
    matches!(code, "LOADING" | "READONLY" | "MASTERDOWN" | "CLUSTERDOWN" | "BUSY" | "NOAUTH")
}

/// Whether an error code means that another server has the key, or is about to get it.
pub(super) fn is_redirect(code: &str) -> bool {
    matches!(code, "MOVED" | "ASK" | "TRYAGAIN")
}

/// A server runs one command at a time, so a call slower than this is a stall that delays the probe too.
pub(super) const TIMEOUTS: Timeouts =
    Timeouts { connect: Duration::from_millis(500), response: Duration::from_millis(1000) };
const STREAMS_TIMEOUT: Duration = Duration::from_millis(500);
/// Writes to a replaced master are lost, so this is short.
const ASK_SENTINELS_EVERY: Duration = Duration::from_secs(1);
const PROBE_EVERY: Duration = Duration::from_millis(250);
const PAUSE_MIN: Duration = Duration::from_millis(25);
const PAUSE_MAX: Duration = Duration::from_millis(500);
