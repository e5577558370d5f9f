//! The faults that a gateway must survive, a test a row: what the provider sees, and what becomes of the event.
//!
//! | fault | the provider sees | afterwards |
//! |---|---|---|
//! | Redis or broker down, spool on | 200 once synced to the spool | drained in order when it is back |
//! | Redis or broker down, spool off or full | 503, Retry-After | it comes again |
//! | publish timed out | 200 by way of the spool, else 503 | no second copy; at a broker, the same message id |
//! | killed between claim and confirm | no answer | the lease runs out, the retry gets in |
//! | killed after enqueue, before the answer | no answer | the retry is a duplicate |
//! | disk full | 503 (embedded, spool); with Redis it goes on | the reject log degrades to metrics |
//! | client hangs up mid-body | nothing | nothing durable |
//! | SIGTERM | what is in flight is answered | nothing answered 200 is lost |
//! | secret rotated at the provider | 401 until configured | two may be configured at once |
//! | clock wrong | 401 | the histogram shows it |
//! | Redis evicts or forgets | – | `check --live` refuses the settings |

use std::time::Duration;

use support::{
    Client, Gateway, Home, Nats, Persistence, Ran, Redis, SmallDisk, assert_each_once, basiq, basiq_about,
    basiq_by_another_secret, basiq_signed_at, ids, until, within,
};

/// A broker with a stream, and a gateway's home that publishes to it; claims are in the data folder.
async fn nats() -> (Nats, Home) {
    let nats = Nats::start().await;
    nats.create_stream("HOOKS", &["hookgate.>"]).await;
    let home = Home::embedded().with("queue.kind", "nats").with("queue.url", nats.url());
    (nats, home.with("dedupe.lease", "1s"))
}

fn spooling(home: Home) -> Home {
    home.with("spool.enabled", true)
}

async fn spooled(gateway: &Gateway) -> f64 {
    gateway.metric("hookgate_spool_events").await
}

async fn stored(nats: &Nats) -> Vec<String> {
    let id = |message: &support::Taken| {
        let event: serde_json::Value = serde_json::from_str(&message.body).unwrap();
        event["id"].as_str().unwrap().to_owned()
    };
    nats.messages("HOOKS").await.iter().map(id).collect()
}

#[tokio::test]
async fn redis_down_and_the_spool_on() {
    let mut redis = Redis::start(Persistence::Always).await;
    let home = spooling(Home::redis(&redis));
    let gateway = home.serve().await;
    redis.kill9();
    let sent: Vec<String> = (0..50).map(|number| format!("event-{number:02}")).collect();
    for id in &sent {
        gateway.deliver(&basiq(id)).await.assert_accepted(id);
    }
    gateway.deliver(&basiq("event-07")).await.assert_duplicate("event-07");
    assert_eq!(gateway.readiness().await["spool"], "waiting");
    redis.restart().await;
    until("the spool is drained", async || spooled(&gateway).await == 0.0).await;
    assert_eq!(ids(&home.events()), sent);
    assert_eq!(gateway.readiness().await["spool"], "empty");
}

#[tokio::test]
async fn a_broker_down_and_the_spool_on() {
    let (mut nats, home) = nats().await;
    let gateway = spooling(home).serve().await;
    nats.kill9();
    let sent: Vec<String> = (0..20).map(|number| format!("event-{number:02}")).collect();
    for id in &sent {
        gateway.deliver(&basiq(id)).await.assert_accepted(id);
    }
    nats.restart().await;
    until("the spool is drained", async || spooled(&gateway).await == 0.0).await;
    assert_eq!(stored(&nats).await, sent);
    gateway.deliver(&basiq("event-07")).await.assert_duplicate("event-07");
}

#[tokio::test]
async fn redis_down_and_the_spool_full() {
    let mut redis = Redis::start(Persistence::Always).await;
    let home = spooling(Home::redis(&redis)).with("spool.max_bytes", "8KiB");
    let gateway = home.serve().await;
    redis.kill9();
    let mut taken = Vec::new();
    let refused = loop {
        let id = format!("event-{:02}", taken.len());
        let answer = gateway.deliver(&basiq(&id)).await;
        if answer.status == 503 {
            answer.assert_come_again();
            break id;
        }
        answer.assert_accepted(&id);
        taken.push(id);
        assert!(taken.len() < 100, "the spool does not fill");
    };
    assert!(!taken.is_empty());
    assert_eq!(gateway.readiness().await["spool"], "full");
    redis.restart().await;
    until("the spool is drained", async || spooled(&gateway).await == 0.0).await;
    gateway.deliver(&basiq(&refused)).await.assert_accepted(&refused);
    taken.push(refused);
    assert_eq!(ids(&home.events()), taken);
}

#[tokio::test]
async fn a_broker_down_and_the_spool_off() {
    let (mut nats, home) = nats().await;
    let gateway = home.serve().await;
    nats.kill9();
    let known = Duration::from_secs(6);
    within(known, "it is answered", gateway.deliver(&basiq("event"))).await.assert_come_again();
    until("the gateway is unready", async || !gateway.ready().await).await;
    nats.restart().await;
    until("the gateway is ready again", async || gateway.ready().await).await;
    until("the retry gets in", async || gateway.deliver(&basiq("event")).await.status == 200).await;
    assert_eq!(stored(&nats).await, ["event"]);
}

#[tokio::test]
async fn a_publish_to_redis_timed_out() {
    let redis = Redis::start(Persistence::Off).await;
    let home = spooling(Home::redis(&redis));
    let gateway = home.serve().await;
    gateway.deliver(&basiq("before")).await.assert_accepted("before");
    redis.pause();
    gateway.deliver(&basiq("unknown")).await.assert_accepted("unknown");
    redis.resume();
    until("the spool is drained", async || spooled(&gateway).await == 0.0).await;
    assert_eq!(ids(&home.events()), ["before", "unknown"]);
}

#[tokio::test]
async fn a_publish_to_a_broker_timed_out() {
    let (nats, home) = nats().await;
    let gateway = spooling(home).serve().await;
    gateway.deliver(&basiq("before")).await.assert_accepted("before");
    nats.pause();
    gateway.deliver(&basiq("unknown")).await.assert_accepted("unknown");
    nats.resume();
    until("the spool is drained", async || spooled(&gateway).await == 0.0).await;
    // The first try is in its buffers and may be stored after the second: the message id is the same.
    assert_eq!(stored(&nats).await, ["before", "unknown"]);
}

#[tokio::test]
async fn killed_between_claim_and_confirm() {
    let (nats, home) = nats().await;
    let gateway = home.serve().await;
    nats.pause();
    let mut client = Client::connect(gateway.edge).await.unwrap();
    client.send(&basiq("event").bytes()).await.unwrap();
    // Whoever comes second is told that the first has claimed it.
    until("the event is claimed", async || {
        home.records("in_progress").len() == 1 || {
            let answer = gateway.deliver(&basiq("event")).await;
            answer.assert_come_again();
            answer.body.contains("in-progress") || answer.body.contains("in progress")
        }
    })
    .await;
    gateway.kill9();
    nats.resume();
    let gateway = home.serve().await;
    until("the lease runs out, and the retry gets in", async || {
        let answer = gateway.deliver(&basiq("event")).await;
        if answer.status != 200 {
            answer.assert_come_again();
        }
        answer.status == 200
    })
    .await;
    assert_eq!(stored(&nats).await, ["event"]);
}

#[tokio::test]
async fn killed_after_the_enqueue_and_before_the_answer() {
    let redis = Redis::start(Persistence::Off).await;
    for home in [Home::embedded(), Home::redis(&redis)] {
        let gateway = home.serve().await;
        let mut client = Client::connect(gateway.edge).await.unwrap();
        client.send(&basiq("event").bytes()).await.unwrap();
        until("the event is in the queue", async || ids(&home.events()) == ["event"]).await;
        // The answer may be on its way; the provider that is not told it comes again.
        gateway.kill9();
        home.serve().await.deliver(&basiq("event")).await.assert_duplicate("event");
        assert_eq!(ids(&home.events()), ["event"]);
    }
}

#[tokio::test]
async fn the_disk_is_full() {
    let Some(disk) = SmallDisk::mount(8) else { return };
    let mut redis = Redis::start(Persistence::Off).await;
    let data_dir = disk.path().join("data");
    let home = spooling(Home::redis(&redis)).with("data_dir", data_dir.to_str());
    let gateway = home.serve().await;
    let filler = disk.fill();
    // Redis takes events, whatever the disk does; refusals are still counted.
    gateway.deliver(&basiq("by redis")).await.assert_accepted("by redis");
    let mut forged = basiq("forged");
    forged.body.push(b' ');
    assert_eq!(gateway.deliver(&forged).await.status, 401);
    let rejects = "hookgate_rejects_total{reason=\"signature_mismatch\",source=\"basiq\"}";
    assert_eq!(gateway.metric(rejects).await, 1.0);

    redis.kill9();
    let (mut taken, long) = (vec!["by redis".to_owned()], "x".repeat(20_000));
    // There may be room in what the database has written before.
    let refused = loop {
        let id = format!("meanwhile-{}", taken.len());
        let answer = gateway.deliver(&basiq_about(&id, &long)).await;
        if answer.status == 503 {
            answer.assert_come_again();
            break id;
        }
        answer.assert_accepted(&id);
        taken.push(id);
        assert!(taken.len() < 1000, "the disk does not fill");
    };
    until("neither could take an event", async || !gateway.ready().await).await;
    std::fs::remove_file(filler).unwrap();
    gateway.deliver(&basiq_about(&refused, &long)).await.assert_accepted(&refused);
    taken.push(refused);
    redis.restart().await;
    until("the spool is drained", async || spooled(&gateway).await == 0.0).await;
    // This Redis keeps nothing over a restart: what it had taken went with it.
    assert_each_once(&home.events(), taken.iter().skip(1));
}

#[tokio::test]
async fn a_client_hangs_up_in_the_middle_of_its_body() {
    let home = Home::embedded();
    let gateway = home.serve().await;
    let request = basiq("half").bytes();
    let mut client = Client::connect(gateway.edge).await.unwrap();
    client.send(&request[..request.len() - 10]).await.unwrap();
    let in_flight = "hookgate_requests_in_flight";
    until("it is in flight", async || gateway.metric(in_flight).await == 1.0).await;
    drop(client);
    until("it is over", async || gateway.metric(in_flight).await == 0.0).await;
    assert!(home.events().is_empty());
    gateway.deliver(&basiq("half")).await.assert_accepted("half");
}

#[tokio::test]
async fn sigterm_with_events_in_the_spool() {
    let mut redis = Redis::start(Persistence::Always).await;
    let home = spooling(Home::redis(&redis));
    let mut gateway = home.serve().await;
    redis.kill9();
    for id in ["a", "b", "c"] {
        gateway.deliver(&basiq(id)).await.assert_accepted(id);
    }
    gateway.sigterm();
    assert_eq!(gateway.exit().await.code(), Some(0));
    redis.restart().await;
    let gateway = home.serve().await;
    until("the spool is drained", async || spooled(&gateway).await == 0.0).await;
    assert_eq!(ids(&home.events()), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_secret_is_rotated_at_the_provider() {
    let home = Home::embedded();
    let rotated = basiq_by_another_secret("event");
    let gateway = home.serve().await;
    assert_eq!(gateway.deliver(&rotated).await.status, 401);
    gateway.kill9();
    let gateway = home.knowing_both_secrets().serve().await;
    gateway.deliver(&rotated).await.assert_accepted("event");
    gateway.deliver(&basiq("old")).await.assert_accepted("old");
    let matches = |slot| format!("hookgate_secret_matches_total{{slot=\"{slot}\",source=\"basiq\"}}");
    assert_eq!((gateway.metric(&matches(0)).await, gateway.metric(&matches(1)).await), (1.0, 1.0));
}

#[tokio::test]
async fn the_clock_is_wrong() {
    let home = Home::embedded();
    let gateway = home.serve().await;
    // Whose clock it is looks the same from here.
    assert_eq!(gateway.deliver(&basiq_signed_at("late", -3600)).await.status, 401);
    assert_eq!(home.records("timestamp_outside_tolerance").len(), 1);
    let age = "hookgate_signature_age_seconds_sum{source=\"basiq\"}";
    assert!((3600.0..3700.0).contains(&gateway.metric(age).await));
}

#[tokio::test]
async fn redis_evicts_or_forgets() {
    let redis = Redis::start(Persistence::Off).await;
    let home = Home::redis(&redis);
    let Ran { code, out: said, .. } = home.check_live();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("no persistence") && !said.contains("maxmemory"), "{said}");
    let _: String = redis.run(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    let Ran { code, out: said, .. } = home.check_live();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("maxmemory-policy is allkeys-lru"), "{said}");
    let gateway = home.serve().await;
    for setting in ["redis_persistence", "redis_maxmemory_policy"] {
        let series = format!("hookgate_unsafe_settings{{setting=\"{setting}\"}}");
        until("it is exported", async || gateway.metric(&series).await == 1.0).await;
    }

    let _: String = redis.run(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    let _: String = redis.run(&["CONFIG", "SET", "appendonly", "yes"]).await;
    let Ran { code, out: said, .. } = home.check_live();
    assert_eq!((code, said.contains("redis.url")), (0, false), "{said}");
}
