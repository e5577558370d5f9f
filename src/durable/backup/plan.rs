//! The moves of a restore: what was there before goes aside, and what was copied beside it takes its place.
//!
//! Keeps true: while the plan is on disk the data folder counts as half restored, and nothing opens it; each move may have been
//! made already, so that a restore that was cut short can be gone on with; nothing is ever deleted but the plan itself.

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
    /// Which backup it restores.
    pub(super) backup: String,
    /// The folder that takes what was there before.
    pub(super) aside: String,
    /// What was there before.
    pub(super) old: Vec<String>,
    /// What takes its place; it lies in [`staged`].
    pub(super) new: Vec<String>,
}

/// Where a restore gathers what it will move.
pub(super) fn staged(data_dir: &Path) -> PathBuf {
    data_dir::restore_dir(data_dir).join("new")
}

impl Plan {
    /// The plan of a restore that was cut short, if there is one.
    pub(super) fn unfinished(data_dir: &Path) -> io::Result<Option<Plan>> {
        match fs::read(data_dir::restore_plan(data_dir)) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
            read => Ok(Some(serde_json::from_slice(&read?)?)),
        }
    }

    /// From here on the data folder is half restored.
    pub(super) fn begin(&self, data_dir: &Path) -> io::Result<()> {
        let plan = data_dir::restore_plan(data_dir);
        let (Some(folder), Some(name)) = (plan.parent(), plan.file_name()) else { return Ok(()) };
        write_whole(folder, &name.to_string_lossy(), &serde_json::to_vec(self)?)?;
        sync(data_dir)
    }

    /// Makes the moves that are left, and ends the plan.
    pub(super) fn finish(&self, data_dir: &Path) -> io::Result<()> {
        let (aside, staged) = (data_dir.join(&self.aside), staged(data_dir));
        // All of these before any of the others: then a file in the data folder is an old one until it was moved.
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

/// Moves a file, unless it was moved before.
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
