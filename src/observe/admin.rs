//! The admin listener: `/metrics`, `/livez`, `/readyz`, and the latches that readiness is read from.
//!
//! Keeps true: where `admin.token` is set, only a client that sends it reads metrics. Probes need no token, since they cannot keep
//! secrets. No client keeps the others from asking.

mod places;
mod readiness;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::access::DynAccess;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use serde_json::json;
use subtle::ConstantTimeEq;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::secret::Secret;
use crate::net::lingering_close;
use crate::net::tls::{self, Failure};
use crate::observe::metrics::Metrics;
use crate::observe::telemetry::LogThrottle;
pub use readiness::{QueueState, Readiness, SpoolState};

use places::{MAX_CONNECTIONS, MAX_OF_A_CLIENT, Place, Places};

/// What the admin listener goes by, which a reload may change.
pub struct AdminRules {
    /// None: plain HTTP.
    pub tls: Option<tls::Server>,
    /// What `Authorization: Bearer` must say to read metrics. None: nothing.
    pub token: Option<Secret>,
    /// When the first certificate of either listener expires; none without TLS.
    pub certificates_expire: Option<Timestamp>,
}

/// The admin listener's parts.
#[derive(Clone)]
pub struct Admin {
    /// What `/metrics` renders.
    pub metrics: Arc<Metrics>,
    /// What `/readyz` tells.
    pub readiness: Arc<Readiness>,
    /// As of the last load of the config.
    pub rules: Arc<dyn DynAccess<AdminRules> + Send + Sync>,
}

impl Admin {
    /// Answers until told to stop.
    pub async fn serve(self, listener: TcpListener, tasks: TaskTracker, stop: CancellationToken) {
        let (places, mut turned_away) = (Arc::<Places>::default(), LogThrottle::default());
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                closed = turned_away.over() => {
                    tracing::info!(closed, "the admin listener turns no connections away any more");
                    continue;
                }
                () = stop.cancelled() => return,
            };
            let Ok((stream, peer)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let (place, another_gives_way) = places.take(peer.ip());
            if another_gives_way && let Some(closed) = turned_away.again() {
                let (client, of_a_client, in_all) = (peer.ip(), MAX_OF_A_CLIENT, MAX_CONNECTIONS);
                tracing::warn!(
                    %client, of_a_client, in_all, closed,
                    "the admin listener has as many connections as it takes, of this client or in all: \
                    closing more, each time the one that has asked nothing for longest"
                );
            }
            let (admin, stop) = (self.clone(), stop.clone());
            tasks.spawn(async move {
                tokio::select! {
                    () = admin.connection(stream, &place) => {}
                    () = place.gives_way() => {}
                    () = stop.cancelled() => {}
                }
            });
        }
    }

    /// TLS first, where there is TLS.
    async fn connection(&self, stream: TcpStream, place: &Place) {
        let tls = self.rules.load().tls.clone();
        let Some(tls) = tls else { return self.http(stream, place).await };
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(secured)) => self.http(secured.stream, place).await,
            Ok(Err(Failure::Gone)) => {}
            Ok(Err(Failure::Refused(mut stream, detail))) => {
                tracing::debug!(detail, "an admin connection's TLS handshake failed");
                lingering_close::close(&mut stream, b"").await;
            }
            Ok(Err(Failure::PlainHttp(mut stream))) => lingering_close::close(&mut stream, NOT_TLS).await,
            Err(_) => tracing::debug!("an admin connection's TLS handshake took too long"),
        }
    }

    async fn http(&self, stream: impl AsyncRead + AsyncWrite + Unpin, place: &Place) {
        let service = service_fn(|request| async move {
            place.asked();
            Ok::<_, Infallible>(self.answer(&request))
        });
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let served = tokio::select! {
            served = connection.as_mut() => served,
            // Nobody keeps a place for ever, not even by asking and reading no answer.
            () = tokio::time::sleep(LIFETIME) => {
                connection.as_mut().graceful_shutdown();
                tokio::time::timeout(HANDSHAKE_TIMEOUT, connection).await.unwrap_or(Ok(()))
            }
        };
        if let Err(error) = served {
            tracing::trace!(%error, "an admin connection ended");
        }
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if *request.method() != Method::GET && *request.method() != Method::HEAD {
            let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n".to_owned());
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match request.uri().path() {
            "/metrics" if !self.may_read(request.headers()) => {
                let mut answer =
                    plain(StatusCode::UNAUTHORIZED, "the token is missing or wrong\n".to_owned());
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
            _ => plain(StatusCode::NOT_FOUND, "here are /metrics, /livez and /readyz\n".to_owned()),
        }
    }

    /// Whether the request has the token, where there is one.
    fn may_read(&self, headers: &HeaderMap) -> bool {
        let rules = self.rules.load();
        let Some(token) = &rules.token else { return true };
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let value = value.as_bytes();
        let Some((scheme, given)) = value.split_at_checked(BEARER.len()) else { return false };
        // Comparing slices of unequal length tells the length and nothing else.
        scheme.eq_ignore_ascii_case(BEARER) && bool::from(given.ct_eq(token.expose().as_bytes()))
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let expire = self.rules.load().certificates_expire;
        self.metrics.edge.tls_expiry.set(expire.map_or(0.0, |expire| expire.as_second() as f64));
        match self.metrics.render() {
            Ok((text, kind)) => typed(StatusCode::OK, &kind, text),
            Err(error) => {
                plain(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot render the metrics: {error}\n"))
            }
        }
    }
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", text)
}

fn typed(status: StatusCode, kind: &str, body: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = status;
    if let Ok(kind) = HeaderValue::from_str(kind) {
        answer.headers_mut().insert(CONTENT_TYPE, kind);
    }
    answer
}

const LIFETIME: Duration = Duration::from_secs(60);
/// For a request's head, and between requests on a kept connection: a place is worth more than a scraper's connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Short, since who does not end its handshake holds one of the places.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const BEARER: &[u8] = b"Bearer ";
const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 38\r\nconnection: close\r\n\r\nthis port speaks TLS: ask by https://\n";
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
