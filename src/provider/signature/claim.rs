//! The signing headers of a delivery, parsed but not yet verified.
//!
//! Keeps true: a claim holds at least one well-formed signature, and one timestamp.

use hyper::HeaderMap;
use hyper::header::HeaderValue;
use subtle::{Choice, ConstantTimeEq};

use super::digest::Digest;
use super::key::ActiveKeys;
use super::list::{self, BLANKS};
use super::scheme::{Format, Labels, Scheme, Version};
use super::{SignatureError, message_id};

pub(super) struct Claim<'a> {
    pub(super) id: Option<&'a str>,
    timestamp: &'a str,
    pub(super) at: i64,
    signatures: Vec<Signature>,
}

type Signature = (&'static Version, Digest);

impl<'a> Claim<'a> {
    pub(super) fn read(scheme: &Scheme, headers: &'a HeaderMap) -> Result<Claim<'a>, SignatureError> {
        let id = scheme.id.map(|name| whole_id(headers, name)).transpose()?;
        let (timestamp, timestamp_header, signatures) = match scheme.format {
            Format::List { timestamp } => {
                let stamp = only(headers, timestamp)?;
                (stamp, timestamp, read_list(scheme, headers)?)
            }
            Format::Pairs { timestamp } => read_pairs(scheme, timestamp, headers)?,
        };
        Ok(Claim { id, timestamp, at: unix_seconds(timestamp, timestamp_header)?, signatures })
    }

    pub(super) fn has_signature(&self, old: bool) -> bool {
        self.signatures.iter().any(|(version, _)| version.old == old)
    }

    /// The slot of the first key that made any of the signatures. Every signature is compared in full.
    pub(super) fn matching_slot(
        &self,
        scheme: &Scheme,
        keys: ActiveKeys<'_>,
        old: bool,
        body: &[u8],
    ) -> Option<usize> {
        let claimed = || self.signatures.iter().filter(|(version, _)| version.old == old);
        let found = keys.iter().find(|(_, key)| {
            let made = key.digest(scheme.text(self.id.unwrap_or_default(), self.timestamp, body));
            bool::from(claimed().fold(Choice::from(0), |any, (_, claimed)| any | made.ct_eq(claimed)))
        });
        found.map(|(slot, _)| slot)
    }
}

fn read_list(scheme: &Scheme, headers: &HeaderMap) -> Result<Vec<Signature>, SignatureError> {
    let entries = list::lines(headers, scheme.header)?.flat_map(list::entries);
    let signatures = well_formed(scheme, entries.filter_map(|entry| entry.split_once(',')));
    if signatures.is_empty() { Err(none_of(scheme, scheme.versions)) } else { Ok(signatures) }
}

/// The timestamp, its header, and the signatures that were made with it.
fn read_pairs<'a>(
    scheme: &Scheme,
    timestamp: &'static str,
    headers: &'a HeaderMap,
) -> Result<(&'a str, &'static str, Vec<Signature>), SignatureError> {
    let text = only(headers, scheme.header)?;
    let malformed = |why| SignatureError::Malformed(scheme.header, why);
    let (mut own, mut several) = (None, false);
    let mut signatures = well_formed(
        scheme,
        pairs(text).inspect(|(key, value)| {
            if *key == timestamp {
                several |= own.replace(*value).is_some();
            }
        }),
    );
    let is_there = |version: &&Version| match version.timestamp {
        None => signatures.iter().any(|(known, _)| known.timestamp.is_none()),
        Some(_) => pairs(text).any(|(key, _)| key == version.label),
    };
    // There is one timestamp. Signatures that were made with another one are ignored.
    let Some(first) = scheme.versions.iter().find(is_there) else {
        return Err(none_of(scheme, scheme.versions));
    };
    let (stamp, timestamp_header) = match first.timestamp {
        Some(own_header) => (only(headers, own_header)?, own_header),
        None => (own.ok_or_else(|| malformed("holds no timestamp"))?, scheme.header),
    };
    if several {
        return Err(malformed("holds more than one timestamp"));
    }
    signatures.retain(|(version, _)| version.timestamp == first.timestamp);
    if signatures.is_empty() {
        return Err(none_of(scheme, std::slice::from_ref(first)));
    }
    Ok((stamp, timestamp_header, signatures))
}

/// The pairs of a header. Blanks around a key or a value are trimmed, and other text is skipped.
fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.trim_matches(BLANKS), value.trim_matches(BLANKS)))
}

/// The well-formed signatures of known versions.
fn well_formed<'t>(scheme: &Scheme, entries: impl Iterator<Item = (&'t str, &'t str)>) -> Vec<Signature> {
    let known = |(label, text)| {
        let version = scheme.versions.iter().find(|version| version.label == label)?;
        Some((version, scheme.encoding.read(text)?))
    };
    entries.filter_map(known).collect()
}

fn none_of(scheme: &Scheme, versions: &'static [Version]) -> SignatureError {
    SignatureError::NoSignature(scheme.header, Labels(versions))
}

fn whole_id<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, SignatureError> {
    let id = only(headers, name)?;
    if message_id::goes_on_into_body(id) {
        return Err(SignatureError::Malformed(name, "holds a timestamp and the start of a body"));
    }
    Ok(id)
}

/// The header's only value. With two, either may be the signed one.
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
    // A number that is too large for an i64 is a timestamp all the same, and far from now.
    Ok(text.parse().unwrap_or(i64::MAX))
}
