//! The embedded inbox: one SQLite file that is dedupe store and queue at once.
//!
//! Keeps true: an event and the memory of its identity are one row, written in one synced transaction; one thread writes,
//! so "seen before?" and "enqueue" cannot come apart. How the parts divide it:
//! - `writer`: the thread, group commit, failure and recovery. `store`: one transaction.
//! - `ledger`: new, duplicate or conflict. `identities`, `run`, `merge`, `filter`, `block`: the index of
//!   identities, which writes sequentially however random they are. `purge`: retention.
//! - `reader`: the queue's consumers.

mod block;
mod checkpoint;
mod filter;
mod identities;
mod ledger;
mod merge;
mod purge;
mod reader;
mod run;
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
use crate::observe::admin::Readiness;
use crate::observe::metrics::QueueMetrics;

use super::{EnqueueError, EnqueueRequest, Enqueued};

pub use reader::Reader;

use store::Store;
use writer::{Job, Watch, Writer};

/// What the operator decides.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long an identity is remembered.
    pub window: Duration,
    /// How long an event is kept for readers.
    pub retain: Duration,
}

/// The embedded inbox.
pub struct Embedded {
    jobs: Sender<Job>,
    done: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
}

impl Embedded {
    /// Opens or makes the database, and starts its writer. Blocks while it reads what an earlier run left.
    ///
    /// # Errors
    /// When another gateway has it, it cannot be written, or it is not a database this build knows.
    pub fn open(
        db: &Path,
        options: Options,
        clock: Clock,
        metrics: QueueMetrics,
        readiness: Arc<Readiness>,
    ) -> Result<Embedded, OpenError> {
        Embedded::tuned(db, options, clock, Watch { metrics, readiness }, Tuning::default())
    }

    fn tuned(
        db: &Path,
        options: Options,
        clock: Clock,
        watch: Watch,
        tuning: Tuning,
    ) -> Result<Embedded, OpenError> {
        let lock = database::lock(db)?;
        let store = Store::open(db, options, tuning)?;
        let (jobs, waiting) = crossbeam_channel::bounded(CAPACITY);
        let (finished, done) = oneshot::channel();
        let writer = Writer::new(store, waiting, clock, watch, tuning);
        let thread = std::thread::Builder::new()
            .name("embedded-inbox".to_owned())
            .spawn(move || work(writer, lock, finished))
            .map_err(|error| OpenError::Store { db: db.to_owned(), why: error.to_string() })?;
        Ok(Embedded { jobs, done, thread })
    }

    /// Admits a delivery: looks, enqueues and remembers in one transaction. Once polled it happens, whoever waits.
    ///
    /// # Errors
    /// When the database refuses, or too much waits for it.
    pub async fn enqueue(&self, request: impl Into<Arc<EnqueueRequest>>) -> Result<Enqueued, EnqueueError> {
        let request = request.into();
        let (reply, enqueued) = reply();
        match self.jobs.try_send(Job { request, reply }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(EnqueueError::Overloaded),
            Err(TrySendError::Disconnected(_)) => return Err(EnqueueError::Unreachable),
        }
        // The writer answers all it takes; only its death, by a bug, leaves one without.
        enqueued.await.unwrap_or(Err(EnqueueError::Unknown))
    }

    /// Takes no more, commits what waits, moves the log into the database and lets go of the file.
    pub async fn close(self) {
        drop(self.jobs);
        // Sent, or dropped by a thread that died: either way it is at its end, and joining it takes no time.
        let _ = self.done.await;
        if self.thread.join().is_err() {
            tracing::error!("the embedded inbox's thread died");
        }
    }
}

/// The thread. The lock goes last, when the database is closed.
fn work(writer: Writer, lock: File, finished: oneshot::Sender<()>) {
    writer.run();
    drop(lock);
    let _ = finished.send(());
}

/// What is fixed but for tests and measurements.
#[derive(Clone, Copy, Debug)]
struct Tuning {
    /// Events a transaction takes at most.
    batch: usize,
    /// Identities gathered in memory before they are written as a run.
    memtable: usize,
    /// Runs of one level that are merged into one of the next.
    fan_out: usize,
    /// Entries a block; as many as fill a page unless told.
    per_block: Option<usize>,
    /// Of the file.
    layout: Layout,
    /// Between two attempts at a database that refuses.
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
