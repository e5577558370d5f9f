//! The places of the admin listener's connections: so many in all, far fewer of one client.
//!
//! Keeps true: a place is given back by dropping it; a client is remembered no longer than it has one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::peer;

/// What is taken.
#[derive(Default)]
pub(super) struct Places(Mutex<Taken>);

#[derive(Default)]
struct Taken {
    all: usize,
    clients: HashMap<IpAddr, usize>,
}

impl Places {
    /// A place for a connection from this address, unless there is none left, or none for its client.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let client = peer::network(address);
        let mut taken = self.taken();
        let has = taken.clients.get(&client).copied().unwrap_or(0);
        if taken.all >= MAX_CONNECTIONS || has >= MAX_OF_A_CLIENT {
            return None;
        }
        taken.all += 1;
        taken.clients.insert(client, has + 1);
        drop(taken);
        Some(Place { places: self.clone(), client })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Every step under the lock leaves the counts whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place.
pub(super) struct Place {
    places: Arc<Places>,
    client: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all = taken.all.saturating_sub(1);
        match taken.clients.get_mut(&self.client) {
            Some(has @ 2..) => *has -= 1,
            _ => _ = taken.clients.remove(&self.client),
        }
    }
}

/// Each is a file, and some memory.
pub(super) const MAX_CONNECTIONS: usize = 256;
/// More than a scraper and the probes of one host need; eight clients together may take all.
pub(super) const MAX_OF_A_CLIENT: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_cannot_take_the_places_of_the_others_and_each_place_is_given_again() {
        let places = Arc::<Places>::default();
        let take = |client: &str| places.take(client.parse().unwrap());
        let mut first: Vec<_> = (0..MAX_OF_A_CLIENT).map(|_| take("127.0.0.2").unwrap()).collect();
        assert!(take("127.0.0.2").is_none() && take("::ffff:127.0.0.2").is_none());
        assert!(take("127.0.0.1").is_some());
        first.pop();
        first.push(take("127.0.0.2").unwrap());
        let mut others = Vec::new();
        for n in 0.. {
            let Some(place) = take(&format!("2001:db8:0:{n}::1")) else { break };
            others.push(place);
        }
        assert_eq!(first.len() + others.len(), MAX_CONNECTIONS);
        drop((first, others));
        let taken = places.taken();
        assert!(taken.all == 0 && taken.clients.is_empty());
    }
}
