//! `hookgate events show`: prints every event of the queue that has an id, whole. A replayed event has the id of its
//! original.

use std::io;

use clap::Args;

use super::super::terminal::safe;
use super::super::{CommandResult, Failure, OK, print_line};
use super::line::one_line;
use super::pretty::pretty;
use super::reader::Reader;
use super::scan::Scan;
use crate::config::Config;
use crate::durable::inbox::event_filter::EventFilter;

/// `events show`.
#[derive(Args)]
pub(in crate::cli) struct Show {
    /// The event's id. Events of several sources may have the same.
    #[arg(value_name = "ID")]
    id: String,
}

pub(super) async fn run(config: &Config, Show { id }: &Show, json: bool) -> CommandResult {
    let filter = EventFilter { ids: Some([id.clone()].into()), ..EventFilter::default() };
    let mut scan = Scan::begin(Reader::open(config, "events show").await?, &filter).await?;
    let mut found_any = false;
    while let Some(page) = scan.next_page(&filter).await? {
        for found in page {
            found_any = true;
            let text = if json { one_line(&found.event) } else { pretty(&found.event) };
            if !print_line(&mut io::stdout(), &text)? {
                return Ok(OK);
            }
        }
    }
    if found_any {
        return Ok(OK);
    }
    Err(Failure(format!(
        "the queue has no event with the id {}: `events query` lists those that it has, and queue.retain says how long",
        safe(id)
    )))
}
