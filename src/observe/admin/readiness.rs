//! The latches that readiness is read from.
//!
//! Keeps true: readiness is what the parts say of themselves, set at the moment they learn it; nothing here guesses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use arc_swap::ArcSwapOption;

/// What each part says of itself. All start down; the part that opens sets its own.
#[derive(Debug, Default)]
pub struct Readiness {
    /// A [`QueueState`].
    queue: AtomicU8,
    dedupe: AtomicBool,
    audit: AtomicBool,
    draining: AtomicBool,
    /// A [`SpoolState`].
    spool: AtomicU8,
    /// Why the queue takes no events, where it says so.
    queue_detail: ArcSwapOption<String>,
}

/// What the queue says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum QueueState {
    /// It is away, or refuses events.
    #[default]
    Down,
    /// It takes events.
    Up,
    /// It answers, and takes no more for want of room.
    Full,
}

impl QueueState {
    const ALL: [QueueState; 3] = [QueueState::Down, QueueState::Up, QueueState::Full];

    fn word(self) -> &'static str {
        match self {
            QueueState::Down => "down",
            QueueState::Up => "up",
            QueueState::Full => "full",
        }
    }
}

impl From<bool> for QueueState {
    fn from(up: bool) -> QueueState {
        if up { QueueState::Up } else { QueueState::Down }
    }
}

/// What the spool says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum SpoolState {
    /// There is none.
    #[default]
    Off,
    /// It would be on the queue's own disk, so that it cannot stand in for the queue: it stays empty.
    Beside,
    /// Nothing waits in it.
    Empty,
    /// Events wait in it: they are drained while the queue takes them.
    Draining,
    /// It takes no more: at its bound, or its disk fails.
    Full,
}

impl SpoolState {
    const ALL: [SpoolState; 5] =
        [SpoolState::Off, SpoolState::Beside, SpoolState::Empty, SpoolState::Draining, SpoolState::Full];

    /// Whether an event that the queue does not take can go there.
    fn takes(self) -> bool {
        matches!(self, SpoolState::Empty | SpoolState::Draining)
    }

    fn word(self, drains: bool) -> &'static str {
        match self {
            SpoolState::Off => "off",
            SpoolState::Beside | SpoolState::Empty => "empty",
            SpoolState::Draining if drains => "draining",
            SpoolState::Draining => "waiting",
            SpoolState::Full => "full",
        }
    }
}

impl Readiness {
    /// Whether the queue takes events.
    pub fn set_queue(&self, state: impl Into<QueueState>) {
        self.queue.store(state.into() as u8, Ordering::Relaxed);
    }

    /// What the queue said last.
    pub fn queue(&self) -> QueueState {
        QueueState::ALL.get(usize::from(self.queue.load(Ordering::Relaxed))).copied().unwrap_or_default()
    }

    /// Why the queue takes no events, and what to do; none: it takes them, or does not say.
    pub fn set_queue_detail(&self, why: Option<&str>) {
        self.queue_detail.store(why.map(|why| Arc::new(why.to_owned())));
    }

    /// Why the queue takes no events, where it says so.
    pub fn queue_detail(&self) -> Option<String> {
        self.queue_detail.load().as_deref().cloned()
    }

    /// Whether the dedupe store answers.
    pub fn set_dedupe(&self, up: bool) {
        self.dedupe.store(up, Ordering::Relaxed);
    }

    /// Whether the reject log can be written. A detail: it never makes the gateway unready.
    pub fn set_audit(&self, up: bool) {
        self.audit.store(up, Ordering::Relaxed);
    }

    /// What the spool is like.
    pub fn set_spool(&self, state: SpoolState) {
        self.spool.store(state as u8, Ordering::Relaxed);
    }

    fn spool(&self) -> SpoolState {
        SpoolState::ALL.get(usize::from(self.spool.load(Ordering::Relaxed))).copied().unwrap_or_default()
    }

    /// The gateway is on its way out.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether it is on its way out.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether a new event could be put in the queue.
    pub fn is_up(&self) -> bool {
        self.queue() == QueueState::Up && self.dedupe.load(Ordering::Relaxed)
    }

    /// Whether a new event could be made durable.
    pub fn ready(&self) -> bool {
        (self.is_up() || self.spool().takes()) && !self.draining()
    }

    /// `/readyz`: the parts by name.
    pub(super) fn report(&self) -> String {
        let word = |part: &AtomicBool| if part.load(Ordering::Relaxed) { "up" } else { "down" };
        let report = Report {
            ready: self.ready(),
            queue: self.queue().word(),
            dedupe: word(&self.dedupe),
            spool: self.spool().word(self.is_up()),
            draining: self.draining(),
            audit: word(&self.audit),
            queue_detail: self.queue_detail(),
        };
        serde_json::to_string(&report).unwrap_or_default()
    }
}

#[derive(serde::Serialize)]
struct Report {
    ready: bool,
    queue: &'static str,
    dedupe: &'static str,
    spool: &'static str,
    draining: bool,
    audit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_detail: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_wait_in_the_spool_until_the_queue_takes_them() {
        let readiness = Readiness::default();
        readiness.set_spool(SpoolState::Draining);
        readiness.set_dedupe(true);
        for (queue, words) in [
            (QueueState::Down, ["down", "waiting"]),
            (QueueState::Full, ["full", "waiting"]),
            (QueueState::Up, ["up", "draining"]),
        ] {
            readiness.set_queue(queue);
            let report: serde_json::Value = serde_json::from_str(&readiness.report()).unwrap();
            assert_eq!([&report["queue"], &report["spool"]], words);
        }
    }

    #[test]
    fn a_spool_that_takes_events_makes_up_for_a_queue_that_is_away() {
        for (state, alone) in SpoolState::ALL.into_iter().zip([false, false, true, true, false]) {
            let readiness = Readiness::default();
            readiness.set_spool(state);
            assert_eq!(readiness.ready(), alone, "{state:?}");
            readiness.set_queue(true);
            assert_eq!(readiness.ready(), alone, "{state:?}: dedupe is down");
            readiness.set_dedupe(true);
            assert!(readiness.ready(), "{state:?}");
            readiness.set_draining();
            assert!(!readiness.ready(), "{state:?}");
        }
    }
}
