//! Securitize: thin notifications about an investor, unsigned as far as is published, counted by a nonce per subscription.

use std::time::Duration;

use super::object::Object;
use super::{Entity, Fields, Identified, Provider, Reading, Signing};
use crate::signature::Signed;

pub(super) struct Securitize;

impl Provider for Securitize {
    fn name(&self) -> &'static str {
        "securitize"
    }

    fn signing(&self) -> Signing {
        Signing::Never
    }

    fn types(&self) -> &'static [(&'static str, &'static str)] {
        &TYPES
    }

    fn fields(&self) -> &'static Fields {
        &FIELDS
    }

    fn retries_for(&self) -> Option<Duration> {
        None
    }

    fn identity_is_signed(&self, _signed: bool) -> bool {
        false
    }

    fn read<'a>(&self, payload: &Object<'a>, _signed: Option<Signed<'a>>) -> Reading<'a> {
        let kind = payload.string("eventType");
        let subscription = payload.text(SUBSCRIPTION);
        let nonce = payload.text("nonce");
        let identity = if subscription.is_some() && nonce.is_some() {
            let parts = [SUBSCRIPTION, "eventType", "externalId", "tokenId", "roundId", "nonce"];
            Identified::Parts { parts: parts.map(|part| payload.text(part)).into(), and_body: false }
        } else {
            Identified::Body
        };
        let related = [("token", "tokenId"), ("round", "roundId")];
        Reading {
            identity,
            sequence: nonce.and_then(|nonce| nonce.parse().ok()),
            sequence_scope: subscription,
            tenant: Entity::some("domain", payload.text("domainId")),
            subject: Entity::some("investor", payload.text("externalId")),
            related: related
                .into_iter()
                .filter_map(|(kind, key)| Entity::some(kind, payload.text(key)))
                .collect(),
            links: payload.links(),
            health_check: kind.as_deref() == Some("health-check"),
            kind,
            ..Reading::default()
        }
    }
}

const SUBSCRIPTION: &str = "subscriptionId";

// `health-check` is answered and not forwarded, so it has no canonical type.
const TYPES: [(&str, &str); 2] = [
    ("domain-investor-kyc-update", "kyc.updated"),
    ("domain-investor-subscription-agreement-update", "subscription.agreement_updated"),
];

static FIELDS: Fields = Fields {
    top: &["domainId", "eventType", "externalId", "nonce", "roundId", "subscriptionId", "tokenId"],
    within: &[],
};
