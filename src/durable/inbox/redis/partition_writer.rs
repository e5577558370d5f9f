//! Writes one partition's events to Redis in the order of arrival. Each call takes everything that waits.
//!
//! Keeps true: a writer has one call in flight at a time, which keeps the order. Every request gets exactly one answer,
//! and only the script's own answer counts as accepted.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::base::clock;
use crate::base::runtime::{Answered, Answers, Reply};
use crate::config::OnConflict;
use crate::durable::inbox::{EnqueueError, EnqueueRequest, Enqueued};
use crate::event::Event;
use crate::observe::metrics::QueueMetrics;

use super::backlog::Backlog;
use super::cluster_client::ClusterClient;
use super::health::describe_holders;
use super::node_connection::{Fault, NodeConnection};
use super::replicas::Replicas;
use super::retention::{self, Room, Written};
use super::script::{self, Answer, Form, Outcome, Scripts};
use super::stream::Streams;

/// A request, and the channel for its answer.
pub(super) struct Waiting {
    pub(super) request: Arc<EnqueueRequest>,
    pub(super) reply: Reply<Result<Enqueued, EnqueueError>>,
}

impl Entry {
    /// The event, in conflict form if there is a conflict.
    fn event(&self) -> &Event {
        self.conflict.as_ref().unwrap_or(&self.waiting.request.event)
    }
}

/// The writer of one partition.
pub(super) struct PartitionWriter {
    pub(super) partition: u32,
    pub(super) streams: Arc<Streams>,
    pub(super) window_ms: u64,
    pub(super) backlog: Arc<Backlog>,
    pub(super) client: Arc<ClusterClient>,
    pub(super) replicas: Replicas,
    pub(super) scripts: Arc<Scripts>,
    pub(super) written: Arc<Written>,
    pub(super) metrics: QueueMetrics,
    /// Streams that have accepted an event from this writer.
    pub(super) known: HashSet<String>,
    /// Answers of the current batch that are not sent yet.
    pub(super) answers: Answers<Answered<Result<Enqueued, EnqueueError>>>,
}

/// Requests that go to one stream in one call.
struct Batch {
    stream: String,
    entries: Vec<Entry>,
}

struct Entry {
    waiting: Waiting,
    /// The event in conflict form, after the script reported a conflict.
    conflict: Option<Event>,
    /// The stream was full.
    full: bool,
}

impl PartitionWriter {
    /// Runs until the queue is closed and empty.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Waiting>) {
        let mut waiting = Vec::with_capacity(BATCH_EVENTS);
        while queue.recv_many(&mut waiting, BATCH_EVENTS).await > 0 {
            while !waiting.is_empty() {
                let rest = waiting.split_off(batch_len(&waiting));
                self.write_all(std::mem::replace(&mut waiting, rest)).await;
            }
        }
    }

    /// Calls the script until every request has its answer.
    async fn write_all(&mut self, waiting: Vec<Waiting>) {
        let mut batches = self.by_stream(waiting);
        // A conflict needs a second call, and a full stream a third. Each can repeat once if the server forgot the
        // scripts.
        for _ in 0..ROUNDS {
            if batches.is_empty() {
                return;
            }
            batches = self.round(batches).await;
            // Sends the answers so far; they do not wait for the next round.
            self.answers.send();
        }
        for entry in batches.into_iter().flat_map(|batch| batch.entries) {
            let why = if entry.full {
                "the stream is at max_backlog, and other gateways fill the room that is made"
            } else {
                "the server keeps forgetting the script"
            };
            self.fail(entry, EnqueueError::Refused(why.to_owned()));
        }
        self.answers.send();
    }

    /// Makes one call per stream, with one write per server. Returns the batches to call again.
    async fn round(&mut self, batches: Vec<Batch>) -> Vec<Batch> {
        let mut again = Vec::new();
        for (node, batches) in self.by_node(batches) {
            again.extend(self.call_all(&node, batches).await);
        }
        again
    }

    async fn call_all(&mut self, node: &NodeConnection, batches: Vec<Batch>) -> Vec<Batch> {
        let mut calls = redis::pipe();
        for batch in &batches {
            calls.add_command(self.call(batch));
        }
        if let Some(first) = batches.first() {
            self.replicas.wait(&mut calls, &format!("{{{}}}:ack", first.stream), REPLICAS_WITHIN);
        }
        let start = clock::instant();
        let mut replies = match node.call(&calls).await {
            Ok(replies) => replies,
            Err(Fault::Unreachable) => return self.fail_all(batches, &EnqueueError::Unreachable),
            Err(Fault::Unknown) => return self.fail_all(batches, &EnqueueError::Unknown),
            Err(Fault::Unclear(why)) => return self.fail_all(batches, &EnqueueError::Unclear(why)),
        };
        let held = self.replicas.have_writes(&mut replies);
        if replies.len() != batches.len() {
            return self.fail_all(batches, &EnqueueError::Unknown);
        }
        let seconds = start.elapsed().as_secs_f64();
        let (mut again, mut load) = (Vec::new(), false);
        for (batch, reply) in batches.into_iter().zip(replies) {
            self.metrics.duration.observe(seconds);
            self.metrics.batch.observe(batch.entries.len() as f64);
            match script::read(reply, batch.entries.len()) {
                Outcome::Answers(answers) => {
                    let batch = self.settle(node, batch, answers, held);
                    again.extend(self.make_room_for_full(node, batch).await);
                }
                Outcome::NotLoaded => {
                    load = true;
                    again.push(batch);
                }
                Outcome::NotRun(code, text) => {
                    let error = self.refusal(node, &batch.stream, &code, text);
                    self.fail_all(vec![batch], &error);
                }
                Outcome::Unclear(text) => {
                    tracing::warn!(stream = %batch.stream, %text, "redis answered a batch with an error");
                    self.fail_all(vec![batch], &EnqueueError::Unclear(text));
                }
                Outcome::NotRead(text) => {
                    let alone = batch.entries.len() == 1;
                    tracing::warn!(stream = %batch.stream, %text, events = batch.entries.len(), "redis cannot read a batch");
                    // Redis reports this and closes the connection. One of several events is the cause, so each is
                    // retried alone.
                    let why =
                        if alone { EnqueueError::Unacceptable(text) } else { EnqueueError::Unclear(text) };
                    self.fail_all(vec![batch], &why);
                    node.disconnect("it cannot read a call and closes the connection");
                }
            }
        }
        if load {
            // The next round shows whether it worked.
            let _ = node.call(&self.scripts.load_all()).await;
        }
        if !held {
            node.disconnect("fewer than ack_replicas replicas have the write");
        }
        again
    }

    fn call(&self, batch: &Batch) -> redis::Cmd {
        let bytes = batch.entries.iter().map(|entry| entry.event().json.len()).sum();
        let mut call = self.scripts.enqueue(&batch.stream, batch.entries.len(), bytes);
        for Entry { waiting, .. } in &batch.entries {
            let request = &*waiting.request;
            call.key(&batch.stream, &request.source, &request.identity);
        }
        call.bounds(self.window_ms, self.backlog.max());
        for entry in &batch.entries {
            let form = match (&entry.conflict, entry.waiting.request.on_conflict) {
                (Some(_), _) => Form::Conflict,
                (None, OnConflict::Forward) => Form::OrTell,
                (None, OnConflict::Drop) => Form::OrDrop,
            };
            call.event(&entry.waiting.request.body, form, entry.event());
        }
        call.0
    }

    /// Sends the script's final answers, and returns the conflicts (in conflict form) and the events that had no room.
    /// If too few replicas have the write (`held` is false), every outcome is unknown.
    fn settle(&mut self, node: &NodeConnection, batch: Batch, answers: Vec<Answer>, held: bool) -> Batch {
        if answers.contains(&Answer::Entered) && !self.known.contains(&batch.stream) {
            self.known.insert(batch.stream.clone());
            self.written.add(&batch.stream);
            self.client.health().track(&batch.stream);
        }
        let mut again = Vec::new();
        for (mut entry, answer) in batch.entries.into_iter().zip(answers) {
            let request = &entry.waiting.request;
            let id = || request.event.id.clone();
            let enqueued = match answer {
                Answer::Entered => match &entry.conflict {
                    Some(conflict) => Enqueued::Accepted { id: conflict.id.clone(), conflict: true },
                    None => Enqueued::Accepted { id: id(), conflict: false },
                },
                Answer::KnownFirst | Answer::KnownDropped => Enqueued::Duplicate { id: id(), dropped: false },
                Answer::KnownConflict => {
                    let conflict = request.event.conflicting(&request.body);
                    Enqueued::Duplicate { id: conflict.id, dropped: false }
                }
                Answer::Dropped => Enqueued::Duplicate { id: id(), dropped: true },
                Answer::Conflict => {
                    entry.conflict = Some(request.event.conflicting(&request.body));
                    entry.full = false;
                    again.push(entry);
                    continue;
                }
                Answer::Full => {
                    entry.full = true;
                    again.push(entry);
                    continue;
                }
                Answer::Refused(text) => {
                    let code = text.split(' ').next().unwrap_or_default().to_owned();
                    let error = self.refusal(node, &batch.stream, &code, text);
                    self.fail(entry, error);
                    continue;
                }
            };
            if !held {
                self.fail(entry, EnqueueError::Unknown);
                continue;
            }
            self.answers.reply(entry.waiting.reply, Ok(enqueued));
        }
        Batch { stream: batch.stream, entries: again }
    }

    /// Gives the events of a batch to call again. If the stream was full, it first makes room; if that fails, those
    /// events fail.
    async fn make_room_for_full(&mut self, node: &NodeConnection, mut batch: Batch) -> Option<Batch> {
        let wanted = batch.entries.iter().filter(|entry| entry.full).count();
        if wanted > 0 {
            let made = retention::make_room(node, &self.scripts, &batch.stream, wanted, &self.backlog).await;
            let why = match made {
                Room::Made => None,
                Room::None(holders) => {
                    self.client.health().on_event_found_full(&batch.stream, &holders);
                    Some(format!("the stream is at max_backlog: {}", describe_holders(&holders)))
                }
                Room::Refused(why) => {
                    let why = format!("the stream is at max_backlog, and cannot be trimmed: {why}");
                    self.client.health().on_event_refused(&batch.stream, &why);
                    Some(why)
                }
            };
            if let Some(why) = why {
                let (full, others) = batch.entries.into_iter().partition(|entry| entry.full);
                batch.entries = others;
                let full = Batch { stream: batch.stream.clone(), entries: full };
                self.fail_all(vec![full], &EnqueueError::Refused(why));
            }
        }
        (!batch.entries.is_empty()).then_some(batch)
    }

    /// Turns a Redis error into the error of the event that it kept out.
    fn refusal(&self, node: &NodeConnection, stream: &str, code: &str, text: String) -> EnqueueError {
        if self.client.handle_redirect(node, code, &text) {
            return EnqueueError::Unreachable;
        }
        self.client.health().on_event_refused(stream, &text);
        EnqueueError::Refused(text)
    }

    fn fail_all(&mut self, batches: Vec<Batch>, why: &EnqueueError) -> Vec<Batch> {
        for entry in batches.into_iter().flat_map(|batch| batch.entries) {
            self.fail(entry, why.clone());
        }
        Vec::new()
    }

    fn fail(&mut self, entry: Entry, why: EnqueueError) {
        if let Some(kind) = why.counted() {
            self.metrics.failed(kind, 1);
        }
        self.answers.reply(entry.waiting.reply, Err(why));
    }

    /// Groups the batches by server. Batches without a server fail at once.
    fn by_node(&mut self, batches: Vec<Batch>) -> Vec<(Arc<NodeConnection>, Vec<Batch>)> {
        let mut ways: Vec<(Arc<NodeConnection>, Vec<Batch>)> = Vec::new();
        for batch in batches {
            let Some(node) = self.client.node_of(&batch.stream) else {
                self.fail_all(vec![batch], &EnqueueError::Unreachable);
                continue;
            };
            match ways.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &node)) {
                Some((_, batches)) => batches.push(batch),
                None => ways.push((node, vec![batch])),
            }
        }
        ways
    }

    fn by_stream(&self, waiting: Vec<Waiting>) -> Vec<Batch> {
        let mut batches: Vec<Batch> = Vec::new();
        for waiting in waiting {
            let stream = self.streams.stream(&waiting.request, self.partition);
            let entry = Entry { waiting, conflict: None, full: false };
            // A batch has few streams, so a linear search is cheaper than a map.
            match batches.iter_mut().find(|batch| batch.stream == stream) {
                Some(batch) => batch.entries.push(entry),
                None => batches.push(Batch { stream, entries: vec![entry] }),
            }
        }
        batches
    }
}

/// How many waiting requests go in one call: at least one, and no more than Redis can process between two probes.
fn batch_len(waiting: &[Waiting]) -> usize {
    let mut bytes = 0;
    let within = waiting.iter().take_while(|one| {
        bytes += one.request.event.json.len();
        bytes <= BATCH_BYTES
    });
    within.count().max(1)
}

/// The most events in one call.
pub(crate) const BATCH_EVENTS: usize = 128;
const BATCH_BYTES: usize = 4 << 20;
const ROUNDS: usize = 6;
/// Shorter than the response timeout, so that missing replicas are not reported as a dead server.
const REPLICAS_WITHIN: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::super::tests::request;
    use super::*;
    use crate::base::runtime::reply;
    use crate::event::Event;

    #[test]
    fn a_call_is_bounded_in_bytes_and_takes_at_least_one_event() {
        let fits = |bytes: &[usize]| {
            let waiting = bytes.iter().map(|bytes| {
                let event = Event::with_payload("e", &format!("\"{}\"", "x".repeat(*bytes)));
                Waiting { request: EnqueueRequest { event, ..request("e", "1") }.into(), reply: reply().0 }
            });
            batch_len(&waiting.collect::<Vec<_>>())
        };
        assert_eq!(fits(&[3000, 3000, 3000]), 3);
        assert_eq!(fits(&[BATCH_BYTES / 2, BATCH_BYTES / 4, BATCH_BYTES / 4]), 2);
        assert_eq!(fits(&[BATCH_BYTES, 1]), 1);
    }
}
