//! The way of a request, from its head to its answer.
//!
//! Keeps true: nothing is parsed before it is verified; a 200 is rendered only from what the inbox said; every request is
//! counted once and every refusal recorded once; once a body is read, a client that hangs up cancels nothing.

mod context;
mod counts;
mod delivery;
mod detach_on_drop;
mod handshake;
mod health;
mod quarantined;
mod runtime_config;
mod spool_observer;

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
use crate::durable::inbox::{EnqueueError, EnqueueRequest, Enqueued, Owner};
use crate::durable::quarantine::Quarantine;
use crate::durable::spool::Enqueuer;
use crate::observe::admin::Readiness;
use crate::observe::audit::{Audit, Reject};
use crate::observe::metrics::Metrics;
use crate::provider::normalize::{Forward, Normalized};
use crate::request::admission::{self, in_flight::InFlightPermit};
use crate::request::answer::{self, Body};
use crate::request::outcome::{Outcome, Rejection};
use crate::request::source::{Found, Source};
pub use context::RequestContext;
use counts::Counts;
use delivery::Delivery;
pub(crate) use delivery::{ANY_AGE, subscription_allowed};
pub use runtime_config::RuntimeConfig;

/// Everything a request needs, shared by all of them.
pub struct Pipeline {
    /// What requests are held against, as of the last load of the config.
    pub rules: Arc<ArcSwap<RuntimeConfig>>,
    /// The durable step.
    pub enqueuer: Arc<Enqueuer>,
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
        rules: Arc<RuntimeConfig>,
    ) -> Response<Body> {
        let (head, mut incoming) = request.into_parts();
        if let Some(answer) = health::answer(&self, &head, &rules) {
            return answer;
        }
        let mut context = RequestContext::begin(&self, head, peer, rules);
        match self.receive(&mut context, &mut incoming).await {
            Ok((body, place)) => {
                let tasks = self.tasks.clone();
                detach_on_drop::detach_on_drop(tasks, async move {
                    let mut place = Some(place);
                    let outcome = self.process(&context, &body, &mut place).await;
                    context.conclude(&self, Some(&body), outcome.unwrap_or_else(Outcome::Rejected))
                })
                .await
            }
            Err(outcome) => {
                let expects = context.head.headers.contains_key(EXPECT);
                let unread = !incoming.is_end_stream();
                // A client that is still sending would lose the answer to a connection reset. One that waits to be asked
                // for its body is not asked.
                if unread && !expects {
                    self.tasks.spawn(admission::discard(incoming, context.rules.edge.body_timeout));
                }
                // After a broken body, or before one that was not asked for and may come all the same.
                let broken =
                    matches!(&outcome, Outcome::Rejected(why) if why.reason == Reason::HttpMalformed);
                context.last = broken || unread && expects;
                context.conclude(&self, None, outcome)
            }
        }
    }

    /// What is refused before a body is believed, and the body with its place among those in flight.
    async fn receive(
        &self,
        context: &mut RequestContext,
        incoming: &mut Incoming,
    ) -> Result<(Bytes, InFlightPermit), Outcome> {
        let rules = context.rules.clone();
        admission::head(&context.head)
            .and_then(|()| admission::host(&context.head))
            .map_err(Outcome::Rejected)?;
        let source = match rules.routes.find(context.head.uri.path()) {
            Found::Source(source) => context.belongs_to(source),
            Found::WrongToken(source) => {
                context.belongs_to(source);
                let detail = match context.head.uri.path().strip_prefix(&*source.path) {
                    Some("" | "/") => "the path ends where the source's token has to follow",
                    _ => "the path's last segment is not the source's token",
                };
                return Err(rejected(Reason::PathTokenMismatch, detail));
            }
            Found::Nothing if health::is_asked(&context.head.uri, &rules) => {
                return Err(rejected(Reason::MethodNotAllowed, "edge.health_path takes GET and HEAD"));
            }
            Found::Nothing => {
                let detail = context.is_near(rules.routes.near(context.head.uri.path()));
                return Err(rejected(Reason::UnknownPath, &detail));
            }
        };
        let refused = Outcome::Rejected;
        admission::method(&source, &context.head.method).map_err(refused)?;
        let client = context.peer.address;
        context.enforce(admission::client(&source, client)).map_err(refused)?;
        // Never only observed: it may be what authenticates the source.
        admission::certificate(&source, &context.peer).map_err(refused)?;
        // What a trusted proxy tells no client of is that of many.
        let one = (!peer::within(client, &rules.edge.trusted_proxies)).then_some(client);
        context.enforce(admission::rate(&source, one)).map_err(refused)?;
        admission::encoding(&context.head.headers).map_err(refused)?;
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
            context.belongs_to_nobody();
        }
        Ok((body?, place))
    }

    /// From a whole request to its outcome. What goes on after that takes its place along.
    async fn process(
        self: &Arc<Self>,
        context: &RequestContext,
        body: &Bytes,
        place: &mut Option<InFlightPermit>,
    ) -> Result<Outcome, Rejection> {
        let Some(source) = &context.source else {
            return Err(Rejection::new(Reason::UnknownPath, "no source has this path"));
        };
        source.metrics.body_bytes.observe(body.len() as f64);
        match context.head.method {
            Method::GET => return handshake::challenge(source, context),
            Method::OPTIONS => return handshake::validation(source, context),
            _ => {}
        }
        let (headers, received) = (&context.head.headers, context.received);
        let redactor = &context.rules.routes.redactor;
        let delivery = Delivery { source, headers, body, received, redactor, counted: true };
        match delivery.read(&|checked| context.enforce(checked))? {
            Normalized::HealthCheck => Ok(Outcome::Ignored),
            Normalized::Event(forward) => self.enqueue(source, context, *forward, body.len(), place).await,
        }
    }

    /// The durable step, and its outcome.
    async fn enqueue(
        self: &Arc<Self>,
        source: &Arc<Source>,
        context: &RequestContext,
        forward: Forward,
        bytes: usize,
        place: &mut Option<InFlightPermit>,
    ) -> Result<Outcome, Rejection> {
        let body = forward.body;
        let left = context.rules.edge.request_timeout.saturating_sub(context.elapsed());
        let conflict = || context.conflict(&body, bytes);
        match self.hand_over(source, (context.received, left), forward, place, conflict).await? {
            Enqueued::Accepted { id, .. } => Ok(Outcome::Accepted { id }),
            Enqueued::Duplicate { id, .. } => Ok(Outcome::Duplicate { id }),
        }
    }

    /// Hands an event over, and waits for that at most `left`. `conflict` makes the record of a body that the source drops.
    async fn hand_over(
        self: &Arc<Self>,
        source: &Arc<Source>,
        (received, left): (Timestamp, Duration),
        forward: Forward,
        place: &mut Option<InFlightPermit>,
        conflict: impl FnOnce() -> Reject,
    ) -> Result<Enqueued, Rejection> {
        let Forward { event, identity, body, sequence, unreadable, unmapped: _ } = forward;
        let counts = Counts {
            source: source.clone(),
            received,
            clock: self.clock.clone(),
            kind: event.kind.clone(),
            sequence,
            unreadable,
        };
        let admission = Arc::new(EnqueueRequest {
            source: source.name.clone(),
            provider: source.provider.name.into(),
            identity,
            body,
            on_conflict: source.on_conflict,
            owner: Owner(clock::random()),
            event,
        });
        let enqueuer = self.enqueuer.clone();
        let mut handing_over = Box::pin(async move {
            let verdict = enqueuer.enqueue(admission).await?;
            counts.count(&verdict);
            Ok(verdict)
        });
        let done: Result<Enqueued, EnqueueError> = match tokio::time::timeout(left, &mut handing_over).await {
            Ok(done) => done,
            Err(_) => {
                // The hand-over goes on, to the spool if need be. The provider is told to come again, and that delivery is a
                // duplicate.
                let (place, record, pipeline) = (place.take(), conflict(), self.clone());
                self.tasks.spawn(async move {
                    if let Ok(Enqueued::Duplicate { id, dropped: true }) = handing_over.await {
                        pipeline.record_conflict(record, &id);
                    }
                    drop(place);
                });
                return Err(EnqueueError::Unknown.into());
            }
        };
        if let Ok(Enqueued::Duplicate { id, dropped: true }) = &done {
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
        let reject = context::record_bare(self, peer, reason, reason.status().as_u16(), detail);
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
        context::record_bare(self, peer, reason, 0, detail);
    }
}
