//! Which of a source's events are admitted together.
//!
//! Keeps true: an event never goes before, or together with, an older one that must enter before it: any older one, while few
//! wait; one of its partition key or of its identity, when many do and the inbox keeps no order.

use std::collections::HashSet;
use std::sync::Arc;

use crate::durable::inbox::{Drain, EnqueueRequest};
use crate::event::Identity;

/// A row and its event.
pub(super) type Entry = (i64, Arc<EnqueueRequest>);

/// Parts rows, oldest first, into those that may be in flight at once, in the order in which they go. `many`: more wait.
pub(super) fn waves(rows: Vec<Entry>, drain: Drain, many: bool) -> Vec<Vec<Entry>> {
    let (most, in_order) = match drain {
        Drain::InOrder(most) => (most, true),
        Drain::ByKey(most) if many => (most, false),
        Drain::ByKey(_) => (1, true),
    };
    let (mut waves, mut left) = (Vec::new(), rows);
    while !left.is_empty() {
        let (mut wave, mut later, mut older) = (Vec::new(), Vec::new(), Older::default());
        for row in left {
            let free = older.free(&row.1) || in_order;
            if free && wave.len() < most { wave.push(row) } else { later.push(row) }
        }
        waves.push(wave);
        left = later;
    }
    waves
}

/// What was seen of the older events.
#[derive(Default)]
pub(super) struct Older {
    keys: HashSet<String>,
    identities: HashSet<Identity>,
}

impl Older {
    /// Whether no older event has to enter before this one, which is an older one from now on.
    pub(super) fn free(&mut self, event: &EnqueueRequest) -> bool {
        let key = self.keys.insert(event.event.partition_key.clone());
        self.identities.insert(event.identity) && key
    }
}
