//! Reads the embedded queue for a consumer.
//!
//! Keeps true: it only reads, and sees only committed events. It holds no transaction open between two calls, so it
//! never keeps a running gateway from truncating its log.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use crate::durable::database::{self, OpenError};

/// Reads events in the order in which they entered.
pub struct Reader {
    pub(super) conn: Connection,
}

impl Reader {
    /// Opens the database, even while a gateway has it open.
    ///
    /// # Errors
    /// When there is no database, or it is not one of hookgate's.
    pub fn open(db: &Path) -> Result<Reader, OpenError> {
        database::pairing::check(db)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || {
            let conn = Connection::open_with_flags(db, flags)?;
            conn.busy_timeout(BUSY_TIMEOUT)?;
            conn.pragma_update(None, "cache_size", -512)?;
            let version = database::version(&conn)?;
            Ok((conn, version))
        };
        let (conn, version) = open().map_err(|error| OpenError::of(db, error))?;
        match version {
            database::VERSION => Ok(Reader { conn }),
            0 => Err(OpenError::Empty { db: db.to_owned() }),
            found => Err(OpenError::version(db, found)),
        }
    }

    /// Up to `limit` events after a cursor, oldest first, each with its own cursor. Cursor 0 is before all events.
    /// Purged events are skipped.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn after(&mut self, cursor: i64, limit: usize) -> Result<Vec<(i64, String)>, OpenError> {
        self.read(cursor, limit).map_err(|error| self.failed(error))
    }

    /// The number of events, and the cursor before the last `last` of them. Above 100,000 rows, the number includes
    /// dropped conflicts.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn end(&self, last: usize) -> Result<(u64, i64), OpenError> {
        self.read_end(last).map_err(|error| self.failed(error))
    }

    /// The event of a row; none if retention has deleted it.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn event(&self, row: i64) -> Result<Option<String>, OpenError> {
        let sql = "SELECT event FROM events WHERE seq = ?1 AND event IS NOT NULL";
        let read = || self.conn.prepare_cached(sql)?.query_row([row], |row| row.get(0)).optional();
        read().map_err(|error| self.failed(error))
    }

    pub(super) fn failed(&self, error: rusqlite::Error) -> OpenError {
        OpenError::of(Path::new(self.conn.path().unwrap_or_default()), error)
    }

    fn read_end(&self, last: usize) -> rusqlite::Result<(u64, i64)> {
        // Rows are numbered without gaps. The oldest rows have lost their event text, and a dropped conflict never had
        // one.
        let (newest, purged): (i64, i64) = self.conn.query_row(
            "SELECT coalesce((SELECT max(seq) FROM events), 0),
                max((SELECT value FROM meta WHERE name = 'blanked'), coalesce((SELECT min(seq) FROM events), 1) - 1)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let mut total = (newest - purged).max(0);
        if total <= COUNT_EXACTLY_UP_TO {
            let count = "SELECT count(*) FROM events WHERE seq > ?1 AND event IS NOT NULL";
            total = self.conn.query_row(count, [purged], |row| row.get(0))?;
        }
        let before =
            "SELECT seq FROM events WHERE seq > ?1 AND event IS NOT NULL ORDER BY seq DESC LIMIT 1 OFFSET ?2";
        let last = i64::try_from(last).unwrap_or(i64::MAX);
        let before = self.conn.query_row(before, [purged, last], |row| row.get(0)).optional()?;
        Ok((total.unsigned_abs(), before.unwrap_or(0)))
    }

    fn read(&self, cursor: i64, limit: usize) -> rusqlite::Result<Vec<(i64, String)>> {
        self.conn
            .prepare_cached(
                "SELECT seq, event FROM events WHERE seq > ?1 AND event IS NOT NULL ORDER BY seq LIMIT ?2",
            )?
            .query_map(params![cursor, limit.min(MAX_LIMIT) as i64], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect()
    }
}

const BUSY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);
/// The most events held in memory at once.
const MAX_LIMIT: usize = 10_000;
/// Counting more rows would take too long.
const COUNT_EXACTLY_UP_TO: i64 = 100_000;
