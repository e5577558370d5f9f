//! Asks whether a server would accept a write now.
//!
//! Keeps true: the answer is no from a replica, a demoted master, a cluster that is down, and a server without memory,
//! disk or enough replicas. Asking changes nothing, except that `ack_replicas` writes one key that expires.

use std::sync::LazyLock;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisResult, Script, Value};

use super::claims::Claims;
use super::node_connection::{is_down, is_redirect};
use super::replicas::Replicas;
use super::script::said;

pub(super) struct Probe {
    commands: Pipeline,
    replicas: Replicas,
    /// Set where claims are kept: then the probe asks about them too.
    claims: Option<Claims>,
}

impl Probe {
    /// In a cluster, `key` belongs to the server. If the key moves away, the answer shows it.
    pub(super) fn new(key: Option<&str>, replicas: Replicas, claims: Option<Claims>) -> Probe {
        let mut commands = redis::pipe();
        // By its hash, as events are entered.
        commands.cmd("EVALSHA").arg(SCRIPT.get_hash()).arg(usize::from(key.is_some())).arg(key);
        replicas.wait(&mut commands, key.unwrap_or(PROBE_KEY), REPLICAS_WITHIN);
        Probe { commands, replicas, claims }
    }

    /// Asks why the server refuses writes; none if it accepts them. An error means that the server is down. A PING
    /// would not do: replicas and demoted masters answer it too, so the connection would flap.
    pub(super) async fn ask(&self, connection: &mut MultiplexedConnection) -> Result<Option<String>, String> {
        let mut replies = match tokio::time::timeout(WITHIN, self.replies(connection)).await {
            Err(_) => return Err(format!("no answer to a probe within {} ms", WITHIN.as_millis())),
            Ok(replies) => replies.map_err(|why| why.to_string())?,
        };
        match replies.first() {
            Some(Value::ServerError(why)) if is_down(why.code()) || is_redirect(why.code()) => {
                return Err(said(why));
            }
            // Events are still sent, since each one's own refusal says best why. But the server does not count as
            // ready.
            Some(Value::ServerError(why)) if refuses_writes(why.code()) => {
                return Ok(Some(why.code().to_owned()));
            }
            _ => {}
        }
        // No events are sent: each would enter, wait for replicas in vain, and end as unknown.
        if let Some(why) = replies.iter().find_map(|reply| match reply {
            Value::ServerError(why) => Some(said(why)),
            _ => None,
        }) && self.replicas.0 > 0
        {
            return Err(why);
        }
        if !self.replicas.have_writes(&mut replies) {
            return Err(format!("fewer than ack_replicas = {} keep up with it", self.replicas.0));
        }
        let Some(claims) = &self.claims else { return Ok(None) };
        match tokio::time::timeout(WITHIN, claims.ask(connection)).await {
            Err(_) => Err(format!("no answer about claims within {} ms", WITHIN.as_millis())),
            Ok(refusal) => Ok(refusal.map_err(|why| why.to_string())?.map(|why| format!("no claims: {why}"))),
        }
    }

    /// Why the server refuses writes, in its own words. Replicas and claims are not considered.
    pub(super) async fn refusal(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<Option<String>> {
        Ok(match self.replies(connection).await?.first() {
            Some(Value::ServerError(why)) if is_down(why.code()) || refuses_writes(why.code()) => {
                Some(said(why))
            }
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
        // The second try shows whether it worked.
        connection.send_packed_commands(&load, 0, 1).await?;
        connection.send_packed_commands(&self.commands, 0, self.commands.len()).await
    }
}

/// Whether an error code means that the server refuses writes from every user now: no memory, disk or replicas. The
/// probes of streams and claims report missing rights.
fn refuses_writes(code: &str) -> bool {
    matches!(code, OUT_OF_MEMORY | "MISCONF" | "NOREPLICAS")
}

/// The error code of a server without memory.
pub(super) const OUT_OF_MEMORY: &str = "OOM";

/// Without a cluster any key will do.
const PROBE_KEY: &str = "hookgate:probe";
const WITHIN: Duration = Duration::from_millis(500);
/// Shorter than the probe's timeout, so that its answer can arrive in time.
const REPLICAS_WITHIN: Duration = Duration::from_millis(300);
/// A script with a shebang and no flags may write, so Redis 7 refuses it wherever it would refuse a write. It does
/// nothing. An older server does not know the shebang and answers with another error, which counts as up.
const WRITE_PROBE: &str = "#!lua\nreturn 1";
static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(WRITE_PROBE));
