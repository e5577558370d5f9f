//! The database file: its lock, its settings and its tables.
//!
//! Keeps true: one gateway at a time writes it, and only a schema this build knows is opened.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, Result};

use super::Tuning;

/// Why the database cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the lock.
    #[error("{} is in use by another hookgate", db.display())]
    InUse {
        /// The database.
        db: PathBuf,
    },
    /// The folder or the file cannot be written (or, by a reader, read).
    #[error("{}: {why}", path.display())]
    Access {
        /// What.
        path: PathBuf,
        /// As the system says.
        why: String,
    },
    /// Some other file.
    #[error("{} is not a hookgate database", db.display())]
    NotADatabase {
        /// The file.
        db: PathBuf,
    },
    /// Nothing has been written yet.
    #[error("{} holds no events yet: no gateway has opened it", db.display())]
    Empty {
        /// The database.
        db: PathBuf,
    },
    /// Written by a later hookgate.
    #[error("{} has schema version {found}, this hookgate knows {VERSION}: run the newer one", db.display())]
    Newer {
        /// The database.
        db: PathBuf,
        /// Its version.
        found: i64,
    },
    /// Whatever else SQLite says.
    #[error("{}: {why}", db.display())]
    Store {
        /// The database.
        db: PathBuf,
        /// As SQLite says.
        why: String,
    },
}

impl OpenError {
    /// What an SQLite error means to an operator.
    pub(super) fn of(db: &Path, error: rusqlite::Error) -> OpenError {
        let db = db.to_owned();
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => OpenError::NotADatabase { db },
            Some(ErrorCode::CannotOpen) => OpenError::Access {
                path: db,
                why: "there is no such database yet, or it cannot be read".to_owned(),
            },
            Some(ErrorCode::ReadOnly) => OpenError::Access { path: db, why: "cannot be written".to_owned() },
            _ => OpenError::Store { db, why: error.to_string() },
        }
    }

    /// A version that is not ours.
    pub(super) fn version(db: &Path, found: i64) -> OpenError {
        let db = db.to_owned();
        if found > VERSION { OpenError::Newer { db, found } } else { OpenError::NotADatabase { db } }
    }
}

/// The schema this build writes and reads.
pub(super) const VERSION: i64 = 1;

/// Takes the lock beside the database; held as long as the file is.
pub(super) fn lock(db: &Path) -> Result<File, OpenError> {
    let path = db.with_file_name("hookgate.lock");
    let access = |error: std::io::Error| OpenError::Access { path: path.clone(), why: error.to_string() };
    let file = OpenOptions::new().create(true).write(true).truncate(false).open(&path).map_err(access)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { db: db.to_owned() }),
        Err(TryLockError::Error(error)) => Err(access(error)),
    }
}

/// Opens the database for writing, its tables made.
pub(super) fn open(db: &Path, tuning: &Tuning) -> Result<Connection, OpenError> {
    make_private(db)?;
    let conn = connect(db, tuning).map_err(|error| OpenError::of(db, error))?;
    match version(&conn).map_err(|error| OpenError::of(db, error))? {
        VERSION => Ok(conn),
        0 => match conn.execute_batch(&schema()) {
            Ok(()) => Ok(conn),
            Err(error) => Err(OpenError::of(db, error)),
        },
        found => Err(OpenError::version(db, found)),
    }
}

/// Makes the file before SQLite does, so that payloads are its owner's alone; SQLite gives the log the same mode.
fn make_private(db: &Path) -> Result<(), OpenError> {
    match OpenOptions::new().create_new(true).write(true).mode(0o600).open(db) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(OpenError::Access { path: db.to_owned(), why: error.to_string() }),
    }
}

/// The schema version; 0 for a new file.
pub(super) fn version(conn: &Connection) -> Result<i64> {
    conn.query_row("PRAGMA user_version", [], |row| row.get(0))
}

fn connect(db: &Path, tuning: &Tuning) -> Result<Connection> {
    let conn = Connection::open(db)?;
    conn.busy_timeout(BUSY)?;
    conn.set_prepared_statement_cache_capacity(64);
    conn.pragma_update(None, "page_size", tuning.page_size)?;
    conn.query_row("PRAGMA journal_mode = wal", [], |_| Ok(()))?;
    conn.pragma_update(None, "synchronous", "full")?;
    conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
    conn.pragma_update(None, "temp_store", "memory")?;
    // The writer checkpoints by itself, between two batches; this is for when it could not for long.
    conn.pragma_update(
        None,
        "wal_autocheckpoint",
        16 * tuning.checkpoint_bytes / i64::from(tuning.page_size),
    )?;
    conn.pragma_update(None, "journal_size_limit", 4 * tuning.checkpoint_bytes)?;
    Ok(conn)
}

fn schema() -> String {
    let blocks: String = (0..super::run::LEVELS)
        .map(|level| format!("CREATE TABLE blocks{level} (id INTEGER PRIMARY KEY, entries BLOB NOT NULL);\n"))
        .collect();
    format!("BEGIN IMMEDIATE;\n{TABLES}{blocks}PRAGMA user_version = {VERSION};\nCOMMIT;")
}

// `event` stands last: what looks a row up by its key then never reads the pages of a long event.
const TABLES: &str = "
CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    identity BLOB NOT NULL,
    body BLOB NOT NULL,
    received INTEGER NOT NULL,
    state INTEGER NOT NULL,
    id TEXT NOT NULL,
    type TEXT NOT NULL,
    source TEXT NOT NULL,
    first_body BLOB,
    first_id TEXT,
    event TEXT
);
CREATE TABLE runs (
    run INTEGER PRIMARY KEY,
    level INTEGER NOT NULL,
    state INTEGER NOT NULL,
    lines INTEGER NOT NULL,
    entries INTEGER NOT NULL DEFAULT 0,
    blocks INTEGER NOT NULL DEFAULT 0,
    max_seq INTEGER NOT NULL DEFAULT 0,
    max_received INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE filters (id INTEGER PRIMARY KEY, bits BLOB NOT NULL, fences BLOB NOT NULL);
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('flushed', 0), ('blanked', 0), ('probe', 0);
";

/// SQLite's page cache. Larger gains nothing here: what is written is new, and what is read has been filtered.
const CACHE_KIB: i64 = 2048;
const BUSY: Duration = Duration::from_secs(1);
