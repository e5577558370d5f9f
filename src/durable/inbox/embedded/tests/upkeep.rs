//! Expired data is deleted in a bounded time and completely.

use super::super::block::Entry;
use super::super::run::RunWriter;
use super::super::{block, run};
use super::*;

fn count(store: &Store, of: &str) -> i64 {
    store.conn.query_row(&format!("SELECT count(*) FROM {of}"), [], |row| row.get(0)).unwrap()
}

fn blocks(store: &Store) -> i64 {
    (0..run::LEVELS).map(|level| count(store, &format!("blocks{level}"))).sum()
}

/// Three weeks of events, and one event a month later. All but that one are expired.
fn after_a_month(dir: &TempDir) -> (Store, i64) {
    let mut store = store(dir, days(7, 7));
    let mut now = START;
    for step in 0..300 {
        now += DAY / 14;
        let batch: Vec<EnqueueRequest> = (0..1 + step % 19).map(|n| forward(step * 100 + n, "a")).collect();
        enqueue(&mut store, &batch, now);
        for level in 0..run::LEVELS {
            let runs = count(&store, &format!("runs WHERE state = 1 AND level = {level}"));
            assert!(runs <= 2 * tiny().fan_out as i64, "{runs} runs at level {level} wait to be merged");
        }
    }
    assert!(blocks(&store) > 100 && count(&store, "filters") > 5);
    now += 30 * DAY;
    one(&mut store, forward(9_999_999, "a"), now);
    (store, now)
}

fn assert_empty(store: &Store) {
    assert_eq!((blocks(store), count(store, "filters"), count(store, "runs")), (0, 0, 0));
    assert_eq!(count(store, "events"), 1);
}

#[test]
fn idle_moments_delete_expired_data() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, now) = after_a_month(&dir);
    let mut moments = 0;
    while store.busy(now) {
        store.upkeep(now).unwrap();
        moments += 1;
        assert!(moments < 100, "it is never done");
    }
    assert!(moments > 1);
    assert_empty(&store);
    let changes = store.conn.total_changes();
    store.upkeep(now).unwrap();
    assert_eq!(store.conn.total_changes(), changes, "an idle store writes nothing");
}

#[test]
fn each_delivery_sweeps_a_little_and_a_crash_only_begins_it_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, now) = after_a_month(&dir);
    let mut at = dir;
    for step in 0..1500 {
        // A duplicate writes no event, and sweeps as well.
        assert_eq!(one(&mut store, forward(9_999_999, "a"), now), duplicate("e9999999"));
        if !store.busy(now) {
            break;
        }
        if step % 7 == 6 {
            let image = crash_image(&at);
            drop(store);
            at = image;
            store = super::store(&at, days(7, 7));
        }
    }
    assert_empty(&store);
}

#[test]
fn a_conflict_is_remembered_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = store(&dir, days(7, 7));
    let second = format!("e1~{}", hex::encode(&BodyHash::of(b"b").0[..4]));
    one(&mut first, forward(1, "a"), START);
    one(&mut first, forward(1, "b"), START);
    one(&mut first, forward(1, "c"), START);
    drop(first);
    let mut store = store(&dir, days(7, 7));
    assert_eq!(one(&mut store, forward(1, "b"), START), duplicate(&second));
    assert_eq!(one(&mut store, forward(1, "a"), START), duplicate("e1"));
}

#[test]
fn cursors_are_not_reused_after_the_events_were_deleted_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = store(&dir, days(7, 7));
    for n in 0..40 {
        one(&mut first, forward(n, "a"), START);
    }
    let flushed: i64 =
        first.conn.query_row("SELECT value FROM meta WHERE name = 'flushed'", [], |row| row.get(0)).unwrap();
    first.conn.execute("DELETE FROM events", []).unwrap();
    drop(first);
    let mut store = store(&dir, days(7, 7));
    one(&mut store, forward(50, "a"), START);
    assert_eq!((readable(&dir)[0].0, flushed > 16), (flushed + 1, true));
    assert_eq!(one(&mut store, forward(50, "a"), START), duplicate("e50"));
}

/// A run of these keys, begun for `most` keys.
fn written(store: &Store, keys: &[Identity], most: u64) -> run::Run {
    let mut writer = RunWriter::begin(&store.conn, 0, most, 254).unwrap();
    for (seq, key) in keys.iter().enumerate() {
        writer.push(&store.conn, &Entry { key: *key, seq: seq as i64, received: START }).unwrap();
    }
    writer.finish(&store.conn, keys.len() as i64).unwrap()
}

#[test]
fn a_run_of_several_filter_chunks_holds_all_its_keys() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir, days(7, 7));
    let mut keys: Vec<Identity> = (0..60_000).map(|_| Identity(crate::base::clock::random())).collect();
    keys.sort_unstable();
    // A merge begins for all entries, but expired ones are left out. So a run may have fewer.
    for (keys, most, chunks) in
        [(&keys[..], 60_000, 3), (&keys[..20_000], 90_000, 4), (&keys[..1], 60_000, 3)]
    {
        let before = count(&store, "filters");
        let run = written(&store, keys, most);
        assert_eq!((run.entries, count(&store, "filters") - before), (keys.len() as i64, chunks));
        for (seq, key) in keys.iter().enumerate() {
            let found = run.find(&store.conn, key).unwrap().map(|entry| entry.seq);
            assert_eq!(found, Some(seq as i64), "of {} keys", keys.len());
        }
    }
}

#[test]
fn keys_that_begin_alike_are_found_over_the_blocks_that_hold_them() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(&dir, days(7, 7));
    let alike =
        |n: u16| Identity(std::array::from_fn(|at| if at < 14 { 7 } else { n.to_be_bytes()[at - 14] }));
    let keys: Vec<Identity> = (0..2000).map(alike).collect();
    let run = written(&store, &keys, 2000);
    for (seq, key) in keys.iter().enumerate() {
        assert_eq!(run.find(&store.conn, key).unwrap().map(|entry| entry.seq), Some(seq as i64));
    }
    assert!(run.find(&store.conn, &alike(2001)).unwrap().is_none());
}

#[test]
fn a_block_fills_a_page_and_spills_onto_no_second() {
    let pages = |entries: usize| -> i64 {
        let conn = rusqlite::Connection::open_in_memory().unwrap();
        conn.execute_batch("PRAGMA page_size = 8192; CREATE TABLE b (id INTEGER PRIMARY KEY, entries BLOB)")
            .unwrap();
        for id in 0..100 {
            conn.execute("INSERT INTO b VALUES (?1, ?2)", (id, vec![7_u8; entries * block::WIDTH])).unwrap();
        }
        conn.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap()
    };
    let fits = block::per_page(8192);
    assert!((100..105).contains(&pages(fits)), "{} pages", pages(fits));
    assert!(pages(fits + 2) > 105, "two entries more fit as well");
}

#[test]
fn the_log_is_moved_into_the_database_before_it_is_long_and_at_the_end() {
    const LONG: u64 = 128 << 10;
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("hookgate.db");
    let tuning = Tuning { layout: Layout { checkpoint_bytes: LONG as i64, ..tiny().layout }, ..tiny() };
    let mut store = Store::open(&db, days(7, 7), tuning).unwrap();
    let log = || dir.path().join("hookgate.db-wal").metadata().map_or(0, |log| log.len());
    let body = "x".repeat(4000);
    let (mut moved, mut before) = (0, 0);
    for n in 0..1000 {
        one(&mut store, forward(n, &body), START);
        store.checkpoint();
        // The writer waits at six times LONG, by the bytes of events. In whole pages, the log has up to four times as many.
        assert!(log() < 24 * LONG, "the log has {} bytes", log());
        let size = db.metadata().unwrap().len();
        moved += u32::from(size > before);
        before = size;
    }
    assert!((3..700).contains(&moved), "moved {moved} times");
    // An open reader prevents the log's removal, but not its checkpoint.
    let mut reader = Reader::open(&db).unwrap();
    assert!(log() > 0);
    store.close();
    assert_eq!(log(), 0);
    assert_eq!(reader.after(0, 2000).unwrap().len(), 1000);
}

#[test]
fn a_store_that_cannot_write_is_not_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(&dir, days(7, 7));
    let broken = "CREATE TEMP TRIGGER broken BEFORE UPDATE ON meta BEGIN SELECT raise(ABORT, 'x'); END";
    store.conn.execute_batch(broken).unwrap();
    assert!(store.recover(START).is_err());
    store.conn.execute_batch("DROP TRIGGER broken").unwrap();
    store.recover(START).unwrap();
}

#[tokio::test]
async fn the_window_is_told_by_the_clock_and_a_closed_store_is_down() {
    let dir = tempfile::tempdir().unwrap();
    let (health, metrics) = watched();
    let readiness = health.readiness.clone();
    let clock = Clock::manual(Timestamp::from_microsecond(START).unwrap());
    let inbox =
        Embedded::tuned(&dir.path().join("hookgate.db"), days(7, 7), clock.clone(), health, tiny()).unwrap();
    assert_eq!(inbox.enqueue(forward(1, "a")).await.unwrap(), new("e1"));
    let Clock::Manual(micros) = &clock else { unreachable!() };
    micros.fetch_add(7 * DAY - 1, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(inbox.enqueue(forward(1, "a")).await.unwrap(), duplicate("e1"));
    micros.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(inbox.enqueue(forward(1, "a")).await.unwrap(), new("e1"));
    assert_eq!(metrics.up.get(), 1);
    inbox.close().await;
    assert_eq!(metrics.up.get(), 0);
    assert!(!format!("{readiness:?}").contains("dedupe: true"));
}
