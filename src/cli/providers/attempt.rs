//! `hookgate providers try`: what each part of a definition finds in a captured delivery.
//!
//! Keeps true: the gateway's own code reads the delivery. The output holds no secret, signature or digest of a signature.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Known;
use crate::base::clock::Clock;
use crate::base::file;
use crate::cli::terminal::safe;
use crate::cli::{CommandResult, FAILED, Failure, OK, capture, print_line};
use crate::config::secret::Secret;
use crate::provider::Provider;
use crate::provider::normalize::{self, DeliveryOrigin, Document, Normalized};
use crate::provider::signature::diagnosis::{self, KnownSecret, RefusedDelivery};
use crate::provider::signature::{self, Inspection, SignatureError, SignedRequest, Verified, VerifiedBy};
use crate::request::source::keys;

#[derive(Args)]
pub(in crate::cli) struct Attempt {
    /// The provider, built in or defined in the config.
    #[arg(value_name = "NAME")]
    name: String,
    /// File with the delivery's headers, one `Name: value` a line; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    headers: PathBuf,
    /// File with its body, byte for byte.
    #[arg(long, value_name = "FILE")]
    body: PathBuf,
    /// A secret to verify with. Other users of this machine may see it while the command runs; prefer --secret-file.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    secret: Vec<String>,
    /// A file with a secret to verify with.
    #[arg(long, value_name = "FILE")]
    secret_file: Vec<PathBuf>,
    /// Its time of arrival in unix seconds; by default now.
    #[arg(long, value_name = "UNIX")]
    at: Option<i64>,
    /// Its method.
    #[arg(long, value_name = "METHOD", default_value = "POST")]
    method: String,
    /// Its path and query as the provider sent them, for a signature that covers them. By default /hooks/NAME.
    #[arg(long, value_name = "PATH")]
    target: Option<String>,
    /// The scheme and host that the provider called, for a signature that covers the URL. By default edge.public_url.
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
}

impl Attempt {
    pub(super) fn run(&self, known: &Known, json: bool) -> CommandResult {
        let provider = known.provider(&self.name)?;
        let headers = capture::headers(&self.headers)?;
        let max = known.config.edge.max_body;
        let body = capture::body(&self.body, max)?;
        let body =
            body.ok_or_else(|| Failure(format!("the body is larger than edge.max_body, {max} bytes")))?;
        let at = match self.at {
            Some(at) => Timestamp::from_second(at)?,
            None => Clock::System.now(),
        };
        let path = format!("/hooks/{}", self.name);
        let configured = known.config.edge.public_url.as_ref().map(|url| url.value.clone());
        let public_url = self.public_url.clone().or(configured).unwrap_or_default();
        let request = SignedRequest {
            headers: &headers,
            body: &body,
            method: &self.method,
            target: self.target.as_deref().unwrap_or(&path),
            public_url: &public_url,
        };
        let findings = self.findings(provider, request, at)?;
        let shown = if json { findings.json() } else { findings.text() };
        print_line(&mut io::stdout(), &shown)?;
        Ok(if findings.refused { FAILED } else { OK })
    }

    fn findings(
        &self,
        provider: &'static Provider,
        request: SignedRequest<'_>,
        at: Timestamp,
    ) -> Result<Findings, Failure> {
        let now = at.as_second();
        let mut findings = Findings::default();
        let schemes = provider.signing.schemes();
        findings.signatures =
            schemes.iter().flat_map(|scheme| signature::inspect(scheme, request, now)).collect();
        let verifiers =
            keys::verifiers(provider, &self.secrets()?).map_err(|why| Failure(why.to_string()))?;
        let document = Document::of(provider, &request);
        let by_nothing = Verified::by_other_means(VerifiedBy::Nothing, request.body);
        let verified = if self.secret.is_empty() && self.secret_file.is_empty() {
            findings.verdict = if schemes.is_empty() {
                "it signs nothing".to_owned()
            } else {
                "not verified: give --secret-file or --secret".to_owned()
            };
            by_nothing
        } else {
            match signature::verify(&verifiers, request, now, TOLERANCE) {
                Ok(verified) => {
                    findings.verdict = format!("the signature holds, by {}", verified.by().as_str());
                    verified
                }
                Err(error) => {
                    findings.verdict = format!("refused: {error}");
                    findings.refused = true;
                    findings.mistakes = self.mistakes(provider, request, &error, at)?;
                    by_nothing
                }
            }
        };
        findings.places = provider.places(&document, &request, verified.signed());
        let contents = match normalize::read(provider, &verified, &request, &document) {
            Ok(contents) => contents,
            Err(why) => {
                findings.unread = Some(why.to_string());
                return Ok(findings);
            }
        };
        let path: Arc<str> = format!("/hooks/{}", provider.name).into();
        let origin = DeliveryOrigin { source: provider.name, path: &path, provider, trace: None };
        match normalize::normalize(&origin, &verified, &document, &contents, at) {
            Normalized::HealthCheck => {
                findings.outcome = "a health check: answered, not forwarded".to_owned()
            }
            Normalized::Handshake(answer) => {
                findings.outcome = format!("a validation request, answered {answer}");
            }
            Normalized::Event(event) => findings.events.push(event.event.json.clone()),
            Normalized::Events(events) if events.is_empty() => {
                findings.outcome = "an empty list of events: answered, nothing forwarded".to_owned();
            }
            Normalized::Events(events) => {
                findings.events.extend(events.into_iter().map(|event| event.event.json))
            }
        }
        Ok(findings)
    }

    /// Why the signature does not hold, in words.
    fn mistakes(
        &self,
        provider: &Provider,
        request: SignedRequest<'_>,
        error: &SignatureError,
        at: Timestamp,
    ) -> Result<Vec<String>, Failure> {
        let known = |(slot, secret): (usize, Secret)| KnownSecret {
            source: &self.name,
            slot,
            secret,
            not_before: None,
            not_after: None,
        };
        let secrets: Vec<KnownSecret<'_>> = self.secrets()?.into_iter().enumerate().map(known).collect();
        let cases = provider.signing.schemes().iter().map(|scheme| RefusedDelivery {
            scheme,
            secrets: &secrets,
            source: &self.name,
            request,
            is_defined: true,
            error,
            at,
        });
        let mistakes = diagnosis::diagnose_any(&cases.collect::<Vec<_>>());
        Ok(mistakes.iter().map(ToString::to_string).collect())
    }

    fn secrets(&self) -> Result<Vec<Secret>, Failure> {
        let mut secrets: Vec<Secret> = self.secret.iter().map(Secret::new).collect();
        for path in &self.secret_file {
            let named =
                |why: &dyn std::fmt::Display| Failure(format!("cannot read {}: {why}", path.display()));
            let bytes = file::read(path, MAX_SECRET).map_err(|why| named(&why))?;
            let text = String::from_utf8(bytes).map_err(|_| named(&"it is not UTF-8"))?;
            let text = text.strip_suffix('\n').unwrap_or(&text);
            secrets.push(Secret::new(text.strip_suffix('\r').unwrap_or(text)));
        }
        Ok(secrets)
    }
}

/// What was found.
#[derive(Default)]
struct Findings {
    signatures: Vec<Inspection>,
    verdict: String,
    refused: bool,
    /// Why it is refused.
    mistakes: Vec<String>,
    /// The keys of `[event]`, their pointers, and the values there.
    places: Vec<(&'static str, &'static str, Option<String>)>,
    unread: Option<String>,
    outcome: String,
    events: Vec<String>,
}

impl Findings {
    fn text(&self) -> String {
        let mut lines = Vec::new();
        for found in &self.signatures {
            lines.push(format!("signature {} in {}: {}", found.algorithm, found.header, found.said()));
        }
        lines.push(format!("verdict: {}", self.verdict));
        lines.extend(self.mistakes.iter().map(|mistake| format!("  {mistake}")));
        for (key, pointer, value) in &self.places {
            let value = value.as_deref().unwrap_or("(absent)");
            lines.push(format!("event.{key} at {pointer}: {value}"));
        }
        lines.extend(self.unread.iter().map(|why| format!("the body cannot be read: {why}")));
        if !self.outcome.is_empty() {
            lines.push(format!("outcome: {}", self.outcome));
        }
        lines.extend(self.events.iter().map(|event| format!("event: {event}")));
        lines.iter().map(|line| safe(line)).collect::<Vec<_>>().join("\n")
    }

    fn json(&self) -> String {
        let places: Vec<Value> = self
            .places
            .iter()
            .map(|(key, pointer, value)| json!({ "key": key, "pointer": pointer, "value": value }))
            .collect();
        let events: Vec<Value> =
            self.events.iter().filter_map(|event| serde_json::from_str(event).ok()).collect();
        json!({
            "signatures": self.signatures.iter().map(Inspection::json).collect::<Vec<_>>(),
            "verdict": self.verdict,
            "refused": self.refused,
            "mistakes": self.mistakes,
            "found": places,
            "unread": self.unread,
            "outcome": self.outcome,
            "events": events,
        })
        .to_string()
    }
}

/// Seconds: the default of a source's `tolerance`.
const TOLERANCE: i64 = 300;
/// Bytes.
const MAX_SECRET: u64 = 64 << 10;
