//! The state behind `/readyz`.
//!
//! Keeps true: each part sets its own state when it changes. Nothing is guessed here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use arc_swap::ArcSwapOption;

/// The state of each part. Everything starts as down until its part reports otherwise.
#[derive(Debug, Default)]
pub struct Readiness {
    /// A [`QueueState`].
    queue: AtomicU8,
    dedupe: AtomicBool,
    audit: AtomicBool,
    draining: AtomicBool,
    /// A [`SpoolState`].
    spool: AtomicU8,
    /// Why the queue takes no events, if it reports a reason.
    queue_detail: ArcSwapOption<String>,
}

/// The queue's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum QueueState {
    /// It is unreachable, or refuses events.
    #[default]
    Down,
    /// It takes events.
    Up,
    /// It answers, but has no room for events.
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

/// The spool's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum SpoolState {
    /// There is no spool.
    #[default]
    Off,
    /// The spool would be on the queue's own disk, so it could not replace the queue. It stays empty.
    Beside,
    /// No event waits.
    Empty,
    /// Events wait; they are drained when the queue takes them.
    Draining,
    /// It takes no events: it is full, or its disk fails.
    Full,
}

impl SpoolState {
    const ALL: [SpoolState; 5] =
        [SpoolState::Off, SpoolState::Beside, SpoolState::Empty, SpoolState::Draining, SpoolState::Full];

    /// Whether it takes an event that the queue does not.
    fn takes_events(self) -> bool {
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
    /// Sets the queue's state.
    pub fn set_queue(&self, state: impl Into<QueueState>) {
        self.queue.store(state.into() as u8, Ordering::Relaxed);
    }

    /// The queue's last state.
    pub fn queue(&self) -> QueueState {
        QueueState::ALL.get(usize::from(self.queue.load(Ordering::Relaxed))).copied().unwrap_or_default()
    }

    /// Why the queue takes no events, with the remedy. None if it takes them or gives no reason.
    pub fn set_queue_detail(&self, why: Option<&str>) {
        self.queue_detail.store(why.map(|why| Arc::new(why.to_owned())));
    }

    /// Why the queue takes no events, if it reports a reason.
    pub fn queue_detail(&self) -> Option<String> {
        self.queue_detail.load().as_deref().cloned()
    }

    /// Whether the dedupe store answers.
    pub fn set_dedupe(&self, up: bool) {
        self.dedupe.store(up, Ordering::Relaxed);
    }

    /// Whether the reject log can be written. This never makes the gateway unready.
    pub fn set_audit(&self, up: bool) {
        self.audit.store(up, Ordering::Relaxed);
    }

    /// Sets the spool's state.
    pub fn set_spool(&self, state: SpoolState) {
        self.spool.store(state as u8, Ordering::Relaxed);
    }

    fn spool(&self) -> SpoolState {
        SpoolState::ALL.get(usize::from(self.spool.load(Ordering::Relaxed))).copied().unwrap_or_default()
    }

    /// Marks the gateway as draining before its exit.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the gateway drains before its exit.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether the queue would take a new event.
    pub fn is_up(&self) -> bool {
        self.queue() == QueueState::Up && self.dedupe.load(Ordering::Relaxed)
    }

    /// Whether a new event can be made durable, in the queue or the spool.
    pub fn ready(&self) -> bool {
        (self.is_up() || self.spool().takes_events()) && !self.draining()
    }

    /// The state of each part in the words of `/readyz`: queue, dedupe, spool, reject log.
    pub fn words(&self) -> [&'static str; 4] {
        let word = |part: &AtomicBool| if part.load(Ordering::Relaxed) { "up" } else { "down" };
        [self.queue().word(), word(&self.dedupe), self.spool().word(self.is_up()), word(&self.audit)]
    }

    /// The body of `/readyz`.
    pub(super) fn report(&self) -> String {
        let [queue, dedupe, spool, audit] = self.words();
        let report = Report {
            ready: self.ready(),
            queue,
            dedupe,
            spool,
            draining: self.draining(),
            audit,
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
