//! The admin listener: `/metrics`, `/livez`, `/readyz`, and the latches that readiness is read from.
//!
//! Keeps true: readiness is what the parts say of themselves, set at the moment they learn it; nothing here guesses. Where
//! there is a token, only who has it reads metrics; probes need none, since they cannot keep secrets. No client keeps the others from asking.

mod places;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
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

use crate::farewell;
use crate::metrics::Metrics;
use crate::secret::Secret;
use crate::telemetry::Spell;
use crate::tls::{self, Failure};
use places::{MAX_CONNECTIONS, MAX_OF_A_CLIENT, Place, Places};

/// What each part says of itself. All start down; the part that opens sets its own.
#[derive(Debug, Default)]
pub struct Readiness {
    /// A [`QueueState`].
    queue: AtomicU8,
    dedupe: AtomicBool,
    audit: AtomicBool,
    draining: AtomicBool,
    /// A [`SpoolState`].
    spool: AtomicU8,
    /// Why the queue takes no events, where it says so.
    queue_detail: ArcSwapOption<String>,
}

/// What the queue says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum QueueState {
    /// It is away, or refuses events.
    #[default]
    Down,
    /// It takes events.
    Up,
    /// It answers, and takes no more for want of room.
    Full,
}

impl QueueState {
    const ALL: [QueueState; 3] = [QueueState::Down, QueueState::Up, QueueState::Full];

    fn word(self) -> &'static str {
        match self {
            QueueState::Down => "down",
            QueueState::Up => "up",
            QueueState::Full => "full",
        }
    }
}

impl From<bool> for QueueState {
    fn from(up: bool) -> QueueState {
        if up { QueueState::Up } else { QueueState::Down }
    }
}

/// What the spool says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum SpoolState {
    /// There is none.
    #[default]
    Off,
    /// It would be on the queue's own disk: nothing is ever in it, and nobody can fall back on it.
    Beside,
    /// Nothing waits in it.
    Empty,
    /// Events wait in it: they are drained while the queue takes them.
    Draining,
    /// It takes no more: at its bound, or its disk fails.
    Full,
}

impl SpoolState {
    const ALL: [SpoolState; 5] =
        [SpoolState::Off, SpoolState::Beside, SpoolState::Empty, SpoolState::Draining, SpoolState::Full];

    /// Whether an event that the queue does not take can go there.
    fn takes(self) -> bool {
        matches!(self, SpoolState::Empty | SpoolState::Draining)
    }

    fn word(self, drains: bool) -> &'static str {
        match self {
            SpoolState::Off => "off",
            SpoolState::Beside | SpoolState::Empty => "empty",
            SpoolState::Draining if drains => "draining",
            SpoolState::Draining => "waiting",
            SpoolState::Full => "full",
        }
    }
}

impl Readiness {
    /// Whether the queue takes events.
    pub fn set_queue(&self, state: impl Into<QueueState>) {
        self.queue.store(state.into() as u8, Ordering::Relaxed);
    }

    /// What the queue said last.
    pub fn queue(&self) -> QueueState {
        QueueState::ALL.get(usize::from(self.queue.load(Ordering::Relaxed))).copied().unwrap_or_default()
    }

    /// Why the queue takes no events, and what to do; none: it takes them, or does not say.
    pub fn set_queue_detail(&self, why: Option<&str>) {
        self.queue_detail.store(why.map(|why| Arc::new(why.to_owned())));
    }

    /// Why the queue takes no events, where it says so.
    pub fn queue_detail(&self) -> Option<String> {
        self.queue_detail.load().as_deref().cloned()
    }

    /// Whether the dedupe store answers.
    pub fn set_dedupe(&self, up: bool) {
        self.dedupe.store(up, Ordering::Relaxed);
    }

    /// Whether the reject log can be written. A detail: it never makes the gateway unready.
    pub fn set_audit(&self, up: bool) {
        self.audit.store(up, Ordering::Relaxed);
    }

    /// What the spool is like.
    pub fn set_spool(&self, state: SpoolState) {
        self.spool.store(state as u8, Ordering::Relaxed);
    }

    fn spool(&self) -> SpoolState {
        SpoolState::ALL.get(usize::from(self.spool.load(Ordering::Relaxed))).copied().unwrap_or_default()
    }

    /// The gateway is on its way out.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether it is on its way out.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether a new event could be put in the queue.
    pub fn is_up(&self) -> bool {
        self.queue() == QueueState::Up && self.dedupe.load(Ordering::Relaxed)
    }

    /// Whether a new event could be made durable.
    pub fn ready(&self) -> bool {
        (self.is_up() || self.spool().takes()) && !self.draining()
    }

    /// `/readyz`: the parts by name.
    fn report(&self) -> String {
        let word = |part: &AtomicBool| if part.load(Ordering::Relaxed) { "up" } else { "down" };
        let report = Report {
            ready: self.ready(),
            queue: self.queue().word(),
            dedupe: word(&self.dedupe),
            spool: self.spool().word(self.is_up()),
            draining: self.draining(),
            audit: word(&self.audit),
            queue_detail: self.queue_detail(),
        };
        serde_json::to_string(&report).unwrap_or_default()
    }
}

#[derive(serde::Serialize)]
struct Report {
    ready: bool,
    queue: &'static str,
    dedupe: &'static str,
    spool: &'static str,
    draining: bool,
    audit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_detail: Option<String>,
}

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
        let (places, mut turned_away) = (Arc::<Places>::default(), Spell::default());
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
                farewell::say(&mut stream, b"").await;
            }
            Ok(Err(Failure::PlainHttp(mut stream))) => farewell::say(&mut stream, NOT_TLS).await,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_wait_in_the_spool_until_the_queue_takes_them() {
        let readiness = Readiness::default();
        readiness.set_spool(SpoolState::Draining);
        readiness.set_dedupe(true);
        for (queue, words) in [
            (QueueState::Down, ["down", "waiting"]),
            (QueueState::Full, ["full", "waiting"]),
            (QueueState::Up, ["up", "draining"]),
        ] {
            readiness.set_queue(queue);
            let report: serde_json::Value = serde_json::from_str(&readiness.report()).unwrap();
            assert_eq!([&report["queue"], &report["spool"]], words);
        }
    }

    #[test]
    fn a_spool_that_takes_events_makes_up_for_a_queue_that_is_away() {
        for (state, alone) in SpoolState::ALL.into_iter().zip([false, false, true, true, false]) {
            let readiness = Readiness::default();
            readiness.set_spool(state);
            assert_eq!(readiness.ready(), alone, "{state:?}");
            readiness.set_queue(true);
            assert_eq!(readiness.ready(), alone, "{state:?}: dedupe is down");
            readiness.set_dedupe(true);
            assert!(readiness.ready(), "{state:?}");
            readiness.set_draining();
            assert!(!readiness.ready(), "{state:?}");
        }
    }
}
