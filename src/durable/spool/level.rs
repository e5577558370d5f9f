//! How full the spool is, and whether it takes events: what metrics and readiness tell of it.
//!
//! Keeps true: `full` is said from the first event that was turned away, for want of room or by a failing disk, until one
//! would be taken again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::table::Totals;
use crate::observe::admin::{Readiness, SpoolState};
use crate::observe::metrics::SpoolMetrics;

/// The spool's level.
pub(super) struct Level {
    pub(super) max_bytes: i64,
    /// It takes no event, and readiness says so.
    off: bool,
    readiness: Arc<Readiness>,
    metrics: SpoolMetrics,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    totals: Totals,
    /// An event had no room, nothing has left since, and something is there that can.
    full: bool,
    /// The database failed, and no write has worked since.
    broken: bool,
    /// The bytes of the last event that it failed to write.
    wanted: i64,
}

impl Level {
    pub(super) fn new(max_bytes: Option<u64>, readiness: Arc<Readiness>, metrics: SpoolMetrics) -> Level {
        let off = max_bytes.is_none();
        let max_bytes = i64::try_from(max_bytes.unwrap_or(0)).unwrap_or(i64::MAX);
        metrics.max_bytes.set(max_bytes);
        Level { max_bytes, off, readiness, metrics, known: Mutex::default() }
    }

    /// Whether it is there to take events at all.
    pub(super) fn takes(&self) -> bool {
        !self.off
    }

    /// How many events wait.
    pub(super) fn waiting(&self) -> i64 {
        self.lock().totals.waiting
    }

    /// This is in the spool now.
    pub(super) fn is(&self, totals: Totals) {
        let mut known = self.lock();
        // What had no room may have been larger than all of it; with nothing waiting, nothing would ever leave.
        let room = totals.waiting == 0 && totals.bytes < self.max_bytes;
        known.full &= totals.bytes >= known.totals.bytes && !room;
        match (known.totals.waiting, totals.waiting) {
            (0, 1..) => tracing::warn!("events go to the spool, as the queue does not take them"),
            (1.., 0) => tracing::info!("the spool is drained"),
            _ => {}
        }
        known.totals = totals;
        self.tell(&known);
    }

    /// There was room for an event, or none.
    pub(super) fn room(&self, room: bool) {
        let mut known = self.lock();
        if !room && !known.full {
            tracing::warn!(max_bytes = self.max_bytes, "the spool is full and takes no more events");
        }
        known.full = !room;
        self.tell(&known);
    }

    /// A write failed, or worked.
    pub(super) fn wrote(&self, worked: bool) {
        let mut known = self.lock();
        known.broken = !worked;
        self.tell(&known);
    }

    /// The disk did not take an event of so many bytes.
    pub(super) fn turned_away(&self, bytes: i64) {
        self.lock().wanted = bytes;
        self.wrote(false);
    }

    /// Where the last write failed, how many bytes have to be written before it is believed that the disk takes events.
    pub(super) fn wanted(&self) -> Option<i64> {
        let known = self.lock();
        known.broken.then_some(known.wanted)
    }

    /// How long the oldest event has waited, in microseconds.
    pub(super) fn oldest(&self, age: i64) {
        self.metrics.oldest_age.set(age.max(0) as f64 / 1e6);
    }

    fn tell(&self, known: &Known) {
        let Totals { waiting, dead, bytes } = known.totals;
        self.metrics.events.set(waiting);
        self.metrics.bytes.set(bytes);
        self.metrics.dead_events.set(dead);
        if waiting == 0 {
            self.oldest(0);
        }
        let full = known.full || known.broken || bytes >= self.max_bytes;
        self.readiness.set_spool(match (full, waiting) {
            _ if self.off => SpoolState::Off,
            (true, _) => SpoolState::Full,
            (false, 0) => SpoolState::Empty,
            (false, _) => SpoolState::Draining,
        });
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
