//! Serves an HTTP/2 connection within its limits.
//!
//! Keeps true: the memory of a connection is bounded. Errors at the level of HTTP/2 itself are counted but not
//! recorded. A fragment in `:path` is refused as over HTTP/1.1.

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

use super::frame_guard::FrameGuard;
use super::frames::MAX_FRAME;
use super::head::MAX_HEAD;
use super::stream_activity::{QuietTimeouts, StreamActivity};
use super::write_timeout::WriteTimeout;
use super::{Connection, IDLE_GRACE};
use crate::base::clock;
use crate::base::reason::Reason;
use crate::config::Edge;
use crate::net::lingering_close;
use crate::observe::metrics::Http2Error;
use crate::request::answer::{Body, ClientGone};

impl Connection {
    pub(super) async fn http2<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        first: Vec<u8>,
        opened: Instant,
    ) {
        let stream = WriteTimeout::new(stream, self.rules.edge.body_timeout);
        let (overdue, activity) = (CancellationToken::new(), Arc::new(StreamActivity::new(opened)));
        let within = self.rules.edge.header_timeout;
        let mut guard = FrameGuard::new(stream, first, within, overdue.clone(), activity.clone());
        match self.serve_http2(&mut guard, (opened, overdue), &activity).await {
            Ended::Broken(error) => {
                let Some(reason) = guard.ended().or_else(|| client_error(&error)) else { return };
                tracing::debug!(client = %self.peer.address, %reason, "an HTTP/2 connection ended by a client error");
                self.pipeline.metrics.edge.http2_errors(kind(reason), 1);
            }
            Ended::Idle if guard.in_head() => {
                let detail = "the request's head was not complete in time";
                self.pipeline.drop_connection(&self.peer, Reason::HeaderTimeout, detail);
            }
            Ended::ByClient | Ended::Idle => return,
        }
        lingering_close::close(&mut guard.into_inner(), b"").await;
    }

    /// Lets hyper serve the connection's streams.
    async fn serve_http2<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: S,
        (opened, overdue): (Instant, CancellationToken),
        activity: &Arc<StreamActivity>,
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
            let processing = StreamActivity::begin(activity);
            let answer =
                self.next_request().map(|(peer, rules)| self.pipeline.clone().handle(request, peer, rules));
            async move {
                if malformed {
                    return Err(h2::Error::from(h2::Reason::PROTOCOL_ERROR));
                }
                // A client may retry a request at once after REFUSED_STREAM.
                let answer = answer.ok_or(h2::Error::from(h2::Reason::REFUSED_STREAM))?;
                let mut answer = answer.await;
                if answer.extensions().get::<ClientGone>().is_some() {
                    return Err(h2::Error::from(h2::Reason::CANCEL));
                }
                if bodiless {
                    *answer.body_mut() = Body::default();
                }
                Ok::<_, h2::Error>(answer.map(|body| processing.answered(body)))
            }
        });
        let Edge { header_timeout, idle_timeout, body_timeout, .. } = self.rules.edge;
        let idle = idle_timeout + IDLE_GRACE;
        let timeouts = QuietTimeouts { fresh: header_timeout, sending: body_timeout, idle };
        let mut connection = pin!(builder().serve_connection(TokioIo::new(io), service));
        let leave = async {
            tokio::select! {
                () = activity.until_quiet(opened, timeouts) => {}
                () = overdue.cancelled() => {}
                () = self.until_evictable(activity) => {}
                () = self.until_stopping() => {}
            }
        };
        // Once hyper returns from a poll, the service has every request that h2 did not refuse.
        let serve = poll_fn(|cx| {
            let polled = connection.as_mut().poll(cx);
            refused(activity.take_refused());
            polled
        });
        let ended = tokio::select! {
            ended = serve => ended,
            () = leave => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    // First, so that a finished answer is written.
                    biased;
                    // A close that this side began is not the client's error.
                    ended = connection.as_mut() => match ended {
                        Ok(()) => return Ended::Idle,
                        ended => ended,
                    },
                    // A graceful shutdown ends when the client acknowledges it. A client that is gone never does.
                    () = activity.until_quiet(clock::instant(), QuietTimeouts::same(header_timeout)) => return Ended::Idle,
                }
            }
        };
        ended.map_or_else(Ended::Broken, |()| Ended::ByClient)
    }
}

impl Connection {
    /// Returns once the connection has been idle for the header timeout and connections run short.
    async fn until_evictable(&self, activity: &StreamActivity) {
        let (brief, pressure) = (self.rules.edge.header_timeout, self.pressure());
        loop {
            tokio::time::sleep(brief).await;
            if pressure.is_high() && activity.is_idle_for(brief) {
                return;
            }
        }
    }
}

enum Ended {
    ByClient,
    /// This side closed an idle connection.
    Idle,
    /// An error on either side.
    Broken(hyper::Error),
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

/// Whether a value begins or ends with a space or a tab. RFC 9113, section 8.2.1, forbids it, but h2 lets it pass.
fn is_padded(value: &hyper::header::HeaderValue) -> bool {
    let ends = [value.as_bytes().first(), value.as_bytes().last()];
    ends.into_iter().flatten().any(|byte| matches!(byte, b' ' | b'\t'))
}

/// The reason for which h2 ended the connection, if the client caused it by more than closing.
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
/// The protocol's default, set here so that no version of h2 changes it.
const HEADER_TABLE: u32 = 4096;
/// Bytes that one body may send before its request reads them.
const STREAM_WINDOW: u32 = 256 << 10;
/// The same for all bodies of a connection together.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Bytes for each stream. Answers are small.
const SEND_BUFFER: usize = 64 << 10;
/// Streams that the client reset before hyper accepted them.
const MAX_PENDING_RESETS: usize = 20;
/// Streams that h2 resets for client errors over the life of a connection. A proxy's connection carries many clients
/// for days, so the bound is high. It limits DATA on closed streams; `frames` counts the frames of all other errors.
const MAX_ERROR_RESETS: usize = 1 << 16;
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
