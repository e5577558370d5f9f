//! The thread that writes the reject log.
//!
//! Keeps true: all waiting records go into one write. Aggregates are written within a second. Records that cannot be
//! written are held and aggregated until they can. An idle log wakes up only once an hour, for retention. With a key,
//! every record has an anchor after it within a minute. The ledger learns only of synced records. A waiting act is
//! recorded within a second, and deleted from the ledger only after its record is synced.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::base::clock;
use crate::observe::admin::Readiness;
use crate::observe::metrics::Metrics;

use super::journal::Journal;
use super::rate_limiter::{Aggregate, RejectRateLimiter};
use super::{Ledger, Reject};

/// A message to the writer.
pub(super) enum Message {
    /// Write this reject.
    Reject(Box<Reject>),
    /// An aggregate is held now.
    Aggregate,
    /// Use this ledger from now on.
    Ledger(Box<dyn Ledger>),
    /// Write everything, and end.
    Close,
}

pub(super) struct Writer {
    journal: Journal,
    inbox: Receiver<Message>,
    limiter: Arc<RejectRateLimiter>,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    up: bool,
    /// When aggregates and syncs are due.
    tick: Instant,
    /// When retention is due.
    expire_at: Instant,
    ledger: Option<LedgerProgress>,
}

/// The ledger, and what it knows.
struct LedgerProgress {
    ledger: Box<dyn Ledger>,
    /// The last record that it knows; none before the first report.
    seq: Option<u64>,
    /// Acts that are in the log but not yet deleted from the ledger.
    recorded: Vec<String>,
    /// When to ask for acts again.
    next_acts: Instant,
}

impl LedgerProgress {
    /// Whether it already knows everything about a log that ends with this record.
    fn is_up_to(&self, seq: u64) -> bool {
        self.seq == Some(seq) && self.recorded.is_empty()
    }
}

impl Writer {
    pub(super) fn new(
        journal: Journal,
        inbox: Receiver<Message>,
        limiter: Arc<RejectRateLimiter>,
        metrics: Arc<Metrics>,
        readiness: Arc<Readiness>,
    ) -> Writer {
        readiness.set_audit(true);
        let now = clock::instant();
        let expire_at = now + RETENTION_INTERVAL;
        Writer { journal, inbox, limiter, metrics, readiness, up: true, tick: now, expire_at, ledger: None }
    }

    /// Runs until it is closed, or until all senders are dropped.
    pub(super) fn run(mut self) {
        while !self.run_once() {}
    }

    /// Waits for work and does it. True if it is closed.
    fn run_once(&mut self) -> bool {
        let mut batch = Vec::new();
        let closing = self.wait(&mut batch);
        let now = clock::instant();
        let due = closing || now >= self.tick;
        let single = batch.len();
        if due {
            batch.extend(self.limiter.take());
        }
        self.write(batch, single);
        let acts = self.record_acts(now, closing);
        if self.journal.anchor_by().is_some_and(|by| closing || now >= by) {
            let result = self.journal.anchor();
            self.report(result);
        }
        if due {
            self.tick = now + TICK;
        }
        // Not delayed to the next tick after acts: the operator's command waits for its record.
        if due || acts {
            self.sync();
            self.note();
        }
        self.metrics.audit.anchors.inc_by(self.journal.take_anchors());
        if now >= self.expire_at {
            self.expire_at = now + RETENTION_INTERVAL;
            self.journal.delete_expired();
        }
        closing
    }

    /// Waits for work and collects all messages. True if it is closed.
    fn wait(&mut self, batch: &mut Vec<Aggregate>) -> bool {
        let last = self.journal.last_seq();
        let progress = self.ledger.as_ref().is_none_or(|ledger| ledger.is_up_to(last));
        let busy = self.limiter.is_holding() || self.journal.unsynced() || !progress;
        let until = if busy { self.tick } else { self.expire_at };
        let until = self.ledger.as_ref().map_or(until, |ledger| until.min(ledger.next_acts));
        let until = self.journal.anchor_by().map_or(until, |by| until.min(by));
        let mut next = self.inbox.recv_timeout(until.saturating_duration_since(clock::instant()));
        loop {
            match next {
                Ok(Message::Reject(reject)) => batch.push(Aggregate::one(reject)),
                Ok(Message::Aggregate) => {}
                Ok(Message::Ledger(ledger)) => {
                    let next_acts = clock::instant();
                    self.ledger = Some(LedgerProgress { ledger, seq: None, recorded: Vec::new(), next_acts });
                }
                Ok(Message::Close) | Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => return false,
            }
            if batch.len() >= BATCH {
                return false;
            }
            next = self.inbox.try_recv().map_err(|_| RecvTimeoutError::Timeout);
        }
    }

    /// Writes a batch whose first `single` entries are single rejects. Entries that fail are held for the next second.
    fn write(&mut self, batch: Vec<Aggregate>, single: usize) {
        if batch.is_empty() {
            return;
        }
        let (written, result) = self.journal.append(&batch);
        self.metrics.audit.records.inc_by(written as u64);
        self.metrics.audit.suppressed.inc_by(batch[..written].iter().map(|aggregate| aggregate.more).sum());
        // Only single rejects count: an aggregate's rejects were counted when they failed, or have not failed yet.
        self.metrics.audit.failures.inc_by(single.saturating_sub(written) as u64);
        for failed in batch.into_iter().skip(written) {
            self.limiter.hold(failed);
        }
        self.report(result);
    }

    /// Records waiting acts if it is time to ask. Returns whether there were any. An act that cannot be written stays
    /// in the ledger.
    fn record_acts(&mut self, now: Instant, closing: bool) -> bool {
        let Some(progress) = &mut self.ledger else { return false };
        if now < progress.next_acts && !closing {
            return false;
        }
        progress.next_acts = now + ACTS_INTERVAL;
        let mut acts = progress.ledger.acts();
        acts.retain(|act| !progress.recorded.contains(&act.id));
        if acts.is_empty() {
            return false;
        }
        let acts: Vec<Aggregate> = acts.into_iter().map(|act| Aggregate::one(Box::new(act))).collect();
        let (written, result) = self.journal.append(&acts);
        progress.recorded.extend(acts[..written].iter().map(|act| act.reject.id.clone()));
        self.metrics.audit.records.inc_by(written as u64);
        self.report(result);
        true
    }

    /// Reports the log's head to the ledger, if it is synced.
    fn note(&mut self) {
        let Some(progress) = &mut self.ledger else { return };
        let head = self.journal.mark();
        if self.journal.unsynced() || progress.is_up_to(head.seq) {
            return;
        }
        if progress.ledger.note(&head, &progress.recorded) {
            progress.seq = Some(head.seq);
            progress.recorded.clear();
        }
    }

    fn sync(&mut self) {
        if self.journal.unsynced() {
            let result = self.journal.sync();
            self.report(result);
        }
    }

    /// Updates readiness, and logs a change.
    fn report(&mut self, result: io::Result<()>) {
        match &result {
            Err(why) if self.up => {
                tracing::error!(%why, "the reject log cannot be written; rejects are aggregated until it can");
            }
            Ok(()) if !self.up => tracing::info!("the reject log can be written again"),
            _ => {}
        }
        self.up = result.is_ok();
        self.readiness.set_audit(self.up);
    }
}

/// Between syncs, and between writes of aggregates.
const TICK: Duration = Duration::from_secs(1);
const RETENTION_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// Between two requests for acts.
const ACTS_INTERVAL: Duration = Duration::from_millis(500);
/// Records in one write.
const BATCH: usize = 1024;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crossbeam_channel::Sender;

    use super::super::Options;
    use super::super::files::list;
    use super::super::tests::{options, reject};
    use super::*;
    use crate::base::clock::Clock;

    /// A writer that runs only when the test calls `turn`.
    fn writer(dir: &Path, options: Options) -> (Writer, Sender<Message>) {
        let journal = Journal::open(dir, options, Clock::System).unwrap();
        let (to_writer, inbox) = crossbeam_channel::unbounded();
        let (metrics, readiness) = (Arc::new(Metrics::new().unwrap()), Arc::new(Readiness::default()));
        (Writer::new(journal, inbox, Arc::new(RejectRateLimiter::new(0)), metrics, readiness), to_writer)
    }

    fn send(to_writer: &Sender<Message>, count: u64) {
        (0..count).for_each(|n| to_writer.send(Message::Reject(Box::new(reject(n)))).unwrap());
    }

    #[test]
    fn what_waits_goes_into_one_write_so_far_and_is_synced_once_a_second() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, to_writer) = writer(dir.path(), options());
        send(&to_writer, 1);
        assert!(!writer.run_once());
        assert!(writer.tick > clock::instant());
        assert_eq!((writer.journal.last_seq(), writer.journal.unsynced()), (1, false));
        // The next turns come within that second.
        writer.tick = clock::instant() + RETENTION_INTERVAL;
        writer.limiter.hold(Aggregate::one(Box::new(reject(1))));
        send(&to_writer, BATCH as u64 + 3);
        assert!(!writer.run_once());
        assert_eq!(writer.journal.last_seq(), 1 + BATCH as u64);
        assert!(!writer.run_once());
        assert_eq!(writer.journal.last_seq(), 4 + BATCH as u64);
        assert!(writer.journal.unsynced() && writer.limiter.is_holding());
        // The second is over.
        writer.tick = clock::instant();
        assert!(!writer.run_once());
        assert_eq!((writer.journal.unsynced(), writer.limiter.is_holding()), (false, false));
        assert_eq!(writer.journal.last_seq(), 5 + BATCH as u64);
        send(&to_writer, 0);
        to_writer.send(Message::Close).unwrap();
        assert!(writer.run_once());
    }

    #[test]
    fn what_is_past_its_time_is_looked_for_every_hour() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, to_writer) = writer(dir.path(), Options { retain: Duration::ZERO, ..options() });
        send(&to_writer, 1);
        writer.run_once();
        // An old file, which retention deletes at its next run.
        let old = super::super::files::LogFile::new(dir.path(), 0, "2020-01-01T00:00:00Z".parse().unwrap());
        std::fs::write(&old.path, "").unwrap();
        to_writer.send(Message::Aggregate).unwrap();
        writer.run_once();
        assert_eq!(list(dir.path()).unwrap().len(), 2);
        writer.expire_at = clock::instant();
        to_writer.send(Message::Aggregate).unwrap();
        writer.run_once();
        assert_eq!(list(dir.path()).unwrap().len(), 1);
        assert!(writer.expire_at > clock::instant());
    }
}
