//! `hookgate audit verify`: says whether the reject log is as it was written, and how far anchors vouch for that.
//!
//! Keeps true: it exits 0 only for a log that meets everything that was asked of it, and says what was not checked.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::super::terminal::safe;
use super::Log;
use crate::base::clock::Clock;
use crate::durable::audit_ledger::LedgerState;
use crate::event::microseconds;
use crate::observe::audit::verify::{Anchors, Broken, VerifyError, VerifyOptions, VerifyReport, verify_with};
use crate::observe::audit::{Key, Mark};

/// `audit verify`.
#[derive(Clone, Debug, Default, Args)]
pub(in crate::cli) struct Verify {
    /// A file with a key that anchors were made with, besides the one in [audit] key: an older one, after a change.
    #[arg(long = "key-file", value_name = "FILE")]
    pub(super) key_files: Vec<PathBuf>,
    /// Also fail unless from this record on, the first that was written with a key, each has an anchor behind it, once that is
    /// due.
    #[arg(long, value_name = "SEQ")]
    pub(super) anchored_since: Option<u64>,
    /// Also fail unless this very record is still in the log: the `head` that `--json` printed, kept elsewhere. SEQ alone also
    /// wants an anchor at or after it, once that is due, and needs the key.
    #[arg(long, value_name = "SEQ[:HASH]", value_parser = place)]
    pub(super) anchored_to: Option<Place>,
    /// Take the log as it is from here on: forget that a start found it cut or changed, and the head that hookgate.db keeps
    /// where the log no longer has it. Leaves a record of its own.
    #[arg(long)]
    pub(in crate::cli) accept: bool,
}

/// A record that is to be there.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Number(u64),
    Very(Mark),
}

fn place(text: &str) -> Result<Place, String> {
    match text.parse() {
        Ok(seq) => Ok(Place::Number(seq)),
        Err(_) => text.parse().map(Place::Very),
    }
}

impl Verify {
    /// Verifies and tells; gives the exit code.
    pub(super) fn report(&self, log: Log<'_>, json: bool, out: &mut dyn Write) -> io::Result<u8> {
        // Before the log is read: a gateway that runs moves both on, the log first.
        let kept = LedgerState::read(log.db).map_err(io::Error::other)?;
        let demand = self.demand(log.key)?;
        let (broken, told) = match verify_with(log.dir, &demand) {
            Ok(verified) => match differs(kept.as_ref(), log.dir)? {
                Some(broken) if !self.accept => as_broken(&broken),
                differs => {
                    if self.accept {
                        let end = Mark { seq: verified.last_seq, hash: verified.last_hash.clone() };
                        LedgerState::accept(log.db, &end, differs.is_some()).map_err(io::Error::other)?;
                    }
                    return holds(&verified, &demand, kept.is_some(), json, out).map(|()| 0);
                }
            },
            Err(VerifyError::Io(why)) => return Err(why),
            Err(VerifyError::Broken(broken)) => as_broken(&broken),
            Err(why @ VerifyError::Unanchored(records)) => {
                let told = json!({ "status": "unanchored", "records": records, "why": why.to_string() });
                (format!("unanchored: {why}"), told)
            }
        };
        if json { writeln!(out, "{told}") } else { writeln!(out, "{}", safe(&broken)) }.map(|()| 1)
    }

    fn demand(&self, key: Option<Key>) -> io::Result<VerifyOptions> {
        let mut keys: Vec<Key> = key.into_iter().collect();
        for file in &self.key_files {
            keys.push(Key::in_file(file).map_err(io::Error::other)?);
        }
        let anchored_since = self.anchored_since;
        let (anchored_to, holding) = match &self.anchored_to {
            Some(Place::Number(seq)) => (Some(*seq), None),
            Some(Place::Very(mark)) => (None, Some(mark.clone())),
            None => (None, None),
        };
        if keys.is_empty() && (anchored_since.is_some() || anchored_to.is_some()) {
            return Err(io::Error::other(
                "anchors are checked with their key: set [audit] key in the config, give --key-file FILE, or give \
                 --anchored-to SEQ:HASH, which needs no key",
            ));
        }
        Ok(VerifyOptions { keys, anchored_since, anchored_to, holding, now: Some(Clock::System.now()) })
    }
}

/// Where the log is not as its gateway left it.
fn differs(kept: Option<&LedgerState>, dir: &Path) -> io::Result<Option<Broken>> {
    let Some(LedgerState { head, findings }) = kept else { return Ok(None) };
    let broken =
        |mark: &Mark, why: String| Broken { file: "-".to_owned(), line: 0, seq: Some(mark.seq), why };
    if let Some(head) = head
        && let Some(why) = head.missing_in(dir)?
    {
        let why =
            format!("the gateway noted it as the log's end, or near it, and the log does not have it: {why}");
        return Ok(Some(broken(head, why)));
    }
    Ok(findings.first().map(|found| {
        let at = microseconds(found.at);
        let why = format!(
            "a gateway that started at {at} did not find it: {}; the log has grown since. --accept takes it as it is",
            found.why
        );
        broken(&found.kept, why)
    }))
}

fn as_broken(broken: &Broken) -> (String, serde_json::Value) {
    let told = json!({
        "status": "broken", "file": broken.file, "line": broken.line, "seq": broken.seq, "why": broken.why,
    });
    (format!("broken: {broken}"), told)
}

fn holds(
    of: &VerifyReport,
    demand: &VerifyOptions,
    compared: bool,
    json: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let VerifyReport {
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
    let head = (*records > 0).then(|| format!("{last_seq}:{last_hash}"));
    if json {
        let all = json!({
            "status": "ok", "records": records, "files": files, "first_seq": first_seq, "last_seq": last_seq,
            "last_hash": last_hash, "head": head, "compared": compared, "unfinished": unfinished, "set_aside": set_aside,
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
            "ok: {records} records in {files} files, {first_seq} to {last_seq}, head {last_seq}:{last_hash}"
        )?;
    }
    if !compared {
        writeln!(out, "note: not compared with the head that a gateway keeps: there is no hookgate.db")?;
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
fn vouched(of: &VerifyReport, anchors: &Anchors, out: &mut dyn Write) -> io::Result<()> {
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
