use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use super::super::Options;
use super::super::anchor::ANCHOR_EVERY;
use super::super::journal::Journal;
use super::super::rate_limiter::Aggregate;
use super::super::tests::{options, records, reject};
use super::*;
use crate::base::clock::Clock;
use crate::config::secret::Secret;

fn key(text: &str) -> Key {
    Key::new(&Secret::new(text)).unwrap()
}

fn ours() -> Key {
    key("a key of the gateway's")
}

/// A log written by gateways with and without a key, one after the other.
struct Log {
    dir: tempfile::TempDir,
    clock: Clock,
}

impl Log {
    fn new() -> Log {
        let clock = Clock::manual("2026-11-21T10:00:00Z".parse().unwrap());
        Log { dir: tempfile::tempdir().unwrap(), clock }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn open(&self, key: Option<Key>) -> Journal {
        let journal = Journal::open(self.path(), options(), self.clock.clone()).unwrap();
        let mut journal = match key {
            Some(key) => journal.with_anchors(key),
            None => journal,
        };
        journal.anchor().unwrap();
        journal
    }

    fn forward(&self, seconds: u64) {
        let Clock::Manual(micros) = &self.clock else { unreachable!() };
        AtomicI64::fetch_add(micros, seconds as i64 * 1_000_000, Ordering::Relaxed);
    }

    fn write(&self, journal: &mut Journal, count: u64) {
        let entries: Vec<Aggregate> = (0..count)
            .map(|n| {
                let mut of = reject(n);
                of.at = self.clock.now();
                Aggregate::one(Box::new(of))
            })
            .collect();
        journal.append(&entries).1.unwrap();
    }

    /// Ten minutes with five rejects and one anchor each: records 1 to 60, every sixth an anchor.
    fn of_ten_minutes() -> Log {
        let log = Log::new();
        let mut journal = log.open(Some(ours()));
        for _ in 0..10 {
            log.write(&mut journal, 5);
            log.forward(61);
            journal.anchor().unwrap();
        }
        assert_eq!(anchors(log.path()), (1..=10).map(|n| n * 6).collect::<Vec<_>>());
        log
    }

    /// Rewrites the whole log into one file, as anyone with write access could. `change` returns the replacement of
    /// each record; numbers, `prev` and hashes are corrected.
    fn forge(&self, change: impl Fn(&Record) -> Option<Record>) {
        let mut lines = String::new();
        let (mut seq, mut prev, all) = (0, NO_HASH.to_owned(), records(self.path()));
        for mut record in all.iter().filter_map(change) {
            seq += 1;
            (record.seq, record.prev, record.hash) = (seq, prev, String::new());
            record.hash = record.digest().unwrap();
            lines += &(record.line().unwrap() + "\n");
            prev = record.hash;
        }
        self.put(&lines);
    }

    /// Replaces all files by one with these lines.
    fn put(&self, lines: &str) {
        let files = list(self.path()).unwrap();
        files.iter().for_each(|file| fs::remove_file(&file.path).unwrap());
        fs::write(&files[0].path, lines).unwrap();
    }

    fn lines(&self) -> Vec<String> {
        records(self.path()).iter().map(|record| record.line().unwrap() + "\n").collect()
    }

    fn verify(&self, change: impl FnOnce(&mut VerifyOptions)) -> Result<VerifyReport, VerifyError> {
        let mut options = VerifyOptions { keys: vec![ours()], ..VerifyOptions::default() };
        change(&mut options);
        verify_with(self.path(), &options)
    }

    #[track_caller]
    fn breaks(&self, seq: u64, why: &str) {
        assert!(verify(self.path()).is_ok(), "the chain alone shows it already");
        broken(self.verify(|_| {}), seq, why);
    }
}

#[track_caller]
fn broken(found: Result<VerifyReport, VerifyError>, seq: u64, why: &str) {
    let Err(VerifyError::Broken(broken)) = found else { panic!("{found:?}") };
    assert_eq!(broken.seq, Some(seq), "{broken}");
    assert!(broken.why.contains(why), "{broken}");
}

fn anchors(dir: &Path) -> Vec<u64> {
    records(dir).iter().filter(|record| record.is_anchor()).map(|record| record.seq).collect()
}

#[test]
fn an_anchor_is_a_record_like_others_and_another_implementation_computes_what_it_says() {
    // python3: hmac.new(b"0123456789abcdef", b"hookgate audit anchor 1\0" + struct.pack(">QQ", 7, 27) +
    // b"2026-11-21T10:00:00.000000Z" + struct.pack(">Q", 64) + b"0" * 64, "sha256").hexdigest()
    let ts = "2026-11-21T10:00:00.000000Z".to_owned();
    let anchor = Record::anchor(7, ts, NO_HASH, &key("0123456789abcdef")).unwrap();
    assert_eq!(anchor.detail, "hmac-sha256:be996b16bd5f2616853c2ce98cc14a82a3e78a1b9556760a00a3c5bd8df1ec40");
    let Record { source, provider, reason, status, .. } = &anchor;
    assert_eq!(
        (source.as_str(), provider.as_str(), reason.as_str(), *status),
        ("unknown", "unknown", "anchor", 0)
    );
    assert_eq!(Record::parse(anchor.line().unwrap().as_bytes()).unwrap(), anchor);
    assert_eq!(anchor.digest().unwrap(), anchor.hash);
}

#[test]
fn a_key_must_be_long_enough_and_is_not_told() {
    let why = Key::new(&Secret::new("fifteen chars..")).err().unwrap();
    assert!(why.contains("15 bytes") && why.contains("at least 16") && !why.contains("fifteen"), "{why}");
    key("sixteen chars...");
}

#[test]
fn no_more_than_a_thousand_records_stand_without_an_anchor_whatever_the_batches() {
    for batch in [1, 7, 1000, 1024, 5000] {
        let log = Log::new();
        let mut journal = log.open(Some(ours()));
        for _ in 0..5000 / batch {
            log.write(&mut journal, batch);
        }
        let (all, found) = (records(log.path()).len() as u64, anchors(log.path()));
        assert_eq!(found[0], ANCHOR_EVERY + 1);
        assert!(found.windows(2).all(|two| two[1] - two[0] <= ANCHOR_EVERY + 1), "{found:?}");
        assert_eq!(journal.take_anchors(), found.len() as u64);
        let verified = log.verify(|_| {}).unwrap();
        assert_eq!((verified.records, verified.anchors.unwrap().last_seq), (all, *found.last().unwrap()));
    }
}

#[test]
fn an_anchor_is_due_within_a_minute_of_the_first_record_and_only_then() {
    let log = Log::new();
    let mut journal = log.open(Some(ours()));
    assert_eq!(journal.anchor_by(), None, "nothing to vouch for");
    let before = crate::base::clock::instant();
    log.write(&mut journal, 1);
    let due = journal.anchor_by().unwrap();
    assert!(due <= crate::base::clock::instant() + std::time::Duration::from_secs(60) && due > before);
    log.write(&mut journal, 5);
    assert_eq!(journal.anchor_by(), Some(due), "later records put it off");
    journal.anchor().unwrap();
    journal.anchor().unwrap();
    assert_eq!((journal.anchor_by(), anchors(log.path())), (None, vec![7]));
    drop(journal);
    let mut journal = log.open(Some(ours()));
    assert_eq!(anchors(log.path()), [7], "a start after an anchor has nothing to add");
    log.write(&mut journal, 1);
    drop(journal);
    log.open(Some(ours()));
    assert_eq!(anchors(log.path()), [7, 9], "a start vouches for what a crash left");
    let mut without = Log::new().open(None);
    assert!(without.anchor_by().is_none() && without.anchor().is_ok());
}

#[test]
fn a_file_begins_with_an_anchor_so_that_what_retention_leaves_is_held_to_it() {
    let log = Log::new();
    let small = Options { file_bytes: 8000, ..options() };
    let mut journal = Journal::open(log.path(), small, log.clock.clone()).unwrap().with_anchors(ours());
    for _ in 0..20 {
        log.write(&mut journal, 3);
    }
    let files = list(log.path()).unwrap();
    assert!(files.len() >= 4, "{} files", files.len());
    let found = anchors(log.path());
    assert_eq!(found, files[1..].iter().map(|file| file.first_seq).collect::<Vec<_>>());
    for file in &files {
        assert!(file.path.metadata().unwrap().len() <= 8000);
    }
    fs::remove_file(&files[0].path).unwrap();
    assert_eq!(log.verify(|_| {}).unwrap().anchors.unwrap().first_seq, files[1].first_seq);
}

#[test]
fn a_chain_made_anew_behind_kept_anchors_breaks_at_the_first_of_them() {
    let log = Log::of_ten_minutes();
    log.forge(|record| {
        let mut record = record.clone();
        if record.seq == 26 {
            record.client = Some("198.51.100.1".to_owned());
        }
        Some(record)
    });
    log.breaks(30, "after record 24, the last anchor that holds");
    // Removing a record changes the numbers of all later ones.
    let log = Log::of_ten_minutes();
    log.forge(|record| (record.seq != 26).then(|| record.clone()));
    log.breaks(29, "does not hold");
}

#[test]
fn an_anchor_made_with_another_key_or_changed_anywhere_does_not_hold() {
    let log = Log::of_ten_minutes();
    let theirs = key("the key of a stranger");
    log.forge(|record| {
        let mut record = record.clone();
        if record.is_anchor() && record.seq >= 30 {
            record.detail = theirs.anchor_text(record.seq, &record.ts, &record.prev);
        }
        Some(record)
    });
    log.breaks(30, "does not hold");

    type Change = fn(&mut Record);
    let changes: [Change; 6] = [
        |record| record.ts = "2026-11-21T10:00:00.000001Z".to_owned(),
        |record| record.detail = record.detail.replace("sha256:", "sha256: "),
        |record| record.id = "rej_0123456789abcdef0123".to_owned(),
        |record| record.client = Some("203.0.113.7".to_owned()),
        |record| record.suppressed = Some(9),
        |record| record.source = "iof".to_owned(),
    ];
    for change in changes {
        let log = Log::of_ten_minutes();
        log.forge(|record| {
            let mut record = record.clone();
            if record.seq == 60 {
                change(&mut record);
            }
            Some(record)
        });
        log.breaks(60, "does not hold");
    }
}

#[test]
fn a_log_with_all_anchors_dropped_is_not_anchored_and_a_young_one_need_not_be_yet() {
    let log = Log::of_ten_minutes();
    log.forge(|record| (!record.is_anchor()).then(|| record.clone()));
    let later = Some(log.clock.now());
    assert!(matches!(log.verify(|options| options.now = later), Err(VerifyError::Unanchored(50))));
    assert!(verify(log.path()).is_ok());

    let young = Log::new();
    assert_eq!(young.verify(|_| {}).unwrap().anchors, None);
    let mut journal = young.open(Some(ours()));
    young.write(&mut journal, 5);
    assert_eq!(young.verify(|_| {}).unwrap().anchors, None);
}

/// 3,000 records within ten minutes without a key, then some with one.
fn before_the_key() -> Log {
    let log = Log::new();
    let mut journal = log.open(None);
    for _ in 0..10 {
        log.write(&mut journal, 300);
        log.forward(60);
    }
    drop(journal);
    let mut journal = log.open(Some(ours()));
    log.write(&mut journal, 10);
    journal.anchor().unwrap();
    log
}

#[test]
fn what_is_from_before_the_key_is_not_broken_and_cannot_be_changed_after() {
    let log = before_the_key();
    let anchors = log.verify(|_| {}).unwrap().anchors.unwrap();
    assert_eq!((anchors.count, anchors.first_seq, anchors.last_seq), (2, 3001, 3012));
    log.forge(|record| {
        let mut record = record.clone();
        record.status = if record.seq == 7 { 403 } else { record.status };
        Some(record)
    });
    log.breaks(3001, "from the oldest on");
}

#[test]
fn a_log_that_ends_before_the_first_record_with_the_key_is_cut_off() {
    let log = before_the_key();
    log.verify(|options| options.anchored_since = Some(3001)).unwrap();
    let end = records(log.path()).last().unwrap().seq;
    log.verify(|options| options.anchored_since = Some(end + 1)).unwrap();
    broken(log.verify(|options| options.anchored_since = Some(end + 2)), end + 1, "the log ends before");
}

#[test]
fn anchors_of_an_older_key_hold_where_that_is_given() {
    let log = Log::new();
    for name in ["the first key of all", "the key that came after"] {
        let mut journal = log.open(Some(key(name)));
        log.write(&mut journal, 5);
        journal.anchor().unwrap();
    }
    let with = |keys: &[&str]| {
        verify_with(
            log.path(),
            &VerifyOptions { keys: keys.iter().map(|of| key(of)).collect(), ..VerifyOptions::default() },
        )
    };
    broken(with(&["the key that came after"]), 6, "--key-file");
    broken(with(&["the first key of all"]), 12, "among the 1 given");
    assert_eq!(with(&["the key that came after", "the first key of all"]).unwrap().anchors.unwrap().count, 2);
}

#[test]
fn a_log_cut_off_at_its_end_is_found_by_who_kept_the_last_anchors_number() {
    let log = Log::of_ten_minutes();
    let lines = log.lines();
    let kept = log.verify(|_| {}).unwrap().anchors.unwrap().last_seq;
    log.verify(|options| options.anchored_to = Some(kept)).unwrap();
    log.put(&lines[..54].concat());
    log.verify(|_| {}).unwrap();
    broken(log.verify(|options| options.anchored_to = Some(kept)), 55, "last anchor is record 54");
    broken(log.verify(|options| options.anchored_since = Some(56)), 55, "ends before record 56");
}

#[test]
fn what_a_gateway_would_have_anchored_by_now_is_missed() {
    let log = Log::of_ten_minutes();
    let end = log.clock.now();
    let later = |seconds: i64| Some(end + jiff::SignedDuration::from_secs(seconds));
    let overdue =
        |seconds| log.verify(|options| options.now = later(seconds)).unwrap().anchors.unwrap().overdue;
    assert!(!overdue(3600), "all of it is anchored");
    log.put(&log.lines()[..59].concat());
    // The first record after the last anchor came a minute before the end.
    assert!(!overdue(8) && overdue(10));
    let since = |seq, seconds| {
        log.verify(|options| (options.anchored_since, options.now) = (Some(seq), later(seconds)))
    };
    assert!(since(1, 8).is_ok());
    broken(since(1, 10), 55, "no anchor after record 54");
    broken(since(59, 10), 55, "no anchor after record 54");
    assert!(since(60, 3600).is_ok(), "only what comes is to be anchored");

    log.forge(|record| {
        let mut record = record.clone();
        record.ts = if record.seq == 55 { "soon".to_owned() } else { record.ts };
        Some(record)
    });
    assert!(overdue(-3600), "no gateway wrote that time");

    log.forge(|record| (!record.is_anchor() && record.seq < 6).then(|| record.clone()));
    let bare = |seconds| log.verify(|options| options.now = later(seconds));
    assert!(matches!(bare(3600), Err(VerifyError::Unanchored(5))));
    assert_eq!(bare(-600).unwrap().anchors, None, "they came just now");
}
