//! How long a stream may get, and which consumer groups are ignored when it is trimmed.
//!
//! Keeps true: a group is ignored only if the config says so. For a group with consumers the server decides at the time
//! of trimming. A group without consumers must have stood still for the whole time while this gateway watched.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use redis::Cmd;

/// The limit of every stream of a queue.
#[derive(Debug)]
pub struct Backlog {
    max: u64,
    ignore_idle: Option<Duration>,
    /// By stream and group name, how each group was seen last.
    seen: Mutex<BTreeMap<String, BTreeMap<Vec<u8>, Seen>>>,
}

/// How a group was seen last.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// The id of the last entry that the group read.
    pub(super) read: String,
    /// How long ago a consumer of the group was active; none without consumers.
    pub(super) idle: Option<Duration>,
    /// The latest of: first seen, last moved, last consumer active.
    since: Instant,
}

impl Seen {
    /// The group's state at `now`.
    pub(super) fn new(read: String, idle: Option<Duration>, now: Instant) -> Seen {
        Seen { read, idle, since: now }
    }
}

impl Backlog {
    /// A stream accepts no more events at `max` entries. A group that was idle for `ignore_idle` is ignored.
    pub fn new(max: u64, ignore_idle: Option<Duration>) -> Backlog {
        Backlog { max, ignore_idle, seen: Mutex::default() }
    }

    /// The length at which a stream accepts no more events.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Records a stream's groups. Groups that are not listed are forgotten.
    pub(super) fn set_groups(&self, stream: &str, mut groups: BTreeMap<Vec<u8>, Seen>) {
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

    /// Adds the scripts' arguments: the idle limit in ms (0 for none), and each consumer-less group past it.
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
            backlog.set_groups("s", BTreeMap::from([(b"g".to_vec(), seen)]));
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
        backlog.set_groups("s", BTreeMap::new());
        assert_eq!(at(90), ["10000"], "it is gone");
        assert_eq!(ignored(&Backlog::new(10, None), start), ["0"]);
    }
}
