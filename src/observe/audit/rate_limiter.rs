//! Limits how much a limiter of rejects writes: a number per second for each source and reason. The rest is aggregated.
//! Accepted requests that are only reported are counted apart from refused ones.
//!
//! Keeps true: a held reject is either the one to be written, or counted in its `more`. The map is bounded by the
//! config's sources and reasons.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Reject;

/// A reject that represents `more` others of its kind.
#[derive(Debug)]
pub(super) struct Aggregate {
    pub(super) reject: Box<Reject>,
    pub(super) more: u64,
}

impl Aggregate {
    /// Represents only itself.
    pub(super) fn one(reject: Box<Reject>) -> Aggregate {
        Aggregate { reject, more: 0 }
    }
}

/// Rejects with the same source, reason and `observed` are aggregated.
type Kind = (Arc<str>, &'static str, bool);

fn kind(reject: &Reject) -> Kind {
    (Arc::clone(&reject.source), reject.reason, reject.observed)
}

pub(super) struct RejectRateLimiter {
    per_second: u32,
    windows: Mutex<HashMap<Kind, Window>>,
    /// Whether any aggregate is held. Changed only under the lock.
    holding: AtomicBool,
}

#[derive(Default)]
struct Window {
    second: i64,
    passed: u32,
    held: Option<Aggregate>,
}

impl RejectRateLimiter {
    pub(super) fn new(per_second: u32) -> RejectRateLimiter {
        RejectRateLimiter { per_second, windows: Mutex::default(), holding: AtomicBool::new(false) }
    }

    /// Returns the reject: `Ok` if it is to be written singly, `Err` if it exceeds the limit of its second.
    pub(super) fn acquire(&self, reject: Box<Reject>) -> Result<Box<Reject>, Box<Reject>> {
        let second = reject.at.as_second();
        let mut windows = self.windows();
        let window = windows.entry(kind(&reject)).or_default();
        // Around the turn of a second, rejects arrive out of order. One from the last second must not restart it. If
        // the time is further back, the clock was set.
        if second > window.second || second + 1 < window.second {
            (window.second, window.passed) = (second, 0);
        }
        if window.passed >= self.per_second {
            return Err(reject);
        }
        window.passed += 1;
        Ok(reject)
    }

    /// Holds an aggregate. True if nothing was held before.
    pub(super) fn hold(&self, aggregate: Aggregate) -> bool {
        let mut windows = self.windows();
        let window = windows.entry(kind(&aggregate.reject)).or_default();
        // Keeps the latest reject: its time is closest to the record's position in the chain.
        let before = window.held.as_ref().map_or(0, |held| held.more + 1);
        window.held = Some(Aggregate { more: aggregate.more + before, ..aggregate });
        !self.holding.swap(true, Ordering::Relaxed)
    }

    /// Whether any aggregate is held.
    pub(super) fn is_holding(&self) -> bool {
        self.holding.load(Ordering::Relaxed)
    }

    /// Takes all held aggregates, in order of time.
    pub(super) fn take(&self) -> Vec<Aggregate> {
        let mut windows = self.windows();
        self.holding.store(false, Ordering::Relaxed);
        let mut taken: Vec<Aggregate> =
            windows.values_mut().filter_map(|window| window.held.take()).collect();
        drop(windows);
        taken.sort_by_key(|aggregate| aggregate.reject.at);
        taken
    }

    fn windows(&self) -> MutexGuard<'_, HashMap<Kind, Window>> {
        // Every step under the lock leaves the map consistent, so a poisoned lock is fine.
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
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
        let limiter = RejectRateLimiter::new(2);
        let passes = |second, source| limiter.acquire(at(second, source)).is_ok();
        assert!(passes(10, "a") && passes(10, "a") && !passes(10, "a"));
        assert!(passes(10, "b"));
        assert!(passes(11, "a") && passes(10, "a"));
        assert!(!passes(11, "a"), "a late one of the last second started the second anew");
        assert!(passes(5, "a"), "a clock set back must not shut the window");
    }

    #[test]
    fn what_was_let_in_is_not_summed_with_what_was_refused() {
        let limiter = RejectRateLimiter::new(1);
        let of = |observed| {
            let mut of = at(1, "a");
            of.observed = observed;
            of
        };
        assert!(limiter.acquire(of(true)).is_ok() && limiter.acquire(of(false)).is_ok());
        assert!(limiter.acquire(of(true)).is_err() && limiter.acquire(of(false)).is_err());
        for observed in [true, false, false, true, false] {
            limiter.hold(Aggregate::one(of(observed)));
        }
        let mut sums: Vec<_> = limiter.take().iter().map(|s| (s.reject.observed, s.more)).collect();
        sums.sort_unstable();
        assert_eq!(sums, [(false, 2), (true, 1)]);
    }

    #[test]
    fn what_is_held_is_counted_to_the_last_one() {
        let limiter = RejectRateLimiter::new(0);
        assert!(!limiter.is_holding());
        assert!(limiter.hold(Aggregate::one(at(1, "a"))));
        assert!(!limiter.hold(Aggregate { reject: at(2, "a"), more: 5 }));
        assert!(!limiter.hold(Aggregate::one(at(0, "b"))));
        assert!(limiter.is_holding());
        let sums: Vec<(i64, u64)> =
            limiter.take().iter().map(|s| (s.reject.at.as_second(), s.more)).collect();
        assert_eq!(sums, [(0, 0), (2, 6)]);
        assert!(!limiter.is_holding() && limiter.take().is_empty());
        assert!(limiter.hold(Aggregate::one(at(3, "a"))), "the next one must wake the writer again");
    }
}
