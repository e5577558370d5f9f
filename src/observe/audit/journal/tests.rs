use std::sync::atomic::{AtomicI64, Ordering};

use super::super::tests::{options, records, reject};
use super::super::verify::verify;
use super::*;

const DAY: i64 = 86_400;

struct Hand(Clock);

impl Hand {
    fn new() -> Hand {
        Hand(Clock::manual("2026-11-21T10:00:00Z".parse().unwrap()))
    }

    fn forward(&self, seconds: i64) {
        let Clock::Manual(micros) = &self.0 else { unreachable!() };
        AtomicI64::fetch_add(micros, seconds * 1_000_000, Ordering::Relaxed);
    }
}

fn write(journal: &mut Journal, count: u64) {
    let entries: Vec<Aggregate> = (0..count)
        .map(|n| {
            let mut of = reject(n);
            of.at = journal.clock.now();
            Aggregate::one(Box::new(of))
        })
        .collect();
    let (written, result) = journal.append(&entries);
    result.unwrap();
    assert_eq!(written as u64, count);
}

fn key() -> Key {
    Key::new(&crate::config::secret::Secret::new("a key of the gateway's")).unwrap()
}

fn bytes(dir: &Path) -> u64 {
    list(dir).unwrap().iter().map(|log| log.path.metadata().unwrap().len()).sum()
}

#[test]
fn the_chain_runs_over_rotation_by_size_and_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::new();
    let small = Options { file_bytes: 4000, ..options() };
    for _ in 0..3 {
        let mut journal = Journal::open(dir.path(), small, hand.0.clone()).unwrap();
        write(&mut journal, 1);
        write(&mut journal, 20);
    }
    let verified = verify(dir.path()).unwrap();
    assert_eq!((verified.records, verified.first_seq, verified.last_seq), (63, 1, 63));
    assert!(verified.files >= 8, "{} files", verified.files);
    for log in list(dir.path()).unwrap() {
        let of = log.path.metadata().unwrap();
        assert!(of.len() <= 4000 && of.mode() & 0o777 == 0o600);
    }
}

#[test]
fn a_directory_is_made_for_the_owner_only_and_an_old_file_ends() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("audit");
    let hand = Hand::new();
    let mut journal = Journal::open(&dir, options(), hand.0.clone()).unwrap();
    assert_eq!(dir.metadata().unwrap().mode() & 0o777, 0o700);
    write(&mut journal, 2);
    hand.forward(DAY - 1);
    write(&mut journal, 1);
    assert_eq!(list(&dir).unwrap().len(), 1);
    hand.forward(1);
    write(&mut journal, 1);
    let files = list(&dir).unwrap();
    assert_eq!(files.iter().map(|log| log.first_seq).collect::<Vec<_>>(), [1, 4]);
    assert_eq!(verify(&dir).unwrap().records, 4);
}

#[test]
fn all_files_together_stay_within_their_bytes() {
    let max_bytes = 40_000;
    let usual = Options::new(Duration::from_secs(3600), max_bytes);
    for limits in [usual, Options { file_bytes: 2_000, ..usual }, Options { file_bytes: max_bytes, ..usual }]
    {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), limits, Hand::new().0).unwrap();
        for round in 0..60 {
            write(&mut journal, 1 + round % 13);
            assert!(bytes(dir.path()) <= max_bytes, "{} bytes", bytes(dir.path()));
            let closed = bytes(dir.path()) - journal.current.as_ref().unwrap().len;
            assert!(closed <= max_bytes - 2 * journal.limits.file_bytes, "no room for the next: {closed}");
        }
        let verified = verify(dir.path()).unwrap();
        assert!(verified.first_seq > 1 && bytes(dir.path()) > max_bytes / 2);
        assert_eq!(verified.last_seq, journal.head.seq);
        let largest = list(dir.path()).unwrap().iter().map(|log| log.path.metadata().unwrap().len()).max();
        assert!(largest.unwrap() <= limits.file_bytes.min(max_bytes / 4));
        drop(journal);
        // With a smaller limit many files are deleted at once, and only as many as necessary.
        let less = Options { max_bytes: max_bytes / 2, ..limits };
        Journal::open(dir.path(), less, Hand::new().0).unwrap();
        let left = bytes(dir.path());
        assert!((max_bytes / 5..=max_bytes / 2).contains(&left), "{left} bytes");
    }

    let tiny = tempfile::tempdir().unwrap();
    let mut journal =
        Journal::open(tiny.path(), Options { max_bytes: 0, ..options() }, Hand::new().0).unwrap();
    write(&mut journal, 5);
    assert_eq!(verify(tiny.path()).unwrap().last_seq, 5, "the newest record is always there");
}

#[test]
fn a_file_goes_when_its_last_record_is_past_its_time_and_the_current_one_never() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::new();
    let short = Options { retain: Duration::from_secs(10 * 86400), ..options() };
    let mut journal = Journal::open(dir.path(), short, hand.0.clone()).unwrap();
    for _ in 0..3 {
        write(&mut journal, 1);
        hand.forward(DAY - 1);
        write(&mut journal, 1);
        hand.forward(1);
    }
    let kept = || list(dir.path()).unwrap().iter().map(|log| log.first_seq).collect::<Vec<_>>();
    assert_eq!(kept(), [1, 3, 5]);
    hand.forward(8 * DAY - 2);
    journal.delete_expired();
    assert_eq!(kept(), [1, 3, 5], "the last record of the first file has a second to go");
    hand.forward(2);
    journal.delete_expired();
    assert_eq!(kept(), [3, 5]);
    hand.forward(100 * DAY);
    drop(journal);
    let mut journal = Journal::open(dir.path(), short, hand.0.clone()).unwrap();
    assert_eq!(kept(), [5], "the head of the chain is never deleted");
    write(&mut journal, 1);
    assert_eq!(kept(), [7]);
    verify(dir.path()).unwrap();
}

#[test]
fn a_file_is_filled_to_its_last_byte_and_no_further() {
    let written = |file_bytes: u64, records: u64, anchored: bool| {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path(), Options { file_bytes, ..options() }, Hand::new().0).unwrap();
        let mut journal = if anchored { journal.with_anchors(key()) } else { journal };
        write(&mut journal, records);
        journal.anchor().unwrap();
        assert_eq!(verify(dir.path()).unwrap().last_seq, journal.head.seq);
        assert_eq!(journal.anchors > 0, anchored);
        (bytes(dir.path()), list(dir.path()).unwrap().len())
    };
    for (records, anchored) in [(3, false), (3, true), (1, true)] {
        let (whole, _) = written(1 << 20, records, anchored);
        assert_eq!(written(whole, records, anchored), (whole, 1), "{records} records");
        assert_eq!(written(whole - 1, records, anchored), (whole, 2), "{records} records");
    }
    // A record longer than a whole file gets its own file.
    assert_eq!(written(1, 2, true).1, 3);
}

#[test]
fn a_file_that_nothing_could_be_written_to_does_not_grow_old() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::new();
    let mut journal = Journal::open(dir.path(), options(), hand.0.clone()).unwrap();
    journal.begin().unwrap();
    hand.forward(DAY);
    write(&mut journal, 1);
    assert_eq!(list(dir.path()).unwrap().len(), 1);
}

#[test]
fn what_is_written_is_unsynced_until_it_is_synced() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path(), options(), Hand::new().0).unwrap();
    write(&mut journal, 1);
    assert!(!journal.unsynced(), "a file's first records are synced at once");
    write(&mut journal, 1);
    assert!(journal.unsynced());
    journal.sync().unwrap();
    assert!(!journal.unsynced());
}

#[test]
fn an_anchor_that_fails_is_due_again_in_a_second_and_one_that_a_record_brings_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::new();
    let mut journal = Journal::open(dir.path(), options(), hand.0.clone()).unwrap().with_anchors(key());
    write(&mut journal, 1);
    journal.current.as_mut().unwrap().file = Some(OpenOptions::new().append(true).open("/dev/full").unwrap());
    // An unlinked file: it is compared with the path and not found there.
    journal.current.as_mut().unwrap().log.path = PathBuf::from("/dev/full");
    journal.current.as_mut().unwrap().len = 0;
    let before = clock::instant();
    assert_eq!(journal.anchor().unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert!(journal.anchor_by().unwrap() > before);

    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path(), options(), hand.0.clone()).unwrap().with_anchors(key());
    write(&mut journal, 1);
    journal.anchor_by = Some(before);
    hand.forward(DAY);
    write(&mut journal, 1);
    assert_eq!(journal.anchors, 1);
    assert!(journal.anchor_by().unwrap() > before, "the one that the new file begins with was that anchor");
}

#[test]
fn a_torn_tail_is_cut_off_and_the_chain_goes_on() {
    for torn in ["{\"seq\":4,\"ts\"", "\0\0\0", "\0\0\n\0"] {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), options(), Hand::new().0).unwrap();
        write(&mut journal, 3);
        drop(journal);
        let path = list(dir.path()).unwrap()[0].path.clone();
        OpenOptions::new().append(true).open(&path).unwrap().write_all(torn.as_bytes()).unwrap();
        let mut journal = Journal::open(dir.path(), options(), Hand::new().0).unwrap();
        let verified = verify(dir.path()).unwrap();
        assert_eq!((verified.records, verified.unfinished, verified.set_aside), (3, false, 0), "{torn:?}");
        write(&mut journal, 2);
        assert_eq!(verify(dir.path()).unwrap().records, 5, "{torn:?}");
    }
}

#[test]
fn a_file_without_any_record_is_passed_over_and_kept_if_it_holds_something() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path(), options(), Hand::new().0).unwrap();
    write(&mut journal, 3);
    drop(journal);
    let at = "2026-11-21T11:00:00Z".parse().unwrap();
    let (empty, garbage) = (LogFile::new(dir.path(), 4, at), LogFile::new(dir.path(), 5, at));
    fs::write(&empty.path, "").unwrap();
    fs::write(&garbage.path, "\0\0\0").unwrap();
    let mut journal = Journal::open(dir.path(), options(), Hand::new().0).unwrap();
    write(&mut journal, 1);
    let verified = verify(dir.path()).unwrap();
    assert_eq!((verified.records, verified.files), (4, 1));
    assert!(garbage.path.with_extension("unreadable").exists());
    assert_eq!(verified.set_aside, 1);
}

#[test]
fn what_a_failed_write_left_is_cut_off_before_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path(), options(), Hand::new().0).unwrap();
    write(&mut journal, 3);
    let current = journal.current.as_mut().unwrap();
    current.file.take().unwrap().write_all(b"{\"seq\":4,\"half a li").unwrap();
    write(&mut journal, 2);
    let verified = verify(dir.path()).unwrap();
    assert_eq!((verified.records, verified.files), (5, 1));
}

#[test]
fn a_file_that_is_gone_after_a_failed_write_is_given_up_and_one_that_cannot_be_opened_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path(), options(), Hand::new().0).unwrap();
    write(&mut journal, 1);
    let current = journal.current.as_mut().unwrap();
    current.file = None;
    let (path, aside) = (current.log.path.clone(), dir.path().join("aside"));
    fs::rename(&path, &aside).unwrap();
    fs::create_dir(&path).unwrap();
    let (written, failed) = journal.append(&[Aggregate::one(Box::new(reject(1)))]);
    assert_eq!((written, failed.unwrap_err().kind()), (0, io::ErrorKind::IsADirectory));
    fs::remove_dir(&path).unwrap();
    write(&mut journal, 1);
    assert_eq!(list(dir.path()).unwrap().len(), 1);
    fs::rename(&aside, &path).unwrap();
    assert_eq!(verify(dir.path()).unwrap().records, 2);
}

#[test]
fn what_a_failed_write_left_is_cut_off_before_its_file_ends() {
    let dir = tempfile::tempdir().unwrap();
    let hand = Hand::new();
    let mut journal = Journal::open(dir.path(), options(), hand.0.clone()).unwrap();
    write(&mut journal, 3);
    let current = journal.current.as_mut().unwrap();
    current.file.take().unwrap().write_all(b"{\"seq\":4,\"half a li").unwrap();
    hand.forward(DAY);
    write(&mut journal, 2);
    let verified = verify(dir.path()).unwrap();
    assert_eq!((verified.records, verified.files), (5, 2));
}

#[test]
fn a_full_disk_fails_the_write_and_moves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path(), options(), Hand::new().0).unwrap();
    write(&mut journal, 2);
    let (len, head) = (journal.current.as_ref().unwrap().len, journal.head.hash.clone());
    journal.current.as_mut().unwrap().file = Some(OpenOptions::new().append(true).open("/dev/full").unwrap());
    assert_eq!(journal.write("line\n").unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!((journal.current.as_ref().unwrap().len, &journal.head.hash), (len, &head));
    write(&mut journal, 2);
    assert_eq!(verify(dir.path()).unwrap().records, 4);
}

#[test]
fn a_file_changed_by_others_is_left_as_it_is_for_verify_to_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path(), options(), Hand::new().0).unwrap();
    write(&mut journal, 3);
    let path = list(dir.path()).unwrap()[0].path.clone();
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 10]).unwrap();
    write(&mut journal, 1);
    assert_eq!(list(dir.path()).unwrap().len(), 2);
    assert!(verify(dir.path()).unwrap_err().to_string().contains("unfinished"));
    fs::write(&path, &whole).unwrap();
    assert_eq!(verify(dir.path()).unwrap().last_seq, 4);
    assert_eq!(records(dir.path()).len(), 4);
}

#[test]
fn records_overwritten_at_the_end_are_cut_off_but_kept_aside_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path(), options(), Hand::new().0).unwrap();
    write(&mut journal, 5);
    drop(journal);
    let path = list(dir.path()).unwrap()[0].path.clone();
    let mut lines: Vec<String> = fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
    (lines[3], lines[4]) = ("x".repeat(40), "y".repeat(40));
    fs::write(&path, lines.join("\n") + "\n").unwrap();
    assert!(verify(dir.path()).is_err());
    let mut journal = Journal::open(dir.path(), options(), Hand::new().0).unwrap();
    write(&mut journal, 1);
    let verified = verify(dir.path()).unwrap();
    assert_eq!(
        (verified.records, verified.set_aside),
        (4, 1),
        "the chain holds, and says that there was more"
    );
    assert_eq!(fs::read_to_string(path.with_extension("unreadable")).unwrap(), lines[3..].join("\n") + "\n");
}

/// Replaces the first file by a full pipe that accepts no more bytes, which simulates a frozen disk. Returns the pipe's
/// other end and the number of bytes in it.
pub(crate) fn freeze(journal: &mut Journal) -> (File, usize) {
    journal.begin().unwrap();
    let current = journal.current.as_mut().unwrap();
    fs::remove_file(&current.log.path).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&current.log.path).status().unwrap().success());
    // Opened for reading and writing, so that neither open waits for the other end.
    let pipe = OpenOptions::new().read(true).write(true).open(&current.log.path).unwrap();
    // Written in blocks that a pipe accepts completely or not at all.
    let filler = OpenOptions::new().write(true).custom_flags(NONBLOCKING).open(&current.log.path).unwrap();
    let filled = std::iter::from_fn(|| (&filler).write(&[b'x'; 4096]).ok()).sum();
    current.file = Some(pipe.try_clone().unwrap());
    (pipe, filled)
}

/// The value of O_NONBLOCK on Linux.
const NONBLOCKING: i32 = 0o4000;

#[test]
fn a_file_that_root_begins_is_the_folders_owners() {
    let dir = tempfile::tempdir().unwrap();
    if let Err(why) = std::os::unix::fs::chown(dir.path(), Some(1234), Some(1235)) {
        eprintln!("SKIPPED: giving files away takes root: {why}");
        return;
    }
    let mut journal = Journal::open(dir.path(), options(), Clock::System).unwrap();
    journal.append(&[Aggregate::one(Box::new(reject(1)))]).1.unwrap();
    let of = list(dir.path()).unwrap()[0].path.metadata().unwrap();
    assert_eq!((of.uid(), of.gid()), (1234, 1235));
}
