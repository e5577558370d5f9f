//! The scripts as they are called: what goes out for an event and what an answer means.
//!
//! Keeps true: every key a script touches is passed as a key and lies in one slot; an answer is never read as better than
//! the script gave it.

use redis::{Cmd, Script, Value};

use super::backlog::Backlog;
use crate::event::{BodyHash, Event, Identity};

/// The scripts and the hashes that Redis knows them by.
pub(super) struct Scripts {
    enqueue: Script,
    trim: Script,
    /// The texts of all that is called by its hash.
    texts: [&'static str; 5],
    look: Script,
    count: Script,
    pending: Script,
}

/// A call that admits events to one stream, as it is written: every key, the bounds, every event.
pub(super) struct Call(pub(super) Cmd);

/// In which form an event is offered, and so what happens when its identity is known with another body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As it is; tell of a conflict.
    OrTell,
    /// As it is; drop it on a conflict.
    OrDrop,
    /// As a conflict.
    Conflict,
}

/// What the script did with one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is in the stream.
    Entered,
    /// This body is known as the first under its identity.
    KnownFirst,
    /// This body is known; it entered as a conflict.
    KnownConflict,
    /// This body is known; it was dropped.
    KnownDropped,
    /// The identity is known with another body, and nothing was done.
    Conflict,
    /// The identity is known with another body, and this one is now remembered as dropped.
    Dropped,
    /// The stream is as long as it may be.
    Full,
    /// Redis' own words, its error code first.
    Refused(String),
}

/// What a call came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// An answer for each event, in order.
    Answers(Vec<Answer>),
    /// The script has to be loaded again; it did not run.
    NotLoaded,
    /// Redis did not run it; the code and the text.
    NotRun(String, String),
    /// It may have run in part.
    Unclear(String),
    /// Redis did not read the call: an argument is longer than it takes. It ran nothing, and closes the connection.
    NotRead(String),
}

impl Scripts {
    pub(super) fn new() -> Scripts {
        let texts = [ENQUEUE, TRIM, LOOK, COUNT, PENDING];
        let [enqueue, trim, look, count, pending] = texts.map(Script::new);
        Scripts { enqueue, trim, texts, look, count, pending }
    }

    /// The commands that make them known.
    pub(super) fn loads(&self) -> redis::Pipeline {
        let mut loads = redis::pipe();
        for text in self.texts {
            loads.cmd("SCRIPT").arg("LOAD").arg(text);
        }
        loads
    }

    /// A call for so many events, their JSON so long in all.
    pub(super) fn enqueue(&self, stream: &str, events: usize, bytes: usize) -> Call {
        let mut call = Cmd::with_capacity(6 + events * 7, bytes + events * PER_EVENT);
        call.arg("EVALSHA").arg(self.enqueue.get_hash()).arg(events + 1).arg(stream);
        Call(call)
    }

    /// One call that trims one stream by age: entries older than `retain_ms`, and those up to the id `aged`.
    pub(super) fn trim_old(&self, stream: &str, retain_ms: u64, aged: &str, backlog: &Backlog) -> Cmd {
        let mut call = on(&self.trim, stream);
        call.arg(retain_ms).arg(TRIM_AT_ONCE).arg(1).arg(aged);
        backlog.ignoring(stream, &mut call);
        call
    }

    /// One call that makes room in one stream, for `wanted` events at least if so many may go.
    pub(super) fn make_room(&self, stream: &str, wanted: usize, backlog: &Backlog) -> Cmd {
        let mut call = on(&self.trim, stream);
        call.arg(-1).arg(ROOM_AT_ONCE.max(wanted * 2)).arg(wanted).arg("");
        backlog.ignoring(stream, &mut call);
        call
    }

    /// One call that tells how far a stream's groups are.
    pub(super) fn look(&self, stream: &str) -> Cmd {
        on(&self.look, stream)
    }

    /// One call that counts entries from one id to another, `(` before an id for those beyond it.
    pub(super) fn count(&self, stream: &str, from: &str, to: &str, most: usize) -> Cmd {
        let mut call = on(&self.count, stream);
        call.arg(from).arg(to).arg(most);
        call
    }

    /// One call that counts a group's pending entries; `deleted` is the greatest id that was deleted.
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
    /// The key under which an event is remembered.
    pub(super) fn key(&mut self, stream: &str, source: &str, identity: &Identity) {
        self.0.arg(super::stream::seen_key(stream, source, identity));
    }

    /// How long it is remembered, and how long the stream may get.
    pub(super) fn bounds(&mut self, window_ms: u64, max_backlog: u64) {
        self.0.arg(window_ms).arg(max_backlog);
    }

    /// An event; the keys have the same order.
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

/// Reads the reply to [`Scripts::enqueue`].
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
                // The code of everything without one of its own, an error inside the script among them.
                "ERR" => Outcome::Unclear(text),
                _ => Outcome::NotRun(code, text),
            }
        }
        _ => Outcome::Unclear("an answer that the script does not give".to_owned()),
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
        Value::BulkString(text) => Answer::Refused(short(&String::from_utf8_lossy(&text))),
        _ => Answer::Refused("an answer that the script does not give".to_owned()),
    }
}

/// An error as Redis said it.
pub(in crate::durable::inbox) fn said(why: &redis::ServerError) -> String {
    short(&format!("{} {}", why.code(), why.details().unwrap_or_default()))
}

pub(super) fn short(text: &str) -> String {
    text.trim().trim_start_matches('-').chars().take(120).collect()
}

/// Of an argument longer than `proto-max-bulk-len`.
const TOO_LONG: &str = "ERR Protocol error: invalid bulk length";
/// Keys, hashes, ids and the protocol's own marks of one event, about.
const PER_EVENT: usize = 512;
/// Entries a call trims, about: some milliseconds of the server's time.
const TRIM_AT_ONCE: u32 = 10_000;
/// The same while events wait for it: so many enter before the next call, so that what it looks up first costs each little.
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
    fn what_the_script_does_not_answer_leaves_it_unclear_what_it_did() {
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
