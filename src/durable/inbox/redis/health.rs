//! Collects which servers and streams accept events, and publishes readiness and the queue's metrics.
//!
//! Keeps true:
//! - Ready while at least one master and at least one stream accept writes.
//! - `hookgate_queue_up` is 1 only while every master accepts writes, every slot has a master, and no stream refuses.
//! - Everything starts as down until a probe reports otherwise.
//!
//! Where the name's template holds `{type}`, only the streams of the known types count.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::advice;
use super::backlog::Backlog;
use crate::observe::admin::{QueueState, Readiness};
use crate::observe::metrics::QueueMetrics;
use crate::observe::telemetry::LogThrottle;

/// The state of all servers and streams.
pub(in crate::durable::inbox) struct RedisHealth {
    readiness: Arc<Readiness>,
    queue: Option<Queue>,
    state: Mutex<State>,
    /// Wakes the task that logs refusals.
    refused: Notify,
}

/// The queue, where Redis is more than a dedupe store.
pub(in crate::durable::inbox) struct Queue {
    pub(in crate::durable::inbox) metrics: QueueMetrics,
    /// The known streams.
    pub(in crate::durable::inbox) streams: Vec<String>,
    /// The bound of each stream.
    pub(in crate::durable::inbox) backlog: Arc<Backlog>,
}

#[derive(Default)]
struct State {
    /// The state of each node, by its number.
    nodes: BTreeMap<u64, NodeState>,
    next: u64,
    /// Whether the masters together have every slot.
    whole: bool,
    streams: BTreeMap<String, StreamState>,
    refusals: Option<Refusals>,
}

/// Refusals that are not logged yet.
struct Refusals {
    count: u64,
    /// The stream of the last refusal; none if it was a claim.
    stream: Option<String>,
    why: String,
}

/// Whether a server accepts writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NodeState {
    Writable,
    /// It refuses writes because its memory is full.
    OutOfMemory,
    /// It is unreachable, or refuses writes for another reason.
    Down,
}

/// Whether a stream accepts events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamState {
    /// No probe has answered yet.
    Unknown,
    Writable,
    /// It was writable and refused an event. Perhaps only that event is at fault.
    Doubtful,
    /// It is at `max_backlog`.
    Full,
    /// The user lacks a right, or the key is no stream.
    Rejecting,
}

impl RedisHealth {
    /// Starts as down. Without a queue, only `readiness.dedupe` is set.
    pub(in crate::durable::inbox) fn new(readiness: Arc<Readiness>, queue: Option<Queue>) -> RedisHealth {
        let streams = queue.iter().flat_map(|queue| &queue.streams);
        let streams = streams.map(|stream| (stream.clone(), StreamState::Unknown)).collect();
        let state = Mutex::new(State { streams, ..State::default() });
        let health = RedisHealth { readiness, queue, state, refused: Notify::new() };
        health.publish(&health.state());
        health
    }

    /// Adds a node, which is down, and gives its number.
    pub(super) fn add_node(&self) -> u64 {
        let mut state = self.state();
        state.next += 1;
        let node = state.next;
        state.nodes.insert(node, NodeState::Down);
        self.publish(&state);
        node
    }

    pub(super) fn set_node(&self, node: u64, node_state: NodeState) {
        let mut state = self.state();
        if let Some(known) = state.nodes.get_mut(&node) {
            *known = node_state;
        }
        self.publish(&state);
    }

    pub(super) fn remove_node(&self, node: u64) {
        let mut state = self.state();
        state.nodes.remove(&node);
        self.publish(&state);
    }

    pub(super) fn set_whole(&self, whole: bool) {
        let mut state = self.state();
        state.whole = whole;
        self.publish(&state);
    }

    /// Whether every master accepts writes, and every slot has a master.
    pub(super) fn is_all_up(&self) -> bool {
        self.state().is_all_up()
    }

    /// Replaces the known streams. A stream that is not among them is added when an event enters it.
    pub(super) fn set_streams(&self, streams: Vec<String>) {
        let mut state = self.state();
        let mut before = std::mem::take(&mut state.streams);
        for stream in streams {
            let known = before.remove(&stream).unwrap_or(StreamState::Unknown);
            state.streams.insert(stream, known);
        }
        self.publish(&state);
    }

    /// Forgets that these streams were writable, because their server is down. The next probe decides.
    pub(super) fn mark_unknown(&self, streams: impl Fn(&str) -> bool) {
        let mut state = self.state();
        for (stream, state) in &mut state.streams {
            if matches!(state, StreamState::Writable | StreamState::Doubtful) && streams(stream) {
                *state = StreamState::Unknown;
            }
        }
        self.publish(&state);
    }

    /// Adds a stream, so that probes ask about it.
    pub(super) fn track(&self, stream: &str) {
        let mut state = self.state();
        if !state.streams.contains_key(stream) {
            state.streams.insert(stream.to_owned(), StreamState::Unknown);
        }
    }

    /// Records that Redis refused an event, and why. A probe soon finds out whether the stream refuses every event.
    pub(super) fn on_event_refused(&self, stream: &str, why: &str) {
        self.track(stream);
        let mut state = self.state();
        if let Some(state @ StreamState::Writable) = state.streams.get_mut(stream) {
            *state = StreamState::Doubtful;
        }
        self.add_refusal(&mut state, Some(stream), why);
    }

    /// Records that Redis refused a claim, a commit or a release, and why.
    pub(in crate::durable::inbox) fn on_claim_refused(&self, why: &str) {
        self.add_refusal(&mut self.state(), None, why);
    }

    fn add_refusal(&self, state: &mut State, stream: Option<&str>, why: &str) {
        let count = state.refusals.as_ref().map_or(0, |refusals| refusals.count) + 1;
        state.refusals = Some(Refusals { count, stream: stream.map(str::to_owned), why: why.to_owned() });
        self.refused.notify_one();
    }

    /// Logs refusals until the future is dropped.
    pub(super) async fn log_refusals(&self) {
        let mut throttle = LogThrottle::default();
        loop {
            tokio::select! {
                () = self.refused.notified() => self.log_refusal(&mut throttle),
                refused = throttle.wait_until_quiet() => tracing::info!(refused, "redis has refused no event for 10 s"),
            }
        }
    }

    fn log_refusal(&self, throttle: &mut LogThrottle) {
        let Some(Refusals { count, stream, why }) = self.state().refusals.take() else { return };
        for refused in (0..count).filter_map(|_| throttle.record()) {
            match &stream {
                Some(stream) => tracing::warn!(%stream, %why, refused, "redis refuses events"),
                None => tracing::warn!(%why, refused, "redis refuses claims"),
            }
        }
    }

    /// Records that an event found the stream full because of these consumer groups.
    pub(super) fn on_event_found_full(&self, stream: &str, holders: &[String]) {
        self.track(stream);
        self.set_full(stream, holders);
    }

    /// Records that a stream is at `max_backlog` and that these consumer groups keep its entries.
    pub(super) fn set_full(&self, stream: &str, holders: &[String]) {
        if self.set_stream(stream, StreamState::Full).is_some_and(|before| before != StreamState::Full) {
            let (limit, holders) = (self.backlog().map(Backlog::max), describe_holders(holders));
            tracing::warn!(%stream, limit, "a stream is at max_backlog and takes no more events: {holders}");
        }
    }

    pub(super) fn set_writable(&self, stream: &str) {
        if let Some(StreamState::Full | StreamState::Rejecting) =
            self.set_stream(stream, StreamState::Writable)
        {
            tracing::info!(%stream, "the stream takes events again");
        }
    }

    /// Records that a stream refuses every event, and why.
    pub(super) fn set_rejecting(&self, stream: &str, why: &str) {
        if self
            .set_stream(stream, StreamState::Rejecting)
            .is_some_and(|before| before != StreamState::Rejecting)
        {
            tracing::warn!(%stream, %why, "redis takes no events: {}", advice::of_stream(why));
        }
    }

    /// The wanted streams that this turn's probe asks about. Writable streams are asked less often, since each probe
    /// counts as an error in the server's statistics.
    pub(super) fn due_for_probe(&self, wanted: impl Fn(&str) -> bool, turn: usize) -> Vec<String> {
        let state = self.state();
        let wanted: Vec<_> = state.streams.iter().filter(|(stream, _)| wanted(stream)).collect();
        let soon = wanted.len().div_ceil(PROBED_PER_TURN).max(1);
        let is_due = |(n, (_, state)): &(usize, (&String, &StreamState))| {
            let every = if **state == StreamState::Writable { soon.max(WRITABLE_EVERY) } else { soon };
            n % every == turn % every
        };
        wanted.into_iter().enumerate().filter(is_due).map(|(_, (stream, _))| stream.clone()).collect()
    }

    /// Sets a stream's state and gives the previous one; none for an unknown stream.
    fn set_stream(&self, stream: &str, now: StreamState) -> Option<StreamState> {
        let mut state = self.state();
        let before = std::mem::replace(state.streams.get_mut(stream)?, now);
        if before != now {
            self.publish(&state);
        }
        Some(before)
    }

    /// The bound of each stream; none without a queue.
    pub(super) fn backlog(&self) -> Option<&Backlog> {
        self.queue.as_ref().map(|queue| &*queue.backlog)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Called under the lock, so that changes are published in order.
    fn publish(&self, state: &State) {
        let any = state.nodes.values().any(|node| *node == NodeState::Writable);
        self.readiness.set_dedupe(any);
        if let Some(Queue { metrics, .. }) = &self.queue {
            let takes = state.any(StreamState::Writable) || state.any(StreamState::Doubtful);
            let refuses = state.any(StreamState::Rejecting);
            // Without sources there are no streams.
            let taken = takes || state.streams.is_empty();
            let answers = any || state.nodes.values().any(|node| *node == NodeState::OutOfMemory);
            let want_of_room = state.any(StreamState::Full) || !any;
            self.readiness.set_queue(match (any && taken, answers && want_of_room) {
                (true, _) => QueueState::Up,
                (false, true) => QueueState::Full,
                (false, false) => QueueState::Down,
            });
            metrics.up.set(i64::from(state.is_all_up() && taken && !refuses));
            metrics.full.set(i64::from(state.is_only_full() && !refuses));
        }
    }
}

/// Describes the groups that keep a stream from being trimmed.
pub(super) fn describe_holders(holders: &[String]) -> String {
    match holders {
        [] => "it has no consumer group, so that nothing in it is acknowledged".to_owned(),
        [one] => format!("consumer group {one} has not acknowledged its first entry"),
        more => format!("consumer groups {} have not acknowledged its first entry", more.join(", ")),
    }
}

impl State {
    fn any(&self, state: StreamState) -> bool {
        self.streams.values().any(|one| *one == state)
    }

    fn is_all_up(&self) -> bool {
        self.whole && !self.nodes.is_empty() && self.nodes.values().all(|node| *node == NodeState::Writable)
    }

    /// Whether every server answers, but one of them or a stream is full.
    fn is_only_full(&self) -> bool {
        let is_full =
            self.any(StreamState::Full) || self.nodes.values().any(|node| *node == NodeState::OutOfMemory);
        self.whole && is_full && self.nodes.values().all(|node| *node != NodeState::Down)
    }
}

/// How many streams that are not writable one turn probes. This costs the server about a millisecond.
const PROBED_PER_TURN: usize = 64;
/// A writable stream is probed every so many turns, that is every five seconds. A refused event makes its stream
/// doubtful, so that it is probed in the next turn.
const WRITABLE_EVERY: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::Metrics;

    #[test]
    fn writable_streams_are_probed_seldom_and_others_soon() {
        let streams: Vec<String> = (0..150).map(|n| format!("s.{n}")).collect();
        let metrics = Metrics::new().unwrap().queue("redis");
        let queue = Queue { metrics, streams: streams.clone(), backlog: Arc::new(Backlog::new(10, None)) };
        let health = RedisHealth::new(Arc::default(), Some(queue));
        let asked = |turns: std::ops::Range<usize>| {
            let mut asked: Vec<String> =
                turns.flat_map(|turn| health.due_for_probe(|_| true, turn)).collect();
            asked.sort();
            asked.dedup();
            asked.len()
        };
        assert_eq!((asked(0..1), asked(7..10)), (50, 150), "nothing is known of them");
        for stream in &streams {
            health.set_writable(stream);
        }
        assert_eq!((asked(3..4), asked(31..51)), (8, 150));
        health.set_rejecting("s.0", "no");
        health.set_full("s.1", &[]);
        health.on_event_refused("s.2", "no");
        for turn in 0..100 {
            let asked: Vec<_> =
                (turn..turn + 3).flat_map(|turn| health.due_for_probe(|_| true, turn)).collect();
            assert!(["s.0", "s.1", "s.2"].iter().all(|one| asked.iter().any(|asked| asked == one)), "{turn}");
        }
        assert_eq!(health.due_for_probe(|_| false, 0).len(), 0);
    }

    #[test]
    fn ready_while_some_events_are_taken_and_up_while_all_are() {
        let (readiness, metrics) = (Arc::<Readiness>::default(), Metrics::new().unwrap().queue("redis"));
        let streams = vec!["a".to_owned(), "b".to_owned()];
        let queue = Queue { metrics: metrics.clone(), streams, backlog: Arc::new(Backlog::new(10, None)) };
        let health = RedisHealth::new(readiness.clone(), Some(queue));
        let shows = || (readiness.queue() == QueueState::Up, metrics.up.get() == 1);
        let (one, two) = (health.add_node(), health.add_node());
        health.set_whole(true);
        health.set_writable("a");
        assert_eq!(shows(), (false, false), "no node is up");
        health.set_node(one, NodeState::Writable);
        assert_eq!((shows(), health.is_all_up()), ((true, false), false));
        health.set_node(two, NodeState::Writable);
        assert_eq!((shows(), health.is_all_up()), ((true, true), true));
        health.set_whole(false);
        assert_eq!((shows(), health.is_all_up()), ((true, false), false), "a slot without a master");
        health.set_whole(true);
        health.set_rejecting("b", "no");
        assert_eq!(shows(), (true, false));
        // `mark_unknown` leaves a stream that refuses as it is.
        health.mark_unknown(|stream| stream == "b");
        assert_eq!(shows(), (true, false));
        health.mark_unknown(|stream| stream == "a");
        assert_eq!(shows(), (false, false));
        health.set_writable("b");
        assert_eq!(shows(), (true, true));
        health.remove_node(two);
        health.set_node(one, NodeState::Down);
        assert_eq!(shows(), (false, false));
    }

    #[test]
    fn a_new_stream_is_probed_after_its_first_event() {
        let metrics = Metrics::new().unwrap().queue("redis");
        let health = RedisHealth::new(
            Arc::default(),
            Some(Queue { metrics, streams: Vec::new(), backlog: Arc::new(Backlog::new(10, None)) }),
        );
        health.set_writable("unheard");
        assert_eq!(health.due_for_probe(|_| true, 0), [] as [&str; 0]);
        health.track("new");
        health.on_event_found_full("full", &[]);
        assert_eq!(health.due_for_probe(|_| true, 0), ["full", "new"]);
        health.set_rejecting("new", "no");
        health.track("new");
        assert!(health.state().any(StreamState::Rejecting), "tracking a known stream changes nothing");
    }
}
