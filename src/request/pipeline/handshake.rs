//! Answers a sender's requests before its first delivery: a provider's own challenge by GET, or the validation of the
//! CloudEvents webhook specification by OPTIONS.
//!
//! Keeps true: an answer holds only values from the request and the config. The gateway sends no request of its own.

use hyper::header::{ALLOW, HeaderValue};

use super::RequestContext;
use crate::base::reason::Reason;
use crate::request::outcome::{Outcome, Rejection};
use crate::request::source::Source;

/// Answers a provider's challenge by returning its key.
pub(super) fn challenge(source: &Source, context: &RequestContext) -> Result<Outcome, Rejection> {
    let invalid = |detail: &str| Err(Rejection::new(Reason::HandshakeInvalid, detail));
    let Some(header) = source.provider.challenge_header else {
        return invalid("this provider has no handshake");
    };
    let mut keys = context.head.headers.get_all(header).iter();
    match (keys.next(), keys.next()) {
        (Some(_), Some(_)) => invalid("the validation key appears more than once"),
        (None, _) => invalid("the validation key is missing"),
        (Some(key), None) if key.is_empty() => invalid("the validation key is empty"),
        (Some(key), None) if key.len() > MAX_CHALLENGE => invalid("the validation key is over 512 bytes"),
        (Some(key), None) if key.to_str().is_err() => invalid("the validation key is not ASCII"),
        (Some(key), None) => Ok(Outcome::Handshake { headers: vec![(header, key.clone())] }),
    }
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
    Ok(Outcome::Handshake {
        headers: vec![
            (ALLOW.as_str(), HeaderValue::from_static(source.methods())),
            (ALLOWED_ORIGIN, origin.clone()),
            (ALLOWED_RATE, rate),
        ],
    })
}

const MAX_CHALLENGE: usize = 512;
const REQUEST_ORIGIN: &str = "webhook-request-origin";
const ALLOWED_ORIGIN: &str = "webhook-allowed-origin";
const ALLOWED_RATE: &str = "webhook-allowed-rate";
