//! Puts events of the embedded queue once more at its end, for an operator, whether or not a gateway runs.
//!
//! Keeps true: replayed events get the next numbers in a transaction of their own, which is synced before the call
//! returns. SQLite separates it from a running gateway's commits. The gateway looks for the newest row in each of its
//! transactions, so its next event follows. Dedupe is not touched: the index of identities keeps the original rows.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use crate::base::clock::Clock;
use crate::durable::database::{self, Found, OpenError};
use crate::event::Event;

use super::{ledger, store};

/// The queue, opened by a command.
pub struct Replays {
    conn: Connection,
    clock: Clock,
}

/// An event to replay.
#[derive(Clone, Copy, Debug)]
pub struct Replay<'a> {
    /// A row that has the event.
    pub row: i64,
    /// The event, as it is to enter.
    pub event: &'a Event,
}

/// Why events were not replayed. Then none of the call is in the queue.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// Retention has deleted the event meanwhile.
    #[error("the event {0} is no longer in the queue")]
    Gone(String),
}

impl Replays {
    /// Opens the database, whether or not a gateway has it open.
    ///
    /// # Errors
    /// When there is no database, or no embedded queue has used it.
    pub fn open(db: &Path, clock: Clock) -> Result<Replays, OpenError> {
        let Found::Table(conn) = database::find(db, "events")? else {
            return Err(OpenError::Empty { db: db.to_owned() });
        };
        // Synced like a gateway's commits.
        let synced = conn.pragma_update(None, "synchronous", "full");
        synced.map_err(|error| OpenError::of(db, error))?;
        Ok(Replays { conn, clock })
    }

    /// Puts these events at the end of the queue, in this order: all or none.
    ///
    /// # Errors
    /// When a row is gone, or the database cannot be written.
    pub fn replay(&mut self, events: &[Replay<'_>]) -> Result<(), ReplayError> {
        match self.insert(events) {
            Ok(None) => Ok(()),
            Ok(Some(gone)) => Err(ReplayError::Gone(gone)),
            Err(error) => Err(OpenError::of(Path::new(self.conn.path().unwrap_or_default()), error).into()),
        }
    }

    /// Pauses between two calls, so that a running gateway can write.
    pub fn pause(&self) {
        std::thread::sleep(BETWEEN);
    }

    /// Returns the id of an event whose row is gone.
    fn insert(&self, events: &[Replay<'_>]) -> rusqlite::Result<Option<String>> {
        let transaction = Transaction::new_unchecked(&self.conn, TransactionBehavior::Immediate)?;
        let first = store::newest(&transaction)? + 1;
        let now = self.clock.now().as_microsecond();
        let mut insert = transaction.prepare_cached(
            "INSERT INTO events (seq, identity, body, received, state, id, type, source, first_body, first_id, event) \
             SELECT ?2, identity, body, ?3, ?4, id, type, source, first_body, first_id, ?5 FROM events \
             WHERE seq = ?1 AND event IS NOT NULL",
        )?;
        for (seq, Replay { row, event }) in (first..).zip(events) {
            if insert.execute(params![row, seq, now, ledger::REPLAYED, event.json])? == 0 {
                return Ok(Some(event.id.clone()));
            }
        }
        drop(insert);
        transaction.commit()?;
        Ok(None)
    }
}

const BETWEEN: Duration = Duration::from_millis(20);
