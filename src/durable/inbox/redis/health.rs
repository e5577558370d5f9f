//! Where it shows whether Redis takes writes: readiness, the queue's metric, and which streams take no events.
//!
//! Keeps true: ready while any stream takes events, and a master that has it, since some are taken then; `hookgate_queue_up`
//! is 1 only while all masters do, together have every slot, and no stream refuses. Nothing is up of which nobody has said so.
//! Where a template names the type, the streams of the known types stand for those of all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::advice;
use super::backlog::Backlog;
use crate::observe::admin::{QueueState, Readiness};
use crate::observe::metrics::QueueMetrics;
use crate::observe::telemetry::LogThrottle;

/// What the links tell, all together.
pub(in crate::durable::inbox) struct RedisHealth {
    readiness: Arc<Readiness>,
    queue: Option<Queue>,
    state: Mutex<State>,
    /// There are refusals to tell of.
    refused: Notify,
}

/// A queue besides the dedupe store.
pub(in crate::durable::inbox) struct Queue {
    pub(in crate::durable::inbox) metrics: QueueMetrics,
    /// The streams there are.
    pub(in crate::durable::inbox) streams: Vec<String>,
    /// When a stream takes no more.
    pub(in crate::durable::inbox) backlog: Arc<Backlog>,
}

#[derive(Default)]
struct State {
    /// Of each link, by its number, what its server takes.
    links: BTreeMap<u64, Takes>,
    next: u64,
    /// Whether every slot has a link.
    whole: bool,
    streams: BTreeMap<String, Standing>,
    refusals: Option<Refusals>,
}

/// Refusals of events that are still to be told of.
struct Refusals {
    count: u64,
    /// Of the last; none if a claim was refused.
    stream: Option<String>,
    why: String,
}

/// What a server takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// Writes.
    Writes,
    /// None: its memory is full.
    NoMore,
    /// None, for another reason.
    Nothing,
}

/// What is known of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Unasked,
    Takes,
    /// It took events, and has refused one: that may be for the event's own sake.
    Doubtful,
    /// At `max_backlog`.
    Full,
    /// No right to it, or no stream at all.
    Refuses,
}

impl RedisHealth {
    /// Nothing is up yet. Without a queue only `readiness.dedupe` is told.
    pub(in crate::durable::inbox) fn new(readiness: Arc<Readiness>, queue: Option<Queue>) -> RedisHealth {
        let streams = queue.iter().flat_map(|queue| &queue.streams);
        let streams = streams.map(|stream| (stream.clone(), Standing::Unasked)).collect();
        let state = Mutex::new(State { streams, ..State::default() });
        let board = RedisHealth { readiness, queue, state, refused: Notify::new() };
        board.tell(&board.state());
        board
    }

    /// A number for a link, which is down.
    pub(super) fn enter(&self) -> u64 {
        let mut state = self.state();
        state.next += 1;
        let link = state.next;
        state.links.insert(link, Takes::Nothing);
        self.tell(&state);
        link
    }

    /// What a link's server takes now.
    pub(super) fn set(&self, link: u64, takes: Takes) {
        let mut state = self.state();
        if let Some(known) = state.links.get_mut(&link) {
            *known = takes;
        }
        self.tell(&state);
    }

    /// A link is no more.
    pub(super) fn leave(&self, link: u64) {
        let mut state = self.state();
        state.links.remove(&link);
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

    /// From now on there are these streams. Of another one events tell, if there is any.
    pub(super) fn set_streams(&self, streams: Vec<String>) {
        let mut state = self.state();
        let mut before = std::mem::take(&mut state.streams);
        for stream in streams {
            let standing = before.remove(&stream).unwrap_or(Standing::Unasked);
            state.streams.insert(stream, standing);
        }
        self.tell(&state);
    }

    /// Nobody takes the events of these streams for now: that they were taken says nothing any more, until they are asked
    /// again.
    pub(super) fn forget(&self, streams: impl Fn(&str) -> bool) {
        let mut state = self.state();
        for (stream, standing) in &mut state.streams {
            if matches!(standing, Standing::Takes | Standing::Doubtful) && streams(stream) {
                *standing = Standing::Unasked;
            }
        }
        self.tell(&state);
    }

    /// There is such a stream: the probes ask whether it takes events.
    pub(super) fn heard_of(&self, stream: &str) {
        let mut state = self.state();
        if !state.streams.contains_key(stream) {
            state.streams.insert(stream.to_owned(), Standing::Unasked);
        }
    }

    /// Redis has refused an event, in these words. Whether it refuses every event is for the probes to ask, soon.
    pub(super) fn has_refused(&self, stream: &str, why: &str) {
        self.heard_of(stream);
        let mut state = self.state();
        if let Some(standing @ Standing::Takes) = state.streams.get_mut(stream) {
            *standing = Standing::Doubtful;
        }
        self.is_to_tell(&mut state, Some(stream), why);
    }

    /// Redis has refused a claim, a commit or a release, in these words.
    pub(in crate::durable::inbox) fn has_refused_claim(&self, why: &str) {
        self.is_to_tell(&mut self.state(), None, why);
    }

    fn is_to_tell(&self, state: &mut State, stream: Option<&str>, why: &str) {
        let count = state.refusals.as_ref().map_or(0, |refusals| refusals.count) + 1;
        state.refusals = Some(Refusals { count, stream: stream.map(str::to_owned), why: why.to_owned() });
        self.refused.notify_one();
    }

    /// Tells of refused events for as long as it is polled.
    pub(super) async fn tell_refusals(&self) {
        let mut spell = LogThrottle::default();
        loop {
            tokio::select! {
                () = self.refused.notified() => self.tell_of_each(&mut spell),
                refused = spell.wait_until_quiet() => tracing::info!(refused, "redis has refused no event for 10 s"),
            }
        }
    }

    fn tell_of_each(&self, spell: &mut LogThrottle) {
        let Some(Refusals { count, stream, why }) = self.state().refusals.take() else { return };
        for refused in (0..count).filter_map(|_| spell.record()) {
            match &stream {
                Some(stream) => tracing::warn!(%stream, %why, refused, "redis refuses events"),
                None => tracing::warn!(%why, refused, "redis refuses claims"),
            }
        }
    }

    /// An event found a stream full, which these groups hold: the probes look when it takes events again.
    pub(super) fn was_full(&self, stream: &str, holders: &[String]) {
        self.heard_of(stream);
        self.is_full(stream, holders);
    }

    /// A stream is at `max_backlog`, and nothing in it may go.
    pub(super) fn is_full(&self, stream: &str, holders: &[String]) {
        if self.stands(stream, Standing::Full).is_some_and(|before| before != Standing::Full) {
            let (limit, holders) = (self.backlog().map(Backlog::max), holding(holders));
            tracing::warn!(%stream, limit, "a stream is at max_backlog and takes no more events: {holders}");
        }
    }

    /// A stream takes events.
    pub(super) fn takes_events(&self, stream: &str) {
        if let Some(Standing::Full | Standing::Refuses) = self.stands(stream, Standing::Takes) {
            tracing::info!(%stream, "the stream takes events again");
        }
    }

    /// A stream takes no events, full or not.
    pub(super) fn refuses(&self, stream: &str, why: &str) {
        if self.stands(stream, Standing::Refuses).is_some_and(|before| before != Standing::Refuses) {
            tracing::warn!(%stream, %why, "redis takes no events: {}", advice::of_stream(why));
        }
    }

    /// Of the streams that are wanted those that are to be asked in this turn: one that takes events now and then, since each
    /// question is an error in the server's statistics.
    pub(super) fn streams(&self, wanted: impl Fn(&str) -> bool, turn: usize) -> Vec<String> {
        let state = self.state();
        let wanted: Vec<_> = state.streams.iter().filter(|(stream, _)| wanted(stream)).collect();
        let soon = wanted.len().div_ceil(AT_ONCE).max(1);
        let is_due = |(n, (_, standing)): &(usize, (&String, &Standing))| {
            let every = if **standing == Standing::Takes { soon.max(SELDOM) } else { soon };
            n % every == turn % every
        };
        wanted.into_iter().enumerate().filter(is_due).map(|(_, (stream, _))| stream.clone()).collect()
    }

    /// Takes in how a stream stands, and gives how it stood; none if there is no such stream any more.
    fn stands(&self, stream: &str, now: Standing) -> Option<Standing> {
        let mut state = self.state();
        let before = std::mem::replace(state.streams.get_mut(stream)?, now);
        if before != now {
            self.tell(&state);
        }
        Some(before)
    }

    /// When a stream takes no more; none without a queue.
    pub(super) fn backlog(&self) -> Option<&Backlog> {
        self.queue.as_ref().map(|queue| &*queue.backlog)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Under the lock, so that what is told last is what came last.
    fn tell(&self, state: &State) {
        let any = state.links.values().any(|takes| *takes == Takes::Writes);
        self.readiness.set_dedupe(any);
        if let Some(Queue { metrics, .. }) = &self.queue {
            let takes = state.any(Standing::Takes) || state.any(Standing::Doubtful);
            let refuses = state.any(Standing::Refuses);
            // Without sources there are none.
            let taken = takes || state.streams.is_empty();
            let answers = any || state.links.values().any(|takes| *takes == Takes::NoMore);
            let want_of_room = state.any(Standing::Full) || !any;
            self.readiness.set_queue(match (any && taken, answers && want_of_room) {
                (true, _) => QueueState::Up,
                (false, true) => QueueState::Full,
                (false, false) => QueueState::Down,
            });
            metrics.up.set(i64::from(state.is_all_up() && taken && !refuses));
            metrics.full.set(i64::from(state.wants_but_room() && !refuses));
        }
    }
}

/// In words, which groups keep a stream from being trimmed.
pub(super) fn holding(holders: &[String]) -> String {
    match holders {
        [] => "it has no consumer group, so that nothing in it is acknowledged".to_owned(),
        [one] => format!("consumer group {one} has not acknowledged its first entry"),
        more => format!("consumer groups {} have not acknowledged its first entry", more.join(", ")),
    }
}

impl State {
    fn any(&self, standing: Standing) -> bool {
        self.streams.values().any(|one| *one == standing)
    }

    fn is_all_up(&self) -> bool {
        self.whole && !self.links.is_empty() && self.links.values().all(|takes| *takes == Takes::Writes)
    }

    /// Whether every server answers, and one of them, or a stream, has no room.
    fn wants_but_room(&self) -> bool {
        let is_full = self.any(Standing::Full) || self.links.values().any(|takes| *takes == Takes::NoMore);
        self.whole && is_full && self.links.values().all(|takes| *takes != Takes::Nothing)
    }
}

/// Streams in trouble that are asked at once: a millisecond of the server's time.
const AT_ONCE: usize = 64;
/// Turns: five seconds. An event that is refused meanwhile has its stream asked with the next one.
const SELDOM: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::Metrics;

    #[test]
    fn a_stream_that_takes_events_is_asked_seldom_one_in_trouble_soon_and_none_never() {
        let streams: Vec<String> = (0..150).map(|n| format!("s.{n}")).collect();
        let metrics = Metrics::new().unwrap().queue("redis");
        let queue = Queue { metrics, streams: streams.clone(), backlog: Arc::new(Backlog::new(10, None)) };
        let board = RedisHealth::new(Arc::default(), Some(queue));
        let asked = |turns: std::ops::Range<usize>| {
            let mut asked: Vec<String> = turns.flat_map(|turn| board.streams(|_| true, turn)).collect();
            asked.sort();
            asked.dedup();
            asked.len()
        };
        assert_eq!((asked(0..1), asked(7..10)), (50, 150), "nothing is known of them");
        for stream in &streams {
            board.takes_events(stream);
        }
        assert_eq!((asked(3..4), asked(31..51)), (8, 150));
        board.refuses("s.0", "no");
        board.is_full("s.1", &[]);
        board.has_refused("s.2", "no");
        for turn in 0..100 {
            let asked: Vec<_> = (turn..turn + 3).flat_map(|turn| board.streams(|_| true, turn)).collect();
            assert!(["s.0", "s.1", "s.2"].iter().all(|one| asked.iter().any(|asked| asked == one)), "{turn}");
        }
        assert_eq!(board.streams(|_| false, 0).len(), 0);
    }

    #[test]
    fn ready_while_some_events_are_taken_and_up_while_all_are() {
        let (readiness, metrics) = (Arc::<Readiness>::default(), Metrics::new().unwrap().queue("redis"));
        let streams = vec!["a".to_owned(), "b".to_owned()];
        let queue = Queue { metrics: metrics.clone(), streams, backlog: Arc::new(Backlog::new(10, None)) };
        let board = RedisHealth::new(readiness.clone(), Some(queue));
        let shows = || (readiness.queue() == QueueState::Up, metrics.up.get() == 1);
        let (one, two) = (board.enter(), board.enter());
        board.set_whole(true);
        board.takes_events("a");
        assert_eq!(shows(), (false, false), "no link is up");
        board.set(one, Takes::Writes);
        assert_eq!((shows(), board.is_all_up()), ((true, false), false));
        board.set(two, Takes::Writes);
        assert_eq!((shows(), board.is_all_up()), ((true, true), true));
        board.set_whole(false);
        assert_eq!((shows(), board.is_all_up()), ((true, false), false), "a slot that nobody has");
        board.set_whole(true);
        board.refuses("b", "no");
        assert_eq!(shows(), (true, false));
        // Of another's stream nothing is forgotten, nor that one refuses.
        board.forget(|stream| stream == "b");
        assert_eq!(shows(), (true, false));
        board.forget(|stream| stream == "a");
        assert_eq!(shows(), (false, false));
        board.takes_events("b");
        assert_eq!(shows(), (true, true));
        board.leave(two);
        board.set(one, Takes::Nothing);
        assert_eq!(shows(), (false, false));
    }

    #[test]
    fn a_stream_that_an_event_begins_is_asked_about_from_then_on() {
        let metrics = Metrics::new().unwrap().queue("redis");
        let board = RedisHealth::new(
            Arc::default(),
            Some(Queue { metrics, streams: Vec::new(), backlog: Arc::new(Backlog::new(10, None)) }),
        );
        board.takes_events("unheard");
        assert_eq!(board.streams(|_| true, 0), [] as [&str; 0]);
        board.heard_of("new");
        board.was_full("full", &[]);
        assert_eq!(board.streams(|_| true, 0), ["full", "new"]);
        board.refuses("new", "no");
        board.heard_of("new");
        assert!(board.state().any(Standing::Refuses), "that it is there is no news");
    }
}
