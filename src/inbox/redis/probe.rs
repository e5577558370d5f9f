//! The question whether a server would take a write now.
//!
//! Keeps true: the answer is no from a replica, a demoted master, a server without memory, disk or enough replicas, and
//! from a cluster that is down; asking changes nothing but, with `ack_replicas`, one key that goes by itself.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};

use super::link::{is_astray, is_down};
use super::replicas::Replicas;
use super::script::said;

/// The question.
pub(super) struct Probe {
    commands: Pipeline,
    replicas: Replicas,
}

impl Probe {
    /// With a key that the server has, in a cluster: then a server that has it no more says so.
    pub(super) fn new(key: Option<&str>, replicas: Replicas) -> Probe {
        let mut commands = redis::pipe();
        commands.cmd("EVAL").arg(WRITE_PROBE).arg(usize::from(key.is_some())).arg(key);
        replicas.wait(&mut commands, key.unwrap_or(PROBE_KEY), REPLICAS_WITHIN);
        Probe { commands, replicas }
    }

    /// Asks: why no writes are taken, if so; an error if nothing is served at all. A PING would also be answered by a
    /// replica or past a demotion, and the link would then go up and down with every batch.
    pub(super) async fn ask(&self, connection: &mut MultiplexedConnection) -> Result<Option<String>, String> {
        let answer = connection.send_packed_commands(&self.commands, 0, self.commands.len());
        let mut replies = match tokio::time::timeout(WITHIN, answer).await {
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
        if self.replicas.have_it(&mut replies) {
            return Ok(None);
        }
        Err(format!("fewer than ack_replicas = {} keep up with it", self.replicas.0))
    }
}

/// Whether an error's code says that this server takes no writes of ours now: no memory, no disk, no replicas, no right.
fn refuses(code: &str) -> bool {
    matches!(code, "OOM" | "MISCONF" | "NOREPLICAS" | "NOPERM")
}

/// Where there is no cluster, any key will do.
const PROBE_KEY: &str = "hookgate:probe";
const WITHIN: Duration = Duration::from_millis(500);
/// Leaves the probe's answer the time to arrive.
const REPLICAS_WITHIN: Duration = Duration::from_millis(300);
/// A script with a shebang and no flags may write, so that Redis 7 refuses it wherever a write would be refused; it does
/// nothing. An older server does not know the shebang: an error like any other, hence an answer.
const WRITE_PROBE: &str = "#!lua\nreturn 1";
