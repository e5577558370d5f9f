//! A database file, `hookgate.db` or `quarantine.db`: its lock, its settings, its version; and a thread that commits for many at once.
//!
//! Keeps true: one gateway at a time writes the file, and only a schema this build knows is opened. Each part brings its own
//! tables. The embedded inbox has a writer of its own; everything else goes through [`writer::Database`].

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
    /// It is to be used by a queue that would never look at what waits in it for another.
    #[error(
        "{} holds {waiting} events that were answered 200 and wait for the queue they were for: start once with that \
         queue, until its spool is empty",
        db.display()
    )]
    Spooled {
        /// The database.
        db: PathBuf,
        /// How many.
        waiting: i64,
    },
    /// Written by a later hookgate.
    #[error("{} has schema version {found}, this hookgate knows {VERSION}: run the newer one", db.display())]
    Newer {
        /// The database.
        db: PathBuf,
        /// Its version.
        found: i64,
    },
    /// A restore was cut short.
    #[error("{} is half restored: run `hookgate restore` with the same backup again", dir.display())]
    HalfRestored {
        /// The data folder.
        dir: PathBuf,
    },
    /// A file was put back without its log, beside the log of another one.
    #[error(
        "{} is not the log of {}: that file was put back beside it. Move {} away to start with what was put back; \
         `hookgate restore` does so by itself",
        log.display(), db.display(), log.display()
    )]
    ForeignLog {
        /// The database.
        db: PathBuf,
        /// The log.
        log: PathBuf,
    },
    /// The disk is full, or fails. It may be mended while a gateway runs.
    #[error("{}: {why}", db.display())]
    Disk {
        /// The database.
        db: PathBuf,
        /// As the system or SQLite says.
        why: String,
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
    pub fn of(db: &Path, error: rusqlite::Error) -> OpenError {
        let db = db.to_owned();
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => OpenError::NotADatabase { db },
            Some(ErrorCode::CannotOpen) => {
                let why = match db.try_exists() {
                    Ok(false) => "there is no such database yet".to_owned(),
                    Ok(true) => {
                        "it cannot be opened: look whether this user may read and write it".to_owned()
                    }
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

    /// A version that is not ours.
    pub fn version(db: &Path, found: i64) -> OpenError {
        let db = db.to_owned();
        if found > VERSION { OpenError::Newer { db, found } } else { OpenError::NotADatabase { db } }
    }
}

/// The schema this build writes and reads.
pub const VERSION: i64 = 1;

/// Takes the lock beside the database, `hookgate.lock` for `hookgate.db`; held as long as the file is.
///
/// # Errors
/// When another gateway has it, or the folder cannot be written.
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
    /// Bytes. Only a new database heeds it.
    pub page_size: u32,
    /// How much log gathers before it is moved into the database, in bytes.
    pub checkpoint_bytes: i64,
}

impl Default for Layout {
    fn default() -> Layout {
        Layout { page_size: 8192, checkpoint_bytes: 8 << 20 }
    }
}

/// Opens the database for writing; `tables` makes those that are not there yet. The caller holds the lock, and
/// tells the [`Pairing`] of each commit.
///
/// # Errors
/// When it cannot be written, is not a database this build knows, or lies beside the log of another one.
pub fn open(db: &Path, layout: Layout, tables: &str) -> Result<(Connection, Pairing), OpenError> {
    pairing::check(db)?;
    make_private(db)?;
    let failed = |error| OpenError::of(db, error);
    let begins = pairing::begins(db);
    let conn = connect(db, layout).map_err(failed)?;
    match version(&conn).map_err(failed)? {
        0 | VERSION => {
            let mark = pairing::mark();
            let create =
                format!("BEGIN IMMEDIATE;\n{tables}\nPRAGMA user_version = {VERSION};\n{mark}\nCOMMIT;");
            conn.execute_batch(&create).map_err(failed)?;
            if begins {
                pairing::set_apart(&conn);
                // So that the log begins, and is noted, before the first event.
                conn.execute_batch(&pairing::mark()).map_err(failed)?;
            }
            Ok((conn, Pairing::of(db)))
        }
        found => Err(OpenError::version(db, found)),
    }
}

/// A database as a command finds it.
#[derive(Debug)]
pub enum Found {
    /// It has the table. A wait for a gateway that writes is bounded.
    Table(Connection),
    /// It is ours, and has no such table.
    NoTable,
    /// Nothing has been written yet.
    Empty,
}

/// Opens the database for what a command does to `table`, whether or not a gateway has it open; makes nothing.
///
/// # Errors
/// When there is none, or it is not one of ours.
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

/// Opens a database that a gateway has made, beside that gateway or without one, and makes `tables` that are not there yet. It
/// needs no lock: SQLite keeps the writers of one file apart. A wait for another writer is bounded.
///
/// # Errors
/// When there is no database, no gateway has written it yet, it is not one of ours, or lies beside the log of another one.
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

/// Joins the database for small writes that nothing waits for, beside the connection that carries the events. A wait for another
/// writer is at most `busy`. Such a write is not synced by itself, so that it holds the write lock for a moment only: the next write
/// that syncs the file syncs it too, and a power failure may cost it.
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

/// Makes the file before SQLite does, so that payloads are its owner's alone; SQLite gives the log the same mode.
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
/// When the file cannot be read, or is no database.
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
    // The writer checkpoints by itself, between two batches; this is for when it could not for long.
    conn.pragma_update(
        None,
        "wal_autocheckpoint",
        16 * layout.checkpoint_bytes / i64::from(layout.page_size),
    )?;
    conn.pragma_update(None, "journal_size_limit", 4 * layout.checkpoint_bytes)?;
    Ok(conn)
}

/// The reason for a failure in few words, without paths or SQL: it may be seen outside.
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

/// SQLite's page cache. Larger gains nothing here: what is written is new, and what is read has been filtered.
const CACHE_KIB: i64 = 2048;
const BUSY: Duration = Duration::from_secs(1);
/// More than the other writers let gather, which move the log into the database at a better moment. It bounds the log of a gateway
/// without events.
const BESIDE_CHECKPOINT_PAGES: u32 = 2048;
/// A command has more time than a gateway.
const COMMAND_BUSY: Duration = Duration::from_secs(5);
