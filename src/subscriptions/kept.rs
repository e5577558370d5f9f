//! `data_dir/subscriptions.json`: which subscriptions at the providers are ours.
//!
//! Keeps true: the file is replaced as a whole, and holds no secret. A create whose answer could not be found again is
//! kept before it is sent. While a command changes subscriptions, no other one does.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::api::Declared;
use crate::config::secret::Secret;
use crate::durable::data_dir;

/// The file's content.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Kept {
    sources: BTreeMap<String, KeptSource>,
    #[serde(skip)]
    path: PathBuf,
}

/// What is kept for one source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptSource {
    /// The API that the ids belong to.
    #[serde(default)]
    base: String,
    /// The ids of its subscriptions.
    #[serde(default)]
    pub ids: Vec<String>,
    /// A digest of the secret that was written last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// A create without an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<PendingCreate>,
}

/// A create that was sent, or is about to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingCreate {
    /// Its idempotency key.
    pub key: String,
    /// Its URL, without the path token.
    pub url: String,
    /// Its events.
    pub events: Vec<String>,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// It cannot be read or written.
    #[error("{}: {why}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        why: io::Error,
    },
    /// Its content is not what a command writes.
    #[error("{} is not as hookgate writes it ({why}): restore it from a backup, or move it aside", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The cause.
        why: serde_json::Error,
    },
    /// Another command changes subscriptions.
    #[error("another `hookgate subscriptions` command is running on this data_dir; wait for it to end")]
    Busy,
}

/// The right to change subscriptions, until it is dropped.
pub struct Lock(#[allow(dead_code, reason = "the lock ends with the file")] File);

impl Kept {
    /// Reads the file. A missing file keeps nothing.
    ///
    /// # Errors
    /// When the file cannot be read, or holds something else.
    pub fn read(data_dir: &Path) -> Result<Kept, KeptError> {
        let path = data_dir::subscriptions_file(data_dir);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Kept { path, ..Kept::default() }),
            Err(why) => return Err(KeptError::Io { path, why }),
        };
        match serde_json::from_slice::<Kept>(&bytes) {
            Ok(kept) => Ok(Kept { path, ..kept }),
            Err(why) => Err(KeptError::Content { path, why }),
        }
    }

    /// Takes the lock, and makes the data folder if it is missing.
    ///
    /// # Errors
    /// When another command has the lock, or the folder cannot be written.
    pub fn lock(data_dir: &Path) -> Result<Lock, KeptError> {
        let path = data_dir.join(LOCK);
        let failed = |why| KeptError::Io { path: path.clone(), why };
        data_dir::make(data_dir).map_err(failed)?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Lock(file)),
            Err(fs::TryLockError::WouldBlock) => Err(KeptError::Busy),
            Err(fs::TryLockError::Error(why)) => Err(failed(why)),
        }
    }

    /// What is kept for a source at this API.
    pub fn source(&self, name: &str, base: &str) -> KeptSource {
        let kept = self.sources.get(name).filter(|kept| kept.base == base).cloned();
        kept.unwrap_or_else(|| KeptSource { base: base.to_owned(), ..KeptSource::default() })
    }

    /// Replaces what is kept for a source, and writes the file if that changed anything.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set(&mut self, name: &str, source: KeptSource) -> Result<(), KeptError> {
        let is_empty = source.ids.is_empty() && source.create.is_none();
        let changed = if is_empty {
            self.sources.remove(name).is_some()
        } else {
            self.sources.insert(name.to_owned(), source.clone()).as_ref() != Some(&source)
        };
        if !changed {
            return Ok(());
        }
        let failed = |why| KeptError::Io { path: self.path.clone(), why };
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::from).map_err(failed)?;
        replace(&self.path, &text).map_err(failed)
    }
}

impl KeptSource {
    /// Adds an id.
    pub fn add(&mut self, id: &str) {
        if !self.ids.iter().any(|known| known == id) {
            self.ids.push(id.to_owned());
        }
    }

    /// Removes an id.
    pub fn remove(&mut self, id: &str) {
        self.ids.retain(|known| known != id);
    }
}

impl PendingCreate {
    /// The create of `declared`. `token_free` is its URL without the path token.
    pub fn of(declared: &Declared, key: String, token_free: String) -> PendingCreate {
        PendingCreate { key, url: token_free, events: declared.events.clone() }
    }
}

/// A digest by which a secret is recognized. It does not tell the secret, which is random.
pub fn digest(secret: &Secret) -> String {
    hex::encode(&Sha256::digest(secret.expose().as_bytes())[..16])
}

/// Replaces a file as a whole, readable by its owner only, and syncs it.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder(path))?;
    file.write_all(bytes)?;
    persist(file, path)
}

/// Puts a written temporary file in the place of `path`, and syncs both.
pub(super) fn persist(file: tempfile::NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path).map_err(|why| why.error)?;
    File::open(folder(path))?.sync_all()
}

/// The folder of a file.
pub(super) fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

const LOCK: &str = "subscriptions.lock";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn ids_are_kept_for_one_api_and_only_their_owner_reads_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut kept = Kept::read(folder.path()).unwrap();
        let mut source = kept.source("a", "https://api.example");
        source.add("one");
        source.add("one");
        kept.set("a", source.clone()).unwrap();
        let read = Kept::read(folder.path()).unwrap();
        assert_eq!(read.source("a", "https://api.example"), source);
        assert_eq!(source.ids, ["one"]);
        assert!(read.source("a", "https://other.example").ids.is_empty(), "ids of another API");
        let path = data_dir::subscriptions_file(folder.path());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&path, "{").unwrap();
        assert!(matches!(Kept::read(folder.path()), Err(KeptError::Content { .. })));
    }

    #[test]
    fn one_command_at_a_time_has_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let lock = Kept::lock(folder.path()).unwrap();
        assert!(matches!(Kept::lock(folder.path()), Err(KeptError::Busy)));
        drop(lock);
        Kept::lock(folder.path()).unwrap();
    }
}
