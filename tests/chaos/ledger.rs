//! What was sent, what was promised, and what the queue must therefore hold.
//!
//! Keeps true: an event is known by its body, of which no two are the same; so a payload that is not byte for byte what was
//! sent is one that nobody sent.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard};

/// What is known of every body sent.
#[derive(Default)]
pub struct Ledger(Mutex<BTreeMap<String, Promise>>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Promise {
    /// Sent, and never answered 2xx.
    Open,
    /// Answered 2xx.
    Given,
    /// Sent with a signature that is none: it must never get in.
    Forged,
}

/// How often an event may be in the queue.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Copies {
    /// Once.
    One,
    /// Again, where a lease ran out or a confirm was lost: always under the same id.
    SameId,
}

/// An event as the queue has it.
#[derive(Clone, Debug)]
pub struct Queued {
    pub id: String,
    /// `data.payload`, byte for byte.
    pub payload: String,
}

/// What was found.
pub struct Report {
    promised: usize,
    forged: usize,
    again: usize,
}

impl Ledger {
    /// A genuine event is about to be sent.
    pub fn sends(&self, body: &str) {
        self.lock().entry(body.to_owned()).or_insert(Promise::Open);
    }

    /// A forgery is about to be sent.
    pub fn forges(&self, body: &str) {
        self.lock().insert(body.to_owned(), Promise::Forged);
    }

    /// It was answered 2xx.
    pub fn promised(&self, body: &str) {
        let mut ledger = self.lock();
        let promise = ledger.get_mut(body).unwrap();
        assert!(*promise != Promise::Forged, "a forgery was answered 2xx: {body}");
        *promise = Promise::Given;
    }

    /// Holds the queue to every promise.
    pub fn hold_against(&self, queue: &[Queued], copies: Copies) -> Report {
        let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for event in queue {
            found.entry(&event.payload).or_default().push(&event.id);
        }
        let ledger = self.lock();
        let mut wrong = Vec::new();
        for (body, promise) in &*ledger {
            let ids = found.remove(body.as_str()).unwrap_or_default();
            match promise {
                Promise::Given if ids.is_empty() => wrong.push(format!("answered 2xx and lost: {body}")),
                Promise::Forged if !ids.is_empty() => wrong.push(format!("forged, and in the queue: {body}")),
                _ => {}
            }
            if ids.len() > 1 && (copies == Copies::One || ids.iter().any(|id| *id != ids[0])) {
                wrong.push(format!("in the queue as {ids:?}: {body}"));
            }
        }
        wrong.extend(found.keys().map(|body| format!("in the queue, and not sent: {body}")));
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        let count = |kind| ledger.values().filter(|promise| **promise == kind).count();
        let sent = ledger.len() - count(Promise::Forged);
        Report {
            promised: count(Promise::Given),
            forged: count(Promise::Forged),
            again: queue.len().saturating_sub(sent),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Promise>> {
        self.0.lock().unwrap()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { promised, forged, again } = self;
        write!(
            f,
            "{promised} events answered 2xx, all in the queue; {again} copies more; {forged} forged, none in it"
        )
    }
}
