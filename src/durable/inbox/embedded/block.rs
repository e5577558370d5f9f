//! Packed identity entries: the fixed-width records in the blocks of a run.
//!
//! Keeps true: the keys of a block ascend strictly, so a binary search finds an entry without unpacking the others.

use crate::event::Identity;

/// Where an identity was last recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The identity, or the derived key of a conflicting body.
    pub(super) key: Identity,
    /// The row of `events` that holds the body's hash and the id.
    pub(super) seq: i64,
    /// The time of receipt, in microseconds since 1970.
    pub(super) received: i64,
}

/// An entry's width in bytes.
pub(super) const WIDTH: usize = 32;

/// How many entries fit in one database page, after its headers. A row that spills onto a second page would double the
/// writes.
pub(super) fn per_page(page_size: usize) -> usize {
    (page_size.saturating_sub(64) / WIDTH).max(1)
}

/// Appends an entry.
pub(super) fn push(block: &mut Vec<u8>, entry: &Entry) {
    block.extend_from_slice(&entry.key.0);
    block.extend_from_slice(&entry.seq.to_le_bytes());
    block.extend_from_slice(&entry.received.to_le_bytes());
}

/// The entry at an index; `None` past the end.
pub(super) fn entry(block: &[u8], index: usize) -> Option<Entry> {
    let bytes = block.get(index * WIDTH..(index + 1) * WIDTH)?;
    let (key, rest) = bytes.split_first_chunk::<16>()?;
    let (seq, rest) = rest.split_first_chunk::<8>()?;
    let (received, _) = rest.split_first_chunk::<8>()?;
    Some(Entry {
        key: Identity(*key),
        seq: i64::from_le_bytes(*seq),
        received: i64::from_le_bytes(*received),
    })
}

/// Looks a key up.
pub(super) fn search(block: &[u8], key: &Identity) -> Option<Entry> {
    let (mut low, mut high) = (0, block.len() / WIDTH);
    while low < high {
        let middle = low + (high - low) / 2;
        let found = entry(block, middle)?;
        match found.key.cmp(key) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal => return Some(found),
        }
    }
    None
}

/// The first 8 bytes of a key as a number of the same order.
pub(super) fn prefix(key: &Identity) -> u64 {
    key.0.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_is_there_and_nothing_else() {
        let mut block = Vec::new();
        for n in (10..250u8).step_by(2) {
            push(&mut block, &Entry { key: Identity([n; 16]), seq: i64::from(n), received: -1 });
        }
        for n in 0..=255u8 {
            let found = search(&block, &Identity([n; 16])).map(|e| e.seq);
            assert_eq!(found, ((10..250).contains(&n) && n % 2 == 0).then_some(i64::from(n)));
        }
        assert_eq!(search(&[], &Identity([0; 16])), None);
    }
}
