//! A source's keys, and when each of them is active.
//!
//! Keeps true: a `whsec_` secret under 16 bytes makes no key. A public key never becomes a key of HMAC, nor a secret a
//! public key. Outside its dates a key verifies nothing.

mod public;

use std::fmt;
use std::ops::Range;

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use subtle::{Choice, ConstantTimeEq};

use super::covered::Covered;
use super::digest::{self, SignatureBytes};
use super::scheme::{Algorithm, Part, Scheme, SecretForm};
use crate::config::secret::{PUBLIC_KEY_PREFIX, STANDARD_WEBHOOKS_PREFIX, Secret};
use public::PublicKey;
pub(crate) use public::is_hex_key;

/// A source's key for one scheme, and when it is active, in unix seconds.
#[derive(Clone)]
pub struct Key {
    material: Material,
    active: Range<i64>,
    /// The position of its secret in the source's list, from 0.
    pub(super) slot: usize,
}

/// The key of HMAC-SHA256, by which handshakes are answered whatever the deliveries are signed by.
type ForAnswers = Hmac<Sha256>;

/// A key, with its first block already hashed for HMAC.
#[derive(Clone)]
enum Material {
    Sha1(Hmac<Sha1>, ForAnswers),
    Sha256(ForAnswers),
    Sha384(Hmac<Sha384>, ForAnswers),
    Sha512(Hmac<Sha512>, ForAnswers),
    Public(PublicKey),
    /// The text that the delivery must hold.
    Equal(Secret),
}

/// Why a secret cannot be a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not base64.
    #[error("the secret is not base64 after `whsec_`; copy it again from the provider")]
    NotBase64,
    /// Base64 in the alphabet for URLs.
    #[error(
        "the secret is not base64 after `whsec_` but URL-safe base64; write + for - and / for _, or copy it again from the provider"
    )]
    UrlSafe,
    /// Too short to resist guessing.
    #[error("the secret decodes to {0} bytes; Standard Webhooks needs at least {MIN_KEY_BYTES}")]
    TooShort(usize),
    /// The definition says hex or base64.
    #[error("the secret is not {0}, as the provider's definition says; copy it again from the provider")]
    NotEncoded(&'static str),
    /// A public key where a secret belongs.
    #[error("this is a public key, which is no secret; it cannot be the secret of {0}")]
    PublicAsSecret(&'static str),
    /// A private key, which only the sender holds.
    #[error(
        "this is a private key, which only the sender holds; remove it from here and configure the public key"
    )]
    Private,
    /// An RSA key that could be factored.
    #[error("the RSA key has under 2048 bits; ask the sender for a longer one")]
    ShortRsa,
    /// No public key, or one of another algorithm.
    #[error("the key is no public key for {algorithm}; expected {expected}")]
    NotAPublicKey {
        /// The scheme's algorithm.
        algorithm: &'static str,
        /// The allowed forms.
        expected: &'static str,
    },
}

impl Key {
    /// Reads a secret as the scheme says. Base64 is decoded leniently, since providers issue it unpadded and with stray
    /// trailing bits.
    ///
    /// # Errors
    /// If the secret is not in the scheme's form, is of another kind of key, or decodes to too few bytes.
    pub fn new(scheme: &Scheme, secret: &Secret) -> Result<Key, KeyError> {
        let text = secret.expose();
        if public::is_private(text) {
            return Err(KeyError::Private);
        }
        let material = match scheme.secret {
            SecretForm::PublicKey { prefixed } => {
                Material::Public(PublicKey::read(scheme.algorithm, prefixed, text)?)
            }
            _ if text.starts_with(PUBLIC_KEY_PREFIX) || public::is_public(text) => {
                return Err(KeyError::PublicAsSecret(scheme.algorithm.label()));
            }
            SecretForm::Text => Material::of_bytes(scheme.algorithm, text.as_bytes(), secret),
            SecretForm::Hex => {
                let bytes = hex::decode(text).map_err(|_| KeyError::NotEncoded("hex"))?;
                Material::of_bytes(scheme.algorithm, &bytes, secret)
            }
            SecretForm::Base64 => {
                let bytes = digest::lenient_base64(text).ok_or(KeyError::NotEncoded("base64"))?;
                Material::of_bytes(scheme.algorithm, &bytes, secret)
            }
            SecretForm::Whsec => {
                let encoded = text.strip_prefix(STANDARD_WEBHOOKS_PREFIX).unwrap_or(text);
                let bytes = digest::lenient_base64(encoded).ok_or_else(|| unreadable(encoded))?;
                if bytes.len() < MIN_KEY_BYTES {
                    return Err(KeyError::TooShort(bytes.len()));
                }
                Material::of_bytes(scheme.algorithm, &bytes, secret)
            }
        };
        Ok(Key { material, active: i64::MIN..i64::MAX, slot: 0 })
    }

    /// Whether a text is a public key for any of these schemes, whose keys have no prefix.
    pub fn is_public(text: &str, schemes: &[Scheme]) -> bool {
        let bare = |scheme: &&Scheme| scheme.secret == SecretForm::PublicKey { prefixed: false };
        let is_key = |scheme: &Scheme| PublicKey::read(scheme.algorithm, false, text).is_ok();
        public::is_public(text) || schemes.iter().filter(bare).any(is_key)
    }

    /// The same key, of the secret at this position of the source's list.
    #[must_use]
    pub fn at(self, slot: usize) -> Key {
        Key { slot, ..self }
    }

    /// The same key, active from `not_before` on and before `not_after`. None: no limit. Fractions of a second are
    /// rounded inwards, so that a key is never active outside its dates.
    #[must_use]
    pub fn within(self, not_before: Option<Timestamp>, not_after: Option<Timestamp>) -> Key {
        Key { active: seconds_within(not_before, not_after), ..self }
    }

    /// Whether it is active at `now`, in unix seconds.
    pub fn is_active_at(&self, now: i64) -> bool {
        self.active.contains(&now)
    }

    /// Whether it made any of the signatures. Every signature of a secret key is compared in full.
    pub(super) fn made_any<'s>(
        &self,
        covered: &Covered<'_>,
        parts: &[Part],
        claimed: impl Iterator<Item = &'s SignatureBytes>,
    ) -> bool {
        match &self.material {
            Material::Public(key) => {
                let text = covered.text(parts);
                claimed.fold(false, |any, signature| any | key.verifies(&text, signature))
            }
            Material::Equal(secret) => {
                // Hashes have one length, so the comparison does not show the secret's.
                let own = Sha256::digest(secret.expose());
                is_any(&own, claimed.map(Sha256::digest))
            }
            Material::Sha1(mac, _) => is_any(&finish(mac, covered, parts), claimed),
            Material::Sha256(mac) => is_any(&finish(mac, covered, parts), claimed),
            Material::Sha384(mac, _) => is_any(&finish(mac, covered, parts), claimed),
            Material::Sha512(mac, _) => is_any(&finish(mac, covered, parts), claimed),
        }
    }

    /// Whether the signature is one of this public key over the text.
    pub(super) fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        matches!(&self.material, Material::Public(key) if key.verifies(text, signature))
    }

    /// Whether the text is the key of `equal`, compared in constant time.
    pub(super) fn is_text(&self, text: &str) -> bool {
        let Material::Equal(secret) = &self.material else { return false };
        Sha256::digest(secret.expose()).ct_eq(&Sha256::digest(text)).into()
    }

    /// The text of a key of `equal`.
    pub fn text(&self) -> Option<&str> {
        match &self.material {
            Material::Equal(secret) => Some(secret.expose()),
            _ => None,
        }
    }

    /// The signature that a sender makes with this key. None: only the holder of a private key can make it.
    pub(super) fn sign(&self, covered: &Covered<'_>, parts: &[Part]) -> Option<Vec<u8>> {
        Some(match &self.material {
            Material::Public(_) => return None,
            Material::Equal(secret) => secret.expose().as_bytes().to_vec(),
            Material::Sha1(mac, _) => finish(mac, covered, parts).to_vec(),
            Material::Sha256(mac) => finish(mac, covered, parts).to_vec(),
            Material::Sha384(mac, _) => finish(mac, covered, parts).to_vec(),
            Material::Sha512(mac, _) => finish(mac, covered, parts).to_vec(),
        })
    }

    /// HMAC-SHA256 of a text under this key's bytes, for the answer to a handshake. None: it is no key of HMAC.
    pub fn hmac_sha256(&self, text: &[u8]) -> Option<[u8; 32]> {
        let mut mac = match &self.material {
            Material::Sha1(_, mac)
            | Material::Sha256(mac)
            | Material::Sha384(_, mac)
            | Material::Sha512(_, mac) => mac.clone(),
            Material::Public(_) | Material::Equal(_) => return None,
        };
        mac.update(text);
        Some(mac.finalize().into_bytes().into())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

impl Material {
    fn of_bytes(algorithm: Algorithm, bytes: &[u8], secret: &Secret) -> Material {
        match algorithm {
            Algorithm::HmacSha1 => Material::Sha1(keyed(bytes), keyed(bytes)),
            Algorithm::HmacSha384 => Material::Sha384(keyed(bytes), keyed(bytes)),
            Algorithm::HmacSha512 => Material::Sha512(keyed(bytes), keyed(bytes)),
            Algorithm::Equal => Material::Equal(secret.clone()),
            // A definition with a public-key algorithm has the form of a public key.
            Algorithm::HmacSha256
            | Algorithm::Ed25519
            | Algorithm::EcdsaP256Sha256
            | Algorithm::RsaSha256 => Material::Sha256(keyed(bytes)),
        }
    }
}

fn keyed<M: KeyInit>(bytes: &[u8]) -> M {
    match M::new_from_slice(bytes) {
        Ok(mac) => mac,
        // RFC 2104 takes keys of any length, and so does the crate: the error type is the trait's, not HMAC's.
        Err(_) => unreachable!("HMAC takes a key of any length"),
    }
}

fn finish<M: Mac + Clone>(mac: &M, covered: &Covered<'_>, parts: &[Part]) -> hmac::digest::Output<M> {
    let mut mac = mac.clone();
    covered.for_each(parts, |piece| mac.update(piece));
    mac.finalize().into_bytes()
}

/// Whether the signature is any of those claimed, in constant time.
fn is_any<S: AsRef<[u8]>>(made: &[u8], claimed: impl Iterator<Item = S>) -> bool {
    claimed.fold(Choice::from(0), |any, claimed| any | made.ct_eq(claimed.as_ref())).into()
}

/// Why a text is no base64.
fn unreadable(text: &str) -> KeyError {
    let standard = text.replace('-', "+").replace('_', "/");
    if standard != text && digest::lenient_base64(&standard).is_some() {
        KeyError::UrlSafe
    } else {
        KeyError::NotBase64
    }
}

/// The unix seconds at which a key with these dates is active.
pub(super) fn seconds_within(not_before: Option<Timestamp>, not_after: Option<Timestamp>) -> Range<i64> {
    let up = |at: Timestamp| at.as_second() + i64::from(at.subsec_nanosecond() > 0);
    not_before.map_or(i64::MIN, up)..not_after.map_or(i64::MAX, Timestamp::as_second)
}

const MIN_KEY_BYTES: usize = 16;
