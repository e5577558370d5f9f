//! The index of identities: every identity within the window, and the row that recorded it. It is log-structured.
//!
//! Keeps true: the rows of `events` are the truth, and the index can be rebuilt from what was committed. After a failed
//! commit the caller must drop its `Identities` and load them again.
//!
//! Identities are random, so writing each at its sorted position would touch a page each. Instead new entries gather in
//! memory, are written as sorted runs, and the runs merge a little with every commit.

use std::collections::HashMap;

use rusqlite::{Connection, Result, params};

use crate::event::Identity;

use super::Tuning;
use super::block::{self, Entry};
use super::ledger;
use super::merge::Merge;
use super::run::{self, Run, RunWriter};

pub(super) struct Identities {
    memtable: HashMap<Identity, Location>,
    /// The newest row of `events` covered by the runs. The memtable covers later rows.
    flushed: i64,
    /// Newest first.
    runs: Vec<Run>,
    merges: Vec<Merge>,
    garbage: Vec<Garbage>,
    credit: usize,
    per_block: usize,
    tuning: Tuning,
}

#[derive(Clone, Copy)]
struct Location {
    seq: i64,
    received: i64,
}

impl Identities {
    /// Loads the index as committed. Rests of an interrupted merge become garbage.
    pub(super) fn load(conn: &Connection, tuning: Tuning) -> Result<Identities> {
        let page_size: u32 = conn.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        let mut select = conn.prepare("SELECT run, level, state FROM runs")?;
        let known: Vec<(i64, usize, i64)> = select
            .query_map([], |row| Ok((row.get(0)?, row.get::<_, u32>(1)? as usize, row.get(2)?)))?
            .collect::<Result<_>>()?;
        let (live, dead): (Vec<(i64, usize, i64)>, Vec<_>) = known.into_iter().partition(|run| run.2 == LIVE);
        let mut index = Identities {
            memtable: HashMap::new(),
            flushed: conn.query_row("SELECT value FROM meta WHERE name = 'flushed'", [], |row| row.get(0))?,
            runs: live.iter().map(|(id, ..)| Run::load(conn, *id)).collect::<Result<_>>()?,
            merges: Vec::new(),
            garbage: dead.iter().map(|(id, level, _)| Garbage { run: *id, level: *level, done: 0 }).collect(),
            credit: 0,
            per_block: tuning.per_block.unwrap_or(block::per_page(page_size as usize)),
            tuning,
        };
        index.sort_runs();
        index.load_memtable(conn)?;
        Ok(index)
    }

    /// The newest row of `events` covered by a run.
    pub(super) fn flushed(&self) -> i64 {
        self.flushed
    }

    /// The newest entry of a key, expired or not.
    pub(super) fn find(&self, conn: &Connection, key: &Identity) -> Result<Option<Entry>> {
        if let Some(Location { seq, received }) = self.memtable.get(key).copied() {
            return Ok(Some(Entry { key: *key, seq, received }));
        }
        for run in &self.runs {
            if let Some(entry) = run.find(conn, key)? {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// Adds a key that the open transaction recorded in a row of `events`.
    pub(super) fn insert(&mut self, key: Identity, seq: i64, received: i64) {
        self.memtable.insert(key, Location { seq, received });
    }

    /// Does the upkeep for `new` entries: flush, merge, drop. `last` is the newest row of `events`. Entries received at
    /// or before `expired` no longer count.
    pub(super) fn upkeep(&mut self, conn: &Connection, new: usize, last: i64, expired: i64) -> Result<()> {
        if self.memtable.len() >= self.tuning.memtable {
            self.flush(conn, last, expired)?;
        }
        self.drop_expired(conn, expired)?;
        self.begin_merges(conn)?;
        self.step_merges(conn, new, expired)?;
        self.sweep(conn, new)
    }

    /// Whether a merge or sweep is pending, for an idle moment.
    pub(super) fn busy(&self) -> bool {
        !self.merges.is_empty() || !self.garbage.is_empty()
    }

    fn load_memtable(&mut self, conn: &Connection) -> Result<()> {
        // A replayed event is no delivery, so it must not extend how long its identity is remembered.
        let mut select = conn.prepare(
            "SELECT seq, identity, body, received, state FROM events WHERE seq > ?1 AND state <> ?2 ORDER BY seq",
        )?;
        let mut rows = select.query([self.flushed, ledger::REPLAYED])?;
        while let Some(row) = rows.next()? {
            let (seq, received) = (row.get(0)?, row.get(3)?);
            let identity = Identity(row.get(1)?);
            if row.get::<_, i64>(4)? != ledger::FIRST {
                self.insert(ledger::conflict_key(&identity, &row.get(2)?), seq, received);
            }
            self.insert(identity, seq, received);
        }
        Ok(())
    }

    fn flush(&mut self, conn: &Connection, last: i64, expired: i64) -> Result<()> {
        let mut entries: Vec<Entry> = self
            .memtable
            .iter()
            .map(|(key, location)| Entry { key: *key, seq: location.seq, received: location.received })
            .filter(|entry| entry.received > expired)
            .collect();
        entries.sort_unstable_by_key(|entry| entry.key);
        let mut writer = RunWriter::begin(conn, 0, entries.len() as u64, self.per_block)?;
        for entry in &entries {
            writer.push(conn, entry)?;
        }
        self.runs.insert(0, writer.finish(conn, last)?);
        conn.prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'flushed'")?.execute([last])?;
        self.flushed = last;
        self.memtable.clear();
        Ok(())
    }

    fn begin_merges(&mut self, conn: &Connection) -> Result<()> {
        // The last level has no next one. With eight times more entries per level it never fills up.
        for level in 0..run::LEVELS - 1 {
            if self.merges.iter().any(|merge| merge.level == level) {
                continue;
            }
            let at_level = self.runs.iter().rev().filter(|run| run.level == level);
            let oldest: Vec<&Run> = at_level.take(self.tuning.fan_out).collect();
            if oldest.len() == self.tuning.fan_out {
                self.merges.push(Merge::begin(conn, &oldest, self.per_block)?);
            }
        }
        Ok(())
    }

    /// Every merge advances by twice the new entries, so it ends before its level is full again.
    fn step_merges(&mut self, conn: &Connection, new: usize, expired: i64) -> Result<()> {
        self.credit += 2 * new;
        // A step smaller than a block is not worth its look-ups.
        if self.credit < self.per_block {
            return Ok(());
        }
        let budget = std::mem::take(&mut self.credit);
        for mut merge in std::mem::take(&mut self.merges) {
            if !merge.step(conn, budget, expired)? {
                self.merges.push(merge);
                continue;
            }
            for id in &merge.inputs {
                self.discard(conn, *id)?;
            }
            self.runs.push(merge.finish(conn)?);
            self.sort_runs();
        }
        Ok(())
    }

    fn drop_expired(&mut self, conn: &Connection, expired: i64) -> Result<()> {
        let merging = |id: &i64| self.merges.iter().any(|merge| merge.inputs.contains(id));
        let dead = self.runs.iter().filter(|run| run.max_received <= expired).map(|run| run.id);
        let dead: Vec<i64> = dead.filter(|id| !merging(id)).collect();
        dead.iter().try_for_each(|id| self.discard(conn, *id))
    }

    fn discard(&mut self, conn: &Connection, id: i64) -> Result<()> {
        if let Some(index) = self.runs.iter().position(|run| run.id == id) {
            let run = self.runs.remove(index);
            conn.prepare_cached("UPDATE runs SET state = 2 WHERE run = ?1")?.execute([id])?;
            self.garbage.push(Garbage { run: id, level: run.level, done: 0 });
        }
        Ok(())
    }

    /// Deletes garbage faster than merging produces it.
    fn sweep(&mut self, conn: &Connection, new: usize) -> Result<()> {
        let budget = (2 * new / self.per_block) as i64 + 1;
        for _ in 0..SWEEPS {
            if let Some(garbage) = self.garbage.first_mut()
                && garbage.sweep(conn, budget)?
            {
                self.garbage.remove(0);
            }
        }
        Ok(())
    }

    fn sort_runs(&mut self) {
        self.runs.sort_unstable_by_key(|run| std::cmp::Reverse((run.max_seq, run.id)));
    }
}

/// A run that is no longer searched and is being deleted.
struct Garbage {
    run: i64,
    level: usize,
    done: i64,
}

impl Garbage {
    /// Deletes up to `budget` blocks, or else filter chunks. True when the run is gone.
    fn sweep(&mut self, conn: &Connection, budget: i64) -> Result<bool> {
        let start = run::first_block(self.run) + self.done;
        let end = run::first_block(self.run + 1);
        let sql = format!("DELETE FROM blocks{} WHERE id >= ?1 AND id < min(?1 + ?2, ?3)", self.level);
        let deleted = conn.prepare_cached(&sql)?.execute(params![start, budget, end])?;
        self.done += budget;
        if deleted > 0 {
            return Ok(false);
        }
        // Blocks deleted before a restart leave a gap at the start, which this skips.
        let sql = format!("SELECT min(id) FROM blocks{} WHERE id >= ?1 AND id < ?2", self.level);
        let next: Option<i64> = conn.prepare_cached(&sql)?.query_row([start, end], |row| row.get(0))?;
        if let Some(next) = next {
            self.done = next - run::first_block(self.run);
            return Ok(false);
        }
        self.sweep_filter(conn, budget)
    }

    fn sweep_filter(&self, conn: &Connection, budget: i64) -> Result<bool> {
        let chunks = conn
            .prepare_cached(
                "DELETE FROM filters WHERE id IN \
                 (SELECT id FROM filters WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT ?3)",
            )?
            .execute(params![run::first_chunk(self.run), run::first_chunk(self.run + 1), budget.min(4)])?;
        if chunks > 0 {
            return Ok(false);
        }
        conn.prepare_cached("DELETE FROM runs WHERE run = ?1")?.execute([self.run])?;
        Ok(true)
    }
}

const LIVE: i64 = 1;
/// Sweep rounds per commit. A small run takes three or four.
const SWEEPS: usize = 4;
