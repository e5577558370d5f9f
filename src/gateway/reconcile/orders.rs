//! The side of orders that has the stores open: one thread takes them, and writes the sequence numbers.
//!
//! Keeps true: looking for orders costs a look into an empty index a few times a second. An order that was begun is
//! finished and answered, also at a shutdown. No request waits for this thread.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::base::clock::{self, Clock};
use crate::base::label::Label;
use crate::durable::data_dir;
use crate::durable::database::OpenError;
use crate::durable::reconcile::{PlacedOrder, ReconcileDb, Sequences};
use crate::observe::metrics::ReconcileOutcome;
use crate::observe::telemetry::LogThrottle;
use crate::provider::signature::ProviderApiPayload;
use crate::request::pipeline::Pipeline;

/// What a command asks for. The answer to [`Order::Hello`] is whether this process has listeners, the one to
/// [`Order::Admit`] an `Admission`, and to the others null.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(super) enum Order {
    /// Whether orders are taken.
    Hello,
    /// To admit the order's payload.
    Admit { source: String, dry_run: bool },
    /// To count events that the command handled.
    Count { source: String, outcome: String, events: u64 },
    /// To write the sequence numbers in memory to the database.
    WriteSequences,
    /// To show a success, in microseconds of Unix time.
    Succeeded { source: String, until: i64 },
}

/// The answer to an order.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Told<T> {
    Answer(T),
    /// Why there is none.
    Failed(String),
}

/// Takes orders until it is closed.
pub(in crate::gateway) struct OrderDesk {
    taking: Arc<AtomicBool>,
    /// Dropped to make the thread end.
    stop: Sender<Infallible>,
    done: oneshot::Receiver<()>,
    /// None if the thread could not be started: then commands get no answer.
    thread: Option<JoinHandle<()>>,
    db: Arc<ReconcileDb>,
}

impl OrderDesk {
    /// Starts the thread. Orders are done on the present runtime. `serves`: whether this process has listeners.
    pub(in crate::gateway) fn start(folder: &Path, pipeline: &Arc<Pipeline>, serves: bool) -> OrderDesk {
        let db = Arc::new(ReconcileDb::new(&data_dir::database_file(folder)));
        if let Err(why) = db.begin_sequences(&numbered_sources(pipeline)) {
            tracing::warn!(%why, "the highest sequence numbers cannot be read; reconcile may name accepted events as missing");
        }
        let taking = Arc::new(AtomicBool::new(true));
        let worker = Worker {
            db: db.clone(),
            pipeline: Arc::downgrade(pipeline),
            sequences: pipeline.sequences.clone(),
            serves,
            runtime: Handle::current(),
            taking: taking.clone(),
            failures: LogThrottle::default(),
        };
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let (finished, done) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("reconcile".to_owned())
            .spawn(move || worker.run(&stopped, finished))
            .inspect_err(|error| {
                tracing::warn!(%error, "cannot start a thread: commands cannot hand events to this process");
            });
        OrderDesk { taking, stop, done, thread: thread.ok(), db }
    }

    /// The database that the thread uses.
    pub(in crate::gateway) fn db(&self) -> &Arc<ReconcileDb> {
        &self.db
    }

    /// Takes no further order.
    pub(in crate::gateway) fn stop_taking(&self) {
        self.taking.store(false, Ordering::Relaxed);
    }

    /// Finishes the order that was begun, and writes the last sequence numbers. Call it after the last request.
    pub(in crate::gateway) async fn close(self) {
        self.stop_taking();
        drop(self.stop);
        // The thread has sent this, or died and dropped it. Either way it has ended, and joining does not block.
        let _ = self.done.await;
        if self.thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that takes orders of reconcile has died");
        }
    }
}

/// The sources whose events have sequence numbers, by path.
fn numbered_sources(pipeline: &Pipeline) -> HashMap<String, String> {
    let rules = pipeline.rules.load();
    let numbered = rules
        .routes
        .sources()
        .filter(|source| source.provider.reader.code().is_some_and(|code| code.has_subscriptions));
    numbered.map(|source| (source.path.to_string(), source.name.to_string())).collect()
}

struct Worker {
    db: Arc<ReconcileDb>,
    pipeline: Weak<Pipeline>,
    sequences: Arc<Sequences>,
    serves: bool,
    runtime: Handle,
    taking: Arc<AtomicBool>,
    failures: LogThrottle,
}

impl Worker {
    fn run(mut self, stopped: &Receiver<Infallible>, finished: oneshot::Sender<()>) {
        let (mut busy_until, mut written, mut purged) = (clock::instant(), clock::instant(), None::<Instant>);
        loop {
            let pause = if clock::instant() < busy_until { BUSY_POLL } else { IDLE_POLL };
            let stopping = !matches!(stopped.recv_timeout(pause), Err(RecvTimeoutError::Timeout));
            if stopping {
                break;
            }
            match self.take() {
                Ok(0) => {}
                Ok(_) => busy_until = clock::instant() + BUSY_FOR,
                Err(why) => self.failed(&why),
            }
            if written.elapsed() >= WRITE_EVERY {
                written = clock::instant();
                if let Err(why) = self.sequences.write(&self.db) {
                    self.failed(&why);
                }
            }
            if purged.is_none_or(|at| at.elapsed() >= PURGE_EVERY) {
                purged = Some(clock::instant());
                let _ = self.db.purge_orders(now().saturating_sub(KEPT_MICROS));
            }
        }
        if let Err(why) = self.sequences.write(&self.db).and_then(|()| self.db.end_sequences()) {
            tracing::warn!(%why, "the last sequence numbers are not written; reconcile may name accepted events as missing");
        }
        drop(self);
        let _ = finished.send(());
    }

    /// Does some orders, at the same time. Returns how many.
    fn take(&self) -> Result<usize, OpenError> {
        if !self.taking.load(Ordering::Relaxed) {
            return Ok(0);
        }
        let orders = self.db.pending(now())?;
        let Some(pipeline) = self.pipeline.upgrade().filter(|_| !orders.is_empty()) else { return Ok(0) };
        let count = orders.len();
        let answers = orders.into_iter().map(|order| self.answer(&pipeline, order));
        let answers = self.runtime.block_on(futures_util::future::join_all(answers));
        drop(pipeline);
        self.db.answer(&answers)?;
        Ok(count)
    }

    async fn answer(&self, pipeline: &Arc<Pipeline>, order: PlacedOrder) -> (i64, String) {
        let answer = match serde_json::from_str(&order.what) {
            Ok(Order::Hello) => json(self.serves),
            Ok(Order::Admit { source, dry_run }) => {
                let payload = ProviderApiPayload::out_of_an_order(order.payload);
                json(pipeline.admit_from_provider(&source, &payload, dry_run).await)
            }
            Ok(Order::Count { source, outcome, events }) => {
                let known = ReconcileOutcome::ALL.iter().find(|known| known.label() == outcome);
                if let Some(outcome) = known {
                    pipeline.count_reconciled(&source, *outcome, events);
                }
                json(())
            }
            Ok(Order::WriteSequences) => match self.sequences.write(&self.db) {
                Ok(()) => json(()),
                Err(why) => failed(why.to_string()),
            },
            Ok(Order::Succeeded { source, until }) => {
                pipeline.show_reconciled_until(&source, Some(until));
                json(())
            }
            Err(_) => failed("it does not know this order: it is of another version".to_owned()),
        };
        (order.seq, answer)
    }

    fn failed(&mut self, why: &OpenError) {
        if let Some(times) = self.failures.record() {
            tracing::warn!(%why, times, "the database takes no orders of reconcile and no sequence numbers; both are tried again");
        }
    }
}

impl Pipeline {
    /// Counts events that reconcile looked at.
    pub(super) fn count_reconciled(&self, source: &str, outcome: ReconcileOutcome, events: u64) {
        let rules = self.rules.load();
        if let Some(source) = rules.routes.sources().find(|configured| *configured.name == *source) {
            source.metrics.reconciled(outcome, events);
        }
    }

    /// Shows up to when a source was reconciled, in microseconds of Unix time. None: never.
    pub(super) fn show_reconciled_until(&self, source: &str, until: Option<i64>) {
        let rules = self.rules.load();
        if let Some(source) = rules.routes.sources().find(|configured| *configured.name == *source) {
            source.metrics.reconciled_until(until.unwrap_or(0) as f64 / 1e6);
        }
    }
}

fn json(answer: impl Serialize) -> String {
    serde_json::to_string(&Told::Answer(answer)).unwrap_or_default()
}

fn failed(why: String) -> String {
    serde_json::to_string(&Told::<()>::Failed(why)).unwrap_or_default()
}

fn now() -> i64 {
    Clock::System.now().as_microsecond()
}

/// The pause between two looks for orders.
const IDLE_POLL: Duration = Duration::from_millis(250);
/// The same for a moment after an order, because more may follow.
const BUSY_POLL: Duration = Duration::from_millis(10);
const BUSY_FOR: Duration = Duration::from_secs(2);
/// A kill loses the numbers of this time, unless the queue is embedded.
const WRITE_EVERY: Duration = Duration::from_secs(1);
const PURGE_EVERY: Duration = Duration::from_secs(60);
/// How long an order is kept after its time: 10 minutes.
const KEPT_MICROS: i64 = 600_000_000;
