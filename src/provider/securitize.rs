//! Reads Securitize's payloads: small notifications about an investor, numbered by a nonce per subscription.

use serde_json::{Value, json};

use super::code::{Code, PayloadCode};
use super::object::Object;
use super::sample::Sample;
use super::{Entity, EventIdentity, Fields, ParsedPayload, Types};
use crate::provider::signature::Signed;

pub(super) const CODE: Code = Code {
    name: "securitize",
    payloads: Some(PayloadCode { read, sample, fields: &FIELDS, signed_id: None, has_subscriptions: true }),
    ..Code::NONE
};

fn read<'a>(payload: &Object<'a>, _: Option<Signed<'a>>, _: Types) -> ParsedPayload<'a> {
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

static FIELDS: Fields = Fields {
    top: &["domainId", "eventType", "externalId", "nonce", "roundId", "subscriptionId", "tokenId"],
    within: &[],
};
