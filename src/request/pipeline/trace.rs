//! The trace of one request, while it is handled.
//!
//! Keeps true: a request that is not sampled allocates nothing for its trace. A span holds of the request's head only the
//! method, the version and the source that it reached.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Method, StatusCode, Version};

use super::RequestContext;
use crate::base::clock;
use crate::base::label::Label;
use crate::base::trace_context::TraceContext;
use crate::observe::traces::{OTHER_METHOD, RequestSpan, Sampler, SpanSource, Stage};
use crate::request::outcome::Outcome;

/// Continues the client's trace, or begins one.
pub(super) struct RequestTrace {
    /// What the event and the broker get.
    pub(super) context: TraceContext,
    /// None if it is not sampled.
    recording: Option<Box<Recording>>,
}

struct Recording {
    /// The client's span.
    parent: Option<[u8; 8]>,
    /// Each with the time from the request's begin.
    stages: Mutex<Vec<(Stage, Duration)>>,
}

impl RequestTrace {
    /// `trusted`: whether the client decides what is sampled.
    pub(super) fn begin(sampler: &Sampler, headers: &HeaderMap, trusted: bool) -> RequestTrace {
        let values = headers.get_all(TRACEPARENT).iter().map(HeaderValue::as_bytes);
        let parent = TraceContext::parse(values);
        let own = match &parent {
            Some(parent) => parent.child(clock::random()),
            None => TraceContext::root(clock::random(), clock::random()),
        };
        let sampled = sampler.samples(&own.trace_id, parent.as_ref(), trusted);
        let recording = || {
            let mut stages = Vec::with_capacity(Stage::ALL.len());
            stages.push((Stage::Admit, Duration::ZERO));
            let parent = parent.map(|parent| parent.span_id);
            Box::new(Recording { parent, stages: Mutex::new(stages) })
        };
        RequestTrace { context: TraceContext { sampled, ..own }, recording: sampled.then(recording) }
    }
}

impl RequestContext {
    /// What its events carry on, when tracing is on.
    pub(super) fn trace_context(&self) -> Option<TraceContext> {
        self.trace.as_ref().map(|trace| trace.context)
    }

    /// Begins a stage, which ends the one before.
    pub(super) fn stage(&self, stage: Stage) {
        if let Some(RequestTrace { recording: Some(recording), .. }) = &self.trace {
            let mut stages = recording.stages.lock().unwrap_or_else(PoisonError::into_inner);
            stages.push((stage, self.elapsed()));
        }
    }

    /// The spans of the finished request, if it is sampled.
    pub(super) fn span(
        &self,
        outcome: &Outcome,
        status: StatusCode,
        body: Option<usize>,
    ) -> Option<RequestSpan> {
        let trace = self.trace.as_ref()?;
        let recording = trace.recording.as_ref()?;
        let stages = std::mem::take(&mut *recording.stages.lock().unwrap_or_else(PoisonError::into_inner));
        let is_gone = matches!(outcome, Outcome::ClientGone);
        let reason = match outcome {
            Outcome::Rejected(rejection) => Some(rejection.reason.label()),
            _ => None,
        };
        let (event_id, events) = match outcome {
            Outcome::Accepted { id } | Outcome::Duplicate { id } => (Some(id.clone()), Some(1)),
            Outcome::AcceptedAll { ids, .. } => (None, Some(ids.len())),
            _ => (None, None),
        };
        let source = self.source.as_ref().map(|source| SpanSource {
            name: source.name.clone(),
            path: source.path.clone(),
            provider: source.provider.name,
        });
        Some(RequestSpan {
            trace: trace.context,
            parent: recording.parent,
            began: self.received,
            took: self.elapsed(),
            stages,
            method: method(&self.head.method),
            http_version: http_version(self.head.version),
            scheme: if self.rules.tls.is_some() { "https" } else { "http" },
            status: (!is_gone).then_some(status.as_u16()),
            source,
            outcome: outcome.label().map_or("client_gone", |label| label.label()),
            reason,
            client: reason.map(|_| self.peer.address),
            event_id,
            events,
            body_bytes: body,
        })
    }
}

/// The method, if HTTP defines it: a client may send any word.
fn method(method: &Method) -> &'static str {
    let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    known.into_iter().find(|known| *known == method.as_str()).unwrap_or(OTHER_METHOD)
}

fn http_version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}

const TRACEPARENT: &str = "traceparent";
