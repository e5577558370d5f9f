//! Label values that are not names from the config. They are enums, so their number is known.

use crate::base::label::labels;

labels! {
    /// How a request ended, in `hookgate_requests_total`.
    pub enum OutcomeLabel {
        /// Now in the queue or the spool.
        Accepted = "accepted",
        /// The queue had it already.
        Duplicate = "duplicate",
        /// A provider's health check.
        Ignored = "ignored",
        /// A validation challenge answered.
        Handshake = "handshake",
        /// Refused.
        Rejected = "rejected",
    }
}

labels! {
    /// What became of an event that `reconcile` looked at, in `hookgate_reconciled_events_total`.
    pub enum ReconcileOutcome {
        /// Now in the queue or the spool.
        Accepted = "accepted",
        /// The queue had it already.
        Duplicate = "duplicate",
        /// The provider was asked to deliver it again.
        Retried = "retried",
        /// It never arrived, and the provider cannot give it.
        Missing = "missing",
        /// It could not be admitted or retried.
        Failed = "failed",
    }
}

labels! {
    /// Why an enqueue failed, in `hookgate_enqueue_failures_total`.
    pub enum EnqueueFailure {
        /// The queue refused the event.
        Refused = "refused",
        /// The queue was unreachable, and nothing was sent.
        Unreachable = "unreachable",
        /// No answer in time: the queue may have the event.
        Timeout = "timeout",
    }
}

labels! {
    /// How a request to an HTTP service ended, in `hookgate_http_posts_total`.
    pub enum PostOutcome {
        /// The service answered 2xx.
        Confirmed = "confirmed",
        /// The service does not want this event.
        Refused = "refused",
        /// The service may take the event later.
        NotNow = "not_now",
        /// There was no connection, and nothing was sent.
        Unreachable = "unreachable",
        /// No answer in time, or a broken one: the service may have the event.
        NoAnswer = "no_answer",
    }
}

labels! {
    /// How a TLS handshake ended, in `hookgate_tls_handshakes_total`. A handshake that the client left is not counted.
    pub enum TlsResult {
        /// The connection was established.
        Completed = "completed",
        /// The handshake ended with an alert.
        Failed = "failed",
        /// The handshake took too long.
        TimedOut = "timed_out",
    }
}

labels! {
    /// HTTP/2 errors, in `hookgate_http2_errors_total`: a refused stream, or a connection's error code.
    pub enum Http2Error {
        /// A refused stream: the request was malformed, its header list too large, or too many streams were open.
        Stream = "stream",
        /// A frame that is not allowed there.
        Protocol = "protocol",
        /// More data than the window allows.
        FlowControl = "flow_control",
        /// A frame of the wrong size.
        FrameSize = "frame_size",
        /// A header block that cannot be decoded.
        Compression = "compression",
        /// A flood of frames, streams or resets, or a header list far above its limit.
        EnhanceYourCalm = "enhance_your_calm",
        /// Any other code.
        Other = "other",
    }
}

labels! {
    /// How a reload ended, in `hookgate_config_reloads_total`.
    pub enum ReloadResult {
        /// The new config is in use.
        Applied = "applied",
        /// The new config has an error, so the old one stays in use.
        Refused = "refused",
    }
}
