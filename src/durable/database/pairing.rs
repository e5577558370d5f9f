//! Whether the write-ahead log beside a database is that database's own.
//!
//! SQLite applies a `-wal` file to whatever database lies beside it. After a gateway was killed, a copy put back over
//! `hookgate.db` would so become the newer state again, or a mixture that is malformed. SQLite itself cannot tell: the log's
//! salts stand in the log alone.
//!
//! # How it is told
//! Only a checkpoint writes to the database file in WAL mode, and what it writes are pages out of the log. While one log lasts
//! (between two resets, which give it new salts), the header of the database file is therefore either the one that it had when
//! the log began, or that of a page 1 that stands in the log. A gateway notes the first of these, with the salts, in the file
//! of its lock. A database whose header is neither was put there by hand.
//!
//! The header of a copy differs: `.backup`, `VACUUM INTO` and `hookgate backup` give it another schema version. A log's first
//! transaction, and a start without a log, write a random mark into it (`application_id`): a copy of an earlier time, or the
//! backup that the database was restored from, has another mark.
//!
//! # Doubtful cases pass
//! A wrong refusal keeps a gateway down, so a database is refused only where the note is about this very log. There is no
//! verdict when there is no note, when it names other salts (another process has reset the log, the note was lost with the
//! power, or the gateway was killed before it answered the log's first commit), and when nothing in the log is committed. A crash at any point of a commit, a checkpoint or a reset leaves one of
//! the two headers; so do other processes that open the database, and copies of the whole folder: inodes and times do not
//! count. What may be missed is a copy of the database file alone, made by `cp` while a gateway runs and the same log lasts: it is
//! the file as the gateway has left it, and nothing is damaged.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::OpenError;
use crate::base::clock;
use crate::durable::data_dir;

/// Keeps the note of a database that is open to write. To be dropped after its connection.
pub struct Pairing {
    db: PathBuf,
    log: Option<File>,
    noted: Option<Salts>,
}

/// The salts of a log, which differ from those of every other log.
type Salts = [u8; 8];

/// The fields of a database's header that tell copies and times apart: page count, pages in the free list, schema version,
/// `application_id`.
type Header = [u32; 4];

impl Pairing {
    /// Of a database that was just opened and written to.
    pub(super) fn of(db: &Path) -> Pairing {
        let mut pairing = Pairing { db: db.to_owned(), log: None, noted: read_note(db).map(|note| note.0) };
        pairing.note();
        pairing
    }

    /// To be called after each commit: notes a log that has begun anew, and marks the database.
    pub fn committed(&mut self, conn: &Connection) {
        if self.note()
            && let Err(error) = conn.execute_batch(&mark())
        {
            tracing::debug!(%error, "the database cannot be marked");
        }
    }

    /// Whether there was a new log to note. A failure is no harm: without a note there is no verdict.
    fn note(&mut self) -> bool {
        if self.log.is_none() {
            self.log = File::open(log_of(&self.db)).ok();
        }
        let salts = self.log.as_ref().and_then(salts);
        if salts.is_none() || salts == self.noted {
            return false;
        }
        let Some(header) = header(&self.db) else { return false };
        // Another process may have reset it meanwhile; then the header may be of that one's time.
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

/// The statement that gives the database a mark of its own time.
pub(super) fn mark() -> String {
    format!("PRAGMA application_id = {};", i32::from_ne_bytes(clock::random()))
}

/// Whether a database has no log yet: its gateway was stopped, it was restored, or it is new.
pub(super) fn begins(db: &Path) -> bool {
    log_of(db).metadata().map_or(true, |log| log.len() == 0)
}

/// Brings the mark of a start into the database file, so that no copy made before this start is taken for it. A reader, or a full
/// disk, may leave the file as it was.
pub(super) fn set_apart(conn: &Connection) {
    if let Err(error) = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
        tracing::debug!(%error, "the database's log stays as it was at the start");
    }
}

/// Refuses a database that lies beside the log of another one, or of another time, or in a half restored folder. Changes
/// nothing.
///
/// # Errors
/// Names the log, or the folder.
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

/// The write-ahead log of a database.
pub fn log_of(db: &Path) -> PathBuf {
    let mut name = db.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// Opens the file as it is on disk, without its log, locks or any change. Only for what does not change meanwhile, or whose
/// reader can bear it.
pub(super) fn immutable(db: &Path) -> rusqlite::Result<Connection> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-_.".contains(byte);
    let path: String = (db.as_os_str().as_bytes().iter())
        .map(|byte| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02x}") })
        .collect();
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(format!("file:{path}?immutable=1"), flags)
}

/// The header on disk. It is read through SQLite, since closing any other handle of the file would release the locks that
/// SQLite holds on it for this process ("How To Corrupt", section 2.2).
fn header(db: &Path) -> Option<Header> {
    let conn = immutable(db).ok()?;
    // All of it out of one reading of page 1.
    conn.execute_batch("BEGIN").ok()?;
    let mut header = [0; 4];
    for (field, pragma) in
        header.iter_mut().zip(["page_count", "freelist_count", "schema_version", "application_id"])
    {
        let value: i64 = conn.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0)).ok()?;
        // SQLite reads the mark as a signed number of 32 bits.
        *field = value as u32;
    }
    Some(header)
}

/// The same fields of a page 1 (file format, section 1.3).
fn header_of(page: &[u8; HEADER]) -> Header {
    [28, 36, 40, 68].map(|at| number(page, at))
}

/// Salt-1 and salt-2 of a log (file format, section 4.1).
fn salts(log: &File) -> Option<Salts> {
    let mut salts = [0; 8];
    log.read_exact_at(&mut salts, 16).ok()?;
    Some(salts)
}

/// The headers of every page 1 in a log; none where no transaction in it is complete.
fn committed_headers(log: &File, salts: Salts) -> io::Result<Option<Vec<Header>>> {
    let (mut start, mut frame) = ([0; LOG_HEADER], [0; FRAME_HEADER]);
    log.read_exact_at(&mut start, 0)?;
    let page_size = u64::from(number(&start, 8));
    let (mut at, mut headers, mut committed) = (LOG_HEADER as u64, Vec::new(), false);
    let end = log.metadata()?.len();
    while at + FRAME_HEADER as u64 + page_size <= end {
        log.read_exact_at(&mut frame, at)?;
        // What follows is what an earlier time has left.
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

/// What a gateway has noted last; none where nothing can be read.
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
    // Nothing in between can be read as another note: it has no line break at its end.
    file.set_len(0)?;
    file.write_all_at(text.as_bytes(), 0)
}

const NOTE: &str = "wal ";
const HEADER: usize = 100;
const LOG_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

#[cfg(test)]
mod tests;
