//! Reads the events out of the streams again, oldest first over all of them.
//!
//! Keeps true: a cursor tells of every stream how far it was read, so that going on from it neither repeats nor skips, even
//! where a partition gets an entry with a lower id than another's last. Reading changes nothing in Redis.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Value};

use crate::secret::Secret;

use super::OpenError;
use super::stream::Streams;

/// A reader of every stream of a queue.
pub struct Reader {
    connection: MultiplexedConnection,
    streams: Streams,
}

/// Why nothing can be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The name or the URL is unusable.
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

impl Reader {
    /// Connects.
    ///
    /// # Errors
    /// When the URL or the name is unusable, or Redis cannot be reached.
    pub async fn open(url: &Secret, name: &str, partitions: u32) -> Result<Reader, ReadError> {
        let streams = Streams::parse(name, partitions).map_err(OpenError::Name)?;
        let client = super::client(url)?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let connection = client.get_multiplexed_async_connection_with_config(&config).await;
        Ok(Reader { connection: connection.map_err(|why| ReadError::Redis(why.to_string()))?, streams })
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

    /// The next entries of every stream, by id and then by stream.
    async fn entries(
        &mut self,
        position: &Position,
        limit: usize,
    ) -> Result<Vec<(EntryId, String, Option<String>)>, ReadError> {
        let streams = self.find().await?;
        let mut reads = redis::pipe();
        for stream in &streams {
            let from = position.get(stream).map_or("-".to_owned(), |id| format!("({}-{}", id.0, id.1));
            reads.cmd("XRANGE").arg(stream).arg(from).arg("+").arg("COUNT").arg(limit);
        }
        if streams.is_empty() {
            return Ok(Vec::new());
        }
        let replies = self.connection.send_packed_commands(&reads, 0, streams.len()).await;
        let replies = replies.map_err(|why| ReadError::Redis(why.to_string()))?;
        let mut entries = Vec::new();
        for (stream, reply) in streams.into_iter().zip(replies) {
            if let Value::ServerError(why) = &reply {
                return Err(ReadError::Redis(format!("stream {stream}: {}", super::script::said(why))));
            }
            let rows: Vec<Row> = redis::from_redis_value(reply)
                .map_err(|why| ReadError::Redis(format!("stream {stream}: {why}")))?;
            for (id, fields) in rows {
                let id =
                    entry_id(&id).ok_or_else(|| ReadError::Redis(format!("stream {stream}: no id: {id}")))?;
                let event = fields.into_iter().find(|(field, _)| field == "event");
                let event = event.and_then(|(_, json)| String::from_utf8(json).ok());
                entries.push((id, stream.clone(), event));
            }
        }
        entries.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        Ok(entries)
    }

    /// The streams there are.
    async fn find(&mut self) -> Result<Vec<String>, ReadError> {
        if let Some(fixed) = self.streams.fixed() {
            return Ok(fixed);
        }
        let failed = |why: redis::RedisError| ReadError::Redis(why.to_string());
        let mut found = BTreeSet::new();
        let mut at = 0_u64;
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(at)
                .arg("MATCH")
                .arg(self.streams.pattern())
                .arg("COUNT")
                .arg(1000)
                .arg("TYPE")
                .arg("stream");
            let (next, keys): (u64, Vec<String>) =
                scan.query_async(&mut self.connection).await.map_err(failed)?;
            found.extend(keys.into_iter().filter(|key| self.streams.covers(key)));
            if next == 0 {
                return Ok(found.into_iter().collect());
            }
            at = next;
        }
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
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longer than the gateway's: here a busy server is waited for.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
