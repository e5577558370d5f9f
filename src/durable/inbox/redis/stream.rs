//! Stream names: which stream an event goes to, which keys belong to it, and which streams a template covers.
//!
//! Keeps true: an event and the memory of its identity share a hash slot, for every template and number of partitions.
//! Every gateway sends the same delivery to the same stream while name and partitions stay.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::config::queue_name::{Part, QueueName};
use crate::durable::inbox::EnqueueRequest;
use crate::event::Identity;

/// A stream's name, which may be a template, and its number of partitions.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    name: QueueName,
    partitions: u32,
}

impl Streams {
    /// Parses a template.
    ///
    /// Commas are refused because they separate the streams in a cursor. Braces other than the placeholders' are
    /// refused because they would form a hash tag and separate the stream from its dedupe keys.
    pub(super) fn parse(name: &str, partitions: u32) -> Result<Streams, String> {
        if partitions == 0 {
            return Err("partitions is 0; at least one is needed".to_owned());
        }
        if name.contains(',') {
            return Err("the name holds a comma".to_owned());
        }
        Ok(Streams { name: QueueName::parse(name)?, partitions })
    }

    /// The partition of an event: the 64-bit FNV-1a hash of its partition key, modulo the number of partitions.
    pub(super) fn partition(&self, partition_key: &str) -> u32 {
        let hash = partition_key
            .bytes()
            .fold(FNV_OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME));
        // The remainder is below `partitions`, which is a u32.
        (hash % u64::from(self.partitions)) as u32
    }

    /// The stream of an event in this partition.
    pub(super) fn stream(&self, request: &EnqueueRequest, partition: u32) -> String {
        let mut stream = self.name.fill(request.names());
        number(&mut stream, partition, self.partitions);
        stream
    }

    /// Every stream, if the name is no template.
    pub(super) fn fixed(&self) -> Option<Vec<String>> {
        Some(numbered(self.name.fixed()?, self.partitions).collect())
    }

    /// Every stream when the template expands to these names.
    pub(super) fn all(&self, names: &BTreeSet<String>) -> Vec<String> {
        let filled = || names.iter().flat_map(|name| numbered(name, self.partitions)).collect();
        self.fixed().unwrap_or_else(filled)
    }

    /// The glob for SCAN. It matches too much, so [`Streams::covers`] decides.
    pub(super) fn pattern(&self) -> String {
        let mut pattern = String::new();
        for part in self.name.parts() {
            match part {
                Part::Text(text) => {
                    for c in text.chars() {
                        if matches!(c, '*' | '?' | '[' | ']' | '\\' | '^') {
                            pattern.push('\\');
                        }
                        pattern.push(c);
                    }
                }
                Part::Provider | Part::Source | Part::Type => pattern.push('*'),
            }
        }
        if self.partitions > 1 {
            pattern.push_str(".*");
        }
        pattern
    }

    /// Whether the template can produce this stream.
    pub(super) fn covers(&self, stream: &str) -> bool {
        if self.partitions == 1 {
            return self.name.covers(stream);
        }
        let Some((name, number)) = stream.rsplit_once('.') else { return false };
        let canonical = number.parse::<u32>().is_ok_and(|n| n < self.partitions && n.to_string() == number);
        canonical && self.name.covers(name)
    }
}

/// The streams of a queue with this name and number of partitions.
pub fn numbered(name: &str, partitions: u32) -> impl Iterator<Item = String> {
    (0..partitions).map(move |partition| {
        let mut stream = name.to_owned();
        number(&mut stream, partition, partitions);
        stream
    })
}

fn number(stream: &mut String, partition: u32, partitions: u32) {
    if partitions > 1 {
        // Writing to a String cannot fail.
        let _ = write!(stream, ".{partition}");
    }
}

/// The key that remembers an identity. The braces make the stream's name the hash tag, so that both share a slot.
pub(super) fn seen_key(stream: &str, source: &str, identity: &Identity) -> String {
    let mut hex = [0; 32];
    // Cannot fail: the slice is twice as long.
    let _ = hex::encode_to_slice(identity.0, &mut hex);
    let hex = std::str::from_utf8(&hex).unwrap_or_default();
    ["{", stream, "}:seen:", source, ":", hex].concat()
}

/// A key of the same shape as [`seen_key`] that is never written.
pub(super) fn probe_key(stream: &str) -> String {
    format!("{{{stream}}}:seen:probe")
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a_of_the_published_vectors() {
        let wide = Streams::parse("any", u32::MAX).unwrap();
        for (text, hash) in
            [("", 0xcbf2_9ce4_8422_2325_u64), ("a", 0xaf63_dc4c_8601_ec8c), ("foobar", 0x8594_4171_f739_67e8)]
        {
            assert_eq!(u64::from(wide.partition(text)), hash % u64::from(u32::MAX), "{text}");
        }
    }

    #[test]
    fn a_brace_that_could_become_a_hash_tag_is_refused() {
        for name in ["", "a{b}c", "a}b", "{", "{type", "a b", "a,b"] {
            assert!(Streams::parse(name, 1).is_err(), "{name}");
        }
        assert!(Streams::parse("a", 0).is_err());
    }

    #[test]
    fn a_template_covers_its_own_streams_and_no_others() {
        let plain = Streams::parse("hooks", 3).unwrap();
        assert_eq!(plain.fixed().unwrap(), ["hooks.0", "hooks.1", "hooks.2"]);
        assert!(
            plain.covers("hooks.2")
                && !plain.covers("hooks.3")
                && !plain.covers("hooks")
                && !plain.covers("hooks.02")
        );
        let by_type = Streams::parse("h.{provider}.{type}", 1).unwrap();
        assert_eq!(by_type.fixed(), None);
        assert_eq!(by_type.pattern(), "h.*.*");
        assert!(
            by_type.covers("h.iof.kyc.verified") && !by_type.covers("h.iof") && !by_type.covers("g.iof.x")
        );
        assert_eq!(Streams::parse("a*{source}", 2).unwrap().pattern(), "a\\**.*");
    }
}
