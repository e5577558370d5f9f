//! How a request ends, and which reason each error is refused with.
//!
//! Keeps true: the matches are total, so a new error does not compile until it has a reason.

use hyper::header::HeaderValue;

use crate::base::reason::Reason;
use crate::durable::inbox::EnqueueError;
use crate::observe::metrics::OutcomeLabel;
use crate::provider::PayloadError;
use crate::provider::signature::SignatureError;

/// How a request ended.
#[derive(Debug)]
pub enum Outcome {
    /// In the queue, durably.
    Accepted {
        /// The event's id.
        id: String,
    },
    /// Was in the queue already, or is a conflict that the source drops.
    Duplicate {
        /// The id it entered under.
        id: String,
    },
    /// A provider's health check.
    Ignored,
    /// A question before the first delivery, answered.
    Handshake {
        /// The answer.
        headers: Vec<(&'static str, HeaderValue)>,
    },
    /// Refused.
    Rejected(Rejection),
    /// The client went away before its request was whole: there is nobody to answer, and nothing to count.
    HungUp,
}

impl Outcome {
    /// The label of `hookgate_requests_total`; none where nothing is counted.
    pub fn label(&self) -> Option<OutcomeLabel> {
        match self {
            Outcome::Accepted { .. } => Some(OutcomeLabel::Accepted),
            Outcome::Duplicate { .. } => Some(OutcomeLabel::Duplicate),
            Outcome::Ignored => Some(OutcomeLabel::Ignored),
            Outcome::Handshake { .. } => Some(OutcomeLabel::Handshake),
            Outcome::Rejected(_) => Some(OutcomeLabel::Rejected),
            Outcome::HungUp => None,
        }
    }
}

/// A refusal: its reason, and what the record says besides. The detail never reaches the client.
#[derive(Debug)]
pub struct Rejection {
    /// Why.
    pub reason: Reason,
    /// For the record: what was found. Never a secret, a digest or a body.
    pub detail: String,
}

impl Rejection {
    /// A refusal.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Rejection {
        Rejection { reason, detail: detail.into() }
    }
}

impl From<SignatureError> for Rejection {
    fn from(error: SignatureError) -> Rejection {
        let reason = match error {
            SignatureError::Missing(_) => Reason::SignatureMissing,
            SignatureError::Malformed(..) | SignatureError::NoSignature(..) => Reason::SignatureMalformed,
            SignatureError::Mismatch { .. } | SignatureError::OldVersion => Reason::SignatureMismatch,
            SignatureError::OutsideTolerance { .. } => Reason::TimestampOutsideTolerance,
        };
        Rejection::new(reason, error.to_string())
    }
}

impl From<PayloadError> for Rejection {
    fn from(error: PayloadError) -> Rejection {
        let reason = match error {
            PayloadError::Empty
            | PayloadError::NotUtf8 { .. }
            | PayloadError::ByteOrderMark
            | PayloadError::NotJson { .. }
            | PayloadError::TooDeep
            | PayloadError::LoneSurrogate => Reason::PayloadNotJson,
            PayloadError::NotObject => Reason::PayloadInvalid,
        };
        Rejection::new(reason, error.to_string())
    }
}

impl From<EnqueueError> for Rejection {
    fn from(error: EnqueueError) -> Rejection {
        let reason = match error {
            EnqueueError::Refused(_)
            | EnqueueError::Unroutable(_)
            | EnqueueError::Unacceptable(_)
            | EnqueueError::Unreachable
            | EnqueueError::Unknown
            | EnqueueError::Unclear(_) => Reason::QueueUnavailable,
            EnqueueError::Overloaded => Reason::Overloaded,
            EnqueueError::InProgress => Reason::InProgress,
        };
        Rejection::new(reason, error.to_string())
    }
}
