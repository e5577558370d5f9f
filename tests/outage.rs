//! When the queue is away: providers are told to come again, at once and for as long as it lasts; nothing is remembered that
//! is not in the queue; and when it is back, so is the gateway, by itself.

// The lint knows `#[test]` functions, not what they call.
#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::time::Duration;

use rusqlite::Connection;
use support::{
    Client, Delivery, Gateway, Home, Persistence, Redis, SmallDisk, assert_each_once, ids, until, within,
};

#[tokio::test]
async fn redis_stops_and_starts_again() {
    let mut redis = Redis::start(Persistence::Always).await;
    let home = Home::redis(&redis);
    let gateway = home.serve().await;
    gateway.deliver(&Delivery::basiq("before")).await.assert_accepted("before");

    redis.stop().await;
    is_told_to_come_again(&gateway, "meanwhile").await;
    redis.restart().await;
    until("the gateway is ready again", async || gateway.ready().await).await;
    gateway.deliver(&Delivery::basiq("meanwhile")).await.assert_accepted("meanwhile");
    gateway.deliver(&Delivery::basiq("before")).await.assert_duplicate("before");
    assert_eq!(ids(&home.events()), ["before", "meanwhile"]);
    assert_eq!(gateway.metric("hookgate_queue_up{queue=\"redis\"}").await, 1.0);
}

#[tokio::test]
async fn redis_freezes_and_goes_on() {
    let redis = Redis::start(Persistence::Off).await;
    let home = Home::redis(&redis);
    let gateway = home.serve().await;
    gateway.deliver(&Delivery::basiq("before")).await.assert_accepted("before");

    redis.pause();
    is_told_to_come_again(&gateway, "meanwhile").await;
    redis.resume();
    until("the gateway is ready again", async || gateway.ready().await).await;
    // What was sent into the freeze may have got in by itself when Redis went on; either is right, twice is not.
    gateway.deliver(&Delivery::basiq("meanwhile")).await.taken();
    gateway.deliver(&Delivery::basiq("before")).await.assert_duplicate("before");
    assert_eq!(ids(&home.events()), ["before", "meanwhile"]);
}

/// The queue has just gone. The first answer comes when that is known, the later ones at once.
async fn is_told_to_come_again(gateway: &Gateway, id: &str) {
    let (delivery, known) = (Delivery::basiq(id), Duration::from_secs(2));
    within(known, "a dead queue is known within a second", gateway.deliver(&delivery))
        .await
        .assert_come_again();
    until("the gateway is unready", async || !gateway.ready().await).await;
    let report = gateway.readiness().await;
    assert_eq!(
        (&report["queue"], &report["dedupe"], &report["draining"]),
        (&"down".into(), &"down".into(), &false.into())
    );
    assert_eq!(gateway.admin("/livez").await.status, 200);
    let later = async {
        let mut client = Client::connect(gateway.edge).await.unwrap();
        for _ in 0..20 {
            client.deliver(&delivery).await.unwrap().assert_come_again();
        }
    };
    within(Duration::from_secs(5), "later requests do not wait for it, one after the other", later).await;
}

#[tokio::test]
async fn a_gateway_started_before_redis_waits_for_it() {
    let mut redis = Redis::start(Persistence::Off).await;
    let home = Home::redis(&redis);
    redis.stop().await;
    let gateway = home.serve_unready().await;
    is_told_to_come_again(&gateway, "early").await;
    redis.restart().await;
    until("the gateway is ready", async || gateway.ready().await).await;
    gateway.deliver(&Delivery::basiq("early")).await.assert_accepted("early");
    assert_eq!(ids(&home.events()), ["early"]);
}

#[tokio::test]
async fn a_redis_without_memory_takes_nothing_and_remembers_nothing() {
    let redis = Redis::start(Persistence::Off).await;
    let home = Home::redis(&redis);
    let gateway = home.serve().await;
    let _: String = redis.run(&["CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1"]).await;
    for _ in 0..3 {
        gateway.deliver(&Delivery::basiq("too-much")).await.assert_come_again();
    }
    assert_eq!(redis.remembered().await, 0);
    assert_eq!(home.events().len(), 0);
    until("the refusals are on record", async || home.records("queue_unavailable").len() == 3).await;

    let _: String = redis.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
    until("the gateway is ready", async || gateway.ready().await).await;
    gateway.deliver(&Delivery::basiq("too-much")).await.assert_accepted("too-much");
}

/// `/readyz` is 200 while a new event could be made durable, else 503.
#[tokio::test]
async fn a_gateway_whose_redis_has_no_memory_is_not_ready() {
    let redis = Redis::start(Persistence::Off).await;
    let home = Home::redis(&redis);
    let gateway = home.serve().await;
    let _: String = redis.run(&["CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1"]).await;
    until("the gateway is unready", async || !gateway.ready().await).await;
    gateway.deliver(&Delivery::basiq("too-much")).await.assert_come_again();
    let _: String = redis.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
    until("the gateway is ready again", async || gateway.ready().await).await;
}

/// The one refusal of an `XADD` that leaves Redis free to write everything else, the memory of the event included.
#[tokio::test]
async fn an_event_that_the_stream_refuses_is_not_remembered() {
    let redis = Redis::start(Persistence::Off).await;
    let home = Home::redis(&redis);
    let gateway = home.serve().await;
    gateway.deliver(&Delivery::basiq("before")).await.assert_accepted("before");
    let _: String =
        redis.run(&["XSETID", "hookgate.events", "18446744073709551615-18446744073709551615"]).await;
    gateway.deliver(&Delivery::basiq("refused")).await.assert_come_again();
    assert_eq!((redis.remembered().await, home.events().len()), (1, 1));

    let _: usize = redis.run(&["DEL", "hookgate.events"]).await;
    gateway.deliver(&Delivery::basiq("refused")).await.assert_accepted("refused");
    assert_eq!(ids(&home.events()), ["refused"]);
}

#[tokio::test]
async fn a_stream_at_its_bound_takes_no_more_until_it_is_trimmed() {
    let redis = Redis::start(Persistence::Off).await;
    let home = Home::redis(&redis).with("queue.max_backlog", 3);
    let gateway = home.serve().await;
    for id in ["a", "b", "c"] {
        gateway.deliver(&Delivery::basiq(id)).await.assert_accepted(id);
    }
    gateway.deliver(&Delivery::basiq("d")).await.assert_come_again();
    gateway.deliver(&Delivery::basiq("a")).await.assert_duplicate("a");
    assert_eq!(ids(&home.events()), ["a", "b", "c"], "it is never trimmed to make room");
    assert_eq!(redis.remembered().await, 3);
    until("the refusal is on record", async || home.records("queue_unavailable").len() == 1).await;

    let _: usize = redis.run(&["XTRIM", "hookgate.events", "MAXLEN", "1"]).await;
    gateway.deliver(&Delivery::basiq("d")).await.assert_accepted("d");
    assert_eq!(ids(&home.events()), ["c", "d"]);
}

#[tokio::test]
async fn another_process_that_holds_the_database_is_an_outage() {
    let home = Home::embedded();
    let gateway = home.serve().await;
    gateway.deliver(&Delivery::basiq("before")).await.assert_accepted("before");

    let intruder = Connection::open(home.database()).unwrap();
    intruder.execute_batch("BEGIN IMMEDIATE").unwrap();
    gateway.deliver(&Delivery::basiq("meanwhile")).await.assert_come_again();
    until("the gateway is unready", async || !gateway.ready().await).await;
    assert_eq!(gateway.readiness().await["queue"], "down");
    intruder.execute_batch("ROLLBACK").unwrap();
    until("the gateway is ready again", async || gateway.ready().await).await;
    gateway.deliver(&Delivery::basiq("meanwhile")).await.assert_accepted("meanwhile");
    assert_eq!(ids(&home.events()), ["before", "meanwhile"]);
}

#[tokio::test]
async fn a_full_disk_is_an_outage_until_there_is_room() {
    let Some(disk) = SmallDisk::mount(4) else { return };
    let data_dir = disk.path().join("data");
    let home = Home::embedded().with("data_dir", data_dir.to_str());
    let gateway = home.serve().await;
    gateway.deliver(&Delivery::basiq("before")).await.assert_accepted("before");

    let filler = disk.fill();
    // There may be room in what the database has written before: what is answered 200 until it is used up must be kept.
    let (mut taken, long) = (vec!["before".to_owned()], "x".repeat(20_000));
    let refused = loop {
        let id = format!("meanwhile-{}", taken.len());
        let answer = gateway.deliver(&Delivery::basiq_about(&id, &long)).await;
        if answer.status == 503 {
            answer.assert_come_again();
            break id;
        }
        answer.assert_accepted(&id);
        taken.push(id);
        assert!(taken.len() < 1000, "the disk does not fill");
    };
    until("the gateway is unready", async || !gateway.ready().await).await;
    assert_eq!(gateway.readiness().await["queue"], "down");

    fs::remove_file(filler).unwrap();
    until("the gateway is ready again", async || gateway.ready().await).await;
    gateway.deliver(&Delivery::basiq_about(&refused, &long)).await.assert_accepted(&refused);
    taken.push(refused);
    assert_each_once(&home.events(), &taken);
    // The store is as good after a restart.
    gateway.kill9();
    let gateway = home.serve().await;
    gateway.deliver(&Delivery::basiq("before")).await.assert_duplicate("before");
    assert_each_once(&home.events(), &taken);
}
