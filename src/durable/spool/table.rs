//! The spool's table: one row an event, waiting or dead, with all that its admission held.
//!
//! Keeps true: a body is in it once per source and identity, waiting or dead; rows wait in the order of `seq`; the totals are
//! kept by triggers, so that they count what any process does.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Result, Row, named_params, params};

use crate::config::OnConflict;
use crate::durable::database::pairing;
use crate::durable::inbox::{EnqueueRequest, Enqueued, Owner};
use crate::event::{BodyHash, Event, Identity, conflict_id};

/// The tables that the spool needs of the database. `why` is null while a row waits, and says why it is dead; `told` is the
/// id that its provider was answered.
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

/// What is in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// Rows that wait.
    pub(super) waiting: i64,
    /// Dead letters.
    pub(super) dead: i64,
    /// Of both.
    pub(super) bytes: i64,
}

/// What became of an event that was to be put in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// A row of its own.
    Kept(Enqueued),
    /// It was there already.
    Known(Enqueued),
    /// There is no room.
    Full,
}

/// A row that waits.
pub(super) struct Waiting {
    pub(super) seq: i64,
    /// None when it cannot be read back: the file was tampered with.
    pub(super) admission: Option<EnqueueRequest>,
}

/// Keeps an event unless its body is known or the table is at `max_bytes`; dead at once where `why` says so.
pub(super) fn put(
    conn: &Connection,
    of: &EnqueueRequest,
    received: i64,
    why: Option<&str>,
    max_bytes: i64,
) -> Result<Put> {
    let known = "SELECT told FROM spool WHERE source = ?1 AND identity = ?2 AND body = ?3";
    let known = conn
        .prepare_cached(known)?
        .query_row(params![of.source, of.identity.0, of.body.0], |row| row.get(0))
        .optional()?;
    if let Some(id) = known {
        return Ok(Put::Known(Enqueued::Duplicate { id, dropped: false }));
    }
    let bytes = row_bytes(&of.event);
    if totals(conn)?.bytes + bytes > max_bytes {
        return Ok(Put::Full);
    }
    // Whether the queue knows the identity is seen when it is drained. What is sure now is what waits before it.
    let first =
        "SELECT told FROM spool WHERE source = ?1 AND identity = ?2 AND why IS NULL ORDER BY seq LIMIT 1";
    let first: Option<String> = conn
        .prepare_cached(first)?
        .query_row(params![of.source, of.identity.0], |row| row.get(0))
        .optional()?;
    let verdict = match (first, of.on_conflict) {
        (None, _) => Enqueued::Accepted { id: of.event.id.clone(), conflict: false },
        (Some(_), OnConflict::Forward) => {
            // Counted as a conflict when the queue says that it is one.
            Enqueued::Accepted { id: conflict_id(&of.event.id, &of.body), conflict: false }
        }
        (Some(id), OnConflict::Drop) => Enqueued::Duplicate { id, dropped: false },
    };
    let (Enqueued::Accepted { id: told, .. } | Enqueued::Duplicate { id: told, .. }) = &verdict;
    insert(conn, of, received, why, bytes, told)?;
    Ok(Put::Kept(verdict))
}

fn insert(
    conn: &Connection,
    of: &EnqueueRequest,
    received: i64,
    why: Option<&str>,
    bytes: i64,
    told: &str,
) -> Result<()> {
    let (id_end, data_start) = of.event.offsets();
    let mut insert = conn.prepare_cached(
        "INSERT INTO spool (source, identity, body, why, received, bytes, told, provider, on_conflict, owner, id, path, type,
            partition_key, id_end, data_start, event)
        VALUES (:source, :identity, :body, :why, :received, :bytes, :told, :provider, :on_conflict, :owner, :id, :path, :type,
            :partition_key, :id_end, :data_start, :event)",
    )?;
    insert.execute(named_params! {
        ":source": of.source,
        ":identity": of.identity.0,
        ":body": of.body.0,
        ":why": why,
        ":received": received,
        ":bytes": bytes,
        ":told": told,
        ":provider": of.provider,
        ":on_conflict": match of.on_conflict {
            OnConflict::Forward => FORWARD,
            OnConflict::Drop => DROP,
        },
        ":owner": of.owner.0,
        ":id": of.event.id,
        ":path": of.event.source,
        ":type": of.event.kind,
        ":partition_key": of.event.partition_key,
        ":id_end": id_end as i64,
        ":data_start": data_start as i64,
        ":event": of.event.json,
    })?;
    Ok(())
}

/// A source's oldest waiting rows in their order, at most so many and so many bytes, but one at least; and whether that many
/// were there.
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
        oldest.push(Waiting { seq, admission: admission(row).ok().flatten() });
    }
    let whole = oldest.len() == rows;
    Ok((oldest, whole))
}

/// Takes rows out.
pub(super) fn delete(conn: &Connection, rows: &[i64]) -> Result<()> {
    let mut delete = conn.prepare_cached("DELETE FROM spool WHERE seq = ?1")?;
    rows.iter().try_for_each(|seq| delete.execute([seq]).map(drop))
}

/// Makes a row a dead letter.
pub(super) fn bury(conn: &Connection, seq: i64, why: &str) -> Result<()> {
    conn.prepare_cached("UPDATE spool SET why = ?2 WHERE seq = ?1")?.execute(params![seq, why]).map(drop)
}

/// What is in the table.
pub(super) fn totals(conn: &Connection) -> Result<Totals> {
    conn.prepare_cached("SELECT waiting, dead, bytes FROM spool_totals")?
        .query_row([], |row| Ok(Totals { waiting: row.get(0)?, dead: row.get(1)?, bytes: row.get(2)? }))
}

/// When the oldest event that waits was received: Unix time in microseconds.
pub(super) fn oldest_received(conn: &Connection) -> Result<Option<i64>> {
    conn.prepare_cached("SELECT min(received) FROM spool WHERE why IS NULL")?.query_row([], |row| row.get(0))
}

/// How many events wait in a database that is to be used without a spool; none where there is no such file or table. Damage
/// is for whoever opens it.
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

/// The sources that have events waiting: one step through the index for each of them, however many events wait.
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

/// Changes when another process has written to the file.
pub(super) fn foreign_writes(conn: &Connection) -> Result<i64> {
    conn.query_row("PRAGMA data_version", [], |row| row.get(0))
}

/// Writes as much as an event of so many bytes does, to see whether the disk takes it. It changes nothing that is kept.
pub(super) fn rehearse(conn: &Connection, bytes: i64) -> Result<()> {
    let replace = "INSERT OR REPLACE INTO spool_rehearsal VALUES (1, zeroblob(?1))";
    conn.execute(replace, [bytes + AROUND_A_ROW]).map(drop)
}

/// Takes away what a rehearsal has written. It has to be committed before, or no page of it would reach the disk.
pub(super) fn end_rehearsal(conn: &Connection) -> Result<()> {
    conn.execute("DELETE FROM spool_rehearsal", []).map(drop)
}

fn admission(row: &Row<'_>) -> Result<Option<EnqueueRequest>> {
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

/// What a row takes, roughly: its texts, and all the rest of it.
pub(super) fn row_bytes(event: &Event) -> i64 {
    let texts = event.json.len() + 2 * event.id.len() + event.partition_key.len() + event.kind.len();
    (texts + REST) as i64
}

/// The pages of the table, its indexes and the totals that a row changes, with room for those that have to be split. A log that
/// has grown before takes a page or two even on a full disk.
const AROUND_A_ROW: i64 = 64 * 1024;

const FORWARD: &str = "forward";
const DROP: &str = "drop";
const REST: usize = 256;
