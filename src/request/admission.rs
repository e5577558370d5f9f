//! Checks a request before its body is parsed: method, client, rate, encoding. Reads the body within its limits.
//!
//! Keeps true: no more than `max_body` bytes are held for a request, and every byte is counted before it is held. A
//! refused body is drained for a bounded time, so that a client which is still sending can read its answer.

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

/// Checks that an HTTP/2 request names exactly one host, so that two readers cannot see different hosts. The listener
/// has checked HTTP/1.x already, where an absolute target overrides Host (RFC 9112, section 3.2.2). The gateway itself
/// ignores the host.
pub fn check_host(head: &Parts) -> Result<(), Rejection> {
    if head.version < Version::HTTP_2 {
        return Ok(());
    }
    let mut hosts = head.headers.get_all(HOST).iter().map(HeaderValue::as_bytes);
    let authority = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    let detail = match (authority, hosts.next(), hosts.next()) {
        (_, _, Some(_)) => "more than one Host",
        (None, None, _) => "neither :authority nor Host",
        (Some(named), ..) if named.contains(&b'@') => "userinfo in :authority",
        (Some(named), Some(host), _) if !named.eq_ignore_ascii_case(host) => "Host differs from :authority",
        _ => return Ok(()),
    };
    Err(Rejection::new(Reason::HttpMalformed, detail))
}

/// Applies the limits of HTTP/1.x heads to an HTTP/2 head. The listener limits only its total size.
pub fn check_head(head: &Parts) -> Result<(), Rejection> {
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
        // RFC 9113, section 8.3.1. h2 checks none of this. The listener has replaced a path with a fragment by an
        // invalid one.
        let detail =
            "a :path that is not a path, has a fragment, or has a character other than visible ASCII";
        return Err(Rejection::new(Reason::HttpMalformed, detail));
    }
    if head.headers.len() > MAX_HEADERS {
        return too_large("over 100 headers");
    }
    Ok(())
}

/// Allows POST; GET if the provider has a handshake; OPTIONS if the source lists `webhook_origins`.
pub fn check_method(source: &Source, method: &Method) -> Result<(), Rejection> {
    let challenge = *method == Method::GET && source.answers_get();
    let validation = *method == Method::OPTIONS && !source.webhook_origins.is_empty();
    if *method == Method::POST || challenge || validation {
        return Ok(());
    }
    Err(Rejection::new(Reason::MethodNotAllowed, format!("this path takes {}", source.methods())))
}

/// Checks the client's address against `allow_ips`.
pub fn check_address(source: &Source, client: IpAddr) -> Result<(), Rejection> {
    if source.allow_ips.is_empty() || peer::within(client, &source.allow_ips) {
        return Ok(());
    }
    Err(Rejection::new(Reason::ClientNotAllowed, "the client's address is outside allow_ips"))
}

/// Checks the names in the client's certificate against `client_certificate`.
pub fn check_certificate(source: &Source, client: &Peer) -> Result<(), Rejection> {
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

/// Checks the client's rate, then the source's. `client` is None for a proxy that carries many clients.
pub fn check_rate(source: &Source, client: Option<IpAddr>) -> Result<(), Rejection> {
    let over = |key| Rejection::new(Reason::RateLimited, format!("over the source's {key}"));
    source.rates.check(client).map_err(over)
}

/// Refuses a compressed body. A signature covers the raw bytes, and decompressing before verifying would let any client
/// cause work. Some senders write words that change no byte, such as `identity`, `utf-8` or `aws-chunked`. Those pass.
pub fn check_encoding(headers: &HeaderMap) -> Result<(), Rejection> {
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

/// Whether a word of Content-Encoding names this coding, ignoring case and an `x-` prefix (RFC 9110, section 8.4.1).
fn names(word: &[u8], coding: &str) -> bool {
    let plain = match word.split_at_checked(2) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(b"x-") => rest,
        _ => word,
    };
    plain.eq_ignore_ascii_case(coding.as_bytes())
}

/// Reads a whole body of at most `max` bytes that came over `version`. After the time `within` it is refused with the
/// reason `late`. `permit` then holds the body's bytes.
///
/// # Errors
/// [`Outcome::ClientGone`] if the client closed the connection; else the refusal.
pub async fn read_body(
    (incoming, version): (&mut Incoming, Version),
    permit: &mut InFlightPermit,
    max: usize,
    (within, late): (Duration, Reason),
) -> Result<Bytes, Outcome> {
    let too_large = || rejected(Reason::BodyTooLarge, format!("the body is over {max} bytes"));
    let (declared, most) = (incoming.size_hint(), max as u64);
    if declared.lower() > most {
        return Err(too_large());
    }
    // Bytes are reserved as they arrive. Reserving the declared length at once would let bare declarations use up the
    // limit.
    let most = declared.exact().unwrap_or(most);
    permit.reserve(RESERVE_STEP.min(most)).map_err(Outcome::Rejected)?;
    let read = async {
        let mut first = Bytes::new();
        let mut whole = BytesMut::new();
        while let Some(frame) = incoming.frame().await {
            let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
            let length = first.len().max(whole.len()) + data.len();
            if length > max {
                return Err(too_large());
            }
            if length as u64 > permit.bytes() {
                let reserve = (length as u64).next_multiple_of(RESERVE_STEP).min(most);
                permit.reserve(reserve).map_err(Outcome::Rejected)?;
            }
            // Most bodies arrive in one piece and need no copy.
            if whole.is_empty() && first.is_empty() {
                first = data;
                continue;
            }
            if whole.is_empty() {
                whole.extend_from_slice(&first);
            }
            whole.extend_from_slice(&data);
        }
        // A client may end a stream with RST_STREAM and NO_ERROR at any time, and hyper then ends the body without an
        // error (RFC 9113, section 8.1).
        if version == Version::HTTP_2 && !incoming.is_end_stream() {
            return Err(Outcome::ClientGone);
        }
        let body = if whole.is_empty() { first } else { whole.freeze() };
        permit.reserve(body.len() as u64).map_err(Outcome::Rejected)?;
        Ok(body)
    };
    match tokio::time::timeout(within, read).await {
        Ok(read) => read,
        Err(_) => Err(rejected(late, format!("the body took longer than {within:?}"))),
    }
}

/// Reads and discards the rest of a refused body, up to a bounded number of bytes and a bounded time.
pub async fn drain_body(mut incoming: Incoming, within: Duration) {
    let drain = async {
        let mut left = DRAIN_BYTES;
        while let Some(Ok(frame)) = incoming.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    // After the timeout, as after the last byte, dropping the body drops the connection.
    let _ = tokio::time::timeout(within, drain).await;
}

/// The outcome of a body that ended in an error. Broken chunks are answered; any other error means that the client is
/// gone.
fn broken(error: &hyper::Error) -> Outcome {
    let kind = error.source().and_then(|source| source.downcast_ref::<io::Error>()).map(io::Error::kind);
    match kind {
        Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
            rejected(Reason::HttpMalformed, "the chunked body is broken")
        }
        _ => Outcome::ClientGone,
    }
}

fn rejected(reason: Reason, detail: impl Into<String>) -> Outcome {
    Outcome::Rejected(Rejection::new(reason, detail))
}

/// Bytes of a path and its query; for HTTP/1.x, of the whole request line.
pub const MAX_TARGET: usize = 16 << 10;
/// Headers, each value counted separately. hyper stores this many without an allocation.
pub const MAX_HEADERS: usize = 100;
const COMPRESSIONS: [&str; 5] = ["gzip", "deflate", "br", "zstd", "compress"];
const DRAIN_BYTES: usize = 16 << 20;
/// A body reserves bytes in steps of this size.
const RESERVE_STEP: u64 = 64 << 10;
