//! The quarantine's series.
//!
//! Keeps true: a source's series are at zero from the start of a quarantine that serves it until a
//! reload takes the source away; their label is the source's name.

use prometheus::{IntCounterVec, IntGauge, Registry};

use super::source::{SourceSeries, retain};
use super::{counters, register};

/// What the quarantine feeds.
#[derive(Clone)]
pub struct QuarantineMetrics {
    kept: IntCounterVec,
    dropped: IntCounterVec,
    admitted: IntCounterVec,
    /// `hookgate_quarantine_requests`.
    pub requests: IntGauge,
    /// `hookgate_quarantine_bytes`: as held against `max_bytes`.
    pub bytes: IntGauge,
}

impl QuarantineMetrics {
    pub(super) fn new(r: &Registry) -> Result<QuarantineMetrics, prometheus::Error> {
        let by_source = |name, help| counters(r, name, help, &["source"]);
        Ok(QuarantineMetrics {
            kept: by_source("hookgate_quarantine_kept_total", "Refused requests that were kept.")?,
            dropped: by_source(
                "hookgate_quarantine_dropped_total",
                "Refused requests that were not kept, or were pushed out by others.",
            )?,
            admitted: by_source(
                "hookgate_quarantine_admitted_total",
                "Kept requests that entered the queue after all.",
            )?,
            requests: register(
                r,
                IntGauge::new("hookgate_quarantine_requests", "Refused requests that are kept.")?,
            )?,
            bytes: register(
                r,
                IntGauge::new("hookgate_quarantine_bytes", "What the kept requests take of max_bytes.")?,
            )?,
        })
    }

    /// Puts a source's series at zero, if they are not there yet.
    pub fn source(&self, source: &str) {
        for family in self.families() {
            let _ = family.with_label_values(&[source]);
        }
    }

    /// Lets go of the series that `keep` says no to.
    pub(super) fn retain(&self, keep: &impl Fn(&SourceSeries<'_>) -> bool) {
        for family in self.families() {
            retain(family, keep);
        }
    }

    fn families(&self) -> [&IntCounterVec; 3] {
        [&self.kept, &self.dropped, &self.admitted]
    }

    /// One was kept.
    pub fn kept(&self, source: &str) {
        self.kept.with_label_values(&[source]).inc();
    }

    /// One was not kept, or pushed out.
    pub fn dropped(&self, source: &str) {
        self.dropped.with_label_values(&[source]).inc();
    }

    /// One entered the queue after all.
    pub fn admitted(&self, source: &str) {
        self.admitted.with_label_values(&[source]).inc();
    }
}
