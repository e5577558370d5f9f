//! `hookgate events`: `tail`, the events in the queue, oldest first, whether or not a gateway runs; `dead` is in [`super::dead`].

use std::io;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::Deserialize;

use super::dead::{self, Dead};
use super::terminal::safe;
use super::{Done, Failure, Global, OK, block_on, line};
use crate::config::{Config, QueueKind};
use crate::gateway;
use crate::inbox::{embedded, redis};

/// What to do with the queue's events.
#[derive(Subcommand)]
pub(super) enum Events {
    /// Print events, oldest first.
    Tail(Tail),
    /// See to the events that the queue never took.
    Dead {
        #[command(subcommand)]
        command: Dead,
    },
}

#[derive(Args)]
pub(super) struct Tail {
    /// Go on after this cursor, as `--json` printed it.
    #[arg(long, value_name = "CURSOR")]
    after: Option<String>,
    /// At most this many.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Wait for more at the end.
    #[arg(long)]
    follow: bool,
}

pub(super) fn run(global: &Global, events: &Events) -> Done {
    let config = global.config()?;
    let tail = match events {
        Events::Tail(tail) => tail,
        Events::Dead { command } => return dead::run(&config, command, global.json),
    };
    block_on(async {
        let mut reader = Reader::open(&config).await?;
        print_all(&mut reader, tail, global.json).await
    })
}

async fn print_all(reader: &mut Reader, tail: &Tail, json: bool) -> Done {
    let mut cursor = tail.after.clone().unwrap_or_default();
    let mut left = tail.limit.unwrap_or(usize::MAX);
    while left > 0 {
        let events = reader.after(&cursor, left.min(PAGE)).await?;
        if events.is_empty() {
            if !tail.follow {
                break;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        for (at, event) in events {
            if !line(&mut io::stdout(), &shown(&at, &event, json))? {
                return Ok(OK);
            }
            cursor = at;
            left -= 1;
        }
    }
    Ok(OK)
}

/// One event as one line.
pub(super) fn shown(cursor: &str, event: &str, json: bool) -> String {
    if json {
        // A raw line break in JSON can only be white space between tokens.
        let event = event.replace(['\n', '\r'], " ");
        return format!("{{\"cursor\":{},\"event\":{event}}}", serde_json::Value::from(cursor));
    }
    match serde_json::from_str::<Head>(event) {
        Ok(head) => safe(&format!(
            "{cursor:>8}  {}  {:<28}  {:<44}  {}  {}",
            head.recordedtime,
            head.kind,
            head.subject.unwrap_or_else(|| "-".to_owned()),
            head.source,
            head.id
        )),
        Err(error) => format!("{cursor:>8}  not an event of this schema: {error}"),
    }
}

/// What a line for people shows of an event.
#[derive(Deserialize)]
struct Head {
    id: String,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    subject: Option<String>,
    recordedtime: String,
}

/// The configured queue, to read.
pub(super) enum Reader {
    Embedded(embedded::Reader),
    Redis(Box<redis::Reader>),
}

impl Reader {
    pub(super) async fn open(config: &Config) -> Result<Reader, Failure> {
        Ok(match config.queue.kind {
            QueueKind::Embedded => {
                Reader::Embedded(embedded::Reader::open(&gateway::database_file(&config.data_dir))?)
            }
            QueueKind::Redis => {
                let servers = redis::Servers::of(&config.redis)?;
                let (name, partitions) = (&config.queue.name.value, config.queue.partitions);
                Reader::Redis(Box::new(redis::Reader::open(&servers, name, partitions).await?))
            }
            kind @ (QueueKind::Nats | QueueKind::Amqp | QueueKind::Kafka) => {
                let kind = kind.name();
                return Err(Failure(format!("a queue of kind {kind} is read with that broker's own tools")));
            }
        })
    }

    /// Events after a cursor (all, after an empty one), each with its own.
    pub(super) async fn after(
        &mut self,
        cursor: &str,
        limit: usize,
    ) -> Result<Vec<(String, String)>, Failure> {
        Ok(match self {
            Reader::Embedded(reader) => {
                let from = match cursor {
                    "" => 0,
                    text => text.parse().map_err(|_| {
                        Failure(format!("{text:?} is not a cursor of this queue; take one that `events tail --json` printed"))
                    })?,
                };
                reader.after(from, limit)?.into_iter().map(|(at, event)| (at.to_string(), event)).collect()
            }
            Reader::Redis(reader) => reader.after(cursor, limit).await?,
        })
    }
}

const PAGE: usize = 500;
const LOOK_AGAIN: Duration = Duration::from_millis(200);
