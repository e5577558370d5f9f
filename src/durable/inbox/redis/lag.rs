//! How many entries of a stream each consumer group has not acknowledged, and since when.
//!
//! Redis' own `lag` is wrong once entries are deleted, so entries are counted here. A group that has read nothing or
//! everything needs no counting. For the others, the shorter side of the last read id is counted.
//!
//! Keeps true:
//! - A deleted entry does not count.
//! - Nothing in Redis is changed.
//! - Redis reads within a budget, in pages of 256 KiB. Past the budget the result is Redis' own `lag`, clamped to the
//!   counted bounds.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, Pipeline, Value};

use super::retention::printable;
use super::script::Scripts;

/// Sends commands to the server of a stream. `None` without an answer.
pub(super) trait CommandSender {
    /// Sends commands that all concern one stream.
    async fn send(&mut self, stream: &str, commands: &Pipeline) -> Option<Vec<Value>>;
}

/// A stream and its consumer groups.
#[derive(Clone, Debug, Default)]
pub struct StreamInfo {
    /// Whether the stream exists.
    pub exists: bool,
    /// The server's clock at that time, in milliseconds since 1970.
    pub now_ms: u64,
    /// The number of entries.
    pub length: u64,
    /// The last id that the stream assigned.
    pub last: String,
    /// Its consumer groups, at most the first thousand by name.
    pub groups: Vec<Group>,
}

/// A consumer group.
#[derive(Clone, Debug)]
pub struct Group {
    /// The name, cut and made printable.
    pub name: String,
    /// The number of entries that the group has not acknowledged.
    pub behind: u64,
    /// The id of the oldest such entry, if there is one.
    pub oldest: Option<String>,
    pub(super) raw: Vec<u8>,
    pub(super) read: String,
    pub(super) idle: Option<Duration>,
}

/// How much Redis may still be asked to read.
pub(super) struct Budget {
    entries: usize,
    bytes: usize,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { entries: MAX_ENTRIES, bytes: MAX_BYTES }
    }
}

/// Earlier counts by group. A count is valid while its key is unchanged.
#[derive(Default)]
pub(super) struct Counted(BTreeMap<Vec<u8>, (Key, u64)>);

type Key = (String, String, u64, String);

/// The answer of `look.lua` about a group.
struct Row {
    raw: Vec<u8>,
    read: String,
    entries_read: i64,
    pending: u64,
    all_there: bool,
    first_pending: String,
    first_unread: String,
    idle: i64,
}

/// The answer of `look.lua` about the stream.
struct Bounds {
    length: u64,
    first: String,
    last: String,
    deleted: String,
    added: u64,
}

impl CommandSender for MultiplexedConnection {
    async fn send(&mut self, _: &str, commands: &Pipeline) -> Option<Vec<Value>> {
        self.send_packed_commands(commands, 0, commands.len()).await.ok()
    }
}

impl StreamInfo {
    /// Reads a stream over a connection to its server. `None` if the stream does not exist, or without an answer.
    pub async fn of(connection: &mut MultiplexedConnection, stream: &str) -> Option<StreamInfo> {
        let (mut counted, mut budget) = (Counted::default(), Budget::default());
        let scripts = Scripts::new();
        let look = StreamInfo::read(connection, &scripts, stream, &mut counted, &mut budget);
        look.await.filter(|info| info.exists)
    }

    /// The age of an id by the server's clock; zero for a future id.
    pub fn age(&self, id: &str) -> Duration {
        Duration::from_millis(self.now_ms.saturating_sub(millis(id)))
    }

    /// The time in an id; none if it is out of range.
    pub fn time(id: &str) -> Option<Timestamp> {
        Timestamp::from_millisecond(i64::try_from(millis(id)).ok()?).ok()
    }

    /// How far the last id is ahead of the server's clock, if by more than a minute. Then an entry was added by hand,
    /// or the clock was wrong.
    pub fn ahead(&self) -> Option<Duration> {
        let ahead = Duration::from_millis(millis(&self.last).saturating_sub(self.now_ms));
        (ahead > MAX_AHEAD).then_some(ahead)
    }

    /// Reads a stream. `None` without an answer.
    pub(super) async fn read(
        sender: &mut impl CommandSender,
        scripts: &Scripts,
        stream: &str,
        before: &mut Counted,
        budget: &mut Budget,
    ) -> Option<StreamInfo> {
        let Value::Array(parts) = call(sender, stream, scripts.look(stream)).await? else { return None };
        if parts.is_empty() {
            return Some(StreamInfo::default());
        }
        let mut parts = parts.into_iter();
        let now_ms = take(&mut parts)?;
        let bounds = Bounds {
            length: take(&mut parts)?,
            first: take(&mut parts)?,
            last: take(&mut parts)?,
            deleted: take(&mut parts)?,
            added: take(&mut parts)?,
        };
        let mut counting = Counting { sender, scripts, stream, bounds: &bounds, budget };
        let (mut groups, mut counted) = (Vec::new(), Counted::default());
        for row in parts.filter_map(row) {
            let key = (row.read.clone(), bounds.last.clone(), bounds.length, bounds.deleted.clone());
            let unread = match before.0.get(&row.raw) {
                Some((of, count)) if *of == key => {
                    counted.0.insert(row.raw.clone(), (key, *count));
                    *count
                }
                _ => {
                    let (least, most, estimate) = counting.unread(&row).await?;
                    // An estimate is not kept, so a later turn with more budget can count exactly.
                    if least == most {
                        counted.0.insert(row.raw.clone(), (key, most));
                    }
                    estimate.clamp(least, most)
                }
            };
            let behind = unread + counting.pending(&row).await?;
            let firsts = [row.first_pending, row.first_unread].into_iter().filter(|id| !id.is_empty());
            groups.push(Group {
                name: printable(&row.raw),
                behind,
                oldest: firsts.min_by_key(|id| order(id)),
                raw: row.raw,
                read: row.read,
                idle: u64::try_from(row.idle).ok().map(Duration::from_millis),
            });
        }
        *before = counted;
        Some(StreamInfo { exists: true, now_ms, length: bounds.length, last: bounds.last, groups })
    }
}

/// Counts the entries of one stream.
struct Counting<'a, A> {
    sender: &'a mut A,
    scripts: &'a Scripts,
    stream: &'a str,
    bounds: &'a Bounds,
    budget: &'a mut Budget,
}

impl<A: CommandSender> Counting<'_, A> {
    /// Entries that the group has not read: the lower bound, the upper bound, and Redis' own number.
    async fn unread(&mut self, row: &Row) -> Option<(u64, u64, u64)> {
        let Bounds { length, first, last, added, .. } = self.bounds;
        if row.first_unread.is_empty() {
            return Some((0, 0, 0));
        }
        if order(&row.read) < order(first) {
            return Some((*length, *length, *length));
        }
        // Counts the side first that Redis believes to be shorter.
        let estimate =
            u64::try_from(row.entries_read).map_or(*length, |read| added.saturating_sub(read)).min(*length);
        let (mut least, mut most) = (1, *length);
        let behind_first = estimate <= length / 2;
        for behind in [behind_first, !behind_first] {
            let half = self.budget.entries / 2;
            if behind {
                let (count, all) = self.range(&format!("({}", row.read), last, half).await?;
                least = least.max(count);
                most = if all { count } else { most };
            } else {
                let (count, all) = self.range(first, &row.read, half).await?;
                most = most.min(length.saturating_sub(count));
                least = if all { most } else { least };
            }
            if least >= most {
                return Some((most, most, most));
            }
        }
        Some((least, most, estimate))
    }

    /// Counts the entries between two ids, at most `most`. True if all were counted.
    async fn range(&mut self, from: &str, to: &str, most: usize) -> Option<(u64, bool)> {
        let (mut from, mut count, mut page) = (from.to_owned(), 0, PAGE_FIRST);
        let mut left = most;
        while left > 0 && self.budget.bytes > 0 {
            let asked = page.min(left);
            let reply =
                call(self.sender, self.stream, self.scripts.count(self.stream, &from, to, asked)).await?;
            let (got, last, bytes): (usize, String, usize) = FromRedisValue::from_redis_value(reply).ok()?;
            count += got as u64;
            if got < asked {
                return Some((count, true));
            }
            left -= got;
            self.budget.entries = self.budget.entries.saturating_sub(got);
            self.budget.bytes = self.budget.bytes.saturating_sub(bytes);
            // The next page holds as many entries of this average size as fit.
            page = (PAGE_BYTES / (bytes / got).max(1)).clamp(1, PAGE_MAX);
            from = format!("({last}");
        }
        Some((count, false))
    }

    /// Entries that the group has read but not acknowledged, and that still exist.
    async fn pending(&mut self, row: &Row) -> Option<u64> {
        if row.first_pending.is_empty() || row.all_there {
            return Some(if row.first_pending.is_empty() { 0 } else { row.pending });
        }
        let (mut from, mut seen, mut there) = (row.first_pending.clone(), 0, 0);
        while self.budget.entries > 0 {
            let most = PAGE_FIRST.min(self.budget.entries);
            let ends = (&*from, &*row.read);
            let ask = self.scripts.pending(self.stream, &row.raw, ends, most, &self.bounds.deleted);
            let reply = call(self.sender, self.stream, ask).await?;
            let (got, last, found): (usize, String, u64) = FromRedisValue::from_redis_value(reply).ok()?;
            (seen, there) = (seen + got as u64, there + found);
            if got < most {
                return Some(there);
            }
            self.budget.entries -= got;
            from = format!("({last}");
        }
        Some(there + row.pending.saturating_sub(seen))
    }
}

/// Runs one script call, loading the scripts again if the server has forgotten them.
async fn call(sender: &mut impl CommandSender, stream: &str, call: Cmd) -> Option<Value> {
    let mut commands = redis::pipe();
    commands.add_command(call);
    let mut reply = sender.send(stream, &commands).await?.pop()?;
    if matches!(&reply, Value::ServerError(why) if why.code() == "NOSCRIPT") {
        sender.send(stream, &Scripts::new().load_all()).await?;
        reply = sender.send(stream, &commands).await?.pop()?;
    }
    match reply {
        Value::ServerError(why) => {
            tracing::debug!(stream, why = %super::said(&why), "a stream's consumer groups cannot be looked at");
            None
        }
        reply => Some(reply),
    }
}

fn take<T: FromRedisValue>(parts: &mut impl Iterator<Item = Value>) -> Option<T> {
    T::from_redis_value(parts.next()?).ok()
}

fn row(reply: Value) -> Option<Row> {
    let Value::Array(parts) = reply else { return None };
    let mut parts = parts.into_iter();
    Some(Row {
        raw: take(&mut parts)?,
        read: take(&mut parts)?,
        entries_read: take(&mut parts)?,
        pending: take(&mut parts)?,
        all_there: take::<u8>(&mut parts)? == 1,
        first_pending: take(&mut parts)?,
        first_unread: take(&mut parts)?,
        idle: take(&mut parts)?,
    })
}

/// The time in an id, in milliseconds since 1970.
fn millis(id: &str) -> u64 {
    order(id).0
}

fn order(id: &str) -> (u64, u64) {
    let (ms, seq) = id.split_once('-').unwrap_or((id, "0"));
    (ms.parse().unwrap_or_default(), seq.parse().unwrap_or_default())
}

/// More than clocks kept by NTP ever differ or jump.
const MAX_AHEAD: Duration = Duration::from_secs(60);
/// The budget of one turn for all streams. It takes some tens of milliseconds of the server's time.
const MAX_ENTRIES: usize = 40_000;
const MAX_BYTES: usize = 32 << 20;
/// The approximate bytes of one call, which take the server less than a millisecond.
const PAGE_BYTES: usize = 256 << 10;
const PAGE_FIRST: usize = 32;
const PAGE_MAX: usize = 512;
