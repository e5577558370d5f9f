//! A stream at `queue.max_backlog`, as its operator sees it: readiness, metrics, log and `check --live` tell it from a Redis
//! that is away, and name the consumer group that holds it.

use std::time::Duration;

use support::{
    Cluster, Gateway, Home, Persistence, Ran, Redis, basiq, basiq_about, eventually, ids, until, within,
};

const STREAM: &str = "hookgate.events";
const UP: &str = "hookgate_queue_up{queue=\"redis\"}";
const FULL: &str = "hookgate_queue_full{queue=\"redis\"}";

/// An entry's id, and its fields and values.
type Entry = (String, Vec<String>);

async fn group(redis: &Redis, stream: &str, name: &str) {
    let _: String = redis.run(&["XGROUP", "CREATE", stream, name, "0", "MKSTREAM"]).await;
}

/// Reads all there is and acknowledges it.
async fn consume(redis: &Redis, stream: &str, group: &str) {
    let read = ["XREADGROUP", "GROUP", group, "me", "COUNT", "1000", "STREAMS", stream, ">"];
    let got: Option<Vec<(String, Vec<Entry>)>> = redis.run(&read).await;
    for (id, _) in got.into_iter().flatten().flat_map(|(_, entries)| entries) {
        let _: u64 = redis.run(&["XACK", stream, group, &id]).await;
    }
}

async fn queue_is(gateway: &Gateway, word: &str) {
    until(&format!("the queue is {word}"), async || gateway.readiness().await["queue"] == word).await;
}

fn lag(group: &str) -> String {
    format!("hookgate_consumer_group_lag_events{{group=\"{group}\",stream=\"{STREAM}\"}}")
}

#[tokio::test]
async fn a_group_that_never_reads_is_named_wherever_it_hurts() {
    let redis = Redis::start(Persistence::Always).await;
    let home = Home::redis(&redis).with("queue.max_backlog", 5);
    for name in ["workers", "debug-alice"] {
        group(&redis, STREAM, name).await;
    }
    let gateway = home.serve().await;
    for n in 0..5 {
        let id = format!("e{n}");
        gateway.deliver(&basiq(&id)).await.assert_accepted(&id);
        consume(&redis, STREAM, "workers").await;
    }
    gateway.deliver(&basiq("more")).await.assert_come_again();
    queue_is(&gateway, "full").await;
    assert!(!gateway.ready().await);
    until("it shows", async || gateway.metric(FULL).await == 1.0).await;
    assert_eq!(gateway.metric(UP).await, 0.0);
    let told = eventually("it is told", async || {
        gateway.log().lines().find(|line| line.contains("takes no more events")).map(str::to_owned)
    })
    .await;
    assert!(told.contains("debug-alice") && !told.contains("workers"), "{told}");
    until("its lag shows", async || gateway.metric(&lag("debug-alice")).await == 5.0).await;
    assert_eq!(gateway.metric(&lag("workers")).await, 0.0);
    let oldest =
        "hookgate_consumer_group_oldest_age_seconds{group=\"debug-alice\",stream=\"hookgate.events\"}";
    assert!(gateway.metric(oldest).await > 0.0);

    let Ran { code, out: said, .. } = home.check_live();
    assert_eq!(code, 1, "{said}");
    let told = said.lines().find(|line| line.contains("max_backlog")).unwrap();
    let first: Vec<(String, Vec<String>)> = redis.run(&["XRANGE", STREAM, "-", "+", "COUNT", "1"]).await;
    let since = first[0].0.split('-').next().unwrap().parse().unwrap();
    let since = jiff::Timestamp::from_millisecond(since).unwrap().to_string();
    for what in [STREAM, "debug-alice", "5 entries", &since] {
        assert!(told.contains(what), "{what}: {told}");
    }
    assert!(!told.contains("workers"), "{told}");

    // It reads at last, and no entry has to get old.
    consume(&redis, STREAM, "debug-alice").await;
    queue_is(&gateway, "up").await;
    gateway.deliver(&basiq("more")).await.assert_accepted("more");
    let Ran { code, out: said, .. } = home.check_live();
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn a_full_stream_is_full_and_a_redis_that_is_away_is_down() {
    let mut redis = Redis::start(Persistence::Always).await;
    let home = Home::redis(&redis).with("queue.max_backlog", 2).with("spool.enabled", true);
    group(&redis, STREAM, "workers").await;
    let gateway = home.serve().await;
    for id in ["a", "b", "c", "d"] {
        gateway.deliver(&basiq(id)).await.assert_accepted(id);
    }
    queue_is(&gateway, "full").await;
    let report = gateway.readiness().await;
    assert_eq!((&report["ready"], &report["spool"]), (&true.into(), &"waiting".into()), "{report}");
    redis.kill9();
    queue_is(&gateway, "down").await;
    assert_eq!((gateway.metric(UP).await, gateway.metric(FULL).await), (0.0, 0.0));
    assert_eq!(gateway.readiness().await["spool"], "waiting");
    redis.restart().await;
    queue_is(&gateway, "full").await;
    consume(&redis, STREAM, "workers").await;
    until("the spool is drained", async || gateway.readiness().await["spool"] == "empty").await;
    assert_eq!(ids(&home.events()), ["c", "d"]);
}

#[tokio::test]
async fn a_redis_without_memory_is_full_too() {
    let redis = Redis::start(Persistence::Off).await;
    let gateway = Home::redis(&redis).serve().await;
    let _: String = redis.run(&["CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1"]).await;
    queue_is(&gateway, "full").await;
    assert!(!gateway.ready().await);
    until("it shows", async || gateway.metric(FULL).await == 1.0).await;
    assert_eq!(gateway.metric(UP).await, 0.0);
    let _: String = redis.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
    queue_is(&gateway, "up").await;
}

/// What is acknowledged gives way on whichever master it is, by whichever name.
#[tokio::test]
async fn streams_of_a_cluster_are_kept_within_their_bounds() {
    let cluster = Cluster::start().await;
    let home = Home::redis_at(cluster.urls()).with("redis.cluster", true);
    let home = home.with("queue.partitions", 6).with("queue.max_backlog", 5).with("queue.retain", "2s");
    let gateway = home.serve().await;
    let streams: Vec<String> = (0..6).map(|n| format!("{STREAM}.{n}")).collect();
    let mut masters = Vec::new();
    for stream in &streams {
        for master in &cluster.masters {
            let made =
                master.try_run::<String>(&["XGROUP", "CREATE", stream, "workers", "0", "MKSTREAM"]).await;
            if made.is_ok() {
                masters.push((stream, master));
            }
        }
    }
    assert_eq!(masters.len(), 6, "each stream has a master");
    for n in 0..60 {
        let id = format!("e{n}");
        gateway.deliver(&basiq_about(&id, &format!("user-{n}"))).await.assert_accepted(&id);
        for (stream, master) in &masters {
            consume(master, stream, "workers").await;
            assert!(master.run::<u64>(&["XLEN", stream]).await <= 5, "{stream}");
        }
    }
    let lag =
        |stream: &str| format!("hookgate_consumer_group_lag_events{{group=\"workers\",stream=\"{stream}\"}}");
    for (stream, master) in &masters {
        until("its group shows", async || gateway.metric(&lag(stream)).await == 0.0).await;
        until("what is old is gone", async || master.run::<u64>(&["XLEN", stream]).await == 0).await;
    }
}

#[tokio::test]
async fn an_id_from_the_future_is_told_by_serve_and_by_check() {
    let redis = Redis::start(Persistence::Always).await;
    let home = Home::redis(&redis);
    let gateway = home.serve().await;
    let Ran { code, out: said, .. } = home.check_live();
    assert_eq!(code, 0, "{said}");
    let _: String = redis.run(&["XADD", STREAM, "1999999999999-0", "id", "x"]).await;
    let Ran { code, out: said, .. } = home.check_live();
    assert_eq!(code, 1, "{said}");
    let told = said.lines().find(|line| line.contains("ahead of the server's clock")).unwrap();
    assert!(told.contains(STREAM) && told.contains("1999999999999-0"), "{told}");
    let warned = || {
        let said = gateway.log();
        said.lines().filter(|line| line.contains("WARN") && line.contains("1999999999999-0")).count()
    };
    until("serve warns of it", async || warned() > 0).await;
    gateway.deliver(&basiq("a")).await.assert_accepted("a");
    until("it is looked at again", async || {
        gateway.metric("hookgate_queue_backlog_events{queue=\"redis\",stream=\"hookgate.events\"}").await
            == 2.0
    })
    .await;
    assert_eq!(warned(), 1, "{}", gateway.log());
}

#[tokio::test]
async fn a_clean_stop_warns_of_nothing() {
    let redis = Redis::start(Persistence::Always).await;
    let mut gateway = Home::redis(&redis).serve().await;
    gateway.deliver(&basiq("a")).await.assert_accepted("a");
    until("the queue is up", async || gateway.metric(UP).await == 1.0).await;
    let before = gateway.log().matches("WARN").count();
    gateway.sigterm();
    let ended = within(Duration::from_secs(20), "it stops", gateway.exit()).await;
    let said = gateway.log();
    assert!(ended.success(), "{said}");
    assert_eq!(said.matches("WARN").count(), before, "{said}");
}
