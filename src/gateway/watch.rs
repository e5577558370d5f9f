//! Sees that a file has changed, by looking at its metadata once a second.
//!
//! Looking, and not asking the kernel to tell: that works on NFS, on bind mounts and on overlays, follows a path through
//! symbolic links that are themselves exchanged (as Kubernetes does with `..data`), and needs no watch at each of their levels.
//! It costs a few `stat`s a second.
//!
//! Keeps true: a change counts once two looks in a row agree, so that a file which is being written is not read half way; a
//! file that is gone for a few looks is being exchanged and has not changed, one that stays away has. What could not be done is
//! due again without a change, but not in the middle of one.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;

/// What the file behind each path looks like; none where there is none.
pub(super) type FileStamps = BTreeMap<PathBuf, Option<Mark>>;

/// What cannot stay the same when a file is written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    dev: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Looks at files. Links are followed.
pub(super) fn look<'p>(paths: impl IntoIterator<Item = &'p Path>) -> FileStamps {
    paths.into_iter().map(|path| (path.to_owned(), mark(path))).collect()
}

fn mark(path: &Path) -> Option<Mark> {
    let of = std::fs::metadata(path).ok()?;
    Some(Mark {
        dev: of.dev(),
        inode: of.ino(),
        length: of.len(),
        modified: (of.mtime(), of.mtime_nsec()),
        changed: (of.ctime(), of.ctime_nsec()),
    })
}

/// For how long yet a gateway that watches these files may serve by what was in them before.
pub(super) fn unread_for(marks: &FileStamps, now: Timestamp) -> Duration {
    let changed = marks.values().flatten().map(|mark| mark.changed).max();
    let changed =
        changed.and_then(|(seconds, nanos)| Timestamp::new(seconds, i32::try_from(nanos).ok()?).ok());
    // What was changed later than now says that a clock was set, and nothing of when.
    let since = changed.and_then(|changed| Duration::try_from(now.duration_since(changed)).ok());
    since.map_or(Duration::ZERO, |since| READ_WITHIN.saturating_sub(since))
}

/// The files that are watched.
pub(super) struct Watch {
    /// As they were when they were last acted on.
    acted: FileStamps,
    /// As they were at the last look.
    seen: FileStamps,
    /// Those that the config in force is made of.
    in_force: Vec<PathBuf>,
    /// For how many looks in a row each has been gone that was there when it was acted on.
    gone: BTreeMap<PathBuf, u32>,
    /// After how many looks it is due again, should nothing change; none where that is no use.
    again: Option<u32>,
}

/// Why there is something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// A file has changed.
    Changed,
    /// Nothing has, and what could not be done may be possible by now.
    Again,
}

impl Watch {
    /// Over the files of the config in force.
    pub(super) fn new(marks: FileStamps) -> Watch {
        let in_force = marks.keys().cloned().collect();
        Watch { seen: marks.clone(), in_force, gone: BTreeMap::new(), again: None, acted: marks }
    }

    /// Returns once a file has changed and stays as it is, or what could not be done is due again. Dropped half way, it has
    /// seen nothing.
    pub(super) async fn due(&mut self) -> Due {
        loop {
            tokio::time::sleep(BETWEEN_LOOKS).await;
            let paths: Vec<PathBuf> = self.acted.keys().cloned().collect();
            let marks = apart(move || look(paths.iter().map(PathBuf::as_path))).await;
            if let Some(due) = marks.and_then(|marks| self.looked(marks)) {
                return due;
            }
        }
    }

    /// What has changed was read: `read` are the files of the config that was made of it, as they were before. If that was
    /// refused, the files of the one in force are watched on too.
    pub(super) fn acted(&mut self, mut read: FileStamps, applied: bool) {
        if applied {
            self.in_force = read.keys().cloned().collect();
        } else {
            for path in &self.in_force {
                let seen = self.seen.get(path).copied().flatten();
                read.entry(path.clone()).or_insert(seen);
            }
        }
        self.seen = read.clone();
        self.acted = read;
        self.again = None;
    }

    /// There was nothing to be read.
    pub(super) fn acted_in_vain(&mut self) {
        self.acted = self.seen.clone();
        self.again = None;
    }

    /// What was acted on could not be done, for a reason that may pass.
    pub(super) fn try_again(&mut self) {
        self.again = Some(LOOKS_UNTIL_AGAIN);
    }

    /// Takes a look in; whether there is something to do.
    fn looked(&mut self, marks: FileStamps) -> Option<Due> {
        if self.settled(marks) {
            return Some(Due::Changed);
        }
        let left = self.again.as_mut()?;
        *left = left.saturating_sub(1);
        let still = self.seen == self.acted && self.gone.values().all(|looks| *looks >= GONE_FOR_GOOD);
        (*left == 0 && still).then_some(Due::Again)
    }

    /// Takes a look in; whether something is other than it was acted on, and is as it was at the last look.
    fn settled(&mut self, mut marks: FileStamps) -> bool {
        for (path, mark) in &mut marks {
            if mark.is_some() {
                self.gone.remove(path);
                continue;
            }
            let looks = self.gone.entry(path.clone()).or_default();
            *looks = looks.saturating_add(1);
            if *looks < GONE_FOR_GOOD {
                *mark = self.acted.get(path).copied().flatten();
            }
        }
        self.gone.retain(|path, _| marks.contains_key(path));
        let settled = marks == self.seen && marks != self.acted;
        self.seen = marks;
        settled
    }
}

/// Runs what may have to wait for a disk. On a thread of its own and not one of the runtime's: a file system that hangs must
/// not keep the process from its end. None if there is no thread to be had.
pub(super) async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, result) = oneshot::channel();
    let thread = std::thread::Builder::new().name("reload".to_owned());
    // Nobody waits for it any more when the process is about to end.
    thread.spawn(move || drop(done.send(work()))).ok()?;
    result.await.ok()
}

const BETWEEN_LOOKS: Duration = Duration::from_secs(1);
/// Two looks, and the time to read what they saw on a machine that has little of it.
const READ_WITHIN: Duration = Duration::from_secs(5);
/// Whoever deletes a file and writes it anew is done with it by then.
const GONE_FOR_GOOD: u32 = 5;
/// Soon enough for who waits for a secret to count, and seldom enough to read a config that stays wrong.
const LOOKS_UNTIL_AGAIN: u32 = 5;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Bench {
        folder: tempfile::TempDir,
        watch: Watch,
    }

    impl Bench {
        fn new() -> Bench {
            let folder = tempfile::tempdir().unwrap();
            let (a, b) = (folder.path().join("a"), folder.path().join("b"));
            fs::write(&a, "1").unwrap();
            fs::write(&b, "1").unwrap();
            Bench { watch: Watch::new(look([a.as_path(), b.as_path()])), folder }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        /// Another file under the same name; a clock too coarse cannot hide it.
        fn replace(&self, name: &str) {
            let new = self.path("new");
            fs::write(&new, "2").unwrap();
            fs::rename(new, self.path(name)).unwrap();
        }

        fn looks(&mut self) -> bool {
            let paths: Vec<_> = self.watch.acted.keys().cloned().collect();
            self.watch.settled(look(paths.iter().map(PathBuf::as_path)))
        }

        fn acts(&mut self, applied: bool, names: &[&str]) {
            let paths: Vec<_> = names.iter().map(|name| self.path(name)).collect();
            self.watch.acted(look(paths.iter().map(PathBuf::as_path)), applied);
        }
    }

    #[test]
    fn a_change_counts_once_two_looks_agree_and_then_never_again() {
        let mut bench = Bench::new();
        assert!(!bench.looks());
        bench.replace("a");
        assert!(!bench.looks());
        bench.replace("a");
        assert!(!bench.looks(), "it is still being written");
        assert!(bench.looks());
        bench.acts(true, &["a", "b"]);
        assert!(!bench.looks() && !bench.looks());
    }

    #[test]
    fn a_file_that_is_gone_for_a_moment_has_not_changed_until_it_is_back() {
        let mut bench = Bench::new();
        for _ in 0..3 {
            fs::remove_file(bench.path("a")).unwrap();
            assert!(!bench.looks() && !bench.looks() && !bench.looks() && !bench.looks());
            bench.replace("a");
            assert!(!bench.looks());
            assert!(bench.looks());
            bench.acts(true, &["a", "b"]);
        }
    }

    #[test]
    fn a_file_that_stays_away_has_changed_once_and_again_when_it_is_back() {
        let mut bench = Bench::new();
        fs::remove_file(bench.path("a")).unwrap();
        let found = (0..20).find(|_| bench.looks());
        assert_eq!(found, Some(GONE_FOR_GOOD as usize), "so many looks, and one that agrees");
        bench.acts(false, &["a", "b"]);
        assert!((0..20).all(|_| !bench.looks()));
        bench.replace("a");
        assert!(!bench.looks());
        assert!(bench.looks());
        // The same where nothing could be read of it, as of the config file itself.
        bench.acts(true, &["a", "b"]);
        fs::remove_file(bench.path("a")).unwrap();
        assert!((0..20).any(|_| bench.looks()));
        bench.watch.acted_in_vain();
        assert!((0..20).all(|_| !bench.looks()));
    }

    #[test]
    fn after_a_refusal_both_configs_files_are_watched_and_after_the_next_one_no_more_of_the_first() {
        let mut bench = Bench::new();
        bench.acts(false, &["a", "first"]);
        bench.replace("first");
        assert!(!bench.looks());
        assert!(bench.looks(), "what was missing is there");
        bench.acts(false, &["a", "second"]);
        bench.replace("first");
        assert!(!bench.looks() && !bench.looks());
        bench.replace("b");
        assert!(!bench.looks());
        assert!(bench.looks(), "the config in force is made of it");
        bench.acts(true, &["a"]);
        bench.replace("b");
        assert!(!bench.looks() && !bench.looks());
    }

    #[test]
    fn what_could_not_be_done_is_due_again_without_a_change_but_not_in_the_middle_of_one() {
        let mut bench = Bench::new();
        let due = |bench: &mut Bench| {
            let paths: Vec<_> = bench.watch.acted.keys().cloned().collect();
            bench.watch.looked(look(paths.iter().map(PathBuf::as_path)))
        };
        bench.acts(false, &["a", "b"]);
        assert!((0..20).all(|_| due(&mut bench).is_none()), "nothing passes by itself");
        for _ in 0..3 {
            bench.acts(false, &["a", "b"]);
            bench.watch.try_again();
            let looks = (1..20).find(|_| due(&mut bench) == Some(Due::Again));
            assert_eq!(looks, Some(LOOKS_UNTIL_AGAIN));
        }
        bench.watch.try_again();
        assert!((1..LOOKS_UNTIL_AGAIN).all(|_| due(&mut bench).is_none()));
        bench.replace("a");
        assert_eq!((due(&mut bench), due(&mut bench)), (None, Some(Due::Changed)));
        bench.acts(false, &["a", "b"]);
        bench.watch.try_again();
        assert!((2..LOOKS_UNTIL_AGAIN).all(|_| due(&mut bench).is_none()));
        fs::remove_file(bench.path("a")).unwrap();
        assert!((1..GONE_FOR_GOOD).all(|_| due(&mut bench).is_none()), "it is being exchanged");
        bench.replace("a");
        assert_eq!((due(&mut bench), due(&mut bench)), (None, Some(Due::Changed)));
        bench.acts(true, &["a", "b"]);
        assert!((0..20).all(|_| due(&mut bench).is_none()), "it is done");
    }

    #[test]
    fn what_was_just_written_may_be_unread_for_a_few_seconds() {
        let bench = Bench::new();
        let marks = look([bench.path("a").as_path(), bench.path("absent").as_path()]);
        let (seconds, nanos) = marks.values().flatten().next().unwrap().changed;
        let written = Timestamp::new(seconds, i32::try_from(nanos).unwrap()).unwrap();
        let unread = |millis| unread_for(&marks, written + Duration::from_millis(millis)).as_millis();
        assert_eq!([0, 1500, 5000, 3_600_000].map(unread), [5000, 3500, 0, 0]);
        assert_eq!(unread_for(&marks, written - Duration::from_secs(1)), Duration::ZERO);
        assert_eq!(unread_for(&FileStamps::new(), written), Duration::ZERO);
    }

    #[test]
    fn an_exchanged_link_on_the_way_is_a_change() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for generation in ["1", "2"] {
            fs::create_dir(path(generation)).unwrap();
            fs::write(path(generation).join("secret"), generation).unwrap();
        }
        symlink("1", path("..data")).unwrap();
        symlink("..data/secret", path("secret")).unwrap();
        let secret = path("secret");
        let mut watch = Watch::new(look([secret.as_path()]));
        symlink("2", path("..new")).unwrap();
        fs::rename(path("..new"), path("..data")).unwrap();
        assert!(!watch.settled(look([secret.as_path()])));
        assert!(watch.settled(look([secret.as_path()])));
    }
}
