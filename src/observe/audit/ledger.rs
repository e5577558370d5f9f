//! The ledger outside the log: it stores the log's head, and operators' acts that are not in the log yet.

use super::{Mark, Reject};

/// Stores the log's head outside the log, and operators' acts until the log has them. Only the log's writer calls it.
pub trait Ledger: Send {
    /// Stores that the log is synced up to this record, and deletes the acts with these ids, which the log has now.
    /// False if that failed; the writer then tries again.
    fn note(&mut self, head: &Mark, recorded: &[String]) -> bool;

    /// The acts that wait. An act is returned until [`Ledger::note`] deletes it.
    fn acts(&mut self) -> Vec<Reject>;
}
