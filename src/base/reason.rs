//! The reasons of refusals, and of the reject log's other records. Each is declared once.
//!
//! Keeps true: a fault of the gateway never has a status that makes a provider stop retrying.

use hyper::StatusCode;

use crate::base::label::labels;

/// Declares [`Reason`]. A row is: value, label, status, title, and optionally another label to tell the client.
macro_rules! reasons {
    ($($(#[$doc:meta])* $reason:ident = $label:literal, $status:ident, $title:literal $(, told as $told:literal)?;)+) => {
        labels! {
            /// Why a request is refused, with the label in metrics and in the reject log.
            pub enum Reason { $($(#[$doc])* $reason = $label,)+ }
        }

        impl Reason {
            /// Every reason, in the order of declaration.
            pub const ALL: &'static [Reason] = &[$(Reason::$reason),+];

            /// The HTTP status of the answer.
            pub fn status(self) -> StatusCode {
                match self { $(Reason::$reason => StatusCode::$status,)+ }
            }

            /// The `title` of the answer's problem.
            pub fn title(self) -> &'static str {
                match self { $(Reason::$reason => $title,)+ }
            }

            /// The `type` of the answer's problem.
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
    /// A source has this path, but with another token. The client is told `unknown_path`, so as not to confirm the
    /// path.
    PathTokenMismatch = "path_token_mismatch", NOT_FOUND, "Not found", told as "unknown_path";
    /// A method other than POST, or than GET and OPTIONS for a handshake.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "Method not allowed";
    /// The client's address is outside `allow_ips`.
    ClientNotAllowed = "client_not_allowed", FORBIDDEN, "Client not allowed";
    /// The source's or the client's rate limit is exceeded.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "Too many requests";
    /// The body is larger than `max_body`.
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE, "Body too large";
    /// The body took longer than `body_timeout`.
    BodyTimeout = "body_timeout", REQUEST_TIMEOUT, "Body took too long";
    /// A validation challenge without a usable key.
    HandshakeInvalid = "handshake_invalid", BAD_REQUEST, "Validation key missing or too long";
    /// A signing header is missing.
    SignatureMissing = "signature_missing", UNAUTHORIZED, "Signature missing";
    /// A signing header cannot be read.
    SignatureMalformed = "signature_malformed", UNAUTHORIZED, "Signature malformed";
    /// No secret of the source matches the signature.
    SignatureMismatch = "signature_mismatch", UNAUTHORIZED, "Signature does not match";
    /// The signature's timestamp is too far in the past or the future.
    TimestampOutsideTolerance = "timestamp_outside_tolerance", UNAUTHORIZED, "Timestamp outside tolerance";
    /// The source does not list the subscription.
    SubscriptionNotAllowed = "subscription_not_allowed", FORBIDDEN, "Subscription not allowed";
    /// The body is not JSON.
    PayloadNotJson = "payload_not_json", BAD_REQUEST, "Body is not JSON";
    /// The body is JSON, but not an object.
    PayloadInvalid = "payload_invalid", BAD_REQUEST, "Body is not a JSON object";
    /// The body is compressed.
    UnsupportedEncoding = "unsupported_encoding", UNSUPPORTED_MEDIA_TYPE, "Content-Encoding not supported";
    /// A head, or the first bytes of a connection, did not arrive in time.
    HeaderTimeout = "header_timeout", REQUEST_TIMEOUT, "Request head took too long";
    /// A TLS handshake failed or did not end in time.
    TlsHandshakeFailed = "tls_handshake_failed", BAD_REQUEST, "TLS handshake failed";
    /// The request is not valid HTTP, or its chunked body is broken.
    HttpMalformed = "http_malformed", BAD_REQUEST, "Malformed HTTP";
    /// The head exceeds a limit.
    HeadersTooLarge = "headers_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, "Headers too large";
    /// A limit of connections or requests in flight is reached, or the request took too long.
    Overloaded = "overloaded", SERVICE_UNAVAILABLE, "Overloaded";
    /// Another delivery of the same event is being enqueued.
    InProgress = "in_progress", SERVICE_UNAVAILABLE, "Another delivery of this event is in progress";
    /// Neither the queue nor the spool could take the event.
    QueueUnavailable = "queue_unavailable", SERVICE_UNAVAILABLE, "Queue unavailable";
}

impl Reason {
    /// Whether the answer has a `Retry-After`.
    pub fn retries(self) -> bool {
        matches!(self.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
    }
}

labels! {
    /// The `reason` of a record that is not a refusal. No metric counts it as a reject.
    pub enum Note {
        /// The source dropped a different body under a known identity.
        Conflict = "conflict",
        /// An act of an operator.
        Operator = "operator",
        /// The gateway's signature over the records before it.
        Anchor = "anchor",
    }
}
