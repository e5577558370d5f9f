//! Replaces a Kafka producer that cannot recover: after a fatal error, or when its topic was deleted and recreated.
//!
//! Keeps true:
//! - A replaced producer finishes the records that it holds, and reports each to its publisher.
//! - A producer is dropped on a thread that may block, because it joins its own thread.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::error::KafkaResult;
use rdkafka::producer::{FutureProducer, Producer};

use super::super::health::BrokerHealth;
use super::reasons::Reasons;
use crate::base::clock;

/// A producer that never writes a record twice on its own retries.
pub(super) type Idempotent = FutureProducer<Reasons>;

/// The current producer, and replaced ones that still hold records.
pub(super) struct Producers {
    config: ClientConfig,
    reasons: Reasons,
    current: Mutex<Current>,
    draining: Mutex<Vec<Arc<Idempotent>>>,
    confirmed: AtomicU64,
    /// The topic disappeared after the current producer was created.
    outdated: AtomicBool,
}

struct Current {
    producer: Arc<Idempotent>,
    since: Instant,
}

impl Producers {
    pub(super) fn new(config: ClientConfig, health: Arc<BrokerHealth>) -> KafkaResult<Producers> {
        let reasons = Reasons::new(move |why| health.on_connect_failed(format!("Kafka {why}")));
        let producer = Arc::new(config.create_with_context(reasons.clone())?);
        Ok(Producers {
            config,
            reasons,
            current: Mutex::new(Current { producer, since: clock::instant() }),
            draining: Mutex::default(),
            confirmed: AtomicU64::new(0),
            outdated: AtomicBool::new(false),
        })
    }

    pub(super) fn current(&self) -> Arc<Idempotent> {
        self.lock().producer.clone()
    }

    /// The number of records confirmed so far.
    pub(super) fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::Relaxed)
    }

    pub(super) fn count_confirmed(&self) {
        self.confirmed.fetch_add(1, Ordering::Relaxed);
    }

    /// The last known reason why no broker answers.
    pub(super) fn why_unreachable(&self) -> &'static str {
        self.reasons.last()
    }

    /// The topic is missing. When it returns it is a new one, which needs a new producer.
    pub(super) fn mark_outdated(&self) {
        self.outdated.store(true, Ordering::Relaxed);
    }

    /// The topic exists: replaces the producer if it was missing before.
    pub(super) fn replace_if_outdated(&self) {
        if self.outdated.swap(false, Ordering::Relaxed) {
            self.replace(&mut self.lock(), "its topic was missing");
        }
    }

    /// Replaces the producer if it met a fatal error. True if it was replaced.
    pub(super) fn replace_if_fatal(&self) -> bool {
        let mut current = self.lock();
        match current.producer.client().fatal_error() {
            Some((_, why)) => self.replace(&mut current, &format!("it met a fatal error: {why}")),
            None => false,
        }
    }

    /// Replaces the producer if it confirmed nothing since a timed-out record was produced. `confirmed` is the count at
    /// that time. A young producer stays: the broker may be at fault.
    pub(super) fn replace_if_stuck(&self, confirmed: u64) {
        let mut current = self.lock();
        if self.confirmed() == confirmed && current.since.elapsed() > STUCK_AFTER {
            self.replace(&mut current, "it confirms nothing");
        }
    }

    fn replace(&self, current: &mut Current, why: &str) -> bool {
        match self.config.create_with_context(self.reasons.clone()) {
            Ok(producer) => {
                tracing::warn!(why, "the Kafka producer is recreated");
                let old = std::mem::replace(
                    current,
                    Current { producer: Arc::new(producer), since: clock::instant() },
                );
                self.draining().push(old.producer);
                true
            }
            Err(error) => {
                tracing::error!(%error, why, "the Kafka producer cannot be recreated");
                false
            }
        }
    }

    /// Drops replaced producers that hold no records.
    pub(super) async fn drop_idle(&self) {
        let idle: Vec<_> =
            self.draining().extract_if(.., |producer| Arc::strong_count(producer) == 1).collect();
        if !idle.is_empty() {
            let _ = tokio::task::spawn_blocking(move || drop(idle)).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draining(&self) -> MutexGuard<'_, Vec<Arc<Idempotent>>> {
        self.draining.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A producer younger than this is not replaced for confirming nothing.
const STUCK_AFTER: Duration = Duration::from_secs(10);
