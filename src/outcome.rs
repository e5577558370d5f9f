//! How a request ends: one enum, and every reason for a refusal with its status, label and title.
//!
//! Keeps true: the matches are total, so a new reason does not compile until it has all of them; a fault of ours never has a
//! status that makes a provider give up.

use hyper::StatusCode;
use hyper::header::HeaderValue;

use crate::inbox::Unavailable;
use crate::metrics::OutcomeLabel;
use crate::provider::PayloadError;
use crate::signature::SignatureError;

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

/// Why a request is refused, as metrics and the reject log name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No source has this path.
    UnknownPath,
    /// A source has this path, with another token.
    PathTokenMismatch,
    /// Not POST (or GET or OPTIONS, where there is a handshake).
    MethodNotAllowed,
    /// The client's address is outside `allow_ips`.
    ClientNotAllowed,
    /// Over the source's rate, or the client's.
    RateLimited,
    /// Over `max_body`.
    BodyTooLarge,
    /// The body took longer than `body_timeout`.
    BodyTimeout,
    /// A validation challenge without a usable key.
    HandshakeInvalid,
    /// A signing header is missing.
    SignatureMissing,
    /// A signing header cannot be read.
    SignatureMalformed,
    /// No secret made the signature.
    SignatureMismatch,
    /// Signed too long ago, or too far ahead.
    TimestampOutsideTolerance,
    /// A subscription that the source does not list.
    SubscriptionNotAllowed,
    /// The body is no JSON.
    PayloadNotJson,
    /// The body is JSON, but no object.
    PayloadInvalid,
    /// An encoded body.
    UnsupportedEncoding,
    /// A head, or the first bytes of a connection, that did not come in time.
    HeaderTimeout,
    /// A TLS handshake that failed or did not end in time: nothing was answered.
    TlsHandshakeFailed,
    /// Not HTTP, or a broken chunked body.
    HttpMalformed,
    /// A head over the limits.
    HeadersTooLarge,
    /// Too much at once.
    Overloaded,
    /// Another delivery of the same event is between claim and confirm.
    InProgress,
    /// Nothing durable could take the event.
    QueueUnavailable,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Reason; 23] = [
        Reason::UnknownPath,
        Reason::PathTokenMismatch,
        Reason::MethodNotAllowed,
        Reason::ClientNotAllowed,
        Reason::RateLimited,
        Reason::BodyTooLarge,
        Reason::BodyTimeout,
        Reason::HandshakeInvalid,
        Reason::SignatureMissing,
        Reason::SignatureMalformed,
        Reason::SignatureMismatch,
        Reason::TimestampOutsideTolerance,
        Reason::SubscriptionNotAllowed,
        Reason::PayloadNotJson,
        Reason::PayloadInvalid,
        Reason::UnsupportedEncoding,
        Reason::HeaderTimeout,
        Reason::TlsHandshakeFailed,
        Reason::HttpMalformed,
        Reason::HeadersTooLarge,
        Reason::Overloaded,
        Reason::InProgress,
        Reason::QueueUnavailable,
    ];

    /// The label in metrics and in the reject log.
    pub fn label(self) -> &'static str {
        match self {
            Reason::UnknownPath => "unknown_path",
            Reason::PathTokenMismatch => "path_token_mismatch",
            Reason::MethodNotAllowed => "method_not_allowed",
            Reason::ClientNotAllowed => "client_not_allowed",
            Reason::RateLimited => "rate_limited",
            Reason::BodyTooLarge => "body_too_large",
            Reason::BodyTimeout => "body_timeout",
            Reason::HandshakeInvalid => "handshake_invalid",
            Reason::SignatureMissing => "signature_missing",
            Reason::SignatureMalformed => "signature_malformed",
            Reason::SignatureMismatch => "signature_mismatch",
            Reason::TimestampOutsideTolerance => "timestamp_outside_tolerance",
            Reason::SubscriptionNotAllowed => "subscription_not_allowed",
            Reason::PayloadNotJson => "payload_not_json",
            Reason::PayloadInvalid => "payload_invalid",
            Reason::UnsupportedEncoding => "unsupported_encoding",
            Reason::HeaderTimeout => "header_timeout",
            Reason::TlsHandshakeFailed => "tls_handshake_failed",
            Reason::HttpMalformed => "http_malformed",
            Reason::HeadersTooLarge => "headers_too_large",
            Reason::Overloaded => "overloaded",
            Reason::InProgress => "in_progress",
            Reason::QueueUnavailable => "queue_unavailable",
        }
    }

    /// The status it is answered with.
    pub fn status(self) -> StatusCode {
        match self {
            Reason::UnknownPath | Reason::PathTokenMismatch => StatusCode::NOT_FOUND,
            Reason::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Reason::ClientNotAllowed | Reason::SubscriptionNotAllowed => StatusCode::FORBIDDEN,
            Reason::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Reason::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Reason::BodyTimeout | Reason::HeaderTimeout => StatusCode::REQUEST_TIMEOUT,
            Reason::HandshakeInvalid
            | Reason::PayloadNotJson
            | Reason::PayloadInvalid
            | Reason::TlsHandshakeFailed
            | Reason::HttpMalformed => StatusCode::BAD_REQUEST,
            Reason::SignatureMissing
            | Reason::SignatureMalformed
            | Reason::SignatureMismatch
            | Reason::TimestampOutsideTolerance => StatusCode::UNAUTHORIZED,
            Reason::UnsupportedEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Reason::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Reason::Overloaded | Reason::InProgress | Reason::QueueUnavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// The reason in the client's answer. A wrong token is answered as an unknown path: else the answer would confirm the path.
    pub fn told(self) -> Reason {
        if self == Reason::PathTokenMismatch { Reason::UnknownPath } else { self }
    }

    /// The title of a problem with this reason. An unknown path and a wrong token read the same.
    pub fn title(self) -> &'static str {
        match self {
            Reason::UnknownPath | Reason::PathTokenMismatch => "Not found",
            Reason::MethodNotAllowed => "Method not allowed",
            Reason::ClientNotAllowed => "Client not allowed",
            Reason::RateLimited => "Too many requests",
            Reason::BodyTooLarge => "Body too large",
            Reason::BodyTimeout => "Body took too long",
            Reason::HandshakeInvalid => "Validation key missing or too long",
            Reason::SignatureMissing => "Signature missing",
            Reason::SignatureMalformed => "Signature malformed",
            Reason::SignatureMismatch => "Signature does not match",
            Reason::TimestampOutsideTolerance => "Timestamp outside tolerance",
            Reason::SubscriptionNotAllowed => "Subscription not allowed",
            Reason::PayloadNotJson => "Body is not JSON",
            Reason::PayloadInvalid => "Body is not a JSON object",
            Reason::UnsupportedEncoding => "Content-Encoding not supported",
            Reason::HeaderTimeout => "Request head took too long",
            Reason::TlsHandshakeFailed => "TLS handshake failed",
            Reason::HttpMalformed => "Malformed HTTP",
            Reason::HeadersTooLarge => "Headers too large",
            Reason::Overloaded => "Overloaded",
            Reason::InProgress => "Another delivery of this event is in progress",
            Reason::QueueUnavailable => "Queue unavailable",
        }
    }

    /// Whether the answer says when to come again.
    pub fn retries(self) -> bool {
        matches!(self.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
    }
}

impl From<SignatureError> for Rejection {
    fn from(error: SignatureError) -> Rejection {
        let reason = match error {
            SignatureError::Missing(_) => Reason::SignatureMissing,
            SignatureError::Malformed(..) => Reason::SignatureMalformed,
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

impl From<Unavailable> for Rejection {
    fn from(error: Unavailable) -> Rejection {
        let reason = match error {
            Unavailable::Refused(_)
            | Unavailable::Unroutable(_)
            | Unavailable::Unacceptable(_)
            | Unavailable::Unreachable
            | Unavailable::Unknown
            | Unavailable::Unclear(_) => Reason::QueueUnavailable,
            Unavailable::Overloaded => Reason::Overloaded,
            Unavailable::InProgress => Reason::InProgress,
        };
        Rejection::new(reason, error.to_string())
    }
}

/// The record's reason for a conflict that its source drops, which is no refusal.
pub const CONFLICT: &str = "conflict";
