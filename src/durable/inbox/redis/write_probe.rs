//! Asks each stream whether it would accept an event.
//!
//! Keeps true: asking changes nothing. It needs the same rights on keys of the same types as an event does. An answer
//! that says nothing about the stream, for example that its server is down, counts as no answer.

use std::sync::LazyLock;

use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Script, Value};

use super::backlog::Backlog;
use super::node_connection::{is_down, is_redirect};
use super::retention::names;
use super::script::{said, shorten};
use super::stream::probe_key;

/// A stream's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteProbe {
    /// The stream accepts events.
    Writable,
    /// The stream is at `max_backlog`, and these consumer groups need every entry. If the list is empty there is no
    /// group, so nothing is acknowledged.
    Full(Vec<String>),
    /// The stream accepts no events: the refused command, and Redis' own words.
    Rejected(String),
}

/// Probes the streams, in order. `None` stands for a stream without an answer. No stream is changed.
///
/// # Errors
/// When the server is down or silent.
pub async fn ask(
    connection: &mut MultiplexedConnection,
    streams: &[String],
    backlog: &Backlog,
) -> RedisResult<Vec<Option<WriteProbe>>> {
    let mut asks = redis::pipe();
    for stream in streams {
        // By its hash, as events are enqueued.
        let mut ask = redis::cmd("EVALSHA");
        ask.arg(SCRIPT.get_hash()).arg(2).arg(stream).arg(probe_key(stream)).arg(backlog.max());
        backlog.ignoring(stream, &mut ask);
        asks.add_command(ask);
    }
    let mut replies = connection.send_packed_commands(&asks, 0, streams.len()).await?;
    if replies.iter().any(|reply| matches!(reply, Value::ServerError(why) if why.code() == "NOSCRIPT")) {
        let mut load = redis::pipe();
        load.cmd("SCRIPT").arg("LOAD").arg(TEXT);
        let loaded = connection.send_packed_commands(&load, 0, 1).await?.pop();
        if let Some(Value::ServerError(why)) = loaded {
            let shut = is_of_the_stream(why.code()).then(|| WriteProbe::Rejected(said(&why)));
            return Ok(vec![shut; streams.len()]);
        }
        replies = connection.send_packed_commands(&asks, 0, streams.len()).await?;
    }
    Ok(replies.into_iter().map(answer).collect())
}

/// Parses an answer; none if it says nothing about the stream.
fn answer(reply: Value) -> Option<WriteProbe> {
    match reply {
        Value::Array(parts) => match &parts[..] {
            [Value::Int(_)] => Some(WriteProbe::Writable),
            [Value::Int(_), Value::Array(holders)] => Some(WriteProbe::Full(names(holders))),
            [_, Value::BulkString(command), Value::BulkString(why)] => {
                let [command, why] = [command, why].map(|text| String::from_utf8_lossy(text).into_owned());
                let why = shorten(&why);
                is_of_the_stream(&why).then(|| WriteProbe::Rejected(format!("{command}: {why}")))
            }
            _ => None,
        },
        Value::ServerError(why) => {
            let why = said(&why);
            // `ERR` is the code of every error without a code of its own.
            (!why.starts_with("ERR ") && is_of_the_stream(&why)).then_some(WriteProbe::Rejected(why))
        }
        _ => None,
    }
}

/// Whether an error concerns the stream. The connection's own probe reports errors of the server.
fn is_of_the_stream(why: &str) -> bool {
    let code = why.split(' ').next().unwrap_or_default();
    let is_of_the_server = matches!(code, "OOM" | "MISCONF" | "NOREPLICAS" | "NOSCRIPT");
    !is_of_the_server && !is_down(code) && !is_redirect(code)
}

const TEXT: &str = concat!(include_str!("groups.lua"), include_str!("ask.lua"));
static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(TEXT));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_server_says_nothing_about_the_stream() {
        let refused = |why: &str| {
            let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
            answer(Value::Array(vec![Value::Int(0), text("XADD"), text(why)]))
        };
        for why in
            ["OOM no memory", "MISCONF no disk", "NOREPLICAS too few", "LOADING still", "MOVED 1 there:1"]
        {
            assert!(refused(why).is_none(), "{why}");
        }
        for why in ["NOPERM no right", "WRONGTYPE no stream", "ERR whatever"] {
            assert!(
                matches!(refused(why), Some(WriteProbe::Rejected(told)) if told == format!("XADD: {why}")),
                "{why}"
            );
        }
        assert_eq!(answer(Value::Array(vec![Value::Int(7)])), Some(WriteProbe::Writable));
        let holder = Value::Array(vec![Value::BulkString(b"alice".to_vec())]);
        let full = WriteProbe::Full(vec!["alice".to_owned()]);
        assert_eq!(answer(Value::Array(vec![Value::Int(7), holder])), Some(full));
    }
}
