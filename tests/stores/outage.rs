//! When the queue is away: providers are told to come again, at once and for as long as it lasts; nothing is remembered that
//! is not in the queue; and when it is back, so is the gateway, by itself.

use std::fs;
use std::time::Duration;

use rusqlite::Connection;
use support::{
    Client, Gateway, Home, Nats, Persistence, Ran, Redis, Request, STANDARD_SECRET, SmallDisk, TOKEN,
    assert_each_once, basiq, basiq_about, eventually, ids, investor_update, until, within,
};

#[tokio::test]
async fn redis_stops_and_starts_again() {
    let mut redis = Redis::start(Persistence::Always).await;
    let home = Home::redis(&redis);
    let gateway = home.serve().await;
    gateway.deliver(&basiq("before")).await.assert_accepted("before");

    redis.stop().await;
    is_told_to_come_again(&gateway, "meanwhile").await;
    redis.restart().await;
    until("the gateway is ready again", async || gateway.ready().await).await;
    gateway.deliver(&basiq("meanwhile")).await.assert_accepted("meanwhile");
    gateway.deliver(&basiq("before")).await.assert_duplicate("before");
    assert_eq!(ids(&home.events()), ["before", "meanwhile"]);
    assert_eq!(gateway.metric("hookgate_queue_up{queue=\"redis\"}").await, 1.0);
    let said = gateway.log();
    assert!(!said.contains("redis cannot be reached"), "each time it is tried: {said}");
}

#[tokio::test]
async fn redis_freezes_and_goes_on() {
    let redis = Redis::start(Persistence::Off).await;
    let home = Home::redis(&redis);
    let gateway = home.serve().await;
    gateway.deliver(&basiq("before")).await.assert_accepted("before");

    redis.pause();
    is_told_to_come_again(&gateway, "meanwhile").await;
    redis.resume();
    until("the gateway is ready again", async || gateway.ready().await).await;
    // What was sent into the freeze may have got in by itself when Redis went on; either is right, twice is not.
    gateway.deliver(&basiq("meanwhile")).await.taken();
    gateway.deliver(&basiq("before")).await.assert_duplicate("before");
    assert_eq!(ids(&home.events()), ["before", "meanwhile"]);
}

/// The queue has just gone. The first answer comes when that is known, the later ones at once.
async fn is_told_to_come_again(gateway: &Gateway, id: &str) {
    let (delivery, known) = (basiq(id), Duration::from_secs(2));
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
    gateway.deliver(&basiq("early")).await.assert_accepted("early");
    assert_eq!(ids(&home.events()), ["early"]);
}

#[tokio::test]
async fn a_redis_without_memory_takes_nothing_and_remembers_nothing() {
    let redis = Redis::start(Persistence::Off).await;
    let home = Home::redis(&redis);
    let gateway = home.serve().await;
    let _: String = redis.run(&["CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1"]).await;
    for _ in 0..3 {
        gateway.deliver(&basiq("too-much")).await.assert_come_again();
    }
    assert_eq!(redis.remembered().await, 0);
    assert_eq!(home.events().len(), 0);
    until("the refusals are on record", async || home.records("queue_unavailable").len() == 3).await;

    let _: String = redis.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
    until("the gateway is ready", async || gateway.ready().await).await;
    gateway.deliver(&basiq("too-much")).await.assert_accepted("too-much");
}

/// `/readyz` is 200 while a new event could be made durable, else 503.
#[tokio::test]
async fn a_gateway_whose_redis_has_no_memory_is_not_ready() {
    let redis = Redis::start(Persistence::Off).await;
    let home = Home::redis(&redis);
    let gateway = home.serve().await;
    let _: String = redis.run(&["CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1"]).await;
    until("the gateway is unready", async || !gateway.ready().await).await;
    gateway.deliver(&basiq("too-much")).await.assert_come_again();
    let _: String = redis.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
    until("the gateway is ready again", async || gateway.ready().await).await;
}

/// A user of Redis whose rights a test takes away, and a config that uses it.
async fn as_user(redis: &Redis) -> Home {
    let _: String = redis.run(&["ACL", "SETUSER", "gate", "on", ">hush", "~*", "&*", "+@all"]).await;
    Home::redis_at(format!("redis://gate:hush@127.0.0.1:{}/0", redis.port()))
}

async fn set_user(redis: &Redis, rules: &[&str]) {
    let _: String = redis.run(&[&["ACL", "SETUSER", "gate"], rules].concat()).await;
}

const QUEUE_UP: &str = "hookgate_queue_up{queue=\"redis\"}";

/// Nobody need have delivered anything for that to be seen.
#[tokio::test]
async fn a_redis_that_refuses_every_event_makes_the_gateway_unready_until_it_takes_them() {
    let redis = Redis::start(Persistence::Off).await;
    let gateway = as_user(&redis).await.serve().await;
    let cases: [(&[&str], &[&str], &str); 5] = [
        (&["-xadd"], &["+xadd"], "XADD: "),
        (&["-evalsha"], &["+evalsha"], "NOPERM"),
        (&["resetkeys", "~other:*"], &["allkeys"], "NOPERM"),
        // The stream, and not what is remembered of it.
        (&["resetkeys", "~hookgate.events"], &["allkeys"], "NOPERM"),
        (&["-set"], &["+set"], "SET: "),
    ];
    for (n, (takes_away, gives_back, says)) in cases.into_iter().enumerate() {
        let id = format!("refused-{n}");
        set_user(&redis, takes_away).await;
        until(&format!("the gateway is unready: {takes_away:?}"), async || !gateway.ready().await).await;
        assert_eq!(gateway.readiness().await["queue"], "down");
        assert_eq!(gateway.metric(QUEUE_UP).await, 0.0);
        gateway.deliver(&basiq(&id)).await.assert_come_again();
        set_user(&redis, gives_back).await;
        until("the gateway is ready again", async || gateway.ready().await).await;
        gateway.deliver(&basiq(&id)).await.assert_accepted(&id);
        let said = gateway.log();
        let told: Vec<_> = said.lines().filter(|line| line.contains("redis takes no events")).collect();
        assert_eq!(told.len(), n + 1, "once each time: {said}");
        assert!(told[n].contains(says) && told[n].contains("hookgate.events"), "{said}");
        assert!(said.contains("redis refuses events") && !said.contains(&id), "{said}");
    }
}

#[tokio::test]
async fn a_key_that_is_no_stream_takes_no_events_from_the_start_on() {
    let redis = Redis::start(Persistence::Off).await;
    let home = Home::redis(&redis);
    let _: String = redis.run(&["SET", "hookgate.events", "no stream"]).await;
    let gateway = home.serve_unready().await;
    let told =
        || gateway.log().lines().any(|line| line.contains("takes no events") && line.contains("WRONGTYPE"));
    until("it is told", async || told()).await;
    assert!(!gateway.ready().await);
    gateway.deliver(&basiq("early")).await.assert_come_again();
    let _: usize = redis.run(&["DEL", "hookgate.events"]).await;
    until("the gateway is ready", async || gateway.ready().await).await;
    gateway.deliver(&basiq("early")).await.assert_accepted("early");
    assert_eq!(ids(&home.events()), ["early"]);
}

#[tokio::test]
async fn how_many_events_were_refused_is_told_when_it_is_over() {
    let redis = Redis::start(Persistence::Off).await;
    let gateway = Home::redis(&redis).serve().await;
    let _: String = redis.run(&["SET", "hookgate.events", "no stream"]).await;
    for id in ["a", "b", "c"] {
        gateway.deliver(&basiq(id)).await.assert_come_again();
    }
    let told =
        |word: &str| gateway.log().lines().filter(|line| line.contains(word)).map(str::to_owned).next_back();
    until("the end is told", async || told("redis has refused no event for 10 s").is_some()).await;
    assert!(
        told("redis has refused no event for 10 s").unwrap().contains("\"refused\":3"),
        "{}",
        gateway.log()
    );
    assert_eq!(gateway.log().matches("\"redis refuses events\"").count(), 1);
}

/// What loads a script by its hash needs no other right.
#[tokio::test]
async fn a_user_without_eval_takes_events_and_is_ready() {
    let redis = Redis::start(Persistence::Off).await;
    let home = as_user(&redis).await;
    set_user(&redis, &["-eval"]).await;
    let gateway = home.serve().await;
    gateway.deliver(&basiq("a")).await.assert_accepted("a");
    let _: String = redis.run(&["SCRIPT", "FLUSH"]).await;
    gateway.deliver(&basiq("b")).await.assert_accepted("b");
    let _: String = redis.run(&["CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1"]).await;
    until("the gateway is unready", async || !gateway.ready().await).await;
    let said = gateway.log();
    assert!(said.contains("\"OOM\"") && !said.contains("NOPERM"), "{said}");
}

#[tokio::test]
async fn with_a_spool_a_redis_that_refuses_every_event_is_told_and_costs_none() {
    let redis = Redis::start(Persistence::Off).await;
    let home = as_user(&redis).await.with("spool.enabled", true);
    let gateway = home.serve().await;
    until("the queue is up", async || gateway.readiness().await["queue"] == "up").await;
    set_user(&redis, &["-xadd"]).await;
    until("the queue is down", async || gateway.readiness().await["queue"] == "down").await;
    assert!(gateway.ready().await, "the spool takes events");
    gateway.deliver(&basiq("meanwhile")).await.assert_accepted("meanwhile");
    assert_eq!(gateway.readiness().await["spool"], "waiting");
    set_user(&redis, &["+xadd"]).await;
    until("all is well", async || {
        let report = gateway.readiness().await;
        (&report["queue"], &report["spool"]) == (&"up".into(), &"empty".into())
    })
    .await;
    gateway.deliver(&basiq("meanwhile")).await.assert_duplicate("meanwhile");
    assert_eq!(ids(&home.events()), ["meanwhile"]);
}

#[tokio::test]
async fn of_streams_that_only_events_name_a_refusal_is_seen_with_the_first_event() {
    let redis = Redis::start(Persistence::Off).await;
    let home = as_user(&redis).await.with("queue.name", "hooks.{source}.{type}");
    let gateway = home.serve().await;
    set_user(&redis, &["-xadd"]).await;
    gateway.deliver(&basiq("first")).await.assert_come_again();
    until("the gateway is unready", async || !gateway.ready().await).await;
    set_user(&redis, &["+xadd"]).await;
    until("the gateway is ready again", async || gateway.ready().await).await;
    gateway.deliver(&basiq("first")).await.assert_accepted("first");
    // From now on nobody need deliver anything.
    set_user(&redis, &["-xadd"]).await;
    until("the gateway is unready", async || !gateway.ready().await).await;
}

#[tokio::test]
async fn a_template_that_stands_for_one_stream_is_as_ready_as_that() {
    let redis = Redis::start(Persistence::Off).await;
    let only = format!("[sources.basiq]\nprovider = \"basiq\"\nsecrets = [\"{STANDARD_SECRET}\"]\n");
    let home = Home::redis(&redis).with("queue.name", "x.{source}").with("queue.max_backlog", 3);
    let gateway = home.with_sources(only).serve().await;
    until("the queue is up", async || gateway.metric(QUEUE_UP).await == 1.0).await;
    for id in ["a", "b", "c"] {
        gateway.deliver(&basiq(id)).await.assert_accepted(id);
    }
    gateway.deliver(&basiq("d")).await.assert_come_again();
    until("the gateway is unready", async || !gateway.ready().await).await;
    assert_eq!(gateway.metric(QUEUE_UP).await, 0.0);
    let _: usize = redis.run(&["XTRIM", "x.basiq", "MAXLEN", "1"]).await;
    until("the gateway is ready again", async || gateway.ready().await).await;
}

/// Whether a source's or a type's: the others' events are taken all the same.
#[tokio::test]
async fn one_stream_of_a_template_that_refuses_shows_until_its_source_goes() {
    for (name, bad) in [("x.{source}", "x.basiq"), ("x.{source}.{type}", "x.basiq.user.created")] {
        let redis = Redis::start(Persistence::Off).await;
        let _: String = redis.run(&["SET", bad, "no stream"]).await;
        let home = Home::redis(&redis).with("queue.name", name);
        let gateway = home.serve().await;
        gateway.deliver(&basiq("a")).await.assert_come_again();
        until("it shows", async || gateway.log().contains("redis takes no events")).await;
        until("it shows", async || gateway.metric(QUEUE_UP).await == 0.0).await;
        assert!(gateway.ready().await, "{name}");
        let securitize = investor_update(1, "good");
        assert_eq!(gateway.deliver(&securitize).await.status, 200, "{name}");
        assert!(gateway.ready().await, "{name}");

        let other = format!("[sources.other]\nprovider = \"securitize\"\npath_token = \"{TOKEN}\"\n");
        let home = home.with_sources(other);
        home.write_config();
        until("it is gone with its source", async || gateway.metric(QUEUE_UP).await == 1.0).await;
        assert!(gateway.log().contains("config reloaded"));
    }
}

#[tokio::test]
async fn a_partition_that_refuses_shows_and_the_others_go_on() {
    let redis = Redis::start(Persistence::Off).await;
    let gateway = Home::redis(&redis).with("queue.partitions", 3).serve().await;
    until("the queue is up", async || gateway.metric(QUEUE_UP).await == 1.0).await;
    let _: String = redis.run(&["SET", "hookgate.events.1", "no stream"]).await;
    until("it shows", async || gateway.metric(QUEUE_UP).await == 0.0).await;
    assert!(gateway.ready().await);
    let _: usize = redis.run(&["DEL", "hookgate.events.1"]).await;
    until("it is over", async || gateway.metric(QUEUE_UP).await == 1.0).await;
    let keys: Vec<String> = redis.run(&["KEYS", "*"]).await;
    assert!(keys.is_empty(), "asking leaves nothing behind: {keys:?}");
}

/// The one refusal of an `XADD` that leaves Redis free to write everything else, the memory of the event included.
#[tokio::test]
async fn an_event_that_the_stream_refuses_is_not_remembered() {
    let redis = Redis::start(Persistence::Off).await;
    let home = Home::redis(&redis);
    let gateway = home.serve().await;
    gateway.deliver(&basiq("before")).await.assert_accepted("before");
    let _: String =
        redis.run(&["XSETID", "hookgate.events", "18446744073709551615-18446744073709551615"]).await;
    gateway.deliver(&basiq("refused")).await.assert_come_again();
    assert_eq!((redis.remembered().await, home.events().len()), (1, 1));
    until("the gateway is unready", async || !gateway.ready().await).await;
    assert!(gateway.log().contains("exhausted the last possible ID"), "{}", gateway.log());
    // The ids are no less at their end when it is empty.
    let _: usize = redis.run(&["XTRIM", "hookgate.events", "MAXLEN", "0"]).await;
    let asked = "cmdstat_xadd:calls=";
    let asks = async || {
        let stats: String = redis.run(&["INFO", "commandstats"]).await;
        let count = stats.split_once(asked).and_then(|(_, rest)| rest.split(',').next()?.parse::<u64>().ok());
        count.unwrap_or_default()
    };
    let before = asks().await;
    until("it is asked again", async || asks().await > before + 2).await;
    assert!(!gateway.ready().await);

    let _: usize = redis.run(&["DEL", "hookgate.events"]).await;
    until("the gateway is ready again", async || gateway.ready().await).await;
    gateway.deliver(&basiq("refused")).await.assert_accepted("refused");
    assert_eq!(ids(&home.events()), ["refused"]);
}

#[tokio::test]
async fn a_stream_at_its_bound_takes_no_more_until_it_is_trimmed() {
    let redis = Redis::start(Persistence::Off).await;
    let home = Home::redis(&redis).with("queue.max_backlog", 3);
    let gateway = home.serve().await;
    for id in ["a", "b", "c"] {
        gateway.deliver(&basiq(id)).await.assert_accepted(id);
    }
    for id in ["d", "e", "f", "g"] {
        gateway.deliver(&basiq(id)).await.assert_come_again();
    }
    gateway.deliver(&basiq("a")).await.assert_duplicate("a");
    assert_eq!(ids(&home.events()), ["a", "b", "c"], "it is never trimmed to make room");
    let said = gateway.log();
    assert_eq!(said.matches("a stream is at max_backlog and takes no more events").count(), 1, "{said}");
    assert_eq!(redis.remembered().await, 3);
    until("the refusals are on record", async || home.records("queue_unavailable").len() == 4).await;

    let _: usize = redis.run(&["XTRIM", "hookgate.events", "MAXLEN", "1"]).await;
    gateway.deliver(&basiq("d")).await.assert_accepted("d");
    assert_eq!(ids(&home.events()), ["c", "d"]);
}

/// Nobody need have delivered anything for that to be seen.
#[tokio::test]
async fn a_redis_that_refuses_every_claim_makes_the_gateway_unready_until_it_takes_them() {
    let (redis, nats) = (Redis::start(Persistence::Always).await, Nats::start().await);
    nats.create_stream("ALL", &["hookgate.events"]).await;
    let home = as_user(&redis).await.with("queue.kind", "nats").with("queue.url", nats.url());
    let gateway = home.serve().await;
    let cases: [(&[&str], &[&str], &str); 5] = [
        (&["resetkeys", "~other:*"], &["allkeys"], "NOPERM"),
        (&["-get"], &["+get"], "GET: "),
        (&["-set"], &["+set"], "SET: "),
        (&["-del"], &["+del"], "DEL: "),
        (&["-evalsha"], &["+evalsha"], "NOPERM"),
    ];
    for (n, (takes_away, gives_back, says)) in cases.into_iter().enumerate() {
        let id = format!("refused-{n}");
        set_user(&redis, takes_away).await;
        until(&format!("the gateway is unready: {takes_away:?}"), async || !gateway.ready().await).await;
        let report = gateway.readiness().await;
        assert_eq!((&report["queue"], &report["dedupe"]), (&"up".into(), &"down".into()));
        // What is claimed and committed asks for no DEL until the commit.
        gateway.deliver(&basiq(&id)).await.assert_come_again();
        let Ran { code, out: checked, .. } = home.check_live();
        assert_eq!(code, 1, "{checked}");
        assert!(checked.contains("refuses claims") && checked.contains(says), "{takes_away:?}: {checked}");
        set_user(&redis, gives_back).await;
        until("the gateway is ready again", async || gateway.ready().await).await;
        let again = async || gateway.log().matches("redis takes writes again").count() == n + 1;
        until("it says so once", again).await;
        let said = gateway.log();
        let told: Vec<_> = said.lines().filter(|line| line.contains("redis takes no writes")).collect();
        assert_eq!(told.len(), n + 1, "once each time: {said}");
        assert!(told[n].contains(says), "{said}");
        assert!(said.contains("redis refuses claims"), "{said}");
    }
    let Ran { code, out: checked, .. } = home.check_live();
    assert_eq!(code, 0, "{checked}");
    gateway.deliver(&basiq("new")).await.assert_accepted("new");
    let keys: Vec<String> = redis.run(&["KEYS", "*probe*"]).await;
    assert!(keys.is_empty(), "asking leaves nothing behind: {keys:?}");
}

#[tokio::test]
async fn another_process_that_holds_the_database_is_an_outage() {
    let home = Home::embedded();
    let gateway = home.serve().await;
    gateway.deliver(&basiq("before")).await.assert_accepted("before");

    let intruder = Connection::open(home.database()).unwrap();
    intruder.execute_batch("BEGIN IMMEDIATE").unwrap();
    gateway.deliver(&basiq("meanwhile")).await.assert_come_again();
    until("the gateway is unready", async || !gateway.ready().await).await;
    assert_eq!(gateway.readiness().await["queue"], "down");
    intruder.execute_batch("ROLLBACK").unwrap();
    until("the gateway is ready again", async || gateway.ready().await).await;
    gateway.deliver(&basiq("meanwhile")).await.assert_accepted("meanwhile");
    assert_eq!(ids(&home.events()), ["before", "meanwhile"]);
}

/// Such a delivery is answered 503, and comes again. Its event is counted as any other.
#[tokio::test]
async fn a_hand_over_that_outlives_its_request_is_counted_once() {
    let home = Home::embedded().with("edge.request_timeout", "50ms");
    let gateway = home.serve().await;
    let said_200 = async |delivery: &Request| {
        eventually("an answer 200", async || {
            let answer = gateway.deliver(delivery).await;
            (answer.status == 200).then(|| answer.json()["status"].as_str().unwrap().to_owned())
        })
        .await
    };
    said_200(&investor_update(1, "first")).await;
    let last = "hookgate_last_accepted_timestamp_seconds{source=\"securitize\"}";
    let started = gateway.metric(last).await;
    let intruder = Connection::open(home.database()).unwrap();
    intruder.busy_timeout(Duration::from_secs(5)).unwrap();
    let mut late = 0;
    loop {
        late += 1;
        let delivery = investor_update(1 + 10 * late, "late");
        intruder.execute_batch("BEGIN IMMEDIATE").unwrap();
        gateway.deliver(&delivery).await.assert_come_again();
        intruder.execute_batch("ROLLBACK").unwrap();
        // On a loaded machine the database may have been held for too long, and the hand-over failed.
        if said_200(&delivery).await == "duplicate" {
            break;
        }
        assert!(late < 20, "no hand-over outlived its request");
    }
    let events = f64::from(late) + 1.0;
    assert_eq!(home.events().len() as f64, events);
    let counted = "hookgate_events_total{source=\"securitize\",type=\"kyc.updated\"}";
    until("each event is counted", async || gateway.metric(counted).await == events).await;
    let gaps = "hookgate_sequence_gaps_total{source=\"securitize\"}";
    assert_eq!(gateway.metric(gaps).await, 9.0 * f64::from(late));
    assert!(gateway.metric(last).await > started, "the late event is the last one");
}

#[tokio::test]
async fn a_full_disk_is_an_outage_until_there_is_room() {
    let Some(disk) = SmallDisk::mount(4) else { return };
    let data_dir = disk.path().join("data");
    let home = Home::embedded().with("data_dir", data_dir.to_str());
    let gateway = home.serve().await;
    gateway.deliver(&basiq("before")).await.assert_accepted("before");

    let filler = disk.fill();
    // There may be room in what the database has written before: what is answered 200 until it is used up must be kept.
    let (mut taken, long) = (vec!["before".to_owned()], "x".repeat(20_000));
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
    until("the gateway is unready", async || !gateway.ready().await).await;
    assert_eq!(gateway.readiness().await["queue"], "down");

    fs::remove_file(filler).unwrap();
    until("the gateway is ready again", async || gateway.ready().await).await;
    gateway.deliver(&basiq_about(&refused, &long)).await.assert_accepted(&refused);
    taken.push(refused);
    assert_each_once(&home.events(), &taken);
    // The store is as good after a restart.
    gateway.kill9();
    let gateway = home.serve().await;
    gateway.deliver(&basiq("before")).await.assert_duplicate("before");
    assert_each_once(&home.events(), &taken);
}
