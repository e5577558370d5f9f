//! Why a signature does not match: the usual mistakes, each tried against what was sent.
//!
//! Keeps true: computed digests, keys and secrets never leave here; what does is the name of a mistake. Nothing here lets
//! anything in: only [`super::verify`] does. The work is bounded by the bytes hashed.

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
    /// What the verification said.
    pub error: &'a SignatureError,
    /// When it arrived.
    pub at: Timestamp,
}

/// A configured secret.
pub struct KnownSecret<'a> {
    /// Whose it is.
    pub source: &'a str,
    /// Its place in that source's list, from 0.
    pub slot: usize,
    /// The secret.
    pub secret: Secret,
    /// From when it counts.
    pub not_before: Option<Timestamp>,
    /// Until when.
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
        Some(hit) => found.extend(hit.mistakes(case)),
        None if claimed.entries.is_empty() => {
            if found.is_empty() {
                found.push(Mistake::NoDigest { header: case.scheme.header, bytes: 0 });
            }
        }
        None => {
            found.extend(body_defects(case.headers, case.body));
            let expected = case.scheme.encoding.into();
            // Whatever else is wrong, it cannot pass like this.
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
            // Everything about it is right but how it is written down.
            SignatureError::Malformed(header, _) | SignatureError::NoSignature(header, _) => {
                Mistake::Versioned { header, expected: case.scheme.prefix() }
            }
            _ => Mistake::Unexplained,
        });
    }
    found
}

/// A secret as a key.
struct CandidateKey<'a> {
    known: &'a KnownSecret<'a>,
    reading: KeyReading,
    mac: Hmac<Sha256>,
}

/// An explanation under which one of the digests is right.
struct Explanation<'a> {
    known: &'a KnownSecret<'a>,
    reading: KeyReading,
    form: SignedString,
    alteration: Option<Alteration>,
    entry: &'a ClaimedSignature,
}

struct Search<'a> {
    case: &'a RefusedDelivery<'a>,
    claimed: &'a Claimed,
    /// The source's own secrets, as they should be read.
    own: Vec<CandidateKey<'a>>,
    /// The same read otherwise, and the other sources' secrets.
    other: Vec<CandidateKey<'a>>,
    tree: Option<Tree<'a>>,
    /// How many bytes more may be hashed.
    left: usize,
}

impl<'a> Search<'a> {
    fn new(case: &'a RefusedDelivery<'a>, claimed: &'a Claimed) -> Search<'a> {
        let (mut own, mut other) = (Vec::new(), Vec::new());
        for known in case.secrets {
            for (reading, key) in readings(case.scheme.secret, &known.secret) {
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

    /// One mistake alone before two together.
    fn run(mut self) -> Option<Explanation<'a>> {
        if self.claimed.entries.is_empty() {
            return None;
        }
        let (own, other) = (std::mem::take(&mut self.own), std::mem::take(&mut self.other));
        let as_it_is = self.case.body;
        self.with_body(&own, &[SignedString::Expected], as_it_is, None)
            .or_else(|| self.with_body(&other, &[SignedString::Expected], as_it_is, None))
            .or_else(|| self.with_body(&own, &SignedString::WRONG, as_it_is, None))
            .or_else(|| self.altered(&own, &[SignedString::Expected]))
            .or_else(|| self.renumbered(&own))
            .or_else(|| self.with_body(&other, &SignedString::WRONG, as_it_is, None))
            .or_else(|| self.altered(&own, &SignedString::WRONG))
            .or_else(|| self.altered(&other, &[SignedString::Expected]))
    }

    fn altered(
        &mut self,
        candidates: &[CandidateKey<'a>],
        forms: &[SignedString],
    ) -> Option<Explanation<'a>> {
        for alteration in Alteration::all(self.case.body) {
            for body in alteration.undone(self.case.body, self.tree.as_ref()) {
                let hit = self.with_body(candidates, forms, &body, Some(alteration));
                if hit.is_some() || self.left == 0 {
                    return hit;
                }
            }
        }
        None
    }

    /// The body with other numbers, as it is and in the usual forms of JSON: what rewrites numbers often rewrites the rest too.
    fn renumbered(&mut self, candidates: &[CandidateKey<'a>]) -> Option<Explanation<'a>> {
        let limit = self.case.body.len().saturating_mul(2).saturating_add(SOME_BYTES);
        let rewritten = RESPACED.iter().filter_map(|style| self.tree.as_ref()?.write(*style, limit));
        let mut bodies: Vec<Vec<u8>> = rewritten.map(String::into_bytes).collect();
        bodies.insert(0, self.case.body.to_vec());
        let before = self.left;
        for body in bodies {
            for variant in numbers::variants(&body) {
                let hit = self.with_body(
                    candidates,
                    &[SignedString::Expected],
                    &variant,
                    Some(Alteration::Renumbered),
                );
                // The likelier hypotheses that follow need their share.
                if hit.is_some() || before - self.left > MAX_HASHED / 4 {
                    return hit;
                }
            }
        }
        None
    }

    fn with_body(
        &mut self,
        candidates: &[CandidateKey<'a>],
        forms: &[SignedString],
        body: &[u8],
        alteration: Option<Alteration>,
    ) -> Option<Explanation<'a>> {
        for form in forms {
            let around =
                form.around(self.case.scheme, self.claimed.id.as_deref(), self.claimed.timestamp.as_deref());
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
                        return Some(Explanation { known, reading, form: *form, alteration, entry });
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
        } else if !current(self.known, case.at) {
            let KnownSecret { slot, not_before, not_after, .. } = *self.known;
            found.push(Mistake::SecretNotCurrent { slot, not_before, not_after });
        }
        if self.form != SignedString::Expected {
            found.push(Mistake::SignedOver { form: self.form, expected: case.scheme.signed_parts() });
        }
        let scheme = case.scheme;
        let version = scheme.versions.iter().find(|version| version.label == self.entry.label);
        if version.is_some_and(|version| version.old && !scheme.accept_old)
            && (self.alteration == Some(Alteration::Rewritten(PYTHON)) || is_pythonic(case.body))
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

fn is_pythonic(body: &[u8]) -> bool {
    rewritten::python(body).is_some_and(|python| python.as_bytes() == body)
}

fn current(known: &KnownSecret<'_>, at: Timestamp) -> bool {
    seconds_within(known.not_before, known.not_after).contains(&at.as_second())
}

/// A secret as every key that somebody may have made of it, each key once.
fn readings(form: SecretForm, secret: &Secret) -> Vec<(KeyReading, Vec<u8>)> {
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
        // The same key by the right way and by a wrong one is the right one.
        if readings.iter().all(|(_, known)| *known != key) {
            readings.push((reading, key));
        }
    }
    readings
}

fn without_prefix(text: &str) -> &str {
    text.strip_prefix(STANDARD_WEBHOOKS_PREFIX).unwrap_or(text)
}

/// How a body is written before or after its numbers were.
const RESPACED: [Style; 3] = [
    Style { spacing: Spacing::Compact, sorted: false, escapes: Escapes::Plain, numbers: Numbers::AsWritten },
    Style { spacing: Spacing::Python, sorted: false, escapes: Escapes::Ascii, numbers: Numbers::AsWritten },
    Style { spacing: Spacing::Python, sorted: false, escapes: Escapes::Plain, numbers: Numbers::AsWritten },
];
/// A second's work. A large body gets the likelier hypotheses, any other every one.
const MAX_HASHED: usize = 128 << 20;
const SOME_BYTES: usize = 128;
