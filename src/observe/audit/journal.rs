//! The chain's end on disk: appends records, rotates files, deletes what is past its time.
//!
//! Keeps true: the chain's head moves only when the records are wholly written; a failed write leaves no part
//! of a line behind that a later one could follow; all files together stay within `max_bytes`, and the file
//! that holds the head is never deleted.

mod recovery;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::base::clock::{self, Clock};

use super::anchor::Key;
use super::files::{LogFile, last_record, list};
use super::rate_limiter::Aggregate;
use super::sealed::{Head, Sealed};
use super::{Mark, OpenError, Options};
use recovery::recover;

/// The log, opened to append.
pub(super) struct Journal {
    dir: PathBuf,
    limits: Options,
    clock: Clock,
    /// Held as long as the journal lives: one writer a directory.
    lock: File,
    head: Head,
    current: Option<Current>,
    unsynced: bool,
    /// What anchors are made with, if there are any.
    key: Option<Key>,
    /// When the next anchor must be written: none while one vouches for all there is, or without a key.
    anchor_by: Option<Instant>,
    anchors: u64,
}

/// The file that is appended to.
struct Current {
    log: LogFile,
    /// Of whole records; what lies behind is of a failed write.
    len: u64,
    /// None after a failure: whatever was wrong may be gone with a new handle.
    file: Option<File>,
}

impl Journal {
    /// Continues the chain in `dir`. What a crash left of a record is cut off.
    pub(super) fn open(dir: &Path, options: Options, clock: Clock) -> Result<Journal, OpenError> {
        let failed = |why| OpenError::Io { path: dir.to_owned(), why };
        let lock = match lock(dir) {
            Err(TryLockError::WouldBlock) => return Err(OpenError::Held(dir.to_owned())),
            Err(TryLockError::Error(why)) => return Err(failed(why)),
            Ok(lock) => lock,
        };
        let (head, current) = recover(dir).map_err(failed)?;
        // Two files must fit beside the kept ones: the current, and the next before the oldest is deleted.
        let limits = Options { file_bytes: options.file_bytes.min(options.max_bytes / 4), ..options };
        let journal = Journal {
            dir: dir.to_owned(),
            limits,
            clock,
            lock,
            head,
            current,
            unsynced: false,
            key: None,
            anchor_by: None,
            anchors: 0,
        };
        journal.sweep();
        Ok(journal)
    }

    /// With anchors. What stands behind the last one is vouched for at once: whoever goes on writing it vouches for it.
    pub(super) fn anchored(self, key: Key) -> Journal {
        let anchor_by = (self.head.unanchored > 0).then(clock::instant);
        Journal { key: Some(key), anchor_by, ..self }
    }

    /// Appends records; tells how many were written before one failed.
    pub(super) fn append(&mut self, entries: &[Aggregate]) -> (usize, io::Result<()>) {
        let mut done = 0;
        while done < entries.len() {
            match self.append_to_one_file(&entries[done..]) {
                Ok(count) => done += count,
                Err(why) => return (done, Err(why)),
            }
        }
        (done, Ok(()))
    }

    /// When [`Journal::anchor`] is due.
    pub(super) fn anchor_by(&self) -> Option<Instant> {
        self.anchor_by
    }

    /// Appends an anchor, if there is anything that none vouches for. After a failure it is due again in a second.
    pub(super) fn anchor(&mut self) -> io::Result<()> {
        let (Some(key), Some(_)) = (self.key.clone(), self.anchor_by) else { return Ok(()) };
        let result = self.append_anchor(&key);
        if result.is_err() {
            self.anchor_by = Some(clock::instant() + ANCHOR_AGAIN);
        }
        result
    }

    /// How many anchors were written since this was asked last.
    pub(super) fn take_anchors(&mut self) -> u64 {
        std::mem::take(&mut self.anchors)
    }

    /// The number of the last record written.
    pub(super) fn last_seq(&self) -> u64 {
        self.head.seq
    }

    /// The last record written.
    pub(super) fn mark(&self) -> Mark {
        Mark { seq: self.head.seq, hash: self.head.hash.clone() }
    }

    /// Whether something is written and not yet synced.
    pub(super) fn unsynced(&self) -> bool {
        self.unsynced
    }

    /// Syncs what was written.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if let Some(Current { file: Some(file), .. }) = &self.current {
            file.sync_data()?;
        }
        self.unsynced = false;
        Ok(())
    }

    /// Deletes the oldest files while they are too many bytes or past their time.
    pub(super) fn sweep(&self) {
        if let Err(why) = self.try_sweep() {
            tracing::warn!(%why, "cannot delete old files of the reject log");
        }
    }

    /// As many of `entries` as fit into the current file; none when a new one must begin first.
    fn append_to_one_file(&mut self, entries: &[Aggregate]) -> io::Result<usize> {
        self.check_current()?;
        let len = self.current.as_ref().map_or(0, |current| current.len);
        let sealed = self.seal(entries, self.limits.file_bytes.saturating_sub(len), len == 0)?;
        if sealed.count == 0 {
            self.retire()?;
            return Ok(0);
        }
        let count = sealed.count;
        self.commit(sealed)?;
        Ok(count)
    }

    fn append_anchor(&mut self, key: &Key) -> io::Result<()> {
        loop {
            self.check_current()?;
            let len = self.current.as_ref().map_or(0, |current| current.len);
            let mut sealed = Sealed::after(&self.head);
            sealed.anchor(key, self.clock.now())?;
            if len > 0 && len + sealed.text.len() as u64 > self.limits.file_bytes {
                self.retire()?;
                continue;
            }
            return self.commit(sealed);
        }
    }

    /// Seals as many entries as `room` takes; the first one anyway where a file begins.
    fn seal(&self, entries: &[Aggregate], room: u64, begins: bool) -> io::Result<Sealed> {
        let (mut sealed, now) = (Sealed::after(&self.head), self.clock.now());
        for entry in entries {
            let mut more = Sealed::after(&sealed.head);
            let first = begins && sealed.count == 0;
            more.entry(entry, self.key.as_ref(), now, first)?;
            if (sealed.text.len() + more.text.len()) as u64 > room && !first {
                break;
            }
            sealed.text.push_str(&more.text);
            sealed.count += more.count;
            sealed.anchors += more.anchors;
            sealed.head = more.head;
        }
        Ok(sealed)
    }

    /// Writes what is sealed; the chain's head moves with it.
    fn commit(&mut self, sealed: Sealed) -> io::Result<()> {
        if self.current.is_none() {
            self.begin()?;
        }
        let begins = self.current.as_ref().is_some_and(|current| current.len == 0);
        self.write(&sealed.text)?;
        self.unsynced = true;
        self.anchors += sealed.anchors;
        self.head = sealed.head;
        if sealed.anchors > 0 || self.head.unanchored == 0 {
            self.anchor_by = None;
        }
        if self.key.is_some() && self.head.unanchored > 0 {
            self.anchor_by.get_or_insert_with(|| clock::instant() + ANCHOR_AFTER);
        }
        if begins {
            self.settle();
        }
        Ok(())
    }

    /// Ends a current file that is too old, or no longer the file it was.
    fn check_current(&mut self) -> io::Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let log = &current.log;
        let ours = match &current.file {
            Some(file) => is_at(file, &log.path) && file.metadata()?.len() == current.len,
            None => reopen(current)?,
        };
        if !ours {
            // Whoever did it, the chain goes on in a new file and leaves what is there for `audit verify`.
            tracing::warn!(file = %current.log.name(), "a reject log file was moved or changed by others");
            (self.current, self.unsynced) = (None, false);
            return Ok(());
        }
        // Only now: a file that ends must first be rid of what a failed write left in it.
        if current.len > 0 && older(current.log.started, self.limits.file_age, self.clock.now()) {
            return self.retire();
        }
        Ok(())
    }

    /// Ends the current file. It is left behind even when it cannot be synced, or nothing would follow it.
    fn retire(&mut self) -> io::Result<()> {
        let synced = self.sync();
        (self.current, self.unsynced) = (None, false);
        synced
    }

    /// Begins a new file for the next record.
    fn begin(&mut self) -> io::Result<()> {
        if !is_at(&self.lock, &self.dir.join(LOCK)) {
            self.lock = lock(&self.dir)?;
        }
        let log = LogFile::new(&self.dir, self.head.seq + 1, self.clock.now());
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&log.path)?;
        if file.metadata()?.len() != 0 {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "the next file of the reject log is there",
            ));
        }
        self.give_to_owner(&file);
        self.current = Some(Current { log, len: 0, file: Some(file) });
        Ok(())
    }

    /// Root may record what it did while no gateway runs: the gateway must be able to go on in that file.
    fn give_to_owner(&self, file: &File) {
        if let (Ok(ours), Ok(dir)) = (file.metadata(), self.dir.metadata())
            && (ours.uid(), ours.gid()) != (dir.uid(), dir.gid())
        {
            // Only root may. Another one's group that differs is no matter.
            let _ = fchown(file, Some(dir.uid()), Some(dir.gid()));
        }
    }

    /// Writes whole lines, or nothing.
    fn write(&mut self, text: &str) -> io::Result<()> {
        let Some(current) = &mut self.current else { return Err(io::ErrorKind::NotFound.into()) };
        let Some(mut file) = current.file.as_ref() else { return Err(io::ErrorKind::NotFound.into()) };
        if let Err(why) = file.write_all(text.as_bytes()) {
            // Should this fail too, `reopen` does it.
            let _ = file.set_len(current.len);
            current.file = None;
            return Err(why);
        }
        current.len += text.len() as u64;
        Ok(())
    }

    /// After a file's first records: they must be on disk before an older file may go, since without either
    /// the chain's head would be lost. A failure here is found again by the next sync.
    fn settle(&mut self) {
        let settled = self.sync().and_then(|()| File::open(&self.dir)?.sync_all());
        match settled {
            Ok(()) => self.sweep(),
            Err(why) => {
                tracing::warn!(%why, "cannot sync the reject log");
                self.unsynced = true;
            }
        }
    }

    fn try_sweep(&self) -> io::Result<()> {
        let current = self.current.as_ref().map(|current| &current.log.path);
        let mut closed = Vec::new();
        for log in list(&self.dir)? {
            if Some(&log.path) != current {
                closed.push((log.path.metadata()?.len(), log));
            }
        }
        let mut bytes: u64 = closed.iter().map(|(len, _)| len).sum();
        let room = self.limits.max_bytes.saturating_sub(2 * self.limits.file_bytes);
        for (len, log) in closed {
            if bytes <= room && !self.past_retain(&log)? {
                return Ok(());
            }
            fs::remove_file(&log.path)?;
            bytes -= len;
        }
        Ok(())
    }

    /// Whether even the last record of a file is past its time.
    fn past_retain(&self, log: &LogFile) -> io::Result<bool> {
        let now = self.clock.now();
        if !older(log.started, self.limits.retain, now) {
            return Ok(false);
        }
        let last = last_record(&fs::read(&log.path)?).1;
        let last: Option<Timestamp> = last.and_then(|last| last.ts.parse().ok());
        Ok(last.is_none_or(|last| older(last, self.limits.retain, now)))
    }
}

/// Opens the current file again and cuts off what a failed write left; false when it is not as we left it.
fn reopen(current: &mut Current) -> io::Result<bool> {
    let file = match OpenOptions::new().append(true).open(&current.log.path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened?,
    };
    let len = file.metadata()?.len();
    if len < current.len {
        return Ok(false);
    }
    if len > current.len {
        file.set_len(current.len)?;
    }
    current.file = Some(file);
    Ok(true)
}

/// Makes the directory and takes its lock, which goes with the process.
pub(super) fn lock(dir: &Path) -> Result<File, TryLockError> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(why) if why.kind() != io::ErrorKind::AlreadyExists => return Err(TryLockError::Error(why)),
        _ => {}
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(dir.join(LOCK))
        .map_err(TryLockError::Error)?;
    file.try_lock()?;
    Ok(file)
}

/// Whether `file` is what stands at `path` now.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), path.metadata()) {
        (Ok(held), Ok(there)) => (held.dev(), held.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn older(at: Timestamp, than: Duration, now: Timestamp) -> bool {
    u64::try_from(now.as_second() - at.as_second()).is_ok_and(|seconds| seconds >= than.as_secs())
}

const LOCK: &str = ".lock";
/// A little early: the disk may take its time.
const ANCHOR_AFTER: Duration = Duration::from_secs(55);
const ANCHOR_AGAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
pub(super) mod tests;
