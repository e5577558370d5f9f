//! `hookgate events tail`: prints the events in the queue, oldest first, and follows it.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use clap::Args;

use super::super::terminal::safe;
use super::super::{CommandResult, Failure, OK, print_line};
use super::reader::{QueueReadError, Reader};
use super::render;
use crate::base::clock;
use crate::config::Config;

/// `events tail`.
#[derive(Args)]
#[command(after_help = TAIL_HELP)]
pub(in crate::cli) struct Tail {
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

pub(super) async fn run(config: &Config, tail: &Tail, json: bool) -> CommandResult {
    let reader = Reader::open(config, "events tail").await?;
    Printer { config, tail, json, reader, connected: clock::instant(), retry_wait: None }.run().await
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
        if let Ok(reader) = Reader::open(self.config, "events tail").await {
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

const PAGE: usize = 500;
const POLL: Duration = Duration::from_millis(200);
const RECONNECT_INTERVAL: Duration = Duration::from_secs(5);
const MAX_WAIT: Duration = Duration::from_secs(5);
/// How many events a terminal shows by default.
const DEFAULT_LAST: usize = 10;
