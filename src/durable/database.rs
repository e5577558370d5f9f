//! A database file (`hookgate.db` or `quarantine.db`): lock, settings, schema version, and a thread that batches
//! commits.
//!
//! Keeps true: one gateway at a time writes the file, and only a schema that this build knows is opened. Each part
//! brings its own tables. The embedded inbox has its own writer; everything else writes through [`writer::Database`].

pub mod copy;
pub mod pairing;
pub mod writer;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, Error, ErrorCode, OpenFlags};

use pairing::Pairing;

/// Why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the lock.
    #[error("{} is in use by another hookgate", db.display())]
    InUse {
        /// The database.
        db: PathBuf,
    },
    /// The folder or the file cannot be written; for a reader, cannot be read.
    #[error("{}: {why}", path.display())]
    Access {
        /// The folder or file.
        path: PathBuf,
        /// The system's error.
        why: String,
    },
    /// The file is no database, or another program's.
    #[error("{} is not a hookgate database", db.display())]
    NotADatabase {
        /// The file.
        db: PathBuf,
    },
    /// No gateway has written to it yet.
    #[error("{} holds no events yet: no gateway has opened it", db.display())]
    Empty {
        /// The database.
        db: PathBuf,
    },
    /// The embedded queue would use this database, but events in its spool wait for another queue.
    #[error(
        "{} holds {waiting} events that were answered 200 and wait for another queue: start once with that \
         queue, until its spool is empty",
        db.display()
    )]
    Spooled {
        /// The database.
        db: PathBuf,
        /// How many.
        waiting: i64,
    },
    /// A later hookgate wrote it.
    #[error("{} has schema version {found}, this hookgate knows {VERSION}: run the newer one", db.display())]
    Newer {
        /// The database.
        db: PathBuf,
        /// Its schema version.
        found: i64,
    },
    /// A restore was interrupted.
    #[error("{} is half restored: run `hookgate restore` with the same backup again", dir.display())]
    HalfRestored {
        /// The data folder.
        dir: PathBuf,
    },
    /// The write-ahead log beside the database belongs to another database file.
    #[error(
        "{} is not the log of {}: the database file was replaced. To start with the replaced file, move {} away; \
         `hookgate restore` does that for you",
        log.display(), db.display(), log.display()
    )]
    ForeignLog {
        /// The database.
        db: PathBuf,
        /// The log.
        log: PathBuf,
    },
    /// The disk is full or fails. It may recover while the gateway runs.
    #[error("{}: {why}", db.display())]
    Disk {
        /// The database.
        db: PathBuf,
        /// The system's or SQLite's error.
        why: String,
    },
    /// Any other SQLite error.
    #[error("{}: {why}", db.display())]
    Store {
        /// The database.
        db: PathBuf,
        /// SQLite's error.
        why: String,
    },
}

impl OpenError {
    /// Translates an SQLite error for the operator.
    pub fn of(db: &Path, error: rusqlite::Error) -> OpenError {
        let db = db.to_owned();
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => OpenError::NotADatabase { db },
            Some(ErrorCode::CannotOpen) => {
                let why = match db.try_exists() {
                    Ok(false) => "there is no such database yet".to_owned(),
                    Ok(true) => "it cannot be opened: check that this user may read and write it".to_owned(),
                    Err(why) => why.to_string(),
                };
                OpenError::Access { path: db, why }
            }
            Some(ErrorCode::ReadOnly) => OpenError::Access { path: db, why: "cannot be written".to_owned() },
            Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure) => {
                OpenError::Disk { db, why: error.to_string() }
            }
            _ => OpenError::Store { db, why: error.to_string() },
        }
    }

    /// The error for a schema version that this build does not know.
    pub fn version(db: &Path, found: i64) -> OpenError {
        let db = db.to_owned();
        if found > VERSION { OpenError::Newer { db, found } } else { OpenError::NotADatabase { db } }
    }
}

/// The schema this build writes and reads.
pub const VERSION: i64 = 1;

/// Takes the lock file beside the database: `hookgate.lock` for `hookgate.db`. The lock lasts as long as the returned
/// file is open.
///
/// # Errors
/// When another gateway holds the lock, or the folder cannot be written.
pub fn lock(db: &Path) -> Result<File, OpenError> {
    let path = db.with_extension("lock");
    let access = |error: std::io::Error| OpenError::Access { path: path.clone(), why: error.to_string() };
    let file = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(access)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { db: db.to_owned() }),
        Err(TryLockError::Error(error)) => Err(access(error)),
    }
}

/// How the file is laid out and synced.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// In bytes. Applies only to a new database.
    pub page_size: u32,
    /// The log's size, in bytes, at which it is checkpointed into the database.
    pub checkpoint_bytes: i64,
}

impl Default for Layout {
    fn default() -> Layout {
        Layout { page_size: 8192, checkpoint_bytes: 8 << 20 }
    }
}

/// Opens the database for writing and creates missing `tables`. The caller holds the lock, and calls
/// [`Pairing::committed`] after each commit.
///
/// # Errors
/// When it cannot be written, this build does not know it, or the log beside it belongs to another database.
pub fn open(db: &Path, layout: Layout, tables: &str) -> Result<(Connection, Pairing), OpenError> {
    pairing::check(db)?;
    make_private(db)?;
    let failed = |error| OpenError::of(db, error);
    let new_log = pairing::has_no_log(db);
    let conn = connect(db, layout).map_err(failed)?;
    match version(&conn).map_err(failed)? {
        0 | VERSION => {
            let mark = pairing::mark();
            let create =
                format!("BEGIN IMMEDIATE;\n{tables}\nPRAGMA user_version = {VERSION};\n{mark}\nCOMMIT;");
            conn.execute_batch(&create).map_err(failed)?;
            if new_log {
                pairing::checkpoint_mark(&conn);
                // So that the log exists, and its note is written, before the first event.
                conn.execute_batch(&pairing::mark()).map_err(failed)?;
            }
            Ok((conn, Pairing::new(db)))
        }
        found => Err(OpenError::version(db, found)),
    }
}

/// A database opened by a command.
#[derive(Debug)]
pub enum Found {
    /// The table exists. Waiting for a gateway's writes is bounded.
    Table(Connection),
    /// It is a hookgate database without that table.
    NoTable,
    /// No gateway has written to it yet.
    Empty,
}

/// Opens the database for a command that uses `table`, whether or not a gateway has it open. Creates nothing.
///
/// # Errors
/// When there is none, or it is not a hookgate database.
pub fn find(db: &Path, table: &str) -> Result<Found, OpenError> {
    pairing::check(db)?;
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(db, flags)?;
        conn.busy_timeout(COMMAND_BUSY)?;
        let (version, has) = (version(&conn)?, conn.table_exists(None, table)?);
        Ok((conn, version, has))
    };
    let (conn, version, has) = open().map_err(|error| OpenError::of(db, error))?;
    match version {
        VERSION if has => Ok(Found::Table(conn)),
        VERSION => Ok(Found::NoTable),
        0 => Ok(Found::Empty),
        found => Err(OpenError::version(db, found)),
    }
}

/// Opens an existing database, with or without a running gateway, and creates missing `tables`. Needs no lock file:
/// SQLite separates the writers. Waiting for another writer is bounded.
///
/// # Errors
/// When there is no database, no gateway has written it yet, it is not a hookgate database, or its log belongs to
/// another one.
pub fn join(db: &Path, tables: &str) -> Result<Connection, OpenError> {
    pairing::check(db)?;
    let failed = |error| OpenError::of(db, error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(db, flags).map_err(failed)?;
    conn.busy_timeout(COMMAND_BUSY).map_err(failed)?;
    match version(&conn).map_err(failed)? {
        VERSION => {
            conn.execute_batch(tables).map_err(failed)?;
            Ok(conn)
        }
        0 => Err(OpenError::Empty { db: db.to_owned() }),
        found => Err(OpenError::version(db, found)),
    }
}

/// Like [`join`], for small writes beside the connection that carries the events. Waits at most `busy` for another
/// writer. A commit here does not sync, so it holds the write lock briefly. The next syncing commit syncs it too; a
/// power failure before that may lose it.
///
/// # Errors
/// As for [`join`].
pub fn join_beside(db: &Path, tables: &str, busy: Duration) -> Result<Connection, OpenError> {
    let conn = join(db, tables)?;
    let settings = format!(
        "PRAGMA synchronous = normal; PRAGMA cache_size = -256; PRAGMA wal_autocheckpoint = {BESIDE_CHECKPOINT_PAGES};"
    );
    let set = conn.busy_timeout(busy).and_then(|()| conn.execute_batch(&settings));
    set.map_err(|error| OpenError::of(db, error))?;
    Ok(conn)
}

/// Creates the file before SQLite does, readable by its owner only. SQLite gives the log the same mode.
fn make_private(db: &Path) -> Result<(), OpenError> {
    match OpenOptions::new().create_new(true).write(true).mode(0o600).open(db) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == ErrorKind::StorageFull => {
            Err(OpenError::Disk { db: db.to_owned(), why: error.to_string() })
        }
        Err(error) => Err(OpenError::Access { path: db.to_owned(), why: error.to_string() }),
    }
}

/// The schema version; 0 for a new file.
///
/// # Errors
/// When the file cannot be read, or is not a database.
pub fn version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.query_row("PRAGMA user_version", [], |row| row.get(0))
}

fn connect(db: &Path, layout: Layout) -> rusqlite::Result<Connection> {
    let conn = Connection::open(db)?;
    conn.busy_timeout(BUSY)?;
    conn.set_prepared_statement_cache_capacity(64);
    conn.pragma_update(None, "page_size", layout.page_size)?;
    conn.query_row("PRAGMA journal_mode = wal", [], |_| Ok(()))?;
    conn.pragma_update(None, "synchronous", "full")?;
    conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
    conn.pragma_update(None, "temp_store", "memory")?;
    // The writer checkpoints between batches. This limit applies only when it could not for a long time.
    conn.pragma_update(
        None,
        "wal_autocheckpoint",
        16 * layout.checkpoint_bytes / i64::from(layout.page_size),
    )?;
    conn.pragma_update(None, "journal_size_limit", 4 * layout.checkpoint_bytes)?;
    Ok(conn)
}

/// A short reason without paths or SQL, because clients may see it.
pub fn reason(error: &Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "no space left for the database",
        Some(ErrorCode::ReadOnly) => "the database is read-only",
        Some(ErrorCode::SystemIoFailure) => "the disk failed",
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => "the database is damaged",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "another process holds the database",
        _ => "the database failed",
    }
}

/// SQLite's page cache. A larger one gains nothing: written rows are new, and a filter answers most reads.
const CACHE_KIB: i64 = 2048;
const BUSY: Duration = Duration::from_secs(1);
/// Higher than the limits of the other writers, which checkpoint at a better moment. It bounds the log of a gateway
/// without events.
const BESIDE_CHECKPOINT_PAGES: u32 = 2048;
/// A command may wait longer than a gateway.
const COMMAND_BUSY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_carries_events_syncs_each_commit() {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("hookgate.db");
        let (conn, _pairing) = open(&db, Layout::default(), "CREATE TABLE IF NOT EXISTS t (a);").unwrap();
        let Found::Table(found) = find(&db, "t").unwrap() else { panic!("the table exists") };
        for conn in [conn, found, join(&db, "").unwrap()] {
            let level: i64 = conn.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
            assert_eq!(level, SYNCHRONOUS_FULL);
        }
    }

    /// What SQLite calls `FULL`: with `NORMAL`, a power failure may lose the latest commits.
    const SYNCHRONOUS_FULL: i64 = 2;
}
