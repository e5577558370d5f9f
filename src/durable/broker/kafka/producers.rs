//! The producer, and how it is made anew: one that met a fatal error never works again, and one whose topic was deleted and made
//! anew may wait for the old one for ever.
//!
//! Keeps true: what an old producer still holds runs to its end, and its publishers are told by it; an old producer is dropped on
//! a thread that may block, as it waits for a thread of its own.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::error::KafkaResult;
use rdkafka::producer::{FutureProducer, Producer};

use super::super::health::BrokerHealth;
use super::reasons::Reasons;
use crate::base::clock;

/// A producer that never writes a record twice by itself.
pub(super) type Idempotent = FutureProducer<Reasons>;

/// The producer of now, and those of before that still hold records.
pub(super) struct Producers {
    config: ClientConfig,
    reasons: Reasons,
    current: Mutex<Current>,
    retired: Mutex<Vec<Arc<Idempotent>>>,
    /// Records confirmed so far.
    confirmed: AtomicU64,
    /// The topic went away since the producer of now was made.
    outdated: AtomicBool,
}

struct Current {
    producer: Arc<Idempotent>,
    since: Instant,
}

impl Producers {
    /// Makes the first one.
    pub(super) fn new(config: ClientConfig, standing: Arc<BrokerHealth>) -> KafkaResult<Producers> {
        let reasons = Reasons::new(move |why| standing.unconnected(format!("Kafka {why}")));
        let producer = Arc::new(config.create_with_context(reasons.clone())?);
        Ok(Producers {
            config,
            reasons,
            current: Mutex::new(Current { producer, since: clock::instant() }),
            retired: Mutex::default(),
            confirmed: AtomicU64::new(0),
            outdated: AtomicBool::new(false),
        })
    }

    /// The producer of now.
    pub(super) fn current(&self) -> Arc<Idempotent> {
        self.lock().producer.clone()
    }

    /// How many records were confirmed so far.
    pub(super) fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::Relaxed)
    }

    /// A record was confirmed.
    pub(super) fn has_confirmed(&self) {
        self.confirmed.fetch_add(1, Ordering::Relaxed);
    }

    /// Why no broker answers, as far as is known.
    pub(super) fn why_unreachable(&self) -> &'static str {
        self.reasons.last()
    }

    /// The topic is away: when it is back, it is another one.
    pub(super) fn outdated(&self) {
        self.outdated.store(true, Ordering::Relaxed);
    }

    /// Another producer, where the topic was away. It is there now.
    pub(super) fn replace_if_outdated(&self) {
        if self.outdated.swap(false, Ordering::Relaxed) {
            self.replace(&mut self.lock(), "its topic was away");
        }
    }

    /// Another producer in place of one that met a fatal error. Whether there is one.
    pub(super) fn replace_if_fatal(&self) -> bool {
        let mut current = self.lock();
        match current.producer.client().fatal_error() {
            Some((_, why)) => self.replace(&mut current, &format!("it met a fatal error: {why}")),
            None => false,
        }
    }

    /// Another producer in place of one that confirmed nothing while a record ran out of time; `confirmed` is how many had been
    /// confirmed when that record was handed over. Not again and again: it may be the broker.
    pub(super) fn replace_if_stuck(&self, confirmed: u64) {
        let mut current = self.lock();
        if self.confirmed() == confirmed && current.since.elapsed() > STUCK {
            self.replace(&mut current, "it confirms nothing");
        }
    }

    fn replace(&self, current: &mut Current, why: &str) -> bool {
        match self.config.create_with_context(self.reasons.clone()) {
            Ok(producer) => {
                tracing::warn!(why, "the Kafka producer is made anew");
                let old = std::mem::replace(
                    current,
                    Current { producer: Arc::new(producer), since: clock::instant() },
                );
                self.retired().push(old.producer);
                true
            }
            Err(error) => {
                tracing::error!(%error, why, "the Kafka producer cannot be made anew");
                false
            }
        }
    }

    /// Drops the producers that hold nothing any more.
    pub(super) async fn let_go(&self) {
        let idle: Vec<_> =
            self.retired().extract_if(.., |producer| Arc::strong_count(producer) == 1).collect();
        if !idle.is_empty() {
            let _ = tokio::task::spawn_blocking(move || drop(idle)).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retired(&self) -> MutexGuard<'_, Vec<Arc<Idempotent>>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How old a producer is, at least, that is replaced for its silence.
const STUCK: Duration = Duration::from_secs(10);
