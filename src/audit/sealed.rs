//! Lines that are ready to be written, and where the chain's head is once they are.
//!
//! Keeps true: with a key, no more records and no longer a time than may be stand between two anchors; without one there is
//! no anchor.

use std::io;

use jiff::Timestamp;

use super::anchor::{ANCHOR_WITHIN, Key, Stretch};
use super::flood::Summed;
use super::record::{NO_HASH, Record};

/// The last record.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) seq: u64,
    pub(super) hash: String,
    /// The records that no anchor vouches for.
    pub(super) stretch: Option<Stretch>,
}

impl Head {
    /// Of a chain without records.
    pub(super) fn none() -> Head {
        Head { seq: 0, hash: NO_HASH.to_owned(), stretch: None }
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
        entry: &Summed,
        key: Option<&Key>,
        now: Timestamp,
        begins: bool,
    ) -> io::Result<()> {
        let at = entry.reject.at;
        let mut stretch = self.head.stretch.map_or(Some(Stretch::from(at)), |s| s.and(at, ANCHOR_WITHIN));
        if let Some(key) = key
            && self.head.stretch.is_some()
            && (begins || stretch.is_none())
        {
            self.anchor(key, now)?;
            stretch = None;
        }
        let record = Record::seal(&entry.reject, entry.more, self.head.seq + 1, &self.head.hash)?;
        self.push(&record, Some(stretch.unwrap_or(Stretch::from(at))))?;
        self.count += 1;
        Ok(())
    }

    /// One more anchor.
    pub(super) fn anchor(&mut self, key: &Key, now: Timestamp) -> io::Result<()> {
        let record = Record::anchor(self.head.seq + 1, format!("{now:.6}"), &self.head.hash, key)?;
        self.push(&record, None)?;
        self.anchors += 1;
        Ok(())
    }

    fn push(&mut self, record: &Record, stretch: Option<Stretch>) -> io::Result<()> {
        self.text.push_str(&record.line()?);
        self.text.push('\n');
        self.head = Head { seq: record.seq, hash: record.hash.clone(), stretch };
        Ok(())
    }
}
