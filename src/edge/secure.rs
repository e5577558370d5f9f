//! What comes of a client's TLS handshake: a secured stream, or a refusal that is counted and recorded.
//!
//! Keeps true: a handshake ends within its deadline; one that fails is counted once and recorded once, and one whose client merely
//! went away is neither.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::first_bytes::Protocol;
use crate::base::peer::Peer;
use crate::base::reason::Reason;
use crate::net::lingering_close;
use crate::net::tls::{Failure, Secured, Server};
use crate::observe::metrics::TlsResult;
use crate::request::pipeline::Pipeline;

/// Shakes hands; none where that came to nothing, of which the client has been told.
pub(super) async fn shake<S: AsyncRead + AsyncWrite + Unpin>(
    tls: &Server,
    stream: S,
    pipeline: &Pipeline,
    peer: &Peer,
    within: Duration,
) -> Option<Secured<S>> {
    let metrics = &pipeline.metrics.edge;
    let failure = match tokio::time::timeout(within, tls.accept(stream)).await {
        Ok(Ok(secured)) => {
            metrics.tls_handshake(TlsResult::Completed);
            return Some(secured);
        }
        Ok(Err(failure)) => failure,
        Err(_) => {
            metrics.tls_handshake(TlsResult::TimedOut);
            let detail = format!("the handshake took longer than {within:?}");
            pipeline.drop_connection(peer, Reason::TlsHandshakeFailed, &detail);
            return None;
        }
    };
    match failure {
        Failure::Gone => {}
        Failure::Refused(mut stream, detail) => {
            metrics.tls_handshake(TlsResult::Failed);
            pipeline.drop_connection(peer, Reason::TlsHandshakeFailed, &detail);
            lingering_close::close(&mut stream, b"").await;
        }
        Failure::PlainHttp(mut stream) => {
            metrics.tls_handshake(TlsResult::Failed);
            let detail = "the client speaks HTTP without TLS";
            let answer = pipeline.refuse_connection(peer, Reason::TlsHandshakeFailed, detail);
            lingering_close::close(&mut stream, answer.as_bytes()).await;
        }
    }
    None
}

/// What the client has agreed to speak.
pub(super) fn protocol<S>(secured: &Secured<S>) -> Option<Protocol> {
    match secured.agreed() {
        Some(b"h2") => Some(Protocol::Http2),
        Some(b"http/1.1") => Some(Protocol::Http1),
        _ => None,
    }
}
