//! The label values that are not names from the config: enums, so that their number is known.

/// How a request ended, as `hookgate_requests_total` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum OutcomeLabel {
    /// In the queue now.
    Accepted,
    /// Was there already.
    Duplicate,
    /// A provider's health check.
    Ignored,
    /// A validation challenge answered.
    Handshake,
    /// Refused.
    Rejected,
}

impl OutcomeLabel {
    /// All of them, in order of discriminant.
    pub const ALL: [OutcomeLabel; 5] = [
        OutcomeLabel::Accepted,
        OutcomeLabel::Duplicate,
        OutcomeLabel::Ignored,
        OutcomeLabel::Handshake,
        OutcomeLabel::Rejected,
    ];

    /// The label's text.
    pub fn as_str(self) -> &'static str {
        match self {
            OutcomeLabel::Accepted => "accepted",
            OutcomeLabel::Duplicate => "duplicate",
            OutcomeLabel::Ignored => "ignored",
            OutcomeLabel::Handshake => "handshake",
            OutcomeLabel::Rejected => "rejected",
        }
    }
}

/// Why an enqueue failed, as `hookgate_enqueue_failures_total` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum EnqueueFailure {
    /// The queue answered, and said no.
    Refused,
    /// The queue could not be reached: nothing was sent.
    Unreachable,
    /// No answer in time: whether it is in is not known.
    Timeout,
}

impl EnqueueFailure {
    /// All of them with their texts, in order of discriminant.
    pub(super) const ALL: [(EnqueueFailure, &'static str); 3] = [
        (EnqueueFailure::Refused, "refused"),
        (EnqueueFailure::Unreachable, "unreachable"),
        (EnqueueFailure::Timeout, "timeout"),
    ];
}
