use super::record::Record;
use super::verify::{self, verify};
use super::*;

/// The `n`th reject of a series.
pub(super) fn reject(n: u64) -> Reject {
    Reject {
        id: reject_id(),
        at: Timestamp::from_microsecond(1_795_000_000_000_000 + n as i64).unwrap(),
        source: "iof".into(),
        provider: "iof".into(),
        reason: "signature_mismatch",
        status: 401,
        client: Some([203, 0, 113, 7].into()),
        method: "POST".to_owned(),
        path: "/hooks/iof".to_owned(),
        body: Some(("ab".repeat(32), 412)),
        headers: vec![
            ("x-iof-signature".into(), "sha256:9f2c".to_owned()),
            ("user-agent".into(), format!("test/{n}")),
        ],
        detail: "no configured secret matches (2 tried)".to_owned(),
        observed: false,
    }
}

/// All records of a log, in order.
pub(super) fn records(dir: &Path) -> Vec<Record> {
    let mut all = Vec::new();
    for file in files::list(dir).unwrap() {
        let text = std::fs::read_to_string(file.path).unwrap();
        all.extend(text.lines().map(|line| Record::parse(line.as_bytes()).unwrap()));
    }
    all
}

pub(super) fn options() -> Options {
    Options::new(Duration::from_secs(90 * 86400), 1 << 30)
}

struct Gateway {
    audit: Audit,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
}

fn open(dir: &Path) -> Gateway {
    open_with(dir, options())
}

fn open_with(dir: &Path, options: Options) -> Gateway {
    let metrics = Arc::new(Metrics::new().unwrap());
    let readiness = Arc::new(Readiness::default());
    let audit =
        Audit::open(dir, options, None, Clock::System, Arc::clone(&metrics), Arc::clone(&readiness)).unwrap();
    Gateway { audit, metrics, readiness }
}

/// Waits for the writer's thread, at most for a generous time.
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = clock::instant();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_flood_is_bounded_and_every_reject_of_it_counted() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = open(dir.path());
    thread::scope(|scope| {
        for part in 0..4 {
            let audit = gateway.audit.clone();
            scope.spawn(move || (0..2500).for_each(|n| audit.record(reject(part * 2500 + n))));
        }
    });
    gateway.audit.close();
    let records = records(dir.path());
    let suppressed: u64 = records.iter().filter_map(|record| record.suppressed).sum();
    assert!(records.len() < 150, "{} records", records.len());
    assert_eq!(records.len() as u64 + suppressed, 10_000);
    assert_eq!(gateway.metrics.audit.records.get(), records.len() as u64);
    assert_eq!(gateway.metrics.audit.suppressed.get(), suppressed);
    assert_eq!(gateway.metrics.audit.failures.get(), 0);
    verify(dir.path()).unwrap();
}

#[test]
fn a_flood_beyond_the_channel_is_counted_too() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = open(dir.path());
    for n in 0..12_000 {
        let mut of = reject(n);
        of.source = format!("source-{}", n % 240).into();
        gateway.audit.record(of);
    }
    gateway.audit.close();
    let records = records(dir.path());
    let suppressed: u64 = records.iter().filter_map(|record| record.suppressed).sum();
    assert_eq!(records.len() as u64 + suppressed, 12_000);
    verify(dir.path()).unwrap();
}

#[test]
fn a_sum_wakes_an_idle_writer() {
    let dir = tempfile::tempdir().unwrap();
    // No reject passes the limit, so the writer gets only the message about the aggregate.
    let gateway = open_with(dir.path(), Options { per_second: 0, ..options() });
    thread::sleep(Duration::from_millis(50));
    for n in 0..50 {
        gateway.audit.record(reject(n));
    }
    eventually("the sums", || {
        gateway.metrics.audit.records.get() + gateway.metrics.audit.suppressed.get() == 50
    });
    gateway.audit.close();
}

#[test]
fn the_chain_goes_on_after_a_restart_and_the_ids_are_the_callers() {
    let dir = tempfile::tempdir().unwrap();
    let mut ids = Vec::new();
    for n in 0..3 {
        let gateway = open(dir.path());
        let of = reject(n);
        ids.push(of.id.clone());
        gateway.audit.record(of);
        gateway.audit.close();
        gateway.audit.close();
    }
    assert_eq!(records(dir.path()).iter().map(|r| r.id.clone()).collect::<Vec<_>>(), ids);
    assert_eq!(verify(dir.path()).unwrap().last_seq, 3);
    assert!(ids.iter().all(|id| id.len() == 24 && id.starts_with("rej_")), "{ids:?}");
}

#[test]
fn a_second_writer_is_refused_and_a_late_record_counted() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = open(dir.path());
    let second = Journal::open(dir.path(), options(), Clock::System);
    assert!(matches!(second, Err(OpenError::Held(_))));
    gateway.audit.close();
    gateway.audit.record(reject(0));
    assert_eq!(gateway.metrics.audit.failures.get(), 1);
    open(dir.path()).audit.close();
}

#[test]
fn what_is_held_back_when_the_writer_is_gone_is_counted_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = open_with(dir.path(), Options { per_second: 0, ..options() });
    gateway.audit.inner.to_writer.send(Message::Close).unwrap();
    let has_ended = || gateway.audit.inner.thread.lock().unwrap().as_ref().unwrap().is_finished();
    eventually("the writer ends", has_ended);
    for n in 0..7 {
        gateway.audit.record(reject(n));
    }
    assert_eq!(gateway.metrics.audit.failures.get(), 0);
    gateway.audit.close();
    assert_eq!(gateway.metrics.audit.failures.get(), 7);
}

#[test]
fn a_failing_disk_is_told_and_what_failed_is_summed_once_it_is_back() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("audit");
    let gateway = open(&dir);
    let ready = || format!("{:?}", gateway.readiness).contains("audit: true");
    gateway.audit.record(reject(0));
    eventually("first record", || gateway.metrics.audit.records.get() == 1);
    assert!(ready());

    std::fs::rename(&dir, parent.path().join("gone")).unwrap();
    std::fs::write(&dir, "no directory").unwrap();
    for n in 1..=5 {
        gateway.audit.record(reject(n));
    }
    eventually("failures", || gateway.metrics.audit.failures.get() == 5);
    eventually("told", || !ready());

    std::fs::remove_file(&dir).unwrap();
    eventually("recovery without a new reject", || gateway.metrics.audit.records.get() == 2);
    eventually("told again", ready);
    gateway.audit.record(reject(6));
    gateway.audit.close();
    let records = records(&dir);
    assert_eq!(records.iter().map(|r| (r.seq, r.suppressed)).collect::<Vec<_>>(), [(2, Some(4)), (3, None)]);
    verify(&dir).unwrap();
    // The chain survives the directory: the moved files fit before the new ones.
    for file in files::list(&parent.path().join("gone")).unwrap() {
        std::fs::rename(&file.path, dir.join(file.name())).unwrap();
    }
    assert_eq!(verify(&dir).unwrap().records, 3);
}

#[test]
fn a_frozen_disk_delays_nobody_takes_no_memory_and_every_reject_is_counted() {
    const REJECTS: u64 = 40_000;
    let dir = tempfile::tempdir().unwrap();
    let (metrics, readiness) = (Arc::new(Metrics::new().unwrap()), Arc::new(Readiness::default()));
    let mut journal = Journal::open(dir.path(), options(), Clock::System).unwrap();
    let (mut disk, filled) = journal::tests::freeze(&mut journal);
    let audit = Audit::start(journal, 100, Arc::clone(&metrics), readiness).unwrap();
    let begun = clock::instant();
    for n in 0..REJECTS {
        let mut of = reject(n);
        of.source = format!("source-{}", n % 240).into();
        audit.record(of);
    }
    assert!(begun.elapsed() < Duration::from_secs(60), "somebody waited");
    assert_eq!(metrics.audit.records.get(), 0, "the disk took something");
    eventually("what may wait", || audit.inner.to_writer.len() == WAITING);
    assert!(audit.inner.limiter.is_holding());

    let mut pipe = disk.try_clone().unwrap();
    let thaw = thread::spawn(move || {
        let mut text = Vec::new();
        let mut part = vec![0; 1 << 16];
        while !text.ends_with(b"end\n") {
            let read = io::Read::read(&mut pipe, &mut part).unwrap();
            text.extend_from_slice(&part[..read]);
        }
        text.truncate(text.len() - 4);
        text.split_off(filled)
    });
    audit.close();
    io::Write::write_all(&mut disk, b"end\n").unwrap();
    let first = &files::irregular_files(dir.path()).unwrap()[0].path;
    std::fs::remove_file(first).unwrap();
    std::fs::write(first, thaw.join().unwrap()).unwrap();
    verify(dir.path()).unwrap();
    let records = records(dir.path());
    let suppressed: u64 = records.iter().filter_map(|record| record.suppressed).sum();
    assert_eq!(records.len() as u64 + suppressed, REJECTS);
    assert!(records.len() < WAITING + 2 * 1024 + 2 * 240, "{} records", records.len());
    assert_eq!(
        (metrics.audit.records.get(), metrics.audit.suppressed.get()),
        (records.len() as u64, suppressed)
    );
}

#[test]
fn with_a_key_the_end_of_a_run_is_anchored() {
    let dir = tempfile::tempdir().unwrap();
    let key = || Key::new(&crate::config::secret::Secret::new("a key of the gateway's")).unwrap();
    for run in 1..=2 {
        let (metrics, readiness) = (Arc::new(Metrics::new().unwrap()), Arc::new(Readiness::default()));
        let audit =
            Audit::open(dir.path(), options(), Some(key()), Clock::System, Arc::clone(&metrics), readiness);
        let audit = audit.unwrap();
        audit.record(reject(run));
        audit.close();
        assert_eq!(
            (metrics.audit.records.get(), metrics.audit.anchors.get()),
            (1, 1),
            "anchors are no records"
        );
    }
    assert_eq!(
        records(dir.path()).iter().map(Record::is_anchor).collect::<Vec<_>>(),
        [false, true, false, true]
    );
    let demand = verify::VerifyOptions {
        keys: vec![key()],
        anchored_since: Some(1),
        anchored_to: Some(4),
        ..verify::VerifyOptions::default()
    };
    assert_eq!(verify::verify_with(dir.path(), &demand).unwrap().anchors.unwrap().last_seq, 4);
}
