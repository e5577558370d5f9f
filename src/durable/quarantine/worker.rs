//! The quarantine's two tasks: one writes refused requests, one verifies kept requests again when the operator asks.
//!
//! Keeps true: each verification decrypts the row itself and does not trust the request for it. A row is deleted only
//! after the [`Reverifier`] reports that the inbox has its event.

use std::sync::Arc;

use rusqlite::Connection;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::table::{self, Bounds, Put, ReverifyRequest, Totals};
use super::{
    Judgement, Kept, Key, REFRESH_INTERVAL, RejectedRequest, Reverifier, UnsealError, VERDICT_TIMEOUT,
};
use crate::base::clock::Clock;
use crate::durable::database::writer::{Database, Failure};
use crate::observe::metrics::QuarantineMetrics;

/// Shared by both tasks.
pub(super) struct Shared {
    pub(super) database: Database,
    pub(super) key: Arc<Key>,
    pub(super) max_bytes: u64,
    /// Microseconds.
    pub(super) retain: i64,
    pub(super) clock: Clock,
    pub(super) metrics: QuarantineMetrics,
}

impl Shared {
    fn set_totals(&self, totals: Totals) {
        self.metrics.requests.set(totals.requests);
        self.metrics.bytes.set(totals.bytes);
    }

    /// Writes a batch in one transaction.
    async fn put(&self, batch: Vec<RejectedRequest>) {
        let (key, max_bytes) = (self.key.clone(), self.max_bytes);
        let sources: Vec<_> = batch.iter().map(|refused| refused.label.source.clone()).collect();
        let work = move |conn: &Connection| {
            let put = |refused: &RejectedRequest| {
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
        self.set_totals(totals);
        for (source, put) in sources.iter().zip(done) {
            if put.kept {
                self.metrics.kept(source);
            } else {
                self.metrics.dropped(source);
            }
            put.pushed_out.iter().for_each(|source| self.metrics.dropped(source));
        }
    }

    /// Deletes expired rows, and returns the requested verifications.
    async fn refresh(&self) -> Result<Vec<ReverifyRequest>, Failure> {
        let now = self.clock.now().as_microsecond();
        let (retain, asked_for) =
            (self.retain, i64::try_from(VERDICT_TIMEOUT.as_micros()).unwrap_or(i64::MAX));
        let look = move |conn: &Connection| {
            table::purge(conn, now.saturating_sub(retain), now.saturating_sub(asked_for))?;
            Ok((table::pending_requests(conn)?, table::totals(conn)?))
        };
        let (asked, totals) = self.database.write(look).await?;
        self.set_totals(totals);
        Ok(asked)
    }

    /// Verifies one request again and stores the verdict.
    async fn verify(&self, asked: ReverifyRequest, reverifier: &impl Reverifier) -> Result<(), Failure> {
        let seq = asked.seq;
        let judgement = match self.database.write(move |conn| table::row(conn, seq)).await? {
            None => Judgement::Gone,
            Some(row) => {
                let opened = row.ok_or(UnsealError::Changed).and_then(|(label, sealed)| {
                    let content = self.key.open(&label, sealed)?;
                    Ok(Kept { label, content })
                });
                match opened {
                    Err(why) => Judgement::Closed { why: why.to_string() },
                    Ok(kept) => self.reverify(&kept, asked.dry_run, reverifier).await,
                }
            }
        };
        let verdict = serde_json::to_string(&judgement).unwrap_or_default();
        let settled = judgement.settles();
        let answer = move |conn: &Connection| {
            table::answer(conn, &asked, &verdict, settled)?;
            table::totals(conn)
        };
        self.set_totals(self.database.write(answer).await?);
        Ok(())
    }

    async fn reverify(&self, kept: &Kept, dry_run: bool, reverifier: &impl Reverifier) -> Judgement {
        let judgement = reverifier.reverify(kept, dry_run).await;
        if matches!(judgement, Judgement::Admitted { .. }) {
            self.metrics.admitted(&kept.label.source);
            let (source, reject) = (&*kept.label.source, &kept.label.reject);
            tracing::info!(source, reject, "a request out of the quarantine was admitted");
        }
        judgement
    }
}

/// Runs until all senders are dropped.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) from_requests: mpsc::Receiver<RejectedRequest>,
}

impl Writer {
    pub(super) async fn run(mut self) {
        loop {
            let mut batch = Vec::new();
            if self.from_requests.recv_many(&mut batch, BATCH).await == 0 {
                return;
            }
            self.shared.put(batch).await;
        }
    }
}

/// Runs until it is told to stop.
pub(super) struct Verifier<R> {
    pub(super) shared: Arc<Shared>,
    pub(super) reverifier: R,
    pub(super) stop: CancellationToken,
}

impl<R: Reverifier> Verifier<R> {
    pub(super) async fn run(self) {
        let mut look = tokio::time::interval(REFRESH_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.stop.run_until_cancelled(look.tick()).await.is_some() {
            let mut done = self.all().await;
            // One call returns a limited number, so ask again at once. If it made no progress, wait for the next tick.
            while matches!(done, Ok(some) if some > 0) && !self.stop.is_cancelled() {
                done = self.all().await;
            }
            if let Err(why) = done {
                tracing::debug!(%why, "the quarantine cannot be looked at");
            }
        }
    }

    /// One after the other, oldest first, so that events are enqueued in order of arrival.
    async fn all(&self) -> Result<usize, Failure> {
        let asked = self.shared.refresh().await?;
        let count = asked.len();
        for one in asked {
            if self.stop.is_cancelled() {
                break;
            }
            // Never cancelled midway: the event could enter the queue without a verdict or a count. The reverifier ends
            // in bounded time.
            self.shared.verify(one, &self.reverifier).await?;
        }
        Ok(count)
    }
}

/// Requests written in one transaction.
const BATCH: usize = 64;
