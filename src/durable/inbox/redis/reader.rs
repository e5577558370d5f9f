//! Reads the events back from the streams, oldest first across all of them.
//!
//! Keeps true: a cursor holds each stream's position, so reading on neither repeats nor skips an event. This holds even
//! if one partition's next id is lower than another's last. Reading changes nothing in Redis.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use redis::Value;
use redis::aio::MultiplexedConnection;

use super::OpenError;
use super::servers::{self, Servers, Timeouts};
use super::stream::Streams;
use super::topology::{Master, Topology, slot};

/// Reads every stream of a queue.
pub struct Reader {
    masters: Vec<(Master, MultiplexedConnection)>,
    streams: Streams,
}

/// Why a read failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The name is unusable.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Redis did not answer, or refused.
    #[error("cannot read from redis: {0}")]
    Redis(String),
    /// The text is no cursor of this queue.
    #[error("{0:?} is not a cursor of this queue; take one that `events tail --json` printed")]
    Cursor(String),
}

/// The id of the last entry read from each stream.
pub(super) type Position = BTreeMap<String, EntryId>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EntryId(pub(super) u64, pub(super) u64);

/// An entry as XRANGE gives it: its id, and its fields with their values.
type Row = (String, Vec<(String, Vec<u8>)>);

/// An entry's id, its stream, and its event. An entry that no gateway wrote has no event.
pub(super) type Entry = (EntryId, String, Option<String>);

impl Reader {
    /// Connects to every master.
    ///
    /// # Errors
    /// When the name is unusable, or Redis cannot be reached.
    pub async fn open(servers: &Servers, name: &str, partitions: u32) -> Result<Reader, ReadError> {
        let streams = Streams::parse(name, partitions).map_err(OpenError::Name)?;
        let topology = read_topology(servers).await?;
        let mut masters = Vec::new();
        for master in topology.masters {
            let connection = match servers.find(&master.server, TIMEOUTS).await {
                Ok(client) => servers::connect(&client, TIMEOUTS).await.map_err(|why| why.to_string()),
                Err(why) => Err(why),
            };
            let connection = match connection {
                Ok(connection) => connection,
                Err(why) => {
                    let why = servers.advise(&master.server, why).await;
                    return Err(ReadError::Redis(format!("{}: {why}", servers.name(&master.server))));
                }
            };
            masters.push((master, connection));
        }
        Ok(Reader { masters, streams })
    }

    /// The events after a cursor, each with its own cursor. An empty cursor starts at the oldest. At most `limit`
    /// events, and at most 1000 a call; an empty result means that there are no more for now.
    ///
    /// # Errors
    /// When the cursor is invalid, or Redis does not answer.
    pub async fn after(&mut self, cursor: &str, limit: usize) -> Result<Vec<(String, String)>, ReadError> {
        let mut position = self.parse(cursor)?;
        let limit = limit.min(AT_ONCE);
        let mut events = Vec::new();
        while events.is_empty() && limit > 0 {
            let entries = self.entries(&position, limit).await?;
            if entries.is_empty() {
                break;
            }
            // Each stream gave its first `limit` entries, so the first `limit` of all streams are among them.
            for (id, stream, event) in entries.into_iter().take(limit) {
                position.insert(stream, id);
                // Skips an entry that no gateway wrote.
                if let Some(event) = event {
                    events.push((format_cursor(&position), event));
                }
            }
        }
        Ok(events)
    }

    /// The number of entries, and the cursor before the last `last` of them, in the order of [`Reader::after`].
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn end(&mut self, last: usize) -> Result<(u64, String), ReadError> {
        let mut total = 0;
        let mut tails = Vec::new();
        for stream in self.existing_streams().await? {
            let length = redis::cmd("XLEN").arg(&stream).to_owned();
            total += self.ask::<u64>(&stream, &length).await?;
            let mut tail = Tail { stream, ids: VecDeque::new(), more: true };
            self.fill(&mut tail, None, last).await?;
            tails.push(tail);
        }
        for passed in 0..last {
            // Takes the newest id. If streams share an id, the stream that `after` gives last comes first.
            let newest =
                tails.iter_mut().max_by(|a, b| (a.ids.front(), &a.stream).cmp(&(b.ids.front(), &b.stream)));
            let Some(newest) = newest else { break };
            let Some(id) = newest.ids.pop_front() else { break };
            if newest.ids.is_empty() && newest.more {
                self.fill(newest, Some(id), last - passed - 1).await?;
            }
        }
        let before = tails.into_iter().filter_map(|tail| Some((tail.stream, *tail.ids.front()?)));
        Ok((total, format_cursor(&before.collect())))
    }

    /// Reads older ids of a stream, before `id`. It reads one more than `left`, so that one remains as the cursor.
    async fn fill(&mut self, tail: &mut Tail, id: Option<EntryId>, left: usize) -> Result<(), ReadError> {
        let count = left.saturating_add(1).min(IDS_AT_ONCE);
        let end = id.map_or("+".to_owned(), |id| format!("({}-{}", id.0, id.1));
        let read =
            redis::cmd("XREVRANGE").arg(&tail.stream).arg(end).arg("-").arg("COUNT").arg(count).to_owned();
        let reply: Value = self.ask(&tail.stream, &read).await?;
        let ids = rows(&tail.stream, reply)?;
        tail.more = ids.len() == count;
        tail.ids.extend(ids.into_iter().map(|(id, ..)| id));
        Ok(())
    }

    pub(super) async fn ask<T: redis::FromRedisValue>(
        &mut self,
        stream: &str,
        command: &redis::Cmd,
    ) -> Result<T, ReadError> {
        let slot = slot(stream);
        match self.masters.iter_mut().find(|(master, _)| master.has(slot)) {
            Some((_, connection)) => command.query_async(connection).await.map_err(failed),
            None => Err(no_master(stream)),
        }
    }

    /// The next entries of every stream, ordered by id and then by stream.
    async fn entries(&mut self, position: &Position, limit: usize) -> Result<Vec<Entry>, ReadError> {
        let mut streams = self.existing_streams().await?;
        let mut entries = Vec::new();
        for (master, connection) in &mut self.masters {
            let here: Vec<String> = streams.extract_if(.., |stream| master.has(slot(stream))).collect();
            let mut reads = redis::pipe();
            for stream in &here {
                let from = position.get(stream).map_or("-".to_owned(), |id| format!("({}-{}", id.0, id.1));
                reads.cmd("XRANGE").arg(stream).arg(from).arg("+").arg("COUNT").arg(limit);
            }
            if here.is_empty() {
                continue;
            }
            let replies = connection.send_packed_commands(&reads, 0, here.len()).await.map_err(failed)?;
            for (stream, reply) in here.into_iter().zip(replies) {
                entries.extend(rows(&stream, reply)?);
            }
        }
        if let Some(stream) = streams.first() {
            return Err(no_master(stream));
        }
        entries.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        Ok(entries)
    }

    /// The existing streams.
    pub(super) async fn existing_streams(&mut self) -> Result<Vec<String>, ReadError> {
        if let Some(fixed) = self.streams.fixed() {
            return Ok(fixed);
        }
        let mut found = BTreeSet::new();
        for (_, connection) in &mut self.masters {
            let mut at = 0_u64;
            loop {
                let mut scan = redis::cmd("SCAN");
                scan.arg(at).arg("MATCH").arg(self.streams.pattern());
                scan.arg("COUNT").arg(1000).arg("TYPE").arg("stream");
                let (next, keys): (u64, Vec<String>) = scan.query_async(connection).await.map_err(failed)?;
                found.extend(keys.into_iter().filter(|key| self.streams.covers(key)));
                if next == 0 {
                    break;
                }
                at = next;
            }
        }
        Ok(found.into_iter().collect())
    }

    fn parse(&self, cursor: &str) -> Result<Position, ReadError> {
        let wrong = || ReadError::Cursor(cursor.to_owned());
        let mut position = Position::new();
        for part in cursor.split(',').filter(|_| !cursor.is_empty()) {
            let (id, stream) = part.split_once('@').ok_or_else(wrong)?;
            let id = entry_id(id).ok_or_else(wrong)?;
            if !self.streams.covers(stream) || position.insert(stream.to_owned(), id).is_some() {
                return Err(wrong());
            }
        }
        Ok(position)
    }
}

/// Asks the configured nodes in turn for the topology.
async fn read_topology(servers: &Servers) -> Result<Topology, ReadError> {
    let mut failed = String::new();
    for node in servers.configured() {
        match Topology::look(servers, node, TIMEOUTS).await {
            Ok(topology) => return Ok(topology),
            Err(why) => failed = why,
        }
    }
    Err(ReadError::Redis(failed))
}

/// Parses a reply of XRANGE.
pub(super) fn rows(stream: &str, reply: Value) -> Result<Vec<Entry>, ReadError> {
    let wrong = |why: String| ReadError::Redis(format!("stream {stream}: {why}"));
    if let Value::ServerError(why) = &reply {
        return Err(wrong(super::script::said(why)));
    }
    let rows: Vec<Row> = redis::from_redis_value(reply).map_err(|why| wrong(why.to_string()))?;
    let entry = |(id, fields): Row| {
        let id = entry_id(&id).ok_or_else(|| wrong(format!("no id: {id}")))?;
        let event = fields.into_iter().find(|(field, _)| field == "event");
        Ok((id, stream.to_owned(), event.and_then(|(_, json)| String::from_utf8(json).ok())))
    };
    rows.into_iter().map(entry).collect()
}

/// The last ids of a stream, newest first.
struct Tail {
    stream: String,
    ids: VecDeque<EntryId>,
    /// Whether older ids may exist.
    more: bool,
}

fn no_master(stream: &str) -> ReadError {
    ReadError::Redis(format!("stream {stream}: no master of the cluster has its slot"))
}

fn failed(why: redis::RedisError) -> ReadError {
    ReadError::Redis(why.to_string())
}

/// A cursor, such as `5-0@hooks.0,7-1@hooks.1`. Stream names hold no comma.
pub(super) fn format_cursor(position: &Position) -> String {
    let parts: Vec<String> =
        position.iter().map(|(stream, id)| format!("{}-{}@{stream}", id.0, id.1)).collect();
    parts.join(",")
}

fn entry_id(text: &str) -> Option<EntryId> {
    let (ms, seq) = text.split_once('-')?;
    Some(EntryId(ms.parse().ok()?, seq.parse().ok()?))
}

const AT_ONCE: usize = 1000;
/// A small page, because Redis sends whole entries with the ids.
const IDS_AT_ONCE: usize = if cfg!(test) { 5 } else { 200 };
/// Longer than the gateway's timeouts: a command-line reader waits for a busy server.
const TIMEOUTS: Timeouts = Timeouts { connect: Duration::from_secs(2), response: Duration::from_secs(5) };
