use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::acts::{Act, Done};
use super::*;
use crate::durable::database::Layout;
use crate::observe::admin::Readiness;
use crate::observe::audit::files;
use crate::observe::audit::record::Record;
use crate::observe::audit::{Audit, Options, verify};
use crate::observe::metrics::Metrics;

/// A data folder with gateways that run one after the other. Each has only the parts that write the log.
struct Folder {
    dir: tempfile::TempDir,
    _database: Connection,
}

struct Run {
    audit: Audit,
    metrics: Arc<Metrics>,
}

impl Folder {
    fn new() -> Folder {
        let dir = tempfile::tempdir().unwrap();
        let (conn, _) = database::open(&dir.path().join("hookgate.db"), Layout::default(), "").unwrap();
        Folder { _database: conn, dir }
    }

    fn db(&self) -> std::path::PathBuf {
        self.dir.path().join("hookgate.db")
    }

    fn log(&self) -> std::path::PathBuf {
        self.dir.path().join("audit")
    }

    fn start(&self) -> Run {
        let (metrics, readiness) = (Arc::new(Metrics::new().unwrap()), Arc::new(Readiness::default()));
        let options = Options::new(Duration::from_secs(86400), 1 << 30);
        let audit =
            Audit::open(&self.log(), options, None, Clock::System, metrics.clone(), readiness).unwrap();
        let ledger = AuditLedger::open(&self.db(), &self.log(), Clock::System, metrics.audit.clone());
        audit.keep(Box::new(ledger));
        Run { audit, metrics }
    }

    /// Writes `count` records in one run. Returns how many findings its start counted.
    fn run(&self, count: u64) -> u64 {
        let run = self.start();
        let found = run.metrics.audit.failures.get();
        (0..count).for_each(|n| run.audit.record(refused(n)));
        run.audit.close();
        found
    }

    fn kept(&self) -> LedgerState {
        LedgerState::read(&self.db()).unwrap().unwrap()
    }

    fn only_file(&self) -> std::path::PathBuf {
        files::list(&self.log()).unwrap().remove(0).path
    }
}

fn refused(n: u64) -> Reject {
    let detail = format!("refused {n}");
    Reject {
        reason: "signature_mismatch",
        ..Reject::operator(crate::observe::audit::reject_id(), Clock::System.now(), "a", detail)
    }
}

fn last(log: &Path) -> Record {
    let text = fs::read_to_string(files::list(log).unwrap().pop().unwrap().path).unwrap();
    Record::parse(text.lines().last().unwrap().as_bytes()).unwrap()
}

#[test]
fn the_head_is_the_logs_and_a_log_that_goes_on_is_fine() {
    let folder = Folder::new();
    assert_eq!((folder.run(0), folder.kept().head.unwrap().seq), (0, 0));
    for end in [3, 6] {
        assert_eq!(folder.run(3), 0);
        let record = last(&folder.log());
        assert_eq!(folder.kept().head, Some(Mark { seq: record.seq, hash: record.hash }));
        assert_eq!(record.seq, end);
    }
    // As if killed between the log's sync and the head: the head is behind.
    let conn = Connection::open(folder.db()).unwrap();
    let first =
        Record::parse(fs::read_to_string(folder.only_file()).unwrap().lines().next().unwrap().as_bytes());
    head::write(&conn, &Mark { seq: 1, hash: first.unwrap().hash }).unwrap();
    assert_eq!((folder.run(1), folder.kept().head.unwrap().seq), (0, 7));
    assert!(folder.kept().findings.is_empty());
}

#[test]
fn a_log_that_was_cut_is_told_at_every_start_until_it_is_accepted() {
    let folder = Folder::new();
    folder.run(5);
    let text = fs::read_to_string(folder.only_file()).unwrap();
    let two: String = text.lines().take(2).map(|line| format!("{line}\n")).collect();
    fs::write(folder.only_file(), two).unwrap();
    assert_eq!(folder.run(9), 1, "the first start");
    assert_eq!(verify::verify(&folder.log()).unwrap().last_seq, 11, "it has grown again");
    assert_eq!(folder.run(0), 1, "the second start");
    let kept = folder.kept();
    assert_eq!((kept.head.as_ref().unwrap().seq, kept.findings.len()), (11, 1));
    assert_eq!(kept.findings[0].kept.seq, 5);
    assert!(kept.findings[0].why.contains("ends with record 2"), "{}", kept.findings[0].why);
    LedgerState::accept(&folder.db(), &kept.head.unwrap(), false).unwrap();
    assert_eq!(folder.run(0), 0);
}

#[test]
fn a_log_that_is_empty_or_made_anew_is_found() {
    let folder = Folder::new();
    folder.run(3);
    fs::remove_file(folder.only_file()).unwrap();
    assert_eq!(folder.run(3), 1);
    let other = Folder::new();
    other.run(3);
    fs::copy(other.only_file(), folder.only_file()).unwrap();
    assert_eq!(folder.run(0), 2);
    let findings = folder.kept().findings;
    assert!(findings[0].why.contains("is empty") && findings[1].why.contains("another one"), "{findings:?}");
}

#[test]
fn a_database_that_fails_delays_no_record_and_is_noted_in_once_it_is_back() {
    let folder = Folder::new();
    folder.run(1);
    let aside = folder.dir.path().join("aside");
    fs::rename(folder.db(), &aside).unwrap();
    let run = folder.start();
    run.audit.record(refused(1));
    eventually("it fails", || run.metrics.audit.head_failures.get() > 0);
    eventually("its record", || run.metrics.audit.records.get() == 1);
    fs::rename(&aside, folder.db()).unwrap();
    eventually("its head", || folder.kept().head.is_some_and(|head| head.seq == 2));
    run.audit.close();
    assert_eq!(run.metrics.audit.failures.get(), 0);
}

#[test]
fn an_act_is_recorded_once_by_whoever_has_the_log_and_one_without_an_end_as_begun() {
    let folder = Folder::new();
    let done = |source: &str| Done { source: source.to_owned(), what: format!("2 dropped of {source}") };
    let run = folder.start();
    let mut act = Act::begin(&folder.db(), "drop").unwrap();
    act.end(&[done("a"), done("b")]).unwrap();
    eventually("its records", || act.is_recorded().unwrap());
    assert_eq!(run.metrics.audit.records.get(), 2);
    let record = last(&folder.log());
    assert_eq!(
        (record.reason.as_str(), record.status, record.detail.as_str()),
        ("operator", 200, "2 dropped of b")
    );
    let mut nothing = Act::begin(&folder.db(), "drop").unwrap();
    nothing.end(&[]).unwrap();
    assert!(nothing.is_recorded().unwrap());
    run.audit.close();

    // Without a gateway the act waits. An act of a killed command is recorded after a time.
    let mut waits = Act::begin(&folder.db(), "retry").unwrap();
    waits.end(&[done("c")]).unwrap();
    let killed = Act::begin(&folder.db(), "show").unwrap();
    assert!(!waits.is_recorded().unwrap());
    assert_eq!(folder.run(0), 0);
    assert!(waits.is_recorded().unwrap() && !killed.is_recorded().unwrap());
    assert_eq!(last(&folder.log()).detail, "2 dropped of c");
    Connection::open(folder.db()).unwrap().execute("UPDATE operator_acts SET at = 0", []).unwrap();
    folder.run(0);
    assert_eq!(last(&folder.log()).detail, "show: begun, but its end was not reported");
    assert_eq!(verify::verify(&folder.log()).unwrap().records, 4);
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = crate::base::clock::instant();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
