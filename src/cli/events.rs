//! `hookgate events tail`: prints the events in the queue, oldest first, whether or not a gateway runs. `events dead`
//! is in [`super::dead`].

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde::Deserialize;

use super::dead::{self, Dead};
use super::terminal::safe;
use super::{CommandResult, Failure, Global, OK, block_on, print_line};
use crate::base::clock;
use crate::config::{Config, QueueKind};
use crate::durable::data_dir;
use crate::durable::inbox::redis::ReadError;
use crate::durable::inbox::{embedded, redis};

/// What to do with the queue's events.
#[derive(Subcommand)]
pub(super) enum Events {
    /// Print events, oldest first.
    Tail(Tail),
    /// Show, retry or delete dead letters: the events that the queue never accepted.
    Dead {
        #[command(subcommand)]
        command: Dead,
    },
}

#[derive(Args)]
#[command(after_help = TAIL_HELP)]
pub(super) struct Tail {
    /// Start after this cursor, which `--json` prints with each event.
    #[arg(long, value_name = "CURSOR", conflicts_with = "last")]
    after: Option<String>,
    /// Start with the last N events.
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// Stop after N events.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Wait for new events at the end. If Redis goes down, wait for it and continue.
    #[arg(long)]
    follow: bool,
}

const TAIL_HELP: &str = "On a terminal, without --after, --last and --limit, it starts with the last ten events. Into a pipe or a \
    file it starts with the oldest.";

pub(super) fn run(global: &Global, events: &Events) -> CommandResult {
    let config = global.config()?;
    let tail = match events {
        Events::Tail(tail) => tail,
        Events::Dead { command } => return dead::run(&config, command, global.json),
    };
    block_on(async {
        let reader = Reader::open(&config).await?;
        Printer {
            config: &config,
            tail,
            json: global.json,
            reader,
            connected: clock::instant(),
            retry_wait: None,
        }
        .run()
        .await
    })
}

/// Prints a queue to standard output.
struct Printer<'a> {
    config: &'a Config,
    tail: &'a Tail,
    json: bool,
    reader: Reader,
    /// When the last attempt to open the reader began.
    connected: Instant,
    /// While the queue is down: how long to wait before the next attempt.
    retry_wait: Option<Duration>,
}

impl Printer<'_> {
    async fn run(&mut self) -> CommandResult {
        let mut cursor = self.first_cursor().await?;
        let mut left = self.tail.limit.unwrap_or(usize::MAX);
        while left > 0 {
            let events = match self.reader.after(&cursor, left.min(PAGE)).await {
                Err(QueueReadError::Down(why)) if self.tail.follow => {
                    self.wait_for_queue(&why).await;
                    continue;
                }
                read => read?,
            };
            if self.retry_wait.take().is_some() {
                warn("the queue answers again");
            }
            if events.is_empty() {
                if !self.tail.follow {
                    break;
                }
                tokio::time::sleep(POLL).await;
                self.reconnect_if_due().await;
            }
            for (at, event) in events {
                if !print_line(&mut io::stdout(), &render(&at, &event, self.json))? {
                    return Ok(OK);
                }
                cursor = at;
                left -= 1;
            }
        }
        Ok(OK)
    }

    /// While no events come, reconnects now and then: Sentinels may have promoted another master without this one
    /// noticing.
    async fn reconnect_if_due(&mut self) {
        let due = clock::instant().saturating_duration_since(self.connected) >= RECONNECT_INTERVAL;
        if due && self.config.redis.sentinel.is_some() {
            self.reconnect().await;
        }
    }

    /// Keeps the old connections if this fails. If those are broken too, the next read fails and this is tried again.
    async fn reconnect(&mut self) {
        self.connected = clock::instant();
        if let Ok(reader) = Reader::open(self.config).await {
            self.reader = reader;
        }
    }

    /// The cursor to start after.
    async fn first_cursor(&mut self) -> Result<String, Failure> {
        let Tail { after, last, limit, .. } = self.tail;
        if let Some(after) = after {
            return Ok(after.clone());
        }
        let (last, is_default) = match last {
            Some(last) => (*last, false),
            None if limit.is_none() && io::stdout().is_terminal() => (DEFAULT_LAST, true),
            None => return Ok(String::new()),
        };
        let (total, cursor) = self.reader.end(last).await?;
        if is_default && total > last as u64 {
            warn(&format!(
                "showing the last {last} of {total} events; --last N shows more, and a pipe gets all"
            ));
        }
        Ok(cursor)
    }

    /// Waits, longer each time, and reconnects, perhaps to a new master.
    async fn wait_for_queue(&mut self, why: &str) {
        if self.retry_wait.is_none() {
            warn(&format!("{}; trying again, and continuing from here", safe(why)));
        }
        let wait = self.retry_wait.unwrap_or(POLL);
        tokio::time::sleep(wait).await;
        self.retry_wait = Some((wait * 2).min(MAX_WAIT));
        self.reconnect().await;
    }
}

/// Writes to standard error, which may be closed.
fn warn(what: &str) {
    let _ = writeln!(io::stderr(), "hookgate: {what}");
}

/// Renders an event as one line.
pub(super) fn render(cursor: &str, event: &str, json: bool) -> String {
    if json {
        // A raw line break in JSON can only be white space between tokens, so a space can replace it.
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

/// The fields of an event that a line for people shows.
#[derive(Deserialize)]
struct Head {
    id: String,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    subject: Option<String>,
    recordedtime: String,
}

/// Reads the configured queue.
pub(super) enum Reader {
    Embedded(embedded::Reader),
    Redis(Box<redis::Reader>),
}

impl Reader {
    pub(super) async fn open(config: &Config) -> Result<Reader, Failure> {
        Ok(match config.queue.kind {
            QueueKind::Embedded => {
                data_dir::readable(&config.data_dir).map_err(Failure)?;
                Reader::Embedded(embedded::Reader::open(&data_dir::database_file(&config.data_dir))?)
            }
            QueueKind::Redis => {
                let servers = redis::Servers::of(&config.redis)?;
                let (name, partitions) = (&config.queue.name.value, config.queue.partitions);
                Reader::Redis(Box::new(redis::Reader::open(&servers, name, partitions).await?))
            }
            kind @ (QueueKind::Nats | QueueKind::Amqp | QueueKind::Kafka) => {
                let kind = kind.label();
                return Err(Failure(format!(
                    "events tail cannot read a queue of kind {kind}; read it with the broker's own tools"
                )));
            }
        })
    }

    /// Events after a cursor, each with its own cursor. An empty cursor is before the first event.
    pub(super) async fn after(
        &mut self,
        cursor: &str,
        limit: usize,
    ) -> Result<Vec<(String, String)>, QueueReadError> {
        Ok(match self {
            Reader::Embedded(reader) => {
                let from = match cursor {
                    "" => 0,
                    text => text.parse().map_err(|_| {
                        QueueReadError::Failed(format!(
                            "{text:?} is not a cursor of this queue; `events tail --json` prints them"
                        ))
                    })?,
                };
                let events =
                    reader.after(from, limit).map_err(|why| QueueReadError::Failed(why.to_string()))?;
                events.into_iter().map(|(at, event)| (at.to_string(), event)).collect()
            }
            Reader::Redis(reader) => reader.after(cursor, limit).await?,
        })
    }

    /// The number of events, and the cursor before the last `last` events.
    async fn end(&mut self, last: usize) -> Result<(u64, String), Failure> {
        Ok(match self {
            Reader::Embedded(reader) => {
                let (total, cursor) = reader.end(last)?;
                (total, cursor.to_string())
            }
            Reader::Redis(reader) => reader.end(last).await?,
        })
    }
}

/// Why the queue cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum QueueReadError {
    /// The queue does not answer now.
    #[error("{0}")]
    Down(String),
    /// A retry would fail too.
    #[error("{0}")]
    Failed(String),
}

impl From<ReadError> for QueueReadError {
    fn from(why: ReadError) -> QueueReadError {
        match &why {
            ReadError::Redis(_) => QueueReadError::Down(why.to_string()),
            ReadError::Open(_) | ReadError::Cursor(_) => QueueReadError::Failed(why.to_string()),
        }
    }
}

const PAGE: usize = 500;
const POLL: Duration = Duration::from_millis(200);
const RECONNECT_INTERVAL: Duration = Duration::from_secs(5);
const MAX_WAIT: Duration = Duration::from_secs(5);
/// How many events a terminal shows by default.
const DEFAULT_LAST: usize = 10;
