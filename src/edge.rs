//! The public listener: accepts connections, finds out whose they are, tells HTTP/1.1 from HTTP/2 by their first bytes, holds
//! both to their deadlines.
//!
//! Keeps true: a connection on which no whole head comes is closed at the header timeout, and a kept one without a request at the
//! idle timeout, or earlier where its place is wanted. Connections past a limit are answered 503 and closed. A client has the
//! address of its socket, unless a trusted proxy names another; no request that begins after a reload of the rules for that is
//! served by the old ones. Nothing is accepted after the drain is over.

mod busy;
mod chunks;
pub mod connection_limit;
pub mod descriptors;
mod first_bytes;
mod frames;
pub mod head;
mod hpack;
mod http1;
mod http2;
pub mod proxy_protocol;
pub mod request_guard;
mod secure;
#[cfg(test)]
mod tests;
pub mod threads;
mod watched;
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
use connection_limit::{ConnectionPermit, Crowd};
use first_bytes::Protocol;
use proxy_protocol::Begun;
pub use threads::EdgeThreads;

/// Binds an address, port 0 for a free one. `shared`: other sockets that say so too may listen on the same port.
///
/// # Errors
/// What the system says: the port is in use, the address is not ours, permission denied.
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
    /// Accept no more, and let connections go when their request is answered.
    pub accepting: CancellationToken,
    /// Drop what is still open.
    pub everything: CancellationToken,
}

/// Accepts until told to stop, and gives each connection to one of the threads.
pub async fn serve(
    listener: TcpListener,
    pipeline: Arc<Pipeline>,
    threads: Arc<EdgeThreads>,
    places: Arc<ConnectionLimit>,
    stop: Stop,
) {
    let take = |stream: std::net::TcpStream, peer: SocketAddr| {
        let rules = pipeline.rules.load_full();
        let place = places.take(rules.edge.max_connections, &pipeline.metrics.edge.connections);
        let connection = Connection {
            pipeline: pipeline.clone(),
            peer: Peer::at(peer.ip()),
            rules,
            stop: stop.clone(),
            places: places.clone(),
            place,
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
            // Its own thread registers it with its own event queue.
            Ok((stream, peer)) => match stream.into_std() {
                Ok(stream) => take(stream, peer),
                Err(error) => tracing::warn!(%error, "a connection is lost"),
            },
            Err(error) => {
                if let Some(failed) = failing.record() {
                    tracing::warn!(%error, failed, "cannot accept a connection; trying on");
                }
                // Out of file descriptors, mostly: trying again at once would only burn the processor.
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Who has connected and was not accepted yet would be reset by the close. Not one await from here to there.
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, peer)) = listener.accept() {
        if stream.set_nonblocking(true).is_ok() {
            take(stream, peer);
        }
    }
}

struct Connection {
    pipeline: Arc<Pipeline>,
    /// As of when it was accepted.
    rules: Arc<RuntimeConfig>,
    peer: Peer,
    stop: Stop,
    places: Arc<ConnectionLimit>,
    /// None: there was none left.
    place: Option<ConnectionPermit>,
}

impl Connection {
    async fn run(mut self, stream: std::net::TcpStream) {
        let mut stream = match TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => return tracing::warn!(%error, "a connection cannot be served"),
        };
        // Answers are one small write each; waiting to fill a segment would only delay them.
        let _ = stream.set_nodelay(true);
        let everything = self.stop.everything.clone();
        // What only some connections need is boxed: every connection holds the rest for as long as it is open.
        let served = async {
            match self.admit(&mut stream).await {
                Ok(()) => self.opened(stream).await,
                Err(Some(refusal)) => Box::pin(self.turn_away(stream, refusal)).await,
                Err(None) => {}
            }
        };
        tokio::select! {
            () = everything.cancelled() => {}
            () = served => {}
        }
    }

    /// Finds out who the client is, and whether it may have a place.
    ///
    /// # Errors
    /// The refusal; none where the client is gone, or nothing is owed to it.
    async fn admit(&mut self, stream: &mut TcpStream) -> Result<(), Option<Rejection>> {
        let refused = |reason, detail: &str| Err(Some(Rejection::new(reason, detail)));
        let edge = &self.rules.edge;
        if self.place.is_none() {
            return refused(Reason::Overloaded, "over edge.max_connections");
        }
        if edge.proxy_protocol && peer::within(self.peer.address, &edge.trusted_proxies) {
            let begun = tokio::select! {
                begun = tokio::time::timeout(edge.header_timeout, Box::pin(proxy_protocol::read(stream))) => begun,
                () = self.stopping_for(LAST_WORDS) => return Err(None),
            };
            match begun {
                Ok(Begun::Header(Some(source))) => self.peer = Peer::at(source.ip()),
                // The proxy passes on bytes that it does not read: what they say of their client it has not seen.
                Ok(Begun::Header(None)) => self.peer.hidden = true,
                Ok(Begun::Invalid(why)) => {
                    let detail = format!("no PROXY protocol header from a trusted proxy: {why}");
                    return refused(Reason::HttpMalformed, &detail);
                }
                Ok(Begun::Gone) => return Err(None),
                Err(_) => {
                    let detail = "no PROXY protocol header from a trusted proxy within edge.header_timeout";
                    return refused(Reason::HeaderTimeout, detail);
                }
            }
        }
        // Connections of a proxy are those of many clients.
        if !peer::within(self.peer.address, &edge.trusted_proxies)
            && let Some(place) = &mut self.place
            && !place.belongs_to(self.peer.address, edge.max_connections_per_client)
        {
            return refused(Reason::Overloaded, "over edge.max_connections_per_client");
        }
        Ok(())
    }

    /// From a connection to a stream of requests.
    async fn opened(&mut self, stream: TcpStream) {
        let rules = self.rules.clone();
        match &rules.tls {
            Some(tls) => Box::pin(self.secured(tls, stream, rules.edge.header_timeout)).await,
            None => Box::pin(self.http(stream, None)).await,
        }
    }

    async fn secured(&mut self, tls: &tls::Server, stream: TcpStream, within: Duration) {
        let secured = tokio::select! {
            secured = secure::shake(tls, stream, &self.pipeline, &self.peer, within) => secured,
            () = self.stopping_for(LAST_WORDS) => return,
        };
        let Some(secured) = secured else { return };
        let agreed = secure::protocol(&secured);
        self.peer.certificate = secured.certificate;
        Box::pin(self.http(secured.stream, agreed)).await;
    }

    /// `agreed`: what a client has said that it would speak; without that the first bytes tell.
    async fn http<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        mut stream: S,
        agreed: Option<Protocol>,
    ) {
        let (opened, within) = (clock::instant(), self.rules.edge.header_timeout);
        let mut bytes = Vec::new();
        let told = tokio::select! {
            told = tokio::time::timeout(within, first_bytes::read(&mut stream, &mut bytes)) => told,
            // Nothing was asked yet, so nothing is owed; but who has only just come is about to ask.
            () = self.stopping_for(LAST_WORDS) => return,
        };
        let protocol = match told {
            Ok(Ok(protocol)) => protocol,
            // A client that went away has not made a request.
            Ok(Err(_)) => return,
            Err(_) => {
                let what = if bytes.is_empty() { "nothing came in time" } else { "half of HTTP/2's preface" };
                return self.pipeline.drop_connection(&self.peer, Reason::HeaderTimeout, what);
            }
        };
        match agreed.unwrap_or(protocol) {
            // An idle connection holds what its own protocol needs, and not the largest of all.
            Protocol::Http1 => Box::pin(self.http1(stream, bytes, opened)).await,
            Protocol::Http2 => Box::pin(self.http2(stream, bytes, opened)).await,
        }
    }

    fn crowd(&self) -> Crowd {
        self.places.crowd(self.rules.edge.max_connections)
    }

    /// Returns once no more is to be asked here: the drain has begun, or who the client is would be found out by other rules.
    async fn stopping(&self) {
        tokio::select! {
            () = self.stop.accepting.cancelled() => {}
            () = self.rules.stale.cancelled() => {}
        }
    }

    /// Whether it has come to that.
    fn is_stopping(&self) -> bool {
        self.stop.accepting.is_cancelled() || self.rules.stale.is_cancelled()
    }

    /// Returns once that has gone on for so long.
    async fn stopping_for(&self, long: Duration) {
        self.stopping().await;
        tokio::time::sleep(long).await;
    }

    /// Who asks, and the rules to hold it against; none where they would find out in another way who it is: such a client is
    /// owed nothing, and may ask again on another connection.
    fn asker(&self) -> Option<(Peer, Arc<RuntimeConfig>)> {
        // The very rules that are looked at here are those that the request is held against: no reload comes between.
        let rules = self.pipeline.rules.load_full();
        rules.same_peer_rules(&self.rules).then(|| (self.peer.clone(), rules))
    }

    /// Refuses what has not come as far as a request.
    async fn turn_away(&mut self, mut stream: TcpStream, refusal: Rejection) {
        // Clients that were turned away may linger; their number must not keep the next one out.
        self.place = None;
        if self.rules.tls.is_some() {
            // Who is about to shake hands would not understand it.
            return self.pipeline.drop_connection(&self.peer, refusal.reason, &refusal.detail);
        }
        let answer = self.pipeline.refuse_connection(&self.peer, refusal.reason, &refusal.detail);
        let Some(_turned_away) = self.places.turn_away() else {
            // Whether it gets there is no longer worth a file. tokio would not try before it has seen the socket writable.
            let _ = stream.into_std().and_then(|mut stream| stream.write(answer.as_bytes()));
            return;
        };
        lingering_close::close(&mut stream, answer.as_bytes()).await;
    }
}

const BACKLOG: u32 = 4096;
/// For a connection that was accepted last to send its request.
const LAST_WORDS: Duration = Duration::from_millis(250);
/// How much longer than `edge.idle_timeout` a kept connection stays open. The answer names the timeout, and a client may use all of
/// it: its last request is on its way while our time runs out, and would be lost.
const IDLE_GRACE: Duration = Duration::from_secs(1);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
