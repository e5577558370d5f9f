//! `hookgate backup` and `hookgate restore`: the stores of the data folder, copied and put back.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{Done, Failure, Global, OK, line};
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

pub(super) fn back_up(global: &Global, Backup { dir }: &Backup) -> Done {
    let config = global.config()?;
    data_dir::readable(&config.data_dir).map_err(Failure)?;
    let manifest = backup::back_up(&config.data_dir, dir, Clock::System.now())?;
    if global.json {
        let done = json!({ "backup": dir, "data_dir": config.data_dir, "taken": manifest.taken, "files": manifest.files });
        line(&mut io::stdout(), &done.to_string())?;
        return Ok(OK);
    }
    list(&manifest)?;
    let mut said =
        format!("{}: a whole backup of {}, without secrets", dir.display(), config.data_dir.display());
    if manifest.files.iter().any(|entry| entry.path == "quarantine.db") {
        said += "; keep quarantine.key too: without it nothing in quarantine.db can be read";
    }
    // Standard error may be closed; the exit code says the same.
    let _ = writeln!(io::stderr(), "{said}");
    Ok(OK)
}

pub(super) fn restore(global: &Global, Restore { dir }: &Restore) -> Done {
    let config = global.config()?;
    let Restored { manifest, aside } = backup::restore(dir, &config.data_dir, Clock::System.now())?;
    if global.json {
        let done = json!({
            "restored": dir, "data_dir": config.data_dir, "taken": manifest.taken, "before": aside, "files": manifest.files,
        });
        line(&mut io::stdout(), &done.to_string())?;
        return Ok(OK);
    }
    list(&manifest)?;
    let mut said = format!(
        "{}: restored as of {}; nothing after that is known",
        config.data_dir.display(),
        manifest.taken
    );
    if let Some(aside) = aside {
        said +=
            &format!("\nwhat was there before is in {}: delete it once it is not needed", aside.display());
    }
    let _ = writeln!(io::stderr(), "{said}");
    Ok(OK)
}

fn list(manifest: &Manifest) -> io::Result<()> {
    let (log, others): (Vec<&Entry>, Vec<&Entry>) =
        manifest.files.iter().partition(|entry| entry.path.starts_with("audit/"));
    for Entry { path, bytes, .. } in others {
        if !line(&mut io::stdout(), &format!("{path}  {bytes} bytes"))? {
            return Ok(());
        }
    }
    let bytes: u64 = log.iter().map(|entry| entry.bytes).sum();
    line(&mut io::stdout(), &format!("audit  {} files, {bytes} bytes", log.len())).map(drop)
}
