//! Metrics of the spool, except those of a source.

use prometheus::{Gauge, IntGauge};

use super::family::metrics;

metrics! {
    /// Updated by the spool.
    #[derive(Clone)]
    pub struct SpoolMetrics from SpoolFamilies for () {
        /// Events that wait for the queue on disk.
        pub events: IntGauge = "hookgate_spool_events";
        /// Bytes that the spool holds, dead letters included.
        pub bytes: IntGauge = "hookgate_spool_bytes";
        /// Bytes that the spool may hold; 0 without a spool.
        pub max_bytes: IntGauge = "hookgate_spool_max_bytes";
        /// How long the oldest event in the spool has waited; 0 for none.
        pub oldest_age: Gauge = "hookgate_spool_oldest_age_seconds";
        /// Dead letters kept.
        pub dead_events: IntGauge = "hookgate_spool_dead_events";
    }
}
