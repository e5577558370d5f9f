//! Quarantines refused requests, and verifies them again.
//!
//! Keeps true: a request is admitted from the quarantine only if a current secret of its source signed it, within the
//! tolerance at its arrival. It must also pass every current check except the rate. Nothing replaces the signature.
//! Only an admitted request is counted as verified.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, USER_AGENT};
use jiff::Timestamp;

use super::delivery::Delivery;
use super::{Pipeline, RequestContext, RuntimeConfig};
use crate::base::peer::Peer;
use crate::base::reason::{Note, Reason};
use crate::durable::inbox::Enqueued;
use crate::durable::quarantine::{Content, Judgement, Kept, Label, Reverifier};
use crate::event::BodyHash;
use crate::observe::audit::{self, Reject};
use crate::provider::normalize::{Normalized, NormalizedEvent};
use crate::provider::signature::SignedRequest;
use crate::request::admission;
use crate::request::outcome::Rejection;
use crate::request::source::Source;
use crate::request::source::headers::SigningHeaders;

impl RequestContext {
    /// Quarantines a request whose refusal may turn out to be wrong. `reject` is the id of its record.
    pub(super) fn quarantine(&self, pipeline: &Pipeline, reason: Reason, reject: &str, body: &Bytes) {
        let (Some(quarantine), Some(source)) = (&pipeline.quarantine, &self.source) else { return };
        if !matches!(reason, Reason::SignatureMismatch | Reason::TimestampOutsideTolerance) {
            return;
        }
        let label = Label {
            arrived: self.received,
            source: source.name.clone(),
            provider: source.provider.name.to_owned(),
            reason: reason.label().to_owned(),
            reject: reject.to_owned(),
            client: self.peer.address,
            bytes: body.len() as u64,
        };
        quarantine.keep(label, self.rules.routes.sources().count(), || Content {
            method: self.head.method.to_string(),
            path: source.path.to_string(),
            target: self.head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
            certificate: self.peer.certificate.clone(),
            headers: kept_headers(&self.head.headers, &self.rules.routes.signing_headers),
            // A slice would keep the whole read buffer in memory.
            body: Bytes::copy_from_slice(body),
        });
    }
}

/// Keeps headers whole and repeated headers repeated: verification must see a header that was sent twice, to refuse it.
fn kept_headers(headers: &HeaderMap, signing: &SigningHeaders) -> HeaderMap {
    let SigningHeaders { signatures, identifying, covered } = signing;
    let names = signatures.iter().chain(identifying).chain(covered).chain(&[CONTENT_TYPE, USER_AGENT]);
    let mut kept = HeaderMap::new();
    for name in names {
        for value in headers.get_all(name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

impl Reverifier for Weak<Pipeline> {
    async fn reverify(&self, kept: &Kept, dry_run: bool) -> Judgement {
        match self.upgrade() {
            Some(pipeline) => pipeline.reverify(kept, dry_run).await,
            None => Judgement::NotAdmitted { why: "the gateway is stopping".to_owned() },
        }
    }
}

impl Pipeline {
    /// Enqueues the events of one quarantined delivery, one after the other. The first error ends it; a later attempt
    /// enters those that are missing.
    async fn enqueue_quarantined(
        self: &Arc<Self>,
        source: &Arc<Source>,
        kept: &Kept,
        events: Vec<NormalizedEvent>,
    ) -> Result<Enqueued, Rejection> {
        let left = self.rules.load().edge.request_timeout;
        let mut first: Option<Enqueued> = None;
        for event in events {
            let event = NormalizedEvent { event: event.event.quarantined(), ..event };
            let conflict = || conflict_record(kept, source, self.clock.now());
            let enqueued =
                self.enqueue_within(source, (kept.label.arrived, left), event, &mut None, conflict).await?;
            let is_new = matches!(enqueued, Enqueued::Accepted { .. });
            if first.is_none() || is_new && matches!(first, Some(Enqueued::Duplicate { .. })) {
                first = Some(enqueued);
            }
        }
        first.ok_or_else(|| Rejection::new(Reason::PayloadInvalid, "the delivery holds no event"))
    }

    async fn reverify(self: &Arc<Self>, kept: &Kept, dry_run: bool) -> Judgement {
        let rules = self.rules.load_full();
        let Some(source) = rules.routes.sources().find(|source| source.name == kept.label.source) else {
            return Judgement::NoSource;
        };
        let enqueued = match verified(&rules, source, kept, false) {
            Err(rejection) => Err(rejection),
            Ok(_) if dry_run => return Judgement::Passes,
            Ok(Normalized::HealthCheck | Normalized::Handshake(_)) => return Judgement::Ignored,
            Ok(Normalized::Events(events)) => self.enqueue_quarantined(source, kept, events).await,
            Ok(Normalized::Event(forward)) => {
                let left = rules.edge.request_timeout;
                let forward = NormalizedEvent { event: forward.event.quarantined(), ..*forward };
                let conflict = || conflict_record(kept, source, self.clock.now());
                self.enqueue_within(source, (kept.label.arrived, left), forward, &mut None, conflict).await
            }
        };
        match enqueued {
            Ok(Enqueued::Accepted { id, .. }) => {
                // Verify once more to count it. Failed and repeated attempts are not counted.
                let _ = verified(&rules, source, kept, true);
                Judgement::Admitted { id }
            }
            Ok(Enqueued::Duplicate { id, .. }) => Judgement::Duplicate { id },
            Err(Rejection { reason, detail, .. }) if reason.retries() => {
                Judgement::NotAdmitted { why: detail }
            }
            Err(Rejection { reason, detail, .. }) => {
                Judgement::Refused { reason: reason.label().to_owned(), why: detail }
            }
        }
    }
}

/// The record of a quarantined request's body that the source drops as a conflict.
fn conflict_record(kept: &Kept, source: &Source, at: Timestamp) -> Reject {
    let Label { client, bytes, provider, .. } = &kept.label;
    Reject {
        id: audit::reject_id(),
        at,
        source: source.name.clone(),
        provider: provider.clone().into(),
        reason: Note::Conflict.label(),
        status: 200,
        client: Some(*client),
        method: kept.content.method.clone(),
        path: source.path.to_string(),
        body: Some((BodyHash::of(&kept.content.body).hex(), *bytes)),
        headers: Vec::new(),
        detail: ", out of the quarantine".to_owned(),
        observed: false,
    }
}

/// Verifies a quarantined request. `counted` says whether the source's series count the results.
fn verified(
    rules: &RuntimeConfig,
    source: &Source,
    kept: &Kept,
    counted: bool,
) -> Result<Normalized, Rejection> {
    let mismatch = |detail: &str| Err(Rejection::new(Reason::SignatureMismatch, detail));
    if source.provider.name != kept.label.provider {
        return mismatch("the source now has another provider");
    }
    // The request was refused for its signature. A source that needs no signature any more does not make it genuine.
    if !source.needs_signature() {
        return mismatch("the source has no secrets now");
    }
    let Content { certificate, headers, body, method, target, .. } = &kept.content;
    let Label { client, arrived: received, .. } = kept.label;
    // Apply `observe` as of the request's arrival.
    let enforce = |checked: Result<(), Rejection>| match checked {
        Err(wrong) if source.report_only.enforced_from(wrong.reason, received).is_none() => Err(wrong),
        _ => Ok(()),
    };
    enforce(admission::check_address(source, client))?;
    // Enforced even if observed: the certificate may be all that authenticates the source.
    admission::check_certificate(
        source,
        &Peer { address: client, certificate: certificate.clone(), client_unknown: false },
    )?;
    let redactor = &rules.routes.redactor;
    let public_url = rules.edge.public_url.as_ref().map_or("", |url| &url.value);
    let request = SignedRequest { headers, body, method, target, public_url };
    Delivery { source, request, received, redactor, counted, context: None }.read(&enforce)
}
