//! The keys that a sender may have made of a secret.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::KeyReading;
use crate::config::secret::{STANDARD_WEBHOOKS_PREFIX, Secret};
use crate::provider::signature::{SecretForm, digest};

/// Every key that a sender may have made of a secret, each key once.
pub(super) fn key_readings(form: SecretForm, secret: &Secret) -> Vec<(KeyReading, Vec<u8>)> {
    let text = secret.expose();
    let bare = without_prefix(text);
    let expected_key = |text: &str| match form {
        SecretForm::Whsec => digest::lenient_base64(without_prefix(text)),
        SecretForm::Base64 => digest::lenient_base64(text),
        SecretForm::Hex => hex::decode(text).ok(),
        SecretForm::Text | SecretForm::PublicKey { .. } => Some(text.as_bytes().to_vec()),
    };
    let decoded = secret.decoded_text().and_then(|inner| expected_key(inner.expose()));
    // Node takes the prefix's underscore for a slash, Python skips it.
    let prefixed = |underscore| digest::lenient_base64(&text.replace('_', underscore));
    let around = |quote: &str| Some(format!("{quote}{text}{quote}").into_bytes());
    let all = [
        (form.into(), expected_key(text)),
        (KeyReading::Text, Some(text.as_bytes().to_vec())),
        (KeyReading::WithoutPrefix, Some(bare.as_bytes().to_vec())),
        (KeyReading::DecodedTwice, decoded),
        (KeyReading::Base64, digest::lenient_base64(bare)),
        (KeyReading::Base64WithPrefix, prefixed("/").filter(|_| bare != text)),
        (KeyReading::Base64WithPrefix, prefixed("").filter(|_| bare != text)),
        (KeyReading::Hex, hex::decode(bare).ok()),
        (KeyReading::WithLineBreak, Some([text.as_bytes(), b"\n"].concat())),
        (KeyReading::WithLineBreak, Some([text.as_bytes(), b"\r\n"].concat())),
        (KeyReading::WithLineBreak, Some([bare.as_bytes(), b"\n"].concat())),
        (KeyReading::Quoted, around("\"")),
        (KeyReading::Quoted, around("'")),
        (KeyReading::EncodedAgain, Some(STANDARD.encode(text).into_bytes())),
        (KeyReading::Trimmed, Some(text.trim().as_bytes().to_vec())),
    ];
    let mut readings: Vec<(KeyReading, Vec<u8>)> = Vec::new();
    for (reading, key) in all {
        let Some(key) = key.filter(|key| !key.is_empty()) else { continue };
        // The right reading comes first, so it wins if a wrong one gives the same key.
        if readings.iter().all(|(_, known)| *known != key) {
            readings.push((reading, key));
        }
    }
    readings
}

fn without_prefix(text: &str) -> &str {
    text.strip_prefix(STANDARD_WEBHOOKS_PREFIX).unwrap_or(text)
}
