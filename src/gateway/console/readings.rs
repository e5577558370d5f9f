//! The values of metrics, by their names.

use std::collections::HashMap;

use jiff::Timestamp;
use prometheus::proto::{Metric, MetricType};

use crate::observe::metrics::Metrics;

/// The series of some families at one moment.
pub(super) struct Readings(HashMap<String, Vec<Series>>);

/// One series.
pub(super) struct Series {
    labels: Vec<(String, String)>,
    /// Its value; of a histogram the sum.
    pub(super) value: f64,
    /// Of a histogram: the number of observations.
    pub(super) observations: u64,
}

impl Series {
    fn of(metric: &Metric, kind: MetricType) -> Series {
        let labels = metric.get_label().iter();
        let (value, observations) = match kind {
            MetricType::COUNTER => (metric.get_counter().get_value(), 0),
            MetricType::HISTOGRAM => {
                let histogram = metric.get_histogram();
                (histogram.get_sample_sum(), histogram.get_sample_count())
            }
            MetricType::GAUGE | MetricType::SUMMARY | MetricType::UNTYPED => {
                (metric.get_gauge().get_value(), 0)
            }
        };
        let labels = labels.map(|label| (label.name().to_owned(), label.value().to_owned())).collect();
        Series { labels, value, observations }
    }

    /// The value of a label; empty without it.
    pub(super) fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    fn fits(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(name, value)| self.label(name) == *value)
    }
}

impl Readings {
    /// Reads these families.
    pub(super) fn of(metrics: &Metrics, names: &[&str]) -> Readings {
        let mut readings = HashMap::new();
        for family in metrics.families() {
            let wanted = family.desc().first().is_some_and(|desc| names.contains(&desc.fq_name.as_str()));
            for read in wanted.then(|| family.collect()).into_iter().flatten() {
                let kind = read.get_field_type();
                let series = read.get_metric().iter().map(|metric| Series::of(metric, kind)).collect();
                readings.insert(read.name().to_owned(), series);
            }
        }
        Readings(readings)
    }

    /// The series of a family with these labels.
    pub(super) fn series<'r>(
        &'r self,
        name: &str,
        labels: &'r [(&'r str, &'r str)],
    ) -> impl Iterator<Item = &'r Series> {
        self.0.get(name).into_iter().flatten().filter(|series| series.fits(labels))
    }

    /// The sum of the series with these labels, as a count.
    pub(super) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        count(self.series(name, labels).map(|series| series.value).sum())
    }

    /// The count of a family without labels.
    pub(super) fn count(&self, name: &str) -> u64 {
        self.sum(name, &[])
    }

    /// The value of a family without labels.
    pub(super) fn value(&self, name: &str) -> f64 {
        self.series(name, &[]).map(|series| series.value).sum()
    }

    /// The sums for each value of a label that are not zero, the largest first.
    pub(super) fn by(&self, name: &str, labels: &[(&str, &str)], label: &str) -> Vec<(String, u64)> {
        let mut sums: HashMap<&str, f64> = HashMap::new();
        for series in self.series(name, labels) {
            *sums.entry(series.label(label)).or_default() += series.value;
        }
        let mut sums: Vec<(String, u64)> =
            sums.into_iter().map(|(label, sum)| (label.to_owned(), count(sum))).collect();
        sums.retain(|(_, sum)| *sum > 0);
        sums.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        sums
    }

    /// A gauge of Unix seconds as a moment; none if it is absent or 0.
    pub(super) fn moment(&self, name: &str, labels: &[(&str, &str)]) -> Option<Timestamp> {
        let seconds = self.series(name, labels).next()?.value;
        let at = Timestamp::from_microsecond((seconds * 1e6) as i64).ok()?;
        (seconds > 0.0).then_some(at)
    }
}

/// Counters and gauges of counts are whole numbers from 0.
pub(super) fn count(value: f64) -> u64 {
    value.max(0.0) as u64
}

/// The metrics that the console shows. `process_*` and the other histograms are not read.
pub(super) const WANTED: [&str; 36] = [
    "hookgate_requests_total",
    "hookgate_rejects_total",
    "hookgate_events_total",
    "hookgate_conflicts_total",
    "hookgate_observed_total",
    "hookgate_unreadable_total",
    "hookgate_schema_drift_total",
    "hookgate_sequence_gaps_total",
    "hookgate_spool_dead_total",
    "hookgate_secret_matches_total",
    "hookgate_last_accepted_timestamp_seconds",
    "hookgate_reconcile_last_success_timestamp_seconds",
    "hookgate_subscription_drift",
    "hookgate_requests_in_flight",
    "hookgate_connections",
    "hookgate_unsafe_settings",
    "hookgate_config_loaded_timestamp_seconds",
    "hookgate_config_reloads_total",
    "hookgate_audit_records_total",
    "hookgate_audit_suppressed_total",
    "hookgate_audit_failures_total",
    "hookgate_quarantine_requests",
    "hookgate_quarantine_bytes",
    "hookgate_spool_events",
    "hookgate_spool_bytes",
    "hookgate_spool_max_bytes",
    "hookgate_spool_oldest_age_seconds",
    "hookgate_spool_dead_events",
    "hookgate_enqueue_batch_events",
    "hookgate_enqueue_duration_seconds",
    "hookgate_enqueue_failures_total",
    "hookgate_http_posts_total",
    STREAM_EVENTS,
    STREAM_LIMIT,
    GROUP_LAG,
    GROUP_AGE,
];
pub(super) const STREAM_EVENTS: &str = "hookgate_queue_backlog_events";
pub(super) const STREAM_LIMIT: &str = "hookgate_queue_max_backlog_events";
pub(super) const GROUP_LAG: &str = "hookgate_consumer_group_lag_events";
pub(super) const GROUP_AGE: &str = "hookgate_consumer_group_oldest_age_seconds";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wanted_metric_exists() {
        let metrics = Metrics::new().unwrap();
        let known: Vec<String> = metrics.families().map(|family| family.desc()[0].fq_name.clone()).collect();
        for name in WANTED {
            assert!(known.iter().any(|known| known == name), "{name}");
        }
    }
}
