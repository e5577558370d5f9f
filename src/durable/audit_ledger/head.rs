//! The reject log's head, and what starts found of a log that no longer had it.

use std::path::Path;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Result, params};

use crate::durable::database::{self, Found, OpenError};
use crate::observe::audit::Mark;

/// One row of the head, and one for each start that found the log cut or changed.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS audit_head (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    seq INTEGER NOT NULL,
    hash TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS audit_findings (
    at INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    hash TEXT NOT NULL,
    why TEXT NOT NULL
);
";

/// A log that no longer had its head, as a start found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// When it was found.
    pub at: Timestamp,
    /// The record that had been its last one.
    pub kept: Mark,
    /// What was found instead.
    pub why: String,
}

/// The ledger as `audit verify` reads it.
#[derive(Debug, Default)]
pub struct LedgerState {
    /// The log's last record, or one shortly before it. None where no gateway has noted it yet.
    pub head: Option<Mark>,
    /// Findings that no operator has accepted, oldest first.
    pub findings: Vec<Finding>,
}

impl LedgerState {
    /// Reads it, whether or not a gateway has the database open. None where there is no database.
    ///
    /// # Errors
    /// When the database cannot be read, or is not one of ours.
    pub fn read(db: &Path) -> std::result::Result<Option<LedgerState>, OpenError> {
        if !db.exists() {
            return Ok(None);
        }
        let Found::Table(conn) = database::find(db, "audit_head")? else {
            return Ok(Some(LedgerState::default()));
        };
        let kept = || Ok(LedgerState { head: read(&conn)?, findings: findings(&conn)? });
        kept().map(Some).map_err(|error| OpenError::of(db, error))
    }

    /// Takes the log as it is, with `end` as its last record: forgets what starts found, and a head that is not in the log.
    ///
    /// # Errors
    /// When the database cannot be written, or is not one of ours.
    pub fn accept(db: &Path, end: &Mark, head_is_missing: bool) -> std::result::Result<(), OpenError> {
        let conn = database::join(db, TABLES)?;
        let accept = || {
            conn.execute("DELETE FROM audit_findings", [])?;
            if head_is_missing { write(&conn, end) } else { Ok(()) }
        };
        accept().map_err(|error| OpenError::of(db, error))
    }
}

pub(super) fn read(conn: &Connection) -> Result<Option<Mark>> {
    conn.query_row("SELECT seq, hash FROM audit_head", [], |row| {
        Ok(Mark { seq: row.get::<_, i64>(0)?.unsigned_abs(), hash: row.get(1)? })
    })
    .optional()
}

pub(super) fn write(conn: &Connection, head: &Mark) -> Result<()> {
    let seq = i64::try_from(head.seq).unwrap_or(i64::MAX);
    conn.prepare_cached("INSERT OR REPLACE INTO audit_head (one, seq, hash) VALUES (1, ?1, ?2)")?
        .execute(params![seq, head.hash])
        .map(drop)
}

/// Keeps a finding, and of all the newest.
pub(super) fn find(conn: &Connection, found: &Finding) -> Result<()> {
    let seq = i64::try_from(found.kept.seq).unwrap_or(i64::MAX);
    let insert = "INSERT INTO audit_findings (at, seq, hash, why) VALUES (?1, ?2, ?3, ?4)";
    conn.execute(insert, params![found.at.as_microsecond(), seq, found.kept.hash, found.why])?;
    let newest = "DELETE FROM audit_findings WHERE rowid NOT IN
        (SELECT rowid FROM audit_findings ORDER BY rowid DESC LIMIT ?1)";
    conn.execute(newest, [MOST_FINDINGS]).map(drop)
}

pub(super) fn findings(conn: &Connection) -> Result<Vec<Finding>> {
    conn.prepare("SELECT at, seq, hash, why FROM audit_findings ORDER BY rowid")?
        .query_map([], |row| {
            Ok(Finding {
                at: Timestamp::from_microsecond(row.get(0)?).unwrap_or(Timestamp::UNIX_EPOCH),
                kept: Mark { seq: row.get::<_, i64>(1)?.unsigned_abs(), hash: row.get(2)? },
                why: row.get(3)?,
            })
        })?
        .collect()
}

/// Starts may come many a minute.
const MOST_FINDINGS: i64 = 20;
