//! The writer thread: it takes the waiting jobs, commits them as one transaction, and answers them.
//!
//! Keeps true: every job taken is answered, whatever happens to the disk. While the database refuses, jobs fail at
//! once, and the thread retries the database once a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use tokio::sync::oneshot;

use crate::base::clock::{self, Clock};
use crate::base::runtime::{Answers, Reply};
use crate::durable::database;
use crate::durable::inbox::{EnqueueError, EnqueueRequest, Enqueued};
use crate::event::Identity;
use crate::observe::admin::Readiness;
use crate::observe::metrics::{EnqueueFailure, QueueMetrics};

use super::Tuning;
use super::store::Store;

/// What the thread is asked to do.
pub(super) enum Task {
    Enqueue(Job),
    Look(Look),
}

/// A delivery, and the channel for its result.
pub(super) struct Job {
    pub(super) request: Arc<EnqueueRequest>,
    pub(super) reply: Reply<Result<Enqueued, EnqueueError>>,
}

/// A question whether an identity is known, and the channel for the answer.
pub(super) struct Look {
    pub(super) identity: Identity,
    pub(super) reply: oneshot::Sender<Result<bool, EnqueueError>>,
}

/// The writer thread's state.
pub(super) struct Writer {
    store: Store,
    tasks: Receiver<Task>,
    clock: Clock,
    health: StoreHealth,
    tuning: Tuning,
    /// Why the database refuses, and when to retry.
    down: Option<(String, Instant)>,
}

/// Publishes whether the store works.
pub(super) struct StoreHealth {
    /// The queue's metrics.
    pub(super) metrics: QueueMetrics,
    /// The readiness, of which it sets both `queue` and `dedupe`.
    pub(super) readiness: Arc<Readiness>,
}

impl StoreHealth {
    fn set(&self, up: bool) {
        self.metrics.up.set(i64::from(up));
        self.readiness.set_queue(up);
        self.readiness.set_dedupe(up);
    }
}

impl Drop for StoreHealth {
    /// Reports down however the thread ends, even by a panic.
    fn drop(&mut self) {
        self.set(false);
    }
}

impl Writer {
    /// The writer starts as up.
    pub(super) fn new(
        store: Store,
        tasks: Receiver<Task>,
        clock: Clock,
        health: StoreHealth,
        tuning: Tuning,
    ) -> Writer {
        health.set(true);
        Writer { store, tasks, clock, health, tuning, down: None }
    }

    /// Runs until every sender is gone and the channel is empty.
    pub(super) fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            match self.tasks.recv_timeout(self.next_wait()) {
                Ok(Task::Look(look)) => self.look(look),
                Ok(Task::Enqueue(job)) => {
                    self.gather(job, &mut batch);
                    self.commit(&mut batch);
                }
                Err(RecvTimeoutError::Timeout) => self.on_idle(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.store.close();
    }

    /// How long to wait for a job before the next upkeep or retry.
    fn next_wait(&self) -> Duration {
        match &self.down {
            Some((_, retry)) => retry.saturating_duration_since(clock::instant()),
            None if self.store.busy(self.now()) => UPKEEP_INTERVAL,
            None => IDLE_INTERVAL,
        }
    }

    fn gather(&mut self, first: Job, batch: &mut Vec<Job>) {
        let mut bytes = first.request.event.json.len();
        batch.push(first);
        while batch.len() < self.tuning.batch
            && bytes < BATCH_BYTES
            && let Ok(task) = self.tasks.try_recv()
        {
            match task {
                Task::Enqueue(job) => {
                    bytes += job.request.event.json.len();
                    batch.push(job);
                }
                Task::Look(look) => self.look(look),
            }
        }
    }

    /// Answers a look-up. It may miss a delivery of the same batch, which came at the same time.
    fn look(&mut self, look: Look) {
        let now = self.now();
        let known = match &self.down {
            Some((why, _)) => Err(EnqueueError::Refused(why.clone())),
            None => self
                .store
                .is_known(&look.identity, now)
                .map_err(|error| EnqueueError::Refused(database::reason(&error).to_owned())),
        };
        // The caller may have left.
        let _ = look.reply.send(known);
    }

    fn commit(&mut self, batch: &mut Vec<Job>) {
        self.retry();
        if let Some((why, _)) = &self.down {
            self.health.metrics.failed(EnqueueFailure::Refused, batch.len());
            reject(batch, why);
            return;
        }
        let started = clock::instant();
        let requests: Vec<&EnqueueRequest> = batch.iter().map(|job| &*job.request).collect();
        match self.store.enqueue(&requests, self.now()) {
            Ok(results) => {
                self.health.metrics.duration.observe(started.elapsed().as_secs_f64());
                self.health.metrics.batch.observe(batch.len() as f64);
                let mut answers = Answers::default();
                for (job, enqueued) in batch.drain(..).zip(results) {
                    answers.reply(job.reply, Ok(enqueued));
                }
                answers.send();
                self.store.checkpoint();
            }
            Err(error) => {
                self.health.metrics.failed(EnqueueFailure::Refused, batch.len());
                let why = self.on_failure(&error);
                reject(batch, &why);
            }
        }
    }

    fn on_idle(&mut self) {
        self.retry();
        if self.down.is_some() {
            return;
        }
        match self.store.upkeep(self.now()) {
            Ok(()) => self.store.checkpoint(),
            Err(error) => {
                self.on_failure(&error);
            }
        }
    }

    /// Retries the database when its pause is over.
    fn retry(&mut self) {
        if self.down.as_ref().is_none_or(|(_, retry)| *retry > clock::instant()) {
            return;
        }
        match self.store.recover(self.now()) {
            Ok(()) => {
                tracing::info!("the embedded store takes events again");
                self.down = None;
                self.health.set(true);
            }
            Err(error) => {
                self.on_failure(&error);
            }
        }
    }

    fn on_failure(&mut self, error: &rusqlite::Error) -> String {
        let why = database::reason(error).to_owned();
        if self.down.is_none() {
            tracing::error!(%error, "the embedded store refuses events");
        }
        self.down = Some((why.clone(), clock::instant() + self.tuning.probe));
        self.health.set(false);
        why
    }

    fn now(&self) -> i64 {
        self.clock.now().as_microsecond()
    }
}

fn reject(batch: &mut Vec<Job>, why: &str) {
    let mut answers = Answers::default();
    for job in batch.drain(..) {
        answers.reply(job.reply, Err(EnqueueError::Refused(why.to_owned())));
    }
}

/// A batch also ends at this size, so that a few large events fill one too.
const BATCH_BYTES: usize = 4 << 20;
/// The pause between two rounds of upkeep while no jobs come.
const UPKEEP_INTERVAL: Duration = Duration::from_millis(20);
/// The pause between two checks for new upkeep.
const IDLE_INTERVAL: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crossbeam_channel::Sender;

    use super::super::tests::{days, forward, tiny, watched};
    use super::*;
    use crate::base::runtime::reply;

    fn writer(dir: &Path, tuning: Tuning) -> (Writer, Sender<Task>) {
        let store = Store::open(&dir.join("hookgate.db"), days(7, 7), tuning).unwrap();
        let (send, tasks) = crossbeam_channel::unbounded();
        (Writer::new(store, tasks, Clock::System, watched().0, tuning), send)
    }

    fn job(number: u64, bytes: usize) -> Job {
        Job { request: forward(number, &"x".repeat(bytes)).into(), reply: reply().0 }
    }

    #[test]
    fn a_batch_takes_the_waiting_jobs_up_to_a_number_or_size() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, send) = writer(dir.path(), Tuning { batch: 3, ..tiny() });
        let mut gathered = |bytes: &[usize]| {
            let mut batch = Vec::new();
            bytes.iter().for_each(|bytes| send.send(Task::Enqueue(job(1, *bytes))).unwrap());
            let Task::Enqueue(first) = writer.tasks.recv().unwrap() else { panic!("no look-up was sent") };
            writer.gather(first, &mut batch);
            let taken = batch.len();
            writer.tasks.try_iter().for_each(drop);
            taken
        };
        assert_eq!(gathered(&[1]), 1);
        assert_eq!(gathered(&[1, 1]), 2);
        assert_eq!(gathered(&[1, 1, 1, 1]), 3);
        assert_eq!(gathered(&[3000, 3000, 1]), 3);
        assert_eq!(gathered(&[BATCH_BYTES, 1, 1]), 1);
        assert_eq!(gathered(&[BATCH_BYTES / 2, BATCH_BYTES / 2, 1]), 2);
    }

    #[test]
    fn the_writer_waits_until_the_next_upkeep_or_retry() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, _send) = writer(dir.path(), Tuning { probe: IDLE_INTERVAL * 9, ..tiny() });
        assert_eq!(
            writer.next_wait(),
            UPKEEP_INTERVAL,
            "whether something is past its time is not known yet"
        );
        writer.on_idle();
        assert_eq!(writer.next_wait(), IDLE_INTERVAL);
        writer.on_failure(&rusqlite::Error::InvalidQuery);
        assert!(writer.next_wait() > IDLE_INTERVAL);
        writer.retry();
        assert!(writer.down.is_some(), "it is left alone for a while");
        writer.down = Some((String::new(), clock::instant()));
        writer.retry();
        assert!(writer.down.is_none());
    }
}
