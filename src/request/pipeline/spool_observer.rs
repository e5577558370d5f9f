//! Counts and records events that leave the spool, long after their requests were answered.
//!
//! Keeps true: a conflict is counted once, and recorded if it is dropped, with or without the spool.

use std::sync::{Arc, Weak};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Pipeline;
use crate::base::reason::Note;
use crate::durable::inbox::{EnqueueRequest, Enqueued};
use crate::durable::spool::SpoolObserver;
use crate::observe::audit::{self, Reject};
use crate::observe::metrics::SourceMetrics;

impl SpoolObserver for Weak<Pipeline> {
    fn on_enqueued(&self, request: &EnqueueRequest, enqueued: &Enqueued) {
        let Some(pipeline) = self.upgrade() else { return };
        match enqueued {
            Enqueued::Accepted { conflict, .. } => {
                pipeline.metrics_of(&request.source).conflicts.inc_by((*conflict).into());
            }
            Enqueued::Duplicate { dropped: false, .. } => {}
            Enqueued::Duplicate { id, dropped: true } => {
                pipeline.metrics_of(&request.source).conflicts.inc();
                pipeline.record_conflict(conflict_record(request, pipeline.clock.now()), id);
            }
        }
    }

    fn on_dead_letter(&self, source: &str) {
        if let Some(pipeline) = self.upgrade() {
            pipeline.metrics_of(source).dead.inc();
        }
    }
}

impl Pipeline {
    /// A source's series; the series of unknown paths if the source is no longer configured.
    fn metrics_of(&self, source: &str) -> Arc<SourceMetrics> {
        let rules = self.rules.load();
        let configured = rules.routes.sources().find(|configured| *configured.name == *source);
        configured.map_or(&rules.routes.unknown, |source| &source.metrics).clone()
    }

    /// Records that a source dropped a different body under the identity of the event `id`. The detail of `record` says
    /// where the body came from; it is empty for a new request.
    pub(super) fn record_conflict(&self, mut record: Reject, id: &str) {
        let detail = format!("another body under the identity of {id} was dropped{}", record.detail);
        record.detail = self.rules.load().routes.redactor.redact(&detail);
        self.audit.record(record);
    }
}

/// The record of a body that a source dropped as a conflict. The spool does not store the client and the headers.
fn conflict_record(request: &EnqueueRequest, at: Timestamp) -> Reject {
    Reject {
        id: audit::reject_id(),
        at,
        source: request.source.clone(),
        provider: request.provider.clone(),
        reason: Note::Conflict.label(),
        status: 200,
        client: None,
        method: "POST".to_owned(),
        path: request.event.source.to_string(),
        body: Some((request.body.hex(), payload_bytes(&request.event.json))),
        headers: Vec::new(),
        detail: ", out of the spool".to_owned(),
        observed: false,
    }
}

/// The length of the body in an event; 0 for a text that is not an event.
fn payload_bytes(event: &str) -> u64 {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(borrow)]
        data: Data<'a>,
    }
    #[derive(Deserialize)]
    struct Data<'a> {
        #[serde(borrow)]
        payload: &'a RawValue,
        #[serde(borrow)]
        payload_base64: Option<&'a str>,
    }
    let Ok(Event { data }) = serde_json::from_str::<Event<'_>>(event) else { return 0 };
    let bytes = match data.payload_base64 {
        // Each base64 digit except padding holds 6 bits.
        Some(encoded) => encoded.trim_end_matches('=').len() * 3 / 4,
        None => data.payload.get().len(),
    };
    bytes as u64
}

#[cfg(test)]
mod tests {
    use super::payload_bytes;

    #[test]
    fn a_body_has_its_original_length() {
        for (data, bytes) in [
            (r#"{"payload":{"a" : 1}}"#, 9),
            (r#"{"payload":null,"payload_base64":""}"#, 0),
            (r#"{"payload":null,"payload_base64":"eA=="}"#, 1),
            (r#"{"payload":null,"payload_base64":"eHg="}"#, 2),
            (r#"{"payload":null,"payload_base64":"eHh4"}"#, 3),
            (r#"{"payload":null,"payload_base64":"eHh4eA=="}"#, 4),
        ] {
            assert_eq!(payload_bytes(&format!("{{\"id\":\"1\",\"data\":{data}}}")), bytes, "{data}");
        }
        assert_eq!(payload_bytes("{}"), 0);
    }
}
