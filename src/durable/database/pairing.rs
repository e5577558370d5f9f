//! Detects a write-ahead log that does not belong to the database file beside it.
//!
//! SQLite applies a `-wal` file to whatever database lies beside it. Example: a gateway is killed, and its operator
//! copies a backup over `hookgate.db`. SQLite then replays the old log into the backup, which undoes or corrupts it.
//! SQLite cannot detect this, because the log's salts are stored only in the log.
//!
//! # Detection
//! In WAL mode only a checkpoint writes to the database file, and it writes pages from the log. One log lasts from one
//! reset to the next; a reset gives it new salts. During that time, the file's header is either the one from when the
//! log began, or that of a page 1 in the log. The gateway notes the first header and the salts in its lock file. A
//! database with any other header was put there by hand.
//!
//! A copy has a different header: `.backup`, `VACUUM INTO` and `hookgate backup` change the schema version. A log's
//! first transaction, and a start without a log, write a random mark into the header (`application_id`). So an earlier
//! copy, or the backup that the database was restored from, has another mark.
//!
//! # Doubtful cases pass
//! A wrong refusal keeps a gateway down, so a database is refused only if the note describes this very log. It passes
//! without a note, with a note for other salts, and when the log has no committed transaction. Other salts occur when
//! another process reset the log, a power failure lost the note, or the gateway was killed before it answered the log's
//! first commit.
//!
//! A crash at any point of a commit, a checkpoint or a reset leaves one of the two headers. So do other processes that
//! open the database, and copies of the whole folder: inodes and times do not count. One case is missed: a copy of the
//! database file alone, made by `cp` while a gateway runs and the same log lasts. That copy equals the file on disk,
//! and nothing is damaged.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::OpenError;
use crate::base::clock;
use crate::durable::data_dir;

/// Keeps the note for a database that is open for writing. Drop it after its connection.
pub struct Pairing {
    db: PathBuf,
    log: Option<File>,
    noted: Option<Salts>,
}

/// The salts of a log; every log has different ones.
type Salts = [u8; 8];

/// The header fields that tell copies apart: page count, free pages, schema version, `application_id`.
type Header = [u32; 4];

impl Pairing {
    /// Call after the database was opened and written to.
    pub(super) fn new(db: &Path) -> Pairing {
        let mut pairing = Pairing { db: db.to_owned(), log: None, noted: read_note(db).map(|note| note.0) };
        pairing.note();
        pairing
    }

    /// Call after each commit: notes a new log and marks the database.
    pub fn committed(&mut self, conn: &Connection) {
        if self.note()
            && let Err(error) = conn.execute_batch(&mark())
        {
            tracing::debug!(%error, "the database cannot be marked");
        }
    }

    /// Notes a new log, if there is one, and returns whether there was. A failure is harmless: without a note,
    /// [`check`] passes.
    fn note(&mut self) -> bool {
        if self.log.is_none() {
            self.log = File::open(log_of(&self.db)).ok();
        }
        let salts = self.log.as_ref().and_then(salts);
        if salts.is_none() || salts == self.noted {
            return false;
        }
        let Some(header) = header(&self.db) else { return false };
        // Another process may have reset the log meanwhile; then the header may belong to the newer log.
        if self.log.as_ref().and_then(self::salts) != salts {
            return false;
        }
        self.noted = salts;
        if let Some(salts) = salts
            && let Err(why) = write_note(&self.db, salts, header)
        {
            tracing::debug!(%why, "the database's log cannot be noted");
        }
        true
    }
}

/// The statement that writes a new random mark.
pub(super) fn mark() -> String {
    format!("PRAGMA application_id = {};", i32::from_ne_bytes(clock::random()))
}

/// Whether the database has no log: its gateway stopped cleanly, it was restored, or it is new.
pub(super) fn has_no_log(db: &Path) -> bool {
    log_of(db).metadata().map_or(true, |log| log.len() == 0)
}

/// Checkpoints the mark of this start into the file, so that earlier copies differ from it. A reader or a full disk may
/// prevent this.
pub(super) fn checkpoint_mark(conn: &Connection) {
    if let Err(error) = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
        tracing::debug!(%error, "the database's log stays as it was at the start");
    }
}

/// Refuses a database whose log belongs to another database file, or whose folder is half restored. Changes nothing.
///
/// # Errors
/// Names the log or the folder.
pub fn check(db: &Path) -> Result<(), OpenError> {
    if let Some(dir) = db.parent().filter(|dir| data_dir::restore_plan(dir).exists()) {
        return Err(OpenError::HalfRestored { dir: dir.to_owned() });
    }
    let log_file = log_of(db);
    let Ok(log) = File::open(&log_file) else { return Ok(()) };
    let Some((noted, began)) = read_note(db) else { return Ok(()) };
    if salts(&log) != Some(noted) {
        return Ok(());
    }
    let Some(now) = header(db).filter(|now| *now != began) else { return Ok(()) };
    let Ok(Some(headers)) = committed_headers(&log, noted) else { return Ok(()) };
    // A gateway that runs may have reset it meanwhile.
    if headers.contains(&now) || salts(&log) != Some(noted) || read_note(db) != Some((noted, began)) {
        return Ok(());
    }
    Err(OpenError::ForeignLog { db: db.to_owned(), log: log_file })
}

/// The path of a database's write-ahead log.
pub fn log_of(db: &Path) -> PathBuf {
    let mut name = db.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// Opens the file as it is on disk, without log or locks. Only for files that do not change meanwhile, or for readers
/// that tolerate changes.
pub(super) fn immutable(db: &Path) -> rusqlite::Result<Connection> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-_.".contains(byte);
    let path: String = (db.as_os_str().as_bytes().iter())
        .map(|byte| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02x}") })
        .collect();
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(format!("file:{path}?immutable=1"), flags)
}

/// Reads the header on disk through SQLite. Closing another handle of the file would release SQLite's locks in this
/// process ("How To Corrupt", section 2.2).
fn header(db: &Path) -> Option<Header> {
    let conn = immutable(db).ok()?;
    // Reads all fields from the same page 1.
    conn.execute_batch("BEGIN").ok()?;
    let mut header = [0; 4];
    for (field, pragma) in
        header.iter_mut().zip(["page_count", "freelist_count", "schema_version", "application_id"])
    {
        let value: i64 = conn.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0)).ok()?;
        // SQLite returns the mark as a signed 32-bit number.
        *field = value as u32;
    }
    Some(header)
}

/// The same fields of a page 1 in the log (file format, section 1.3).
fn header_of(page: &[u8; HEADER]) -> Header {
    [28, 36, 40, 68].map(|at| number(page, at))
}

/// Salt-1 and salt-2 of a log (file format, section 4.1).
fn salts(log: &File) -> Option<Salts> {
    let mut salts = [0; 8];
    log.read_exact_at(&mut salts, 16).ok()?;
    Some(salts)
}

/// The headers of every page 1 in a log; none if the log has no complete transaction.
fn committed_headers(log: &File, salts: Salts) -> io::Result<Option<Vec<Header>>> {
    let (mut start, mut frame) = ([0; LOG_HEADER], [0; FRAME_HEADER]);
    log.read_exact_at(&mut start, 0)?;
    let page_size = u64::from(number(&start, 8));
    let (mut at, mut headers, mut committed) = (LOG_HEADER as u64, Vec::new(), false);
    let end = log.metadata()?.len();
    while at + FRAME_HEADER as u64 + page_size <= end {
        log.read_exact_at(&mut frame, at)?;
        // The frames from here on are left over from an earlier log.
        if frame[8..16] != salts {
            break;
        }
        if number(&frame, 0) == 1 {
            let mut page = [0; HEADER];
            log.read_exact_at(&mut page, at + FRAME_HEADER as u64)?;
            headers.push(header_of(&page));
        }
        committed |= number(&frame, 4) != 0;
        at += FRAME_HEADER as u64 + page_size;
    }
    Ok(committed.then_some(headers))
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_be_bytes)
}

/// The note in the lock file, if it can be read.
fn read_note(db: &Path) -> Option<(Salts, Header)> {
    let text = std::fs::read_to_string(db.with_extension("lock")).ok()?;
    let mut words = text.strip_suffix('\n')?.strip_prefix(NOTE)?.split(' ');
    let salts = hex::decode(words.next()?).ok()?.try_into().ok()?;
    let mut header = [0; 4];
    for field in &mut header {
        *field = words.next()?.parse().ok()?;
    }
    words.next().is_none().then_some((salts, header))
}

fn write_note(db: &Path, salts: Salts, header: Header) -> io::Result<()> {
    let [pages, free, schema, mark] = header;
    let text = format!("{NOTE}{} {pages} {free} {schema} {mark}\n", hex::encode(salts));
    let file = OpenOptions::new().create(true).write(true).truncate(false).open(db.with_extension("lock"))?;
    // A partly written note cannot be read as a note: it does not end with a line break.
    file.set_len(0)?;
    file.write_all_at(text.as_bytes(), 0)
}

const NOTE: &str = "wal ";
const HEADER: usize = 100;
const LOG_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

#[cfg(test)]
mod tests;
