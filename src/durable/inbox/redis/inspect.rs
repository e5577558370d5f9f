//! A connection to every master, to be asked about itself.
//!
//! Keeps true: these connections are used by nobody else, and wait longer than the gateway's.

use std::time::Duration;

use redis::RedisResult;
use redis::aio::MultiplexedConnection;

use super::probe::Probe;
use super::replicas::Replicas;
use super::servers::{self, Patience, Server, Servers};
use super::topology::Topology;

/// A master. One where there is no cluster.
pub struct Inspected {
    /// What it is called.
    pub name: String,
    /// A key that it has, and nobody uses.
    pub key: String,
    /// Or why there is none.
    pub connection: Result<MultiplexedConnection, String>,
}

/// Connects to every master.
///
/// # Errors
/// When no node says which masters there are.
pub async fn masters(servers: &Servers) -> Result<Vec<Inspected>, String> {
    let mut failed = "no server is configured".to_owned();
    for node in servers.given() {
        match Topology::look(servers, node, PATIENCE).await {
            Ok(topology) => {
                let mut masters = Vec::new();
                for master in topology.masters {
                    let connection = match servers.find(&master.server, PATIENCE).await {
                        Ok(client) => {
                            servers::connect(&client, PATIENCE).await.map_err(|why| why.to_string())
                        }
                        Err(why) => Err(why),
                    };
                    let connection = match connection {
                        Ok(connection) => Ok(connection),
                        Err(why) => Err(servers.advise(&master.server, why).await),
                    };
                    let (name, key) = (servers.name(&master.server), master.probe_key());
                    masters.push(Inspected { name, key, connection });
                }
                return Ok(masters);
            }
            Err(why) => failed = servers.advise(&Server::Node(node.clone()), why).await,
        }
    }
    Err(failed)
}

/// Why a server takes no writes from any user now, in its own words; none if it takes them. In a cluster it serves `key`.
/// Asking changes nothing.
///
/// # Errors
/// When the server is away or silent.
pub async fn refusal(
    connection: &mut MultiplexedConnection,
    key: Option<&str>,
) -> RedisResult<Option<String>> {
    Probe::new(key, Replicas(0), None).refusal(connection).await
}

const PATIENCE: Patience = Patience { connect: Duration::from_secs(2), response: Duration::from_secs(5) };
