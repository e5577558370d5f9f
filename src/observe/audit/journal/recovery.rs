//! Finds the head of the chain when a log is opened.
//!
//! Keeps true: the rest of an interrupted write is cut off, so that no record follows a partial line. Anything that may
//! contain complete records is kept aside, and `audit verify` reports it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::Current;
use crate::base::reason::Note;
use crate::observe::audit::anchor::ANCHOR_EVERY;
use crate::observe::audit::files::{LogFile, SET_ASIDE, irregular_files, last_record, list};
use crate::observe::audit::sealed::Head;

/// The head of the chain in `dir`, and the file with it.
pub(super) fn recover(dir: &Path) -> io::Result<(Head, Option<Current>)> {
    for irregular in irregular_files(dir)? {
        tracing::warn!(file = %irregular.name(), "has the name of a reject log file but is not a regular file; it is skipped");
    }
    for log in list(dir)?.into_iter().rev() {
        let bytes = fs::read(&log.path)?;
        let (whole, last) = last_record(&bytes);
        let torn = bytes.len() - whole;
        let Some(last) = last else {
            // Unreadable data is kept, because someone may still recover it.
            if torn > 0 {
                tracing::warn!(file = %log.name(), "a reject log file without any record was set aside");
                fs::rename(&log.path, log.path.with_extension(SET_ASIDE))?;
            } else {
                fs::remove_file(&log.path)?;
            }
            continue;
        };
        if torn > 0 {
            tracing::warn!(file = %log.name(), bytes = torn, "cut an unfinished record off the reject log");
            set_aside(&log, &bytes[whole..])?;
            let file = OpenOptions::new().write(true).open(&log.path)?;
            file.set_len(whole as u64)?;
            file.sync_all()?;
        }
        // The number of records after the last anchor is unknown. Assume the maximum, so that a new anchor precedes the
        // next record.
        let unanchored = if last.reason == Note::Anchor.label() { 0 } else { ANCHOR_EVERY };
        let head = Head { seq: last.seq, hash: last.hash, unanchored };
        return Ok((head, Some(Current { log, len: whole as u64, file: None })));
    }
    Ok((Head::none(), None))
}

/// Keeps the cut bytes if they may contain records. A crash does not leave such bytes; somebody wrote them.
fn set_aside(log: &LogFile, cut: &[u8]) -> io::Result<()> {
    if cut.contains(&b'\n') && cut.iter().any(|byte| !matches!(byte, 0 | b'\n')) {
        let mut options = OpenOptions::new();
        let mut file =
            options.create(true).append(true).mode(0o600).open(log.path.with_extension(SET_ASIDE))?;
        file.write_all(cut)?;
        file.sync_all()?;
    }
    Ok(())
}
