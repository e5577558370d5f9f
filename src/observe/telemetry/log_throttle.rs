//! Limits the log lines about a fault that may occur many times per second.
//!
//! Keeps true: a fault is logged when it begins, at most once a minute while it lasts, and once when it ends. The
//! counts include every occurrence.

use std::time::{Duration, Instant};

use crate::base::clock;

/// The current series of occurrences, if there is one.
#[derive(Debug, Default)]
pub struct LogThrottle(Option<Series>);

#[derive(Clone, Copy, Debug)]
struct Series {
    logged: Instant,
    last: Instant,
    unlogged: u64,
    total: u64,
}

impl LogThrottle {
    /// Counts an occurrence. If it should be logged now, returns the number of occurrences since the last log line.
    pub fn record(&mut self) -> Option<u64> {
        self.record_at(clock::instant())
    }

    /// Returns the series' total after ten seconds without an occurrence. Pending while there is no series.
    pub async fn wait_until_quiet(&mut self) -> u64 {
        let Some(Series { last, total, .. }) = self.0 else { return std::future::pending().await };
        tokio::time::sleep_until((last + QUIET).into()).await;
        self.0 = None;
        total
    }

    fn record_at(&mut self, now: Instant) -> Option<u64> {
        let Some(series) = self.0.as_mut().filter(|series| now.duration_since(series.last) < QUIET) else {
            self.0 = Some(Series { logged: now, last: now, unlogged: 0, total: 1 });
            return Some(1);
        };
        series.last = now;
        series.total += 1;
        series.unlogged += 1;
        if now.duration_since(series.logged) < LOG_INTERVAL {
            return None;
        }
        series.logged = now;
        Some(std::mem::take(&mut series.unlogged))
    }
}

/// Longer than the usual interval of a fault, so that a recurring fault is one series.
const QUIET: Duration = Duration::from_secs(10);
const LOG_INTERVAL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_logged_when_it_begins_then_once_a_minute_and_none_is_left_uncounted() {
        let (mut throttle, start) = (LogThrottle::default(), clock::instant());
        let mut logged = Vec::new();
        for tenth in 0..1500_u64 {
            logged.extend(throttle.record_at(start + Duration::from_millis(100 * tenth)));
        }
        assert_eq!(logged, [1, 600, 600]);
        assert_eq!(throttle.0.map(|series| series.total), Some(1500));
        let later = start + Duration::from_millis(100 * 1499) + QUIET;
        assert_eq!(throttle.record_at(later), Some(1), "another series");
    }

    #[tokio::test(start_paused = true)]
    async fn a_series_ends_once() {
        let mut throttle = LogThrottle::default();
        throttle.record();
        throttle.record();
        assert_eq!(throttle.wait_until_quiet().await, 2);
        assert!(tokio::time::timeout(QUIET * 100, throttle.wait_until_quiet()).await.is_err());
    }
}
