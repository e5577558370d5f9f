//! The outcomes of a request, and the refusal reason of each error.
//!
//! Keeps true: the matches are exhaustive, so a new error does not compile until it has a reason.

use hyper::StatusCode;
use hyper::header::HeaderValue;

use crate::base::reason::Reason;
use crate::durable::inbox::EnqueueError;
use crate::observe::metrics::OutcomeLabel;
use crate::provider::PayloadError;
use crate::provider::signature::SignatureError;

/// How a request ended.
#[derive(Debug)]
pub enum Outcome {
    /// The event is durable: in the queue or in the spool.
    Accepted {
        /// The event's id.
        id: String,
    },
    /// The event was accepted before, or is a conflict that the source drops.
    Duplicate {
        /// The id of the event accepted before.
        id: String,
    },
    /// The delivery held several events, and every one of them is durable.
    AcceptedAll {
        /// The events' ids, in the delivery's order.
        ids: Vec<String>,
        /// Whether any of them is new.
        any_new: bool,
    },
    /// A provider's health check, or an empty list of events.
    Ignored,
    /// A validation request before the first delivery.
    Handshake {
        /// The answer's status.
        status: StatusCode,
        /// The answer's headers.
        headers: Vec<(&'static str, HeaderValue)>,
        /// The answer's body.
        body: String,
    },
    /// Refused.
    Rejected(Rejection),
    /// The client closed the connection before its request was complete. Nothing is answered or counted.
    ClientGone,
}

impl Outcome {
    /// An answer to a validation request that has headers alone.
    pub fn handshake(headers: Vec<(&'static str, HeaderValue)>) -> Outcome {
        Outcome::Handshake { status: StatusCode::OK, headers, body: String::new() }
    }

    /// The label in `hookgate_requests_total`; none if the outcome is not counted.
    pub fn label(&self) -> Option<OutcomeLabel> {
        match self {
            Outcome::Accepted { .. } => Some(OutcomeLabel::Accepted),
            Outcome::Duplicate { .. } => Some(OutcomeLabel::Duplicate),
            Outcome::AcceptedAll { any_new: true, .. } => Some(OutcomeLabel::Accepted),
            Outcome::AcceptedAll { any_new: false, .. } => Some(OutcomeLabel::Duplicate),
            Outcome::Ignored => Some(OutcomeLabel::Ignored),
            Outcome::Handshake { .. } => Some(OutcomeLabel::Handshake),
            Outcome::Rejected(_) => Some(OutcomeLabel::Rejected),
            Outcome::ClientGone => None,
        }
    }
}

/// A refusal.
#[derive(Debug)]
pub struct Rejection {
    /// The reason, which the client sees.
    pub reason: Reason,
    /// The status, where it is not the reason's own.
    pub status: Option<StatusCode>,
    /// The finding, for the record alone. It never holds a secret, a digest or a body.
    pub detail: String,
}

impl Rejection {
    /// A refusal.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Rejection {
        Rejection { reason, status: None, detail: detail.into() }
    }

    /// The status of its answer.
    pub fn status(&self) -> StatusCode {
        self.status.unwrap_or(self.reason.status())
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
            | EnqueueError::Rejected(_)
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
