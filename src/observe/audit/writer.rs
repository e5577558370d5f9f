//! The one thread that writes the reject log.
//!
//! Keeps true: what waits goes into one write; sums are written within a second; what could not be written is
//! held and summed until it can be; an idle log costs no wake-ups but an hourly look at what to delete. With a key, an anchor
//! stands within a minute behind every record. The ledger learns only of synced records. The writer
//! records an act that waits in the ledger within a second, and forgets it there only once its record is synced.

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

/// What the writer is told.
pub(super) enum Message {
    /// Write this.
    Reject(Box<Reject>),
    /// Something is held back now.
    Sums,
    /// Keep this from here on.
    Ledger(Box<dyn Ledger>),
    /// Write all there is, and end.
    Close,
}

/// The writer's state.
pub(super) struct Writer {
    journal: Journal,
    inbox: Receiver<Message>,
    flood: Arc<RejectRateLimiter>,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    up: bool,
    /// When sums and syncs are due.
    tick: Instant,
    /// When a look at the retention is due.
    sweep: Instant,
    ledger: Option<Noted>,
}

/// The ledger, and how far it is.
struct Noted {
    ledger: Box<dyn Ledger>,
    /// The number of the record that it has as the last one; none before the first note.
    seq: Option<u64>,
    /// The acts in the log that it has not forgotten yet.
    recorded: Vec<String>,
    /// When a look at the acts is due.
    look: Instant,
}

impl Noted {
    /// Whether there is nothing to note of a log that ends with this record.
    fn is_up_to(&self, seq: u64) -> bool {
        self.seq == Some(seq) && self.recorded.is_empty()
    }
}

impl Writer {
    pub(super) fn new(
        journal: Journal,
        inbox: Receiver<Message>,
        flood: Arc<RejectRateLimiter>,
        metrics: Arc<Metrics>,
        readiness: Arc<Readiness>,
    ) -> Writer {
        readiness.set_audit(true);
        let now = clock::instant();
        let sweep = now + SWEEP;
        Writer { journal, inbox, flood, metrics, readiness, up: true, tick: now, sweep, ledger: None }
    }

    /// Runs until closed, or until nobody can record any more.
    pub(super) fn run(mut self) {
        while !self.turn() {}
    }

    /// Waits until there is something to do, and does it. True at the end.
    fn turn(&mut self) -> bool {
        let mut batch = Vec::new();
        let closing = self.wait(&mut batch);
        let now = clock::instant();
        let due = closing || now >= self.tick;
        let alone = batch.len();
        if due {
            batch.extend(self.flood.take());
        }
        self.write(batch, alone);
        let acts = self.record_acts(now, closing);
        if self.journal.anchor_by().is_some_and(|by| closing || now >= by) {
            let result = self.journal.anchor();
            self.report(result);
        }
        if due {
            self.tick = now + TICK;
        }
        // The operator's command waits for the record.
        if due || acts {
            self.sync();
            self.note();
        }
        self.metrics.audit.anchors.inc_by(self.journal.take_anchors());
        if now >= self.sweep {
            self.sweep = now + SWEEP;
            self.journal.sweep();
        }
        closing
    }

    /// Waits for something to do and takes all that is there; true at the end.
    fn wait(&mut self, batch: &mut Vec<Aggregate>) -> bool {
        let last = self.journal.last_seq();
        let noted = self.ledger.as_ref().is_none_or(|ledger| ledger.is_up_to(last));
        let restless = self.flood.holding() || self.journal.unsynced() || !noted;
        let until = if restless { self.tick } else { self.sweep };
        let until = self.ledger.as_ref().map_or(until, |ledger| until.min(ledger.look));
        let until = self.journal.anchor_by().map_or(until, |by| until.min(by));
        let mut next = self.inbox.recv_timeout(until.saturating_duration_since(clock::instant()));
        loop {
            match next {
                Ok(Message::Reject(reject)) => batch.push(Aggregate::one(reject)),
                Ok(Message::Sums) => {}
                Ok(Message::Ledger(ledger)) => {
                    let look = clock::instant();
                    self.ledger = Some(Noted { ledger, seq: None, recorded: Vec::new(), look });
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

    /// Writes a batch whose first `alone` entries were not summed; what fails is held for the next second.
    fn write(&mut self, batch: Vec<Aggregate>, alone: usize) {
        if batch.is_empty() {
            return;
        }
        let (written, result) = self.journal.append(&batch);
        self.metrics.audit.records.inc_by(written as u64);
        self.metrics.audit.suppressed.inc_by(batch[..written].iter().map(|summed| summed.more).sum());
        // A sum that fails again was counted when its rejects failed, or is no failure yet.
        self.metrics.audit.failures.inc_by(alone.saturating_sub(written) as u64);
        for failed in batch.into_iter().skip(written) {
            self.flood.hold(failed);
        }
        self.report(result);
    }

    /// Records the acts that wait, if it is time to look for them; whether there were any. One that cannot be written waits on.
    fn record_acts(&mut self, now: Instant, closing: bool) -> bool {
        let Some(noted) = &mut self.ledger else { return false };
        if now < noted.look && !closing {
            return false;
        }
        noted.look = now + LOOK;
        let mut acts = noted.ledger.acts();
        acts.retain(|act| !noted.recorded.contains(&act.id));
        if acts.is_empty() {
            return false;
        }
        let acts: Vec<Aggregate> = acts.into_iter().map(|act| Aggregate::one(Box::new(act))).collect();
        let (written, result) = self.journal.append(&acts);
        noted.recorded.extend(acts[..written].iter().map(|act| act.reject.id.clone()));
        self.metrics.audit.records.inc_by(written as u64);
        self.report(result);
        true
    }

    /// Notes the log's end in the ledger, if that is synced.
    fn note(&mut self) {
        let Some(noted) = &mut self.ledger else { return };
        let head = self.journal.mark();
        if self.journal.unsynced() || noted.is_up_to(head.seq) {
            return;
        }
        if noted.ledger.note(&head, &noted.recorded) {
            noted.seq = Some(head.seq);
            noted.recorded.clear();
        }
    }

    fn sync(&mut self) {
        if self.journal.unsynced() {
            let result = self.journal.sync();
            self.report(result);
        }
    }

    /// Tells readiness and the operator, the operator only of the change.
    fn report(&mut self, result: io::Result<()>) {
        match &result {
            Err(why) if self.up => {
                tracing::error!(%why, "the reject log cannot be written; rejects are summed until it can");
            }
            Ok(()) if !self.up => tracing::info!("the reject log is written again"),
            _ => {}
        }
        self.up = result.is_ok();
        self.readiness.set_audit(self.up);
    }
}

/// Between syncs, and between sums.
const TICK: Duration = Duration::from_secs(1);
const SWEEP: Duration = Duration::from_secs(60 * 60);
/// Between two looks at the acts.
const LOOK: Duration = Duration::from_millis(500);
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

    /// A writer that takes its turns when the test says so.
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
        assert!(!writer.turn());
        assert!(writer.tick > clock::instant());
        assert_eq!((writer.journal.last_seq(), writer.journal.unsynced()), (1, false));
        // The next turns come within that second.
        writer.tick = clock::instant() + SWEEP;
        writer.flood.hold(Aggregate::one(Box::new(reject(1))));
        send(&to_writer, BATCH as u64 + 3);
        assert!(!writer.turn());
        assert_eq!(writer.journal.last_seq(), 1 + BATCH as u64);
        assert!(!writer.turn());
        assert_eq!(writer.journal.last_seq(), 4 + BATCH as u64);
        assert!(writer.journal.unsynced() && writer.flood.holding());
        // It is over.
        writer.tick = clock::instant();
        assert!(!writer.turn());
        assert_eq!((writer.journal.unsynced(), writer.flood.holding()), (false, false));
        assert_eq!(writer.journal.last_seq(), 5 + BATCH as u64);
        send(&to_writer, 0);
        to_writer.send(Message::Close).unwrap();
        assert!(writer.turn());
    }

    #[test]
    fn what_is_past_its_time_is_looked_for_every_hour() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, to_writer) = writer(dir.path(), Options { retain: Duration::ZERO, ..options() });
        send(&to_writer, 1);
        writer.turn();
        // A file of long ago, which is swept when that is due.
        let old = super::super::files::LogFile::new(dir.path(), 0, "2020-01-01T00:00:00Z".parse().unwrap());
        std::fs::write(&old.path, "").unwrap();
        to_writer.send(Message::Sums).unwrap();
        writer.turn();
        assert_eq!(list(dir.path()).unwrap().len(), 2);
        writer.sweep = clock::instant();
        to_writer.send(Message::Sums).unwrap();
        writer.turn();
        assert_eq!(list(dir.path()).unwrap().len(), 1);
        assert!(writer.sweep > clock::instant());
    }
}
