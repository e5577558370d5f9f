//! Since when each part is in its state, to the second.

use jiff::Timestamp;

use crate::observe::admin::Readiness;
use crate::observe::console::view::{Health, Part};

/// The states as they were last looked at.
#[derive(Default)]
pub(super) struct States([(&'static str, Timestamp); 4]);

impl States {
    /// Notes which parts have changed.
    pub(super) fn note(&mut self, readiness: &Readiness, now: Timestamp) -> &States {
        for (known, word) in self.0.iter_mut().zip(readiness.words()) {
            if known.0 != word {
                *known = (word, now);
            }
        }
        self
    }

    /// Each part with its state, and what follows from it.
    pub(super) fn parts(&self, readiness: &Readiness) -> Vec<Part> {
        let without_queue = if readiness.ready() {
            "New events wait in the spool."
        } else {
            "No event is accepted: providers get 503 and deliver again."
        };
        self.0
            .iter()
            .zip(NAMES)
            .map(|(&(state, since), name)| {
                let detail = match (name, state) {
                    ("queue", "down" | "full") => {
                        let why = readiness.queue_detail();
                        Some(why.into_iter().chain([without_queue.to_owned()]).collect::<Vec<_>>().join(". "))
                    }
                    ("dedupe", "down") => Some(without_queue.to_owned()),
                    ("spool", "waiting") => Some("Its events wait until the queue takes them.".to_owned()),
                    ("spool", "draining") => Some("Its events go to the queue now.".to_owned()),
                    ("spool", "full") => Some(
                        "It takes no events. While the queue is away, providers get 503 and deliver again."
                            .to_owned(),
                    ),
                    ("spool", "off") => Some("spool.enabled is false.".to_owned()),
                    ("reject log", "down") => Some(
                        "It cannot be written. Rejects are summed up until it can; no event is lost."
                            .to_owned(),
                    ),
                    _ => None,
                };
                Part { name, state, health: health(name, state), since, detail }
            })
            .collect()
    }
}

fn health(name: &str, state: &str) -> Health {
    match (name, state) {
        (_, "up") | ("spool", "empty") => Health::Good,
        ("spool", "off") => Health::Off,
        ("spool", "waiting" | "draining") => Health::Warning,
        _ => Health::Bad,
    }
}

/// In the order of [`Readiness::words`].
const NAMES: [&str; 4] = ["queue", "dedupe", "spool", "reject log"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_keeps_the_time_of_its_last_change_and_says_what_follows() {
        let (readiness, mut states) = (Readiness::default(), States::default());
        let at = |second| Timestamp::from_second(second).unwrap();
        readiness.set_queue(true);
        readiness.set_dedupe(true);
        states.note(&readiness, at(10));
        states.note(&readiness, at(20));
        readiness.set_queue(false);
        readiness.set_queue_detail(Some("connection refused"));
        let parts = states.note(&readiness, at(30)).parts(&readiness);
        assert_eq!((parts[0].state, parts[0].health, parts[0].since), ("down", Health::Bad, at(30)));
        let detail = "connection refused. No event is accepted: providers get 503 and deliver again.";
        assert_eq!(parts[0].detail.as_deref(), Some(detail));
        assert_eq!((parts[1].state, parts[1].health, parts[1].since), ("up", Health::Good, at(10)));
        assert_eq!((parts[2].state, parts[2].health), ("off", Health::Off));
    }
}
