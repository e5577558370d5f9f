//! A delivery from its bytes to its event, whether it has just come or was kept.
//!
//! Keeps true: nothing is parsed before it is verified; it is held against its source's keys and tolerance as of when it was
//! received.

use bytes::Bytes;
use hyper::HeaderMap;
use jiff::Timestamp;

use crate::base::reason::Reason;
use crate::config::secret::Redactor;
use crate::provider::normalize::{self, Contents, Normalized, Origin};
use crate::provider::signature::{self, SignatureError, Verified};
use crate::request::outcome::Rejection;
use crate::request::source::Source;

/// What is verified and read of a request.
pub(super) struct Delivery<'a> {
    pub(super) source: &'a Source,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: &'a Bytes,
    pub(super) received: Timestamp,
    pub(super) redactor: &'a Redactor,
    /// Whether what is found shows in the source's series.
    pub(super) counted: bool,
}

impl<'a> Delivery<'a> {
    /// Authenticates it and reads it in canonical terms. `enforce` is asked where a source may only observe what is wrong.
    pub(super) fn read(&self, enforce: &Enforce<'_>) -> Result<Normalized, Rejection> {
        let source = self.source;
        let verified = self.authenticate(enforce)?;
        let contents = normalize::read(source.provider, &verified)?;
        enforce(subscription_allowed(source, &contents))?;
        let origin = Origin { source: &source.name, path: &source.path, provider: source.provider };
        let normalized = normalize::normalize(&origin, &verified, &contents, self.received);
        if let (Normalized::Event(forward), Ok(payload)) = (&normalized, &contents.payload)
            && self.counted
        {
            source.notice_drift(payload, forward.unmapped.as_deref(), self.redactor);
        }
        Ok(normalized)
    }

    /// The signature over the raw bytes where the source has keys; else what the route and the admission have checked.
    fn authenticate(&self, enforce: &Enforce<'_>) -> Result<Verified<'a>, Rejection> {
        let Delivery { source, headers, body, received, counted, .. } = *self;
        let Some(scheme) = &source.scheme else {
            return Ok(Verified::by_other_means(source.verified_by, body));
        };
        let now = received.as_second();
        let verify = |tolerance| signature::verify(scheme, &source.keys, headers, body, now, tolerance);
        let aged = |age: i64| {
            if counted {
                source.metrics.signature_age.observe(age as f64);
            }
        };
        let verified = match verify(source.tolerance) {
            Err(late @ SignatureError::OutsideTolerance { age, .. }) => {
                // Authentic but late: a clock that is off must show in the histogram.
                aged(age);
                enforce(Err(late.into()))?;
                verify(ANY_AGE)?
            }
            verified => {
                let verified = verified?;
                if let Some(signed) = verified.signed() {
                    aged(signed.age);
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

/// Refuses what is wrong, or lets it pass where that is only observed.
pub(super) type Enforce<'e> = dyn Fn(Result<(), Rejection>) -> Result<(), Rejection> + 'e;

/// Whether the source takes events of the Securitize subscription that a payload names. A body that cannot be read names none
/// that could be wrong, and is forwarded.
pub(crate) fn subscription_allowed(source: &Source, contents: &Contents<'_>) -> Result<(), Rejection> {
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

/// Seconds: for what is only observed, and any other time would do.
pub(crate) const ANY_AGE: i64 = i64::MAX;
