//! Merges runs of one level into one of the next, a few entries at a time.
//!
//! Keeps true: the inputs serve look-ups until the commit that makes the output live. Of two entries with one key the
//! newer stays. Expired entries are dropped. A merge that a crash or failed transaction interrupts starts over.

use rusqlite::{Connection, Result};

use crate::event::Identity;

use super::block::{self, Entry};
use super::run::{self, Run, RunWriter};

/// A merge in progress.
#[derive(Debug)]
pub(super) struct Merge {
    /// The level of the inputs.
    pub(super) level: usize,
    /// The ids of the input runs.
    pub(super) inputs: Vec<i64>,
    cursors: Vec<Cursor>,
    output: RunWriter,
    max_seq: i64,
}

impl Merge {
    /// Begins a merge of these runs of one level.
    pub(super) fn begin(conn: &Connection, inputs: &[&Run], per_block: usize) -> Result<Merge> {
        let level = inputs.iter().map(|run| run.level).max().unwrap_or(0);
        let entries: u64 = inputs.iter().map(|run| run.entries.unsigned_abs()).sum();
        let output = RunWriter::begin(conn, (level + 1).min(run::LEVELS - 1), entries, per_block)?;
        Ok(Merge {
            level,
            inputs: inputs.iter().map(|run| run.id).collect(),
            cursors: inputs.iter().map(|run| Cursor::at_start(conn, run)).collect::<Result<_>>()?,
            output,
            max_seq: inputs.iter().map(|run| run.max_seq).max().unwrap_or(0),
        })
    }

    /// Merges up to `budget` keys, without entries received at or before `expired`. True when nothing is left.
    pub(super) fn step(&mut self, conn: &Connection, budget: usize, expired: i64) -> Result<bool> {
        for _ in 0..budget {
            let Some(least) = self.least() else { return Ok(true) };
            let newest = self.take(conn, &least)?;
            if let Some(newest) = newest.filter(|entry| entry.received > expired) {
                self.output.push(conn, &newest)?;
            }
        }
        Ok(self.least().is_none())
    }

    pub(super) fn finish(self, conn: &Connection) -> Result<Run> {
        self.output.finish(conn, self.max_seq)
    }

    fn least(&self) -> Option<Identity> {
        self.cursors.iter().filter_map(|cursor| cursor.head).map(|entry| entry.key).min()
    }

    /// Consumes a key in every input and gives its newest entry.
    fn take(&mut self, conn: &Connection, key: &Identity) -> Result<Option<Entry>> {
        let mut newest: Option<Entry> = None;
        for cursor in &mut self.cursors {
            if let Some(entry) = cursor.head.filter(|entry| entry.key == *key) {
                newest = newest.filter(|other| other.seq > entry.seq).or(Some(entry));
                cursor.advance(conn)?;
            }
        }
        Ok(newest)
    }
}

/// A position in an input run.
#[derive(Debug)]
struct Cursor {
    level: usize,
    block: i64,
    end: i64,
    bytes: Vec<u8>,
    index: usize,
    head: Option<Entry>,
}

impl Cursor {
    fn at_start(conn: &Connection, run: &Run) -> Result<Cursor> {
        let start = run::first_block(run.id);
        let end = start + run.blocks();
        let mut cursor =
            Cursor { level: run.level, block: start, end, bytes: Vec::new(), index: 0, head: None };
        cursor.load(conn)?;
        Ok(cursor)
    }

    fn advance(&mut self, conn: &Connection) -> Result<()> {
        self.index += 1;
        self.head = block::entry(&self.bytes, self.index);
        if self.head.is_none() && self.block < self.end {
            self.block += 1;
            self.load(conn)?;
        }
        Ok(())
    }

    fn load(&mut self, conn: &Connection) -> Result<()> {
        self.index = 0;
        self.bytes.clear();
        if self.block < self.end {
            let bytes = &mut self.bytes;
            run::read(conn, self.level, self.block, |found| bytes.extend_from_slice(found))?;
        }
        self.head = block::entry(&self.bytes, 0);
        Ok(())
    }
}
