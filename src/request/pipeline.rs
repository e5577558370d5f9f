//! The way of a request, from its head to its answer.
//!
//! Keeps true: nothing is parsed before it is verified; a 200 is rendered only from what the inbox said; every request is
//! counted once and every refusal recorded once; once a body is read, a client that hangs up cancels nothing.

mod counts;
mod delivery;
mod drained;
mod exchange;
mod handshake;
mod health;
mod outlive;
mod quarantined;
mod rules;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use hyper::body::{Body as _, Incoming};
use hyper::header::EXPECT;
use hyper::{Method, Request, Response};
use jiff::Timestamp;
use tokio_util::task::TaskTracker;

use crate::base::clock::{self, Clock};
use crate::base::peer::{self, Peer};
use crate::base::reason::Reason;
use crate::durable::inbox::{Admission, Owner, Unavailable, Verdict};
use crate::durable::quarantine::Quarantine;
use crate::durable::spool::Handover;
use crate::observe::admin::Readiness;
use crate::observe::audit::{Audit, Reject};
use crate::observe::metrics::Metrics;
use crate::provider::normalize::{Forward, Normalized};
use crate::request::admission::{self, shares::Place};
use crate::request::answer::{self, Body};
use crate::request::outcome::{Outcome, Rejection};
use crate::request::source::{Found, Source};
use counts::Counts;
use delivery::Delivery;
pub(crate) use delivery::{ANY_AGE, subscription_allowed};
pub use exchange::Exchange;
pub use rules::Rules;

/// Everything a request needs, shared by all of them.
pub struct Pipeline {
    /// What requests are held against, as of the last load of the config.
    pub rules: Arc<ArcSwap<Rules>>,
    /// The durable step.
    pub handover: Arc<Handover>,
    /// The reject log.
    pub audit: Audit,
    /// What keeps refused requests that may be genuine; none unless it is enabled.
    pub quarantine: Option<Quarantine>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Says whether the gateway is draining.
    pub readiness: Arc<Readiness>,
    /// The time.
    pub clock: Clock,
    /// What must be finished before the process may end.
    pub tasks: TaskTracker,
}

impl Pipeline {
    /// Answers a request, held against these rules.
    pub async fn handle(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: Peer,
        rules: Arc<Rules>,
    ) -> Response<Body> {
        let (head, mut incoming) = request.into_parts();
        if let Some(answer) = health::answer(&self, &head, &rules) {
            return answer;
        }
        let mut exchange = Exchange::begin(&self, head, peer, rules);
        match self.receive(&mut exchange, &mut incoming).await {
            Ok((body, place)) => {
                let tasks = self.tasks.clone();
                outlive::outlive(tasks, async move {
                    let mut place = Some(place);
                    let outcome = self.process(&exchange, &body, &mut place).await;
                    exchange.conclude(&self, Some(&body), outcome.unwrap_or_else(Outcome::Rejected))
                })
                .await
            }
            Err(outcome) => {
                let expects = exchange.head.headers.contains_key(EXPECT);
                let unread = !incoming.is_end_stream();
                // A client that is still sending would lose the answer to a connection reset. One that waits to be asked
                // for its body is not asked.
                if unread && !expects {
                    self.tasks.spawn(admission::discard(incoming, exchange.rules.edge.body_timeout));
                }
                // After a broken body, or before one that was not asked for and may come all the same.
                let broken =
                    matches!(&outcome, Outcome::Rejected(why) if why.reason == Reason::HttpMalformed);
                exchange.last = broken || unread && expects;
                exchange.conclude(&self, None, outcome)
            }
        }
    }

    /// What is refused before a body is believed, and the body with its place among those in flight.
    async fn receive(
        &self,
        exchange: &mut Exchange,
        incoming: &mut Incoming,
    ) -> Result<(Bytes, Place), Outcome> {
        let rules = exchange.rules.clone();
        admission::head(&exchange.head)
            .and_then(|()| admission::host(&exchange.head))
            .map_err(Outcome::Rejected)?;
        let source = match rules.routes.find(exchange.head.uri.path()) {
            Found::Source(source) => exchange.belongs_to(source),
            Found::WrongToken(source) => {
                exchange.belongs_to(source);
                let detail = match exchange.head.uri.path().strip_prefix(&*source.path) {
                    Some("" | "/") => "the path ends where the source's token has to follow",
                    _ => "the path's last segment is not the source's token",
                };
                return Err(rejected(Reason::PathTokenMismatch, detail));
            }
            Found::Nothing if health::is_asked(&exchange.head.uri, &rules) => {
                return Err(rejected(Reason::MethodNotAllowed, "edge.health_path takes GET and HEAD"));
            }
            Found::Nothing => {
                let detail = exchange.is_near(rules.routes.near(exchange.head.uri.path()));
                return Err(rejected(Reason::UnknownPath, &detail));
            }
        };
        let refused = Outcome::Rejected;
        admission::method(&source, &exchange.head.method).map_err(refused)?;
        let client = exchange.peer.address;
        exchange.enforce(admission::client(&source, client)).map_err(refused)?;
        // Never only observed: it may be what authenticates the source.
        admission::certificate(&source, &exchange.peer).map_err(refused)?;
        // What a trusted proxy tells no client of is that of many.
        let one = (!peer::within(client, &rules.edge.trusted_proxies)).then_some(client);
        exchange.enforce(admission::rate(&source, one)).map_err(refused)?;
        admission::encoding(&exchange.head.headers).map_err(refused)?;
        let mut place = rules.shares.enter(&source.name, one).map_err(refused)?;
        let edge = &rules.edge;
        // The time for all of a request may be shorter than that for its body.
        let within = match edge.request_timeout {
            all if all < edge.body_timeout => (all, Reason::Overloaded),
            _ => (edge.body_timeout, Reason::BodyTimeout),
        };
        let body = admission::body(incoming, &mut place, edge.max_body, within).await;
        if let Err(Outcome::Rejected(rejection)) = &body
            && rejection.reason == Reason::HttpMalformed
        {
            // Whose request it was is no more certain than the rest of it.
            exchange.belongs_to_nobody();
        }
        Ok((body?, place))
    }

    /// From a whole request to its outcome. What goes on after that takes its place along.
    async fn process(
        self: &Arc<Self>,
        exchange: &Exchange,
        body: &Bytes,
        place: &mut Option<Place>,
    ) -> Result<Outcome, Rejection> {
        let Some(source) = &exchange.source else {
            return Err(Rejection::new(Reason::UnknownPath, "no source has this path"));
        };
        source.metrics.body_bytes.observe(body.len() as f64);
        match exchange.head.method {
            Method::GET => return handshake::challenge(source, exchange),
            Method::OPTIONS => return handshake::validation(source, exchange),
            _ => {}
        }
        let (headers, received) = (&exchange.head.headers, exchange.received);
        let redactor = &exchange.rules.routes.redactor;
        let delivery = Delivery { source, headers, body, received, redactor, counted: true };
        match delivery.read(&|checked| exchange.enforce(checked))? {
            Normalized::HealthCheck => Ok(Outcome::Ignored),
            Normalized::Event(forward) => self.admit(source, exchange, *forward, body.len(), place).await,
        }
    }

    /// The durable step, and its outcome.
    async fn admit(
        self: &Arc<Self>,
        source: &Arc<Source>,
        exchange: &Exchange,
        forward: Forward,
        bytes: usize,
        place: &mut Option<Place>,
    ) -> Result<Outcome, Rejection> {
        let body = forward.body;
        let left = exchange.rules.edge.request_timeout.saturating_sub(exchange.elapsed());
        let conflict = || exchange.conflict(&body, bytes);
        match self.hand_over(source, (exchange.received, left), forward, place, conflict).await? {
            Verdict::Accepted { id, .. } => Ok(Outcome::Accepted { id }),
            Verdict::Duplicate { id, .. } => Ok(Outcome::Duplicate { id }),
        }
    }

    /// Hands an event over, and waits for that at most `left`. `conflict` makes the record of a body that the source drops.
    async fn hand_over(
        self: &Arc<Self>,
        source: &Arc<Source>,
        (received, left): (Timestamp, Duration),
        forward: Forward,
        place: &mut Option<Place>,
        conflict: impl FnOnce() -> Reject,
    ) -> Result<Verdict, Rejection> {
        let Forward { event, identity, body, sequence, unreadable, unmapped: _ } = forward;
        let counts = Counts {
            source: source.clone(),
            received,
            clock: self.clock.clone(),
            kind: event.kind.clone(),
            sequence,
            unreadable,
        };
        let admission = Arc::new(Admission {
            source: source.name.clone(),
            provider: source.provider.name.into(),
            identity,
            body,
            on_conflict: source.on_conflict,
            owner: Owner(clock::random()),
            event,
        });
        let handover = self.handover.clone();
        let mut handing_over = Box::pin(async move {
            let verdict = handover.admit(admission).await?;
            counts.count(&verdict);
            Ok(verdict)
        });
        let done: Result<Verdict, Unavailable> = match tokio::time::timeout(left, &mut handing_over).await {
            Ok(done) => done,
            Err(_) => {
                // The hand-over goes on, to the spool if need be. The provider is told to come again, and that delivery is a
                // duplicate.
                let (place, record, pipeline) = (place.take(), conflict(), self.clone());
                self.tasks.spawn(async move {
                    if let Ok(Verdict::Duplicate { id, dropped: true }) = handing_over.await {
                        pipeline.record_conflict(record, &id);
                    }
                    drop(place);
                });
                return Err(Unavailable::Unknown.into());
            }
        };
        if let Ok(Verdict::Duplicate { id, dropped: true }) = &done {
            self.record_conflict(conflict(), id);
        }
        Ok(done?)
    }
}

fn rejected(reason: Reason, detail: &str) -> Outcome {
    Outcome::Rejected(Rejection::new(reason, detail))
}

/// What happens to a connection before or instead of a request.
impl Pipeline {
    /// Counts and records a refusal that has no request, and renders its answer for a raw socket.
    pub fn refuse_connection(&self, peer: &Peer, reason: Reason, detail: &str) -> String {
        let reject = exchange::record_bare(self, peer, reason, reason.status().as_u16(), detail);
        let body = answer::problem_body(reason, &reject);
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

    /// Counts and records a refusal that has no request and gets no answer.
    pub fn drop_connection(&self, peer: &Peer, reason: Reason, detail: &str) {
        exchange::record_bare(self, peer, reason, 0, detail);
    }
}
