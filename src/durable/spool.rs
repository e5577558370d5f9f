//! The hand-over: to the inbox, and to the disk while the inbox is away.
//!
//! Keeps true: `Ok` is given only for what the inbox has or the disk has synced; while a source has events in the spool, its
//! new ones queue behind them, unless the spool takes no more at all; an event leaves the spool when the inbox has it, through the same inbox, so that dedupe holds.
//! Nothing is dropped: what the queue never takes is kept as a dead letter.
//!
//! An event becomes a dead letter when the queue says that it never will take it; or when it has failed as often as `tries`
//! says, the queue has taken another event after that, and it fails once more: then it is the event, and not the queue. Who
//! waits alone gets that evidence from the events behind it, which are tried one at a time.
//!
//! `table`: the rows. `lines`: whose new events have to wait. `drainer`: the way out. `waves`: which go together. `tries`: how
//! often one has failed. `level`: what is told of it. `dead`: dead letters as their operator handles them.

mod backlog;
pub mod dead;
mod drainer;
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
use level::Level;
use table::Put;

pub use table::{TABLES, left_behind};

/// An inbox, and the spool behind it where there is one.
pub struct Enqueuer {
    inbox: Arc<Inbox>,
    spool: Option<Arc<Spool>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Events on disk that the inbox has not taken yet.
pub struct Spool {
    database: Arc<Database>,
    lines: Arc<BacklogIndex>,
    level: Level,
    /// Events that have entered the queue.
    taken: AtomicU64,
    clock: Clock,
    told: OnceLock<Box<dyn SpoolObserver>>,
}

/// Who is told what became of spooled events when there is no request any more to tell.
pub trait SpoolObserver: Send + Sync + 'static {
    /// The inbox has it.
    fn on_enqueued(&self, admission: &EnqueueRequest, verdict: &Enqueued);
    /// An event of this source became a dead letter.
    fn on_dead_letter(&self, source: &str);
}

impl Enqueuer {
    /// Without a spool.
    pub fn direct(inbox: Inbox) -> Enqueuer {
        Enqueuer::of(inbox, None)
    }

    /// With one behind it; [`Enqueuer::start`] starts to drain it.
    pub fn spooling(inbox: Inbox, spool: Spool) -> Enqueuer {
        Enqueuer::of(inbox, Some(Arc::new(spool)))
    }

    fn of(inbox: Inbox, spool: Option<Arc<Spool>>) -> Enqueuer {
        Enqueuer { inbox: Arc::new(inbox), spool, tasks: TaskTracker::new(), stop: CancellationToken::new() }
    }

    /// Where events are handed over to.
    pub fn inbox(&self) -> &Inbox {
        &self.inbox
    }

    /// Makes an event durable: in the queue, else in the spool.
    ///
    /// # Errors
    /// When neither could take it.
    pub async fn enqueue(&self, admission: impl Into<Arc<EnqueueRequest>>) -> Result<Enqueued, EnqueueError> {
        let admission = admission.into();
        let Some(spool) = &self.spool else { return self.inbox.admit(admission).await };
        if !spool.level.takes() {
            return self.inbox.admit(admission).await.inspect(|verdict| spool.took(verdict));
        }
        if spool.lines.wait_at(&admission.source) {
            let full = EnqueueError::Refused("older events wait, and the spool takes no more".to_owned());
            return spool.keep(admission, None).await.ok_or(full);
        }
        let why = match self.inbox.admit(admission.clone()).await {
            Err(why) => why,
            Ok(verdict) => {
                spool.took(&verdict);
                return Ok(verdict);
            }
        };
        let kept = match &why {
            EnqueueError::Overloaded | EnqueueError::InProgress => None,
            EnqueueError::Unacceptable(_) => spool.keep(admission, Some(why.to_string())).await,
            _ => spool.keep(admission, None).await,
        };
        kept.ok_or(why)
    }

    /// Starts to drain the spool. Must be called inside a tokio runtime.
    pub fn start(&self, told: impl SpoolObserver) {
        let Some(spool) = &self.spool else { return };
        if spool.told.set(Box::new(told)).is_err() {
            return;
        }
        let keeper = DrainSupervisor {
            spool: spool.clone(),
            inbox: self.inbox.clone(),
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
        };
        self.tasks.spawn(keeper.run());
    }

    /// Stops to drain; what is at the inbox is waited for. The rest stays for the next start.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Takes no more and waits for what it has.
    pub async fn close(self) {
        self.stop().await;
        if let Some(inbox) = Arc::into_inner(self.inbox) {
            inbox.close().await;
        }
    }
}

impl Spool {
    /// Finds what an earlier run has left, in a database that was opened with [`TABLES`]. It takes `max_bytes` in all; none:
    /// it is off, and only drains what it has.
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
        let (lines, taken, told) = (Arc::default(), AtomicU64::new(0), OnceLock::new());
        let spool = Spool { database, lines, level, taken, clock, told };
        match spool.look(None).await {
            // The keeper's looks go on until it can be opened.
            Err(_) if spool.database.was_deferred() => spool.level.wrote(false),
            looked => drop(looked?),
        }
        let waiting = spool.level.waiting();
        if max_bytes.is_none() && waiting > 0 {
            tracing::warn!(waiting, "the spool is off, but events wait in it from before: they are drained");
        }
        Ok(spool)
    }

    /// Keeps an event on disk: to be drained, or as a dead letter. None when it could not.
    async fn keep(&self, admission: Arc<EnqueueRequest>, dead: Option<String>) -> Option<Enqueued> {
        // Dropped with whoever gives up waiting: what is written is asked for by then, and the drainer looks after that.
        let _entering = self.lines.enter(&admission.source);
        let (now, max_bytes) = (self.clock.now().as_microsecond(), self.level.max_bytes);
        let (source, id, why) = (admission.source.clone(), admission.event.id.clone(), dead.clone());
        let bytes = table::row_bytes(&admission.event);
        let put = move |conn: &Connection| {
            let put = table::put(conn, &admission, now, why.as_deref(), max_bytes)?;
            Ok((put, table::totals(conn)?))
        };
        let Ok((put, totals)) = self.database.write(put).await else {
            self.level.turned_away(bytes);
            return None;
        };
        self.level.is(totals);
        match put {
            Put::Kept(verdict) => {
                self.level.wrote(true);
                self.level.room(true);
                if let Some(why) = dead {
                    self.on_dead_letter(&source, &id, &why);
                }
                Some(verdict)
            }
            Put::Known(verdict) => Some(verdict),
            Put::Full => {
                self.level.room(false);
                None
            }
        }
    }

    /// The inbox has answered. That an event is known already says nothing of the queue.
    fn took(&self, verdict: &Enqueued) {
        if matches!(verdict, Enqueued::Accepted { .. }) {
            self.taken.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// An event has become a dead letter.
    fn on_dead_letter(&self, source: &str, id: &str, why: &str) {
        tracing::error!(source, id, why, "an event is dead: see `hookgate events dead`");
        self.told(|told| told.on_dead_letter(source));
    }

    fn told(&self, tell: impl FnOnce(&dyn SpoolObserver)) {
        if let Some(told) = self.told.get() {
            tell(&**told);
        }
    }

    /// Writes, and remembers whether it worked.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let written = self.database.write(work).await;
        self.level.wrote(written.is_ok());
        written
    }

    /// Looks at what is there; at which sources have events only where another process has written since `seen`. What is
    /// to be given to the next look.
    async fn look(&self, seen: Option<i64>) -> Result<i64, Failure> {
        if let Some(bytes) = self.level.wanted() {
            self.database.write(move |conn| table::rehearse(conn, bytes)).await?;
            self.write(table::end_rehearsal).await?;
        }
        let look = move |conn: &Connection| {
            let now = table::foreign_writes(conn)?;
            let sources = if seen == Some(now) { Vec::new() } else { table::sources(conn)? };
            Ok((now, sources, table::totals(conn)?, table::oldest_received(conn)?))
        };
        let (now, sources, totals, oldest) = self.database.write(look).await?;
        self.level.is(totals);
        self.level.oldest(oldest.map_or(0, |received| self.clock.now().as_microsecond() - received));
        for source in sources {
            self.lines.found(&source);
        }
        Ok(now)
    }
}

/// Gives each line its drainer, and looks after the spool as a whole.
struct DrainSupervisor {
    spool: Arc<Spool>,
    inbox: Arc<Inbox>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl DrainSupervisor {
    async fn run(self) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut seen, mut looks) = (None, 0_u32);
        loop {
            for line in self.spool.lines.attend() {
                let (spool, inbox, stop) = (self.spool.clone(), self.inbox.clone(), self.stop.clone());
                let drainer = Drainer { line, spool, inbox, stop };
                self.tasks.spawn(drainer.run());
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                _ = look.tick() => {
                    looks = looks.wrapping_add(1);
                    // Now and then whatever was seen: no row is ever forgotten, not even by a mistake made here.
                    match self.spool.look(seen.filter(|_| !looks.is_multiple_of(LOOKS_AFRESH))).await {
                        Ok(now) => seen = Some(now),
                        Err(why) => tracing::debug!(%why, "the spool cannot be looked at"),
                    }
                }
                () = self.spool.lines.due() => {}
            }
        }
    }
}

/// The oldest event's age, dead letters sent back by their operator, and a disk that works again are seen this often.
const LOOK: Duration = Duration::from_secs(1);
/// Looks between two that ask for every source that has events.
const LOOKS_AFRESH: u32 = 10;
