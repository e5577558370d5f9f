//! How many requests a second may be kept.
//!
//! Keeps true: forgeries cannot keep the disk busy, whatever their number; one client takes at most a quarter of what its
//! source may, so that a flood leaves room for what others send.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::table::CLIENT_PART;
use crate::base::peer;

/// What each source has taken of the second that it is in. There are as many as sources.
#[derive(Default)]
pub(super) struct Rates(Mutex<HashMap<Arc<str>, Second>>);

struct Second {
    began: Instant,
    taken: u32,
    /// Only clients that were given something: no more than the source may take.
    clients: HashMap<IpAddr, u32>,
}

impl Rates {
    /// Whether one more may be kept now; if so it is counted. When it arrived is no matter: that is for its client to choose.
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
/// As many rejects of one source and reason as the reject log writes one by one.
const PER_SECOND: u32 = 100;
const PER_CLIENT: u32 = PER_SECOND / CLIENT_PART as u32;

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
