//! The two tasks of a quarantine: one writes what requests hand over, one verifies again what is asked for.
//!
//! Keeps true: what is to be verified is read from the row and opened there and then; that somebody asked for it proves
//! nothing; a row is deleted only after the judge has said that its event is in the inbox.

use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::table::{self, Asked, Bounds, Put, Totals};
use super::{ASKED_FOR, Closed, Judgement, Kept, Key, LOOK, Refused, Reverifier};
use crate::base::clock::Clock;
use crate::durable::database::writer::{Database, Failure};
use crate::observe::metrics::QuarantineMetrics;

/// What both tasks work on.
pub(super) struct Store {
    pub(super) database: Database,
    pub(super) key: Arc<Key>,
    pub(super) max_bytes: u64,
    /// Microseconds.
    pub(super) retain: i64,
    pub(super) clock: Clock,
    pub(super) metrics: QuarantineMetrics,
}

impl Store {
    fn is(&self, totals: Totals) {
        self.metrics.requests.set(totals.requests);
        self.metrics.bytes.set(totals.bytes);
    }

    /// Writes them as one transaction.
    async fn put(&self, batch: Vec<Refused>) {
        let (key, max_bytes) = (self.key.clone(), self.max_bytes);
        let sources: Vec<_> = batch.iter().map(|refused| refused.label.source.clone()).collect();
        let work = move |conn: &Connection| {
            let put = |refused: &Refused| {
                let Ok(sealed) = key.seal(&refused.label, &refused.content) else {
                    return Ok(Put { kept: false, pushed_out: Vec::new() });
                };
                table::put(conn, &refused.label, &sealed, Bounds::new(max_bytes, refused.sources))
            };
            let done: Vec<Put> = batch.iter().map(put).collect::<rusqlite::Result<_>>()?;
            Ok((done, table::totals(conn)?))
        };
        let Ok((done, totals)) = self.database.write(work).await else {
            return sources.iter().for_each(|source| self.metrics.dropped(source));
        };
        self.is(totals);
        for (source, put) in sources.iter().zip(done) {
            if put.kept {
                self.metrics.kept(source);
            } else {
                self.metrics.dropped(source);
            }
            put.pushed_out.iter().for_each(|source| self.metrics.dropped(source));
        }
    }

    /// Deletes what is too old, and finds what is to be verified.
    async fn look(&self) -> Result<Vec<Asked>, Failure> {
        let now = self.clock.now().as_microsecond();
        let (retain, asked_for) = (self.retain, i64::try_from(ASKED_FOR.as_micros()).unwrap_or(i64::MAX));
        let look = move |conn: &Connection| {
            table::purge(conn, now.saturating_sub(retain), now.saturating_sub(asked_for))?;
            Ok((table::unanswered(conn)?, table::totals(conn)?))
        };
        let (asked, totals) = self.database.write(look).await?;
        self.is(totals);
        Ok(asked)
    }

    /// Verifies one again, and answers whoever asked.
    async fn verify(&self, asked: Asked, judge: &impl Reverifier) -> Result<(), Failure> {
        let seq = asked.seq;
        let judgement = match self.database.write(move |conn| table::row(conn, seq)).await? {
            None => Judgement::Gone,
            Some(row) => {
                let opened = row.ok_or(Closed::Changed).and_then(|(label, sealed)| {
                    let content = self.key.open(&label, sealed)?;
                    Ok(Kept { label, content })
                });
                match opened {
                    Err(why) => Judgement::Closed { why: why.to_string() },
                    Ok(kept) => self.judged(&kept, asked.dry_run, judge).await,
                }
            }
        };
        let verdict = serde_json::to_string(&judgement).unwrap_or_default();
        let settled = judgement.settles();
        let answer = move |conn: &Connection| {
            table::answer(conn, &asked, &verdict, settled)?;
            table::totals(conn)
        };
        self.is(self.database.write(answer).await?);
        Ok(())
    }

    async fn judged(&self, kept: &Kept, dry_run: bool, judge: &impl Reverifier) -> Judgement {
        let judgement = judge.judge(kept, dry_run).await;
        if matches!(judgement, Judgement::Admitted { .. }) {
            self.metrics.admitted(&kept.label.source);
            let (source, reject) = (&*kept.label.source, &kept.label.reject);
            tracing::info!(source, reject, "a request out of the quarantine was admitted");
        }
        judgement
    }
}

/// Writes until nobody hands over any more.
pub(super) struct Writer {
    pub(super) store: Arc<Store>,
    pub(super) from_requests: mpsc::Receiver<Refused>,
}

impl Writer {
    pub(super) async fn run(mut self) {
        loop {
            let mut batch = Vec::new();
            if self.from_requests.recv_many(&mut batch, BATCH).await == 0 {
                return;
            }
            self.store.put(batch).await;
        }
    }
}

/// Verifies until it is told to stop.
pub(super) struct Verifier<J> {
    pub(super) store: Arc<Store>,
    pub(super) judge: J,
    pub(super) stop: CancellationToken,
}

impl<J: Reverifier> Verifier<J> {
    pub(super) async fn run(self) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.stop.run_until_cancelled(look.tick()).await.is_some() {
            let mut done = self.all().await;
            // There may be more than one look shows; without progress the next waits its time.
            while matches!(done, Ok(some) if some > 0) && !self.stop.is_cancelled() {
                done = self.all().await;
            }
            if let Err(why) = done {
                tracing::debug!(%why, "the quarantine cannot be looked at");
            }
        }
    }

    /// One after the other, oldest first, so that what is admitted enters in the order of arrival.
    async fn all(&self) -> Result<usize, Failure> {
        let asked = self.store.look().await?;
        let count = asked.len();
        for one in asked {
            if self.stop.is_cancelled() {
                break;
            }
            // To its end, which the judge bounds: left at the inbox, it would be in there with no verdict and no count.
            self.store.verify(one, &self.judge).await?;
        }
        Ok(count)
    }
}

/// Requests written in one transaction.
const BATCH: usize = 64;
