//! The moves of a restore: old files move aside, and new files take their place.
//!
//! Keeps true: while the plan is on disk, the data folder counts as half restored and nothing opens it. Each move can
//! be repeated, so an interrupted restore can continue. Nothing is ever deleted except the plan itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::manifest::write_whole;
use super::{make_private, sync};
use crate::durable::data_dir;

/// The files to move, by their paths in the data folder.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    /// The id of the backup.
    pub(super) backup: String,
    /// The folder for the old files.
    pub(super) aside: String,
    /// The old files.
    pub(super) old: Vec<String>,
    /// The new files, which wait in [`staged`].
    pub(super) new: Vec<String>,
}

/// Where a restore collects the new files.
pub(super) fn staged(data_dir: &Path) -> PathBuf {
    data_dir::restore_dir(data_dir).join("new")
}

impl Plan {
    /// The plan of an interrupted restore, if there is one.
    pub(super) fn unfinished(data_dir: &Path) -> io::Result<Option<Plan>> {
        match fs::read(data_dir::restore_plan(data_dir)) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
            read => Ok(Some(serde_json::from_slice(&read?)?)),
        }
    }

    /// Writes the plan. From here on the data folder counts as half restored.
    pub(super) fn begin(&self, data_dir: &Path) -> io::Result<()> {
        let plan = data_dir::restore_plan(data_dir);
        let (Some(folder), Some(name)) = (plan.parent(), plan.file_name()) else { return Ok(()) };
        write_whole(folder, &name.to_string_lossy(), &serde_json::to_vec(self)?)?;
        sync(data_dir)
    }

    /// Makes the remaining moves and removes the plan.
    pub(super) fn finish(&self, data_dir: &Path) -> io::Result<()> {
        let (aside, staged) = (data_dir.join(&self.aside), staged(data_dir));
        // All old files move first. So a file found in the data folder during this loop is an old one.
        for path in &self.old {
            move_once(&data_dir.join(path), &aside.join(path))?;
        }
        for path in &self.new {
            move_once(&staged.join(path), &data_dir.join(path))?;
        }
        for folder in [data_dir, &data_dir::audit_dir(data_dir), &aside] {
            if folder.is_dir() {
                sync(folder)?;
            }
        }
        fs::remove_file(data_dir::restore_plan(data_dir))?;
        sync(&data_dir::restore_dir(data_dir))?;
        fs::remove_dir_all(data_dir::restore_dir(data_dir))
    }
}

/// Moves a file, unless it was already moved.
fn move_once(from: &Path, to: &Path) -> io::Result<()> {
    if to.exists() || !from.exists() {
        return Ok(());
    }
    for folder in
        to.ancestors().skip(1).take_while(|folder| !folder.exists()).collect::<Vec<_>>().iter().rev()
    {
        make_private(folder)?;
    }
    fs::rename(from, to)
}
