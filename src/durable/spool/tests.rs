//! Tests the hand-over with a scripted inbox and a real database.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use tempfile::TempDir;

use super::dead::{DeadError, DeadLetters, Selection};
use super::*;
use crate::config::OnConflict;
use crate::durable::inbox::Owner;
use crate::durable::inbox::scripted::Scripted;
use crate::event::{BodyHash, Event, Identity, conflict_id};
use crate::observe::metrics::Metrics;

/// A gateway's durable part, as far as the spool goes.
pub(super) struct Bench {
    folder: TempDir,
    pub(super) inbox: Scripted,
    readiness: Arc<Readiness>,
    pub(super) metrics: Metrics,
    pub(super) observed: Observed,
    max_bytes: Option<u64>,
}

/// What was told of those drained.
#[derive(Clone, Default)]
pub(super) struct Observed(pub(super) Arc<Mutex<Vec<String>>>);

impl SpoolObserver for Observed {
    fn on_enqueued(&self, request: &EnqueueRequest, enqueued: &Enqueued) {
        let conflict = matches!(enqueued, Enqueued::Accepted { conflict: true, .. });
        self.0.lock().unwrap().push(format!("{} {conflict}", request.event.id));
    }

    fn on_dead_letter(&self, source: &str) {
        self.0.lock().unwrap().push(format!("dead: {source}"));
    }
}

impl Bench {
    pub(super) fn new() -> Bench {
        let inbox = Scripted::default();
        inbox.all(Some(EnqueueError::Unreachable));
        let metrics = Metrics::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        Bench {
            folder,
            inbox,
            readiness: Arc::default(),
            metrics,
            observed: Observed::default(),
            max_bytes: Some(1 << 20),
        }
    }

    /// Not draining yet.
    pub(super) async fn open(&self) -> (Enqueuer, Arc<Database>) {
        let database = Arc::new(Database::open(&self.file(), TABLES).unwrap());
        let (metrics, readiness) = (self.metrics.spool.clone(), self.readiness.clone());
        let spool = Spool::open(database.clone(), self.max_bytes, Clock::System, metrics, readiness);
        (Enqueuer::spooling(Inbox::Scripted(self.inbox.clone()), spool.await.unwrap()), database)
    }

    pub(super) async fn started(&self) -> (Enqueuer, Arc<Database>) {
        let (enqueuer, database) = self.open().await;
        enqueuer.start(self.observed.clone());
        (enqueuer, database)
    }

    pub(super) async fn close(&self, (enqueuer, database): (Enqueuer, Arc<Database>)) {
        enqueuer.close().await;
        Arc::into_inner(database).unwrap().close().await;
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("hookgate.db")
    }

    pub(super) fn dead(&self) -> DeadLetters {
        DeadLetters::open(&self.file()).unwrap()
    }

    pub(super) fn taken(&self) -> Vec<String> {
        self.inbox.taken().into_iter().map(|request| request.event.id).collect()
    }

    pub(super) async fn drained(&self) {
        until("the spool is drained", || self.metrics.spool.events.get() == 0).await;
    }
}

pub(super) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "it did not come: {what}");
}

pub(super) fn of(source: &str, id: &str, body: &str) -> EnqueueRequest {
    EnqueueRequest {
        source: source.into(),
        provider: "basiq".into(),
        identity: Identity(*BodyHash::of(id.as_bytes()).0.first_chunk().unwrap()),
        body: BodyHash::of(body.as_bytes()),
        on_conflict: OnConflict::Forward,
        owner: Owner(crate::base::clock::random()),
        event: Event::with_payload(id, &format!("{{\"body\": \"{body}\"}}")),
    }
}

fn event(id: &str) -> EnqueueRequest {
    of("src", id, "1")
}

fn accepted(id: &str) -> Result<Enqueued, EnqueueError> {
    Ok(Enqueued::Accepted { id: id.to_owned(), conflict: false })
}

fn duplicate(id: &str) -> Result<Enqueued, EnqueueError> {
    Ok(Enqueued::Duplicate { id: id.to_owned(), dropped: false })
}

#[tokio::test]
async fn what_the_inbox_does_not_take_is_kept_and_drained_as_it_came() {
    let bench = Bench::new();
    let (enqueuer, database) = bench.started().await;
    let came: Vec<EnqueueRequest> = (0..50).map(|n| event(&format!("e{n:02}"))).collect();
    for one in &came {
        assert_eq!(enqueuer.enqueue(one.clone()).await, accepted(&one.event.id));
    }
    assert_eq!(bench.taken(), [""; 0]);
    bench.inbox.all(None);
    bench.drained().await;
    let taken = bench.inbox.taken();
    assert_eq!(format!("{came:?}"), format!("{taken:?}").replace("Owned", "Borrowed"));
    // Now that the backlog is gone, the inbox is asked first.
    until("the backlog is gone", || !enqueuer.spool.as_ref().unwrap().backlog.must_queue("src")).await;
    bench.inbox.all(Some(EnqueueError::Overloaded));
    assert_eq!(enqueuer.enqueue(event("f")).await, Err(EnqueueError::Overloaded));
    bench.inbox.all(Some(EnqueueError::InProgress));
    assert_eq!(enqueuer.enqueue(event("f")).await, Err(EnqueueError::InProgress));
    bench.close((enqueuer, database)).await;
}

#[tokio::test]
async fn new_events_of_a_source_queue_behind_its_spooled_ones_and_no_others() {
    let bench = Bench::new();
    let (enqueuer, database) = bench.open().await;
    enqueuer.enqueue(event("old")).await.unwrap();
    bench.inbox.all(None);
    enqueuer.enqueue(event("new")).await.unwrap();
    enqueuer.enqueue(of("other", "free", "1")).await.unwrap();
    assert_eq!(bench.taken(), ["free"]);
    enqueuer.start(bench.observed.clone());
    bench.drained().await;
    assert_eq!(bench.taken(), ["free", "old", "new"]);
    bench.close((enqueuer, database)).await;
}

#[tokio::test]
async fn nothing_overtakes_what_is_tried_again() {
    let bench = Bench::new();
    let (enqueuer, database) = bench.open().await;
    for id in ["a", "b", "c"] {
        enqueuer.enqueue(event(id)).await.unwrap();
    }
    bench.inbox.one("b", Some(EnqueueError::Refused("not now".to_owned())));
    bench.inbox.all(None);
    enqueuer.start(bench.observed.clone());
    let before = bench.inbox.refused();
    until("it is tried again", || bench.inbox.refused() >= before + 3).await;
    assert_eq!(bench.taken(), ["a"]);
    bench.inbox.one("b", None);
    bench.drained().await;
    assert_eq!(bench.taken(), ["a", "b", "c"]);
    bench.close((enqueuer, database)).await;
}

#[tokio::test]
async fn a_restart_goes_on_where_it_stood() {
    let bench = Bench::new();
    let before = bench.started().await;
    for id in ["a", "b"] {
        before.0.enqueue(event(id)).await.unwrap();
    }
    bench.close(before).await;
    bench.inbox.all(None);
    let (enqueuer, database) = bench.open().await;
    assert_eq!(enqueuer.enqueue(event("c")).await, accepted("c"));
    assert_eq!(bench.taken(), [""; 0], "it waits behind those of before");
    enqueuer.start(bench.observed.clone());
    bench.drained().await;
    assert_eq!(bench.taken(), ["a", "b", "c"]);
    bench.close((enqueuer, database)).await;
}

#[tokio::test]
async fn redeliveries_and_conflicts_are_known_before_the_queue_is_asked() {
    let bench = Bench::new();
    let (enqueuer, database) = bench.started().await;
    let body = |body| of("src", "a", body);
    let dropping = |id| EnqueueRequest { on_conflict: OnConflict::Drop, ..body(id) };
    let second = conflict_id("a", &body("2").body);
    assert_eq!(enqueuer.enqueue(body("1")).await, accepted("a"));
    assert_eq!(enqueuer.enqueue(body("1")).await, duplicate("a"));
    assert_eq!(enqueuer.enqueue(body("2")).await, accepted(&second));
    assert_eq!(enqueuer.enqueue(body("2")).await, duplicate(&second));
    assert_eq!(enqueuer.enqueue(dropping("3")).await, duplicate("a"));
    assert_eq!(enqueuer.enqueue(of("other", "a", "1")).await, accepted("a"), "another source's");
    assert_eq!(bench.metrics.spool.events.get(), 4);
    bench.inbox.all(None);
    bench.drained().await;
    let told = bench.observed.0.lock().unwrap().iter().filter(|told| *told == "a true").count();
    assert_eq!(told, 2, "the queue's word, told once each");
    bench.close((enqueuer, database)).await;
}

#[tokio::test]
async fn an_unknown_body_is_a_duplicate_of_what_waits_and_of_what_is_dead() {
    let bench = Bench::new();
    let before = bench.open().await;
    let unknown = |id| EnqueueRequest { body: BodyHash::UNKNOWN, ..of("src", id, "") };
    let dropping = |id| EnqueueRequest { on_conflict: OnConflict::Drop, ..of("src", id, "2") };
    assert_eq!(before.0.is_known(&unknown("a")).await, Err(EnqueueError::Unreachable));
    assert_eq!(before.0.enqueue(event("a")).await, accepted("a"));
    assert_eq!(before.0.enqueue(unknown("a")).await, duplicate("a"));
    assert_eq!(before.0.enqueue(unknown("b")).await, accepted("b"));
    bench.close(before).await;
    bench.inbox.one("dead", Some(EnqueueError::Unacceptable("too large".to_owned())));
    let (enqueuer, database) = bench.open().await;
    for next in [event("b"), dropping("b"), unknown("b")] {
        assert_eq!(enqueuer.enqueue(next).await, duplicate("b"));
    }
    assert_eq!(enqueuer.is_known(&unknown("b")).await, Ok(true));
    assert_eq!(bench.metrics.spool.events.get(), 2);
    bench.inbox.all(None);
    enqueuer.start(bench.observed.clone());
    bench.drained().await;
    assert_eq!(enqueuer.is_known(&unknown("b")).await, Ok(true), "the inbox knows it");
    assert_eq!(enqueuer.is_known(&unknown("c")).await, Ok(false));
    until("the backlog is gone", || !enqueuer.spool.as_ref().unwrap().backlog.must_queue("src")).await;
    assert_eq!(enqueuer.enqueue(event("dead")).await, accepted("dead"));
    assert_eq!(enqueuer.is_known(&unknown("dead")).await, Ok(true));
    assert_eq!(bench.taken(), ["a", "b"]);
    assert_eq!(*bench.observed.0.lock().unwrap(), ["a false", "b false", "dead: src"]);
    bench.close((enqueuer, database)).await;
}

#[tokio::test]
async fn a_full_spool_turns_away_and_drops_nothing() {
    let mut bench = Bench::new();
    bench.max_bytes = Some(2000);
    let (enqueuer, database) = bench.started().await;
    let mut kept = Vec::new();
    while let Ok(enqueued) = enqueuer.enqueue(event(&format!("e{}", kept.len()))).await {
        assert!(bench.readiness.ready(), "the inbox is down, the spool takes");
        kept.push(enqueued);
    }
    assert!(!bench.readiness.ready() && !kept.is_empty());
    enqueuer.spool.as_ref().unwrap().refresh(None).await.unwrap();
    assert!(!bench.readiness.ready(), "no room was freed");
    assert_eq!(enqueuer.enqueue(event("e0")).await, duplicate("e0"), "that one is kept");
    assert_eq!(enqueuer.enqueue(of("other", "x", "1")).await, Err(EnqueueError::Unreachable));
    assert!(bench.metrics.spool.bytes.get() <= 2000);
    bench.inbox.all(None);
    bench.drained().await;
    assert_eq!(bench.taken().len(), kept.len());
    assert_eq!(bench.metrics.spool.bytes.get(), 0);
    assert!(bench.readiness.ready());
    bench.close((enqueuer, database)).await;
}

#[tokio::test]
async fn a_failing_database_is_no_acceptance_and_shows_until_it_works() {
    let bench = Bench::new();
    let (enqueuer, database) = bench.started().await;
    let intruder = Connection::open(bench.file()).unwrap();
    intruder.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(enqueuer.enqueue(event("a")).await, Err(EnqueueError::Unreachable));
    assert!(!bench.readiness.ready());
    intruder.execute_batch("ROLLBACK").unwrap();
    until("a write works again", || bench.readiness.ready()).await;
    assert_eq!(enqueuer.enqueue(event("a")).await, accepted("a"));
    bench.close((enqueuer, database)).await;
}

/// Such a disk may still take a page or two in the log's free space, but not an event.
#[tokio::test]
async fn a_disk_with_room_for_less_than_an_event_is_full_until_it_has_more() {
    let bench = Bench::new();
    let (enqueuer, database) = bench.open().await;
    let limit = async |pages: &'static str| {
        let set = move |conn: &Connection| conn.query_row(pages, [], |row| row.get::<_, i64>(0));
        database.write(set).await.unwrap();
    };
    limit("PRAGMA max_page_count = 1").await;
    let event = of("a", "evt", &"x".repeat(10_000));
    assert!(enqueuer.enqueue(event.clone()).await.is_err());
    let spool = enqueuer.spool.clone().unwrap();
    for _ in 0..3 {
        let _ = spool.refresh(None).await;
        assert!(!bench.readiness.ready());
    }
    limit("PRAGMA max_page_count = 1000000").await;
    spool.refresh(None).await.unwrap();
    assert!(bench.readiness.ready());
    assert!(enqueuer.enqueue(event).await.is_ok());
    drop(spool);
    bench.close((enqueuer, database)).await;
}

/// A cancelled request's event may have been written.
#[tokio::test]
async fn an_event_whose_request_has_gone_is_drained_too() {
    let bench = Bench::new();
    let (enqueuer, database) = bench.started().await;
    let mut enqueue = Box::pin(enqueuer.enqueue(event("a")));
    assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(enqueue.as_mut().poll(cx))).await.is_pending());
    drop(enqueue);
    bench.inbox.all(None);
    until("it is drained", || bench.taken() == ["a"]).await;
    bench.close((enqueuer, database)).await;
}

#[tokio::test]
async fn what_can_never_be_taken_is_a_dead_letter_and_blocks_no_other() {
    let bench = Bench::new();
    bench.inbox.one("large", Some(EnqueueError::Unacceptable("too large".to_owned())));
    bench.inbox.one("unroutable", Some(EnqueueError::Unroutable("no such queue".to_owned())));
    let (enqueuer, database) = bench.started().await;
    assert_eq!(enqueuer.enqueue(event("large")).await, accepted("large"), "dead at once, and kept");
    for id in ["a", "unroutable", "b", "large-2"] {
        enqueuer.enqueue(event(id)).await.unwrap();
    }
    bench.inbox.one("large-2", Some(EnqueueError::Unacceptable("too large".to_owned())));
    bench.inbox.all(None);
    bench.drained().await;
    assert_eq!(bench.taken(), ["a", "b"]);
    assert_eq!(bench.metrics.spool.dead_events.get(), 3);
    assert_eq!(
        enqueuer.enqueue(event("unroutable")).await,
        Err(EnqueueError::Unroutable(String::new())).or(duplicate("unroutable"))
    );
    let on_dead_letter = bench.observed.0.lock().unwrap().iter().filter(|told| *told == "dead: src").count();
    assert_eq!(on_dead_letter, 3);

    let mut dead = bench.dead();
    let listed = dead.list().unwrap();
    let ids: Vec<&str> = listed.iter().map(|letter| &*letter.id).collect();
    assert_eq!(ids, ["large", "unroutable", "large-2"]);
    assert!(listed[1].why.contains("no such queue; tried 11 times"), "{}", listed[1].why);
    assert_eq!(dead.events("unroutable").unwrap(), [event("unroutable").event.json]);
    assert_eq!(dead.events(&listed[1].seq.to_string()).unwrap(), [event("unroutable").event.json]);

    // Sent back, while the gateway runs: it takes it up by itself.
    until("the backlog is gone", || !enqueuer.spool.as_ref().unwrap().backlog.must_queue("src")).await;
    bench.inbox.one("unroutable", None);
    assert!(
        matches!(dead.retry(&these(&[&listed[1].seq.to_string(), "99", "no"])), Err(DeadError::NoSuch(them)) if them == ["99", "no"])
    );
    assert_eq!(dead.list().unwrap().len(), 3, "all or none");
    let one = BTreeMap::from([("src".to_owned(), 1)]);
    assert_eq!(dead.retry(&these(&["unroutable"])).unwrap(), one);
    until("it is taken", || bench.taken() == ["a", "b", "unroutable"]).await;
    assert_eq!(dead.delete(&Selection::All).unwrap()["src"], 2);
    until("they are gone", || bench.metrics.spool.dead_events.get() == 0).await;
    assert_eq!(bench.metrics.spool.bytes.get(), 0);
    bench.close((enqueuer, database)).await;
}

fn these(names: &[&str]) -> Selection {
    Selection::These(names.iter().map(|name| (*name).to_owned()).collect())
}

#[tokio::test]
async fn a_letter_sent_back_goes_behind_all_that_waits() {
    let bench = Bench::new();
    bench.inbox.one("bad", Some(EnqueueError::Unacceptable("no".to_owned())));
    let (enqueuer, database) = bench.open().await;
    for id in ["bad", "a", "b"] {
        enqueuer.enqueue(event(id)).await.unwrap();
    }
    assert_eq!(bench.dead().retry(&Selection::All).unwrap()["src"], 1);
    enqueuer.enqueue(event("c")).await.unwrap();
    bench.inbox.one("bad", None);
    bench.inbox.all(None);
    enqueuer.start(bench.observed.clone());
    bench.drained().await;
    assert_eq!(bench.taken(), ["a", "b", "bad", "c"]);
    bench.close((enqueuer, database)).await;
}

#[tokio::test]
async fn a_damaged_row_is_set_aside() {
    let bench = Bench::new();
    let (enqueuer, database) = bench.open().await;
    for id in ["a", "b"] {
        enqueuer.enqueue(event(id)).await.unwrap();
    }
    let hand = Connection::open(bench.file()).unwrap();
    hand.execute("UPDATE spool SET id_end = 2 WHERE id = 'a'", []).unwrap();
    bench.inbox.all(None);
    enqueuer.start(bench.observed.clone());
    bench.drained().await;
    assert_eq!(bench.taken(), ["b"]);
    assert_eq!(bench.dead().list().unwrap()[0].id, "a");
    bench.close((enqueuer, database)).await;
}

/// The backlog index does not know of this row.
#[tokio::test]
async fn a_row_from_another_writer_is_found() {
    let bench = Bench::new();
    bench.inbox.all(None);
    let (enqueuer, database) = bench.started().await;
    let hand = Connection::open(bench.file()).unwrap();
    table::put(&hand, &event("seen"), 0, None, 1 << 20).unwrap();
    let queued = || enqueuer.spool.as_ref().unwrap().backlog.must_queue("src");
    until("the first looks are over", || bench.taken() == ["seen"] && !queued()).await;
    database.write(|conn| table::put(conn, &event("a"), 0, None, 1 << 20)).await.unwrap();
    until("it is drained", || bench.taken() == ["seen", "a"]).await;
    bench.close((enqueuer, database)).await;
}

/// A queue that is up and takes nothing, as without its quorum: no event is to blame.
#[tokio::test]
async fn an_outage_that_looks_like_a_bad_event_makes_no_dead_letter() {
    for why in [EnqueueError::Unknown, EnqueueError::Unroutable("not bound yet".to_owned())] {
        let bench = Bench::new();
        bench.readiness.set_queue(true);
        bench.inbox.all(Some(why));
        let (enqueuer, database) = bench.started().await;
        let ids: Vec<String> = (0..20).map(|n| format!("e{n:02}")).collect();
        for id in &ids {
            enqueuer.enqueue(event(id)).await.unwrap();
        }
        enqueuer.enqueue(of("other", "x", "1")).await.unwrap();
        until("they were tried often", || bench.inbox.refused() >= 1500).await;
        assert_eq!(bench.metrics.spool.dead_events.get(), 0);
        bench.inbox.all(None);
        bench.drained().await;
        assert_eq!(bench.taken().len(), ids.len() + 1);
        assert_eq!(bench.metrics.spool.dead_events.get(), 0);
        bench.close((enqueuer, database)).await;
    }
}

#[tokio::test]
async fn bad_events_are_given_up_once_another_is_taken() {
    for source in ["src", "other"] {
        let bench = Bench::new();
        let (enqueuer, database) = bench.open().await;
        for n in 0..20 {
            let id = format!("bad{n}");
            bench.inbox.one(&id, Some(EnqueueError::Unknown));
            enqueuer.enqueue(event(&id)).await.unwrap();
        }
        bench.inbox.all(None);
        enqueuer.start(bench.observed.clone());
        until("they were tried often", || bench.inbox.refused() >= 800).await;
        assert_eq!(bench.metrics.spool.dead_events.get(), 0, "no other one was taken");
        enqueuer.enqueue(of(source, "good", "1")).await.unwrap();
        bench.drained().await;
        assert_eq!(bench.taken(), ["good"]);
        assert_eq!(bench.metrics.spool.dead_events.get(), 20);
        bench.close((enqueuer, database)).await;
    }
}

fn about(subject: usize, n: usize) -> EnqueueRequest {
    let mut one = event(&format!("{subject}-{n}"));
    one.event.partition_key = format!("user/{subject}");
    one
}

#[tokio::test]
async fn many_waiting_go_side_by_side_and_each_subject_in_its_order() {
    let bench = Bench::new();
    bench.inbox.slow();
    let (enqueuer, database) = bench.open().await;
    for n in 0..60 {
        for subject in 0..5 {
            enqueuer.enqueue(about(subject, n)).await.unwrap();
        }
    }
    let alone = bench.inbox.most_in_flight();
    bench.inbox.all(None);
    enqueuer.start(bench.observed.clone());
    bench.drained().await;
    assert_eq!((alone, bench.inbox.most_in_flight()), (1, 5));
    let taken = bench.taken();
    for subject in 0..5 {
        let own: Vec<&String> = taken.iter().filter(|id| id.starts_with(&format!("{subject}-"))).collect();
        let came: Vec<String> = (0..60).map(|n| format!("{subject}-{n}")).collect();
        assert_eq!(own, came.iter().collect::<Vec<_>>());
    }
    bench.close((enqueuer, database)).await;
}

#[tokio::test]
async fn a_few_waiting_go_one_at_a_time() {
    let bench = Bench::new();
    bench.inbox.slow();
    let (enqueuer, database) = bench.open().await;
    for n in 0..100 {
        enqueuer.enqueue(about(n % 5, n)).await.unwrap();
    }
    bench.inbox.all(None);
    enqueuer.start(bench.observed.clone());
    bench.drained().await;
    assert_eq!(bench.inbox.most_in_flight(), 1);
    let came: Vec<String> = (0..100).map(|n| format!("{}-{n}", n % 5)).collect();
    assert_eq!(bench.taken(), came);
    bench.close((enqueuer, database)).await;
}

#[tokio::test]
async fn a_spool_that_is_off_is_drained_and_takes_no_more() {
    let mut bench = Bench::new();
    let before = bench.started().await;
    before.0.enqueue(event("old")).await.unwrap();
    bench.close(before).await;
    bench.max_bytes = None;
    let (enqueuer, database) = bench.started().await;
    assert_eq!(enqueuer.enqueue(event("new")).await, Err(EnqueueError::Unreachable));
    assert!(!bench.readiness.ready(), "nobody can fall back on it");
    assert_eq!(bench.metrics.spool.events.get(), 1);
    bench.inbox.all(None);
    bench.drained().await;
    assert_eq!(enqueuer.enqueue(event("new")).await, accepted("new"));
    assert_eq!(bench.taken(), ["old", "new"]);
    assert!(!bench.readiness.ready());
    bench.close((enqueuer, database)).await;
}

#[tokio::test]
async fn an_event_larger_than_the_whole_spool_does_not_make_it_full_for_ever() {
    let mut bench = Bench::new();
    bench.max_bytes = Some(2000);
    let (enqueuer, database) = bench.started().await;
    let large = of("src", "large", &"x".repeat(3000));
    assert_eq!(enqueuer.enqueue(large).await, Err(EnqueueError::Unreachable));
    until("it takes events again", || bench.readiness.ready()).await;
    assert_eq!(enqueuer.enqueue(event("small")).await, accepted("small"));
    bench.close((enqueuer, database)).await;
}

#[tokio::test]
async fn all_letters_are_handled_some_at_a_time() {
    let bench = Bench::new();
    let (enqueuer, database) = bench.open().await;
    let ids: Vec<String> = (0..450).map(|n| format!("e{n:03}")).collect();
    for id in &ids {
        enqueuer.enqueue(event(id)).await.unwrap();
    }
    let hand = Connection::open(bench.file()).unwrap();
    hand.execute_batch("UPDATE spool SET why = 'by hand'").unwrap();
    // The last one cannot be sent back: with it all that are sent back together.
    hand.execute_batch(
        "CREATE TRIGGER no_more AFTER UPDATE OF why ON spool WHEN new.id = 'e449' BEGIN SELECT raise(ABORT, 'no'); END",
    )
    .unwrap();
    bench.dead().retry(&Selection::All).unwrap_err();
    assert_eq!(bench.dead().list().unwrap().len(), 50);
    hand.execute_batch("DROP TRIGGER no_more").unwrap();
    assert_eq!(bench.dead().retry(&Selection::All).unwrap()["src"], 50);
    bench.inbox.all(None);
    enqueuer.start(bench.observed.clone());
    bench.drained().await;
    assert_eq!(bench.taken(), ids);
    bench.close((enqueuer, database)).await;
}

#[tokio::test]
async fn a_subject_never_overtakes_itself_not_even_for_evidence() {
    let bench = Bench::new();
    let (enqueuer, database) = bench.open().await;
    bench.inbox.one("1-0", Some(EnqueueError::Unknown));
    for n in 0..2 {
        enqueuer.enqueue(about(1, n)).await.unwrap();
    }
    bench.inbox.all(None);
    enqueuer.start(bench.observed.clone());
    until("it was tried often", || bench.inbox.refused() >= 60).await;
    assert_eq!(bench.taken(), [""; 0]);
    bench.inbox.one("1-0", None);
    bench.drained().await;
    assert_eq!(bench.taken(), ["1-0", "1-1"]);
    bench.close((enqueuer, database)).await;
}

/// A queue may know what it has, and take nothing new.
#[tokio::test]
async fn a_duplicate_is_no_sign_that_the_queue_takes_events() {
    let bench = Bench::new();
    bench.inbox.all(None);
    let (enqueuer, database) = bench.started().await;
    let known = of("other", "known", "1");
    assert_eq!(enqueuer.enqueue(known.clone()).await, accepted("known"));
    bench.inbox.one("a", Some(EnqueueError::Unknown));
    enqueuer.enqueue(event("a")).await.unwrap();
    until("it was tried often", || bench.inbox.refused() >= 60).await;
    assert_eq!(enqueuer.enqueue(known).await, duplicate("known"));
    until("it is tried again", || bench.inbox.refused() >= 80).await;
    assert_eq!(bench.metrics.spool.dead_events.get(), 0);
    bench.inbox.one("a", None);
    bench.drained().await;
    assert_eq!(bench.taken(), ["known", "a"]);
    bench.close((enqueuer, database)).await;
}

#[tokio::test]
async fn of_many_waiting_none_follows_while_one_is_retried() {
    let bench = Bench::new();
    let (enqueuer, database) = bench.open().await;
    for n in 0..200 {
        enqueuer.enqueue(about(n, 0)).await.unwrap();
    }
    bench.inbox.one("0-0", Some(EnqueueError::Refused("not now".to_owned())));
    bench.inbox.all(None);
    let before = bench.inbox.refused();
    enqueuer.start(bench.observed.clone());
    until("it is tried again", || bench.inbox.refused() >= before + 5).await;
    // Those of its own group were in flight at the first try.
    assert_eq!(bench.taken().len(), 31);
    bench.inbox.one("0-0", None);
    bench.drained().await;
    assert_eq!(bench.taken().len(), 200);
    bench.close((enqueuer, database)).await;
}

#[tokio::test]
async fn an_event_that_fills_the_spool_exactly_has_room() {
    let bytes = table::row_bytes(&event("a").event).unsigned_abs();
    for (room, told) in [(bytes, accepted("a")), (bytes - 1, Err(EnqueueError::Unreachable))] {
        let mut bench = Bench::new();
        bench.max_bytes = Some(room);
        let (enqueuer, database) = bench.open().await;
        assert_eq!(enqueuer.enqueue(event("a")).await, told);
        bench.close((enqueuer, database)).await;
    }
}

/// The queue never takes the dead one, so another body is the first.
#[tokio::test]
async fn a_dead_letter_makes_no_conflict() {
    let bench = Bench::new();
    let (enqueuer, database) = bench.open().await;
    bench.inbox.one("a", Some(EnqueueError::Unacceptable("too large".to_owned())));
    assert_eq!(enqueuer.enqueue(of("src", "a", "1")).await, accepted("a"));
    assert_eq!(bench.dead().list().unwrap().len(), 1);
    bench.inbox.one("a", None);
    assert_eq!(enqueuer.enqueue(of("src", "a", "2")).await, accepted("a"));
    bench.close((enqueuer, database)).await;
}
