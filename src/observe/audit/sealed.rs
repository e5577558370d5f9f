//! Lines ready to be written, and the head after them.
//!
//! Keeps true: with a key, at most [`ANCHOR_EVERY`] records are between two anchors. Without a key there are no
//! anchors.

use std::io;

use jiff::Timestamp;

use super::anchor::{ANCHOR_EVERY, Key};
use super::rate_limiter::Aggregate;
use super::record::{NO_HASH, Record};

/// The last record of the chain.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) seq: u64,
    pub(super) hash: String,
    /// How many records follow the last anchor, as far as known.
    pub(super) unanchored: u64,
}

impl Head {
    /// The head of an empty chain.
    pub(super) fn none() -> Head {
        Head { seq: 0, hash: NO_HASH.to_owned(), unanchored: 0 }
    }
}

/// Lines for one write.
pub(super) struct Sealed {
    pub(super) text: String,
    /// The number of entries, each one record.
    pub(super) count: usize,
    /// The number of anchors.
    pub(super) anchors: u64,
    pub(super) head: Head,
}

impl Sealed {
    /// No lines yet, after `head`.
    pub(super) fn after(head: &Head) -> Sealed {
        Sealed { text: String::new(), count: 0, anchors: 0, head: head.clone() }
    }

    /// Adds an entry, after an anchor if one is due. `begins`: the entry is the first of a file.
    pub(super) fn push_entry(
        &mut self,
        entry: &Aggregate,
        key: Option<&Key>,
        now: Timestamp,
        begins: bool,
    ) -> io::Result<()> {
        let unanchored = self.head.unanchored;
        if let Some(key) = key
            && (unanchored >= ANCHOR_EVERY || begins && unanchored > 0)
        {
            self.push_anchor(key, now)?;
        }
        let record = Record::seal(&entry.reject, entry.more, self.head.seq + 1, &self.head.hash)?;
        self.push(&record, self.head.unanchored.saturating_add(1))?;
        self.count += 1;
        Ok(())
    }

    /// Adds an anchor.
    pub(super) fn push_anchor(&mut self, key: &Key, now: Timestamp) -> io::Result<()> {
        let record = Record::anchor(self.head.seq + 1, format!("{now:.6}"), &self.head.hash, key)?;
        self.push(&record, 0)?;
        self.anchors += 1;
        Ok(())
    }

    fn push(&mut self, record: &Record, unanchored: u64) -> io::Result<()> {
        self.text.push_str(&record.line()?);
        self.text.push('\n');
        self.head = Head { seq: record.seq, hash: record.hash.clone(), unanchored };
        Ok(())
    }
}
