//! Explains why a signature does not match, by trying the usual mistakes against the delivery.
//!
//! Keeps true: computed digests, keys and secrets never leave this module, only the names of mistakes. It lets no
//! delivery in: only [`super::verify`] does. A limit on the bytes hashed bounds the work.

mod body;
mod charset;
mod claimed;
mod key_readings;
mod mistake;
mod numbers;
mod search;
mod string;
mod wrapping;

use jiff::Timestamp;

use super::key::seconds_within;
use super::rewritten;
pub use super::rewritten::{Escapes, Numbers, Spacing, Style};
use super::{Algorithm, Key, NO_CLOCK, Scheme, SignatureError, SignedRequest};
use crate::config::secret::Secret;
pub use body::{Alteration, body_defects};
use claimed::{Claimed, ClaimedSignature};
pub use mistake::{KeyReading, Mistake, Spelling};
use search::Search;
pub use string::SignedString;

/// A delivery that was refused, and everything that may explain it.
pub struct RefusedDelivery<'a> {
    /// The source's scheme.
    pub scheme: &'a Scheme,
    /// The secrets of every source, its own among them.
    pub secrets: &'a [KnownSecret<'a>],
    /// The source's name.
    pub source: &'a str,
    /// The delivery.
    pub request: SignedRequest<'a>,
    /// Whether the config defines the scheme. Then the mistake may be the definition's.
    pub is_defined: bool,
    /// The error of the verification.
    pub error: &'a SignatureError,
    /// When it arrived.
    pub at: Timestamp,
}

/// A configured secret.
pub struct KnownSecret<'a> {
    /// The name of its source.
    pub source: &'a str,
    /// Its index in that source's list, from 0.
    pub slot: usize,
    /// The secret.
    pub secret: Secret,
    /// The first moment at which it is active.
    pub not_before: Option<Timestamp>,
    /// The first moment at which it is no longer active.
    pub not_after: Option<Timestamp>,
}

/// What is wrong with a delivery that [`super::verify`] refused, by the scheme that explains it best. Never empty if there
/// is a case.
pub fn diagnose_any(cases: &[RefusedDelivery<'_>]) -> Vec<Mistake> {
    let mut all: Vec<Vec<Mistake>> = cases.iter().map(diagnose).collect();
    // A scheme whose header is absent explains nothing, if the delivery is signed by another one.
    let explains = |found: &Vec<Mistake>| {
        found.iter().all(|mistake| !matches!(mistake, Mistake::Unexplained | Mistake::HeaderMissing(_)))
    };
    let is_used =
        |found: &Vec<Mistake>| found.iter().all(|mistake| !matches!(mistake, Mistake::HeaderMissing(_)));
    let best = all.iter().position(explains).or_else(|| all.iter().position(is_used)).unwrap_or(0);
    let Some(case) = cases.get(best) else { return Vec::new() };
    let found = all.swap_remove(best);
    if !case.is_defined {
        return found;
    }
    found.into_iter().map(|mistake| mistake.of_definition(case.scheme)).collect()
}

/// What is wrong with a delivery that [`super::verify`] refused. Never empty.
pub fn diagnose(case: &RefusedDelivery<'_>) -> Vec<Mistake> {
    if let SignatureError::OutsideTolerance { age, tolerance } = *case.error {
        let by = age.saturating_neg();
        return vec![match age {
            _ if by > NO_CLOCK => Mistake::TimestampTooFine,
            _ if age < 0 => Mistake::Ahead { by, tolerance },
            _ => Mistake::Stale { age, tolerance },
        }];
    }
    let claimed = Claimed::of(case.scheme, case.request.headers);
    let mut found = claimed.mistakes.clone();
    if let Some(mistakes) = keyless(case, &claimed) {
        found.extend(mistakes);
        if found.is_empty() {
            found.push(Mistake::Unexplained);
        }
        return found;
    }
    match Search::new(case, &claimed).run() {
        Some(explanation) => found.extend(explanation.mistakes(case)),
        None if claimed.entries.is_empty() => {
            if found.is_empty() {
                let (header, algorithm) = (case.scheme.header(), case.scheme.algorithm);
                found.push(Mistake::NoDigest { header, bytes: 0, algorithm });
            }
        }
        None => {
            let len = case.scheme.algorithm.signature_len();
            if let Some(entry) = claimed.entries.first()
                && claimed.entries.iter().all(|entry| Some(entry.digest.len()) != len)
            {
                let (header, algorithm) = (case.scheme.header(), case.scheme.algorithm);
                found.push(Mistake::NoDigest { header, bytes: entry.digest.len(), algorithm });
            }
            found.extend(body_defects(case.request.headers, case.request.body));
            let expected = case.scheme.encoding.into();
            // A signature in another encoding cannot pass, whatever else is wrong.
            let is_read = |entry: &ClaimedSignature| {
                entry.spelling == expected || entry.spelling.is_read_as(case.scheme.encoding)
            };
            if let Some(entry) = claimed.entries.first()
                && !claimed.entries.iter().any(is_read)
            {
                found.push(Mistake::Spelt { found: entry.spelling, expected });
            }
            if !found.iter().any(Mistake::hides_the_signature) {
                found.push(Mistake::Unexplained);
            }
        }
    }
    if found.is_empty() {
        found.push(match case.error {
            // Everything is right except how the signature is written.
            SignatureError::Malformed(header, _) | SignatureError::NoSignature(header, _) => {
                Mistake::Versioned { header, expected: case.scheme.prefix() }
            }
            _ => Mistake::Unexplained,
        });
    }
    found
}

/// The mistakes in a delivery that no secret can sign: it has a public-key signature, or the secret itself. None: it has
/// an HMAC.
fn keyless(case: &RefusedDelivery<'_>, claimed: &Claimed) -> Option<Vec<Mistake>> {
    let scheme = case.scheme;
    if scheme.algorithm == Algorithm::Equal {
        return Some(Vec::new());
    }
    if !scheme.algorithm.has_public_key() {
        return None;
    }
    let own = case.secrets.iter().filter(|known| known.source == case.source);
    let keys: Vec<Key> = own.filter_map(|known| Key::new(scheme, &known.secret).ok()).collect();
    for string in SignedString::WRONG {
        for (before, after, template) in string.around(scheme, claimed, &case.request) {
            let text = [before.as_bytes(), case.request.body, after.as_bytes()].concat();
            if keys.iter().any(|key| claimed.raw.iter().any(|signature| key.verifies(&text, signature))) {
                return Some(vec![signed_over(case, string, template)]);
            }
        }
    }
    Some(body_defects(case.request.headers, case.request.body))
}

fn signed_over(case: &RefusedDelivery<'_>, form: SignedString, template: String) -> Mistake {
    if case.is_defined {
        Mistake::Defined { key: "signed", value: template }
    } else {
        Mistake::SignedOver { form, expected: case.scheme.signed_parts() }
    }
}

fn is_python_form(body: &[u8]) -> bool {
    rewritten::python(body).is_some_and(|python| python.as_bytes() == body)
}

fn is_active(known: &KnownSecret<'_>, at: Timestamp) -> bool {
    seconds_within(known.not_before, known.not_after).contains(&at.as_second())
}
