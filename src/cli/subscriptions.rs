//! `hookgate subscriptions`: the provider's side as declared, listed, compared and applied.
//!
//! Keeps true: no key, token or secret is printed. `plan`, `list` and `events` change nothing.

use std::io::{self, Write};
use std::sync::Arc;

use clap::{Args, Subcommand};
use rustls::ClientConfig;
use serde_json::{Value, json};

use super::terminal::safe;
use super::{CommandResult, FAILED, Failure, Global, OK, block_on, print_line};
use crate::base::clock::Clock;
use crate::config::{Config, Source};
use crate::event::type_pattern;
use crate::net::tls::client;
use crate::provider::Catalog;
use crate::subscriptions::api::{Registered, State};
use crate::subscriptions::apply::{self, Line};
use crate::subscriptions::kept::Kept;
use crate::subscriptions::owned::Owned;
use crate::subscriptions::plan::{self, Action, Options, Step};
use crate::subscriptions::source::SourceSubscription;

/// What to do on the provider's side.
#[derive(Subcommand)]
pub(super) enum Subscriptions {
    /// Print what differs between the config and the providers. Changes nothing.
    Plan {
        #[command(flatten)]
        of: Changes,
        /// Exit with 3 when there is something to do.
        #[arg(long)]
        detailed_exitcode: bool,
    },
    /// Create, update and delete subscriptions until the providers have what the config declares.
    Apply(Changes),
    /// List the subscriptions that the providers have.
    List(Of),
    /// List the event types that the providers offer; where an API has no such list, those that hookgate knows.
    Events(Of),
    /// Ask the provider to send a test delivery. Only Basiq has a call for it.
    Test {
        /// The source.
        #[arg(long, value_name = "NAME")]
        source: String,
        /// The event type. Default: the first one that the source's subscription has.
        #[arg(long, value_name = "TYPE")]
        event: Option<String>,
    },
}

#[derive(Args)]
pub(super) struct Of {
    /// Only this source.
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
}

#[derive(Args)]
pub(super) struct Changes {
    #[command(flatten)]
    of: Of,
    /// Also delete subscriptions whose URL is under edge.public_url and that no source declares.
    #[arg(long)]
    prune: bool,
    /// Replace a subscription whose secret is lost, where the provider shows a secret only once (IOF).
    #[arg(long)]
    recreate: bool,
}

pub(super) fn run(global: &Global, command: &Subscriptions) -> CommandResult {
    let config = global.config()?;
    let side = Side::open(&config)?;
    let json = global.json;
    block_on(async {
        match command {
            Subscriptions::Plan { of, detailed_exitcode } => side.plan(of, *detailed_exitcode, json).await,
            Subscriptions::Apply(of) => side.apply(of, json).await,
            Subscriptions::List(of) => side.list(of, json).await,
            Subscriptions::Events(of) => side.events(of, json).await,
            Subscriptions::Test { source, event } => side.test(source, event.as_deref(), json).await,
        }
    })
}

/// The provider's side of a config.
struct Side<'c> {
    config: &'c Config,
    catalog: Catalog,
    tls: Arc<ClientConfig>,
}

impl<'c> Side<'c> {
    fn open(config: &'c Config) -> Result<Side<'c>, Failure> {
        let mut problems = Vec::new();
        let catalog = Catalog::of(&config.providers, &mut problems);
        let tls = Arc::new(client::of_system_or_none().map_err(Failure)?);
        Ok(Side { config, catalog, tls })
    }

    /// The sources that the command is about.
    fn sources(&self, of: Option<&str>) -> Result<Vec<&'c Source>, Failure> {
        let with = |source: &&Source| source.subscription.is_some();
        let Some(name) = of else {
            let sources: Vec<&Source> = self.config.sources.iter().filter(with).collect();
            if sources.is_empty() {
                return Err(Failure(
                    "no source has a subscription: add a [sources.NAME.subscription] to the config"
                        .to_owned(),
                ));
            }
            return Ok(sources);
        };
        let Some(source) = self.config.sources.iter().find(|source| source.name.value == name) else {
            let names: Vec<&str> = self.config.sources.iter().map(|source| &*source.name.value).collect();
            return Err(Failure(format!("the config has no source {name:?}; it has: {}", names.join(", "))));
        };
        if source.subscription.is_none() {
            return Err(Failure(format!("the source {name} has no [sources.{name}.subscription]")));
        }
        Ok(vec![source])
    }

    fn source(&self, source: &Source) -> Result<SourceSubscription, Failure> {
        let opened = SourceSubscription::open(self.config, source, &self.catalog, &self.tls, &Clock::System)?;
        opened.ok_or_else(|| Failure(format!("the source {} has no subscription", source.name.value)))
    }

    /// The source, or a complaint that it cannot be opened.
    fn opened(&self, source: &Source, json: bool) -> Result<Option<SourceSubscription>, Failure> {
        match self.source(source) {
            Ok(opened) => Ok(Some(opened)),
            Err(Failure(why)) => {
                complain(&source.name.value, &why, json)?;
                Ok(None)
            }
        }
    }

    async fn plan(&self, of: &Changes, detailed: bool, json: bool) -> CommandResult {
        let kept = Kept::read(&self.config.data_dir)?;
        let (mut failed, mut to_do) = (false, false);
        for source in self.sources(of.of.source.as_deref())? {
            let Some(opened) = self.opened(source, json)? else {
                failed = true;
                continue;
            };
            let keeps = kept.source(&opened.name, &opened.base);
            if let Some(pending) = &keeps.create {
                to_do = true;
                let detail = json!({ "url": pending.url, "events": pending.events, "answer": "lost before" });
                print(&opened.name, (Action::Create, None, &detail), None, json)?;
            }
            match plan::plan(&opened, &keeps, &Owned::of(self.config, &kept), of.options()).await {
                Err(why) => {
                    failed = true;
                    complain(&opened.name, &opened.hidden.hide(&why.to_string()), json)?;
                }
                Ok(steps) => {
                    // The lost create may be the one that the plan would make.
                    let steps =
                        steps.iter().filter(|step| keeps.create.is_none() || step.action != Action::Create);
                    for Step { action, registered, detail, .. } in steps {
                        to_do |= *action != Action::None;
                        let id = registered.as_ref().map(|one| &*one.id);
                        print(&opened.name, (*action, id, detail), None, json)?;
                    }
                }
            }
        }
        Ok(match (failed, detailed && to_do) {
            (true, _) => FAILED,
            (false, true) => CHANGES,
            (false, false) => OK,
        })
    }

    async fn apply(&self, of: &Changes, json: bool) -> CommandResult {
        let sources = self.sources(of.of.source.as_deref())?;
        let _lock = Kept::lock(&self.config.data_dir)?;
        let mut kept = Kept::read(&self.config.data_dir)?;
        let mut failed = false;
        for source in sources {
            let Some(opened) = self.opened(source, json)? else {
                failed = true;
                continue;
            };
            let mut printed = Ok(());
            let mut out = |Line { action, id, detail, error }: Line| {
                failed |= error.is_some();
                let line = match (&error, action) {
                    // There is no plan, so no step failed.
                    (Some(why), Action::None) if id.is_none() => complain(&opened.name, why, json),
                    _ => print(&opened.name, (action, id.as_deref(), &detail), Some(error.as_deref()), json),
                };
                if printed.is_ok() {
                    printed = line;
                }
            };
            let owned = Owned::of(self.config, &kept);
            apply::apply(&opened, &mut kept, &owned, of.options(), &self.tls, &mut out).await;
            printed?;
        }
        Ok(if failed { FAILED } else { OK })
    }

    async fn list(&self, of: &Of, json: bool) -> CommandResult {
        let kept = Kept::read(&self.config.data_dir)?;
        let mut failed = false;
        for source in self.sources(of.source.as_deref())? {
            let found = async {
                let opened = self.source(source)?;
                let ids = kept.source(&opened.name, &opened.base).ids;
                let found = opened.client.api().list(&ids).await;
                let found = found.map_err(|why| Failure(opened.hidden.hide(&why.to_string())))?;
                Ok::<_, Failure>((opened, ids, found))
            };
            match found.await {
                Err(Failure(why)) => {
                    failed = true;
                    complain(&source.name.value, &why, json)?;
                }
                Ok((opened, ids, found)) => {
                    for one in found {
                        let is_declared = one.url == opened.url || ids.contains(&one.id);
                        print_registered(&opened, &one, is_declared, json)?;
                    }
                }
            }
        }
        Ok(if failed { FAILED } else { OK })
    }

    async fn events(&self, of: &Of, json: bool) -> CommandResult {
        let mut failed = false;
        for source in self.sources(of.source.as_deref())? {
            let found = async {
                let opened = self.source(source)?;
                let offered = opened.client.api().types().await;
                let offered = offered.map_err(|why| Failure(opened.hidden.hide(&why.to_string())))?;
                Ok::<_, Failure>(offered.unwrap_or_else(|| plan::known_types(&opened)))
            };
            match found.await {
                Err(Failure(why)) => {
                    failed = true;
                    complain(&source.name.value, &why, json)?;
                }
                Ok(types) => {
                    for kind in types {
                        let line = json!({ "source": source.name.value, "type": kind });
                        let text = format!("{}  {kind}", source.name.value);
                        put(&line, &text, json)?;
                    }
                }
            }
        }
        Ok(if failed { FAILED } else { OK })
    }

    async fn test(&self, name: &str, event: Option<&str>, json: bool) -> CommandResult {
        let sources = self.sources(Some(name))?;
        let Some(source) = sources.first() else { return Ok(FAILED) };
        let opened = self.source(source)?;
        let hide = |why: String| Failure(opened.hidden.hide(&why));
        let kept = Kept::read(&self.config.data_dir)?.source(&opened.name, &opened.base);
        let api = opened.client.api();
        if !api.facts().sends_tests {
            return Err(Failure(format!(
                "the API of {} has no call for a test delivery; `hookgate send --source {name}` sends one of hookgate's own",
                opened.provider.name
            )));
        }
        let found = api.list(&kept.ids).await.map_err(|why| hide(why.to_string()))?;
        let ours = found.iter().find(|one| one.url == opened.url || kept.ids.contains(&one.id));
        let Some(kind) = event.or_else(|| Some(&**ours?.events.first()?)) else {
            return Err(Failure(format!(
                "the provider has no subscription of {name} yet; run `hookgate subscriptions apply`"
            )));
        };
        api.test(kind).await.map_err(|why| hide(why.to_string()))?;
        let reached = found.iter().filter(|one| {
            one.state != State::Disabled && one.events.iter().any(|pattern| type_pattern::fits(pattern, kind))
        });
        let reached: Vec<(String, String, bool)> = reached
            .map(|one| {
                (
                    one.id.clone(),
                    opened.hidden.hide(&one.url),
                    one.url == opened.url || kept.ids.contains(&one.id),
                )
            })
            .collect();
        let webhooks: Vec<Value> =
            reached.iter().map(|(id, url, ours)| json!({ "id": id, "url": url, "declared": ours })).collect();
        let line = json!({ "source": name, "type": kind, "webhooks": webhooks });
        let names: Vec<String> = reached.iter().map(|(id, url, _)| format!("{id} ({url})")).collect();
        let text = match names.as_slice() {
            [] => format!("{name}  asked for a test delivery of {kind}; no webhook is subscribed to it"),
            names => format!("{name}  asked for a test delivery of {kind}; it reaches {}", names.join(", ")),
        };
        put(&line, &text, json)?;
        Ok(OK)
    }
}

impl Changes {
    fn options(&self) -> Options {
        Options { prune: self.prune, recreate: self.recreate, secrets: true }
    }
}

/// Prints a step: planned, or done (`Some(None)`), or failed.
fn print(
    source: &str,
    (action, id, detail): (Action, Option<&str>, &Value),
    done: Option<Option<&str>>,
    json: bool,
) -> io::Result<()> {
    let mut line = json!({ "source": source, "action": action.label(), "id": id, "detail": detail });
    let mut text = format!("{source}  {:6}  {}", action.label(), id.unwrap_or("(new)"));
    for (name, value) in detail.as_object().into_iter().flatten() {
        text.push_str(&format!("  {name}: {}", words(value)));
    }
    match done {
        None => {}
        Some(None) => {
            line["done"] = true.into();
            if action != Action::None {
                text.push_str("  done");
            }
        }
        Some(Some(why)) => {
            line["error"] = why.into();
            text.push_str(&format!("  failed: {why}"));
        }
    }
    put(&line, &text, json)
}

/// A value of a detail as words.
fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => items.iter().map(words).collect::<Vec<_>>().join(", "),
        Value::Object(change) => match (change.get("from"), change.get("to")) {
            (Some(from), Some(to)) => format!("{} → {}", words(from), words(to)),
            _ => value.to_string(),
        },
        other => other.to_string(),
    }
}

fn print_registered(of: &SourceSubscription, one: &Registered, declared: bool, json: bool) -> io::Result<()> {
    let url = of.hidden.hide(&one.url);
    let is_active = one.state == State::Active;
    let line = json!({
        "source": of.name, "id": one.id, "url": url, "events": one.events, "active": is_active,
        "declared": declared,
    });
    let state = match one.state {
        State::Active => "active",
        State::Pending => "pending",
        State::Disabled => "disabled",
    };
    let ours = if declared { "declared" } else { "not declared" };
    let text = format!("{}  {}  {state}  {ours}  {url}  {}", of.name, one.id, one.events.join(", "));
    put(&line, &text, json)
}

/// Prints that a source's provider could not be dealt with.
fn complain(source: &str, why: &str, json: bool) -> io::Result<()> {
    if json {
        let line = json!({ "source": source, "action": "none", "id": null, "detail": {}, "error": why });
        return put(&line, "", true);
    }
    // Standard error may be closed.
    let _ = writeln!(io::stderr(), "hookgate: {source}: {}", safe(why));
    Ok(())
}

/// Prints a line. A closed pipe is no error: what was begun is finished.
fn put(line: &Value, text: &str, json: bool) -> io::Result<()> {
    let text = if json { line.to_string() } else { safe(text) };
    print_line(&mut io::stdout(), &text).map(drop)
}

/// The exit code of `plan --detailed-exitcode` when there is something to do.
const CHANGES: u8 = 3;
