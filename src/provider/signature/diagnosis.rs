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
use jiff::Timestamp;
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;

use super::key::seconds_within;
use super::rewritten::{self, PYTHON, Tree};
pub use super::rewritten::{Escapes, Numbers, Spacing, Style};
use super::{Algorithm, Key, NO_CLOCK, Scheme, SecretForm, SignatureError, SignedRequest, digest};
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
    if best < all.len() { all.swap_remove(best) } else { Vec::new() }
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

/// A key that one reading of a secret gives, for the algorithms of the signatures that the delivery has.
struct CandidateKey<'a> {
    known: &'a KnownSecret<'a>,
    reading: KeyReading,
    macs: Vec<AnyHmac>,
}

/// An HMAC of any algorithm that a scheme may have.
#[derive(Clone)]
enum AnyHmac {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
}

impl AnyHmac {
    fn new(algorithm: Algorithm, key: &[u8]) -> Option<AnyHmac> {
        Some(match algorithm {
            Algorithm::HmacSha1 => AnyHmac::Sha1(Hmac::new_from_slice(key).ok()?),
            Algorithm::HmacSha256 => AnyHmac::Sha256(Hmac::new_from_slice(key).ok()?),
            Algorithm::HmacSha384 => AnyHmac::Sha384(Hmac::new_from_slice(key).ok()?),
            Algorithm::HmacSha512 => AnyHmac::Sha512(Hmac::new_from_slice(key).ok()?),
            Algorithm::Ed25519 | Algorithm::EcdsaP256Sha256 | Algorithm::RsaSha256 | Algorithm::Equal => {
                return None;
            }
        })
    }

    fn algorithm(&self) -> Algorithm {
        match self {
            AnyHmac::Sha1(_) => Algorithm::HmacSha1,
            AnyHmac::Sha256(_) => Algorithm::HmacSha256,
            AnyHmac::Sha384(_) => Algorithm::HmacSha384,
            AnyHmac::Sha512(_) => Algorithm::HmacSha512,
        }
    }

    fn digest(&self, pieces: [&[u8]; 3]) -> Vec<u8> {
        fn finish<M: Mac + Clone>(mac: &M, pieces: [&[u8]; 3]) -> Vec<u8> {
            let mut mac = mac.clone();
            pieces.iter().for_each(|piece| mac.update(piece));
            mac.finalize().into_bytes().to_vec()
        }
        match self {
            AnyHmac::Sha1(mac) => finish(mac, pieces),
            AnyHmac::Sha256(mac) => finish(mac, pieces),
            AnyHmac::Sha384(mac) => finish(mac, pieces),
            AnyHmac::Sha512(mac) => finish(mac, pieces),
        }
    }
}

/// The algorithms whose signatures have the lengths of those claimed. The scheme's own is first.
fn algorithms(scheme: &Scheme, claimed: &Claimed) -> Vec<Algorithm> {
    let hmacs = [Algorithm::HmacSha1, Algorithm::HmacSha256, Algorithm::HmacSha384, Algorithm::HmacSha512];
    let has = |algorithm: &Algorithm| {
        claimed.entries.iter().any(|entry| Some(entry.digest.len()) == algorithm.signature_len())
    };
    let others = hmacs.into_iter().filter(|algorithm| *algorithm != scheme.algorithm).filter(has);
    std::iter::once(scheme.algorithm).chain(others).collect()
}

/// Assumptions under which one of the digests is right.
struct Explanation<'a> {
    known: &'a KnownSecret<'a>,
    reading: KeyReading,
    algorithm: Algorithm,
    string: SignedString,
    /// The signed text as a definition would say it.
    template: String,
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
        let algorithms = algorithms(case.scheme, claimed);
        for known in case.secrets {
            for (reading, key) in key_readings(case.scheme.secret, &known.secret) {
                let macs = algorithms.iter().filter_map(|algorithm| AnyHmac::new(*algorithm, &key)).collect();
                let candidate = CandidateKey { known, reading, macs };
                match (known.source == case.source, reading == case.scheme.secret.into()) {
                    (true, true) => own.push(candidate),
                    (true, false) | (false, true) => other.push(candidate),
                    (false, false) => {}
                }
            }
        }
        Search { case, claimed, own, other, tree: Tree::parse(case.request.body), left: MAX_HASHED }
    }

    /// Tries each mistake alone before two together.
    fn run(mut self) -> Option<Explanation<'a>> {
        if self.claimed.entries.is_empty() {
            return None;
        }
        let (own, other) = (std::mem::take(&mut self.own), std::mem::take(&mut self.other));
        let body = self.case.request.body;
        self.try_body(&own, &[SignedString::Expected], body, None)
            .or_else(|| self.try_body(&other, &[SignedString::Expected], body, None))
            .or_else(|| self.try_body(&own, &SignedString::WRONG, body, None))
            .or_else(|| self.try_headers(&own, body))
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
        for alteration in Alteration::all(self.case.request.body) {
            for body in alteration.undone(self.case.request.body, self.tree.as_ref()) {
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
        let limit = self.case.request.body.len().saturating_mul(2).saturating_add(SOME_BYTES);
        let rewritten = RESPACED.iter().filter_map(|style| self.tree.as_ref()?.write(*style, limit));
        let mut bodies: Vec<Vec<u8>> = rewritten.map(String::into_bytes).collect();
        bodies.insert(0, self.case.request.body.to_vec());
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
            for (before, after, template) in string.around(self.case.scheme, self.claimed, &self.case.request)
            {
                let found = self.try_text(candidates, [before.as_bytes(), body, after.as_bytes()]);
                if let Some((candidate, algorithm, entry)) = found {
                    let CandidateKey { known, reading, .. } = *candidate;
                    let string = *string;
                    return Some(Explanation {
                        known,
                        reading,
                        algorithm,
                        string,
                        template,
                        alteration,
                        entry,
                    });
                }
            }
        }
        None
    }

    /// For a definition: tries any header, and any two, before the body.
    fn try_headers(&mut self, candidates: &[CandidateKey<'a>], body: &[u8]) -> Option<Explanation<'a>> {
        if !self.case.is_defined {
            return None;
        }
        let values = self.case.request.headers.iter().take(MAX_HEADERS).filter_map(|(name, value)| {
            let text = value.to_str().ok().filter(|text| text.len() <= MAX_HEADER)?;
            Some((name.as_str().to_owned(), text.to_owned()))
        });
        let values: Vec<(String, String)> = values.collect();
        for between in ["", ".", ":", "\n", "|", "+"] {
            for (name, value) in &values {
                let one = (format!("{value}{between}"), format!("{{header:{name}}}{between}"));
                let two = values.iter().filter(|(other, _)| other != name).map(|(other, second)| {
                    (
                        format!("{value}{between}{second}{between}"),
                        format!("{{header:{name}}}{between}{{header:{other}}}{between}"),
                    )
                });
                for (before, template) in std::iter::once(one).chain(two) {
                    if let Some((candidate, algorithm, entry)) =
                        self.try_text(candidates, [before.as_bytes(), body, b""])
                    {
                        let CandidateKey { known, reading, .. } = *candidate;
                        let (string, alteration) = (SignedString::Headers, None);
                        let template = format!("{template}{{body}}");
                        return Some(Explanation {
                            known,
                            reading,
                            algorithm,
                            string,
                            template,
                            alteration,
                            entry,
                        });
                    }
                }
            }
        }
        None
    }

    /// The candidate that made one of the signatures over a text, its algorithm, and the signature.
    fn try_text<'c>(
        &mut self,
        candidates: &'c [CandidateKey<'a>],
        pieces: [&[u8]; 3],
    ) -> Option<(&'c CandidateKey<'a>, Algorithm, &'a ClaimedSignature)> {
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        for candidate in candidates {
            for mac in &candidate.macs {
                self.left = self.left.saturating_sub(bytes + SOME_BYTES);
                if self.left == 0 {
                    return None;
                }
                let made = mac.digest(pieces);
                let mut claimed = self.claimed.entries.iter();
                if let Some(entry) = claimed.find(|entry| bool::from(entry.digest.ct_eq(&made))) {
                    return Some((candidate, mac.algorithm(), entry));
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
            found.push(match self.reading.form() {
                Some(form) if case.is_defined => Mistake::Defined { key: "secret", value: form.to_owned() },
                _ => Mistake::Keyed { reading: self.reading, expected: case.scheme.secret },
            });
        } else if !is_active(self.known, case.at) {
            let KnownSecret { slot, not_before, not_after, .. } = *self.known;
            found.push(Mistake::SecretNotCurrent { slot, not_before, not_after });
        }
        let scheme = case.scheme;
        if self.algorithm != scheme.algorithm {
            let value = self.algorithm.label().to_owned();
            found.push(if case.is_defined {
                Mistake::Defined { key: "algorithm", value }
            } else {
                Mistake::Algorithm { found: self.algorithm.label(), expected: scheme.algorithm.label() }
            });
        }
        if self.string != SignedString::Expected {
            found.push(signed_over(case, self.string, self.template.clone()));
        }
        let version = scheme.versions.iter().find(|version| version.name() == self.entry.label);
        if version.is_some_and(|version| version.old && !scheme.accept_old)
            && (self.alteration == Some(Alteration::Rewritten(PYTHON)) || is_python_form(case.request.body))
        {
            found.push(Mistake::OldVersion);
        } else {
            found.extend(self.alteration.map(Mistake::Altered));
            let by_equals = scheme.prefix().ends_with('=');
            if self.entry.by_equals != by_equals || version.is_none_or(|version| version.old) {
                found.push(Mistake::Versioned { header: scheme.header(), expected: scheme.prefix() });
            }
        }
        let expected = scheme.encoding.into();
        if self.entry.spelling != expected && !self.entry.spelling.is_read_as(scheme.encoding) {
            found.push(match self.entry.spelling.encoding() {
                Some(encoding) if case.is_defined => {
                    Mistake::Defined { key: "encoding", value: encoding.label().to_owned() }
                }
                _ => Mistake::Spelt { found: self.entry.spelling, expected },
            });
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
        SecretForm::Base64 => digest::lenient_base64(text),
        SecretForm::Hex => hex::decode(text).ok(),
        SecretForm::Text | SecretForm::PublicKey { .. } => Some(text.as_bytes().to_vec()),
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
/// Of a capture, for the search over headers.
const MAX_HEADERS: usize = 24;
const MAX_HEADER: usize = 128;
/// About a second's work. It is enough for every hypothesis, unless the body is large.
const MAX_HASHED: usize = 128 << 20;
const SOME_BYTES: usize = 128;
