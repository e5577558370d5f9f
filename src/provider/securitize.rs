//! Securitize: small notifications about an investor, numbered by a nonce per subscription. It publishes no way of
//! signing.

use serde_json::{Value, json};

use super::definition::Code;
use super::object::Object;
use super::sample::Sample;
use super::{Entity, EventIdentity, Fields, Origin, ParsedPayload, Provider, Reader, Signing};
use crate::config::definitions::BodyForm;
use crate::provider::signature::Signed;

pub(super) static PROVIDER: Provider = Provider {
    name: "securitize",
    origin: Origin::BuiltIn,
    signing: Signing::Never,
    retries_for: None,
    handshake: None,
    signed_id: None,
    types: Some(&TYPES),
    fields: Some(&FIELDS),
    body: BodyForm::Json,
    reader: Reader::Code { read, sample },
    code: Code::NONE,
    has_subscriptions: true,
};

fn read<'a>(payload: &Object<'a>, _signed: Option<Signed<'a>>) -> ParsedPayload<'a> {
    let kind = payload.string("eventType");
    let subscription = payload.text(SUBSCRIPTION);
    let nonce = payload.text("nonce");
    let identity = if subscription.is_some() && nonce.is_some() {
        let parts = [SUBSCRIPTION, "eventType", "externalId", "tokenId", "roundId", "nonce"];
        EventIdentity::Parts { parts: parts.map(|part| payload.text(part)).into(), and_body: false }
    } else {
        EventIdentity::Body
    };
    let related = [("token", "tokenId"), ("round", "roundId")];
    ParsedPayload {
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
        ..ParsedPayload::default()
    }
}

fn sample(of: &Sample<'_>) -> Value {
    let nonce = of.number();
    let subscription = of.subscription.map_or_else(|| of.uuid(), str::to_owned);
    json!({
        "domainId": of.uuid(), "externalId": nonce.to_string(), "eventType": of.kind,
        "subscriptionId": subscription, "nonce": nonce,
    })
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
