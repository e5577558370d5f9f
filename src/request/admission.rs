//! What a request must pass before anything of it is looked at: method, client, rate, encoding, a place among those in flight,
//! and a body that is small and quick enough.
//!
//! Keeps true: no more than `max_body` bytes are ever held for a request, and none that are not counted first; a body that is
//! refused is drained for a bounded while, so that a client which is still sending gets to read its answer.

pub mod in_flight;

use std::error::Error as _;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_ENCODING, HOST, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, Version};

use crate::base::peer::{self, Peer};
use crate::base::reason::Reason;
use crate::request::outcome::{Outcome, Rejection};
use crate::request::source::Source;
use in_flight::InFlightPermit;

/// One host, the same wherever it stands: two readers of a request must not take it for two hosts'. Of HTTP/1.x the listener
/// has seen to it that there is one; beside a target that has a host of its own it is not read (RFC 9112, section 3.2.2).
/// Nothing here goes by either.
pub fn host(head: &Parts) -> Result<(), Rejection> {
    if head.version < Version::HTTP_2 {
        return Ok(());
    }
    let mut hosts = head.headers.get_all(HOST).iter().map(HeaderValue::as_bytes);
    let authority = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    let detail = match (authority, hosts.next(), hosts.next()) {
        (_, _, Some(_)) => "more than one Host",
        (None, None, _) => "neither :authority nor Host",
        (Some(named), ..) if named.contains(&b'@') => "userinfo in :authority",
        (Some(named), Some(host), _) if !named.eq_ignore_ascii_case(host) => {
            "Host is another than :authority"
        }
        _ => return Ok(()),
    };
    Err(Rejection::new(Reason::HttpMalformed, detail))
}

/// As much of a head as HTTP/1.x may have, where the listener holds it to that: over HTTP/2 it knows the size alone.
pub fn head(head: &Parts) -> Result<(), Rejection> {
    if head.version < Version::HTTP_2 {
        return Ok(());
    }
    let too_large = |detail| Err(Rejection::new(Reason::HeadersTooLarge, detail));
    if head.uri.path_and_query().is_some_and(|target| target.as_str().len() > MAX_TARGET) {
        return too_large("the path is over 16 KiB");
    }
    let no_uri = |target: &str| {
        !target.bytes().all(|byte| byte.is_ascii_graphic()) || !target.starts_with('/') && target != "*"
    };
    if head.uri.path_and_query().is_some_and(|target| no_uri(target.as_str())) {
        // RFC 9113, section 8.3.1. h2 checks none of this; of one with a fragment the listener has made one that is no path.
        let detail = "a :path that is no path, has a fragment, or holds other than visible ASCII";
        return Err(Rejection::new(Reason::HttpMalformed, detail));
    }
    if head.headers.len() > MAX_HEADERS {
        return too_large("over 100 headers");
    }
    Ok(())
}

/// POST; GET where the provider has a handshake; OPTIONS where the source has one.
pub fn method(source: &Source, method: &Method) -> Result<(), Rejection> {
    let challenge = *method == Method::GET && source.provider.challenge_header.is_some();
    let validation = *method == Method::OPTIONS && !source.webhook_origins.is_empty();
    if *method == Method::POST || challenge || validation {
        return Ok(());
    }
    Err(Rejection::new(Reason::MethodNotAllowed, format!("this path takes {}", source.methods())))
}

/// The client's address, against `allow_ips`.
pub fn client(source: &Source, client: IpAddr) -> Result<(), Rejection> {
    if source.allow_ips.is_empty() || peer::within(client, &source.allow_ips) {
        return Ok(());
    }
    Err(Rejection::new(Reason::ClientNotAllowed, "the client's address is outside allow_ips"))
}

/// The names in the client's certificate, against `client_certificate`.
pub fn certificate(source: &Source, client: &Peer) -> Result<(), Rejection> {
    let Some(expected) = &source.client_certificate else { return Ok(()) };
    let detail = match &client.certificate {
        Some(certificate) if certificate.matches(expected) => return Ok(()),
        Some(certificate) => format!(
            "the client's certificate does not match client_certificate; its subject is {}",
            certificate.subject
        ),
        None => "the client showed no certificate".to_owned(),
    };
    Err(Rejection::new(Reason::ClientNotAllowed, detail))
}

/// The client's rate, then the source's. No client: a proxy that carries many.
pub fn rate(source: &Source, client: Option<IpAddr>) -> Result<(), Rejection> {
    let over = |key| Rejection::new(Reason::RateLimited, format!("over the source's {key}"));
    source.rates.check(client).map_err(over)
}

/// Refuses a compressed body. A signature covers the raw bytes, and unpacking before verifying would let any client cause work.
/// Words that name no compression (`identity`, `utf-8`, `aws-chunked`) change no byte, and senders write them: they pass.
pub fn encoding(headers: &HeaderMap) -> Result<(), Rejection> {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let compressed = headers.get_all(CONTENT_ENCODING).iter().any(|value| {
        let mut words = value.as_bytes().split(|byte| !is_word(byte));
        words.any(|word| COMPRESSIONS.iter().any(|name| names(word, name)))
    });
    if compressed {
        return Err(Rejection::new(
            Reason::UnsupportedEncoding,
            "the body is compressed, as its Content-Encoding says; send it as it was signed",
        ));
    }
    Ok(())
}

/// Whether a word of a Content-Encoding names this coding, in either case, with or without `x-` before it (RFC 9110, section
/// 8.4.1).
fn names(word: &[u8], coding: &str) -> bool {
    let plain = match word.split_at_checked(2) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(b"x-") => rest,
        _ => word,
    };
    plain.eq_ignore_ascii_case(coding.as_bytes())
}

/// Reads a body whole, at most `max` bytes and `within` that time, past which it is refused for that reason. From then on
/// `place` holds its bytes.
///
/// # Errors
/// [`Outcome::HungUp`] where the client went away; else the refusal.
pub async fn body(
    incoming: &mut Incoming,
    place: &mut InFlightPermit,
    max: usize,
    (within, late): (Duration, Reason),
) -> Result<Bytes, Outcome> {
    let too_large = || rejected(Reason::BodyTooLarge, format!("the body is over {max} bytes"));
    let (declared, most) = (incoming.size_hint(), max as u64);
    if declared.lower() > most {
        return Err(too_large());
    }
    // Nothing is kept that is not counted. A declared length is no more than a promise: to count all of it before it comes
    // would let promises alone fill what there is.
    let most = declared.exact().unwrap_or(most);
    place.hold(STEP.min(most)).map_err(Outcome::Rejected)?;
    let read = async {
        let mut first = Bytes::new();
        let mut whole = BytesMut::new();
        while let Some(frame) = incoming.frame().await {
            let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
            let length = first.len().max(whole.len()) + data.len();
            if length > max {
                return Err(too_large());
            }
            if length as u64 > place.bytes() {
                let step = (length as u64).next_multiple_of(STEP).min(most);
                place.hold(step).map_err(Outcome::Rejected)?;
            }
            // Most bodies come in one piece, and are used where they are.
            if whole.is_empty() && first.is_empty() {
                first = data;
                continue;
            }
            if whole.is_empty() {
                whole.extend_from_slice(&first);
            }
            whole.extend_from_slice(&data);
        }
        let body = if whole.is_empty() { first } else { whole.freeze() };
        place.hold(body.len() as u64).map_err(Outcome::Rejected)?;
        Ok(body)
    };
    match tokio::time::timeout(within, read).await {
        Ok(read) => read,
        Err(_) => Err(rejected(late, format!("the body took longer than {within:?}"))),
    }
}

/// Reads on and throws away what a refused client still sends, for a bounded number of bytes and a bounded time.
pub async fn discard(mut incoming: Incoming, within: Duration) {
    let drain = async {
        let mut left = DISCARD_BYTES;
        while let Some(Ok(frame)) = incoming.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    // Out of time means the same as out of bytes: the connection is dropped with the body.
    let _ = tokio::time::timeout(within, drain).await;
}

/// A body that ended in an error: broken chunks are the client's fault and answered; anything else is a client that is gone.
fn broken(error: &hyper::Error) -> Outcome {
    let kind = error.source().and_then(|source| source.downcast_ref::<io::Error>()).map(io::Error::kind);
    match kind {
        Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
            rejected(Reason::HttpMalformed, "the chunked body is broken")
        }
        _ => Outcome::HungUp,
    }
}

fn rejected(reason: Reason, detail: impl Into<String>) -> Outcome {
    Outcome::Rejected(Rejection::new(reason, detail))
}

/// Bytes of a path and its query; of HTTP/1.x, of the whole line that they are on.
pub const MAX_TARGET: usize = 16 << 10;
/// Headers, each value by itself. hyper has room for as many without an allocation.
pub const MAX_HEADERS: usize = 100;
const COMPRESSIONS: [&str; 5] = ["gzip", "deflate", "br", "zstd", "compress"];
const DISCARD_BYTES: usize = 16 << 20;
/// What a body holds at first, if it is not shorter, and grows by.
const STEP: u64 = 64 << 10;
