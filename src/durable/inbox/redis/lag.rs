//! How far the consumer groups of a stream are: how many entries each has not acknowledged, and since when.
//!
//! Redis' own `lag` goes wrong once entries are deleted, so entries are counted. A group that has read nothing, or all, costs
//! no counting. Of the others the entries behind its last id are counted, or those before it where these are fewer.
//!
//! Keeps true: a deleted entry does not count; nothing in Redis is changed; what Redis reads for it is within a budget, a
//! page of 256 KiB at a time. A count that would cost more is Redis' own, held between the bounds that were counted.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, Pipeline, Value};

use super::retention::shown;
use super::script::Scripts;

/// Where the questions go. None where there is no answer.
pub(super) trait Asked {
    /// Sends commands that are all about one stream.
    async fn ask(&mut self, stream: &str, commands: &Pipeline) -> Option<Vec<Value>>;
}

/// A stream and its groups.
#[derive(Clone, Debug, Default)]
pub struct StreamInfo {
    /// Whether there is such a stream.
    pub exists: bool,
    /// The server's clock when it was asked, in milliseconds since 1970.
    pub now_ms: u64,
    /// How many entries it has.
    pub length: u64,
    /// The last id that it gave.
    pub last: String,
    /// Its consumer groups; of very many the first thousand by name.
    pub groups: Vec<Group>,
}

/// A consumer group.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its name, as it can be shown.
    pub name: String,
    /// Entries that it has not acknowledged.
    pub behind: u64,
    /// The id of the first of these; none if there are none.
    pub oldest: Option<String>,
    pub(super) raw: Vec<u8>,
    pub(super) read: String,
    pub(super) idle: Option<Duration>,
}

/// What Redis may still be made to read.
pub(super) struct Budget {
    entries: usize,
    bytes: usize,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget { entries: MOST_ENTRIES, bytes: MOST_BYTES }
    }
}

/// What was counted before, by group: what it depends on, and the count.
#[derive(Default)]
pub(super) struct Counted(BTreeMap<Vec<u8>, (Key, u64)>);

type Key = (String, String, u64, String);

/// What `look.lua` answers of a group.
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

/// What `look.lua` answers of the stream.
struct Bounds {
    length: u64,
    first: String,
    last: String,
    deleted: String,
    added: u64,
}

impl Asked for MultiplexedConnection {
    async fn ask(&mut self, _: &str, commands: &Pipeline) -> Option<Vec<Value>> {
        self.send_packed_commands(commands, 0, commands.len()).await.ok()
    }
}

impl StreamInfo {
    /// Looks at a stream of the server that a connection leads to. None if the stream is not there, or without an answer.
    pub async fn of(connection: &mut MultiplexedConnection, stream: &str) -> Option<StreamInfo> {
        let (mut counted, mut budget) = (Counted::default(), Budget::default());
        let scripts = Scripts::new();
        let look = StreamInfo::look(connection, &scripts, stream, &mut counted, &mut budget);
        look.await.filter(|standing| standing.exists)
    }

    /// How long ago an id was given, by the server's clock; zero for one from the future.
    pub fn age(&self, id: &str) -> Duration {
        Duration::from_millis(self.now_ms.saturating_sub(millis(id)))
    }

    /// When an id was given; none for a time that cannot be.
    pub fn time(id: &str) -> Option<Timestamp> {
        Timestamp::from_millisecond(i64::try_from(millis(id)).ok()?).ok()
    }

    /// How far the last id is ahead of the server's clock, if that is over a minute: it came by hand, or the clock was wrong.
    pub fn ahead(&self) -> Option<Duration> {
        let ahead = Duration::from_millis(millis(&self.last).saturating_sub(self.now_ms));
        (ahead > MAX_AHEAD).then_some(ahead)
    }

    /// Looks at a stream. None without an answer.
    pub(super) async fn look(
        asked: &mut impl Asked,
        scripts: &Scripts,
        stream: &str,
        before: &mut Counted,
        budget: &mut Budget,
    ) -> Option<StreamInfo> {
        let Value::Array(parts) = call(asked, stream, scripts.look(stream)).await? else { return None };
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
        let mut counting = Counting { asked, scripts, stream, bounds: &bounds, budget };
        let (mut groups, mut counted) = (Vec::new(), Counted::default());
        for row in parts.filter_map(row) {
            let key = (row.read.clone(), bounds.last.clone(), bounds.length, bounds.deleted.clone());
            let unread = match before.0.get(&row.raw) {
                Some((of, count)) if *of == key => {
                    counted.0.insert(row.raw.clone(), (key, *count));
                    *count
                }
                _ => {
                    let (least, most, told) = counting.unread(&row).await?;
                    // An estimate is counted again: another turn may have the budget.
                    if least == most {
                        counted.0.insert(row.raw.clone(), (key, most));
                    }
                    told.clamp(least, most)
                }
            };
            let behind = unread + counting.pending(&row).await?;
            let firsts = [row.first_pending, row.first_unread].into_iter().filter(|id| !id.is_empty());
            groups.push(Group {
                name: shown(&row.raw),
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

/// The counting at one stream.
struct Counting<'a, A> {
    asked: &'a mut A,
    scripts: &'a Scripts,
    stream: &'a str,
    bounds: &'a Bounds,
    budget: &'a mut Budget,
}

impl<A: Asked> Counting<'_, A> {
    /// Entries that a group was never given: at least, at most, and in between as many as Redis itself thinks.
    async fn unread(&mut self, row: &Row) -> Option<(u64, u64, u64)> {
        let Bounds { length, first, last, added, .. } = self.bounds;
        if row.first_unread.is_empty() {
            return Some((0, 0, 0));
        }
        if order(&row.read) < order(first) {
            return Some((*length, *length, *length));
        }
        // The side on which Redis itself thinks there are fewer first.
        let told =
            u64::try_from(row.entries_read).map_or(*length, |read| added.saturating_sub(read)).min(*length);
        let (mut least, mut most) = (1, *length);
        let behind_first = told <= length / 2;
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
        Some((least, most, told))
    }

    /// Entries from one id to another, of `most` at most, and whether these are all.
    async fn range(&mut self, from: &str, to: &str, most: usize) -> Option<(u64, bool)> {
        let (mut from, mut count, mut page) = (from.to_owned(), 0, PAGE_FIRST);
        let mut left = most;
        while left > 0 && self.budget.bytes > 0 {
            let asked = page.min(left);
            let reply =
                call(self.asked, self.stream, self.scripts.count(self.stream, &from, to, asked)).await?;
            let (got, last, bytes): (usize, String, usize) = FromRedisValue::from_redis_value(reply).ok()?;
            count += got as u64;
            if got < asked {
                return Some((count, true));
            }
            left -= got;
            self.budget.entries = self.budget.entries.saturating_sub(got);
            self.budget.bytes = self.budget.bytes.saturating_sub(bytes);
            // As many as a page holds if they are like these.
            page = (PAGE_BYTES / (bytes / got).max(1)).clamp(1, PAGE_MOST);
            from = format!("({last}");
        }
        Some((count, false))
    }

    /// Entries that a group was given, has not acknowledged, and that are still there.
    async fn pending(&mut self, row: &Row) -> Option<u64> {
        if row.first_pending.is_empty() || row.all_there {
            return Some(if row.first_pending.is_empty() { 0 } else { row.pending });
        }
        let (mut from, mut seen, mut there) = (row.first_pending.clone(), 0, 0);
        while self.budget.entries > 0 {
            let most = PAGE_FIRST.min(self.budget.entries);
            let ends = (&*from, &*row.read);
            let ask = self.scripts.pending(self.stream, &row.raw, ends, most, &self.bounds.deleted);
            let reply = call(self.asked, self.stream, ask).await?;
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

/// One call; its script is loaded again where the server has forgotten it.
async fn call(asked: &mut impl Asked, stream: &str, call: Cmd) -> Option<Value> {
    let mut commands = redis::pipe();
    commands.add_command(call);
    let mut reply = asked.ask(stream, &commands).await?.pop()?;
    if matches!(&reply, Value::ServerError(why) if why.code() == "NOSCRIPT") {
        asked.ask(stream, &Scripts::new().loads()).await?;
        reply = asked.ask(stream, &commands).await?.pop()?;
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

/// Two servers' clocks are never that far apart, nor does one jump so far while it is kept by NTP.
const MAX_AHEAD: Duration = Duration::from_secs(60);
/// For all streams together, each time: some tens of milliseconds of the server's time.
const MOST_ENTRIES: usize = 40_000;
const MOST_BYTES: usize = 32 << 20;
/// Bytes in a call, about: less than a millisecond of the server's time.
const PAGE_BYTES: usize = 256 << 10;
const PAGE_FIRST: usize = 32;
const PAGE_MOST: usize = 512;
