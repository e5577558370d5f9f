//! The reject log's head, and the findings of starts where the log did not have its head.

use std::path::Path;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Result, params};

use crate::durable::database::{self, Found, OpenError};
use crate::observe::audit::Mark;

/// One row for the head, and one for each finding.
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

/// A start found that the log no longer had its head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// When it was found.
    pub at: Timestamp,
    /// The head, which was the log's last record.
    pub kept: Mark,
    /// The state of the log that was found.
    pub why: String,
}

/// The ledger, for `audit verify`.
#[derive(Debug, Default)]
pub struct LedgerState {
    /// The log's last record, or one shortly before it. None if no gateway has stored it yet.
    pub head: Option<Mark>,
    /// Findings that no operator has accepted, oldest first.
    pub findings: Vec<Finding>,
}

impl LedgerState {
    /// Reads the ledger, whether or not a gateway has the database open. None if there is no database.
    ///
    /// # Errors
    /// When the database cannot be read, or is not a hookgate database.
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

    /// Accepts the log as it is, with `end` as its last record. Deletes the findings, and replaces a head that is not
    /// in the log.
    ///
    /// # Errors
    /// When the database cannot be written, or is not a hookgate database.
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

/// Stores a finding, and deletes all but the newest ones.
pub(super) fn add_finding(conn: &Connection, found: &Finding) -> Result<()> {
    let seq = i64::try_from(found.kept.seq).unwrap_or(i64::MAX);
    let insert = "INSERT INTO audit_findings (at, seq, hash, why) VALUES (?1, ?2, ?3, ?4)";
    conn.execute(insert, params![found.at.as_microsecond(), seq, found.kept.hash, found.why])?;
    let newest = "DELETE FROM audit_findings WHERE rowid NOT IN
        (SELECT rowid FROM audit_findings ORDER BY rowid DESC LIMIT ?1)";
    conn.execute(newest, [MAX_FINDINGS]).map(drop)
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

/// A crash loop may add many each minute.
const MAX_FINDINGS: i64 = 20;
