//! The bound on what a flood of rejects writes: so many a second of one source and reason, the rest summed; what
//! was let in and only observed apart from what was refused.
//!
//! Keeps true: a reject that is held back is either the one kept to be written, or counted in its `more`;
//! the map is as small as the config, since sources and reasons are.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Reject;

/// A reject that stands for `more` others of its kind.
#[derive(Debug)]
pub(super) struct Aggregate {
    pub(super) reject: Box<Reject>,
    pub(super) more: u64,
}

impl Aggregate {
    /// A reject that stands for itself.
    pub(super) fn one(reject: Box<Reject>) -> Aggregate {
        Aggregate { reject, more: 0 }
    }
}

/// What rejects have in common that are summed: the source, the reason, and whether they were only observed.
type Kind = (Arc<str>, &'static str, bool);

fn kind(reject: &Reject) -> Kind {
    (Arc::clone(&reject.source), reject.reason, reject.observed)
}

/// What passed lately, and what is held back.
pub(super) struct RejectRateLimiter {
    per_second: u32,
    gates: Mutex<HashMap<Kind, Gate>>,
    /// Something is held; changed only under the lock.
    holding: AtomicBool,
}

#[derive(Default)]
struct Gate {
    second: i64,
    passed: u32,
    held: Option<Aggregate>,
}

impl RejectRateLimiter {
    pub(super) fn new(per_second: u32) -> RejectRateLimiter {
        RejectRateLimiter { per_second, gates: Mutex::default(), holding: AtomicBool::new(false) }
    }

    /// Gives a reject back to be written by itself (`Ok`), or as one too many in its second (`Err`).
    pub(super) fn admit(&self, reject: Box<Reject>) -> Result<Box<Reject>, Box<Reject>> {
        let second = reject.at.as_second();
        let mut gates = self.gates();
        let gate = gates.entry(kind(&reject)).or_default();
        // Rejects cross at the turn of a second: one from the last second must not start that one anew.
        // Further back, the clock was set.
        if second > gate.second || second + 1 < gate.second {
            (gate.second, gate.passed) = (second, 0);
        }
        if gate.passed >= self.per_second {
            return Err(reject);
        }
        gate.passed += 1;
        Ok(reject)
    }

    /// Holds a reject back, with all it stands for; true when nothing was held before.
    pub(super) fn hold(&self, summed: Aggregate) -> bool {
        let mut gates = self.gates();
        let gate = gates.entry(kind(&summed.reject)).or_default();
        // The latest is kept: its time is the nearest to the record's place in the chain.
        let before = gate.held.as_ref().map_or(0, |held| held.more + 1);
        gate.held = Some(Aggregate { more: summed.more + before, ..summed });
        !self.holding.swap(true, Ordering::Relaxed)
    }

    /// Whether something is held.
    pub(super) fn holding(&self) -> bool {
        self.holding.load(Ordering::Relaxed)
    }

    /// All that is held, in order of time; nothing is held afterwards.
    pub(super) fn take(&self) -> Vec<Aggregate> {
        let mut gates = self.gates();
        self.holding.store(false, Ordering::Relaxed);
        let mut taken: Vec<Aggregate> = gates.values_mut().filter_map(|gate| gate.held.take()).collect();
        drop(gates);
        taken.sort_by_key(|summed| summed.reject.at);
        taken
    }

    fn gates(&self) -> MutexGuard<'_, HashMap<Kind, Gate>> {
        // Every step under the lock leaves the map whole.
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::reject;
    use super::*;

    fn at(second: i64, source: &str) -> Box<Reject> {
        let mut of = reject(0);
        of.at = jiff::Timestamp::from_second(second).unwrap();
        of.source = source.into();
        Box::new(of)
    }

    #[test]
    fn each_source_and_reason_has_its_own_second() {
        let flood = RejectRateLimiter::new(2);
        let passes = |second, source| flood.admit(at(second, source)).is_ok();
        assert!(passes(10, "a") && passes(10, "a") && !passes(10, "a"));
        assert!(passes(10, "b"));
        assert!(passes(11, "a") && passes(10, "a"));
        assert!(!passes(11, "a"), "a late one of the last second started the second anew");
        assert!(passes(5, "a"), "a clock set back must not shut the gate");
    }

    #[test]
    fn what_was_let_in_is_not_summed_with_what_was_refused() {
        let flood = RejectRateLimiter::new(1);
        let of = |observed| {
            let mut of = at(1, "a");
            of.observed = observed;
            of
        };
        assert!(flood.admit(of(true)).is_ok() && flood.admit(of(false)).is_ok());
        assert!(flood.admit(of(true)).is_err() && flood.admit(of(false)).is_err());
        for observed in [true, false, false, true, false] {
            flood.hold(Aggregate::one(of(observed)));
        }
        let mut sums: Vec<_> = flood.take().iter().map(|s| (s.reject.observed, s.more)).collect();
        sums.sort_unstable();
        assert_eq!(sums, [(false, 2), (true, 1)]);
    }

    #[test]
    fn what_is_held_is_counted_to_the_last_one() {
        let flood = RejectRateLimiter::new(0);
        assert!(!flood.holding());
        assert!(flood.hold(Aggregate::one(at(1, "a"))));
        assert!(!flood.hold(Aggregate { reject: at(2, "a"), more: 5 }));
        assert!(!flood.hold(Aggregate::one(at(0, "b"))));
        assert!(flood.holding());
        let sums: Vec<(i64, u64)> = flood.take().iter().map(|s| (s.reject.at.as_second(), s.more)).collect();
        assert_eq!(sums, [(0, 0), (2, 6)]);
        assert!(!flood.holding() && flood.take().is_empty());
        assert!(flood.hold(Aggregate::one(at(3, "a"))), "the next one must wake the writer again");
    }
}
