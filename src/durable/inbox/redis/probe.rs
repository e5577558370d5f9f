//! The question whether a server would take a write now.
//!
//! Keeps true: the answer is no from a replica, a demoted master, a server without memory, disk or enough replicas, and
//! from a cluster that is down; asking changes nothing but, with `ack_replicas`, one key that goes by itself.

use std::sync::LazyLock;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisResult, Script, Value};

use super::claims::Claims;
use super::node_connection::{is_astray, is_down};
use super::replicas::Replicas;
use super::script::said;

/// The question.
pub(super) struct Probe {
    commands: Pipeline,
    replicas: Replicas,
    /// Where claims are taken: asked about them too.
    claims: Option<Claims>,
}

impl Probe {
    /// With a key that the server has, in a cluster: then a server that has it no more says so.
    pub(super) fn new(key: Option<&str>, replicas: Replicas, claims: Option<Claims>) -> Probe {
        let mut commands = redis::pipe();
        // By its hash, as events are entered.
        commands.cmd("EVALSHA").arg(SCRIPT.get_hash()).arg(usize::from(key.is_some())).arg(key);
        replicas.wait(&mut commands, key.unwrap_or(PROBE_KEY), REPLICAS_WITHIN);
        Probe { commands, replicas, claims }
    }

    /// Asks: why no writes are taken, if so; an error if nothing is served at all. A PING would also be answered by a
    /// replica or past a demotion, and the link would then go up and down with every batch.
    pub(super) async fn ask(&self, connection: &mut MultiplexedConnection) -> Result<Option<String>, String> {
        let mut replies = match tokio::time::timeout(WITHIN, self.replies(connection)).await {
            Err(_) => return Err(format!("no answer to a probe within {} ms", WITHIN.as_millis())),
            Ok(replies) => replies.map_err(|why| why.to_string())?,
        };
        match replies.first() {
            Some(Value::ServerError(why)) if is_down(why.code()) || is_astray(why.code()) => {
                return Err(said(why));
            }
            // Events are still sent: each one's own refusal says it best. But nothing is ready that takes none.
            Some(Value::ServerError(why)) if refuses(why.code()) => return Ok(Some(why.code().to_owned())),
            _ => {}
        }
        // Here none are sent: each would get in, wait in vain, and have to be told as unknown.
        if let Some(why) = replies.iter().find_map(|reply| match reply {
            Value::ServerError(why) => Some(said(why)),
            _ => None,
        }) && self.replicas.0 > 0
        {
            return Err(why);
        }
        if !self.replicas.have_it(&mut replies) {
            return Err(format!("fewer than ack_replicas = {} keep up with it", self.replicas.0));
        }
        let Some(claims) = &self.claims else { return Ok(None) };
        match tokio::time::timeout(WITHIN, claims.ask(connection)).await {
            Err(_) => Err(format!("no answer about claims within {} ms", WITHIN.as_millis())),
            Ok(refusal) => Ok(refusal.map_err(|why| why.to_string())?.map(|why| format!("no claims: {why}"))),
        }
    }

    /// Why no writes are taken, in the server's words, replicas and claims apart.
    pub(super) async fn refusal(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<Option<String>> {
        Ok(match self.replies(connection).await?.first() {
            Some(Value::ServerError(why)) if is_down(why.code()) || refuses(why.code()) => Some(said(why)),
            _ => None,
        })
    }

    async fn replies(&self, connection: &mut MultiplexedConnection) -> RedisResult<Vec<Value>> {
        let replies = connection.send_packed_commands(&self.commands, 0, self.commands.len()).await?;
        if !matches!(replies.first(), Some(Value::ServerError(why)) if why.code() == "NOSCRIPT") {
            return Ok(replies);
        }
        let mut load = redis::pipe();
        load.cmd("SCRIPT").arg("LOAD").arg(WRITE_PROBE);
        // Whether it worked is seen by asking again.
        connection.send_packed_commands(&load, 0, 1).await?;
        connection.send_packed_commands(&self.commands, 0, self.commands.len()).await
    }
}

/// Whether an error's code says that this server takes no writes of anybody now: no memory, no disk, no replicas. Of a right
/// that is missing the streams tell, and claims.
fn refuses(code: &str) -> bool {
    matches!(code, OUT_OF_MEMORY | "MISCONF" | "NOREPLICAS")
}

/// The code of a server whose memory is full.
pub(super) const OUT_OF_MEMORY: &str = "OOM";

/// Where there is no cluster, any key will do.
const PROBE_KEY: &str = "hookgate:probe";
const WITHIN: Duration = Duration::from_millis(500);
/// Leaves the probe's answer the time to arrive.
const REPLICAS_WITHIN: Duration = Duration::from_millis(300);
/// A script with a shebang and no flags may write, so that Redis 7 refuses it wherever a write would be refused; it does
/// nothing. An older server does not know the shebang: an error like any other, hence an answer.
const WRITE_PROBE: &str = "#!lua\nreturn 1";
static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(WRITE_PROBE));
