//! `hookgate audit verify`: checks that the reject log is as the gateway wrote it, and how far anchors prove that.
//!
//! Keeps true: it exits 0 only if the log passes every requested check, and prints what it did not check.

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
    /// A file with another key that anchors were made with, besides [audit] key; for example the key before a change.
    #[arg(long = "key-file", value_name = "FILE")]
    pub(super) key_files: Vec<PathBuf>,
    /// Also fail unless every record from SEQ on has an anchor after it, once that is due. SEQ is the first record that
    /// was written with a key.
    #[arg(long, value_name = "SEQ")]
    pub(super) anchored_since: Option<u64>,
    /// Also fail unless exactly this record is still in the log. Give a `head` that an earlier `--json` printed. SEQ
    /// alone needs the key, and requires an anchor at or after that record, once that is due.
    #[arg(long, value_name = "SEQ[:HASH]", value_parser = expected_record)]
    pub(super) anchored_to: Option<ExpectedRecord>,
    /// Accept the log as it is now, even if a start found it cut or changed. If the log lacks the head that hookgate.db
    /// keeps, forget that head too. Leaves a record of its own.
    #[arg(long)]
    pub(in crate::cli) accept: bool,
}

/// A record that must be in the log.
#[derive(Clone, Debug)]
pub(super) enum ExpectedRecord {
    Seq(u64),
    Exact(Mark),
}

fn expected_record(text: &str) -> Result<ExpectedRecord, String> {
    match text.parse() {
        Ok(seq) => Ok(ExpectedRecord::Seq(seq)),
        Err(_) => text.parse().map(ExpectedRecord::Exact),
    }
}

impl Verify {
    /// Verifies the log, prints the result and returns the exit code.
    pub(super) fn report(&self, log: Log<'_>, json: bool, out: &mut dyn Write) -> io::Result<u8> {
        // Before the log is read: a running gateway appends to the log first, then updates its ledger.
        let kept = LedgerState::read(log.db).map_err(io::Error::other)?;
        let options = self.options(log.key)?;
        let (text, value) = match verify_with(log.dir, &options) {
            Ok(report) => match ledger_difference(kept.as_ref(), log.dir)? {
                Some(broken) if !self.accept => as_broken(&broken),
                difference => {
                    if self.accept {
                        let end = Mark { seq: report.last_seq, hash: report.last_hash.clone() };
                        LedgerState::accept(log.db, &end, difference.is_some()).map_err(io::Error::other)?;
                    }
                    return print_report(&report, &options, kept.is_some(), json, out).map(|()| 0);
                }
            },
            Err(VerifyError::Io(why)) => return Err(why),
            Err(VerifyError::Broken(broken)) => as_broken(&broken),
            Err(why @ VerifyError::Unanchored(records)) => {
                let value = json!({ "status": "unanchored", "records": records, "why": why.to_string() });
                (format!("unanchored: {why}"), value)
            }
        };
        if json { writeln!(out, "{value}") } else { writeln!(out, "{}", safe(&text)) }.map(|()| 1)
    }

    fn options(&self, key: Option<Key>) -> io::Result<VerifyOptions> {
        let mut keys: Vec<Key> = key.into_iter().collect();
        for file in &self.key_files {
            keys.push(Key::in_file(file).map_err(io::Error::other)?);
        }
        let anchored_since = self.anchored_since;
        let (anchored_to, required) = match &self.anchored_to {
            Some(ExpectedRecord::Seq(seq)) => (Some(*seq), None),
            Some(ExpectedRecord::Exact(mark)) => (None, Some(mark.clone())),
            None => (None, None),
        };
        if keys.is_empty() && (anchored_since.is_some() || anchored_to.is_some()) {
            return Err(io::Error::other(
                "checking anchors needs their key: set [audit] key in the config, give --key-file FILE, or give \
                 --anchored-to SEQ:HASH, which needs no key",
            ));
        }
        Ok(VerifyOptions { keys, anchored_since, anchored_to, required, now: Some(Clock::System.now()) })
    }
}

/// Where the log differs from the ledger that its gateway keeps.
fn ledger_difference(kept: Option<&LedgerState>, dir: &Path) -> io::Result<Option<Broken>> {
    let Some(LedgerState { head, findings }) = kept else { return Ok(None) };
    let broken =
        |mark: &Mark, why: String| Broken { file: "-".to_owned(), line: 0, seq: Some(mark.seq), why };
    if let Some(head) = head
        && let Some(why) = head.missing_in(dir)?
    {
        let why = format!(
            "the gateway's ledger has this record at or near the log's end, but the log does not: {why}"
        );
        return Ok(Some(broken(head, why)));
    }
    Ok(findings.first().map(|found| {
        let at = microseconds(found.at);
        let why = format!(
            "a gateway that started at {at} did not find this record: {}; the log has grown since. --accept accepts the log as it is",
            found.why
        );
        broken(&found.kept, why)
    }))
}

fn as_broken(broken: &Broken) -> (String, serde_json::Value) {
    let value = json!({
        "status": "broken", "file": broken.file, "line": broken.line, "seq": broken.seq, "why": broken.why,
    });
    (format!("broken: {broken}"), value)
}

fn print_report(
    report: &VerifyReport,
    options: &VerifyOptions,
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
    } = report;
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
        Some(anchors) => print_anchors(report, anchors, out)?,
        None if *records > 0 && !options.keys.is_empty() => writeln!(out, "note: not anchored yet")?,
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
        writeln!(out, "note: the last line is unfinished: a write is in progress, or a crash cut it short")?;
    }
    if *set_aside > 0 {
        writeln!(
            out,
            "note: {set_aside} files *.unreadable: a start could not read these parts at the log's end and moved them aside; \
             a power failure can cause that, and so can someone who overwrites records"
        )?;
    }
    Ok(())
}

/// Prints how far anchors reach.
fn print_anchors(report: &VerifyReport, anchors: &Anchors, out: &mut dyn Write) -> io::Result<()> {
    let Anchors { count, first_seq, first_at, last_seq, overdue } = anchors;
    let plural = if *count == 1 { "" } else { "s" };
    writeln!(out, "anchored up to record {last_seq}, by {count} anchor{plural}")?;
    if *first_seq > report.first_seq {
        writeln!(
            out,
            "note: records {} to {} are unchanged since {first_at}, when the first anchor was made; earlier changes would not show",
            report.first_seq,
            first_seq - 1
        )?;
    }
    if report.last_seq > *last_seq {
        let since = if *overdue {
            "not anchored after more than a minute: the gateway was killed before its last anchor and has not \
             started since, or anchors were removed"
        } else {
            "not anchored yet; the gateway writes an anchor within a minute, or when it starts"
        };
        writeln!(out, "note: records {} to {} are {since}", last_seq + 1, report.last_seq)?;
    }
    Ok(())
}
