//! Restores a backup into the data folder of a stopped gateway.
//!
//! Keeps true: nothing changes before the whole backup was read and matches its list. The restore holds the gateway's
//! locks, so no gateway can run. Old files move aside together with their logs. After an interruption the data folder
//! is unchanged, or counts as half restored and is refused until the restore runs again.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::manifest::{self, Entry, Manifest};
use super::plan::{Plan, staged};
use super::{AUDIT, Kind, STORES, make_private, write};
use crate::durable::data_dir;
use crate::durable::database::{self, OpenError};
use crate::observe::audit;

/// The result of a restore.
#[derive(Debug)]
pub struct Restored {
    /// The backup's list.
    pub manifest: Manifest,
    /// The folder with the old files; none if there were none.
    pub aside: Option<PathBuf>,
}

/// Why a restore failed.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// There is no such folder.
    #[error("{}: there is no backup there", .0.display())]
    NoBackup(PathBuf),
    /// The backup was interrupted, or the folder is not a backup.
    #[error("{} is not a complete backup: it has no {}, which is written last", .0.display(), manifest::FILE)]
    Unfinished(PathBuf),
    /// A file differs from the backup's list.
    #[error("{}: {what}; nothing was restored", path.display())]
    Altered {
        /// The file.
        path: PathBuf,
        /// The difference.
        what: String,
    },
    /// Another process has the data folder.
    #[error("a gateway runs on {}: stop it first; nothing was restored", .0.display())]
    Running(PathBuf),
    /// The data folder cannot be locked.
    #[error("{0}; nothing was restored")]
    Database(OpenError),
    /// A file cannot be read or written. The data folder is unchanged.
    #[error("{}: {why}; nothing was restored", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        why: io::Error,
    },
    /// A file cannot be moved.
    #[error("{}: {why}; it is half restored, and no gateway starts on it: run the same command again", path.display())]
    Half {
        /// The data folder.
        path: PathBuf,
        /// The system's error.
        why: io::Error,
    },
}

/// Restores the backup in `from` into `data_dir`, which is created if missing.
///
/// # Errors
/// When the backup is incomplete or altered, a gateway runs, or a file cannot be read, written or moved.
pub fn restore(from: &Path, data_dir: &Path, now: Timestamp) -> Result<Restored, RestoreError> {
    let manifest = read(from)?;
    let io = |path: &Path| {
        let path = path.to_owned();
        move |why| RestoreError::Io { path, why }
    };
    data_dir::make(data_dir).map_err(io(data_dir))?;
    let _locks = lock(data_dir)?;
    let half = |why| RestoreError::Half { path: data_dir.to_owned(), why };
    if let Some(plan) = Plan::unfinished(data_dir).map_err(half)? {
        plan.finish(data_dir).map_err(half)?;
        if plan.backup == manifest.id() {
            let aside = (!plan.old.is_empty()).then(|| data_dir.join(&plan.aside));
            own(data_dir).map_err(io(data_dir))?;
            return Ok(Restored { manifest, aside });
        }
    }
    let staging = data_dir::restore_dir(data_dir);
    if staging.exists() {
        fs::remove_dir_all(&staging).map_err(io(&staging))?;
    }
    if let Err(why) = stage(from, data_dir, &manifest) {
        let _ = fs::remove_dir_all(&staging);
        return Err(why);
    }
    let old = present(data_dir).map_err(io(data_dir))?;
    let aside = aside(data_dir, now);
    let new = manifest.files.iter().map(|entry| entry.path.clone()).collect();
    let plan = Plan { backup: manifest.id(), aside, old, new };
    if let Err(why) = plan.begin(data_dir) {
        let _ = fs::remove_dir_all(&staging);
        return Err(io(&staging)(why));
    }
    plan.finish(data_dir).map_err(half)?;
    own(data_dir).map_err(io(data_dir))?;
    let aside = (!plan.old.is_empty()).then(|| data_dir.join(&plan.aside));
    Ok(Restored { manifest, aside })
}

/// The backup's list, if it names only files that a data folder has.
fn read(from: &Path) -> Result<Manifest, RestoreError> {
    if !from.is_dir() {
        return Err(RestoreError::NoBackup(from.to_owned()));
    }
    let altered = |what: String| RestoreError::Altered { path: from.join(manifest::FILE), what };
    let manifest = match Manifest::read(from) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            return Err(RestoreError::Unfinished(from.to_owned()));
        }
        Err(why) => return Err(altered(why.to_string())),
        Ok(manifest) => manifest,
    };
    if !manifest.is_known() {
        return Err(altered(format!("made by hookgate {}, which is newer: run that one", manifest.hookgate)));
    }
    match manifest.files.iter().find(|entry| !is_of_a_store(&entry.path)) {
        Some(entry) => Err(altered(format!("it names {:?}, which is not a file of a data_dir", entry.path))),
        None => Ok(manifest),
    }
}

fn is_of_a_store(path: &str) -> bool {
    let of_log = |name: &str| !name.contains('/') && name != ".." && audit::files::is_of_log(Path::new(name));
    STORES.iter().any(|store| match store.kind {
        Kind::Database | Kind::File => path == store.path,
        Kind::Log => path.strip_prefix(AUDIT).and_then(|rest| rest.strip_prefix('/')).is_some_and(of_log),
    })
}

/// Takes all locks of a gateway, so that none can run.
fn lock(data_dir: &Path) -> Result<Vec<File>, RestoreError> {
    let mut locks = Vec::new();
    for db in [data_dir::database_file(data_dir), data_dir::quarantine_file(data_dir)] {
        locks.push(database::lock(&db).map_err(|why| match why {
            OpenError::InUse { .. } => RestoreError::Running(data_dir.to_owned()),
            why => RestoreError::Database(why),
        })?);
    }
    let dir = data_dir::audit_dir(data_dir);
    locks.push(audit::lock(&dir).map_err(|why| match why {
        audit::OpenError::Held(_) => RestoreError::Running(data_dir.to_owned()),
        audit::OpenError::Io { path, why } => RestoreError::Io { path, why },
    })?);
    Ok(locks)
}

/// Copies the backup into the data folder's staging area, and compares it with its list.
fn stage(from: &Path, data_dir: &Path, manifest: &Manifest) -> Result<(), RestoreError> {
    let staged = staged(data_dir);
    let failed = |path: &Path, why| RestoreError::Io { path: path.to_owned(), why };
    for folder in [&data_dir::restore_dir(data_dir), &staged, &staged.join(AUDIT)] {
        make_private(folder).map_err(|why| failed(folder, why))?;
    }
    for Entry { path, bytes, sha256 } in &manifest.files {
        let (source, to) = (from.join(path), staged.join(path));
        let altered = |what: &str| RestoreError::Altered { path: source.clone(), what: what.to_owned() };
        match fs::metadata(&source) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => {
                return Err(altered("it is missing from the backup"));
            }
            // Reading a FIFO could block for ever, and a device has no end.
            Ok(found) if !found.is_file() => return Err(altered("it is not a regular file")),
            found => _ = found.map_err(|why| failed(&source, why))?,
        }
        let mut file = File::open(&source).map_err(|why| failed(&source, why))?;
        let copied = write(&to, &mut file).map_err(|why| failed(&to, why))?;
        if copied != (*bytes, sha256.clone()) {
            return Err(altered("it differs from the file that was backed up"));
        }
    }
    for folder in [staged.join(AUDIT), staged] {
        super::sync(&folder).map_err(|why| failed(&folder, why))?;
    }
    Ok(())
}

/// The data folder's current files: those of every store, and those that SQLite keeps beside databases.
fn present(data_dir: &Path) -> io::Result<Vec<String>> {
    let mut paths = Vec::new();
    for store in &STORES {
        match store.kind {
            Kind::Database => {
                paths.extend(["", "-wal", "-shm", "-journal"].map(|end| format!("{}{end}", store.path)));
            }
            Kind::File => paths.push(store.path.to_owned()),
            Kind::Log => {
                for entry in fs::read_dir(data_dir.join(store.path))? {
                    let name = entry?.file_name();
                    if audit::files::is_of_log(Path::new(&name)) {
                        paths.push(format!("{}/{}", store.path, name.to_string_lossy()));
                    }
                }
            }
        }
    }
    paths.retain(|path| data_dir.join(path).exists());
    Ok(paths)
}

/// A folder name that is not in use.
fn aside(data_dir: &Path, now: Timestamp) -> String {
    let name = format!("before-restore-{}", now.strftime("%Y%m%dT%H%M%SZ"));
    let free = |name: &String| !data_dir.join(name).exists();
    let numbered = (2_u32..).map(|n| format!("{name}-{n}"));
    std::iter::once(name.clone()).chain(numbered).find(free).unwrap_or(name)
}

/// If root restores for another user, gives the files to the data folder's owner.
fn own(data_dir: &Path) -> io::Result<()> {
    let of = fs::metadata(data_dir)?;
    if !rustix::process::geteuid().is_root() || of.uid() == 0 {
        return Ok(());
    }
    let mut folders = vec![data_dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            // Not through a link, which may point to another user's file.
            if entry.file_type()?.is_symlink() {
                continue;
            }
            chown(entry.path(), Some(of.uid()), Some(of.gid()))?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(())
}
