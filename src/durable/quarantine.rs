//! The quarantine: refused requests that may turn out to be genuine, kept encrypted until a secret that was rotated without
//! notice is known.
//!
//! Keeps true: no answer ever waits for it; it is bounded in bytes, in time, in what waits to be written and in writes a
//! second, and whatever it does not keep is counted; it admits nothing by itself: what is in it is verified by its judge as
//! any delivery is, whoever asks for that and whatever was written to its file; a row goes once the inbox has the event, so a
//! crash between makes a duplicate and no loss.
//!
//! It has a database file of its own, since the embedded queue has the other to itself.
//! `seal`: the key and what it protects. `table`: the rows and their bounds. `rate`: how many a second. `keeper`: the tasks that
//! write and verify. `held`: what is kept as its operator handles it.

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
pub use seal::{Closed, Content, Key, KeyError, Label};
use worker::{Store, Verifier, Writer};

/// The handle that the request path keeps by.
pub struct Quarantine {
    store: Arc<Store>,
    /// None once it takes no more.
    to_writer: Mutex<Option<mpsc::Sender<Refused>>>,
    from_requests: Mutex<Option<mpsc::Receiver<Refused>>>,
    room: Arc<Semaphore>,
    rates: Rates,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A refused request on its way to the disk.
struct Refused {
    label: Label,
    content: Content,
    /// How many sources share the room.
    sources: usize,
    /// What it takes of the memory that may wait.
    _room: OwnedSemaphorePermit,
}

/// A kept request, its seal opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What stood in clear.
    pub label: Label,
    /// What was sealed.
    pub content: Content,
}

/// What came of verifying a kept request again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Judgement {
    /// In the queue, durably.
    Admitted {
        /// The event's id.
        id: String,
    },
    /// Was in the queue already, or is a conflict that the source drops.
    Duplicate {
        /// The id it entered under.
        id: String,
    },
    /// Genuine, and a health check: there is nothing to forward.
    Ignored,
    /// It would be admitted; this was a dry run.
    Passes,
    /// Still not to be let in.
    Refused {
        /// The reason's label.
        reason: String,
        /// What was found.
        why: String,
    },
    /// Genuine, and nothing durable could take the event. It stays.
    NotAdmitted {
        /// What the queue said.
        why: String,
    },
    /// Its source is not in the config. It stays.
    NoSource,
    /// It cannot be opened. It stays.
    Closed {
        /// Why.
        why: String,
    },
    /// It is not there any more.
    Gone,
}

impl Judgement {
    /// Whether the request is done with.
    fn settles(&self) -> bool {
        matches!(self, Judgement::Admitted { .. } | Judgement::Duplicate { .. } | Judgement::Ignored)
    }
}

/// Who verifies and admits.
pub trait Reverifier: Send + Sync + 'static {
    /// Verifies a request as of its arrival by what is configured now, and admits its event if it passes; a dry run stops
    /// before that. Must end in bounded time: nothing stops it half way.
    fn judge(&self, kept: &Kept, dry_run: bool) -> impl Future<Output = Judgement> + Send;
}

impl Quarantine {
    /// Opens or makes the file; [`Quarantine::start`] starts to write and to verify. Requests may be kept before that.
    ///
    /// # Errors
    /// When another process has it, or it cannot be written.
    pub fn open(
        data_dir: &Path,
        of: &config::Quarantine,
        key: Arc<Key>,
        clock: Clock,
        metrics: QuarantineMetrics,
    ) -> Result<Quarantine, OpenError> {
        let database = Database::open(&data_dir::quarantine_file(data_dir), table::TABLES)?;
        let (to_writer, from_requests) = mpsc::channel(WAITING);
        let store = Store {
            database,
            key,
            max_bytes: of.max_bytes,
            retain: i64::try_from(of.retain.as_micros()).unwrap_or(i64::MAX),
            clock,
            metrics,
        };
        Ok(Quarantine {
            store: Arc::new(store),
            to_writer: Mutex::new(Some(to_writer)),
            from_requests: Mutex::new(Some(from_requests)),
            room: Arc::new(Semaphore::new(WAITING_BYTES)),
            rates: Rates::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    /// Starts to write and to verify. Must be called inside a tokio runtime.
    pub fn start(&self, judge: impl Reverifier) {
        let from_requests = self.from_requests.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(from_requests) = from_requests else { return };
        self.tasks.spawn(Writer { store: self.store.clone(), from_requests }.run());
        self.tasks.spawn(Verifier { store: self.store.clone(), judge, stop: self.stop.clone() }.run());
    }

    /// Keeps a refused request if there is room. Never waits: it is written later, and `content` is asked for only if it may
    /// be. `sources` is how many there are to share the room.
    pub fn keep(&self, label: Label, sources: usize, content: impl FnOnce() -> Content) {
        let source = label.source.clone();
        if self.offer(label, sources, content).is_none() {
            self.store.metrics.dropped(&source);
        }
    }

    fn offer(&self, label: Label, sources: usize, content: impl FnOnce() -> Content) -> Option<()> {
        if !self.rates.allow(&label.source, label.client, clock::instant()) {
            return None;
        }
        let bytes = u32::try_from(label.bytes).ok()?.saturating_add(REQUEST_BYTES);
        let room = self.room.clone().try_acquire_many_owned(bytes).ok()?;
        let to_writer = self.to_writer.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        to_writer.try_send(Refused { label, content: content(), sources, _room: room }).ok()
    }

    /// Begins to verify nothing more; what is asked for stays asked for. Requests may still be kept.
    pub fn verify_no_more(&self) {
        self.stop.cancel();
    }

    /// Takes no more, writes what waits, and verifies no more: what is at the inbox is waited for.
    pub async fn stop(&self) {
        self.verify_no_more();
        drop(self.to_writer.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Stops, and lets go of the file.
    pub async fn close(self) {
        self.stop().await;
        if let Some(store) = Arc::into_inner(self.store) {
            store.database.close().await;
        }
    }
}

/// What is to be warned of in a config whose quarantine is enabled.
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
        let what = "longer than dedupe.window: what is admitted after that may be in the queue already, and enters again";
        warning("retain", what)
    });
    let client = table::Bounds::new(of.max_bytes, config.sources.len()).client;
    let small = (client < i64::try_from(config.edge.max_body).unwrap_or(i64::MAX)).then(|| {
        let what = "a client may take a quarter of its source's equal share, which is less than edge.max_body: larger \
            bodies are not kept";
        warning("max_bytes", what)
    });
    let room = WAITING_BYTES - REQUEST_BYTES as usize;
    let large = (config.edge.max_body > room).then(|| {
        let what = format!(
            "what waits to be written may take {} MiB in memory, and edge.max_body allows more: bodies over {room} bytes are \
             not kept",
            WAITING_BYTES >> 20
        );
        warning("enabled", &what)
    });
    forgotten.into_iter().chain(small).chain(large).collect()
}

/// How long what is asked for may wait for its verdict, and a verdict for whoever asked.
const ASKED_FOR: Duration = Duration::from_secs(3600);
/// How often it is looked whether something is to be verified, or is too old to be kept.
const LOOK: Duration = Duration::from_secs(1);
/// Requests that may wait to be written.
const WAITING: usize = 1024;
/// Their bodies, and [`REQUEST_BYTES`] each.
const WAITING_BYTES: usize = 32 << 20;
/// About what a request takes in memory besides its body.
const REQUEST_BYTES: u32 = 4096;

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::store::{QuarantineStore, Selection};
    use super::*;
    use crate::config::secret::Secret;
    use crate::observe::metrics::Metrics;

    struct Nobody;

    impl Reverifier for Nobody {
        async fn judge(&self, _: &Kept, _: bool) -> Judgement {
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

    /// Has whatever it is shown at the inbox until it is let go.
    struct Slow {
        shown: mpsc::UnboundedSender<String>,
        go: Mutex<Option<oneshot::Receiver<()>>>,
    }

    impl Reverifier for Slow {
        async fn judge(&self, kept: &Kept, _: bool) -> Judgement {
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
        first.start(Nobody);
        first.close().await;
        let held = QuarantineStore::open(&data_dir::quarantine_file(folder.path())).unwrap();
        let run = held.ask(&Selection::All, false).unwrap();
        let (quarantine, metrics) = open(folder.path());
        let (shown, mut at_inbox) = mpsc::unbounded_channel();
        let (go, wait) = oneshot::channel();
        quarantine.start(Slow { shown, go: Mutex::new(Some(wait)) });
        assert_eq!(at_inbox.recv().await.as_deref(), Some("rej_0"));
        quarantine.verify_no_more();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(!go.is_closed(), "it is left at the inbox");
        go.send(()).unwrap();
        quarantine.stop().await;
        assert_eq!(at_inbox.recv().await, None, "another one is begun");
        assert_eq!(sum(&metrics, "hookgate_quarantine_admitted_total"), 1.0);
        let admitted = Judgement::Admitted { id: "rej_0".to_owned() };
        assert_eq!(held.answers(&run).unwrap(), [(run.seqs[0], admitted)]);
        assert_eq!(held.delete(&Selection::All).unwrap()["source-0"], 1);
        quarantine.close().await;
    }

    /// Nobody writes yet, and nobody waits.
    #[tokio::test]
    async fn what_waits_for_a_slow_disk_is_bounded_and_the_rest_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        for (requests, body, fit) in [(WAITING + 100, 100, WAITING), (100, 1 << 20, 31)] {
            let (quarantine, metrics) = open(folder.path());
            (0..requests).for_each(|n| keep(&quarantine, n, body));
            assert_eq!(sum(&metrics, "hookgate_quarantine_dropped_total"), (requests - fit) as f64);
            quarantine.start(Nobody);
            quarantine.stop().await;
            assert_eq!(sum(&metrics, "hookgate_quarantine_kept_total"), fit as f64);
            keep(&quarantine, 0, 1);
            assert_eq!(sum(&metrics, "hookgate_quarantine_dropped_total"), (requests - fit + 1) as f64);
            quarantine.close().await;
        }
    }
}
