//! Copies a database consistently, whether or not a gateway writes to it meanwhile.
//!
//! Keeps true: the copy is the database as of one commit, and SQLite has checked it. The gateway does not wait for the
//! copy.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::{OpenError, VERSION, pairing, version};

/// Why a copy failed.
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
        /// The system's or SQLite's error.
        why: String,
    },
    /// SQLite's check found the database damaged.
    #[error("{} is damaged: {what}", db.display())]
    Damaged {
        /// The database.
        db: PathBuf,
        /// The first damage that SQLite found.
        what: String,
    },
}

/// Copies `db` to the new file `to`, readable by its owner only, and syncs it.
///
/// # Errors
/// When the database cannot be read or is damaged, or the copy cannot be written. A partial copy is not deleted.
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

/// Copies in one step, so that all pages belong to one commit.
fn copy_pages(source: &Connection, to: &Path) -> rusqlite::Result<()> {
    let mut copy = Connection::open(to)?;
    // An unfinished copy is deleted, so it needs no journal, and one sync at the end is enough.
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

/// The first damage that SQLite finds in the copy.
fn damage(copy: &Path) -> rusqlite::Result<Option<String>> {
    let found: String = pairing::immutable(copy)?.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    Ok((found != "ok").then_some(found))
}

const BUSY: Duration = Duration::from_secs(5);
const TRIES: u32 = 50;
const BETWEEN: Duration = Duration::from_millis(100);
