//! What the tests of the edge and of the commands share: the binary with a config of its own, requests written byte by byte,
//! and deliveries signed by the providers' published formulas.

mod bystander;
mod delivery;
mod home;
mod metrics;
mod wire;

use std::time::{Duration, Instant};

pub use bystander::Bystander;
pub use delivery::*;
pub use home::{Home, Ran, Served};
pub use metrics::Metrics;
pub use wire::{Answer, Connection, Request, is_open};

/// Looks until there is something to see.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Looks until it is true.
pub fn until(what: &str, mut true_now: impl FnMut() -> bool) {
    eventually(what, || true_now().then_some(()));
}

/// After this long a test fails. No test waits this long to pass.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const LOOK_AGAIN: Duration = Duration::from_millis(10);
