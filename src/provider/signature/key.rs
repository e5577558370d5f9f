//! A source's keys, and when each of them is active.
//!
//! Keeps true: a `whsec_` secret under 16 bytes makes no key. Outside its dates a key verifies nothing.

use std::ops::Range;

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::Sha256;

use super::digest::{self, Digest};
use super::{Scheme, SecretForm};
use crate::config::secret::{STANDARD_WEBHOOKS_PREFIX, Secret};

/// A source's key for its scheme, its first block already hashed, and when it is active, in unix seconds.
#[derive(Clone)]
pub struct Key {
    mac: Hmac<Sha256>,
    active: Range<i64>,
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
}

impl Key {
    /// Reads a secret as the scheme says. Base64 is decoded leniently, since providers issue it unpadded and with stray
    /// trailing bits.
    ///
    /// # Errors
    /// If a secret that should be base64 is not, or decodes to fewer than 16 bytes.
    pub fn new(scheme: &Scheme, secret: &Secret) -> Result<Key, KeyError> {
        let text = secret.expose();
        match scheme.secret {
            SecretForm::Whsec => {
                let encoded = text.strip_prefix(STANDARD_WEBHOOKS_PREFIX).unwrap_or(text);
                let bytes = digest::lenient_base64(encoded).ok_or_else(|| unreadable(encoded))?;
                if bytes.len() < MIN_KEY_BYTES {
                    return Err(KeyError::TooShort(bytes.len()));
                }
                Ok(Key::from_bytes(&bytes))
            }
            SecretForm::Text => Ok(Key::from_bytes(text.as_bytes())),
        }
    }

    fn from_bytes(bytes: &[u8]) -> Key {
        match Hmac::new_from_slice(bytes) {
            Ok(mac) => Key { mac, active: i64::MIN..i64::MAX },
            // RFC 2104 takes keys of any length, and so does the crate: the error type is the trait's, not HMAC's.
            Err(_) => unreachable!("HMAC takes a key of any length"),
        }
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

    pub(super) fn digest<'p>(&self, parts: impl Iterator<Item = &'p [u8]>) -> Digest {
        let mut mac = self.mac.clone();
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
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

/// The keys that are active at a moment, each with its slot.
#[derive(Clone, Copy)]
pub(super) struct ActiveKeys<'k> {
    pub(super) keys: &'k [Key],
    /// Unix seconds.
    pub(super) now: i64,
}

impl<'k> ActiveKeys<'k> {
    pub(super) fn iter(self) -> impl Iterator<Item = (usize, &'k Key)> {
        self.keys.iter().enumerate().filter(move |(_, key)| key.is_active_at(self.now))
    }
}

const MIN_KEY_BYTES: usize = 16;
