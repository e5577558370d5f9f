//! `hookgate events dead`: shows, retries or deletes dead letters, the events that the queue never accepted.
//!
//! Keeps true: it works whether or not a gateway runs. It prints an event only if the operator names it. Every change
//! leaves a record.

use std::io;

use clap::{Args, Subcommand};
use serde_json::json;

use super::act::{Act, entries};
use super::terminal::safe;
use super::{CommandResult, Failure, OK, print_line};
use crate::config::Config;
use crate::durable::data_dir;
use crate::durable::spool::dead::{BySource, DeadError, DeadLetter, DeadLetters, Selection};
use crate::event::microseconds;

/// What to do with dead letters.
#[derive(Subcommand)]
pub(super) enum Dead {
    /// List dead letters, oldest first, without their payloads.
    List,
    /// Print one event. Leaves no record.
    Show {
        /// Its id, or its number in the list. Digits count as a number first.
        #[arg(value_name = "ID|SEQ")]
        name: String,
    },
    /// Send dead letters to the queue again, after all spooled events. Leaves a record with reason `operator` in the
    /// reject log.
    Retry(SelectionArgs),
    /// Delete dead letters. Leaves a record with reason `operator` in the reject log.
    Drop(SelectionArgs),
}

#[derive(Args)]
pub(super) struct SelectionArgs {
    /// Their ids, or their numbers in the list. Digits count as a number first. If one does not exist, nothing is done.
    #[arg(value_name = "ID|SEQ", required_unless_present = "all", conflicts_with = "all")]
    names: Vec<String>,
    /// All dead letters.
    #[arg(long)]
    all: bool,
}

impl SelectionArgs {
    fn selection(&self) -> Selection {
        if self.all { Selection::All } else { Selection::These(self.names.clone()) }
    }
}

pub(super) fn run(config: &Config, command: &Dead, json: bool) -> CommandResult {
    data_dir::readable(&config.data_dir).map_err(Failure)?;
    let mut letters = DeadLetters::open(&data_dir::database_file(&config.data_dir))?;
    match command {
        Dead::List => list(&letters.list()?, json),
        Dead::Show { name } => show(name, &letters.events(name)?),
        Dead::Retry(args) => {
            let words = Words { command: "events dead retry", printed: "retried", recorded: "sent back" };
            change(config, args, &words, |selection| letters.retry(selection), json)
        }
        Dead::Drop(args) => {
            let words = Words { command: "events dead drop", printed: "dropped", recorded: "dropped" };
            change(config, args, &words, |selection| letters.delete(selection), json)
        }
    }
}

/// The words for a change.
struct Words {
    command: &'static str,
    printed: &'static str,
    recorded: &'static str,
}

/// Changes the selected letters, records that, and prints how many.
fn change(
    config: &Config,
    args: &SelectionArgs,
    words: &Words,
    change: impl FnOnce(&Selection) -> Result<BySource, DeadError>,
    json: bool,
) -> CommandResult {
    let Words { command, printed, recorded } = words;
    let act = Act::begin(config, command)?;
    let changed = match change(&args.selection()) {
        Ok(changed) => changed,
        Err(why @ DeadError::NoSuch(_)) => {
            act.end(Vec::new())?;
            return Err(Failure(safe(&why.to_string())));
        }
        Err(why) => {
            act.failed(&why.to_string())?;
            return Err(why.into());
        }
    };
    let plural = |count| if count == 1 { "" } else { "s" };
    act.end(entries(&changed, &args.names, |count| {
        format!("{count} dead letter{} {recorded}", plural(count))
    }))?;
    let sum: usize = changed.values().sum();
    let text = if json { json!({ *printed: sum }).to_string() } else { format!("{sum} {printed}") };
    print_line(&mut io::stdout(), &text)?;
    Ok(OK)
}

fn list(letters: &[DeadLetter], json: bool) -> CommandResult {
    for letter in letters {
        let shown = if json { as_json(letter) } else { as_text(letter) };
        if !print_line(&mut io::stdout(), &shown)? {
            break;
        }
    }
    Ok(OK)
}

fn as_text(letter: &DeadLetter) -> String {
    let DeadLetter { seq, received, source, kind, id, why, bytes } = letter;
    let received = microseconds(*received);
    safe(&format!("{seq:>8}  {received}  {source:<20}  {kind:<28}  {bytes:>8}  {id}  {why}"))
}

fn as_json(letter: &DeadLetter) -> String {
    let DeadLetter { seq, received, source, kind, id, why, bytes } = letter;
    let received = microseconds(*received);
    json!({ "seq": seq, "received": received, "source": source, "type": kind, "id": id, "why": why, "bytes": bytes })
        .to_string()
}

fn show(name: &str, events: &[String]) -> CommandResult {
    if events.is_empty() {
        return Err(Failure(format!("there is no dead letter {}", safe(name))));
    }
    for event in events {
        // A raw line break in JSON can only be white space between tokens, so a space can replace it.
        if !print_line(&mut io::stdout(), &event.replace(['\n', '\r'], " "))? {
            break;
        }
    }
    Ok(OK)
}
