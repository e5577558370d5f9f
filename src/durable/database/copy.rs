//! A consistent copy of a database, whether or not a gateway writes to it meanwhile.
//!
//! Keeps true: the copy is the database as of one commit, and was looked through; the gateway does not wait for it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::{OpenError, VERSION, pairing, version};

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The database cannot be read.
    #[error(transparent)]
    Source(#[from] OpenError),
    /// The copy cannot be written.
    #[error("cannot write {}: {why}", path.display())]
    Write {
        /// The copy.
        path: PathBuf,
        /// As the system or SQLite says.
        why: String,
    },
    /// SQLite's check found the database damaged.
    #[error("{} is damaged: {what}", db.display())]
    Damaged {
        /// The database.
        db: PathBuf,
        /// What SQLite found first.
        what: String,
    },
}

/// Copies `db` to the new file `to`, for its owner alone, and syncs it.
///
/// # Errors
/// When the database cannot be read or is damaged, or the copy cannot be written. What there is of the copy is left.
pub fn copy(db: &Path, to: &Path) -> Result<(), CopyError> {
    pairing::check(db)?;
    let source = open(db)?;
    let write = |why: String| CopyError::Write { path: to.to_owned(), why };
    let made = OpenOptions::new().create_new(true).write(true).mode(0o600).open(to);
    made.map_err(|why| write(why.to_string()))?;
    copy_pages(&source, to).map_err(|error| write(error.to_string()))?;
    let damage = damage(to).map_err(|error| write(error.to_string()))?;
    if let Some(what) = damage {
        return Err(CopyError::Damaged { db: db.to_owned(), what });
    }
    File::open(to).and_then(|file| file.sync_all()).map_err(|why| write(why.to_string()))
}

fn open(db: &Path) -> Result<Connection, OpenError> {
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(db, flags)?;
        conn.busy_timeout(BUSY)?;
        let version = version(&conn)?;
        Ok((conn, version))
    };
    match open().map_err(|error| OpenError::of(db, error))? {
        (conn, 0 | VERSION) => Ok(conn),
        (_, found) => Err(OpenError::version(db, found)),
    }
}

/// In one step, so that all of it is of one commit and none is copied twice.
fn copy_pages(source: &Connection, to: &Path) -> rusqlite::Result<()> {
    let mut copy = Connection::open(to)?;
    // A copy that is not finished is thrown away: it needs no journal, and is synced once at the end.
    copy.execute_batch("PRAGMA journal_mode = off; PRAGMA synchronous = off;")?;
    let backup = Backup::new(source, &mut copy)?;
    let mut tries = 0;
    loop {
        match backup.step(-1)? {
            StepResult::Done => return Ok(()),
            StepResult::Busy | StepResult::Locked if tries == TRIES => {
                return Err(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
                    None,
                ));
            }
            _ => {
                tries += 1;
                std::thread::sleep(BETWEEN);
            }
        }
    }
}

/// What SQLite finds wrong with the copy.
fn damage(copy: &Path) -> rusqlite::Result<Option<String>> {
    let found: String = pairing::immutable(copy)?.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    Ok((found != "ok").then_some(found))
}

const BUSY: Duration = Duration::from_secs(5);
const TRIES: u32 = 50;
const BETWEEN: Duration = Duration::from_millis(100);
