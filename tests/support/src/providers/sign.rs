//! Signatures of deliveries by the providers' published formulas, and the identifiers and secrets that they give out.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::BASE64_STANDARD_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

use super::super::Request;

/// Signed by Standard Webhooks: the key is the text after the first `_`, decoded.
pub(super) fn standard(request: Request, message: &str, secret: &str, now: i64) -> Request {
    let key = LENIENT.decode(secret.split_once('_').map_or(secret, |(_, key)| key)).unwrap();
    let signed = format!("{message}.{now}.{}", request.text());
    let signature = format!("v1,{}", base64::prelude::BASE64_STANDARD.encode(mac(&key, &signed)));
    request
        .with("webhook-id", message)
        .with("webhook-timestamp", now.to_string())
        .with("webhook-signature", signature)
}

/// Atelio's: `v1` is over the body written anew by Python, `v2` over the body. The key is the text of the whole secret.
pub(super) fn bond(request: Request, secret: &str, now: i64) -> Request {
    let body: Value = serde_json::from_str(request.text()).unwrap();
    let (v1, v2) = (format!("{now}.{}", python_dumps(&body)), format!("{now}.{}", request.text()));
    let [v1, v2] = [v1, v2].map(|signed| hex::encode(mac(secret.as_bytes(), &signed)));
    request.with("Bond-Signature", format!("t={now},v1={v1},v2={v2}"))
}

/// IOF's. The key is the text of the whole secret.
pub(super) fn iof(request: Request, secret: &str, now: i64) -> Request {
    let v1 = hex::encode(mac(secret.as_bytes(), &format!("{now}.{}", request.text())));
    request.with("X-IOF-Signature", format!("t={now},v1={v1}"))
}

/// A delivery's request before it is signed.
pub(super) fn unsigned(body: &str) -> Request {
    Request::post("/", body).with("content-type", "application/json")
}

pub(super) fn uuid() -> String {
    let hex = hex::encode(fastrand::u128(..).to_be_bytes());
    format!("{}-{}-4{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}

/// So many characters of hex.
pub(super) fn hex_id(length: usize) -> String {
    hex::encode(fastrand::u128(..).to_be_bytes())[..length].to_owned()
}

/// `whsec_` and base64 without padding, as in Basiq's sample.
pub(super) fn secret(bytes: usize) -> String {
    let key: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(bytes).collect();
    format!("whsec_{}", BASE64_STANDARD_NO_PAD.encode(key))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// JSON as Python's `json.dumps` writes it by default. Keys come in the order of the alphabet, since `Value` keeps no other.
fn python_dumps(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let fields: Vec<String> =
                map.iter().map(|(key, value)| format!("{}: {}", ascii(key), python_dumps(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(python_dumps).collect::<Vec<_>>().join(", "))
        }
        Value::String(text) => ascii(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn ascii(text: &str) -> String {
    let escape = |unit: u16| match u8::try_from(unit) {
        Ok(byte) if byte.is_ascii() => char::from(byte).to_string(),
        _ => format!("\\u{unit:04x}"),
    };
    Value::from(text).to_string().encode_utf16().map(escape).collect()
}

/// Basiq's sample secret has neither padding nor zeros in its last bits.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
