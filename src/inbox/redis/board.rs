//! Where it shows whether Redis takes writes: readiness, the queue's metric, and which streams are at their limit.
//!
//! Keeps true: ready while any master takes events, since some are taken then; `hookgate_queue_up` is 1 only while all of
//! them do, and together have every slot. Nothing is up of which nobody has said so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::admin::Readiness;
use crate::metrics::QueueMetrics;

/// What the links tell, all together.
pub(in crate::inbox) struct Board {
    readiness: Arc<Readiness>,
    queue: Option<Queue>,
    state: Mutex<State>,
}

/// A queue besides the dedupe store.
pub(in crate::inbox) struct Queue {
    pub(in crate::inbox) metrics: QueueMetrics,
    /// How many streams there are; none where the name is a template, so that nobody knows.
    pub(in crate::inbox) streams: Option<usize>,
    /// At this length a stream takes no more.
    pub(in crate::inbox) limit: u64,
}

#[derive(Default)]
struct State {
    /// Of each link, by its number, whether it takes writes.
    takes: BTreeMap<u64, bool>,
    next: u64,
    /// Whether every slot has a link.
    whole: bool,
    full: BTreeSet<String>,
}

impl Board {
    /// Nothing is up yet. Without a queue only `readiness.dedupe` is told.
    pub(in crate::inbox) fn new(readiness: Arc<Readiness>, queue: Option<Queue>) -> Board {
        let board = Board { readiness, queue, state: Mutex::default() };
        board.tell(&board.state());
        board
    }

    /// A number for a link, which is down.
    pub(super) fn enter(&self) -> u64 {
        let mut state = self.state();
        state.next += 1;
        let link = state.next;
        state.takes.insert(link, false);
        self.tell(&state);
        link
    }

    /// A link takes writes, or no more.
    pub(super) fn set(&self, link: u64, takes: bool) {
        let mut state = self.state();
        if let Some(known) = state.takes.get_mut(&link) {
            *known = takes;
        }
        self.tell(&state);
    }

    /// A link is no more.
    pub(super) fn leave(&self, link: u64) {
        let mut state = self.state();
        state.takes.remove(&link);
        self.tell(&state);
    }

    /// Whether every slot has a link.
    pub(super) fn set_whole(&self, whole: bool) {
        let mut state = self.state();
        state.whole = whole;
        self.tell(&state);
    }

    /// Whether every master takes writes, and every slot has one.
    pub(super) fn is_all_up(&self) -> bool {
        self.state().is_all_up()
    }

    /// A stream was found full: the probes look when it takes events again.
    pub(super) fn is_full(&self, stream: &str) {
        let mut state = self.state();
        if state.full.insert(stream.to_owned()) {
            let limit = self.limit();
            tracing::warn!(%stream, limit, "a stream is at max_backlog and takes no more events");
            self.tell(&state);
        }
    }

    pub(super) fn full_streams(&self) -> Vec<String> {
        self.state().full.iter().cloned().collect()
    }

    /// A full stream has become this long.
    pub(super) fn has_length(&self, stream: &str, length: u64) {
        let mut state = self.state();
        if length < self.limit() && state.full.remove(stream) {
            tracing::info!(%stream, "the stream takes events again");
            self.tell(&state);
        }
    }

    fn limit(&self) -> u64 {
        self.queue.as_ref().map_or(u64::MAX, |queue| queue.limit)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Under the lock, so that what is told last is what came last.
    fn tell(&self, state: &State) {
        let any = state.takes.values().any(|takes| *takes);
        self.readiness.set_dedupe(any);
        if let Some(Queue { metrics, streams, .. }) = &self.queue {
            let room = streams.is_none_or(|streams| state.full.len() < streams);
            self.readiness.set_queue(any && room);
            metrics.up.set(i64::from(state.is_all_up() && room));
        }
    }
}

impl State {
    fn is_all_up(&self) -> bool {
        self.whole && !self.takes.is_empty() && self.takes.values().all(|takes| *takes)
    }
}
