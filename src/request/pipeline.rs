//! Processes a request from its head to its answer.
//!
//! Keeps true: nothing is parsed before it is verified. A delivery gets a 200 only after the enqueuer has confirmed it.
//! Every request is counted once, and every refusal recorded once. After its body is read, a request is finished even
//! if the client disconnects.

mod context;
mod counts;
mod delivery;
mod detach_on_drop;
mod handshake;
mod health;
mod quarantined;
mod reconciled;
mod runtime_config;
mod spool_observer;
mod trace;

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
use crate::config::OnConflict;
use crate::durable::inbox::{EnqueueError, EnqueueRequest, Enqueued, Owner};
use crate::durable::quarantine::Quarantine;
use crate::durable::reconcile::Sequences;
use crate::durable::spool::Enqueuer;
use crate::observe::admin::Readiness;
use crate::observe::audit::{Audit, Reject};
use crate::observe::metrics::Metrics;
use crate::observe::traces::{Stage, Traces};
use crate::provider::normalize::{Normalized, NormalizedEvent};
use crate::provider::signature::SignedRequest;
use crate::request::admission::{self, in_flight::InFlightPermit};
use crate::request::answer::{self, Body};
use crate::request::outcome::{Outcome, Rejection};
use crate::request::source::{RouteMatch, Source};
pub use context::RequestContext;
use counts::EventCounts;
use delivery::Delivery;
pub(crate) use delivery::{ANY_AGE, subscription_allowed};
pub use reconciled::{Admission, AdmissionOutcome};
pub use runtime_config::RuntimeConfig;

/// The parts that all requests share.
pub struct Pipeline {
    /// The current config; a reload replaces it.
    pub rules: Arc<ArcSwap<RuntimeConfig>>,
    /// Makes events durable.
    pub enqueuer: Arc<Enqueuer>,
    /// The reject log.
    pub audit: Audit,
    /// Keeps refused requests that may be genuine; none if it is disabled.
    pub quarantine: Option<Quarantine>,
    /// The sequence numbers that reconcile compares.
    pub sequences: Arc<Sequences>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Takes the spans of requests; none without `tracing.otlp`.
    pub traces: Option<Traces>,
    /// Whether the gateway is ready or draining.
    pub readiness: Arc<Readiness>,
    /// The clock.
    pub clock: Clock,
    /// Tasks that must finish before the process ends.
    pub tasks: TaskTracker,
}

impl Pipeline {
    /// Answers a request under the config `rules`.
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
            Ok((body, permit)) => {
                let tasks = self.tasks.clone();
                detach_on_drop::detach_on_drop(tasks, async move {
                    let mut permit = Some(permit);
                    let outcome = self.process(&context, &body, &mut permit).await;
                    context.conclude(&self, Some(&body), outcome.unwrap_or_else(Outcome::Rejected))
                })
                .await
            }
            Err(outcome) => {
                let expects = context.head.headers.contains_key(EXPECT);
                let unread = !incoming.is_end_stream();
                // Drain the body: if a client is still sending, a connection reset would lose the answer. A client that
                // expects 100 Continue sends no body before it gets that.
                if unread && !expects {
                    self.tasks.spawn(admission::drain_body(incoming, context.rules.edge.body_timeout));
                }
                // The next request cannot be found after a broken body, or if an unrequested body may still follow.
                let broken =
                    matches!(&outcome, Outcome::Rejected(why) if why.reason == Reason::HttpMalformed);
                context.close_connection = broken || unread && expects;
                context.conclude(&self, None, outcome)
            }
        }
    }

    /// Applies all checks that need no authentication, then reads the body.
    async fn receive(
        &self,
        context: &mut RequestContext,
        incoming: &mut Incoming,
    ) -> Result<(Bytes, InFlightPermit), Outcome> {
        let rules = context.rules.clone();
        admission::check_head(&context.head)
            .and_then(|()| admission::check_host(&context.head))
            .map_err(Outcome::Rejected)?;
        let source = match rules.routes.find(context.head.uri.path()) {
            RouteMatch::Source(source) => context.set_source(source),
            RouteMatch::WrongToken(source) => {
                context.set_source(source);
                let detail = match context.head.uri.path().strip_prefix(&*source.path) {
                    Some("" | "/") => "the path ends where the source's token must follow",
                    _ => "the path's last segment is not the source's token",
                };
                return Err(rejected(Reason::PathTokenMismatch, detail));
            }
            RouteMatch::Nothing if health::is_health_path(&context.head.uri, &rules) => {
                return Err(rejected(Reason::MethodNotAllowed, "edge.health_path takes GET and HEAD"));
            }
            RouteMatch::Nothing => {
                let detail = context.note_near_miss(rules.routes.near_miss(context.head.uri.path()));
                return Err(rejected(Reason::UnknownPath, &detail));
            }
        };
        let refused = Outcome::Rejected;
        admission::check_method(&source, &context.head.method).map_err(refused)?;
        let client = context.peer.address;
        context.enforce(admission::check_address(&source, client)).map_err(refused)?;
        // Enforced even if observed: the certificate may be all that authenticates the source.
        admission::check_certificate(&source, &context.peer).map_err(refused)?;
        // A trusted proxy that names no client carries many, so no limit for one client applies.
        let one = (!peer::within(client, &rules.edge.trusted_proxies)).then_some(client);
        context.enforce(admission::check_rate(&source, one)).map_err(refused)?;
        admission::check_encoding(&context.head.headers).map_err(refused)?;
        let mut permit = rules.in_flight.acquire(&source.name, one).map_err(refused)?;
        context.stage(Stage::Body);
        let (edge, version) = (&rules.edge, context.head.version);
        // The request timeout may be shorter than the body timeout.
        let within = match edge.request_timeout {
            all if all < edge.body_timeout => (all, Reason::Overloaded),
            _ => (edge.body_timeout, Reason::BodyTimeout),
        };
        let body = admission::read_body((incoming, version), &mut permit, edge.max_body, within).await;
        if let Err(Outcome::Rejected(rejection)) = &body
            && rejection.reason == Reason::HttpMalformed
        {
            // After broken framing, the head is not trusted either, so the refusal is not attributed to the source.
            context.clear_source();
        }
        Ok((body?, permit))
    }

    /// Turns a complete request into an outcome. If the enqueue outlives the deadline, it keeps the in-flight permit.
    async fn process(
        self: &Arc<Self>,
        context: &RequestContext,
        body: &Bytes,
        permit: &mut Option<InFlightPermit>,
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
        context.stage(Stage::Verify);
        if let Some(answered) = handshake::posted(source, context) {
            return answered;
        }
        let head = &context.head;
        let request = SignedRequest {
            headers: &head.headers,
            body,
            method: head.method.as_str(),
            target: head.uri.path_and_query().map_or("/", |target| target.as_str()),
            public_url: context.rules.edge.public_url.as_ref().map_or("", |url| &url.value),
        };
        let redactor = &context.rules.routes.redactor;
        let received = context.received;
        let delivery =
            Delivery { source, request, received, redactor, counted: true, context: Some(context) };
        match delivery.read(&|checked| context.enforce(checked))? {
            Normalized::HealthCheck => Ok(Outcome::Ignored),
            Normalized::Handshake(answer) => handshake::verified(answer),
            Normalized::Event(forward) => {
                context.stage(Stage::Enqueue);
                self.enqueue_event(source, context, *forward, body.len(), permit).await
            }
            Normalized::Events(events) => self.enqueue_events(source, context, events, body.len()).await,
        }
    }

    /// Enqueues the events of one delivery. If any of them is not durable, the provider delivers all of them again, and
    /// those that are come as duplicates.
    async fn enqueue_events(
        self: &Arc<Self>,
        source: &Arc<Source>,
        context: &RequestContext,
        events: Vec<NormalizedEvent>,
        bytes: usize,
    ) -> Result<Outcome, Rejection> {
        if events.is_empty() {
            return Ok(Outcome::Ignored);
        }
        context.stage(Stage::Enqueue);
        let deadline = context.rules.edge.request_timeout;
        let mut ids = Vec::with_capacity(events.len());
        let mut any_new = false;
        let mut failed = None;
        // Some at a time: one delivery does not fill the store's queue, and the store still makes a group of them.
        let mut events = events.into_iter().peekable();
        while events.peek().is_some() {
            let group = events.by_ref().take(EVENTS_AT_ONCE).map(|event| async move {
                let left = deadline.saturating_sub(context.elapsed());
                let body = event.body;
                let conflict = || context.conflict_record(&body, bytes);
                self.enqueue_within(source, (context.received, left), event, &mut None, conflict).await
            });
            for enqueued in futures_util::future::join_all(group).await {
                match enqueued {
                    Ok(Enqueued::Accepted { id, .. }) => {
                        any_new = true;
                        ids.push(id);
                    }
                    Ok(Enqueued::Duplicate { id, .. }) => ids.push(id),
                    Err(rejection) => failed = failed.or(Some(rejection)),
                }
            }
        }
        failed.map_or(Ok(Outcome::AcceptedAll { ids, any_new }), Err)
    }

    /// Enqueues the event, and returns the outcome.
    async fn enqueue_event(
        self: &Arc<Self>,
        source: &Arc<Source>,
        context: &RequestContext,
        forward: NormalizedEvent,
        bytes: usize,
        permit: &mut Option<InFlightPermit>,
    ) -> Result<Outcome, Rejection> {
        let body = forward.body;
        let left = context.rules.edge.request_timeout.saturating_sub(context.elapsed());
        let conflict = || context.conflict_record(&body, bytes);
        match self.enqueue_within(source, (context.received, left), forward, permit, conflict).await? {
            Enqueued::Accepted { id, .. } => Ok(Outcome::Accepted { id }),
            Enqueued::Duplicate { id, .. } => Ok(Outcome::Duplicate { id }),
        }
    }

    /// The request that enqueues an event, and what to count then. `received`: when a delivery brought it.
    fn request(
        &self,
        source: &Arc<Source>,
        received: Option<Timestamp>,
        of: NormalizedEvent,
    ) -> (EnqueueRequest, EventCounts) {
        let by_default = if of.id_is_signed { OnConflict::Drop } else { OnConflict::Forward };
        let counts = EventCounts {
            source: source.clone(),
            received,
            clock: self.clock.clone(),
            kind: of.event.kind.clone(),
            sequence: of.sequence,
            sequences: self.sequences.clone(),
            unreadable: of.unreadable,
        };
        let request = EnqueueRequest {
            source: source.name.clone(),
            provider: source.provider.name.into(),
            identity: of.identity,
            body: of.body,
            on_conflict: source.on_conflict.unwrap_or(by_default),
            owner: Owner(clock::random()),
            event: of.event,
        };
        (request, counts)
    }

    /// Enqueues an event, and waits at most `left`. `conflict` makes the record of a body that the source drops.
    async fn enqueue_within(
        self: &Arc<Self>,
        source: &Arc<Source>,
        (received, left): (Timestamp, Duration),
        forward: NormalizedEvent,
        permit: &mut Option<InFlightPermit>,
        conflict: impl FnOnce() -> Reject,
    ) -> Result<Enqueued, Rejection> {
        let (request, counts) = self.request(source, Some(received), forward);
        let enqueuer = self.enqueuer.clone();
        let mut enqueuing = Box::pin(async move {
            let enqueued = enqueuer.enqueue(request).await?;
            counts.count(&enqueued);
            Ok(enqueued)
        });
        let done: Result<Enqueued, EnqueueError> = match tokio::time::timeout(left, &mut enqueuing).await {
            Ok(done) => done,
            Err(_) => {
                // The enqueue continues in the background. The provider is told to retry, and its retry is a duplicate.
                let (permit, record, pipeline) = (permit.take(), conflict(), self.clone());
                self.tasks.spawn(async move {
                    if let Ok(Enqueued::Duplicate { id, dropped: true }) = enqueuing.await {
                        pipeline.record_conflict(record, &id);
                    }
                    drop(permit);
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

/// Events of one delivery that are enqueued at the same time.
const EVENTS_AT_ONCE: usize = 64;

fn rejected(reason: Reason, detail: &str) -> Outcome {
    Outcome::Rejected(Rejection::new(reason, detail))
}

/// Refusals of connections that have no request.
impl Pipeline {
    /// Counts and records the refusal, and renders its answer for a raw socket.
    pub fn refuse_connection(&self, peer: &Peer, reason: Reason, detail: &str) -> String {
        let reject = context::record_without_request(self, peer, reason, reason.status().as_u16(), detail);
        let body = answer::problem_body(reason, reason.status(), &reject);
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

    /// Counts and records a refusal that gets no answer.
    pub fn drop_connection(&self, peer: &Peer, reason: Reason, detail: &str) {
        context::record_without_request(self, peer, reason, 0, detail);
    }
}
