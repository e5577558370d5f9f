//! Limits the requests in flight and the bytes of their bodies, for all sources together.
//!
//! Keeps true: a source can always use its own quota, whatever the others use. No client exceeds its quota. Usage is
//! counted until the permit is dropped, however the request ends. A client is remembered only while it has a request in
//! flight.
//!
//! Half of a limit is divided among the sources into their own quotas; the rest is the common quota, which any source
//! may use. A source uses its own quota first. A client may use, over all sources, three quarters of what one source
//! can have. So a single client cannot exhaust any source.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::IntGauge;

use crate::base::peer;
use crate::base::reason::Reason;
use crate::config::Edge;
use crate::request::outcome::Rejection;

/// The quotas of one config, and the usage, which outlives a reload.
pub struct InFlightLimit {
    quotas: Quotas,
    usage: Arc<Mutex<Usage>>,
}

impl InFlightLimit {
    /// Builds the quotas for this many sources. The gauge `in_flight_bytes` shows the bytes in use. The usage of
    /// `before` carries over. The new quotas apply from the first request under the new config.
    pub fn new(
        edge: &Edge,
        sources: usize,
        in_flight_bytes: &IntGauge,
        before: Option<&InFlightLimit>,
    ) -> InFlightLimit {
        // Each with the minimum that a client needs: one request, and its body.
        let bounds = [(edge.max_in_flight as u64, 1), (edge.max_in_flight_bytes, edge.max_body as u64)];
        let quotas = Quotas {
            version: before.map_or(0, |before| before.quotas.version + 1),
            each: bounds.map(|(bound, least)| Quota::of(bound, sources as u64, least)),
        };
        let usage = before.map_or_else(
            || Arc::new(Mutex::new(Usage::new(quotas, in_flight_bytes.clone()))),
            |before| before.usage.clone(),
        );
        InFlightLimit { quotas, usage }
    }

    /// Acquires a permit for a request. `client` is None for a proxy that carries many clients.
    ///
    /// # Errors
    /// `overloaded`, when the client's quota is used up, or both the source's own quota and the common quota are.
    pub fn acquire(&self, source: &Arc<str>, client: Option<IpAddr>) -> Result<InFlightPermit, Rejection> {
        let mut usage = lock(&self.usage);
        if usage.quotas.version < self.quotas.version {
            usage.apply(self.quotas);
        }
        let holder = Holder { source: source.clone(), client: client.map(peer::network) };
        usage.acquire(Resource::Requests, &holder, 1)?;
        Ok(InFlightPermit { usage: self.usage.clone(), holder, bytes: 0 })
    }
}

/// A request in flight, and its reserved bytes.
pub struct InFlightPermit {
    usage: Arc<Mutex<Usage>>,
    holder: Holder,
    bytes: u64,
}

/// The source and the client that a permit counts for.
struct Holder {
    source: Arc<str>,
    /// As returned by [`peer::network`].
    client: Option<IpAddr>,
}

impl InFlightPermit {
    /// The number of reserved bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Changes the reservation to this many bytes.
    ///
    /// # Errors
    /// `overloaded`, when a quota does not allow it.
    pub fn reserve(&mut self, bytes: u64) -> Result<(), Rejection> {
        let mut usage = lock(&self.usage);
        if bytes < self.bytes {
            usage.release(Resource::Bytes, &self.holder, self.bytes - bytes);
        } else {
            usage.acquire(Resource::Bytes, &self.holder, bytes - self.bytes)?;
        }
        self.bytes = bytes;
        Ok(())
    }
}

impl Drop for InFlightPermit {
    fn drop(&mut self) {
        let mut usage = lock(&self.usage);
        usage.release(Resource::Bytes, &self.holder, self.bytes);
        usage.release(Resource::Requests, &self.holder, 1);
    }
}

fn overloaded(resource: Resource, why: &str) -> Rejection {
    let key = match resource {
        Resource::Requests => "edge.max_in_flight",
        Resource::Bytes => "edge.max_in_flight_bytes",
    };
    Rejection::new(Reason::Overloaded, format!("over {key}: {why}"))
}

fn lock(usage: &Mutex<Usage>) -> MutexGuard<'_, Usage> {
    // No step under the lock can panic halfway, so a poisoned lock still holds correct sums.
    usage.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A limited resource.
#[derive(Clone, Copy)]
#[repr(usize)]
enum Resource {
    Requests,
    Bytes,
}

/// The quotas of one config.
#[derive(Clone, Copy)]
struct Quotas {
    /// The number of reloads before it.
    version: u64,
    /// By [`Resource`].
    each: [Quota; 2],
}

/// One limit, divided.
#[derive(Clone, Copy)]
struct Quota {
    /// For each source alone.
    own: u64,
    /// For all sources together.
    common: u64,
    /// The maximum for one client over all sources.
    client: u64,
}

impl Quota {
    fn of(bound: u64, sources: u64, least: u64) -> Quota {
        let sources = sources.max(1);
        // A half too small to divide is rounded up if the limit allows it, so that each source gets at least one.
        let own = (bound / 2 / sources).max(u64::from(bound >= sources));
        let common = bound - own * sources;
        Quota { own, common, client: (own + common - (own + common).div_ceil(OTHERS)).max(least) }
    }

    /// How much of `used` comes out of the common quota.
    fn beyond(self, used: u64) -> u64 {
        used.saturating_sub(self.own)
    }
}

/// The usage of all sources and clients.
struct Usage {
    quotas: Quotas,
    /// The usage of each source, by [`Resource`].
    used: HashMap<Arc<str>, [u64; 2]>,
    /// The usage of each client with a request in flight, by [`Resource`].
    clients: HashMap<IpAddr, [u64; 2]>,
    /// The usage of the common quotas, by [`Resource`]: the sum of each source's usage beyond its own quota.
    common: [u64; 2],
    bytes: IntGauge,
}

impl Usage {
    fn new(quotas: Quotas, bytes: IntGauge) -> Usage {
        Usage { quotas, used: HashMap::new(), clients: HashMap::new(), common: [0; 2], bytes }
    }

    /// Applies the quotas of a new config. Sources that are no longer configured count until their requests end.
    fn apply(&mut self, quotas: Quotas) {
        self.quotas = quotas;
        self.used.retain(|_, used| *used != [0; 2]);
        for (resource, quota) in quotas.each.iter().enumerate() {
            self.common[resource] = self.used.values().map(|used| quota.beyond(used[resource])).sum();
        }
    }

    fn acquire(&mut self, resource: Resource, holder: &Holder, amount: u64) -> Result<(), Rejection> {
        if amount == 0 {
            return Ok(());
        }
        let at = resource as usize;
        let quota = self.quotas.each[at];
        let client = holder.client.map(|client| {
            let used = self.clients.get(&client).map_or(0, |used| used[at]);
            (client, used.saturating_add(amount))
        });
        if client.is_some_and(|(_, used)| used > quota.client) {
            return Err(overloaded(resource, CLIENT_FULL));
        }
        let used = &mut self.used.entry(holder.source.clone()).or_default()[at];
        let after = used.saturating_add(amount);
        let beyond = quota.beyond(after) - quota.beyond(*used);
        let common = self.common[at].saturating_add(beyond);
        // Never refuse within a source's own quota, even if a reload has made the common quota smaller than its usage.
        if beyond > 0 && common > quota.common {
            return Err(overloaded(resource, SOURCE_FULL));
        }
        (*used, self.common[at]) = (after, common);
        if let Some((client, used)) = client {
            self.clients.entry(client).or_default()[at] = used;
        }
        if let Resource::Bytes = resource {
            self.bytes.add(amount as i64);
        }
        Ok(())
    }

    fn release(&mut self, resource: Resource, holder: &Holder, amount: u64) {
        let at = resource as usize;
        let quota = self.quotas.each[at];
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
        self.common[at] -= quota.beyond(used[at]) - quota.beyond(after);
        used[at] = after;
        if let Resource::Bytes = resource {
            self.bytes.sub(amount as i64);
        }
    }
}

/// One client can use all but a quarter of what one source can have. The share is large because a client may be a
/// network's gateway, or a proxy that is missing from `edge.trusted_proxies`.
const OTHERS: u64 = 4;
const CLIENT_FULL: &str = "this client's quota is used up; if it is a proxy that carries many clients, list it in \
    edge.trusted_proxies";
const SOURCE_FULL: &str = "this source's own quota and the common quota of all sources are used up";

#[cfg(test)]
mod tests;
