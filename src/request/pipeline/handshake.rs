//! Answers a sender's requests before its first delivery: a provider's own validation, or that of the CloudEvents
//! webhook specification by OPTIONS.
//!
//! Keeps true: an answer holds only values from the request and the config. The gateway sends no request of its own.

use hyper::StatusCode;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use subtle::ConstantTimeEq;

use super::RequestContext;
use crate::base::reason::Reason;
use crate::provider::{Handshake, HandshakeAnswer, QueryHandshake, query_values};
use crate::request::outcome::{Outcome, Rejection};
use crate::request::source::Source;

/// Answers a provider's validation by GET.
pub(super) fn challenge(source: &Source, context: &RequestContext) -> Result<Outcome, Rejection> {
    match source.provider.handshake {
        Some(Handshake::Header(header)) => returned_header(header, context),
        Some(Handshake::Query(query)) if !query.by_post => returned_parameter(query, source, context),
        _ => invalid("this provider has no handshake"),
    }
}

/// Answers a provider's validation by an unsigned POST. None: the POST is a delivery.
pub(super) fn posted(source: &Source, context: &RequestContext) -> Option<Result<Outcome, Rejection>> {
    let Some(Handshake::Query(query)) = source.provider.handshake else { return None };
    let asked = query.by_post && !query_values(context.head.uri.query(), query.parameter).is_empty();
    asked.then(|| returned_parameter(query, source, context))
}

/// Answers a validation request that was verified as a delivery.
pub(super) fn verified(answer: HandshakeAnswer) -> Result<Outcome, Rejection> {
    let json = || vec![(CONTENT_TYPE.as_str(), HeaderValue::from_static("application/json"))];
    match answer {
        HandshakeAnswer::Json(body) => {
            Ok(Outcome::Handshake { status: StatusCode::OK, headers: json(), body })
        }
        HandshakeAnswer::Status(status) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::NO_CONTENT);
            // Discord refuses an answer without a type.
            Ok(Outcome::Handshake { status, headers: json(), body: String::new() })
        }
        HandshakeAnswer::Incomplete(member) => {
            invalid(&format!("the validation request lacks the value of {member:?}"))
        }
    }
}

/// Returns the validation key of a header.
fn returned_header(header: &'static str, context: &RequestContext) -> Result<Outcome, Rejection> {
    let mut keys = context.head.headers.get_all(header).iter();
    match (keys.next(), keys.next()) {
        (Some(_), Some(_)) => invalid("the validation key appears more than once"),
        (None, _) => invalid("the validation key is missing"),
        (Some(key), None) if key.is_empty() => invalid("the validation key is empty"),
        (Some(key), None) if key.len() > MAX_KEY => invalid("the validation key is over 512 bytes"),
        (Some(key), None) if key.to_str().is_err() => invalid("the validation key is not ASCII"),
        (Some(key), None) => Ok(Outcome::handshake(vec![(header, key.clone())])),
    }
}

/// Returns a parameter of the query as text, if the source's token is named where there is one.
fn returned_parameter(
    query: &QueryHandshake,
    source: &Source,
    context: &RequestContext,
) -> Result<Outcome, Rejection> {
    let values = |name: &str| query_values(context.head.uri.query(), name);
    let text = match values(query.parameter).as_slice() {
        [] => return invalid("the parameter to return is missing"),
        [Some(text)] if text.is_empty() => return invalid("the parameter to return is empty"),
        [Some(text)] if text.len() > MAX_PARAMETER => {
            return invalid("the parameter to return is over 1024 bytes");
        }
        [Some(text)] => text.clone(),
        [None] => return invalid("the parameter to return is not UTF-8"),
        _ => return invalid("the parameter to return appears more than once"),
    };
    if let Some(parameter) = query.token {
        let named = values(parameter);
        let [Some(named)] = named.as_slice() else {
            return wrong_token("the validation request names no token, or several");
        };
        let expected = source.handshake_token.as_ref().map_or("", |token| token.expose());
        if expected.is_empty() || !bool::from(expected.as_bytes().ct_eq(named.as_bytes())) {
            return wrong_token("the validation request names another token than handshake_token");
        }
    }
    let headers = vec![
        (CONTENT_TYPE.as_str(), HeaderValue::from_static("text/plain")),
        // A browser must not take the returned text for a page.
        (X_CONTENT_TYPE_OPTIONS.as_str(), HeaderValue::from_static("nosniff")),
    ];
    Ok(Outcome::Handshake { status: StatusCode::OK, headers, body: text })
}

/// Allows deliveries from an origin that the source lists.
pub(super) fn validation(source: &Source, context: &RequestContext) -> Result<Outcome, Rejection> {
    let refused = |detail: &str| Err(Rejection::new(Reason::MethodNotAllowed, detail));
    let mut origins = context.head.headers.get_all(REQUEST_ORIGIN).iter();
    let origin = match (origins.next(), origins.next()) {
        (Some(_), Some(_)) => return refused("OPTIONS with more than one WebHook-Request-Origin"),
        (None, _) => return refused("OPTIONS without WebHook-Request-Origin"),
        (Some(origin), None) => origin,
    };
    let listed = |known: &String| known.as_bytes().eq_ignore_ascii_case(origin.as_bytes());
    if !source.webhook_origins.iter().any(listed) {
        return refused("the WebHook-Request-Origin is not among the source's webhook_origins");
    }
    let rate = source.rates.per_minute().map_or(HeaderValue::from_static("*"), HeaderValue::from);
    Ok(Outcome::handshake(vec![
        (ALLOW.as_str(), HeaderValue::from_static(source.methods())),
        (ALLOWED_ORIGIN, origin.clone()),
        (ALLOWED_RATE, rate),
    ]))
}

fn invalid(detail: &str) -> Result<Outcome, Rejection> {
    Err(Rejection::new(Reason::HandshakeInvalid, detail))
}

fn wrong_token(detail: &str) -> Result<Outcome, Rejection> {
    Err(Rejection { status: Some(StatusCode::FORBIDDEN), ..Rejection::new(Reason::HandshakeInvalid, detail) })
}

const MAX_KEY: usize = 512;
const MAX_PARAMETER: usize = 1024;
const REQUEST_ORIGIN: &str = "webhook-request-origin";
const ALLOWED_ORIGIN: &str = "webhook-allowed-origin";
const ALLOWED_RATE: &str = "webhook-allowed-rate";
