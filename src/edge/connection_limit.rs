//! The places that connections take: so many in all, so many of one client, so many that are only being turned away.
//!
//! Keeps true: a place is given back by dropping it, whatever became of its connection; a client is remembered no longer than
//! it has a place, so the map is never larger than the connections are many.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::IntGauge;

use crate::base::peer;

/// What is taken, all listeners together.
#[derive(Default)]
pub struct ConnectionLimit {
    taken: AtomicUsize,
    turned_away: AtomicUsize,
    clients: Mutex<HashMap<IpAddr, usize>>,
}

impl ConnectionLimit {
    /// A place, unless `max` are taken. The gauge tells of it.
    pub(super) fn take(self: &Arc<Self>, max: usize, gauge: &IntGauge) -> Option<ConnectionPermit> {
        one_more(&self.taken, max).then(|| {
            gauge.inc();
            ConnectionPermit { places: self.clone(), gauge: gauge.clone(), client: None }
        })
    }

    /// A place for a connection that is only to read its refusal, unless [`MAX_TURNED_AWAY`] are taken.
    pub(super) fn turn_away(self: &Arc<Self>) -> Option<TurnedAway> {
        one_more(&self.turned_away, MAX_TURNED_AWAY).then(|| TurnedAway(self.clone()))
    }

    /// How many are left of `max`, for a connection to look at.
    pub(super) fn crowd(self: &Arc<Self>, max: usize) -> Crowd {
        Crowd { places: self.clone(), max }
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Every step under the lock leaves the map whole.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place.
pub(super) struct ConnectionPermit {
    places: Arc<ConnectionLimit>,
    gauge: IntGauge,
    client: Option<IpAddr>,
}

impl ConnectionPermit {
    /// Counts it as this client's. False, and not counted, where the client has `max` already.
    pub(super) fn belongs_to(&mut self, address: IpAddr, max: usize) -> bool {
        let client = peer::network(address);
        let mut clients = self.places.clients();
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
            let mut clients = self.places.clients();
            match clients.get_mut(&client) {
                Some(has @ 2..) => *has -= 1,
                _ => _ = clients.remove(&client),
            }
        }
        self.places.taken.fetch_sub(1, Ordering::Relaxed);
        self.gauge.dec();
    }
}

/// All connections, as one of them sees them.
#[derive(Clone)]
pub(super) struct Crowd {
    places: Arc<ConnectionLimit>,
    max: usize,
}

impl Crowd {
    /// Whether so few places are left that a connection has to give its own back on which nothing is asked.
    pub(super) fn is_dense(&self) -> bool {
        self.places.taken.load(Ordering::Relaxed) + self.max / SPARE >= self.max
    }
}

/// The place of a connection that is being turned away.
pub(super) struct TurnedAway(Arc<ConnectionLimit>);

impl Drop for TurnedAway {
    fn drop(&mut self) {
        self.0.turned_away.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One place in so many is kept free of idle connections.
const SPARE: usize = 16;

fn one_more(count: &AtomicUsize, max: usize) -> bool {
    let more = |taken| (taken < max).then_some(taken + 1);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
}

/// Connections that are turned away wait for their client to read why. Past so many they are closed at once: they take no
/// place of the others', but each is a file, and a flood of them must not use those up.
pub(super) const MAX_TURNED_AWAY: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn gauge() -> IntGauge {
        IntGauge::new("places", "places").unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn so_many_places_are_there_and_each_is_given_again() {
        let (places, gauge) = (Arc::<ConnectionLimit>::default(), gauge());
        let mut taken: Vec<ConnectionPermit> = (0..3).map(|_| places.take(3, &gauge).unwrap()).collect();
        assert!(places.take(3, &gauge).is_none());
        assert_eq!(gauge.get(), 3, "one that got no place counts nowhere");
        taken.pop();
        assert!(places.take(3, &gauge).is_some());
        // A reload may leave fewer places than are taken.
        assert!(places.take(1, &gauge).is_none());
        taken.clear();
        assert_eq!((gauge.get(), places.taken.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn one_client_cannot_take_the_places_of_another_and_is_forgotten_with_its_last() {
        let (places, gauge) = (Arc::<ConnectionLimit>::default(), gauge());
        let take = |client: &str| {
            let mut place = places.take(100, &gauge).unwrap();
            place.belongs_to(ip(client), 2).then_some(place)
        };
        let (first, second) = (take("203.0.113.7").unwrap(), take("203.0.113.7").unwrap());
        assert!(take("203.0.113.7").is_none());
        assert!(take("::ffff:203.0.113.7").is_none(), "the same address, written otherwise");
        let other = take("203.0.113.8").unwrap();
        drop(second);
        let again = take("203.0.113.7").unwrap();
        assert!(take("203.0.113.7").is_none());
        let network = [take("2001:db8:0:1::1").unwrap(), take("2001:db8:0:1:ffff::2").unwrap()];
        assert!(take("2001:db8:0:1::3").is_none(), "a /64 is one client");
        assert!(take("2001:db8:0:2::3").is_some());
        drop((first, again, other, network));
        assert!(places.clients().is_empty());
        assert_eq!(gauge.get(), 0);
    }

    #[test]
    fn a_sixteenth_of_the_places_is_kept_free() {
        let (places, gauge) = (Arc::<ConnectionLimit>::default(), gauge());
        let (crowd, few) = (places.crowd(32), places.crowd(2));
        let mut taken: Vec<ConnectionPermit> = Vec::new();
        let mut dense = |count| {
            taken.resize_with(count, || places.take(32, &gauge).unwrap());
            [crowd.is_dense(), few.is_dense()]
        };
        assert_eq!(dense(1), [false, false]);
        assert_eq!(dense(2), [false, true]);
        assert_eq!(dense(29), [false, true]);
        assert_eq!(dense(30), [true, true]);
        assert_eq!(dense(29), [false, true]);
    }

    #[test]
    fn so_many_may_linger() {
        let places = Arc::<ConnectionLimit>::default();
        let mut lingering: Vec<_> = (0..MAX_TURNED_AWAY).map(|_| places.turn_away().unwrap()).collect();
        assert!(places.turn_away().is_none());
        lingering.pop();
        assert!(places.turn_away().is_some());
        assert!(places.take(1, &gauge()).is_some(), "they take no place of the others'");
    }

    #[test]
    fn of_many_at_once_no_more_get_a_place_than_there_are() {
        let (places, gauge) = (Arc::<ConnectionLimit>::default(), gauge());
        std::thread::scope(|scope| {
            let at_once: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut taken = Vec::new();
                        for _ in 0..1000 {
                            taken.extend(places.take(50, &gauge));
                            let mut place = places.take(50, &gauge);
                            place.as_mut().map(|place| place.belongs_to(ip("203.0.113.7"), 3));
                        }
                        taken
                    })
                })
                .collect();
            let taken: Vec<_> = at_once.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
            assert_eq!((taken.len(), gauge.get()), (50, 50));
        });
        assert!(places.clients().is_empty());
        assert_eq!((gauge.get(), places.taken.load(Ordering::Relaxed)), (0, 0));
    }
}
