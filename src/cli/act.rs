//! What an operator does by a command, with the record of it in the reject log.
//!
//! Keeps true: nothing is done that cannot be noted first; a command ends once its act is in the log, or says that it is not yet.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use super::Failure;
use super::terminal::safe;
use crate::base::clock::{self, Clock};
use crate::base::label::UNKNOWN;
use crate::config::Config;
use crate::durable::audit_ledger::acts::{self, Done};
use crate::durable::data_dir;
use crate::gateway;

/// An act that is noted.
pub(super) struct Act<'c> {
    config: &'c Config,
    noted: acts::Act,
    command: String,
    who: String,
}

/// How many of each source.
pub(super) type Tally = BTreeMap<String, usize>;

impl<'c> Act<'c> {
    /// Notes that this command is about to act.
    pub(super) fn begin(config: &'c Config, command: &str) -> Result<Act<'c>, Failure> {
        let who = operator();
        let noted =
            acts::Act::begin(&data_dir::database_file(&config.data_dir), &format!("{command}, by {who}"));
        let failed =
            |why| Failure(format!("nothing was done, since it cannot be noted for the reject log: {why}"));
        Ok(Act { config, noted: noted.map_err(failed)?, command: command.to_owned(), who })
    }

    /// Records that the command failed, and may have done a part.
    pub(super) fn failed(self, why: &str) -> Result<(), Failure> {
        let failed = done(&safe(&format!("{}: failed, and a part of it may be done: {why}", self.command)));
        self.end(vec![failed])
    }

    /// Records these acts and the operator. Without any, it records nothing.
    pub(super) fn end(mut self, mut done: Vec<Done>) -> Result<(), Failure> {
        for done in &mut done {
            done.what = format!("{}, by {}", done.what, self.who);
        }
        self.noted.end(&done)?;
        if let Err(why) = self.recorded() {
            // Standard error may be closed. The act is done all the same.
            let _ = writeln!(
                io::stderr(),
                "hookgate: done, and noted for the reject log, but not recorded yet: {}",
                why.0
            );
        }
        Ok(())
    }

    /// Waits until the log has it. A running gateway writes it there; without one, this process does.
    fn recorded(&self) -> Result<(), Failure> {
        let begun = clock::instant();
        while !self.noted.is_recorded()? {
            if gateway::record_acts(self.config, Clock::System)? {
                break;
            }
            if clock::instant().saturating_duration_since(begun) > PATIENCE {
                return Err(Failure(
                    "the running gateway has not recorded it yet; it goes on trying".to_owned(),
                ));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }
}

/// An act on no single source.
pub(super) fn done(what: &str) -> Done {
    Done { source: UNKNOWN.to_owned(), what: what.to_owned() }
}

/// The acts on each source; `named` are the ids and numbers that the operator gave.
pub(super) fn done_to(tally: &Tally, named: &[String], what: impl Fn(usize) -> String) -> Vec<Done> {
    let some: Vec<String> = named.iter().take(NAMED).map(|name| short(name)).collect();
    let asked = match (some.as_slice(), named.len().saturating_sub(NAMED)) {
        ([], _) => String::new(),
        (some, 0) => format!(" (asked for: {})", some.join(", ")),
        (some, more) => format!(" (asked for: {} and {more} more)", some.join(", ")),
    };
    let of = |(source, count): (&String, &usize)| {
        let what = safe(&format!("{}{asked}", what(*count)));
        Done { source: source.clone(), what }
    };
    tally.iter().map(of).collect()
}

/// A provider decides how long an id is. The record has to hold all else.
fn short(name: &str) -> String {
    if name.len() <= NAME_BYTES {
        return name.to_owned();
    }
    format!("{}…", &name[..name.floor_char_boundary(NAME_BYTES)])
}

/// The account that runs this process, by its uid, which no environment variable changes.
fn operator() -> String {
    let uid = rustix::process::getuid().as_raw();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    // `sudo` sets the variable. Without root's rights the user may have set it.
    let sudo = std::env::var("SUDO_USER").ok().filter(|_| uid == 0).map(|user| format!(" for {user}"));
    safe(&format!("{} (uid {uid}){}", name.unwrap_or_else(|| "?".to_owned()), sudo.unwrap_or_default()))
}

/// Of those asked for one by one, so many are named.
const NAMED: usize = 10;
const NAME_BYTES: usize = 64;
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// For a gateway that runs.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_some_of_many_and_has_room_for_who_it_was() {
        let names = |count| (0..count).map(|n| format!("{n}-{}", "é".repeat(200))).collect::<Vec<_>>();
        let tally = Tally::from([("a".to_owned(), 2), ("b".to_owned(), 1)]);
        let told = |named: &[String]| done_to(&tally, named, |count| format!("{count} dropped"));
        assert_eq!(told(&[])[0], Done { source: "a".to_owned(), what: "2 dropped".to_owned() });
        assert_eq!(told(&["x".to_owned(), "y".to_owned()])[1].what, "1 dropped (asked for: x, y)");
        let what = &told(&names(12))[0].what;
        assert!(what.len() < 800 && what.ends_with(" and 2 more)"), "{what}");
        assert!(operator().contains("(uid "), "{}", operator());
    }
}
