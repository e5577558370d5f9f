//! The part of the reject log's state that `hookgate.db` keeps. It has the log's head, findings of a cut or replaced
//! log, and operators' acts that are not in the log yet.
//!
//! Keeps true: the head is never ahead of the synced log, and only a little behind it. Only the log's writer waits for
//! the database, and only briefly. A finding is kept until an operator accepts it.
//!
//! `head`: the head and the findings. `acts`: operators' acts, each stored before it is done.

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

/// The ledger, for the gateway that writes the log.
pub struct AuditLedger {
    db: PathBuf,
    log: PathBuf,
    clock: Clock,
    metrics: AuditMetrics,
    /// None until the database opens. Opening it compares the log with its head.
    conn: Option<Connection>,
    failing: bool,
}

impl AuditLedger {
    /// Opens the ledger in a gateway's database, and compares the log folder with it. A difference is logged, counted
    /// and kept as a finding. If the database does not open, each later note tries again.
    pub fn open(db: &Path, log: &Path, clock: Clock, metrics: AuditMetrics) -> AuditLedger {
        let (db, log) = (db.to_owned(), log.to_owned());
        let mut ledger = AuditLedger { db, log, clock, metrics, conn: None, failing: false };
        ledger.with(|_| Ok(()));
        ledger
    }

    /// Runs `work`. None if the database fails; only the first failure in a row is logged.
    fn with<T>(&mut self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Option<T> {
        let db = self.db.clone();
        let done = self.connection().and_then(|conn| work(conn).map_err(|error| OpenError::of(&db, error)));
        match done {
            Ok(done) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the database stores the reject log's head again");
                }
                Some(done)
            }
            Err(why) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(
                        %why,
                        "the database cannot store the reject log's head or return operators' acts; both are \
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
                // A power failure may lose the last heads. That is fine: an older head is still in the log.
                let tables = format!("{}{}", head::TABLES, acts::TABLE);
                let conn = database::join_beside(&self.db, &tables, BUSY)?;
                self.compare(&conn).map_err(|error| OpenError::of(&self.db, error))?;
                conn
            }
        };
        Ok(self.conn.insert(conn))
    }

    /// Compares the log with its head. Logs and counts every finding, including those of earlier starts.
    fn compare(&self, conn: &Connection) -> rusqlite::Result<()> {
        if let Some(kept) = head::read(conn)? {
            match kept.missing_in(&self.log) {
                Ok(None) => {}
                Ok(Some(why)) => head::add_finding(conn, &Finding { at: self.clock.now(), kept, why })?,
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
            acts::delete(&transaction, recorded)?;
            transaction.commit()
        });
        if noted.is_none() {
            self.metrics.head_failures.inc();
        }
        noted.is_some()
    }

    fn acts(&mut self) -> Vec<Reject> {
        let now = self.clock.now();
        self.with(|conn| acts::recordable(conn, now)).unwrap_or_default()
    }
}

/// Short, because the log's writer has rejects to write.
const BUSY: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests;
