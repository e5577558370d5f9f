//! The reject log's series, and those of what ships it.

use prometheus::{IntCounter, IntGauge};

use super::family::metrics;

metrics! {
    /// What the reject log and its shipper feed.
    #[derive(Clone)]
    pub struct AuditMetrics from AuditFamilies for () {
        /// Records written to the reject log, without anchors.
        pub records: IntCounter = "hookgate_audit_records_total";
        /// Rejects summed up in another record instead of written one by one.
        pub suppressed: IntCounter = "hookgate_audit_suppressed_total";
        /// Records that could not be written, and starts that found the reject log cut or changed.
        pub failures: IntCounter = "hookgate_audit_failures_total";
        /// Failed attempts to note the reject log's head in the database.
        pub head_failures: IntCounter = "hookgate_audit_head_failures_total";
        /// Signed anchors written to the reject log.
        pub anchors: IntCounter = "hookgate_audit_anchors_total";
        /// Lines of the reject log that the receiver took, anchors included; a line sent again counts again.
        pub shipped: IntCounter = "hookgate_audit_shipped_total";
        /// Attempts to reach the receiver of the reject log that failed.
        pub ship_failures: IntCounter = "hookgate_audit_ship_failures_total";
        /// Lines deleted or unreadable before they were shipped, or too long for the receiver.
        pub ship_lost: IntCounter = "hookgate_audit_ship_lost_total";
        /// Lines that the receiver has not taken yet. A line deleted meanwhile counts until the receiver takes the next one.
        pub ship_lag: IntGauge = "hookgate_audit_ship_lag_records";
    }
}
