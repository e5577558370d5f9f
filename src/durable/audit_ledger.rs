//! What `hookgate.db` keeps of the reject log: the log's head, by which a start finds a log that was cut or made anew; those
//! findings; and the acts of operators until the log has them.
//!
//! Keeps true: the head is never ahead of the synced log, and little behind it. Only the log's writer waits for the database, and
//! not for long. A finding is kept until an operator accepts it.
//!
//! `head`: the head and the findings. `acts`: operators' acts, each noted before it is done.

pub mod acts;
mod head;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::base::clock::Clock;
use crate::durable::database::{self, OpenError};
use crate::observe::audit::{Ledger, Mark, Reject};
use crate::observe::metrics::AuditMetrics;
pub use head::{Finding, LedgerState};

/// The ledger, as the gateway that writes the log keeps it.
pub struct AuditLedger {
    db: PathBuf,
    log: PathBuf,
    clock: Clock,
    metrics: AuditMetrics,
    /// None until the database can be opened; then the log has been compared.
    conn: Option<Connection>,
    failing: bool,
}

impl AuditLedger {
    /// Opens the ledger in the database `db`, which a gateway has made, and compares the log in the folder `log` with it. A
    /// difference is logged, counted and kept as a finding. A database that cannot be opened is tried again with every note.
    pub fn open(db: &Path, log: &Path, clock: Clock, metrics: AuditMetrics) -> AuditLedger {
        let (db, log) = (db.to_owned(), log.to_owned());
        let mut ledger = AuditLedger { db, log, clock, metrics, conn: None, failing: false };
        ledger.with(|_| Ok(()));
        ledger
    }

    /// Does `work`. Returns none if the database fails; the log says so once.
    fn with<T>(&mut self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Option<T> {
        let db = self.db.clone();
        let done = self.connection().and_then(|conn| work(conn).map_err(|error| OpenError::of(&db, error)));
        match done {
            Ok(done) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the reject log's head is noted in the database again");
                }
                Some(done)
            }
            Err(why) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(
                        %why,
                        "the reject log's head cannot be noted in the database, nor operators' acts be taken from it; both are \
                         tried again"
                    );
                }
                None
            }
        }
    }

    fn connection(&mut self) -> Result<&Connection, OpenError> {
        let conn = match self.conn.take() {
            Some(conn) => conn,
            None => {
                // A power failure may cost the last notes: a head that is behind is still in the log.
                let tables = format!("{}{}", head::TABLES, acts::TABLE);
                let conn = database::join_beside(&self.db, &tables, BUSY)?;
                self.compare(&conn).map_err(|error| OpenError::of(&self.db, error))?;
                conn
            }
        };
        Ok(self.conn.insert(conn))
    }

    /// Compares the log with its head. Logs and counts every finding, those of earlier starts included.
    fn compare(&self, conn: &Connection) -> rusqlite::Result<()> {
        if let Some(kept) = head::read(conn)? {
            match kept.missing_in(&self.log) {
                Ok(None) => {}
                Ok(Some(why)) => head::find(conn, &Finding { at: self.clock.now(), kept, why })?,
                Err(why) => {
                    tracing::warn!(%why, "the reject log cannot be compared with its head in the database")
                }
            }
        }
        for Finding { at, kept, why } in head::findings(conn)? {
            self.metrics.failures.inc();
            tracing::error!(
                head = %kept, found = %at,
                "the reject log is not as its gateway left it: {why}; look into it with `hookgate audit verify`, then accept it \
                 with `hookgate audit verify --accept`"
            );
        }
        Ok(())
    }
}

impl Ledger for AuditLedger {
    fn note(&mut self, head: &Mark, recorded: &[String]) -> bool {
        let noted = self.with(|conn| {
            let transaction = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
            head::write(&transaction, head)?;
            acts::forget(&transaction, recorded)?;
            transaction.commit()
        });
        if noted.is_none() {
            self.metrics.head_failures.inc();
        }
        noted.is_some()
    }

    fn acts(&mut self) -> Vec<Reject> {
        let now = self.clock.now();
        self.with(|conn| acts::waiting(conn, now)).unwrap_or_default()
    }
}

/// The log's writer has rejects to write.
const BUSY: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests;
