//! The signature schemes, and the only maker of [`Verified`].
//!
//! Keeps true: a [`Verified`] exists only for bytes that a configured key which counts now signed within the tolerance, or for a source that
//! declares what else authenticates it. Nothing is parsed before that but the signing headers themselves. Digests are compared in constant time,
//! and no changed bit of a digest goes unnoticed: base64 is accepted in one spelling only, hex in either case.
//!
//! Not here: which provider uses which scheme (`provider.rs`), and which keys a source has (`route.rs`).

pub mod diagnosis;
mod digest;
mod fingerprint;
mod key;
mod list;
mod message_id;
mod rewritten;

use hyper::HeaderMap;
use hyper::header::HeaderValue;
use subtle::{Choice, ConstantTimeEq};

use digest::Digest;
pub use fingerprint::{fingerprint, without_signatures};
use key::Counting;
pub use key::{Key, KeyError};
use list::BLANKS;

/// How a provider signs a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Standard Webhooks 1.0: HMAC-SHA256 over `id.timestamp.body`, base64, a list of `v1,…`.
    StandardWebhooks,
    /// `Bond-Signature: t=…,v1=…,v2=…`: HMAC-SHA256 over `t.body`, hex. v1 signs the body as Python's `json.dumps` would
    /// write it again, and passes only where the source opts in.
    Bond {
        /// Whether a header with v1 alone may pass.
        accept_v1: bool,
    },
    /// `X-IOF-Signature: t=…,v1=…`, or `sha256=…` with `X-IOF-Timestamp`: HMAC-SHA256 over `t.body`, hex.
    Iof,
}

/// What authenticated a delivery, as the event's `verifiedby` tells it.
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

/// What a valid signature told besides the body.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// The message id that the signature covers, where the scheme has one.
    pub message_id: Option<&'a str>,
    /// Which of the source's keys matched, from 0.
    pub slot: usize,
    /// Receipt minus signed timestamp, seconds.
    pub age: i64,
}

impl<'a> Verified<'a> {
    /// For a source without keys: its client's certificate, path token, client address or explicit `unauthenticated` let the delivery in, which
    /// the route and the admission have checked.
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

    /// What the signature told; none where nothing signs.
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
    /// No key made any of the signatures.
    #[error("no configured secret matches ({tried} tried)")]
    Mismatch {
        /// How many keys were tried.
        tried: usize,
    },
    /// There is a signature of the scheme's old version alone, which the source does not take.
    #[error(
        "only an old v1 signature is there, which this source does not take: have the sender sign v2, or set \
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
            format!("the signed timestamp is {ahead} s ahead (in milliseconds? seconds are due)")
        }
        ahead if ahead > 0 => format!("the signed timestamp is {ahead} s ahead"),
        _ => format!("the signed timestamp is {age} s old"),
    }
}

/// Checks a delivery's signature over its raw bytes, then its timestamp. `now` is unix seconds, and decides which keys count;
/// `tolerance` is seconds, both ways.
///
/// # Errors
/// In this order: a header missing, a header malformed, no key matches, the timestamp outside the tolerance.
pub fn verify<'a>(
    scheme: Scheme,
    keys: &[Key],
    headers: &'a HeaderMap,
    body: &'a [u8],
    now: i64,
    tolerance: i64,
) -> Result<Verified<'a>, SignatureError> {
    let (claim, by) = match scheme {
        Scheme::StandardWebhooks => (standard_webhooks(headers)?, VerifiedBy::StandardWebhooks),
        Scheme::Bond { accept_v1 } => (bond(headers, accept_v1)?, VerifiedBy::HmacSha256),
        Scheme::Iof => (iof(headers)?, VerifiedBy::HmacSha256),
    };
    let counting = Counting { keys, now };
    let slot = claim
        .slot(counting, &claim.digests, body)
        .or_else(|| claim.python_slot(counting, body))
        .ok_or_else(|| match claim.old_version_alone {
            true => SignatureError::OldVersion,
            false => SignatureError::Mismatch { tried: counting.iter().count() },
        })?;
    let age = now.saturating_sub(claim.at);
    if age.saturating_abs() > tolerance {
        return Err(SignatureError::OutsideTolerance { age, tolerance });
    }
    Ok(Verified { body, by, signed: Some(Signed { message_id: claim.message_id, slot, age }) })
}

/// Signs a body as the provider would: the headers to send. `id` is used where the scheme has one.
pub fn sign(scheme: Scheme, key: &Key, id: &str, at: i64, body: &[u8]) -> Vec<(&'static str, String)> {
    let stamp = at.to_string();
    match scheme {
        Scheme::StandardWebhooks => {
            let digest = key.digest(&[id.as_bytes(), b".", stamp.as_bytes(), b".", body]);
            vec![
                (WEBHOOK_ID, id.to_owned()),
                (WEBHOOK_TIMESTAMP, stamp),
                (WEBHOOK_SIGNATURE, format!("v1,{}", digest::to_base64(&digest))),
            ]
        }
        Scheme::Bond { .. } => {
            let digest = key.digest(&[stamp.as_bytes(), b".", body]);
            vec![(BOND_SIGNATURE, format!("t={stamp},v2={}", hex::encode(digest)))]
        }
        Scheme::Iof => {
            let digest = key.digest(&[stamp.as_bytes(), b".", body]);
            vec![(IOF_SIGNATURE, format!("t={stamp},v1={}", hex::encode(digest)))]
        }
    }
}

/// The headers that carry signatures: a record may keep a fingerprint of them, never the text.
pub const SIGNATURE_HEADERS: [&str; 3] = [WEBHOOK_SIGNATURE, BOND_SIGNATURE, IOF_SIGNATURE];

/// The headers that carry a delivery's id or time.
pub const IDENTIFYING_HEADERS: [&str; 3] = [WEBHOOK_ID, WEBHOOK_TIMESTAMP, IOF_TIMESTAMP];

/// What the headers claim, before any of it is believed.
struct Claim<'a> {
    message_id: Option<&'a str>,
    timestamp: &'a str,
    at: i64,
    /// Over the raw body.
    digests: Vec<Digest>,
    /// Over the body as Python would write it again.
    python_digests: Vec<Digest>,
    /// Whether the only signature is of a version that the source does not take.
    old_version_alone: bool,
}

impl Claim<'_> {
    /// The first key that made any of the digests. Every digest is compared whole.
    fn slot(&self, keys: Counting<'_>, digests: &[Digest], body: &[u8]) -> Option<usize> {
        let stamp = self.timestamp.as_bytes();
        let found = keys.iter().find(|(_, key)| {
            let made = match self.message_id {
                Some(id) => key.digest(&[id.as_bytes(), b".", stamp, b".", body]),
                None => key.digest(&[stamp, b".", body]),
            };
            let any = digests.iter().fold(Choice::from(0), |any, claimed| any | made.ct_eq(claimed));
            bool::from(any)
        });
        found.map(|(slot, _)| slot)
    }

    fn python_slot(&self, keys: Counting<'_>, body: &[u8]) -> Option<usize> {
        if self.python_digests.is_empty() {
            return None;
        }
        self.slot(keys, &self.python_digests, rewritten::python(body)?.as_bytes())
    }
}

fn standard_webhooks(headers: &HeaderMap) -> Result<Claim<'_>, SignatureError> {
    let id = only(headers, WEBHOOK_ID)?;
    if message_id::goes_on_into_a_body(id) {
        return Err(SignatureError::Malformed(WEBHOOK_ID, "holds a timestamp and the start of a body"));
    }
    let timestamp = only(headers, WEBHOOK_TIMESTAMP)?;
    let digests: Vec<Digest> = list::lines(headers, WEBHOOK_SIGNATURE)?
        .flat_map(list::entries)
        .filter_map(|entry| entry.strip_prefix("v1,"))
        .filter_map(digest::from_base64)
        .collect();
    if digests.is_empty() {
        return Err(SignatureError::Malformed(WEBHOOK_SIGNATURE, "holds no well-formed v1 signature"));
    }
    let at = unix_seconds(timestamp, WEBHOOK_TIMESTAMP)?;
    Ok(Claim {
        message_id: Some(id),
        timestamp,
        at,
        digests,
        python_digests: Vec::new(),
        old_version_alone: false,
    })
}

fn bond(headers: &HeaderMap, accept_v1: bool) -> Result<Claim<'_>, SignatureError> {
    let pairs = Pairs::of(headers, BOND_SIGNATURE)?;
    let (v1, v2) = (pairs.digests("v1"), pairs.digests("v2"));
    if v1.is_empty() && v2.is_empty() {
        return Err(SignatureError::Malformed(BOND_SIGNATURE, "holds no well-formed v1 or v2 signature"));
    }
    let timestamp = pairs.timestamp()?;
    let at = unix_seconds(timestamp, BOND_SIGNATURE)?;
    let old_version_alone = v2.is_empty() && !accept_v1;
    // Without the opt-in a v1 is authentic perhaps, but not in a form that this source takes.
    let python_digests = if accept_v1 { v1 } else { Vec::new() };
    Ok(Claim { message_id: None, timestamp, at, digests: v2, python_digests, old_version_alone })
}

fn iof(headers: &HeaderMap) -> Result<Claim<'_>, SignatureError> {
    let pairs = Pairs::of(headers, IOF_SIGNATURE)?;
    let (v1, sha256) = (pairs.digests("v1"), pairs.digests("sha256"));
    let (timestamp, header, digests) = if !v1.is_empty() {
        (pairs.timestamp()?, IOF_SIGNATURE, v1)
    } else if pairs.has("sha256") {
        let timestamp = only(headers, IOF_TIMESTAMP)?;
        if pairs.timestamps().count() > 1 {
            return Err(pairs.repeated());
        }
        if sha256.is_empty() {
            return Err(SignatureError::Malformed(IOF_SIGNATURE, "holds no well-formed sha256 signature"));
        }
        (timestamp, IOF_TIMESTAMP, sha256)
    } else {
        return Err(SignatureError::Malformed(IOF_SIGNATURE, "holds no well-formed v1 or sha256 signature"));
    };
    let at = unix_seconds(timestamp, header)?;
    Ok(Claim {
        message_id: None,
        timestamp,
        at,
        digests,
        python_digests: Vec::new(),
        old_version_alone: false,
    })
}

/// The header's one value. Sent twice, nobody can say which one was signed.
fn only<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, SignatureError> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(SignatureError::Missing(name))?;
    if values.next().is_some() {
        return Err(SignatureError::Malformed(name, "is there more than once"));
    }
    let text = HeaderValue::to_str(value).map_err(|_| SignatureError::Malformed(name, "is not ASCII"))?;
    if text.is_empty() { Err(SignatureError::Missing(name)) } else { Ok(text) }
}

fn unix_seconds(text: &str, header: &'static str) -> Result<i64, SignatureError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(SignatureError::Malformed(header, "holds no timestamp in unix seconds"));
    }
    // More digits than fit are a time all the same, and far from now.
    Ok(text.parse().unwrap_or(i64::MAX))
}

/// A header of comma-separated `key=value`. Blanks around a key or a value do not count. Other text and unknown keys are skipped.
struct Pairs<'a> {
    header: &'static str,
    pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Pairs<'a> {
    fn of(headers: &'a HeaderMap, header: &'static str) -> Result<Pairs<'a>, SignatureError> {
        let pairs = only(headers, header)?.split(',').filter_map(|pair| pair.split_once('='));
        let trimmed = pairs.map(|(key, value)| (key.trim_matches(BLANKS), value.trim_matches(BLANKS)));
        Ok(Pairs { header, pairs: trimmed.collect() })
    }

    fn has(&self, key: &str) -> bool {
        self.pairs.iter().any(|(k, _)| *k == key)
    }

    fn digests(&self, key: &str) -> Vec<Digest> {
        self.pairs
            .iter()
            .filter(|(k, _)| *k == key)
            .filter_map(|(_, value)| digest::from_hex(value))
            .collect()
    }

    fn timestamps(&self) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(|(key, _)| *key == "t").map(|(_, value)| *value)
    }

    fn repeated(&self) -> SignatureError {
        SignatureError::Malformed(self.header, "holds more than one timestamp")
    }

    fn timestamp(&self) -> Result<&'a str, SignatureError> {
        let mut stamps = self.timestamps();
        match (stamps.next(), stamps.next()) {
            (Some(stamp), None) => Ok(stamp),
            (Some(_), Some(_)) => Err(self.repeated()),
            _ => Err(SignatureError::Malformed(self.header, "holds no timestamp")),
        }
    }
}

/// Seconds ahead that no clock is wrong by, three thousand years: it is another unit.
const NO_CLOCK: i64 = 100_000_000_000;
const WEBHOOK_ID: &str = "webhook-id";
const WEBHOOK_TIMESTAMP: &str = "webhook-timestamp";
const WEBHOOK_SIGNATURE: &str = "webhook-signature";
const BOND_SIGNATURE: &str = "bond-signature";
const IOF_SIGNATURE: &str = "x-iof-signature";
const IOF_TIMESTAMP: &str = "x-iof-timestamp";
