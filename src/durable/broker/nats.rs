//! NATS JetStream: publish to a subject, await the stream's ack.
//!
//! Keeps true: `Ok` is the ack of a stream that has the message, under this id or from an earlier try; nothing is sent while the
//! connection is known to be away, so nothing waits in the client to go out later; a server that hangs is known to be away
//! within about a second, and whoever waits for its ack is told so then.
//!
//! The client library connects, and reconnects for ever. While it does not get there, a connection of our own tells why. Which
//! stream takes a subject is looked up when that is in doubt, and now and then.

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
use super::{Message, OpenError, Options, PublishError, Watch};
use crate::base::clock;
use crate::config::queue_name::{Part, QueueName};
use crate::config::secret::Secret;

/// The connection.
pub struct Nats {
    subject: QueueName,
    /// Large, and a broker is moved about.
    client: Box<Client>,
    jetstream: Arc<jetstream::Context>,
    standing: Arc<BrokerHealth>,
    /// How often the connection was lost.
    losses: watch::Sender<u64>,
    keepers: TaskTracker,
    stop: DropGuard,
}

impl Nats {
    /// Starts to connect, and returns at once: whether the broker is there shows in readiness.
    ///
    /// # Errors
    /// When the URL or the name is unusable.
    pub async fn open(options: Options, watch: Watch) -> Result<Nats, OpenError> {
        check(&options.name).map_err(|why| OpenError::Name(why.to_owned()))?;
        let (servers, connect) = servers::read(&options.url).map_err(|why| OpenError::Url(why.to_owned()))?;
        let subjects = options.names.iter().map(|name| filled(name));
        let standing = Arc::new(BrokerHealth::new(watch, options.name.fixed().is_some(), subjects));
        let losses = watch::Sender::new(0);
        let (told, lost) = (standing.clone(), losses.clone());
        let forbidden = watch::Sender::new(false);
        let forbids = forbidden.clone();
        let client = connect
            .name("hookgate")
            .retry_on_initial_connect()
            .max_reconnects(None)
            .connection_timeout(CONNECT_TIMEOUT)
            // What is in the client's own queue outlives a reconnect, and would go out long after everybody gave it up.
            .client_capacity(1)
            .reconnect_delay_callback(reconnect_delay)
            .ping_interval(PING_INTERVAL)
            .event_callback(move |event| {
                match event {
                    Event::Connected => {
                        forbids.send_replace(false);
                        told.connected();
                    }
                    Event::Disconnected | Event::Closed => {
                        told.lost();
                        lost.send_modify(|count| *count += 1);
                    }
                    Event::ServerError(ServerError::Other(what)) => match servers::violated(&what) {
                        Some(subject) if subject.starts_with("$JS.") => drop(forbids.send_replace(true)),
                        Some(subject) => told.refused(format!(
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
        let (keepers, stop) = (TaskTracker::new(), CancellationToken::new());
        let search = search(jetstream.clone(), standing.clone(), forbidden);
        keepers.spawn(stop.clone().run_until_cancelled_owned(search));
        let (lost, url) = (losses.subscribe(), options.url);
        let diagnosis = diagnose(url, client.as_ref().clone(), lost, standing.clone());
        keepers.spawn(stop.clone().run_until_cancelled_owned(diagnosis));
        Ok(Nats {
            subject: options.name,
            client,
            jetstream,
            standing,
            losses,
            keepers,
            stop: stop.drop_guard(),
        })
    }

    pub(super) async fn publish(&self, message: Message<'_>, deadline: Instant) -> Result<(), PublishError> {
        self.standing.watch(self.send(message, deadline)).await
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
        let publish = PublishMessage::build()
            .message_id(header_value(message.id))
            .header("Content-Type", "application/cloudevents+json")
            .payload(message.event.json.clone().into());
        let confirmed = async { self.jetstream.send_publish(subject.clone(), publish).await?.await };
        let answer = tokio::select! {
            biased;
            answer = confirmed => answer,
            // What was sent over a connection is never answered over the next one.
            _ = losses.changed() => return Err(PublishError::Unknown),
            () = tokio::time::sleep_until(deadline.into()) => return Err(PublishError::Unknown),
        };
        answer.map(|_| self.standing.found()).map_err(|failure| self.explain(&failure, &subject))
    }

    fn explain(&self, failure: &Failure, subject: &str) -> PublishError {
        match failure.kind() {
            FailureKind::StreamNotFound => self.standing.nowhere(no_stream(subject)),
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

    /// What the stream said instead of an ack: it does not have the message.
    fn said(&self, error: &jetstream::Error, subject: &str) -> PublishError {
        match error.error_code() {
            ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => {
                PublishError::Unacceptable(error.to_string())
            }
            // Another try under this id is under way inside the broker.
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
                self.standing.refused_there(why.clone(), full);
                PublishError::Refused(why)
            }
        }
    }

    pub(super) fn set_names(&self, names: &BTreeSet<String>) {
        self.standing.set_names(names.iter().map(|name| filled(name)));
    }

    pub(super) async fn close(self) {
        drop(self.stop);
        self.keepers.close();
        self.keepers.wait().await;
        self.standing.lost();
    }
}

/// Whether the stream, or its account's share of the server, has no room. One code stands for all that keeps a stream from storing.
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

/// Looks for a stream for the subjects.
async fn search(
    jetstream: Arc<jetstream::Context>,
    standing: Arc<BrokerHealth>,
    forbidden: watch::Sender<bool>,
) {
    let (jetstream, forbidden) = (&jetstream, &forbidden);
    let look = |subject: String| async move {
        if *forbidden.borrow() {
            return Lookup::Hidden;
        }
        match timeout(LOOKUP_TIMEOUT, stream_of(jetstream, &subject)).await {
            Ok(Ok(Some(_))) => Lookup::There,
            Ok(Ok(None)) => Lookup::Absent(no_stream(&subject)),
            Ok(Err(Refusal::Disabled)) => Lookup::Absent(DISABLED.to_owned()),
            Ok(Err(Refusal::Other)) => Lookup::NoAnswer(NO_ANSWER),
            // What we may not ask is not answered, and the server says so beside.
            Err(_) if *forbidden.borrow() => Lookup::Hidden,
            Err(_) => Lookup::NoAnswer(NO_ANSWER),
        }
    };
    standing.keep_looking(look).await;
}

/// Why JetStream does not say which stream takes a subject.
pub(crate) enum Refusal {
    /// There is no JetStream.
    Disabled,
    /// It answers with an error, or not at all.
    Other,
}

/// The stream that takes a subject, where there is one.
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

/// Finds out why there is no connection, while there is none. The client library, which reconnects, reports little of it.
async fn diagnose(url: Secret, client: Client, mut lost: watch::Receiver<u64>, standing: Arc<BrokerHealth>) {
    loop {
        sleep(DIAGNOSE_AFTER).await;
        if client.connection_state() == State::Connected {
            // An error means that the client is gone, and we are about to go.
            let _ = lost.changed().await;
            continue;
        }
        if let Err(why) = servers::connect(&url, "hookgate", CONNECT_TIMEOUT, |_| {}).await
            && client.connection_state() != State::Connected
        {
            standing.unconnected(format!("NATS {why}"));
        }
    }
}

/// Says what no subject may hold; for each event it may be filled in with anything else.
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

/// A provider's type may have dots wherever it likes; a subject may not.
fn filled(subject: &str) -> String {
    let tokens = subject.split('.').map(|token| if token.is_empty() { "_" } else { token });
    tokens.collect::<Vec<_>>().join(".")
}

/// Line breaks end a header.
fn header_value(text: &str) -> String {
    text.replace('\r', "%0D").replace('\n', "%0A")
}

/// 50 ms, then twice as long each time up to 1 s, less up to a half of it so that gateways do not come together.
fn reconnect_delay(attempts: usize) -> Duration {
    let doublings = attempts.saturating_sub(1).min(5) as u32;
    let delay = (RECONNECT_FIRST * 2_u32.pow(doublings)).min(RECONNECT_MAX);
    let [chance] = clock::random::<1>();
    delay.mul_f64(1.0 - f64::from(chance) / 512.0)
}

const RECONNECT_FIRST: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A silent server is pinged this often; at the third ping without an answer it is taken for dead.
const PING_INTERVAL: Duration = Duration::from_millis(400);
/// Messages that may await their ack.
const IN_FLIGHT: usize = 4096;
/// The deadline of each publish rules.
const LONGER_THAN_ANY_DEADLINE: Duration = Duration::from_secs(60);
/// How long a message that nobody awaits any more takes up its place.
const FORGET_AFTER: Duration = Duration::from_secs(1);
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);
const DIAGNOSE_AFTER: Duration = Duration::from_secs(2);
pub(crate) const DISABLED: &str =
    "JetStream is not enabled, on this server or for this account; start nats-server with --jetstream";
/// With "exceeded" after them (nats-server, `ErrMaxMsgs`, `ErrMaxBytes`, `ErrMaxMsgsPerSubject`).
const NO_ROOM: [&str; 2] = ["maximum messages", "maximum bytes"];
const NO_ANSWER: &str = "JetStream does not answer which stream takes the subject";
/// The server ends a connection that sends it a line of over 4096 bytes; besides the subject it holds an inbox and sizes.
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
