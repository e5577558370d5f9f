//! A kept request at rest: a label in clear, and the encrypted request.
//!
//! Keeps true: the label holds nothing from a body, a header or a path. The encryption authenticates the label, so that
//! a request cannot be moved to another source, client or time. Decryption returns exactly what was encrypted under
//! this key, or fails.
//!
//! AES-256-GCM with a random nonce each time. HKDF-SHA256 derives the key from the configured secret.

use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::base::clock;
use crate::base::peer::Certificate;
use crate::config::secret::{Secret, SecretError};
use crate::config::{self, Problem};
use crate::event::digest_of_parts;

/// The part of a kept request that is stored in clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// When the head of the request was read, to the microsecond.
    pub arrived: Timestamp,
    /// The source's name.
    pub source: Arc<str>,
    /// The provider's name.
    pub provider: String,
    /// The reason's label in metrics.
    pub reason: String,
    /// The id of the record in the reject log.
    pub reject: String,
    /// The client's address.
    pub client: IpAddr,
    /// The length of the body.
    pub bytes: u64,
}

/// The part of a kept request that is stored encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The HTTP method.
    pub method: String,
    /// The source's path, without the path token.
    pub path: String,
    /// The path and query as they came, with the token, for a signature that covers the URL.
    pub target: String,
    /// The client's verified certificate, if it presented one.
    pub certificate: Option<Arc<Certificate>>,
    /// The headers that verification and normalization read, with signatures, and a few that describe the request.
    pub headers: HeaderMap,
    /// The raw body.
    pub body: Bytes,
}

/// An encrypted content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    /// The id of the key that encrypted it.
    pub(super) key: Vec<u8>,
    pub(super) nonce: Vec<u8>,
    pub(super) text: Vec<u8>,
}

/// The quarantine's key.
pub struct Key {
    aead: LessSafeKey,
    id: [u8; ID_BYTES],
}

/// Why the key cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The secret cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The secret is short enough to guess.
    #[error("the secret has {0} bytes; it needs at least {MIN_SECRET}: `openssl rand -base64 32` makes one")]
    TooShort(usize),
    /// The cryptographic library failed.
    #[error("no key can be derived from the secret")]
    Underivable,
}

/// Why a request cannot be decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    /// It was encrypted with another key.
    #[error("it was kept under another quarantine.key; set quarantine.key to that one to read it")]
    OtherKey,
    /// The row differs from the one that was written.
    #[error("it is not what was kept: the row was changed or is damaged")]
    Changed,
}

impl Key {
    /// Derives the key.
    ///
    /// # Errors
    /// When the secret has under 16 bytes.
    pub fn new(secret: &Secret) -> Result<Key, KeyError> {
        let secret = secret.expose().as_bytes();
        if secret.len() < MIN_SECRET {
            return Err(KeyError::TooShort(secret.len()));
        }
        let prk = Salt::none(HKDF_SHA256).extract(secret);
        let (mut key, mut id) = ([0; KEY_BYTES], [0; ID_BYTES]);
        let derive = |info: &[u8], out: &mut [u8]| prk.expand(&[info], Length(out.len()))?.fill(out);
        let derived: Result<LessSafeKey, Unspecified> = derive(KEY_INFO, &mut key)
            .and_then(|()| derive(ID_INFO, &mut id))
            .and_then(|()| UnboundKey::new(&AES_256_GCM, &key).map(LessSafeKey::new));
        Ok(Key { aead: derived.map_err(|Unspecified| KeyError::Underivable)?, id })
    }

    /// The configured key, if there is one.
    ///
    /// # Errors
    /// When its secret cannot be read or is too short.
    pub fn configured(of: &config::Quarantine) -> Result<Option<Key>, KeyError> {
        let Some(key) = &of.key else { return Ok(None) };
        Key::new(&key.value.resolve()?).map(Some)
    }

    /// The key of an enabled quarantine. Adds errors to `problems`.
    pub fn build(of: &config::Quarantine, problems: &mut Vec<Problem>) -> Option<Key> {
        let at = of.key.as_ref().filter(|_| of.enabled)?.at;
        Key::configured(of).unwrap_or_else(|why| {
            let key = "quarantine.key".to_owned();
            problems.push(Problem { at, key, what: why.to_string(), warning: false });
            None
        })
    }

    pub(super) fn has_id(&self, id: &[u8]) -> bool {
        self.id == id
    }

    pub(super) fn seal(&self, label: &Label, content: &Content) -> Result<Sealed, Unspecified> {
        let mut text = content.to_bytes().ok_or(Unspecified)?;
        let nonce = clock::random::<NONCE_BYTES>();
        let sealing = Nonce::assume_unique_for_key(nonce);
        self.aead.seal_in_place_append_tag(sealing, Aad::from(label.associated_data()), &mut text)?;
        Ok(Sealed { key: self.id.to_vec(), nonce: nonce.to_vec(), text })
    }

    pub(super) fn open(&self, label: &Label, sealed: Sealed) -> Result<Content, UnsealError> {
        if !self.has_id(&sealed.key) {
            return Err(UnsealError::OtherKey);
        }
        let Sealed { nonce, mut text, .. } = sealed;
        let changed = |Unspecified| UnsealError::Changed;
        let nonce = Nonce::try_assume_unique_for_key(&nonce).map_err(changed)?;
        let opened =
            self.aead.open_in_place(nonce, Aad::from(label.associated_data()), &mut text).map_err(changed)?;
        Content::from_bytes(opened).ok_or(UnsealError::Changed)
    }
}

impl Label {
    /// The additional authenticated data: a digest of every field.
    fn associated_data(&self) -> [u8; 32] {
        let Label { arrived, source, provider, reason, reject, client, bytes } = self;
        let (arrived, client) = (arrived.as_microsecond().to_be_bytes(), client.to_string());
        let bytes = bytes.to_be_bytes();
        let texts = [&**source, provider, reason, reject, &client].map(str::as_bytes);
        let parts = [LABEL_VERSION, &arrived, &bytes].into_iter().chain(texts);
        digest_of_parts(parts.map(Some))
    }
}

/// A content without its body.
#[derive(Serialize, Deserialize)]
struct Head {
    method: String,
    path: String,
    /// Absent in what an earlier version wrote.
    #[serde(default)]
    target: String,
    certificate: Option<Certificate>,
    /// Values in hex: a header may hold bytes that are not text.
    headers: Vec<(String, String)>,
}

impl Content {
    /// Format: length of the head (4 bytes, big-endian), head, body.
    fn to_bytes(&self) -> Option<Vec<u8>> {
        let hex = |(name, value): (&HeaderName, &HeaderValue)| (name.to_string(), hex::encode(value));
        let head = Head {
            method: self.method.clone(),
            path: self.path.clone(),
            target: self.target.clone(),
            certificate: self.certificate.as_deref().cloned(),
            headers: self.headers.iter().map(hex).collect(),
        };
        let head = serde_json::to_vec(&head).ok()?;
        let length = u32::try_from(head.len()).ok()?;
        Some([&length.to_be_bytes()[..], &head, &self.body].concat())
    }

    fn from_bytes(text: &[u8]) -> Option<Content> {
        let (length, rest) = text.split_first_chunk()?;
        let (head, body) = rest.split_at_checked(u32::from_be_bytes(*length).try_into().ok()?)?;
        let head: Head = serde_json::from_slice(head).ok()?;
        let mut headers = HeaderMap::new();
        for (name, value) in head.headers {
            let value = HeaderValue::from_bytes(&hex::decode(value).ok()?).ok()?;
            headers.append(HeaderName::try_from(name).ok()?, value);
        }
        Some(Content {
            method: head.method,
            path: head.path,
            target: head.target,
            certificate: head.certificate.map(Arc::new),
            headers,
            body: Bytes::copy_from_slice(body),
        })
    }
}

/// An output length for HKDF.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

const MIN_SECRET: usize = 16;
const KEY_BYTES: usize = 32;
const ID_BYTES: usize = 8;
const NONCE_BYTES: usize = 12;
const KEY_INFO: &[u8] = b"hookgate quarantine v1: key";
const ID_INFO: &[u8] = b"hookgate quarantine v1: key id";
const LABEL_VERSION: &[u8] = b"hookgate quarantine v1: label";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::peer::Name;

    fn key(secret: &str) -> Key {
        Key::new(&Secret::new(secret)).unwrap()
    }

    fn label() -> Label {
        Label {
            arrived: Timestamp::from_microsecond(1_700_000_000_123_456).unwrap(),
            source: "basiq".into(),
            provider: "basiq".to_owned(),
            reason: "signature_mismatch".to_owned(),
            reject: "rej_00".to_owned(),
            client: "192.0.2.1".parse().unwrap(),
            bytes: 4,
        }
    }

    fn content() -> Content {
        let mut headers = HeaderMap::new();
        headers.append("webhook-id", HeaderValue::from_bytes(b"caf\xe9").unwrap());
        headers.append("webhook-id", HeaderValue::from_static("twice"));
        let (method, path) = ("POST".to_owned(), "/hooks/basiq".to_owned());
        let certificate = Some(Arc::new(Certificate {
            subject: "CN=sender,O=Example".to_owned(),
            common_names: vec!["sender".to_owned()],
            names: vec![
                Name::Dns("hooks.example".to_owned()),
                Name::Address("2001:db8::1".parse().unwrap()),
                Name::Email("a@hooks.example".to_owned()),
                Name::Uri("spiffe://example/hooks".to_owned()),
            ],
        }));
        Content {
            method,
            target: format!("{path}?a=b"),
            path,
            certificate,
            headers,
            body: Bytes::from_static(b"{\"\xff}"),
        }
    }

    #[test]
    fn what_is_sealed_opens_as_it_was_and_under_its_own_label_and_key_only() {
        let (ours, label, content) = (key("sixteen bytes or more"), label(), content());
        let sealed = ours.seal(&label, &content).unwrap();
        assert_eq!(ours.open(&label, sealed.clone()).unwrap(), content);
        assert_ne!(sealed, ours.seal(&label, &content).unwrap(), "never twice the same");
        let others = [
            Label { arrived: Timestamp::from_microsecond(1_700_000_000_123_457).unwrap(), ..label.clone() },
            Label { source: "other".into(), ..label.clone() },
            Label { provider: "iof".to_owned(), ..label.clone() },
            Label { reason: "timestamp_outside_tolerance".to_owned(), ..label.clone() },
            Label { reject: "rej_01".to_owned(), ..label.clone() },
            Label { client: "192.0.2.2".parse().unwrap(), ..label.clone() },
            Label { bytes: 5, ..label.clone() },
        ];
        for other in others {
            assert_eq!(ours.open(&other, sealed.clone()), Err(UnsealError::Changed), "{other:?}");
        }
        for at in 0..sealed.text.len() {
            let mut changed = sealed.clone();
            changed.text[at] ^= 1;
            assert_eq!(ours.open(&label, changed), Err(UnsealError::Changed), "byte {at}");
        }
        let another = key("another secret, as long");
        assert_eq!(another.open(&label, sealed.clone()), Err(UnsealError::OtherKey));
        // Even with the row's key id changed to the other key.
        let relabelled = Sealed { key: another.id.to_vec(), ..sealed };
        assert_eq!(another.open(&label, relabelled), Err(UnsealError::Changed));
    }

    #[test]
    fn nothing_of_a_request_shows_through_its_seal() {
        let sealed = key("sixteen bytes or more").seal(&label(), &content()).unwrap();
        for part in [&b"hooks"[..], b"sender", b"webhook-id", b"{\"\xff}"] {
            assert!(!sealed.text.windows(part.len()).any(|window| window == part));
        }
    }

    #[test]
    fn a_short_secret_makes_no_key() {
        assert!(matches!(Key::new(&Secret::new("fifteen bytes..")), Err(KeyError::TooShort(15))));
        assert!(Key::new(&Secret::new("sixteen bytes...")).is_ok());
    }
}
