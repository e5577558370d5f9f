//! A run's bloom filter: it tells without a read that the run does not hold a key.
//!
//! Keeps true: a key that was added is never reported as absent. It takes about ten bits a key and reads one cache line
//! per look-up.
//!
//! Keys are prefixes of SHA-256, so their own bytes serve as hashes: the first eight choose the line, the last eight
//! the bits in it. Lines ascend with the keys. So a filter built in key order is built from start to end and written
//! piece by piece.

use crate::event::Identity;

use super::block;

/// 512 bits: a cache line.
pub(super) type Line = [u64; 8];

/// The bits of one run.
#[derive(Debug, Default)]
pub(super) struct Filter {
    lines: Vec<Line>,
}

/// The number of lines for this many keys.
pub(super) fn lines_for(keys: u64) -> u64 {
    (keys * BITS_PER_KEY).div_ceil(512).max(1)
}

/// The line of a key in a filter of this many lines.
pub(super) fn line_of(key: &Identity, lines: u64) -> u64 {
    ((u128::from(block::prefix(key)) * u128::from(lines)) >> 64) as u64
}

/// Adds a key to its line.
pub(super) fn mark(line: &mut Line, key: &Identity) {
    for bit in bits(key) {
        line[bit >> 6] |= 1 << (bit & 63);
    }
}

impl Filter {
    /// An empty filter with room for this many lines.
    pub(super) fn with_capacity(lines: u64) -> Filter {
        Filter { lines: Vec::with_capacity(usize::try_from(lines).unwrap_or(0)) }
    }

    /// Appends lines from the bytes that `to_bytes` wrote.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        let (lines, _) = bytes.as_chunks::<64>();
        self.lines.extend(lines.iter().map(|bytes| {
            let mut line = Line::default();
            for (word, bytes) in line.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *word = u64::from_le_bytes(*bytes);
            }
            line
        }));
    }

    /// False if the run certainly does not hold the key.
    pub(super) fn may_hold(&self, key: &Identity) -> bool {
        let line = line_of(key, self.lines.len() as u64) as usize;
        let Some(line) = self.lines.get(line) else { return false };
        bits(key).all(|bit| line[bit >> 6] & (1 << (bit & 63)) != 0)
    }
}

/// The lines as bytes, for the database.
pub(super) fn to_bytes(lines: &[Line]) -> Vec<u8> {
    lines.iter().flatten().flat_map(|word| word.to_le_bytes()).collect()
}

fn bits(key: &Identity) -> impl Iterator<Item = usize> {
    let hash = key.0.last_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    (0..PROBES).map(move |probe| ((hash >> (9 * probe)) & 511) as usize)
}

const BITS_PER_KEY: u64 = 10;
const PROBES: u32 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_every_key_and_few_others() {
        let keys: Vec<Identity> = (0..20_000).map(|_| Identity(crate::base::clock::random())).collect();
        let count = lines_for(10_000);
        let mut lines = vec![Line::default(); count as usize];
        for key in &keys[..10_000] {
            mark(&mut lines[line_of(key, count) as usize], key);
        }
        let mut filter = Filter::with_capacity(count);
        filter.extend(&to_bytes(&lines));
        assert!(keys[..10_000].iter().all(|key| filter.may_hold(key)));
        let wrong = keys[10_000..].iter().filter(|key| filter.may_hold(key)).count();
        assert!(wrong < 300, "{wrong} of 10000 false positives");
    }

    #[test]
    fn an_empty_filter_holds_nothing() {
        assert!(!Filter::default().may_hold(&Identity([7; 16])));
    }
}
