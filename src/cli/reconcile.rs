//! `hookgate reconcile`: admits events of a time that the provider sent and that never arrived, out of the provider's own
//! log.
//!
//! Keeps true: the process that has the stores open admits them: the running gateway, or else this one. What was done
//! stays done when a later step fails. Every run that admitted or retried something leaves a record.

use std::io::{self, Write};

use clap::Args;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::act::{Act, Tally, entries};
use super::terminal::safe;
use super::when::{WHEN_HELP, When};
use super::{CommandResult, FAILED, Failure, Global, OK, block_on, offline_failure, print_line};
use crate::base::clock::Clock;
use crate::config::{self, Config};
use crate::durable::audit_ledger::acts::Done;
use crate::gateway;
use crate::gateway::reconcile::catching_up::{CatchingUp, Line, Summary, earliest};
use crate::gateway::reconcile::{AdmitError, Admitter};
use crate::observe::metrics::ReconcileOutcome;
use crate::provider::Catalog;
use crate::subscriptions::provider_log;

/// `reconcile`.
#[derive(Args)]
#[command(after_help = WHEN_HELP)]
pub(super) struct Reconcile {
    /// The source.
    #[arg(long, value_name = "NAME")]
    source: String,
    /// Events that the provider first tried to deliver from this time on. It must be within dedupe.window.
    #[arg(long, value_name = "TIME")]
    since: When,
    /// Events before this time; by default before now.
    #[arg(long, value_name = "TIME")]
    until: Option<When>,
    /// Only print what would be admitted (`missing`).
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(global: &Global, args: &Reconcile) -> CommandResult {
    let config = global.config()?;
    let now = Clock::System.now();
    let source = config.sources.iter().find(|source| source.name.value == args.source);
    let source = source.ok_or_else(|| no_source(&config, &args.source))?;
    let (since, until) = (args.since.at(now), args.until.map_or(now, |until| until.at(now)));
    check_times(&config, (since, until), now)?;
    let since = since.max(earliest(now, config.dedupe.window.value));
    let until = until.min(now);
    let mut run = Run { source: &args.source, json: global.json, unread: false, failed: None };
    block_on(async {
        let log = provider_log::open(&config, source, since, until).await?;
        let admitter = Admitter::open(&config, Clock::System).await.map_err(|why| match why {
            AdmitError::Offline(why) => offline_failure(why),
            why => why.into(),
        })?;
        if admitter.gateway_runs() {
            // Wait until the gateway has read a source that the operator has just added.
            let path = global.config_path()?;
            tokio::time::sleep(gateway::unread_for(path, &config, Clock::System.now())).await;
        }
        // A dry run changes nothing. The database is there now: the process that has the stores open made it.
        let act = match args.dry_run {
            true => None,
            false => Some(Act::begin(&config, "reconcile")),
        };
        let act = match act.transpose() {
            Ok(act) => act,
            Err(why) => {
                admitter.close().await;
                return Err(why);
            }
        };
        let catalog = Catalog::of(&config.providers, &mut Vec::new());
        let provider = catalog.by_name(&source.provider.value);
        let canonical = |kind: &str| match provider {
            Some(provider) => provider.canonical_type(Some(kind)).into_owned(),
            None => kind.to_owned(),
        };
        let mut each = |line: Line| run.print(line);
        let mut catching_up = CatchingUp {
            admitter: &admitter,
            source: &args.source,
            since,
            until,
            window: config.dedupe.window.value,
            clock: &Clock::System,
            dry_run: args.dry_run,
            canonical: &canonical,
            each: &mut each,
            summary: Summary::default(),
        };
        let done = catching_up.run(log).await;
        let summary = catching_up.summary;
        let ended = match done {
            Ok(()) if summary.of(ReconcileOutcome::Failed) == 0 && !args.dry_run && until >= now => {
                admitter.succeeded(&args.source, since, until).await.map_err(Failure::from)
            }
            done => done.map_err(Failure::from),
        };
        admitter.close().await;
        if let Some(act) = act {
            act.end(record(&args.source, &summary))?;
        }
        run.end(&summary)?;
        ended?;
        Ok(if summary.of(ReconcileOutcome::Failed) == 0 { OK } else { FAILED })
    })
}

/// What a run did, for the reject log; nothing if it changed nothing.
fn record(source: &str, summary: &Summary) -> Vec<Done> {
    let of = |outcome| summary.of(outcome);
    let (accepted, retried) = (of(ReconcileOutcome::Accepted), of(ReconcileOutcome::Retried));
    let sum = usize::try_from(accepted + retried).unwrap_or(usize::MAX);
    let tally = if sum == 0 { Tally::new() } else { Tally::from([(source.to_owned(), sum)]) };
    entries(&tally, &[], |_| format!("reconcile: {accepted} admitted, {retried} retried"))
}

fn check_times(
    config: &Config,
    (since, until): (Timestamp, Timestamp),
    now: Timestamp,
) -> Result<(), Failure> {
    let window = config.dedupe.window.value;
    let earliest = now.checked_sub(window).unwrap_or(Timestamp::MIN);
    if since < earliest {
        return Err(Failure(format!(
            "--since is before dedupe.window ({}): what arrived before {earliest:.0} is forgotten, and would enter a second \
             time; nothing was done",
            config::show_duration(window)
        )));
    }
    if since >= until {
        return Err(Failure("--since is not before --until; nothing was done".to_owned()));
    }
    Ok(())
}

fn no_source(config: &Config, name: &str) -> Failure {
    let names: Vec<&str> = config.sources.iter().map(|source| source.name.value.as_str()).collect();
    Failure(format!("the config has no source {}; it has: {}", safe(name), names.join(", ")))
}

/// The output of one run.
struct Run<'a> {
    source: &'a str,
    json: bool,
    /// The reader of standard output has closed it. That does not stop the run.
    unread: bool,
    /// Standard output cannot be written.
    failed: Option<io::Error>,
}

impl Run<'_> {
    fn print(&mut self, line: Line) {
        let outcome = line.outcome.label();
        if let Some(why) = &line.why {
            // Standard error may be closed.
            let _ = writeln!(io::stderr(), "hookgate: {}: {}", safe(&line.id), safe(why));
        }
        let text = if self.json {
            json!({ "id": line.id, "type": line.kind, "outcome": outcome }).to_string()
        } else {
            safe(&format!("{outcome:<10}  {:<28}  {}", line.kind.as_deref().unwrap_or("-"), line.id))
        };
        self.write(&text);
    }

    fn end(mut self, summary: &Summary) -> Result<(), Failure> {
        let text = if self.json {
            let counts: Map<String, Value> =
                summary.counts().map(|(outcome, count)| (outcome.label().to_owned(), count.into())).collect();
            json!({ "summary": counts }).to_string()
        } else {
            let counts: Vec<String> =
                summary.counts().map(|(outcome, count)| format!("{count} {}", outcome.label())).collect();
            format!("{}: {}", safe(self.source), counts.join(", "))
        };
        self.write(&text);
        self.failed.map_or(Ok(()), |why| Err(why.into()))
    }

    fn write(&mut self, text: &str) {
        if self.unread || self.failed.is_some() {
            return;
        }
        match print_line(&mut io::stdout(), text) {
            Ok(read) => self.unread = !read,
            Err(why) => self.failed = Some(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_before_the_window_or_without_length_is_refused() {
        let (config, _) = config::parse("[dedupe]\nwindow = \"7d\"\n", std::path::Path::new("hookgate.toml"));
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let check = |since: &str, until: Timestamp| {
            let since: When = since.parse().unwrap();
            check_times(&config, (since.at(now), until), now).map_err(|Failure(why)| why)
        };
        assert_eq!(check("7d", now), Ok(()));
        let why = check("8d", now).unwrap_err();
        assert!(why.contains("dedupe.window (7d)") && why.contains("2026-11-14T12:00:00Z"), "{why}");
        assert!(check("1h", now.checked_sub(std::time::Duration::from_secs(3600)).unwrap()).is_err());
        assert!(check("0s", now).is_err());
    }
}
