//! Which sources have a backlog: events in the spool, or on their way into it.
//!
//! Keeps true: a source has a backlog from before its first row is written until after its last row is known to be
//! gone. A backlog with rows has a drainer, is due to get one, or is found again by [`BacklogIndex::mark_due`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The backlogs, by source.
#[derive(Default)]
pub(super) struct BacklogIndex {
    backlogs: Mutex<HashMap<Arc<str>, SourceBacklog>>,
    due: Notify,
}

#[derive(Default)]
struct SourceBacklog {
    /// Rows being written.
    entering: usize,
    /// How often a row began to be written, finished being written, or was found. Both ends of a write count, since a
    /// look between them may miss the row.
    arrivals: u64,
    has_drainer: bool,
    /// Rows may have arrived since its last drainer left.
    due: bool,
}

/// A row being written. Dropped after its write was requested, so that a later look at the database finds the row.
pub(super) struct PendingWrite {
    index: Arc<BacklogIndex>,
    source: Arc<str>,
}

/// A drainer's hold on a backlog. Dropping it releases the backlog, even if the drainer panics.
pub(super) struct DrainerSlot {
    index: Arc<BacklogIndex>,
    source: Arc<str>,
    released: bool,
}

impl BacklogIndex {
    /// Whether new events of this source must queue behind older ones.
    pub(super) fn must_queue(&self, source: &str) -> bool {
        self.lock().contains_key(source)
    }

    /// Call before a row is written.
    pub(super) fn begin_write(self: &Arc<Self>, source: &Arc<str>) -> PendingWrite {
        let mut backlogs = self.lock();
        let backlog = backlogs.entry(source.clone()).or_default();
        backlog.entering += 1;
        backlog.arrivals += 1;
        PendingWrite { index: self.clone(), source: source.clone() }
    }

    /// Gives the source a drainer. Call when the database has rows that may come from another process.
    pub(super) fn mark_due(&self, source: &str) {
        let mut backlogs = self.lock();
        let backlog = backlogs.entry(source.into()).or_default();
        backlog.arrivals += 1;
        backlog.due = true;
        self.due.notify_one();
    }

    /// Waits until a backlog may need a drainer.
    pub(super) async fn due(&self) {
        self.due.notified().await;
    }

    /// Claims every backlog that needs a drainer.
    pub(super) fn claim_due(self: &Arc<Self>) -> Vec<DrainerSlot> {
        let mut backlogs = self.lock();
        let due = backlogs.iter_mut().filter(|(_, backlog)| backlog.due && !backlog.has_drainer);
        due.map(|(source, backlog)| {
            (backlog.has_drainer, backlog.due) = (true, false);
            DrainerSlot { index: self.clone(), source: source.clone(), released: false }
        })
        .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, SourceBacklog>> {
        self.backlogs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DrainerSlot {
    pub(super) fn source(&self) -> &Arc<str> {
        &self.source
    }

    /// How many rows have arrived so far, for [`DrainerSlot::release`].
    pub(super) fn arrivals(&self) -> u64 {
        self.index.lock().get(&self.source).map_or(0, |backlog| backlog.arrivals)
    }

    /// Call when the drainer found no row; `arrivals` is the count from before that look. False if more have arrived
    /// since: look again.
    pub(super) fn release(&mut self, arrivals: u64) -> bool {
        let mut backlogs = self.index.lock();
        if let Some(backlog) = backlogs.get_mut(&self.source) {
            if backlog.arrivals != arrivals {
                return false;
            }
            if backlog.entering == 0 {
                backlogs.remove(&self.source);
            } else {
                backlog.has_drainer = false;
            }
        }
        self.released = true;
        true
    }
}

impl Drop for DrainerSlot {
    fn drop(&mut self) {
        // Not marked due at once: a drainer that panics would panic again and again.
        if !self.released
            && let Some(backlog) = self.index.lock().get_mut(&self.source)
        {
            backlog.has_drainer = false;
        }
    }
}

impl Drop for PendingWrite {
    fn drop(&mut self) {
        if let Some(backlog) = self.index.lock().get_mut(&self.source) {
            backlog.entering -= 1;
            backlog.arrivals += 1;
            backlog.due = true;
        }
        self.index.due.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_lasts_until_nothing_has_come_since_the_last_look() {
        let (index, source) = (Arc::new(BacklogIndex::default()), Arc::from("src"));
        assert!(!index.must_queue("src"));
        let first = index.begin_write(&source);
        assert!(index.must_queue("src"), "from before it is written");
        assert!(index.claim_due().is_empty(), "nothing to drain yet");
        drop(first);
        let mut drainer = index.claim_due().remove(0);
        assert!(index.claim_due().is_empty(), "one drainer a backlog");

        let looked = drainer.arrivals();
        let second = index.begin_write(&source);
        assert!(!drainer.release(looked), "it may be written by now");
        let looked = drainer.arrivals();
        assert!(drainer.release(looked) && index.must_queue("src"), "it is still being written");
        drop(second);
        let mut drainer = index.claim_due().remove(0);
        let looked = drainer.arrivals();
        index.mark_due("src");
        assert!(!drainer.release(looked));
        assert!(drainer.release(drainer.arrivals()) && !index.must_queue("src"));
    }

    /// The drainer's look was requested before the write, and both were answered before the drainer tried to leave.
    #[test]
    fn a_row_written_after_the_look_is_not_forgotten() {
        let (index, source) = (Arc::new(BacklogIndex::default()), Arc::from("src"));
        index.mark_due("src");
        let mut drainer = index.claim_due().remove(0);
        let entering = index.begin_write(&source);
        let looked = drainer.arrivals();
        drop(entering);
        assert!(!drainer.release(looked), "it has to look again");
    }

    #[test]
    fn a_drainer_that_dies_leaves_its_place_to_another() {
        let index = Arc::new(BacklogIndex::default());
        index.mark_due("src");
        drop(index.claim_due().remove(0));
        assert!(index.must_queue("src") && index.claim_due().is_empty(), "not at once");
        index.mark_due("src");
        let mut next = index.claim_due().remove(0);
        assert!(next.release(next.arrivals()));
        index.mark_due("src");
        let other = index.claim_due().remove(0);
        drop(next);
        assert!(index.claim_due().is_empty(), "who has gone frees nobody else's place");
        drop(other);
    }
}
