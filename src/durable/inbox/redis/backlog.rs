//! How long a stream may get, and which of its consumer groups keep nothing in it.
//!
//! Keeps true: a group is ignored only where the config says so; a group that has consumers is judged by the server at the
//! moment of trimming, and one that has none only after it has stood still, under this gateway's eyes, for the whole time.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::Cmd;

/// The bound of every stream of a queue.
#[derive(Debug)]
pub struct Backlog {
    max: u64,
    ignore_idle: Option<Duration>,
    /// The groups of each stream, by name, as they were seen last.
    seen: Mutex<BTreeMap<String, BTreeMap<Vec<u8>, Seen>>>,
}

/// How a group was seen last.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// The last entry that it was given.
    pub(super) read: String,
    /// How long ago one of its consumers was seen; none without consumers.
    pub(super) idle: Option<Duration>,
    /// When it was first seen, when it moved, or when a consumer was there: the latest of these.
    since: Instant,
}

impl Seen {
    /// As of now.
    pub(super) fn new(read: String, idle: Option<Duration>, now: Instant) -> Seen {
        Seen { read, idle, since: now }
    }
}

impl Backlog {
    /// A stream takes no more at `max` entries; a group that was not seen for `ignore_idle` keeps nothing.
    pub fn new(max: u64, ignore_idle: Option<Duration>) -> Backlog {
        Backlog { max, ignore_idle, seen: Mutex::default() }
    }

    /// At this length a stream takes no more.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Takes in how the groups of a stream stand now; those that are not named are gone.
    pub(super) fn has_groups(&self, stream: &str, mut groups: BTreeMap<Vec<u8>, Seen>) {
        let mut seen = self.seen();
        let before = seen.remove(stream).unwrap_or_default();
        for (name, now) in &mut groups {
            let still = before.get(name).filter(|before| before.read == now.read);
            let stood = still.map_or(now.since, |before| before.since);
            let used = now.idle.and_then(|idle| now.since.checked_sub(idle));
            now.since = used.map_or(stood, |used| used.max(stood));
        }
        if !groups.is_empty() {
            seen.insert(stream.to_owned(), groups);
        }
    }

    /// Adds the scripts' arguments: the limit in ms, 0 for none, and each group without consumers that is past it.
    pub(super) fn ignoring(&self, stream: &str, call: &mut Cmd) {
        self.ignoring_at(stream, call, crate::base::clock::instant());
    }

    fn ignoring_at(&self, stream: &str, call: &mut Cmd, now: Instant) {
        let Some(limit) = self.ignore_idle else {
            call.arg(0);
            return;
        };
        call.arg(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1));
        let seen = self.seen();
        for (name, group) in seen.get(stream).into_iter().flatten() {
            if group.idle.is_none() && now.saturating_duration_since(group.since) >= limit {
                call.arg(&name[..]).arg(&group.read);
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<Vec<u8>, Seen>>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock;

    fn ignored(backlog: &Backlog, now: Instant) -> Vec<String> {
        let mut call = Cmd::new();
        backlog.ignoring_at("s", &mut call, now);
        let words = call.args_iter().map(|word| match word {
            redis::Arg::Simple(word) => String::from_utf8_lossy(word).into_owned(),
            _ => String::new(),
        });
        words.collect()
    }

    #[test]
    fn a_group_without_consumers_is_ignored_once_it_has_stood_still_for_so_long() {
        let (second, start) = (Duration::from_secs(1), clock::instant());
        let backlog = Backlog::new(10, Some(second * 10));
        let look = |after: u32, read: &str, idle: Option<Duration>| {
            let seen = Seen::new(read.to_owned(), idle, start + second * after);
            backlog.has_groups("s", BTreeMap::from([(b"g".to_vec(), seen)]));
        };
        let at = |after: u32| ignored(&backlog, start + second * after);
        assert_eq!(at(0), ["10000"]);
        look(0, "0-0", None);
        look(5, "0-0", None);
        assert_eq!(
            (at(9), at(10)),
            (vec!["10000".to_owned()], ["10000", "g", "0-0"].map(str::to_owned).to_vec())
        );
        look(11, "7-0", None);
        assert_eq!(at(20), ["10000"], "it has moved");
        look(15, "7-0", Some(second));
        assert_eq!(at(90), ["10000"], "it has a consumer: the server judges");
        look(16, "7-0", None);
        assert_eq!((at(23).len(), at(24).len()), (1, 3), "from when the consumer was seen");
        backlog.has_groups("s", BTreeMap::new());
        assert_eq!(at(90), ["10000"], "it is gone");
        assert_eq!(ignored(&Backlog::new(10, None), start), ["0"]);
    }
}
