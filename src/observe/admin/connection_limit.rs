//! Limits the admin listener's connections, in total and for each client.
//!
//! Keeps true: every new connection gets a permit. At a limit, the connection whose last request is oldest is closed.
//! At the client's own limit it is one of that client; at the total limit, one of the client with most connections. A
//! client without connections is forgotten.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::base::peer;

#[derive(Default)]
pub(super) struct ConnectionLimit(Mutex<Connections>);

/// A client's connections. The key orders them by their last request.
type ClientConnections = BTreeMap<u64, CancellationToken>;

#[derive(Default)]
struct Connections {
    clients: HashMap<IpAddr, ClientConnections>,
    all: usize,
    /// Counts requests and connections; its value at a connection's last request is that connection's key.
    clock: u64,
}

impl ConnectionLimit {
    /// A permit for a connection from this address, and whether another connection was closed for it.
    pub(super) fn acquire(self: &Arc<Self>, address: IpAddr) -> (ConnectionPermit, bool) {
        let client = peer::network(address);
        let mut connections = self.lock();
        let of_client = connections.clients.get(&client).map_or(0, ClientConnections::len);
        let evicts = if of_client >= MAX_PER_CLIENT {
            connections.evict_oldest(client)
        } else if connections.all >= MAX_CONNECTIONS {
            connections.busiest_client().is_some_and(|client| connections.evict_oldest(client))
        } else {
            false
        };
        let eviction = CancellationToken::new();
        let number = connections.insert(client, eviction.clone());
        drop(connections);
        (ConnectionPermit { limit: self.clone(), client, number: AtomicU64::new(number), eviction }, evicts)
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        // Every step under the lock leaves the counts consistent, so a poisoned lock is fine.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connections {
    fn insert(&mut self, client: IpAddr, connection: CancellationToken) -> u64 {
        self.clock += 1;
        self.all += 1;
        self.clients.entry(client).or_default().insert(self.clock, connection);
        self.clock
    }

    fn remove(&mut self, client: IpAddr, number: u64) -> Option<CancellationToken> {
        let held = self.clients.get_mut(&client)?;
        let connection = held.remove(&number)?;
        if held.is_empty() {
            self.clients.remove(&client);
        }
        self.all = self.all.saturating_sub(1);
        Some(connection)
    }

    /// The client with most connections. Among equals, the one with the oldest last request.
    fn busiest_client(&self) -> Option<IpAddr> {
        let oldest =
            |held: &ClientConnections| held.first_key_value().map_or(u64::MAX, |(number, _)| *number);
        let most = self.clients.iter().max_by_key(|(_, held)| (held.len(), u64::MAX - oldest(held)));
        most.map(|(client, _)| *client)
    }

    fn evict_oldest(&mut self, client: IpAddr) -> bool {
        let oldest = self.clients.get(&client).and_then(|held| held.first_key_value());
        let Some(number) = oldest.map(|(number, _)| *number) else { return false };
        self.remove(client, number).map(|connection| connection.cancel()).is_some()
    }
}

/// Permits one connection; dropping it frees the slot.
pub(super) struct ConnectionPermit {
    limit: Arc<ConnectionLimit>,
    client: IpAddr,
    number: AtomicU64,
    eviction: CancellationToken,
}

impl ConnectionPermit {
    /// Call at each request on the connection.
    pub(super) fn on_request(&self) {
        let mut connections = self.limit.lock();
        if let Some(connection) = connections.remove(self.client, self.number.load(Ordering::Relaxed)) {
            self.number.store(connections.insert(self.client, connection), Ordering::Relaxed);
        }
    }

    /// Returns when the connection must close to make room for another.
    pub(super) async fn evicted(&self) {
        self.eviction.cancelled().await;
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        // An evicted connection has no entry any more.
        self.limit.lock().remove(self.client, self.number.load(Ordering::Relaxed));
    }
}

/// Each connection uses a file descriptor and some memory.
pub(super) const MAX_CONNECTIONS: usize = 256;
/// More than one host's scraper and probes need.
pub(super) const MAX_PER_CLIENT: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn acquire(limit: &Arc<ConnectionLimit>, client: &str, many: usize) -> Vec<ConnectionPermit> {
        (0..many).map(|_| limit.acquire(client.parse().unwrap()).0).collect()
    }

    fn evicted(permits: &[ConnectionPermit]) -> Vec<usize> {
        (0..permits.len()).filter(|at| permits[*at].eviction.is_cancelled()).collect()
    }

    #[test]
    fn a_client_at_its_limit_loses_its_own_oldest_and_slots_are_reused() {
        let all = Arc::<ConnectionLimit>::default();
        let mut first = acquire(&all, "127.0.0.2", MAX_PER_CLIENT);
        let other = acquire(&all, "127.0.0.1", 1);
        first[0].on_request();
        let (more, evicts) = all.acquire("::ffff:127.0.0.2".parse().unwrap());
        assert!(evicts && evicted(&first) == [1] && evicted(&other).is_empty(), "the first has asked since");
        // An evicted connection frees nothing, and a request on it does not bring it back.
        first[1].on_request();
        drop(first.remove(1));
        assert!(all.acquire("127.0.0.2".parse().unwrap()).1);
        drop((first, other, more));
        let connections = all.lock();
        assert!(connections.all == 0 && connections.clients.is_empty());
    }

    #[test]
    fn at_the_total_limit_the_busiest_client_loses_a_connection() {
        let all = Arc::<ConnectionLimit>::default();
        let prober = acquire(&all, "10.0.0.1", 2);
        let mut clients: Vec<Vec<ConnectionPermit>> =
            (0..7).map(|n| acquire(&all, &format!("10.0.1.{n}"), 32)).collect();
        clients.push(acquire(&all, "10.0.1.7", 30));
        assert_eq!(all.lock().all, MAX_CONNECTIONS);
        let (_scraper, evicts) = all.acquire("10.0.0.2".parse().unwrap());
        assert!(
            evicts && evicted(&clients[0]) == [0],
            "of those with as many, the one that was silent longest"
        );
        let (_scraper, _) = all.acquire("10.0.0.3".parse().unwrap());
        assert_eq!(evicted(&clients[1]), [0]);
        assert!(evicted(&prober).is_empty());
        assert_eq!(all.lock().all, MAX_CONNECTIONS);
    }

    #[test]
    fn a_network_is_one_client() {
        let all = Arc::<ConnectionLimit>::default();
        let held: Vec<ConnectionPermit> =
            (0..32).map(|n| all.acquire(format!("2001:db8::{n:x}").parse().unwrap()).0).collect();
        assert!(all.acquire("2001:db8::ffff".parse().unwrap()).1);
        assert_eq!(evicted(&held), [0]);
        let more: Vec<bool> =
            (1..224).map(|n| all.acquire(format!("2001:db8:0:{n:x}::").parse().unwrap()).1).collect();
        assert!(!more.contains(&true));
    }
}
