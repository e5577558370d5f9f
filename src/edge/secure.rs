//! Runs a client's TLS handshake; counts and records a failed one.
//!
//! Keeps true: a handshake ends within its deadline. A failed handshake is counted once and recorded once. If the
//! client merely closes the connection, it is neither.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::first_bytes::Protocol;
use crate::base::peer::Peer;
use crate::base::reason::Reason;
use crate::net::lingering_close;
use crate::net::tls::{HandshakeError, Server, TlsConnection};
use crate::observe::metrics::TlsResult;
use crate::request::pipeline::Pipeline;

/// Returns the TLS stream; none if the handshake failed, after telling the client.
pub(super) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    tls: &Server,
    stream: S,
    pipeline: &Pipeline,
    peer: &Peer,
    within: Duration,
) -> Option<TlsConnection<S>> {
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
        HandshakeError::Gone => {}
        HandshakeError::Refused(mut stream, detail) => {
            metrics.tls_handshake(TlsResult::Failed);
            pipeline.drop_connection(peer, Reason::TlsHandshakeFailed, &detail);
            lingering_close::close(&mut stream, b"").await;
        }
        HandshakeError::PlainHttp(mut stream) => {
            metrics.tls_handshake(TlsResult::Failed);
            let detail = "the client speaks HTTP without TLS";
            let answer = pipeline.refuse_connection(peer, Reason::TlsHandshakeFailed, detail);
            lingering_close::close(&mut stream, answer.as_bytes()).await;
        }
    }
    None
}

/// The protocol agreed by ALPN.
pub(super) fn protocol<S>(secured: &TlsConnection<S>) -> Option<Protocol> {
    match secured.agreed() {
        Some(b"h2") => Some(Protocol::Http2),
        Some(b"http/1.1") => Some(Protocol::Http1),
        _ => None,
    }
}
