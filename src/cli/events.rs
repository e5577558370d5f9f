//! `hookgate events`: `tail`, the events in the queue, oldest first, whether or not a gateway runs; `dead` is in [`super::dead`].

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde::Deserialize;

use super::dead::{self, Dead};
use super::terminal::safe;
use super::{Done, Failure, Global, OK, block_on, line};
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
    /// See to the events that the queue never took.
    Dead {
        #[command(subcommand)]
        command: Dead,
    },
}

#[derive(Args)]
#[command(after_help = TAIL_HELP)]
pub(super) struct Tail {
    /// Go on after this cursor, as `--json` printed it.
    #[arg(long, value_name = "CURSOR", conflicts_with = "last")]
    after: Option<String>,
    /// Begin with the last so many.
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// End after this many.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Wait for more at the end. Where Redis goes away, wait for it too, and go on.
    #[arg(long)]
    follow: bool,
}

const TAIL_HELP: &str = "On a terminal, without --after, --last and --limit, it begins with the last ten. Into a pipe or a file it \
    begins with the oldest.";

pub(super) fn run(global: &Global, events: &Events) -> Done {
    let config = global.config()?;
    let tail = match events {
        Events::Tail(tail) => tail,
        Events::Dead { command } => return dead::run(&config, command, global.json),
    };
    block_on(async {
        let reader = Reader::open(&config).await?;
        Printing { config: &config, tail, json: global.json, reader, connected: clock::instant(), away: None }
            .all()
            .await
    })
}

/// A queue on its way to standard output.
struct Printing<'a> {
    config: &'a Config,
    tail: &'a Tail,
    json: bool,
    reader: Reader,
    /// When the reader was opened, or that was last tried.
    connected: Instant,
    /// How long to wait before the queue, which is away, is tried again.
    away: Option<Duration>,
}

impl Printing<'_> {
    async fn all(&mut self) -> Done {
        let mut cursor = self.begin().await?;
        let mut left = self.tail.limit.unwrap_or(usize::MAX);
        while left > 0 {
            let events = match self.reader.after(&cursor, left.min(PAGE)).await {
                Err(Unread::Away(why)) if self.tail.follow => {
                    self.wait_for_queue(&why).await;
                    continue;
                }
                read => read?,
            };
            if self.away.take().is_some() {
                say("the queue answers again; reading goes on");
            }
            if events.is_empty() {
                if !self.tail.follow {
                    break;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
                self.ask_sentinels().await;
            }
            for (at, event) in events {
                if !line(&mut io::stdout(), &shown(&at, &event, self.json))? {
                    return Ok(OK);
                }
                cursor = at;
                left -= 1;
            }
        }
        Ok(OK)
    }

    /// Connects anew now and then while nothing comes: Sentinels may have named another master, and the old one not know it.
    async fn ask_sentinels(&mut self) {
        let due = clock::instant().saturating_duration_since(self.connected) >= ASK_SENTINELS;
        if due && self.config.redis.sentinel.is_some() {
            self.connect().await;
        }
    }

    /// If it fails, the old connections are kept: should they be of no use, reading fails, and this comes again.
    async fn connect(&mut self) {
        self.connected = clock::instant();
        if let Ok(reader) = Reader::open(self.config).await {
            self.reader = reader;
        }
    }

    /// The cursor to begin after.
    async fn begin(&mut self) -> Result<String, Failure> {
        let Tail { after, last, limit, .. } = self.tail;
        if let Some(after) = after {
            return Ok(after.clone());
        }
        let (last, untold) = match last {
            Some(last) => (*last, false),
            None if limit.is_none() && io::stdout().is_terminal() => (LAST, true),
            None => return Ok(String::new()),
        };
        let (total, cursor) = self.reader.end(last).await?;
        if untold && total > last as u64 {
            say(&format!(
                "the last {last} of {total} events; --last N begins further back, and a pipe gets all"
            ));
        }
        Ok(cursor)
    }

    /// Waits, longer each time, and connects anew to the server that has the streams by now.
    async fn wait_for_queue(&mut self, why: &str) {
        if self.away.is_none() {
            say(&format!("{}; it is tried again, and read on from here", safe(why)));
        }
        let wait = self.away.unwrap_or(LOOK_AGAIN);
        tokio::time::sleep(wait).await;
        self.away = Some((wait * 2).min(LONGEST_WAIT));
        self.connect().await;
    }
}

/// Writes to standard error, which may be closed.
fn say(what: &str) {
    let _ = writeln!(io::stderr(), "hookgate: {what}");
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
                return Err(Failure(format!("a queue of kind {kind} is read with that broker's own tools")));
            }
        })
    }

    /// Events after a cursor (all, after an empty one), each with its own.
    pub(super) async fn after(
        &mut self,
        cursor: &str,
        limit: usize,
    ) -> Result<Vec<(String, String)>, Unread> {
        Ok(match self {
            Reader::Embedded(reader) => {
                let from = match cursor {
                    "" => 0,
                    text => text.parse().map_err(|_| {
                        Unread::Failed(format!("{text:?} is not a cursor of this queue; take one that `events tail --json` printed"))
                    })?,
                };
                let events = reader.after(from, limit).map_err(|why| Unread::Failed(why.to_string()))?;
                events.into_iter().map(|(at, event)| (at.to_string(), event)).collect()
            }
            Reader::Redis(reader) => reader.after(cursor, limit).await?,
        })
    }

    /// How many events there are, and the cursor before the last `last` of them.
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

/// Why events cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    /// The queue does not answer, and may do so again.
    #[error("{0}")]
    Away(String),
    /// Another try is no use.
    #[error("{0}")]
    Failed(String),
}

impl From<ReadError> for Unread {
    fn from(why: ReadError) -> Unread {
        match &why {
            ReadError::Redis(_) => Unread::Away(why.to_string()),
            ReadError::Open(_) | ReadError::Cursor(_) => Unread::Failed(why.to_string()),
        }
    }
}

const PAGE: usize = 500;
const LOOK_AGAIN: Duration = Duration::from_millis(200);
const ASK_SENTINELS: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Events that a terminal gets unless told.
const LAST: usize = 10;
