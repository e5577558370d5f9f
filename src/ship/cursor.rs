//! How far the log was shipped, on disk.
//!
//! Keeps true: it is the old place or the new one, whatever happens in between; it is never ahead of what the receiver took.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A record, by its number and hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Link {
    pub(super) seq: u64,
    pub(super) hash: String,
}

/// The last record shipped; none where nothing says so.
pub(super) fn read(dir: &Path) -> io::Result<Option<Link>> {
    let text = match fs::read(dir.join(FILE)) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read?,
    };
    let link = serde_json::from_slice(&text).ok();
    if link.is_none() {
        tracing::warn!(
            "what says how far the reject log was shipped cannot be read; all that is kept is shipped again"
        );
    }
    Ok(link)
}

/// Writes it.
pub(super) fn write(dir: &Path, link: &Link) -> io::Result<()> {
    let new = dir.join(NEW_FILE);
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&serde_json::to_vec(link)?)?;
    file.sync_data()?;
    fs::rename(new, dir.join(FILE))
}

const FILE: &str = ".shipped";
const NEW_FILE: &str = ".shipped.new";
