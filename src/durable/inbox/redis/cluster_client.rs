//! The ways to Redis: one, and in a cluster one to each master.
//!
//! Keeps true: a master that is away stops nobody but those whose keys it has; when a replica has taken its place, or slots
//! have moved, that is found out by itself. A view of the cluster that is older than the present one is not believed.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use redis::{Pipeline, Value};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::claims::Claims;
use super::health::RedisHealth;
use super::node_connection::{self, Fault, NodeConnection};
use super::probe::Probe;
use super::replicas::Replicas;
use super::servers::{Address, Kind, Server, Servers};
use super::topology::{Master, Topology, slot};

/// The ways to all that the configured servers are.
pub(in crate::durable::inbox) struct ClusterClient {
    servers: Arc<Servers>,
    /// Sent on every new connection: the scripts.
    loads: Arc<Pipeline>,
    board: Arc<RedisHealth>,
    /// A server with fewer that keep up takes no writes.
    replicas: Replicas,
    /// The queue whose claims are taken there, if any are.
    claims: Option<String>,
    routes: RwLock<Vec<NodeEntry>>,
    astray: Notify,
}

struct NodeEntry {
    master: Master,
    /// A key that this master has: asking for it also tells when the cluster is down, or the master is none any more.
    probe: Option<String>,
    link: Arc<NodeConnection>,
    _stop: DropGuard,
}

impl ClusterClient {
    /// Ways that are down until [`ClusterClient::keep`] runs.
    pub(in crate::durable::inbox) fn new(
        servers: Servers,
        loads: Pipeline,
        board: RedisHealth,
        replicas: Replicas,
        claims: Option<String>,
    ) -> ClusterClient {
        let (servers, loads, board) = (Arc::new(servers), Arc::new(loads), Arc::new(board));
        ClusterClient {
            servers,
            loads,
            board,
            replicas,
            claims,
            routes: RwLock::default(),
            astray: Notify::new(),
        }
    }

    /// Whether calls are sent at all, be it only to some of the masters.
    pub(in crate::durable::inbox) fn is_up(&self) -> bool {
        self.routes().iter().any(|route| route.link.is_up())
    }

    /// The way to the master that has a key.
    pub(super) fn of(&self, key: &str) -> Option<Arc<NodeConnection>> {
        let slot = slot(key);
        let routes = self.routes();
        routes.iter().find(|route| route.master.has(slot)).map(|route| route.link.clone())
    }

    /// Sends commands, whose keys are all of the slot of `key`, in one write and waits for all their replies; a refusal is
    /// one of the replies.
    ///
    /// # Errors
    /// When nothing was sent, or not all was answered.
    pub(in crate::durable::inbox) async fn call(
        &self,
        key: &str,
        commands: &Pipeline,
    ) -> Result<Vec<Value>, Fault> {
        let link = self.of(key).ok_or(Fault::Unreachable)?;
        let replies = link.call(commands).await?;
        for reply in &replies {
            if let Value::ServerError(why) = reply {
                self.heed(&link, why.code(), why.details().unwrap_or_default());
            }
        }
        Ok(replies)
    }

    /// Does what an error's code asks for, and says whether the server cannot serve for now, whatever is asked of it.
    pub(in crate::durable::inbox) fn heed(&self, link: &NodeConnection, code: &str, text: &str) -> bool {
        let (down, astray) = (node_connection::is_down(code), node_connection::is_astray(code));
        if down {
            link.give_up(text);
        }
        if down || astray {
            self.astray.notify_one();
        }
        down || astray
    }

    pub(in crate::durable::inbox) fn board(&self) -> &RedisHealth {
        &self.board
    }

    /// Holds all ways up until stopped.
    pub(in crate::durable::inbox) async fn keep(self: Arc<ClusterClient>, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.follow(&tasks) => {}
            () = self.board.tell_refusals() => {}
        }
        self.routes.write().unwrap_or_else(PoisonError::into_inner).clear();
        tasks.close();
        tasks.wait().await;
    }

    /// Asks one node after the other who has what: soon again while something is amiss.
    async fn follow(&self, tasks: &TaskTracker) {
        let (mut turn, mut epoch, mut failed) = (0, 0, 0);
        loop {
            let nodes = self.nodes();
            let Some(node) = nodes.get(turn % nodes.len().max(1)) else { return };
            turn += 1;
            if !self.is_up() {
                // A cluster that was made anew counts from the start.
                epoch = 0;
            }
            match Topology::look(&self.servers, node, node_connection::PATIENCE).await {
                Ok(topology) => {
                    failed = 0;
                    if topology.epoch >= epoch && !topology.masters.is_empty() {
                        epoch = topology.epoch;
                        self.set(topology, tasks);
                    }
                }
                Err(why) => {
                    failed += 1;
                    if failed == nodes.len() {
                        let why = self.servers.advise(&Server::Node(node.clone()), why).await;
                        tracing::warn!(%why, "no node of the redis cluster can be reached; trying on");
                    }
                }
            }
            if *self.servers.kind() != Kind::Cluster {
                return std::future::pending().await;
            }
            let pause = if self.board.is_all_up() { LOOK_EVERY } else { LOOK_SOON };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // Not at once: the slots may be on their way.
                () = self.astray.notified() => tokio::time::sleep(LOOK_SOON).await,
            }
        }
    }

    /// Whom to ask: those known as masters, and those configured.
    fn nodes(&self) -> Vec<Address> {
        let mut nodes = self.servers.given().to_vec();
        for route in self.routes().iter() {
            if let Server::Node(address) = &route.master.server
                && !nodes.contains(address)
            {
                nodes.push(address.clone());
            }
        }
        nodes
    }

    /// Opens the ways that are new, and closes those that lead nowhere now.
    fn set(&self, topology: Topology, tasks: &TaskTracker) {
        let whole = topology.is_whole();
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *routes);
        for master in topology.masters {
            let kept = before.iter().position(|route| {
                let probed = route.probe.as_ref().is_none_or(|key| master.has(slot(key)));
                route.master.server == master.server && probed
            });
            routes.push(match kept {
                Some(at) => {
                    let route = before.swap_remove(at);
                    route.link.set_slots(&master.slots);
                    NodeEntry { master, ..route }
                }
                None => self.route(master, tasks),
            });
        }
        drop(routes);
        self.board.set_whole(whole);
    }

    fn route(&self, master: Master, tasks: &TaskTracker) -> NodeEntry {
        let key = master.probe_key();
        let claims = self.claims.as_ref().map(|queue| Claims::new(queue, &key));
        let probe = matches!(master.server, Server::Node(_)).then_some(key);
        let (servers, loads, board) = (self.servers.clone(), self.loads.clone(), self.board.clone());
        let ask = Probe::new(probe.as_deref(), self.replicas, claims);
        let link = Arc::new(NodeConnection::new(servers, &master, loads, board, ask));
        let stop = CancellationToken::new();
        tasks.spawn(link.clone().keep(stop.clone()));
        NodeEntry { master, probe, link, _stop: stop.drop_guard() }
    }

    fn routes(&self) -> RwLockReadGuard<'_, Vec<NodeEntry>> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner)
    }
}

const LOOK_EVERY: Duration = Duration::from_secs(5);
const LOOK_SOON: Duration = Duration::from_millis(200);
