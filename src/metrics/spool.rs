//! The spool's series.
//!
//! Keeps true: what each source's series need is known at the start; the rest has no labels.

use prometheus::{Gauge, IntCounterVec, IntGauge, Registry};

use super::{counters, register};

/// What the spool feeds.
#[derive(Clone)]
pub struct SpoolMetrics {
    /// `hookgate_spool_events`: those that wait.
    pub events: IntGauge,
    /// `hookgate_spool_bytes`: dead letters too.
    pub bytes: IntGauge,
    /// `hookgate_spool_max_bytes`: the bound of that; 0 without a spool.
    pub max_bytes: IntGauge,
    /// `hookgate_spool_oldest_age_seconds`.
    pub oldest_age: Gauge,
    /// `hookgate_spool_dead_events`.
    pub dead_events: IntGauge,
    /// `hookgate_spool_dead_total`.
    pub(super) dead: IntCounterVec,
}

impl SpoolMetrics {
    pub(super) fn new(registry: &Registry) -> Result<SpoolMetrics, prometheus::Error> {
        let gauge = |name, help| register(registry, IntGauge::new(name, help)?);
        Ok(SpoolMetrics {
            events: gauge("hookgate_spool_events", "Events that wait for the queue on disk.")?,
            bytes: gauge("hookgate_spool_bytes", "What the spool holds, dead letters included.")?,
            max_bytes: gauge("hookgate_spool_max_bytes", "What the spool may hold; 0 for no spool.")?,
            oldest_age: register(
                registry,
                Gauge::new(
                    "hookgate_spool_oldest_age_seconds",
                    "How long the oldest spooled event has waited; 0 for none.",
                )?,
            )?,
            dead_events: gauge("hookgate_spool_dead_events", "Dead letters kept.")?,
            dead: counters(
                registry,
                "hookgate_spool_dead_total",
                "Events that became dead letters.",
                &["source"],
            )?,
        })
    }
}
