//! The reject log's series, and those of what ships it.
//!
//! Keeps true: no series has a label.

use prometheus::{IntCounter, IntGauge, Registry};

use super::register;

/// What the reject log and its shipper feed.
#[derive(Clone)]
pub struct AuditMetrics {
    /// `hookgate_audit_records_total`: anchors are not among them.
    pub records: IntCounter,
    /// `hookgate_audit_suppressed_total`: rejects summed into another record.
    pub suppressed: IntCounter,
    /// `hookgate_audit_failures_total`: records that could not be written, and starts that found the log cut or changed.
    pub failures: IntCounter,
    /// `hookgate_audit_head_failures_total`: attempts to note the log's head in the database that failed.
    pub head_failures: IntCounter,
    /// `hookgate_audit_anchors_total`.
    pub anchors: IntCounter,
    /// `hookgate_audit_shipped_total`: anchors are among them, and what was sent again is counted again.
    pub shipped: IntCounter,
    /// `hookgate_audit_ship_failures_total`: attempts, of any number of records.
    pub ship_failures: IntCounter,
    /// `hookgate_audit_ship_lost_total`: records that can never be shipped.
    pub ship_lost: IntCounter,
    /// `hookgate_audit_ship_lag_records`.
    pub ship_lag: IntGauge,
}

impl AuditMetrics {
    pub(super) fn new(registry: &Registry) -> Result<AuditMetrics, prometheus::Error> {
        let counter = |name, help| register(registry, IntCounter::new(name, help)?);
        Ok(AuditMetrics {
            records: counter("hookgate_audit_records_total", "Records written to the reject log.")?,
            suppressed: counter(
                "hookgate_audit_suppressed_total",
                "Rejects summed up instead of written one by one.",
            )?,
            failures: counter(
                "hookgate_audit_failures_total",
                "Records that could not be written, and starts that found the reject log cut or changed.",
            )?,
            head_failures: counter(
                "hookgate_audit_head_failures_total",
                "Failed attempts to note the reject log's head in the database.",
            )?,
            anchors: counter("hookgate_audit_anchors_total", "Signed anchors written to the reject log.")?,
            shipped: counter(
                "hookgate_audit_shipped_total",
                "Lines of the reject log that the receiver took, anchors included.",
            )?,
            ship_failures: counter(
                "hookgate_audit_ship_failures_total",
                "Attempts to reach the receiver of the reject log that failed.",
            )?,
            ship_lost: counter(
                "hookgate_audit_ship_lost_total",
                "Lines deleted or unreadable before they were shipped, or too long for the receiver.",
            )?,
            ship_lag: register(
                registry,
                IntGauge::new(
                    "hookgate_audit_ship_lag_records",
                    "Lines written that the receiver has not taken; those deleted since are told as lost when it takes the next.",
                )?,
            )?,
        })
    }
}
