//! What is kept of the log beside it, and what is to enter it from there.

use super::{Mark, Reject};

/// A place outside the log that knows where the log ends, and where operators' acts wait to be recorded. The log's writer is
/// the only one that asks it.
pub trait Ledger: Send {
    /// Notes that the log is synced up to this record, and forgets the acts with these ids, which are in it. Whether it is done;
    /// if not, it is asked for again.
    fn note(&mut self, head: &Mark, recorded: &[String]) -> bool;

    /// Acts that wait. One that was not forgotten yet comes again.
    fn acts(&mut self) -> Vec<Reject>;
}
