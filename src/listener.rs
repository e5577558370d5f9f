//! The public listener: accepts connections, tells HTTP/1.1 from HTTP/2 by their first bytes, holds both to their deadlines.
//!
//! Keeps true: a connection that says nothing, or half of something, is closed at the header timeout; connections past the
//! limit are answered 503 and closed; nothing is accepted after the drain is over.

mod first_bytes;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::outcome::Reason;
use crate::pipeline::Pipeline;
use first_bytes::{FirstBytes, Protocol};

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

/// Accepts until told to stop.
pub async fn serve(listener: TcpListener, pipeline: Arc<Pipeline>, open: Arc<AtomicUsize>, stop: Stop) {
    let take = |stream: TcpStream, peer: SocketAddr| {
        let connection = Connection {
            pipeline: pipeline.clone(),
            client: peer.ip().to_canonical(),
            stop: stop.clone(),
            open: Open::enter(&open, &pipeline),
        };
        pipeline.tasks.spawn(connection.run(stream));
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.accepting.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => take(stream, peer),
            Err(error) => {
                // Out of file descriptors, mostly: trying again at once would only burn the processor.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Who has connected and was not accepted yet would be reset by the close. Not one await from here to there.
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((stream, peer)) = listener.accept() {
        if let Ok(stream) = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
            take(stream, peer);
        }
    }
}

struct Connection {
    pipeline: Arc<Pipeline>,
    client: IpAddr,
    stop: Stop,
    open: Open,
}

impl Connection {
    async fn run(self, mut stream: TcpStream) {
        // Answers are one small write each; waiting to fill a segment would only delay them.
        let _ = stream.set_nodelay(true);
        if self.open.count > self.pipeline.edge.max_connections {
            return self.turn_away(stream).await;
        }
        let everything = self.stop.everything.clone();
        tokio::select! {
            () = everything.cancelled() => {}
            () = async {
                let within = self.pipeline.header_timeout();
                let told = tokio::select! {
                    told = tokio::time::timeout(within, first_bytes::read(&mut stream)) => told,
                    // Nothing was asked yet, so nothing is owed; but who has only just come is about to ask.
                    () = self.stopping_for(LAST_WORDS) => return,
                };
                // A client that went away or stayed silent has not made a request.
                let Ok(Ok(first)) = told else { return };
                match first.protocol {
                    Protocol::Http1 => self.http1(FirstBytes::replay(first, stream)).await,
                    Protocol::Http2 => self.http2(FirstBytes::replay(first, stream)).await,
                }
            } => {}
        }
    }

    /// Returns once the drain has gone on for so long.
    async fn stopping_for(&self, long: Duration) {
        self.stop.accepting.cancelled().await;
        tokio::time::sleep(long).await;
    }

    async fn http1(&self, io: FirstBytes<TcpStream>) {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.pipeline.header_timeout())
            .max_buf_size(MAX_HEAD)
            // A client may close its side once it has sent everything, and still wait for the answer.
            .half_close(true);
        let service = service_fn(|request| {
            let answer = self.pipeline.clone().handle(request, self.client);
            async { Ok::<_, std::convert::Infallible>(answer.await) }
        });
        let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
        let ended = tokio::select! {
            // First, so that it has read what is there: hyper drops a connection that it has read nothing of.
            biased;
            ended = connection.as_mut() => ended,
            () = self.stop.accepting.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            self.broke(&error);
        }
    }

    async fn http2(&self, io: FirstBytes<TcpStream>) {
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD as u32)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT);
        let busy = Arc::new(Busy::default());
        let service = service_fn(|request| {
            let (working, answer) = (Busy::enter(&busy), self.pipeline.clone().handle(request, self.client));
            async move {
                let answer = answer.await;
                drop(working);
                Ok::<_, std::convert::Infallible>(answer)
            }
        });
        let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = until_idle_or_told(&busy, self.pipeline.header_timeout(), self.stop.accepting.cancelled()) => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    // The farewell is over once the client has acknowledged it; one that is gone never does.
                    () = until_idle(&busy, self.pipeline.header_timeout()) => return,
                }
            }
        };
        if let Err(error) = ended {
            self.broke(&error);
        }
    }

    /// A head that is no HTTP, or too large, is a refusal; hyper has answered it. Anything else is a client that went away.
    fn broke(&self, error: &hyper::Error) {
        if error.is_parse_too_large() {
            self.pipeline.refuse_connection(
                self.client,
                Reason::HeadersTooLarge,
                "the request's head is over the limits",
            );
        } else if error.is_parse() {
            self.pipeline.refuse_connection(
                self.client,
                Reason::HttpMalformed,
                "the request's head is no HTTP/1.1",
            );
        }
    }

    async fn turn_away(self, mut stream: TcpStream) {
        let Connection { pipeline, client, open, .. } = self;
        // Clients that were turned away may linger; their number must not keep the next one out.
        drop(open);
        let answer = pipeline.refuse_connection(client, Reason::Overloaded, "over edge.max_connections");
        let say = async {
            stream.write_all(answer.as_bytes()).await?;
            stream.shutdown().await?;
            // Until the client has read it: closing on unread input would reset the connection and lose the answer.
            let mut scratch = [0; 1024];
            while stream.read(&mut scratch).await? > 0 {}
            io::Result::Ok(())
        };
        // Whoever is this slow to read a refusal has lost interest in it.
        let _ = tokio::time::timeout(TURN_AWAY, say).await;
    }
}

/// An open connection, counted.
struct Open {
    open: Arc<AtomicUsize>,
    gauge: prometheus::IntGauge,
    count: usize,
}

impl Open {
    fn enter(open: &Arc<AtomicUsize>, pipeline: &Pipeline) -> Open {
        let gauge = pipeline.metrics.connections.clone();
        gauge.inc();
        let count = open.fetch_add(1, Ordering::Relaxed) + 1;
        Open { open: open.clone(), gauge, count }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.gauge.dec();
    }
}

/// Whether an HTTP/2 connection has streams, and whether it had any lately.
#[derive(Default)]
struct Busy {
    streams: AtomicUsize,
    begun: AtomicUsize,
}

impl Busy {
    fn enter(busy: &Arc<Busy>) -> Working {
        busy.streams.fetch_add(1, Ordering::Relaxed);
        busy.begun.fetch_add(1, Ordering::Relaxed);
        Working(busy.clone())
    }
}

struct Working(Arc<Busy>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Ends once a whole interval has passed without a stream, or when told.
async fn until_idle_or_told(busy: &Busy, interval: Duration, told: impl Future<Output = ()>) {
    tokio::select! {
        () = until_idle(busy, interval) => {}
        () = told => {}
    }
}

async fn until_idle(busy: &Busy, interval: Duration) {
    loop {
        let begun = busy.begun.load(Ordering::Relaxed);
        tokio::time::sleep(interval).await;
        if busy.streams.load(Ordering::Relaxed) == 0 && busy.begun.load(Ordering::Relaxed) == begun {
            return;
        }
    }
}

const BACKLOG: u32 = 4096;
const MAX_HEAD: usize = 64 << 10;
const MAX_STREAMS: u32 = 256;
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// For a connection that was accepted last to send its request.
const LAST_WORDS: Duration = Duration::from_millis(250);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const TURN_AWAY: Duration = Duration::from_secs(2);
