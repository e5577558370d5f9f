//! The series of a queue's streams, and of their consumer groups.
//!
//! Keeps true: a stream or a group that is gone has none; how many groups have their own is for the caller to bound.

use std::time::Duration;

use prometheus::{GaugeVec, IntGaugeVec, Opts, Registry};

use super::{gauge_vec, register};

/// The gauges of a queue's streams and consumer groups.
#[derive(Clone)]
pub struct BacklogMetrics {
    queue: &'static str,
    events: IntGaugeVec,
    max_events: IntGaugeVec,
    lag: IntGaugeVec,
    oldest_age: GaugeVec,
}

impl BacklogMetrics {
    pub(super) fn new(r: &Registry) -> Result<BacklogMetrics, prometheus::Error> {
        let by_stream = |name, help| gauge_vec(r, name, help, &["queue", "stream"]);
        let oldest = Opts::new(
            "hookgate_consumer_group_oldest_age_seconds",
            "How long the oldest event has waited that the group has not acknowledged; 0 for none.",
        );
        Ok(BacklogMetrics {
            queue: "",
            events: by_stream("hookgate_queue_backlog_events", "A stream's length.")?,
            max_events: by_stream("hookgate_queue_max_backlog_events", "The bound of a stream's length.")?,
            lag: gauge_vec(
                r,
                "hookgate_consumer_group_lag_events",
                "Events of a stream that the group has not acknowledged.",
                &["stream", "group"],
            )?,
            oldest_age: register(r, GaugeVec::new(oldest, &["stream", "group"])?)?,
        })
    }

    pub(super) fn of(&self, queue: &'static str) -> BacklogMetrics {
        BacklogMetrics { queue, ..self.clone() }
    }

    /// A stream is so long, and may get so long.
    pub fn stream(&self, stream: &str, events: u64, max: u64) {
        let number = |n| i64::try_from(n).unwrap_or(i64::MAX);
        self.events.with_label_values(&[self.queue, stream]).set(number(events));
        self.max_events.with_label_values(&[self.queue, stream]).set(number(max));
    }

    /// There is no such stream.
    pub fn no_stream(&self, stream: &str) {
        for family in [&self.events, &self.max_events] {
            let _ = family.remove_label_values(&[self.queue, stream]);
        }
    }

    /// A group has not acknowledged so many events of a stream, of which the oldest is so old.
    pub fn group(&self, stream: &str, group: &str, lag: u64, oldest: Duration) {
        self.lag.with_label_values(&[stream, group]).set(i64::try_from(lag).unwrap_or(i64::MAX));
        self.oldest_age.with_label_values(&[stream, group]).set(oldest.as_secs_f64());
    }

    /// There is no such group.
    pub fn no_group(&self, stream: &str, group: &str) {
        let _ = self.lag.remove_label_values(&[stream, group]);
        let _ = self.oldest_age.remove_label_values(&[stream, group]);
    }
}
