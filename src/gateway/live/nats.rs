//! NATS: is there a stream for every subject, does it keep what it acknowledges, and does it remember message ids for as long as
//! a claim lasts?
//!
//! Keeps true: nothing is made or changed; a finding names what our user may not ask; the client library's text on a failure to
//! connect, which may hold the URL, is not repeated.

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

use super::{CONNECT, Finding, SHORT, Setting, listed, spelled};
use crate::config::secret::Secret;
use crate::durable::broker::nats::{self, Refusal, no_stream};

/// Asks the server about these subjects.
pub(super) async fn look(url: &Secret, subjects: &BTreeSet<String>, lease: Duration) -> Vec<Finding> {
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
                found.push(server.untold("$JS.API.STREAM.NAMES", "which streams take the events"));
                break;
            }
        }
    }
    if !missing.is_empty() {
        found.push(Finding::new(Setting::NatsStream, no_stream(&listed(&missing))));
    }
    for (stream, subjects) in streams {
        found.extend(server.of_stream(&stream, &subjects, lease).await);
    }
    found
}

/// A connection, and whether the server has forbidden something over it.
struct Server {
    jetstream: jetstream::Context,
    forbidden: Arc<AtomicBool>,
}

impl Server {
    async fn connect(url: &Secret) -> Result<Server, String> {
        let forbidden = Arc::new(AtomicBool::new(false));
        let forbids = forbidden.clone();
        let hear = move |event: &Event| {
            if let Event::ServerError(ServerError::Other(what)) = event
                && nats::servers::forbidden_subject(what).is_some()
            {
                forbids.store(true, Ordering::Relaxed);
            }
        };
        let client: Client = nats::servers::connect(url, "hookgate check", CONNECT, hear).await?;
        let jetstream = jetstream::ContextBuilder::new().timeout(ANSWER).build(client);
        Ok(Server { jetstream, forbidden })
    }

    /// A question that is not answered: because our user may not ask it, or for another reason.
    fn untold(&self, question: &str, unknown: &str) -> Finding {
        match self.forbidden.swap(false, Ordering::Relaxed) {
            true => Finding::new(
                Setting::NatsUnreadable,
                format!(
                    "this user may not publish to {question}: {unknown} is not known; grant it that to have it checked"
                ),
            ),
            false => Finding::new(
                Setting::QueueUnreachable,
                format!("JetStream does not answer {question}: {unknown} is not known"),
            ),
        }
    }

    /// What a stream's settings do to the events on these subjects of it.
    async fn of_stream(&self, name: &str, subjects: &[&str], lease: Duration) -> Vec<Finding> {
        let Ok(stream) = self.jetstream.get_stream(name).await else {
            return vec![self.untold(
                &format!("$JS.API.STREAM.INFO.{name}"),
                &format!("whether {name} keeps the events"),
            )];
        };
        let info = stream.cached_info();
        let mut found: Vec<_> = of_settings(info, lease);
        let retention = match info.config.retention {
            RetentionPolicy::Limits => return found,
            RetentionPolicy::Interest => "interest",
            RetentionPolicy::WorkQueue => "work-queue",
        };
        match stream.consumers().try_collect::<Vec<consumer::Info>>().await {
            Ok(consumers) => {
                let filters = consumers.iter().filter_map(|consumer| filters(&consumer.config));
                let filters: Vec<_> = filters.collect();
                let unread = subjects.iter().filter(|subject| !filters.iter().any(|of| takes(of, subject)));
                found.extend(of_unread(name, retention, &unread.copied().collect::<Vec<_>>()));
            }
            Err(_) => found.push(self.untold(
                &format!("$JS.API.CONSUMER.LIST.{name}"),
                &format!("whether {name} has a consumer for what it keeps for consumers alone"),
            )),
        }
        found
    }
}

/// What a stream's own settings lose.
fn of_settings(info: &Info, lease: Duration) -> Vec<Finding> {
    let of: &Config = &info.config;
    let name = &of.name;
    let mut drops: Vec<String> = Vec::new();
    if of.storage == StorageType::Memory {
        drops.push("it is kept in memory and gone with the server; make it with storage=file".to_owned());
    }
    if of.persist_mode == Some(PersistenceMode::Async) {
        drops.push(
            "it acknowledges before it has written (persist_mode async); make it with the default".to_owned(),
        );
    }
    let discards_old = of.discard == DiscardPolicy::Old;
    for (is_set, limit) in [(of.max_messages > 0, "max_msgs"), (of.max_bytes > 0, "max_bytes")] {
        if is_set && discards_old {
            drops.push(format!(
                "at {limit} it discards its oldest messages, read or not; set discard=new, or no {limit}"
            ));
        }
    }
    if of.max_messages_per_subject > 0 && (discards_old || !of.discard_new_per_subject) {
        drops.push(
            "at max_msgs_per_subject it discards the oldest message of a subject, read or not; set discard=new and \
             discard_new_per_subject, or no max_msgs_per_subject"
                .to_owned(),
        );
    }
    if !of.max_age.is_zero() && of.max_age < SHORT {
        drops.push(format!(
            "after max_age, {}, it discards messages, read or not; a consumer may be away for longer: set a day or more",
            spelled(of.max_age)
        ));
    }
    let drop =
        |why| Finding::new(Setting::NatsDrops, format!("the stream {name} loses what it confirmed: {why}"));
    let mut found: Vec<_> = drops.into_iter().map(drop).collect();
    if of.no_ack {
        let what = format!(
            "the stream {name} acknowledges nothing (no_ack), and no event is known to be in it; set no_ack=false"
        );
        found.push(Finding::new(Setting::NatsNoAck, what));
    }
    if of.sealed {
        let what =
            format!("the stream {name} is sealed and takes nothing; make another one for these subjects");
        found.push(Finding::new(Setting::NatsStream, what));
    }
    if let Some(limit) = at_limit(info).filter(|_| !discards_old) {
        let what = format!(
            "the stream {name} is full ({limit}) and takes nothing; raise its limit, or purge what was read"
        );
        found.push(Finding::new(Setting::NatsStream, what));
    }
    // A server alone can have no more.
    if info.cluster.as_ref().is_some_and(|cluster| cluster.name.is_some()) && of.num_replicas < 2 {
        let what = format!(
            "the stream {name} has one replica in a cluster: it is away or lost with that server; set replicas=3"
        );
        found.push(Finding::new(Setting::NatsReplicas, what));
    }
    found.extend(of_window(name, of.duplicate_window, lease));
    found
}

/// The limit that leaves a stream no room for another message of the usual size.
fn at_limit(info: &Info) -> Option<String> {
    let (of, has) = (&info.config, &info.state);
    let limit = |limit: i64| u64::try_from(limit).ok().filter(|limit| *limit > 0);
    let usual = has.bytes.checked_div(has.messages).unwrap_or_default();
    if let Some(limit) = limit(of.max_messages).filter(|limit| has.messages >= *limit) {
        return Some(format!("{} messages, max_msgs is {limit}", has.messages));
    }
    let limit = limit(of.max_bytes).filter(|limit| has.bytes + usual > *limit)?;
    Some(format!("{} bytes, max_bytes is {limit}", has.bytes))
}

fn of_window(stream: &str, window: Duration, lease: Duration) -> Option<Finding> {
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

/// Subjects that no durable consumer reads, where messages are kept for consumers alone.
fn of_unread(stream: &str, retention: &str, subjects: &[&str]) -> Option<Finding> {
    let what = || {
        format!(
            "the stream {stream} keeps messages for its consumers alone ({retention} retention), and no durable consumer \
             takes {}; make one, or set limits retention",
            listed(subjects)
        )
    };
    (!subjects.is_empty()).then(|| Finding::new(Setting::NatsDrops, what()))
}

/// What a consumer reads, as far as the client library tells: of one with several filters it tells none, and it counts as one
/// for all. None where it goes with its client.
fn filters(consumer: &consumer::Config) -> Option<Vec<&str>> {
    consumer.durable_name.as_ref()?;
    Some([&*consumer.filter_subject].into_iter().filter(|filter| !filter.is_empty()).collect())
}

fn takes(filters: &[&str], subject: &str) -> bool {
    filters.is_empty() || filters.iter().any(|filter| matches(filter, subject))
}

/// Whether a subject fits a pattern: `*` stands for one token, `>` at the end for one or more.
fn matches(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in pattern.split('.') {
        match (wanted, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (wanted, Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

/// For each answer: a question that is forbidden gets none.
const ANSWER: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_takes_what_the_server_says_it_takes() {
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
