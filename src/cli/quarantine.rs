//! `hookgate quarantine`: shows, verifies again or deletes the refused requests that were kept.
//!
//! Keeps true: it works whether or not a gateway runs. It prints a body only with `--body`, and never a signature.
//! Every change, and every printed body, leaves a record.

mod reverify;

use std::io::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::act::{Act, Tally, entries};
use super::terminal::safe;
use super::{CommandResult, Failure, Global, OK, print_line};
use crate::config::Config;
use crate::durable::data_dir;
use crate::durable::quarantine::store::{Entry, QuarantineError, QuarantineStore, Selection};
use crate::durable::quarantine::{Kept, Key, Label};
use crate::event::microseconds;
use crate::gateway::OfflineError;
use crate::observe::metrics::Metrics;
use crate::provider::signature::{fingerprint, without_signatures};
use crate::request::source::Routes;
use reverify::{Reverify, Verdicts};

/// What to do with kept requests.
#[derive(Subcommand)]
pub(super) enum QuarantineCommand {
    /// List kept requests, oldest first, without headers and bodies.
    List,
    /// Print one request with its headers; of a signature only the fingerprint.
    Show {
        /// The id of its reject (`rej_…`), or its number in the list.
        #[arg(value_name = "ID|SEQ")]
        name: String,
        /// Print only its body, byte for byte; with --json the body too. Leaves a record with reason `operator` in the
        /// reject log.
        #[arg(long)]
        body: bool,
    },
    /// Verify requests again with the present secrets, as of their time of arrival, and queue those that pass. Leaves a
    /// record with reason `operator` in the reject log.
    Reverify {
        #[command(flatten)]
        args: SelectionArgs,
        /// Only print which requests would pass.
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete kept requests. Leaves a record with reason `operator` in the reject log.
    Drop(SelectionArgs),
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct SelectionArgs {
    /// The ids of their rejects (`rej_…`), or their numbers in the list. If one does not exist, nothing is done.
    #[arg(value_name = "ID|SEQ")]
    names: Vec<String>,
    /// All kept requests.
    #[arg(long)]
    all: bool,
    /// All kept requests of this source.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
}

impl SelectionArgs {
    fn selection(&self) -> Selection {
        match &self.source {
            Some(source) => Selection::Source(source.clone()),
            None if self.all => Selection::All,
            None => Selection::These(self.names.clone()),
        }
    }
}

pub(super) fn run(global: &Global, command: &QuarantineCommand) -> CommandResult {
    let (config, json) = (global.config()?, global.json);
    data_dir::readable(&config.data_dir).map_err(Failure)?;
    let db = data_dir::quarantine_file(&config.data_dir);
    let store = QuarantineStore::open(&db)?;
    match command {
        QuarantineCommand::List => list(&store, key(&config).ok().as_ref(), json),
        QuarantineCommand::Show { name, body } => {
            let (seq, kept) = store.show(name, &key(&config)?).map_err(failure)?;
            if *body {
                let tally = Tally::from([(kept.label.source.to_string(), 1)]);
                let reject = [kept.label.reject.clone()];
                let act = Act::begin(&config, "quarantine show --body")?;
                act.end(entries(&tally, &reject, |_| "the body of a kept request was printed".to_owned()))?;
            }
            if *body && !json {
                print_body(&kept)
            } else {
                show(seq, &kept, *body, json, &routes(global, &config)?)
            }
        }
        QuarantineCommand::Reverify { args, dry_run } => {
            check_source(args, &store, &config)?;
            let reverify = Reverify { store, db, dry_run: *dry_run, json, verdicts: Verdicts::default() };
            reverify.run(global.config_path()?, &config, args)
        }
        QuarantineCommand::Drop(args) => {
            check_source(args, &store, &config)?;
            delete(&config, &store, args, json)
        }
    }
}

/// Refuses a source that neither the config nor a kept request has: it is misspelt.
fn check_source(args: &SelectionArgs, store: &QuarantineStore, config: &Config) -> Result<(), Failure> {
    let Some(name) = &args.source else { return Ok(()) };
    if config.sources.iter().any(|source| source.name.value == *name) || store.has_source(name)? {
        return Ok(());
    }
    let names: Vec<&str> = config.sources.iter().map(|source| source.name.value.as_str()).collect();
    Err(Failure(format!(
        "no request of a source {name:?} is kept, and the config has no such source; it has: {}",
        names.join(", ")
    )))
}

fn delete(config: &Config, store: &QuarantineStore, args: &SelectionArgs, json: bool) -> CommandResult {
    let act = Act::begin(config, "quarantine drop")?;
    let dropped = match store.delete(&args.selection()) {
        Ok(dropped) => dropped,
        Err(why @ QuarantineError::NoSuch(_)) => {
            act.end(Vec::new())?;
            return Err(failure(why));
        }
        Err(why) => {
            act.failed(&why.to_string())?;
            return Err(why.into());
        }
    };
    act.end(entries(&dropped, &args.names, |count| format!("{} dropped", requests(count))))?;
    let sum: usize = dropped.values().sum();
    let text = if json { json!({ "dropped": sum }).to_string() } else { format!("{sum} dropped") };
    print_line(&mut io::stdout(), &text)?;
    Ok(OK)
}

fn requests(count: usize) -> String {
    format!("{count} kept request{}", if count == 1 { "" } else { "s" })
}

/// The error with the operator's own words made safe to print.
fn failure(why: QuarantineError) -> Failure {
    Failure(safe(&why.to_string()))
}

fn key(config: &Config) -> Result<Key, Failure> {
    let key = Key::configured(&config.quarantine).map_err(|why| Failure(format!("quarantine.key: {why}")))?;
    key.ok_or_else(|| OfflineError::NoKey.into())
}

/// The routes, which know every secret and every header of signatures. Fails if a secret is missing, since `show` would
/// then print it.
fn routes(global: &Global, config: &Config) -> Result<Routes, Failure> {
    let mut problems = Vec::new();
    let routes = Routes::build(config, &Metrics::new()?, None, &mut problems);
    match problems.iter().find(|problem| !problem.warning) {
        None => Ok(routes),
        Some(first) => {
            let first = first.render(&global.config_path()?.display().to_string());
            let what = "the headers cannot be redacted without every secret";
            Err(Failure(format!("{first}\nhookgate: {what}; `hookgate check` lists every problem")))
        }
    }
}

fn list(store: &QuarantineStore, key: Option<&Key>, json: bool) -> CommandResult {
    store.list(|entry| {
        // Only with the key can it be compared with the key of the request.
        let ours = key.map(|key| entry.kept_under(key));
        let shown = if json { as_json(&entry, ours).to_string() } else { as_text(&entry, ours) };
        Ok::<_, Failure>(print_line(&mut io::stdout(), &shown)?)
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

/// Prints a request, with its body only if `body` is set.
fn show(seq: i64, kept: &Kept, body: bool, json: bool, routes: &Routes) -> CommandResult {
    let redactor = &routes.redactor;
    let headers: Vec<(&str, String)> = headers(kept, routes).collect();
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
        print_line(&mut io::stdout(), &shown.to_string())?;
        return Ok(OK);
    }
    let fields = shown.as_object().into_iter().flatten();
    let fields =
        fields.map(|(name, value)| (name.as_str(), value.as_str().map_or(value.to_string(), str::to_owned)));
    let headers = headers.iter().map(|(name, value)| (*name, value.clone()));
    for (name, value) in fields.chain([("", String::new())]).chain(headers) {
        let text = if name.is_empty() { String::new() } else { safe(&format!("{name}: {value}")) };
        if !print_line(&mut io::stdout(), &text)? {
            break;
        }
    }
    Ok(OK)
}

/// Each header with secrets cut out and signatures replaced by fingerprints, as in the reject log.
fn headers<'k>(kept: &'k Kept, routes: &Routes) -> impl Iterator<Item = (&'k str, String)> {
    let (redactor, signatures) = (&routes.redactor, &routes.signing_headers.signatures);
    kept.content.headers.iter().map(|(name, value)| {
        let value = if signatures.contains(name) {
            fingerprint(value.as_bytes())
        } else {
            without_signatures(&redactor.redact(&String::from_utf8_lossy(value.as_bytes()))).into_owned()
        };
        (name.as_str(), value)
    })
}

fn print_body(kept: &Kept) -> CommandResult {
    let written = io::stdout().write_all(&kept.content.body).and_then(|()| io::stdout().flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(OK),
    }
}
