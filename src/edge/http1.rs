//! Serves an HTTP/1.x connection: hyper behind [`RequestGuard`], and the answers to heads that the guard refuses.
//!
//! Keeps true: every refused head is answered with a problem, after the answers to earlier requests, and the client has
//! time to read it.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::head::MAX_HEAD;
use super::request_guard::{CloseReason, RequestGuard, Times};
use super::write_timeout::WriteTimeout;
use super::{Connection, DRAIN_GRACE, IDLE_GRACE};
use crate::base::reason::Reason;
use crate::net::lingering_close;

impl Connection {
    pub(super) async fn http1<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        first: Vec<u8>,
        opened: Instant,
    ) {
        let head_in_progress = Arc::new(AtomicBool::new(false));
        let edge = &self.rules.edge;
        let stream = WriteTimeout::new(stream, edge.body_timeout);
        let idle = edge.idle_timeout + IDLE_GRACE;
        let times = Times { opened, head: edge.header_timeout, idle, pressure: self.pressure() };
        let mut guard = RequestGuard::new(stream, first, times, head_in_progress.clone());
        self.serve_http1(&mut guard, &head_in_progress).await;
        match guard.end() {
            Some(CloseReason::Refused(refusal)) => {
                let answer = self.pipeline.refuse_connection(&self.peer, refusal.reason, refusal.detail);
                Box::pin(lingering_close::close(&mut guard.into_inner(), answer.as_bytes())).await;
            }
            Some(CloseReason::NoRequest) => {
                let what = "the client sent only empty lines in time";
                self.pipeline.drop_connection(&self.peer, Reason::HeaderTimeout, what);
            }
            // The answer is sent, but the client may still be sending its body.
            Some(CloseReason::BrokenBody) => {
                Box::pin(lingering_close::close(&mut guard.into_inner(), b"")).await
            }
            Some(CloseReason::ClientClosed | CloseReason::Idle) | None => {}
        }
    }

    /// Lets hyper serve the requests that the guard passes.
    async fn serve_http1<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        guard: &mut RequestGuard<S>,
        head_in_progress: &AtomicBool,
    ) {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder
            // The guard limits the time and size of heads, so that every refusal is answered and recorded.
            .header_read_timeout(None)
            .max_buf_size(2 * MAX_HEAD)
            // A client may close its sending side and still wait for the answer.
            .half_close(true);
        let timeout = &keep_alive(self.rules.edge.idle_timeout);
        let service = service_fn(|request: Request<Incoming>| {
            let stays = request.version() == Version::HTTP_11 && !asks_to_close(request.headers());
            // Boxed, because hyper keeps room for this future on idle connections too.
            let answer = self
                .next_request()
                .map(|(peer, rules)| Box::pin(self.pipeline.clone().handle(request, peer, rules)));
            async move {
                let Some(answer) = answer else {
                    return Err(io::Error::other("a reload changed how the client address is determined"));
                };
                let mut answer = answer.await;
                if let Some(timeout) = timeout
                    && stays
                    && !self.is_stopping()
                    && !answer.headers().contains_key(CONNECTION)
                {
                    // Clients ignore Keep-Alive without this connection option.
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("keep-alive"));
                    answer.headers_mut().insert(KEEP_ALIVE, timeout.clone());
                }
                Ok(answer)
            }
        });
        let mut connection = pin!(builder.serve_connection(TokioIo::new(guard), service));
        let ended = tokio::select! {
            // First, so that hyper reads what has arrived: it drops a connection from which it has read nothing.
            biased;
            ended = connection.as_mut() => ended,
            () = self.until_drained(head_in_progress) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection failed");
        }
    }

    /// Returns once the connection must take no more requests. A head in progress gets the grace period.
    async fn until_drained(&self, head_in_progress: &AtomicBool) {
        self.until_stopping().await;
        if head_in_progress.load(Ordering::Relaxed) {
            tokio::time::sleep(DRAIN_GRACE).await;
        }
    }
}

/// The value of `Keep-Alive`, `timeout=SECONDS` (RFC 2068, section 19.7.1.1). None for less than a second.
fn keep_alive(idle: Duration) -> Option<HeaderValue> {
    let seconds = idle.as_secs();
    (seconds > 0).then(|| HeaderValue::try_from(format!("timeout={seconds}")).ok())?
}

/// Whether the request has `Connection: close`.
fn asks_to_close(headers: &HeaderMap) -> bool {
    let mut options =
        headers.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
    options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
