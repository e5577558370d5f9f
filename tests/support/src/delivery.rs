//! Deliveries as the providers send them: Basiq's and Anduin's signed by the `standardwebhooks` crate, Atelio's and IOF's by
//! their published formulas, Securitize's with nothing but the token in the path.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;
use standardwebhooks::Webhook;

use super::{Request, now};

/// A source for every provider, each with the path `/hooks/<name>`. Securitize's is the last, so text added extends it.
pub fn sources() -> String {
    let signed = [
        signed("basiq", &[STANDARD_SECRET]),
        signed("anduin", &[STANDARD_SECRET]),
        signed("atelio", &[TEXT_SECRET]),
        signed("iof", &[TEXT_SECRET]),
    ];
    signed.concat() + &tokened()
}

/// A source for each kind of authentication. Basiq may sign with any of these secrets.
pub(crate) fn three_sources(basiq: &[&str]) -> String {
    signed("basiq", basiq) + &signed("atelio", &[TEXT_SECRET]) + &tokened()
}

fn signed(provider: &str, secrets: &[&str]) -> String {
    format!("[sources.{provider}]\nprovider = \"{provider}\"\nsecrets = {secrets:?}\n")
}

fn tokened() -> String {
    format!("[sources.securitize]\nprovider = \"securitize\"\npath_token = \"{TOKEN}\"\n")
}

/// The Basiq event `id`, about a user.
pub fn basiq(id: &str) -> Request {
    basiq_about(id, USER)
}

/// Another user makes another body under the same identity.
pub fn basiq_about(id: &str, user: &str) -> Request {
    basiq_signed(&message(id), &basiq_body_about(id, user), STANDARD_SECRET, now())
}

/// The event `id`, signed with a secret that sources have only after [`knowing_both_secrets`](crate::Home::knowing_both_secrets).
pub fn basiq_by_another_secret(id: &str) -> Request {
    basiq_signed(&message(id), &basiq_body(id), NEXT_SECRET, now())
}

/// The event `id`, signed by a clock that is this many seconds ahead.
pub fn basiq_signed_at(id: &str, offset: i64) -> Request {
    basiq_signed(&message(id), &basiq_body(id), STANDARD_SECRET, now() + offset)
}

/// A body that is no JSON object, with a valid signature.
pub fn basiq_unreadable(body: &str) -> Request {
    basiq_signed(UNREADABLE, body, STANDARD_SECRET, now())
}

/// The same, signed as in [`basiq_by_another_secret`].
pub fn basiq_unreadable_by_another_secret(body: &str) -> Request {
    basiq_signed(UNREADABLE, body, NEXT_SECRET, now())
}

pub fn basiq_body(id: &str) -> String {
    basiq_body_about(id, USER)
}

fn basiq_body_about(id: &str, user: &str) -> String {
    let user = format!("https://au-api.basiq.io/users/{user}");
    json!({ "eventTypeId": "user.created", "eventId": id, "links": { "eventEntity": user } }).to_string()
}

fn basiq_signed(message: &str, body: &str, secret: &str, at: i64) -> Request {
    standard_by(message, secret, "/hooks/basiq", body, at)
}

fn message(id: &str) -> String {
    format!("msg_{id}")
}

/// Signed by Standard Webhooks, as Basiq and Anduin do.
pub fn standard(path: &str, body: &str, at: i64) -> Request {
    standard_by("msg_p5jXN8AQM9LWM0D4loKWxJek", STANDARD_SECRET, path, body, at)
}

fn standard_by(message: &str, secret: &str, path: &str, body: &str, at: i64) -> Request {
    let signature = Webhook::new(secret).unwrap().sign(message, at, body.as_bytes()).unwrap();
    json_post(path, body)
        .with("webhook-id", message)
        .with("webhook-timestamp", at.to_string())
        .with("webhook-signature", signature)
}

/// A customer's KYC result. The customer is the identity; another `note` makes another body.
pub fn atelio(customer: &str, note: &str) -> Request {
    let body = json!({
        "event": "kyc.verification.success",
        "customer_id": customer,
        "occurred_at": "2026-11-21T10:00:00Z",
        "note": note,
    });
    bond("/hooks/atelio", &body.to_string(), now())
}

/// Signed as Atelio does.
pub fn bond(path: &str, body: &str, at: i64) -> Request {
    json_post(path, body).with("bond-signature", format!("t={at},v2={}", mac(at, body)))
}

/// Signed as IOF does.
pub fn iof(path: &str, body: &str, at: i64) -> Request {
    json_post(path, body).with("x-iof-signature", format!("t={at},v1={}", mac(at, body)))
}

/// A Securitize event for the source with this path.
pub fn securitize(path: &str, subscription: &str, nonce: u32) -> Request {
    let body = json!({
        "eventType": "domain-investor-kyc-update",
        "externalId": "17",
        "subscriptionId": subscription,
        "nonce": nonce,
    });
    json_post(&format!("{path}/{TOKEN}"), &body.to_string())
}

/// An investor's update from Securitize. The nonce is the identity; another `domain` makes another body.
pub fn investor_update(nonce: u32, domain: &str) -> Request {
    let body = json!({
        "domainId": domain,
        "externalId": "5298922124",
        "eventType": "domain-investor-kyc-update",
        "subscriptionId": "6151edc0a46434001930a2e1",
        "nonce": nonce,
    });
    json_post(&format!("/hooks/securitize/{TOKEN}"), &body.to_string())
}

fn json_post(path: &str, body: &str) -> Request {
    Request::post(path, body).with("content-type", "application/json")
}

fn mac(at: i64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(TEXT_SECRET.as_bytes()).unwrap();
    mac.update(format!("{at}.{body}").as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

pub const STANDARD_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// The secret that Basiq changes to.
pub(crate) const NEXT_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
pub const TEXT_SECRET: &str = "whsec_ira5jceuzhxxBxoWckAU0hLFQe79bSMZ";
pub const TOKEN: &str = "9c2e3b7d5f5e4c0fa0f6";
const USER: &str = "user-1";
const UNREADABLE: &str = "msg_unreadable";
