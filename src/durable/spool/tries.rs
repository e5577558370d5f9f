//! How often an event failed, and whether the event itself is to blame.
//!
//! Keeps true: an event is given up in two cases only. Either the queue says that it will never take the event, or the
//! event fails again after the queue took another one. While the queue takes nothing, no event is given up.

use std::collections::HashMap;

use crate::durable::inbox::EnqueueError;

/// The rows of one source that have failures.
#[derive(Default)]
pub(super) struct Tries(HashMap<i64, Failures>);

#[derive(Default)]
struct Failures {
    unroutable: u32,
    unknown: u32,
    /// How many events the queue had taken when this one reached its number of failures.
    suspect_since: Option<u64>,
}

impl Tries {
    /// Records a failure; `taken` is how many events the queue has taken so far. Returns the reason if the event is now
    /// given up.
    pub(super) fn record_failure(&mut self, row: i64, why: &EnqueueError, taken: u64) -> Option<String> {
        let failures = self.0.entry(row).or_default();
        match why {
            EnqueueError::Unacceptable(_) => return Some(why.to_string()),
            EnqueueError::Unroutable(_) | EnqueueError::Rejected(_) => failures.unroutable += 1,
            EnqueueError::Unknown | EnqueueError::Unclear(_) => failures.unknown += 1,
            // The queue would refuse any event, which explains the earlier failures too.
            EnqueueError::Unreachable | EnqueueError::Refused(_) => *failures = Failures::default(),
            EnqueueError::Overloaded | EnqueueError::InProgress => return None,
        }
        if failures.unroutable < UNROUTABLE_TRIES && failures.unknown < UNKNOWN_TRIES {
            return None;
        }
        let since = *failures.suspect_since.get_or_insert(taken);
        let tries = failures.unroutable + failures.unknown;
        let maybe_in = match why {
            EnqueueError::Unknown | EnqueueError::Unclear(_) => {
                "; it may be in: a retry is safe within the dedupe window"
            }
            _ => "",
        };
        (taken > since).then(|| format!("{why}; tried {tries} times, while the queue took others{maybe_in}"))
    }

    /// Whether a row has failed often enough; to give it up, the queue must also take another event.
    pub(super) fn is_suspect(&self, row: i64) -> bool {
        self.0.get(&row).is_some_and(|failures| failures.suspect_since.is_some())
    }

    pub(super) fn count(&self, row: i64) -> u32 {
        self.0.get(&row).map_or(0, |failures| failures.unroutable + failures.unknown)
    }

    pub(super) fn forget(&mut self, row: i64) {
        self.0.remove(&row);
    }
}

const UNROUTABLE_TRIES: u32 = 10;
const UNKNOWN_TRIES: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn given_up(tries: &mut Tries, why: &EnqueueError, taken: u64, times: u32) -> bool {
        (0..times).any(|_| tries.record_failure(7, why, taken).is_some())
    }

    #[test]
    fn only_what_cannot_be_taken_is_given_up() {
        let (full, away) = (EnqueueError::Refused("full".to_owned()), EnqueueError::Unreachable);
        let large = EnqueueError::Unacceptable("too large".to_owned());
        for why in [&full, &away, &EnqueueError::Overloaded, &EnqueueError::InProgress] {
            let tries = &mut Tries::default();
            assert!((0..100).all(|taken| !given_up(tries, why, taken, 10)), "{why}");
        }
        assert!(given_up(&mut Tries::default(), &large, 0, 1));
    }

    #[test]
    fn a_queue_that_takes_nothing_condemns_nobody() {
        let unroutable = EnqueueError::Unroutable("no queue".to_owned());
        for (why, enough) in [(&unroutable, UNROUTABLE_TRIES), (&EnqueueError::Unknown, UNKNOWN_TRIES)] {
            let tries = &mut Tries::default();
            assert!(!given_up(tries, why, 5, 1));
            assert!(!given_up(tries, why, 6, enough - 1), "what was taken before it had failed enough");
            assert!(tries.is_suspect(7) && !given_up(tries, why, 6, 1000), "whatever it answers");
            assert!(tries.record_failure(8, why, 7).is_none(), "another row's tries are its own");
            assert!(given_up(tries, why, 7, 1), "{why}");
        }
    }

    #[test]
    fn what_the_queue_said_is_the_reason() {
        let (tries, reset) = (&mut Tries::default(), EnqueueError::Unclear("connection reset".to_owned()));
        assert!(!given_up(tries, &reset, 0, UNKNOWN_TRIES));
        let why = tries.record_failure(7, &reset, 1).unwrap();
        assert!(why.contains("connection reset") && why.contains("a retry is safe"), "{why}");
    }

    #[test]
    fn an_outage_explains_what_went_before() {
        let tries = &mut Tries::default();
        assert!(!given_up(tries, &EnqueueError::Unknown, 0, UNKNOWN_TRIES));
        assert!(!given_up(tries, &EnqueueError::Unreachable, 1, 1) && !tries.is_suspect(7));
        assert!(!given_up(tries, &EnqueueError::Unknown, 1, UNKNOWN_TRIES));
        assert!(!given_up(tries, &EnqueueError::Overloaded, 2, 1), "says nothing of either");
        assert!(given_up(tries, &EnqueueError::Unknown, 2, 1));
    }
}
