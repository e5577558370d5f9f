//! Deliveries, signed by the formulas that the providers publish and not by the gateway's own code.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::Request;

/// A source for every provider, each with the path `/hooks/<name>`.
pub fn sources() -> String {
    format!(
        "[sources.basiq]\nprovider = \"basiq\"\nsecrets = [\"{STANDARD_SECRET}\"]\n\
         [sources.anduin]\nprovider = \"anduin\"\nsecrets = [\"{STANDARD_SECRET}\"]\n\
         [sources.atelio]\nprovider = \"atelio\"\nsecrets = [\"{TEXT_SECRET}\"]\n\
         [sources.iof]\nprovider = \"iof\"\nsecrets = [\"{TEXT_SECRET}\"]\n\
         [sources.securitize]\nprovider = \"securitize\"\npath_token = \"{TOKEN}\"\n"
    )
}

/// A Basiq event with this id.
pub fn basiq(id: &str) -> Request {
    standard("/hooks/basiq", &basiq_body(id), now())
}

pub fn basiq_body(id: &str) -> String {
    format!("{{\"eventTypeId\":\"user.created\",\"eventId\":\"{id}\",\"links\":{{}}}}")
}

/// A Securitize event with this nonce, for the source with this path.
pub fn securitize(path: &str, subscription: &str, nonce: u32) -> Request {
    let body = format!(
        "{{\"eventType\":\"domain-investor-kyc-update\",\"externalId\":\"17\",\"subscriptionId\":\"{subscription}\",\"nonce\":{nonce}}}"
    );
    Request::post(&format!("{path}/{TOKEN}"), body).with("content-type", "application/json")
}

/// Standard Webhooks: Basiq's and Anduin's.
pub fn standard(path: &str, body: &str, at: i64) -> Request {
    let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    let key = STANDARD.decode(STANDARD_SECRET.trim_start_matches("whsec_")).unwrap();
    let digest = STANDARD.encode(mac(&key, &format!("{id}.{at}.{body}")));
    let request = Request::post(path, body).with("content-type", "application/json").with("webhook-id", id);
    request.with("webhook-timestamp", at.to_string()).with("webhook-signature", format!("v1,{digest}"))
}

/// Atelio's.
pub fn bond(path: &str, body: &str, at: i64) -> Request {
    let digest = hex::encode(mac(TEXT_SECRET.as_bytes(), &format!("{at}.{body}")));
    Request::post(path, body)
        .with("content-type", "application/json")
        .with("bond-signature", format!("t={at},v2={digest}"))
}

/// IOF's.
pub fn iof(path: &str, body: &str, at: i64) -> Request {
    let digest = hex::encode(mac(TEXT_SECRET.as_bytes(), &format!("{at}.{body}")));
    Request::post(path, body)
        .with("content-type", "application/json")
        .with("x-iof-signature", format!("t={at},v1={digest}"))
}

/// Unix seconds.
pub fn now() -> i64 {
    crate::now()
}

fn mac(key: &[u8], text: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().into()
}

pub const STANDARD_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub const TEXT_SECRET: &str = "whsec_ira5jceuzhxxBxoWckAU0hLFQe79bSMZ";
pub const TOKEN: &str = "9c2e3b7d5f5e4c0fa0f6";
