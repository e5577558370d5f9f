//! How full the spool is and whether it takes events, for metrics and readiness.
//!
//! Keeps true: readiness says `full` from the first event that was refused, for lack of room or a failing disk, until
//! the spool would take one again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::table::Totals;
use crate::observe::admin::{Readiness, SpoolState};
use crate::observe::metrics::SpoolMetrics;

pub(super) struct Level {
    pub(super) max_bytes: i64,
    /// The spool takes no events; readiness says `off`.
    off: bool,
    readiness: Arc<Readiness>,
    metrics: SpoolMetrics,
    state: Mutex<LevelState>,
}

#[derive(Default)]
struct LevelState {
    totals: Totals,
    /// An event had no room, and no room was freed since.
    full: bool,
    /// The last write failed.
    broken: bool,
    /// The size of the last event that could not be written.
    rejected_bytes: i64,
}

impl Level {
    pub(super) fn new(max_bytes: Option<u64>, readiness: Arc<Readiness>, metrics: SpoolMetrics) -> Level {
        let off = max_bytes.is_none();
        let max_bytes = i64::try_from(max_bytes.unwrap_or(0)).unwrap_or(i64::MAX);
        metrics.max_bytes.set(max_bytes);
        Level { max_bytes, off, readiness, metrics, state: Mutex::default() }
    }

    /// Whether the spool is on.
    pub(super) fn is_on(&self) -> bool {
        !self.off
    }

    pub(super) fn waiting(&self) -> i64 {
        self.lock().totals.waiting
    }

    /// Call with the totals after each change and each refresh.
    pub(super) fn set_totals(&self, totals: Totals) {
        let mut state = self.lock();
        // The refused event may have been larger than the whole spool. With nothing waiting, no room is ever freed, so
        // end `full` here.
        let room = totals.waiting == 0 && totals.bytes < self.max_bytes;
        state.full &= totals.bytes >= state.totals.bytes && !room;
        match (state.totals.waiting, totals.waiting) {
            (0, 1..) => tracing::warn!("events go to the spool, because the queue does not take them"),
            (1.., 0) => tracing::info!("the spool is drained"),
            _ => {}
        }
        state.totals = totals;
        self.publish(&state);
    }

    /// Call at the start, after the totals. The spool counts as full if an event of the usual size has no room.
    pub(super) fn start(&self) {
        let mut state = self.lock();
        let Totals { waiting, dead, bytes } = state.totals;
        state.full = waiting > 0 && bytes + bytes / (waiting + dead) > self.max_bytes;
        self.publish(&state);
    }

    /// Call after an event was stored, or had no room.
    pub(super) fn set_room(&self, room: bool) {
        let mut state = self.lock();
        if !room && !state.full {
            tracing::warn!(max_bytes = self.max_bytes, "the spool is full and takes no more events");
        }
        state.full = !room;
        self.publish(&state);
    }

    /// Call after each write.
    pub(super) fn on_write(&self, worked: bool) {
        let mut state = self.lock();
        state.broken = !worked;
        self.publish(&state);
    }

    /// Call when the disk did not take an event of this size.
    pub(super) fn on_rejected(&self, bytes: i64) {
        self.lock().rejected_bytes = bytes;
        self.on_write(false);
    }

    /// If the last write failed: the size that must be written before the disk counts as working.
    pub(super) fn bytes_to_rehearse(&self) -> Option<i64> {
        let state = self.lock();
        state.broken.then_some(state.rejected_bytes)
    }

    /// In microseconds.
    pub(super) fn set_oldest_age(&self, age: i64) {
        self.metrics.oldest_age.set(age.max(0) as f64 / 1e6);
    }

    fn publish(&self, state: &LevelState) {
        let Totals { waiting, dead, bytes } = state.totals;
        self.metrics.events.set(waiting);
        self.metrics.bytes.set(bytes);
        self.metrics.dead_events.set(dead);
        if waiting == 0 {
            self.set_oldest_age(0);
        }
        let full = state.full || state.broken || bytes >= self.max_bytes;
        self.readiness.set_spool(match (full, waiting) {
            _ if self.off => SpoolState::Off,
            (true, _) => SpoolState::Full,
            (false, 0) => SpoolState::Empty,
            (false, _) => SpoolState::Draining,
        });
    }

    fn lock(&self) -> MutexGuard<'_, LevelState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
