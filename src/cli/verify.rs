//! `hookgate verify`: explains offline why a captured delivery passes or fails.
//!
//! Keeps true: the gateway's own code decides whether a delivery passes. The output holds no secret, signature or
//! digest.

use std::io;
use std::path::PathBuf;

use clap::{Args, CommandFactory};
use hyper::HeaderMap;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::capture;
use super::terminal::safe;
use super::{Cli, CommandResult, FAILED, Failure, Global, OK, print_line};
use crate::base::clock::Clock;
use crate::base::reason::Reason;
use crate::config::{self, Config};
use crate::event::Event;
use crate::observe::metrics::Metrics;
use crate::provider::normalize::{self, DeliveryOrigin, Document, Normalized};
use crate::provider::signature::diagnosis::{self, KnownSecret, Mistake, RefusedDelivery};
use crate::provider::signature::{self, SignatureError, SignedRequest, Verified};
use crate::provider::{Origin, PayloadError};
use crate::request::admission;
use crate::request::outcome::Rejection;
use crate::request::pipeline::{self, ANY_AGE};
use crate::request::source::{Routes, Source};

#[derive(Args)]
pub(super) struct Verify {
    /// The configured source that received the delivery.
    #[arg(long, value_name = "NAME")]
    source: String,
    /// File with the delivery's headers, one `Name: value` a line; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    headers: PathBuf,
    /// File with its body, byte for byte; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    body: PathBuf,
    /// Its time of arrival in unix seconds; by default now.
    #[arg(long, value_name = "UNIX", value_parser = clap::value_parser!(i64).range(0..=LAST_SECOND))]
    at: Option<i64>,
}

/// The result for a delivery.
#[derive(Default)]
struct Findings {
    /// `None` if it passes.
    refused: Option<Rejection>,
    mistakes: Vec<Mistake>,
    /// Arrival minus signed timestamp, in seconds.
    age: Option<i64>,
    /// The index of the secret that matched.
    slot: Option<usize>,
    /// The normalized events; none for a health check or a validation request.
    events: Vec<Event>,
    health_check: bool,
    /// Whether it is a validation request.
    validation: bool,
    /// Whether it holds an empty list of events.
    empty_list: bool,
    /// Why its body cannot be read. Such a body is forwarded anyway.
    unreadable: Option<PayloadError>,
    /// Rejections that the source only reports yet.
    report_only: Vec<ReportOnly>,
}

/// A rejection that the source only reports until `enforced_from`.
struct ReportOnly {
    rejection: Rejection,
    enforced_from: Timestamp,
}

pub(super) fn run(global: &Global, verify: &Verify) -> CommandResult {
    if verify.headers == verify.body && verify.body.as_os_str() == "-" {
        let what = "standard input cannot be both the headers and the body; give a file for one of them";
        Cli::command().error(clap::error::ErrorKind::ArgumentConflict, what).exit();
    }
    let config = global.config()?;
    let mut problems = Vec::new();
    let routes = Routes::build(&config, &Metrics::new()?, None, &mut problems);
    let own = format!("sources.{}.", config::quote_key(&verify.source));
    // Problems of other sources do not matter here; `check` reports them.
    if let Some(problem) = problems.iter().find(|problem| !problem.warning && problem.key.starts_with(&own)) {
        let path = global.config_path()?.display().to_string();
        return Err(Failure(format!(
            "{}\nhookgate: `hookgate check` lists every problem",
            problem.render(&path)
        )));
    }
    let Some(source) = routes.sources().find(|source| *source.name == *verify.source) else {
        let mut names: Vec<&str> = routes.sources().map(|source| &*source.name).collect();
        names.sort_unstable();
        let (named, names) = (&verify.source, names.join(", "));
        return Err(Failure(format!("no source {named:?} in the config; it has: {names}")));
    };
    let headers = capture::headers(&verify.headers)?;
    let body = capture::body(&verify.body, config.edge.max_body)?;
    let at = match verify.at {
        Some(at) => Timestamp::from_second(at)?,
        None => Clock::System.now(),
    };
    let findings = explain(&config, source, &headers, body.as_deref(), at);
    let shown = if global.json {
        findings.json(source).to_string()
    } else {
        findings.text(source, verify.at.is_some())
    };
    print_line(&mut io::stdout(), &shown)?;
    Ok(if findings.refused.is_none() { OK } else { FAILED })
}

/// Does what the gateway does with a request, in the same order, from the check of the content encoding on.
fn explain(
    config: &Config,
    source: &Source,
    headers: &HeaderMap,
    body: Option<&[u8]>,
    at: Timestamp,
) -> Findings {
    let mut findings = Findings::default();
    findings.refused = findings.process(config, source, headers, body, at).err();
    if findings.refused.is_some() && !findings.report_only.is_empty() {
        // It is refused for another reason, so the reported rejections and their mistakes do not explain it.
        findings.report_only.clear();
        findings.mistakes.clear();
    }
    let refused = findings.refused.as_ref().map(|refused| refused.reason);
    let unreadable = findings.unreadable.is_some() || refused == Some(Reason::PayloadNotJson);
    if let Some(body) = body.filter(|_| unreadable && !source.needs_signature()) {
        // Without a signature, only the body itself can show that it was altered.
        findings.mistakes = diagnosis::body_defects(headers, body);
    }
    findings
}

impl Findings {
    fn process(
        &mut self,
        config: &Config,
        source: &Source,
        headers: &HeaderMap,
        body: Option<&[u8]>,
        at: Timestamp,
    ) -> Result<(), Rejection> {
        admission::check_encoding(headers)?;
        let body = body.ok_or_else(|| {
            let what = format!("the body is larger than edge.max_body, {} bytes", config.edge.max_body);
            Rejection::new(Reason::BodyTooLarge, what)
        })?;
        let target = source.captured_target();
        let public_url = config.edge.public_url.as_ref().map_or("", |url| &url.value);
        let request = SignedRequest { headers, body, method: "POST", target: &target, public_url };
        let verified = self.authenticate(config, source, request, at)?;
        let document = Document::of(source.provider, &request);
        let contents = normalize::read(source.provider, &verified, &request, &document)?;
        self.unreadable = contents.payload.as_ref().err().copied();
        self.enforce(source, at, pipeline::subscription_allowed(source, &contents))?;
        let origin = DeliveryOrigin {
            source: &source.name,
            path: &source.path,
            provider: source.provider,
            trace: None,
        };
        match normalize::normalize(&origin, &verified, &document, &contents, at) {
            Normalized::HealthCheck => self.health_check = true,
            Normalized::Handshake(_) => self.validation = true,
            Normalized::Event(forward) => self.events.push(forward.event),
            Normalized::Events(events) => {
                self.empty_list = events.is_empty();
                self.events.extend(events.into_iter().map(|event| event.event));
            }
        }
        Ok(())
    }

    fn authenticate<'a>(
        &mut self,
        config: &Config,
        source: &'a Source,
        request: SignedRequest<'a>,
        at: Timestamp,
    ) -> Result<Verified<'a>, Rejection> {
        if !source.needs_signature() {
            return Ok(Verified::by_other_means(source.verified_by, request.body));
        }
        let verify = |tolerance| signature::verify(&source.verifiers, request, at.as_second(), tolerance);
        let verified = match verify(source.tolerance) {
            Ok(verified) => verified,
            Err(error) => {
                if let SignatureError::OutsideTolerance { age, .. } = &error {
                    self.age = Some(*age);
                }
                let secrets = secrets(config);
                let (own, error) = (&*source.name, &error);
                let schemes = source.verifiers.iter().map(|verifier| &verifier.scheme);
                let provider = source.provider;
                let cases = schemes.map(|scheme| RefusedDelivery {
                    scheme,
                    is_defined: provider.origin == Origin::Config,
                    secrets: &secrets,
                    source: own,
                    request,
                    error,
                    at,
                });
                self.mistakes = diagnosis::diagnose_any(&cases.collect::<Vec<_>>());
                self.enforce(source, at, Err(error.clone().into()))?;
                // The age is the only signature error that can be report-only.
                verify(ANY_AGE)?
            }
        };
        self.age = verified.signed().and_then(|signed| signed.age);
        self.slot = verified.signed().map(|signed| signed.slot);
        Ok(verified)
    }

    /// Passes a rejection on, unless the source only reports it yet: then notes it and returns `Ok`.
    fn enforce(
        &mut self,
        source: &Source,
        at: Timestamp,
        checked: Result<(), Rejection>,
    ) -> Result<(), Rejection> {
        let Err(rejection) = checked else { return Ok(()) };
        let Some(enforced_from) = source.report_only.enforced_from(rejection.reason, at) else {
            return Err(rejection);
        };
        self.report_only.push(ReportOnly { rejection, enforced_from });
        Ok(())
    }

    fn json(&self, source: &Source) -> Value {
        let findings: Vec<Value> = self
            .mistakes
            .iter()
            .map(|mistake| json!({ "mistake": mistake.label(), "fix": mistake.to_string() }))
            .collect();
        let observed = self.report_only.iter().map(|ReportOnly { rejection, enforced_from }| {
            json!({ "reason": rejection.reason.label(), "enforced_from": enforced_from.to_string() })
        });
        json!({
            "source": &*source.name,
            "verdict": if self.refused.is_none() { "pass" } else { "fail" },
            "reason": self.refused.as_ref().map(|refused| refused.reason.label()),
            "detail": self.refused.as_ref().map(|refused| &refused.detail),
            "findings": findings,
            "observed": observed.collect::<Vec<_>>(),
            "age": self.age,
            "secret": self.slot,
            "unreadable": self.unreadable.map(|why| why.to_string()),
            "verifiedby": source.verified_by.as_str(),
            "event": self.events.first().map(shown),
            "events": self.events.iter().map(shown).collect::<Vec<_>>(),
        })
    }

    fn text(&self, source: &Source, dated: bool) -> String {
        let mut lines = vec![match &self.refused {
            None => format!("{}: passes", source.name),
            Some(refused) => {
                format!("{}: fails, {}: {}", source.name, refused.reason.label(), refused.detail)
            }
        }];
        for ReportOnly { rejection: Rejection { reason, detail, .. }, enforced_from } in &self.report_only {
            let reason = reason.label();
            lines.push(format!("  would be refused from {enforced_from} on: {reason}: {detail}"));
        }
        if !source.needs_signature() {
            let by = source.verified_by.as_str();
            lines.push(format!(
                "  There is no signature to verify: this source is authenticated by {by}, which a capture does not show."
            ));
        }
        let tolerance = source.tolerance;
        match (self.slot, self.age) {
            (Some(slot), Some(age)) => lines.push(format!(
                "  secret {slot} of its list matches; the delivery is {age} s old, the tolerance is {tolerance} s"
            )),
            (Some(slot), None) => {
                lines.push(format!("  secret {slot} of its list matches; no timestamp is signed"));
            }
            (None, _) => {}
        }
        for mistake in &self.mistakes {
            lines.push(format!("  {}: {mistake}", mistake.label()));
        }
        let aged = |mistake: &Mistake| matches!(mistake, Mistake::Stale { .. } | Mistake::Ahead { .. });
        if self.mistakes.iter().any(aged) {
            let when = if dated { "at the time that --at gives" } else { "now" };
            lines.push(format!(
                "  The signature is right, but not its age {when}. For a delivery from the past give --at UNIX, the time at which it arrived."
            ));
        }
        if let Some(why) = self.unreadable {
            lines.push(format!(
                "  {why}. It is forwarded anyway, with its bytes in data.payload_base64, and counted in hookgate_unreadable_total."
            ));
        }
        if self.health_check {
            lines.push("  It is a health check: answered 200 and not forwarded.".to_owned());
        }
        if self.validation {
            lines.push("  It is a validation request: answered and not forwarded.".to_owned());
        }
        if self.empty_list {
            lines.push("  Its list of events is empty: answered 200, and nothing is forwarded.".to_owned());
        }
        for event in &self.events {
            let facts = EventFacts::of(event);
            lines.push(format!(
                "  event {} {}, about {}",
                event.kind,
                event.id,
                facts.subject.as_deref().unwrap_or("no named subject")
            ));
        }
        lines.iter().map(|line| safe(line)).collect::<Vec<_>>().join("\n")
    }
}

fn shown(event: &Event) -> Value {
    let facts = EventFacts::of(event);
    json!({ "id": event.id, "type": &*event.kind, "subject": facts.subject, "verifiedby": facts.verifiedby })
}

/// The fields of an event that are only in its JSON.
#[derive(Default, serde::Deserialize)]
struct EventFacts {
    subject: Option<String>,
    verifiedby: Option<String>,
}

impl EventFacts {
    fn of(event: &Event) -> EventFacts {
        // The gateway's own JSON always parses; if not, these fields are left out.
        serde_json::from_str(&event.json).unwrap_or_default()
    }
}

/// Every secret of the config that resolves.
fn secrets(config: &Config) -> Vec<KnownSecret<'_>> {
    let mut known = Vec::new();
    for source in &config.sources {
        for (slot, secret) in source.secrets.iter().enumerate() {
            let secret = &secret.value;
            let (not_before, not_after) = (secret.not_before, secret.not_after);
            if let Ok(secret) = secret.reference.resolve() {
                known.push(KnownSecret { source: &source.name.value, slot, secret, not_before, not_after });
            }
        }
    }
    known
}

/// The last second of the year 9999.
const LAST_SECOND: i64 = 253_402_207_200;
