//! A body that a capture has wrapped: base64, hex, a JSON string, quotes, a logged request.
//!
//! Keeps true: a body without a wrapping is not unwrapped.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use crate::config::secret::lenient_base64;

/// Decodes base64. Line breaks and the alphabet for URLs are accepted.
pub(super) fn from_base64(body: &[u8]) -> Option<Vec<u8>> {
    let text: String = std::str::from_utf8(body).ok()?.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    // A `data:` URL has this before the base64.
    let text = text.rsplit_once(";base64,").map_or(&*text, |(_, text)| text);
    let text = text.trim_matches('"').replace('-', "+").replace('_', "/");
    lenient_base64(&text).filter(|bytes| !bytes.is_empty())
}

/// The body in base64, for a sender that signs that.
pub(super) fn to_base64(body: &[u8]) -> Vec<u8> {
    STANDARD.encode(body).into_bytes()
}

/// Decodes hex.
pub(super) fn from_hex(body: &[u8]) -> Option<Vec<u8>> {
    let text: Vec<u8> = body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let text = text.strip_prefix(b"0x").or(text.strip_prefix(b"\\x")).unwrap_or(&text);
    hex::decode(text).ok().filter(|bytes| !bytes.is_empty())
}

/// The contents of a JSON string, with its quotes or without.
pub(super) fn from_string(body: &[u8]) -> Vec<Vec<u8>> {
    let text = body.trim_ascii();
    let quoted = [b"\"", text, b"\""].concat();
    let escaped = text.contains(&b'\\').then_some(&*quoted);
    let texts = [Some(text), escaped].into_iter().flatten();
    texts.filter_map(|text| serde_json::from_slice::<String>(text).ok()).map(String::into_bytes).collect()
}

/// The body as a JSON string, for a sender that signs that.
pub(super) fn to_string(body: &[u8]) -> Option<Vec<u8>> {
    serde_json::to_vec(std::str::from_utf8(body).ok()?).ok()
}

/// The text within quotes, as a shell shows it.
pub(super) fn from_quotes(body: &[u8]) -> Option<Vec<u8>> {
    let text = body.trim_ascii();
    let inner = |quote: &[u8]| text.strip_prefix(quote)?.strip_suffix(quote);
    inner(b"'").or_else(|| inner(b"\"")).or_else(|| inner(b"`")).map(<[u8]>::to_vec)
}

/// The body within a logged request, such as the event of an API gateway.
pub(super) fn from_envelope(body: &[u8]) -> Vec<Vec<u8>> {
    let Ok(fields) = serde_json::from_slice::<BTreeMap<String, &RawValue>>(body) else { return Vec::new() };
    let mut within = Vec::new();
    for value in FIELDS.iter().filter_map(|name| fields.get(*name)) {
        within.push(value.get().as_bytes().to_vec());
        if let Ok(text) = serde_json::from_str::<String>(value.get()) {
            within.extend(from_base64(text.as_bytes()));
            within.push(text.into_bytes());
        }
    }
    within
}

/// The fields in which logs of requests keep the body.
const FIELDS: [&str; 7] = ["body", "Body", "rawBody", "raw_body", "payload", "content", "data"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wrapping_is_taken_off() {
        let body = &br#"{"a":"b c","n":[1,2]}"#[..];
        let encoded = STANDARD.encode(body);
        let wrapped = format!("{}\n{}\n", &encoded[..8], &encoded[8..]);
        let url = format!("data:application/json;base64,{}", encoded.trim_end_matches('='));
        for text in [&encoded, &wrapped, &url] {
            assert_eq!(from_base64(text.as_bytes()).as_deref(), Some(body), "{text}");
        }
        assert_eq!(from_hex(hex::encode(body).as_bytes()).as_deref(), Some(body));
        let string = serde_json::to_string(std::str::from_utf8(body).unwrap()).unwrap();
        for text in [&*string, string.trim_matches('"')] {
            assert!(from_string(text.as_bytes()).contains(&body.to_vec()), "{text}");
        }
        assert_eq!(to_string(body).as_deref(), Some(string.as_bytes()));
        assert_eq!(from_quotes(&[b"'", body, b"'\n"].concat()).as_deref(), Some(body));
        for envelope in [
            format!("{{\"headers\":{{}},\"body\":{string}}}"),
            format!("{{\"isBase64Encoded\":true,\"body\":\"{encoded}\"}}"),
            format!("{{\"rawBody\":{}}}", std::str::from_utf8(body).unwrap()),
        ] {
            assert!(from_envelope(envelope.as_bytes()).contains(&body.to_vec()), "{envelope}");
        }
        assert!(from_base64(body).is_none() && from_hex(body).is_none() && from_string(body).is_empty());
        assert!(from_quotes(body).is_none() && from_envelope(body).is_empty());
    }
}
