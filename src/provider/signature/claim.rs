//! The signing headers of a delivery, parsed but not yet verified.
//!
//! Keeps true: a claim holds at least one well-formed signature, and every header that its scheme covers once.

use hyper::HeaderMap;
use hyper::header::HeaderValue;
use jiff::Timestamp;

use super::SignedRequest;
use super::covered::Covered;
use super::digest::SignatureBytes;
use super::key::Key;
use super::list::{self, BLANKS};
use super::scheme::{Algorithm, Carrier, Format, Labels, Part, Scheme, Separator, TimeUnit, Version};
use super::{SignatureError, message_id};

pub(super) struct Claim<'a> {
    covered: Covered<'a>,
    pub(super) id: Option<&'a str>,
    /// The timestamp, in unix seconds. None: the scheme has none.
    pub(super) at: Option<i64>,
    signatures: Signatures,
}

type Signature = (&'static Version, SignatureBytes);
/// Most deliveries have one signature.
type Signatures = smallvec::SmallVec<[Signature; 1]>;

impl<'a> Claim<'a> {
    pub(super) fn read(
        scheme: &Scheme,
        carrier: &Carrier,
        request: SignedRequest<'a>,
    ) -> Result<Claim<'a>, SignatureError> {
        let headers = request.headers;
        let id = carrier.id.map(|name| whole_id(scheme, headers, name)).transpose()?;
        let (timestamp, signatures) = match scheme.format {
            Format::List(separator) => {
                let stamp = carrier.timestamp.map(|name| Ok((only(headers, name)?, name))).transpose()?;
                (stamp, read_list(scheme, carrier.header, separator, headers)?)
            }
            Format::Pairs { separator, timestamp } => {
                let pairs = PairsHeader { scheme, header: carrier.header, separator, timestamp };
                let (stamp, signatures) = pairs.read(headers)?;
                (Some(stamp), signatures)
            }
        };
        for part in scheme.signed {
            if let Part::Header(name) = part {
                only(headers, name)?;
            }
        }
        let at = timestamp.map(|(text, header)| unix_seconds(scheme.unit, text, header)).transpose()?;
        let timestamp = timestamp.map_or("", |(text, _)| text);
        let covered = Covered { request, id: id.unwrap_or_default(), timestamp };
        Ok(Claim { covered, id, at, signatures })
    }

    pub(super) fn has_signature(&self, old: bool) -> bool {
        self.signatures.iter().any(|(version, _)| version.old == old)
    }

    /// How many well-formed signatures there are.
    pub(super) fn count(&self) -> usize {
        self.signatures.len()
    }

    /// The signed text.
    pub(super) fn signed_text(&self, scheme: &Scheme) -> Vec<u8> {
        self.covered.text(scheme.signed)
    }

    /// The first key that made any of the signatures over `body`.
    pub(super) fn matching_key<'k>(
        &self,
        scheme: &Scheme,
        mut keys: impl Iterator<Item = &'k Key>,
        old: bool,
        body: &[u8],
    ) -> Option<&'k Key> {
        let covered = Covered { request: SignedRequest { body, ..self.covered.request }, ..self.covered };
        keys.find(|key| {
            let claimed = self.signatures.iter().filter(|(version, _)| version.old == old);
            key.made_any(&covered, scheme.signed, claimed.map(|(_, signature)| signature))
        })
    }
}

fn read_list(
    scheme: &Scheme,
    header: &'static str,
    separator: Separator,
    headers: &HeaderMap,
) -> Result<Signatures, SignatureError> {
    let signatures: Signatures = match separator {
        Separator::StandardWebhooks => list::lines(headers, header)?
            .flat_map(list::entries)
            .filter_map(|entry| signature(scheme, entry))
            .collect(),
        Separator::None => signature(scheme, only(headers, header)?).into_iter().collect(),
        Separator::Text(between) => {
            let entries = only(headers, header)?.split(between).map(|entry| entry.trim_matches(BLANKS));
            entries.filter_map(|entry| signature(scheme, entry)).collect()
        }
    };
    if signatures.is_empty() { Err(none_of(header, scheme.versions)) } else { Ok(signatures) }
}

/// An entry of a list, as a signature of a known version.
fn signature(scheme: &Scheme, entry: &str) -> Option<Signature> {
    let known = |version: &'static Version| {
        let text = entry.strip_prefix(version.label)?.strip_suffix(version.after)?;
        Some((version, decoded(scheme, text)?))
    };
    scheme.versions.iter().find_map(known)
}

fn decoded(scheme: &Scheme, text: &str) -> Option<SignatureBytes> {
    if scheme.algorithm == Algorithm::Equal {
        return (!text.is_empty()).then(|| SignatureBytes::from_slice(text.as_bytes()));
    }
    if scheme.padded && !text.len().is_multiple_of(4) {
        return None;
    }
    scheme.encoding.read(text, scheme.algorithm.signature_len())
}

/// A header of `key=value` pairs.
struct PairsHeader<'s> {
    scheme: &'s Scheme,
    header: &'static str,
    separator: &'static str,
    timestamp: &'static str,
}

impl PairsHeader<'_> {
    /// The timestamp with its header, and the signatures that were made with it.
    fn read<'a>(
        &self,
        headers: &'a HeaderMap,
    ) -> Result<((&'a str, &'static str), Signatures), SignatureError> {
        let text = only(headers, self.header)?;
        let versions = self.scheme.versions;
        let malformed = |why| SignatureError::Malformed(self.header, why);
        let (mut own, mut several) = (None, false);
        let mut signatures = Signatures::new();
        for (key, value) in self.pairs(text) {
            if key == self.timestamp {
                several |= own.replace(value).is_some();
            }
            let version = versions.iter().find(|version| version.label == key);
            signatures.extend(version.and_then(|version| Some((version, decoded(self.scheme, value)?))));
        }
        let is_there = |version: &&Version| match version.timestamp {
            None => signatures.iter().any(|(known, _)| known.timestamp.is_none()),
            Some(_) => self.pairs(text).any(|(key, _)| key == version.label),
        };
        // There is one timestamp. Signatures that were made with another one are ignored.
        let Some(first) = versions.iter().find(is_there) else {
            return Err(none_of(self.header, versions));
        };
        let stamp = match first.timestamp {
            Some(own_header) => (only(headers, own_header)?, own_header),
            None => (own.ok_or_else(|| malformed("holds no timestamp"))?, self.header),
        };
        if several {
            return Err(malformed("holds more than one timestamp"));
        }
        signatures.retain(|(version, _)| version.timestamp == first.timestamp);
        if signatures.is_empty() {
            return Err(none_of(self.header, std::slice::from_ref(first)));
        }
        Ok((stamp, signatures))
    }

    /// The pairs of a header. Blanks around a key or a value are trimmed, and other text is skipped.
    fn pairs<'t>(&self, text: &'t str) -> impl Iterator<Item = (&'t str, &'t str)> + use<'t> {
        let pairs = text.split(self.separator).filter_map(|pair| pair.split_once('='));
        pairs.map(|(key, value)| (key.trim_matches(BLANKS), value.trim_matches(BLANKS)))
    }
}

fn none_of(header: &'static str, versions: &'static [Version]) -> SignatureError {
    SignatureError::NoSignature(header, Labels(versions))
}

fn whole_id<'a>(
    scheme: &Scheme,
    headers: &'a HeaderMap,
    name: &'static str,
) -> Result<&'a str, SignatureError> {
    let id = only(headers, name)?;
    if message_id::goes_on_into_body(id, scheme.signed) {
        return Err(SignatureError::Malformed(name, "holds a timestamp and the start of a body"));
    }
    Ok(id)
}

/// The header's only value. With two, either may be the signed one.
pub(super) fn only<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, SignatureError> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(SignatureError::Missing(name))?;
    if values.next().is_some() {
        return Err(SignatureError::Malformed(name, "is there more than once"));
    }
    let text = HeaderValue::to_str(value).map_err(|_| SignatureError::Malformed(name, "is not ASCII"))?;
    if text.is_empty() { Err(SignatureError::Missing(name)) } else { Ok(text) }
}

/// A timestamp in unix seconds, rounded down.
pub(super) fn unix_seconds(unit: TimeUnit, text: &str, header: &'static str) -> Result<i64, SignatureError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // A number that is too large for an i64 is a timestamp all the same, and far from now.
    let number = || text.parse().unwrap_or(i64::MAX);
    let malformed = |what| Err(SignatureError::Malformed(header, what));
    match unit {
        TimeUnit::Seconds if digits => Ok(number()),
        TimeUnit::Milliseconds if digits => Ok(number() / 1000),
        TimeUnit::Seconds => malformed("holds no timestamp in unix seconds"),
        TimeUnit::Milliseconds => malformed("holds no timestamp in unix milliseconds"),
        TimeUnit::Rfc3339 => match text.parse::<Timestamp>() {
            Ok(at) => Ok(at.as_second()),
            Err(_) => malformed("holds no timestamp in RFC 3339"),
        },
    }
}
