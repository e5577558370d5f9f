//! The places of the admin listener's connections: so many in all, far fewer of one client.
//!
//! Keeps true: every new connection gets a place. Where none is left, an open connection is closed for it: the one that has sent
//! no request for longest. It is one of the same client if that client has its share, else one of the client with most
//! connections. A client without connections is forgotten.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::base::peer;

/// What is taken.
#[derive(Default)]
pub(super) struct Places(Mutex<Taken>);

/// A client's connections, by when they asked last.
type Held = BTreeMap<u64, CancellationToken>;

#[derive(Default)]
struct Taken {
    clients: HashMap<IpAddr, Held>,
    all: usize,
    /// Counts requests and connections. Its value at a connection's last request orders the connections.
    asked: u64,
}

impl Places {
    /// A place for a connection from this address, and whether another gives way for it.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> (Place, bool) {
        let client = peer::network(address);
        let mut taken = self.taken();
        let of_client = taken.clients.get(&client).map_or(0, Held::len);
        let gives_way = if of_client >= MAX_OF_A_CLIENT {
            taken.end_oldest_of(client)
        } else if taken.all >= MAX_CONNECTIONS {
            taken.of_most().is_some_and(|client| taken.end_oldest_of(client))
        } else {
            false
        };
        let given_way = CancellationToken::new();
        let number = taken.hold(client, given_way.clone());
        drop(taken);
        (Place { places: self.clone(), client, number: AtomicU64::new(number), given_way }, gives_way)
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Every step under the lock leaves the counts whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn hold(&mut self, client: IpAddr, connection: CancellationToken) -> u64 {
        self.asked += 1;
        self.all += 1;
        self.clients.entry(client).or_default().insert(self.asked, connection);
        self.asked
    }

    fn let_go(&mut self, client: IpAddr, number: u64) -> Option<CancellationToken> {
        let held = self.clients.get_mut(&client)?;
        let connection = held.remove(&number)?;
        if held.is_empty() {
            self.clients.remove(&client);
        }
        self.all = self.all.saturating_sub(1);
        Some(connection)
    }

    /// The client with most connections; of those with as many, the one whose oldest has asked nothing for longest.
    fn of_most(&self) -> Option<IpAddr> {
        let oldest = |held: &Held| held.first_key_value().map_or(u64::MAX, |(number, _)| *number);
        let most = self.clients.iter().max_by_key(|(_, held)| (held.len(), u64::MAX - oldest(held)));
        most.map(|(client, _)| *client)
    }

    fn end_oldest_of(&mut self, client: IpAddr) -> bool {
        let oldest = self.clients.get(&client).and_then(|held| held.first_key_value());
        let Some(number) = oldest.map(|(number, _)| *number) else { return false };
        self.let_go(client, number).map(|connection| connection.cancel()).is_some()
    }
}

/// A connection's place.
pub(super) struct Place {
    places: Arc<Places>,
    client: IpAddr,
    number: AtomicU64,
    given_way: CancellationToken,
}

impl Place {
    /// Something was asked on the connection.
    pub(super) fn asked(&self) {
        let mut taken = self.places.taken();
        if let Some(connection) = taken.let_go(self.client, self.number.load(Ordering::Relaxed)) {
            self.number.store(taken.hold(self.client, connection), Ordering::Relaxed);
        }
    }

    /// Returns once the connection has to give way to another.
    pub(super) async fn gives_way(&self) {
        self.given_way.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A connection that was closed for another one has no entry any more.
        self.places.taken().let_go(self.client, self.number.load(Ordering::Relaxed));
    }
}

/// Each is a file, and some memory.
pub(super) const MAX_CONNECTIONS: usize = 256;
/// More than a scraper and the probes of one host need.
pub(super) const MAX_OF_A_CLIENT: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn places(places: &Arc<Places>, client: &str, many: usize) -> Vec<Place> {
        (0..many).map(|_| places.take(client.parse().unwrap()).0).collect()
    }

    fn ended(places: &[Place]) -> Vec<usize> {
        (0..places.len()).filter(|at| places[*at].given_way.is_cancelled()).collect()
    }

    #[test]
    fn a_client_over_its_share_gives_way_to_itself_and_each_place_is_given_again() {
        let all = Arc::<Places>::default();
        let mut first = places(&all, "127.0.0.2", MAX_OF_A_CLIENT);
        let other = places(&all, "127.0.0.1", 1);
        first[0].asked();
        let (more, gave_way) = all.take("::ffff:127.0.0.2".parse().unwrap());
        assert!(gave_way && ended(&first) == [1] && ended(&other).is_empty(), "the first has asked since");
        // One that has given way gives nothing back, nor comes again by asking.
        first[1].asked();
        drop(first.remove(1));
        assert!(all.take("127.0.0.2".parse().unwrap()).1);
        drop((first, other, more));
        let taken = all.taken();
        assert!(taken.all == 0 && taken.clients.is_empty());
    }

    #[test]
    fn where_all_are_taken_the_client_that_has_most_gives_way() {
        let all = Arc::<Places>::default();
        let prober = places(&all, "10.0.0.1", 2);
        let mut clients: Vec<Vec<Place>> = (0..7).map(|n| places(&all, &format!("10.0.1.{n}"), 32)).collect();
        clients.push(places(&all, "10.0.1.7", 30));
        assert_eq!(all.taken().all, MAX_CONNECTIONS);
        let (_scraper, gave_way) = all.take("10.0.0.2".parse().unwrap());
        assert!(
            gave_way && ended(&clients[0]) == [0],
            "of those with as many, the one that was silent longest"
        );
        let (_scraper, _) = all.take("10.0.0.3".parse().unwrap());
        assert_eq!(ended(&clients[1]), [0]);
        assert!(ended(&prober).is_empty());
        assert_eq!(all.taken().all, MAX_CONNECTIONS);
    }

    #[test]
    fn a_network_is_one_client() {
        let all = Arc::<Places>::default();
        let held: Vec<Place> =
            (0..32).map(|n| all.take(format!("2001:db8::{n:x}").parse().unwrap()).0).collect();
        assert!(all.take("2001:db8::ffff".parse().unwrap()).1);
        assert_eq!(ended(&held), [0]);
        let more: Vec<bool> =
            (1..224).map(|n| all.take(format!("2001:db8:0:{n:x}::").parse().unwrap()).1).collect();
        assert!(!more.contains(&true));
    }
}
