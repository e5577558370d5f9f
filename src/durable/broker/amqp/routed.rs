//! Which messages the exchanges had a queue for: what a returned message says of the others.
//!
//! Keeps true: one type of event that no queue is bound for says nothing of the others as long as any type is routed; it is
//! bounded.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The exchanges and routing keys of messages that were routed, and not returned since.
#[derive(Default)]
pub(super) struct Routed(Mutex<HashMap<String, HashSet<String>>>);

impl Routed {
    /// A message went to a queue.
    pub(super) fn took(&self, exchange: &str, key: &str) {
        let mut routed = self.lock();
        // Almost every message is of a known type, and costs no allocation.
        let known = routed.get(exchange).is_some_and(|keys| keys.contains(key));
        if !known && routed.values().map(HashSet::len).sum::<usize>() < MOST {
            routed.entry(exchange.to_owned()).or_default().insert(key.to_owned());
        }
    }

    /// A message was returned. Whether nothing is known to be routed any more.
    pub(super) fn returned(&self, exchange: &str, key: &str) -> bool {
        let mut routed = self.lock();
        if let Some(keys) = routed.get_mut(exchange) {
            keys.remove(key);
            if keys.is_empty() {
                routed.remove(exchange);
            }
        }
        routed.is_empty()
    }

    /// What was routed before a connection was lost may have no queue after it.
    pub(super) fn forget(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, HashSet<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// More than there are types; unmapped ones are as many as providers like.
const MOST: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_without_a_queue_says_nothing_of_those_that_have_one() {
        let routed = Routed::default();
        assert!(routed.returned("hooks", "a"), "none was routed yet");
        routed.took("hooks", "a");
        routed.took("hooks", "b");
        assert!(!routed.returned("hooks", "c"));
        assert!(!routed.returned("hooks", "a"), "b had a queue last");
        assert!(routed.returned("hooks", "b"), "and has none any more");
        routed.took("hooks", "a");
        routed.forget();
        assert!(routed.returned("hooks", "c"));
        for n in 0..2 * MOST {
            routed.took("hooks", &n.to_string());
        }
        assert_eq!(routed.lock()["hooks"].len(), MOST);
    }
}
