//! The connections to Redis: one, or in a cluster one to each master.
//!
//! Keeps true: a master that is down affects only its own keys. Failovers and moved slots are discovered automatically.
//! A topology older than the current one is ignored.

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

/// The connections to all masters of the configured servers.
pub(in crate::durable::inbox) struct ClusterClient {
    servers: Arc<Servers>,
    /// The commands that load the scripts, sent on every new connection.
    load_scripts: Arc<Pipeline>,
    health: Arc<RedisHealth>,
    /// A server with fewer replicas than this counts as down.
    replicas: Replicas,
    /// The queue whose claims are kept there, if any.
    claims: Option<String>,
    entries: RwLock<Vec<NodeEntry>>,
    redirected: Notify,
}

struct NodeEntry {
    master: Master,
    /// A key of this master. Probing it also shows a cluster that is down, and a master that was replaced.
    probe: Option<String>,
    node: Arc<NodeConnection>,
    _stop: DropGuard,
}

impl ClusterClient {
    /// The connections are opened by [`ClusterClient::run`].
    pub(in crate::durable::inbox) fn new(
        servers: Servers,
        load_scripts: Pipeline,
        health: RedisHealth,
        replicas: Replicas,
        claims: Option<String>,
    ) -> ClusterClient {
        let (servers, load_scripts, health) = (Arc::new(servers), Arc::new(load_scripts), Arc::new(health));
        ClusterClient {
            servers,
            load_scripts,
            health,
            replicas,
            claims,
            entries: RwLock::default(),
            redirected: Notify::new(),
        }
    }

    /// Whether at least one master is connected.
    pub(in crate::durable::inbox) fn is_up(&self) -> bool {
        self.entries().iter().any(|entry| entry.node.is_up())
    }

    /// The connection to the master that has a key.
    pub(super) fn node_of(&self, key: &str) -> Option<Arc<NodeConnection>> {
        let slot = slot(key);
        let entries = self.entries();
        entries.iter().find(|entry| entry.master.has(slot)).map(|entry| entry.node.clone())
    }

    /// Sends commands in one write and waits for all replies. All their keys share the slot of `key`. A refusal is one
    /// of the replies.
    ///
    /// # Errors
    /// When nothing was sent, or a reply is missing.
    pub(in crate::durable::inbox) async fn call(
        &self,
        key: &str,
        commands: &Pipeline,
    ) -> Result<Vec<Value>, Fault> {
        let node = self.node_of(key).ok_or(Fault::Unreachable)?;
        let replies = node.call(commands).await?;
        for reply in &replies {
            if let Value::ServerError(why) = reply {
                self.handle_redirect(&node, why.code(), why.details().unwrap_or_default());
            }
        }
        Ok(replies)
    }

    /// Reacts to an error code: disconnects a server that is down, and refreshes the topology. True if the server
    /// cannot serve the key now.
    pub(in crate::durable::inbox) fn handle_redirect(
        &self,
        node: &NodeConnection,
        code: &str,
        text: &str,
    ) -> bool {
        let (down, redirected) = (node_connection::is_down(code), node_connection::is_redirect(code));
        if down {
            node.disconnect(text);
        }
        if down || redirected {
            self.redirected.notify_one();
        }
        down || redirected
    }

    pub(in crate::durable::inbox) fn health(&self) -> &RedisHealth {
        &self.health
    }

    /// Keeps all connections up until stopped.
    pub(in crate::durable::inbox) async fn run(self: Arc<ClusterClient>, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.follow_topology(&tasks) => {}
            () = self.health.log_refusals() => {}
        }
        self.entries.write().unwrap_or_else(PoisonError::into_inner).clear();
        tasks.close();
        tasks.wait().await;
    }

    /// Asks the nodes in turn for the topology: every 5 s, or every 200 ms while something is wrong.
    async fn follow_topology(&self, tasks: &TaskTracker) {
        let (mut turn, mut epoch, mut failed) = (0, 0, 0);
        loop {
            let addresses = self.addresses();
            let Some(address) = addresses.get(turn % addresses.len().max(1)) else { return };
            turn += 1;
            if !self.is_up() {
                // A recreated cluster counts its epochs from zero.
                epoch = 0;
            }
            match Topology::look(&self.servers, address, node_connection::TIMEOUTS).await {
                Ok(topology) => {
                    failed = 0;
                    if topology.epoch >= epoch && !topology.masters.is_empty() {
                        epoch = topology.epoch;
                        self.apply(topology, tasks);
                    }
                }
                Err(why) => {
                    failed += 1;
                    if failed == addresses.len() {
                        let why = self.servers.advise(&Server::Node(address.clone()), why).await;
                        tracing::warn!(%why, "no node of the redis cluster can be reached; retrying");
                    }
                }
            }
            if *self.servers.kind() != Kind::Cluster {
                return std::future::pending().await;
            }
            let pause = if self.health.is_all_up() { LOOK_EVERY } else { LOOK_SOON };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // Waits a little, because the slots may still be moving.
                () = self.redirected.notified() => tokio::time::sleep(LOOK_SOON).await,
            }
        }
    }

    /// The addresses to ask: the configured nodes and the known masters.
    fn addresses(&self) -> Vec<Address> {
        let mut addresses = self.servers.configured().to_vec();
        for entry in self.entries().iter() {
            if let Server::Node(address) = &entry.master.server
                && !addresses.contains(address)
            {
                addresses.push(address.clone());
            }
        }
        addresses
    }

    /// Opens the new connections, and closes those to former masters.
    fn apply(&self, topology: Topology, tasks: &TaskTracker) {
        let whole = topology.is_whole();
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *entries);
        for master in topology.masters {
            let kept = before.iter().position(|entry| {
                let probed = entry.probe.as_ref().is_none_or(|key| master.has(slot(key)));
                entry.master.server == master.server && probed
            });
            entries.push(match kept {
                Some(at) => {
                    let entry = before.swap_remove(at);
                    entry.node.set_slots(&master.slots);
                    NodeEntry { master, ..entry }
                }
                None => self.open_node(master, tasks),
            });
        }
        drop(entries);
        self.health.set_whole(whole);
    }

    fn open_node(&self, master: Master, tasks: &TaskTracker) -> NodeEntry {
        let key = master.probe_key();
        let claims = self.claims.as_ref().map(|queue| Claims::new(queue, &key));
        let probe = matches!(master.server, Server::Node(_)).then_some(key);
        let (servers, load_scripts, health) =
            (self.servers.clone(), self.load_scripts.clone(), self.health.clone());
        let node_probe = Probe::new(probe.as_deref(), self.replicas, claims);
        let node = Arc::new(NodeConnection::new(servers, &master, load_scripts, health, node_probe));
        let stop = CancellationToken::new();
        tasks.spawn(node.clone().run(stop.clone()));
        NodeEntry { master, probe, node, _stop: stop.drop_guard() }
    }

    fn entries(&self) -> RwLockReadGuard<'_, Vec<NodeEntry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }
}

const LOOK_EVERY: Duration = Duration::from_secs(5);
const LOOK_SOON: Duration = Duration::from_millis(200);
