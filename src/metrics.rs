//! Every metric of the gateway, in one struct with its own registry.
//!
//! Keeps true: label values come from enums, configured source names and the canonical type table, so the number of series
//! is bounded by the config; every series that can be known at the start is there from the start, at zero.

mod audit;
mod backlog;
mod edge;
mod labels;
mod quarantine;
mod source;
mod spool;

use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

pub use audit::AuditMetrics;
pub use backlog::BacklogMetrics;
pub use edge::{EdgeMetrics, TlsResult};
pub use labels::{EnqueueFailure, OutcomeLabel};
pub use quarantine::QuarantineMetrics;
use source::SourceFamilies;
pub use source::{SourceLabels, SourceMetrics, SourceSeries};
pub use spool::SpoolMetrics;

/// What an inbox feeds.
#[derive(Clone)]
pub struct QueueMetrics {
    /// `hookgate_enqueue_duration_seconds`: hand-over to confirmed, a batch at a time.
    pub duration: Histogram,
    /// `hookgate_enqueue_batch_events`.
    pub batch: Histogram,
    failures: Vec<IntCounter>,
    /// `hookgate_queue_up`.
    pub up: IntGauge,
    /// `hookgate_queue_full`.
    pub full: IntGauge,
    /// The queue's streams and consumer groups, where it has them.
    pub backlog: BacklogMetrics,
}

impl QueueMetrics {
    /// Counts events that could not be enqueued.
    pub fn failed(&self, kind: EnqueueFailure, events: usize) {
        self.failures[kind as usize].inc_by(events as u64);
    }
}

/// The registry and the handles to all that is in it.
pub struct Metrics {
    registry: Registry,
    sources: SourceFamilies,
    enqueue_duration: HistogramVec,
    enqueue_batch: HistogramVec,
    enqueue_failures: IntCounterVec,
    queue_up: IntGaugeVec,
    queue_full: IntGaugeVec,
    backlog: BacklogMetrics,
    /// The spool's.
    pub spool: SpoolMetrics,
    /// The quarantine's.
    pub quarantine: QuarantineMetrics,
    /// The listener's.
    pub edge: EdgeMetrics,
    /// The reject log's.
    pub audit: AuditMetrics,
    unsafe_settings: IntGaugeVec,
    /// `hookgate_config_loaded_timestamp_seconds`.
    pub config_loaded: Gauge,
}

const DURATIONS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0];
const BATCHES: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

impl Metrics {
    /// Every family registered, no source known yet.
    ///
    /// # Errors
    /// When two families have one name; a test builds it, so a build that passes them never meets it.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        let r = &registry;
        let build = gauge_vec(
            r,
            "hookgate_build_info",
            "The version and revision that runs.",
            &["version", "revision"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), env!("HOOKGATE_REVISION")]).set(1);
        r.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(Metrics {
            sources: SourceFamilies::new(r)?,
            enqueue_duration: histograms(
                r,
                "hookgate_enqueue_duration_seconds",
                "A batch's durable write.",
                &["queue"],
                &DURATIONS,
            )?,
            enqueue_batch: histograms(
                r,
                "hookgate_enqueue_batch_events",
                "Events per durable write.",
                &["queue"],
                &BATCHES,
            )?,
            enqueue_failures: counters(
                r,
                "hookgate_enqueue_failures_total",
                "Events that could not be enqueued.",
                &["queue", "kind"],
            )?,
            queue_up: gauge_vec(r, "hookgate_queue_up", "1 while the queue takes events.", &["queue"])?,
            queue_full: gauge_vec(
                r,
                "hookgate_queue_full",
                "1 while the queue, or a stream of it, answers and takes no more for want of room.",
                &["queue"],
            )?,
            backlog: BacklogMetrics::new(r)?,
            spool: SpoolMetrics::new(r)?,
            quarantine: QuarantineMetrics::new(r)?,
            edge: EdgeMetrics::new(r)?,
            audit: AuditMetrics::new(r)?,
            unsafe_settings: gauge_vec(
                r,
                "hookgate_unsafe_settings",
                "1 where a server's own setting, or its absence, puts events at risk.",
                &["setting"],
            )?,
            config_loaded: register(
                r,
                Gauge::new("hookgate_config_loaded_timestamp_seconds", "Unix time of the last config load.")?,
            )?,
            registry,
        })
    }

    /// One source's handles, its series at zero.
    pub fn source(&self, of: &SourceLabels<'_>) -> Arc<SourceMetrics> {
        Arc::new(self.sources.of(of, &self.spool))
    }

    /// The gauge of when a source last had an event accepted, shown from now on; at 0, unless it was shown before.
    pub fn last_accepted(&self, source: &str, handles: &SourceMetrics) -> Gauge {
        self.sources.show_last_accepted(source, handles)
    }

    /// Lets go of every source's series but those that `keep` says yes to.
    pub fn retain_sources(&self, keep: impl Fn(&SourceSeries<'_>) -> bool) {
        self.sources.retain(&keep);
        source::retain(&self.spool.dead, &keep);
        self.quarantine.retain(&keep);
    }

    /// One queue's handles, its series at zero. `queue` is its kind.
    pub fn queue(&self, queue: &'static str) -> QueueMetrics {
        QueueMetrics {
            duration: self.enqueue_duration.with_label_values(&[queue]),
            batch: self.enqueue_batch.with_label_values(&[queue]),
            failures: EnqueueFailure::ALL
                .iter()
                .map(|(_, kind)| self.enqueue_failures.with_label_values(&[queue, kind]))
                .collect(),
            up: self.queue_up.with_label_values(&[queue]),
            full: self.queue_full.with_label_values(&[queue]),
            backlog: self.backlog.of(queue),
        }
    }

    /// Puts a setting's series at zero, if it is not there yet.
    pub fn unsafe_setting_is_asked(&self, setting: &'static str) {
        let _ = self.unsafe_settings.with_label_values(&[setting]);
    }

    /// Says of one setting whether it is unsafe.
    pub fn unsafe_setting(&self, setting: &'static str, found: bool) {
        self.unsafe_settings.with_label_values(&[setting]).set(i64::from(found));
    }

    /// The exposition text and its content type.
    ///
    /// # Errors
    /// When the encoder meets a family it cannot write.
    pub fn render(&self) -> Result<(String, String), prometheus::Error> {
        use prometheus::Encoder;
        let encoder = TextEncoder::new();
        let text = encoder.encode_to_string(&self.registry.gather())?;
        Ok((text, encoder.format_type().to_owned()))
    }
}

fn register<C: Collector + Clone + 'static>(to: &Registry, metric: C) -> Result<C, prometheus::Error> {
    to.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn counters(
    to: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    register(to, IntCounterVec::new(Opts::new(name, help), labels)?)
}

fn gauge_vec(
    to: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntGaugeVec, prometheus::Error> {
    register(to, IntGaugeVec::new(Opts::new(name, help), labels)?)
}

fn histograms(
    to: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: &[f64],
) -> Result<HistogramVec, prometheus::Error> {
    register(to, HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?)
}
