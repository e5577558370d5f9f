//! Builds the script calls, and parses their answers.
//!
//! Keeps true: every key that a script touches is passed as a key and lies in one slot. An answer is never read as
//! better than the script gave it.

use redis::{Cmd, Script, Value};

use super::backlog::Backlog;
use crate::event::{BodyHash, Event, Identity};

/// The scripts, with the hashes by which Redis knows them.
pub(super) struct Scripts {
    enqueue: Script,
    trim: Script,
    /// The texts of all scripts that are called by hash.
    texts: [&'static str; 5],
    look: Script,
    count: Script,
    pending: Script,
}

/// A call that enqueues events to one stream. Arguments are written in this order: every key, the bounds, every event.
pub(super) struct Call(pub(super) Cmd);

/// The form of an event, which decides what happens if its identity is known with another body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The event as it is. A conflict is reported.
    OrTell,
    /// The event as it is. A conflict is dropped.
    OrDrop,
    /// The event in conflict form.
    Conflict,
}

/// What the script did with one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The event is in the stream now.
    Entered,
    /// This body entered before, as the first of its identity.
    KnownFirst,
    /// This body entered before, as a conflict.
    KnownConflict,
    /// This body was dropped before.
    KnownDropped,
    /// The identity is known with another body. Nothing was done.
    Conflict,
    /// The identity is known with another body. This one is now remembered as dropped.
    Dropped,
    /// The stream is at `max_backlog`.
    Full,
    /// Redis refused. Its own words, the error code first.
    Refused(String),
}

/// The result of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// An answer for each event, in order.
    Answers(Vec<Answer>),
    /// The script did not run, because the server has forgotten it.
    NotLoaded,
    /// Redis did not run the script: the error code and the text.
    NotRun(String, String),
    /// The script may have run in part.
    Unclear(String),
    /// Redis did not read the call, because an argument is too long. It ran nothing, and closes the connection.
    NotRead(String),
}

impl Scripts {
    pub(super) fn new() -> Scripts {
        let texts = [ENQUEUE, TRIM, LOOK, COUNT, PENDING];
        let [enqueue, trim, look, count, pending] = texts.map(Script::new);
        Scripts { enqueue, trim, texts, look, count, pending }
    }

    /// The commands that load the scripts.
    pub(super) fn load_all(&self) -> redis::Pipeline {
        let mut loads = redis::pipe();
        for text in self.texts {
            loads.cmd("SCRIPT").arg("LOAD").arg(text);
        }
        loads
    }

    /// Begins a call for this many events. `bytes` is the size of their JSON.
    pub(super) fn enqueue(&self, stream: &str, events: usize, bytes: usize) -> Call {
        let mut call = Cmd::with_capacity(6 + events * 7, bytes + events * PER_EVENT);
        call.arg("EVALSHA").arg(self.enqueue.get_hash()).arg(events + 1).arg(stream);
        Call(call)
    }

    /// Trims one stream by age: entries older than `retain_ms`, and entries up to the id `aged`.
    pub(super) fn trim_old(&self, stream: &str, retain_ms: u64, aged: &str, backlog: &Backlog) -> Cmd {
        let mut call = on(&self.trim, stream);
        call.arg(retain_ms).arg(TRIM_AT_ONCE).arg(1).arg(aged);
        backlog.ignoring(stream, &mut call);
        call
    }

    /// Makes room in one stream, for at least `wanted` events if so many entries may go.
    pub(super) fn make_room(&self, stream: &str, wanted: usize, backlog: &Backlog) -> Cmd {
        let mut call = on(&self.trim, stream);
        call.arg(-1).arg(ROOM_AT_ONCE.max(wanted * 2)).arg(wanted).arg("");
        backlog.ignoring(stream, &mut call);
        call
    }

    /// Reads how far a stream's groups are.
    pub(super) fn look(&self, stream: &str) -> Cmd {
        on(&self.look, stream)
    }

    /// Counts entries from one id to another. A `(` before an id excludes it.
    pub(super) fn count(&self, stream: &str, from: &str, to: &str, most: usize) -> Cmd {
        let mut call = on(&self.count, stream);
        call.arg(from).arg(to).arg(most);
        call
    }

    /// Counts a group's pending entries. `deleted` is the greatest deleted id.
    pub(super) fn pending(
        &self,
        stream: &str,
        group: &[u8],
        (from, to): (&str, &str),
        most: usize,
        deleted: &str,
    ) -> Cmd {
        let mut call = on(&self.pending, stream);
        call.arg(group).arg(from).arg(to).arg(most).arg(deleted);
        call
    }
}

impl Call {
    /// Adds the key that remembers an event.
    pub(super) fn key(&mut self, stream: &str, source: &str, identity: &Identity) {
        self.0.arg(super::stream::seen_key(stream, source, identity));
    }

    /// Adds the window, and the limit of the stream.
    pub(super) fn bounds(&mut self, window_ms: u64, max_backlog: u64) {
        self.0.arg(window_ms).arg(max_backlog);
    }

    /// Adds an event. The events have the order of the keys.
    pub(super) fn event(&mut self, body: &BodyHash, form: Form, event: &Event) {
        let form = match form {
            Form::OrTell => "F",
            Form::OrDrop => "D",
            Form::Conflict => "C",
        };
        self.0
            .arg(&body.0[..])
            .arg(form)
            .arg(&*event.id)
            .arg(&*event.kind)
            .arg(&*event.source)
            .arg(&*event.json);
    }
}

fn on(script: &Script, stream: &str) -> Cmd {
    let mut call = Cmd::new();
    call.arg("EVALSHA").arg(script.get_hash()).arg(1).arg(stream);
    call
}

/// Parses the reply to [`Scripts::enqueue`].
pub(super) fn read(reply: Value, asked: usize) -> Outcome {
    match reply {
        Value::Array(answers) if answers.len() == asked => {
            Outcome::Answers(answers.into_iter().map(answer).collect())
        }
        Value::ServerError(why) => {
            let (code, text) = (why.code().to_owned(), said(&why));
            match &*code {
                "NOSCRIPT" => Outcome::NotLoaded,
                "ERR" if text.starts_with(TOO_LONG) => Outcome::NotRead(text),
                // `ERR` is the code of every error without a code of its own, including errors inside the script.
                "ERR" => Outcome::Unclear(text),
                _ => Outcome::NotRun(code, text),
            }
        }
        _ => Outcome::Unclear("an answer that the script never gives".to_owned()),
    }
}

fn answer(value: Value) -> Answer {
    match value {
        Value::Int(1) => Answer::Entered,
        Value::Int(2) => Answer::KnownFirst,
        Value::Int(3) => Answer::KnownConflict,
        Value::Int(4) => Answer::KnownDropped,
        Value::Int(5) => Answer::Conflict,
        Value::Int(6) => Answer::Dropped,
        Value::Int(7) => Answer::Full,
        Value::BulkString(text) => Answer::Refused(shorten(&String::from_utf8_lossy(&text))),
        _ => Answer::Refused("an answer that the script never gives".to_owned()),
    }
}

/// An error in Redis' own words.
pub(in crate::durable::inbox) fn said(why: &redis::ServerError) -> String {
    shorten(&format!("{} {}", why.code(), why.details().unwrap_or_default()))
}

pub(super) fn shorten(text: &str) -> String {
    text.trim().trim_start_matches('-').chars().take(120).collect()
}

/// Redis' error for an argument longer than `proto-max-bulk-len`.
const TOO_LONG: &str = "ERR Protocol error: invalid bulk length";
/// The approximate size of one event's keys, hashes, ids and protocol bytes.
const PER_EVENT: usize = 512;
/// The approximate number of entries that one call trims. It takes the server some milliseconds.
const TRIM_AT_ONCE: u32 = 10_000;
/// The same limit while events wait for room. A larger one amortizes the look-ups of each call over more events.
const ROOM_AT_ONCE: usize = 1000;

const ENQUEUE: &str = include_str!("admit.lua");
const TRIM: &str = concat!(include_str!("groups.lua"), include_str!("trim.lua"));
const LOOK: &str = concat!(include_str!("groups.lua"), include_str!("look.lua"));
const COUNT: &str = include_str!("count.lua");
const PENDING: &str = concat!(include_str!("groups.lua"), include_str!("pending.lua"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unexpected_answer_is_unclear() {
        let error = |line: &str| redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        let answers = |count| Value::Array(vec![Value::Int(1); count]);
        assert!(matches!(read(answers(2), 2), Outcome::Answers(answers) if answers.len() == 2));
        for unclear in [answers(1), answers(3), Value::Okay, error("ERR user_script:1: attempt to call nil")]
        {
            assert!(matches!(read(unclear, 2), Outcome::Unclear(_)));
        }
        assert!(matches!(read(error("NOSCRIPT No matching script"), 2), Outcome::NotLoaded));
        assert!(
            matches!(read(error("OOM command not allowed"), 2), Outcome::NotRun(code, _) if code == "OOM")
        );
    }
}
