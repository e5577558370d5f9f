//! `hookgate verify`: why a captured delivery passes or fails, without a gateway.
//!
//! Keeps true: what passes is decided by the gateway's own code; nothing printed is a secret, a signature or a digest.

mod capture;

use std::io;
use std::path::PathBuf;

use clap::{Args, CommandFactory};
use hyper::HeaderMap;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::terminal::safe;
use super::{Cli, Done, FAILED, Failure, Global, OK, line};
use crate::base::clock::Clock;
use crate::base::reason::Reason;
use crate::config::{self, Config};
use crate::event::Event;
use crate::observe::metrics::Metrics;
use crate::provider::PayloadError;
use crate::provider::normalize::{self, DeliveryOrigin, Normalized};
use crate::provider::signature::diagnosis::{self, KnownSecret, Mistake, RefusedDelivery};
use crate::provider::signature::{self, SignatureError, Verified};
use crate::request::admission;
use crate::request::outcome::Rejection;
use crate::request::pipeline::{self, ANY_AGE};
use crate::request::source::{Routes, Source};

#[derive(Args)]
pub(super) struct Verify {
    /// The configured source that the delivery was for.
    #[arg(long, value_name = "NAME")]
    source: String,
    /// The delivery's headers, one `Name: value` a line; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    headers: PathBuf,
    /// Its body, byte for byte; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    body: PathBuf,
    /// When it arrived, in unix seconds; by default now.
    #[arg(long, value_name = "UNIX", value_parser = clap::value_parser!(i64).range(0..=LAST_SECOND))]
    at: Option<i64>,
}

/// What is known of a delivery in the end.
#[derive(Default)]
struct Findings {
    /// None: it passes.
    refused: Option<Rejection>,
    mistakes: Vec<Mistake>,
    /// Receipt minus signed timestamp, seconds.
    age: Option<i64>,
    /// Which secret matched.
    slot: Option<usize>,
    /// What becomes of it.
    event: Option<Box<Event>>,
    health_check: bool,
    /// Why its body, which is forwarded all the same, cannot be read.
    unreadable: Option<PayloadError>,
    /// What it is not refused for yet.
    observed: Vec<Observed>,
}

/// What the source only observes when it arrives.
struct Observed {
    rejection: Rejection,
    enforced_from: Timestamp,
}

pub(super) fn run(global: &Global, verify: &Verify) -> Done {
    if verify.headers == verify.body && verify.body.as_os_str() == "-" {
        let what = "standard input is either the headers or the body; give a file for one of them";
        Cli::command().error(clap::error::ErrorKind::ArgumentConflict, what).exit();
    }
    let config = global.config()?;
    let mut problems = Vec::new();
    let routes = Routes::build(&config, &Metrics::new()?, None, &mut problems);
    let own = format!("sources.{}.", config::quote_key(&verify.source));
    // What is wrong with other sources is `check`'s matter: their secrets need not be at hand here.
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
        return Err(Failure(format!("no source {named:?} in the config; there are: {names}")));
    };
    let headers = capture::headers(&verify.headers)?;
    let body = capture::body(&verify.body, config.edge.max_body)?;
    let at = match verify.at {
        Some(at) => Timestamp::from_second(at)?,
        None => Clock::System.now(),
    };
    let findings = look(&config, source, &headers, body.as_deref(), at);
    let shown = if global.json {
        findings.json(source).to_string()
    } else {
        findings.text(source, verify.at.is_some())
    };
    line(&mut io::stdout(), &shown)?;
    Ok(if findings.refused.is_none() { OK } else { FAILED })
}

/// What the gateway would do from the encoding on, in its order.
fn look(
    config: &Config,
    source: &Source,
    headers: &HeaderMap,
    body: Option<&[u8]>,
    at: Timestamp,
) -> Findings {
    let mut findings = Findings::default();
    findings.refused = findings.receive(config, source, headers, body, at).err();
    if findings.refused.is_some() && !findings.observed.is_empty() {
        // Refused all the same: what it passed is not why, nor are the mistakes in that.
        findings.observed.clear();
        findings.mistakes.clear();
    }
    let refused = findings.refused.as_ref().map(|refused| refused.reason);
    let unread = findings.unreadable.is_some() || refused == Some(Reason::PayloadNotJson);
    if let Some(body) = body.filter(|_| unread && source.scheme.is_none()) {
        // No signature says that this is what was sent.
        findings.mistakes = diagnosis::body_defects(headers, body);
    }
    findings
}

impl Findings {
    fn receive(
        &mut self,
        config: &Config,
        source: &Source,
        headers: &HeaderMap,
        body: Option<&[u8]>,
        at: Timestamp,
    ) -> Result<(), Rejection> {
        admission::check_encoding(headers)?;
        let body = body.ok_or_else(|| {
            let what = format!("the body is over edge.max_body, {} bytes", config.edge.max_body);
            Rejection::new(Reason::BodyTooLarge, what)
        })?;
        let verified = self.authenticate(config, source, headers, body, at)?;
        let contents = normalize::read(source.provider, &verified)?;
        self.unreadable = contents.payload.as_ref().err().copied();
        self.enforce(source, at, pipeline::subscription_allowed(source, &contents))?;
        let origin = DeliveryOrigin { source: &source.name, path: &source.path, provider: source.provider };
        match normalize::normalize(&origin, &verified, &contents, at) {
            Normalized::HealthCheck => self.health_check = true,
            Normalized::Event(forward) => self.event = Some(Box::new(forward.event)),
        }
        Ok(())
    }

    fn authenticate<'a>(
        &mut self,
        config: &Config,
        source: &Source,
        headers: &'a HeaderMap,
        body: &'a [u8],
        at: Timestamp,
    ) -> Result<Verified<'a>, Rejection> {
        let Some(scheme) = &source.scheme else {
            return Ok(Verified::by_other_means(source.verified_by, body));
        };
        let verify =
            |tolerance| signature::verify(scheme, &source.keys, headers, body, at.as_second(), tolerance);
        let verified = match verify(source.tolerance) {
            Ok(verified) => verified,
            Err(error) => {
                if let SignatureError::OutsideTolerance { age, .. } = &error {
                    self.age = Some(*age);
                }
                let secrets = secrets(config);
                let (own, error) = (&*source.name, &error);
                let case =
                    RefusedDelivery { scheme, secrets: &secrets, source: own, headers, body, error, at };
                self.mistakes = diagnosis::diagnose(&case);
                self.enforce(source, at, Err(error.clone().into()))?;
                // Of the signature's errors only its age can be observed.
                verify(ANY_AGE)?
            }
        };
        self.age = verified.signed().map(|signed| signed.age);
        self.slot = verified.signed().map(|signed| signed.slot);
        Ok(verified)
    }

    /// Refuses what is to be refused; what the source only observes yet is noted and passes.
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
        self.observed.push(Observed { rejection, enforced_from });
        Ok(())
    }

    fn json(&self, source: &Source) -> Value {
        let findings: Vec<Value> = self
            .mistakes
            .iter()
            .map(|mistake| json!({ "mistake": mistake.label(), "fix": mistake.to_string() }))
            .collect();
        let observed = self.observed.iter().map(|Observed { rejection, enforced_from }| {
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
            "event": self.event.as_ref().map(|event| {
                let told = Told::of(event);
                json!({ "id": event.id, "type": &*event.kind, "subject": told.subject, "verifiedby": told.verifiedby })
            }),
        })
    }

    fn text(&self, source: &Source, dated: bool) -> String {
        let mut lines = vec![match &self.refused {
            None => format!("{}: passes", source.name),
            Some(refused) => {
                format!("{}: fails, {}: {}", source.name, refused.reason.label(), refused.detail)
            }
        }];
        for Observed { rejection: Rejection { reason, detail }, enforced_from } in &self.observed {
            let reason = reason.label();
            lines.push(format!("  would be refused from {enforced_from} on: {reason}: {detail}"));
        }
        if source.scheme.is_none() {
            let by = source.verified_by.as_str();
            lines.push(format!(
                "  There is no signature to verify: what authenticates this source is {by}, which a capture does not show."
            ));
        }
        if let (Some(age), Some(slot)) = (self.age, self.slot) {
            let tolerance = source.tolerance;
            lines.push(format!(
                "  secret {slot} of its list matches; {age} s old, the tolerance is {tolerance} s"
            ));
        }
        for mistake in &self.mistakes {
            lines.push(format!("  {}: {mistake}", mistake.label()));
        }
        let aged = |mistake: &Mistake| matches!(mistake, Mistake::Stale { .. } | Mistake::Ahead { .. });
        if self.mistakes.iter().any(aged) {
            let when = if dated { "at the time that --at gives" } else { "now" };
            lines.push(format!(
                "  The signature itself is right; only its age is not, {when}. For a delivery from the past give --at UNIX, the time at which it arrived."
            ));
        }
        if let Some(why) = self.unreadable {
            lines.push(format!(
                "  {why}. It is forwarded all the same, its bytes in data.payload_base64, and counted in hookgate_unreadable_total."
            ));
        }
        if self.health_check {
            lines.push("  It is a health check: answered 200 and not forwarded.".to_owned());
        }
        if let Some(event) = &self.event {
            let told = Told::of(event);
            lines.push(format!(
                "  event {} {}, about {}",
                event.kind,
                event.id,
                told.subject.as_deref().unwrap_or("nothing that it names")
            ));
        }
        lines.iter().map(|line| safe(line)).collect::<Vec<_>>().join("\n")
    }
}

/// What an event's JSON tells besides its id and type.
#[derive(Default, serde::Deserialize)]
struct Told {
    subject: Option<String>,
    verifiedby: Option<String>,
}

impl Told {
    fn of(event: &Event) -> Told {
        // The event's own JSON cannot fail to parse; if it did, there would be less to tell.
        serde_json::from_str(&event.json).unwrap_or_default()
    }
}

/// Every secret of the config that can be read.
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
