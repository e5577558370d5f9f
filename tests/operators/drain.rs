//! The end of a gateway: readiness goes first, what is in flight is answered, nothing answered 200 is lost. And two starts
//! that must fail, with a message that says why.

use std::net::TcpListener;

use support::{
    Client, Gateway, Home, Load, Persistence, Redis, Request, assert_each_once, basiq, ids, until,
};

/// A request whose body is not all sent yet: it is in flight until the rest is.
struct Slow {
    client: Client,
    rest: Vec<u8>,
}

impl Slow {
    async fn begin(gateway: &Gateway, delivery: &Request) -> Slow {
        let mut request = delivery.bytes();
        let rest = request.split_off(request.len() - 10);
        let mut client = Client::connect(gateway.edge).await.unwrap();
        client.send(&request).await.unwrap();
        until("the request is in flight", async || {
            gateway.metric("hookgate_requests_in_flight").await == 1.0
        })
        .await;
        Slow { client, rest }
    }
}

#[tokio::test]
async fn readiness_goes_first_and_what_is_in_flight_is_answered() {
    let home = Home::embedded();
    let mut gateway = home.serve().await;
    let mut slow = Slow::begin(&gateway, &basiq("slow")).await;
    let mut idle = Client::connect(gateway.edge).await.unwrap();
    let kept = idle.deliver(&basiq("before")).await.unwrap();
    assert_eq!(kept.header("connection"), Some("keep-alive"), "{kept:?}");

    gateway.sigterm();
    until("the gateway is unready", async || !gateway.ready().await).await;
    let report = gateway.readiness().await;
    assert_eq!((&report["draining"], &report["queue"]), (&true.into(), &"up".into()));
    // Whoever has not seen that yet is still served, and told to leave: on a new connection and on a kept one.
    let late = gateway.deliver(&basiq("late")).await;
    late.assert_accepted("late");
    assert_eq!(late.header("connection"), Some("close"), "{late:?}");
    let again = idle.deliver(&basiq("before")).await.unwrap();
    again.assert_duplicate("before");
    assert_eq!(again.header("connection"), Some("close"), "{again:?}");
    assert!(idle.closed().await);

    slow.client.send(&slow.rest).await.unwrap();
    let answer = slow.client.answer().await.unwrap();
    answer.assert_accepted("slow");
    assert_eq!(answer.header("connection"), Some("close"), "{answer:?}");
    assert!(slow.client.closed().await);
    assert_eq!(gateway.exit().await.code(), Some(0));
    assert!(!home.database().with_extension("db-wal").exists(), "the store was not closed");
    assert_eq!(ids(&home.events()), ["before", "late", "slow"]);
}

#[tokio::test]
async fn a_client_that_never_finishes_holds_the_end_up_only_so_long() {
    let home = Home::embedded().with("edge.drain_timeout", "1s");
    let mut gateway = home.serve().await;
    let mut slow = Slow::begin(&gateway, &basiq("slow")).await;
    let mut idle = Client::connect(gateway.edge).await.unwrap();
    idle.deliver(&basiq("before")).await.unwrap().assert_accepted("before");
    gateway.sigterm();
    assert_eq!(gateway.exit().await.code(), Some(0));
    assert!(slow.client.answer().await.is_err());
    assert!(idle.closed().await);
    assert_eq!(ids(&home.events()), ["before"]);
}

#[tokio::test]
async fn a_stop_under_load_loses_nothing_in_redis() {
    let redis = Redis::start(Persistence::Off).await;
    a_stop_under_load_loses_nothing(Home::redis(&redis)).await;
}

#[tokio::test]
async fn a_stop_under_load_loses_nothing_in_the_embedded_store() {
    a_stop_under_load_loses_nothing(Home::embedded()).await;
}

async fn a_stop_under_load_loses_nothing(home: Home) {
    // The senders do not look at readiness, so that they keep the gateway busy to the very end.
    let home = home.with("edge.drain_timeout", "1s");
    let mut gateway = home.serve().await;
    let load = Load::start(gateway.edge);
    load.taken(200).await;
    gateway.sigterm();
    assert_eq!(gateway.exit().await.code(), Some(0));
    let sent = load.finish().await;

    let events = home.events();
    let queued = ids(&events);
    let lost: Vec<_> = sent.taken.iter().filter(|id| !queued.contains(&id.as_str())).collect();
    assert!(lost.is_empty(), "answered 200 and lost: {lost:?}");
    // And what was not answered comes again.
    let gateway = home.serve().await;
    for id in sent.all.iter().filter(|id| !sent.taken.contains(*id)) {
        gateway.deliver(&basiq(id)).await.taken();
    }
    assert_each_once(&home.events(), &sent.all);
}

#[tokio::test]
async fn a_second_gateway_on_one_data_folder_is_refused() {
    let redis = Redis::start(Persistence::Off).await;
    for home in [Home::embedded(), Home::redis(&redis)] {
        let gateway = home.serve().await;
        let said = home.refusal().await;
        assert!(said.contains("another hookgate"), "{said}");
        assert!(said.contains("/data"), "it names what is in use: {said}");
        gateway.deliver(&basiq("first")).await.assert_accepted("first");
        gateway.kill9();
        home.serve().await.deliver(&basiq("first")).await.assert_duplicate("first");
    }
}

#[tokio::test]
async fn a_port_in_use_is_refused() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for key in ["edge.listen", "admin.listen"] {
        let said = Home::embedded().with(key, address.to_string()).refusal().await;
        assert!(
            said.contains(&format!("{key}: cannot listen on {address}: Address already in use")),
            "{said}"
        );
        assert!(said.contains("another program has the port"), "{said}");
    }
}

#[tokio::test]
async fn an_address_of_another_machine_is_told_as_that() {
    // Of a block that is for documentation (RFC 5737).
    let said = Home::embedded().with("edge.listen", "192.0.2.1:8080").refusal().await;
    assert!(said.contains("cannot listen on 192.0.2.1:8080") && said.contains("no such address"), "{said}");
}
