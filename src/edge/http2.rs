//! An HTTP/2 connection: its limits, and what becomes of one that breaks them.
//!
//! Keeps true: what a connection can make us hold is bounded; what HTTP/2 itself refuses is counted, and leaves no record; a
//! fragment in `:path` is refused as over HTTP/1.1.

use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Method;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::busy::{Allowed, Busy};
use super::frames::MAX_FRAME;
use super::head::MAX_HEAD;
use super::watched::Watched;
use super::write_timeout::WriteTimeout;
use super::{Connection, IDLE_GRACE};
use crate::base::clock;
use crate::base::reason::Reason;
use crate::config::Edge;
use crate::net::lingering_close;
use crate::observe::metrics::Http2Error;
use crate::request::answer::{Body, HungUp};

impl Connection {
    pub(super) async fn http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        first: Vec<u8>,
        opened: Instant,
    ) {
        let stream = WriteTimeout::new(stream, self.rules.edge.body_timeout);
        let (overdue, busy) = (CancellationToken::new(), Arc::new(Busy::since(opened)));
        let within = self.rules.edge.header_timeout;
        let mut watched = Watched::new(stream, first, within, overdue.clone(), busy.clone());
        match self.multiplex(&mut watched, (opened, overdue), &busy).await {
            Ended::Broke(error) => {
                let Some(reason) = watched.ended().or_else(|| client_error(&error)) else { return };
                tracing::debug!(client = %self.peer.address, %reason, "an HTTP/2 connection ended for its client's error");
                self.pipeline.metrics.edge.http2_errors(kind(reason), 1);
            }
            Ended::Idle if watched.in_head() => {
                let detail = "the request's head was not whole in time";
                self.pipeline.drop_connection(&self.peer, Reason::HeaderTimeout, detail);
            }
            Ended::Well | Ended::Idle => return,
        }
        lingering_close::close(&mut watched.into_inner(), b"").await;
    }

    /// Lets hyper serve the connection's streams.
    async fn multiplex<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: S,
        (opened, overdue): (Instant, CancellationToken),
        busy: &Arc<Busy>,
    ) -> Ended {
        let refused = |streams| {
            if streams > 0 {
                self.pipeline.metrics.edge.http2_errors(Http2Error::Stream, streams);
            }
        };
        let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
            let bodiless = request.method() == Method::HEAD;
            let malformed = request.headers().values().any(is_padded);
            refused(usize::from(malformed));
            let working = Busy::enter(busy);
            let answer = self.asker().map(|(peer, rules)| self.pipeline.clone().handle(request, peer, rules));
            async move {
                if malformed {
                    return Err(h2::Error::from(h2::Reason::PROTOCOL_ERROR));
                }
                // A client may ask again at once for what was refused like this.
                let answer = answer.ok_or(h2::Error::from(h2::Reason::REFUSED_STREAM))?;
                let mut answer = answer.await;
                if answer.extensions().get::<HungUp>().is_some() {
                    return Err(h2::Error::from(h2::Reason::CANCEL));
                }
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
                () = self.gives_way(busy) => {}
                () = self.stopping() => {}
            }
        };
        // Once hyper waits, the service has every request that it was given.
        let serve = poll_fn(|cx| {
            let polled = connection.as_mut().poll(cx);
            refused(busy.refused());
            polled
        });
        let ended = tokio::select! {
            ended = serve => ended,
            () = leave => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    // First: an answer that is made is to be written.
                    biased;
                    // That h2 serves no more streams is no fault of the client's.
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
        .header_table_size(HEADER_TABLE)
        .max_frame_size(MAX_FRAME as u32)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// A value with a space or a tab at its end: malformed (RFC 9113, section 8.2.1), and the library lets it pass.
fn is_padded(value: &hyper::header::HeaderValue) -> bool {
    let ends = [value.as_bytes().first(), value.as_bytes().last()];
    ends.into_iter().flatten().any(|byte| matches!(byte, b' ' | b'\t'))
}

/// Why h2 ended a connection, where that is the client's doing and it did not simply leave.
fn client_error(error: &hyper::Error) -> Option<h2::Reason> {
    let error = error.source()?.downcast_ref::<h2::Error>()?;
    let reason = error.reason().filter(|_| error.is_go_away() && error.is_library())?;
    (reason != h2::Reason::NO_ERROR).then_some(reason)
}

fn kind(reason: h2::Reason) -> Http2Error {
    match reason {
        h2::Reason::PROTOCOL_ERROR => Http2Error::Protocol,
        h2::Reason::FLOW_CONTROL_ERROR => Http2Error::FlowControl,
        h2::Reason::FRAME_SIZE_ERROR => Http2Error::FrameSize,
        h2::Reason::COMPRESSION_ERROR => Http2Error::Compression,
        h2::Reason::ENHANCE_YOUR_CALM => Http2Error::EnhanceYourCalm,
        _ => Http2Error::Other,
    }
}

const MAX_STREAMS: u32 = 256;
/// The protocol's own default, named so that no version of h2 changes it.
const HEADER_TABLE: u32 = 4096;
/// What one body, and all of a connection, may have under way beyond what requests have read.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Answers are small; this is per stream.
const SEND_BUFFER: usize = 64 << 10;
/// Streams that a client reset before we came to accept them.
const MAX_PENDING_RESETS: usize = 20;
/// Streams that h2 resets for the client's mistakes, over the whole life of a connection. A proxy's carries many clients for days, so
/// the bound is high. It is for DATA on closed streams, as `frames` counts the frames of all other mistakes.
const MAX_ERROR_RESETS: usize = 1 << 16;
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
