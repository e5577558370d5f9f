//! Metrics of the reject log.

use prometheus::IntCounter;

use super::family::metrics;

metrics! {
    /// Updated by the reject log.
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
    }
}
