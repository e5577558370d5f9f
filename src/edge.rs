//! The public listener: accepts connections, determines the client's address, detects HTTP/1.1 or HTTP/2, enforces
//! deadlines.
//!
//! Keeps true:
//! - A connection without a complete request head is closed at the header timeout.
//! - An idle connection is closed at the idle timeout, or earlier when connections run short.
//! - A connection over a limit is answered with 503 and closed.
//! - The client address is the socket's, unless a trusted proxy supplied another. If a reload changes how it is
//!   determined, existing connections close after the current request.
//! - No connection is accepted after the drain.

mod chunks;
pub mod connection_limit;
pub mod descriptors;
mod first_bytes;
mod frame_guard;
mod frames;
pub mod head;
mod hpack;
mod http1;
mod http2;
pub mod proxy_protocol;
pub mod request_guard;
mod secure;
mod stream_activity;
#[cfg(test)]
mod tests;
pub mod threads;
mod write_timeout;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::base::clock;
use crate::base::peer::{self, Peer};
use crate::base::reason::Reason;
use crate::net::lingering_close;
use crate::net::tls;
use crate::observe::telemetry::LogThrottle;
use crate::request::outcome::Rejection;
use crate::request::pipeline::{Pipeline, RuntimeConfig};
pub use connection_limit::ConnectionLimit;
use connection_limit::{ConnectionPermit, ConnectionPressure};
use first_bytes::Protocol;
use proxy_protocol::HeaderRead;
pub use threads::EdgeThreads;

/// Binds an address; port 0 picks a free port. `shared` sets SO_REUSEPORT: other such sockets may listen on the same
/// port.
///
/// # Errors
/// The system's error, such as "address in use" or "permission denied".
pub fn bind(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(shared)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The two moments at which a drain reaches connections.
#[derive(Clone, Default)]
pub struct Stop {
    /// Stop accepting, and close each connection once its requests are answered.
    pub accepting: CancellationToken,
    /// Drop the connections that are still open.
    pub everything: CancellationToken,
}

/// Accepts connections until `stop`, and serves each on one of the threads.
pub async fn serve(
    listener: TcpListener,
    pipeline: Arc<Pipeline>,
    threads: Arc<EdgeThreads>,
    limit: Arc<ConnectionLimit>,
    stop: Stop,
) {
    let take = |stream: std::net::TcpStream, peer: SocketAddr| {
        let rules = pipeline.rules.load_full();
        let permit = limit.acquire(rules.edge.max_connections, &pipeline.metrics.edge.connections);
        let connection = Connection {
            pipeline: pipeline.clone(),
            peer: Peer::at(peer.ip()),
            rules,
            stop: stop.clone(),
            limit: limit.clone(),
            permit,
        };
        threads.spawn(pipeline.tasks.track_future(connection.run(stream)));
    };
    let mut failing = LogThrottle::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            failed = failing.wait_until_quiet() => {
                tracing::info!(failed, "connections are accepted again");
                continue;
            }
            () = stop.accepting.cancelled() => break,
        };
        match accepted {
            // A std stream, because the thread that serves it registers it with its own runtime.
            Ok((stream, peer)) => match stream.into_std() {
                Ok(stream) => take(stream, peer),
                Err(error) => tracing::warn!(%error, "an accepted connection was lost"),
            },
            Err(error) => {
                if let Some(failed) = failing.record() {
                    tracing::warn!(%error, failed, "cannot accept connections; retrying");
                }
                // Mostly the process is out of file descriptors. Retrying at once would only use up the processor.
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Closing the listener resets connections that are still in its backlog, so accept them first. No await may come
    // between.
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, peer)) = listener.accept() {
        if stream.set_nonblocking(true).is_ok() {
            take(stream, peer);
        }
    }
}

struct Connection {
    pipeline: Arc<Pipeline>,
    /// The config at the time of accept.
    rules: Arc<RuntimeConfig>,
    peer: Peer,
    stop: Stop,
    limit: Arc<ConnectionLimit>,
    /// None when the connection limit was reached.
    permit: Option<ConnectionPermit>,
}

impl Connection {
    async fn run(mut self, stream: std::net::TcpStream) {
        let mut stream = match TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => return tracing::warn!(%error, "a connection cannot be served"),
        };
        // Each answer is one small write. Nagle's algorithm would only delay it.
        let _ = stream.set_nodelay(true);
        let everything = self.stop.everything.clone();
        // Futures that only some connections need are boxed, so that every connection's own future stays small.
        let served = async {
            match self.accept_client(&mut stream).await {
                Ok(()) => self.serve_stream(stream).await,
                Err(Some(refusal)) => Box::pin(self.refuse(stream, refusal)).await,
                Err(None) => {}
            }
        };
        tokio::select! {
            () = everything.cancelled() => {}
            () = served => {}
        }
    }

    /// Determines the client's address (reading a PROXY header where configured) and applies the connection limits.
    ///
    /// # Errors
    /// The refusal to answer with; none when the client closed the connection or the drain ended the wait.
    async fn accept_client(&mut self, stream: &mut TcpStream) -> Result<(), Option<Rejection>> {
        let refused = |reason, detail: &str| Err(Some(Rejection::new(reason, detail)));
        let edge = &self.rules.edge;
        if self.permit.is_none() {
            return refused(Reason::Overloaded, "over edge.max_connections");
        }
        if edge.proxy_protocol && peer::within(self.peer.address, &edge.trusted_proxies) {
            let header = tokio::select! {
                header = tokio::time::timeout(edge.header_timeout, Box::pin(proxy_protocol::read(stream))) => header,
                () = self.until_stopping_for(DRAIN_GRACE) => return Err(None),
            };
            match header {
                Ok(HeaderRead::Header(Some(source))) => self.peer = Peer::at(source.ip()),
                // The proxy forwards the bytes unread, so any X-Forwarded-For in them is the client's own.
                Ok(HeaderRead::Header(None)) => self.peer.client_unknown = true,
                Ok(HeaderRead::Invalid(why)) => {
                    let detail = format!("no PROXY protocol header from a trusted proxy: {why}");
                    return refused(Reason::HttpMalformed, &detail);
                }
                Ok(HeaderRead::Gone) => return Err(None),
                Err(_) => {
                    let detail = "no PROXY protocol header from a trusted proxy within edge.header_timeout";
                    return refused(Reason::HeaderTimeout, detail);
                }
            }
        }
        // A proxy's connections carry many clients, so the limit for one client does not apply.
        if !peer::within(self.peer.address, &edge.trusted_proxies)
            && let Some(permit) = &mut self.permit
            && !permit.assign_client(self.peer.address, edge.max_connections_per_client)
        {
            return refused(Reason::Overloaded, "over edge.max_connections_per_client");
        }
        Ok(())
    }

    async fn serve_stream(&mut self, stream: TcpStream) {
        let rules = self.rules.clone();
        match &rules.tls {
            Some(tls) => Box::pin(self.serve_tls(tls, stream, rules.edge.header_timeout)).await,
            None => Box::pin(self.serve_http(stream, None)).await,
        }
    }

    async fn serve_tls(&mut self, tls: &tls::Server, stream: TcpStream, within: Duration) {
        let secured = tokio::select! {
            secured = secure::handshake(tls, stream, &self.pipeline, &self.peer, within) => secured,
            () = self.until_stopping_for(DRAIN_GRACE) => return,
        };
        let Some(secured) = secured else { return };
        let agreed = secure::protocol(&secured);
        self.peer.certificate = secured.certificate;
        Box::pin(self.serve_http(secured.stream, agreed)).await;
    }

    /// `agreed` is the protocol from ALPN. Without it, the first bytes decide.
    async fn serve_http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        mut stream: S,
        agreed: Option<Protocol>,
    ) {
        let (opened, within) = (clock::instant(), self.rules.edge.header_timeout);
        let mut bytes = Vec::new();
        let detected = tokio::select! {
            detected = tokio::time::timeout(within, first_bytes::read(&mut stream, &mut bytes)) => detected,
            // A client that has just connected is about to send its request, so it gets the grace period.
            () = self.until_stopping_for(DRAIN_GRACE) => return,
        };
        let protocol = match detected {
            Ok(Ok(protocol)) => protocol,
            // The client closed the connection without a request.
            Ok(Err(_)) => return,
            Err(_) => {
                let what = if bytes.is_empty() {
                    "the client sent nothing in time"
                } else {
                    "the client sent only part of the HTTP/2 preface in time"
                };
                return self.pipeline.drop_connection(&self.peer, Reason::HeaderTimeout, what);
            }
        };
        match agreed.unwrap_or(protocol) {
            // Boxed, so that an idle connection holds only the state of its own protocol.
            Protocol::Http1 => Box::pin(self.http1(stream, bytes, opened)).await,
            Protocol::Http2 => Box::pin(self.http2(stream, bytes, opened)).await,
        }
    }

    fn pressure(&self) -> ConnectionPressure {
        self.limit.pressure(self.rules.edge.max_connections)
    }

    /// Returns once this connection must take no more requests: at the drain, or when a reload changed how the client
    /// address is determined.
    async fn until_stopping(&self) {
        tokio::select! {
            () = self.stop.accepting.cancelled() => {}
            () = self.rules.stale.cancelled() => {}
        }
    }

    fn is_stopping(&self) -> bool {
        self.stop.accepting.is_cancelled() || self.rules.stale.is_cancelled()
    }

    /// Returns once [`Connection::until_stopping`] has returned and `long` has passed.
    async fn until_stopping_for(&self, long: Duration) {
        self.until_stopping().await;
        tokio::time::sleep(long).await;
    }

    /// The peer and the current config for the next request. None when a reload changed how the client address is
    /// determined: the client must open a new connection.
    fn next_request(&self) -> Option<(Peer, Arc<RuntimeConfig>)> {
        // The request gets the same config that is checked here, so no reload can come between.
        let rules = self.pipeline.rules.load_full();
        rules.same_peer_rules(&self.rules).then(|| (self.peer.clone(), rules))
    }

    /// Refuses a connection before its first request.
    async fn refuse(&mut self, mut stream: TcpStream, refusal: Rejection) {
        // A refused client may linger. It must not use up a connection permit meanwhile.
        self.permit = None;
        if self.rules.tls.is_some() {
            // The client expects a TLS handshake and could not read a plain HTTP answer.
            return self.pipeline.drop_connection(&self.peer, refusal.reason, &refusal.detail);
        }
        let answer = self.pipeline.refuse_connection(&self.peer, refusal.reason, &refusal.detail);
        let Some(_refusal) = self.limit.acquire_refusal() else {
            // Too many refused connections linger already: try one write and close. tokio's own write would first wait
            // until it has seen the socket writable.
            let _ = stream.into_std().and_then(|mut stream| stream.write(answer.as_bytes()));
            return;
        };
        lingering_close::close(&mut stream, answer.as_bytes()).await;
    }
}

const BACKLOG: u32 = 4096;
/// The time that a connection accepted just before the drain gets to send its request.
const DRAIN_GRACE: Duration = Duration::from_millis(250);
/// How much longer than `edge.idle_timeout` an idle connection stays open. The `Keep-Alive` header tells clients the
/// timeout, so a client may send a request at its very end. Without the grace, that request would be lost.
const IDLE_GRACE: Duration = Duration::from_secs(1);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
