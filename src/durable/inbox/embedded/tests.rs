//! The embedded inbox against a real SQLite file.

mod model;
mod replay;
mod speed;
mod upkeep;

use std::collections::HashSet;

use jiff::Timestamp;
use tempfile::TempDir;

use super::*;
use crate::config::OnConflict;
use crate::durable::inbox::Owner;
use crate::event::{BodyHash, Event, Identity};
use crate::observe::metrics::Metrics;

const DAY: i64 = 86_400_000_000;
const START: i64 = 1_760_000_000_000_000;

/// Small enough that a few hundred events go through flush, merge and sweep.
pub(super) fn tiny() -> Tuning {
    Tuning {
        memtable: 16,
        fan_out: 3,
        per_block: Some(4),
        layout: Layout { page_size: 4096, ..Layout::default() },
        probe: Duration::from_millis(20),
        ..Tuning::default()
    }
}

pub(super) fn days(window: u64, retain: u64) -> Options {
    let day = Duration::from_secs(86_400);
    Options { window: day * window as u32, retain: day * retain as u32 }
}

fn delivery(identity: u64, body: &str, on_conflict: OnConflict) -> EnqueueRequest {
    let hash = BodyHash::of(&identity.to_be_bytes());
    EnqueueRequest {
        source: Arc::from("test"),
        provider: "basiq".into(),
        owner: Owner([0; 16]),
        identity: Identity(*hash.0.first_chunk().unwrap()),
        body: BodyHash::of(body.as_bytes()),
        on_conflict,
        event: Event::with_payload(&format!("e{identity}"), &format!("\"{body}\"")),
    }
}

pub(super) fn forward(identity: u64, body: &str) -> EnqueueRequest {
    delivery(identity, body, OnConflict::Forward)
}

fn new(id: &str) -> Enqueued {
    Enqueued::Accepted { id: id.to_owned(), conflict: false }
}

fn duplicate(id: &str) -> Enqueued {
    Enqueued::Duplicate { id: id.to_owned(), dropped: false }
}

fn store(dir: &TempDir, options: Options) -> Store {
    Store::open(&dir.path().join("hookgate.db"), options, tiny()).unwrap()
}

fn enqueue(store: &mut Store, batch: &[EnqueueRequest], now: i64) -> Vec<Enqueued> {
    store.enqueue(&batch.iter().collect::<Vec<_>>(), now).unwrap()
}

fn one(store: &mut Store, request: EnqueueRequest, now: i64) -> Enqueued {
    enqueue(store, &[request], now).remove(0)
}

fn readable(dir: &TempDir) -> Vec<(i64, String)> {
    Reader::open(&dir.path().join("hookgate.db")).unwrap().after(0, 100_000).unwrap()
}

/// A copy of the files, as a crash would leave them now.
fn crash_image(dir: &TempDir) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["hookgate.db", "hookgate.db-wal"] {
        std::fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
    }
    copy
}

#[test]
fn a_forwarded_conflict_enters_once_and_each_body_keeps_its_id() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(&dir, days(7, 7));
    let second = format!("e1~{}", hex::encode(&BodyHash::of(b"b").0[..4]));
    assert_eq!(one(&mut store, forward(1, "a"), START), new("e1"));
    assert_eq!(one(&mut store, forward(1, "a"), START), duplicate("e1"));
    let entered = one(&mut store, forward(1, "b"), START);
    assert_eq!(entered, Enqueued::Accepted { id: second.clone(), conflict: true });
    assert_eq!(one(&mut store, forward(1, "b"), START), duplicate(&second));
    assert_eq!(one(&mut store, forward(1, "a"), START), duplicate("e1"));
    assert!(matches!(one(&mut store, forward(1, "c"), START), Enqueued::Accepted { conflict: true, .. }));
    assert_eq!(one(&mut store, forward(1, "b"), START), duplicate(&second));
    assert_eq!(one(&mut store, forward(1, "a"), START), duplicate("e1"));
    let events = readable(&dir);
    assert_eq!(events.len(), 3);
    assert!(events[1].1.contains(&second) && events[1].1.contains("\"conflict\":true"));
}

#[test]
fn a_dropped_conflict_is_told_once_and_never_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(&dir, days(7, 7));
    one(&mut store, forward(1, "a"), START);
    let drop = || delivery(1, "b", OnConflict::Drop);
    let dropped = Enqueued::Duplicate { id: "e1".to_owned(), dropped: true };
    assert_eq!(one(&mut store, drop(), START), dropped);
    assert_eq!(one(&mut store, drop(), START), duplicate("e1"));
    assert_eq!(one(&mut store, forward(1, "a"), START), duplicate("e1"));
    assert_eq!(readable(&dir).len(), 1);
    for n in 2..5 {
        one(&mut store, forward(n, "a"), START);
    }
    let mut reader = Reader::open(&dir.path().join("hookgate.db")).unwrap();
    for (last, from) in [(0, 4), (1, 3), (3, 1), (4, 0), (99, 0)] {
        let (total, cursor) = reader.end(last).unwrap();
        assert_eq!(
            (total, reader.after(cursor, 99).unwrap()),
            (4, readable(&dir)[from..].to_vec()),
            "the last {last}"
        );
    }
}

#[test]
fn an_unknown_body_is_a_duplicate_of_any_and_any_of_it() {
    let mut dir = tempfile::tempdir().unwrap();
    let mut store = store(&dir, days(7, 7));
    let unknown = |identity| EnqueueRequest { body: BodyHash::UNKNOWN, ..forward(identity, "log") };
    let known = |store: &mut Store, identity| store.is_known(&forward(identity, "").identity, START).unwrap();
    assert!(!known(&mut store, 1));
    // After the genuine delivery, and after a conflict too.
    one(&mut store, forward(1, "a"), START);
    assert_eq!(one(&mut store, unknown(1), START), duplicate("e1"));
    assert!(matches!(one(&mut store, forward(1, "b"), START), Enqueued::Accepted { conflict: true, .. }));
    assert_eq!(one(&mut store, unknown(1), START), duplicate("e1"));
    // Before the genuine delivery, in one batch too.
    assert_eq!(enqueue(&mut store, &[unknown(2), forward(2, "a")], START), [new("e2"), duplicate("e2")]);
    assert_eq!(one(&mut store, unknown(3), START), new("e3"));
    for restarted in [false, true] {
        if restarted {
            dir = crash_image(&dir);
            store = super::tests::store(&dir, days(7, 7));
        }
        for on_conflict in [OnConflict::Drop, OnConflict::Forward] {
            assert_eq!(one(&mut store, delivery(3, "a", on_conflict), START), duplicate("e3"));
        }
        assert_eq!(one(&mut store, unknown(3), START), duplicate("e3"));
        assert!(known(&mut store, 1) && known(&mut store, 3) && !known(&mut store, 4));
    }
    assert_eq!(readable(&dir).len(), 4);
    assert!(!store.is_known(&forward(3, "").identity, START + 7 * DAY).unwrap(), "the window is over");
}

#[tokio::test]
async fn the_writer_answers_look_ups_between_deliveries() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("hookgate.db");
    let inbox = Embedded::tuned(&db, days(7, 7), Clock::System, watched().0, tiny()).unwrap();
    let is_known = |identity| inbox.is_known(forward(identity, "").identity);
    assert_eq!(is_known(1).await, Ok(false));
    inbox.enqueue(forward(1, "a")).await.unwrap();
    assert_eq!((is_known(1).await, is_known(2).await), (Ok(true), Ok(false)));
    inbox.close().await;
}

#[test]
fn one_batch_sees_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(&dir, days(7, 7));
    let batch = [forward(1, "a"), forward(1, "a"), delivery(1, "b", OnConflict::Drop), forward(2, "a")];
    let dropped = Enqueued::Duplicate { id: "e1".to_owned(), dropped: true };
    assert_eq!(enqueue(&mut store, &batch, START), [new("e1"), duplicate("e1"), dropped, new("e2")]);
}

#[test]
fn an_identity_is_forgotten_after_the_window_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(&dir, days(7, 30));
    one(&mut store, forward(1, "a"), START);
    one(&mut store, forward(1, "b"), START + 6 * DAY);
    assert!(matches!(one(&mut store, forward(1, "b"), START + 13 * DAY - 1), Enqueued::Duplicate { .. }));
    assert_eq!(one(&mut store, forward(1, "b"), START + 13 * DAY), new("e1"));
    one(&mut store, forward(2, "a"), START);
    assert_eq!(one(&mut store, forward(2, "a"), START + 7 * DAY - 1), duplicate("e2"));
    assert_eq!(one(&mut store, forward(2, "a"), START + 7 * DAY), new("e2"));
}

#[test]
fn events_outlive_retain_only_as_memory_and_cursors_are_never_reused() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(&dir, days(7, 1));
    for n in 0..200 {
        one(&mut store, forward(n, "a"), START);
    }
    // First the upkeep due at START, so that the later one starts from there.
    for now in [START, START + 2 * DAY] {
        assert!(store.busy(now));
        while store.busy(now) {
            store.upkeep(now).unwrap();
        }
    }
    assert!(readable(&dir).is_empty());
    let blanked = "SELECT value FROM meta WHERE name = 'blanked'";
    let blanked: i64 = store.conn.query_row(blanked, [], |row| row.get(0)).unwrap();
    assert_eq!(blanked, 200, "after a restart these are not blanked again");
    assert_eq!(one(&mut store, forward(7, "a"), START + 2 * DAY), duplicate("e7"));
    while store.busy(START + 30 * DAY) {
        store.upkeep(START + 30 * DAY).unwrap();
    }
    let rows =
        |store: &Store| store.conn.query_row("SELECT count(*) FROM events", [], |row| row.get::<_, i64>(0));
    assert_eq!(rows(&store).unwrap(), 1);
    store.close();
    let mut store = Store::open(&dir.path().join("hookgate.db"), days(7, 1), tiny()).unwrap();
    assert_eq!(one(&mut store, forward(7, "a"), START + 30 * DAY), new("e7"));
    assert_eq!(readable(&dir)[0].0, 201);
    assert_eq!(Reader::open(&dir.path().join("hookgate.db")).unwrap().end(10).unwrap(), (1, 0));
}

#[test]
fn a_short_window_does_not_shorten_retain() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(&dir, days(1, 7));
    for n in 0..100 {
        one(&mut store, forward(n, "a"), START);
    }
    store.upkeep(START + 7 * DAY - 1).unwrap();
    while store.busy(START + 7 * DAY - 1) {
        store.upkeep(START + 7 * DAY - 1).unwrap();
    }
    assert_eq!(readable(&dir).len(), 100);
    store.upkeep(START + 7 * DAY).unwrap();
    assert!(!store.busy(START + 7 * DAY));
    assert_eq!(readable(&dir).len(), 1, "the newest row stays");
}

#[test]
fn a_full_disk_refuses_loses_nothing_and_passes() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(&dir, days(7, 7));
    let pages: i64 = store.conn.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    let limit = |store: &Store, pages: i64| {
        store.conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
    };
    limit(&store, pages + 12);
    let (mut accepted, mut refused) = (HashSet::new(), Vec::new());
    for n in 0..60 {
        let body = format!("{n} {}", "x".repeat(700));
        match store.enqueue(&[&forward(n, &body), &forward(n + 1000, &body)], START) {
            Ok(_) => accepted.extend([n, n + 1000]),
            Err(error) => {
                assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DiskFull));
                refused.push((n, body));
                let _ = store.recover(START);
            }
        }
    }
    assert!(!accepted.is_empty() && !refused.is_empty());
    limit(&store, 1_000_000);
    store.recover(START).unwrap();
    for (n, body) in refused {
        assert_eq!(one(&mut store, forward(n, &body), START), new(&format!("e{n}")));
        accepted.insert(n);
    }
    assert_eq!(readable(&dir).len(), accepted.len());
}

pub(super) fn watched() -> (StoreHealth, QueueMetrics) {
    let metrics = Metrics::new().unwrap().queue("embedded");
    (StoreHealth { metrics: metrics.clone(), readiness: Arc::default() }, metrics)
}

fn start(dir: &TempDir) -> (Embedded, QueueMetrics) {
    let (health, metrics) = watched();
    let clock = Clock::manual(Timestamp::from_microsecond(START).unwrap());
    (Embedded::tuned(&dir.path().join("hookgate.db"), days(7, 7), clock, health, tiny()).unwrap(), metrics)
}

#[tokio::test]
async fn the_thread_recovers_by_itself_from_a_failing_database() {
    let dir = tempfile::tempdir().unwrap();
    let (inbox, metrics) = start(&dir);
    assert_eq!(inbox.enqueue(forward(1, "a")).await.unwrap(), new("e1"));
    let other = rusqlite::Connection::open(dir.path().join("hookgate.db")).unwrap();
    other
        .execute_batch(
            "CREATE TRIGGER broken BEFORE INSERT ON events BEGIN SELECT raise(ABORT, 'broken'); END",
        )
        .unwrap();
    assert!(matches!(inbox.enqueue(forward(2, "a")).await, Err(EnqueueError::Refused(_))));
    assert_eq!(metrics.up.get(), 0);
    assert!(matches!(inbox.enqueue(forward(2, "a")).await, Err(EnqueueError::Refused(_))));
    other.execute_batch("DROP TRIGGER broken").unwrap();
    while metrics.up.get() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(inbox.enqueue(forward(2, "a")).await.unwrap(), new("e2"));
    assert_eq!(inbox.enqueue(forward(1, "a")).await.unwrap(), duplicate("e1"));
    inbox.close().await;
}

#[tokio::test]
async fn dropping_the_future_cancels_nothing_and_close_drains() {
    let dir = tempfile::tempdir().unwrap();
    let (inbox, _) = start(&dir);
    for n in 0..500 {
        let request = inbox.enqueue(forward(n, "a"));
        let _ = tokio::time::timeout(Duration::ZERO, request).await;
    }
    inbox.close().await;
    assert!(!dir.path().join("hookgate.db-wal").exists());
    assert_eq!(readable(&dir).len(), 500);
    let (inbox, _) = start(&dir);
    assert_eq!(inbox.enqueue(forward(499, "a")).await.unwrap(), duplicate("e499"));
    inbox.close().await;
}

#[tokio::test]
async fn open_says_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("hookgate.db");
    let open = |db: &Path| {
        let opened = Embedded::tuned(db, days(7, 7), Clock::System, watched().0, tiny());
        opened.err().map(|error| error.to_string()).unwrap_or_default()
    };
    let (inbox, _) = start(&dir);
    assert!(open(&db).ends_with("hookgate.db is in use by another hookgate"), "{}", open(&db));
    inbox.close().await;
    rusqlite::Connection::open(&db).unwrap().pragma_update(None, "user_version", 9).unwrap();
    assert!(open(&db).contains("schema version 9"), "{}", open(&db));
    std::fs::write(&db, "no database at all, but long enough to look like one to a reader").unwrap();
    assert!(open(&db).ends_with("is not a hookgate database"), "{}", open(&db));
    assert!(open(&dir.path().join("absent/hookgate.db")).contains("No such file"));
}
