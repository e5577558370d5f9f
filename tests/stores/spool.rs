//! The spool behind a real Redis: while that is away events are answered 200 once they are on disk, and when it is back they
//! enter in order, each once; whatever is killed in between.

use std::time::Duration;

use support::{
    Gateway, Home, Load, Persistence, Redis, Request, assert_each_once, atelio, basiq, basiq_about,
    basiq_unreadable, ids, investor_update, until, within,
};

fn spooling(redis: &Redis) -> Home {
    Home::redis(redis).with("spool.enabled", true)
}

async fn spool_is(gateway: &Gateway, state: &str) {
    until(&format!("the spool is {state}"), async || gateway.readiness().await["spool"] == state).await;
}

async fn deliver_all(gateway: &Gateway, ids: &[&str]) {
    for id in ids {
        gateway.deliver(&basiq(id)).await.assert_accepted(id);
    }
}

#[tokio::test]
async fn while_redis_is_away_events_wait_on_disk_and_then_enter_in_order() {
    let mut redis = Redis::start(Persistence::Always).await;
    let home = spooling(&redis);
    let gateway = home.serve().await;
    spool_is(&gateway, "empty").await;
    deliver_all(&gateway, &["before"]).await;

    redis.stop().await;
    let known = Duration::from_secs(2);
    let first = basiq("a");
    within(known, "a dead queue is known within a second", gateway.deliver(&first))
        .await
        .assert_accepted("a");
    until("the queue is down", async || gateway.readiness().await["queue"] == "down").await;
    let report = gateway.readiness().await;
    assert_eq!((&report["ready"], &report["spool"]), (&true.into(), &"waiting".into()), "{report}");
    deliver_all(&gateway, &["b", "c"]).await;
    for id in ["a", "c"] {
        gateway.deliver(&basiq(id)).await.assert_duplicate(id);
    }
    // What the queue has seen is not known here, and the same event is not there twice in the end.
    gateway.deliver(&basiq("before")).await.taken();
    let (atelio, securitize) = (atelio("customer", "line\\nbreak"), investor_update(7, "domain"));
    gateway.deliver(&atelio).await.taken();
    gateway.deliver(&securitize).await.taken();
    assert_eq!(gateway.metric("hookgate_spool_events").await, 6.0);
    assert!(gateway.metric("hookgate_spool_bytes").await > 6.0 * 500.0);
    let age = async || gateway.metric("hookgate_spool_oldest_age_seconds").await;
    until("the oldest event's age shows", async || age().await > 0.0).await;

    redis.restart().await;
    spool_is(&gateway, "empty").await;
    assert_eq!((gateway.metric("hookgate_spool_events").await, age().await), (0.0, 0.0));
    deliver_all(&gateway, &["after"]).await;
    gateway.deliver(&basiq("b")).await.assert_duplicate("b");
    let events = home.events();
    let of = |source: &str| {
        let events = events.iter().filter(|event| event["source"] == source).cloned();
        events.collect::<Vec<_>>()
    };
    assert_eq!(ids(&of("/hooks/basiq")), ["before", "a", "b", "c", "after"]);
    for (source, delivery) in [("/hooks/atelio", atelio), ("/hooks/securitize", securitize)] {
        let [event] = &of(source)[..] else { panic!("{source}: {events:?}") };
        let sent: serde_json::Value = serde_json::from_str(delivery.text()).unwrap();
        assert_eq!(event["data"]["payload"], sent);
    }
    let entries: Vec<(String, Vec<String>)> = redis.run(&["XRANGE", "hookgate.events", "-", "+"]).await;
    let raw = &entries.iter().find(|(_, fields)| fields[1] == "a").unwrap().1[7];
    assert!(raw.contains(&format!("\"payload\":{}}}", first.text())), "byte for byte: {raw}");
    assert_eq!(home.records("queue_unavailable").len(), 0);
}

#[tokio::test]
async fn a_killed_gateway_goes_on_with_what_it_had_answered() {
    let mut redis = Redis::start(Persistence::Always).await;
    let home = spooling(&redis);
    let gateway = home.serve().await;
    let load = Load::start(gateway.edge);
    load.taken(50).await;
    redis.kill9();
    load.taken(300).await;
    gateway.kill9();
    let mut taken = load.finish().await.taken;

    // Started without its Redis, it serves by the spool, behind what is there.
    let gateway = home.serve().await;
    assert_eq!(gateway.readiness().await["spool"], "waiting");
    let load = Load::start(gateway.edge);
    load.taken(50).await;
    redis.restart().await;
    load.taken(50).await;
    taken.extend(load.finish().await.taken);
    spool_is(&gateway, "empty").await;
    let events = home.events();
    let entered: std::collections::BTreeSet<String> = ids(&events).into_iter().map(str::to_owned).collect();
    assert_eq!(entered.len(), events.len(), "none twice");
    let lost: Vec<_> = taken.difference(&entered).collect();
    assert!(lost.is_empty(), "answered 200 and lost: {lost:?}");
}

#[tokio::test]
async fn a_gateway_started_before_redis_takes_events_at_once() {
    let mut redis = Redis::start(Persistence::Off).await;
    let home = spooling(&redis);
    redis.stop().await;
    let gateway = home.serve().await;
    deliver_all(&gateway, &["early"]).await;
    redis.restart().await;
    spool_is(&gateway, "empty").await;
    assert_eq!(ids(&home.events()), ["early"]);
}

#[tokio::test]
async fn an_event_sent_into_a_freeze_enters_once() {
    let redis = Redis::start(Persistence::Off).await;
    let home = spooling(&redis);
    let gateway = home.serve().await;
    deliver_all(&gateway, &["before"]).await;
    redis.pause();
    deliver_all(&gateway, &["a", "b", "c"]).await;
    redis.resume();
    spool_is(&gateway, "empty").await;
    assert_eq!(ids(&home.events()), ["before", "a", "b", "c"]);
}

#[tokio::test]
async fn a_queue_that_refuses_is_spooled_too() {
    let redis = Redis::start(Persistence::Off).await;
    let home = spooling(&redis).with("queue.max_backlog", 2);
    let gateway = home.serve().await;
    deliver_all(&gateway, &["a", "b", "c", "d"]).await;
    assert_eq!(ids(&home.events()), ["a", "b"]);
    let _: usize = redis.run(&["XTRIM", "hookgate.events", "MAXLEN", "0"]).await;
    spool_is(&gateway, "empty").await;
    assert_eq!(ids(&home.events()), ["c", "d"]);
}

#[tokio::test]
async fn a_full_spool_sends_the_rest_away_until_it_is_drained() {
    let mut redis = Redis::start(Persistence::Off).await;
    let home = spooling(&redis).with("spool.max_bytes", "8KiB");
    let gateway = home.serve().await;
    redis.stop().await;
    let mut taken = Vec::new();
    let refused = loop {
        let id = format!("e-{}", taken.len());
        let answer = gateway.deliver(&basiq(&id)).await;
        if answer.status != 200 {
            answer.assert_come_again();
            break id;
        }
        taken.push(id);
        assert!(taken.len() < 100, "8 KiB do not fill");
    };
    assert!(!taken.is_empty());
    spool_is(&gateway, "full").await;
    assert!(!gateway.ready().await);
    gateway.kill9();
    let gateway = home.serve_unready().await;
    spool_is(&gateway, "full").await;
    assert!(!gateway.ready().await, "another start makes no room");
    redis.restart().await;
    spool_is(&gateway, "empty").await;
    deliver_all(&gateway, &[&refused]).await;
    taken.push(refused);
    assert_each_once(&home.events(), &taken);
}

#[tokio::test]
async fn a_conflict_in_the_spool_is_counted_and_recorded_when_the_queue_tells() {
    let mut redis = Redis::start(Persistence::Always).await;
    let home = spooling(&redis);
    let gateway = home.serve().await;
    let (first, second) = (investor_update(1, "one"), investor_update(1, "two"));
    let (_, id) = gateway.deliver(&first).await.taken();
    let basiq = [basiq_about("b", "user-1"), basiq_about("b", "user-2")];
    gateway.deliver(&basiq[0]).await.assert_accepted("b");
    redis.stop().await;
    gateway.deliver(&second).await.assert_accepted(&id);
    gateway.deliver(&basiq[1]).await.assert_accepted("b");
    redis.restart().await;
    spool_is(&gateway, "empty").await;
    // Securitize's identity is derived, so its second body is forwarded; Basiq's is signed, so its second is dropped.
    assert_eq!(gateway.metric("hookgate_conflicts_total{source=\"securitize\"}").await, 1.0);
    assert_eq!(gateway.metric("hookgate_conflicts_total{source=\"basiq\"}").await, 1.0);
    assert_eq!(ids(&home.events()), [&*id, "b", &*(id.clone() + &second.conflict_suffix())]);
    until("the dropped one is on record", async || home.records("conflict").len() == 1).await;
    let record = &home.records("conflict")[0];
    assert_eq!((&record["source"], &record["path"]), (&"basiq".into(), &"/hooks/basiq".into()));
    assert_eq!(record["body_bytes"], basiq[1].body.len());
}

/// Redis says so and hangs up, so that the events beside it have to be tried again.
#[tokio::test]
async fn an_event_longer_than_redis_takes_is_dead_for_what_redis_says_and_harms_no_other() {
    let redis = Redis::start(Persistence::Off).await;
    let _: String = redis.run(&["CONFIG", "SET", "proto-max-bulk-len", "1mb"]).await;
    let home = spooling(&redis).with("edge.max_body", "4MiB");
    let gateway = home.serve().await;
    until("the queue is up", async || gateway.readiness().await["queue"] == "up").await;
    let long = basiq_about("long", &"x".repeat(1_500_000));
    let others: Vec<Request> = (0..20).map(|n| basiq(&format!("e{n:02}"))).collect();
    let others = async {
        for delivery in &others {
            gateway.deliver(delivery).await.taken();
        }
    };
    tokio::join!(others, async { gateway.deliver(&long).await.assert_accepted("long") });
    until("it is dead", async || home.lines(&["events", "dead", "list", "--json"]).len() == 1).await;
    let dead = &home.lines(&["events", "dead", "list", "--json"])[0];
    let why = dead["why"].as_str().unwrap();
    assert!(why.contains("invalid bulk length") && !why.contains("in time"), "{why}");
    spool_is(&gateway, "empty").await;
    assert_eq!(ids(&home.events()).len(), 20);
    // Its operator can mend that.
    let _: String = redis.run(&["CONFIG", "SET", "proto-max-bulk-len", "8mb"]).await;
    assert_eq!(home.lines(&["events", "dead", "retry", "--all", "--json"])[0]["retried"], 1);
    until("it is in the queue", async || ids(&home.events()).len() == 21).await;
}

#[tokio::test]
async fn a_body_that_cannot_be_read_waits_in_the_spool_as_any_other() {
    let mut redis = Redis::start(Persistence::Always).await;
    let home = spooling(&redis);
    let gateway = home.serve().await;
    let (before, after) = (basiq_unreadable("x"), basiq_unreadable("[]"));
    let (_, first) = gateway.deliver(&before).await.taken();
    redis.stop().await;
    let (_, second) = gateway.deliver(&after).await.taken();
    redis.restart().await;
    spool_is(&gateway, "empty").await;
    gateway.deliver(&before).await.assert_duplicate(&first);
    gateway.deliver(&after).await.assert_duplicate(&second);
    let events = home.events();
    assert_eq!(ids(&events), [&*first, &*second]);
    let held = events.iter().map(|event| event["data"]["payload_base64"].as_str().unwrap());
    assert_eq!(held.collect::<Vec<_>>(), ["eA==", "W10="]);
    assert!(events.iter().all(|event| event["partitionkey"] == event["id"]));
    assert_eq!(gateway.metric("hookgate_unreadable_total{source=\"basiq\"}").await, 2.0);
}

#[tokio::test]
async fn dead_letters_are_listed_shown_sent_back_and_dropped() {
    let mut redis = Redis::start(Persistence::Off).await;
    let home = spooling(&redis);
    let gateway = home.serve().await;
    redis.stop().await;
    deliver_all(&gateway, &["a", "b", "c"]).await;
    // No event makes Redis say that it will never take it, so a hand does what the drainer would.
    let hand = rusqlite::Connection::open(home.database()).unwrap();
    hand.execute("UPDATE spool SET why = 'by hand' WHERE id <> 'b'", []).unwrap();
    redis.restart().await;
    spool_is(&gateway, "empty").await;
    assert_eq!(gateway.metric("hookgate_spool_dead_events").await, 2.0);
    gateway.deliver(&basiq("a")).await.taken();

    let listed = home.lines(&["events", "dead", "list", "--json"]);
    let dead: Vec<_> = listed.iter().map(|one| (one["id"].as_str().unwrap(), &one["why"])).collect();
    assert_eq!(dead, [("a", &"by hand".into()), ("c", &"by hand".into())]);
    let c = listed[1]["seq"].to_string();
    assert_eq!(
        refusal(&home, &["events", "dead", "retry", "c", "no", "99"]),
        "there is no dead letter no, 99; nothing was changed"
    );
    for which in ["c", &c] {
        assert_eq!(home.lines(&["events", "dead", "show", which])[0]["id"], "c");
    }
    assert_eq!(home.lines(&["events", "dead", "retry", &c, "--json"])[0]["retried"], 1);
    until("it is taken up", async || ids(&home.events()).contains(&"c")).await;
    assert_eq!(home.lines(&["events", "dead", "drop", "a", "--json"])[0]["dropped"], 1);
    let acts = home.records("operator");
    let told: Vec<&str> = acts.iter().map(|act| act["detail"].as_str().unwrap()).collect();
    assert!(told.len() == 2, "{told:?}");
    assert!(told[0].starts_with(&format!("1 dead letter sent back (asked for: {c}), by ")), "{told:?}");
    assert!(
        told[1].starts_with("1 dead letter dropped (asked for: a), by ") && told[1].contains("(uid "),
        "{told:?}"
    );
    assert!(acts.iter().all(|act| act["source"] == "basiq" && act["status"] == 200), "{acts:?}");
    assert_eq!(home.lines(&["events", "dead", "list", "--json"]).len(), 0);
    for (arguments, code) in
        [(&["show", "c"][..], 1), (&["retry", "99"], 1), (&["drop"], 2), (&["drop", "1", "--all"], 2)]
    {
        let arguments = [&["events", "dead"], arguments].concat();
        assert_eq!(home.command(&arguments).status().unwrap().code(), Some(code), "{arguments:?}");
    }
    assert_eq!(home.lines(&["events", "dead", "retry", "--all", "--json"])[0]["retried"], 0);
}

/// What a command that fails says.
fn refusal(home: &Home, arguments: &[&str]) -> String {
    let output = home.command(arguments).stderr(std::process::Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap().trim().trim_start_matches("hookgate: ").to_owned()
}

#[tokio::test]
async fn what_is_done_to_dead_letters_while_no_gateway_runs_is_recorded_too() {
    let mut redis = Redis::start(Persistence::Off).await;
    let home = spooling(&redis);
    let mut gateway = home.serve().await;
    redis.stop().await;
    deliver_all(&gateway, &["a", "b"]).await;
    let hand = rusqlite::Connection::open(home.database()).unwrap();
    hand.execute("UPDATE spool SET why = 'by hand'", []).unwrap();
    gateway.sigterm();
    assert!(gateway.exit().await.success());
    assert_eq!(home.lines(&["events", "dead", "drop", "--all", "--json"])[0]["dropped"], 2);
    let acts = home.records("operator");
    assert!(acts[0]["detail"].as_str().unwrap().starts_with("2 dead letters dropped, by "), "{acts:?}");
    assert_eq!(home.lines(&["events", "dead", "drop", "--all", "--json"])[0]["dropped"], 0);
    assert_eq!(home.records("operator").len(), 1, "nothing was done");
    let (code, verified) = (
        home.command(&["audit", "verify"]).status().unwrap().code(),
        home.lines(&["audit", "verify", "--json"]),
    );
    assert_eq!((code, &verified[0]["compared"]), (Some(0), &true.into()));
}

/// What was answered 200 is never left behind in silence, whatever the next start's config says.
#[tokio::test]
async fn events_of_an_earlier_run_are_drained_or_there_is_no_start() {
    let mut redis = Redis::start(Persistence::Always).await;
    let home = spooling(&redis);
    let gateway = home.serve().await;
    redis.stop().await;
    deliver_all(&gateway, &["a", "b"]).await;
    gateway.kill9();
    let hand = rusqlite::Connection::open(home.database()).unwrap();
    hand.execute("INSERT INTO spool SELECT NULL, source, identity, x'00', 'dead', received, bytes, told, provider, on_conflict,
        owner, 'dead', path, type, partition_key, id_end, data_start, event FROM spool LIMIT 1", []).unwrap();

    let home = home.with("queue.kind", "embedded").with("dedupe.store", "embedded");
    let said = home.refusal().await;
    assert!(said.contains("2 events that were answered 200") && said.contains("start once with"), "{said}");
    assert_eq!(home.lines(&["events", "dead", "list", "--json"]).len(), 1, "whatever the kind");

    let home = home.with("queue.kind", "redis").with("dedupe.store", "redis").with("spool.enabled", false);
    let gateway = home.serve_unready().await;
    until("it says so", async || gateway.log().contains("the spool is off, but events wait")).await;
    assert_eq!(gateway.readiness().await["spool"], "off");
    gateway.deliver(&basiq("c")).await.assert_come_again();
    redis.restart().await;
    until("they are drained", async || ids(&home.events()) == ["a", "b"]).await;
    deliver_all(&gateway, &["c"]).await;
    assert_eq!(gateway.readiness().await["spool"], "off");
    gateway.kill9();

    let home = home.with("queue.kind", "embedded").with("dedupe.store", "embedded");
    home.serve().await;
}
