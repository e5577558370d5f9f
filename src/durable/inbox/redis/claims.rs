//! Asks whether a server would accept claims.
//!
//! Keeps true: asking changes nothing. It needs the same rights, on keys of the same shape, as a claim, its commit and
//! its release. An answer that says nothing about claims, for example that the server is down, is no refusal.

use std::sync::LazyLock;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisResult, Script, Value};

use super::is_away;
use super::script::{said, shorten};

/// The question about the claims of one queue.
pub struct Claims {
    key_prefix: String,
}

/// The common prefix of an identity's keys. The braces hold the part that decides the slot.
pub(in crate::durable::inbox) fn key_prefix(of: &str, queue: &str) -> String {
    format!("hookgate:{{{of}}}:{queue}")
}

impl Claims {
    /// `queue` is the queue's configured name, and `key` a key of the server.
    pub fn new(queue: &str, key: &str) -> Claims {
        Claims { key_prefix: key_prefix(key, queue) }
    }

    /// Why claims are refused, if so: the refused command, and Redis' own words.
    ///
    /// # Errors
    /// When the server is down or silent.
    pub async fn ask(&self, connection: &mut MultiplexedConnection) -> RedisResult<Option<String>> {
        // First by hash and then by text, as claims do.
        let mut reply = Value::Nil;
        for (command, script) in [("EVALSHA", SCRIPT.get_hash()), ("EVAL", TEXT)] {
            let mut ask = redis::pipe();
            ask.add_command(self.by(command, script));
            reply = connection.send_packed_commands(&ask, 0, 1).await?.pop().unwrap_or(Value::Nil);
            if !matches!(&reply, Value::ServerError(why) if why.code() == "NOSCRIPT") {
                break;
            }
        }
        Ok(refusal(reply))
    }

    fn by(&self, command: &str, script: &str) -> Cmd {
        let mut ask = redis::cmd(command);
        ask.arg(script)
            .arg(2)
            .arg(format!("{}:seen", self.key_prefix))
            .arg(format!("{}:claim", self.key_prefix));
        ask
    }
}

fn refusal(reply: Value) -> Option<String> {
    let (why, command) = match reply {
        Value::ServerError(why) => (said(&why), None),
        Value::Array(parts) => {
            let [Value::BulkString(command), Value::BulkString(why)] = &parts[..] else { return None };
            let [command, why] = [command, why].map(|text| String::from_utf8_lossy(text).into_owned());
            (shorten(&why), Some(command))
        }
        _ => return None,
    };
    if is_away(why.split(' ').next().unwrap_or_default()) {
        return None;
    }
    Some(match command {
        Some(command) => format!("{command}: {why}"),
        None => why,
    })
}

const TEXT: &str = include_str!("../claimed/ask.lua");
static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(TEXT));
