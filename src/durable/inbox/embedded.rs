//! The embedded inbox: one SQLite file that is both dedupe store and queue.
//!
//! Keeps true: an event and the memory of its identity are one row, written in one synced transaction. One thread
//! writes, so nothing comes between "seen before?" and "enqueue".
//!
//! - `writer`: the thread, group commit, failure and recovery. `store`: one transaction.
//! - `ledger`: new, duplicate or conflict. `identities`, `run`, `merge`, `filter`, `block`: the index of identities,
//!   which writes sequentially although identities are random. `purge`: retention.
//! - `reader`: reads the queue for consumers. `scan`: searches it. `replay`: adds events once more, for an operator.

mod block;
mod checkpoint;
mod filter;
mod identities;
mod ledger;
mod merge;
mod purge;
mod reader;
mod replay;
mod run;
mod scan;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError};
use tokio::sync::oneshot;

use crate::base::clock::Clock;
use crate::base::runtime::reply;
use crate::durable::database::{self, Layout, OpenError};
use crate::event::Identity;
use crate::observe::admin::Readiness;
use crate::observe::metrics::QueueMetrics;

use super::{EnqueueError, EnqueueRequest, Enqueued};

pub use reader::Reader;
pub use replay::{Replay, ReplayError, Replays};
pub use scan::Scan;

use store::Store;
use writer::{Job, Look, StoreHealth, Task, Writer};

/// The operator's settings.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long an identity is remembered.
    pub window: Duration,
    /// How long readers can read an event.
    pub retain: Duration,
}

/// The embedded inbox.
pub struct Embedded {
    tasks: Sender<Task>,
    done: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

impl Embedded {
    /// Opens or creates the database, and starts its writer thread. Blocks while it loads the index of an earlier run.
    ///
    /// # Errors
    /// When another gateway has it open, it cannot be written, or its version is unknown.
    pub fn open(
        db: &Path,
        options: Options,
        clock: Clock,
        metrics: QueueMetrics,
        readiness: Arc<Readiness>,
    ) -> Result<Embedded, OpenError> {
        Embedded::tuned(db, options, clock, StoreHealth { metrics, readiness }, Tuning::default())
    }

    fn tuned(
        db: &Path,
        options: Options,
        clock: Clock,
        health: StoreHealth,
        tuning: Tuning,
    ) -> Result<Embedded, OpenError> {
        let lock = database::lock(db)?;
        let store = Store::open(db, options, tuning)?;
        let (tasks, waiting) = crossbeam_channel::bounded(CAPACITY);
        let (finished, done) = oneshot::channel();
        let writer = Writer::new(store, waiting, clock, health, tuning);
        let thread = std::thread::Builder::new()
            .name("embedded-inbox".to_owned())
            .spawn(move || work(writer, lock, finished))
            .map_err(|error| OpenError::Store { db: db.to_owned(), why: error.to_string() })?;
        Ok(Embedded { tasks, done, thread })
    }

    /// Looks up the delivery, enqueues it if it is new, and remembers it, in one transaction. After the first poll it
    /// happens even if the caller drops the future.
    ///
    /// # Errors
    /// When the database refuses, or too many deliveries wait.
    pub async fn enqueue(&self, request: impl Into<Arc<EnqueueRequest>>) -> Result<Enqueued, EnqueueError> {
        let request = request.into();
        let (reply, enqueued) = reply();
        match self.tasks.try_send(Task::Enqueue(Job { request, reply })) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(EnqueueError::Overloaded),
            Err(TrySendError::Disconnected(_)) => return Err(EnqueueError::Unreachable),
        }
        // The writer answers every job. Only a panic of its thread leaves one unanswered.
        enqueued.await.unwrap_or(Err(EnqueueError::Unknown))
    }

    /// Whether an event has this identity. Writes nothing.
    ///
    /// # Errors
    /// When the database refuses, or too many deliveries wait.
    pub async fn is_known(&self, identity: Identity) -> Result<bool, EnqueueError> {
        let (reply, known) = oneshot::channel();
        match self.tasks.try_send(Task::Look(Look { identity, reply })) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(EnqueueError::Overloaded),
            Err(TrySendError::Disconnected(_)) => return Err(EnqueueError::Unreachable),
        }
        known.await.unwrap_or(Err(EnqueueError::Unreachable))
    }

    /// Accepts no more deliveries, commits the pending ones, checkpoints and closes the file.
    pub async fn close(self) {
        drop(self.tasks);
        // The thread signalled its end or died, so joining it does not block.
        let _ = self.done.await;
        if self.thread.join().is_err() {
            tracing::error!("the embedded inbox's thread died");
        }
    }
}

/// Runs the thread. The lock is released last, when the database is closed.
fn work(writer: Writer, lock: File, finished: oneshot::Sender<()>) {
    writer.run();
    drop(lock);
    let _ = finished.send(());
}

/// Constants that only tests and measurements change.
#[derive(Clone, Copy, Debug)]
struct Tuning {
    /// The most events in a transaction.
    batch: usize,
    /// The number of identities kept in memory before they are written as a run.
    memtable: usize,
    /// How many runs of one level merge into one of the next.
    fan_out: usize,
    /// Entries per block. `None`: as many as fill a page.
    per_block: Option<usize>,
    /// The layout of the file.
    layout: Layout,
    /// The pause between two tries while the database refuses.
    probe: Duration,
}

impl Default for Tuning {
    fn default() -> Tuning {
        Tuning {
            batch: 1024,
            memtable: 32_768,
            fan_out: 8,
            per_block: None,
            layout: Layout::default(),
            probe: Duration::from_secs(1),
        }
    }
}

/// How many deliveries may wait for the writer.
const CAPACITY: usize = 16_384;
