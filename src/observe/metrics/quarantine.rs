//! Metrics of the quarantine.
//!
//! Keeps true: a source's series exist, from zero, while the quarantine serves the source; a reload that removes the
//! source removes them.

use prometheus::{IntCounter, IntGauge};

use super::family::{Open, metrics};

metrics! {
    /// Updated by the quarantine.
    #[derive(Clone)]
    pub struct QuarantineMetrics from QuarantineFamilies for () {
        /// Refused requests that were kept.
        kept: Open<IntCounter> = "hookgate_quarantine_kept_total" by source;
        /// Refused requests that were not kept, or were pushed out by others.
        dropped: Open<IntCounter> = "hookgate_quarantine_dropped_total" by source;
        /// Kept requests that entered the queue after all.
        admitted: Open<IntCounter> = "hookgate_quarantine_admitted_total" by source;
        /// Refused requests that are kept.
        pub requests: IntGauge = "hookgate_quarantine_requests";
        /// Bytes that the kept requests take of `quarantine.max_bytes`.
        pub bytes: IntGauge = "hookgate_quarantine_bytes";
    }
}

impl QuarantineMetrics {
    /// Creates a source's series at zero, if they are missing.
    pub fn source(&self, source: &str) {
        for counters in [&self.kept, &self.dropped, &self.admitted] {
            let _ = counters.at(&[source]);
        }
    }

    /// Counts a kept request.
    pub fn kept(&self, source: &str) {
        self.kept.at(&[source]).inc();
    }

    /// Counts a request that was not kept, or was deleted to make room.
    pub fn dropped(&self, source: &str) {
        self.dropped.at(&[source]).inc();
    }

    /// Counts a request that entered the queue after all.
    pub fn admitted(&self, source: &str) {
        self.admitted.at(&[source]).inc();
    }
}
