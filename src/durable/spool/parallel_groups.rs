//! Which of a source's events are enqueued at the same time.
//!
//! Keeps true: an event never goes before, or together with, an older one that must enter first. While few events wait,
//! that is every older one. While many wait and the inbox keeps no order, it is one with the same partition key or
//! identity.

use std::collections::HashSet;
use std::sync::Arc;

use crate::durable::inbox::{Drain, EnqueueRequest};
use crate::event::Identity;

/// A row and its event.
pub(super) type Entry = (i64, Arc<EnqueueRequest>);

/// Splits rows, oldest first, into groups; the rows of a group may be in flight at once. `many`: more rows wait in the
/// spool.
pub(super) fn parallel_groups(rows: Vec<Entry>, drain: Drain, many: bool) -> Vec<Vec<Entry>> {
    let (most, in_order) = match drain {
        Drain::InOrder(most) => (most, true),
        Drain::ByKey(most) if many => (most, false),
        Drain::ByKey(_) => (1, true),
    };
    let (mut groups, mut left) = (Vec::new(), rows);
    while !left.is_empty() {
        let (mut group, mut later, mut predecessors) = (Vec::new(), Vec::new(), Predecessors::default());
        for row in left {
            let free = predecessors.check_and_add(&row.1) || in_order;
            if free && group.len() < most { group.push(row) } else { later.push(row) }
        }
        groups.push(group);
        left = later;
    }
    groups
}

#[derive(Default)]
pub(super) struct Predecessors {
    keys: HashSet<String>,
    identities: HashSet<Identity>,
}

impl Predecessors {
    /// Whether this event may enter before all earlier ones. Then adds it to them.
    pub(super) fn check_and_add(&mut self, event: &EnqueueRequest) -> bool {
        let key = self.keys.insert(event.event.partition_key.clone());
        self.identities.insert(event.identity) && key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    fn groups(events: &[(u8, &str)], drain: Drain, many: bool) -> Vec<Vec<i64>> {
        let rows = events.iter().zip(0..).map(|((identity, key), seq)| {
            let mut event = Event::for_test("e");
            event.partition_key = (*key).to_owned();
            (seq, Arc::new(EnqueueRequest { identity: Identity([*identity; 16]), event, ..request() }))
        });
        let groups = parallel_groups(rows.collect(), drain, many).into_iter();
        groups.map(|group| group.into_iter().map(|row| row.0).collect()).collect()
    }

    fn request() -> EnqueueRequest {
        EnqueueRequest {
            source: "src".into(),
            provider: "basiq".into(),
            identity: Identity([0; 16]),
            body: crate::event::BodyHash::of(b"1"),
            on_conflict: crate::config::OnConflict::Forward,
            owner: crate::durable::inbox::Owner([0; 16]),
            event: Event::for_test("e"),
        }
    }

    #[test]
    fn one_key_and_one_identity_go_one_after_the_other() {
        let events = [(1, "a"), (2, "a"), (1, "b"), (3, "c"), (4, "b")];
        assert_eq!(groups(&events, Drain::ByKey(9), true), [vec![0, 3], vec![1, 2], vec![4]]);
        assert_eq!(groups(&events, Drain::ByKey(1), true), [[0], [1], [2], [3], [4]]);
        assert_eq!(groups(&events, Drain::ByKey(9), false), [[0], [1], [2], [3], [4]]);
        assert_eq!(groups(&events, Drain::InOrder(4), true), [vec![0, 1, 2, 3], vec![4]]);
    }
}
