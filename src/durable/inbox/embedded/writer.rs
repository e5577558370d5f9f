//! The writer thread: takes what waits, commits it as one transaction, answers all of it.
//!
//! Keeps true: whoever is taken from the channel is answered, whatever happens to the disk. While the database refuses,
//! nobody waits for it: all are refused at once, and the thread tries by itself, once a second, whether it is back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::base::clock::{self, Clock};
use crate::base::runtime::{Answers, Reply};
use crate::durable::database;
use crate::durable::inbox::{EnqueueError, EnqueueRequest, Enqueued};
use crate::observe::admin::Readiness;
use crate::observe::metrics::{EnqueueFailure, QueueMetrics};

use super::Tuning;
use super::store::Store;

/// A delivery and who waits for its enqueued.
pub(super) struct Job {
    /// The delivery.
    pub(super) request: Arc<EnqueueRequest>,
    pub(super) reply: Reply<Result<Enqueued, EnqueueError>>,
}

/// What the thread owns.
pub(super) struct Writer {
    store: Store,
    jobs: Receiver<Job>,
    clock: Clock,
    watch: Watch,
    tuning: Tuning,
    /// Why the database refuses, and when to try again.
    down: Option<(String, Instant)>,
}

/// Where the thread tells how it fares.
pub(super) struct Watch {
    /// The queue's metrics.
    pub(super) metrics: QueueMetrics,
    /// One store is both queue and dedupe.
    pub(super) readiness: Arc<Readiness>,
}

impl Watch {
    fn set(&self, up: bool) {
        self.metrics.up.set(i64::from(up));
        self.readiness.set_queue(up);
        self.readiness.set_dedupe(up);
    }
}

impl Drop for Watch {
    /// However the thread ends, by a bug too: nobody believes that it still takes events.
    fn drop(&mut self) {
        self.set(false);
    }
}

impl Writer {
    /// A writer that is up.
    pub(super) fn new(
        store: Store,
        jobs: Receiver<Job>,
        clock: Clock,
        watch: Watch,
        tuning: Tuning,
    ) -> Writer {
        watch.set(true);
        Writer { store, jobs, clock, watch, tuning, down: None }
    }

    /// Works until every sender is gone and the channel is empty.
    pub(super) fn run(mut self) {
        let mut batch = Vec::new();
        loop {
            match self.jobs.recv_timeout(self.patience()) {
                Ok(job) => {
                    self.gather(job, &mut batch);
                    self.serve(&mut batch);
                }
                Err(RecvTimeoutError::Timeout) => self.idle(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.store.close();
    }

    /// How long to wait for work before looking after the database.
    fn patience(&self) -> Duration {
        match &self.down {
            Some((_, retry)) => retry.saturating_duration_since(clock::instant()),
            None if self.store.busy(self.now()) => BREATH,
            None => REST,
        }
    }

    fn gather(&self, first: Job, batch: &mut Vec<Job>) {
        let mut bytes = first.request.event.json.len();
        batch.push(first);
        while batch.len() < self.tuning.batch
            && bytes < BATCH_BYTES
            && let Ok(job) = self.jobs.try_recv()
        {
            bytes += job.request.event.json.len();
            batch.push(job);
        }
    }

    fn serve(&mut self, batch: &mut Vec<Job>) {
        self.retry();
        if let Some((why, _)) = &self.down {
            self.watch.metrics.failed(EnqueueFailure::Refused, batch.len());
            refuse(batch, why);
            return;
        }
        let started = clock::instant();
        let requests: Vec<&EnqueueRequest> = batch.iter().map(|job| &*job.request).collect();
        match self.store.enqueue(&requests, self.now()) {
            Ok(results) => {
                self.watch.metrics.duration.observe(started.elapsed().as_secs_f64());
                self.watch.metrics.batch.observe(batch.len() as f64);
                let mut answers = Answers::default();
                for (job, enqueued) in batch.drain(..).zip(results) {
                    answers.reply(job.reply, Ok(enqueued));
                }
                answers.send();
                self.store.checkpoint();
            }
            Err(error) => {
                self.watch.metrics.failed(EnqueueFailure::Refused, batch.len());
                let why = self.fail(&error);
                refuse(batch, &why);
            }
        }
    }

    fn idle(&mut self) {
        self.retry();
        if self.down.is_some() {
            return;
        }
        match self.store.tend(self.now()) {
            Ok(()) => self.store.checkpoint(),
            Err(error) => {
                self.fail(&error);
            }
        }
    }

    /// Once the database has been left alone for a while: is it back?
    fn retry(&mut self) {
        if self.down.as_ref().is_none_or(|(_, retry)| *retry > clock::instant()) {
            return;
        }
        match self.store.recover(self.now()) {
            Ok(()) => {
                tracing::info!("the embedded store takes events again");
                self.down = None;
                self.watch.set(true);
            }
            Err(error) => {
                self.fail(&error);
            }
        }
    }

    fn fail(&mut self, error: &rusqlite::Error) -> String {
        let why = database::reason(error).to_owned();
        if self.down.is_none() {
            tracing::error!(%error, "the embedded store refuses events");
        }
        self.down = Some((why.clone(), clock::instant() + self.tuning.probe));
        self.watch.set(false);
        why
    }

    fn now(&self) -> i64 {
        self.clock.now().as_microsecond()
    }
}

fn refuse(batch: &mut Vec<Job>, why: &str) {
    let mut answers = Answers::default();
    for job in batch.drain(..) {
        answers.reply(job.reply, Err(EnqueueError::Refused(why.to_owned())));
    }
}

/// Few large events make a batch as well as many small ones.
const BATCH_BYTES: usize = 4 << 20;
/// Between two rounds of upkeep while nothing comes in.
const BREATH: Duration = Duration::from_millis(20);
/// Between two looks at whether something has come of age.
const REST: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crossbeam_channel::Sender;

    use super::super::tests::{days, forward, tiny, watched};
    use super::*;
    use crate::base::runtime::reply;

    fn writer(dir: &Path, tuning: Tuning) -> (Writer, Sender<Job>) {
        let store = Store::open(&dir.join("hookgate.db"), days(7, 7), tuning).unwrap();
        let (send, jobs) = crossbeam_channel::unbounded();
        (Writer::new(store, jobs, Clock::System, watched().0, tuning), send)
    }

    fn job(number: u64, bytes: usize) -> Job {
        Job { request: forward(number, &"x".repeat(bytes)).into(), reply: reply().0 }
    }

    #[test]
    fn a_batch_is_what_waits_up_to_so_many_events_or_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let (writer, send) = writer(dir.path(), Tuning { batch: 3, ..tiny() });
        let gathered = |bytes: &[usize]| {
            let mut batch = Vec::new();
            bytes.iter().for_each(|bytes| send.send(job(1, *bytes)).unwrap());
            writer.gather(writer.jobs.recv().unwrap(), &mut batch);
            let taken = batch.len();
            writer.jobs.try_iter().for_each(drop);
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
    fn it_waits_for_what_is_to_do_next() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, _send) = writer(dir.path(), Tuning { probe: REST * 9, ..tiny() });
        assert_eq!(writer.patience(), BREATH, "whether something is past its time is not known yet");
        writer.idle();
        assert_eq!(writer.patience(), REST);
        writer.fail(&rusqlite::Error::InvalidQuery);
        assert!(writer.patience() > REST);
        writer.retry();
        assert!(writer.down.is_some(), "it is left alone for a while");
        writer.down = Some((String::new(), clock::instant()));
        writer.retry();
        assert!(writer.down.is_none());
    }
}
