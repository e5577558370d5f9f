//! Moves one source's spooled events to the inbox, oldest first.
//!
//! Keeps true: a row is deleted only when the inbox has its event. An event that fails is retried alone, with growing
//! pauses, and later ones wait. If it is suspect, later ones are tried too, except those with its partition key or
//! identity. An event that the queue never takes becomes a dead letter and no longer blocks the others.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::backlog::DrainerSlot;
use super::parallel_groups::{Entry, Predecessors, parallel_groups};
use super::tries::Tries;
use super::{Spool, table};
use crate::base::clock;
use crate::durable::inbox::{EnqueueError, Enqueued, Inbox};

pub(super) struct Drainer {
    pub(super) slot: DrainerSlot,
    pub(super) spool: Arc<Spool>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) stop: CancellationToken,
}

/// The result of one round.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    /// Every row of the round is enqueued or dead.
    Progressed,
    /// A row must be retried.
    Stuck,
    /// A row must be retried, and has failed so often that the event itself may be to blame.
    Suspect,
    /// The backlog is empty.
    Empty,
}

/// Results that are not in the database yet.
#[derive(Default)]
pub(super) struct Settled {
    /// Rows whose events the inbox has.
    pub(super) enqueued: Vec<i64>,
    pub(super) dead: Vec<Dead>,
}

/// A row that becomes a dead letter.
pub(super) struct Dead {
    pub(super) seq: i64,
    pub(super) id: String,
    pub(super) why: String,
}

impl Drainer {
    /// Runs until the backlog is empty, or until it is told to stop; calls in flight are finished first.
    pub(super) async fn run(mut self) {
        let (mut tries, mut pause, mut most) = (Tries::default(), PAUSE_MIN, ROUND_ROWS);
        while !self.stop.is_cancelled() {
            match self.round(&mut tries, most).await {
                Round::Empty => return,
                Round::Progressed => (pause, most) = (PAUSE_MIN, ROUND_ROWS),
                // The queue took another event, so retry this one at once, alone.
                Round::Suspect if self.try_behind(&mut tries).await => (pause, most) = (PAUSE_MIN, 1),
                Round::Stuck | Round::Suspect => {
                    // Alone until it succeeds: no later event may overtake it.
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
        let arrivals = self.slot.arrivals();
        let Some((rows, more, mut settled)) = self.oldest(most).await else { return Round::Stuck };
        if rows.is_empty() && settled.dead.is_empty() {
            return if self.slot.release(arrivals) { Round::Empty } else { Round::Progressed };
        }
        let mut stuck = None;
        for group in parallel_groups(rows, self.inbox.drain(), more) {
            let answers = in_order(group.iter().map(|(_, event)| self.inbox.enqueue(event.clone()))).await;
            for (row, answer) in group.iter().zip(answers) {
                // A failure in the same group as an earlier failure is not counted.
                let counts = stuck.is_none() || answer.is_ok();
                if counts && !self.record_answer(tries, row, answer, &mut settled) {
                    stuck = Some(row.0);
                }
            }
            if stuck.is_some() || self.stop.is_cancelled() {
                break;
            }
        }
        match (self.settle(settled).await, stuck) {
            (true, None) => Round::Progressed,
            (true, Some(row)) if tries.is_suspect(row) => Round::Suspect,
            _ => Round::Stuck,
        }
    }

    /// Tries the events behind the first one singly, to see whether the queue takes any event. Returns whether it did.
    /// Skips events that must enter after one that failed.
    async fn try_behind(&self, tries: &mut Tries) -> bool {
        let Some((rows, _, mut settled)) = self.oldest(ROUND_ROWS).await else { return false };
        let mut predecessors = Predecessors::default();
        let free = rows.into_iter().filter(|(_, event)| predecessors.check_and_add(event));
        let mut behind: Vec<Entry> = free.skip(1).collect();
        // Those that failed least go first, so that many bad events do not hide a good one behind them.
        behind.sort_by_key(|(row, _)| tries.count(*row));
        let before = self.spool.taken.load(Ordering::Relaxed);
        let taken = || self.spool.taken.load(Ordering::Relaxed) > before;
        for row in behind.iter().take(TRIED_BEHIND) {
            if taken() || self.stop.is_cancelled() {
                break;
            }
            let answer = self.inbox.enqueue(row.1.clone()).await;
            self.record_answer(tries, row, answer, &mut settled);
        }
        self.settle(settled).await && taken()
    }

    /// The oldest rows, and whether more may wait. Damaged rows are returned as dead.
    async fn oldest(&self, most: usize) -> Option<(Vec<Entry>, bool, Settled)> {
        let source = self.slot.source().clone();
        let look = move |conn: &_| table::oldest(conn, &source, most, ROUND_BYTES);
        let (found, more) = self.spool.database.write(look).await.ok()?;
        let (mut rows, mut settled) = (Vec::new(), Settled::default());
        for row in found {
            match row.request {
                Some(request) => rows.push((row.seq, Arc::new(request))),
                None => {
                    let why = "its row is damaged".to_owned();
                    settled.dead.push(Dead { seq: row.seq, id: String::new(), why });
                }
            }
        }
        Some((rows, more, settled))
    }

    /// Records the inbox's answer for a row. False if the row must be retried.
    fn record_answer(
        &self,
        tries: &mut Tries,
        (seq, request): &Entry,
        answer: Result<Enqueued, EnqueueError>,
        settled: &mut Settled,
    ) -> bool {
        match answer {
            Ok(enqueued) => {
                self.spool.count_accepted(&enqueued);
                // Before the row is deleted: after a crash in between, the event is a plain duplicate and is not
                // reported twice.
                self.spool.notify(|observer| observer.on_enqueued(request, &enqueued));
                settled.enqueued.push(*seq);
            }
            Err(why) => {
                let taken = self.spool.taken.load(Ordering::Relaxed);
                let Some(why) = tries.record_failure(*seq, &why, taken) else { return false };
                settled.dead.push(Dead { seq: *seq, id: request.event.id.clone(), why });
            }
        }
        tries.forget(*seq);
        true
    }

    async fn settle(&self, settled: Settled) -> bool {
        self.spool.settle(self.slot.source(), settled).await
    }
}

impl Spool {
    /// Writes the results of a source's events to the database. False if that failed.
    pub(super) async fn settle(&self, source: &str, Settled { enqueued, dead }: Settled) -> bool {
        if enqueued.is_empty() && dead.is_empty() {
            return true;
        }
        let settle = move |conn: &_| {
            table::delete(conn, &enqueued)?;
            for Dead { seq, why, .. } in &dead {
                table::mark_dead(conn, *seq, why)?;
            }
            Ok((table::totals(conn)?, dead))
        };
        let Ok((totals, dead)) = self.write(settle).await else { return false };
        self.level.set_totals(totals);
        for Dead { id, why, .. } in dead {
            self.on_dead_letter(source, &id, &why);
        }
        true
    }
}

type Call<F> = Option<Pin<Box<F>>>;

/// Polls all calls, always in this order, so that the inbox gets the events in this order.
async fn in_order<F>(calls: impl Iterator<Item = F>) -> Vec<Result<Enqueued, EnqueueError>>
where
    F: Future<Output = Result<Enqueued, EnqueueError>>,
{
    let mut calls: Vec<Call<F>> = calls.map(|call| Some(Box::pin(call))).collect();
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

/// Pause between two tries of the same event. Doubles each time; the actual pause is a random part of it, at least half.
const PAUSE_MIN: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 50 });
const PAUSE_MAX: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 2000 });
/// Events held in memory at once, and deleted in one transaction.
const ROUND_ROWS: usize = 128;
const ROUND_BYTES: i64 = 4 << 20;
/// Events tried behind a suspect one, each time it fails.
const TRIED_BEHIND: usize = 16;
