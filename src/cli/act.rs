//! Records an operator's act (for example a dropped dead letter) in the reject log.
//!
//! Keeps true: a command notes its act before it acts. It ends once the act is in the log, or says that it is not there
//! yet.

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

/// An act that was noted.
pub(super) struct Act<'c> {
    config: &'c Config,
    noted: acts::Act,
    command: String,
    operator: String,
}

/// A count for each source.
pub(super) type Tally = BTreeMap<String, usize>;

impl<'c> Act<'c> {
    /// Notes that `command` is about to act.
    pub(super) fn begin(config: &'c Config, command: &str) -> Result<Act<'c>, Failure> {
        let operator = operator();
        let noted = acts::Act::begin(
            &data_dir::database_file(&config.data_dir),
            &format!("{command}, by {operator}"),
        );
        let failed =
            |why| Failure(format!("nothing was done: the act cannot be noted for the reject log: {why}"));
        Ok(Act { config, noted: noted.map_err(failed)?, command: command.to_owned(), operator })
    }

    /// Records that the command failed and may have done a part of its work.
    pub(super) fn failed(self, why: &str) -> Result<(), Failure> {
        let failed = entry(&safe(&format!("{}: failed, and may have done a part: {why}", self.command)));
        self.end(vec![failed])
    }

    /// Records these entries with the operator's name. Records nothing if there are none.
    pub(super) fn end(mut self, mut entries: Vec<Done>) -> Result<(), Failure> {
        for entry in &mut entries {
            entry.what = format!("{}, by {}", entry.what, self.operator);
        }
        self.noted.end(&entries)?;
        if let Err(why) = self.wait_until_recorded() {
            // Standard error may be closed. The act is done anyway.
            let _ = writeln!(
                io::stderr(),
                "hookgate: done, and noted for the reject log, but not recorded yet: {}",
                why.0
            );
        }
        Ok(())
    }

    /// Waits until the log has the entries. A running gateway writes them; without one, this process does.
    fn wait_until_recorded(&self) -> Result<(), Failure> {
        let begun = clock::instant();
        while !self.noted.is_recorded()? {
            if gateway::record_acts(self.config, Clock::System)? {
                break;
            }
            if clock::instant().saturating_duration_since(begun) > MAX_WAIT {
                return Err(Failure(
                    "the running gateway has not recorded it yet; it keeps trying".to_owned(),
                ));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

/// An entry about no single source.
pub(super) fn entry(what: &str) -> Done {
    Done { source: UNKNOWN.to_owned(), what: what.to_owned() }
}

/// One entry for each source; `named` are the ids and numbers that the operator gave.
pub(super) fn entries(tally: &Tally, named: &[String], what: impl Fn(usize) -> String) -> Vec<Done> {
    let some: Vec<String> = named.iter().take(NAMED).map(|name| short(name)).collect();
    let asked = match (some.as_slice(), named.len().saturating_sub(NAMED)) {
        ([], _) => String::new(),
        (some, 0) => format!(" (asked for: {})", some.join(", ")),
        (some, more) => format!(" (asked for: {} and {more} more)", some.join(", ")),
    };
    let entry = |(source, count): (&String, &usize)| {
        let what = safe(&format!("{}{asked}", what(*count)));
        Done { source: source.clone(), what }
    };
    tally.iter().map(entry).collect()
}

/// Shortens an id, since a provider may choose a very long one and a record has a size limit.
fn short(name: &str) -> String {
    if name.len() <= NAME_BYTES {
        return name.to_owned();
    }
    format!("{}…", &name[..name.floor_char_boundary(NAME_BYTES)])
}

/// The account that runs this process, by its uid: the user cannot forge that by an environment variable.
fn operator() -> String {
    let uid = rustix::process::getuid().as_raw();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    // Trusted only as root, where `sudo` sets it. Any other user could set it by hand.
    let sudo = std::env::var("SUDO_USER").ok().filter(|_| uid == 0).map(|user| format!(" for {user}"));
    safe(&format!("{} (uid {uid}){}", name.unwrap_or_else(|| "?".to_owned()), sudo.unwrap_or_default()))
}

/// A record names at most this many ids.
const NAMED: usize = 10;
const NAME_BYTES: usize = 64;
const POLL: Duration = Duration::from_millis(50);
/// How long to wait for the running gateway.
const MAX_WAIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_some_of_many_ids_and_has_room_for_the_operator() {
        let names = |count| (0..count).map(|n| format!("{n}-{}", "é".repeat(200))).collect::<Vec<_>>();
        let tally = Tally::from([("a".to_owned(), 2), ("b".to_owned(), 1)]);
        let made = |named: &[String]| entries(&tally, named, |count| format!("{count} dropped"));
        assert_eq!(made(&[])[0], Done { source: "a".to_owned(), what: "2 dropped".to_owned() });
        assert_eq!(made(&["x".to_owned(), "y".to_owned()])[1].what, "1 dropped (asked for: x, y)");
        let what = &made(&names(12))[0].what;
        assert!(what.len() < 800 && what.ends_with(" and 2 more)"), "{what}");
        assert!(operator().contains("(uid "), "{}", operator());
    }
}
