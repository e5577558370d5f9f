//! The way of a request, from its head to its answer.
//!
//! Keeps true: nothing is parsed before it is verified; a 200 is rendered only from what the inbox said; every request is
//! counted once and every refusal recorded once; once a body is read, a client that hangs up cancels nothing.

mod drained;
mod exchange;
mod outlive;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as _, Incoming};
use hyper::header::EXPECT;
use hyper::{Method, Request, Response};
use tokio_util::task::TaskTracker;

use crate::admin::Readiness;
use crate::admit;
use crate::audit::Audit;
use crate::clock::{self, Clock};
use crate::config::Edge;
use crate::inbox::{Admission, Owner, Unavailable, Verdict};
use crate::metrics::Metrics;
use crate::normalize::{self, Forward, Normalized, Origin};
use crate::outcome::{Outcome, Reason, Rejection};
use crate::respond::{self, Body};
use crate::route::{Found, Routes, Source};
use crate::signature::{self, Verified};
use crate::spool::Handover;
pub use exchange::Exchange;

/// Everything a request needs, shared by all of them.
pub struct Pipeline {
    /// The sources.
    pub routes: Routes,
    /// The durable step.
    pub handover: Arc<Handover>,
    /// The reject log.
    pub audit: Audit,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Says whether the gateway is draining.
    pub readiness: Arc<Readiness>,
    /// The time.
    pub clock: Clock,
    /// Limits and deadlines.
    pub edge: Edge,
    /// What must be finished before the process may end.
    pub tasks: TaskTracker,
}

impl Pipeline {
    /// Answers a request.
    pub async fn handle(self: Arc<Self>, request: Request<Incoming>, client: IpAddr) -> Response<Body> {
        let (head, mut incoming) = request.into_parts();
        let mut exchange = Exchange::begin(&self, head, client);
        match self.receive(&mut exchange, &mut incoming).await {
            Ok(body) => {
                let tasks = self.tasks.clone();
                outlive::outlive(tasks, async move {
                    let outcome = self.process(&exchange, &body).await.unwrap_or_else(Outcome::Rejected);
                    exchange.conclude(&self, Some(&body), outcome)
                })
                .await
            }
            Err(outcome) => {
                // A client that is still sending would lose the answer to a connection reset. One that waits to be asked
                // for its body is not asked.
                if !incoming.is_end_stream() && !exchange.head.headers.contains_key(EXPECT) {
                    self.tasks.spawn(admit::discard(incoming, self.edge.body_timeout));
                }
                exchange.conclude(&self, None, outcome)
            }
        }
    }

    /// What is refused before a body is believed, and the body.
    async fn receive(&self, exchange: &mut Exchange, incoming: &mut Incoming) -> Result<Bytes, Outcome> {
        let path = exchange.head.uri.path();
        let source = match self.routes.find(path) {
            Found::Source(source) => exchange.belongs_to(source),
            Found::WrongToken(source) => {
                exchange.belongs_to(source);
                return Err(rejected(
                    Reason::PathTokenMismatch,
                    "the path's last segment is not the source's token",
                ));
            }
            Found::Nothing => return Err(rejected(Reason::UnknownPath, "no source has this path")),
        };
        let refused = Outcome::Rejected;
        admit::method(&source, &exchange.head.method).map_err(refused)?;
        admit::client(&source, exchange.client).map_err(refused)?;
        admit::rate(&source).map_err(refused)?;
        admit::encoding(&exchange.head.headers).map_err(refused)?;
        let body = admit::body(incoming, self.edge.max_body, self.edge.body_timeout).await;
        if let Err(Outcome::Rejected(rejection)) = &body
            && rejection.reason == Reason::HttpMalformed
        {
            // Whose request it was is no more certain than the rest of it.
            exchange.belongs_to_nobody();
        }
        body
    }

    /// From a whole request to its outcome.
    async fn process(&self, exchange: &Exchange, body: &Bytes) -> Result<Outcome, Rejection> {
        let Some(source) = &exchange.source else {
            return Err(Rejection::new(Reason::UnknownPath, "no source has this path"));
        };
        source.metrics.body_bytes.observe(body.len() as f64);
        if exchange.head.method == Method::GET {
            return handshake(source, exchange);
        }
        let verified = authenticate(source, exchange, body)?;
        let (payload, reading) = normalize::read(source.provider, &verified)?;
        subscription_allowed(source, payload.text("subscriptionId").as_deref())?;
        let origin = Origin { source: &source.name, path: &source.path, provider: source.provider };
        match normalize::normalize(&origin, &verified, reading, exchange.received) {
            Normalized::HealthCheck => Ok(Outcome::Ignored),
            Normalized::Event(forward) => self.admit(source, exchange, *forward, body.len()).await,
        }
    }

    /// The durable step, and what is told of it.
    async fn admit(
        &self,
        source: &Source,
        exchange: &Exchange,
        forward: Forward,
        bytes: usize,
    ) -> Result<Outcome, Rejection> {
        let Forward { event, identity, body, sequence } = forward;
        let kind = event.kind.clone();
        let admission = Admission {
            source: source.name.clone(),
            provider: source.provider.name().into(),
            identity,
            body,
            on_conflict: source.on_conflict,
            owner: Owner(clock::random()),
            event,
        };
        let left = self.edge.request_timeout.saturating_sub(exchange.elapsed());
        let handover = self.handover.clone();
        let mut handing_over = Box::pin(async move { handover.admit(admission).await });
        let verdict = match tokio::time::timeout(left, &mut handing_over).await {
            Ok(verdict) => verdict?,
            Err(_) => {
                // It goes on, to the spool if need be: the provider is told to come again, and then it is a duplicate.
                self.tasks.spawn(handing_over);
                return Err(Unavailable::Unknown.into());
            }
        };
        match verdict {
            Verdict::Accepted { id, conflict } => {
                source.metrics.event(&kind);
                source.metrics.conflicts.inc_by(conflict.into());
                source.metrics.last_accepted.set(exchange.received.as_microsecond() as f64 / 1e6);
                if let Some((scope, number)) = sequence {
                    source.metrics.sequence_gaps.inc_by(source.skipped(scope, number));
                }
                Ok(Outcome::Accepted { id })
            }
            Verdict::Duplicate { id, dropped } => {
                if dropped {
                    source.metrics.conflicts.inc();
                    exchange.record_conflict(self, (&body, bytes), &id);
                }
                Ok(Outcome::Duplicate { id })
            }
        }
    }
}

/// Answers a provider's validation challenge by its own key.
fn handshake(source: &Source, exchange: &Exchange) -> Result<Outcome, Rejection> {
    let invalid = |detail: &str| Err(Rejection::new(Reason::HandshakeInvalid, detail));
    let Some(header) = source.provider.challenge_header() else {
        return invalid("this provider has no handshake");
    };
    let mut keys = exchange.head.headers.get_all(header).iter();
    match (keys.next(), keys.next()) {
        (Some(_), Some(_)) => invalid("the validation key is there more than once"),
        (None, _) => invalid("the validation key is missing"),
        (Some(key), None) if key.is_empty() => invalid("the validation key is empty"),
        (Some(key), None) if key.len() > MAX_CHALLENGE => invalid("the validation key is over 512 bytes"),
        (Some(key), None) if key.to_str().is_err() => invalid("the validation key is not ASCII"),
        (Some(key), None) => Ok(Outcome::Handshake { header, key: key.clone() }),
    }
}

/// The signature over the raw bytes where the source has keys; else what the route and the admission have checked.
fn authenticate<'a>(
    source: &Source,
    exchange: &'a Exchange,
    body: &'a Bytes,
) -> Result<Verified<'a>, Rejection> {
    let Some(scheme) = source.scheme else {
        return Ok(Verified::by_other_means(source.verified_by, body));
    };
    let now = exchange.received.as_second();
    let verified =
        signature::verify(scheme, &source.keys, &exchange.head.headers, body, now, source.tolerance);
    let age = match &verified {
        Ok(verified) => verified.signed().map(|signed| {
            source.metrics.secret_matched(signed.slot);
            signed.age
        }),
        // Authentic but late: a clock that is off must show in the histogram.
        Err(signature::SignatureError::OutsideTolerance { age, .. }) => Some(*age),
        Err(_) => None,
    };
    if let Some(age) = age {
        source.metrics.signature_age.observe(age as f64);
    }
    Ok(verified?)
}

fn subscription_allowed(source: &Source, subscription: Option<&str>) -> Result<(), Rejection> {
    if source.subscriptions.is_empty() || subscription.is_some_and(|id| source.subscriptions.contains(id)) {
        return Ok(());
    }
    Err(Rejection::new(
        Reason::SubscriptionNotAllowed,
        "the subscription is not among the source's subscriptions",
    ))
}

fn rejected(reason: Reason, detail: &str) -> Outcome {
    Outcome::Rejected(Rejection::new(reason, detail))
}

const MAX_CHALLENGE: usize = 512;

/// What happens to a connection before or instead of a request.
impl Pipeline {
    /// Counts and records a refusal that has no request, and renders its answer for a raw socket.
    pub fn refuse_connection(&self, client: IpAddr, reason: Reason, detail: &str) -> String {
        let reject = exchange::record_bare(self, client, reason, detail);
        let body = respond::problem_body(reason, &reject);
        let retry = if reason.retries() {
            format!("retry-after: {}\r\n", clock::retry_after())
        } else {
            String::new()
        };
        format!(
            "HTTP/1.1 {}\r\ncontent-type: application/problem+json\r\n{retry}content-length: {}\r\n\
             connection: close\r\n\r\n{body}",
            reason.status(),
            body.len()
        )
    }

    /// How long a connection may take to say what it is, and may idle.
    pub fn header_timeout(&self) -> Duration {
        self.edge.header_timeout
    }
}
