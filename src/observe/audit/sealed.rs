//! Lines that are ready to be written, and where the chain's head is once they are.
//!
//! Keeps true: with a key, at most [`ANCHOR_EVERY`] records stand between two anchors; without one there is no anchor.

use std::io;

use jiff::Timestamp;

use super::anchor::{ANCHOR_EVERY, Key};
use super::rate_limiter::Aggregate;
use super::record::{NO_HASH, Record};

/// The last record.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) seq: u64,
    pub(super) hash: String,
    /// How many records no anchor vouches for, as far as that is known.
    pub(super) unanchored: u64,
}

impl Head {
    /// Of a chain without records.
    pub(super) fn none() -> Head {
        Head { seq: 0, hash: NO_HASH.to_owned(), unanchored: 0 }
    }
}

/// Lines to be written in one write.
pub(super) struct Sealed {
    pub(super) text: String,
    /// Entries in it, each a record.
    pub(super) count: usize,
    /// Anchors in it.
    pub(super) anchors: u64,
    pub(super) head: Head,
}

impl Sealed {
    /// No line, after `head`.
    pub(super) fn after(head: &Head) -> Sealed {
        Sealed { text: String::new(), count: 0, anchors: 0, head: head.clone() }
    }

    /// One more entry, behind an anchor where one is due. `begins`: it is the first of a file.
    pub(super) fn entry(
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
            self.anchor(key, now)?;
        }
        let record = Record::seal(&entry.reject, entry.more, self.head.seq + 1, &self.head.hash)?;
        self.push(&record, self.head.unanchored.saturating_add(1))?;
        self.count += 1;
        Ok(())
    }

    /// One more anchor.
    pub(super) fn anchor(&mut self, key: &Key, now: Timestamp) -> io::Result<()> {
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
