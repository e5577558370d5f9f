//! What catching up keeps in `hookgate.db`: each subscription's highest sequence number, the last success of each source,
//! the retried events, and orders between a command and the process that has the stores open.
//!
//! Keeps true: no request waits for these rows. Commands and gateways write them at the same time, each in short
//! transactions of its own. `data_dir` has the mode 0700, so these rows are as trustworthy as the queue itself.

mod history;
mod orders;
mod sequences;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, Result};

use crate::durable::database::{self, OpenError};

pub use orders::{PlacedOrder, Run};
pub use sequences::Sequences;

/// The rows, on a connection beside the one that carries the events.
pub struct ReconcileDb {
    db: PathBuf,
    /// None until the database opens, and after a failure.
    conn: Mutex<Option<Connection>>,
}

impl ReconcileDb {
    /// Opens nothing yet: a database that fails now may work later.
    pub fn new(db: &Path) -> ReconcileDb {
        ReconcileDb { db: db.to_owned(), conn: Mutex::default() }
    }

    /// Runs `work`, and opens the database first if it is not open. Blocks.
    fn with<T>(&self, work: impl FnOnce(&Connection) -> Result<T>) -> std::result::Result<T, OpenError> {
        let mut slot = self.conn.lock().unwrap_or_else(PoisonError::into_inner);
        let conn = match slot.take() {
            Some(conn) => conn,
            None => database::join_beside(&self.db, &tables(), BUSY)?,
        };
        let done = work(&conn).map_err(|error| OpenError::of(&self.db, error))?;
        *slot = Some(conn);
        Ok(done)
    }
}

fn tables() -> String {
    [orders::TABLE, sequences::TABLE, history::TABLES].concat()
}

/// Longer than any write of a gateway takes.
const BUSY: Duration = Duration::from_secs(2);
