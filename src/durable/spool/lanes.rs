//! The lanes of events that go to HTTP services. A lane is one URL and one subject.
//!
//! Keeps true:
//! - One event of a lane at a time is on its way: the one that has the lane's turn.
//! - A lane's rows are posted in the order in which their events arrived. An event that is on its way when a provider's
//!   patience ends gets its row before any later one.
//! - A lane that waits does not hold up others. While nothing listens at a URL, its lanes are tried singly.
//!
//! `entry` is a delivery's way through its lane, and `drainer` the rows' way to the service. `failures`: of a lane's first
//! event.

pub(super) mod drainer;
pub(super) mod entry;
mod failures;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rusqlite::Connection;
use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedMutexGuard};

use self::failures::Failures;
use super::table;
use crate::base::clock;
use crate::config::queue_name::PlaceholderValues;
use crate::durable::broker::http::{Destination, Lane, Routes};
use crate::durable::inbox::EnqueueError;
use crate::event::Identity;

/// All lanes with waiting rows or with deliveries under way.
pub(super) struct Lanes {
    routes: Arc<Routes>,
    state: Mutex<State>,
    due: Notify,
}

#[derive(Default)]
struct State {
    urls: HashMap<u64, UrlQueue>,
    /// Tells apart the arrivals of one run.
    arrivals: u64,
    /// Rows up to this one are known.
    known_to: i64,
    /// Rows behind that one that this process has written, which are known too.
    own: HashSet<i64>,
    /// Whether the rows of earlier runs are known.
    complete: bool,
}

/// The lanes of one URL.
struct UrlQueue {
    destination: Arc<Destination>,
    lanes: HashMap<Arc<str>, LaneState>,
    /// Lanes whose first row may go now.
    ready: VecDeque<Arc<str>>,
    /// Lanes whose first row failed, and when it may go again.
    later: BTreeSet<(Instant, Arc<str>)>,
    /// All rows of its lanes.
    waiting: usize,
    /// Rows on their way.
    running: usize,
    /// Some lanes are in `later` because nothing listened.
    has_unreachable: bool,
    has_drainer: bool,
    wake: Arc<Notify>,
}

#[derive(Default)]
struct LaneState {
    turn: Arc<AsyncMutex<()>>,
    /// Deliveries under way.
    uses: usize,
    /// The delivery that has the turn, or had it last.
    holder: Option<Identity>,
    /// Arrival and number of each waiting row.
    rows: BTreeSet<(u64, i64)>,
    place: Place,
    failures: Failures,
}

/// Where a lane's first row is.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    /// There is none, or a delivery has the turn.
    #[default]
    Idle,
    Ready,
    Later(Instant),
    Running,
}

/// A lane's key.
#[derive(Clone, PartialEq, Eq, Hash)]
struct LaneKey {
    url: u64,
    subject: Arc<str>,
}

impl LaneKey {
    fn of(lane: &Lane) -> LaneKey {
        LaneKey { url: lane.destination.id, subject: lane.subject.clone() }
    }
}

/// What a drainer is to do.
enum Next {
    /// Post this row.
    Post(Job),
    /// Wait for something to change, at most until then.
    Wait(Option<Instant>),
    /// End: no row waits for this URL.
    End,
}

/// A row that has its lane's turn. Dropped unfinished, it goes back.
struct Job {
    lanes: Arc<Lanes>,
    key: LaneKey,
    row: (u64, i64),
    /// None once it is finished.
    turn: Option<OwnedMutexGuard<()>>,
}

impl Lanes {
    /// `complete`: no row of an earlier run waits.
    pub(super) fn new(routes: Arc<Routes>, complete: bool) -> Arc<Lanes> {
        let state = State { complete, ..State::default() };
        Arc::new(Lanes { routes, state: Mutex::new(state), due: Notify::new() })
    }

    pub(super) fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Waits until a URL may need a drainer.
    pub(super) async fn due(&self) {
        self.due.notified().await;
    }

    /// Claims every URL that needs a drainer; none before the rows of earlier runs are known.
    pub(super) fn claim_due(&self) -> Vec<(u64, Arc<Destination>)> {
        let mut state = self.lock();
        let is_complete = state.complete;
        let due = state.urls.iter_mut().filter(|(_, url)| is_complete && !url.has_drainer && url.waiting > 0);
        due.map(|(id, url)| {
            url.has_drainer = true;
            (*id, url.destination.clone())
        })
        .collect()
    }

    /// Adds the rows of earlier runs and those sent back by another process. Must run on the database's own thread, as
    /// every [`Lanes::add_row`] of a new row does. Returns whether there may be more.
    pub(super) fn add_found(&self, conn: &Connection) -> rusqlite::Result<bool> {
        let known_to = self.lock().known_to;
        let rows = table::waiting_after(conn, known_to, FOUND_AT_ONCE)?;
        let more = rows.len() == FOUND_AT_ONCE;
        for table::RowKey { seq, source, provider, kind, partition_key } in rows {
            let names = PlaceholderValues { provider: &provider, source: &source, kind: &kind };
            let mut state = self.lock();
            state.known_to = seq;
            if state.own.remove(&seq) {
                continue;
            }
            // Rows of an earlier run go before every arrival of this one.
            let arrival = if state.complete { state.next_arrival() } else { 0 };
            drop(state);
            if let Some(lane) = self.routes.lane(names, &partition_key) {
                self.add_row(&lane, (arrival, seq));
            }
        }
        let mut state = self.lock();
        if !more {
            let own = state.own.drain().max().unwrap_or_default();
            state.known_to = state.known_to.max(own);
            if !std::mem::replace(&mut state.complete, true) {
                self.due.notify_one();
            }
        }
        Ok(more)
    }

    fn add_row(&self, lane: &Lane, row: (u64, i64)) {
        let key = LaneKey::of(lane);
        let mut state = self.lock();
        if state.lane(lane).rows.insert(row)
            && let Some(url) = state.urls.get_mut(&key.url)
        {
            url.waiting += 1;
        }
        self.schedule(&mut state, &key);
    }

    /// The next row of a URL.
    fn next(self: &Arc<Self>, id: u64) -> Next {
        let now = clock::instant();
        let mut state = self.lock();
        let Some(url) = state.urls.get_mut(&id) else { return Next::End };
        if url.waiting == 0 {
            return Next::End;
        }
        if let Some(until) = url.destination.paused_until() {
            return Next::Wait(Some(until));
        }
        if let Some(probe_at) = url.destination.unreachable_until() {
            match url.running {
                0 if probe_at > now => return Next::Wait(Some(probe_at)),
                0 => {}
                _ => return Next::Wait(None),
            }
        }
        while url.later.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, subject)) = url.later.pop_first() {
                if let Some(lane) = url.lanes.get_mut(&subject) {
                    lane.place = Place::Ready;
                }
                url.ready.push_back(subject);
            }
        }
        while let Some(subject) = url.ready.pop_front() {
            let Some(lane) = url.lanes.get_mut(&subject) else { continue };
            lane.place = Place::Idle;
            // Whatever has the turn schedules the lane again when it ends.
            if let (Some(&row), Ok(turn)) = (lane.rows.first(), lane.turn.clone().try_lock_owned()) {
                lane.place = Place::Running;
                url.running += 1;
                let key = LaneKey { url: id, subject };
                return Next::Post(Job { lanes: self.clone(), key, row, turn: Some(turn) });
            }
        }
        Next::Wait(url.later.first().map(|(at, _)| *at))
    }

    /// Records how an event's try ended. Returns why the event is given up, if it is.
    fn record(&self, key: &LaneKey, failed: Option<&EnqueueError>) -> Option<String> {
        let mut state = self.lock();
        let url = state.urls.get_mut(&key.url)?;
        if url.destination.unreachable_until().is_none() {
            url.retry_unreachable();
        } else if matches!(failed, Some(EnqueueError::Unreachable)) {
            url.has_unreachable = true;
        }
        let is_paused = url.destination.paused_until().is_some();
        let lane = url.lanes.get_mut(&key.subject)?;
        match failed {
            None => {
                lane.failures = Failures::default();
                None
            }
            Some(why) => lane.failures.add(why, is_paused),
        }
    }

    /// Puts a lane with rows where it belongs, if it is nowhere. Forgets a lane without rows and uses.
    fn schedule(&self, state: &mut State, key: &LaneKey) {
        let Some(url) = state.urls.get_mut(&key.url) else { return };
        let Some(lane) = url.lanes.get_mut(&key.subject) else { return };
        if lane.place != Place::Idle {
            return;
        }
        if lane.rows.is_empty() {
            if lane.uses == 0 {
                url.lanes.remove(&key.subject);
            }
            state.forget_idle(key.url);
            return;
        }
        match lane.failures.not_before.filter(|at| *at > clock::instant()) {
            Some(at) => {
                lane.place = Place::Later(at);
                url.later.insert((at, key.subject.clone()));
            }
            None => {
                lane.place = Place::Ready;
                url.ready.push_back(key.subject.clone());
            }
        }
        url.wake.notify_one();
        if !url.has_drainer {
            self.due.notify_one();
        }
    }

    fn wake(&self, id: u64) -> Option<Arc<Notify>> {
        self.lock().urls.get(&id).map(|url| url.wake.clone())
    }

    /// Call when a drainer ends.
    fn release(&self, id: u64) {
        let mut state = self.lock();
        if let Some(url) = state.urls.get_mut(&id) {
            url.has_drainer = false;
            // Rows that came after its last look need another one.
            self.due.notify_one();
        }
        state.forget_idle(id);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next_arrival(&mut self) -> u64 {
        self.arrivals += 1;
        self.arrivals
    }

    fn lane(&mut self, lane: &Lane) -> &mut LaneState {
        let url = self.urls.entry(lane.destination.id).or_insert_with(|| UrlQueue {
            destination: lane.destination.clone(),
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            later: BTreeSet::new(),
            waiting: 0,
            running: 0,
            has_unreachable: false,
            has_drainer: false,
            wake: Arc::default(),
        });
        url.lanes.entry(lane.subject.clone()).or_default()
    }

    fn forget_idle(&mut self, id: u64) {
        if self.urls.get(&id).is_some_and(|url| url.lanes.is_empty() && !url.has_drainer) {
            self.urls.remove(&id);
        }
    }
}

impl UrlQueue {
    /// Something listens again: what failed because nothing did goes now.
    fn retry_unreachable(&mut self) {
        let UrlQueue { lanes, later, ready, .. } = self;
        if !std::mem::take(&mut self.has_unreachable) {
            return;
        }
        later.retain(|(_, subject)| {
            let Some(lane) = lanes.get_mut(subject).filter(|lane| lane.failures.unreachable) else {
                return true;
            };
            (lane.place, lane.failures.not_before, lane.failures.unreachable) = (Place::Ready, None, false);
            ready.push_back(subject.clone());
            false
        });
    }
}

impl Job {
    /// Records how the try ended. Returns why the event is given up, if it is.
    fn record(&self, failed: Option<&EnqueueError>) -> Option<String> {
        self.lanes.record(&self.key, failed)
    }

    /// The row is gone: its event is at the service, or dead.
    fn done(mut self) {
        self.finish(true);
    }

    fn finish(&mut self, done: bool) {
        let Some(turn) = self.turn.take() else { return };
        let mut state = self.lanes.lock();
        if let Some(url) = state.urls.get_mut(&self.key.url) {
            url.running -= 1;
            if let Some(lane) = url.lanes.get_mut(&self.key.subject) {
                lane.place = Place::Idle;
                if done {
                    url.waiting -= usize::from(lane.rows.remove(&self.row));
                    lane.failures = Failures::default();
                }
            }
            url.wake.notify_one();
        }
        drop(turn);
        self.lanes.schedule(&mut state, &self.key);
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.finish(false);
    }
}

/// Rows that are looked up in one transaction.
const FOUND_AT_ONCE: usize = 5000;
