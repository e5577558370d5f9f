//! `hookgate demo`: starts a gateway on free loopback ports and sends it deliveries of each provider whose payloads
//! code reads.
//!
//! Keeps true: it is the real gateway with the embedded store, reached over HTTP. It exits 1 if any answer is
//! unexpected.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use hyper::Uri;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::audit::{AuditCommand, Log, Query, Verify};
use super::events::Reader;
use super::send::{Answer, Sender, Signed, Tamper};
use super::{CommandResult, FAILED, Failure, Global, OK, block_on, print_line};
use crate::base::clock::{self, Clock};
use crate::config::{self, Config};
use crate::durable::data_dir;
use crate::gateway::Gateway;
use crate::observe::audit::verify::verify;
use crate::observe::metrics::Metrics;
use crate::provider::signature::SecretForm;
use crate::provider::{Handshake, Provider, catalog};
use crate::request::source::{Routes, Source};

#[derive(Args)]
pub(super) struct Demo {
    /// Keep the gateway running until Ctrl-C, and print commands to try.
    #[arg(long)]
    keep: bool,
}

pub(super) fn run(global: &Global, demo: &Demo) -> CommandResult {
    let folder = tempfile::Builder::new().prefix("hookgate-demo-").tempdir()?;
    let file = folder.path().join("hookgate.toml");
    std::fs::write(&file, demo_config())?;
    block_on(async {
        let (config, _) = config::load(&file)?;
        let gateway = Gateway::start(config.clone(), Clock::System).await?;
        let mut run = Run {
            config,
            gateway: &gateway,
            json: global.json,
            unexpected: 0,
            refused: 0,
            last_provider: String::new(),
        };
        run.deliver_all().await?;
        run.show_events().await?;
        run.show_rejects().await?;
        let code = if run.unexpected == 0 { OK } else { FAILED };
        if demo.keep {
            keep(&gateway, folder.path()).await?;
        }
        gateway.drain().await;
        Ok(code)
    })
}

/// A config with a source for each of these providers, and secrets made for this run. The file holds them as text, so that `send`
/// can use it under `--keep`.
fn demo_config() -> String {
    let mut text = "[edge]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n".to_owned();
    for Provider { name, signing, .. } in catalog::with_coded_payloads() {
        let hex = hex::encode(clock::random::<16>());
        let credential = match signing.schemes().first().map(|scheme| scheme.secret) {
            Some(SecretForm::Whsec) => {
                format!("secrets = [\"whsec_{}\"]", STANDARD.encode(clock::random::<24>()))
            }
            Some(_) => format!("secrets = [\"{hex}\"]"),
            None => format!("path_token = \"{hex}\""),
        };
        // Writing to a String cannot fail.
        let _ = write!(text, "[sources.{name}]\nprovider = \"{name}\"\n{credential}\n");
    }
    text
}

/// One run of the demo.
struct Run<'a> {
    config: Config,
    gateway: &'a Gateway,
    json: bool,
    /// How many answers were unexpected.
    unexpected: u32,
    refused: u64,
    /// The provider of the last printed row.
    last_provider: String,
}

impl Run<'_> {
    fn say(&self, text: &str) -> Result<(), Failure> {
        if !self.json {
            print_line(&mut io::stdout(), text)?;
        }
        Ok(())
    }

    fn url(&self) -> Result<Uri, Failure> {
        let address =
            self.gateway.edge().first().copied().ok_or_else(|| Failure("no listener".to_owned()))?;
        Ok(format!("http://{address}").parse()?)
    }

    /// Sends each provider's deliveries: challenge, genuine, repeated, tampered, stale.
    async fn deliver_all(&mut self) -> Result<(), Failure> {
        let url = self.url()?;
        self.say(&format!(
            "hookgate demo: a gateway on {url}, the embedded store, {} providers.\n",
            catalog::with_coded_payloads().count()
        ))?;
        self.say(&format!("  {:<12}{:<18}{}", "PROVIDER", "DELIVERY", "ANSWER"))?;
        let routes = Routes::build(&self.config, &Metrics::new()?, None, &mut Vec::new());
        for name in self.config.sources.iter().map(|source| source.name.value.clone()).collect::<Vec<_>>() {
            if let Some(source) = routes.sources().find(|source| *source.name == *name) {
                self.deliver_from(source, &url).await?;
            }
        }
        Ok(())
    }

    async fn deliver_from(&mut self, source: &Arc<Source>, url: &Uri) -> Result<(), Failure> {
        let sender = Sender::new(source.clone(), url, "", None)?;
        let name = &source.name;
        if let Some(Handshake::Header(header)) = source.provider.handshake {
            let key = hex::encode(clock::random::<12>());
            let answer = sender.challenge(header, &key).await?;
            let echoed = answer.headers.get(*header).is_some_and(|value| value.as_bytes() == key.as_bytes());
            self.show(name, "handshake", 200, &answer, if echoed { "key echoed" } else { "key NOT echoed" })?;
            self.unexpected += u32::from(!echoed);
        }
        let sample = sender.sample(None);
        let genuine = sender.sign(sample.clone(), None)?;
        self.deliver(&sender, name, "genuine", 200, genuine.clone()).await?;
        self.deliver(&sender, name, "the same again", 200, genuine).await?;
        if source.needs_signature() {
            for (what, tamper) in [("body tampered", Tamper::Body), ("an hour stale", Tamper::Timestamp)] {
                let tampered = sender.sign(sample.clone(), Some(tamper))?;
                self.deliver(&sender, name, what, 401, tampered).await?;
            }
        } else {
            let guess = format!("{}/a-wrong-token", source.path);
            let sender = Sender::new(
                source.clone(),
                &format!("{}{guess}", url.to_string().trim_end_matches('/')).parse()?,
                "",
                None,
            )?;
            self.deliver(&sender, name, "a wrong token", 404, sender.sign(sample, None)?).await?;
        }
        Ok(())
    }

    async fn deliver(
        &mut self,
        sender: &Sender,
        name: &str,
        what: &str,
        expected: u16,
        delivery: Signed,
    ) -> Result<(), Failure> {
        let answer = sender.post(delivery).await?;
        let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        let text = |key: &str| body[key].as_str().unwrap_or_default();
        let summary = match text("status") {
            "" => format!("{}  ({})", text("title"), text("reject")),
            status => format!("{status:<10} {}", text("id")),
        };
        self.show(name, what, expected, &answer, &summary)
    }

    fn show(
        &mut self,
        name: &str,
        what: &str,
        expected: u16,
        answer: &Answer,
        summary: &str,
    ) -> Result<(), Failure> {
        let status = answer.status.as_u16();
        self.unexpected += u32::from(status != expected);
        self.refused += u64::from(!answer.status.is_success());
        let mark = if status == expected { "" } else { "   <-- unexpected" };
        if self.json {
            let answer: Value = serde_json::from_str(&answer.body).unwrap_or_default();
            let row = json!({ "provider": name, "delivery": what, "status": status, "answer": answer });
            print_line(&mut io::stdout(), &row.to_string())?;
        }
        let last = std::mem::replace(&mut self.last_provider, name.to_owned());
        let name = if last == name { "" } else { name };
        self.say(&format!("  {name:<12}{what:<18}{status} {summary}{mark}"))
    }

    /// Prints the events in the queue.
    async fn show_events(&mut self) -> Result<(), Failure> {
        let events = Reader::open(&self.config, "demo").await?.after("", usize::from(u16::MAX)).await?;
        self.unexpected += u32::from(events.len() != self.config.sources.len());
        self.say(&format!("\nThe queue holds each event once, in one schema: {} events.\n", events.len()))?;
        for (cursor, event) in &events {
            print_line(&mut io::stdout(), &super::events::render(cursor, event, self.json))?;
        }
        if let Some((_, first)) = events.get(1) {
            let whole: Value = serde_json::from_str(first)?;
            self.say(&format!("\nOne whole event (keys sorted here):\n\n{whole:#}"))?;
        }
        Ok(())
    }

    /// Prints and verifies the reject log. Waits until it has every refusal, since the gateway answers before it
    /// records.
    async fn show_rejects(&mut self) -> Result<(), Failure> {
        let dir = data_dir::audit_dir(&self.config.data_dir);
        for _ in 0..POLLS {
            if verify(&dir).is_ok_and(|verified| verified.records >= self.refused) {
                break;
            }
            tokio::time::sleep(POLL).await;
        }
        self.say("\nThe reject log; each record holds the hash of the one before:\n")?;
        let everything = AuditCommand::Query(Query::default());
        let db = data_dir::database_file(&self.config.data_dir);
        let log = || Log { dir: &dir, db: &db, key: None };
        super::audit::run(&everything, log(), self.json, &mut io::stdout())?;
        self.say("")?;
        let verify = AuditCommand::Verify(Verify::default());
        let broken = super::audit::run(&verify, log(), self.json, &mut io::stdout())?;
        self.unexpected += u32::from(broken != OK);
        Ok(())
    }
}

async fn keep(gateway: &Gateway, folder: &Path) -> Result<(), Failure> {
    let edge = gateway.edge().first().map(ToString::to_string).unwrap_or_default();
    let (admin, file) = (gateway.admin(), folder.join("hookgate.toml"));
    let file = file.display();
    let text = format!(
        "\nServing until Ctrl-C. In another terminal:\n\n\
         \x20 hookgate --config {file} send --source basiq --url http://{edge}\n\
         \x20 hookgate --config {file} events tail --follow\n\
         \x20 hookgate --config {file} audit tail\n\
         \x20 curl -s http://{admin}/metrics | grep ^hookgate_requests_total\n\n\
         In a browser: http://{admin}/\n"
    );
    // Standard error may be closed; the gateway serves anyway.
    let _ = io::stderr().write_all(text.as_bytes());
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

const POLLS: u32 = 200;
const POLL: Duration = Duration::from_millis(10);
