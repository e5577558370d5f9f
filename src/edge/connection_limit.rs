//! Limits open connections: in total, for each client, and those that only wait for their client to read a refusal.
//!
//! Keeps true: dropping a permit releases it, however its connection ended. A client is remembered only while it has a
//! permit, so the map is never larger than the number of connections.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::IntGauge;

use crate::base::peer;

/// The connections of all public listeners together.
#[derive(Default)]
pub struct ConnectionLimit {
    taken: AtomicUsize,
    refusing: AtomicUsize,
    clients: Mutex<HashMap<IpAddr, usize>>,
}

impl ConnectionLimit {
    /// Acquires a permit, unless `max` are in use. The gauge counts permits in use.
    pub(super) fn acquire(self: &Arc<Self>, max: usize, gauge: &IntGauge) -> Option<ConnectionPermit> {
        increment_below(&self.taken, max).then(|| {
            gauge.inc();
            ConnectionPermit { limit: self.clone(), gauge: gauge.clone(), client: None }
        })
    }

    /// Acquires a permit for a connection whose client has yet to read its refusal, unless [`MAX_REFUSING`] are in use.
    pub(super) fn acquire_refusal(self: &Arc<Self>) -> Option<RefusalPermit> {
        increment_below(&self.refusing, MAX_REFUSING).then(|| RefusalPermit(self.clone()))
    }

    /// A view for one connection of how many of `max` permits are left.
    pub(super) fn pressure(self: &Arc<Self>, max: usize) -> ConnectionPressure {
        ConnectionPressure { limit: self.clone(), max }
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Every step under the lock leaves the map whole.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One open connection.
pub(super) struct ConnectionPermit {
    limit: Arc<ConnectionLimit>,
    gauge: IntGauge,
    client: Option<IpAddr>,
}

impl ConnectionPermit {
    /// Counts the connection towards its client. Returns false, and counts nothing, if the client has `max` already.
    pub(super) fn assign_client(&mut self, address: IpAddr, max: usize) -> bool {
        let client = peer::network(address);
        let mut clients = self.limit.clients();
        let has = clients.get(&client).copied().unwrap_or(0);
        if has >= max {
            return false;
        }
        clients.insert(client, has + 1);
        drop(clients);
        self.client = Some(client);
        true
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        if let Some(client) = self.client {
            let mut clients = self.limit.clients();
            match clients.get_mut(&client) {
                Some(has @ 2..) => *has -= 1,
                _ => _ = clients.remove(&client),
            }
        }
        self.limit.taken.fetch_sub(1, Ordering::Relaxed);
        self.gauge.dec();
    }
}

/// Tells an idle connection whether it must close to make room for others.
#[derive(Clone)]
pub(super) struct ConnectionPressure {
    limit: Arc<ConnectionLimit>,
    max: usize,
}

impl ConnectionPressure {
    /// Whether so few permits are left that idle connections must close.
    pub(super) fn is_high(&self) -> bool {
        self.limit.taken.load(Ordering::Relaxed) + self.max / SPARE >= self.max
    }
}

/// One refused connection that lingers.
pub(super) struct RefusalPermit(Arc<ConnectionLimit>);

impl Drop for RefusalPermit {
    fn drop(&mut self) {
        self.0.refusing.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One in 16 permits is kept free of idle connections.
const SPARE: usize = 16;

fn increment_below(count: &AtomicUsize, max: usize) -> bool {
    let more = |taken| (taken < max).then_some(taken + 1);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
}

/// Refused connections that may wait for their client to read the refusal. Further ones are closed at once: they need
/// no permit, but each is an open file, and a flood must not use up all files.
pub(super) const MAX_REFUSING: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn gauge() -> IntGauge {
        IntGauge::new("limit", "limit").unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn no_more_than_max_permits_are_in_use_and_a_dropped_one_is_free_again() {
        let (limit, gauge) = (Arc::<ConnectionLimit>::default(), gauge());
        let mut taken: Vec<ConnectionPermit> = (0..3).map(|_| limit.acquire(3, &gauge).unwrap()).collect();
        assert!(limit.acquire(3, &gauge).is_none());
        assert_eq!(gauge.get(), 3, "a refused connection is not counted");
        taken.pop();
        assert!(limit.acquire(3, &gauge).is_some());
        // A reload may lower the limit below the number in use.
        assert!(limit.acquire(1, &gauge).is_none());
        taken.clear();
        assert_eq!((gauge.get(), limit.taken.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn each_client_has_its_own_limit_and_is_forgotten_with_its_last_connection() {
        let (limit, gauge) = (Arc::<ConnectionLimit>::default(), gauge());
        let take = |client: &str| {
            let mut permit = limit.acquire(100, &gauge).unwrap();
            permit.assign_client(ip(client), 2).then_some(permit)
        };
        let (first, second) = (take("203.0.113.7").unwrap(), take("203.0.113.7").unwrap());
        assert!(take("203.0.113.7").is_none());
        assert!(take("::ffff:203.0.113.7").is_none(), "the same address in another notation");
        let other = take("203.0.113.8").unwrap();
        drop(second);
        let again = take("203.0.113.7").unwrap();
        assert!(take("203.0.113.7").is_none());
        let network = [take("2001:db8:0:1::1").unwrap(), take("2001:db8:0:1:ffff::2").unwrap()];
        assert!(take("2001:db8:0:1::3").is_none(), "a /64 is one client");
        assert!(take("2001:db8:0:2::3").is_some());
        drop((first, again, other, network));
        assert!(limit.clients().is_empty());
        assert_eq!(gauge.get(), 0);
    }

    #[test]
    fn a_sixteenth_of_the_permits_is_kept_free() {
        let (limit, gauge) = (Arc::<ConnectionLimit>::default(), gauge());
        let (pressure, few) = (limit.pressure(32), limit.pressure(2));
        let mut taken: Vec<ConnectionPermit> = Vec::new();
        let mut dense = |count| {
            taken.resize_with(count, || limit.acquire(32, &gauge).unwrap());
            [pressure.is_high(), few.is_high()]
        };
        assert_eq!(dense(1), [false, false]);
        assert_eq!(dense(2), [false, true]);
        assert_eq!(dense(29), [false, true]);
        assert_eq!(dense(30), [true, true]);
        assert_eq!(dense(29), [false, true]);
    }

    #[test]
    fn the_number_of_lingering_connections_is_bounded() {
        let limit = Arc::<ConnectionLimit>::default();
        let mut lingering: Vec<_> = (0..MAX_REFUSING).map(|_| limit.acquire_refusal().unwrap()).collect();
        assert!(limit.acquire_refusal().is_none());
        lingering.pop();
        assert!(limit.acquire_refusal().is_some());
        assert!(limit.acquire(1, &gauge()).is_some(), "they use no connection permit");
    }

    #[test]
    fn concurrent_threads_cannot_exceed_the_limit() {
        let (limit, gauge) = (Arc::<ConnectionLimit>::default(), gauge());
        std::thread::scope(|scope| {
            let at_once: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut taken = Vec::new();
                        for _ in 0..1000 {
                            taken.extend(limit.acquire(50, &gauge));
                            let mut permit = limit.acquire(50, &gauge);
                            permit.as_mut().map(|permit| permit.assign_client(ip("203.0.113.7"), 3));
                        }
                        taken
                    })
                })
                .collect();
            let taken: Vec<_> = at_once.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
            assert_eq!((taken.len(), gauge.get()), (50, 50));
        });
        assert!(limit.clients().is_empty());
        assert_eq!((gauge.get(), limit.taken.load(Ordering::Relaxed)), (0, 0));
    }
}
