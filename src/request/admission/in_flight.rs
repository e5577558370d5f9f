//! How much may be in flight: requests, and the bytes of their bodies, all sources together.
//!
//! Keeps true: a source can always have its own share of either, whatever the others do; no client has more than its part of
//! either, whatever the sources have left; what a request holds is counted until it lets go of it, however it ends; a client
//! is remembered no longer than it has a request in flight.
//!
//! Half of a bound is divided among the sources, the other half is for whoever comes. What a source has within its own share
//! takes nothing from the common part. A client's part, of all sources together, is three quarters of what one source can have:
//! whatever it takes, and of whom, some is left of each.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::IntGauge;

use crate::base::peer;
use crate::base::reason::Reason;
use crate::config::Edge;
use crate::request::outcome::Rejection;

/// The bounds as one config has them, and what is in flight, which outlives a config.
pub struct InFlightLimit {
    division: Division,
    ledger: Arc<Mutex<Usage>>,
}

impl InFlightLimit {
    /// For so many sources; `in_flight_bytes` is kept at what their bodies take. What is in flight by the shares `before` is
    /// counted on. Nothing changes for that until the first request comes by these.
    pub fn new(
        edge: &Edge,
        sources: usize,
        in_flight_bytes: &IntGauge,
        before: Option<&InFlightLimit>,
    ) -> InFlightLimit {
        // Each with the least that a client needs: one request, and its body.
        let bounds = [(edge.max_in_flight as u64, 1), (edge.max_in_flight_bytes, edge.max_body as u64)];
        let division = Division {
            version: before.map_or(0, |before| before.division.version + 1),
            parts: bounds.map(|(bound, least)| Quota::of(bound, sources as u64, least)),
        };
        let ledger = before.map_or_else(
            || Arc::new(Mutex::new(Usage::new(division, in_flight_bytes.clone()))),
            |before| before.ledger.clone(),
        );
        InFlightLimit { division, ledger }
    }

    /// A place for a request of this source, from this client; none where it comes from a proxy that carries many.
    ///
    /// # Errors
    /// `overloaded`, when the client's part is taken, or the source's share and the common part are.
    pub fn enter(&self, source: &Arc<str>, client: Option<IpAddr>) -> Result<InFlightPermit, Rejection> {
        let mut ledger = lock(&self.ledger);
        if ledger.division.version < self.division.version {
            ledger.divide_anew(self.division);
        }
        let holder = Holder { source: source.clone(), client: client.map(peer::network) };
        ledger.take(Kind::Requests, &holder, 1)?;
        Ok(InFlightPermit { ledger: self.ledger.clone(), holder, bytes: 0 })
    }
}

/// A request in flight, and what it holds of the bytes.
pub struct InFlightPermit {
    ledger: Arc<Mutex<Usage>>,
    holder: Holder,
    bytes: u64,
}

/// Whose it is.
struct Holder {
    source: Arc<str>,
    /// As [`peer::network`] has it.
    client: Option<IpAddr>,
}

impl InFlightPermit {
    /// How many bytes it holds.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Holds so many bytes, instead of those that it held.
    ///
    /// # Errors
    /// `overloaded`, when there is no room for as many.
    pub fn hold(&mut self, bytes: u64) -> Result<(), Rejection> {
        let mut ledger = lock(&self.ledger);
        if bytes < self.bytes {
            ledger.give_back(Kind::Bytes, &self.holder, self.bytes - bytes);
        } else {
            ledger.take(Kind::Bytes, &self.holder, bytes - self.bytes)?;
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for InFlightPermit {
    fn drop(&mut self) {
        let mut ledger = lock(&self.ledger);
        ledger.give_back(Kind::Bytes, &self.holder, self.bytes);
        ledger.give_back(Kind::Requests, &self.holder, 1);
    }
}

fn overloaded(kind: Kind, why: &str) -> Rejection {
    let key = match kind {
        Kind::Requests => "edge.max_in_flight",
        Kind::Bytes => "edge.max_in_flight_bytes",
    };
    Rejection::new(Reason::Overloaded, format!("over {key}: {why}"))
}

fn lock(ledger: &Mutex<Usage>) -> MutexGuard<'_, Usage> {
    // Every step under the lock leaves the sums right.
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is divided.
#[derive(Clone, Copy)]
#[repr(usize)]
enum Kind {
    Requests,
    Bytes,
}

/// The bounds, divided.
#[derive(Clone, Copy)]
struct Division {
    /// Counts the reloads.
    version: u64,
    /// By [`Kind`].
    parts: [Quota; 2],
}

/// One bound, divided.
#[derive(Clone, Copy)]
struct Quota {
    /// For each source.
    own: u64,
    common: u64,
    /// The most that one client has of all of it.
    client: u64,
}

impl Quota {
    fn of(bound: u64, sources: u64, least: u64) -> Quota {
        let sources = sources.max(1);
        // A half that is too small to divide is rounded up where the bound allows it: a share of nothing is none.
        let own = (bound / 2 / sources).max(u64::from(bound >= sources));
        let common = bound - own * sources;
        Quota { own, common, client: (own + common - (own + common).div_ceil(LEFT)).max(least) }
    }

    /// What of `used` is out of the common part.
    fn beyond(self, used: u64) -> u64 {
        used.saturating_sub(self.own)
    }
}

/// What is in flight.
struct Usage {
    division: Division,
    /// Of each source, by [`Kind`].
    used: HashMap<Arc<str>, [u64; 2]>,
    /// Of each client that has any, by [`Kind`].
    clients: HashMap<IpAddr, [u64; 2]>,
    /// Out of the common parts, by [`Kind`]: the sum of what each source uses beyond its own.
    common: [u64; 2],
    bytes: IntGauge,
}

impl Usage {
    fn new(division: Division, bytes: IntGauge) -> Usage {
        Usage { division, used: HashMap::new(), clients: HashMap::new(), common: [0; 2], bytes }
    }

    /// By a new config. Sources that are no longer in it count until they are done.
    fn divide_anew(&mut self, division: Division) {
        self.division = division;
        self.used.retain(|_, used| *used != [0; 2]);
        for (kind, part) in division.parts.iter().enumerate() {
            self.common[kind] = self.used.values().map(|used| part.beyond(used[kind])).sum();
        }
    }

    fn take(&mut self, kind: Kind, holder: &Holder, amount: u64) -> Result<(), Rejection> {
        if amount == 0 {
            return Ok(());
        }
        let at = kind as usize;
        let part = self.division.parts[at];
        let client = holder.client.map(|client| {
            let used = self.clients.get(&client).map_or(0, |used| used[at]);
            (client, used.saturating_add(amount))
        });
        if client.is_some_and(|(_, used)| used > part.client) {
            return Err(overloaded(kind, CLIENT_FULL));
        }
        let used = &mut self.used.entry(holder.source.clone()).or_default()[at];
        let after = used.saturating_add(amount);
        let beyond = part.beyond(after) - part.beyond(*used);
        let common = self.common[at].saturating_add(beyond);
        // Within its own share nothing is refused, not even where a reload has left less of the common part than is in use.
        if beyond > 0 && common > part.common {
            return Err(overloaded(kind, SOURCE_FULL));
        }
        (*used, self.common[at]) = (after, common);
        if let Some((client, used)) = client {
            self.clients.entry(client).or_default()[at] = used;
        }
        if let Kind::Bytes = kind {
            self.bytes.add(amount as i64);
        }
        Ok(())
    }

    fn give_back(&mut self, kind: Kind, holder: &Holder, amount: u64) {
        let at = kind as usize;
        let part = self.division.parts[at];
        if let Some(client) = holder.client
            && let Entry::Occupied(mut used) = self.clients.entry(client)
        {
            used.get_mut()[at] = used.get()[at].saturating_sub(amount);
            if *used.get() == [0; 2] {
                used.remove();
            }
        }
        let Some(used) = self.used.get_mut(&holder.source) else { return };
        let after = used[at].saturating_sub(amount);
        self.common[at] -= part.beyond(used[at]) - part.beyond(after);
        used[at] = after;
        if let Kind::Bytes = kind {
            self.bytes.sub(amount as i64);
        }
    }
}

/// One of so many parts of what a source can have is not for one client alone. A client may be a network's gateway, or the proxy
/// in front that nobody has listed: most must be for it.
const LEFT: u64 = 4;
const CLIENT_FULL: &str = "this client has its part of it in use; if it is a proxy that carries many clients, list it in \
    edge.trusted_proxies";
const SOURCE_FULL: &str = "this source's share of it is in use, and the part that all sources share";

#[cfg(test)]
mod tests;
