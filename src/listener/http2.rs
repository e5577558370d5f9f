//! An HTTP/2 connection: its limits, and what becomes of one that breaks them.
//!
//! Keeps true: what a connection can make us hold is bounded; an attack that the library stops is counted and recorded, once,
//! and nothing else is; a fragment in `:path`, which the library cuts off, is refused as over HTTP/1.1.

use std::error::Error as _;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::Method;
use hyper::http::uri::PathAndQuery;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::busy::{Allowed, Busy};
use super::first_bytes::FirstBytes;
use super::head::MAX_HEAD;
use super::patience::Patience;
use super::targets::Targets;
use super::watched::{HeadTime, Watched};
use super::{Connection, IDLE_GRACE};
use crate::admit;
use crate::clock;
use crate::config::Edge;
use crate::farewell;
use crate::reason::Reason;
use crate::respond::Body;

impl Connection {
    pub(super) async fn http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        first: Vec<u8>,
        opened: Instant,
    ) {
        let stream = Patience::new(stream, self.rules.edge.body_timeout);
        let tell = |reason: Reason, status: u16, detail: &'static str| {
            // Once nobody is served here any more, it is we who refuse streams, and no fault of the client's.
            if reason == Reason::Overloaded && self.asker().is_none() {
                return;
            }
            self.pipeline.saw_refused(&self.peer, reason, status, detail);
        };
        let head = HeadTime::new(self.rules.edge.header_timeout);
        let overdue = head.overdue.clone();
        let targets = Arc::new(Mutex::new(Targets::new()));
        let mut watched = Watched::new(FirstBytes::replay(first, stream), head, targets.clone(), tell);
        let ended = self.multiplex(&mut watched, (opened, overdue), &targets).await;
        let asked = watched.asked();
        let refused = match &ended {
            _ if asked.begins_wrong() => {
                Some((Reason::HttpMalformed, "an HTTP/2 connection that does not begin with SETTINGS"))
            }
            _ if watched.flooded() => Some((Reason::Overloaded, "a flood of HTTP/2 control frames")),
            Ended::Broke(error) => {
                let too_large = watched.answered().far_too_large() || asked.head_bytes() > MAX_HEAD;
                why(error, too_large)
            }
            Ended::Idle if asked.in_head() => {
                Some((Reason::HeaderTimeout, "the request's head was not whole in time"))
            }
            Ended::Well | Ended::Idle => None,
        };
        if let Some((reason, detail)) = refused {
            self.pipeline.drop_connection(&self.peer, reason, detail);
            farewell::say(&mut watched.into_inner(), b"").await;
        }
    }

    /// Lets hyper serve the connection's streams.
    async fn multiplex<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: S,
        (opened, overdue): (Instant, CancellationToken),
        targets: &Mutex<Targets>,
    ) -> Ended {
        let busy = Arc::new(Busy::since(opened));
        let service = service_fn(|mut request: hyper::Request<hyper::body::Incoming>| {
            let target = request.uri().path_and_query().map_or("", PathAndQuery::as_str).as_bytes();
            let mut targets = targets.lock().unwrap_or_else(PoisonError::into_inner);
            if targets.had_fragment(request.method().as_str().as_bytes(), target) {
                request.extensions_mut().insert(admit::Fragment);
            }
            drop(targets);
            let bodiless = request.method() == Method::HEAD;
            let malformed = request.headers().values().any(is_padded);
            let working = Busy::enter(&busy);
            let answer = self.asker().map(|(peer, rules)| self.pipeline.clone().handle(request, peer, rules));
            async move {
                if malformed {
                    return Err(h2::Error::from(h2::Reason::PROTOCOL_ERROR));
                }
                // A client may ask again at once for what was refused like this.
                let answer = answer.ok_or(h2::Error::from(h2::Reason::REFUSED_STREAM))?;
                let mut answer = answer.await;
                if bodiless {
                    *answer.body_mut() = Body::default();
                }
                Ok::<_, h2::Error>(answer.map(|body| working.answered(body)))
            }
        });
        let Edge { header_timeout, idle_timeout, body_timeout, .. } = self.rules.edge;
        let idle = idle_timeout + IDLE_GRACE;
        let allowed = Allowed { fresh: header_timeout, sending: body_timeout, idle };
        let mut connection = pin!(builder().serve_connection(TokioIo::new(io), service));
        let leave = async {
            tokio::select! {
                () = busy.until_quiet(opened, allowed) => {}
                () = overdue.cancelled() => {}
                () = self.gives_way(&busy) => {}
                () = self.stopping() => {}
            }
        };
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = leave => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    // First: an answer that is made is to be written.
                    biased;
                    ended = connection.as_mut() => match ended {
                        Ok(()) => return Ended::Idle,
                        ended => ended,
                    },
                    // The farewell is over once the client has acknowledged it; one that is gone never does.
                    () = busy.until_quiet(clock::instant(), Allowed::always(header_timeout)) => return Ended::Idle,
                }
            }
        };
        ended.map_or_else(Ended::Broke, |()| Ended::Well)
    }
}

impl Connection {
    /// Returns once nothing was asked for as long as a head may take, and the connection's place is wanted.
    async fn gives_way(&self, busy: &Busy) {
        let (brief, crowd) = (self.rules.edge.header_timeout, self.crowd());
        loop {
            tokio::time::sleep(brief).await;
            if crowd.is_dense() && busy.is_idle_for(brief) {
                return;
            }
        }
    }
}

enum Ended {
    /// By the client.
    Well,
    /// By us, since nothing was asked any more.
    Idle,
    /// By an error on either side.
    Broke(hyper::Error),
}

fn builder() -> hyper::server::conn::http2::Builder<TokioExecutor> {
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD as u32)
        .header_table_size(HEADER_TABLE as u32)
        .max_frame_size(MAX_FRAME as u32)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        // The library counts over a connection's whole life. A proxy's carries many clients for days: see `frames::MISTAKE_COST`.
        .max_local_error_reset_streams(None)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// A value with a space or a tab at its end: malformed (RFC 9113, section 8.2.1), and the library lets it pass.
fn is_padded(value: &hyper::header::HeaderValue) -> bool {
    let ends = [value.as_bytes().first(), value.as_bytes().last()];
    ends.into_iter().flatten().any(|byte| matches!(byte, b' ' | b'\t'))
}

/// Why a connection broke, where that is the client's doing and it did not simply leave.
fn why(error: &hyper::Error, too_large: bool) -> Option<(Reason, &'static str)> {
    let error = error.source()?.downcast_ref::<h2::Error>()?;
    if !error.is_go_away() || !error.is_library() {
        return None;
    }
    match error.reason()? {
        h2::Reason::NO_ERROR => None,
        _ if too_large => Some((Reason::HeadersTooLarge, "a header list far over 64 KiB")),
        h2::Reason::ENHANCE_YOUR_CALM => {
            Some((Reason::Overloaded, "a flood of HTTP/2 streams, resets or frames"))
        }
        h2::Reason::COMPRESSION_ERROR => Some((Reason::HttpMalformed, "broken HTTP/2 header compression")),
        h2::Reason::FLOW_CONTROL_ERROR => {
            Some((Reason::HttpMalformed, "HTTP/2 flow control was not kept to"))
        }
        h2::Reason::FRAME_SIZE_ERROR => Some((Reason::HttpMalformed, "an HTTP/2 frame of a wrong size")),
        _ => Some((Reason::HttpMalformed, "an HTTP/2 frame that cannot be there")),
    }
}

const MAX_STREAMS: u32 = 256;
/// The protocol's own defaults, named so that no version of the library changes them.
pub(super) const HEADER_TABLE: usize = 4096;
pub(super) const MAX_FRAME: usize = 16 << 10;
/// What one body, and all of a connection, may have under way beyond what requests have read.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Answers are small; this is per stream.
const SEND_BUFFER: usize = 64 << 10;
/// Streams that a client reset before we came to accept them.
const MAX_PENDING_RESETS: usize = 20;
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
