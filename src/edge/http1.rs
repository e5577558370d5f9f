//! An HTTP/1.x connection: hyper behind a guard, and the answers that hyper does not give.
//!
//! Keeps true: every refusal of a head is answered by a problem, after the answers to what came before it, and the client
//! has time to read it.

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
use super::{Connection, IDLE_GRACE, LAST_WORDS};
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
        let times = Times { opened, head: edge.header_timeout, idle, crowd: self.crowd() };
        let mut guard = RequestGuard::new(stream, first, times, head_in_progress.clone());
        self.converse(&mut guard, &head_in_progress).await;
        match guard.end() {
            Some(CloseReason::Refused(refusal)) => {
                let answer = self.pipeline.refuse_connection(&self.peer, refusal.reason, refusal.detail);
                Box::pin(lingering_close::close(&mut guard.into_inner(), answer.as_bytes())).await;
            }
            Some(CloseReason::Silent) => {
                let what = "nothing but empty lines came in time";
                self.pipeline.drop_connection(&self.peer, Reason::HeaderTimeout, what);
            }
            // Its answer is out; the client may still be sending.
            Some(CloseReason::BrokenBody) => {
                Box::pin(lingering_close::close(&mut guard.into_inner(), b"")).await
            }
            Some(CloseReason::Left | CloseReason::Idle) | None => {}
        }
    }

    /// Lets hyper serve what the guard passes.
    async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        guard: &mut RequestGuard<S>,
        head_in_progress: &AtomicBool,
    ) {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder
            // The guard holds heads to time and size, for every refusal to be answered and recorded.
            .header_read_timeout(None)
            .max_buf_size(2 * MAX_HEAD)
            // A client may close its side once it has sent everything, and still wait for the answer.
            .half_close(true);
        let timeout = &keep_alive(self.rules.edge.idle_timeout);
        let service = service_fn(|request: Request<Incoming>| {
            let stays = request.version() == Version::HTTP_11 && !asks_to_close(request.headers());
            // hyper keeps room for the largest answer under way, on idle connections too.
            let answer = self
                .asker()
                .map(|(peer, rules)| Box::pin(self.pipeline.clone().handle(request, peer, rules)));
            async move {
                let Some(answer) = answer else {
                    return Err(io::Error::other("asked by rules that are out of date"));
                };
                let mut answer = answer.await;
                if let Some(timeout) = timeout
                    && stays
                    && !self.is_stopping()
                    && !answer.headers().contains_key(CONNECTION)
                {
                    // The connection option without which the timeout is to be ignored.
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("keep-alive"));
                    answer.headers_mut().insert(KEEP_ALIVE, timeout.clone());
                }
                Ok(answer)
            }
        });
        let mut connection = pin!(builder.serve_connection(TokioIo::new(guard), service));
        let ended = tokio::select! {
            // First, so that it has read what is there: hyper drops a connection that it has read nothing of.
            biased;
            ended = connection.as_mut() => ended,
            () = self.told_to_stop(head_in_progress) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection broke");
        }
    }

    /// A client in the middle of a head is about to ask.
    async fn told_to_stop(&self, head_in_progress: &AtomicBool) {
        self.stopping().await;
        if head_in_progress.load(Ordering::Relaxed) {
            tokio::time::sleep(LAST_WORDS).await;
        }
    }
}

/// The value of `Keep-Alive`, which tells a client how long its connection is kept: `timeout=SECONDS`, as RFC 2068, section
/// 19.7.1.1, has it. None where that is less than a second.
fn keep_alive(idle: Duration) -> Option<HeaderValue> {
    let seconds = idle.as_secs();
    (seconds > 0).then(|| HeaderValue::try_from(format!("timeout={seconds}")).ok())?
}

/// Whether a request says that its connection ends with it.
fn asks_to_close(headers: &HeaderMap) -> bool {
    let mut options =
        headers.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|b| *b == b','));
    options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
