//! `hookgate events dead`: the events that the queue never took, to be seen, sent back or dropped.
//!
//! Keeps true: it works whether or not a gateway runs; an event is printed only where it is asked for by name.

use std::io;

use clap::{Args, Subcommand};
use serde_json::json;

use super::terminal::safe;
use super::{Done, Failure, OK, line};
use crate::config::Config;
use crate::event::microseconds;
use crate::gateway;
use crate::spool::dead::{DeadLetter, DeadLetters, Which};

/// What to do with dead letters.
#[derive(Subcommand)]
pub(super) enum Dead {
    /// Print them, oldest first, without their payloads.
    List,
    /// Print an event.
    Show {
        /// Its number in the list, or its id.
        #[arg(value_name = "ID-OR-SEQ")]
        which: String,
    },
    /// Send them back to the queue, behind all that waits.
    Retry(Chosen),
    /// Delete them.
    Drop(Chosen),
}

#[derive(Args)]
pub(super) struct Chosen {
    /// Their numbers in the list.
    #[arg(value_name = "SEQ", required_unless_present = "all", conflicts_with = "all")]
    seqs: Vec<i64>,
    /// All there are.
    #[arg(long)]
    all: bool,
}

impl Chosen {
    fn which(&self) -> Which {
        if self.all { Which::All } else { Which::These(self.seqs.clone()) }
    }
}

pub(super) fn run(config: &Config, command: &Dead, json: bool) -> Done {
    let mut letters = DeadLetters::open(&gateway::database_file(&config.data_dir))?;
    match command {
        Dead::List => list(&letters.list()?, json),
        Dead::Show { which } => show(which, &letters.events(which)?),
        Dead::Retry(chosen) => told("retried", letters.retry(&chosen.which())?, json),
        Dead::Drop(chosen) => told("dropped", letters.delete(&chosen.which())?, json),
    }
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

fn told(done: &str, letters: usize, json: bool) -> Done {
    let text = if json { json!({ done: letters }).to_string() } else { format!("{letters} {done}") };
    line(&mut io::stdout(), &text)?;
    Ok(OK)
}
