//! How often a lane's first event has failed, and when it may be tried again.
//!
//! Keeps true: an event is given up only if the service refused it, and never because the service fails.

use std::time::{Duration, Instant};

use crate::base::clock;
use crate::durable::inbox::EnqueueError;

/// The failures of a lane's first event.
#[derive(Clone, Copy, Default)]
pub(super) struct Failures {
    count: u32,
    refusals: u32,
    pub(super) not_before: Option<Instant>,
    /// The last try found nothing to connect to.
    pub(super) unreachable: bool,
}

impl Failures {
    /// Returns why the event is given up, if it is.
    pub(super) fn add(&mut self, why: &EnqueueError, is_paused: bool) -> Option<String> {
        // These say nothing of the service.
        if !matches!(why, EnqueueError::InProgress | EnqueueError::Overloaded) {
            self.count = self.count.saturating_add(1);
        }
        self.unreachable = *why == EnqueueError::Unreachable;
        // A pause of the whole URL replaces the backoff.
        self.not_before = (!is_paused).then(|| clock::instant() + backoff(self.count));
        match why {
            EnqueueError::Unacceptable(_) => Some(why.to_string()),
            EnqueueError::Rejected(_) => {
                self.refusals += 1;
                (self.refusals >= REFUSALS).then(|| format!("{why}; tried {} times", self.count))
            }
            EnqueueError::Refused(_)
            | EnqueueError::Unroutable(_)
            | EnqueueError::Unreachable
            | EnqueueError::Unknown
            | EnqueueError::Unclear(_)
            | EnqueueError::Overloaded
            | EnqueueError::InProgress => None,
        }
    }
}

/// The pause after so many failures: 1 s, doubled up to a minute. The actual pause is up to half as long again, or up to a
/// quarter shorter than a minute.
fn backoff(failures: u32) -> Duration {
    let base = BACKOFF_MIN.saturating_mul(1 << (failures.max(1) - 1).min(16)).min(BACKOFF_MAX);
    let (least, most) = (base.min(BACKOFF_MAX.mul_f64(0.75)), base.mul_f64(1.5).min(BACKOFF_MAX));
    let [chance] = clock::random::<1>();
    least + (most - least).mul_f64(f64::from(chance) / 255.0)
}

const BACKOFF_MIN: Duration = Duration::from_millis(if cfg!(test) { 2 } else { 1000 });
const BACKOFF_MAX: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 60_000 });
/// After so many refusals an event is given up.
const REFUSALS: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backoff_doubles_up_to_its_limit() {
        for failures in 1..40 {
            let base = BACKOFF_MIN.saturating_mul(1 << (failures - 1).min(10)).min(BACKOFF_MAX);
            for _ in 0..50 {
                let pause = backoff(failures);
                assert!(
                    pause >= base.mul_f64(0.75) && pause <= base.mul_f64(1.5).min(BACKOFF_MAX),
                    "{pause:?}"
                );
                assert!(pause >= BACKOFF_MIN);
            }
        }
    }
}
