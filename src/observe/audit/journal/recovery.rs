//! Finds the chain's head again when a log is opened.
//!
//! Keeps true: what a crash left of a write is cut off, so that nothing follows half a line; what may have been whole records is
//! kept aside, for `audit verify` to tell of.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::Current;
use crate::base::reason::Note;
use crate::observe::audit::anchor::ANCHOR_EVERY;
use crate::observe::audit::files::{LogFile, SET_ASIDE, last_record, list, strangers};
use crate::observe::audit::sealed::Head;

/// The head of the chain in `dir` and the file that holds it.
pub(super) fn recover(dir: &Path) -> io::Result<(Head, Option<Current>)> {
    for stranger in strangers(dir)? {
        tracing::warn!(file = %stranger.name(), "has the name of a reject log file and is no regular file; it is passed over");
    }
    for log in list(dir)?.into_iter().rev() {
        let bytes = fs::read(&log.path)?;
        let (whole, last) = last_record(&bytes);
        let torn = bytes.len() - whole;
        let Some(last) = last else {
            // Never delete what cannot be read: it may be worth more to somebody else.
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
        // Any number of records may stand behind the last anchor: with a key, an anchor comes before the next record.
        let unanchored = if last.reason == Note::Anchor.label() { 0 } else { ANCHOR_EVERY };
        let head = Head { seq: last.seq, hash: last.hash, unanchored };
        return Ok((head, Some(Current { log, len: whole as u64, file: None })));
    }
    Ok((Head::none(), None))
}

/// Keeps what is cut off, if it may have been records: then no crash but somebody's hand left it there.
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
