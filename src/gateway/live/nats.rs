//! Checks NATS: a stream takes every subject, keeps what it acknowledges, and remembers message ids for as long as a
//! claim lasts.
//!
//! Keeps true: it creates and changes no stream. A request that the user may not make is a finding. It does not repeat
//! the client library's connection errors, which may hold the URL.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::consumer;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, PersistenceMode, RetentionPolicy, StorageType,
};
use async_nats::{Client, Event, ServerError};
use futures_util::TryStreamExt;

use super::{CONNECT, Finding, MIN_RETENTION, Setting, human_duration, listed};
use crate::config::secret::Secret;
use crate::durable::broker::nats::{self, Refusal, no_stream};

/// Checks the streams of these subjects.
pub(super) async fn check(url: &Secret, subjects: &BTreeSet<String>, lease: Duration) -> Vec<Finding> {
    let server = match Server::connect(url).await {
        Ok(server) => server,
        Err(why) => return vec![Finding::new(Setting::QueueUnreachable, format!("NATS {why}"))],
    };
    let (mut missing, mut found, mut streams) = (Vec::new(), Vec::new(), BTreeMap::new());
    for subject in subjects {
        match nats::stream_of(&server.jetstream, subject).await {
            Ok(Some(stream)) => streams.entry(stream).or_insert_with(Vec::new).push(&**subject),
            Ok(None) => missing.push(subject),
            Err(Refusal::Disabled) => {
                found.push(Finding::new(Setting::NatsStream, nats::DISABLED));
                break;
            }
            Err(Refusal::Other) => {
                found.push(server.unanswered("$JS.API.STREAM.NAMES", "which streams take the events"));
                break;
            }
        }
    }
    if !missing.is_empty() {
        found.push(Finding::new(Setting::NatsStream, no_stream(&listed(&missing))));
    }
    for (stream, subjects) in streams {
        found.extend(server.check_stream(&stream, &subjects, lease).await);
    }
    found
}

/// A connection, and whether the server has reported a permissions violation on it.
struct Server {
    jetstream: jetstream::Context,
    forbidden: Arc<AtomicBool>,
}

impl Server {
    async fn connect(url: &Secret) -> Result<Server, String> {
        let forbidden = Arc::new(AtomicBool::new(false));
        let forbids = forbidden.clone();
        let on_event = move |event: &Event| {
            if let Event::ServerError(ServerError::Other(what)) = event
                && nats::servers::forbidden_subject(what).is_some()
            {
                forbids.store(true, Ordering::Relaxed);
            }
        };
        let client: Client = nats::servers::connect(url, "hookgate check", CONNECT, on_event).await?;
        let jetstream = jetstream::ContextBuilder::new().timeout(ANSWER_TIMEOUT).build(client);
        Ok(Server { jetstream, forbidden })
    }

    /// The finding for a request without an answer: this user may not make it, or JetStream is down.
    fn unanswered(&self, request: &str, unknown: &str) -> Finding {
        match self.forbidden.swap(false, Ordering::Relaxed) {
            true => Finding::new(
                Setting::NatsUnreadable,
                format!(
                    "this user may not publish to {request}: {unknown} is not known; grant it that right to have this checked"
                ),
            ),
            false => Finding::new(
                Setting::QueueUnreachable,
                format!("JetStream does not answer {request}: {unknown} is not known"),
            ),
        }
    }

    /// Checks a stream's settings and, for these subjects, its consumers.
    async fn check_stream(&self, name: &str, subjects: &[&str], lease: Duration) -> Vec<Finding> {
        let Ok(stream) = self.jetstream.get_stream(name).await else {
            return vec![self.unanswered(
                &format!("$JS.API.STREAM.INFO.{name}"),
                &format!("whether {name} keeps the events"),
            )];
        };
        let info = stream.cached_info();
        let mut found: Vec<_> = check_settings(info, lease);
        let retention = match info.config.retention {
            RetentionPolicy::Limits => return found,
            RetentionPolicy::Interest => "interest",
            RetentionPolicy::WorkQueue => "work-queue",
        };
        match stream.consumers().try_collect::<Vec<consumer::Info>>().await {
            Ok(consumers) => {
                let filters = consumers.iter().filter_map(|consumer| filters(&consumer.config));
                let filters: Vec<_> = filters.collect();
                let unread =
                    subjects.iter().filter(|subject| !filters.iter().any(|config| takes(config, subject)));
                found.extend(check_unread(name, retention, &unread.copied().collect::<Vec<_>>()));
            }
            Err(_) => found.push(self.unanswered(
                &format!("$JS.API.CONSUMER.LIST.{name}"),
                &format!("whether {name}, which keeps messages only for consumers, has one"),
            )),
        }
        found
    }
}

fn check_settings(info: &Info, lease: Duration) -> Vec<Finding> {
    let config: &Config = &info.config;
    let name = &config.name;
    let mut drops: Vec<String> = Vec::new();
    if config.storage == StorageType::Memory {
        drops.push("it is kept in memory and lost with the server; create it with storage=file".to_owned());
    }
    if config.persist_mode == Some(PersistenceMode::Async) {
        drops.push(
            "it acknowledges messages before it writes them (persist_mode async); create it with the default"
                .to_owned(),
        );
    }
    let discards_old = config.discard == DiscardPolicy::Old;
    for (is_set, limit) in [(config.max_messages > 0, "max_msgs"), (config.max_bytes > 0, "max_bytes")] {
        if is_set && discards_old {
            drops.push(format!(
                "at {limit} it discards its oldest messages, read or not; set discard=new, or remove {limit}"
            ));
        }
    }
    if config.max_messages_per_subject > 0 && (discards_old || !config.discard_new_per_subject) {
        drops.push(
            "at max_msgs_per_subject it discards the oldest message of a subject, read or not; set discard=new and \
             discard_new_per_subject, or remove max_msgs_per_subject"
                .to_owned(),
        );
    }
    if !config.max_age.is_zero() && config.max_age < MIN_RETENTION {
        drops.push(format!(
            "after max_age, {}, it discards messages, read or not; a consumer may be down for longer: set a day or more",
            human_duration(config.max_age)
        ));
    }
    let drop = |why| {
        Finding::new(
            Setting::NatsDrops,
            format!("the stream {name} loses messages that it acknowledged: {why}"),
        )
    };
    let mut found: Vec<_> = drops.into_iter().map(drop).collect();
    if config.no_ack {
        let what = format!(
            "the stream {name} acknowledges nothing (no_ack), so no event is known to be stored; set no_ack=false"
        );
        found.push(Finding::new(Setting::NatsNoAck, what));
    }
    if config.sealed {
        let what = format!(
            "the stream {name} is sealed and takes no messages; create another one for these subjects"
        );
        found.push(Finding::new(Setting::NatsStream, what));
    }
    if let Some(limit) = at_limit(info).filter(|_| !discards_old) {
        let what = format!(
            "the stream {name} is full ({limit}) and takes no messages; raise its limit, or purge read messages"
        );
        found.push(Finding::new(Setting::NatsStream, what));
    }
    // Only in a cluster: a single server cannot have more.
    if info.cluster.as_ref().is_some_and(|cluster| cluster.name.is_some()) && config.num_replicas < 2 {
        let what = format!(
            "the stream {name} has one replica in a cluster: it is down or lost with that server; set replicas=3"
        );
        found.push(Finding::new(Setting::NatsReplicas, what));
    }
    found.extend(check_window(name, config.duplicate_window, lease));
    found
}

/// The limit that leaves no room for another message of the average size.
fn at_limit(info: &Info) -> Option<String> {
    let (config, state) = (&info.config, &info.state);
    let limit = |limit: i64| u64::try_from(limit).ok().filter(|limit| *limit > 0);
    let average = state.bytes.checked_div(state.messages).unwrap_or_default();
    if let Some(limit) = limit(config.max_messages).filter(|limit| state.messages >= *limit) {
        return Some(format!("{} messages, max_msgs is {limit}", state.messages));
    }
    let limit = limit(config.max_bytes).filter(|limit| state.bytes + average > *limit)?;
    Some(format!("{} bytes, max_bytes is {limit}", state.bytes))
}

fn check_window(stream: &str, window: Duration, lease: Duration) -> Option<Finding> {
    let what = || {
        format!(
            "the stream {stream} remembers message ids for {} s, less than dedupe.lease, {} s: a retry would be stored \
             twice; raise its duplicate window",
            window.as_secs_f64(),
            lease.as_secs_f64()
        )
    };
    (window < lease).then(|| Finding::new(Setting::NatsDuplicateWindow, what()))
}

/// Finds subjects that no durable consumer reads, in a stream that keeps messages only for consumers.
fn check_unread(stream: &str, retention: &str, subjects: &[&str]) -> Option<Finding> {
    let what = || {
        format!(
            "the stream {stream} keeps messages only for its consumers ({retention} retention), and no durable consumer \
             reads {}; create one, or set limits retention",
            listed(subjects)
        )
    };
    (!subjects.is_empty()).then(|| Finding::new(Setting::NatsDrops, what()))
}

/// The subject filters of a durable consumer; empty if it reads all. `None` if the consumer is not durable. The client
/// library shows no filters of a consumer with several, so such a consumer counts as one that reads all.
fn filters(consumer: &consumer::Config) -> Option<Vec<&str>> {
    consumer.durable_name.as_ref()?;
    Some([&*consumer.filter_subject].into_iter().filter(|filter| !filter.is_empty()).collect())
}

fn takes(filters: &[&str], subject: &str) -> bool {
    filters.is_empty() || filters.iter().any(|filter| matches(filter, subject))
}

/// Whether a subject matches a pattern: `*` matches one token, `>` at the end one or more.
fn matches(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for expected in pattern.split('.') {
        match (expected, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (expected, Some(token)) if expected == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

/// For each answer: a forbidden request gets none.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_as_the_server_matches() {
        for (pattern, subject) in
            [("a.b", "a.b"), ("a.*", "a.b"), ("a.>", "a.b.c"), (">", "a"), ("*.b", "a.b")]
        {
            assert!(matches(pattern, subject), "{pattern} {subject}");
        }
        for (pattern, subject) in [("a.b", "a"), ("a", "a.b"), ("a.*", "a.b.c"), ("a.>", "a"), ("*.c", "a.b")]
        {
            assert!(!matches(pattern, subject), "{pattern} {subject}");
        }
    }
}
