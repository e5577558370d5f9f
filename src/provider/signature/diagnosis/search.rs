//! The search for what makes a refused signature right: which secret, read how, over which text, of which body.
//!
//! Keeps true: each hypothesis costs a bounded number of hashed bytes, and all together at most [`MAX_HASHED`].

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq;

use super::claimed::{Claimed, ClaimedSignature};
use super::key_readings::key_readings;
use super::{
    Alteration, Escapes, KeyReading, KnownSecret, Mistake, Numbers, RefusedDelivery, SignedString, Spacing,
    Style, is_active, is_python_form, numbers, signed_over,
};
use crate::provider::signature::rewritten::{PYTHON, Tree};
use crate::provider::signature::{Algorithm, Scheme};

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
pub(super) struct Explanation<'a> {
    known: &'a KnownSecret<'a>,
    reading: KeyReading,
    algorithm: Algorithm,
    string: SignedString,
    /// The signed text as a definition would say it.
    template: String,
    alteration: Option<Alteration>,
    entry: &'a ClaimedSignature,
}

pub(super) struct Search<'a> {
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
    pub(super) fn new(case: &'a RefusedDelivery<'a>, claimed: &'a Claimed) -> Search<'a> {
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
    pub(super) fn run(mut self) -> Option<Explanation<'a>> {
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
                if explanation.is_some() || self.left == 0 || before - self.left > MAX_HASHED / 4 {
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
                let pieces = [before.as_bytes(), body, after.as_bytes()];
                let found = self.try_text(candidates, pieces, *string, &template);
                if let Some(found) = found {
                    return Some(Explanation { alteration, ..found });
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
                    let pieces = [before.as_bytes(), body, b""];
                    let template = format!("{template}{{body}}");
                    let found = self.try_text(candidates, pieces, SignedString::Headers, &template);
                    if found.is_some() {
                        return found;
                    }
                }
            }
        }
        None
    }

    /// The explanation that a candidate made one of the signatures over a text. `string` and `template` say what the text
    /// is.
    fn try_text(
        &mut self,
        candidates: &[CandidateKey<'a>],
        pieces: [&[u8]; 3],
        string: SignedString,
        template: &str,
    ) -> Option<Explanation<'a>> {
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        for CandidateKey { known, reading, macs } in candidates {
            for mac in macs {
                self.left = self.left.saturating_sub(bytes + SOME_BYTES);
                if self.left == 0 {
                    return None;
                }
                let made = mac.digest(pieces);
                let mut claimed = self.claimed.entries.iter();
                if let Some(entry) = claimed.find(|entry| bool::from(entry.digest.ct_eq(&made))) {
                    let (algorithm, template) = (mac.algorithm(), template.to_owned());
                    let (known, reading) = (*known, *reading);
                    return Some(Explanation {
                        known,
                        reading,
                        algorithm,
                        string,
                        template,
                        alteration: None,
                        entry,
                    });
                }
            }
        }
        None
    }
}

impl Explanation<'_> {
    pub(super) fn mistakes(&self, case: &RefusedDelivery<'_>) -> Vec<Mistake> {
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
