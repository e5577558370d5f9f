//! `hookgate backup` and `hookgate restore`: copy the stores of the data folder, and put the copies back.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{CommandResult, Failure, Global, OK, print_line};
use crate::base::clock::Clock;
use crate::durable::backup::{self, Entry, Manifest, Restored};
use crate::durable::data_dir;

#[derive(Args)]
pub(super) struct Backup {
    /// The folder to copy into: a new one, or an empty one.
    dir: PathBuf,
}

#[derive(Args)]
pub(super) struct Restore {
    /// The folder of the backup.
    dir: PathBuf,
}

pub(super) fn back_up(global: &Global, Backup { dir }: &Backup) -> CommandResult {
    let config = global.config()?;
    data_dir::readable(&config.data_dir).map_err(Failure)?;
    let manifest = backup::back_up(&config.data_dir, dir, Clock::System.now())?;
    if global.json {
        let done = json!({ "backup": dir, "data_dir": config.data_dir, "taken": manifest.taken, "files": manifest.files });
        print_line(&mut io::stdout(), &done.to_string())?;
        return Ok(OK);
    }
    list(&manifest)?;
    let mut message =
        format!("{}: a complete backup of {}, without secrets", dir.display(), config.data_dir.display());
    if manifest.files.iter().any(|entry| entry.path == "quarantine.db") {
        message += "; keep quarantine.key too: quarantine.db cannot be read without it";
    }
    // Standard error may be closed; the exit code says the same.
    let _ = writeln!(io::stderr(), "{message}");
    Ok(OK)
}

pub(super) fn restore(global: &Global, Restore { dir }: &Restore) -> CommandResult {
    let config = global.config()?;
    let Restored { manifest, aside } = backup::restore(dir, &config.data_dir, Clock::System.now())?;
    if global.json {
        let done = json!({
            "restored": dir, "data_dir": config.data_dir, "taken": manifest.taken, "before": aside, "files": manifest.files,
        });
        print_line(&mut io::stdout(), &done.to_string())?;
        return Ok(OK);
    }
    list(&manifest)?;
    let mut message = format!(
        "{}: restored as of {}; later events and records are not in it",
        config.data_dir.display(),
        manifest.taken
    );
    if let Some(aside) = aside {
        message += &format!(
            "\nthe files from before are in {}: delete them once you do not need them",
            aside.display()
        );
    }
    let _ = writeln!(io::stderr(), "{message}");
    Ok(OK)
}

fn list(manifest: &Manifest) -> io::Result<()> {
    let (log, others): (Vec<&Entry>, Vec<&Entry>) =
        manifest.files.iter().partition(|entry| entry.path.starts_with("audit/"));
    for Entry { path, bytes, .. } in others {
        if !print_line(&mut io::stdout(), &format!("{path}  {bytes} bytes"))? {
            return Ok(());
        }
    }
    let bytes: u64 = log.iter().map(|entry| entry.bytes).sum();
    print_line(&mut io::stdout(), &format!("audit  {} files, {bytes} bytes", log.len())).map(drop)
}
