//! The signing headers, read leniently.
//!
//! Keeps true: the claims are not trusted. They are only compared with hypotheses.

use hyper::HeaderMap;

use super::{Mistake, Spelling};
use smallvec::SmallVec;

use crate::provider::signature::digest;
use crate::provider::signature::{Carrier, Encoding, Format, Scheme, Separator, TimeUnit};

/// The claims of one delivery.
#[derive(Default)]
pub(super) struct Claimed {
    pub(super) id: Option<String>,
    pub(super) timestamp: Option<String>,
    pub(super) entries: Vec<ClaimedSignature>,
    /// What is wrong with the headers themselves.
    pub(super) mistakes: Vec<Mistake>,
    /// The signatures of a public-key algorithm.
    pub(super) raw: Vec<Vec<u8>>,
}

/// One signature.
pub(super) struct ClaimedSignature {
    /// `v1`, `sha256`; empty if the signature has none.
    pub(super) label: String,
    /// Whether the label ends with `=`, and not with a comma or a blank.
    pub(super) by_equals: bool,
    pub(super) digest: Vec<u8>,
    pub(super) spelling: Spelling,
}

impl Claimed {
    pub(super) fn of(scheme: &Scheme, headers: &HeaderMap) -> Claimed {
        let mut claimed = Claimed::default();
        let is_there = |carrier: &&Carrier| headers.contains_key(carrier.header);
        let Some(carrier) = scheme.carriers.iter().find(is_there).or(scheme.carriers.first()) else {
            return claimed;
        };
        claimed.id = carrier.id.and_then(|name| claimed.header(scheme, headers, name));
        match scheme.format {
            Format::List(_) => {
                claimed.timestamp = carrier.timestamp.and_then(|name| claimed.header(scheme, headers, name));
                claimed.signatures(scheme, carrier.header, headers);
            }
            Format::Pairs { timestamp, .. } => {
                claimed.signatures(scheme, carrier.header, headers);
                claimed.timestamp_of_pairs(scheme, carrier.header, headers, timestamp);
            }
        }
        if let Some(stamp) = &claimed.timestamp
            && scheme.unit != TimeUnit::Rfc3339
            && (stamp.is_empty() || !stamp.bytes().all(|byte| byte.is_ascii_digit()))
        {
            claimed.mistakes.push(Mistake::TimestampNotUnix);
        }
        claimed
    }

    /// Looks for the timestamp in a header of its own, if it is not among the pairs.
    fn timestamp_of_pairs(
        &mut self,
        scheme: &Scheme,
        header: &'static str,
        headers: &HeaderMap,
        key: &'static str,
    ) {
        let mut has_own_header = false;
        for version in scheme.versions {
            let Some(name) = version.timestamp.filter(|_| self.timestamp.is_none()) else { continue };
            has_own_header = true;
            let mut labels = self.entries.iter().map(|entry| &*entry.label);
            if headers.contains_key(name) || labels.any(|label| label.is_empty() || label == version.name()) {
                self.timestamp = self.header(scheme, headers, name);
            }
        }
        // A missing header of its own is reported already.
        let is_said = has_own_header && !self.mistakes.is_empty();
        if self.timestamp.is_none() && !self.entries.is_empty() && !is_said {
            self.mistakes.push(Mistake::TimestampMissing { header, key });
        }
    }

    /// A header's text, under its name or a similar one.
    fn header(&mut self, scheme: &Scheme, headers: &HeaderMap, name: &'static str) -> Option<String> {
        let of_signatures = scheme.signature_headers().any(|header| header == name);
        let mut found = name.to_owned();
        if !headers.contains_key(name) {
            let meant = headers.keys().find(|other| resembles(scheme, other.as_str(), name));
            match meant {
                Some(other) => {
                    found = other.as_str().to_owned();
                    self.mistakes.push(Mistake::HeaderMisnamed { found: found.clone(), expected: name });
                }
                None => {
                    self.mistakes.push(Mistake::HeaderMissing(name));
                    return None;
                }
            }
        }
        let values: Vec<_> = headers.get_all(&found).iter().collect();
        if values.len() > 1
            && !(of_signatures && matches!(scheme.format, Format::List(Separator::StandardWebhooks)))
        {
            self.mistakes.push(Mistake::HeaderRepeated(name));
        }
        if values.iter().any(|value| value.to_str().is_err()) {
            self.mistakes.push(Mistake::HeaderNotAscii(name));
        }
        let texts: Vec<_> = values.iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        // A timestamp or an id is one value. Of several, the first is as good as any.
        let text = if of_signatures { texts.join(",") } else { texts.first()?.to_string() };
        if text.trim().is_empty() {
            self.mistakes.push(Mistake::HeaderEmpty(name));
        }
        Some(text)
    }

    /// Splits a header of signatures, whatever separates them.
    fn signatures(&mut self, scheme: &Scheme, header: &'static str, headers: &HeaderMap) {
        let known = scheme.versions;
        let time_key = match scheme.format {
            Format::Pairs { timestamp, .. } => timestamp,
            Format::List(_) => "t",
        };
        let Some(text) = self.header(scheme, headers, header) else { return };
        let (mut label, mut labels) = (String::new(), Vec::new());
        let mut undecoded = None;
        for token in text.split([',', ' ', ';', '\t']).filter(|token| !token.is_empty()).take(MAX_TOKENS) {
            let (own, by_equals, value) = match token.split_once('=') {
                Some((own, value))
                    if (is_label(own)
                        || known.iter().any(|version| version.name() == own)
                        || own == time_key)
                        && !value.is_empty()
                        && value != "=" =>
                {
                    (own, true, value)
                }
                _ if is_version(token) => {
                    labels.push(token.to_owned());
                    token.clone_into(&mut label);
                    continue;
                }
                _ => (&*label, false, token),
            };
            if own == time_key {
                self.timestamp = Some(value.to_owned());
                continue;
            }
            labels.push(own.to_owned());
            if scheme.algorithm.has_public_key() {
                self.raw.extend(scheme.encoding.read(value, None).map(SmallVec::into_vec));
                continue;
            }
            match read(value) {
                Ok((digest, spelling)) => {
                    self.entries.push(ClaimedSignature {
                        label: own.to_owned(),
                        by_equals,
                        digest,
                        spelling,
                    });
                }
                Err(bytes) => undecoded = undecoded.or(Some(bytes)),
            }
        }
        let algorithm = scheme.algorithm;
        if let Some(bytes) = undecoded.filter(|_| self.entries.is_empty()) {
            self.mistakes.push(Mistake::NoDigest { header, bytes, algorithm });
        }
        let is_known = |label: &String| known.iter().any(|version| version.name() == label);
        let has_names = known.iter().any(|version| !version.name().is_empty());
        if has_names && !labels.is_empty() && !labels.iter().any(is_known) {
            self.mistakes.push(Mistake::UnknownVersion { header, known });
        }
    }
}

/// Whether the header `other` was probably meant to be `name`: `svix-id`, `Webhook_Id`, `x-webhook-id`.
fn resembles(scheme: &Scheme, other: &str, name: &str) -> bool {
    let plain = |name: &str| {
        let name = name.replace('_', "-");
        name.strip_prefix("x-").unwrap_or(&name).to_owned()
    };
    let (other, name) = (plain(other), plain(name));
    let renamed = |(own, new): (&str, &str)| Some(new.to_owned() + name.strip_prefix(own)?);
    other == name || scheme.renamed.and_then(renamed).is_some_and(|renamed| other == renamed)
}

fn is_label(text: &str) -> bool {
    text == "t" || is_version(text)
}

fn is_version(text: &str) -> bool {
    let digits = text.strip_prefix('v').unwrap_or_default();
    matches!(text, "sha256" | "sha1" | "sha512" | "hmac-sha256")
        || (digits.starts_with(|c: char| c.is_ascii_digit()) && text.len() <= MAX_VERSION)
}

/// A signature in any spelling, or how many bytes it decodes to, if no algorithm makes so many.
fn read(text: &str) -> Result<(Vec<u8>, Spelling), usize> {
    let of_length = |bytes: Vec<u8>, spelling| match bytes.len() {
        20 | 32 | 48 | 64 => Ok((bytes, spelling)),
        other => Err(other),
    };
    if let Ok(bytes) = hex::decode(text) {
        return of_length(bytes, Spelling::Hex);
    }
    if let Some(digest) = digest::from_base64(text) {
        return Ok((digest.to_vec(), Spelling::Base64));
    }
    let plain = text.trim_end_matches('=').replace('-', "+").replace('_', "/");
    let bytes = digest::lenient_base64(&plain).ok_or(0_usize)?;
    let inner = std::str::from_utf8(&bytes).ok().and_then(|inner| hex::decode(inner).ok());
    if let Some(Ok((digest, _))) = inner.map(|inner| of_length(inner, Spelling::Base64OfHex)) {
        return Ok((digest, Spelling::Base64OfHex));
    }
    let spelling = if text.contains(['-', '_']) {
        Spelling::Base64Url
    } else if Encoding::Base64.read(text, None).is_some() && text.len().is_multiple_of(4) {
        Spelling::Base64
    } else {
        Spelling::LooseBase64
    };
    of_length(bytes, spelling)
}

const MAX_TOKENS: usize = 64;
const MAX_VERSION: usize = 4;
