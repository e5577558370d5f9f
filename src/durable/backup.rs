//! Backups of the data folder: every store is copied, with or without a running gateway, and can be restored for a
//! stopped one.
//!
//! Keeps true: each copy is its store as of one moment. The order of the copies ensures that every answered event is in
//! at least one of them. A backup is valid only with its list, which is written last. Making one changes nothing in the
//! data folder. A backup has no secrets: those belong to the config, also `quarantine.key`.
//!
//! `manifest`: the list. `restore`: restores a backup. `plan`: the moves of a restore, which can continue after an
//! interruption.

mod manifest;
mod plan;
mod restore;

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::durable::data_dir;
use crate::durable::database::copy::{CopyError, copy};
use crate::durable::database::{OpenError, pairing};
use crate::observe::audit;
pub use manifest::{Entry, Manifest};
pub use restore::{RestoreError, Restored, restore};

/// A store of the data folder, by its path there.
struct Store {
    path: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// An SQLite file.
    Database,
    /// A file that is only ever replaced as a whole.
    File,
    /// The folder of the reject log.
    Log,
}

/// In copy order. A request leaves the quarantine after the queue has its event, so at least one copy has it.
/// `hookgate.db` knows the log's head and must not be ahead of the copied log, so the log comes last.
const STORES: [Store; 4] = [
    Store { path: "quarantine.db", kind: Kind::Database },
    Store { path: "hookgate.db", kind: Kind::Database },
    Store { path: "subscriptions.json", kind: Kind::File },
    Store { path: AUDIT, kind: Kind::Log },
];
const AUDIT: &str = "audit";

/// Why no backup was made.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// No gateway has run on this data folder.
    #[error("data_dir: {} holds nothing to back up yet: no gateway has run on it", .0.display())]
    Nothing(PathBuf),
    /// The target folder is not empty.
    #[error("{} is not empty: name a new folder. A backup without {} is incomplete", .0.display(), manifest::FILE)]
    NotEmpty(PathBuf),
    /// A restore into the data folder was interrupted, or a database's log belongs to another one.
    #[error("data_dir: {0}")]
    DataDir(#[from] OpenError),
    /// A database cannot be copied.
    #[error("no backup was made: {0}")]
    Copy(#[from] CopyError),
    /// A file cannot be read or written.
    #[error("no backup was made: {}: {why}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        why: io::Error,
    },
}

/// Copies every store of `data_dir` into the folder `to`, which must be missing or empty. After an error no partial
/// backup is left.
///
/// # Errors
/// When there is nothing to copy, `to` is not empty, a store cannot be read, or the copy cannot be written.
pub fn back_up(data_dir: &Path, to: &Path, now: Timestamp) -> Result<Manifest, BackupError> {
    pairing::check(&data_dir::database_file(data_dir))?;
    let mut stores = Vec::new();
    for store in &STORES {
        let path = data_dir.join(store.path);
        // A store that this user cannot access is an error, not a missing store.
        if path.try_exists().map_err(|why| BackupError::Io { path, why })? {
            stores.push(store);
        }
    }
    if stores.is_empty() {
        return Err(BackupError::Nothing(data_dir.to_owned()));
    }
    let mut copies = Copies::into(to)?;
    for store in stores {
        let from = data_dir.join(store.path);
        match store.kind {
            Kind::Database => copies.database(&from, store.path)?,
            Kind::File => copies.file(&from, store.path)?,
            Kind::Log => copies.log(&from)?,
        }
    }
    copies.finish(now)
}

/// A backup in progress. Dropping it before it is finished deletes it.
struct Copies<'a> {
    to: &'a Path,
    made: bool,
    entries: Vec<Entry>,
    finished: bool,
}

impl<'a> Copies<'a> {
    fn into(to: &'a Path) -> Result<Copies<'a>, BackupError> {
        let failed = |why| BackupError::Io { path: to.to_owned(), why };
        let made = !to.exists();
        if made {
            DirBuilder::new().recursive(true).mode(0o700).create(to).map_err(failed)?;
        } else if fs::read_dir(to).map_err(failed)?.next().is_some() {
            return Err(BackupError::NotEmpty(to.to_owned()));
        }
        let copies = Copies { to, made, entries: Vec::new(), finished: false };
        fs::set_permissions(to, Permissions::from_mode(0o700)).map_err(failed)?;
        Ok(copies)
    }

    fn database(&mut self, from: &Path, path: &str) -> Result<(), BackupError> {
        self.begin(path)?;
        copy(from, &self.to.join(path))?;
        let copied = File::open(self.to.join(path)).and_then(|mut file| manifest::digest(&mut file));
        let (bytes, sha256) = copied.map_err(|why| BackupError::Io { path: self.to.join(path), why })?;
        self.entries.push(Entry { path: path.to_owned(), bytes, sha256 });
        Ok(())
    }

    fn file(&mut self, from: &Path, path: &str) -> Result<(), BackupError> {
        match File::open(from) {
            // Deleted since it was listed.
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(why) => Err(BackupError::Io { path: from.to_owned(), why }),
            Ok(mut file) => self.put(path, &mut file),
        }
    }

    /// Copies the reject log up to its last complete record. All files are opened first, so that retention cannot
    /// delete one in between. If one is gone, the older ones are dropped too, or the chain would have a gap.
    fn log(&mut self, from: &Path) -> Result<(), BackupError> {
        let failed = |why| BackupError::Io { path: from.to_owned(), why };
        let mut opened = Vec::new();
        for log in audit::files::list(from).map_err(failed)? {
            match File::open(&log.path) {
                Ok(file) => opened.push((log.name(), file)),
                Err(why) if why.kind() == io::ErrorKind::NotFound => opened.clear(),
                Err(why) => return Err(BackupError::Io { path: log.path, why }),
            }
        }
        for (name, file) in opened {
            let failed = |why| BackupError::Io { path: from.join(&name), why };
            // Only up to the current length, because a gateway may keep appending.
            let length = file.metadata().map_err(failed)?.len();
            let mut bytes = Vec::new();
            file.take(length).read_to_end(&mut bytes).map_err(failed)?;
            let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            if whole > 0 {
                self.put(&format!("{AUDIT}/{name}"), &mut bytes.get(..whole).unwrap_or_default())?;
            }
        }
        for path in audit::files::unreadable(from).map_err(failed)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.file(&path, &format!("{AUDIT}/{name}"))?;
        }
        Ok(())
    }

    fn put(&mut self, path: &str, from: &mut impl Read) -> Result<(), BackupError> {
        self.begin(path)?;
        let to = self.to.join(path);
        let (bytes, sha256) = write(&to, from).map_err(|why| BackupError::Io { path: to, why })?;
        self.entries.push(Entry { path: path.to_owned(), bytes, sha256 });
        Ok(())
    }

    /// Creates the parent folder of the file.
    fn begin(&self, path: &str) -> Result<(), BackupError> {
        let Some(folder) = self.to.join(path).parent().map(Path::to_owned) else { return Ok(()) };
        make_private(&folder).map_err(|why| BackupError::Io { path: folder, why })
    }

    fn finish(mut self, taken: Timestamp) -> Result<Manifest, BackupError> {
        let manifest = Manifest::new(taken, std::mem::take(&mut self.entries));
        let audit = self.to.join(AUDIT);
        let finish = || {
            if audit.is_dir() {
                sync(&audit)?;
            }
            manifest.write(self.to)?;
            // The backup folder's name is stored in its parent folder.
            sync(self.to.canonicalize()?.parent().unwrap_or(Path::new("/")))
        };
        if let Err(why) = finish() {
            self.entries = manifest.files;
            return Err(BackupError::Io { path: self.to.to_owned(), why });
        }
        self.finished = true;
        Ok(manifest)
    }
}

impl Drop for Copies<'_> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // Files that cannot be removed have no list, so they are no valid backup.
        let paths = self.entries.iter().map(|entry| entry.path.as_str());
        let databases = STORES.iter().filter(|store| store.kind != Kind::Log).map(|store| store.path);
        for path in paths.chain(databases) {
            let _ = fs::remove_file(self.to.join(path));
        }
        manifest::remove(self.to);
        // The log's last file may have no entry yet.
        for log in audit::files::list(&self.to.join(AUDIT)).unwrap_or_default() {
            let _ = fs::remove_file(log.path);
        }
        let _ = fs::remove_dir(self.to.join(AUDIT));
        if self.made {
            let _ = fs::remove_dir(self.to);
        }
    }
}

/// Writes a new file, readable by its owner only, and syncs it. Returns its length and SHA-256.
fn write(to: &Path, from: &mut impl Read) -> io::Result<(u64, String)> {
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(to)?;
    let mut tee = Tee { from, file: &mut file };
    let digest = manifest::digest(&mut tee)?;
    file.sync_all()?;
    Ok(digest)
}

/// A reader that also writes everything it reads to a file.
struct Tee<'a, R> {
    from: &'a mut R,
    file: &'a mut File,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.file.write_all(buffer.get(..read).unwrap_or_default())?;
        Ok(read)
    }
}

fn make_private(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(why) if why.kind() != io::ErrorKind::AlreadyExists => Err(why),
        _ => Ok(()),
    }
}

/// Syncs a folder's entries.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
