//! What a source has learnt from its deliveries. A reload carries it on to the source of the same name.
//!
//! Keeps true: bounded, whatever clients send.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::drift::Drift;

/// What one source remembers between requests.
#[derive(Default)]
pub struct SourceMemory {
    /// The highest number by its scope.
    highest: Mutex<HashMap<String, u64>>,
    /// What its provider's table does not know, and it sent.
    pub(super) drift: Drift,
}

impl SourceMemory {
    /// How many numbers were skipped before this one, against the highest seen in this scope. A late one skips none.
    pub fn skipped(&self, scope: String, number: u64) -> u64 {
        let mut highest = self.highest.lock().unwrap_or_else(PoisonError::into_inner);
        if highest.len() >= MAX_SCOPES && !highest.contains_key(&scope) {
            // Bounded memory is worth more than the gaps of a subscription past the ten thousandth.
            return 0;
        }
        let known = highest.entry(scope).or_insert(number);
        let skipped = number.saturating_sub(*known).saturating_sub(1);
        *known = number.max(*known);
        skipped
    }
}

const MAX_SCOPES: usize = 10_000;
