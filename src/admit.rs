//! What a request must pass before anything of it is looked at: method, client, rate, encoding, and a body that is small and
//! quick enough.
//!
//! Keeps true: no more than `max_body` bytes are ever held for a request; a body that is refused is drained for a bounded
//! while, so that a client which is still sending gets to read its answer.

use std::error::Error as _;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::HeaderMap;
use hyper::Method;
use hyper::body::{Body, Incoming};
use hyper::header::CONTENT_ENCODING;

use crate::outcome::{Outcome, Reason, Rejection};
use crate::route::Source;

/// POST, or GET where the provider has a handshake.
pub fn method(source: &Source, method: &Method) -> Result<(), Rejection> {
    let handshake = *method == Method::GET && source.provider.challenge_header().is_some();
    if *method == Method::POST || handshake {
        return Ok(());
    }
    Err(Rejection::new(Reason::MethodNotAllowed, format!("this path takes {}", source.methods())))
}

/// The client's address, against `allow_ips`.
pub fn client(source: &Source, client: IpAddr) -> Result<(), Rejection> {
    if source.allow_ips.is_empty() || source.allow_ips.iter().any(|network| network.contains(&client)) {
        return Ok(());
    }
    Err(Rejection::new(Reason::ClientNotAllowed, "the client's address is outside allow_ips"))
}

/// The source's rate.
pub fn rate(source: &Source) -> Result<(), Rejection> {
    match &source.limiter {
        Some(limiter) if limiter.check().is_err() => {
            Err(Rejection::new(Reason::RateLimited, "over the source's rate_limit"))
        }
        _ => Ok(()),
    }
}

/// No encoding: a signature covers the raw bytes, and unpacking before verifying would be work for anybody.
pub fn encoding(headers: &HeaderMap) -> Result<(), Rejection> {
    let identity = headers.get_all(CONTENT_ENCODING).iter().all(|value| {
        let value = value.as_bytes().trim_ascii();
        value.is_empty() || value.eq_ignore_ascii_case(b"identity")
    });
    if identity {
        return Ok(());
    }
    Err(Rejection::new(
        Reason::UnsupportedEncoding,
        "the body has a Content-Encoding; send it as it was signed",
    ))
}

/// Reads a body whole, at most `max` bytes and `within` that time.
///
/// # Errors
/// [`Outcome::HungUp`] where the client went away; else the refusal.
pub async fn body(incoming: &mut Incoming, max: usize, within: Duration) -> Result<Bytes, Outcome> {
    let too_large = || rejected(Reason::BodyTooLarge, format!("the body is over {max} bytes"));
    if incoming.size_hint().lower() > max as u64 {
        return Err(too_large());
    }
    let read = async {
        let mut first = Bytes::new();
        let mut whole = BytesMut::new();
        while let Some(frame) = incoming.frame().await {
            let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
            if first.len().max(whole.len()) + data.len() > max {
                return Err(too_large());
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
        Ok(if whole.is_empty() { first } else { whole.freeze() })
    };
    match tokio::time::timeout(within, read).await {
        Ok(read) => read,
        Err(_) => Err(rejected(Reason::BodyTimeout, format!("the body took longer than {within:?}"))),
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

const DISCARD_BYTES: usize = 16 << 20;
