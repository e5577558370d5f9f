//! The end of the chain on disk: appends records, rotates files, and deletes expired ones.
//!
//! Keeps true: the head moves only after the records are completely written. A failed write leaves no partial line that
//! a later one could follow. All files together stay within `max_bytes`. The file with the head is never deleted.

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

/// The log, open for appending.
pub(super) struct Journal {
    dir: PathBuf,
    limits: Options,
    clock: Clock,
    /// Held as long as the journal lives: one writer per directory.
    lock: File,
    head: Head,
    current: Option<Current>,
    unsynced: bool,
    /// Makes anchors, if configured.
    key: Option<Key>,
    /// When the next anchor must be written. None without a key, or if an anchor covers all records.
    anchor_by: Option<Instant>,
    anchors: u64,
}

/// The file that records are appended to.
struct Current {
    log: LogFile,
    /// The length of its complete records; bytes after that are from a failed write.
    len: u64,
    /// None after a failure: a new file handle may work again.
    file: Option<File>,
}

impl Journal {
    /// Continues the chain in `dir`, and cuts off a partly written record.
    pub(super) fn open(dir: &Path, options: Options, clock: Clock) -> Result<Journal, OpenError> {
        let failed = |why| OpenError::Io { path: dir.to_owned(), why };
        let lock = match lock(dir) {
            Err(TryLockError::WouldBlock) => return Err(OpenError::Held(dir.to_owned())),
            Err(TryLockError::Error(why)) => return Err(failed(why)),
            Ok(lock) => lock,
        };
        let (head, current) = recover(dir).map_err(failed)?;
        // Two files must fit beside the older ones: the current one, and the next one before the oldest is deleted.
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
        journal.delete_expired();
        Ok(journal)
    }

    /// Enables anchors. Records after the last anchor are anchored at once: the gateway accepts them by continuing the
    /// chain.
    pub(super) fn with_anchors(self, key: Key) -> Journal {
        let anchor_by = (self.head.unanchored > 0).then(clock::instant);
        Journal { key: Some(key), anchor_by, ..self }
    }

    /// Appends records. Also returns how many were written before an error.
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

    /// When [`Journal::anchor`] must be called.
    pub(super) fn anchor_by(&self) -> Option<Instant> {
        self.anchor_by
    }

    /// Appends an anchor, if there are unanchored records. After an error the next try is due in a second.
    pub(super) fn anchor(&mut self) -> io::Result<()> {
        let (Some(key), Some(_)) = (self.key.clone(), self.anchor_by) else { return Ok(()) };
        let result = self.append_anchor(&key);
        if result.is_err() {
            self.anchor_by = Some(clock::instant() + ANCHOR_RETRY);
        }
        result
    }

    /// How many anchors were written since the last call.
    pub(super) fn take_anchors(&mut self) -> u64 {
        std::mem::take(&mut self.anchors)
    }

    /// The number of the last written record.
    pub(super) fn last_seq(&self) -> u64 {
        self.head.seq
    }

    /// The last written record.
    pub(super) fn mark(&self) -> Mark {
        Mark { seq: self.head.seq, hash: self.head.hash.clone() }
    }

    /// Whether written records are not synced yet.
    pub(super) fn unsynced(&self) -> bool {
        self.unsynced
    }

    pub(super) fn sync(&mut self) -> io::Result<()> {
        if let Some(Current { file: Some(file), .. }) = &self.current {
            file.sync_data()?;
        }
        self.unsynced = false;
        Ok(())
    }

    /// Deletes the oldest files while the total is too large or they have expired.
    pub(super) fn delete_expired(&self) {
        if let Err(why) = self.try_delete_expired() {
            tracing::warn!(%why, "cannot delete old files of the reject log");
        }
    }

    /// Writes as many of `entries` as fit into the current file. Returns 0 if a new file must begin first.
    fn append_to_one_file(&mut self, entries: &[Aggregate]) -> io::Result<usize> {
        self.check_current()?;
        let len = self.current.as_ref().map_or(0, |current| current.len);
        let sealed = self.seal(entries, self.limits.file_bytes.saturating_sub(len), len == 0)?;
        if sealed.count == 0 {
            self.close_current()?;
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
            sealed.push_anchor(key, self.clock.now())?;
            if len > 0 && len + sealed.text.len() as u64 > self.limits.file_bytes {
                self.close_current()?;
                continue;
            }
            return self.commit(sealed);
        }
    }

    /// Seals as many entries as fit into `room`. In a new file the first entry always fits.
    fn seal(&self, entries: &[Aggregate], room: u64, begins: bool) -> io::Result<Sealed> {
        let (mut sealed, now) = (Sealed::after(&self.head), self.clock.now());
        for entry in entries {
            let mut more = Sealed::after(&sealed.head);
            let first = begins && sealed.count == 0;
            more.push_entry(entry, self.key.as_ref(), now, first)?;
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

    /// Writes sealed lines and moves the head.
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
            self.sync_new_file();
        }
        Ok(())
    }

    /// Closes the current file if it is too old, or is no longer the file that we wrote.
    fn check_current(&mut self) -> io::Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let log = &current.log;
        let ours = match &current.file {
            Some(file) => is_at(file, &log.path) && file.metadata()?.len() == current.len,
            None => reopen(current)?,
        };
        if !ours {
            // The chain continues in a new file. The changed file stays for `audit verify`.
            tracing::warn!(file = %current.log.name(), "a reject log file was moved or changed by others");
            (self.current, self.unsynced) = (None, false);
            return Ok(());
        }
        // Only after the check above, which also removes the rest of a failed write.
        if current.len > 0 && older(current.log.started, self.limits.file_age, self.clock.now()) {
            return self.close_current();
        }
        Ok(())
    }

    /// Closes the current file, even if it cannot be synced: otherwise the log could not continue.
    fn close_current(&mut self) -> io::Result<()> {
        let synced = self.sync();
        (self.current, self.unsynced) = (None, false);
        synced
    }

    /// Creates a new file for the next record.
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

    /// Root may record its acts while no gateway runs. The gateway must then be able to append to that file.
    fn give_to_owner(&self, file: &File) {
        if let (Ok(ours), Ok(dir)) = (file.metadata(), self.dir.metadata())
            && (ours.uid(), ours.gid()) != (dir.uid(), dir.gid())
        {
            // Only root can do this. A file whose group differs is harmless.
            let _ = fchown(file, Some(dir.uid()), Some(dir.gid()));
        }
    }

    /// Writes complete lines, or nothing.
    fn write(&mut self, text: &str) -> io::Result<()> {
        let Some(current) = &mut self.current else { return Err(io::ErrorKind::NotFound.into()) };
        let Some(mut file) = current.file.as_ref() else { return Err(io::ErrorKind::NotFound.into()) };
        if let Err(why) = file.write_all(text.as_bytes()) {
            // If this fails too, `reopen` repeats it.
            let _ = file.set_len(current.len);
            current.file = None;
            return Err(why);
        }
        current.len += text.len() as u64;
        Ok(())
    }

    /// Call after a file's first records. They must be on disk before an older file is deleted, or a crash could lose
    /// the head. The next sync repeats a failed one.
    fn sync_new_file(&mut self) {
        let settled = self.sync().and_then(|()| File::open(&self.dir)?.sync_all());
        match settled {
            Ok(()) => self.delete_expired(),
            Err(why) => {
                tracing::warn!(%why, "cannot sync the reject log");
                self.unsynced = true;
            }
        }
    }

    fn try_delete_expired(&self) -> io::Result<()> {
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

    /// Whether the last record of a file, and so all of it, has expired.
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

/// Reopens the current file and cuts off the rest of a failed write. False if the file was changed by others.
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

/// Creates the directory and takes its lock, which ends with the process.
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

/// Whether the open `file` is still the one at `path`.
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
/// Earlier than a minute, because the disk may be slow.
const ANCHOR_AFTER: Duration = Duration::from_secs(55);
const ANCHOR_RETRY: Duration = Duration::from_secs(1);

#[cfg(test)]
pub(super) mod tests;
