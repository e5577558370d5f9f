//! Connects to every master for the checks of `live`.
//!
//! Keeps true: nothing else uses these connections, and their timeouts are longer than the gateway's.

use std::time::Duration;

use redis::RedisResult;
use redis::aio::MultiplexedConnection;

use super::probe::Probe;
use super::replicas::Replicas;
use super::servers::{self, Server, Servers, Timeouts};
use super::topology::Topology;

/// A master. Without a cluster there is one.
pub struct Inspected {
    /// The server's name in texts.
    pub name: String,
    /// An unused key that belongs to this master.
    pub key: String,
    /// The connection, or why it failed.
    pub connection: Result<MultiplexedConnection, String>,
}

/// Connects to every master.
///
/// # Errors
/// When no node answers with the topology.
pub async fn masters(servers: &Servers) -> Result<Vec<Inspected>, String> {
    let mut failed = "no server is configured".to_owned();
    for node in servers.configured() {
        match Topology::look(servers, node, TIMEOUTS).await {
            Ok(topology) => {
                let mut masters = Vec::new();
                for master in topology.masters {
                    let connection = match servers.find(&master.server, TIMEOUTS).await {
                        Ok(client) => {
                            servers::connect(&client, TIMEOUTS).await.map_err(|why| why.to_string())
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

/// Why a server accepts no writes from any user now, in its own words; none if it does. In a cluster, `key` must belong
/// to the server. Asking changes nothing.
///
/// # Errors
/// When the server is down or silent.
pub async fn refusal(
    connection: &mut MultiplexedConnection,
    key: Option<&str>,
) -> RedisResult<Option<String>> {
    Probe::new(key, Replicas(0), None).refusal(connection).await
}

const TIMEOUTS: Timeouts = Timeouts { connect: Duration::from_secs(2), response: Duration::from_secs(5) };
