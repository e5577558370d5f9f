//! How deliveries are signed and verified, and the only maker of [`Verified`].
//!
//! Keeps true: a [`Verified`] exists only for bytes that an active key signed within the tolerance, for a source that is
//! authenticated otherwise, or for a body that the provider's own API handed over. Before that, only the signing headers
//! are parsed; the body too, where a provider sends its secret or its timestamp there. Secret signatures are compared in
//! constant time. Any changed bit is noticed: base64 is accepted without stray bits, hex in either case.
//!
//! Not here: the schemes themselves (`provider`), and which keys a source has (`request::source`).

mod claim;
mod covered;
pub mod diagnosis;
mod digest;
mod fingerprint;
mod inspect;
mod key;
mod list;
mod message_id;
mod provider_api;
mod rewritten;
mod scheme;

use super::pointer::{self, Each, Pointer};
pub use super::signed_request::SignedRequest;
use claim::Claim;
use covered::Covered;
pub use digest::Encoding;
pub use fingerprint::{fingerprint, without_signatures};
pub use inspect::{Inspection, inspect};
pub(crate) use key::is_hex_key;
pub use key::{Key, KeyError};
pub use provider_api::{HandedOver, ProviderApiPayload};
pub use scheme::{
    Algorithm, Carrier, Format, Labels, Part, Scheme, SecretForm, Separator, TimeUnit, Version,
};

/// What authenticated a delivery, for the event's `verifiedby`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifiedBy {
    /// A Standard Webhooks signature.
    StandardWebhooks,
    /// Another signature, by this algorithm; the secret itself for `equal`.
    Signature(Algorithm),
    /// The client's certificate, by `client_certificate`.
    ClientCertificate,
    /// The secret last segment of the path.
    PathToken,
    /// The client's address, by `allow_ips`.
    ClientAddress,
    /// The provider's own API, asked over TLS under the configured key. Only [`Verified::by_provider_api`] can say so.
    ProviderApi(HandedOver),
    /// Nothing; the source says `unauthenticated = true`.
    Nothing,
}

impl VerifiedBy {
    /// The attribute's text.
    pub fn as_str(self) -> &'static str {
        match self {
            VerifiedBy::StandardWebhooks => "standard-webhooks",
            VerifiedBy::Signature(Algorithm::Equal) => "shared-secret",
            VerifiedBy::Signature(algorithm) => algorithm.label(),
            VerifiedBy::ClientCertificate => "client-certificate",
            VerifiedBy::PathToken => "path-token",
            VerifiedBy::ClientAddress => "client-address",
            VerifiedBy::ProviderApi(_) => "provider-api",
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
    /// Receipt minus signed timestamp, seconds. None: no timestamp is signed.
    pub age: Option<i64>,
    /// The scheme of the signature.
    pub scheme: &'a Scheme,
    /// The key that verified.
    pub key: &'a Key,
}

impl<'a> Verified<'a> {
    /// For a source without keys. Its client certificate, path token or client address has been checked, or it says
    /// `unauthenticated`.
    pub fn by_other_means(by: VerifiedBy, body: &'a [u8]) -> Verified<'a> {
        Verified { body, by, signed: None }
    }

    /// For a body that the provider's API handed over, and that no delivery brought.
    pub fn by_provider_api(payload: &'a ProviderApiPayload) -> Verified<'a> {
        Verified { body: payload.body(), by: VerifiedBy::ProviderApi(HandedOver::of(payload)), signed: None }
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
    #[error("the header {0} holds no well-formed {version}signature", version = before_word(.1))]
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

/// Labels and a blank, or nothing for a scheme without labels.
fn before_word(labels: &Labels) -> String {
    let labels = labels.to_string();
    if labels.is_empty() { labels } else { labels + " " }
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

/// One way in which a source's deliveries may be signed, and the keys for it.
#[derive(Debug)]
pub struct Verifier {
    /// The scheme.
    pub scheme: Scheme,
    /// The keys of the source's secrets that are of this scheme's kind, in the config's order.
    pub keys: Vec<Key>,
}

/// Checks a delivery's signature over its raw bytes, then its timestamp. One of the verifiers must accept it. `now` is in
/// unix seconds, and decides which keys are active. `tolerance` is in seconds, both ways.
///
/// # Errors
/// In this order: a header missing, a header malformed, no key matches, the timestamp outside the tolerance. Of several
/// verifiers, the error that came last in this order.
pub fn verify<'a>(
    verifiers: &'a [Verifier],
    request: SignedRequest<'a>,
    now: i64,
    tolerance: i64,
) -> Result<Verified<'a>, SignatureError> {
    let mut failed: Option<SignatureError> = None;
    let mut tried = 0;
    for verifier in verifiers {
        let in_body = verifier.scheme.secret_in_body;
        let compared = in_body.map(|place| verifier.compare_in_body(place, request, (now, tolerance)));
        let carriers = verifier.scheme.carriers.iter();
        let results = carriers.map(|carrier| verifier.verify(carrier, request, now, tolerance));
        for result in compared.into_iter().chain(results) {
            let error = match result {
                Ok(verified) => return Ok(verified),
                Err(error) => error,
            };
            if let SignatureError::Mismatch { tried: keys } = error {
                tried += keys;
            }
            let is_further = |before: &SignatureError| error.stage(verifiers) > before.stage(verifiers);
            if failed.as_ref().is_none_or(is_further) {
                failed = Some(error);
            }
        }
    }
    Err(match failed {
        Some(SignatureError::Mismatch { .. }) | None => SignatureError::Mismatch { tried },
        Some(error) => error,
    })
}

impl Verifier {
    fn verify<'a>(
        &'a self,
        carrier: &Carrier,
        request: SignedRequest<'a>,
        now: i64,
        tolerance: i64,
    ) -> Result<Verified<'a>, SignatureError> {
        let Verifier { scheme, keys } = self;
        let claim = Claim::read(scheme, carrier, request)?;
        let active = || keys.iter().filter(|key| key.is_active_at(now));
        let by_old_version = || {
            if !scheme.accept_old || !claim.has_signature(true) {
                return None;
            }
            claim.matching_key(scheme, active(), true, rewritten::python(request.body)?.as_bytes())
        };
        let key = claim
            .matching_key(scheme, active(), false, request.body)
            .or_else(by_old_version)
            .ok_or_else(|| {
                if scheme.accept_old || claim.has_signature(false) {
                    SignatureError::Mismatch { tried: active().count() }
                } else {
                    SignatureError::OldVersion
                }
            })?;
        let at = match &scheme.time_in_body {
            Some(pointer) => Some(time_in_body(scheme.unit, pointer, &request)?),
            None => claim.at,
        };
        let covered_id = claim.id.filter(|_| scheme.covers(Part::Id));
        self.accept(key, covered_id, at, request, (now, tolerance))
    }

    /// Compares the secrets that the body holds, one for each event. Each must be one of the source's.
    fn compare_in_body<'a>(
        &'a self,
        (pointer, each): (Pointer, Option<Each>),
        request: SignedRequest<'a>,
        (now, tolerance): (i64, i64),
    ) -> Result<Verified<'a>, SignatureError> {
        let texts = pointer::texts(&pointer, each, &request).filter(|texts| !texts.is_empty());
        let texts = texts.ok_or(SignatureError::Missing(pointer.text))?;
        let active = || self.keys.iter().filter(|key| key.is_active_at(now));
        // Every key is compared, so that the time does not show which one matched.
        let key_of =
            |text: &String| active().fold(None, |found, key| key.is_text(text).then_some(key).or(found));
        let keys: Option<Vec<&Key>> = texts.iter().map(key_of).collect();
        let key = keys.and_then(|keys| keys.first().copied());
        let key = key.ok_or_else(|| SignatureError::Mismatch { tried: active().count() })?;
        let time = self.scheme.time_in_body.as_ref();
        let at = time.map(|pointer| time_in_body(self.scheme.unit, pointer, &request)).transpose()?;
        self.accept(key, None, at, request, (now, tolerance))
    }

    /// Checks the age of the signed timestamp `at`, in unix seconds, and accepts the request.
    fn accept<'a>(
        &'a self,
        key: &'a Key,
        message_id: Option<&'a str>,
        at: Option<i64>,
        request: SignedRequest<'a>,
        (now, tolerance): (i64, i64),
    ) -> Result<Verified<'a>, SignatureError> {
        let age = at.map(|at| now.saturating_sub(at));
        if let Some(age) = age.filter(|age| age.saturating_abs() > tolerance) {
            return Err(SignatureError::OutsideTolerance { age, tolerance });
        }
        let signed = Signed { message_id, slot: key.slot, age, scheme: &self.scheme, key };
        Ok(Verified { body: request.body, by: self.scheme.verified_by, signed: Some(signed) })
    }
}

/// The timestamp in a body, in unix seconds.
fn time_in_body(
    unit: TimeUnit,
    pointer: &Pointer,
    request: &SignedRequest<'_>,
) -> Result<i64, SignatureError> {
    let text = pointer::texts(pointer, None, request).and_then(|mut texts| texts.pop());
    claim::unix_seconds(unit, &text.ok_or(SignatureError::Missing(pointer.text))?, pointer.text)
}

impl SignatureError {
    /// How far the verification came. With a header of signatures that the delivery does not use it came nowhere.
    fn stage(&self, verifiers: &[Verifier]) -> u8 {
        let holds_signatures = |name: &str| {
            verifiers.iter().any(|verifier| verifier.scheme.signature_headers().any(|header| header == name))
        };
        match self {
            SignatureError::Missing(name) if holds_signatures(name) => 0,
            SignatureError::Missing(_) => 1,
            SignatureError::Malformed(..) | SignatureError::NoSignature(..) => 2,
            SignatureError::Mismatch { .. } | SignatureError::OldVersion => 3,
            SignatureError::OutsideTolerance { .. } => 4,
        }
    }
}

/// Signs a request as the provider would. Returns the headers to send; none if only the provider can sign. `id` is used if
/// the scheme has one, `at` (unix seconds) if it has a timestamp. Headers that the signature covers must be in the
/// request already.
pub fn sign(
    scheme: &Scheme,
    key: &Key,
    id: &str,
    at: i64,
    request: SignedRequest<'_>,
) -> Option<Vec<(&'static str, String)>> {
    let carrier = scheme.carriers.first()?;
    let timestamp = match scheme.unit {
        TimeUnit::Seconds => at.to_string(),
        TimeUnit::Milliseconds => at.saturating_mul(1000).to_string(),
        TimeUnit::Rfc3339 => jiff::Timestamp::from_second(at).ok()?.to_string(),
    };
    let covered = Covered { request, id, timestamp: &timestamp };
    let made = key.sign(&covered, scheme.signed)?;
    let text = match scheme.algorithm {
        Algorithm::Equal => String::from_utf8(made).ok()?,
        _ => scheme.encoding.write(&made),
    };
    let after = scheme.versions.iter().find(|version| !version.old).map_or("", |version| version.after);
    let signature = scheme.prefix() + &text + after;
    let mut headers: Vec<_> = carrier.id.map(|name| (name, id.to_owned())).into_iter().collect();
    match scheme.format {
        Format::List(_) => {
            headers.extend(carrier.timestamp.map(|name| (name, timestamp)));
            headers.push((carrier.header, signature));
        }
        Format::Pairs { separator, timestamp: key } => {
            headers.push((carrier.header, format!("{key}={timestamp}{separator}{signature}")));
        }
    }
    Some(headers)
}

/// Three thousand years in seconds. No clock is that far off, so the timestamp has another unit.
const NO_CLOCK: i64 = 100_000_000_000;
