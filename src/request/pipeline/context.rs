//! The context of one request: everything needed to count, record and answer it.
//!
//! Keeps true: a record holds no body, no secret, no query string and no path token, and only fingerprints of
//! signatures.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Response, Version};
use jiff::Timestamp;

use super::trace::RequestTrace;
use super::{Pipeline, RuntimeConfig, health};
use crate::base::clock;
use crate::base::label::UNKNOWN;
use crate::base::peer::{self, Peer, forwarded};
use crate::base::reason::{Note, Reason};
use crate::event::BodyHash;
use crate::observe::audit::{self, Reject};
use crate::observe::metrics::OutcomeLabel;
use crate::observe::traces::Stage;
use crate::provider::signature::{fingerprint, without_signatures};
use crate::request::answer::{self, Body};
use crate::request::outcome::{Outcome, Rejection};
use crate::request::source::headers::SigningHeaders;
use crate::request::source::{NearMiss, Source};

/// A request in progress.
pub struct RequestContext {
    /// Its head.
    pub head: Parts,
    /// The client.
    pub peer: Peer,
    /// The config for the whole request, even after a reload.
    pub rules: Arc<RuntimeConfig>,
    /// When its head was read.
    pub received: Timestamp,
    /// The source of its path, once known.
    pub source: Option<Arc<Source>>,
    /// A source with a token whose path it nearly matches. Its own path may hold most of the token.
    near_miss: Option<Arc<Source>>,
    /// Whether an HTTP/1.x connection must close after the answer, because the next request cannot be found.
    pub close_connection: bool,
    /// Its trace; none while tracing is off.
    pub(super) trace: Option<RequestTrace>,
    observed: Mutex<Vec<Observed>>,
    started: Instant,
    in_flight: prometheus::IntGauge,
}

/// A refusal that is only reported until a date.
struct Observed {
    rejection: Rejection,
    enforced_from: Timestamp,
}

impl RequestContext {
    /// Begins a request, which counts as in flight until it is dropped.
    pub(super) fn begin(
        pipeline: &Pipeline,
        head: Parts,
        mut peer: Peer,
        rules: Arc<RuntimeConfig>,
    ) -> RequestContext {
        let in_flight = pipeline.metrics.edge.in_flight.clone();
        in_flight.inc();
        let received = pipeline.clock.now();
        // Before X-Forwarded-For replaces the address of the connection.
        let trusts_its_trace =
            || !peer.client_unknown && peer::within(peer.address, &rules.edge.trusted_proxies);
        let trace = rules.sampler.as_ref();
        let trace = trace.map(|sampler| RequestTrace::begin(sampler, &head.headers, trusts_its_trace()));
        let hops = head.headers.get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes);
        if !peer.client_unknown {
            peer.address = forwarded::client(peer.address, hops, &rules.edge.trusted_proxies);
        }
        let (source, near_miss, close_connection) = (None, None, false);
        let (observed, started) = (Mutex::default(), clock::instant());
        RequestContext {
            head,
            peer,
            rules,
            received,
            source,
            near_miss,
            close_connection,
            trace,
            observed,
            started,
            in_flight,
        }
    }

    pub(super) fn set_source(&mut self, source: &Arc<Source>) -> Arc<Source> {
        self.source = Some(source.clone());
        source.clone()
    }

    /// Notes that the path is unknown. Returns the detail for its record, which names a source that the path nearly
    /// matches.
    pub(super) fn note_near_miss(&mut self, near_miss: Option<NearMiss>) -> String {
        let Some(NearMiss { source, detail }) = near_miss else {
            return "no source has this path".to_owned();
        };
        self.near_miss = Some(source).filter(|source| source.token.is_some());
        detail
    }

    pub(super) fn clear_source(&mut self) {
        self.source = None;
    }

    /// Returns the refusal, unless the source only observes it. An observed refusal is noted, and the request passes.
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

    /// The time since its head was read.
    pub(super) fn elapsed(&self) -> Duration {
        clock::instant().saturating_duration_since(self.started)
    }

    /// Counts the request, records a refusal, and renders the answer.
    pub(super) fn conclude(
        &self,
        pipeline: &Pipeline,
        body: Option<&Bytes>,
        outcome: Outcome,
    ) -> Response<Body> {
        self.stage(Stage::Answer);
        let reject = match &outcome {
            Outcome::Rejected(rejection) => {
                self.metrics().rejected(rejection.reason);
                let hash = body.map(|body| (BodyHash::of(body), body.len()));
                let reject = self.record(pipeline, rejection, hash);
                if let Some(body) = body {
                    self.quarantine(pipeline, rejection.reason, &reject, body);
                }
                reject
            }
            Outcome::ClientGone => String::new(),
            Outcome::Accepted { .. }
            | Outcome::Duplicate { .. }
            | Outcome::AcceptedAll { .. }
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
        if self.close_connection || pipeline.readiness.draining() {
            close_after(&mut answer, self.head.version);
        }
        if let Some(traces) = &pipeline.traces
            && let Some(span) = self.span(&outcome, answer.status(), body.map(Bytes::len))
        {
            traces.record(span);
        }
        answer
    }

    /// The record of a body that the source drops as a conflict. The request itself is not refused.
    pub(super) fn conflict_record(&self, body: &BodyHash, bytes: usize) -> Reject {
        let mut record = self.reject(Note::Conflict.label(), 200, String::new());
        record.body = Some((body.hex(), bytes as u64));
        record
    }

    /// Counts and records the observed refusals of a request that passed.
    fn record_observed(&self, pipeline: &Pipeline, body: Option<&Bytes>) {
        let observed = std::mem::take(&mut *self.observed.lock().unwrap_or_else(PoisonError::into_inner));
        if observed.is_empty() {
            return;
        }
        let body = body.map(|body| (BodyHash::of(body).hex(), body.len() as u64));
        for Observed { rejection: Rejection { reason, detail, .. }, enforced_from } in observed {
            self.metrics().observed(reason);
            let detail = format!("observed, not refused; enforced from {enforced_from}: {detail}");
            let mut record = self.reject(reason.label(), 200, detail);
            (record.body, record.observed) = (body.clone(), true);
            pipeline.audit.record(record);
        }
    }

    fn record(&self, pipeline: &Pipeline, rejection: &Rejection, body: Option<(BodyHash, usize)>) -> String {
        let (reason, status) = (rejection.reason, rejection.status().as_u16());
        let mut record = self.reject(reason.label(), status, rejection.detail.clone());
        record.body = body.map(|(hash, bytes)| (hash.hex(), bytes as u64));
        let id = record.id.clone();
        tracing::debug!(reject = id, source = &*record.source, reason = record.reason, "refused");
        pipeline.audit.record(record);
        id
    }

    fn reject(&self, reason: &'static str, status: u16, detail: String) -> Reject {
        // Redact before clipping: a secret cut in half would not be recognized.
        let redactor = &self.rules.routes.redactor;
        let clean = |text: &str, max: usize| clip(&redactor.redact(text), max);
        let clean_header = |value: &str| clip(&without_signatures(&redactor.redact(value)), MAX_HEADER);
        let path = match self.source.as_ref().or(self.near_miss.as_ref()) {
            Some(source) if source.token.is_some() => source.path.to_string(),
            _ => clean(self.head.uri.path(), MAX_PATH),
        };
        let mut headers = kept_headers(&self.head.headers, &self.rules.routes.signing_headers, clean_header);
        // HTTP/2 carries the host in the URI; its Host header is optional.
        if let Some(authority) = self.head.uri.authority()
            && !self.head.headers.contains_key(HOST)
        {
            // The text before an `@` may be a password.
            let host = authority.as_str().rsplit('@').next().unwrap_or_default();
            headers.push((Cow::Borrowed("host"), clean_header(host)));
        }
        Reject {
            id: audit::reject_id(),
            at: self.received,
            source: self.source.as_ref().map_or_else(|| UNKNOWN.into(), |source| source.name.clone()),
            provider: self.source.as_ref().map_or(UNKNOWN, |source| source.provider.name).into(),
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

/// Adds `Connection: close` to an HTTP/1.x answer. HTTP/2 connections end with GOAWAY instead.
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

/// Counts and records a refusal without a readable request. `status` is 0 if nothing is answered. Returns the record's
/// id.
pub(super) fn record_without_request(
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
        provider: UNKNOWN.into(),
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

/// The headers for a record, redacted, and signature headers as fingerprints.
fn kept_headers(
    headers: &HeaderMap,
    signing: &SigningHeaders,
    clean: impl Fn(&str) -> String,
) -> Vec<(Cow<'static, str>, String)> {
    let mut kept: Vec<(Cow<'static, str>, String)> = Vec::new();
    let mut keep = |name: &str, value: String| match kept.iter_mut().find(|(known, _)| *known == name) {
        Some(known) => known.1 = format!("{}, {value}", known.1),
        None => kept.push((Cow::Owned(name.to_owned()), value)),
    };
    let identifying = signing.identifying.iter().map(HeaderName::as_str);
    for name in KEPT_HEADERS.into_iter().chain(identifying) {
        for value in headers.get_all(name).iter().take(MAX_REPEATS) {
            keep(name, clean(&String::from_utf8_lossy(value.as_bytes())));
        }
    }
    for name in &signing.signatures {
        for value in headers.get_all(name).iter().take(MAX_REPEATS) {
            keep(name.as_str(), fingerprint(value.as_bytes()));
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
