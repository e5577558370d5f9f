//! Verifies a delivery and normalizes it to an event, for new and for quarantined requests.
//!
//! Keeps true: nothing is parsed before it is verified. Keys and tolerance apply as of the time of receipt.

use jiff::Timestamp;

use super::RequestContext;
use crate::base::reason::Reason;
use crate::config::secret::Redactor;
use crate::observe::traces::Stage;
use crate::provider::normalize::{self, DeliveryOrigin, Document, Normalized, ParsedBody};
use crate::provider::signature::{self, SignatureError, SignedRequest, Verified};
use crate::request::outcome::Rejection;
use crate::request::source::Source;

/// The parts of a request that are verified and parsed.
pub(super) struct Delivery<'a> {
    pub(super) source: &'a Source,
    pub(super) request: SignedRequest<'a>,
    pub(super) received: Timestamp,
    pub(super) redactor: &'a Redactor,
    /// Whether the source's series count the results.
    pub(super) counted: bool,
    /// The request that brought it now. None: it was kept in the quarantine.
    pub(super) context: Option<&'a RequestContext>,
}

impl<'a> Delivery<'a> {
    /// Authenticates and normalizes the delivery. `enforce` decides about refusals that a source may only observe.
    pub(super) fn read(&self, enforce: &Enforce<'_>) -> Result<Normalized, Rejection> {
        let source = self.source;
        let verified = self.authenticate(enforce)?;
        if let Some(context) = self.context {
            context.stage(Stage::Normalize);
        }
        let document = Document::of(source.provider, &self.request);
        let contents = normalize::read(source.provider, &verified, &self.request, &document)?;
        enforce(subscription_allowed(source, &contents))?;
        let trace = self.context.and_then(RequestContext::trace_context);
        let origin =
            DeliveryOrigin { source: &source.name, path: &source.path, provider: source.provider, trace };
        let normalized = normalize::normalize(&origin, &verified, &document, &contents, self.received);
        if let (Normalized::Event(forward), Ok(payload)) = (&normalized, &contents.payload)
            && self.counted
        {
            source.notice_drift(payload, forward.unmapped.as_deref(), self.redactor);
        }
        Ok(normalized)
    }

    /// Verifies the signature over the raw bytes. A source without a scheme was authenticated by earlier checks.
    fn authenticate(&self, enforce: &Enforce<'_>) -> Result<Verified<'a>, Rejection> {
        let Delivery { source, request, received, counted, .. } = *self;
        if !source.needs_signature() {
            return Ok(Verified::by_other_means(source.verified_by, request.body));
        }
        let now = received.as_second();
        let verify = |tolerance| signature::verify(&source.verifiers, request, now, tolerance);
        let aged = |age: i64| {
            if counted {
                source.metrics.signature_age.observe(age as f64);
            }
        };
        let verified = match verify(source.tolerance) {
            Err(late @ SignatureError::OutsideTolerance { age, .. }) => {
                // The signature is genuine but too old or too new. Count its age, so that a wrong clock shows in the
                // histogram.
                aged(age);
                enforce(Err(late.into()))?;
                verify(ANY_AGE)?
            }
            verified => {
                let verified = verified?;
                if let Some(age) = verified.signed().and_then(|signed| signed.age) {
                    aged(age);
                }
                verified
            }
        };
        if let Some(signed) = verified.signed().filter(|_| counted) {
            source.metrics.secret_matched(signed.slot);
        }
        Ok(verified)
    }
}

/// Returns the refusal, or Ok if it is only observed.
pub(super) type Enforce<'e> = dyn Fn(Result<(), Rejection>) -> Result<(), Rejection> + 'e;

/// Checks the Securitize subscription that a payload names against the source's list. A body that cannot be parsed
/// names none, so it passes and is forwarded.
pub(crate) fn subscription_allowed(source: &Source, contents: &ParsedBody<'_>) -> Result<(), Rejection> {
    let Ok(payload) = &contents.payload else { return Ok(()) };
    let listed = |id: &str| source.subscriptions.contains(id);
    if source.subscriptions.is_empty() || payload.text("subscriptionId").is_some_and(|id| listed(&id)) {
        return Ok(());
    }
    Err(Rejection::new(
        Reason::SubscriptionNotAllowed,
        "the subscription is not among the source's subscriptions",
    ))
}

/// A tolerance in seconds that accepts any age, for a source that only observes the age.
pub(crate) const ANY_AGE: i64 = i64::MAX;
