//! Ships the reject log: every record on disk goes to a receiver elsewhere too.
//!
//! Keeps true: every record is shipped at least once, in order, over restarts of the gateway and of the receiver, unless it is
//! deleted first, which is counted. One shipper at a time is at a log. Nothing waits for it: neither a request nor the log's writer knows whether there is a
//! receiver. It wakes up when records were written, and to try again a receiver that is away.

mod cursor;
mod lines;
mod receiver;
mod syslog;

use std::future::pending;
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock;
use crate::config::{Config, Problem};
use crate::metrics::AuditMetrics;

use lines::{Batch, Lines};
pub use receiver::Receiver;

/// The task that ships.
pub struct Shipper {
    tasks: TaskTracker,
    closing: CancellationToken,
    stop: CancellationToken,
}

impl Receiver {
    /// The receiver that a config names, if it names one. Over TLS it is trusted as the gateway's own Redis is.
    ///
    /// # Errors
    /// When its URL cannot be read, or over TLS `redis.ca`.
    pub fn of(config: &Config) -> Result<Option<Receiver>, Problem> {
        let Some(ship) = &config.audit.ship else { return Ok(None) };
        let url = ship.url.value.resolve().map_err(|why| why.to_string());
        let ca = config.redis.ca.as_deref();
        let receiver = url.and_then(|url| Receiver::new(&url, &ship.stream, ship.max_len, ca));
        let problem =
            |what| Problem { at: ship.url.at, key: "audit.ship.url".to_owned(), what, warning: false };
        receiver.map(Some).map_err(problem)
    }
}

impl Shipper {
    /// Starts to ship the log in `dir`, up to the record that `synced` names, from where the last run ended.
    ///
    /// Must be called inside a tokio runtime.
    pub fn start(
        dir: &Path,
        receiver: Receiver,
        synced: watch::Receiver<u64>,
        metrics: AuditMetrics,
    ) -> Shipper {
        let (tasks, closing, stop) = (TaskTracker::new(), CancellationToken::new(), CancellationToken::new());
        let work = Work {
            lines: Some(Lines::new(dir)),
            receiver,
            synced,
            metrics,
            closing: closing.clone(),
            pause: PAUSE_MIN,
            up: None,
        };
        tasks.spawn(stop.clone().run_until_cancelled_owned(work.run()));
        tasks.close();
        Shipper { tasks, closing, stop }
    }

    /// Ships what is left, if the receiver takes it at once, and ends. What it does not take goes after the next start. Call it
    /// once the log is closed.
    pub async fn finish(self) {
        self.closing.cancel();
        if tokio::time::timeout(LAST_MOMENT, self.tasks.wait()).await.is_err() {
            self.stop.cancel();
            // What reads the disk cannot be cancelled, and is soon done.
            let _ = tokio::time::timeout(LAST_MOMENT, self.tasks.wait()).await;
        }
    }
}

/// The task's state.
struct Work {
    /// None only while another thread has them.
    lines: Option<Lines>,
    receiver: Receiver,
    synced: watch::Receiver<u64>,
    metrics: AuditMetrics,
    closing: CancellationToken,
    /// Before the next try.
    pause: Duration,
    /// Whether the last try went well; none before the first.
    up: Option<bool>,
}

impl Work {
    async fn run(mut self) {
        if self.turn().await.is_none() {
            return;
        }
        loop {
            let upto = *self.synced.borrow_and_update();
            let read = self.on_disk(move |lines| lines.read(upto)).await;
            let read = match read {
                Ok(batch) if batch.lines.is_empty() => {
                    self.count(&batch);
                    self.lag(batch.before, upto);
                    if self.ended(upto).await {
                        return;
                    }
                    continue;
                }
                Ok(batch) => self.ship(batch, upto).await,
                Err(why) => self.failed(&format!("cannot read the reject log: {why}")).await,
            };
            if read.is_none() {
                return;
            }
        }
    }

    /// Waits until no other ships this log: the gateway that gave its turn up may do so for its last moment. None when there is
    /// no time left for it.
    async fn turn(&mut self) -> Option<()> {
        loop {
            match self.on_disk(Lines::lock).await {
                Ok(true) => return Some(()),
                Ok(false) => tokio::select! {
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                    () = self.closing.cancelled() => return None,
                },
                Err(why) => self.failed(&format!("cannot lock the reject log to ship it: {why}")).await?,
            }
        }
    }

    /// Counts what is not shipped, and tells of it.
    fn count(&self, batch: &Batch) {
        self.metrics.ship_lost.inc_by(batch.lost + batch.strays);
        if batch.lost > 0 {
            tracing::warn!(
                records = batch.lost,
                "records of the reject log were deleted or unreadable before they were shipped"
            );
        }
        if batch.strays > 0 {
            tracing::warn!(
                lines = batch.strays,
                "lines in the reject log are none of the gateway's records and are not shipped; see `hookgate audit verify`"
            );
        }
    }

    /// Sends a batch until the receiver has it, and remembers that. None when there is no time left for it.
    async fn ship(&mut self, batch: Batch, upto: u64) -> Option<()> {
        self.count(&batch);
        let Some(last) = batch.lines.last() else { return Some(()) };
        let reached = last.link();
        loop {
            self.lag(batch.before, upto);
            let sent = tokio::select! {
                sent = self.receiver.send(&batch.lines) => sent,
                // It may have them all the same, and then gets them twice.
                () = too_late(&self.closing) => return None,
            };
            match sent {
                Ok(refused) => {
                    self.metrics.ship_lost.inc_by(refused);
                    self.metrics.shipped.inc_by((batch.lines.len() as u64).saturating_sub(refused));
                    break;
                }
                Err(why) => self.failed(&why).await?,
            }
        }
        self.pause = PAUSE_MIN;
        if self.up != Some(true) {
            tracing::info!(receiver = %self.receiver, "the reject log is shipped");
        }
        self.up = Some(true);
        self.lag(reached.seq, upto);
        // Should it fail, the records go again after a restart.
        if let Err(why) = self.on_disk(move |lines| lines.reached(&reached)).await {
            tracing::warn!(%why, "cannot remember how far the reject log was shipped");
        }
        Some(())
    }

    /// Counts a failure, tells of it if it is the first, and waits before the next try. None when there is to be none.
    async fn failed(&mut self, why: &str) -> Option<()> {
        self.metrics.ship_failures.inc();
        if self.up != Some(false) {
            tracing::warn!(receiver = %self.receiver, why, "the reject log is not shipped; trying on");
        }
        self.up = Some(false);
        // Half to whole, so that the gateways of a fleet do not come back in step.
        let [chance] = clock::random::<1>();
        let pause = tokio::time::sleep(self.pause.mul_f64(0.5 + f64::from(chance) / 512.0));
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        tokio::select! {
            () = pause => Some(()),
            () = self.closing.cancelled() => None,
        }
    }

    /// Waits for more than what was read, up to `upto`; true when there will be none.
    async fn ended(&mut self, upto: u64) -> bool {
        if self.closing.is_cancelled() {
            // The log was closed after the last look, perhaps with something written at its very end.
            return *self.synced.borrow() <= upto;
        }
        tokio::select! {
            changed = self.synced.changed() => {
                if changed.is_err() {
                    // The writer has ended: all there will be is there.
                    self.closing.cancel();
                }
                false
            }
            () = self.closing.cancelled() => false,
        }
    }

    fn lag(&self, shipped: u64, upto: u64) {
        let upto = upto.max(*self.synced.borrow());
        self.metrics.ship_lag.set(i64::try_from(upto.saturating_sub(shipped)).unwrap_or(i64::MAX));
    }

    /// Does what reads or writes files where that may block.
    async fn on_disk<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Lines) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let Some(mut lines) = self.lines.take() else { return Err(io::ErrorKind::NotFound.into()) };
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&mut lines);
            (lines, done)
        });
        match done.await {
            Ok((lines, done)) => {
                self.lines = Some(lines);
                done
            }
            // The runtime goes down.
            Err(_) => pending().await,
        }
    }
}

/// Some time after the end began.
async fn too_late(closing: &CancellationToken) {
    closing.cancelled().await;
    tokio::time::sleep(LAST_SEND).await;
}

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// What a drain may wait for the receiver.
const LAST_MOMENT: Duration = Duration::from_secs(2);
/// What one batch of it may take: a receiver that works takes less, one that hangs is not worth more.
const LAST_SEND: Duration = Duration::from_secs(1);
/// For another's end.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests;
