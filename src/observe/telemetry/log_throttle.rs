//! A fault that may come many times a second, and for as long as it likes.
//!
//! Keeps true: it is told when it begins, at most once a minute while it lasts, and once when it is over; none is left
//! uncounted.

use std::time::{Duration, Instant};

use crate::base::clock;

/// The present spell of a fault, if there is one.
#[derive(Debug, Default)]
pub struct LogThrottle(Option<Lasting>);

#[derive(Clone, Copy, Debug)]
struct Lasting {
    told: Instant,
    last: Instant,
    untold: u64,
    all: u64,
}

impl LogThrottle {
    /// It has come once more. When that is to be told, how often it has come since it was told last.
    pub fn again(&mut self) -> Option<u64> {
        self.again_at(clock::instant())
    }

    /// Returns once it has not come for ten seconds, with how often it had come; never while there is no spell.
    pub async fn over(&mut self) -> u64 {
        let Some(Lasting { last, all, .. }) = self.0 else { return std::future::pending().await };
        tokio::time::sleep_until((last + QUIET).into()).await;
        self.0 = None;
        all
    }

    fn again_at(&mut self, now: Instant) -> Option<u64> {
        let Some(lasting) = self.0.as_mut().filter(|lasting| now.duration_since(lasting.last) < QUIET) else {
            self.0 = Some(Lasting { told: now, last: now, untold: 0, all: 1 });
            return Some(1);
        };
        lasting.last = now;
        lasting.all += 1;
        lasting.untold += 1;
        if now.duration_since(lasting.told) < BETWEEN_WORDS {
            return None;
        }
        lasting.told = now;
        Some(std::mem::take(&mut lasting.untold))
    }
}

/// Longer than any fault's own pace: one that comes and goes is one spell.
const QUIET: Duration = Duration::from_secs(10);
const BETWEEN_WORDS: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_told_when_it_begins_then_once_a_minute_and_none_is_left_uncounted() {
        let (mut spell, start) = (LogThrottle::default(), clock::instant());
        let mut told = Vec::new();
        for tenth in 0..1500_u64 {
            told.extend(spell.again_at(start + Duration::from_millis(100 * tenth)));
        }
        assert_eq!(told, [1, 600, 600]);
        assert_eq!(spell.0.map(|lasting| lasting.all), Some(1500));
        let later = start + Duration::from_millis(100 * 1499) + QUIET;
        assert_eq!(spell.again_at(later), Some(1), "another spell");
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_over_once_and_then_there_is_none() {
        let mut spell = LogThrottle::default();
        spell.again();
        spell.again();
        assert_eq!(spell.over().await, 2);
        assert!(tokio::time::timeout(QUIET * 100, spell.over()).await.is_err());
    }
}
