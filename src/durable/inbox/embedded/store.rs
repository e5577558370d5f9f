//! The database as the writer thread uses it: one transaction per batch.
//!
//! Keeps true: a result is returned only after COMMIT returned. After a failed transaction, all state in memory is
//! dropped and loaded again from what was committed.

use std::path::Path;

use rusqlite::{Connection, Result, Transaction, TransactionBehavior};

use crate::durable::database::pairing::Pairing;
use crate::durable::database::{self, OpenError};
use crate::durable::inbox::{EnqueueRequest, Enqueued};
use crate::event::Identity;

use super::checkpoint::{self, Checkpoints};
use super::identities::Identities;
use super::ledger::{self, EventLedger};
use super::purge::Purge;
use super::{Options, Tuning, run};

/// The open database.
pub(super) struct Store {
    /// Dropped before `conn`, which must be closed last.
    checkpoints: Checkpoints,
    pub(super) conn: Connection,
    pairing: Pairing,
    /// None after a failure, until it is loaded again.
    state: Option<State>,
    options: Options,
    tuning: Tuning,
}

/// State in memory that mirrors what is committed.
struct State {
    identities: Identities,
    purge: Purge,
    next: i64,
}

impl Store {
    /// Opens the database. The caller holds the lock.
    pub(super) fn open(db: &Path, options: Options, tuning: Tuning) -> Result<Store, OpenError> {
        let (conn, pairing) = database::open(db, tuning.layout, &tables())?;
        let checkpoints = Checkpoints::start(db, tuning.layout.checkpoint_bytes);
        let mut store = Store { conn, pairing, state: None, options, tuning, checkpoints };
        store.state = Some(store.load().map_err(|error| OpenError::of(db, error))?);
        Ok(store)
    }

    /// Enqueues a batch in one transaction: all of it or nothing.
    pub(super) fn enqueue(&mut self, batch: &[&EnqueueRequest], now: i64) -> Result<Vec<Enqueued>> {
        let bytes: usize = batch.iter().map(|request| request.event.json.len() + ROW).sum();
        self.transact(now, bytes, batch.len(), |ledger| {
            batch.iter().map(|request| ledger.enqueue(request)).collect()
        })
    }

    /// Whether an event has this identity. Writes nothing.
    pub(super) fn is_known(&mut self, identity: &Identity, now: i64) -> Result<bool> {
        let state = match self.state.take() {
            Some(state) => state,
            None => self.load()?,
        };
        let expired = now - micros(self.options.window);
        let known = ledger::is_known(&self.conn, &state.identities, identity, expired);
        self.state = Some(state);
        known
    }

    /// Does some upkeep in an idle moment.
    pub(super) fn upkeep(&mut self, now: i64) -> Result<()> {
        if !self.busy(now) {
            return Ok(());
        }
        self.transact(now, IDLE_WORK * 64, IDLE_WORK, |_| Ok(()))
    }

    /// Whether upkeep is pending.
    pub(super) fn busy(&self, now: i64) -> bool {
        self.state.as_ref().is_some_and(|state| state.identities.busy() || state.purge.busy(now))
    }

    /// After a failure: tests a small write, and loads the state again.
    pub(super) fn recover(&mut self, now: i64) -> Result<()> {
        self.conn.prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'probe'")?.execute([now])?;
        self.state = Some(self.load()?);
        Ok(())
    }

    /// Checkpoints the log once it is long enough.
    pub(super) fn checkpoint(&mut self) {
        if self.checkpoints.is_writers_turn() {
            checkpoint::run(&self.conn, "PASSIVE");
            self.checkpoints.moved();
        }
    }

    /// Runs the last checkpoint. Dropping the connection then removes the log.
    pub(super) fn close(mut self) {
        self.checkpoints.stop();
        checkpoint::run(&self.conn, "TRUNCATE");
    }

    fn load(&self) -> Result<State> {
        let identities = Identities::load(&self.conn, self.tuning)?;
        Ok(State {
            next: newest(&self.conn)?.max(identities.flushed()) + 1,
            purge: Purge::load(&self.conn, micros(self.options.retain), micros(self.options.window))?,
            identities,
        })
    }

    /// Runs `work` and, in the same transaction, the upkeep for this many events.
    fn transact<T>(
        &mut self,
        now: i64,
        bytes: usize,
        events: usize,
        work: impl FnOnce(&mut EventLedger<'_>) -> Result<T>,
    ) -> Result<T> {
        // Put back only after the commit. After an early return it is none, and `recover` loads it again.
        let mut state = match self.state.take() {
            Some(state) => state,
            None => self.load()?,
        };
        let window = micros(self.options.window);
        let transaction = Transaction::new_unchecked(&self.conn, TransactionBehavior::Immediate)?;
        let State { identities, purge, next } = &mut state;
        // An operator's command may have added replayed events.
        *next = (*next).max(newest(&transaction)? + 1);
        let done = work(&mut EventLedger::open(&transaction, identities, next, now, window)?)?;
        let last = *next - 1;
        identities.upkeep(&transaction, events, last, now - window)?;
        purge.step(&transaction, now, last, 2 * events + 8)?;
        transaction.commit()?;
        self.pairing.committed(&self.conn);
        self.state = Some(state);
        self.checkpoints.wrote(bytes as i64);
        Ok(done)
    }
}

/// The number of the newest row; 0 if there is none.
pub(super) fn newest(conn: &Connection) -> Result<i64> {
    let newest: Option<i64> =
        conn.prepare_cached("SELECT max(seq) FROM events")?.query_row([], |row| row.get(0))?;
    Ok(newest.unwrap_or(0))
}

/// The SQL that creates missing tables.
pub(super) fn tables() -> String {
    let blocks: String = (0..run::LEVELS)
        .map(|level| {
            format!(
                "CREATE TABLE IF NOT EXISTS blocks{level} (id INTEGER PRIMARY KEY, entries BLOB NOT NULL);\n"
            )
        })
        .collect();
    format!("{TABLES}{blocks}")
}

fn micros(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 4)
}

/// The bytes that a row and its index entry add to the event's own.
const ROW: usize = 400;
/// An idle moment does the upkeep of this many events.
const IDLE_WORK: usize = 1024;

// There is no index by id, type, source or time: ids are random, so each insert would write one more page. `scan` reads
// the table instead. `event` is the last column, so that a look-up by key never reads the overflow pages of a long event.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY,
    identity BLOB NOT NULL,
    body BLOB NOT NULL,
    received INTEGER NOT NULL,
    state INTEGER NOT NULL,
    id TEXT NOT NULL,
    type TEXT NOT NULL,
    source TEXT NOT NULL,
    first_body BLOB,
    first_id TEXT,
    event TEXT
);
CREATE TABLE IF NOT EXISTS runs (
    run INTEGER PRIMARY KEY,
    level INTEGER NOT NULL,
    state INTEGER NOT NULL,
    lines INTEGER NOT NULL,
    entries INTEGER NOT NULL DEFAULT 0,
    blocks INTEGER NOT NULL DEFAULT 0,
    max_seq INTEGER NOT NULL DEFAULT 0,
    max_received INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS filters (id INTEGER PRIMARY KEY, bits BLOB NOT NULL, fences BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO meta VALUES ('flushed', 0), ('blanked', 0), ('probe', 0);
";
