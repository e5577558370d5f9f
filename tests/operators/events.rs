//! The queue as an operator searches it, shows one event of it, and replays some, in the embedded store and in Redis.

use std::process::Stdio;

use serde_json::Value;
use support::{
    Cluster, Gateway, Home, Persistence, Ran, Redis, Sentinel, assert_each_once, atelio, basiq, basiq_about,
    eventually, ids, until,
};

fn home_of(home: Home) -> Home {
    // More than one stream, so that searches merge.
    home.with("queue.partitions", 3)
}

/// The events in the lines that `tail` and `query` print.
fn events(lines: Vec<Value>) -> Vec<Value> {
    lines.into_iter().map(|mut line| line["event"].take()).collect()
}

fn query(home: &Home, filters: &[&str]) -> Vec<String> {
    let lines = home.lines(&[&["events", "query", "--json"], filters].concat());
    ids(&events(lines)).into_iter().map(str::to_owned).collect()
}

/// What a command that fails says.
fn refusal(home: &Home, arguments: &[&str]) -> String {
    let ran = home.run(arguments);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{arguments:?}: {ran:?}");
    ran.err.trim().trim_start_matches("hookgate: ").to_owned()
}

fn replay(home: &Home, wanted: &[&str]) -> Vec<Value> {
    home.lines(&[&["events", "replay", "--json"], wanted].concat())
}

/// What operators' records say, without the operator.
fn acts(home: &Home) -> Vec<(String, String)> {
    let act = |record: &Value| {
        let detail = record["detail"].as_str().unwrap().rsplit_once(", by ").unwrap().0;
        (record["source"].as_str().unwrap().to_owned(), detail.to_owned())
    };
    home.records("operator").iter().map(act).collect()
}

fn is_replayed(event: &Value) -> bool {
    event["replayed"] == true
}

async fn ended(mut gateway: Gateway) {
    gateway.sigterm();
    assert!(gateway.exit().await.success());
}

async fn each_filter_finds_its_events(home: Home) {
    let gateway = home.serve().await;
    gateway.deliver(&basiq("b-1")).await.assert_accepted("b-1");
    let (_, kyc) = gateway.deliver(&atelio("c-1", "n")).await.taken();
    gateway.deliver(&basiq_about("b-2", "user-2")).await.assert_accepted("b-2");
    let whole = home.lines(&["events", "tail", "--json"]);
    let recorded: Vec<&str> =
        whole.iter().map(|line| line["event"]["recordedtime"].as_str().unwrap()).collect();
    let find = |filters: &str| query(&home, &filters.split_whitespace().collect::<Vec<_>>());
    let look = || {
        assert_eq!(home.lines(&["events", "query", "--json"]), whole, "as `tail` prints them, cursors too");
        let all = ["b-1", &kyc, "b-2"];
        for (filters, due) in [
            ("--source basiq", &["b-1", "b-2"][..]),
            ("--source /hooks/atelio", &[&kyc]),
            ("--source /hooks/old", &[]),
            ("--type user.created", &["b-1", "b-2"]),
            ("--type user", &[]),
            ("--type *.verified", &[&kyc]),
            ("--type *", &all),
            ("--subject user/user-2", &["b-2"]),
            ("--subject user/user", &[]),
            ("--since 1h", &all),
            ("--since 2100-01-01", &[]),
            ("--until 2100-01-01", &all),
            ("--until 1h", &[]),
            ("--limit 2", &all[..2]),
            ("--limit 0", &[]),
            ("--source basiq --limit 1", &["b-1"]),
            ("--source basiq --type kyc.*", &[]),
            ("--source basiq --type user.* --subject user/user-1 --since 1h --until 2100-01-01", &["b-1"]),
        ] {
            assert_eq!(find(filters), due, "{filters}");
        }
        assert_eq!(find(&format!("--since {}", recorded[1])), all[1..]);
        assert_eq!(find(&format!("--until {}", recorded[1])), all[..1]);
        // A cursor of a search goes on where it was.
        let after = home.lines(&["events", "query", "--json", "--since", recorded[0], "--limit", "1"]);
        let after = after[0]["cursor"].as_str().unwrap();
        assert_eq!(events(home.lines(&["events", "tail", "--json", "--after", after])).len(), 2);
        let people = home.run(&["events", "query", "--source", "atelio"]);
        assert_eq!((people.code, people.lines().len()), (0, 1), "{people:?}");
        assert!(people.out.contains("  kyc.verified ") && people.out.contains(&kyc), "{people:?}");
    };
    look();
    ended(gateway).await;
    look();
    let said = refusal(&home, &["events", "query", "--source", "nobody"]);
    assert!(
        said.starts_with("the config has no source nobody; it has: basiq, atelio, securitize."),
        "{said}"
    );
    assert_eq!(home.run(&["events", "query", "--since", "yesterday"]).code, 2);
}

#[tokio::test]
async fn each_filter_finds_its_events_in_the_embedded_queue() {
    each_filter_finds_its_events(Home::embedded()).await;
}

#[tokio::test]
async fn each_filter_finds_its_events_in_redis() {
    let redis = Redis::start(Persistence::Off).await;
    each_filter_finds_its_events(home_of(Home::redis(&redis))).await;
}

/// With a gateway and without one: the same event once more, marked, past the dedupe, recorded.
async fn an_event_is_replayed(home: Home) {
    let schema = jsonschema::validator_for(&home.lines(&["schema", "--json"])[0]).unwrap();
    let gateway = home.serve().await;
    gateway.deliver(&basiq("b-1")).await.assert_accepted("b-1");
    let (_, kyc) = gateway.deliver(&atelio("c-1", "n")).await.taken();
    gateway.deliver(&basiq("b-2")).await.assert_accepted("b-2");
    let before = home.raw_events();

    let line = |id: &str, replayed: bool| {
        let (source, kind) =
            if id == kyc { ("/hooks/atelio", "kyc.verified") } else { ("/hooks/basiq", "user.created") };
        serde_json::json!({ "id": id, "source": source, "type": kind, "replayed": replayed })
    };
    assert_eq!(replay(&home, &["b-2", "b-1", "--dry-run"]), [line("b-1", false), line("b-2", false)]);
    let said = refusal(&home, &["events", "replay", "b-1", "none", "b-2", "nor-this"]);
    assert_eq!(said, "the queue has no event none, nor-this; nothing was replayed");
    assert_eq!(home.raw_events(), before);
    assert_eq!(acts(&home), []);

    // In the order of the queue, each once, whatever was typed.
    assert_eq!(replay(&home, &[&kyc, "b-1", "b-1"]), [line("b-1", true), line(&kyc, true)]);
    gateway.deliver(&basiq("b-1")).await.assert_duplicate("b-1");
    gateway.deliver(&basiq("b-3")).await.assert_accepted("b-3");
    ended(gateway).await;
    assert_eq!(replay(&home, &["b-1"]), [line("b-1", true)]);
    let people = home.run(&["events", "replay", "b-2"]);
    assert!(
        people.code == 0 && people.out.starts_with("replayed  2") && people.out.contains(" b-2\n"),
        "{people:?}"
    );

    let after = home.raw_events();
    assert_eq!(after[..3], before);
    let read = home.events();
    assert_eq!(ids(&read)[3..], ["b-1", &kyc, "b-3", "b-1", "b-2"]);
    assert_eq!(read[3..].iter().map(is_replayed).collect::<Vec<_>>(), [true, true, false, true, true]);
    // The mark is all that is added, and not twice.
    let marked = before[0].replacen(",\"data\":", ",\"replayed\":true,\"data\":", 1);
    assert_eq!((&after[3], &after[6]), (&marked, &marked));
    for event in &read {
        let wrong: Vec<String> = schema.iter_errors(event).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{wrong:?}: {event}");
    }
    let of = |source: &str, what: &str| (source.to_owned(), what.to_owned());
    assert_eq!(
        acts(&home),
        [
            of("atelio", &format!("1 event replayed (asked for: {kyc}, b-1, b-1)")),
            of("basiq", &format!("1 event replayed (asked for: {kyc}, b-1, b-1)")),
            of("basiq", "1 event replayed (asked for: b-1)"),
            of("basiq", "1 event replayed (asked for: b-2)"),
        ]
    );

    // `show` prints all that have the id.
    let shown = home.lines(&["events", "show", "b-1", "--json"]);
    assert_eq!(shown.iter().map(is_replayed).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(home.run(&["events", "show", "b-1", "--json"]).lines()[0], before[0]);
    let pretty = home.run(&["events", "show", &kyc]);
    assert!(pretty.out.starts_with("{\n  \"specversion\": \"1.0\",\n  \"id\": \""), "{pretty:?}");
    let parsed: Vec<Value> =
        serde_json::Deserializer::from_str(&pretty.out).into_iter().map(Result::unwrap).collect();
    assert_eq!(parsed, [read[1].clone(), read[4].clone()]);
    let said = refusal(&home, &["events", "show", "none"]);
    assert!(said.starts_with("the queue has no event with the id none: "), "{said}");

    let gateway = home.serve().await;
    for id in ["b-1", "b-2", "b-3"] {
        gateway.deliver(&basiq(id)).await.assert_duplicate(id);
    }
    gateway.deliver(&basiq("b-4")).await.assert_accepted("b-4");
    assert_eq!(ids(&home.events())[8..], ["b-4"]);
    assert_eq!(home.command(&["audit", "verify"]).status().unwrap().code(), Some(0));
}

#[tokio::test]
async fn an_event_of_the_embedded_queue_is_replayed() {
    an_event_is_replayed(Home::embedded()).await;
}

#[tokio::test]
async fn an_event_of_redis_is_replayed() {
    let redis = Redis::start(Persistence::Off).await;
    an_event_is_replayed(Home::redis(&redis)).await;
    assert!(redis.remembered().await >= 4, "the dedupe keeps what was delivered");
}

/// The gateway numbers its events in memory, and another process adds some meanwhile.
#[tokio::test]
async fn replays_beside_a_gateway_that_takes_events_disturb_neither() {
    let home = Home::embedded();
    let gateway = home.serve().await;
    let first: Vec<String> = (0..20).map(|n| format!("first-{n}")).collect();
    for id in &first {
        gateway.deliver(&basiq(id)).await.assert_accepted(id);
    }
    let wanted: Vec<&str> =
        ["events", "replay"].into_iter().chain(first.iter().map(String::as_str)).collect();
    let mut delivered = first.clone();
    for round in 0..5 {
        let mut replaying = home.command(&wanted).stdout(Stdio::null()).spawn().unwrap();
        let status = eventually("the replay ends", async || {
            let id = format!("{round}-{}", delivered.len());
            gateway.deliver(&basiq(&id)).await.assert_accepted(&id);
            delivered.push(id);
            replaying.try_wait().unwrap()
        })
        .await;
        assert!(status.success());
    }
    assert!(!gateway.log().contains("refuses events"), "{}", gateway.log());
    let (again, once): (Vec<Value>, Vec<Value>) = home.events().into_iter().partition(is_replayed);
    assert_each_once(&once, &delivered);
    assert_eq!(ids(&once), delivered.iter().map(String::as_str).collect::<Vec<_>>(), "in their order");
    assert_eq!(ids(&again), [&first[..]; 5].concat());
}

#[tokio::test]
async fn a_cluster_gets_a_replayed_event_in_the_stream_of_its_key_unless_that_is_full() {
    let cluster = Cluster::start().await;
    let home = Home::redis_at(cluster.urls())
        .with("redis.cluster", true)
        .with("queue.partitions", 8)
        .with("queue.max_backlog", 3);
    let gateway = home.serve().await;
    for n in 0..6 {
        let id = format!("b-{n}");
        gateway.deliver(&basiq_about(&id, &format!("user-{n}"))).await.assert_accepted(&id);
    }
    let places = |id: &str| -> Vec<String> {
        let found = home.lines(&["events", "query", "--json"]);
        let with = found.iter().filter(|line| line["event"]["id"] == id);
        // Of each stream, a cursor holds the last entry up to there: the event's own is the one that changed.
        with.map(|line| {
            let at = found.iter().position(|other| other == line).unwrap();
            let parts =
                |at: usize| -> Vec<&str> { found[at]["cursor"].as_str().unwrap().split(',').collect() };
            let before = if at == 0 { Vec::new() } else { parts(at - 1) };
            let own = parts(at).into_iter().find(|part| !before.contains(part)).unwrap();
            own.split_once('@').unwrap().1.to_owned()
        })
        .collect()
    };
    let all: Vec<String> = (0..6).map(|n| format!("b-{n}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    assert_eq!(replay(&home, &all).len(), 6);
    let (again, once): (Vec<Value>, Vec<Value>) = home.events().into_iter().partition(is_replayed);
    for part in [again, once] {
        // Events of one millisecond in different streams may be read in another order.
        let mut part = ids(&part);
        part.sort_unstable();
        assert_eq!(part, all);
    }
    for id in &all {
        let places = places(id);
        assert!(places.len() == 2 && places[0] == places[1], "{places:?}");
    }
    // Nothing but b-0's own stream is full, at the latest after the third of them.
    let full = eventually("its stream is full", async || {
        let ran = home.run(&["events", "replay", "b-0"]);
        (ran.code == 1).then_some(ran)
    })
    .await;
    assert!(full.err.contains("the event b-0: the queue refused: the stream is at max_backlog"), "{full:?}");
    let last = acts(&home).pop().unwrap();
    assert!(
        last.1.starts_with("events replay: failed, and may have done a part: the event b-0: "),
        "{last:?}"
    );
    assert_eq!(
        home.lines(&["events", "show", "b-0", "--json"]).iter().filter(|one| is_replayed(one)).count(),
        2
    );
}

#[tokio::test]
async fn sentinels_are_asked_for_the_master_that_has_the_events() {
    let user = ["--user", "gate", "on", ">s3same", "~*", "&*", "+@all"];
    let first = Redis::start_with(Persistence::Off, &user).await;
    let of = format!("127.0.0.1 {}", first.port());
    let _second = Redis::start_with(Persistence::Off, &[&user[..], &["--replicaof", &of]].concat()).await;
    let sentinel = Sentinel::watch(&first).await;
    let home = Home::redis_at(sentinel.url()).with("redis.sentinel", Sentinel::NAME);
    let gateway = home.serve().await;
    gateway.deliver(&basiq("b-1")).await.assert_accepted("b-1");
    assert_eq!(replay(&home, &["b-1"]).len(), 1);
    assert_eq!(query(&home, &["--subject", "user/user-1"]), ["b-1", "b-1"]);
    assert_eq!(home.lines(&["events", "show", "b-1", "--json"]).len(), 2);
}

#[tokio::test]
async fn each_source_with_the_same_id_has_its_event_replayed_and_a_removed_one_too() {
    let redis = Redis::start(Persistence::Off).await;
    let home = Home::redis(&redis);
    let gateway = home.serve().await;
    gateway.deliver(&basiq("b-1")).await.assert_accepted("b-1");
    // As another source with the same provider would have it.
    let event = home.raw_events().remove(0).replace("/hooks/basiq", "/hooks/old");
    let add = ["XADD", "hookgate.events", "*", "id", "b-1", "type", "user.created", "source", "/hooks/old"];
    let _: String = redis.run(&[&add[..], &["event", &event]].concat()).await;
    for _ in 0..2 {
        let lines = replay(&home, &["b-1"]);
        let sources: Vec<&str> = lines.iter().map(|line| line["source"].as_str().unwrap()).collect();
        assert_eq!(sources, ["/hooks/basiq", "/hooks/old"], "each once, though the queue has replayed ones");
    }
    assert_eq!(home.events().len(), 6);
    let sources: Vec<String> = acts(&home).into_iter().map(|(source, _)| source).collect();
    assert_eq!(sources, ["basiq", "unknown", "basiq", "unknown"]);

    // The name of the removed source is not known, so neither is its stream.
    let home = home.with("queue.name", "hookgate.{source}");
    let add = ["XADD", "hookgate.old", "*", "id", "b-1", "type", "user.created", "source", "/hooks/old"];
    let _: String = redis.run(&[&add[..], &["event", &event]].concat()).await;
    let said = refusal(&home, &["events", "replay", "b-1"]);
    assert!(said.contains("/hooks/old") && said.ends_with("nothing was replayed"), "{said}");
}

#[tokio::test]
async fn an_event_that_retention_has_deleted_is_unknown() {
    let home = Home::embedded().with("queue.retain", "1s");
    let gateway = home.serve().await;
    gateway.deliver(&basiq("b-1")).await.assert_accepted("b-1");
    assert_eq!(home.lines(&["events", "show", "b-1", "--json"]).len(), 1);
    until("its text is gone", async || home.run(&["events", "show", "b-1"]).code == 1).await;
    let said = refusal(&home, &["events", "replay", "b-1"]);
    assert_eq!(said, "the queue has no event b-1; nothing was replayed");
    assert_eq!(query(&home, &[]), [""; 0]);
    gateway.deliver(&basiq("b-1")).await.assert_duplicate("b-1");
}

#[test]
fn what_a_broker_has_is_not_searched_and_a_queue_that_is_not_there_is_told() {
    let commands = [&["events", "query"][..], &["events", "show", "a"], &["events", "replay", "a"]];
    let broker = Home::embedded().with("queue.kind", "nats").with("queue.url", "nats://127.0.0.1:1");
    let embedded = Home::embedded();
    for arguments in commands {
        let said = refusal(&broker, arguments);
        let due = format!("{} cannot read a queue of kind nats; ", arguments[..2].join(" "));
        assert!(said.starts_with(&due), "{said}");
        let said = refusal(&embedded, arguments);
        assert!(said.contains("data") && !said.contains("panicked"), "{said}");
        assert!(!embedded.path("data").exists(), "looking makes nothing");
    }
    let usage = |arguments: &[&str]| -> Ran { embedded.run(&[&["events"], arguments].concat()) };
    assert_eq!([usage(&["show"]).code, usage(&["replay"]).code], [2, 2]);
}
