//! `hookgate quarantine reverify`: asks the gateway that has the quarantine open to verify kept requests again, and prints each
//! verdict. Where no gateway runs, it opens the stores itself.
//!
//! Keeps true: the command decides no verdict. When it ends, it withdraws the requests that have no verdict yet.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::act::{Act, Tally, done_to};
use super::super::terminal::safe;
use super::super::{Done, FAILED, Failure, OK, block_on, line};
use super::{Chosen, requests, told};
use crate::base::clock::{self, Clock};
use crate::base::label::UNKNOWN;
use crate::config::Config;
use crate::durable::audit_ledger::acts;
use crate::durable::quarantine::Judgement;
use crate::durable::quarantine::store::{QuarantineStore, Run, Selection};
use crate::gateway::{self, OfflineError, OfflineGateway, StartError};

/// Verdicts that have come, by source and by kind.
#[derive(Default)]
pub(super) struct Verdicts(BTreeMap<String, BTreeMap<&'static str, usize>>);

impl Verdicts {
    fn count(&mut self, source: &str, judgement: &Judgement) {
        *self.0.entry(source.to_owned()).or_default().entry(kind(judgement)).or_default() += 1;
    }

    fn done(&self, names: &[String]) -> Vec<acts::Done> {
        let of = |(source, kinds): (&String, &BTreeMap<&str, usize>)| {
            let sum: usize = kinds.values().sum();
            let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
            let tally = Tally::from([(source.clone(), sum)]);
            done_to(&tally, names, |count| {
                format!("{} verified again: {}", requests(count), kinds.join(", "))
            })
        };
        self.0.iter().flat_map(of).collect()
    }
}

/// A verdict in a word or two.
fn kind(judgement: &Judgement) -> &'static str {
    match judgement {
        Judgement::Admitted { .. } => "admitted",
        Judgement::Duplicate { .. } => "known already",
        Judgement::Ignored => "a health check",
        Judgement::Passes => "would be admitted",
        Judgement::Refused { .. } => "refused",
        Judgement::NotAdmitted { .. } => "not admitted",
        Judgement::NoSource | Judgement::Closed { .. } => "not verified",
        Judgement::Gone => "gone",
    }
}

/// A request to verify again, to the process that has the quarantine open: a gateway, or else this one.
pub(super) struct Asking {
    pub(super) held: QuarantineStore,
    pub(super) db: PathBuf,
    pub(super) dry_run: bool,
    pub(super) json: bool,
    pub(super) verdicts: Verdicts,
}

impl Asking {
    /// Asks, prints what comes of it and leaves the record.
    pub(super) fn run(mut self, path: &Path, config: &Config, chosen: &Chosen) -> Done {
        // A dry run changes nothing.
        let act = if self.dry_run { None } else { Some(Act::begin(config, "quarantine reverify")?) };
        let done = block_on(self.reverify(path, config, &chosen.which()));
        if let Some(act) = act {
            act.end(self.verdicts.done(&chosen.names))?;
        }
        done
    }

    async fn reverify(&mut self, path: &Path, config: &Config, which: &Selection) -> Done {
        let stopped = match OfflineGateway::open(config, Clock::System).await {
            Ok(stopped) => Some(stopped),
            Err(OfflineError::Running) => None,
            Err(OfflineError::Start(StartError::Config(problems))) => {
                let first = problems.first().map(|problem| format!("{}: {}", problem.key, problem.what));
                return Err(Failure(format!(
                    "{}\nhookgate: `hookgate check` lists every problem",
                    first.unwrap_or_default()
                )));
            }
            Err(why) => return Err(why.into()),
        };
        if stopped.is_none() {
            // The secret that has just been put into the config is to count.
            tokio::time::sleep(gateway::unread_for(path, config, Clock::System.now())).await;
        }
        let done = self.ask(which, stopped.is_some()).await;
        if let Some(stopped) = stopped {
            stopped.close().await;
        }
        done
    }

    async fn ask(&mut self, which: &Selection, alone: bool) -> Done {
        let run = self.held.request_reverify(which, self.dry_run).map_err(told)?;
        let told = self.tell(&run).await;
        // A gateway that starts later must not act on a request whose command has ended.
        self.held.cancel(&run)?;
        let (told, fine) = told?;
        match run.seqs.len() - told {
            0 if fine => Ok(OK),
            0 => Ok(FAILED),
            left if alone => {
                Err(Failure(format!("{left} got no verdict: {} cannot be written", self.db.display())))
            }
            left => Err(Failure(format!(
                "{left} got no verdict from the gateway within {} s; they are still kept, ask again",
                PATIENCE.as_secs()
            ))),
        }
    }

    /// Prints each verdict as it comes. How many verdicts, and whether the queue took what was to be admitted.
    async fn tell(&mut self, run: &Run) -> Result<(usize, bool), Failure> {
        let (mut told, mut fine, mut since) = (0, true, clock::instant());
        while told < run.seqs.len() && clock::instant().saturating_duration_since(since) < PATIENCE {
            for (seq, judgement) in self.held.take_verdicts(run)? {
                (told, since) = (told + 1, clock::instant());
                fine &= !matches!(judgement, Judgement::NotAdmitted { .. });
                self.verdicts.count(run.source(seq).unwrap_or(UNKNOWN), &judgement);
                let text =
                    if self.json { verdict_json(seq, &judgement)? } else { verdict_text(seq, &judgement) };
                if !line(&mut io::stdout(), &text)? {
                    return Ok((run.seqs.len(), fine));
                }
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok((told, fine))
    }
}

fn verdict_json(seq: i64, judgement: &Judgement) -> Result<String, Failure> {
    let mut verdict = serde_json::to_value(judgement)?;
    verdict["seq"] = seq.into();
    Ok(verdict.to_string())
}

fn verdict_text(seq: i64, judgement: &Judgement) -> String {
    let verdict = match judgement {
        Judgement::Admitted { id } => format!("admitted {id}"),
        Judgement::Duplicate { id } => format!("duplicate {id}"),
        Judgement::Ignored => "genuine, a health check: nothing to forward".to_owned(),
        Judgement::Passes => "passes: it would be admitted".to_owned(),
        Judgement::Refused { reason, why } => format!("still refused: {reason}: {why}"),
        Judgement::NotAdmitted { why } => format!("not admitted, and still kept: {why}"),
        Judgement::NoSource => "still kept: its source is not in the config".to_owned(),
        Judgement::Closed { why } => format!("still kept: {why}"),
        Judgement::Gone => "it is not there any more".to_owned(),
    };
    safe(&format!("{seq:>8}  {verdict}"))
}

const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// From one verdict to the next. A queue that is away takes a verdict `edge.request_timeout`.
const PATIENCE: Duration = Duration::from_secs(60);
