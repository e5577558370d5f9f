//! `hookgate events`: reads and searches the queue, and puts events into it once more, whether or not a gateway runs.
//! `events dead` is in [`super::dead`].
//!
//! `reader`: the configured queue. `line`: an event as one line. `tail`, `query`, `show`, `replay`: the commands.

mod line;
mod pretty;
mod query;
mod reader;
mod replay;
mod scan;
mod show;
mod tail;

use clap::Subcommand;

use super::dead::{self, Dead};
use super::{CommandResult, Global, block_on};

pub(super) use line::render;
pub(super) use reader::Reader;

/// What to do with the queue's events.
#[derive(Subcommand)]
pub(super) enum Events {
    /// Print events, oldest first.
    Tail(tail::Tail),
    /// Print the events that match all given filters, oldest first.
    Query(query::Query),
    /// Print an event whole.
    Show(show::Show),
    /// Put events once more into the queue, past the dedupe, under the same id, with `replayed` `true`. Leaves a record
    /// with reason `operator` in the reject log.
    Replay(replay::ReplayArgs),
    /// Show, retry or delete dead letters: the events that the queue never accepted.
    Dead {
        #[command(subcommand)]
        command: Dead,
    },
}

pub(super) fn run(global: &Global, events: &Events) -> CommandResult {
    let (config, json) = (global.config()?, global.json);
    match events {
        Events::Tail(args) => block_on(tail::run(&config, args, json)),
        Events::Query(args) => block_on(query::run(&config, args, json)),
        Events::Show(args) => block_on(show::run(&config, args, json)),
        Events::Replay(args) => block_on(replay::run(&config, args, json)),
        Events::Dead { command } => dead::run(&config, command, json),
    }
}
