//! The data folder: the names of its files, and the problems that can be found before opening one.
//!
//! Keeps true: the checks create and change nothing. Root may write everywhere, so the checks ask the system whether
//! this process could write. That also finds a read-only mount and an immutable folder.
//!
//! `file_system`: file systems where SQLite is not safe.

mod file_system;

use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use crate::config::{Config, FullKey, Problem, Reference, Target};

/// The embedded queue's database, or that of spool and claims.
pub fn database_file(data_dir: &Path) -> PathBuf {
    data_dir.join("hookgate.db")
}

/// The quarantine's database.
pub fn quarantine_file(data_dir: &Path) -> PathBuf {
    data_dir.join("quarantine.db")
}

/// What the subscription commands keep.
pub fn subscriptions_file(data_dir: &Path) -> PathBuf {
    data_dir.join("subscriptions.json")
}

/// The folder of the reject log.
pub fn audit_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("audit")
}

/// Where a restore keeps its working files.
pub fn restore_dir(data_dir: &Path) -> PathBuf {
    data_dir.join(".restore")
}

/// The restore's plan. While it exists, the data folder is half restored.
pub fn restore_plan(data_dir: &Path) -> PathBuf {
    restore_dir(data_dir).join("plan.json")
}

/// Creates the folder, for its owner only, if it is missing.
///
/// # Errors
/// When it cannot be created.
pub fn make(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(PRIVATE).create(path)?;
    // The umask may have removed bits.
    fs::set_permissions(path, Permissions::from_mode(PRIVATE))
}

/// Checks that this process may read the data folder's files. Missing files are fine.
///
/// # Errors
/// The reason and the remedy.
pub fn readable(data_dir: &Path) -> Result<(), String> {
    let look_into = Access::READ_OK | Access::EXEC_OK;
    let stores = [database_file(data_dir), quarantine_file(data_dir)].map(|store| (store, Access::READ_OK));
    let folders = [data_dir.to_owned(), audit_dir(data_dir)].map(|folder| (folder, look_into));
    for (path, access) in folders.into_iter().chain(stores) {
        if rustix::fs::access(&path, access) == Err(rustix::io::Errno::ACCESS) {
            return Err(format!(
                "data_dir: cannot read {}: Permission denied; run this as the gateway's user, or as root",
                path.display()
            ));
        }
    }
    Ok(())
}

/// Errors that keep a gateway from using the data folder, and warnings about it and the secret files.
pub fn problems(config: &Config) -> Vec<Problem> {
    let (dir, at) = (&config.data_dir, config.key_positions.find("data_dir"));
    let problem = |what, warning| Problem { at, key: "data_dir".to_owned(), what, warning };
    let mut problems = Vec::new();
    let existing = match existing_folder(dir) {
        Ok(existing) => existing,
        Err(what) => {
            problems.push(problem(what, false));
            nearest_existing(dir)
        }
    };
    problems.extend(file_system::warning(&existing).map(|what| problem(what, true)));
    problems.extend(file_system::full_disk_warning(&existing).map(|what| problem(what, true)));
    if let Ok(of) = fs::metadata(dir)
        && of.is_dir()
    {
        problems.extend(open_to_others(dir, &of).map(|what| problem(what, true)));
    }
    problems.extend(config.references().into_iter().filter_map(
        |Reference { key: FullKey { name: key, .. }, at, target }| {
            let is_used = config.uses(&key) && !matches!(target, Target::File(_));
            let what = writable_by_others(target.file().filter(|_| is_used)?)?;
            Some(Problem { at, key, what, warning: true })
        },
    ));
    problems
}

/// The folder, or its nearest existing ancestor in which it can be created; else why it cannot be used.
fn existing_folder(dir: &Path) -> Result<PathBuf, String> {
    let shown = dir.display();
    match fs::metadata(dir) {
        Ok(of) if !of.is_dir() => Err(format!("{shown} is not a folder; name one, or move it away")),
        Ok(_) => {
            may_write(dir).map_err(|why| format!("cannot write to {shown}: {why}"))?;
            for file in STORES.map(|name| dir.join(name)).iter().filter(|file| file.exists()) {
                may_write(file).map_err(|why| format!("cannot write to {}: {why}", file.display()))?;
            }
            Ok(dir.to_owned())
        }
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            // A dangling link exists, so no folder can be created in its place.
            if dir.is_symlink() {
                return Err(format!("{shown} is a link to a folder that is not there; create that folder"));
            }
            let above = nearest_existing(dir);
            let failed =
                |why: &dyn std::fmt::Display| format!("cannot make {shown}: {}: {why}", above.display());
            match fs::metadata(&above) {
                Ok(of) if of.is_dir() => {
                    may_write(&above).map_err(|why| failed(&why)).map(|()| above.clone())
                }
                Ok(_) => Err(failed(&"not a folder")),
                Err(why) => Err(failed(&why)),
            }
        }
        Err(why) => Err(format!("cannot use {shown}: {why}")),
    }
}

/// The path itself, or its nearest existing ancestor.
fn nearest_existing(path: &Path) -> PathBuf {
    let shown = |path: &Path| if path == Path::new("") { PathBuf::from(".") } else { path.to_owned() };
    path.ancestors().map(shown).find(|path| path.exists()).unwrap_or_else(|| PathBuf::from("/"))
}

fn may_write(path: &Path) -> io::Result<()> {
    let mut access = Access::READ_OK | Access::WRITE_OK;
    if path.is_dir() {
        access |= Access::EXEC_OK;
    }
    Ok(rustix::fs::access(path, access)?)
}

/// A warning if others may write or read the folder.
fn open_to_others(dir: &Path, of: &Metadata) -> Option<String> {
    let (shown, mode) = (dir.display(), of.mode() & 0o7777);
    if mode & others_write(of) != 0 {
        return Some(format!(
            "{shown} has mode {mode:04o}: others may write to it and replace its files; `chmod 700 {shown}`"
        ));
    }
    (mode & OTHERS_READ != 0).then(|| {
        format!("{shown} has mode {mode:04o}: others may read it and the payloads in it; `chmod 700 {shown}`")
    })
}

/// A warning if others may write a secret's file. Devices and pipes are skipped: their modes say nothing.
fn writable_by_others(path: &Path) -> Option<String> {
    let of = fs::metadata(path).ok().filter(Metadata::is_file)?;
    let (shown, mode) = (path.display(), of.mode() & 0o7777);
    (mode & others_write(&of) != 0).then(|| {
        format!("{shown} has mode {mode:04o}: others may write another secret into it; `chmod 600 {shown}`")
    })
}

/// The mode bits that let others write. If the owner is another user, as on a volume mounted for a group, this process
/// has its access through the group.
fn others_write(of: &Metadata) -> u32 {
    if of.uid() == rustix::process::geteuid().as_raw() { 0o022 } else { 0o002 }
}

const PRIVATE: u32 = 0o700;
const OTHERS_READ: u32 = 0o005;
/// Files that a gateway opens for writing.
const STORES: [&str; 7] = [
    "hookgate.db",
    "hookgate.db-wal",
    "hookgate.db-shm",
    "quarantine.db",
    "quarantine.db-wal",
    "quarantine.db-shm",
    "audit",
];
