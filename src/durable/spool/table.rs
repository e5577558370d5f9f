//! The spool's table: one row for each event, waiting or dead, with everything in its enqueue request.
//!
//! Keeps true: the table holds a body once per source and identity, waiting or dead. Rows wait in the order of `seq`.
//! Triggers keep the totals, so changes by other processes count too.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Result, Row, named_params, params};

use crate::config::OnConflict;
use crate::durable::database::pairing;
use crate::durable::inbox::{EnqueueRequest, Enqueued, Owner};
use crate::event::{BodyHash, Event, Identity, conflict_id};

/// The spool's tables. `why` is null while a row waits, and else the reason why it is dead. `told` is the event id in
/// the answer to the provider.
pub const TABLES: &str = "
CREATE TABLE IF NOT EXISTS spool (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    source TEXT NOT NULL,
    identity BLOB NOT NULL,
    body BLOB NOT NULL,
    why TEXT,
    received INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    told TEXT NOT NULL,
    provider TEXT NOT NULL,
    on_conflict TEXT NOT NULL,
    owner BLOB NOT NULL,
    id TEXT NOT NULL,
    path TEXT NOT NULL,
    type TEXT NOT NULL,
    partition_key TEXT NOT NULL,
    id_end INTEGER NOT NULL,
    data_start INTEGER NOT NULL,
    event TEXT NOT NULL,
    UNIQUE (source, identity, body)
);
CREATE INDEX IF NOT EXISTS spool_waiting ON spool (source, seq) WHERE why IS NULL;
CREATE INDEX IF NOT EXISTS spool_age ON spool (received) WHERE why IS NULL;
CREATE INDEX IF NOT EXISTS spool_dead ON spool (seq) WHERE why IS NOT NULL;
CREATE TABLE IF NOT EXISTS spool_totals (waiting INTEGER NOT NULL, dead INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO spool_totals SELECT 0, 0, 0 WHERE NOT EXISTS (SELECT 1 FROM spool_totals);
CREATE TABLE IF NOT EXISTS spool_rehearsal (id INTEGER PRIMARY KEY CHECK (id = 1), filler BLOB NOT NULL);
CREATE TRIGGER IF NOT EXISTS spool_in AFTER INSERT ON spool BEGIN
    UPDATE spool_totals SET waiting = waiting + (new.why IS NULL), dead = dead + (new.why IS NOT NULL),
        bytes = bytes + new.bytes;
END;
CREATE TRIGGER IF NOT EXISTS spool_out AFTER DELETE ON spool BEGIN
    UPDATE spool_totals SET waiting = waiting - (old.why IS NULL), dead = dead - (old.why IS NOT NULL),
        bytes = bytes - old.bytes;
END;
CREATE TRIGGER IF NOT EXISTS spool_moved AFTER UPDATE OF why ON spool BEGIN
    UPDATE spool_totals SET waiting = waiting - (old.why IS NULL) + (new.why IS NULL),
        dead = dead - (old.why IS NOT NULL) + (new.why IS NOT NULL);
END;
";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) waiting: i64,
    pub(super) dead: i64,
    /// Of waiting rows and dead letters together.
    pub(super) bytes: i64,
}

/// The result of [`put`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// Stored as a new row.
    Kept(Enqueued),
    /// This body is in the table already.
    Known(Enqueued),
    /// There is no room.
    Full,
}

pub(super) struct Waiting {
    pub(super) seq: i64,
    /// None if the row is damaged.
    pub(super) request: Option<EnqueueRequest>,
}

/// Stores an event, unless its body is known or the table would exceed `max_bytes`. With `why`, it is stored as a dead
/// letter.
pub(super) fn put(
    conn: &Connection,
    request: &EnqueueRequest,
    received: i64,
    why: Option<&str>,
    max_bytes: i64,
) -> Result<Put> {
    // An unknown body is the same as any other.
    let known =
        "SELECT told FROM spool WHERE source = ?1 AND identity = ?2 AND (body = ?3 OR body = ?4 OR ?3 = ?4)
        ORDER BY body = ?3 DESC, seq LIMIT 1";
    let unknown = BodyHash::UNKNOWN.0;
    let known = conn
        .prepare_cached(known)?
        .query_row(params![request.source, request.identity.0, request.body.0, unknown], |row| row.get(0))
        .optional()?;
    if let Some(id) = known {
        return Ok(Put::Known(Enqueued::Duplicate { id, dropped: false }));
    }
    let bytes = row_bytes(&request.event);
    if totals(conn)?.bytes + bytes > max_bytes {
        return Ok(Put::Full);
    }
    // The drainer finds out later whether the queue knows this identity. For now, compare only with the rows that wait.
    let first =
        "SELECT told FROM spool WHERE source = ?1 AND identity = ?2 AND why IS NULL ORDER BY seq LIMIT 1";
    let first: Option<String> = conn
        .prepare_cached(first)?
        .query_row(params![request.source, request.identity.0], |row| row.get(0))
        .optional()?;
    let enqueued = match (first, request.on_conflict) {
        (None, _) => Enqueued::Accepted { id: request.event.id.clone(), conflict: false },
        (Some(_), OnConflict::Forward) => {
            // Not counted as a conflict yet: the queue decides that when the event is drained.
            Enqueued::Accepted { id: conflict_id(&request.event.id, &request.body), conflict: false }
        }
        (Some(id), OnConflict::Drop) => Enqueued::Duplicate { id, dropped: false },
    };
    let (Enqueued::Accepted { id: told, .. } | Enqueued::Duplicate { id: told, .. }) = &enqueued;
    insert(conn, request, received, why, bytes, told)?;
    Ok(Put::Kept(enqueued))
}

fn insert(
    conn: &Connection,
    request: &EnqueueRequest,
    received: i64,
    why: Option<&str>,
    bytes: i64,
    told: &str,
) -> Result<()> {
    let (id_end, data_start) = request.event.offsets();
    let mut insert = conn.prepare_cached(
        "INSERT INTO spool (source, identity, body, why, received, bytes, told, provider, on_conflict, owner, id, path, type,
            partition_key, id_end, data_start, event)
        VALUES (:source, :identity, :body, :why, :received, :bytes, :told, :provider, :on_conflict, :owner, :id, :path, :type,
            :partition_key, :id_end, :data_start, :event)",
    )?;
    insert.execute(named_params! {
        ":source": request.source,
        ":identity": request.identity.0,
        ":body": request.body.0,
        ":why": why,
        ":received": received,
        ":bytes": bytes,
        ":told": told,
        ":provider": request.provider,
        ":on_conflict": match request.on_conflict {
            OnConflict::Forward => FORWARD,
            OnConflict::Drop => DROP,
        },
        ":owner": request.owner.0,
        ":id": request.event.id,
        ":path": request.event.source,
        ":type": request.event.kind,
        ":partition_key": request.event.partition_key,
        ":id_end": id_end as i64,
        ":data_start": data_start as i64,
        ":event": request.event.json,
    })?;
    Ok(())
}

/// Whether an event of this identity is in the table, waiting or dead.
pub(super) fn is_known(conn: &Connection, source: &str, identity: &Identity) -> Result<bool> {
    conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM spool WHERE source = ?1 AND identity = ?2)")?
        .query_row(params![source, identity.0], |row| row.get(0))
}

/// A source's oldest waiting rows in order, and whether more may wait. At most `rows` rows and `bytes` bytes, but at
/// least one row.
pub(super) fn oldest(
    conn: &Connection,
    source: &str,
    rows: usize,
    bytes: i64,
) -> Result<(Vec<Waiting>, bool)> {
    let mut select = conn.prepare_cached(
        "SELECT * FROM spool INDEXED BY spool_waiting WHERE source = ?1 AND why IS NULL ORDER BY seq LIMIT ?2",
    )?;
    let mut found = select.query(params![source, rows as i64])?;
    let (mut oldest, mut total) = (Vec::new(), 0);
    while let Some(row) = found.next()? {
        total += row.get::<_, i64>("bytes")?;
        if total > bytes && !oldest.is_empty() {
            return Ok((oldest, true));
        }
        let seq = row.get("seq")?;
        oldest.push(Waiting { seq, request: read_request(row).ok().flatten() });
    }
    let more = oldest.len() == rows;
    Ok((oldest, more))
}

/// What tells a waiting row's lane.
pub(super) struct RowKey {
    pub(super) seq: i64,
    pub(super) source: String,
    pub(super) provider: String,
    pub(super) kind: String,
    pub(super) partition_key: String,
}

/// The waiting rows behind `seq`, oldest first, at most so many.
pub(super) fn waiting_after(conn: &Connection, seq: i64, rows: usize) -> Result<Vec<RowKey>> {
    conn.prepare_cached(
        "SELECT seq, source, provider, type, partition_key FROM spool WHERE seq > ?1 AND why IS NULL ORDER BY seq LIMIT ?2",
    )?
    .query_map(params![seq, rows as i64], |row| {
        let (seq, source, provider) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(RowKey { seq, source, provider, kind: row.get(3)?, partition_key: row.get(4)? })
    })?
    .collect()
}

/// A waiting row. None: there is none with this number.
pub(super) fn waiting(conn: &Connection, seq: i64) -> Result<Option<Waiting>> {
    conn.prepare_cached("SELECT * FROM spool WHERE seq = ?1 AND why IS NULL")?
        .query_row([seq], |row| Ok(Waiting { seq, request: read_request(row).ok().flatten() }))
        .optional()
}

pub(super) fn delete(conn: &Connection, rows: &[i64]) -> Result<()> {
    let mut delete = conn.prepare_cached("DELETE FROM spool WHERE seq = ?1")?;
    rows.iter().try_for_each(|seq| delete.execute([seq]).map(drop))
}

pub(super) fn mark_dead(conn: &Connection, seq: i64, why: &str) -> Result<()> {
    conn.prepare_cached("UPDATE spool SET why = ?2 WHERE seq = ?1")?.execute(params![seq, why]).map(drop)
}

pub(super) fn totals(conn: &Connection) -> Result<Totals> {
    conn.prepare_cached("SELECT waiting, dead, bytes FROM spool_totals")?
        .query_row([], |row| Ok(Totals { waiting: row.get(0)?, dead: row.get(1)?, bytes: row.get(2)? }))
}

/// When the oldest waiting event was received: Unix time in microseconds.
pub(super) fn oldest_received(conn: &Connection) -> Result<Option<i64>> {
    conn.prepare_cached("SELECT min(received) FROM spool WHERE why IS NULL")?.query_row([], |row| row.get(0))
}

/// How many events wait in a database that is to be used without a spool; 0 if there is no such file or table. Damage
/// is ignored here: opening the database reports it.
pub fn left_behind(db: &Path) -> i64 {
    if pairing::check(db).is_err() {
        return 0;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let waiting = Connection::open_with_flags(db, flags).and_then(|conn| {
        conn.query_row("SELECT count(*) FROM spool WHERE why IS NULL", [], |row| row.get(0))
    });
    waiting.unwrap_or(0)
}

/// The sources with waiting events. The query costs one index step for each source, however many events wait.
pub(super) fn sources(conn: &Connection) -> Result<Vec<String>> {
    conn.prepare_cached(
        "WITH RECURSIVE found (source) AS (
            SELECT min(source) FROM spool INDEXED BY spool_waiting WHERE why IS NULL
            UNION ALL
            SELECT (SELECT min(source) FROM spool INDEXED BY spool_waiting WHERE why IS NULL AND source > found.source)
            FROM found WHERE found.source IS NOT NULL
        ) SELECT source FROM found WHERE source IS NOT NULL",
    )?
    .query_map([], |row| row.get(0))?
    .collect()
}

/// A number that changes when another process writes to the file.
pub(super) fn foreign_writes(conn: &Connection) -> Result<i64> {
    conn.query_row("PRAGMA data_version", [], |row| row.get(0))
}

/// Writes as much as an event of this size would, to test whether the disk takes it. Deleted by [`end_rehearsal`].
pub(super) fn rehearse(conn: &Connection, bytes: i64) -> Result<()> {
    let replace = "INSERT OR REPLACE INTO spool_rehearsal VALUES (1, zeroblob(?1))";
    conn.execute(replace, [bytes + ROW_PAGES_BYTES]).map(drop)
}

/// Deletes the rehearsal row. Commit [`rehearse`] first: an uncommitted row may never reach the disk.
pub(super) fn end_rehearsal(conn: &Connection) -> Result<()> {
    conn.execute("DELETE FROM spool_rehearsal", []).map(drop)
}

fn read_request(row: &Row<'_>) -> Result<Option<EnqueueRequest>> {
    let source: Arc<str> = row.get("source")?;
    let offset = |column| row.get::<_, i64>(column).map(|at| usize::try_from(at).unwrap_or(usize::MAX));
    let event = Event::restore(
        row.get("id")?,
        row.get("path")?,
        row.get("type")?,
        row.get("partition_key")?,
        row.get("event")?,
        (offset("id_end")?, offset("data_start")?),
    );
    let on_conflict = match &*row.get::<_, String>("on_conflict")? {
        DROP => OnConflict::Drop,
        _ => OnConflict::Forward,
    };
    let (identity, body, owner) = (row.get("identity")?, row.get("body")?, row.get("owner")?);
    let provider = Cow::Owned(row.get("provider")?);
    Ok(event.map(|event| EnqueueRequest {
        source,
        provider,
        identity: Identity(identity),
        body: BodyHash(body),
        on_conflict,
        owner: Owner(owner),
        event,
    }))
}

/// About how many bytes a row takes.
pub(super) fn row_bytes(event: &Event) -> i64 {
    let texts = event.json.len() + 2 * event.id.len() + event.partition_key.len() + event.kind.len();
    (texts + FIXED_BYTES) as i64
}

/// Pages that one row changes: the table's, its indexes' and the totals', with room for page splits. Without this
/// margin a rehearsal could fit into the log's free pages, even on a full disk.
const ROW_PAGES_BYTES: i64 = 64 * 1024;

const FORWARD: &str = "forward";
const DROP: &str = "drop";
const FIXED_BYTES: usize = 256;
