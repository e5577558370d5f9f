use std::fs;
use std::io::Write;
use std::path::PathBuf;

use super::super::Options;
use super::super::journal::Journal;
use super::super::rate_limiter::Aggregate;
use super::super::tests::{options, reject};
use super::*;
use crate::base::clock::Clock;

/// Twelve records, four in each of three files.
struct Log {
    dir: tempfile::TempDir,
    files: Vec<LogFile>,
}

impl Log {
    fn new() -> Log {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual("2026-11-21T10:00:00Z".parse().unwrap());
        for part in 0..3 {
            // A new file begins when one more line would not fit, so each batch gets its own file.
            let small = Options { file_bytes: 2800, ..options() };
            let mut journal = Journal::open(dir.path(), small, clock.clone()).unwrap();
            let batch: Vec<Aggregate> =
                (0..4).map(|n| Aggregate::one(Box::new(reject(10 + part * 4 + n)))).collect();
            journal.append(&batch).1.unwrap();
        }
        let files = list(dir.path()).unwrap();
        assert_eq!(files.iter().map(|file| file.first_seq).collect::<Vec<_>>(), [1, 5, 9]);
        Log { dir, files }
    }

    fn path(&self, file: usize) -> PathBuf {
        self.files[file].path.clone()
    }

    fn edit(&self, file: usize, change: impl FnOnce(&mut Vec<String>)) {
        let text = fs::read_to_string(self.path(file)).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        change(&mut lines);
        fs::write(self.path(file), lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    }

    fn verify(&self) -> Result<VerifyReport, VerifyError> {
        verify(self.dir.path())
    }

    /// Asserts that the chain breaks at this file, line and record.
    #[track_caller]
    fn breaks(&self, file: usize, line: u64, seq: u64, why: &str) {
        let Err(VerifyError::Broken(broken)) = self.verify() else { panic!("it passed") };
        let place = (broken.file.clone(), broken.line, broken.seq);
        assert_eq!(place, (self.files[file].name(), line, Some(seq)), "{broken}");
        assert!(broken.why.contains(why), "{broken}");
    }
}

fn rehash(line: &str, change: impl FnOnce(&mut Record)) -> String {
    let mut record = Record::parse(line.as_bytes()).unwrap();
    change(&mut record);
    record.hash = record.digest().unwrap();
    record.line().unwrap()
}

#[test]
fn an_untouched_log_holds() {
    let log = Log::new();
    let verified = log.verify().unwrap();
    assert_eq!((verified.records, verified.files), (12, 3));
    assert_eq!((verified.first_seq, verified.last_seq, verified.unfinished), (1, 12, false));
    let last = fs::read_to_string(log.path(2)).unwrap();
    assert!(last.ends_with(&format!("\"hash\":\"{}\"}}\n", verified.last_hash)));
    fs::remove_file(log.path(0)).unwrap();
    assert_eq!(log.verify().unwrap().first_seq, 5, "the oldest may have been deleted in its time");
}

#[test]
fn a_log_without_records_holds_and_one_that_is_not_there_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let verified = verify(dir.path()).unwrap();
    assert_eq!((verified.records, verified.last_seq, verified.last_hash.as_str()), (0, 0, NO_HASH));
    assert!(matches!(verify(&dir.path().join("no")), Err(VerifyError::Io(_))));
}

#[test]
fn a_file_that_goes_between_the_list_and_the_look_is_no_error_unless_it_never_comes() {
    let log = Log::new();
    let deleted = || {
        let mut files = log.files.clone();
        files.insert(0, LogFile::new(log.dir.path(), 0, "2026-11-21T09:00:00Z".parse().unwrap()));
        Ok(files)
    };
    let mut lists = 0;
    let mut listed = |stale: u32| {
        lists = 0;
        let found = verify_listed(
            || {
                lists += 1;
                if lists <= stale { deleted() } else { list(log.dir.path()) }
            },
            log.dir.path(),
            &VerifyOptions::default(),
        );
        (found.map(|found| found.records).map_err(|why| why.to_string()), lists)
    };
    assert_eq!(listed(TRIES), (Ok(12), TRIES + 1));
    assert!(
        matches!(listed(TRIES + 1), (Err(why), lists) if why.contains("cannot read") && lists == TRIES + 1)
    );
    let mut lists = 0;
    let unlisted = || {
        lists += 1;
        Err(io::ErrorKind::PermissionDenied.into())
    };
    let found = verify_listed(unlisted, log.dir.path(), &VerifyOptions::default());
    assert!(
        matches!(found, Err(VerifyError::Io(_))) && lists == 1,
        "only a file that is gone is looked for again"
    );
}

#[test]
fn every_changed_value_is_named() {
    let text = fs::read_to_string(Log::new().path(1)).unwrap();
    let changes = [
        ("\"seq\":6", "\"seq\":7"),
        ("\"ts\":\"2026", "\"ts\":\"2025"),
        ("\"id\":\"rej_", "\"id\":\"rej-"),
        ("\"source\":\"iof\"", "\"source\":\"iog\""),
        ("\"provider\":\"iof\"", "\"provider\":\"x\""),
        ("signature_mismatch", "signature_missing"),
        ("401", "403"),
        ("203.0.113.7", "203.0.113.8"),
        ("POST", "PUT"),
        ("/hooks/iof", "/hooks/x"),
        ("abab", "acab"),
        ("412", "413"),
        ("9f2c", "9f2d"),
        ("2 tried", "3 tried"),
        (",\"prev\"", ",\"suppressed\":1,\"prev\""),
        ("\"client\":\"203.0.113.7\",", ""),
    ];
    assert!(text.lines().count() == 4);
    for (from, to) in changes {
        let log = Log::new();
        log.edit(1, |lines| lines[1] = lines[1].replacen(from, to, 1));
        let seq = if from == "\"seq\":6" { 7 } else { 6 };
        log.breaks(1, 2, seq, "altered");
    }
}

#[test]
fn a_line_written_otherwise_is_altered_even_if_it_means_the_same() {
    let same = [
        ("\"status\":401", "\"status\": 401"),
        ("\"status\":401", "\"status\":401,\"client\":\"203.0.113.7\""),
        ("\"detail\":\"no", "\"detail\":\"\\u006eo"),
        ("\"detail\":\"", "\"detail\":\"forged\",\"detail\":\""),
        ("\"headers\":{", "\"headers\":{\"user-agent\":\"forged\","),
        ("{\"seq\":6", " {\"seq\":6"),
        ("\"}", "\"} "),
        ("\"}", "\"}\r"),
    ];
    for (from, to) in same {
        let log = Log::new();
        log.edit(1, |lines| {
            assert!(lines[1].contains(from));
            lines[1] = lines[1].replacen(from, to, 1);
        });
        let Err(VerifyError::Broken(broken)) = log.verify() else { panic!("{to} passed") };
        assert_eq!((broken.line, broken.seq), (2, Some(6)), "{to}: {broken}");
    }
    let log = Log::new();
    log.edit(1, |lines| {
        let headers = "\"user-agent\":\"test/15\",\"x-iof-signature\":\"sha256:9f2c\"";
        let swapped = "\"x-iof-signature\":\"sha256:9f2c\",\"user-agent\":\"test/15\"";
        assert!(lines[1].contains(headers));
        lines[1] = lines[1].replace(headers, swapped);
    });
    log.breaks(1, 2, 6, "form");
}

#[test]
fn missing_and_moved_records_are_named() {
    let log = Log::new();
    log.edit(1, |lines| drop(lines.remove(2)));
    log.breaks(1, 3, 7, "missing");

    let log = Log::new();
    log.edit(1, |lines| lines.swap(1, 2));
    log.breaks(1, 2, 6, "record 7 stands in its place");

    let log = Log::new();
    log.edit(1, |lines| lines.insert(2, lines[1].clone()));
    log.breaks(1, 3, 6, "repeated");

    let log = Log::new();
    log.edit(0, |lines| drop(lines.pop()));
    log.breaks(1, 1, 4, "missing");

    let log = Log::new();
    fs::remove_file(log.path(1)).unwrap();
    log.breaks(2, 1, 5, "missing");

    let log = Log::new();
    log.edit(0, |lines| drop(lines.remove(0)));
    log.breaks(0, 1, 2, "begun with record 1");

    let log = Log::new();
    log.edit(2, |lines| lines.insert(1, String::new()));
    log.breaks(2, 2, 10, "not a record");
}

#[test]
fn a_record_hashed_anew_is_named_by_its_successor() {
    let log = Log::new();
    log.edit(1, |lines| lines[1] = rehash(&lines[1], |record| record.client = None));
    log.breaks(1, 2, 6, "hashed anew");

    let log = Log::new();
    log.edit(1, |lines| lines[3] = rehash(&lines[3], |record| record.status = 200));
    log.breaks(1, 4, 8, "hashed anew");

    let log = Log::new();
    log.edit(0, |lines| lines[0] = rehash(&lines[0], |record| record.prev = "1".repeat(64)));
    log.breaks(0, 1, 1, "only record 1");
}

#[test]
fn an_unfinished_line_is_noted_at_the_end_and_broken_anywhere_else() {
    let torn = |file: usize| {
        let log = Log::new();
        let mut open = fs::OpenOptions::new().append(true).open(log.path(file)).unwrap();
        open.write_all(b"{\"seq\":9,\"ts").unwrap();
        log
    };
    let verified = torn(2).verify().unwrap();
    assert!(verified.unfinished && verified.records == 12);
    torn(1).breaks(1, 5, 9, "unfinished");
}

#[test]
fn a_file_that_was_copied_renamed_or_emptied_is_named() {
    let log = Log::new();
    let copy = log.dir.path().join("00000000000000000005-20261122T100000Z.jsonl");
    fs::copy(log.path(1), &copy).unwrap();
    let Err(VerifyError::Broken(broken)) = log.verify() else { panic!("it passed") };
    assert_eq!((broken.line, broken.seq), (1, Some(5)), "{broken}");
    assert!(broken.why.contains("repeated"), "{broken}");

    let log = Log::new();
    fs::rename(log.path(1), log.dir.path().join("00000000000000000006-20261121T100000Z.jsonl")).unwrap();
    let Err(VerifyError::Broken(broken)) = log.verify() else { panic!("it passed") };
    assert!(broken.file.starts_with("00000000000000000006") && broken.seq == Some(5), "{broken}");
    assert!(broken.why.contains("begun with record 6"), "{broken}");

    // A file with another name does not belong to the log, so its records are missing.
    let log = Log::new();
    fs::rename(log.path(1), log.path(1).with_extension("jsonl.bak")).unwrap();
    log.breaks(2, 1, 5, "missing");

    let log = Log::new();
    fs::write(log.path(1), "").unwrap();
    log.breaks(2, 1, 5, "missing");

    // The last file is emptied and one before it deleted. The remaining empty file has an unexpected number.
    let log = Log::new();
    fs::remove_file(log.path(1)).unwrap();
    fs::write(log.path(2), "").unwrap();
    log.breaks(2, 1, 5, "begun with record 9");
}

#[test]
fn a_file_that_was_just_begun_may_be_empty() {
    let log = Log::new();
    let next = log.dir.path().join("00000000000000000013-20261121T100000Z.jsonl");
    fs::write(next, "").unwrap();
    assert_eq!(log.verify().unwrap().last_seq, 12);
}
