//! Which sources have events in the spool, or on their way into it: theirs wait in line.
//!
//! Keeps true: a source has a line from before its first row is written until after its last one is known to be gone; a line
//! with rows has a drainer, or is due to be given one, or is found again by [`BacklogIndex::found`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The lines, by source.
#[derive(Default)]
pub(super) struct BacklogIndex {
    lines: Mutex<HashMap<Arc<str>, SourceBacklog>>,
    due: Notify,
}

#[derive(Default)]
struct SourceBacklog {
    /// Rows being written.
    entering: usize,
    /// How often a row began to be written, was asked to be written, or was found. Both ends count: who looked in between
    /// may have looked too early.
    arrivals: u64,
    /// It has a drainer.
    attended: bool,
    /// Rows may have come since it had one.
    due: bool,
}

/// A row on its way into a line. Dropped no earlier than its write is asked for, so that who looks afterwards finds it.
pub(super) struct Entering {
    lines: Arc<BacklogIndex>,
    source: Arc<str>,
}

/// A drainer's place at a line. Free again when it is dropped, however its drainer ended.
pub(super) struct Attending {
    lines: Arc<BacklogIndex>,
    source: Arc<str>,
    left: bool,
}

impl BacklogIndex {
    /// Whether a source's new events have to queue behind older ones.
    pub(super) fn wait_at(&self, source: &str) -> bool {
        self.lock().contains_key(source)
    }

    /// A row is about to be written.
    pub(super) fn enter(self: &Arc<Self>, source: &Arc<str>) -> Entering {
        let mut lines = self.lock();
        let line = lines.entry(source.clone()).or_default();
        line.entering += 1;
        line.arrivals += 1;
        Entering { lines: self.clone(), source: source.clone() }
    }

    /// Rows were found that may have come from elsewhere.
    pub(super) fn found(&self, source: &str) {
        let mut lines = self.lock();
        let line = lines.entry(source.into()).or_default();
        line.arrivals += 1;
        line.due = true;
        self.due.notify_one();
    }

    /// Waits until a line may be due.
    pub(super) async fn due(&self) {
        self.due.notified().await;
    }

    /// The sources to give a drainer; from now on they have one.
    pub(super) fn attend(self: &Arc<Self>) -> Vec<Attending> {
        let mut lines = self.lock();
        let due = lines.iter_mut().filter(|(_, line)| line.due && !line.attended);
        due.map(|(source, line)| {
            (line.attended, line.due) = (true, false);
            Attending { lines: self.clone(), source: source.clone(), left: false }
        })
        .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, SourceBacklog>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attending {
    /// Whose line it is.
    pub(super) fn source(&self) -> &Arc<str> {
        &self.source
    }

    /// How many have come so far; for [`Attending::leave`].
    pub(super) fn arrivals(&self) -> u64 {
        self.lines.lock().get(&self.source).map_or(0, |line| line.arrivals)
    }

    /// The drainer found no row, having asked when this many had come. Whether it may go: when none has come since.
    pub(super) fn leave(&mut self, arrivals: u64) -> bool {
        let mut lines = self.lines.lock();
        if let Some(line) = lines.get_mut(&self.source) {
            if line.arrivals != arrivals {
                return false;
            }
            if line.entering == 0 {
                lines.remove(&self.source);
            } else {
                line.attended = false;
            }
        }
        self.left = true;
        true
    }
}

impl Drop for Attending {
    fn drop(&mut self) {
        // Not due at once: a drainer that panics would do so again and again.
        if !self.left
            && let Some(line) = self.lines.lock().get_mut(&self.source)
        {
            line.attended = false;
        }
    }
}

impl Drop for Entering {
    fn drop(&mut self) {
        if let Some(line) = self.lines.lock().get_mut(&self.source) {
            line.entering -= 1;
            line.arrivals += 1;
            line.due = true;
        }
        self.lines.due.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_lasts_until_nothing_has_come_since_the_last_look() {
        let (lines, source) = (Arc::new(BacklogIndex::default()), Arc::from("src"));
        assert!(!lines.wait_at("src"));
        let first = lines.enter(&source);
        assert!(lines.wait_at("src"), "from before it is written");
        assert!(lines.attend().is_empty(), "nothing to drain yet");
        drop(first);
        let mut drainer = lines.attend().remove(0);
        assert!(lines.attend().is_empty(), "one drainer a line");

        let looked = drainer.arrivals();
        let second = lines.enter(&source);
        assert!(!drainer.leave(looked), "it may be written by now");
        let looked = drainer.arrivals();
        assert!(drainer.leave(looked) && lines.wait_at("src"), "it is still being written");
        drop(second);
        let mut drainer = lines.attend().remove(0);
        let looked = drainer.arrivals();
        lines.found("src");
        assert!(!drainer.leave(looked));
        assert!(drainer.leave(drainer.arrivals()) && !lines.wait_at("src"));
    }

    /// The look was asked for before the write was, and both were answered before the drainer came to go.
    #[test]
    fn a_row_written_after_the_look_is_not_forgotten() {
        let (lines, source) = (Arc::new(BacklogIndex::default()), Arc::from("src"));
        lines.found("src");
        let mut drainer = lines.attend().remove(0);
        let entering = lines.enter(&source);
        let looked = drainer.arrivals();
        drop(entering);
        assert!(!drainer.leave(looked), "it has to look again");
    }

    #[test]
    fn a_drainer_that_dies_leaves_its_place_to_another() {
        let lines = Arc::new(BacklogIndex::default());
        lines.found("src");
        drop(lines.attend().remove(0));
        assert!(lines.wait_at("src") && lines.attend().is_empty(), "not at once");
        lines.found("src");
        let mut next = lines.attend().remove(0);
        assert!(next.leave(next.arrivals()));
        lines.found("src");
        let other = lines.attend().remove(0);
        drop(next);
        assert!(lines.attend().is_empty(), "who has gone frees nobody else's place");
        drop(other);
    }
}
