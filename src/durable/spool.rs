//! Hands events over to the inbox, and to disk while the inbox fails.
//!
//! Keeps true: `Ok` means that the inbox has the event or the disk has synced it. While a source has events in the
//! spool, its new ones queue behind them, unless the spool is off. An event leaves the spool through the same inbox, so
//! that dedupe holds. Nothing is dropped: an event that the queue never takes is kept as a dead letter.
//!
//! An event becomes a dead letter in two cases. The queue says that it will never take it. Or the event reached the
//! failure limit in `tries`, the queue took another event after that, and this one fails again. If only one event is
//! failing, the drainer tries the ones behind it singly, to tell a bad event from a dead queue.
//!
//! `table`: the rows. `backlog`: which sources' new events must wait. `drainer`: spool to inbox. `parallel_groups`:
//! which events go together. `lanes`: the same for events that go to HTTP services, by URL and subject. `tries`:
//! failures of each event. `level`: metrics and readiness. `dead`: dead letters, for the operator.

mod backlog;
pub mod dead;
mod drainer;
mod lanes;
mod level;
mod parallel_groups;
mod table;
#[cfg(test)]
mod tests;
mod tries;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rusqlite::Connection;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::base::clock::Clock;
use crate::durable::database::writer::{Database, Failure};
use crate::durable::inbox::{EnqueueError, EnqueueRequest, Enqueued, Inbox};
use crate::observe::admin::Readiness;
use crate::observe::metrics::SpoolMetrics;
use backlog::BacklogIndex;
use drainer::Drainer;
use lanes::Lanes;
use lanes::drainer::UrlDrainer;
use lanes::entry::RowPlace;
use level::Level;
use table::Put;

pub use table::{TABLES, left_behind};

/// An inbox, with an optional spool behind it.
pub struct Enqueuer {
    inbox: Arc<Inbox>,
    spool: Option<Arc<Spool>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Events on disk that the inbox does not have yet.
pub struct Spool {
    database: Arc<Database>,
    backlog: Arc<BacklogIndex>,
    /// In place of the backlog, if events go to HTTP services.
    lanes: Option<Arc<Lanes>>,
    level: Level,
    /// How many events the queue has accepted.
    taken: AtomicU64,
    clock: Clock,
    observer: OnceLock<Box<dyn SpoolObserver>>,
}

/// Gets the results of spooled events, whose requests were answered earlier.
pub trait SpoolObserver: Send + Sync + 'static {
    /// The inbox has the event.
    fn on_enqueued(&self, request: &EnqueueRequest, enqueued: &Enqueued);
    /// An event of this source became a dead letter.
    fn on_dead_letter(&self, source: &str);
}

impl Enqueuer {
    /// Enqueues without a spool.
    pub fn direct(inbox: Inbox) -> Enqueuer {
        Enqueuer::of(inbox, None)
    }

    /// Enqueues with a spool; [`Enqueuer::start`] starts to drain it.
    pub fn spooling(inbox: Inbox, mut spool: Spool) -> Enqueuer {
        if let Some(routes) = inbox.routes() {
            let complete = spool.level.waiting() == 0;
            // The lanes have the rows that a backlog would drain.
            (spool.lanes, spool.backlog) = (Some(Lanes::new(routes.clone(), complete)), Arc::default());
        }
        Enqueuer::of(inbox, Some(Arc::new(spool)))
    }

    fn of(inbox: Inbox, spool: Option<Arc<Spool>>) -> Enqueuer {
        Enqueuer { inbox: Arc::new(inbox), spool, tasks: TaskTracker::new(), stop: CancellationToken::new() }
    }

    /// The inbox that takes the events.
    pub fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// Makes an event durable: in the queue, else in the spool.
    ///
    /// # Errors
    /// When neither the inbox nor the spool took it.
    pub async fn enqueue(&self, request: impl Into<Arc<EnqueueRequest>>) -> Result<Enqueued, EnqueueError> {
        let request = request.into();
        let Some(spool) = &self.spool else { return self.inbox.enqueue(request).await };
        if let Some(lanes) = &spool.lanes {
            return self.enqueue_in_lane(spool, lanes, request).await;
        }
        if !spool.level.is_on() {
            return self.inbox.enqueue(request).await.inspect(|enqueued| spool.count_accepted(enqueued));
        }
        if spool.backlog.must_queue(&request.source) {
            let full = EnqueueError::Refused("older events wait, and the spool takes no more".to_owned());
            return spool.store(request, None, None).await.ok_or(full);
        }
        let why = match self.inbox.enqueue(request.clone()).await {
            Err(why) => why,
            Ok(enqueued) => {
                spool.count_accepted(&enqueued);
                return Ok(enqueued);
            }
        };
        let kept = match &why {
            EnqueueError::Overloaded | EnqueueError::InProgress => None,
            EnqueueError::Unacceptable(_) => spool.store(request, Some(why.to_string()), None).await,
            _ => spool.store(request, None, None).await,
        };
        kept.ok_or(why)
    }

    /// Whether an event of the request's identity is durable: in the queue or in the spool. Writes nothing.
    ///
    /// # Errors
    /// When it is not in the spool, and the inbox cannot say.
    pub async fn is_known(&self, request: &EnqueueRequest) -> Result<bool, EnqueueError> {
        if let Some(spool) = &self.spool {
            let (source, identity) = (request.source.clone(), request.identity);
            let look = move |conn: &Connection| table::is_known(conn, &source, &identity);
            // A spool that cannot be read holds up no look at the inbox.
            if spool.database.write(look).await == Ok(true) {
                return Ok(true);
            }
        }
        self.inbox.is_known(request).await
    }

    /// Starts to drain the spool. Must be called inside a tokio runtime.
    pub fn start(&self, observer: impl SpoolObserver) {
        let Some(spool) = &self.spool else { return };
        if spool.observer.set(Box::new(observer)).is_err() {
            return;
        }
        let supervisor = DrainSupervisor {
            spool: spool.clone(),
            inbox: self.inbox.clone(),
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
        };
        self.tasks.spawn(supervisor.run());
    }

    /// Stops draining, and waits for the drainers. A publish under way goes on in the inbox, which waits for it when it
    /// closes. Events left in the spool stay there for the next start.
    ///
    /// Call before the runtimes end that requests came in on. With its runtime a request would give up its lane's turn,
    /// and a drainer would send the event a second time.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Stops draining, then closes the inbox.
    pub async fn close(self) {
        self.stop().await;
        if let Some(inbox) = Arc::into_inner(self.inbox) {
            inbox.close().await;
        }
    }
}

impl Spool {
    /// Opens the spool in a database that was opened with [`TABLES`], with the events of earlier runs. It holds at most
    /// `max_bytes`. Without `max_bytes` the spool is off: it takes no events and only drains old ones.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn open(
        database: Arc<Database>,
        max_bytes: Option<u64>,
        clock: Clock,
        metrics: SpoolMetrics,
        readiness: Arc<Readiness>,
    ) -> Result<Spool, Failure> {
        let level = Level::new(max_bytes, readiness, metrics);
        let (backlog, taken, observer) = (Arc::default(), AtomicU64::new(0), OnceLock::new());
        let spool = Spool { database, backlog, lanes: None, level, taken, clock, observer };
        match spool.refresh(None).await {
            // Later refreshes retry this until the database opens.
            Err(_) if spool.database.was_deferred() => spool.level.on_write(false),
            refreshed => drop(refreshed?),
        }
        spool.level.start();
        let waiting = spool.level.waiting();
        if max_bytes.is_none() && waiting > 0 {
            tracing::warn!(
                waiting,
                "the spool is off, but events wait in it from an earlier run: they are drained"
            );
        }
        Ok(spool)
    }

    /// Stores an event on disk, to be drained or (with `dead`) as a dead letter. None if the disk did not take it.
    async fn store(
        &self,
        request: Arc<EnqueueRequest>,
        dead: Option<String>,
        place: Option<RowPlace>,
    ) -> Option<Enqueued> {
        // Also dropped if the request is cancelled. The write was requested by then, and the drainer finds the row.
        let _pending = self.lanes.is_none().then(|| self.backlog.begin_write(&request.source));
        let (now, max_bytes) = (self.clock.now().as_microsecond(), self.level.max_bytes);
        let (source, id, why) = (request.source.clone(), request.event.id.clone(), dead.clone());
        let bytes = table::row_bytes(&request.event);
        let put = move |conn: &Connection| {
            let put = table::put(conn, &request, now, why.as_deref(), max_bytes)?;
            if let (Put::Kept(_), Some(place)) = (&put, place) {
                place.add(conn.last_insert_rowid());
            }
            Ok((put, table::totals(conn)?))
        };
        let Ok((put, totals)) = self.database.write(put).await else {
            self.level.on_rejected(bytes);
            return None;
        };
        self.level.set_totals(totals);
        match put {
            Put::Kept(enqueued) => {
                self.level.on_write(true);
                self.level.set_room(true);
                if let Some(why) = dead {
                    self.on_dead_letter(&source, &id, &why);
                }
                Some(enqueued)
            }
            Put::Known(enqueued) => Some(enqueued),
            Put::Full => {
                self.level.set_room(false);
                None
            }
        }
    }

    /// Counts an accepted event. A duplicate does not count: it does not show that the queue takes events.
    fn count_accepted(&self, enqueued: &Enqueued) {
        if matches!(enqueued, Enqueued::Accepted { .. }) {
            self.taken.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Reports a new dead letter.
    fn on_dead_letter(&self, source: &str, id: &str, why: &str) {
        tracing::error!(source, id, why, "an event became a dead letter: see `hookgate events dead`");
        self.notify(|observer| observer.on_dead_letter(source));
    }

    fn notify(&self, call: impl FnOnce(&dyn SpoolObserver)) {
        if let Some(observer) = self.observer.get() {
            call(&**observer);
        }
    }

    /// Writes, and records whether it worked.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let written = self.database.write(work).await;
        self.level.on_write(written.is_ok());
        written
    }

    /// Updates totals and backlogs from the database. Lists the sources only if another process has written since
    /// `seen`. Returns the value to pass as `seen` next time.
    async fn refresh(&self, seen: Option<i64>) -> Result<i64, Failure> {
        if let Some(bytes) = self.level.bytes_to_rehearse() {
            self.database.write(move |conn| table::rehearse(conn, bytes)).await?;
            self.write(table::end_rehearsal).await?;
        }
        let look = move |conn: &Connection| {
            let now = table::foreign_writes(conn)?;
            let sources = if seen == Some(now) { Vec::new() } else { table::sources(conn)? };
            Ok((now, sources, table::totals(conn)?, table::oldest_received(conn)?))
        };
        let (now, sources, totals, oldest) = self.database.write(look).await?;
        if let Some(lanes) = &self.lanes {
            loop {
                let lanes = lanes.clone();
                if !self.database.write(move |conn| lanes.add_found(conn)).await? {
                    break;
                }
            }
        }
        self.level.set_totals(totals);
        self.level.set_oldest_age(oldest.map_or(0, |received| self.clock.now().as_microsecond() - received));
        for source in sources.iter().filter(|_| self.lanes.is_none()) {
            self.backlog.mark_due(source);
        }
        Ok(now)
    }
}

/// Starts a drainer for each backlog, and refreshes the totals.
struct DrainSupervisor {
    spool: Arc<Spool>,
    inbox: Arc<Inbox>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl DrainSupervisor {
    async fn run(self) {
        let mut ticks = tokio::time::interval(REFRESH_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut seen, mut count) = (None, 0_u32);
        loop {
            for slot in self.spool.backlog.claim_due() {
                let (spool, inbox, stop) = (self.spool.clone(), self.inbox.clone(), self.stop.clone());
                let drainer = Drainer { slot, spool, inbox, stop };
                self.tasks.spawn(drainer.run());
            }
            self.drain_lanes();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = self.lanes_due() => {}
                _ = ticks.tick() => {
                    count = count.wrapping_add(1);
                    // Every tenth refresh lists all sources, so that no row is missed even after a bug here.
                    match self.spool.refresh(seen.filter(|_| !count.is_multiple_of(FULL_REFRESH_EVERY))).await {
                        Ok(now) => seen = Some(now),
                        Err(why) => tracing::debug!(%why, "cannot read the spool"),
                    }
                }
                () = self.spool.backlog.due() => {}
            }
        }
    }
}

impl DrainSupervisor {
    /// Starts a drainer for each URL that needs one.
    fn drain_lanes(&self) {
        let Some(lanes) = &self.spool.lanes else { return };
        for (id, destination) in lanes.claim_due() {
            let (lanes, spool, inbox) = (lanes.clone(), self.spool.clone(), self.inbox.clone());
            let (tasks, stop) = (self.tasks.clone(), self.stop.clone());
            let drainer = UrlDrainer { id, destination, lanes, spool, inbox, tasks: tasks.clone(), stop };
            tasks.spawn(drainer.run());
        }
    }

    async fn lanes_due(&self) {
        match &self.spool.lanes {
            Some(lanes) => lanes.due().await,
            None => std::future::pending().await,
        }
    }
}

/// How soon the spool notices the oldest event's age, dead letters sent back, and a disk that works again.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// Every how many refreshes all sources with events are listed.
const FULL_REFRESH_EVERY: u32 = 10;
