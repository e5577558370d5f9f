//! The label values that are not names from the config: enums, so that their number is known.

use crate::base::label::labels;

labels! {
    /// How a request ended, as `hookgate_requests_total` tells it.
    pub enum OutcomeLabel {
        /// In the queue now.
        Accepted = "accepted",
        /// Was there already.
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
    /// Why an enqueue failed, as `hookgate_enqueue_failures_total` tells it.
    pub enum EnqueueFailure {
        /// The queue answered, and said no.
        Refused = "refused",
        /// The queue could not be reached: nothing was sent.
        Unreachable = "unreachable",
        /// No answer in time: whether it is in is not known.
        Timeout = "timeout",
    }
}

labels! {
    /// How a TLS handshake ended, as `hookgate_tls_handshakes_total` tells it. One that the client left counts nowhere.
    pub enum TlsResult {
        /// With a connection.
        Completed = "completed",
        /// With an alert.
        Failed = "failed",
        /// Not in time.
        TimedOut = "timed_out",
    }
}

labels! {
    /// What HTTP/2 itself refused, as `hookgate_http2_errors_total` tells it: a stream, or a connection by its error code.
    pub enum Http2Error {
        /// A stream: its request was malformed, its header list too large, or too many were open.
        Stream = "stream",
        /// A frame that cannot be there.
        Protocol = "protocol",
        /// More than a window allows.
        FlowControl = "flow_control",
        /// A frame of a wrong size.
        FrameSize = "frame_size",
        /// A head that cannot be decoded.
        Compression = "compression",
        /// A flood of frames, streams or resets, or a header list far over its limit.
        EnhanceYourCalm = "enhance_your_calm",
        /// Any other code.
        Other = "other",
    }
}

labels! {
    /// How a reload of the config ended, as `hookgate_config_reloads_total` tells it.
    pub enum ReloadResult {
        /// The gateway serves by the new config.
        Applied = "applied",
        /// The new config has an error, and the gateway serves by the old one.
        Refused = "refused",
    }
}
