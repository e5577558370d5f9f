//! Once per event: however often and however concurrently an event is delivered, and whatever is killed meanwhile, it is
//! in the queue once, and never lost once it was answered 200.

use std::sync::Arc;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{
    Client, Gateway, Home, Load, Persistence, Redis, Sent, assert_each_once, atelio, basiq, basiq_about, ids,
    investor_update, until,
};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

#[tokio::test]
async fn concurrent_deliveries_over_two_gateways_enter_redis_once() {
    let redis = Redis::start(Persistence::Off).await;
    let (home, other) = (Home::redis(&redis), Home::redis(&redis));
    let gateways = [home.serve().await, other.serve().await];
    concurrent_deliveries_enter_once(&home, &gateways).await;
    assert_eq!(redis.run::<usize>(&["XLEN", "hookgate.events"]).await, 1);
}

#[tokio::test]
async fn concurrent_deliveries_enter_the_embedded_store_once() {
    let home = Home::embedded();
    let gateways = [home.serve().await];
    concurrent_deliveries_enter_once(&home, &gateways).await;
}

/// 200 deliveries of one event at the same moment, shared out among the gateways.
async fn concurrent_deliveries_enter_once(home: &Home, gateways: &[Gateway]) {
    let (delivery, together) = (basiq("the-event"), Arc::new(Barrier::new(200)));
    let mut senders = JoinSet::new();
    for gateway in gateways.iter().cycle().take(200) {
        let (edge, delivery, together) = (gateway.edge, delivery.clone(), together.clone());
        senders.spawn(async move {
            let mut client = Client::connect(edge).await.unwrap();
            together.wait().await;
            client.deliver(&delivery).await.unwrap().taken()
        });
    }
    let answers = senders.join_all().await;
    let count = |status: &str| answers.iter().filter(|(answered, _)| answered == status).count();
    assert_eq!((count("accepted"), count("duplicate")), (1, 199));
    assert!(answers.iter().all(|(_, id)| id == "the-event"), "{answers:?}");
    assert_eq!(ids(&home.events()), ["the-event"]);
}

#[tokio::test]
async fn a_killed_gateway_loses_nothing_in_redis() {
    let redis = Redis::start(Persistence::Off).await;
    a_killed_gateway_loses_nothing(&Home::redis(&redis)).await;
}

#[tokio::test]
async fn a_killed_gateway_loses_nothing_in_the_embedded_store() {
    a_killed_gateway_loses_nothing(&Home::embedded()).await;
}

async fn a_killed_gateway_loses_nothing(home: &Home) {
    let gateway = home.serve().await;
    let load = Load::start(gateway.edge);
    load.taken(300).await;
    gateway.kill9();
    let sent = load.finish().await;

    let gateway = home.serve().await;
    deliver_all_again(&gateway, &sent).await;
    assert_each_once(&home.events(), &sent.all);
}

#[tokio::test]
async fn a_killed_redis_that_syncs_always_loses_nothing() {
    let mut redis = Redis::start(Persistence::Always).await;
    let home = Home::redis(&redis);
    let gateway = home.serve().await;
    let load = Load::start(gateway.edge);
    load.taken(300).await;
    redis.kill9();
    until("the gateway has noticed", async || !gateway.ready().await).await;
    redis.restart().await;
    load.taken(100).await;
    let sent = load.finish().await;

    deliver_all_again(&gateway, &sent).await;
    assert_each_once(&home.events(), &sent.all);
}

/// As providers do with what was not answered, and some with what was.
async fn deliver_all_again(gateway: &Gateway, sent: &Sent) {
    let mut client = Client::connect(gateway.edge).await.unwrap();
    for id in &sent.all {
        let (status, entered_under) = client.deliver(&basiq(id)).await.unwrap().taken();
        assert_eq!(&entered_under, id);
        assert!(status == "duplicate" || !sent.taken.contains(id), "{id} was answered 200, and then lost");
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_after_its_body_gets_its_event_into_redis() {
    let redis = Redis::start(Persistence::Off).await;
    a_client_that_hangs_up_gets_its_event_in(&Home::redis(&redis)).await;
}

#[tokio::test]
async fn a_client_that_hangs_up_after_its_body_gets_its_event_into_the_embedded_store() {
    a_client_that_hangs_up_gets_its_event_in(&Home::embedded()).await;
}

async fn a_client_that_hangs_up_gets_its_event_in(home: &Home) {
    let gateway = home.serve().await;
    let all: Vec<String> = (0..20).map(|number| format!("hung-up-{number}")).collect();
    for id in &all {
        let mut client = Client::connect(gateway.edge).await.unwrap();
        client.send(&basiq(id).bytes()).await.unwrap();
        // Dropping the client closes its connection in good order: what was sent arrives.
        drop(client);
    }
    until("all are counted", async || gateway.metric(ACCEPTED).await == 20.0).await;
    assert_each_once(&home.events(), &all);
}

/// The request's work has begun; its client gives up, and that must neither stop the work nor leave it uncounted.
/// Over HTTP/2, where a client says so and hyper drops what it was doing for it.
#[tokio::test]
async fn a_client_that_gives_up_while_redis_is_slow_cancels_nothing() {
    let redis = Redis::start(Persistence::Off).await;
    let home = Home::redis(&redis);
    let gateway = home.serve().await;
    // Shorter than what counts as an outage; Redis ends the pause by itself.
    let _: String = redis.run(&["CLIENT", "PAUSE", "300", "WRITE"]).await;
    let stream = TokioIo::new(TcpStream::connect(gateway.edge).await.unwrap());
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let mut connections = JoinSet::new();
    connections.spawn(connection);

    let read = "hookgate_request_body_bytes_count{source=\"basiq\"}";
    tokio::select! {
        // Only if this test was held up for longer than the pause.
        answer = sender.send_request(basiq("given-up").to_hyper("http://hookgate.test")) => drop(answer),
        () = until("the body is read", async || gateway.metric(read).await == 1.0) => {}
    }
    until("it is counted", async || gateway.metric(ACCEPTED).await == 1.0).await;
    assert_eq!(ids(&home.events()), ["given-up"]);
}

#[tokio::test]
async fn conflicts_in_redis() {
    let redis = Redis::start(Persistence::Off).await;
    let home = Home::redis(&redis);
    let gateway = home.serve().await;
    a_conflict_under_a_signed_id_is_dropped_once_told(&home, &gateway).await;
    a_conflict_under_a_derived_id_is_forwarded(&home, &gateway).await;
}

#[tokio::test]
async fn conflicts_in_the_embedded_store() {
    let home = Home::embedded();
    let gateway = home.serve().await;
    a_conflict_under_a_signed_id_is_dropped_once_told(&home, &gateway).await;
    a_conflict_under_a_derived_id_is_forwarded(&home, &gateway).await;
}

async fn a_conflict_under_a_signed_id_is_dropped_once_told(home: &Home, gateway: &Gateway) {
    let first = basiq_about("signed-id", "user-1");
    let other = basiq_about("signed-id", "user-2");
    gateway.deliver(&first).await.assert_accepted("signed-id");
    for _ in 0..3 {
        gateway.deliver(&other).await.assert_duplicate("signed-id");
        gateway.deliver(&first).await.assert_duplicate("signed-id");
    }
    assert_eq!(gateway.metric("hookgate_conflicts_total{source=\"basiq\"}").await, 1.0);
    assert_eq!(gateway.metric("hookgate_rejects_total{reason=\"conflict\",source=\"basiq\"}").await, 0.0);
    until("the conflict is on record", async || !home.records("conflict").is_empty()).await;
    let records = home.records("conflict");
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!((&records[0]["source"], &records[0]["status"]), (&"basiq".into(), &200.into()));
    assert_eq!(ids(&home.events()), ["signed-id"]);
}

async fn a_conflict_under_a_derived_id_is_forwarded(home: &Home, gateway: &Gateway) {
    let both = [
        ("atelio", atelio("customer-1", "first"), atelio("customer-1", "other")),
        ("securitize", investor_update(1, "domain-1"), investor_update(1, "domain-2")),
    ];
    for (source, first, other) in both {
        let (status, id) = gateway.deliver(&first).await.taken();
        assert_eq!(status, "accepted");
        let conflict = format!("{id}{}", other.conflict_suffix());
        gateway.deliver(&other).await.assert_accepted(&conflict);
        for _ in 0..2 {
            gateway.deliver(&first).await.assert_duplicate(&id);
            gateway.deliver(&other).await.assert_duplicate(&conflict);
        }
        let mut events = home.events();
        events.retain(|event| event["provider"] == source);
        assert_eq!(ids(&events), [&id, &conflict]);
        assert_eq!((events[0].get("conflict"), &events[1]["conflict"]), (None, &true.into()));
        let counted = format!("hookgate_conflicts_total{{source=\"{source}\"}}");
        assert_eq!(gateway.metric(&counted).await, 1.0);
    }
}

const ACCEPTED: &str = "hookgate_requests_total{outcome=\"accepted\",provider=\"basiq\",source=\"basiq\"}";
