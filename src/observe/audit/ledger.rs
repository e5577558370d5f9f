//! The ledger beside the log: it keeps the log's head, and the acts that the writer has yet to record.

use super::{Mark, Reject};

/// A place outside the log that knows where the log ends, and where operators' acts wait to be recorded. The log's writer is
/// the only one that asks it.
pub trait Ledger: Send {
    /// Notes that the log is synced up to this record, and forgets the acts with these ids, which the log holds. Returns whether
    /// that worked; if not, the writer asks again.
    fn note(&mut self, head: &Mark, recorded: &[String]) -> bool;

    /// The acts that wait. An act comes again until [`Ledger::note`] has forgotten it.
    fn acts(&mut self) -> Vec<Reject>;
}
