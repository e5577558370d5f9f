//! Operators' acts on their way into the reject log.
//!
//! Keeps true: an act is stored before it is done, so that it leaves a trace even if its command is killed. The running
//! gateway records it in the log, or else the command does. Once recorded it is deleted here. A crash in between
//! records it twice, with the same id.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, Result, Transaction, TransactionBehavior, params};

use crate::base::clock::Clock;
use crate::base::label::UNKNOWN;
use crate::durable::database::{self, OpenError};
use crate::observe::audit::{Reject, reject_id};

/// One row for each act. `done` is 0 until the act ends.
pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS operator_acts (
    id TEXT PRIMARY KEY,
    at INTEGER NOT NULL,
    source TEXT NOT NULL,
    what TEXT NOT NULL,
    done INTEGER NOT NULL
) WITHOUT ROWID;
";

/// An act that is stored and about to be done.
pub struct Act {
    conn: Connection,
    db: PathBuf,
    ids: Vec<String>,
}

/// The effect on one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The source's name, or `unknown` if it is not a single source.
    pub source: String,
    /// The action and its count.
    pub what: String,
}

impl Act {
    /// Stores that `what` is about to be done. If [`Act::end`] is never called, this row is recorded in the log.
    ///
    /// # Errors
    /// When the database cannot be written: then the act must not be done.
    pub fn begin(db: &Path, what: &str) -> std::result::Result<Act, OpenError> {
        let conn = database::join(db, TABLE)?;
        let (id, db) = (reject_id(), db.to_owned());
        let begun =
            Done { source: UNKNOWN.to_owned(), what: format!("{what}: begun, but its end was not reported") };
        insert(&conn, &id, &begun, false).map_err(|error| OpenError::of(&db, error))?;
        Ok(Act { conn, db, ids: vec![id] })
    }

    /// Stores the effects, one record each. Without any, nothing is recorded.
    ///
    /// # Errors
    /// When the database cannot be written: then the act is recorded as begun.
    pub fn end(&mut self, done: &[Done]) -> std::result::Result<(), OpenError> {
        let ids: Vec<String> = done.iter().map(|_| reject_id()).collect();
        let end = || {
            let transaction = Transaction::new_unchecked(&self.conn, TransactionBehavior::Immediate)?;
            delete(&transaction, &self.ids)?;
            ids.iter().zip(done).try_for_each(|(id, done)| insert(&transaction, id, done, true))?;
            transaction.commit()
        };
        end().map_err(|error| OpenError::of(&self.db, error))?;
        self.ids = ids;
        Ok(())
    }

    /// Whether all records are in the log, synced, and deleted here.
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

/// Ended acts, and those whose command was probably killed: at most [`AT_ONCE`], oldest first.
pub(super) fn recordable(conn: &Connection, now: Timestamp) -> Result<Vec<Reject>> {
    let killed_before = now.as_microsecond() - i64::try_from(KILLED_AFTER.as_micros()).unwrap_or(i64::MAX);
    conn.prepare_cached(
        "SELECT id, at, source, what FROM operator_acts WHERE done OR at < ?1 ORDER BY at LIMIT ?2",
    )?
    .query_map(params![killed_before, AT_ONCE], |row| {
        let at = Timestamp::from_microsecond(row.get(1)?).unwrap_or(now);
        Ok(Reject::operator(row.get(0)?, at, &row.get::<_, String>(2)?, row.get(3)?))
    })?
    .collect()
}

pub(super) fn delete(conn: &Connection, ids: &[String]) -> Result<()> {
    let mut delete = conn.prepare_cached("DELETE FROM operator_acts WHERE id = ?1")?;
    ids.iter().try_for_each(|id| delete.execute([id]).map(drop))
}

/// Longer than a command takes. A command that takes longer leaves both records.
const KILLED_AFTER: Duration = Duration::from_secs(3600);
const AT_ONCE: i64 = 100;
