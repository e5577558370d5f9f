//! The list of a backup's files, `backup.json`.
//!
//! Keeps true: it is there only once every file that it names is on disk, whole.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::sync;
use crate::base::file::{self, ReadError};

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Which kind of list this is.
    pub format: u32,
    /// The hookgate that made it.
    pub hookgate: String,
    /// When it was begun, RFC 3339. Each store is as of this time or a little later.
    pub taken: String,
    /// Its files.
    pub files: Vec<Entry>,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it is, in the backup and in the data folder.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// Of its content, 64 hex digits.
    pub sha256: String,
}

impl Manifest {
    pub(super) fn new(taken: Timestamp, files: Vec<Entry>) -> Manifest {
        Manifest {
            format: FORMAT,
            hookgate: env!("CARGO_PKG_VERSION").to_owned(),
            taken: taken.to_string(),
            files,
        }
    }

    /// Whether this hookgate can read it.
    pub(super) fn is_known(&self) -> bool {
        self.format == FORMAT
    }

    /// Differs for every backup.
    pub(super) fn id(&self) -> String {
        hex::encode(Sha256::digest(serde_json::to_vec(self).unwrap_or_default()))
    }

    pub(super) fn read(dir: &Path) -> io::Result<Manifest> {
        let bytes = file::read(&dir.join(FILE), MAX_BYTES).map_err(|why| match why {
            ReadError::System(why) => why,
            why => io::Error::other(why.to_string()),
        })?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Writes it into a folder whose files are on disk.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        sync(dir)?;
        write_whole(dir, FILE, &serde_json::to_vec_pretty(self)?)
    }
}

/// Replaces a file, so that it is always the old one or the new one.
pub(super) fn write_whole(dir: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    let new = dir.join(format!("{name}.new"));
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(new, dir.join(name))?;
    sync(dir)
}

/// Takes it, or half of it, out of a folder.
pub(super) fn remove(dir: &Path) {
    for name in [FILE.to_owned(), format!("{FILE}.new")] {
        let _ = fs::remove_file(dir.join(name));
    }
}

/// Length and SHA-256 (hex) of all that is read.
pub(super) fn digest(from: &mut impl Read) -> io::Result<(u64, String)> {
    let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 16]);
    loop {
        let read = match from.read(&mut buffer) {
            Err(why) if why.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        if read == 0 {
            return Ok((bytes, hex::encode(hash.finalize())));
        }
        hash.update(buffer.get(..read).unwrap_or_default());
        bytes += read as u64;
    }
}

/// The name of the list in a backup.
pub(super) const FILE: &str = "backup.json";
const FORMAT: u32 = 1;
/// A hundred thousand files of the reject log.
const MAX_BYTES: u64 = 16 << 20;
