//! The latest accepted events of a source, for the console: their time, type and id.
//!
//! Keeps true: memory is bounded. In a flood, an event costs one look at a number: a few in each second are kept.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

/// The latest events, oldest first.
#[derive(Default)]
pub struct RecentEvents {
    /// The second of the newest event, times [`STEPS`], and how many of that second are kept.
    turn: AtomicI64,
    events: Mutex<VecDeque<RecentEvent>>,
}

/// An accepted event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecentEvent {
    /// When it was accepted.
    pub at: Timestamp,
    /// Its canonical type.
    pub kind: String,
    /// Its id.
    pub id: String,
}

impl RecentEvents {
    /// Keeps an event, unless enough of its second are kept or another thread is at it.
    pub fn note(&self, at: Timestamp, kind: &str, id: &str) {
        let second = at.as_second();
        let turn = self.turn.load(Ordering::Relaxed);
        let kept = if turn.div_euclid(STEPS) == second { turn.rem_euclid(STEPS) } else { 0 };
        if kept >= A_SECOND {
            return;
        }
        let Ok(mut events) = self.events.try_lock() else { return };
        self.turn.store(second * STEPS + kept + 1, Ordering::Relaxed);
        if events.len() >= KEPT {
            events.pop_front();
        }
        events.push_back(RecentEvent { at, kind: kind.to_owned(), id: id.to_owned() });
    }

    /// The kept events, oldest first.
    pub fn all(&self) -> Vec<RecentEvent> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

const STEPS: i64 = 16;
/// Events of one second that are kept.
const A_SECOND: i64 = 8;
const KEPT: usize = 25;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_of_each_second_are_kept_and_the_oldest_go() {
        let recent = RecentEvents::default();
        for second in 0..10 {
            for number in 0..1000 {
                let at = Timestamp::from_second(1_700_000_000 + second).unwrap();
                recent.note(at, "user.created", &format!("{second}-{number}"));
            }
        }
        let ids: Vec<String> = recent.all().into_iter().map(|event| event.id).collect();
        assert_eq!(ids.len(), KEPT);
        assert_eq!((ids[0].as_str(), ids[KEPT - 1].as_str()), ("6-7", "9-7"));
    }
}
