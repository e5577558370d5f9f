//! What is still to be shipped, read from the log's files.
//!
//! Keeps true: no record is passed over but those that are counted as lost; a line that somebody else put there does not keep
//! the gateway's from being given out, once each and in order; where the log is not the one that was shipped, all that is kept
//! is shipped anew. One at a time ships a log. A batch is bounded.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::cursor::{self, Link};
use crate::audit::position::{At, Position};

/// A record as it is shipped.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) seq: u64,
    pub(super) ts: String,
    pub(super) source: String,
    pub(super) reason: String,
    pub(super) status: u16,
    prev: String,
    hash: String,
    /// As it stands in the log, without its line break.
    pub(super) text: String,
}

impl Line {
    pub(super) fn link(&self) -> Link {
        Link { seq: self.seq, hash: self.hash.clone() }
    }

    fn read(text: &[u8]) -> Option<Line> {
        /// Records of later versions are shipped too.
        #[derive(Deserialize)]
        struct Fields {
            seq: u64,
            ts: String,
            source: String,
            reason: String,
            status: u16,
            prev: String,
            hash: String,
        }
        let Fields { seq, ts, source, reason, status, prev, hash } = serde_json::from_slice(text).ok()?;
        let text = String::from_utf8(text.to_owned()).ok()?;
        Some(Line { seq, ts, source, reason, status, prev, hash, text })
    }
}

/// The next records.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) lines: Vec<Line>,
    /// Records that should have stood before or among them.
    pub(super) lost: u64,
    /// Lines before, among or behind them that are no records of the gateway's.
    pub(super) strays: u64,
    /// The number before the first of them; where there are none, the last one given out.
    pub(super) before: u64,
}

/// The log and how far it was shipped.
pub(super) struct Lines {
    dir: PathBuf,
    /// None until the log is read for the first time, and after a failure.
    place: Option<Place>,
    /// Held as long as this lives, once it is taken: one reader writes how far it came.
    lock: Option<File>,
}

struct Place {
    position: Position,
    /// The last record given out; none for none.
    last: Option<Link>,
    /// The line read last, if it was not given out.
    passed: Option<Passed>,
    /// Strays since the last record.
    strays: u64,
}

/// A line that was passed over.
enum Passed {
    Unreadable,
    /// Its record stands in no chain with what was given out.
    Other(Link),
}

/// What a line is to the one who ships.
enum Is {
    /// The next record.
    Next,
    /// No news.
    Old,
    /// No record of the gateway's, as far as the chain and the files' names tell.
    Stray,
}

impl Lines {
    pub(super) fn new(dir: &Path) -> Lines {
        Lines { dir: dir.to_owned(), place: None, lock: None }
    }

    /// Whether it is this one's turn: false while another ships this log.
    pub(super) fn lock(&mut self) -> io::Result<bool> {
        let mut options = OpenOptions::new();
        let path = self.dir.join(LOCK);
        let file = options.create(true).truncate(false).write(true).mode(0o600).open(path)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(why)) => return Err(why),
            Ok(()) => self.lock = Some(file),
        }
        Ok(true)
    }

    /// The next records, none after `upto`. What was given out before has reached the receiver.
    pub(super) fn read(&mut self, upto: u64) -> io::Result<Batch> {
        let mut place = match self.place.take() {
            Some(place) => place,
            None => Place::find(&self.dir, upto)?,
        };
        let batch = place.read(&self.dir, upto)?;
        self.place = Some(place);
        Ok(batch)
    }

    /// The receiver has all up to here.
    pub(super) fn reached(&mut self, link: &Link) -> io::Result<()> {
        cursor::write(&self.dir, link)
    }
}

impl Place {
    fn new(position: Position, last: Option<Link>) -> Place {
        Place { position, last, passed: None, strays: 0 }
    }

    /// Behind the record that was shipped last. At the beginning where none was, or where this log has another one in its place
    /// or ends before it.
    fn find(dir: &Path, upto: u64) -> io::Result<Place> {
        let Some(last) = cursor::read(dir)? else { return Ok(Place::new(Position::default(), None)) };
        let begin = Position::before(dir, last.seq)?;
        let (mut position, mut found, mut other) = (begin.clone(), false, last.seq > upto);
        if !other {
            position.advance_at(dir, |at, text| {
                if found || at.file.first_seq > last.seq {
                    return Ok(ControlFlow::Break(()));
                }
                if let Some(line) = Line::read(text).filter(|line| line.seq == last.seq) {
                    found = line.hash == last.hash;
                    other |= !found;
                }
                Ok(ControlFlow::Continue(()))
            })?;
        }
        if found {
            return Ok(Place::new(position, Some(last)));
        }
        if other {
            tracing::warn!(
                "the reject log is not the one that was shipped; all that is kept of it is shipped again"
            );
            return Ok(Place::new(Position::default(), None));
        }
        // Deleted or unreadable by now.
        Ok(Place::new(begin, Some(last)))
    }

    /// The next batch.
    fn read(&mut self, dir: &Path, upto: u64) -> io::Result<Batch> {
        let Place { position, last, passed, strays } = self;
        let (mut batch, mut bytes) = (Batch::default(), 0);
        position.advance_at(dir, |at, text| {
            if batch.lines.len() == MAX_LINES || bytes > MAX_BYTES {
                return Ok(ControlFlow::Break(()));
            }
            let Some(line) = Line::read(text) else {
                // If it was a record, that shows in the number of the next one.
                *passed = Some(Passed::Unreadable);
                return Ok(ControlFlow::Continue(()));
            };
            match is(&line, at, last.as_ref(), passed.as_ref()) {
                Is::Next if line.seq > upto => return Ok(ControlFlow::Break(())),
                Is::Next => {
                    // What was deleted before anything was shipped was never to be.
                    let gap = last.as_ref().map_or(0, |last| line.seq - last.seq - 1);
                    batch.lost += gap.saturating_sub(*strays);
                    bytes += text.len();
                    (*last, *passed, *strays) = (Some(line.link()), None, 0);
                    batch.lines.push(line);
                }
                Is::Old => *passed = Some(Passed::Other(line.link())),
                Is::Stray => {
                    batch.strays += 1;
                    *strays += 1;
                    *passed = Some(Passed::Other(line.link()));
                }
            }
            Ok(ControlFlow::Continue(()))
        })?;
        let first = batch.lines.first().map(|line| line.seq.saturating_sub(1));
        batch.before = first.or(last.as_ref().map(|last| last.seq)).unwrap_or(0);
        Ok(batch)
    }
}

/// Whoever can write to the log's files can put a line there. The gateway then goes on in a new file, whose number tells that the
/// line is none of its records; where it wrote at the same moment, the chain tells.
fn is(line: &Line, at: At<'_>, last: Option<&Link>, passed: Option<&Passed>) -> Is {
    if last.is_some_and(|last| line.seq <= last.seq) {
        return Is::Old;
    }
    if line.seq < at.file.first_seq || at.end.is_some_and(|end| line.seq >= end) {
        return Is::Stray;
    }
    let follows = |link: &Link| line.prev == link.hash && line.seq.checked_sub(1) == Some(link.seq);
    // Two in a row that belong together end a gap: else a single stray could hide all that comes after it in its file.
    let ends_gap = match passed {
        Some(Passed::Unreadable) => true,
        Some(Passed::Other(other)) => follows(other),
        None => false,
    };
    if at.first || ends_gap || last.is_some_and(follows) { Is::Next } else { Is::Stray }
}

/// Lines of a batch.
const MAX_LINES: usize = 500;
/// Bytes of a batch, but for its last line.
const MAX_BYTES: usize = 1024 * 1024;
const LOCK: &str = ".shipping";
