//! A source's rate limits: one for each client, and one for all clients together.
//!
//! Keeps true: a request refused by its client's limit does not count towards the common limit. Memory is bounded for
//! any number of addresses.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

use crate::base::clock;
use crate::base::peer;
use crate::config::{self, RateLimit};

/// The rate limits of a source.
pub struct RateLimits {
    clients: Option<Arc<ClientRates>>,
    all: Option<Arc<DefaultDirectRateLimiter>>,
    limit: Option<RateLimit>,
    client_limit: Option<RateLimit>,
}

impl RateLimits {
    /// Builds a source's limits. A limit that a reload did not change keeps its count.
    pub(super) fn of(source: &config::Source, before: Option<&RateLimits>) -> RateLimits {
        let (limit, client_limit) = (source.rate_limit, source.client_rate_limit);
        let same = before.filter(|before| before.limit == limit);
        let same_for_clients = before.filter(|before| before.client_limit == client_limit);
        let all = || limit.and_then(quota).map(|all| Arc::new(RateLimiter::direct(all)));
        let clients =
            || client_limit.and_then(quota).map(|each| Arc::new(ClientRates::new(each, MAX_CLIENTS)));
        RateLimits {
            clients: same_for_clients.map_or_else(clients, |before| before.clients.clone()),
            all: same.map_or_else(all, |before| before.all.clone()),
            limit,
            client_limit,
        }
    }

    /// Counts a request. Without a client, it counts only towards the common limit.
    ///
    /// # Errors
    /// The config key of the exceeded limit.
    pub fn check(&self, client: Option<IpAddr>) -> Result<(), &'static str> {
        if let (Some(clients), Some(client)) = (&self.clients, client)
            && !clients.allow(client, clock::instant())
        {
            return Err("client_rate_limit");
        }
        if self.all.as_ref().is_some_and(|all| all.check().is_err()) {
            return Err("rate_limit");
        }
        Ok(())
    }

    /// The requests a minute that a single client may send; none if unlimited.
    pub fn per_minute(&self) -> Option<u64> {
        let limits = [self.limit, self.client_limit].into_iter().flatten();
        limits.map(|limit| u64::from(limit.per_second) * 60).min()
    }
}

fn quota(limit: RateLimit) -> Option<Quota> {
    let (per_second, burst) = (NonZeroU32::new(limit.per_second)?, NonZeroU32::new(limit.burst)?);
    Some(Quota::per_second(per_second).allow_burst(burst))
}

/// A rate limit for each client.
struct ClientRates<C: Clock = DefaultClock> {
    limiter: RateLimiter<IpAddr, ClientTable, C, NoOpMiddleware<C::Instant>>,
    max: usize,
    swept: Mutex<Option<Instant>>,
}

impl ClientRates {
    fn new(each: Quota, max: usize) -> ClientRates {
        ClientRates::by_clock(each, max, DefaultClock::default())
    }
}

impl<C: Clock> ClientRates<C> {
    fn by_clock(each: Quota, max: usize, clock: C) -> ClientRates<C> {
        let table = ClientTable { max, known: Mutex::default() };
        ClientRates { limiter: RateLimiter::new(each, table, clock), max, swept: Mutex::default() }
    }

    fn allow(&self, client: IpAddr, now: Instant) -> bool {
        if self.limiter.len() >= self.max && self.may_sweep(now) {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(&peer::network(client)).is_ok()
    }

    /// Whether enough time has passed since the last sweep. A sweep visits every client, so a flood must not cause one
    /// for each request.
    fn may_sweep(&self, now: Instant) -> bool {
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        let due = swept.is_none_or(|last| now.saturating_duration_since(last) >= SWEEP);
        if due {
            *swept = Some(now);
        }
        due
    }
}

/// The state of each client. All clients beyond `max` share one state.
struct ClientTable {
    max: usize,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    each: HashMap<IpAddr, Nanos>,
    rest: Option<Nanos>,
}

impl ClientTable {
    fn known(&self) -> MutexGuard<'_, Known> {
        // Every step under the lock leaves the table whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateStore for ClientTable {
    type Key = IpAddr;

    fn measure_and_replace<T, F, E>(&self, client: &IpAddr, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let known = &mut *self.known();
        if let Some(state) = known.each.get_mut(client) {
            let (decision, next) = measure(Some(*state))?;
            *state = next;
            return Ok(decision);
        }
        if known.each.len() >= self.max {
            let (decision, next) = measure(known.rest)?;
            known.rest = Some(next);
            return Ok(decision);
        }
        let (decision, next) = measure(None)?;
        known.each.insert(*client, next);
        Ok(decision)
    }
}

impl ShrinkableKeyedStateStore<IpAddr> for ClientTable {
    fn retain_recent(&self, since: Nanos) {
        self.known().each.retain(|_, state| *state >= since);
    }

    fn len(&self) -> usize {
        self.known().each.len()
    }

    fn is_empty(&self) -> bool {
        self.known().each.is_empty()
    }
}

/// Clients of a source that are counted separately. They take a few megabytes.
const MAX_CLIENTS: usize = 65_536;
const SWEEP: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;

    #[test]
    fn a_network_of_addresses_has_one_rate() {
        let clients = ClientRates::new(Quota::per_second(NonZeroU32::MIN), MAX_CLIENTS);
        let allow = |client: &str| clients.allow(client.parse().unwrap(), clock::instant());
        assert!(allow("2001:db8:1:2::1") && !allow("2001:db8:1:2:ffff::2"));
        assert!(allow("2001:db8:1:3::1"));
    }

    #[test]
    fn clients_past_the_table_share_one_rate_until_others_are_forgotten() {
        let clock = FakeRelativeClock::default();
        let once_a_second = Quota::per_second(NonZeroU32::MIN);
        let clients = ClientRates::by_clock(once_a_second, 3, clock.clone());
        let begun = clock::instant();
        let allow =
            |last: u8, seconds| clients.allow([10, 0, 0, last].into(), begun + Duration::from_secs(seconds));
        assert!(allow(1, 0) && allow(2, 0) && allow(3, 0));
        assert!(allow(4, 0), "the first client beyond the table");
        assert!(!allow(5, 0) && !allow(4, 0), "further clients share its rate");
        assert!(!allow(1, 0), "a client in the table keeps its own rate");
        clock.advance(Duration::from_secs(1));
        assert!(allow(1, 0));
        clock.advance(Duration::from_secs(5));
        assert!(allow(6, 0) && !allow(7, 0), "not swept twice in a second");
        assert!(allow(7, 2) && allow(8, 2), "the sweep removed idle clients");
        assert_eq!(clients.limiter.len(), 2);
    }

    #[test]
    fn a_million_addresses_take_the_memory_of_a_table() {
        let clients = ClientRates::new(Quota::per_second(NonZeroU32::MIN), MAX_CLIENTS);
        let now = clock::instant();
        let served =
            (0..1_000_000).filter(|n: &u32| clients.allow(IpAddr::from(n.to_be_bytes()), now)).count();
        assert!((MAX_CLIENTS..2 * MAX_CLIENTS).contains(&served), "{served}");
        assert!(clients.limiter.len() <= MAX_CLIENTS);
    }
}
