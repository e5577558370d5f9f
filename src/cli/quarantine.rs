//! `hookgate quarantine`: the refused requests that were kept, to be seen, verified again or dropped.
//!
//! Keeps true: it works whether or not a gateway runs, and never verifies anything itself; a body is printed only where it is
//! asked for, and a signature never; what is done, and a body that is printed, leaves a record.

mod reverify;

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::act::{Act, Tally, done_to};
use super::terminal::safe;
use super::{Done, Failure, Global, OK, line};
use crate::config::Config;
use crate::config::secret::Redactor;
use crate::durable::data_dir;
use crate::durable::quarantine::store::{Entry, QuarantineError, QuarantineStore, Selection};
use crate::durable::quarantine::{Kept, Key, Label};
use crate::event::microseconds;
use crate::gateway::OfflineError;
use crate::observe::metrics::Metrics;
use crate::provider::SIGNATURE_HEADERS;
use crate::provider::signature::{fingerprint, without_signatures};
use crate::request::source::Routes;
use reverify::{Asking, Verdicts};

/// What to do with kept requests.
#[derive(Subcommand)]
pub(super) enum QuarantineCommand {
    /// Print them, oldest first, without their headers and bodies.
    List,
    /// Print one: its headers, of a signature the fingerprint.
    Show {
        /// The id of its reject (`rej_…`), or its number in the list.
        #[arg(value_name = "ID|SEQ")]
        which: String,
        /// Print its body as it came, and nothing else (with --json: too). Leaves a record of reason `operator` in the reject
        /// log.
        #[arg(long)]
        body: bool,
    },
    /// Verify them against the secrets configured now, as of when they arrived, and admit what passes. Leaves a record of
    /// reason `operator` in the reject log.
    Reverify {
        #[command(flatten)]
        chosen: Chosen,
        /// Only say what would pass.
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete them. Leaves a record of reason `operator` in the reject log.
    Drop(Chosen),
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct Chosen {
    /// The ids of their rejects (`rej_…`), or their numbers in the list. One that is not there: nothing is done.
    #[arg(value_name = "ID|SEQ")]
    names: Vec<String>,
    /// All there are.
    #[arg(long)]
    all: bool,
    /// All of this source.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
}

impl Chosen {
    fn which(&self) -> Selection {
        match &self.source {
            Some(source) => Selection::Source(source.clone()),
            None if self.all => Selection::All,
            None => Selection::These(self.names.clone()),
        }
    }
}

pub(super) fn run(global: &Global, command: &QuarantineCommand) -> Done {
    let (config, json) = (global.config()?, global.json);
    data_dir::readable(&config.data_dir).map_err(Failure)?;
    let db = data_dir::quarantine_file(&config.data_dir);
    let held = QuarantineStore::open(&db)?;
    match command {
        QuarantineCommand::List => list(&held, key(&config).ok().as_ref(), json),
        QuarantineCommand::Show { which, body } => {
            let (seq, kept) = held.show(which, &key(&config)?).map_err(told)?;
            if *body {
                let of = Tally::from([(kept.label.source.to_string(), 1)]);
                let reject = [kept.label.reject.clone()];
                let act = Act::begin(&config, "quarantine show --body")?;
                act.end(done_to(&of, &reject, |_| "the body of a kept request was printed".to_owned()))?;
            }
            if *body && !json {
                body_of(&kept)
            } else {
                show(seq, &kept, *body, json, &redactor(global, &config)?)
            }
        }
        QuarantineCommand::Reverify { chosen, dry_run } => {
            is_known(chosen, &held, &config)?;
            let asking = Asking { held, db, dry_run: *dry_run, json, verdicts: Verdicts::default() };
            asking.run(global.config_path()?, &config, chosen)
        }
        QuarantineCommand::Drop(chosen) => {
            is_known(chosen, &held, &config)?;
            drop_chosen(&config, &held, chosen, json)
        }
    }
}

/// A source that neither the config nor a kept request has is misspelt.
fn is_known(chosen: &Chosen, held: &QuarantineStore, config: &Config) -> Result<(), Failure> {
    let Some(asked) = &chosen.source else { return Ok(()) };
    if config.sources.iter().any(|source| source.name.value == *asked) || held.has_source(asked)? {
        return Ok(());
    }
    let names: Vec<&str> = config.sources.iter().map(|source| source.name.value.as_str()).collect();
    Err(Failure(format!(
        "no request of a source {asked:?} is kept, and the config has no such source; there are: {}",
        names.join(", ")
    )))
}

fn drop_chosen(config: &Config, held: &QuarantineStore, chosen: &Chosen, json: bool) -> Done {
    let act = Act::begin(config, "quarantine drop")?;
    let dropped = match held.delete(&chosen.which()) {
        Ok(dropped) => dropped,
        Err(why @ QuarantineError::NoSuch(_)) => {
            act.end(Vec::new())?;
            return Err(told(why));
        }
        Err(why) => {
            act.failed(&why.to_string())?;
            return Err(why.into());
        }
    };
    act.end(done_to(&dropped, &chosen.names, |count| format!("{} dropped", requests(count))))?;
    let sum: usize = dropped.values().sum();
    let text = if json { json!({ "dropped": sum }).to_string() } else { format!("{sum} dropped") };
    line(&mut io::stdout(), &text)?;
    Ok(OK)
}

fn requests(count: usize) -> String {
    format!("{count} kept request{}", if count == 1 { "" } else { "s" })
}

/// With what was asked for made safe to print.
fn told(why: QuarantineError) -> Failure {
    Failure(safe(&why.to_string()))
}

fn key(config: &Config) -> Result<Key, Failure> {
    let key = Key::configured(&config.quarantine).map_err(|why| Failure(format!("quarantine.key: {why}")))?;
    key.ok_or_else(|| OfflineError::NoKey.into())
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

fn list(held: &QuarantineStore, key: Option<&Key>, json: bool) -> Done {
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
    let (method, path) = (redactor.redact(&kept.content.method), redactor.redact(&kept.content.path));
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
            without_signatures(&redactor.redact(&String::from_utf8_lossy(value.as_bytes()))).into_owned()
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
