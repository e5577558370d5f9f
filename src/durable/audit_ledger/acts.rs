//! What operators do, on its way into the reject log.
//!
//! Keeps true: an act is noted before it is done, so that none is without a trace, however its command ends; the gateway that runs
//! records it, or else the command itself; once recorded it is forgotten here. A crash between the two records it twice, under
//! one id.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, Result, Transaction, TransactionBehavior, params};

use crate::base::clock::Clock;
use crate::base::label::UNKNOWN;
use crate::durable::database::{self, OpenError};
use crate::observe::audit::{Reject, reject_id};

/// One row an act. `done` is 0 while it is being done.
pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS operator_acts (
    id TEXT PRIMARY KEY,
    at INTEGER NOT NULL,
    source TEXT NOT NULL,
    what TEXT NOT NULL,
    done INTEGER NOT NULL
) WITHOUT ROWID;
";

/// An act that was noted, and is about to be done.
pub struct Act {
    conn: Connection,
    db: PathBuf,
    ids: Vec<String>,
}

/// What was done to one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The source's name, or `unknown` where it is no single one.
    pub source: String,
    /// What, and how many.
    pub what: String,
}

impl Act {
    /// Notes in the database that `what` is about to be done. If the command does not end the act, this note is recorded.
    ///
    /// # Errors
    /// When the database cannot be written: then it must not be done.
    pub fn begin(db: &Path, what: &str) -> std::result::Result<Act, OpenError> {
        let conn = database::join(db, TABLE)?;
        let (id, db) = (reject_id(), db.to_owned());
        let begun =
            Done { source: UNKNOWN.to_owned(), what: format!("{what}: begun, and its end was not told") };
        insert(&conn, &id, &begun, false).map_err(|error| OpenError::of(&db, error))?;
        Ok(Act { conn, db, ids: vec![id] })
    }

    /// Notes what was done, a record each; nothing, if nothing was.
    ///
    /// # Errors
    /// When the database cannot be written: then it is recorded as begun.
    pub fn end(&mut self, done: &[Done]) -> std::result::Result<(), OpenError> {
        let ids: Vec<String> = done.iter().map(|_| reject_id()).collect();
        let end = || {
            let transaction = Transaction::new_unchecked(&self.conn, TransactionBehavior::Immediate)?;
            forget(&transaction, &self.ids)?;
            ids.iter().zip(done).try_for_each(|(id, done)| insert(&transaction, id, done, true))?;
            transaction.commit()
        };
        end().map_err(|error| OpenError::of(&self.db, error))?;
        self.ids = ids;
        Ok(())
    }

    /// Whether all of it is recorded, synced and forgotten here.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn is_recorded(&self) -> std::result::Result<bool, OpenError> {
        let known = |id: &String| {
            let sql = "SELECT EXISTS (SELECT 1 FROM operator_acts WHERE id = ?1)";
            self.conn.prepare_cached(sql)?.query_row([id], |row| row.get::<_, bool>(0))
        };
        let mut waiting = false;
        for id in &self.ids {
            waiting |= known(id).map_err(|error| OpenError::of(&self.db, error))?;
        }
        Ok(!waiting)
    }
}

fn insert(conn: &Connection, id: &str, of: &Done, done: bool) -> Result<()> {
    let now = Clock::System.now().as_microsecond();
    conn.execute(
        "INSERT INTO operator_acts (id, at, source, what, done) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![id, now, of.source, of.what, done],
    )
    .map(drop)
}

/// The acts that are done, and those whose command must have been killed: at most [`AT_ONCE`], oldest first.
pub(super) fn waiting(conn: &Connection, now: Timestamp) -> Result<Vec<Reject>> {
    let silent = now.as_microsecond() - i64::try_from(SILENT.as_micros()).unwrap_or(i64::MAX);
    conn.prepare_cached(
        "SELECT id, at, source, what FROM operator_acts WHERE done OR at < ?1 ORDER BY at LIMIT ?2",
    )?
    .query_map(params![silent, AT_ONCE], |row| {
        let at = Timestamp::from_microsecond(row.get(1)?).unwrap_or(now);
        Ok(Reject::operator(row.get(0)?, at, &row.get::<_, String>(2)?, row.get(3)?))
    })?
    .collect()
}

pub(super) fn forget(conn: &Connection, ids: &[String]) -> Result<()> {
    let mut forget = conn.prepare_cached("DELETE FROM operator_acts WHERE id = ?1")?;
    ids.iter().try_for_each(|id| forget.execute([id]).map(drop))
}

/// Longer than a command takes; one that takes longer still leaves both records.
const SILENT: Duration = Duration::from_secs(3600);
const AT_ONCE: i64 = 100;
