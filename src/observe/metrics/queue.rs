//! Metrics of a queue, its streams and their consumer groups.
//!
//! Keeps true: a deleted stream or group has no series. The caller bounds the number of groups.

use std::time::Duration;

use prometheus::{Gauge, Histogram, IntCounter, IntGauge};

use super::DURATIONS;
use super::family::{By, Open, metrics};
use super::labels::EnqueueFailure;

/// Labels of a queue's series.
pub(super) struct QueueLabels {
    /// The queue's kind.
    pub(super) queue: &'static str,
}

metrics! {
    /// Updated by an inbox.
    #[derive(Clone)]
    pub struct QueueMetrics from QueueFamilies for QueueLabels {
        /// Seconds of a batch's durable write, from hand-over to confirmation.
        pub duration: Histogram = "hookgate_enqueue_duration_seconds" of queue with DURATIONS;
        /// Events in a durable write.
        pub batch: Histogram = "hookgate_enqueue_batch_events" of queue with BATCHES;
        /// Events that could not be enqueued.
        failures: By<EnqueueFailure, IntCounter> = "hookgate_enqueue_failures_total" of queue by kind;
        /// 1 while the queue takes events.
        pub up: IntGauge = "hookgate_queue_up" of queue;
        /// 1 while the queue answers, but has no room, or one of its streams has none.
        pub full: IntGauge = "hookgate_queue_full" of queue;
        /// A stream's length.
        events: Open<IntGauge> = "hookgate_queue_backlog_events" of queue by stream;
        /// The bound of a stream's length.
        max_events: Open<IntGauge> = "hookgate_queue_max_backlog_events" of queue by stream;
        /// Events of a stream that the group has not acknowledged.
        lag: Open<IntGauge> = "hookgate_consumer_group_lag_events" by stream, group;
        /// Age of the oldest event that the group has not acknowledged; 0 for none.
        oldest_age: Open<Gauge> = "hookgate_consumer_group_oldest_age_seconds" by stream, group;
    }
}

impl QueueMetrics {
    /// Counts events that could not be enqueued.
    pub fn failed(&self, kind: EnqueueFailure, events: usize) {
        self.failures.at(kind).inc_by(events as u64);
    }

    /// Sets a stream's length and its limit.
    pub fn stream(&self, stream: &str, events: u64, max: u64) {
        self.events.at(&[stream]).set(number(events));
        self.max_events.at(&[stream]).set(number(max));
    }

    /// Removes a stream's series.
    pub fn no_stream(&self, stream: &str) {
        self.events.remove(&[stream]);
        self.max_events.remove(&[stream]);
    }

    /// Sets how many events of a stream a group has not acknowledged, and the age of the oldest.
    pub fn group(&self, stream: &str, group: &str, lag: u64, oldest: Duration) {
        self.lag.at(&[stream, group]).set(number(lag));
        self.oldest_age.at(&[stream, group]).set(oldest.as_secs_f64());
    }

    /// Removes a group's series.
    pub fn no_group(&self, stream: &str, group: &str) {
        self.lag.remove(&[stream, group]);
        self.oldest_age.remove(&[stream, group]);
    }
}

fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

const BATCHES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];
