//! Why a request is refused, and what else a record of the reject log can say: a row each.
//!
//! Keeps true: a fault of ours never has a status that makes a provider give up.

use hyper::StatusCode;

use crate::base::label::labels;

/// Makes [`Reason`] of its rows: value, label, status, title, and the label that the client is told, where it is another.
macro_rules! reasons {
    ($($(#[$doc:meta])* $reason:ident = $label:literal, $status:ident, $title:literal $(, told as $told:literal)?;)+) => {
        labels! {
            /// Why a request is refused, as metrics and the reject log name it.
            pub enum Reason { $($(#[$doc])* $reason = $label,)+ }
        }

        impl Reason {
            /// Every reason, in the order of the rows.
            pub const ALL: &'static [Reason] = &[$(Reason::$reason),+];

            /// The status it is answered with.
            pub fn status(self) -> StatusCode {
                match self { $(Reason::$reason => StatusCode::$status,)+ }
            }

            /// The `title` of its problem.
            pub fn title(self) -> &'static str {
                match self { $(Reason::$reason => $title,)+ }
            }

            /// The `type` of its problem.
            pub fn problem_type(self) -> &'static str {
                match self { $(Reason::$reason => problem_type!($label $(, $told)?),)+ }
            }
        }
    };
}

macro_rules! problem_type {
    ($label:literal) => {
        concat!("urn:hookgate:problem:", $label)
    };
    ($label:literal, $told:literal) => {
        problem_type!($told)
    };
}

reasons! {
    /// No source has this path.
    UnknownPath = "unknown_path", NOT_FOUND, "Not found";
    /// A source has this path, with another token. To tell the client so would confirm the path.
    PathTokenMismatch = "path_token_mismatch", NOT_FOUND, "Not found", told as "unknown_path";
    /// Not POST (or GET or OPTIONS, where there is a handshake).
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "Method not allowed";
    /// The client's address is outside `allow_ips`.
    ClientNotAllowed = "client_not_allowed", FORBIDDEN, "Client not allowed";
    /// Over the source's rate, or the client's.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "Too many requests";
    /// Over `max_body`.
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE, "Body too large";
    /// The body took longer than `body_timeout`.
    BodyTimeout = "body_timeout", REQUEST_TIMEOUT, "Body took too long";
    /// A validation challenge without a usable key.
    HandshakeInvalid = "handshake_invalid", BAD_REQUEST, "Validation key missing or too long";
    /// A signing header is missing.
    SignatureMissing = "signature_missing", UNAUTHORIZED, "Signature missing";
    /// A signing header cannot be read.
    SignatureMalformed = "signature_malformed", UNAUTHORIZED, "Signature malformed";
    /// No secret made the signature.
    SignatureMismatch = "signature_mismatch", UNAUTHORIZED, "Signature does not match";
    /// Signed too long ago, or too far ahead.
    TimestampOutsideTolerance = "timestamp_outside_tolerance", UNAUTHORIZED, "Timestamp outside tolerance";
    /// A subscription that the source does not list.
    SubscriptionNotAllowed = "subscription_not_allowed", FORBIDDEN, "Subscription not allowed";
    /// The body is no JSON.
    PayloadNotJson = "payload_not_json", BAD_REQUEST, "Body is not JSON";
    /// The body is JSON, but no object.
    PayloadInvalid = "payload_invalid", BAD_REQUEST, "Body is not a JSON object";
    /// An encoded body.
    UnsupportedEncoding = "unsupported_encoding", UNSUPPORTED_MEDIA_TYPE, "Content-Encoding not supported";
    /// A head, or the first bytes of a connection, that did not come in time.
    HeaderTimeout = "header_timeout", REQUEST_TIMEOUT, "Request head took too long";
    /// A TLS handshake that failed or did not end in time: nothing was answered.
    TlsHandshakeFailed = "tls_handshake_failed", BAD_REQUEST, "TLS handshake failed";
    /// Not HTTP, or a broken chunked body.
    HttpMalformed = "http_malformed", BAD_REQUEST, "Malformed HTTP";
    /// A head over the limits.
    HeadersTooLarge = "headers_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, "Headers too large";
    /// Too much at once.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "Overloaded";
    /// Another delivery of the same event is between claim and confirm.
    InProgress = "in_progress", SERVICE_UNAVAILABLE, "Another delivery of this event is in progress";
    /// Nothing durable could take the event.
    QueueUnavailable = "queue_unavailable", SERVICE_UNAVAILABLE, "Queue unavailable";
}

impl Reason {
    /// Whether the answer says when to come again.
    pub fn retries(self) -> bool {
        matches!(self.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
    }
}

labels! {
    /// The `reason` of a record that refuses nothing. No metric counts it as a reject.
    pub enum Note {
        /// Another body under a known identity, which its source drops.
        Conflict = "conflict",
        /// An operator's act.
        Operator = "operator",
        /// The gateway's signature over the records before.
        Anchor = "anchor",
    }
}
