//! Remembers which routing keys had a queue, to judge what a returned message means for the others.
//!
//! Keeps true: an unroutable event type does not make the broker unready while another type is routed. The size is
//! bounded.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// By exchange, the routing keys of messages that were routed and not returned since.
#[derive(Default)]
pub(super) struct Routed(Mutex<HashMap<String, HashSet<String>>>);

impl Routed {
    /// Records that a message reached a queue.
    pub(super) fn add(&self, exchange: &str, key: &str) {
        let mut routed = self.lock();
        // Almost every message has a known type, so this usually allocates nothing.
        let known = routed.get(exchange).is_some_and(|keys| keys.contains(key));
        if !known && routed.values().map(HashSet::len).sum::<usize>() < MAX_KEYS {
            routed.entry(exchange.to_owned()).or_default().insert(key.to_owned());
        }
    }

    /// Records that a message was returned. True when no key is known to be routed any more.
    pub(super) fn remove(&self, exchange: &str, key: &str) -> bool {
        let mut routed = self.lock();
        if let Some(keys) = routed.get_mut(exchange) {
            keys.remove(key);
            if keys.is_empty() {
                routed.remove(exchange);
            }
        }
        routed.is_empty()
    }

    /// Forgets all keys: after a reconnect, a queue may be gone.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, HashSet<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// More than hookgate's own types. Unmapped types are unbounded, since providers invent them.
const MAX_KEYS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_returned_key_matters_only_when_no_other_key_is_routed() {
        let routed = Routed::default();
        assert!(routed.remove("hooks", "a"), "none was routed yet");
        routed.add("hooks", "a");
        routed.add("hooks", "b");
        assert!(!routed.remove("hooks", "c"));
        assert!(!routed.remove("hooks", "a"), "b had a queue last");
        assert!(routed.remove("hooks", "b"), "and has none any more");
        routed.add("hooks", "a");
        routed.clear();
        assert!(routed.remove("hooks", "c"));
        for n in 0..2 * MAX_KEYS {
            routed.add("hooks", &n.to_string());
        }
        assert_eq!(routed.lock()["hooks"].len(), MAX_KEYS);
    }
}
