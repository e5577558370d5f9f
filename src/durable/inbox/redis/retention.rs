//! Trims streams of entries that every consumer group has acknowledged, by age or to make room.
//!
//! Keeps true: an entry that a group has not acknowledged is never trimmed, however old. Groups that the config ignores
//! do not count. The server's clock decides the age. A stream without consumer groups is trimmed by age alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use redis::{FromRedisValue, Value};
use tokio_util::sync::CancellationToken;

use super::backlog::Backlog;
use super::cluster_client::ClusterClient;
use super::node_connection::{Fault, NodeConnection};
use super::script::{self, Scripts};
use crate::base::clock;

/// The streams to trim: those known from the config, and those that this process wrote to.
#[derive(Default)]
pub(super) struct Written(Mutex<BTreeSet<String>>);

impl Written {
    pub(super) fn with(streams: impl IntoIterator<Item = String>) -> Written {
        Written(Mutex::new(streams.into_iter().collect()))
    }

    pub(super) fn add(&self, stream: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(stream.to_owned());
    }

    pub(super) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// Trims every stream by age periodically.
pub(super) struct Retention {
    pub(super) client: Arc<ClusterClient>,
    pub(super) scripts: Arc<Scripts>,
    pub(super) written: Arc<Written>,
    pub(super) backlog: Arc<Backlog>,
    pub(super) retain: Duration,
}

/// For a stream whose ids are ahead of the clock: last ids, each with the time when it was seen. An entry is at least
/// as old as its mark.
type Marks = Vec<(Instant, String)>;

impl Retention {
    /// Runs until stopped.
    pub(super) async fn run(self, stop: CancellationToken) {
        let every = (self.retain / 10).clamp(EVERY_MIN, EVERY_MAX);
        let mut ahead: BTreeMap<String, Marks> = BTreeMap::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            for stream in self.written.all() {
                if stop.is_cancelled() {
                    return;
                }
                let marks = ahead.remove(&stream).unwrap_or_default();
                let marks = self.trim(&stream, marks).await;
                if !marks.is_empty() {
                    ahead.insert(stream, marks);
                }
            }
        }
    }

    /// Trims one stream, a bounded number of entries a call. If its ids are ahead of the clock, this process's marks
    /// decide the age.
    async fn trim(&self, stream: &str, mut marks: Marks) -> Marks {
        let retain_ms = u64::try_from(self.retain.as_millis()).unwrap_or(u64::MAX);
        let now = clock::instant();
        let old = marks.iter().rposition(|(seen, _)| now.saturating_duration_since(*seen) >= self.retain);
        let aged = old.and_then(|at| marks.drain(..=at).next_back()).map(|(_, id)| id).unwrap_or_default();
        loop {
            let mut call = redis::pipe();
            call.add_command(self.scripts.trim_old(stream, retain_ms, &aged, &self.backlog));
            let Ok(reply) = self.client.call(stream, &call).await.map(|mut replies| replies.pop()) else {
                return marks;
            };
            match reply {
                Some(Value::ServerError(why)) if why.code() == "NOSCRIPT" => {
                    // The next turn trims the stream.
                    let _ = self.client.call(stream, &self.scripts.load_all()).await;
                    return marks;
                }
                Some(Value::ServerError(why)) => {
                    tracing::warn!(%stream, why = %script::said(&why), "a stream cannot be trimmed");
                    return marks;
                }
                reply => match reply.and_then(read) {
                    Some(Trimmed { gone: 1.., .. }) => tracing::debug!(%stream, "trimmed"),
                    Some(Trimmed { ahead, .. }) if ahead.is_empty() => return Marks::new(),
                    Some(Trimmed { ahead, .. }) => {
                        let apart = self.retain / MARKS;
                        let due = |(seen, id): &(Instant, String)| {
                            *id != ahead && now.duration_since(*seen) >= apart
                        };
                        if marks.last().is_none_or(due) {
                            marks.push((now, ahead));
                        }
                        return marks;
                    }
                    None => return marks,
                },
            }
        }
    }
}

/// The result of making room in a stream.
pub(super) enum Room {
    /// Some entries were trimmed.
    Made,
    /// These consumer groups need every entry. If the list is empty there is no group, so nothing is acknowledged.
    None(Vec<String>),
    /// Redis refused, or did not answer.
    Refused(String),
}

/// Makes room for `wanted` events in a full stream.
pub(super) async fn make_room(
    node: &NodeConnection,
    scripts: &Scripts,
    stream: &str,
    wanted: usize,
    backlog: &Backlog,
) -> Room {
    let mut call = redis::pipe();
    call.add_command(scripts.make_room(stream, wanted, backlog));
    for _ in 0..2 {
        match node.call(&call).await.map(|mut replies| replies.pop()) {
            Ok(Some(Value::ServerError(why))) if why.code() == "NOSCRIPT" => {
                let _ = node.call(&scripts.load_all()).await;
            }
            Ok(Some(Value::ServerError(why))) => return Room::Refused(script::said(&why)),
            Ok(reply) => match reply.and_then(read) {
                Some(Trimmed { gone: 1.., .. }) => return Room::Made,
                Some(Trimmed { holders, .. }) => return Room::None(holders),
                None => break,
            },
            Err(Fault::Unreachable | Fault::Unknown | Fault::Unclear(_)) => break,
        }
    }
    Room::Refused("no answer to the trim".to_owned())
}

/// The answer of `trim.lua`.
struct Trimmed {
    gone: u64,
    ahead: String,
    holders: Vec<String>,
}

fn read(reply: Value) -> Option<Trimmed> {
    let (gone, ahead, holders): (u64, String, Vec<Value>) = FromRedisValue::from_redis_value(reply).ok()?;
    Some(Trimmed { gone, ahead, holders: names(&holders) })
}

/// The printable names of consumer groups.
pub(super) fn names(groups: &[Value]) -> Vec<String> {
    let text = |name: &Value| match name {
        Value::BulkString(name) => Some(printable(name)),
        _ => None,
    };
    groups.iter().filter_map(text).collect()
}

/// A consumer group's name, cut and made printable. It may hold any bytes and be long.
pub(super) fn printable(group: &[u8]) -> String {
    String::from_utf8_lossy(group).chars().take(NAME_CHARS).collect()
}

/// The most marks of a stream within `queue.retain`.
const MARKS: u32 = 16;
const NAME_CHARS: usize = 128;
const EVERY_MIN: Duration = Duration::from_secs(1);
const EVERY_MAX: Duration = Duration::from_secs(60);
