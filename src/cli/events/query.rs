//! `hookgate events query`: prints the events of the queue that match filters, oldest first.

use std::io;

use clap::Args;

use super::super::terminal::safe;
use super::super::when::{WHEN_HELP, When};
use super::super::{CommandResult, Failure, OK, print_line};
use super::reader::Reader;
use super::render;
use super::scan::Scan;
use crate::base::clock::Clock;
use crate::config::Config;
use crate::durable::inbox::event_filter::EventFilter;

/// `events query`.
#[derive(Args)]
#[command(after_help = WHEN_HELP)]
pub(in crate::cli) struct Query {
    /// Only events of this source. A path such as /hooks/old finds events of a source that the config no longer has.
    #[arg(long, value_name = "NAME|PATH")]
    source: Option<String>,
    /// Only events of this type. `*` stands for any characters: `invoice.*`.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Only events with this subject: `user/88a8`.
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// Only events that a gateway received from this time on (`recordedtime`).
    #[arg(long, value_name = "TIME")]
    since: Option<When>,
    /// Only events that a gateway received before this time (`recordedtime`).
    #[arg(long, value_name = "TIME")]
    until: Option<When>,
    /// Stop after N events.
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

pub(super) async fn run(config: &Config, query: &Query, json: bool) -> CommandResult {
    let filter = query.filter(config)?;
    let reader = Reader::open(config, "events query").await?;
    let mut left = query.limit.unwrap_or(usize::MAX);
    if left == 0 {
        return Ok(OK);
    }
    let mut scan = Scan::begin(reader, &filter).await?;
    while let Some(page) = scan.next_page(&filter).await? {
        for found in page {
            if !print_line(&mut io::stdout(), &render(&found.cursor, &found.event, json))? {
                return Ok(OK);
            }
            left -= 1;
            if left == 0 {
                return Ok(OK);
            }
        }
    }
    Ok(OK)
}

impl Query {
    fn filter(&self, config: &Config) -> Result<EventFilter, Failure> {
        let now = Clock::System.now();
        let at = |when: Option<When>| when.map(|when| when.at(now));
        Ok(EventFilter {
            ids: None,
            source: self.source.as_deref().map(|source| path(config, source)).transpose()?,
            kind: self.kind.clone(),
            subject: self.subject.clone(),
            since: at(self.since),
            until: at(self.until),
        })
    }
}

/// The path of a source, which its events have as `source`.
fn path(config: &Config, source: &str) -> Result<String, Failure> {
    if source.starts_with('/') {
        return Ok(source.to_owned());
    }
    if let Some(known) = config.sources.iter().find(|known| known.name.value == source) {
        return Ok(known.path.value.clone());
    }
    let names: Vec<&str> = config.sources.iter().map(|known| known.name.value.as_str()).collect();
    Err(Failure(format!(
        "the config has no source {}; it has: {}. For a removed source give its path, such as /hooks/old",
        safe(source),
        names.join(", ")
    )))
}
