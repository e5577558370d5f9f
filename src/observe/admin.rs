//! The admin listener (`/metrics`, `/livez`, `/readyz`, and the console at `/`) and the state behind `/readyz`.
//!
//! Keeps true: with `admin.token` set, only a client that sends it can read metrics or see the console. Probes need no
//! token, because probers often cannot keep secrets. No client can keep others from connecting.

mod connection_limit;
mod guard;
mod pages;
mod readiness;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::access::DynAccess;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::secret::Secret;
use crate::net::lingering_close;
use crate::net::tls::{self, HandshakeError};
use crate::observe::console::Console;
use crate::observe::metrics::Metrics;
use crate::observe::telemetry::LogThrottle;
pub use readiness::{QueueState, Readiness, SpoolState};

use connection_limit::{ConnectionLimit, ConnectionPermit, MAX_CONNECTIONS, MAX_PER_CLIENT};

/// Settings of the admin listener; a reload may change them.
pub struct AdminRules {
    /// None: plain HTTP.
    pub tls: Option<tls::Server>,
    /// The token that a request for metrics or for the console must have. None: no token needed.
    pub token: Option<Secret>,
    /// When the first certificate of either listener expires; none without TLS.
    pub certificates_expire: Option<Timestamp>,
}

/// The admin listener.
#[derive(Clone)]
pub struct Admin {
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// For `/readyz`.
    pub readiness: Arc<Readiness>,
    /// For `/`.
    pub console: Arc<Console>,
    /// From the last config load.
    pub rules: Arc<dyn DynAccess<AdminRules> + Send + Sync>,
}

impl Admin {
    /// Serves until told to stop.
    pub async fn serve(self, listener: TcpListener, tasks: TaskTracker, stop: CancellationToken) {
        let (limit, mut evictions) = (Arc::<ConnectionLimit>::default(), LogThrottle::default());
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                closed = evictions.wait_until_quiet() => {
                    tracing::info!(closed, "the admin listener no longer closes connections early");
                    continue;
                }
                () = stop.cancelled() => return,
            };
            let Ok((stream, peer)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let (permit, evicted) = limit.acquire(peer.ip());
            if evicted && let Some(closed) = evictions.record() {
                let (client, of_a_client, in_all) = (peer.ip(), MAX_PER_CLIENT, MAX_CONNECTIONS);
                tracing::warn!(
                    %client, of_a_client, in_all, closed,
                    "the admin listener has reached its limit of connections, in total or for this client: \
                    each new one closes the connection with the oldest last request"
                );
            }
            let (admin, stop) = (self.clone(), stop.clone());
            tasks.spawn(async move {
                tokio::select! {
                    () = admin.connection(stream, &permit) => {}
                    () = permit.evicted() => {}
                    () = stop.cancelled() => {}
                }
            });
        }
    }

    /// Starts with a TLS handshake if TLS is configured.
    async fn connection(&self, stream: TcpStream, permit: &ConnectionPermit) {
        let tls = self.rules.load().tls.clone();
        let Some(tls) = tls else { return self.http(stream, permit).await };
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(secured)) => self.http(secured.stream, permit).await,
            Ok(Err(HandshakeError::Gone)) => {}
            Ok(Err(HandshakeError::Refused(mut stream, detail))) => {
                tracing::debug!(detail, "an admin connection's TLS handshake failed");
                lingering_close::close(&mut stream, b"").await;
            }
            Ok(Err(HandshakeError::PlainHttp(mut stream))) => {
                lingering_close::close(&mut stream, NOT_TLS).await
            }
            Err(_) => tracing::debug!("an admin connection's TLS handshake took too long"),
        }
    }

    async fn http(&self, stream: impl AsyncRead + AsyncWrite + Unpin, permit: &ConnectionPermit) {
        let ending = CancellationToken::new();
        let service = service_fn(|request: Request<Incoming>| {
            let (head, ending) = (request.into_parts().0, &ending);
            async move {
                permit.on_request();
                Ok::<_, Infallible>(self.answer(&head, ending).await)
            }
        });
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let served = tokio::select! {
            served = connection.as_mut() => served,
            // A lifetime limit, so that a client that never reads its answers cannot hold a permit for ever.
            () = tokio::time::sleep(LIFETIME) => {
                // A browser that watches gets a whole answer, and connects again.
                ending.cancel();
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(HANDSHAKE_TIMEOUT, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = served {
            tracing::trace!(%error, "an admin connection ended");
        }
    }

    async fn answer(&self, request: &Parts, ending: &CancellationToken) -> Response<Body> {
        if request.method != Method::GET && request.method != Method::HEAD {
            let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match request.uri.path() {
            "/metrics" if !self.may_read_metrics(&request.headers) => {
                let mut answer = plain(StatusCode::UNAUTHORIZED, "the token is missing or wrong\n");
                answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                answer
            }
            "/metrics" => self.metrics(),
            "/livez" => typed(StatusCode::OK, "application/json", json!({ "live": true }).to_string()),
            "/readyz" => {
                let ready = self.readiness.ready();
                let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                typed(status, "application/json", self.readiness.report())
            }
            "/" | pages::EVENTS => self.console(request, ending).await,
            _ => plain(StatusCode::NOT_FOUND, "here are /, /metrics, /livez and /readyz\n"),
        }
    }

    /// Whether the request has the token, or none is configured.
    fn may_read_metrics(&self, headers: &HeaderMap) -> bool {
        self.rules.load().token.as_ref().is_none_or(|token| guard::has_bearer(headers, token))
    }

    fn metrics(&self) -> Response<Body> {
        let expire = self.rules.load().certificates_expire;
        self.metrics.edge.tls_expiry.set(expire.map_or(0.0, |expire| expire.as_second() as f64));
        match self.metrics.render() {
            Ok((text, kind)) => typed(StatusCode::OK, &kind, text),
            Err(error) => {
                let why = format!("cannot render the metrics: {error}\n");
                plain(StatusCode::INTERNAL_SERVER_ERROR, why)
            }
        }
    }
}

/// A text, or a stream of events.
type Body = UnsyncBoxBody<Bytes, Infallible>;

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    typed(status, "text/plain; charset=utf-8", text)
}

fn typed(status: StatusCode, kind: &str, body: impl Into<Bytes>) -> Response<Body> {
    let mut answer = Response::new(Full::from(body.into()).boxed_unsync());
    *answer.status_mut() = status;
    if let Ok(kind) = HeaderValue::from_str(kind) {
        answer.headers_mut().insert(CONTENT_TYPE, kind);
    }
    answer
}

const LIFETIME: Duration = Duration::from_secs(60);
/// For reading a request's head, and for idle time between requests. Short, because permits are few.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Short, because an unfinished handshake holds a permit.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 38\r\nconnection: close\r\n\r\nthis port speaks TLS: ask by https://\n";
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
