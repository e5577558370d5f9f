//! Notices changed files by reading their metadata once a second.
//!
//! Polling instead of inotify: it works on NFS, bind mounts and overlays. It also follows symbolic links that are
//! themselves replaced (as Kubernetes does with `..data`), without a watch on each level. It costs a few `stat`s a
//! second.
//!
//! Keeps true: a change counts once two looks in a row agree, so a half-written file is not read. A file that is
//! missing for a few looks is being replaced and has not changed; one that stays missing has. A failed reload is
//! retried on a timer, but not while files are still changing.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;

/// The stamp of the file at each path; `None` if there is no file.
pub(super) type FileStamps = BTreeMap<PathBuf, Option<FileStamp>>;

/// Metadata of a file, some of which changes whenever the file is written or replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileStamp {
    dev: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Takes the stamp of each file. Follows symbolic links.
pub(super) fn stamps<'p>(paths: impl IntoIterator<Item = &'p Path>) -> FileStamps {
    paths.into_iter().map(|path| (path.to_owned(), stamp(path))).collect()
}

fn stamp(path: &Path) -> Option<FileStamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(FileStamp {
        dev: metadata.dev(),
        inode: metadata.ino(),
        length: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

/// How long from `now` a gateway that watches these files may still serve by their older contents.
pub(super) fn unread_for(stamps: &FileStamps, now: Timestamp) -> Duration {
    let changed = stamps.values().flatten().map(|stamp| stamp.changed).max();
    let changed =
        changed.and_then(|(seconds, nanos)| Timestamp::new(seconds, i32::try_from(nanos).ok()?).ok());
    // A change time in the future means that a clock was set; it does not tell when the file changed.
    let since = changed.and_then(|changed| Duration::try_from(now.duration_since(changed)).ok());
    since.map_or(Duration::ZERO, |since| READ_WITHIN.saturating_sub(since))
}

/// Watches the files of a config.
pub(super) struct FileWatcher {
    /// The stamps at the last reload, applied or refused.
    accepted: FileStamps,
    /// The stamps at the last look.
    seen: FileStamps,
    /// The files of the config in force.
    in_force: Vec<PathBuf>,
    /// For how many looks in a row each missing file has been missing.
    missing: BTreeMap<PathBuf, u32>,
    /// After how many more looks a retry is due; `None` without a retry.
    retry_in: Option<u32>,
}

/// Why a reload is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// A file has changed.
    Changed,
    /// No file has changed, but the last reload failed for a reason that may have passed.
    Retry,
}

impl FileWatcher {
    /// Watches the files of the config in force.
    pub(super) fn new(stamps: FileStamps) -> FileWatcher {
        let in_force = stamps.keys().cloned().collect();
        FileWatcher {
            seen: stamps.clone(),
            in_force,
            missing: BTreeMap::new(),
            retry_in: None,
            accepted: stamps,
        }
    }

    /// Returns once a file has changed and stays as it is, or a retry is due. A dropped future has noted nothing.
    pub(super) async fn due(&mut self) -> Due {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let paths: Vec<PathBuf> = self.accepted.keys().cloned().collect();
            let look = move || stamps(paths.iter().map(PathBuf::as_path));
            let stamps = on_own_thread("reload", look).await;
            if let Some(due) = stamps.and_then(|stamps| self.look(stamps)) {
                return due;
            }
        }
    }

    /// Notes a reload: `read` are the stamps of its files, taken before they were read. If it was refused, the files of
    /// the config in force stay watched too.
    pub(super) fn accept(&mut self, mut read: FileStamps, applied: bool) {
        if applied {
            self.in_force = read.keys().cloned().collect();
        } else {
            for path in &self.in_force {
                let seen = self.seen.get(path).copied().flatten();
                read.entry(path.clone()).or_insert(seen);
            }
        }
        self.seen = read.clone();
        self.accepted = read;
        self.retry_in = None;
    }

    /// Notes a reload that could not read the config file.
    pub(super) fn accept_unread(&mut self) {
        self.accepted = self.seen.clone();
        self.retry_in = None;
    }

    /// Schedules a retry: the last reload failed for a reason that may pass.
    pub(super) fn retry_later(&mut self) {
        self.retry_in = Some(LOOKS_UNTIL_RETRY);
    }

    /// Notes the stamps of a look. Returns why a reload is due, if one is.
    fn look(&mut self, stamps: FileStamps) -> Option<Due> {
        if self.has_settled_change(stamps) {
            return Some(Due::Changed);
        }
        let left = self.retry_in.as_mut()?;
        *left = left.saturating_sub(1);
        let stable =
            self.seen == self.accepted && self.missing.values().all(|looks| *looks >= LOOKS_UNTIL_GONE);
        (*left == 0 && stable).then_some(Due::Retry)
    }

    /// Notes the stamps of a look. Returns whether they differ from the last reload's and equal the last look's.
    fn has_settled_change(&mut self, mut stamps: FileStamps) -> bool {
        for (path, stamp) in &mut stamps {
            if stamp.is_some() {
                self.missing.remove(path);
                continue;
            }
            let looks = self.missing.entry(path.clone()).or_default();
            *looks = looks.saturating_add(1);
            if *looks < LOOKS_UNTIL_GONE {
                *stamp = self.accepted.get(path).copied().flatten();
            }
        }
        self.missing.retain(|path, _| stamps.contains_key(path));
        let settled = stamps == self.seen && stamps != self.accepted;
        self.seen = stamps;
        settled
    }
}

/// Runs `work`, which may wait for a disk, on a thread of this name outside the runtime: a hanging file system must not block the
/// end of the process. Returns `None` if no thread can be started.
pub(super) async fn on_own_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (done, result) = oneshot::channel();
    let thread = std::thread::Builder::new().name(name.to_owned());
    // The receiver is gone if the process is about to end.
    thread.spawn(move || drop(done.send(work()))).ok()?;
    result.await.ok()
}

const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Two looks, and the time to read the files on a slow machine.
const READ_WITHIN: Duration = Duration::from_secs(5);
/// A program that deletes a file and writes it again needs fewer looks than this.
const LOOKS_UNTIL_GONE: u32 = 5;
/// Looks between two tries of a refused config: its cause may pass without a change of a file.
const LOOKS_UNTIL_RETRY: u32 = 5;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Bench {
        folder: tempfile::TempDir,
        watcher: FileWatcher,
    }

    impl Bench {
        fn new() -> Bench {
            let folder = tempfile::tempdir().unwrap();
            let (a, b) = (folder.path().join("a"), folder.path().join("b"));
            fs::write(&a, "1").unwrap();
            fs::write(&b, "1").unwrap();
            Bench { watcher: FileWatcher::new(stamps([a.as_path(), b.as_path()])), folder }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        /// Puts a new file under the same name. Its inode differs even if its times do not.
        fn replace(&self, name: &str) {
            let new = self.path("new");
            fs::write(&new, "2").unwrap();
            fs::rename(new, self.path(name)).unwrap();
        }

        fn looks(&mut self) -> bool {
            let paths: Vec<_> = self.watcher.accepted.keys().cloned().collect();
            self.watcher.has_settled_change(stamps(paths.iter().map(PathBuf::as_path)))
        }

        fn acts(&mut self, applied: bool, names: &[&str]) {
            let paths: Vec<_> = names.iter().map(|name| self.path(name)).collect();
            self.watcher.accept(stamps(paths.iter().map(PathBuf::as_path)), applied);
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
    fn a_file_that_is_missing_for_a_moment_has_not_changed_until_it_is_back() {
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
        assert_eq!(found, Some(LOOKS_UNTIL_GONE as usize), "so many looks, and one that agrees");
        bench.acts(false, &["a", "b"]);
        assert!((0..20).all(|_| !bench.looks()));
        bench.replace("a");
        assert!(!bench.looks());
        assert!(bench.looks());
        // The same after a reload that could not read the config file.
        bench.acts(true, &["a", "b"]);
        fs::remove_file(bench.path("a")).unwrap();
        assert!((0..20).any(|_| bench.looks()));
        bench.watcher.accept_unread();
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
    fn a_failed_reload_is_retried_without_a_change_but_not_while_files_are_changing() {
        let mut bench = Bench::new();
        let due = |bench: &mut Bench| {
            let paths: Vec<_> = bench.watcher.accepted.keys().cloned().collect();
            bench.watcher.look(stamps(paths.iter().map(PathBuf::as_path)))
        };
        bench.acts(false, &["a", "b"]);
        assert!((0..20).all(|_| due(&mut bench).is_none()), "nothing passes by itself");
        for _ in 0..3 {
            bench.acts(false, &["a", "b"]);
            bench.watcher.retry_later();
            let looks = (1..20).find(|_| due(&mut bench) == Some(Due::Retry));
            assert_eq!(looks, Some(LOOKS_UNTIL_RETRY));
        }
        bench.watcher.retry_later();
        assert!((1..LOOKS_UNTIL_RETRY).all(|_| due(&mut bench).is_none()));
        bench.replace("a");
        assert_eq!((due(&mut bench), due(&mut bench)), (None, Some(Due::Changed)));
        bench.acts(false, &["a", "b"]);
        bench.watcher.retry_later();
        assert!((2..LOOKS_UNTIL_RETRY).all(|_| due(&mut bench).is_none()));
        fs::remove_file(bench.path("a")).unwrap();
        assert!((1..LOOKS_UNTIL_GONE).all(|_| due(&mut bench).is_none()), "it is being replaced");
        bench.replace("a");
        assert_eq!((due(&mut bench), due(&mut bench)), (None, Some(Due::Changed)));
        bench.acts(true, &["a", "b"]);
        assert!((0..20).all(|_| due(&mut bench).is_none()), "it is done");
    }

    #[test]
    fn what_was_just_written_may_be_unread_for_a_few_seconds() {
        let bench = Bench::new();
        let stamps = stamps([bench.path("a").as_path(), bench.path("absent").as_path()]);
        let (seconds, nanos) = stamps.values().flatten().next().unwrap().changed;
        let written = Timestamp::new(seconds, i32::try_from(nanos).unwrap()).unwrap();
        let unread = |millis| unread_for(&stamps, written + Duration::from_millis(millis)).as_millis();
        assert_eq!([0, 1500, 5000, 3_600_000].map(unread), [5000, 3500, 0, 0]);
        assert_eq!(unread_for(&stamps, written - Duration::from_secs(1)), Duration::ZERO);
        assert_eq!(unread_for(&FileStamps::new(), written), Duration::ZERO);
    }

    #[test]
    fn a_replaced_link_on_the_path_is_a_change() {
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
        let mut watcher = FileWatcher::new(stamps([secret.as_path()]));
        symlink("2", path("..new")).unwrap();
        fs::rename(path("..new"), path("..data")).unwrap();
        assert!(!watcher.has_settled_change(stamps([secret.as_path()])));
        assert!(watcher.has_settled_change(stamps([secret.as_path()])));
    }
}
