//! What a source remembers of its deliveries. After a reload, the source of the same name keeps it.
//!
//! Keeps true: the memory is bounded, whatever clients send.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::drift::Drift;
use super::recent::RecentEvents;

/// The memory of one source.
#[derive(Default)]
pub struct SourceMemory {
    /// The highest sequence number of each scope.
    highest: Mutex<HashMap<String, u64>>,
    /// Names that its provider's table does not list.
    pub(super) drift: Drift,
    /// The latest accepted events.
    pub recent: RecentEvents,
}

impl SourceMemory {
    /// How many sequence numbers lie between this one and the highest seen before in its scope. A late number skips
    /// none.
    pub fn skipped(&self, scope: String, number: u64) -> u64 {
        let mut highest = self.highest.lock().unwrap_or_else(PoisonError::into_inner);
        if highest.len() >= MAX_SCOPES && !highest.contains_key(&scope) {
            // Gaps in scopes beyond the limit are not counted, so that memory stays bounded.
            return 0;
        }
        let known = highest.entry(scope).or_insert(number);
        let skipped = number.saturating_sub(*known).saturating_sub(1);
        *known = number.max(*known);
        skipped
    }
}

const MAX_SCOPES: usize = 10_000;
