//! How deliveries are signed and verified, and the only maker of [`Verified`].
//!
//! Keeps true: a [`Verified`] exists only for bytes that an active key signed within the tolerance, or for a source
//! that is authenticated otherwise. Before that, only the signing headers are parsed. Digests are compared in constant
//! time. Any changed bit is noticed: base64 is accepted in one spelling only, hex in either case.
//!
//! Not here: the schemes themselves (`provider`), and which keys a source has (`request::source`).

mod claim;
pub mod diagnosis;
mod digest;
mod fingerprint;
mod key;
mod list;
mod message_id;
mod rewritten;
mod scheme;

use hyper::HeaderMap;

use claim::Claim;
pub use digest::Encoding;
pub use fingerprint::{fingerprint, without_signatures};
use key::ActiveKeys;
pub use key::{Key, KeyError};
pub use scheme::{Format, Labels, Part, Scheme, SecretForm, Version};

/// What authenticated a delivery, for the event's `verifiedby`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifiedBy {
    /// A Standard Webhooks signature.
    StandardWebhooks,
    /// Another HMAC-SHA256 signature.
    HmacSha256,
    /// The client's certificate, by `client_certificate`.
    ClientCertificate,
    /// The secret last segment of the path.
    PathToken,
    /// The client's address, by `allow_ips`.
    ClientAddress,
    /// Nothing; the source says `unauthenticated = true`.
    Nothing,
}

impl VerifiedBy {
    /// The attribute's text.
    pub fn as_str(self) -> &'static str {
        match self {
            VerifiedBy::StandardWebhooks => "standard-webhooks",
            VerifiedBy::HmacSha256 => "hmac-sha256",
            VerifiedBy::ClientCertificate => "client-certificate",
            VerifiedBy::PathToken => "path-token",
            VerifiedBy::ClientAddress => "client-address",
            VerifiedBy::Nothing => "none",
        }
    }
}

/// A delivery's bytes, authenticated. Only this module makes one.
#[derive(Debug)]
pub struct Verified<'a> {
    body: &'a [u8],
    by: VerifiedBy,
    signed: Option<Signed<'a>>,
}

/// The facts from a valid signature, besides the body.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// The message id that the signature covers, if the scheme has one.
    pub message_id: Option<&'a str>,
    /// Which of the source's keys matched, from 0.
    pub slot: usize,
    /// Receipt minus signed timestamp, seconds.
    pub age: i64,
}

impl<'a> Verified<'a> {
    /// For a source without keys. Its client certificate, path token or client address has been checked, or it says
    /// `unauthenticated`.
    pub fn by_other_means(by: VerifiedBy, body: &'a [u8]) -> Verified<'a> {
        Verified { body, by, signed: None }
    }

    /// The raw body.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// What authenticated it.
    pub fn by(&self) -> VerifiedBy {
        self.by
    }

    /// The facts from the signature. None: the source has no keys.
    pub fn signed(&self) -> Option<Signed<'a>> {
        self.signed
    }
}

/// Why a delivery is not authentic. Texts name headers and ages, never digests.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// A header that the scheme needs is absent or empty.
    #[error("the header {0} is missing")]
    Missing(&'static str),
    /// A header is there and cannot be read.
    #[error("the header {0} {1}")]
    Malformed(&'static str, &'static str),
    /// The header of the signatures holds no well-formed one.
    #[error("the header {0} holds no well-formed {1} signature")]
    NoSignature(&'static str, Labels),
    /// No key made any of the signatures.
    #[error("no configured secret matches ({tried} tried)")]
    Mismatch {
        /// How many keys were tried.
        tried: usize,
    },
    /// There is only a signature of the scheme's old version, which the source does not accept.
    #[error(
        "there is only an old v1 signature, which this source does not accept: have the sender sign v2, or set \
         accept_v1 = true on the source (`hookgate verify` says whether the v1 is right)"
    )]
    OldVersion,
    /// Signed, but too long ago or too far ahead.
    #[error("{}, the tolerance is {tolerance} s", distance(*age))]
    OutsideTolerance {
        /// Receipt minus signed timestamp, seconds.
        age: i64,
        /// The source's tolerance, seconds.
        tolerance: i64,
    },
}

/// How far a signed timestamp is from now.
fn distance(age: i64) -> String {
    match age.saturating_neg() {
        ahead if ahead > NO_CLOCK => {
            format!("the signed timestamp is {ahead} s ahead (in milliseconds? expected seconds)")
        }
        ahead if ahead > 0 => format!("the signed timestamp is {ahead} s ahead"),
        _ => format!("the signed timestamp is {age} s old"),
    }
}

/// Checks a delivery's signature over its raw bytes, then its timestamp. `now` is in unix seconds, and decides which
/// keys are active. `tolerance` is in seconds, both ways.
///
/// # Errors
/// In this order: a header missing, a header malformed, no key matches, the timestamp outside the tolerance.
pub fn verify<'a>(
    scheme: &Scheme,
    keys: &[Key],
    headers: &'a HeaderMap,
    body: &'a [u8],
    now: i64,
    tolerance: i64,
) -> Result<Verified<'a>, SignatureError> {
    let claim = Claim::read(scheme, headers)?;
    let active = ActiveKeys { keys, now };
    let by_old_version = || {
        if !scheme.accept_old || !claim.has_signature(true) {
            return None;
        }
        claim.matching_slot(scheme, active, true, rewritten::python(body)?.as_bytes())
    };
    let slot = claim.matching_slot(scheme, active, false, body).or_else(by_old_version).ok_or_else(|| {
        if scheme.accept_old || claim.has_signature(false) {
            SignatureError::Mismatch { tried: active.iter().count() }
        } else {
            SignatureError::OldVersion
        }
    })?;
    let age = now.saturating_sub(claim.at);
    if age.saturating_abs() > tolerance {
        return Err(SignatureError::OutsideTolerance { age, tolerance });
    }
    let signed = Signed { message_id: claim.id, slot, age };
    Ok(Verified { body, by: scheme.verified_by, signed: Some(signed) })
}

/// Signs a body as the provider would. Returns the headers to send. `id` is used if the scheme has one.
pub fn sign(scheme: &Scheme, key: &Key, id: &str, at: i64, body: &[u8]) -> Vec<(&'static str, String)> {
    let stamp = at.to_string();
    let signature = scheme.encoding.write(&key.digest(scheme.text(id, &stamp, body)));
    let signature = scheme.prefix() + &signature;
    let mut headers: Vec<_> = scheme.id.map(|name| (name, id.to_owned())).into_iter().collect();
    match scheme.format {
        Format::List { timestamp } => headers.extend([(timestamp, stamp), (scheme.header, signature)]),
        Format::Pairs { timestamp } => {
            headers.push((scheme.header, format!("{timestamp}={stamp},{signature}")))
        }
    }
    headers
}

/// Three thousand years in seconds. No clock is that far off, so the timestamp has another unit.
const NO_CLOCK: i64 = 100_000_000_000;
