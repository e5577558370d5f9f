//! Takes one source's spooled events to the inbox, oldest first.
//!
//! Keeps true: a row goes only when the inbox has its event, or it is given up; what cannot be taken now is tried again, alone
//! and with growing pauses, and nothing behind it is begun meanwhile, unless it is suspected itself, and then nothing of its
//! partition key; what the queue returns for ever ends as a dead letter and holds nobody up.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::backlog::Attending;
use super::parallel_groups::{Entry, Older, waves};
use super::tries::Tries;
use super::{Spool, table};
use crate::base::clock;
use crate::durable::inbox::{EnqueueError, Enqueued, Inbox};

/// One source's drainer.
pub(super) struct Drainer {
    pub(super) line: Attending,
    pub(super) spool: Arc<Spool>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) stop: CancellationToken,
}

/// What a look at the spool came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    /// Everything it took is settled.
    Moved,
    /// Something has to be tried again.
    Stuck,
    /// So it has, and has failed so often that it may be its own fault.
    Suspect,
    /// Nothing is left.
    Empty,
}

/// What is known of rows, to be written down.
#[derive(Default)]
struct Settled {
    /// The inbox has them.
    on_enqueued: Vec<i64>,
    dead: Vec<Dead>,
}

/// A row whose event will never be taken, and why.
struct Dead {
    seq: i64,
    id: String,
    why: String,
}

impl Drainer {
    /// Works until nothing is left, or it is told to stop: then the call in flight is finished.
    pub(super) async fn run(mut self) {
        let (mut tries, mut pause, mut most) = (Tries::default(), PAUSE_MIN, ROUND_ROWS);
        while !self.stop.is_cancelled() {
            match self.round(&mut tries, most).await {
                Round::Empty => return,
                Round::Moved => (pause, most) = (PAUSE_MIN, ROUND_ROWS),
                // Now it is tried once more, and alone.
                Round::Suspect if self.one_behind(&mut tries).await => (pause, most) = (PAUSE_MIN, 1),
                Round::Stuck | Round::Suspect => {
                    // Alone, until it gets through: nothing is to overtake it.
                    most = 1;
                    let [chance] = clock::random::<1>();
                    let pausing = tokio::time::sleep(pause.mul_f64(0.5 + f64::from(chance) / 512.0));
                    tokio::select! {
                        () = pausing => {}
                        () = self.stop.cancelled() => {}
                    }
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    async fn round(&mut self, tries: &mut Tries, most: usize) -> Round {
        let arrivals = self.line.arrivals();
        let Some((rows, whole, mut settled)) = self.oldest(most).await else { return Round::Stuck };
        if rows.is_empty() && settled.dead.is_empty() {
            return if self.line.leave(arrivals) { Round::Empty } else { Round::Moved };
        }
        let mut stuck = None;
        for wave in waves(rows, self.inbox.drain(), whole) {
            let answers = in_order(wave.iter().map(|(_, event)| self.inbox.admit(event.clone()))).await;
            for (row, answer) in wave.iter().zip(answers) {
                // Beside one that is tried again, a failure is not counted.
                let counts = stuck.is_none() || answer.is_ok();
                if counts && !self.judge(tries, row, answer, &mut settled) {
                    stuck = Some(row.0);
                }
            }
            if stuck.is_some() || self.stop.is_cancelled() {
                break;
            }
        }
        match (self.settle(settled).await, stuck) {
            (true, None) => Round::Moved,
            (true, Some(row)) if tries.suspects(row) => Round::Suspect,
            _ => Round::Stuck,
        }
    }

    /// Tries what is behind the row in front, one at a time, to see whether the queue takes anything at all. Whether it did.
    /// What has to enter after one that failed is left alone.
    async fn one_behind(&self, tries: &mut Tries) -> bool {
        let Some((rows, _, mut settled)) = self.oldest(ROUND_ROWS).await else { return false };
        let mut older = Older::default();
        let free = rows.into_iter().filter(|(_, event)| older.free(event));
        let mut behind: Vec<Entry> = free.skip(1).collect();
        // Those that failed least, so that many bad ones in front do not hide the good one behind them.
        behind.sort_by_key(|(row, _)| tries.of(*row));
        let before = self.spool.taken.load(Ordering::Relaxed);
        let taken = || self.spool.taken.load(Ordering::Relaxed) > before;
        for row in behind.iter().take(TRIED_BEHIND) {
            if taken() || self.stop.is_cancelled() {
                break;
            }
            let answer = self.inbox.admit(row.1.clone()).await;
            self.judge(tries, row, answer, &mut settled);
        }
        self.settle(settled).await && taken()
    }

    /// The oldest rows, and whether more may wait. Those that cannot be read are dead.
    async fn oldest(&self, most: usize) -> Option<(Vec<Entry>, bool, Settled)> {
        let source = self.line.source().clone();
        let look = move |conn: &_| table::oldest(conn, &source, most, ROUND_BYTES);
        let (found, whole) = self.spool.database.write(look).await.ok()?;
        let (mut rows, mut settled) = (Vec::new(), Settled::default());
        for row in found {
            match row.admission {
                Some(admission) => rows.push((row.seq, Arc::new(admission))),
                None => {
                    let why = "its row is damaged".to_owned();
                    settled.dead.push(Dead { seq: row.seq, id: String::new(), why });
                }
            }
        }
        Some((rows, whole, settled))
    }

    /// Whether a row is settled by what the inbox says of it.
    fn judge(
        &self,
        tries: &mut Tries,
        (seq, admission): &Entry,
        answer: Result<Enqueued, EnqueueError>,
        settled: &mut Settled,
    ) -> bool {
        match answer {
            Ok(verdict) => {
                self.spool.took(&verdict);
                // Before its row goes: tried again after a crash, it is a plain duplicate, and not told twice.
                self.spool.told(|told| told.on_enqueued(admission, &verdict));
                settled.on_enqueued.push(*seq);
            }
            Err(why) => {
                let taken = self.spool.taken.load(Ordering::Relaxed);
                let Some(why) = tries.failed(*seq, &why, taken) else { return false };
                settled.dead.push(Dead { seq: *seq, id: admission.event.id.clone(), why });
            }
        }
        tries.forget(*seq);
        true
    }

    /// Whether what is known now is in the database too.
    async fn settle(&self, Settled { on_enqueued, dead }: Settled) -> bool {
        if on_enqueued.is_empty() && dead.is_empty() {
            return true;
        }
        let settle = move |conn: &_| {
            table::delete(conn, &on_enqueued)?;
            for Dead { seq, why, .. } in &dead {
                table::bury(conn, *seq, why)?;
            }
            Ok((table::totals(conn)?, dead))
        };
        let Ok((totals, dead)) = self.spool.write(settle).await else { return false };
        self.spool.level.is(totals);
        for Dead { id, why, .. } in dead {
            self.spool.on_dead_letter(self.line.source(), &id, &why);
        }
        true
    }
}

type Admitting<F> = Option<Pin<Box<F>>>;

/// Polls all of them, always in this order, so that the inbox gets them in it.
async fn in_order<F>(calls: impl Iterator<Item = F>) -> Vec<Result<Enqueued, EnqueueError>>
where
    F: Future<Output = Result<Enqueued, EnqueueError>>,
{
    let mut calls: Vec<Admitting<F>> = calls.map(|call| Some(Box::pin(call))).collect();
    let mut answers: Vec<_> = calls.iter().map(|_| Err(EnqueueError::Unknown)).collect();
    std::future::poll_fn(|cx| {
        for (call, answer) in calls.iter_mut().zip(&mut answers) {
            if let Some(waiting) = call
                && let Poll::Ready(ready) = waiting.as_mut().poll(cx)
            {
                (*call, *answer) = (None, ready);
            }
        }
        if calls.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    answers
}

/// Between two tries of the same event: doubled each time, and half of it left to chance.
const PAUSE_MIN: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 50 });
const PAUSE_MAX: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 2000 });
/// Events held in memory at once, and taken out of the database at once.
const ROUND_ROWS: usize = 128;
const ROUND_BYTES: i64 = 4 << 20;
/// Events tried behind one that is stuck, each time it fails.
const TRIED_BEHIND: usize = 16;
