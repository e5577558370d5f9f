//! Sample deliveries, as each provider would send them: for `send` and `demo`.
//!
//! Keeps true: two samples are two events, since every one has ids of its own.

use serde_json::{Value, json};

use crate::clock;
use crate::event::microseconds;
use crate::provider::Provider;

/// A sample payload of a type, which may be the provider's or canonical; any other is sent as it is.
pub(super) fn payload(
    provider: &Provider,
    kind: Option<&str>,
    subscription: Option<&str>,
    now: jiff::Timestamp,
) -> String {
    let known = provider.types;
    let usual = known.first().map_or("sample", |(kind, _)| kind);
    let kind = match kind {
        None => usual,
        Some(kind) => known.iter().find(|(_, canonical)| *canonical == kind).map_or(kind, |(known, _)| known),
    };
    let time = microseconds(now);
    let payload = match provider.name {
        "securitize" => securitize(kind, subscription),
        "anduin" if kind.starts_with("fund") => anduin(kind, &time),
        "anduin" => anduin_legacy(kind, &time),
        "basiq" => basiq(kind),
        "atelio" => json!({ "event": kind, "customer_id": uuid(), "occurred_at": time }),
        _ => iof(kind, &time),
    };
    payload.to_string()
}

/// An id as providers make them.
pub(super) fn uuid() -> String {
    let mut bytes: [u8; 16] = clock::random();
    // RFC 9562: version 4, and its variant.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex::encode(bytes);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

fn securitize(kind: &str, subscription: Option<&str>) -> Value {
    let nonce = u32::from_be_bytes(clock::random());
    let subscription = subscription.map_or_else(uuid, str::to_owned);
    json!({
        "domainId": uuid(), "externalId": nonce.to_string(), "eventType": kind,
        "subscriptionId": subscription, "nonce": nonce,
    })
}

fn anduin(kind: &str, time: &str) -> Value {
    let fund = format!("txn{}.fsb{}", short(), short());
    json!({
        "event": kind, "createdAt": time, "fundId": fund, "orderId": format!("{fund}.lpp{}", short()),
        "oldStatus": "FORM_REVIEWED", "newStatus": "SUBMITTED",
    })
}

fn anduin_legacy(kind: &str, time: &str) -> Value {
    json!({
        "fundId": format!("txn{}.fsb{}", short(), short()), "event": kind, "lpId": short(),
        "previousStatus": "FORM_REVIEWED", "newStatus": "SUBMITTED", "createdAt": time,
    })
}

fn basiq(kind: &str) -> Value {
    let id = uuid();
    json!({
        "eventTypeId": kind, "eventId": id,
        "links": {
            "event": format!("https://au-api.basiq.io/events/{id}"),
            "eventEntity": format!("https://au-api.basiq.io/users/{}", uuid()),
        },
    })
}

fn iof(kind: &str, time: &str) -> Value {
    json!({
        "id": format!("evt_{}", short()), "type": kind, "created": time,
        "data": { "object": { "id": format!("contract_{}", short()), "type": "MURABAHA", "status": "draft" } },
        "metadata": { "workspaceId": "ws_sample", "tenantId": "tenant_sample" },
    })
}

fn short() -> String {
    hex::encode(clock::random::<6>())
}
