//! Sample payloads, as each provider would send them.
//!
//! Keeps true: two samples are two events, since each has new ids.

use jiff::Timestamp;

use super::Provider;
use crate::event::microseconds;

/// The values that a provider puts into its sample.
pub(super) struct Sample<'a> {
    /// The provider's type.
    pub(super) kind: &'a str,
    /// A subscription that the source accepts, if it lists any.
    pub(super) subscription: Option<&'a str>,
    pub(super) time: String,
    random: fn() -> [u8; 16],
}

impl Sample<'_> {
    pub(super) fn number(&self) -> u32 {
        let [a, b, c, d, ..] = (self.random)();
        u32::from_be_bytes([a, b, c, d])
    }

    pub(super) fn uuid(&self) -> String {
        uuid((self.random)())
    }

    /// Twelve digits of hex.
    pub(super) fn short(&self) -> String {
        hex::encode(&(self.random)()[..6])
    }
}

impl Provider {
    /// A sample payload. `kind` is the provider's type or a canonical one. Any other type is used as it is.
    pub fn sample(
        &self,
        kind: Option<&str>,
        subscription: Option<&str>,
        now: Timestamp,
        random: fn() -> [u8; 16],
    ) -> String {
        let mut known = self.types.iter();
        let kind = match kind {
            None => known.next().map_or("sample", |(own, _)| own),
            Some(kind) => known.find(|(_, canonical)| *canonical == kind).map_or(kind, |(own, _)| own),
        };
        (self.sample)(&Sample { kind, subscription, time: microseconds(now), random }).to_string()
    }
}

/// A random UUID made of these bytes.
pub fn uuid(mut bytes: [u8; 16]) -> String {
    // RFC 9562: version 4, and its variant.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex::encode(bytes);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
