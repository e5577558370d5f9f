//! The quarantine's series.
//!
//! Keeps true: a source's series are at zero from the start of a quarantine that serves it until a
//! reload takes the source away.

use prometheus::{IntCounter, IntGauge};

use super::family::{Open, metrics};

metrics! {
    /// What the quarantine feeds.
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
    /// Puts a source's series at zero, if they are not there yet.
    pub fn source(&self, source: &str) {
        for counters in [&self.kept, &self.dropped, &self.admitted] {
            let _ = counters.at(&[source]);
        }
    }

    /// One was kept.
    pub fn kept(&self, source: &str) {
        self.kept.at(&[source]).inc();
    }

    /// One was not kept, or pushed out.
    pub fn dropped(&self, source: &str) {
        self.dropped.at(&[source]).inc();
    }

    /// One entered the queue after all.
    pub fn admitted(&self, source: &str) {
        self.admitted.at(&[source]).inc();
    }
}
