//! Limits how many requests are kept per second.
//!
//! Keeps true: forged requests cannot keep the disk busy. One client gets at most a quarter of its source's rate, so
//! that a flood leaves room for other clients.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::table::CLIENT_FRACTION;
use crate::base::peer;

/// Each source's current second.
#[derive(Default)]
pub(super) struct Rates(Mutex<HashMap<Arc<str>, Second>>);

struct Second {
    began: Instant,
    taken: u32,
    /// Only clients with a kept request, so there are at most [`PER_SECOND`].
    clients: HashMap<IpAddr, u32>,
}

impl Rates {
    /// Counts a request and returns true if it may be kept. `now` is our clock, not the request's own timestamp, which
    /// the client can choose.
    pub(super) fn allow(&self, source: &Arc<str>, client: IpAddr, now: Instant) -> bool {
        let mut sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let afresh = || Second { began: now, taken: 0, clients: HashMap::new() };
        let second = sources.entry(source.clone()).or_insert_with(afresh);
        if now.saturating_duration_since(second.began) >= SECOND {
            *second = afresh();
        }
        if second.taken >= PER_SECOND {
            return false;
        }
        let by_client = second.clients.entry(peer::network(client)).or_default();
        if *by_client >= PER_CLIENT {
            return false;
        }
        *by_client += 1;
        second.taken += 1;
        true
    }
}

const SECOND: Duration = Duration::from_secs(1);
/// The same as the number of rejects per source and reason that the reject log writes singly.
const PER_SECOND: u32 = 100;
const PER_CLIENT: u32 = PER_SECOND / CLIENT_FRACTION as u32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_gets_a_quarter_of_a_sources_rate_and_all_together_the_whole() {
        let (rates, source): (_, Arc<str>) = (Rates::default(), "a".into());
        let start = crate::base::clock::instant();
        let taken = |client: &str, second| {
            let now = start + SECOND * second;
            (0..1000).filter(|_| rates.allow(&source, client.parse().unwrap(), now)).count()
        };
        assert_eq!(taken("192.0.2.1", 5), 25);
        assert_eq!(taken("2001:db8::1", 5), 25);
        assert_eq!(taken("2001:db8::2", 5), 0, "it is the same network");
        assert_eq!(taken("192.0.2.3", 5), 25);
        assert_eq!(taken("192.0.2.4", 5), 25);
        assert_eq!(taken("192.0.2.5", 5), 0);
        assert_eq!(taken("192.0.2.5", 6), 25);
        assert_eq!(taken("192.0.2.5", 5), 0, "what comes late does not begin a second anew");
    }
}
