//! A run: an immutable, sorted set of identity entries in blocks of one database page.
//!
//! Keeps true: a run is searched only once it is live, and then never changes. Its bloom filter and the first key of
//! each block are in memory. So a look-up reads at most one block, except for keys that share eight bytes.
//!
//! Each level has its own table, written by one run at a time under ascending ids. So every block is appended at the
//! table's end, where SQLite fills pages without splitting them.

use rusqlite::{Connection, Result, params};

use crate::event::Identity;

use super::block::{self, Entry};
use super::filter::{self, Filter, Line};

/// A live run.
#[derive(Debug)]
pub(super) struct Run {
    /// Ids ascend in the order in which runs were begun.
    pub(super) id: i64,
    /// The number of merges that its entries went through.
    pub(super) level: usize,
    /// The number of entries.
    pub(super) entries: i64,
    /// The newest row of `events` that it covers. Of two runs, the one with the greater value has the newer entry.
    pub(super) max_seq: i64,
    /// The newest receipt time in it. One window later, the whole run is expired.
    pub(super) max_received: i64,
    filter: Filter,
    fences: Vec<u64>,
}

impl Run {
    /// Loads a live run's filter and fences (the first key of each block).
    pub(super) fn load(conn: &Connection, id: i64) -> Result<Run> {
        let mut run = conn
            .prepare_cached(
                "SELECT level, entries, max_seq, max_received, lines, blocks FROM runs WHERE run = ?1",
            )?
            .query_row([id], |row| {
                let (lines, blocks): (i64, i64) = (row.get(4)?, row.get(5)?);
                Ok(Run {
                    id,
                    level: row.get::<_, u32>(0)? as usize,
                    entries: row.get(1)?,
                    max_seq: row.get(2)?,
                    max_received: row.get(3)?,
                    filter: Filter::with_capacity(lines.unsigned_abs()),
                    fences: Vec::with_capacity(usize::try_from(blocks).unwrap_or(0)),
                })
            })?;
        let mut chunks =
            conn.prepare_cached("SELECT bits, fences FROM filters WHERE id >= ?1 AND id < ?2 ORDER BY id")?;
        let mut rows = chunks.query([first_chunk(id), first_chunk(id + 1)])?;
        while let Some(row) = rows.next()? {
            run.filter.extend(row.get_ref(0)?.as_blob()?);
            let fences = row.get_ref(1)?.as_blob()?.as_chunks::<8>().0;
            run.fences.extend(fences.iter().map(|bytes| u64::from_le_bytes(*bytes)));
        }
        Ok(run)
    }

    /// The number of blocks.
    pub(super) fn blocks(&self) -> i64 {
        self.fences.len() as i64
    }

    /// Looks a key up.
    pub(super) fn find(&self, conn: &Connection, key: &Identity) -> Result<Option<Entry>> {
        if !self.filter.may_hold(key) {
            return Ok(None);
        }
        let prefix = block::prefix(key);
        let mut index = self.fences.partition_point(|fence| *fence <= prefix);
        // If a block starts with this very prefix, the key may also stand at the end of the previous block.
        while let Some(before) = index.checked_sub(1) {
            let found = read(conn, self.level, first_block(self.id) + before as i64, |bytes| {
                block::search(bytes, key)
            })?;
            if found.is_some() || self.fences.get(before) != Some(&prefix) {
                return Ok(found);
            }
            index = before;
        }
        Ok(None)
    }
}

/// Passes a block's bytes to `look`. A missing block reads as empty.
pub(super) fn read<T>(conn: &Connection, level: usize, id: i64, look: impl FnOnce(&[u8]) -> T) -> Result<T> {
    let sql = READ.get(level).copied().unwrap_or(READ[LEVELS - 1]);
    let mut select = conn.prepare_cached(sql)?;
    let mut rows = select.query([id])?;
    match rows.next()? {
        Some(row) => Ok(look(row.get_ref(0)?.as_blob()?)),
        None => Ok(look(&[])),
    }
}

/// The id of a run's first block.
pub(super) fn first_block(run: i64) -> i64 {
    run << 24
}

/// The id of a run's first filter chunk.
pub(super) fn first_chunk(run: i64) -> i64 {
    run << 20
}

/// A run that is being written, in one or many transactions. It is invisible until finished.
#[derive(Debug)]
pub(super) struct RunWriter {
    id: i64,
    level: usize,
    per_block: usize,
    lines: u64,
    entries: i64,
    max_received: i64,
    block: Vec<u8>,
    blocks: i64,
    chunk: Vec<Line>,
    chunks: i64,
    fences: Vec<u8>,
}

impl RunWriter {
    /// Begins a run of at most `most` entries.
    pub(super) fn begin(conn: &Connection, level: usize, most: u64, per_block: usize) -> Result<RunWriter> {
        let lines = filter::lines_for(most);
        let id = conn
            .prepare_cached(
                "INSERT INTO runs (run, level, state, lines) \
                 VALUES ((SELECT coalesce(max(run), 0) + 1 FROM runs), ?1, 0, ?2) RETURNING run",
            )?
            .query_row(params![level as u32, lines.cast_signed()], |row| row.get(0))?;
        Ok(RunWriter {
            id,
            level,
            per_block,
            lines,
            entries: 0,
            max_received: i64::MIN,
            block: Vec::with_capacity(per_block * block::WIDTH),
            blocks: 0,
            chunk: Vec::new(),
            chunks: 0,
            fences: Vec::new(),
        })
    }

    /// Appends an entry. Its key must be greater than all before.
    pub(super) fn push(&mut self, conn: &Connection, entry: &Entry) -> Result<()> {
        let line = filter::line_of(&entry.key, self.lines) as usize;
        while line >= (self.chunks as usize + 1) * CHUNK_LINES {
            self.write_chunk(conn, CHUNK_LINES)?;
        }
        let index = line - self.chunks as usize * CHUNK_LINES;
        if self.chunk.len() <= index {
            self.chunk.resize(index + 1, Line::default());
        }
        filter::mark(&mut self.chunk[index], &entry.key);
        if self.block.is_empty() {
            self.fences.extend_from_slice(&block::prefix(&entry.key).to_le_bytes());
        }
        block::push(&mut self.block, entry);
        self.entries += 1;
        self.max_received = self.max_received.max(entry.received);
        if self.block.len() >= self.per_block * block::WIDTH { self.write_block(conn) } else { Ok(()) }
    }

    /// Makes the run live. It covers `events` up to `max_seq`.
    pub(super) fn finish(mut self, conn: &Connection, max_seq: i64) -> Result<Run> {
        if !self.block.is_empty() {
            self.write_block(conn)?;
        }
        let written = self.chunks * CHUNK_LINES as i64;
        let rest = self.lines.saturating_sub(written.unsigned_abs()) as usize;
        let mut rest = rest;
        while rest > 0 || !self.fences.is_empty() {
            let lines = rest.min(CHUNK_LINES);
            self.write_chunk(conn, lines)?;
            rest -= lines;
        }
        conn.prepare_cached(
            "UPDATE runs SET state = 1, entries = ?2, blocks = ?3, max_seq = ?4, max_received = ?5 WHERE run = ?1",
        )?
        .execute(params![self.id, self.entries, self.blocks, max_seq, self.max_received])?;
        Run::load(conn, self.id)
    }

    fn write_block(&mut self, conn: &Connection) -> Result<()> {
        let sql = WRITE.get(self.level).copied().unwrap_or(WRITE[LEVELS - 1]);
        conn.prepare_cached(sql)?.execute(params![first_block(self.id) + self.blocks, self.block])?;
        self.blocks += 1;
        self.block.clear();
        Ok(())
    }

    fn write_chunk(&mut self, conn: &Connection, lines: usize) -> Result<()> {
        self.chunk.resize(lines, Line::default());
        conn.prepare_cached("INSERT INTO filters (id, bits, fences) VALUES (?1, ?2, ?3)")?.execute(
            params![first_chunk(self.id) + self.chunks, filter::to_bytes(&self.chunk), self.fences],
        )?;
        self.chunks += 1;
        self.chunk.clear();
        self.fences.clear();
        Ok(())
    }
}

/// 32 KiB of filter per row, for about 26,000 keys.
const CHUNK_LINES: usize = 512;

/// More levels than can fill up: each holds eight times more entries.
pub(super) const LEVELS: usize = 8;

const READ: [&str; LEVELS] = [
    "SELECT entries FROM blocks0 WHERE id = ?1",
    "SELECT entries FROM blocks1 WHERE id = ?1",
    "SELECT entries FROM blocks2 WHERE id = ?1",
    "SELECT entries FROM blocks3 WHERE id = ?1",
    "SELECT entries FROM blocks4 WHERE id = ?1",
    "SELECT entries FROM blocks5 WHERE id = ?1",
    "SELECT entries FROM blocks6 WHERE id = ?1",
    "SELECT entries FROM blocks7 WHERE id = ?1",
];

const WRITE: [&str; LEVELS] = [
    "INSERT INTO blocks0 (id, entries) VALUES (?1, ?2)",
    "INSERT INTO blocks1 (id, entries) VALUES (?1, ?2)",
    "INSERT INTO blocks2 (id, entries) VALUES (?1, ?2)",
    "INSERT INTO blocks3 (id, entries) VALUES (?1, ?2)",
    "INSERT INTO blocks4 (id, entries) VALUES (?1, ?2)",
    "INSERT INTO blocks5 (id, entries) VALUES (?1, ?2)",
    "INSERT INTO blocks6 (id, entries) VALUES (?1, ?2)",
    "INSERT INTO blocks7 (id, entries) VALUES (?1, ?2)",
];
