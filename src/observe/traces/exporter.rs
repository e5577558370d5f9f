//! Takes spans from the requests and sends them in batches, on a thread of its own.
//!
//! Keeps true: spans that could not be sent are counted, and a log line says so when it begins and at most once a minute
//! after. A stop takes a bounded time.

use std::time::Duration;

use prometheus::IntCounter;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{RequestSpan, Traces};
use crate::base::runtime::RuntimeThread;
use crate::observe::telemetry::LogThrottle;

/// Sends spans.
pub trait Sink: Send + Sync + 'static {
    /// Sends the spans of some requests. Ends by itself.
    ///
    /// # Errors
    /// Why the spans were not taken.
    fn send(&self, batch: Vec<RequestSpan>) -> impl Future<Output = Result<(), String>> + Send;
}

/// The running exporter.
pub struct Exporter {
    thread: RuntimeThread,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Exporter {
    /// Starts to export from `thread` what the returned [`Traces`] take. `dropped` counts the spans that are not sent.
    pub fn start(thread: RuntimeThread, sink: impl Sink, dropped: IntCounter) -> (Traces, Exporter) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let stop = CancellationToken::new();
        let export = Export {
            waiting,
            sink,
            dropped: dropped.clone(),
            told: dropped.get(),
            throttle: LogThrottle::default(),
        };
        let running = thread.handle().spawn(export.run(stop.clone()));
        (Traces { queue, dropped }, Exporter { thread, stop, running })
    }

    /// Sends what waits, for a bounded time, and ends.
    pub async fn stop(self) {
        self.stop.cancel();
        if timeout(FLUSH_TIMEOUT, self.running).await.is_err() {
            tracing::warn!("the collector is too slow: the last spans are not sent");
        }
        self.thread.stop().await;
    }
}

struct Export<S> {
    waiting: mpsc::Receiver<RequestSpan>,
    sink: S,
    dropped: IntCounter,
    /// As `dropped` was when it was looked at last.
    told: u64,
    throttle: LogThrottle,
}

impl<S: Sink> Export<S> {
    async fn run(mut self, stop: CancellationToken) {
        loop {
            let first = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                total = self.throttle.wait_until_quiet() => {
                    tracing::info!(times = total, "spans are no longer dropped");
                    continue;
                }
                first = self.waiting.recv() => first,
            };
            let Some(first) = first else { break };
            // Waking this thread costs a request a system call, so many requests share one.
            let _ = timeout(GATHER, stop.cancelled()).await;
            self.send_with(vec![first]).await;
            while !self.waiting.is_empty() && !stop.is_cancelled() {
                self.send_with(Vec::new()).await;
            }
        }
        self.waiting.close();
        while !self.waiting.is_empty() {
            self.send_with(Vec::new()).await;
        }
    }

    /// Sends one batch: these, and what waits.
    async fn send_with(&mut self, mut batch: Vec<RequestSpan>) {
        while batch.len() < BATCH
            && let Ok(span) = self.waiting.try_recv()
        {
            batch.push(span);
        }
        let spans: u64 = batch.iter().map(RequestSpan::spans).sum();
        let sent = self.sink.send(batch).await;
        if sent.is_err() {
            self.dropped.inc_by(spans);
        }
        let total = self.dropped.get();
        if total > self.told {
            self.told = total;
            if self.throttle.record().is_some() {
                let why = sent.as_ref().err().map_or("it is too slow", String::as_str);
                tracing::warn!(dropped = total, "spans are dropped; the collector of tracing.otlp: {why}");
            }
        }
        if sent.is_err() {
            sleep(PAUSE).await;
        }
    }
}

/// How many requests' spans may wait.
const QUEUE: usize = 8192;
/// How many requests' spans are sent at once. They stay well below the 4 MiB that collectors take.
const BATCH: usize = 512;
const GATHER: Duration = Duration::from_millis(100);
/// After a failure, so that a collector that refuses at once is not asked again and again.
const PAUSE: Duration = Duration::from_millis(500);
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use jiff::Timestamp;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::base::trace_context::TraceContext;
    use crate::observe::traces::Stage;

    /// Takes a batch for each permit, and fails if it is told to.
    #[derive(Clone)]
    struct Scripted {
        permits: Arc<Semaphore>,
        fails: bool,
        taken: Arc<Mutex<Vec<usize>>>,
    }

    impl Scripted {
        fn new(fails: bool) -> Scripted {
            Scripted { permits: Arc::new(Semaphore::new(0)), fails, taken: Arc::default() }
        }

        fn requests(&self) -> usize {
            self.taken.lock().unwrap().iter().sum()
        }
    }

    impl Sink for Scripted {
        async fn send(&self, batch: Vec<RequestSpan>) -> Result<(), String> {
            self.permits.acquire().await.unwrap().forget();
            self.taken.lock().unwrap().push(batch.len());
            if self.fails { Err("scripted".to_owned()) } else { Ok(()) }
        }
    }

    fn span() -> RequestSpan {
        RequestSpan {
            trace: TraceContext::root([1; 16], [1; 8]),
            parent: None,
            began: Timestamp::UNIX_EPOCH,
            took: Duration::ZERO,
            stages: vec![(Stage::Admit, Duration::ZERO), (Stage::Answer, Duration::ZERO)],
            method: "POST",
            http_version: "1.1",
            scheme: "http",
            status: Some(200),
            source: None,
            outcome: "accepted",
            reason: None,
            client: None,
            event_id: None,
            events: None,
            body_bytes: None,
        }
    }

    fn start(sink: &Scripted) -> (Traces, Exporter, IntCounter) {
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        let thread = RuntimeThread::start("traces").unwrap();
        let (traces, exporter) = Exporter::start(thread, sink.clone(), dropped.clone());
        (traces, exporter, dropped)
    }

    #[tokio::test]
    async fn a_stop_sends_what_waits() {
        let sink = Scripted::new(false);
        let (traces, exporter, dropped) = start(&sink);
        sink.permits.add_permits(Semaphore::MAX_PERMITS);
        (0..1000).for_each(|_| traces.record(span()));
        exporter.stop().await;
        assert_eq!((sink.requests(), dropped.get()), (1000, 0));
        assert!(sink.taken.lock().unwrap().iter().all(|batch| *batch <= BATCH));
        traces.record(span());
        assert_eq!(dropped.get(), 3, "after the stop");
    }

    #[tokio::test]
    async fn beyond_the_queue_spans_are_dropped_and_counted() {
        let sink = Scripted::new(false);
        let (traces, exporter, dropped) = start(&sink);
        let offered = 3 * QUEUE;
        (0..offered).for_each(|_| traces.record(span()));
        // The collector hangs, and nothing waited for it.
        assert!(dropped.get() >= 3 * (offered - QUEUE - BATCH) as u64, "{}", dropped.get());
        sink.permits.add_permits(Semaphore::MAX_PERMITS);
        exporter.stop().await;
        assert_eq!(sink.requests() as u64 + dropped.get() / 3, offered as u64, "each is sent or counted");
    }

    #[tokio::test]
    async fn what_the_collector_refuses_is_counted() {
        let sink = Scripted::new(true);
        let (traces, exporter, dropped) = start(&sink);
        sink.permits.add_permits(Semaphore::MAX_PERMITS);
        (0..10).for_each(|_| traces.record(span()));
        exporter.stop().await;
        assert_eq!((sink.requests(), dropped.get()), (10, 30));
    }

    #[tokio::test]
    async fn a_stop_does_not_wait_for_a_collector_that_hangs() {
        let sink = Scripted::new(false);
        let (traces, exporter, _) = start(&sink);
        traces.record(span());
        let stop = timeout(FLUSH_TIMEOUT * 4, exporter.stop());
        stop.await.expect("it ends");
        assert_eq!(sink.requests(), 0);
    }
}
