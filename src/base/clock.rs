//! Time and chance, the two inputs that a test must be able to fix.
//!
//! Keeps true: nothing else in the crate reads the wall clock, the monotonic clock or the random generator
//! (`.clippy.toml` bans the usual calls).

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use jiff::Timestamp;
use rand::Rng;

/// Where the time comes from: the machine, or a hand that a test moves.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The machine's clock.
    #[default]
    System,
    /// Unix time in microseconds, moved only by its owner.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stands still at `at` until moved.
    pub fn manual(at: Timestamp) -> Clock {
        Clock::Manual(Arc::new(AtomicI64::new(at.as_microsecond())))
    }

    /// The wall clock's time.
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

/// The monotonic clock, for measuring how long something took.
#[allow(clippy::disallowed_methods)]
pub fn instant() -> Instant {
    Instant::now()
}

/// Seconds for a `Retry-After`: 1 to 30, drawn anew each time so that retries do not arrive together.
pub fn retry_after() -> u32 {
    rand::rng().random_range(1..=30)
}

/// `N` random bytes.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::rng().fill(&mut bytes[..]);
    bytes
}
