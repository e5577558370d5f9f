//! Quarantines refused requests, and verifies them again.
//!
//! Keeps true: a request is admitted from the quarantine only if a current secret of its source signed it, within the
//! tolerance at its arrival. It must also pass every current check except the rate. Nothing replaces the signature.
//! Only an admitted request is counted as verified.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, USER_AGENT};
use jiff::Timestamp;

use super::delivery::Delivery;
use super::{Pipeline, RequestContext, RuntimeConfig};
use crate::base::label::UNKNOWN;
use crate::base::peer::Peer;
use crate::base::reason::{Note, Reason};
use crate::durable::inbox::Enqueued;
use crate::durable::quarantine::{Content, Judgement, Kept, Label, Reverifier};
use crate::event::BodyHash;
use crate::observe::audit::{self, Reject};
use crate::provider::normalize::{Normalized, NormalizedEvent};
use crate::provider::{self, IDENTIFYING_HEADERS, SIGNATURE_HEADERS};
use crate::request::admission;
use crate::request::outcome::Rejection;
use crate::request::source::Source;

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
            certificate: self.peer.certificate.clone(),
            headers: kept_headers(&self.head.headers),
            // A slice would keep the whole read buffer in memory.
            body: Bytes::copy_from_slice(body),
        });
    }
}

/// Keeps headers whole and repeated headers repeated: verification must see a header that was sent twice, to refuse it.
fn kept_headers(headers: &HeaderMap) -> HeaderMap {
    let signing = SIGNATURE_HEADERS.iter().chain(IDENTIFYING_HEADERS.iter());
    let names = signing.map(|name| HeaderName::from_static(name)).chain([CONTENT_TYPE, USER_AGENT]);
    let mut kept = HeaderMap::new();
    for name in names {
        for value in headers.get_all(&name) {
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
    async fn reverify(self: &Arc<Self>, kept: &Kept, dry_run: bool) -> Judgement {
        let rules = self.rules.load_full();
        let Some(source) = rules.routes.sources().find(|source| source.name == kept.label.source) else {
            return Judgement::NoSource;
        };
        let enqueued = match verified(&rules, source, kept, false) {
            Err(rejection) => Err(rejection),
            Ok(_) if dry_run => return Judgement::Passes,
            Ok(Normalized::HealthCheck) => return Judgement::Ignored,
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
            Err(Rejection { reason, detail }) if reason.retries() => Judgement::NotAdmitted { why: detail },
            Err(Rejection { reason, detail }) => {
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
        provider: provider::by_name(provider).map_or(UNKNOWN, |provider| provider.name),
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
    if source.scheme.is_none() || source.keys.is_empty() {
        return mismatch("the source has no secrets now");
    }
    let Content { certificate, headers, body, .. } = &kept.content;
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
    Delivery { source, headers, body, received, redactor, counted }.read(&enforce)
}
