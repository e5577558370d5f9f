//! Every metric of the gateway, in one struct with its own registry.
//!
//! Keeps true: label values come from enums, configured source names and the canonical type table, so the number of series
//! is bounded by the config; every series that can be known at the start is there from the start, at zero.

mod labels;
mod spool;

use std::collections::HashMap;
use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

pub use labels::{EnqueueFailure, OutcomeLabel};
pub use spool::SpoolMetrics;

/// The source label of a request to no known source.
pub const UNKNOWN: &str = "unknown";

/// What one source is labelled and how its series are found without a look-up by text.
pub struct SourceMetrics {
    /// `hookgate_requests_total`, by [`OutcomeLabel`].
    requests: Vec<IntCounter>,
    durations: Vec<Histogram>,
    rejects: HashMap<&'static str, IntCounter>,
    events: HashMap<&'static str, IntCounter>,
    unmapped: IntCounter,
    secret_matches: Vec<IntCounter>,
    /// `hookgate_request_body_bytes`.
    pub body_bytes: Histogram,
    /// `hookgate_conflicts_total`.
    pub conflicts: IntCounter,
    /// `hookgate_signature_age_seconds`.
    pub signature_age: Histogram,
    /// `hookgate_last_accepted_timestamp_seconds`.
    pub last_accepted: Gauge,
    /// `hookgate_sequence_gaps_total`.
    pub sequence_gaps: IntCounter,
    /// `hookgate_spool_dead_total`.
    pub dead: IntCounter,
}

impl SourceMetrics {
    /// Counts a finished request.
    pub fn finished(&self, outcome: OutcomeLabel, seconds: f64) {
        self.requests[outcome as usize].inc();
        self.durations[outcome as usize].observe(seconds);
    }

    /// Counts a reject under its reason's label.
    pub fn rejected(&self, reason: &'static str) {
        if let Some(counter) = self.rejects.get(reason) {
            counter.inc();
        }
    }

    /// Counts a forwarded event; a type outside the provider's table counts as `unmapped`.
    pub fn event(&self, kind: &str) {
        self.events.get(kind).unwrap_or(&self.unmapped).inc();
    }

    /// Counts which secret verified.
    pub fn secret_matched(&self, slot: usize) {
        if let Some(counter) = self.secret_matches.get(slot) {
            counter.inc();
        }
    }
}

/// What a source's series need to be known at the start.
pub struct SourceLabels<'a> {
    /// The configured name, or [`UNKNOWN`].
    pub source: &'a str,
    /// The provider's name, or [`UNKNOWN`].
    pub provider: &'a str,
    /// How many secrets it has.
    pub secrets: usize,
    /// The canonical types its provider's table knows.
    pub types: &'a [&'static str],
    /// Every reject reason.
    pub reasons: &'a [&'static str],
}

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
    requests: IntCounterVec,
    rejects: IntCounterVec,
    durations: HistogramVec,
    body_bytes: HistogramVec,
    events: IntCounterVec,
    conflicts: IntCounterVec,
    secret_matches: IntCounterVec,
    signature_age: HistogramVec,
    last_accepted: GaugeVec,
    sequence_gaps: IntCounterVec,
    enqueue_duration: HistogramVec,
    enqueue_batch: HistogramVec,
    enqueue_failures: IntCounterVec,
    queue_up: IntGaugeVec,
    /// The spool's.
    pub spool: SpoolMetrics,
    /// `hookgate_connections`.
    pub connections: IntGauge,
    /// `hookgate_requests_in_flight`.
    pub in_flight: IntGauge,
    /// `hookgate_audit_records_total`.
    pub audit_records: IntCounter,
    /// `hookgate_audit_suppressed_total`: rejects summed into another record.
    pub audit_suppressed: IntCounter,
    /// `hookgate_audit_failures_total`: records that could not be written.
    pub audit_failures: IntCounter,
    unsafe_settings: IntGaugeVec,
    /// `hookgate_config_loaded_timestamp_seconds`.
    pub config_loaded: Gauge,
}

const DURATIONS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0];
const BYTES: [f64; 8] = [256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 10_485_760.0];
const AGES: [f64; 13] = [-300.0, -60.0, -10.0, -1.0, 0.0, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0];
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
        build
            .with_label_values(&[
                env!("CARGO_PKG_VERSION"),
                option_env!("HOOKGATE_REVISION").unwrap_or(UNKNOWN),
            ])
            .set(1);
        r.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(Metrics {
            requests: counters(
                r,
                "hookgate_requests_total",
                "Requests answered.",
                &["source", "provider", "outcome"],
            )?,
            rejects: counters(r, "hookgate_rejects_total", "Requests refused.", &["source", "reason"])?,
            durations: histograms(
                r,
                "hookgate_request_duration_seconds",
                "From the request's head to its answer.",
                &["source", "outcome"],
                &DURATIONS,
            )?,
            body_bytes: histograms(
                r,
                "hookgate_request_body_bytes",
                "Bodies read whole.",
                &["source"],
                &BYTES,
            )?,
            events: counters(r, "hookgate_events_total", "Events put in the queue.", &["source", "type"])?,
            conflicts: counters(
                r,
                "hookgate_conflicts_total",
                "New bodies under a known identity.",
                &["source"],
            )?,
            secret_matches: counters(
                r,
                "hookgate_secret_matches_total",
                "Which configured secret verified, by its place in the list.",
                &["source", "slot"],
            )?,
            signature_age: histograms(
                r,
                "hookgate_signature_age_seconds",
                "Receipt minus signed timestamp.",
                &["source"],
                &AGES,
            )?,
            last_accepted: register(
                r,
                GaugeVec::new(
                    Opts::new(
                        "hookgate_last_accepted_timestamp_seconds",
                        "Unix time of the last accepted event; 0 for none.",
                    ),
                    &["source"],
                )?,
            )?,
            sequence_gaps: counters(
                r,
                "hookgate_sequence_gaps_total",
                "Sequence numbers skipped, against the highest seen.",
                &["source"],
            )?,
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
            spool: SpoolMetrics::new(r)?,
            connections: register(r, IntGauge::new("hookgate_connections", "Open client connections.")?)?,
            in_flight: register(
                r,
                IntGauge::new("hookgate_requests_in_flight", "Requests between head and answer.")?,
            )?,
            audit_records: register(
                r,
                IntCounter::new("hookgate_audit_records_total", "Records written to the reject log.")?,
            )?,
            audit_suppressed: register(
                r,
                IntCounter::new(
                    "hookgate_audit_suppressed_total",
                    "Rejects summed up instead of written one by one.",
                )?,
            )?,
            audit_failures: register(
                r,
                IntCounter::new("hookgate_audit_failures_total", "Records that could not be written.")?,
            )?,
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
        let name = of.source;
        let outcomes = OutcomeLabel::ALL.map(OutcomeLabel::as_str);
        Arc::new(SourceMetrics {
            requests: outcomes
                .iter()
                .map(|o| self.requests.with_label_values(&[name, of.provider, o]))
                .collect(),
            durations: outcomes.iter().map(|o| self.durations.with_label_values(&[name, o])).collect(),
            rejects: of
                .reasons
                .iter()
                .map(|reason| (*reason, self.rejects.with_label_values(&[name, reason])))
                .collect(),
            events: of
                .types
                .iter()
                .map(|kind| (*kind, self.events.with_label_values(&[name, kind])))
                .collect(),
            unmapped: self.events.with_label_values(&[name, "unmapped"]),
            secret_matches: (0..of.secrets)
                .map(|slot| self.secret_matches.with_label_values(&[name, &slot.to_string()]))
                .collect(),
            body_bytes: self.body_bytes.with_label_values(&[name]),
            conflicts: self.conflicts.with_label_values(&[name]),
            signature_age: self.signature_age.with_label_values(&[name]),
            last_accepted: self.last_accepted.with_label_values(&[name]),
            sequence_gaps: self.sequence_gaps.with_label_values(&[name]),
            dead: self.spool.dead.with_label_values(&[name]),
        })
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
        }
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
