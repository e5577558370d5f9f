//! Backups of the data folder: every store of it, copied while a gateway runs or not, and put back into a stopped one's.
//!
//! Keeps true: each copy is its store as of one moment, and taken in an order in which nothing that was answered is in none of
//! them; a backup counts only once its list is there, which is written last; nothing in the data folder is changed by making
//! one. No secret is in it: those are the config's, `quarantine.key` among them.
//!
//! `manifest`: the list. `restore`: the way back. `plan`: the moves of a restore, which can be cut short and gone on with.

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

/// What a data folder holds that is worth keeping, by its path in it.
struct Store {
    path: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// An SQLite file.
    Database,
    /// A file that is only ever replaced whole.
    File,
    /// The folder of the reject log.
    Log,
}

/// In the order in which they are copied. A request leaves the quarantine once the queue has its event, so that it is in one of
/// the two copies or in both. `hookgate.db` may know how far the log reaches, and may not be ahead of the copied log.
const STORES: [Store; 4] = [
    Store { path: "quarantine.db", kind: Kind::Database },
    Store { path: "hookgate.db", kind: Kind::Database },
    Store { path: "subscriptions.json", kind: Kind::File },
    Store { path: AUDIT, kind: Kind::Log },
];
const AUDIT: &str = "audit";

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// No gateway has run there.
    #[error("data_dir: {} holds nothing to back up yet: no gateway has run on it", .0.display())]
    Nothing(PathBuf),
    /// Something is there already.
    #[error("{} is not empty: name a new folder. A backup that was cut short is one without {}", .0.display(), manifest::FILE)]
    NotEmpty(PathBuf),
    /// A restore into the data folder was cut short, or a database lies beside the log of another.
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
        /// What the system said.
        why: io::Error,
    },
}

/// Copies every store of `data_dir` into the folder `to`, which is made, or is empty. On an error nothing of it is left.
///
/// # Errors
/// When there is nothing to copy, `to` is not empty, a store cannot be read, or the copy cannot be written.
pub fn back_up(data_dir: &Path, to: &Path, now: Timestamp) -> Result<Manifest, BackupError> {
    pairing::check(&data_dir::database_file(data_dir))?;
    let mut stores = Vec::new();
    for store in &STORES {
        let path = data_dir.join(store.path);
        // What this user may not look at is no reason to leave it out.
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

/// A backup that is being made. Dropped before it is finished, it takes away what there is of it.
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
            // Gone since it was looked for.
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(why) => Err(BackupError::Io { path: from.to_owned(), why }),
            Ok(mut file) => self.put(path, &mut file),
        }
    }

    /// The reject log up to its last whole record. All files are opened before the first is copied, so that none is deleted in
    /// between; where one was gone before that, so was what is older, or there would be a gap in the chain.
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
            // No more than the file's length now: a gateway may append without end.
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

    /// Makes the folder that the file is to be in.
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
            // The folder's own name is in the one above.
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
        // What cannot be removed has no list beside it, and so is no backup.
        let paths = self.entries.iter().map(|entry| entry.path.as_str());
        let databases = STORES.iter().filter(|store| store.kind != Kind::Log).map(|store| store.path);
        for path in paths.chain(databases) {
            let _ = fs::remove_file(self.to.join(path));
        }
        manifest::remove(self.to);
        // The last one of the log may be there without an entry.
        for log in audit::files::list(&self.to.join(AUDIT)).unwrap_or_default() {
            let _ = fs::remove_file(log.path);
        }
        let _ = fs::remove_dir(self.to.join(AUDIT));
        if self.made {
            let _ = fs::remove_dir(self.to);
        }
    }
}

/// Writes a new file, for its owner alone, and syncs it. Gives its length and SHA-256.
fn write(to: &Path, from: &mut impl Read) -> io::Result<(u64, String)> {
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(to)?;
    let mut tee = Tee { from, file: &mut file };
    let digest = manifest::digest(&mut tee)?;
    file.sync_all()?;
    Ok(digest)
}

/// A reader that copies all that it reads into a file.
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

/// Syncs the names in a folder.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
