//! The claimed inbox over either store: every test runs twice. The broker answers as the test tells it.

use std::pin::Pin;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::*;
use crate::base::clock::Clock;
use crate::config::OnConflict;
use crate::durable::broker::scripted::{Scripted, Turn};
use crate::durable::database::writer::Database;
use crate::durable::inbox::Owner;
use crate::durable::inbox::redis::tests::server::{Server, until};
use crate::event::{BodyHash, Identity};
use crate::observe::admin::Readiness;
use crate::observe::metrics::Metrics;

/// So long that no lease ends by itself within a test.
const LEASE: Duration = Duration::from_secs(600);
const WINDOW: Duration = Duration::from_secs(7 * 86_400);

/// A dedupe store and a broker, which several gateways can share.
struct Stage {
    store: Store,
    broker: Scripted,
    metrics: Metrics,
    lease: Duration,
    qualified: Arc<ArcSwap<HashSet<String>>>,
}

enum Store {
    Embedded { folder: tempfile::TempDir, database: Option<Arc<Database>>, clock: Clock },
    Redis(Server),
}

impl Stage {
    fn embedded() -> Stage {
        let folder = tempfile::tempdir().unwrap();
        let database = Some(database(&folder));
        let clock = Clock::manual(Timestamp::from_second(1_800_000_000).unwrap());
        let store = Store::Embedded { folder, database, clock };
        Stage::on(store)
    }

    async fn redis() -> Stage {
        let store = Store::Redis(Server::start(&[]).await);
        Stage::on(store)
    }

    fn on(store: Store) -> Stage {
        let qualified = Arc::new(ArcSwap::from_pointee(HashSet::from(["shared".to_owned()])));
        Stage {
            store,
            broker: Scripted::default(),
            metrics: Metrics::new().unwrap(),
            lease: LEASE,
            qualified,
        }
    }

    async fn gateway(&self) -> Claimed {
        let claims = match &self.store {
            Store::Embedded { database, clock, .. } => Claims::Embedded(EmbeddedClaims::new(
                database.clone().unwrap(),
                clock.clone(),
                Arc::default(),
            )),
            Store::Redis(server) => {
                let claims = RedisClaims::open(server.servers(), "hooks.{source}", Arc::default());
                until("the node is up", async || claims.is_up()).await;
                Claims::Redis(claims)
            }
        };
        let qualified = self.qualified.clone();
        let publish_within = publish_within(self.lease);
        let options = Options { window: WINDOW, lease: self.lease, publish_within, qualified };
        let broker = Broker::Scripted(self.broker.clone());
        Claimed::new(claims, broker, options, self.metrics.queue("nats"))
    }

    /// Ends every lease.
    async fn leases_end(&self) {
        match &self.store {
            Store::Embedded { .. } => self.pass(LEASE),
            Store::Redis(server) => {
                for key in server.run::<Vec<String>>(&["KEYS", "*:claim"]).await {
                    let end = "local held = redis.call('GET', KEYS[1])
                        local naming = string.match(string.sub(held, 50), '%.%d$')
                        redis.call('SET', KEYS[1], string.sub(held, 1, 49) .. '1' .. naming, 'KEEPTTL')";
                    server.run::<()>(&["EVAL", end, "1", &key]).await;
                }
            }
        }
    }

    /// Moves the embedded store's clock.
    fn pass(&self, time: Duration) {
        let Store::Embedded { clock: Clock::Manual(micros), .. } = &self.store else { panic!("a clock") };
        micros.fetch_add(time.as_micros() as i64, std::sync::atomic::Ordering::Relaxed);
    }

    /// The number of claims in the store, expired or not.
    async fn claims(&self) -> u32 {
        match &self.store {
            Store::Embedded { .. } => self.rows("claims").await,
            Store::Redis(server) => server.run::<Vec<String>>(&["KEYS", "*:claim"]).await.len() as u32,
        }
    }

    async fn rows(&self, table: &'static str) -> u32 {
        let Store::Embedded { database: Some(database), .. } = &self.store else { panic!("a database") };
        let count = format!("SELECT count(*) FROM {table}");
        database.write(move |conn| conn.query_row(&count, [], |row| row.get(0))).await.unwrap()
    }

    /// Sets the next publish's result, and whether the broker keeps the message.
    fn then(&self, takes: bool, tells: Result<(), PublishError>) {
        self.broker.then(Turn { takes, tells, after: None });
    }

    /// The broker keeps the next message, and confirms it when the sender is used.
    fn then_slowly(&self) -> oneshot::Sender<()> {
        let (confirm, after) = oneshot::channel();
        self.broker.then(Turn { takes: true, tells: Ok(()), after: Some(after) });
        confirm
    }

    /// Starts an enqueue, and returns it once the broker has `messages` messages. The last one is not confirmed yet.
    async fn start<'a>(
        &self,
        gateway: &'a Claimed,
        request: EnqueueRequest,
        messages: usize,
    ) -> Pin<Box<impl Future<Output = Result<Enqueued, EnqueueError>> + use<'a>>> {
        let mut enqueue = Box::pin(gateway.enqueue(request));
        tokio::select! {
            biased;
            told = &mut enqueue => panic!("not confirmed yet, and told {told:?}"),
            () = until("it is published", async || self.broker.taken().len() == messages) => {}
        }
        enqueue
    }

    /// Whether the metrics hold this line.
    fn counts(&self, line: &str) -> bool {
        self.metrics.render().unwrap().0.lines().any(|found| found == line)
    }
}

fn database(folder: &tempfile::TempDir) -> Arc<Database> {
    Arc::new(Database::open(&folder.path().join("hookgate.db"), TABLES).unwrap())
}

/// A delivery of event `e` with this body and an owner of its own.
fn delivery(body: &str) -> EnqueueRequest {
    let identity = BodyHash::of(b"e").0;
    EnqueueRequest {
        source: Arc::from("src"),
        provider: "iof".into(),
        owner: Owner(clock::random()),
        identity: Identity(*identity.first_chunk().unwrap()),
        body: BodyHash::of(body.as_bytes()),
        on_conflict: OnConflict::Forward,
        event: Event::for_test("e"),
    }
}

fn dropping(body: &str) -> EnqueueRequest {
    EnqueueRequest { on_conflict: OnConflict::Drop, ..delivery(body) }
}

fn conflict_id(body: &str) -> String {
    crate::event::conflict_id("e", &BodyHash::of(body.as_bytes()))
}

fn accepted(id: &str) -> Result<Enqueued, EnqueueError> {
    Ok(Enqueued::Accepted { id: id.to_owned(), conflict: id.contains('~') })
}

fn duplicate(id: &str) -> Result<Enqueued, EnqueueError> {
    Ok(Enqueued::Duplicate { id: id.to_owned(), dropped: false })
}

fn is_conflict(claim: Result<Claim, EnqueueError>) -> bool {
    matches!(claim, Ok(Claim::Granted(Grant { kind: EntryKind::Conflict, .. })))
}

fn dropped() -> Result<Enqueued, EnqueueError> {
    Ok(Enqueued::Duplicate { id: "e".to_owned(), dropped: true })
}

const IN_PROGRESS: Result<Enqueued, EnqueueError> = Err(EnqueueError::InProgress);
const UNKNOWN: Result<Enqueued, EnqueueError> = Err(EnqueueError::Unknown);

macro_rules! over_both_stores {
    ($($test:ident)*) => { $(mod $test {
        #[tokio::test]
        async fn embedded() {
            super::$test(super::Stage::embedded()).await;
        }

        #[tokio::test]
        async fn redis() {
            super::$test(super::Stage::redis().await).await;
        }
    })* };
}

over_both_stores! {
    a_body_enters_once_and_its_redelivery_has_its_id
    where_conflicts_are_dropped_only_the_first_body_enters
    between_claim_and_confirm_every_other_delivery_is_told_so
    fifty_deliveries_at_once_are_one_message
    an_unknown_outcome_keeps_the_claim_for_its_owner
    after_the_lease_another_owner_gets_in_under_the_same_id
    a_definite_failure_lets_the_next_in_at_once
    a_slow_owner_leaves_the_later_claim_alone
    a_slow_owner_without_a_successor_still_commits
    a_first_body_of_unknown_outcome_keeps_its_plain_id
    where_conflicts_are_dropped_an_unknown_first_body_does_not_block_the_next
    an_event_whose_caller_left_is_still_published_and_committed
    a_shared_provider_has_its_source_in_the_message_id
    a_message_of_unknown_outcome_keeps_its_id_when_sources_come_and_go
    closing_waits_for_what_is_in_flight
    what_could_arrive_after_its_lease_is_not_published
    another_events_commit_forgets_no_unfinished_claim
    a_late_commit_changes_nothing_that_is_known
    an_unknown_body_is_a_duplicate_of_any_and_any_of_it
    an_unknown_body_waits_for_a_claim_and_takes_over_one_of_unknown_outcome
    a_body_takes_over_the_claim_of_an_unknown_body
    a_late_commit_of_an_unknown_body_hides_no_conflict
}

/// A delivery whose bytes are not known.
fn unknown() -> EnqueueRequest {
    EnqueueRequest { body: BodyHash::UNKNOWN, ..delivery("") }
}

async fn an_unknown_body_is_a_duplicate_of_any_and_any_of_it(stage: Stage) {
    let gateway = stage.gateway().await;
    assert_eq!(gateway.is_known(&unknown()).await, Ok(false));
    assert_eq!(gateway.enqueue(delivery("1")).await, accepted("e"));
    assert_eq!(gateway.enqueue(unknown()).await, duplicate("e"));
    assert_eq!(gateway.enqueue(delivery("2")).await, accepted(&conflict_id("2")), "it is no first body");
    assert_eq!(gateway.enqueue(unknown()).await, duplicate("e"));
    assert_eq!(gateway.is_known(&unknown()).await, Ok(true));
    let other = |request| EnqueueRequest { identity: Identity([7; 16]), ..request };
    assert_eq!(gateway.enqueue(other(unknown())).await, accepted("e"));
    for next in [dropping("1"), delivery("2"), unknown()] {
        assert_eq!(gateway.enqueue(other(next)).await, duplicate("e"));
    }
    assert_eq!(gateway.is_known(&other(delivery("1"))).await, Ok(true));
    assert_eq!((stage.broker.taken().len(), stage.claims().await), (3, 0));
}

async fn an_unknown_body_waits_for_a_claim_and_takes_over_one_of_unknown_outcome(stage: Stage) {
    for (n, first) in [delivery("1"), dropping("1")].into_iter().enumerate() {
        let of = |request| EnqueueRequest { identity: Identity([n as u8; 16]), ..request };
        let taken = stage.broker.taken().len();
        stage.then(true, Err(PublishError::Unknown));
        let (gateway, other) = (stage.gateway().await, stage.gateway().await);
        let first = of(first);
        assert_eq!(gateway.enqueue(first.clone()).await, UNKNOWN);
        assert_eq!(other.enqueue(of(unknown())).await, IN_PROGRESS);
        assert_eq!(other.is_known(&first).await, Ok(false), "it may not be in the queue");
        stage.leases_end().await;
        // Since the first try the source shares its provider. The broker may have the plain id.
        stage.qualified.store(HashSet::from(["src".to_owned()]).into());
        assert_eq!(other.enqueue(of(unknown())).await, accepted("e"));
        assert_eq!(gateway.enqueue(first).await, duplicate("e"));
        assert_eq!(gateway.enqueue(of(dropping("1"))).await, duplicate("e"));
        assert_eq!(stage.broker.taken()[taken..], ["e", "e"], "under one id");
        assert_eq!(stage.claims().await, 0);
        stage.qualified.store(HashSet::new().into());
    }
}

async fn a_body_takes_over_the_claim_of_an_unknown_body(stage: Stage) {
    for (n, genuine) in [delivery("1"), dropping("1")].into_iter().enumerate() {
        let of = |request| EnqueueRequest { identity: Identity([n as u8; 16]), ..request };
        let taken = stage.broker.taken().len();
        stage.then(true, Err(PublishError::Unknown));
        let (gateway, reconciled) = (stage.gateway().await, of(unknown()));
        assert_eq!(gateway.enqueue(reconciled.clone()).await, UNKNOWN);
        assert_eq!(gateway.enqueue(of(genuine.clone())).await, IN_PROGRESS);
        stage.leases_end().await;
        stage.qualified.store(HashSet::from(["src".to_owned()]).into());
        assert_eq!(gateway.enqueue(of(genuine)).await, accepted("e"), "no conflict");
        assert_eq!(gateway.enqueue(reconciled).await, duplicate("e"));
        assert_eq!(stage.broker.taken()[taken..], ["e", "e"], "under one id");
        stage.qualified.store(HashSet::new().into());
    }
}

/// While the owner of an unknown body is slow, its lease ends and the genuine delivery enters.
async fn a_late_commit_of_an_unknown_body_hides_no_conflict(stage: Stage) {
    let gateway = stage.gateway().await;
    let confirm = stage.then_slowly();
    let slow = stage.start(&gateway, unknown(), 1).await;
    stage.leases_end().await;
    assert_eq!(gateway.enqueue(delivery("1")).await, accepted("e"));
    confirm.send(()).unwrap();
    assert_eq!(slow.await, accepted("e"));
    assert_eq!(gateway.enqueue(delivery("2")).await, accepted(&conflict_id("2")));
    assert_eq!(gateway.enqueue(unknown()).await, duplicate("e"));
}

async fn a_body_enters_once_and_its_redelivery_has_its_id(stage: Stage) {
    let gateway = stage.gateway().await;
    let second = conflict_id("2");
    assert_eq!(gateway.enqueue(delivery("1")).await, accepted("e"));
    assert_eq!(gateway.enqueue(delivery("1")).await, duplicate("e"));
    assert_eq!(gateway.enqueue(delivery("2")).await, accepted(&second));
    assert_eq!(gateway.enqueue(delivery("2")).await, duplicate(&second));
    assert_eq!(gateway.enqueue(dropping("3")).await, dropped());
    assert_eq!(gateway.enqueue(delivery("3")).await, duplicate("e"), "dropped once, dropped for good");
    assert_eq!(gateway.enqueue(delivery("1")).await, duplicate("e"));
    assert_eq!(stage.broker.taken(), ["e".to_owned(), second]);
    assert_eq!(stage.claims().await, 0);
    let other = EnqueueRequest { identity: Identity([7; 16]), ..delivery("1") };
    assert_eq!(gateway.enqueue(other).await, accepted("e"), "another identity is another event");
}

async fn where_conflicts_are_dropped_only_the_first_body_enters(stage: Stage) {
    let gateway = stage.gateway().await;
    assert_eq!(gateway.enqueue(dropping("1")).await, accepted("e"));
    assert_eq!(gateway.enqueue(dropping("2")).await, dropped());
    assert_eq!(gateway.enqueue(dropping("2")).await, duplicate("e"));
    assert_eq!(gateway.enqueue(dropping("1")).await, duplicate("e"));
    assert_eq!(stage.broker.taken(), ["e"]);
}

async fn between_claim_and_confirm_every_other_delivery_is_told_so(stage: Stage) {
    let (one, other) = (stage.gateway().await, stage.gateway().await);
    let confirm = stage.then_slowly();
    let first = stage.start(&one, delivery("1"), 1).await;
    for asked in [delivery("1"), delivery("2"), dropping("1"), dropping("2")] {
        assert_eq!(other.enqueue(asked).await, IN_PROGRESS);
    }
    confirm.send(()).unwrap();
    assert_eq!(first.await, accepted("e"));
    assert_eq!(other.enqueue(delivery("1")).await, duplicate("e"));

    let confirm = stage.then_slowly();
    let second = stage.start(&one, delivery("2"), 2).await;
    assert_eq!(other.enqueue(delivery("1")).await, duplicate("e"), "what is in, is in");
    assert_eq!(other.enqueue(delivery("2")).await, IN_PROGRESS);
    assert_eq!(other.enqueue(dropping("3")).await, IN_PROGRESS);
    confirm.send(()).unwrap();
    assert_eq!(second.await, accepted(&conflict_id("2")));
    assert!(stage.counts("hookgate_enqueue_batch_events_sum{queue=\"nats\"} 2"));
}

async fn fifty_deliveries_at_once_are_one_message(stage: Stage) {
    let gateways = [Arc::new(stage.gateway().await), Arc::new(stage.gateway().await)];
    let mut all = tokio::task::JoinSet::new();
    for n in 0..50 {
        let gateway = gateways[n % 2].clone();
        all.spawn(async move { gateway.enqueue(delivery("1")).await });
    }
    let told = all.join_all().await;
    assert_eq!(told.iter().filter(|told| **told == accepted("e")).count(), 1);
    let others = told.iter().filter(|told| **told == duplicate("e") || **told == IN_PROGRESS);
    assert_eq!(others.count(), 49);
    assert_eq!(stage.broker.taken(), ["e"]);
}

async fn an_unknown_outcome_keeps_the_claim_for_its_owner(stage: Stage) {
    for takes in [true, false] {
        stage.then(takes, Err(PublishError::Unknown));
    }
    let (gateway, first) = (stage.gateway().await, delivery("1"));
    assert_eq!(gateway.enqueue(first.clone()).await, UNKNOWN);
    assert_eq!(gateway.enqueue(delivery("1")).await, IN_PROGRESS);
    assert_eq!(gateway.enqueue(delivery("2")).await, IN_PROGRESS);
    assert_eq!(gateway.enqueue(first.clone()).await, UNKNOWN, "a retry may end the same way");
    assert_eq!(gateway.enqueue(delivery("1")).await, IN_PROGRESS);
    stage.then(false, Err(PublishError::Unconfirmed("nack".to_owned())));
    assert_eq!(gateway.enqueue(first.clone()).await, Err(EnqueueError::Unclear("nack".to_owned())));
    assert_eq!(gateway.enqueue(delivery("1")).await, IN_PROGRESS, "what the broker said is no end");
    // Another gateway, as after a crash. The same token makes it the owner.
    let restarted = stage.gateway().await;
    assert_eq!(restarted.enqueue(first.clone()).await, accepted("e"));
    assert_eq!(restarted.enqueue(first).await, duplicate("e"));
    assert_eq!(stage.broker.taken(), ["e", "e"], "twice, under one id");
    assert_eq!(stage.claims().await, 0);
}

async fn after_the_lease_another_owner_gets_in_under_the_same_id(stage: Stage) {
    stage.then(true, Err(PublishError::Unknown));
    let (gateway, first) = (stage.gateway().await, delivery("1"));
    assert_eq!(gateway.enqueue(first.clone()).await, UNKNOWN);
    stage.leases_end().await;
    assert_eq!(gateway.enqueue(delivery("1")).await, accepted("e"));
    assert_eq!(gateway.enqueue(first).await, duplicate("e"));
    assert_eq!(stage.broker.taken(), ["e", "e"]);
}

async fn a_definite_failure_lets_the_next_in_at_once(stage: Stage) {
    let gateway = stage.gateway().await;
    let no = || "no".to_owned();
    for (why, told) in [
        (PublishError::Refused(no()), EnqueueError::Refused(no())),
        (PublishError::Unroutable(no()), EnqueueError::Unroutable(no())),
        (PublishError::Unacceptable(no()), EnqueueError::Unacceptable(no())),
        (PublishError::Unreachable, EnqueueError::Unreachable),
    ] {
        stage.then(false, Err(why));
        assert_eq!(gateway.enqueue(delivery("1")).await, Err(told));
        assert_eq!(stage.claims().await, 0);
    }
    assert_eq!(gateway.enqueue(delivery("2")).await, accepted("e"), "nothing is remembered of the first");
    assert_eq!(stage.broker.taken(), ["e"]);
}

/// Two owners of one body: the first one's lease ends while it waits for the broker.
async fn a_slow_owner_leaves_the_later_claim_alone(stage: Stage) {
    let gateway = stage.gateway().await;
    let (confirm_slow, confirm_later) = (stage.then_slowly(), stage.then_slowly());
    let slow = stage.start(&gateway, delivery("1"), 1).await;
    stage.leases_end().await;
    let later = stage.start(&gateway, delivery("1"), 2).await;
    confirm_slow.send(()).unwrap();
    assert_eq!(slow.await, accepted("e"), "it is in the queue");
    assert_eq!(gateway.enqueue(delivery("1")).await, IN_PROGRESS, "the later claim stands");
    confirm_later.send(()).unwrap();
    assert_eq!(later.await, accepted("e"));
    assert_eq!(gateway.enqueue(delivery("1")).await, duplicate("e"));
    assert_eq!(stage.claims().await, 0);

    // The same, but the slow publish ends in a definite failure.
    let (claims, options) = (&gateway.publisher.claims, &gateway.publisher.options);
    let (slow, later) = (delivery("2"), delivery("2"));
    assert!(is_conflict(claims.claim(&slow, options).await));
    stage.leases_end().await;
    assert!(is_conflict(claims.claim(&later, options).await));
    claims.release(&slow, false).await.unwrap();
    assert_eq!(gateway.enqueue(delivery("2")).await, IN_PROGRESS);
    claims.release(&later, false).await.unwrap();
    assert_eq!(gateway.enqueue(delivery("2")).await, accepted(&conflict_id("2")));
}

async fn a_slow_owner_without_a_successor_still_commits(stage: Stage) {
    let gateway = stage.gateway().await;
    let confirm = stage.then_slowly();
    let slow = stage.start(&gateway, delivery("1"), 1).await;
    stage.leases_end().await;
    confirm.send(()).unwrap();
    assert_eq!(slow.await, accepted("e"));
    assert_eq!(gateway.enqueue(delivery("1")).await, duplicate("e"));
    assert_eq!(stage.claims().await, 0);
}

/// With the plain id, a broker would drop the second body as a copy of the first.
async fn a_first_body_of_unknown_outcome_keeps_its_plain_id(stage: Stage) {
    stage.then(true, Err(PublishError::Unknown));
    let (gateway, first) = (stage.gateway().await, delivery("1"));
    assert_eq!(gateway.enqueue(first.clone()).await, UNKNOWN);
    stage.leases_end().await;
    let (second, third) = (conflict_id("2"), conflict_id("3"));
    assert_eq!(gateway.enqueue(delivery("2")).await, accepted(&second));
    assert_eq!(gateway.enqueue(delivery("3")).await, accepted(&third), "that second claim is no matter");
    // A definite failure of the retry says nothing about the earlier try.
    stage.then(false, Err(PublishError::Unreachable));
    assert_eq!(gateway.enqueue(first.clone()).await, Err(EnqueueError::Unreachable));
    assert_eq!(gateway.enqueue(delivery("4")).await, accepted(&conflict_id("4")));
    assert_eq!(gateway.enqueue(first).await, accepted("e"));
    assert_eq!(gateway.enqueue(delivery("1")).await, duplicate("e"));
    assert_eq!(gateway.enqueue(delivery("2")).await, duplicate(&second));
    assert_eq!(stage.broker.taken(), ["e", &*second, &third, &conflict_id("4"), "e"]);
}

/// No sender got a success for the first body, so another body may enter for the event.
async fn where_conflicts_are_dropped_an_unknown_first_body_does_not_block_the_next(stage: Stage) {
    stage.then(false, Err(PublishError::Unknown));
    let (gateway, first) = (stage.gateway().await, dropping("1"));
    assert_eq!(gateway.enqueue(first.clone()).await, UNKNOWN);
    stage.leases_end().await;
    assert_eq!(gateway.enqueue(dropping("2")).await, accepted("e"));
    assert_eq!(gateway.enqueue(first.clone()).await, dropped());
    assert_eq!(gateway.enqueue(first).await, duplicate("e"));
    assert_eq!(gateway.enqueue(dropping("2")).await, duplicate("e"));
    assert_eq!(stage.broker.taken(), ["e"]);
}

async fn an_event_whose_caller_left_is_still_published_and_committed(stage: Stage) {
    let gateway = stage.gateway().await;
    let confirm = stage.then_slowly();
    drop(stage.start(&gateway, delivery("1"), 1).await);
    assert_eq!(gateway.enqueue(delivery("1")).await, IN_PROGRESS);
    confirm.send(()).unwrap();
    until("it is committed", async || gateway.enqueue(delivery("1")).await == duplicate("e")).await;
    assert_eq!(stage.broker.taken(), ["e"]);
}

async fn a_shared_provider_has_its_source_in_the_message_id(stage: Stage) {
    let gateway = stage.gateway().await;
    let shared = |body| EnqueueRequest { source: Arc::from("shared"), ..delivery(body) };
    assert_eq!(gateway.enqueue(shared("1")).await, accepted("e"), "the event's id stays its own");
    assert_eq!(gateway.enqueue(shared("2")).await, accepted(&conflict_id("2")));
    assert_eq!(stage.broker.taken(), ["shared/e".to_owned(), format!("shared/{}", conflict_id("2"))]);
}

/// A reload between the tries adds or removes a second source of the provider.
async fn a_message_of_unknown_outcome_keeps_its_id_when_sources_come_and_go(stage: Stage) {
    for (source, id, after) in [("src", "e", true), ("shared", "shared/e", false)] {
        let first = EnqueueRequest { source: Arc::from(source), ..delivery("1") };
        let first = EnqueueRequest { identity: Identity([source.len() as u8; 16]), ..first };
        let taken = stage.broker.taken().len();
        stage.then(true, Err(PublishError::Unknown));
        let gateway = stage.gateway().await;
        assert_eq!(gateway.enqueue(first.clone()).await, UNKNOWN);
        let qualified = if after { HashSet::from([source.to_owned()]) } else { HashSet::new() };
        stage.qualified.store(qualified.into());
        // Meanwhile the broker is unreachable.
        stage.then(false, Err(PublishError::Unreachable));
        assert_eq!(gateway.enqueue(first.clone()).await, Err(EnqueueError::Unreachable));
        // A redelivery, through another gateway.
        let redelivered = EnqueueRequest { owner: Owner(clock::random()), ..first.clone() };
        stage.then(true, Err(PublishError::Unknown));
        let other = stage.gateway().await;
        assert_eq!(other.enqueue(redelivered.clone()).await, UNKNOWN, "a known end is not waited for");
        assert_eq!(other.enqueue(redelivered).await, accepted("e"));
        assert_eq!(gateway.enqueue(first).await, duplicate("e"));
        assert_eq!(stage.broker.taken()[taken..], [id, id, id], "{source}");
        assert_eq!(stage.claims().await, 0);
        stage.qualified.store(HashSet::from(["shared".to_owned()]).into());
    }
}

async fn closing_waits_for_what_is_in_flight(stage: Stage) {
    let gateway = stage.gateway().await;
    let confirm = stage.then_slowly();
    drop(stage.start(&gateway, delivery("1"), 1).await);
    let mut close = Box::pin(gateway.close());
    tokio::select! {
        biased;
        () = &mut close => panic!("an event is in flight"),
        () = tokio::task::yield_now() => {}
    }
    confirm.send(()).unwrap();
    close.await;
    assert_eq!(stage.gateway().await.enqueue(delivery("1")).await, duplicate("e"));
}

/// A store that answers only when half the lease is over: here the lease is zero.
async fn what_could_arrive_after_its_lease_is_not_published(stage: Stage) {
    let stage = Stage { lease: Duration::ZERO, ..stage };
    let gateway = stage.gateway().await;
    assert_eq!(gateway.enqueue(delivery("1")).await, Err(EnqueueError::Unreachable));
    assert_eq!(stage.broker.taken().len(), 0);
    assert_eq!(stage.claims().await, 0);
}

/// Each commit deletes old claims too.
async fn another_events_commit_forgets_no_unfinished_claim(stage: Stage) {
    stage.then(true, Err(PublishError::Unknown));
    let gateway = stage.gateway().await;
    assert_eq!(gateway.enqueue(delivery("1")).await, UNKNOWN);
    stage.leases_end().await;
    let other = EnqueueRequest { identity: Identity([7; 16]), ..delivery("1") };
    assert_eq!(gateway.enqueue(other).await, accepted("e"));
    assert_eq!(gateway.enqueue(delivery("2")).await, accepted(&conflict_id("2")), "the first may be in");
}

/// While a slow owner publishes a body, its lease ends and another delivery drops the body.
async fn a_late_commit_changes_nothing_that_is_known(stage: Stage) {
    let gateway = stage.gateway().await;
    assert_eq!(gateway.enqueue(delivery("1")).await, accepted("e"));
    let confirm = stage.then_slowly();
    let slow = stage.start(&gateway, delivery("2"), 2).await;
    stage.leases_end().await;
    assert_eq!(gateway.enqueue(dropping("2")).await, dropped());
    confirm.send(()).unwrap();
    assert_eq!(slow.await, accepted(&conflict_id("2")));
    assert_eq!(gateway.enqueue(delivery("2")).await, duplicate("e"), "each answer gives the same id");
}

#[tokio::test]
async fn a_claim_in_redis_outlives_its_lease_by_the_window() {
    let stage = Stage::redis().await;
    stage.then(true, Err(PublishError::Unknown));
    assert_eq!(stage.gateway().await.enqueue(delivery("1")).await, UNKNOWN);
    let Store::Redis(server) = &stage.store else { panic!("a server") };
    let keys: Vec<String> = server.run(&["KEYS", "*:claim"]).await;
    let left: u64 = server.run(&["PTTL", &keys[0]]).await;
    assert!(Duration::from_millis(left) > WINDOW, "{left} ms");
}

#[tokio::test]
async fn claims_in_the_data_folder_survive_a_restart() {
    let mut stage = Stage::embedded();
    stage.then(true, Err(PublishError::Unknown));
    let (gateway, first) = (stage.gateway().await, delivery("1"));
    assert_eq!(gateway.enqueue(first.clone()).await, UNKNOWN);
    gateway.close().await;
    if let Store::Embedded { folder, database: slot, .. } = &mut stage.store {
        Arc::into_inner(slot.take().unwrap()).unwrap().close().await;
        *slot = Some(database(folder));
    }
    let gateway = stage.gateway().await;
    assert_eq!(gateway.enqueue(delivery("1")).await, IN_PROGRESS);
    assert_eq!(gateway.enqueue(first).await, accepted("e"));
}

#[tokio::test]
async fn past_the_window_a_body_enters_again_and_old_rows_go() {
    let stage = Stage::embedded();
    let gateway = stage.gateway().await;
    let other = |n: u8| EnqueueRequest { identity: Identity([n; 16]), ..delivery("1") };
    for n in 0..20 {
        stage.then(true, if n % 2 == 0 { Ok(()) } else { Err(PublishError::Unknown) });
        let _ = gateway.enqueue(other(n)).await;
    }
    assert_eq!((stage.rows("seen").await, stage.rows("claims").await), (10, 10));
    stage.pass(WINDOW - Duration::from_micros(1));
    assert_eq!(gateway.enqueue(other(0)).await, duplicate("e"));
    stage.pass(LEASE + Duration::from_micros(1));
    for n in 100..110 {
        assert_eq!(gateway.enqueue(other(n)).await, accepted("e"));
    }
    assert_eq!((stage.rows("seen").await, stage.rows("claims").await), (10, 0));
    assert_eq!(gateway.enqueue(other(0)).await, accepted("e"));
}

#[test]
fn a_publish_ends_well_before_its_lease() {
    assert_eq!(publish_within(Duration::from_secs(6)), Duration::from_secs(3));
    assert_eq!(publish_within(LEASE), PUBLISH_WITHIN);
}

#[tokio::test]
async fn an_event_that_cannot_be_remembered_is_unknown_and_tried_again() {
    let stage = Stage::embedded();
    let gateway = stage.gateway().await;
    let Store::Embedded { database: Some(database), .. } = &stage.store else { panic!("a database") };
    let refuse = "CREATE TRIGGER no BEFORE INSERT ON seen BEGIN SELECT RAISE(ABORT, 'no'); END";
    database.write(|conn| conn.execute_batch(refuse)).await.unwrap();
    let (first, asked) = (delivery("1"), clock::instant());
    assert_eq!(gateway.enqueue(first.clone()).await, UNKNOWN);
    assert!(asked.elapsed() >= COMMIT_PAUSES.iter().sum::<Duration>(), "not without all its tries");
    assert_eq!(gateway.enqueue(delivery("1")).await, IN_PROGRESS);
    assert!(stage.counts("hookgate_enqueue_failures_total{kind=\"timeout\",queue=\"nats\"} 1"));
    database.write(|conn| conn.execute_batch("DROP TRIGGER no")).await.unwrap();
    assert_eq!(gateway.enqueue(first).await, accepted("e"));
    assert_eq!(stage.broker.taken(), ["e", "e"]);
    database.write(|conn| conn.execute_batch("DROP TABLE claims")).await.unwrap();
    assert!(matches!(gateway.enqueue(delivery("2")).await, Err(EnqueueError::Refused(_))));
    assert_eq!(stage.broker.taken().len(), 2, "what cannot be claimed is not published");
}

#[tokio::test]
async fn a_database_that_refuses_claims_is_told_until_it_takes_them() {
    let folder = tempfile::tempdir().unwrap();
    let (database, readiness) = (database(&folder), Arc::<Readiness>::default());
    let claims = EmbeddedClaims::new(database.clone(), Clock::System, readiness.clone());
    let claims = Claims::Embedded(claims);
    let ready = || format!("{readiness:?}").contains("dedupe: true");
    let options =
        Options { window: WINDOW, lease: LEASE, publish_within: PUBLISH_WITHIN, qualified: Arc::default() };
    let refuse = async || {
        let trigger = "CREATE TRIGGER no BEFORE INSERT ON claims BEGIN SELECT RAISE(ABORT, 'no'); END";
        database.write(|conn| conn.execute_batch(trigger)).await.unwrap();
        for _ in 0..2 {
            assert!(matches!(claims.claim(&delivery("1"), &options).await, Err(EnqueueError::Refused(_))));
        }
    };
    assert!(ready());
    refuse().await;
    assert!(!ready());
    database.write(|conn| conn.execute_batch("DROP TRIGGER no")).await.unwrap();
    until("it is ready again", async || ready()).await;
    // A database that never recovers does not delay the close either.
    refuse().await;
    let closed = tokio::time::timeout(Duration::from_secs(20), claims.close());
    assert!(closed.await.is_ok() && !ready());
    assert!(Arc::into_inner(database).is_some(), "somebody still asks the database");
}

#[tokio::test]
async fn a_lease_in_redis_ends_by_the_servers_clock_and_dead_redis_is_unreachable() {
    let mut stage = Stage { lease: Duration::from_secs(1), ..Stage::redis().await };
    stage.then(true, Err(PublishError::Unknown));
    let (gateway, first) = (stage.gateway().await, delivery("1"));
    until("it is published", async || gateway.enqueue(first.clone()).await == UNKNOWN).await;
    until("the lease ends", async || gateway.enqueue(delivery("1")).await == accepted("e")).await;
    let Store::Redis(server) = &mut stage.store else { panic!("a server") };
    server.run::<()>(&["SCRIPT", "FLUSH"]).await;
    assert_eq!(gateway.enqueue(delivery("1")).await, duplicate("e"), "a forgotten script is loaded again");
    let keys: Vec<String> = server.run(&["KEYS", "*"]).await;
    let identity = hex::encode(delivery("1").identity.0);
    assert_eq!(keys, [format!("hookgate:{{src:{identity}}}:hooks.{{source}}:seen")]);
    server.kill();
    assert_eq!(gateway.enqueue(delivery("2")).await, Err(EnqueueError::Unreachable));
    server.restart().await;
    until("it is back", async || gateway.enqueue(delivery("2")).await.is_ok()).await;
    assert!(!stage.counts("hookgate_enqueue_failures_total{kind=\"unreachable\",queue=\"nats\"} 0"));
}
