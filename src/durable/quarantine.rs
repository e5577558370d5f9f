//! The quarantine keeps refused requests that may be genuine, encrypted, until the operator fixes a secret that the
//! provider changed.
//!
//! Keeps true: no answer waits for the quarantine. Its bytes, its retention, its write queue and its writes per second
//! are bounded; requests beyond a bound are counted and not kept. It accepts nothing by itself: the [`Reverifier`]
//! checks a kept request like any delivery. A row is deleted only after the inbox has the event,
//! so a crash in between makes a duplicate and loses nothing.
//!
//! It has its own database file, because the embedded queue needs the other file to itself.
//! `seal`: encryption. `table`: the rows and their bounds. `rate`: requests kept per second. `worker`: the tasks that
//! write and verify. `store`: kept requests, for the operator.

mod rate;
mod seal;
pub mod store;
mod table;
mod worker;

use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::base::clock::{self, Clock};
use crate::config::{self, Config, Problem};
use crate::durable::data_dir;
use crate::durable::database::OpenError;
use crate::durable::database::writer::Database;
use crate::observe::metrics::QuarantineMetrics;
use rate::Rates;
pub use seal::{Content, Key, KeyError, Label, UnsealError};
use worker::{Shared, Verifier, Writer};

/// The request path's handle.
pub struct Quarantine {
    shared: Arc<Shared>,
    /// None after [`Quarantine::stop`].
    to_writer: Mutex<Option<mpsc::Sender<RejectedRequest>>>,
    from_requests: Mutex<Option<mpsc::Receiver<RejectedRequest>>>,
    room: Arc<Semaphore>,
    rates: Rates,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A rejected request that waits to be written.
struct RejectedRequest {
    label: Label,
    content: Content,
    /// How many sources share `max_bytes`.
    sources: usize,
    /// Its part of [`QUEUE_BYTES`].
    _room: OwnedSemaphorePermit,
}

/// A kept request, decrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The part stored in clear.
    pub label: Label,
    /// The part stored encrypted.
    pub content: Content,
}

/// The verdict on a kept request that was verified again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Judgement {
    /// The queue has the event now.
    Admitted {
        /// The event's id.
        id: String,
    },
    /// The queue had the event already, or it is a conflict that the source drops.
    Duplicate {
        /// The id under which the event entered the queue.
        id: String,
    },
    /// Genuine, but a health check: there is nothing to forward.
    Ignored,
    /// Would be accepted; this was a dry run.
    Passes,
    /// Still refused.
    Refused {
        /// The reason's label in metrics.
        reason: String,
        /// The details.
        why: String,
    },
    /// Genuine, but neither queue nor spool took the event. The request stays.
    NotAdmitted {
        /// The queue's error.
        why: String,
    },
    /// The config has no such source. The request stays.
    NoSource,
    /// The request cannot be decrypted. It stays.
    Closed {
        /// The error.
        why: String,
    },
    /// The request is not in the quarantine any more.
    Gone,
}

impl Judgement {
    /// Whether the request can be deleted.
    fn settles(&self) -> bool {
        matches!(self, Judgement::Admitted { .. } | Judgement::Duplicate { .. } | Judgement::Ignored)
    }
}

/// Verifies kept requests again, and enqueues those that pass.
pub trait Reverifier: Send + Sync + 'static {
    /// Verifies a request with the current config, as of its arrival time, and enqueues its event if it passes. A dry
    /// run enqueues nothing. Must end in bounded time, because nothing cancels it.
    fn reverify(&self, kept: &Kept, dry_run: bool) -> impl Future<Output = Judgement> + Send;
}

impl Quarantine {
    /// Opens or creates the file. Requests may be kept before [`Quarantine::start`], which starts writing and
    /// verifying.
    ///
    /// # Errors
    /// When another process has the file open, or it cannot be written.
    pub fn open(
        data_dir: &Path,
        of: &config::Quarantine,
        key: Arc<Key>,
        clock: Clock,
        metrics: QuarantineMetrics,
    ) -> Result<Quarantine, OpenError> {
        let database = Database::open(&data_dir::quarantine_file(data_dir), table::TABLES)?;
        let (to_writer, from_requests) = mpsc::channel(QUEUE_LENGTH);
        let shared = Shared {
            database,
            key,
            max_bytes: of.max_bytes,
            retain: i64::try_from(of.retain.as_micros()).unwrap_or(i64::MAX),
            clock,
            metrics,
        };
        Ok(Quarantine {
            shared: Arc::new(shared),
            to_writer: Mutex::new(Some(to_writer)),
            from_requests: Mutex::new(Some(from_requests)),
            room: Arc::new(Semaphore::new(QUEUE_BYTES)),
            rates: Rates::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    /// Starts writing and verifying. Must be called inside a tokio runtime.
    pub fn start(&self, reverifier: impl Reverifier) {
        let from_requests = self.from_requests.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(from_requests) = from_requests else { return };
        self.tasks.spawn(Writer { shared: self.shared.clone(), from_requests }.run());
        self.tasks.spawn(Verifier { shared: self.shared.clone(), reverifier, stop: self.stop.clone() }.run());
    }

    /// Keeps a refused request if there is room. Never waits: it is written later. `content` is called only if there is
    /// room. `sources` is how many sources share the room.
    pub fn keep(&self, label: Label, sources: usize, content: impl FnOnce() -> Content) {
        let source = label.source.clone();
        if self.try_keep(label, sources, content).is_none() {
            self.shared.metrics.dropped(&source);
        }
    }

    fn try_keep(&self, label: Label, sources: usize, content: impl FnOnce() -> Content) -> Option<()> {
        if !self.rates.allow(&label.source, label.client, clock::instant()) {
            return None;
        }
        let bytes = u32::try_from(label.bytes).ok()?.saturating_add(REQUEST_BYTES);
        let room = self.room.clone().try_acquire_many_owned(bytes).ok()?;
        let to_writer = self.to_writer.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        to_writer.try_send(RejectedRequest { label, content: content(), sources, _room: room }).ok()
    }

    /// Starts no further verification; pending ones stay in the database. Requests may still be kept.
    pub fn stop_verifying(&self) {
        self.stop.cancel();
    }

    /// Stops keeping and verifying. Writes what is queued, and finishes the verification in progress.
    pub async fn stop(&self) {
        self.stop_verifying();
        drop(self.to_writer.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Stops, and closes the file.
    pub async fn close(self) {
        self.stop().await;
        if let Some(shared) = Arc::into_inner(self.shared) {
            shared.database.close().await;
        }
    }
}

/// Warnings about the config of an enabled quarantine.
pub fn warnings(config: &Config) -> Vec<Problem> {
    let of = &config.quarantine;
    let Some(key) = of.key.as_ref().filter(|_| of.enabled) else { return Vec::new() };
    let warning = |name: &str, what: &str| Problem {
        at: key.at,
        key: format!("quarantine.{name}"),
        what: what.to_owned(),
        warning: true,
    };
    let forgotten = (config.dedupe.window.value < of.retain).then(|| {
        let what = "longer than dedupe.window: an event admitted after that window may enter the queue a second time";
        warning("retain", what)
    });
    let client = table::Bounds::new(of.max_bytes, config.sources.len()).client;
    let small = (client < i64::try_from(config.edge.max_body).unwrap_or(i64::MAX)).then(|| {
        let what = "one client may use a quarter of its source's share, which is less than edge.max_body: larger \
            bodies are not kept";
        warning("max_bytes", what)
    });
    let room = QUEUE_BYTES - REQUEST_BYTES as usize;
    let large = (config.edge.max_body > room).then(|| {
        let what = format!(
            "requests waiting to be written may use {} MiB of memory, and edge.max_body allows more: bodies over {room} bytes are \
             not kept",
            QUEUE_BYTES >> 20
        );
        warning("enabled", &what)
    });
    forgotten.into_iter().chain(small).chain(large).collect()
}

/// How long a requested verification waits for its verdict, and how long a verdict is kept for the operator.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(3600);
/// How often the verifier looks for requested verifications and expired rows.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// Requests that may wait to be written.
const QUEUE_LENGTH: usize = 1024;
/// Limit on their bodies, plus [`REQUEST_BYTES`] each.
const QUEUE_BYTES: usize = 32 << 20;
/// About the memory of a request besides its body.
const REQUEST_BYTES: u32 = 4096;

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::store::{QuarantineStore, Selection};
    use super::*;
    use crate::config::secret::Secret;
    use crate::observe::metrics::Metrics;

    struct PassesAll;

    impl Reverifier for PassesAll {
        async fn reverify(&self, _: &Kept, _: bool) -> Judgement {
            Judgement::Passes
        }
    }

    fn open(folder: &Path) -> (Quarantine, Metrics) {
        let metrics = Metrics::new().unwrap();
        let (enabled, retain) = (true, Duration::from_secs(3600));
        let of = config::Quarantine { enabled, max_bytes: 1 << 30, retain, key: None };
        let key = Arc::new(Key::new(&Secret::new("sixteen bytes or more")).unwrap());
        let series = metrics.quarantine.clone();
        (Quarantine::open(folder, &of, key, Clock::System, series).unwrap(), metrics)
    }

    fn keep(quarantine: &Quarantine, n: usize, body: usize) {
        let label = Label {
            arrived: Clock::System.now(),
            source: format!("source-{}", n / 50).into(),
            provider: "basiq".to_owned(),
            reason: "signature_mismatch".to_owned(),
            reject: format!("rej_{n}"),
            client: [192, 0, 2, (n % 4) as u8].into(),
            bytes: body as u64,
        };
        quarantine.keep(label, 1, || Content {
            method: "POST".to_owned(),
            path: "/hooks/a".to_owned(),
            target: "/hooks/a?x=1".to_owned(),
            certificate: None,
            headers: hyper::HeaderMap::new(),
            body: vec![b'x'; body].into(),
        });
    }

    fn sum(metrics: &Metrics, series: &str) -> f64 {
        let (text, _) = metrics.render().unwrap();
        let values = text
            .lines()
            .filter_map(|line| line.strip_prefix(series)?.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum()
    }

    /// Holds each request at the inbox until the test releases it.
    struct Slow {
        shown: mpsc::UnboundedSender<String>,
        go: Mutex<Option<oneshot::Receiver<()>>>,
    }

    impl Reverifier for Slow {
        async fn reverify(&self, kept: &Kept, _: bool) -> Judgement {
            let _ = self.shown.send(kept.label.reject.clone());
            let go = self.go.lock().unwrap().take();
            go.unwrap().await.unwrap();
            Judgement::Admitted { id: kept.label.reject.clone() }
        }
    }

    #[tokio::test]
    async fn what_is_at_the_inbox_when_it_stops_gets_its_verdict_and_nothing_more_is_begun() {
        let folder = tempfile::tempdir().unwrap();
        let (first, _) = open(folder.path());
        (0..2).for_each(|n| keep(&first, n, 10));
        first.start(PassesAll);
        first.close().await;
        let held = QuarantineStore::open(&data_dir::quarantine_file(folder.path())).unwrap();
        let run = held.request_reverify(&Selection::All, false).unwrap();
        let (quarantine, metrics) = open(folder.path());
        let (shown, mut at_inbox) = mpsc::unbounded_channel();
        let (go, wait) = oneshot::channel();
        quarantine.start(Slow { shown, go: Mutex::new(Some(wait)) });
        assert_eq!(at_inbox.recv().await.as_deref(), Some("rej_0"));
        quarantine.stop_verifying();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(!go.is_closed(), "it is left at the inbox");
        go.send(()).unwrap();
        quarantine.stop().await;
        assert_eq!(at_inbox.recv().await, None, "another one is begun");
        assert_eq!(sum(&metrics, "hookgate_quarantine_admitted_total"), 1.0);
        let admitted = Judgement::Admitted { id: "rej_0".to_owned() };
        assert_eq!(held.take_verdicts(&run).unwrap(), [(run.seqs[0], admitted)]);
        assert_eq!(held.delete(&Selection::All).unwrap()["source-0"], 1);
        quarantine.close().await;
    }

    /// The writer has not started, so everything has to wait in memory.
    #[tokio::test]
    async fn what_waits_for_a_slow_disk_is_bounded_and_the_rest_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        for (requests, body, fit) in [(QUEUE_LENGTH + 100, 100, QUEUE_LENGTH), (100, 1 << 20, 31)] {
            let (quarantine, metrics) = open(folder.path());
            (0..requests).for_each(|n| keep(&quarantine, n, body));
            assert_eq!(sum(&metrics, "hookgate_quarantine_dropped_total"), (requests - fit) as f64);
            quarantine.start(PassesAll);
            quarantine.stop().await;
            assert_eq!(sum(&metrics, "hookgate_quarantine_kept_total"), fit as f64);
            keep(&quarantine, 0, 1);
            assert_eq!(sum(&metrics, "hookgate_quarantine_dropped_total"), (requests - fit + 1) as f64);
            quarantine.close().await;
        }
    }
}
