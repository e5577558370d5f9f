//! Admits events that a provider's own API handed over, because no delivery brought them.
//!
//! Keeps true: such an event takes the way of a delivery from normalization on. Neither it nor the genuine delivery of
//! the same event, before or after it, is a conflict. It is not counted as a request, and does not hide that its source is
//! silent.

use std::sync::Arc;

use hyper::HeaderMap;
use serde::{Deserialize, Serialize};

use super::Pipeline;
use crate::durable::inbox::{EnqueueError, Enqueued};
use crate::event::BodyHash;
use crate::observe::metrics::ReconcileOutcome;
use crate::provider::normalize::{self, DeliveryOrigin, Document, Normalized, NormalizedEvent};
use crate::provider::signature::{ProviderApiPayload, SignedRequest, Verified};
use crate::request::outcome::Rejection;
use crate::request::source::Source;

/// What became of an event that a provider's API handed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// The event's id; none if the payload names no event.
    pub id: Option<String>,
    /// The canonical type, as `id`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: AdmissionOutcome,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum AdmissionOutcome {
    /// It is durable now.
    Accepted,
    /// It was durable already.
    Duplicate,
    /// It would be admitted; this was a dry run.
    Missing,
    /// It was not admitted.
    Failed {
        /// Why.
        why: String,
    },
}

impl AdmissionOutcome {
    /// The label in metrics.
    pub fn label(&self) -> ReconcileOutcome {
        match self {
            AdmissionOutcome::Accepted => ReconcileOutcome::Accepted,
            AdmissionOutcome::Duplicate => ReconcileOutcome::Duplicate,
            AdmissionOutcome::Missing => ReconcileOutcome::Missing,
            AdmissionOutcome::Failed { .. } => ReconcileOutcome::Failed,
        }
    }
}

impl Admission {
    /// It was not admitted, and nothing is known of the event.
    pub fn failed(why: impl Into<String>) -> Admission {
        Admission { id: None, kind: None, outcome: AdmissionOutcome::Failed { why: why.into() } }
    }
}

impl Pipeline {
    /// Admits an event of the configured source of this name, unless it is known. A dry run looks only, and counts
    /// nothing. Ends within `edge.request_timeout`.
    pub async fn admit_from_provider(
        self: &Arc<Self>,
        source: &str,
        payload: &ProviderApiPayload,
        dry_run: bool,
    ) -> Admission {
        let rules = self.rules.load_full();
        let Some(source) = rules.routes.sources().find(|configured| *configured.name == *source).cloned()
        else {
            return Admission::failed("the gateway's config has no such source");
        };
        let within = rules.edge.request_timeout;
        let admission = match self.event(&source, payload) {
            Err(why) => Admission::failed(why),
            Ok(event) => {
                let (id, kind) = (event.event.id.clone(), event.event.kind.to_string());
                let admitted = self.admit(&source, event, dry_run);
                let outcome = match tokio::time::timeout(within, admitted).await {
                    Ok(outcome) => outcome,
                    Err(_) => failed(EnqueueError::Unknown),
                };
                Admission { id: Some(id), kind: Some(kind), outcome }
            }
        };
        if !dry_run {
            source.metrics.reconciled(admission.outcome.label(), 1);
        }
        admission
    }

    /// Reads the payload as a delivery's body.
    fn event(&self, source: &Source, payload: &ProviderApiPayload) -> Result<NormalizedEvent, String> {
        let verified = Verified::by_provider_api(payload);
        let request = SignedRequest {
            headers: &HeaderMap::new(),
            body: verified.body(),
            method: "POST",
            target: &source.path,
            public_url: "",
        };
        let document = Document::of(source.provider, &request);
        let contents = normalize::read(source.provider, &verified, &request, &document)
            .map_err(|why| Rejection::from(why).detail)?;
        let origin = DeliveryOrigin {
            source: &source.name,
            path: &source.path,
            provider: source.provider,
            trace: None,
        };
        match normalize::normalize(&origin, &verified, &document, &contents, self.clock.now()) {
            // The log may have written the payload anew, so its bytes cannot tell whether the event is known.
            Normalized::Event(event) if event.identity_needs_body => {
                Err("the payload names no event id, so it cannot be known whether it arrived".to_owned())
            }
            Normalized::Event(event) => Ok(NormalizedEvent { body: BodyHash::UNKNOWN, ..*event }),
            Normalized::Events(_) | Normalized::HealthCheck | Normalized::Handshake(_) => {
                Err("the payload is not one event".to_owned())
            }
        }
    }

    async fn admit(
        self: &Arc<Self>,
        source: &Arc<Source>,
        event: NormalizedEvent,
        dry_run: bool,
    ) -> AdmissionOutcome {
        let (request, counts) = self.request(source, None, event);
        if dry_run {
            return match self.enqueuer.is_known(&request).await {
                Ok(true) => AdmissionOutcome::Duplicate,
                Ok(false) => AdmissionOutcome::Missing,
                Err(why) => failed(why),
            };
        }
        let enqueuer = self.enqueuer.clone();
        // A task of its own, so that an event is counted even if this future is dropped.
        let enqueuing = self.tasks.spawn(async move {
            let enqueued = enqueuer.enqueue(request).await?;
            counts.count(&enqueued);
            Ok(enqueued)
        });
        match enqueuing.await.unwrap_or(Err(EnqueueError::Unknown)) {
            Ok(Enqueued::Accepted { .. }) => AdmissionOutcome::Accepted,
            Ok(Enqueued::Duplicate { .. }) => AdmissionOutcome::Duplicate,
            Err(why) => failed(why),
        }
    }
}

fn failed(why: EnqueueError) -> AdmissionOutcome {
    AdmissionOutcome::Failed { why: why.to_string() }
}
