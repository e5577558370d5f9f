//! The series of one source.
//!
//! Keeps true: a source's series are there from the start, at zero; their labels come from the config and from enums.

use std::collections::HashMap;
use std::sync::OnceLock;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

use super::labels::OutcomeLabel;
use super::{DURATIONS, SpoolMetrics, counters, histograms, register};

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
    /// `hookgate_last_accepted_timestamp_seconds`. None until it is known what an earlier run has left: until then it would be
    /// read as a long silence.
    last_accepted: OnceLock<Gauge>,
    /// `hookgate_sequence_gaps_total`.
    pub sequence_gaps: IntCounter,
    /// `hookgate_schema_drift_total`: fields and types that the provider's table does not know, each once.
    pub drift: IntCounter,
    /// `hookgate_unreadable_total`.
    pub unreadable: IntCounter,
    observed: HashMap<&'static str, IntCounter>,
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

    /// Counts what would have been refused for this reason, and was let in since the source only observes it.
    pub fn observed(&self, reason: &'static str) {
        if let Some(counter) = self.observed.get(reason) {
            counter.inc();
        }
    }

    /// Counts a forwarded event; a type outside the provider's table counts as `unmapped`.
    pub fn event(&self, kind: &str) {
        self.events.get(kind).unwrap_or(&self.unmapped).inc();
    }

    /// Notes an accepted event that came in at `received`, if none came in later; both in seconds of Unix time.
    pub fn accepted_at(&self, received: f64, now: f64) {
        let Some(last) = self.last_accepted.get() else { return };
        let before = last.get();
        // A time later than now comes from a clock that was wrong, and would hide a silence until then.
        if before < received || before > now {
            last.set(received);
        }
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
    /// The configured name, or [`UNKNOWN`](crate::label::UNKNOWN).
    pub source: &'a str,
    /// The provider's name, or [`UNKNOWN`](crate::label::UNKNOWN).
    pub provider: &'a str,
    /// How many secrets it has.
    pub secrets: usize,
    /// The canonical types its provider's table knows.
    pub types: &'a [&'static str],
    /// Every reject reason.
    pub reasons: &'a [&'static str],
    /// Those that it only observes, or did.
    pub observed: &'a [&'static str],
}

/// One of a source's series, by those of its labels that the config decides.
pub struct SourceSeries<'a> {
    /// The source's name.
    pub source: &'a str,
    /// Its provider's, where the series tells.
    pub provider: Option<&'a str>,
    /// The place of one of its secrets, where the series is of one.
    pub slot: Option<usize>,
}

/// Lets go of the series that `keep` says no to. Who still holds one counts on, for nobody.
pub(super) fn retain<B: MetricVecBuilder>(family: &MetricVec<B>, keep: &impl Fn(&SourceSeries<'_>) -> bool) {
    for series in family.collect().iter().flat_map(|family| family.get_metric()) {
        let labels: HashMap<&str, &str> =
            series.get_label().iter().map(|label| (label.name(), label.value())).collect();
        let Some(source) = labels.get("source") else { continue };
        let slot = labels.get("slot").and_then(|slot| slot.parse().ok());
        if !keep(&SourceSeries { source, provider: labels.get("provider").copied(), slot }) {
            // It was there a moment ago, and only a reload takes series away.
            let _ = family.remove(&labels);
        }
    }
}

/// The families that every source has series in.
pub(super) struct SourceFamilies {
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
    drift: IntCounterVec,
    unreadable: IntCounterVec,
    observed: IntCounterVec,
}

impl SourceFamilies {
    pub(super) fn new(r: &Registry) -> Result<SourceFamilies, prometheus::Error> {
        Ok(SourceFamilies {
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
                        "Unix time of the last accepted event; before the first one, of when the source was first served.",
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
            drift: counters(
                r,
                "hookgate_schema_drift_total",
                "Fields and types that the provider's table does not know, each counted once.",
                &["source"],
            )?,
            unreadable: counters(
                r,
                "hookgate_unreadable_total",
                "Events put in the queue whose body is no JSON object, as their bytes.",
                &["source"],
            )?,
            observed: counters(
                r,
                "hookgate_observed_total",
                "Requests let in that would have been refused, had the source not been set to observe.",
                &["source", "reason"],
            )?,
        })
    }

    /// Lets go of the series that `keep` says no to.
    pub(super) fn retain(&self, keep: &impl Fn(&SourceSeries<'_>) -> bool) {
        let counters = [
            &self.requests,
            &self.rejects,
            &self.events,
            &self.conflicts,
            &self.secret_matches,
            &self.sequence_gaps,
            &self.drift,
            &self.unreadable,
            &self.observed,
        ];
        for family in counters {
            retain(family, keep);
        }
        for family in [&self.durations, &self.body_bytes, &self.signature_age] {
            retain(family, keep);
        }
        retain(&self.last_accepted, keep);
    }

    /// Shows when the source last had an event accepted, from now on: at 0, unless it was shown before.
    pub(super) fn show_last_accepted(&self, source: &str, handles: &SourceMetrics) -> Gauge {
        handles.last_accepted.get_or_init(|| self.last_accepted.with_label_values(&[source])).clone()
    }

    /// One source's handles, its series at zero.
    pub(super) fn of(&self, of: &SourceLabels<'_>, spool: &SpoolMetrics) -> SourceMetrics {
        let name = of.source;
        let outcomes = OutcomeLabel::ALL.map(OutcomeLabel::as_str);
        SourceMetrics {
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
            drift: self.drift.with_label_values(&[name]),
            unreadable: self.unreadable.with_label_values(&[name]),
            observed: of
                .observed
                .iter()
                .map(|reason| (*reason, self.observed.with_label_values(&[name, reason])))
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
            last_accepted: OnceLock::new(),
            sequence_gaps: self.sequence_gaps.with_label_values(&[name]),
            dead: spool.dead.with_label_values(&[name]),
        }
    }
}

const BYTES: [f64; 8] = [256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 10_485_760.0];
const AGES: [f64; 13] = [-300.0, -60.0, -10.0, -1.0, 0.0, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0];

#[cfg(test)]
mod tests {
    use crate::metrics::{Metrics, SourceLabels};

    #[test]
    fn the_latest_event_counts_unless_it_is_of_a_clock_that_was_wrong() {
        let metrics = Metrics::new().unwrap();
        let source = metrics.source(&SourceLabels {
            source: "a",
            provider: "basiq",
            secrets: 0,
            types: &[],
            reasons: &[],
            observed: &[],
        });
        // Nothing is shown yet, and nothing is noted.
        source.accepted_at(5.0, 5.0);
        assert!(!metrics.render().unwrap().0.contains("hookgate_last_accepted"));
        let gauge = metrics.last_accepted("a", &source);
        for (received, now, last) in
            [(10.0, 10.0, 10.0), (7.0, 11.0, 10.0), (99.0, 99.0, 99.0), (12.0, 12.0, 12.0)]
        {
            source.accepted_at(received, now);
            assert_eq!(gauge.get(), last);
        }
    }
}
