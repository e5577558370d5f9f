//! `hookgate quarantine reverify`: asks the running gateway to verify kept requests again, and prints each verdict. If
//! no gateway runs, it opens the stores itself.
//!
//! Keeps true: the command decides no verdict. When it ends, it cancels its orders that have no verdict yet.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::act::{Act, Tally, entries};
use super::super::terminal::safe;
use super::super::{CommandResult, FAILED, Failure, OK, block_on, offline_failure, print_line};
use super::{SelectionArgs, failure, requests};
use crate::base::clock::{self, Clock};
use crate::base::label::UNKNOWN;
use crate::config::Config;
use crate::durable::audit_ledger::acts;
use crate::durable::quarantine::Judgement;
use crate::durable::quarantine::store::{QuarantineStore, Run, Selection};
use crate::gateway::{self, OfflineError, OfflineGateway};

/// The verdicts so far, counted by source and kind.
#[derive(Default)]
pub(super) struct Verdicts(BTreeMap<String, BTreeMap<&'static str, usize>>);

impl Verdicts {
    fn count(&mut self, source: &str, judgement: &Judgement) {
        *self.0.entry(source.to_owned()).or_default().entry(kind(judgement)).or_default() += 1;
    }

    fn entries(&self, names: &[String]) -> Vec<acts::Done> {
        let source_entries = |(source, kinds): (&String, &BTreeMap<&str, usize>)| {
            let sum: usize = kinds.values().sum();
            let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
            let tally = Tally::from([(source.clone(), sum)]);
            entries(&tally, names, |count| {
                format!("{} verified again: {}", requests(count), kinds.join(", "))
            })
        };
        self.0.iter().flat_map(source_entries).collect()
    }
}

/// A verdict in a few words.
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

/// An order to verify kept requests again. The process that has the quarantine open does it: a gateway, or else this
/// one.
pub(super) struct Reverify {
    pub(super) store: QuarantineStore,
    pub(super) db: PathBuf,
    pub(super) dry_run: bool,
    pub(super) json: bool,
    pub(super) verdicts: Verdicts,
}

impl Reverify {
    /// Places the order, prints the verdicts and leaves the record.
    pub(super) fn run(mut self, path: &Path, config: &Config, args: &SelectionArgs) -> CommandResult {
        // A dry run changes nothing.
        let act = if self.dry_run { None } else { Some(Act::begin(config, "quarantine reverify")?) };
        let result = block_on(self.reverify(path, config, &args.selection()));
        if let Some(act) = act {
            act.end(self.verdicts.entries(&args.names))?;
        }
        result
    }

    async fn reverify(&mut self, path: &Path, config: &Config, selection: &Selection) -> CommandResult {
        let offline = match OfflineGateway::open_with_quarantine(config, Clock::System).await {
            Ok(offline) => Some(offline),
            Err(OfflineError::Running) => None,
            Err(why) => return Err(offline_failure(why)),
        };
        if offline.is_none() {
            // Wait until the gateway has read a secret that the operator has just changed.
            tokio::time::sleep(gateway::unread_for(path, config, Clock::System.now())).await;
        }
        let result = self.ask(selection, offline.is_some()).await;
        if let Some(offline) = offline {
            offline.close().await;
        }
        result
    }

    async fn ask(&mut self, selection: &Selection, is_offline: bool) -> CommandResult {
        let run = self.store.request_reverify(selection, self.dry_run).map_err(failure)?;
        let printed = self.print_verdicts(&run).await;
        // A gateway that starts later must not act on the order of a command that has ended.
        self.store.cancel(&run)?;
        let (verdicts, all_queued) = printed?;
        match run.seqs.len() - verdicts {
            0 if all_queued => Ok(OK),
            0 => Ok(FAILED),
            left if is_offline => {
                Err(Failure(format!("{left} got no verdict: {} cannot be written", self.db.display())))
            }
            left => Err(Failure(format!(
                "{left} got no verdict from the gateway within {} s; they are still kept, try again",
                MAX_WAIT.as_secs()
            ))),
        }
    }

    /// Prints each verdict as it arrives. Returns their number, and whether the queue accepted every request that
    /// passed.
    async fn print_verdicts(&mut self, run: &Run) -> Result<(usize, bool), Failure> {
        let (mut verdicts, mut all_queued, mut since) = (0, true, clock::instant());
        while verdicts < run.seqs.len() && clock::instant().saturating_duration_since(since) < MAX_WAIT {
            for (seq, judgement) in self.store.take_verdicts(run)? {
                (verdicts, since) = (verdicts + 1, clock::instant());
                all_queued &= !matches!(judgement, Judgement::NotAdmitted { .. });
                self.verdicts.count(run.source(seq).unwrap_or(UNKNOWN), &judgement);
                let text =
                    if self.json { verdict_json(seq, &judgement)? } else { verdict_text(seq, &judgement) };
                if !print_line(&mut io::stdout(), &text)? {
                    return Ok((run.seqs.len(), all_queued));
                }
            }
            tokio::time::sleep(POLL).await;
        }
        Ok((verdicts, all_queued))
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
        Judgement::Ignored => "genuine, a health check: not queued".to_owned(),
        Judgement::Passes => "passes: it would be admitted".to_owned(),
        Judgement::Refused { reason, why } => format!("still refused: {reason}: {why}"),
        Judgement::NotAdmitted { why } => format!("not admitted, and still kept: {why}"),
        Judgement::NoSource => "still kept: its source is not in the config".to_owned(),
        Judgement::Closed { why } => format!("still kept: {why}"),
        Judgement::Gone => "it is no longer kept".to_owned(),
    };
    safe(&format!("{seq:>8}  {verdict}"))
}

const POLL: Duration = Duration::from_millis(50);
/// The longest wait for the next verdict. If the queue is down, each verdict takes `edge.request_timeout`.
const MAX_WAIT: Duration = Duration::from_secs(60);
