//! `hookgate events dead`: the events that the queue never took, to be seen, sent back or dropped.
//!
//! Keeps true: it works whether or not a gateway runs; an event is printed only where it is asked for by name; what is changed
//! leaves a record.

use std::io;

use clap::{Args, Subcommand};
use serde_json::json;

use super::act::{Act, done_to};
use super::terminal::safe;
use super::{Done, Failure, OK, line};
use crate::config::Config;
use crate::durable::data_dir;
use crate::durable::spool::dead::{BySource, DeadError, DeadLetter, DeadLetters, Selection};
use crate::event::microseconds;

/// What to do with dead letters.
#[derive(Subcommand)]
pub(super) enum Dead {
    /// Print them, oldest first, without their payloads.
    List,
    /// Print an event. Leaves no record.
    Show {
        /// Its id, or its number in the list; digits are taken for a number first.
        #[arg(value_name = "ID|SEQ")]
        which: String,
    },
    /// Send them back to the queue, behind all that waits. Leaves a record of reason `operator` in the reject log.
    Retry(Chosen),
    /// Delete them. Leaves a record of reason `operator` in the reject log.
    Drop(Chosen),
}

#[derive(Args)]
pub(super) struct Chosen {
    /// Their ids, or their numbers in the list; digits are taken for a number first. One that is not there: nothing is done.
    #[arg(value_name = "ID|SEQ", required_unless_present = "all", conflicts_with = "all")]
    names: Vec<String>,
    /// All there are.
    #[arg(long)]
    all: bool,
}

impl Chosen {
    fn which(&self) -> Selection {
        if self.all { Selection::All } else { Selection::These(self.names.clone()) }
    }
}

pub(super) fn run(config: &Config, command: &Dead, json: bool) -> Done {
    data_dir::readable(&config.data_dir).map_err(Failure)?;
    let mut letters = DeadLetters::open(&data_dir::database_file(&config.data_dir))?;
    match command {
        Dead::List => list(&letters.list()?, json),
        Dead::Show { which } => show(which, &letters.events(which)?),
        Dead::Retry(chosen) => {
            let words = Words { command: "events dead retry", told: "retried", recorded: "sent back" };
            act(config, chosen, &words, |which| letters.retry(which), json)
        }
        Dead::Drop(chosen) => {
            let words = Words { command: "events dead drop", told: "dropped", recorded: "dropped" };
            act(config, chosen, &words, |which| letters.delete(which), json)
        }
    }
}

/// The words for an act.
struct Words {
    command: &'static str,
    told: &'static str,
    recorded: &'static str,
}

/// Changes the chosen letters, records that, and prints how many.
fn act(
    config: &Config,
    chosen: &Chosen,
    words: &Words,
    change: impl FnOnce(&Selection) -> Result<BySource, DeadError>,
    json: bool,
) -> Done {
    let Words { command, told, recorded } = words;
    let act = Act::begin(config, command)?;
    let changed = match change(&chosen.which()) {
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
    act.end(done_to(&changed, &chosen.names, |count| {
        format!("{count} dead letter{} {recorded}", plural(count))
    }))?;
    let sum: usize = changed.values().sum();
    let text = if json { json!({ *told: sum }).to_string() } else { format!("{sum} {told}") };
    line(&mut io::stdout(), &text)?;
    Ok(OK)
}

fn list(letters: &[DeadLetter], json: bool) -> Done {
    for letter in letters {
        let shown = if json { as_json(letter) } else { as_text(letter) };
        if !line(&mut io::stdout(), &shown)? {
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

fn show(which: &str, events: &[String]) -> Done {
    if events.is_empty() {
        return Err(Failure(format!("there is no dead letter {}", safe(which))));
    }
    for event in events {
        // A raw line break in JSON can only be white space between tokens.
        if !line(&mut io::stdout(), &event.replace(['\n', '\r'], " "))? {
            break;
        }
    }
    Ok(OK)
}
