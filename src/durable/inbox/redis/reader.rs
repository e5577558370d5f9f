//! Reads the events out of the streams again, oldest first over all of them.
//!
//! Keeps true: a cursor tells of every stream how far it was read, so that going on from it neither repeats nor skips, even
//! where a partition gets an entry with a lower id than another's last. Reading changes nothing in Redis.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use redis::Value;
use redis::aio::MultiplexedConnection;

use super::OpenError;
use super::servers::{self, Patience, Servers};
use super::stream::Streams;
use super::topology::{Master, Topology, slot};

/// A reader of every stream of a queue.
pub struct Reader {
    masters: Vec<(Master, MultiplexedConnection)>,
    streams: Streams,
}

/// Why nothing can be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The name is unusable.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Redis did not answer, or refused.
    #[error("cannot read from redis: {0}")]
    Redis(String),
    /// Not a cursor, or one of another queue.
    #[error("{0:?} is not a cursor of this queue; take one that `events tail --json` printed")]
    Cursor(String),
}

/// How far each stream was read: the id of its last entry.
type Position = BTreeMap<String, EntryId>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct EntryId(u64, u64);

/// What XRANGE gives of an entry: its id, and its fields with their values.
type Row = (String, Vec<(String, Vec<u8>)>);

/// An entry's id, its stream, and its event, if a gateway wrote it.
type Entry = (EntryId, String, Option<String>);

impl Reader {
    /// Connects to every master.
    ///
    /// # Errors
    /// When the name is unusable, or Redis cannot be reached.
    pub async fn open(servers: &Servers, name: &str, partitions: u32) -> Result<Reader, ReadError> {
        let streams = Streams::parse(name, partitions).map_err(OpenError::Name)?;
        let topology = look(servers).await?;
        let mut masters = Vec::new();
        for master in topology.masters {
            let connection = match servers.find(&master.server, PATIENCE).await {
                Ok(client) => servers::connect(&client, PATIENCE).await.map_err(|why| why.to_string()),
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

    /// The events after a cursor (all, after an empty one), each with the cursor to go on after it: at most `limit`, and at
    /// most 1000 a call. None is the end, for now.
    ///
    /// # Errors
    /// When the cursor is none, or Redis does not answer.
    pub async fn after(&mut self, cursor: &str, limit: usize) -> Result<Vec<(String, String)>, ReadError> {
        let mut position = self.parse(cursor)?;
        let limit = limit.min(AT_ONCE);
        let mut events = Vec::new();
        while events.is_empty() && limit > 0 {
            let entries = self.entries(&position, limit).await?;
            if entries.is_empty() {
                break;
            }
            // Each stream gave its first `limit`: the first `limit` of them all are among these.
            for (id, stream, event) in entries.into_iter().take(limit) {
                position.insert(stream, id);
                // An entry that no gateway wrote is passed over.
                if let Some(event) = event {
                    events.push((print(&position), event));
                }
            }
        }
        Ok(events)
    }

    /// How many entries there are, and the cursor before the last `last` of them: in the order in which [`Reader::after`] gives
    /// them, over all streams.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn end(&mut self, last: usize) -> Result<(u64, String), ReadError> {
        let mut total = 0;
        let mut tails = Vec::new();
        for stream in self.find().await? {
            let length = redis::cmd("XLEN").arg(&stream).to_owned();
            total += self.ask::<u64>(&stream, &length).await?;
            let mut tail = Tail { stream, ids: VecDeque::new(), more: true };
            self.fill(&mut tail, None, last).await?;
            tails.push(tail);
        }
        for passed in 0..last {
            // The newest of all; of one id, the stream that is given last.
            let newest =
                tails.iter_mut().max_by(|a, b| (a.ids.front(), &a.stream).cmp(&(b.ids.front(), &b.stream)));
            let Some(newest) = newest else { break };
            let Some(id) = newest.ids.pop_front() else { break };
            if newest.ids.is_empty() && newest.more {
                self.fill(newest, Some(id), last - passed - 1).await?;
            }
        }
        let before = tails.into_iter().filter_map(|tail| Some((tail.stream, *tail.ids.front()?)));
        Ok((total, print(&before.collect())))
    }

    /// Reads a stream's ids on backwards from before `id`: one more than are left to be passed, so that one stays.
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

    /// Asks the master that has the stream.
    async fn ask<T: redis::FromRedisValue>(
        &mut self,
        stream: &str,
        command: &redis::Cmd,
    ) -> Result<T, ReadError> {
        let slot = slot(stream);
        match self.masters.iter_mut().find(|(master, _)| master.has(slot)) {
            Some((_, connection)) => command.query_async(connection).await.map_err(failed),
            None => Err(nowhere(stream)),
        }
    }

    /// The next entries of every stream, by id and then by stream.
    async fn entries(&mut self, position: &Position, limit: usize) -> Result<Vec<Entry>, ReadError> {
        let mut streams = self.find().await?;
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
            return Err(nowhere(stream));
        }
        entries.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        Ok(entries)
    }

    /// The streams there are.
    async fn find(&mut self) -> Result<Vec<String>, ReadError> {
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

/// Asks one configured node after the other who has what.
async fn look(servers: &Servers) -> Result<Topology, ReadError> {
    let mut failed = String::new();
    for node in servers.given() {
        match Topology::look(servers, node, PATIENCE).await {
            Ok(topology) => return Ok(topology),
            Err(why) => failed = why,
        }
    }
    Err(ReadError::Redis(failed))
}

/// Reads what XRANGE gives.
fn rows(stream: &str, reply: Value) -> Result<Vec<Entry>, ReadError> {
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

/// The end of a stream: ids, newest first.
struct Tail {
    stream: String,
    ids: VecDeque<EntryId>,
    /// There may be older ones.
    more: bool,
}

fn nowhere(stream: &str) -> ReadError {
    ReadError::Redis(format!("stream {stream}: no master of the cluster has its slot"))
}

fn failed(why: redis::RedisError) -> ReadError {
    ReadError::Redis(why.to_string())
}

/// `ID@STREAM`, comma between them: stream names hold no comma.
fn print(position: &Position) -> String {
    let parts: Vec<String> =
        position.iter().map(|(stream, id)| format!("{}-{}@{stream}", id.0, id.1)).collect();
    parts.join(",")
}

fn entry_id(text: &str) -> Option<EntryId> {
    let (ms, seq) = text.split_once('-')?;
    Some(EntryId(ms.parse().ok()?, seq.parse().ok()?))
}

const AT_ONCE: usize = 1000;
/// Redis gives the whole entries with them.
const IDS_AT_ONCE: usize = if cfg!(test) { 5 } else { 200 };
/// Longer than the gateway's: here a busy server is waited for.
const PATIENCE: Patience = Patience { connect: Duration::from_secs(2), response: Duration::from_secs(5) };
