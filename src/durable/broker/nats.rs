//! NATS JetStream: publish to a subject, await the stream's ack.
//!
//! Keeps true:
//! - `Ok` means that a stream has the message, from this try or from an earlier one with the same id.
//! - Nothing is sent while the connection is down, so the client never queues a message to send it later.
//! - A hanging server counts as down after about a second, and its pending publishes then end.
//!
//! The client library reconnects forever. While it fails, a connection of our own finds out why. The streams are looked
//! up when in doubt, and every 5 s.

pub(crate) mod servers;

use std::collections::BTreeSet;
use std::error::Error;
use std::future::ready;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::connection::State;
use async_nats::jetstream::context::{
    GetStreamByNameErrorKind, PublishError as Failure, PublishErrorKind as FailureKind, RequestError,
    RequestErrorKind,
};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{Client, Event, ServerError};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::health::{BrokerHealth, Lookup};
use super::{Message, OpenError, Options, PublishError, TRACEPARENT, Watch};
use crate::base::clock;
use crate::config::queue_name::{Part, QueueName};
use crate::config::secret::Secret;

/// A NATS subject.
pub struct Nats {
    subject: QueueName,
    /// Boxed because it is large and `Broker` is moved.
    client: Box<Client>,
    jetstream: Arc<jetstream::Context>,
    health: Arc<BrokerHealth>,
    /// Counts lost connections, so that a publish notices a loss.
    losses: watch::Sender<u64>,
    tasks: TaskTracker,
    stop: DropGuard,
}

impl Nats {
    /// Starts to connect, and returns at once. Readiness reports whether the broker is reachable.
    ///
    /// # Errors
    /// When the URL or the name is unusable.
    pub async fn open(options: Options, watch: Watch) -> Result<Nats, OpenError> {
        check(&options.name).map_err(|why| OpenError::Name(why.to_owned()))?;
        let (servers, connect) = servers::read(&options.url).map_err(|why| OpenError::Url(why.to_owned()))?;
        let subjects = options.names.iter().map(|name| filled(name));
        let health = Arc::new(BrokerHealth::new(watch, options.name.fixed().is_some(), subjects));
        let losses = watch::Sender::new(0);
        let (told, lost) = (health.clone(), losses.clone());
        let forbidden = watch::Sender::new(false);
        let forbids = forbidden.clone();
        let client = connect
            .name("hookgate")
            .retry_on_initial_connect()
            .max_reconnects(None)
            .connection_timeout(CONNECT_TIMEOUT)
            // The client's own queue outlives a reconnect and would send messages after their publishes failed.
            .client_capacity(1)
            .reconnect_delay_callback(reconnect_delay)
            .ping_interval(PING_INTERVAL)
            .event_callback(move |event| {
                match event {
                    Event::Connected => {
                        forbids.send_replace(false);
                        told.on_connected();
                    }
                    Event::Disconnected | Event::Closed => {
                        told.on_disconnected();
                        lost.send_modify(|count| *count += 1);
                    }
                    Event::ServerError(ServerError::Other(what)) => match servers::forbidden_subject(&what) {
                        Some(subject) if subject.starts_with("$JS.") => drop(forbids.send_replace(true)),
                        Some(subject) => told.on_refused(format!(
                            "its user may not use the subject {subject}: grant it to publish the events' subjects and to \
                             subscribe to _INBOX.>"
                        )),
                        None => {}
                    },
                    _ => {}
                }
                ready(())
            })
            .connect(servers)
            .await
            .map_err(|error| OpenError::Client(error.kind().to_string()))?;
        let jetstream = jetstream::ContextBuilder::new()
            .timeout(LONGER_THAN_ANY_DEADLINE)
            .ack_timeout(FORGET_AFTER)
            .max_ack_inflight(IN_FLIGHT)
            .backpressure_on_inflight(false)
            .build(client.clone());
        let jetstream = Arc::new(jetstream);
        let client = Box::new(client);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let search = search(jetstream.clone(), health.clone(), forbidden);
        tasks.spawn(stop.clone().run_until_cancelled_owned(search));
        let (lost, url) = (losses.subscribe(), options.url);
        let diagnosis = diagnose(url, client.as_ref().clone(), lost, health.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(diagnosis));
        Ok(Nats { subject: options.name, client, jetstream, health, losses, tasks, stop: stop.drop_guard() })
    }

    pub(super) async fn publish(&self, message: Message<'_>, deadline: Instant) -> Result<(), PublishError> {
        self.health.observe(self.send(message, deadline)).await
    }

    async fn send(&self, message: Message<'_>, deadline: Instant) -> Result<(), PublishError> {
        let mut losses = self.losses.subscribe();
        if self.client.connection_state() != State::Connected {
            return Err(PublishError::Unreachable);
        }
        let subject = filled(&self.subject.fill(message.names));
        if subject.len() > MAX_SUBJECT {
            return Err(PublishError::Unacceptable(format!("its subject is over {MAX_SUBJECT} bytes long")));
        }
        let mut publish = PublishMessage::build()
            .message_id(header_value(message.id))
            .header("Content-Type", "application/cloudevents+json")
            .payload(message.event.json.clone().into());
        if let Some(trace) = message.event.traceparent() {
            publish = publish.header(TRACEPARENT, trace);
        }
        let confirmed = async { self.jetstream.send_publish(subject.clone(), publish).await?.await };
        let answer = tokio::select! {
            biased;
            answer = confirmed => answer,
            // A new connection never answers for messages sent over the old one.
            _ = losses.changed() => return Err(PublishError::Unknown),
            () = tokio::time::sleep_until(deadline.into()) => return Err(PublishError::Unknown),
        };
        answer.map(|_| self.health.on_confirmed()).map_err(|failure| self.explain(&failure, &subject))
    }

    fn explain(&self, failure: &Failure, subject: &str) -> PublishError {
        match failure.kind() {
            FailureKind::StreamNotFound => self.health.unroutable(no_stream(subject)),
            FailureKind::MaxPayloadExceeded => PublishError::Unacceptable(format!(
                "larger than the server's max_payload, which is {} bytes",
                self.client.max_payload()
            )),
            FailureKind::MaxAckPending => PublishError::Refused("too many messages await its ack".to_owned()),
            _ => match failure.source().and_then(|source| source.downcast_ref::<jetstream::Error>()) {
                Some(error) => self.said(error, subject),
                None => PublishError::Unknown,
            },
        }
    }

    /// Turns a stream's error into a publish error. The stream does not have the message.
    fn said(&self, error: &jetstream::Error, subject: &str) -> PublishError {
        match error.error_code() {
            ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => {
                PublishError::Unacceptable(error.to_string())
            }
            // The broker is still processing an earlier try with this id.
            ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT => PublishError::Unknown,
            _ => {
                let said = error.to_string();
                let full = is_full(error, &said);
                let why = match full {
                    true => format!(
                        "the stream that takes {subject} is full: {said}; raise its limits (max_msgs, max_bytes, those of the \
                         account or the server), or purge what was read"
                    ),
                    false => format!("the stream that takes {subject} does not take messages: {said}"),
                };
                self.health.on_destination_refused(why.clone(), full);
                PublishError::Refused(why)
            }
        }
    }

    pub(super) fn set_names(&self, names: &BTreeSet<String>) {
        self.health.set_names(names.iter().map(|name| filled(name)));
    }

    pub(super) async fn close(self) {
        drop(self.stop);
        self.tasks.close();
        self.tasks.wait().await;
        self.health.on_disconnected();
    }
}

/// Whether the stream, or its account's share of the server, is full. `STREAM_STORE_FAILED` covers every storage error,
/// so for that code the text decides.
fn is_full(error: &jetstream::Error, why: &str) -> bool {
    match error.error_code() {
        ErrorCode::STREAM_STORE_FAILED => {
            NO_ROOM.iter().any(|words| why.contains(words)) && why.contains("exceeded")
                || why.contains("no space left")
        }
        code => matches!(
            code,
            ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
                | ErrorCode::INSUFFICIENT_RESOURCES
                | ErrorCode::MEMORY_RESOURCES_EXCEEDED
                | ErrorCode::STORAGE_RESOURCES_EXCEEDED
        ),
    }
}

/// Looks up the streams of the subjects, forever.
async fn search(
    jetstream: Arc<jetstream::Context>,
    health: Arc<BrokerHealth>,
    forbidden: watch::Sender<bool>,
) {
    let (jetstream, forbidden) = (&jetstream, &forbidden);
    let look = |subject: String| async move {
        if *forbidden.borrow() {
            return Lookup::NotAllowed;
        }
        match timeout(LOOKUP_TIMEOUT, stream_of(jetstream, &subject)).await {
            Ok(Ok(Some(_))) => Lookup::Found,
            Ok(Ok(None)) => Lookup::Missing(no_stream(&subject)),
            Ok(Err(Refusal::Disabled)) => Lookup::Missing(DISABLED.to_owned()),
            Ok(Err(Refusal::Other)) => Lookup::NoAnswer(NO_ANSWER),
            // The server does not answer a forbidden request. It reports it in a separate event.
            Err(_) if *forbidden.borrow() => Lookup::NotAllowed,
            Err(_) => Lookup::NoAnswer(NO_ANSWER),
        }
    };
    health.watch_destinations(look).await;
}

/// Why JetStream does not tell which stream stores a subject.
pub(crate) enum Refusal {
    /// JetStream is not enabled.
    Disabled,
    /// JetStream answered with another error, or not at all.
    Other,
}

/// The stream that stores a subject, if there is one.
pub(crate) async fn stream_of(
    jetstream: &jetstream::Context,
    subject: &str,
) -> Result<Option<String>, Refusal> {
    match jetstream.stream_by_subject(subject).await {
        Ok(stream) => Ok(Some(stream)),
        Err(why) if why.kind() == GetStreamByNameErrorKind::NotFound => Ok(None),
        Err(why) => {
            let mut causes = std::iter::successors(why.source(), |cause| Error::source(*cause));
            let disabled = causes.any(|cause| {
                let no_responders = |why: &RequestError| why.kind() == RequestErrorKind::NoResponders;
                let not_enabled = |why: &jetstream::Error| {
                    matches!(
                        why.error_code(),
                        ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT
                    )
                };
                cause.downcast_ref().is_some_and(no_responders)
                    || cause.downcast_ref().is_some_and(not_enabled)
            });
            Err(if disabled { Refusal::Disabled } else { Refusal::Other })
        }
    }
}

pub(crate) fn no_stream(subjects: &str) -> String {
    format!(
        "no JetStream stream takes {subjects}; make one that does, with file storage and limits retention"
    )
}

/// While the client is disconnected, finds out why. The client library itself reports little about it.
async fn diagnose(url: Secret, client: Client, mut lost: watch::Receiver<u64>, health: Arc<BrokerHealth>) {
    loop {
        sleep(DIAGNOSE_AFTER).await;
        if client.connection_state() == State::Connected {
            // An error means that the client was dropped, so this task is about to end too.
            let _ = lost.changed().await;
            continue;
        }
        if let Err(why) = servers::connect(&url, "hookgate", CONNECT_TIMEOUT, |_| {}).await
            && client.connection_state() != State::Connected
        {
            health.on_connect_failed(format!("NATS {why}"));
        }
    }
}

/// Checks the subject, with `x` for each placeholder.
pub(super) fn check(name: &QueueName) -> Result<(), &'static str> {
    let texts = name.parts().iter().map(|part| match part {
        Part::Text(text) => text,
        Part::Provider | Part::Source | Part::Type => "x",
    });
    let subject: String = texts.collect();
    if subject.split('.').any(str::is_empty) {
        return Err("a subject has something before, between and after its dots");
    }
    if subject.contains(['*', '>']) {
        return Err("a subject that is published to has no wildcards");
    }
    if subject.starts_with('$') {
        return Err("subjects that begin with $ are the server's own");
    }
    Ok(())
}

/// Fills empty tokens with `_`. A provider's type may begin with a dot or hold two in a row; a subject may not.
fn filled(subject: &str) -> String {
    let tokens = subject.split('.').map(|token| if token.is_empty() { "_" } else { token });
    tokens.collect::<Vec<_>>().join(".")
}

/// Escapes line breaks, which would end the header.
fn header_value(text: &str) -> String {
    text.replace('\r', "%0D").replace('\n', "%0A")
}

/// Doubles from 50 ms to 1 s, minus up to half at random, so that gateways do not reconnect at the same time.
fn reconnect_delay(attempts: usize) -> Duration {
    let doublings = attempts.saturating_sub(1).min(5) as u32;
    let delay = (RECONNECT_FIRST * 2_u32.pow(doublings)).min(RECONNECT_MAX);
    let [chance] = clock::random::<1>();
    delay.mul_f64(1.0 - f64::from(chance) / 512.0)
}

const RECONNECT_FIRST: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a silent server is pinged. After three unanswered pings it counts as down.
const PING_INTERVAL: Duration = Duration::from_millis(400);
/// How many messages may await their ack.
const IN_FLIGHT: usize = 4096;
/// Each publish has a deadline of its own, so the client library's timeout must not end it first.
const LONGER_THAN_ANY_DEADLINE: Duration = Duration::from_secs(60);
/// How long an abandoned message still counts as in flight.
const FORGET_AFTER: Duration = Duration::from_secs(1);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);
const DIAGNOSE_AFTER: Duration = Duration::from_secs(2);
pub(crate) const DISABLED: &str =
    "JetStream is not enabled, on this server or for this account; start nats-server with --jetstream";
/// nats-server follows them with "exceeded" (`ErrMaxMsgs`, `ErrMaxBytes`, `ErrMaxMsgsPerSubject`).
const NO_ROOM: [&str; 2] = ["maximum messages", "maximum bytes"];
const NO_ANSWER: &str = "JetStream does not answer which stream takes the subject";
/// The server closes a connection that sends a line of over 4096 bytes. The line also holds an inbox and sizes.
const MAX_SUBJECT: usize = 3072;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_has_no_empty_tokens_and_no_wildcards() {
        for good in ["hookgate.events", "h.{provider}.{type}", "{source}"] {
            assert_eq!(check(&QueueName::parse(good).unwrap()), Ok(()), "{good}");
        }
        for bad in [".a", "a.", "a..b", "a.*", "a.>", "a*{type}", "$JS.API.{type}", "a.{type}."] {
            assert!(check(&QueueName::parse(bad).unwrap()).is_err(), "{bad}");
        }
        assert_eq!(filled("h.unmapped..b."), "h.unmapped._.b._");
    }

    #[test]
    fn an_id_with_line_breaks_is_one_header() {
        assert_eq!(header_value("a\r\nb"), "a%0D%0Ab");
    }
}
