//! Time and randomness.
//!
//! Keeps true: no other module reads the wall clock, the monotonic clock or the random generator
//! (`.clippy.toml` bans the usual calls).

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use jiff::Timestamp;
use rand::Rng;

/// The source of the wall-clock time.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The machine's clock.
    #[default]
    System,
    /// Unix time in microseconds, which a test sets.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stands still at `at` until a test moves it.
    pub fn manual(at: Timestamp) -> Clock {
        Clock::Manual(Arc::new(AtomicI64::new(at.as_microsecond())))
    }

    /// The current wall-clock time.
    #[allow(clippy::disallowed_methods)]
    pub fn now(&self) -> Timestamp {
        match self {
            Clock::System => Timestamp::now(),
            Clock::Manual(micros) => {
                Timestamp::from_microsecond(micros.load(Ordering::Relaxed)).unwrap_or(Timestamp::UNIX_EPOCH)
            }
        }
    }
}

/// The current time of the monotonic clock, to measure durations.
#[allow(clippy::disallowed_methods)]
pub fn instant() -> Instant {
    Instant::now()
}

/// Seconds for a `Retry-After`: random from 1 to 30, so that retries do not arrive together.
pub fn retry_after() -> u32 {
    rand::rng().random_range(1..=30)
}

/// `N` random bytes.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill(&mut bytes[..]);
    bytes
}
