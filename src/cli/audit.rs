//! `hookgate audit`: follows, filters and verifies the reject log.
//!
//! Keeps true: it only reads, whether or not a gateway runs. On a terminal, control characters that a client sent are
//! escaped. `--json` prints records as they are stored.

mod verify;

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::terminal::safe;
use super::when::{WHEN_HELP, When};
use crate::base::clock::Clock;
use crate::base::label::Label;
use crate::base::peer::Network;
use crate::base::reason::{Note, Reason};
use crate::observe::audit::Key;
use crate::observe::audit::position::Position;
use crate::observe::audit::record::Record;
pub(super) use verify::Verify;

/// What to do with the reject log.
#[derive(Clone, Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Print the last records, then new ones as they arrive, until interrupted.
    Tail(Tail),
    /// Print the records that match all given filters.
    Query(Query),
    /// Check the hash chain, the anchors (with [audit] key), and that the log still has the head that its gateway keeps
    /// in hookgate.db. Names the first broken record and then exits 1.
    Verify(Verify),
}

/// `audit tail`.
#[derive(Clone, Debug, Args)]
pub(super) struct Tail {
    /// Start with the last N records.
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub(super) lines: usize,
    /// Exit after those instead of waiting for new records.
    #[arg(long)]
    pub(super) no_follow: bool,
    /// Only this reason. Anchors are printed only with `anchor`.
    #[arg(long, value_parser = reason)]
    pub(super) reason: Option<String>,
}

/// `audit query`.
#[derive(Clone, Debug, Default, Args)]
#[command(after_help = WHEN_HELP)]
pub(super) struct Query {
    /// Only the record with this id, which is the `reject` of an answer.
    #[arg(long, value_name = "ID")]
    pub(super) id: Option<String>,
    /// Only this source.
    #[arg(long, value_name = "NAME")]
    pub(super) source: Option<String>,
    /// Only this reason. Anchors are printed only with `anchor`.
    #[arg(long, value_parser = reason)]
    pub(super) reason: Option<String>,
    /// Only from this time on.
    #[arg(long, value_name = "TIME")]
    pub(super) since: Option<When>,
    /// Only before this time.
    #[arg(long, value_name = "TIME")]
    pub(super) until: Option<When>,
    /// Only from this address or network.
    #[arg(long, value_name = "IP|NETWORK", value_parser = Network::from_str)]
    pub(super) client: Option<Network>,
}

/// The log, and the means to check it.
pub(super) struct Log<'a> {
    /// The folder.
    pub(super) dir: &'a Path,
    /// The database in which the gateway keeps the log's head.
    pub(super) db: &'a Path,
    /// The key of the anchors.
    pub(super) key: Option<Key>,
}

/// Runs a command on a log and returns the exit code. A closed output pipe is no error.
///
/// # Errors
/// When the log cannot be read or the output cannot be written.
pub(super) fn run(command: &AuditCommand, log: Log<'_>, json: bool, out: &mut dyn Write) -> io::Result<u8> {
    let ended = match command {
        AuditCommand::Tail(tail) => self::tail(tail, log.dir, json, out).map(|()| 0),
        AuditCommand::Query(query) => self::query(query, log.dir, json, out).map(|()| 0),
        AuditCommand::Verify(verify) => verify.report(log, json, out),
    };
    match ended.and_then(|code| out.flush().map(|()| code)) {
        Err(why) if why.kind() == io::ErrorKind::BrokenPipe => Ok(0),
        ended => ended,
    }
}

fn tail(tail: &Tail, dir: &Path, json: bool, out: &mut dyn Write) -> io::Result<()> {
    let mut position = Position::default();
    let mut last: VecDeque<Vec<u8>> = VecDeque::new();
    let wants = |line: &[u8]| {
        Record::parse(line)
            .map_or(tail.reason.is_none(), |record| has_reason(&record, tail.reason.as_deref()))
    };
    let mut gaps = GapDetector::default();
    position.advance(dir, |first, line| {
        gaps.check(first, line);
        if tail.lines > 0 && wants(line) {
            if last.len() == tail.lines {
                last.pop_front();
            }
            last.push_back(line.to_owned());
        }
        Ok(())
    })?;
    for line in &last {
        print(line, json, out)?;
    }
    if tail.no_follow {
        return Ok(());
    }
    loop {
        out.flush()?;
        std::thread::sleep(POLL);
        position.advance(dir, |first, line| {
            if let Some((first, last)) = gaps.check(first, line) {
                // Standard error may be closed.
                let _ = writeln!(
                    io::stderr(),
                    "records {first} to {last} were deleted before they could be read"
                );
            }
            if wants(line) {
                print(line, json, out)?;
            }
            Ok(())
        })?;
    }
}

/// Finds records that a slow reader missed because retention deleted their files first.
#[derive(Default)]
struct GapDetector {
    /// The number of the last record; `None` before the first.
    last: Option<u64>,
}

impl GapDetector {
    /// The numbers of the first and last record missing before this line. Only the first line of a file can show a gap:
    /// its number is in the file's name, while any other line may be forged.
    fn check(&mut self, first: bool, line: &[u8]) -> Option<(u64, u64)> {
        let seq = Record::parse(line).ok()?.seq;
        let expected = self.last.map_or(seq, |last| last + 1);
        if seq == expected || first {
            self.last = Some(seq);
        }
        (first && seq > expected).then(|| (expected, seq - 1))
    }
}

fn query(query: &Query, dir: &Path, json: bool, out: &mut dyn Write) -> io::Result<()> {
    let (mut unreadable, mut found) = (0_u64, false);
    let filter = Filter::of(query, Clock::System.now());
    Position::default().advance(dir, |_, line| {
        match Record::parse(line) {
            Ok(record) if filter.wants(&record) => {
                found = true;
                print(line, json, out)?;
            }
            Ok(_) => {}
            Err(_) => unreadable += 1,
        }
        Ok(())
    })?;
    // Standard error may be closed.
    if unreadable > 0 {
        let _ = writeln!(io::stderr(), "{unreadable} lines are not records: see `hookgate audit verify`");
    }
    if let Some(id) = query.id.as_ref().filter(|_| !found) {
        let _ = writeln!(
            io::stderr(),
            "no record that matches these filters has the id {}. In a flood, one record stands for many rejects (`suppressed`) and \
             has the id of the last one. Old records are deleted ([audit] retain, max_bytes)",
            safe(id)
        );
    }
    Ok(())
}

/// A query whose relative times are resolved.
struct Filter<'q> {
    query: &'q Query,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Filter<'_> {
    fn of(query: &Query, now: Timestamp) -> Filter<'_> {
        let at = |when: &Option<When>| when.as_ref().map(|when| when.at(now));
        Filter { query, since: at(&query.since), until: at(&query.until) }
    }

    fn wants(&self, record: &Record) -> bool {
        let Query { id, source, reason, client: network, .. } = self.query;
        let at: Option<Timestamp> = record.ts.parse().ok();
        let client: Option<IpAddr> = record.client.as_ref().and_then(|client| client.parse().ok());
        // With an id, an anchor matches too.
        let reason = id.is_some() && reason.is_none() || has_reason(record, reason.as_deref());
        id.as_ref().is_none_or(|id| *id == record.id)
            && source.as_ref().is_none_or(|source| *source == record.source)
            && reason
            && self.since.is_none_or(|since| at.is_some_and(|at| at >= since))
            && self.until.is_none_or(|until| at.is_some_and(|at| at < until))
            && network.is_none_or(|network| client.is_some_and(|client| network.contains(client)))
    }
}

/// Whether a record matches the `--reason` filter. Anchors are not rejects, so they match only `anchor`.
fn has_reason(record: &Record, wanted: Option<&str>) -> bool {
    match wanted {
        Some(wanted) => record.reason == wanted,
        None => !record.is_anchor(),
    }
}

fn print(line: &[u8], json: bool, out: &mut dyn Write) -> io::Result<()> {
    if json {
        out.write_all(line)?;
        return out.write_all(b"\n");
    }
    match Record::parse(line) {
        Ok(record) => writeln!(out, "{}", human(&record)),
        Err(_) => writeln!(out, "not a record: {}", safe(&String::from_utf8_lossy(line))),
    }
}

/// One line; the columns of fixed width come first, so that they align.
fn human(record: &Record) -> String {
    let Record { ts, status, reason, source, client, method, path, detail, id, .. } = record;
    let more = record.suppressed.map_or_else(String::new, |more| format!(" (and {more} more)"));
    let client = client.as_deref().unwrap_or("-");
    let line = format!("{ts:27}  {status:3}  {reason:27}  {source:16}  {client:15}  {method:4} {path}");
    safe(&format!("{line}  {detail}{more}  {id}"))
}

/// Parses `--reason`. Rejects unknown reasons: a misspelt one would match no record, which looks like a result.
fn reason(text: &str) -> Result<String, String> {
    let known = [Reason::LABELS, Note::LABELS].concat();
    if known.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!("no such reason; the reasons are: {}", known.join(", ")))
}

/// How often `tail` reads a followed log.
const POLL: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests;
