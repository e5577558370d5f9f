//! One request and what is known of it: enough to count it, record it and answer it, whatever became of it.
//!
//! Keeps true: a record holds no body, no secret, no query string and no path token; signatures are kept as fingerprints.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Response, Version};
use jiff::Timestamp;

use super::{Pipeline, RuntimeConfig, health};
use crate::base::clock;
use crate::base::label::UNKNOWN;
use crate::base::peer::{Peer, forwarded};
use crate::base::reason::{Note, Reason};
use crate::event::BodyHash;
use crate::observe::audit::{self, Reject};
use crate::observe::metrics::OutcomeLabel;
use crate::provider::signature::{fingerprint, without_signatures};
use crate::provider::{IDENTIFYING_HEADERS, SIGNATURE_HEADERS};
use crate::request::answer::{self, Body};
use crate::request::outcome::{Outcome, Rejection};
use crate::request::source::{Near, Source};

/// A request under way.
pub struct RequestContext {
    /// Its head.
    pub head: Parts,
    /// Who sent it.
    pub peer: Peer,
    /// What it is held against, from its head to its answer.
    pub rules: Arc<RuntimeConfig>,
    /// When its head was read.
    pub received: Timestamp,
    /// Whose it is, once known.
    pub source: Option<Arc<Source>>,
    /// A source with a token whose path it misses by a slip. The text in the token's place may be much like the token.
    near: Option<Arc<Source>>,
    /// Of HTTP/1.x: what follows it on its connection is no request.
    pub last: bool,
    observed: Mutex<Vec<Observed>>,
    started: Instant,
    in_flight: prometheus::IntGauge,
}

/// What it would be refused for, from a date on.
struct Observed {
    rejection: Rejection,
    enforced_from: Timestamp,
}

impl RequestContext {
    /// From here on it is in flight.
    pub(super) fn begin(
        pipeline: &Pipeline,
        head: Parts,
        mut peer: Peer,
        rules: Arc<RuntimeConfig>,
    ) -> RequestContext {
        let in_flight = pipeline.metrics.edge.in_flight.clone();
        in_flight.inc();
        let received = pipeline.clock.now();
        let hops = head.headers.get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes);
        if !peer.hidden {
            peer.address = forwarded::client(peer.address, hops, &rules.edge.trusted_proxies);
        }
        let (source, near, last) = (None, None, false);
        let (observed, started) = (Mutex::default(), clock::instant());
        RequestContext { head, peer, rules, received, source, near, last, observed, started, in_flight }
    }

    pub(super) fn belongs_to(&mut self, source: &Arc<Source>) -> Arc<Source> {
        self.source = Some(source.clone());
        source.clone()
    }

    /// It leads to no source. Returns the detail for its record, which names a source that it misses by a slip.
    pub(super) fn is_near(&mut self, near: Option<Near>) -> String {
        let Some(Near { source, detail }) = near else { return "no source has this path".to_owned() };
        self.near = Some(source).filter(|source| source.token.is_some());
        detail
    }

    pub(super) fn belongs_to_nobody(&mut self) {
        self.source = None;
    }

    /// Refuses what is to be refused; what the source only observes yet is noted and passes.
    pub(super) fn enforce(&self, checked: Result<(), Rejection>) -> Result<(), Rejection> {
        let Err(rejection) = checked else { return Ok(()) };
        let enforced_from = self
            .source
            .as_ref()
            .and_then(|source| source.report_only.enforced_from(rejection.reason, self.received));
        let Some(enforced_from) = enforced_from else { return Err(rejection) };
        let mut observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        observed.push(Observed { rejection, enforced_from });
        Ok(())
    }

    /// Since its head was read.
    pub(super) fn elapsed(&self) -> Duration {
        clock::instant().saturating_duration_since(self.started)
    }

    /// Counts it, records it if it was refused, and renders its answer.
    pub(super) fn conclude(
        &self,
        pipeline: &Pipeline,
        body: Option<&Bytes>,
        outcome: Outcome,
    ) -> Response<Body> {
        let reject = match &outcome {
            Outcome::Rejected(rejection) => {
                self.metrics().rejected(rejection.reason);
                let hash = body.map(|body| (BodyHash::of(body), body.len()));
                let reject = self.record(pipeline, rejection, hash);
                if let Some(body) = body {
                    self.keep(pipeline, rejection.reason, &reject, body);
                }
                reject
            }
            Outcome::HungUp => String::new(),
            Outcome::Accepted { .. }
            | Outcome::Duplicate { .. }
            | Outcome::Ignored
            | Outcome::Handshake { .. } => {
                self.record_observed(pipeline, body);
                String::new()
            }
        };
        if let Some(label) = outcome.label() {
            self.metrics().finished(label, self.elapsed().as_secs_f64());
        }
        let allow = self.source.as_ref().map_or(health::METHODS, |source| source.methods());
        let mut answer = answer::render(&outcome, &reject, allow);
        if self.last || pipeline.readiness.draining() {
            close_after(&mut answer, self.head.version);
        }
        answer
    }

    /// The record of its body, which the source drops as a conflict. It refuses nothing.
    pub(super) fn conflict(&self, body: &BodyHash, bytes: usize) -> Reject {
        let mut record = self.reject(Note::Conflict.label(), 200, String::new());
        record.body = Some((body.hex(), bytes as u64));
        record
    }

    /// What let it in only because the source does not enforce it yet.
    fn record_observed(&self, pipeline: &Pipeline, body: Option<&Bytes>) {
        let observed = std::mem::take(&mut *self.observed.lock().unwrap_or_else(PoisonError::into_inner));
        if observed.is_empty() {
            return;
        }
        let body = body.map(|body| (BodyHash::of(body).hex(), body.len() as u64));
        for Observed { rejection: Rejection { reason, detail }, enforced_from } in observed {
            self.metrics().observed(reason);
            let detail = format!("observed, not refused; enforced from {enforced_from}: {detail}");
            let mut record = self.reject(reason.label(), 200, detail);
            (record.body, record.observed) = (body.clone(), true);
            pipeline.audit.record(record);
        }
    }

    fn record(&self, pipeline: &Pipeline, rejection: &Rejection, body: Option<(BodyHash, usize)>) -> String {
        let (reason, status) = (rejection.reason, rejection.reason.status().as_u16());
        let mut record = self.reject(reason.label(), status, rejection.detail.clone());
        record.body = body.map(|(hash, bytes)| (hash.hex(), bytes as u64));
        let id = record.id.clone();
        tracing::debug!(reject = id, source = &*record.source, reason = record.reason, "refused");
        pipeline.audit.record(record);
        id
    }

    fn reject(&self, reason: &'static str, status: u16, detail: String) -> Reject {
        // Cleaned first: cut first, a part of a secret could stand at the end and not be known for what it is.
        let redactor = &self.rules.routes.redactor;
        let clean = |text: &str, max: usize| clip(&redactor.clean(text), max);
        let clean_header = |value: &str| clip(&without_signatures(&redactor.clean(value)), MAX_HEADER);
        let path = match self.source.as_ref().or(self.near.as_ref()) {
            Some(source) if source.token.is_some() => source.path.to_string(),
            _ => clean(self.head.uri.path(), MAX_PATH),
        };
        let mut headers = kept_headers(&self.head.headers, clean_header);
        // HTTP/2 has the host in its URI, where a Host header is only allowed.
        if let Some(authority) = self.head.uri.authority()
            && !self.head.headers.contains_key(HOST)
        {
            // What stands before an `@` may be a password.
            let host = authority.as_str().rsplit('@').next().unwrap_or_default();
            headers.push((Cow::Borrowed("host"), clean_header(host)));
        }
        Reject {
            id: audit::reject_id(),
            at: self.received,
            source: self.source.as_ref().map_or_else(|| UNKNOWN.into(), |source| source.name.clone()),
            provider: self.source.as_ref().map_or(UNKNOWN, |source| source.provider.name),
            reason,
            status,
            client: Some(self.peer.address),
            method: clean(self.head.method.as_str(), MAX_METHOD),
            path,
            body: None,
            headers,
            detail,
            observed: false,
        }
    }

    fn metrics(&self) -> &crate::observe::metrics::SourceMetrics {
        self.source.as_ref().map_or(&self.rules.routes.unknown, |source| &source.metrics)
    }
}

/// Says that the connection ends with this answer: the client of a draining gateway is to come back elsewhere. HTTP/2 says so
/// in its own way.
pub(super) fn close_after(answer: &mut Response<Body>, version: Version) {
    if version < Version::HTTP_2 {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

impl Drop for RequestContext {
    fn drop(&mut self) {
        self.in_flight.dec();
    }
}

/// Counts and records a refusal for which no request could be read. `status`: 0 where nothing is answered. Its record's id.
pub(super) fn record_bare(
    pipeline: &Pipeline,
    peer: &Peer,
    reason: Reason,
    status: u16,
    detail: &str,
) -> String {
    let rules = pipeline.rules.load();
    let unknown = &rules.routes.unknown;
    unknown.rejected(reason);
    unknown.finished(OutcomeLabel::Rejected, 0.0);
    let id = audit::reject_id();
    pipeline.audit.record(Reject {
        id: id.clone(),
        at: pipeline.clock.now(),
        source: UNKNOWN.into(),
        provider: UNKNOWN,
        reason: reason.label(),
        status,
        client: Some(peer.address),
        method: String::new(),
        path: String::new(),
        body: None,
        headers: Vec::new(),
        detail: detail.to_owned(),
        observed: false,
    });
    id
}

/// The headers worth keeping, cleaned; of a signature its fingerprint.
fn kept_headers(headers: &HeaderMap, clean: impl Fn(&str) -> String) -> Vec<(Cow<'static, str>, String)> {
    let plain = KEPT_HEADERS.iter().chain(IDENTIFYING_HEADERS.iter()).flat_map(|name| {
        let values = headers.get_all(*name).iter().take(MAX_REPEATS);
        values.map(|value| (*name, clean(&String::from_utf8_lossy(value.as_bytes()))))
    });
    let signatures = SIGNATURE_HEADERS.iter().flat_map(|name| {
        let values = headers.get_all(*name).iter().take(MAX_REPEATS);
        values.map(|value| (*name, fingerprint(value.as_bytes())))
    });
    let mut kept: Vec<(Cow<'static, str>, String)> = Vec::new();
    for (name, value) in plain.chain(signatures) {
        match kept.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = format!("{}, {value}", known.1),
            None => kept.push((Cow::Borrowed(name), value)),
        }
    }
    kept
}

fn clip(text: &str, max: usize) -> String {
    let end = (0..=max.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    if end == text.len() { text.to_owned() } else { format!("{}…", &text[..end]) }
}

const KEPT_HEADERS: [&str; 6] =
    ["user-agent", "content-type", "content-length", "content-encoding", "host", "x-forwarded-for"];
const MAX_REPEATS: usize = 4;
const MAX_HEADER: usize = 256;
const MAX_PATH: usize = 512;
const MAX_METHOD: usize = 32;
