//! `hookgate audit verify`: says whether the reject log is as it was written, and how far anchors vouch for that.
//!
//! Keeps true: it exits 0 only for a log that meets everything that was asked of it, and says what was not checked.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::super::terminal::safe;
use crate::audit::Key;
use crate::audit::verify::{Anchors, Demand, Verified, VerifyError, verify_with};
use crate::clock::Clock;

/// `audit verify`.
#[derive(Clone, Debug, Default, Args)]
pub(in crate::cli) struct Verify {
    /// A file with a key that anchors were made with, besides the one in [audit] key: an older one, after a change.
    #[arg(long = "key-file", value_name = "FILE")]
    pub(super) key_files: Vec<PathBuf>,
    /// Also fail where anchors are missing from this record on: the first that was written with a key. Without it they may be
    /// missing before the first anchor.
    #[arg(long, value_name = "SEQ")]
    pub(super) anchored_since: Option<u64>,
    /// Also fail unless an anchor stands at this record or after it: the `anchored_seq` of an earlier check, so that a log
    /// whose end was cut off since is found out.
    #[arg(long, value_name = "SEQ")]
    pub(super) anchored_to: Option<u64>,
}

impl Verify {
    /// Verifies and tells; gives the exit code.
    pub(super) fn report(
        &self,
        dir: &Path,
        key: Option<Key>,
        json: bool,
        out: &mut dyn Write,
    ) -> io::Result<u8> {
        let demand = self.demand(key)?;
        let (broken, told) = match verify_with(dir, &demand) {
            Ok(verified) => return holds(&verified, &demand, json, out).map(|()| 0),
            Err(VerifyError::Io(why)) => return Err(why),
            Err(VerifyError::Broken(broken)) => {
                let told = json!({
                    "status": "broken", "file": broken.file, "line": broken.line, "seq": broken.seq,
                    "why": broken.why,
                });
                (format!("broken: {broken}"), told)
            }
            Err(why @ VerifyError::Unanchored(records)) => {
                let told = json!({ "status": "unanchored", "records": records, "why": why.to_string() });
                (format!("unanchored: {why}"), told)
            }
        };
        if json { writeln!(out, "{told}") } else { writeln!(out, "{}", safe(&broken)) }.map(|()| 1)
    }

    fn demand(&self, key: Option<Key>) -> io::Result<Demand> {
        let mut keys: Vec<Key> = key.into_iter().collect();
        for file in &self.key_files {
            keys.push(Key::in_file(file).map_err(io::Error::other)?);
        }
        let (since, to) = (self.anchored_since, self.anchored_to);
        if keys.is_empty() && (since.is_some() || to.is_some()) {
            return Err(io::Error::other(
                "anchors are checked with their key: set [audit] key in the config, or give --key-file FILE",
            ));
        }
        Ok(Demand { keys, anchored_since: since, anchored_to: to, now: Some(Clock::System.now()) })
    }
}

fn holds(of: &Verified, demand: &Demand, json: bool, out: &mut dyn Write) -> io::Result<()> {
    let Verified {
        records,
        files,
        first_seq,
        last_seq,
        last_hash,
        unfinished,
        set_aside,
        anchors,
        unchecked,
    } = of;
    if json {
        let all = json!({
            "status": "ok", "records": records, "files": files, "first_seq": first_seq, "last_seq": last_seq,
            "last_hash": last_hash, "unfinished": unfinished, "set_aside": set_aside,
            "anchors": anchors.as_ref().map_or(0, |anchors| anchors.count),
            "anchors_unchecked": unchecked,
            "anchored_from": anchors.as_ref().map(|anchors| anchors.first_seq),
            "anchored_seq": anchors.as_ref().map(|anchors| anchors.last_seq),
            "anchor_overdue": anchors.as_ref().is_some_and(|anchors| anchors.overdue),
        });
        return writeln!(out, "{all}");
    }
    if *records == 0 {
        writeln!(out, "ok: no records")?;
    } else {
        writeln!(
            out,
            "ok: {records} records in {files} files, {first_seq} to {last_seq}, last hash {last_hash}"
        )?;
    }
    match anchors {
        Some(anchors) => vouched(of, anchors, out)?,
        None if *records > 0 && !demand.keys.is_empty() => writeln!(out, "note: not anchored yet")?,
        None if *unchecked > 0 => {
            let plural = if *unchecked == 1 { "" } else { "s" };
            writeln!(
                out,
                "note: {unchecked} anchor{plural} not checked: no [audit] key; without it only the chain was checked"
            )?;
        }
        None => {}
    }
    if *unfinished {
        writeln!(out, "note: unfinished last line: a write in progress, or cut short by a crash")?;
    }
    if *set_aside > 0 {
        writeln!(
            out,
            "note: {set_aside} files *.unreadable: what a start could not read at the log's end and set aside; \
             a power failure leaves such, and so does who overwrites records"
        )?;
    }
    Ok(())
}

/// How far anchors reach.
fn vouched(of: &Verified, anchors: &Anchors, out: &mut dyn Write) -> io::Result<()> {
    let Anchors { count, first_seq, first_at, last_seq, overdue } = anchors;
    let plural = if *count == 1 { "" } else { "s" };
    writeln!(out, "anchored up to record {last_seq}, by {count} anchor{plural}")?;
    if *first_seq > of.first_seq {
        writeln!(
            out,
            "note: records {} to {} are as they were at {first_at}, when the first anchor was made",
            of.first_seq,
            first_seq - 1
        )?;
    }
    if of.last_seq > *last_seq {
        let since = if *overdue {
            "not anchored, and have waited for longer than a minute: the gateway was ended without its last anchor and has \
             not started since, or anchors were removed"
        } else {
            "not anchored yet; the gateway does it within a minute, or when it starts"
        };
        writeln!(out, "note: records {} to {} are {since}", last_seq + 1, of.last_seq)?;
    }
    Ok(())
}
