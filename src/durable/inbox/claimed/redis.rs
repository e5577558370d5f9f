//! Claims in Redis.
//!
//! Keeps true: each step is one script (`claim.lua`, `commit.lua`, `release.lua`), so nothing comes between its
//! comparison and its action. Both keys of an identity share a slot. Leases and windows use the server's clock. What a
//! failover loses may enter again, under the same message id.
//!
//! The connection asks with `ask.lua` whether the server would accept claims (`claims` in the inbox on Redis).
//!
//! `hookgate:{SOURCE:IDENTITY}:QUEUE:seen` holds the records of an identity, and `…:claim` its claim: owner, body, `F`
//! or `C`, and the end of its lease in milliseconds since 1970. The fraction of that number is the form of the message
//! id: `.1` plain, `.2` with the source; an older version's claim has none. A claim outlives its lease by the window,
//! because its body may be in the queue.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Pipeline, Script, Value};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::records::Records;
use super::{Claim, EntryKind, Grant, Naming, Options};
use crate::config::OnConflict;
use crate::durable::inbox::redis::claims::key_prefix;
use crate::durable::inbox::redis::cluster_client::ClusterClient;
use crate::durable::inbox::redis::health::RedisHealth;
use crate::durable::inbox::redis::node_connection::Fault;
use crate::durable::inbox::redis::replicas::Replicas;
use crate::durable::inbox::redis::{Servers, is_away, said};
use crate::durable::inbox::{EnqueueError, EnqueueRequest};
use crate::observe::admin::Readiness;

/// Claims in Redis.
pub struct RedisClaims {
    client: Arc<ClusterClient>,
    /// The queue's name. It is part of every key, because fleets with different queues may share a server.
    queue: String,
    claim: Step,
    commit: Step,
    release: Step,
    background: TaskTracker,
    stop: DropGuard,
}

struct Step {
    text: &'static str,
    hash: String,
}

impl Step {
    fn new(text: &'static str) -> Step {
        Step { text, hash: Script::new(text).get_hash().to_owned() }
    }
}

impl RedisClaims {
    /// Starts to connect, and returns at once. `readiness` reports whether Redis is reachable. `queue` is the queue's
    /// configured name.
    ///
    /// Must be called inside a tokio runtime.
    pub fn open(servers: Servers, queue: &str, readiness: Arc<Readiness>) -> RedisClaims {
        let health = RedisHealth::new(readiness, None);
        let claims = Some(queue.to_owned());
        let client = Arc::new(ClusterClient::new(servers, Pipeline::new(), health, Replicas(0), claims));
        let (background, stop) = (TaskTracker::new(), CancellationToken::new());
        background.spawn(client.clone().run(stop.clone()));
        RedisClaims {
            client,
            queue: queue.to_owned(),
            claim: Step::new(include_str!("claim.lua")),
            commit: Step::new(include_str!("commit.lua")),
            release: Step::new(include_str!("release.lua")),
            background,
            stop: stop.drop_guard(),
        }
    }

    /// Whether Redis is connected.
    #[cfg(test)]
    pub(super) fn is_up(&self) -> bool {
        self.client.is_up()
    }

    /// See [`super::Claims::claim`].
    pub(super) async fn claim(&self, of: &EnqueueRequest, options: &Options) -> Result<Claim, EnqueueError> {
        let on_conflict = match of.on_conflict {
            OnConflict::Forward => "forward",
            OnConflict::Drop => "drop",
        };
        let answer = self.run(&self.claim, of, |call| {
            call.arg(on_conflict).arg(millis(options.lease)).arg(millis(options.window));
            call.arg(match options.naming(&of.source) {
                Naming::Plain => 1,
                Naming::WithSource => 2,
            });
        });
        match answer.await {
            Ok(answer) => read(&answer),
            // The claim may exist. It ends with its lease, and does not hinder its own owner. It is not released,
            // because an earlier try may have published, and only the claim records that.
            Err(EnqueueError::Unknown | EnqueueError::Unclear(_)) => Err(EnqueueError::Unreachable),
            Err(why) => Err(why),
        }
    }

    /// See [`super::Claims::commit`].
    pub(super) async fn commit(
        &self,
        of: &EnqueueRequest,
        kind: EntryKind,
        options: &Options,
    ) -> Result<(), EnqueueError> {
        let flag = match kind {
            EntryKind::First => "F",
            EntryKind::Conflict => "C",
        };
        let done = self.run(&self.commit, of, |call| {
            call.arg(flag).arg(millis(options.window));
        });
        done.await.map(drop)
    }

    /// See [`super::Claims::release`].
    pub(super) async fn release(
        &self,
        of: &EnqueueRequest,
        claimed_before: bool,
    ) -> Result<(), EnqueueError> {
        let keep = if claimed_before { "keep" } else { "" };
        let done = self.run(&self.release, of, |call| {
            call.arg(keep);
        });
        done.await.map(drop)
    }

    /// See [`super::Claims::records`].
    pub(super) async fn records(&self, of: &EnqueueRequest) -> Result<Records, EnqueueError> {
        let key_prefix = self.key_prefix(of);
        let mut get = redis::cmd("GET");
        get.arg(format!("{key_prefix}:seen"));
        match self.call(&key_prefix, get).await? {
            Value::Nil => Ok(Records::default()),
            Value::BulkString(records) => Ok(Records::of(records)),
            Value::ServerError(why) if is_away(why.code()) => Err(EnqueueError::Unreachable),
            Value::ServerError(why) => Err(EnqueueError::Refused(said(&why))),
            _ => Err(strange()),
        }
    }

    /// Closes the connections.
    pub(super) async fn close(self) {
        drop(self.stop);
        self.background.close();
        self.background.wait().await;
    }

    /// Runs a script for an identity. Its first arguments are the owner and the body.
    async fn run(
        &self,
        step: &Step,
        of: &EnqueueRequest,
        arguments: impl Fn(&mut Cmd),
    ) -> Result<Value, EnqueueError> {
        let key_prefix = self.key_prefix(of);
        // First by hash. If the server does not know the hash, by text, which also loads it.
        let mut answer = Value::Nil;
        for (command, script) in [("EVALSHA", &*step.hash), ("EVAL", step.text)] {
            let mut call = redis::cmd(command);
            call.arg(script).arg(2).arg(format!("{key_prefix}:seen")).arg(format!("{key_prefix}:claim"));
            call.arg(&of.owner.0[..]).arg(&of.body.0[..]);
            arguments(&mut call);
            answer = self.call(&key_prefix, call).await?;
            if !matches!(&answer, Value::ServerError(why) if why.code() == "NOSCRIPT") {
                break;
            }
        }
        let Value::ServerError(why) = answer else { return Ok(answer) };
        if is_away(why.code()) {
            return Err(EnqueueError::Unreachable);
        }
        let why = said(&why);
        self.client.health().on_claim_refused(&why);
        Err(EnqueueError::Refused(why))
    }

    /// The common prefix of the identity's keys.
    fn key_prefix(&self, of: &EnqueueRequest) -> String {
        key_prefix(&format!("{}:{}", of.source, hex::encode(of.identity.0)), &self.queue)
    }

    async fn call(&self, key: &str, call: Cmd) -> Result<Value, EnqueueError> {
        let mut commands = Pipeline::new();
        commands.add_command(call);
        match self.client.call(key, &commands).await.map(|mut replies| replies.pop()) {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) | Err(Fault::Unknown) => Err(EnqueueError::Unknown),
            Err(Fault::Unclear(why)) => Err(EnqueueError::Unclear(why)),
            Err(Fault::Unreachable) => Err(EnqueueError::Unreachable),
        }
    }
}

/// Parses the answer of `claim.lua`.
fn read(answer: &Value) -> Result<Claim, EnqueueError> {
    Ok(match answer {
        Value::Array(grant) => Claim::Granted(granted(grant).ok_or_else(strange)?),
        Value::Int(3) => Claim::Entered(EntryKind::First),
        Value::Int(4) => Claim::Entered(EntryKind::Conflict),
        Value::Int(5) => Claim::Dropped { newly: false },
        Value::Int(6) => Claim::Dropped { newly: true },
        Value::Int(7) => Claim::InProgress,
        _ => return Err(strange()),
    })
}

/// Parses a granted claim: kind, naming, and whether the body was claimed before.
fn granted(grant: &[Value]) -> Option<Grant> {
    let [Value::Int(kind), Value::Int(naming), Value::Int(claimed_before)] = grant else { return None };
    Some(Grant {
        kind: if *kind == 1 { EntryKind::First } else { EntryKind::Conflict },
        naming: if *naming == 1 { Naming::Plain } else { Naming::WithSource },
        claimed_before: *claimed_before == 1,
    })
}

fn strange() -> EnqueueError {
    EnqueueError::Refused("an answer that the script never gives".to_owned())
}

/// Redis refuses an expiry of zero, and one that overflows its clock.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).clamp(1, MAX_MS)
}

/// 100 years.
const MAX_MS: u64 = 100 * 365 * 86_400_000;
