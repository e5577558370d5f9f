//! `hookgate quarantine`: the refused requests that were kept, to be seen, verified again or dropped.
//!
//! Keeps true: it works whether or not a gateway runs, and never verifies anything itself; a body is printed only where it is
//! asked for, and a signature never.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::terminal::safe;
use super::{Done, FAILED, Failure, Global, OK, block_on, line};
use crate::clock::{self, Clock};
use crate::config::Config;
use crate::event::microseconds;
use crate::gateway::{self, StartError, Stopped, StoppedError};
use crate::metrics::Metrics;
use crate::quarantine::held::{Entry, Held, Run, Which};
use crate::quarantine::{self, Judgement, Kept, Key, Label};
use crate::route::Routes;
use crate::secret::Redactor;
use crate::signature::{SIGNATURE_HEADERS, fingerprint, without_signatures};

/// What to do with kept requests.
#[derive(Subcommand)]
pub(super) enum QuarantineCommand {
    /// Print them, oldest first, without their headers and bodies.
    List,
    /// Print one: its headers, of a signature the fingerprint.
    Show {
        /// Its number in the list.
        #[arg(value_name = "SEQ")]
        seq: i64,
        /// Print its body as it came, and nothing else (with --json: too).
        #[arg(long)]
        body: bool,
    },
    /// Verify them against the secrets configured now, as of when they arrived, and admit what passes.
    Reverify {
        #[command(flatten)]
        chosen: Chosen,
        /// Only say what would pass.
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete them.
    Drop(Chosen),
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct Chosen {
    /// Their numbers in the list.
    #[arg(value_name = "SEQ")]
    seqs: Vec<i64>,
    /// All there are.
    #[arg(long)]
    all: bool,
    /// All of this source.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
}

impl Chosen {
    fn which(&self) -> Which {
        match &self.source {
            Some(source) => Which::Source(source.clone()),
            None if self.all => Which::All,
            None => Which::These(self.seqs.clone()),
        }
    }
}

pub(super) fn run(global: &Global, command: &QuarantineCommand) -> Done {
    let (config, json) = (global.config()?, global.json);
    let db = quarantine::file(&config.data_dir);
    let held = Held::open(&db)?;
    match command {
        QuarantineCommand::List => list(&held, key(&config).ok().as_ref(), json),
        QuarantineCommand::Show { seq, body } => {
            let kept = held.show(*seq, &key(&config)?)?;
            if *body && !json {
                body_of(&kept)
            } else {
                show(*seq, &kept, *body, json, &redactor(global, &config)?)
            }
        }
        QuarantineCommand::Reverify { chosen, dry_run } => {
            let asking = Asking { held, dry_run: *dry_run, json };
            block_on(asking.reverify(global.config_path()?, &config, &chosen.which(), &db))
        }
        QuarantineCommand::Drop(chosen) => {
            let dropped = held.delete(&chosen.which())?;
            let text =
                if json { json!({ "dropped": dropped }).to_string() } else { format!("{dropped} dropped") };
            line(&mut io::stdout(), &text)?;
            Ok(OK)
        }
    }
}

fn key(config: &Config) -> Result<Key, Failure> {
    let key = Key::configured(&config.quarantine).map_err(|why| Failure(format!("quarantine.key: {why}")))?;
    key.ok_or_else(|| StoppedError::NoKey.into())
}

/// Knows every secret of the sources. None may be missing: it would be shown.
fn redactor(global: &Global, config: &Config) -> Result<Redactor, Failure> {
    let mut problems = Vec::new();
    let routes = Routes::build(config, &Metrics::new()?, None, &mut problems);
    match problems.iter().find(|problem| !problem.warning) {
        None => Ok(routes.redactor),
        Some(first) => {
            let first = first.render(&global.config_path()?.display().to_string());
            let what = "without every secret nobody can say what to cut out of the headers";
            Err(Failure(format!("{first}\nhookgate: {what}; `hookgate check` lists every problem")))
        }
    }
}

fn list(held: &Held, key: Option<&Key>, json: bool) -> Done {
    held.list(|entry| {
        // Without a key nobody can say under which one it was kept.
        let ours = key.map(|key| entry.kept_under(key));
        let shown = if json { as_json(&entry, ours).to_string() } else { as_text(&entry, ours) };
        Ok::<_, Failure>(line(&mut io::stdout(), &shown)?)
    })?;
    Ok(OK)
}

fn as_text(entry: &Entry, ours: Option<bool>) -> String {
    let seq = entry.seq;
    let Some(label) = &entry.label else { return format!("{seq:>8}  (changed: it cannot be read)") };
    let Label { arrived, source, reason, reject, client, bytes, .. } = label;
    let note = if ours == Some(false) { "  (kept under another quarantine.key)" } else { "" };
    let arrived = microseconds(*arrived);
    safe(&format!(
        "{seq:>8}  {arrived}  {source:<20}  {reason:<27}  {bytes:>8}  {client:<15}  {reject}{note}"
    ))
}

fn as_json(entry: &Entry, ours: Option<bool>) -> Value {
    let key = ours.map(|ours| if ours { "current" } else { "other" });
    match &entry.label {
        Some(label) => {
            let mut shown = label_json(entry.seq, label);
            shown["key"] = key.into();
            shown
        }
        None => json!({ "seq": entry.seq, "changed": true, "key": key }),
    }
}

fn label_json(seq: i64, label: &Label) -> Value {
    let Label { arrived, source, provider, reason, reject, client, bytes } = label;
    json!({
        "seq": seq, "arrived": microseconds(*arrived), "source": **source, "provider": provider, "reason": reason,
        "bytes": bytes, "client": client, "reject": reject,
    })
}

/// A request without its body, unless that is asked for too.
fn show(seq: i64, kept: &Kept, body: bool, json: bool, redactor: &Redactor) -> Done {
    let headers: Vec<(&str, String)> = headers(kept, redactor).collect();
    let mut shown = label_json(seq, &kept.label);
    let (method, path) = (redactor.clean(&kept.content.method), redactor.clean(&kept.content.path));
    (shown["method"], shown["path"]) = (method.into(), path.into());
    if json {
        shown["headers"] = headers.iter().map(|(name, value)| json!([name, value])).collect();
        if body {
            match std::str::from_utf8(&kept.content.body) {
                Ok(text) => shown["body"] = text.into(),
                Err(_) => shown["body_base64"] = STANDARD.encode(&kept.content.body).into(),
            }
        }
        line(&mut io::stdout(), &shown.to_string())?;
        return Ok(OK);
    }
    let facts = shown.as_object().into_iter().flatten();
    let facts =
        facts.map(|(name, value)| (name.as_str(), value.as_str().map_or(value.to_string(), str::to_owned)));
    let headers = headers.iter().map(|(name, value)| (*name, value.clone()));
    for (name, value) in facts.chain([("", String::new())]).chain(headers) {
        let text = if name.is_empty() { String::new() } else { safe(&format!("{name}: {value}")) };
        if !line(&mut io::stdout(), &text)? {
            break;
        }
    }
    Ok(OK)
}

/// Each header's value without what is secret in it, of a signature the fingerprint, as the reject log has them.
fn headers<'k>(kept: &'k Kept, redactor: &Redactor) -> impl Iterator<Item = (&'k str, String)> {
    kept.content.headers.iter().map(|(name, value)| {
        let value = if SIGNATURE_HEADERS.contains(&name.as_str()) {
            fingerprint(value.as_bytes())
        } else {
            without_signatures(&redactor.clean(&String::from_utf8_lossy(value.as_bytes()))).into_owned()
        };
        (name.as_str(), value)
    })
}

fn body_of(kept: &Kept) -> Done {
    let written = io::stdout().write_all(&kept.content.body).and_then(|()| io::stdout().flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(OK),
    }
}

/// A request to verify again, to whoever has the quarantine open: a gateway, or else this process.
struct Asking {
    held: Held,
    dry_run: bool,
    json: bool,
}

impl Asking {
    async fn reverify(&self, path: &Path, config: &Config, which: &Which, db: &Path) -> Done {
        let stopped = match Stopped::open(config, Clock::System).await {
            Ok(stopped) => Some(stopped),
            Err(StoppedError::Running) => None,
            Err(StoppedError::Start(StartError::Config(problems))) => {
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
        let done = self.ask(which, stopped.is_some(), db).await;
        if let Some(stopped) = stopped {
            stopped.close().await;
        }
        done
    }

    async fn ask(&self, which: &Which, alone: bool, db: &Path) -> Done {
        let run = self.held.ask(which, self.dry_run)?;
        let told = self.tell(&run).await;
        // Whoever comes later is not to do what nobody waits for.
        self.held.withdraw(&run)?;
        let (told, fine) = told?;
        match run.seqs.len() - told {
            0 if fine => Ok(OK),
            0 => Ok(FAILED),
            left if alone => {
                Err(Failure(format!("{left} got no verdict: {} cannot be written", db.display())))
            }
            left => Err(Failure(format!(
                "{left} got no verdict from the gateway within {} s; they are still kept, ask again",
                PATIENCE.as_secs()
            ))),
        }
    }

    /// Prints each verdict as it comes. How many came, and whether the queue took what was to be admitted.
    async fn tell(&self, run: &Run) -> Result<(usize, bool), Failure> {
        let (mut told, mut fine, mut since) = (0, true, clock::instant());
        while told < run.seqs.len() && clock::instant().saturating_duration_since(since) < PATIENCE {
            for (seq, judgement) in self.held.answers(run)? {
                (told, since) = (told + 1, clock::instant());
                fine &= !matches!(judgement, Judgement::NotAdmitted { .. });
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
