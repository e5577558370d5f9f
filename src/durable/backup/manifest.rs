//! The list of a backup's files, `backup.json`.
//!
//! Keeps true: the list exists only when every file in it is complete and synced.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::sync;
use crate::base::file::{self, ReadError};

/// The content of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of the list's format.
    pub format: u32,
    /// The hookgate version that made it.
    pub hookgate: String,
    /// When the backup began, RFC 3339. Each store is as of this time or slightly later.
    pub taken: String,
    /// Every file of the backup, in copy order.
    pub files: Vec<Entry>,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its path, in the backup and in the data folder.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// The content's SHA-256, 64 hex digits.
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

    /// Whether this hookgate can read the format.
    pub(super) fn is_known(&self) -> bool {
        self.format == FORMAT
    }

    /// A different value for each backup.
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

    /// Writes the list into a folder whose files are synced.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        sync(dir)?;
        write_whole(dir, FILE, &serde_json::to_vec_pretty(self)?)
    }
}

/// Replaces a file atomically.
pub(super) fn write_whole(dir: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    let new = dir.join(format!("{name}.new"));
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(new, dir.join(name))?;
    sync(dir)
}

/// Removes the list, also a partly written one.
pub(super) fn remove(dir: &Path) {
    for name in [FILE.to_owned(), format!("{FILE}.new")] {
        let _ = fs::remove_file(dir.join(name));
    }
}

/// Length and SHA-256 (hex) of everything read.
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

pub(super) const FILE: &str = "backup.json";
const FORMAT: u32 = 1;
/// Enough for a hundred thousand files of the reject log.
const MAX_BYTES: u64 = 16 << 20;
