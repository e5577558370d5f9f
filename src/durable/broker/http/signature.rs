//! Signs requests to services as Standard Webhooks do.
//!
//! Keeps true: every key signs, so that a service may change its key at any time. What is signed is what a receiver
//! reads: an id that a header or the signed text could not carry is replaced by its hash.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use reqwest::header::HeaderMap;
use sha2::{Digest, Sha256};

use crate::config::secret::{STANDARD_WEBHOOKS_PREFIX, Secret, lenient_base64};

/// A key, its first block already hashed.
#[derive(Clone)]
pub(super) struct SigningKey(Hmac<Sha256>);

impl SigningKey {
    /// Reads a secret: base64, with or without `whsec_`.
    ///
    /// # Errors
    /// What is wrong with it. The text follows "the secret ".
    pub(super) fn read(secret: &Secret) -> Result<SigningKey, String> {
        if let Some(flaw) = secret.flaw() {
            return Err(flaw.to_string());
        }
        let text = secret.expose();
        let encoded = text.strip_prefix(STANDARD_WEBHOOKS_PREFIX).unwrap_or(text);
        let bytes = lenient_base64(encoded).ok_or("is not base64; `openssl rand -base64 32` makes one")?;
        if bytes.len() < MIN_KEY_BYTES {
            return Err(format!(
                "decodes to {} bytes; Standard Webhooks needs at least {MIN_KEY_BYTES}",
                bytes.len()
            ));
        }
        Hmac::new_from_slice(&bytes).map(SigningKey).map_err(|why| why.to_string())
    }

    fn sign(&self, id: &str, seconds: &str, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        for part in [id.as_bytes(), b".", seconds.as_bytes(), b".", body] {
            mac.update(part);
        }
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// Adds the signature's headers, if there are keys.
///
/// # Errors
/// When a header cannot hold its value. The id makes none such.
pub(super) fn add(
    headers: &mut HeaderMap,
    keys: &[SigningKey],
    event_id: &str,
    body: &str,
    now: Timestamp,
) -> Result<(), reqwest::header::InvalidHeaderValue> {
    if keys.is_empty() {
        return Ok(());
    }
    let (id, seconds) = (message_id(event_id), now.as_second().to_string());
    let signatures: Vec<_> = keys.iter().map(|key| key.sign(&id, &seconds, body.as_bytes())).collect();
    headers.insert("webhook-id", id.parse()?);
    headers.insert("webhook-timestamp", seconds.parse()?);
    headers.insert("webhook-signature", signatures.join(" ").parse()?);
    Ok(())
}

/// The event's id as `webhook-id`. A dot would make the signed text ambiguous; a header holds only ASCII, and loses
/// blanks at its ends.
fn message_id(event_id: &str) -> String {
    let plain = event_id.bytes().all(|byte| matches!(byte, b' '..=b'~')) && !event_id.contains('.');
    if plain && event_id.trim() == event_id && !event_id.is_empty() {
        return event_id.to_owned();
    }
    let hash = Sha256::digest(event_id.as_bytes());
    format!("~{}", hex::encode(hash.get(..16).unwrap_or_default()))
}

const MIN_KEY_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_sent_as_it_is_where_a_header_and_the_signature_can_carry_it() {
        for id in ["44a85f64-5717-4562-b3fc-2c963f66af44", "a b", "x~0a1b2c3d", "a/b:c,d"] {
            assert_eq!(message_id(id), id);
        }
        // printf 'a.b' | sha256sum
        assert_eq!(message_id("a.b"), "~2e7336dc8eba87ef472df568c35482ab");
        for id in ["é", " a", "a ", "", "a.b"] {
            assert_eq!(message_id(id), format!("~{}", hash(id)));
            assert_eq!(message_id(id).len(), 33);
        }
    }

    fn hash(id: &str) -> String {
        hex::encode(Sha256::digest(id.as_bytes()))[..32].to_owned()
    }

    #[test]
    fn an_unusable_secret_says_why_and_not_what_it_is() {
        for (text, why) in [
            ("whsec_AQIDBA==", "4 bytes"),
            ("not base64!", "blank"),
            ("not_base64_at_all!", "base64"),
            ("\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"", "quotes"),
            ("whpk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "public key"),
        ] {
            let said = SigningKey::read(&Secret::new(text)).err().unwrap();
            assert!(said.contains(why) && !said.contains(text), "{text}: {said}");
        }
        for text in ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
            assert!(SigningKey::read(&Secret::new(text)).is_ok(), "{text}");
        }
    }
}
