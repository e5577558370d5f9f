//! The schedules of retries, and the fast clock on which they run.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Basiq's and Anduin's: eight attempts over 27 h 35 min 5 s.
pub(super) const EIGHT_ATTEMPTS: &[u64] =
    &[0, 5, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 10 * HOUR];
/// IOF's: five attempts over 2 h 36 min.
pub(super) const FIVE_ATTEMPTS: &[u64] = &[0, MINUTE, 5 * MINUTE, 30 * MINUTE, 2 * HOUR];
/// Atelio publishes about eight attempts with exponential backoff over up to three days, and no delays: these grow fourfold.
pub(super) const BACKOFF: &[u64] = &[0, 45, 180, 720, 2_880, 11_520, 46_080, 184_320];
/// Securitize publishes nothing: nothing is sent again.
pub(super) const ONE_ATTEMPT: &[u64] = &[0];

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// How deliveries are sent.
#[derive(Clone)]
pub(super) struct Clock {
    /// Divides the delays.
    pub(super) factor: u32,
    /// The time that an endpoint has to answer.
    pub(super) patience: Duration,
    /// Origins that are reached at another address.
    pub(super) routes: BTreeMap<String, SocketAddr>,
}

impl Default for Clock {
    /// Basiq's whole schedule takes a second.
    fn default() -> Clock {
        Clock { factor: 100_000, patience: Duration::from_secs(10), routes: BTreeMap::new() }
    }
}

impl Clock {
    pub(super) fn delay(&self, seconds: u64) -> Duration {
        Duration::from_secs(seconds) / self.factor
    }
}
