//! Explains why a signature does not match, by trying the usual mistakes against the delivery.
//!
//! Keeps true: computed digests, keys and secrets never leave this module, only the names of mistakes. It lets no
//! delivery in: only [`super::verify`] does. A limit on the bytes hashed bounds the work.

mod body;
mod charset;
mod claimed;
mod mistake;
mod numbers;
mod string;
mod wrapping;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use hyper::HeaderMap;
use jiff::Timestamp;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use super::key::seconds_within;
use super::rewritten::{self, PYTHON, Tree};
pub use super::rewritten::{Escapes, Numbers, Spacing, Style};
use super::{Format, NO_CLOCK, Scheme, SecretForm, SignatureError, digest};
use crate::config::secret::{STANDARD_WEBHOOKS_PREFIX, Secret};
pub use body::{Alteration, body_defects};
use claimed::{Claimed, ClaimedSignature};
pub use mistake::{KeyReading, Mistake, Spelling};
pub use string::SignedString;

/// A delivery that was refused, and everything that may explain it.
pub struct RefusedDelivery<'a> {
    /// The source's scheme.
    pub scheme: &'a Scheme,
    /// The secrets of every source, its own among them.
    pub secrets: &'a [KnownSecret<'a>],
    /// The source's name.
    pub source: &'a str,
    /// The delivery's headers.
    pub headers: &'a HeaderMap,
    /// Its raw body.
    pub body: &'a [u8],
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
    let claimed = Claimed::of(case.scheme, case.headers);
    let mut found = claimed.mistakes.clone();
    match Search::new(case, &claimed).run() {
        Some(explanation) => found.extend(explanation.mistakes(case)),
        None if claimed.entries.is_empty() => {
            if found.is_empty() {
                found.push(Mistake::NoDigest { header: case.scheme.header, bytes: 0 });
            }
        }
        None => {
            found.extend(body_defects(case.headers, case.body));
            let expected = case.scheme.encoding.into();
            // A signature in another encoding cannot pass, whatever else is wrong.
            if let Some(entry) = claimed.entries.first()
                && claimed.entries.iter().all(|entry| entry.spelling != expected)
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

/// A key that one reading of a secret gives.
struct CandidateKey<'a> {
    known: &'a KnownSecret<'a>,
    reading: KeyReading,
    mac: Hmac<Sha256>,
}

/// Assumptions under which one of the digests is right.
struct Explanation<'a> {
    known: &'a KnownSecret<'a>,
    reading: KeyReading,
    string: SignedString,
    alteration: Option<Alteration>,
    entry: &'a ClaimedSignature,
}

struct Search<'a> {
    case: &'a RefusedDelivery<'a>,
    claimed: &'a Claimed,
    /// The source's own secrets, read as the scheme says.
    own: Vec<CandidateKey<'a>>,
    /// The same secrets read in other ways, and the other sources' secrets.
    other: Vec<CandidateKey<'a>>,
    tree: Option<Tree<'a>>,
    /// How many more bytes may be hashed.
    left: usize,
}

impl<'a> Search<'a> {
    fn new(case: &'a RefusedDelivery<'a>, claimed: &'a Claimed) -> Search<'a> {
        let (mut own, mut other) = (Vec::new(), Vec::new());
        for known in case.secrets {
            for (reading, key) in key_readings(case.scheme.secret, &known.secret) {
                let Ok(mac) = Hmac::new_from_slice(&key) else { continue };
                let candidate = CandidateKey { known, reading, mac };
                match (known.source == case.source, reading == case.scheme.secret.into()) {
                    (true, true) => own.push(candidate),
                    (true, false) | (false, true) => other.push(candidate),
                    (false, false) => {}
                }
            }
        }
        Search { case, claimed, own, other, tree: Tree::parse(case.body), left: MAX_HASHED }
    }

    /// Tries each mistake alone before two together.
    fn run(mut self) -> Option<Explanation<'a>> {
        if self.claimed.entries.is_empty() {
            return None;
        }
        let (own, other) = (std::mem::take(&mut self.own), std::mem::take(&mut self.other));
        let body = self.case.body;
        self.try_body(&own, &[SignedString::Expected], body, None)
            .or_else(|| self.try_body(&other, &[SignedString::Expected], body, None))
            .or_else(|| self.try_body(&own, &SignedString::WRONG, body, None))
            .or_else(|| self.try_alterations(&own, &[SignedString::Expected]))
            .or_else(|| self.try_renumbered(&own))
            .or_else(|| self.try_body(&other, &SignedString::WRONG, body, None))
            .or_else(|| self.try_alterations(&own, &SignedString::WRONG))
            .or_else(|| self.try_alterations(&other, &[SignedString::Expected]))
    }

    fn try_alterations(
        &mut self,
        candidates: &[CandidateKey<'a>],
        strings: &[SignedString],
    ) -> Option<Explanation<'a>> {
        for alteration in Alteration::all(self.case.body) {
            for body in alteration.undone(self.case.body, self.tree.as_ref()) {
                let explanation = self.try_body(candidates, strings, &body, Some(alteration));
                if explanation.is_some() || self.left == 0 {
                    return explanation;
                }
            }
        }
        None
    }

    /// Tries the body with other numbers, as it is and in the usual forms of JSON: code that rewrites numbers often
    /// rewrites the rest too.
    fn try_renumbered(&mut self, candidates: &[CandidateKey<'a>]) -> Option<Explanation<'a>> {
        let limit = self.case.body.len().saturating_mul(2).saturating_add(SOME_BYTES);
        let rewritten = RESPACED.iter().filter_map(|style| self.tree.as_ref()?.write(*style, limit));
        let mut bodies: Vec<Vec<u8>> = rewritten.map(String::into_bytes).collect();
        bodies.insert(0, self.case.body.to_vec());
        let before = self.left;
        for body in bodies {
            for variant in numbers::variants(&body) {
                let explanation = self.try_body(
                    candidates,
                    &[SignedString::Expected],
                    &variant,
                    Some(Alteration::Renumbered),
                );
                // The likelier hypotheses that follow need their share of the work.
                if explanation.is_some() || before - self.left > MAX_HASHED / 4 {
                    return explanation;
                }
            }
        }
        None
    }

    fn try_body(
        &mut self,
        candidates: &[CandidateKey<'a>],
        strings: &[SignedString],
        body: &[u8],
        alteration: Option<Alteration>,
    ) -> Option<Explanation<'a>> {
        for string in strings {
            let around = string.around(
                self.case.scheme,
                self.claimed.id.as_deref(),
                self.claimed.timestamp.as_deref(),
            );
            for (before, after) in around {
                for candidate in candidates {
                    self.left = self.left.saturating_sub(body.len() + SOME_BYTES);
                    if self.left == 0 {
                        return None;
                    }
                    let mut mac = candidate.mac.clone();
                    mac.update(before.as_bytes());
                    mac.update(body);
                    mac.update(after.as_bytes());
                    let made: digest::Digest = mac.finalize().into_bytes().into();
                    let claimed = self.claimed.entries.iter();
                    let mut right = claimed.filter(|entry| bool::from(entry.digest.ct_eq(&made)));
                    if let Some(entry) = right.next() {
                        let CandidateKey { known, reading, .. } = *candidate;
                        return Some(Explanation { known, reading, string: *string, alteration, entry });
                    }
                }
            }
        }
        None
    }
}

impl Explanation<'_> {
    fn mistakes(&self, case: &RefusedDelivery<'_>) -> Vec<Mistake> {
        let mut found = Vec::new();
        if self.known.source != case.source {
            found.push(Mistake::SecretOf(self.known.source.to_owned()));
        } else if self.reading != case.scheme.secret.into() {
            found.push(Mistake::Keyed { reading: self.reading, expected: case.scheme.secret });
        } else if !is_active(self.known, case.at) {
            let KnownSecret { slot, not_before, not_after, .. } = *self.known;
            found.push(Mistake::SecretNotCurrent { slot, not_before, not_after });
        }
        if self.string != SignedString::Expected {
            found.push(Mistake::SignedOver { form: self.string, expected: case.scheme.signed_parts() });
        }
        let scheme = case.scheme;
        let version = scheme.versions.iter().find(|version| version.label == self.entry.label);
        if version.is_some_and(|version| version.old && !scheme.accept_old)
            && (self.alteration == Some(Alteration::Rewritten(PYTHON)) || is_python_form(case.body))
        {
            found.push(Mistake::OldVersion);
        } else {
            found.extend(self.alteration.map(Mistake::Altered));
            let by_equals = matches!(scheme.format, Format::Pairs { .. });
            if self.entry.by_equals != by_equals || version.is_none_or(|version| version.old) {
                found.push(Mistake::Versioned { header: scheme.header, expected: scheme.prefix() });
            }
        }
        let expected = scheme.encoding.into();
        if self.entry.spelling != expected {
            found.push(Mistake::Spelt { found: self.entry.spelling, expected });
        }
        found
    }
}

fn is_python_form(body: &[u8]) -> bool {
    rewritten::python(body).is_some_and(|python| python.as_bytes() == body)
}

fn is_active(known: &KnownSecret<'_>, at: Timestamp) -> bool {
    seconds_within(known.not_before, known.not_after).contains(&at.as_second())
}

/// Every key that a sender may have made of a secret, each key once.
fn key_readings(form: SecretForm, secret: &Secret) -> Vec<(KeyReading, Vec<u8>)> {
    let text = secret.expose();
    let bare = without_prefix(text);
    let expected_key = |text: &str| match form {
        SecretForm::Whsec => digest::lenient_base64(without_prefix(text)),
        SecretForm::Text => Some(text.as_bytes().to_vec()),
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

/// The usual forms of a body whose numbers were rewritten.
const RESPACED: [Style; 3] = [
    Style { spacing: Spacing::Compact, sorted: false, escapes: Escapes::Plain, numbers: Numbers::AsWritten },
    Style { spacing: Spacing::Python, sorted: false, escapes: Escapes::Ascii, numbers: Numbers::AsWritten },
    Style { spacing: Spacing::Python, sorted: false, escapes: Escapes::Plain, numbers: Numbers::AsWritten },
];
/// About a second's work. It is enough for every hypothesis, unless the body is large.
const MAX_HASHED: usize = 128 << 20;
const SOME_BYTES: usize = 128;
