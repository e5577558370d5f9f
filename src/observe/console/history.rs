//! The counts of the last hour, for the sparklines.
//!
//! Keeps true: a source takes a fixed amount of memory, and a source that is gone takes none.

use std::collections::{BTreeMap, VecDeque};

/// Requests of a source since the start: accepted, refused.
pub type Counts = [u64; 2];

/// The counts of every source in the last hour.
#[derive(Default)]
pub struct History(BTreeMap<String, Ring>);

/// One source: its last counts, and what came in each interval of [`SAMPLE_SECONDS`], newest last.
#[derive(Default)]
struct Ring {
    last: Counts,
    samples: VecDeque<[u32; 2]>,
}

/// What came in each minute of the last hour, newest last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Minutes {
    /// Accepted events. Empty before the first sample.
    pub accepted: Vec<u64>,
    /// Refused requests.
    pub rejected: Vec<u64>,
}

impl History {
    /// Adds a sample. Call it every [`SAMPLE_SECONDS`], with the counts of every source.
    pub fn sample(&mut self, counts: BTreeMap<String, Counts>) {
        self.0.retain(|source, _| counts.contains_key(source));
        for (source, now) in counts {
            let ring = self.0.entry(source).or_default();
            let since = |at: usize| {
                // A reload that brings a source back starts its counts anew.
                let before = if now[at] < ring.last[at] { 0 } else { ring.last[at] };
                u32::try_from(now[at] - before).unwrap_or(u32::MAX)
            };
            let came = [since(0), since(1)];
            ring.last = now;
            ring.samples.push_back(came);
            if ring.samples.len() > SAMPLES {
                ring.samples.pop_front();
            }
        }
    }

    /// The last hour of a source.
    pub fn minutes(&self, source: &str) -> Minutes {
        let Some(ring) = self.0.get(source) else { return Minutes::default() };
        let newest_first: Vec<&[u32; 2]> = ring.samples.iter().rev().collect();
        let minutes = |at: usize| {
            let sum = |minute: &[&[u32; 2]]| minute.iter().map(|sample| u64::from(sample[at])).sum();
            let mut minutes: Vec<u64> = newest_first.chunks(A_MINUTE).map(sum).collect();
            minutes.reverse();
            minutes
        };
        Minutes { accepted: minutes(0), rejected: minutes(1) }
    }

    /// What all sources together had in the last minute.
    pub fn last_minute(&self) -> Counts {
        let mut sums = [0, 0];
        for ring in self.0.values() {
            for sample in ring.samples.iter().rev().take(A_MINUTE) {
                sums[0] += u64::from(sample[0]);
                sums[1] += u64::from(sample[1]);
            }
        }
        sums
    }
}

/// Between two samples.
pub const SAMPLE_SECONDS: u64 = 10;
const A_MINUTE: usize = 6;
/// An hour.
const SAMPLES: usize = 60 * A_MINUTE;

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(source: &str, accepted: u64, rejected: u64) -> BTreeMap<String, Counts> {
        BTreeMap::from([(source.to_owned(), [accepted, rejected])])
    }

    #[test]
    fn an_hour_is_kept_by_minute_and_no_more() {
        let mut history = History::default();
        for sample in 1..=10 * SAMPLES as u64 {
            history.sample(counts("a", 2 * sample, sample));
        }
        let minutes = history.minutes("a");
        assert_eq!((minutes.accepted, minutes.rejected), (vec![12; 60], vec![6; 60]));
        assert_eq!(history.last_minute(), [12, 6]);
        assert_eq!(history.0["a"].samples.len(), SAMPLES);
    }

    #[test]
    fn the_newest_minute_is_the_last_and_a_source_that_is_gone_is_forgotten() {
        let mut history = History::default();
        for accepted in [0, 0, 0, 0, 0, 0, 0, 5] {
            history.sample(counts("a", accepted, 0));
        }
        assert_eq!(history.minutes("a").accepted, [0, 5]);
        history.sample(counts("a", 3, 0));
        assert_eq!(history.minutes("a").accepted, [0, 8], "its counts began anew");
        history.sample(counts("b", 7, 0));
        assert_eq!(history.minutes("a"), Minutes::default());
        assert_eq!(history.minutes("b").accepted, [7]);
    }
}
