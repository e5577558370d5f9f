//! The inbox against a real Redis, and against one that breaks.

mod backlog;
pub(in crate::durable::inbox) mod server;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::base::clock;
use crate::config::OnConflict;
use crate::durable::inbox::event_filter::EventFilter;
use crate::durable::inbox::{Owner, Place};
use crate::event::{BodyHash, Event, Identity};
use crate::observe::metrics::Metrics;
use server::{Server, until};

fn options() -> Options {
    Options {
        name: "hooks".to_owned(),
        names: BTreeSet::new(),
        partitions: 1,
        max_backlog: 1000,
        window: Duration::from_secs(3600),
        retain: Duration::from_secs(3600),
        ignore_idle_groups: None,
        ack_replicas: 0,
    }
}

async fn inbox(server: &Server, options: Options) -> RedisInbox {
    inbox_counted_by(&Metrics::new().unwrap(), server, options).await
}

async fn inbox_counted_by(metrics: &Metrics, server: &Server, options: Options) -> RedisInbox {
    let inbox = RedisInbox::open(server.servers(), options, metrics.queue("redis"), Arc::default()).unwrap();
    until("the node is up", async || inbox.client.is_up()).await;
    inbox
}

pub(super) fn request(id: &str, body: &str) -> EnqueueRequest {
    let hash = BodyHash::of(id.as_bytes()).0;
    let mut identity = [0; 16];
    identity.copy_from_slice(&hash[..16]);
    EnqueueRequest {
        source: Arc::from("src"),
        provider: "iof".into(),
        owner: Owner([0; 16]),
        identity: Identity(identity),
        body: BodyHash::of(body.as_bytes()),
        on_conflict: OnConflict::Forward,
        event: Event::for_test(id),
    }
}

fn dropping(id: &str, body: &str) -> EnqueueRequest {
    EnqueueRequest { on_conflict: OnConflict::Drop, ..request(id, body) }
}

fn accepted(id: &str, conflict: bool) -> Enqueued {
    Enqueued::Accepted { id: id.to_owned(), conflict }
}

fn duplicate(id: &str, dropped: bool) -> Enqueued {
    Enqueued::Duplicate { id: id.to_owned(), dropped }
}

fn conflict_id(id: &str, body: &str) -> String {
    format!("{id}~{}", &BodyHash::of(body.as_bytes()).hex()[..8])
}

async fn remembered(server: &Server) -> usize {
    server.run::<Vec<String>>(&["KEYS", "*:seen:*"]).await.len()
}

#[tokio::test]
async fn each_body_enters_once_and_every_redelivery_has_its_id() {
    let server = Server::start(&[]).await;
    let inbox = inbox(&server, options()).await;
    let enqueue = async |one: EnqueueRequest| inbox.enqueue(one).await.unwrap();
    assert_eq!(enqueue(request("a", "1")).await, accepted("a", false));
    assert_eq!(enqueue(request("a", "1")).await, duplicate("a", false));
    let second = conflict_id("a", "2");
    assert_eq!(enqueue(request("a", "2")).await, accepted(&second, true));
    assert_eq!(enqueue(request("a", "2")).await, duplicate(&second, false));
    assert_eq!(enqueue(dropping("a", "3")).await, duplicate("a", true));
    assert_eq!(enqueue(dropping("a", "3")).await, duplicate("a", false));
    assert_eq!(enqueue(request("a", "1")).await, duplicate("a", false));
    let third = conflict_id("a", "4");
    assert_eq!(enqueue(request("a", "4")).await, accepted(&third, true));
    let entries: Vec<(String, Vec<String>)> = server.run(&["XRANGE", "hooks", "-", "+"]).await;
    let ids: Vec<&String> = entries.iter().map(|(_, fields)| &fields[1]).collect();
    assert_eq!(ids, [&"a".to_owned(), &second, &third]);
    let plain = Event::for_test("a");
    assert_eq!(
        entries[0].1,
        ["id", "a", "type", &*plain.kind, "source", &*plain.source, "event", &*plain.json]
    );
    assert_eq!(entries[1].1[7], plain.conflicting(&BodyHash::of(b"2")).json);
    inbox.close().await;
}

#[tokio::test]
async fn an_unknown_body_is_a_duplicate_of_any_and_any_of_it() {
    let server = Server::start(&[]).await;
    let inbox = inbox(&server, Options { name: "hooks.{type}".to_owned(), partitions: 2, ..options() }).await;
    let enqueue = async |one: EnqueueRequest| inbox.enqueue(one).await.unwrap();
    let unknown = |id| EnqueueRequest { body: BodyHash::UNKNOWN, ..request(id, "") };
    assert_eq!(inbox.is_known(&unknown("a")).await, Ok(false));
    assert_eq!(enqueue(request("a", "1")).await, accepted("a", false));
    assert_eq!(enqueue(unknown("a")).await, duplicate("a", false));
    assert_eq!(enqueue(request("a", "2")).await, accepted(&conflict_id("a", "2"), true), "no first body");
    assert_eq!(enqueue(unknown("a")).await, duplicate("a", false));
    assert_eq!(inbox.is_known(&unknown("a")).await, Ok(true));
    assert_eq!(enqueue(unknown("b")).await, accepted("b", false));
    for next in [request("b", "1"), dropping("b", "2"), unknown("b")] {
        assert_eq!(enqueue(next).await, duplicate("b", false));
    }
    let (first, second) = tokio::join!(inbox.enqueue(unknown("c")), inbox.enqueue(request("c", "1")));
    assert_eq!((first.unwrap(), second.unwrap()), (accepted("c", false), duplicate("c", false)));
    assert_eq!(remembered(&server).await, 3);
    assert_eq!(inbox.is_known(&request("d", "")).await, Ok(false));
    assert_eq!(remembered(&server).await, 3, "a look remembers nothing");
    inbox.close().await;
}

#[tokio::test]
async fn two_gateways_take_one_event_once_however_concurrently() {
    let server = Server::start(&[]).await;
    let gateways = [Arc::new(inbox(&server, options()).await), Arc::new(inbox(&server, options()).await)];
    for (round, body) in [("first", "1"), ("conflict", "2")] {
        let mut all = tokio::task::JoinSet::new();
        for n in 0..200 {
            let gateway = gateways[n % 2].clone();
            let one = request("same", body);
            all.spawn(async move { gateway.enqueue(one).await.unwrap() });
        }
        let results = all.join_all().await;
        let new = results.iter().filter(|one| matches!(one, Enqueued::Accepted { .. })).count();
        assert_eq!((new, results.len()), (1, 200), "{round}");
    }
    assert_eq!(server.run::<u64>(&["XLEN", "hooks"]).await, 2);
}

#[tokio::test]
async fn one_batch_may_hold_an_identity_more_than_once() {
    let server = Server::start(&[]).await;
    let inbox = inbox(&server, options()).await;
    let one = |body: &str| inbox.enqueue(request("a", body));
    let (first, again, other, other_again) = tokio::join!(one("1"), one("1"), one("2"), one("2"));
    assert_eq!(inbox.metrics.batch.get_sample_sum() as u64, 4 + 2, "one batch, and the conflicts again");
    assert_eq!((first.unwrap(), again.unwrap()), (accepted("a", false), duplicate("a", false)));
    let id = conflict_id("a", "2");
    assert_eq!((other.unwrap(), other_again.unwrap()), (accepted(&id, true), duplicate(&id, false)));
}

#[tokio::test]
async fn a_caller_that_goes_away_cancels_nothing_and_close_finishes_what_waits() {
    let server = Server::start(&[]).await;
    let inbox = inbox(&server, options()).await;
    for n in 0..300 {
        // Polled once and dropped, before the writer had a turn.
        tokio::select! {
            biased;
            answer = inbox.enqueue(request(&format!("e{n}"), "1")) => panic!("too early: {answer:?}"),
            () = std::future::ready(()) => {}
        }
    }
    inbox.close().await;
    assert_eq!(server.run::<u64>(&["XLEN", "hooks"]).await, 300);
}

#[tokio::test]
async fn a_failed_xadd_leaves_nothing_remembered_and_affects_no_other_event() {
    let server = Server::start(&[]).await;
    let inbox = inbox(&server, options()).await;
    assert_eq!(inbox.enqueue(request("known", "1")).await.unwrap(), accepted("known", false));
    let _: String = server.run(&["SET", "hooks", "no stream"]).await;
    let (new, known) = tokio::join!(inbox.enqueue(request("a", "1")), inbox.enqueue(request("known", "1")));
    let said = new.unwrap_err().to_string();
    assert!(said.contains("WRONGTYPE"), "{said}");
    assert_eq!(known.unwrap(), duplicate("known", false));
    assert_eq!(remembered(&server).await, 1);
    let _: u64 = server.run(&["DEL", "hooks"]).await;
    assert_eq!(inbox.enqueue(request("a", "1")).await.unwrap(), accepted("a", false));
}

/// A user without one of the two rights may also lack the rights to undo the other step.
#[tokio::test]
async fn a_missing_right_to_set_or_xadd_leaves_nothing_half_done() {
    let server = Server::start(&[]).await;
    let inbox = inbox(&server, options()).await;
    assert_eq!(inbox.enqueue(request("known", "1")).await.unwrap(), accepted("known", false));
    let state = async || {
        let known: Vec<u8> = server.run(&["GET", &seen("known")]).await;
        (server.run::<u64>(&["XLEN", "hooks"]).await, remembered(&server).await, known)
    };
    let before = state().await;
    let may_undo = ["+xdel", "+del", "+unlink", "+expire", "+pexpire", "+getdel"];
    for takes_away in ["-set", "-xadd"] {
        let may_not: Vec<String> = may_undo.iter().map(|right| right.replace('+', "-")).collect();
        let may_not: Vec<&str> = may_not.iter().map(String::as_str).collect();
        let user = ["ACL", "SETUSER", "default"];
        let _: String = server.run(&[&user[..], &[takes_away], &may_not].concat()).await;
        for (id, body) in [("new", "1"), ("known", "2"), ("new", "1")] {
            let said = inbox.enqueue(request(id, body)).await.unwrap_err();
            assert!(matches!(said, EnqueueError::Refused(_)), "{takes_away}: {said}");
        }
        let gives_back = takes_away.replace('-', "+");
        let _: String = server.run(&[&user[..], &[&gives_back], &may_undo].concat()).await;
        assert_eq!(state().await, before, "{takes_away}");
    }
    assert_eq!(inbox.enqueue(request("new", "1")).await.unwrap(), accepted("new", false));
    let conflict = accepted(&conflict_id("known", "2"), true);
    assert_eq!(inbox.enqueue(request("known", "2")).await.unwrap(), conflict);
}

fn seen(id: &str) -> String {
    stream::seen_key("hooks", "src", &request(id, "").identity)
}

#[tokio::test]
async fn out_of_memory_is_a_refusal_that_leaves_nothing_remembered() {
    let server = Server::start(&[]).await;
    let inbox = inbox(&server, options()).await;
    let _: String = server.run(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let said = inbox.enqueue(request("a", "1")).await.unwrap_err();
    assert!(matches!(&said, EnqueueError::Refused(why) if why.starts_with("OOM")), "{said}");
    assert_eq!(remembered(&server).await, 0);
    assert!(inbox.client.is_up());
    let _: String = server.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(inbox.enqueue(request("a", "1")).await.unwrap(), accepted("a", false));
}

#[tokio::test]
async fn a_full_stream_takes_no_more_and_still_knows_what_it_has() {
    let server = Server::start(&[]).await;
    let inbox = inbox(&server, Options { max_backlog: 2, ..options() }).await;
    let one = |id: &str| inbox.enqueue(request(id, "1"));
    let (a, b, c) = tokio::join!(one("a"), one("b"), one("c"));
    assert!(a.is_ok() && b.is_ok());
    let said = c.unwrap_err().to_string();
    assert!(said.contains("the stream is at max_backlog"), "{said}");
    assert_eq!(inbox.enqueue(request("a", "1")).await.unwrap(), duplicate("a", false));
    assert_eq!(server.run::<u64>(&["XLEN", "hooks"]).await, 2);
    assert_eq!(inbox.metrics.up.get(), 0, "no stream is left that takes events");
    server.run::<u64>(&["XTRIM", "hooks", "MAXLEN", "1"]).await;
    until("there is room", async || inbox.metrics.up.get() == 1).await;
    one("c").await.unwrap();
}

#[tokio::test]
async fn a_stopped_redis_is_known_within_a_second_and_then_at_once() {
    let (server, metrics) = (Server::start(&[]).await, Metrics::new().unwrap());
    let inbox = inbox_counted_by(&metrics, &server, options()).await;
    server.signal("-STOP");
    let said = inbox.enqueue(request("a", "1")).await.unwrap_err();
    assert!(matches!(said, EnqueueError::Unknown), "{said}");
    assert_eq!(inbox.metrics.up.get(), 0);
    // Unreachable comes without sending anything, hence at once.
    for n in 0..100 {
        let said = inbox.enqueue(request(&format!("b{n}"), "1")).await.unwrap_err();
        assert!(matches!(said, EnqueueError::Unreachable), "{said}");
    }
    let counted = metrics.render().unwrap().0;
    for (kind, count) in [("timeout", 1), ("unreachable", 100)] {
        let line = format!("hookgate_enqueue_failures_total{{kind=\"{kind}\",queue=\"redis\"}} {count}\n");
        assert!(counted.contains(&line), "{line}{counted}");
    }
    server.signal("-CONT");
    until("the node is up again", async || inbox.client.is_up() && inbox.metrics.up.get() == 1).await;
    // Whether or not the unanswered event entered, it is there once after its retry.
    inbox.enqueue(request("a", "1")).await.unwrap();
    assert_eq!(server.run::<u64>(&["XLEN", "hooks"]).await, 1);
}

#[tokio::test]
async fn a_redis_killed_and_started_again_is_found_again() {
    let mut server = Server::start(&[]).await;
    let inbox = inbox(&server, options()).await;
    inbox.enqueue(request("a", "1")).await.unwrap();
    server.kill();
    until("the node is down", async || !inbox.client.is_up()).await;
    assert!(matches!(inbox.enqueue(request("b", "1")).await, Err(EnqueueError::Unreachable)));
    server.restart().await;
    until("the node is up", async || inbox.client.is_up()).await;
    assert_eq!(inbox.enqueue(request("b", "1")).await.unwrap(), accepted("b", false));
}

#[tokio::test]
async fn an_inbox_opens_before_its_redis_does() {
    let mut server = Server::start(&[]).await;
    server.kill();
    let metrics = Metrics::new().unwrap().queue("redis");
    let inbox = RedisInbox::open(server.servers(), options(), metrics, Arc::default()).unwrap();
    assert!(matches!(inbox.enqueue(request("a", "1")).await, Err(EnqueueError::Unreachable)));
    server.restart().await;
    until("the node is up", async || inbox.client.is_up()).await;
    assert_eq!(inbox.enqueue(request("a", "1")).await.unwrap(), accepted("a", false));
}

#[tokio::test]
async fn forgotten_scripts_are_loaded_again() {
    let server = Server::start(&[]).await;
    let inbox = inbox(&server, options()).await;
    for id in ["a", "b"] {
        let _: String = server.run(&["SCRIPT", "FLUSH"]).await;
        assert_eq!(inbox.enqueue(request(id, "1")).await.unwrap(), accepted(id, false));
    }
}

/// Redis refuses the whole call, and does not say which event is too long.
#[tokio::test]
async fn an_event_too_long_for_redis_condemns_no_other_of_its_call() {
    let server = Server::start(&["--proto-max-bulk-len", "1mb"]).await;
    let inbox = inbox(&server, options()).await;
    let event = Event::with_payload("large", &format!("\"{}\"", "x".repeat(2 << 20)));
    let large = EnqueueRequest { event, ..request("large", "1") };
    let (first, second) = tokio::join!(inbox.enqueue(large.clone()), inbox.enqueue(request("small", "1")));
    for told in [first, second] {
        assert!(matches!(told, Err(EnqueueError::Unclear(_) | EnqueueError::Unknown)), "{told:?}");
    }
    let alone = async || matches!(inbox.enqueue(large.clone()).await, Err(EnqueueError::Unacceptable(_)));
    until("it is refused alone", alone).await;
    until("the other enters", async || inbox.enqueue(request("small", "1")).await.is_ok()).await;
}

#[tokio::test]
async fn a_server_that_refuses_writes_is_down() {
    let server = Server::start(&[]).await;
    let inbox = inbox(&server, options()).await;
    // The named master does not exist. The server becomes its replica all the same.
    let _: String = server.run(&["REPLICAOF", "127.0.0.1", "1"]).await;
    assert!(matches!(inbox.enqueue(request("a", "1")).await, Err(EnqueueError::Unreachable)));
    assert!(!inbox.client.is_up());
    let _: String = server.run(&["REPLICAOF", "NO", "ONE"]).await;
    until("the node is up", async || inbox.client.is_up()).await;
    assert_eq!(inbox.enqueue(request("a", "1")).await.unwrap(), accepted("a", false));
}

#[tokio::test]
async fn an_identity_enters_again_after_the_window() {
    let server = Server::start(&[]).await;
    let inbox = inbox(&server, Options { window: Duration::from_millis(200), ..options() }).await;
    assert_eq!(inbox.enqueue(request("a", "1")).await.unwrap(), accepted("a", false));
    assert_eq!(inbox.enqueue(request("a", "1")).await.unwrap(), duplicate("a", false));
    until("the window is over", async || remembered(&server).await == 0).await;
    assert_eq!(inbox.enqueue(request("a", "1")).await.unwrap(), accepted("a", false));
}

#[tokio::test]
async fn trimming_stops_at_what_a_group_has_not_read_or_acknowledged() {
    let server = Server::start(&[]).await;
    for id in ["1000-1", "1000-2", "1000-3", "1000-4"] {
        let _: String = server.run(&["XADD", "hooks", id, "id", "x"]).await;
    }
    let _: String = server.run(&["XGROUP", "CREATE", "hooks", "readers", "0"]).await;
    let _: redis::Value =
        server.run(&["XREADGROUP", "GROUP", "readers", "me", "COUNT", "3", "STREAMS", "hooks", ">"]).await;
    let _: u64 = server.run(&["XACK", "hooks", "readers", "1000-1"]).await;
    let first = async || server.run::<Vec<(String, redis::Value)>>(&["XRANGE", "hooks", "-", "+"]).await;
    let inbox = inbox(&server, Options { retain: Duration::from_secs(5), ..options() }).await;
    let oldest = async |expected: Option<&str>| {
        until(&format!("the oldest is {expected:?}"), async || {
            first().await.first().map(|e| &*e.0) == expected
        })
        .await;
    };
    oldest(Some("1000-2")).await;
    let _: u64 = server.run(&["XACK", "hooks", "readers", "1000-2", "1000-3"]).await;
    oldest(Some("1000-4")).await;
    inbox.enqueue(request("young", "1")).await.unwrap();
    let _: u64 = server.run(&["XGROUP", "DESTROY", "hooks", "readers"]).await;
    until("the young one alone is left", async || first().await.len() == 1).await;
    assert_ne!(first().await[0].0, "1000-4");
}

#[tokio::test]
async fn streams_of_a_template_are_trimmed_too_those_of_before_and_those_that_an_event_begins() {
    let server = Server::start(&[]).await;
    let _: String = server.run(&["XADD", "hooks.before", "1000-1", "id", "x"]).await;
    let options = Options {
        name: "hooks.{source}".to_owned(),
        names: BTreeSet::from(["hooks.before".to_owned()]),
        retain: Duration::from_secs(1),
        ..options()
    };
    let inbox = inbox(&server, options).await;
    assert_eq!(inbox.enqueue(request("a", "1")).await.unwrap(), accepted("a", false));
    // A script that the server forgot is loaded again for trimming too.
    server.run::<()>(&["SCRIPT", "FLUSH"]).await;
    for stream in ["hooks.before", "hooks.src"] {
        until(&format!("{stream} is trimmed"), async || server.run::<u64>(&["XLEN", stream]).await == 0)
            .await;
    }
}

#[tokio::test]
async fn partitions_spread_and_a_reader_merges_and_resumes() {
    let server = Server::start(&[]).await;
    let inbox = inbox(&server, Options { partitions: 4, ..options() }).await;
    for n in 0..40 {
        inbox.enqueue(request(&format!("e{n}"), "1")).await.unwrap();
    }
    for partition in 0..4 {
        assert!(server.run::<u64>(&["XLEN", &format!("hooks.{partition}")]).await > 0);
    }
    let mut reader = Reader::open(&server.servers(), "hooks", 4).await.unwrap();
    let (mut cursor, mut read) = (String::new(), Vec::new());
    loop {
        let events = reader.after(&cursor, 7).await.unwrap();
        let Some(last) = events.last() else { break };
        assert!(events.len() <= 7, "{} events", events.len());
        cursor = last.0.clone();
        read.extend(events.into_iter().map(|(_, event)| event));
    }
    for last in [0, 1, 6, 7, 39, 40, 1000] {
        let (total, cursor) = reader.end(last).await.unwrap();
        let end: Vec<String> =
            reader.after(&cursor, 100).await.unwrap().into_iter().map(|(_, event)| event).collect();
        assert_eq!((total, end.as_slice()), (40, &read[40 - last.min(40)..]), "the last {last}");
    }
    // Events of one millisecond in different streams may be read in another order.
    let mut sent: Vec<String> = (0..40).map(|n| Event::for_test(&format!("e{n}")).json).collect();
    sent.sort();
    read.sort();
    assert_eq!(read, sent);
    // A search gives the same order and the same cursors, whatever the size of its pages.
    let mut whole = Vec::new();
    while let (from, true) =
        (whole.last().map_or("", |(cursor, _): &(String, String)| cursor), whole.len() < 40)
    {
        whole.extend(reader.after(from, 3).await.unwrap());
    }
    let begin = async |since| {
        let reader = Reader::open(&server.servers(), "hooks", 4).await.unwrap();
        Scan::begin(reader, since).await.unwrap()
    };
    let mut scan = begin(None).await;
    inbox.enqueue(request("later", "1")).await.unwrap();
    let (mut found, mut places) = (Vec::new(), Vec::new());
    while let Some(page) = scan.next_page(&EventFilter::default()).await.unwrap() {
        found.extend(page.iter().map(|one| (one.cursor.clone(), one.event.clone())));
        places.extend(page.into_iter().map(|one| (one.place, one.event)));
    }
    assert_eq!(found, whole, "and it ends where the streams ended when it began");
    let Some((Place::Entry { stream, id }, event)) = places.pop() else { panic!("{places:?}") };
    assert_eq!(scan.event(&stream, &id).await.unwrap(), Some(event));
    assert_eq!(scan.event(&stream, "1-1").await.unwrap(), None);
    // Read on after a cursor of a search that skipped older entries.
    let _: String = server.run(&["XADD", "hooks.0", "9999999999999-0", "event", &whole[0].1]).await;
    let mut scan = begin(Some("2280-01-01T00:00:00Z".parse().unwrap())).await;
    let late = scan.next_page(&EventFilter::default()).await.unwrap().unwrap();
    assert_eq!(late.iter().map(|one| &one.event).collect::<Vec<_>>(), [&whole[0].1]);
    assert_eq!(reader.after(&late[0].cursor, 9).await.unwrap(), []);
    assert!(matches!(reader.after("nonsense", 1).await, Err(ReadError::Cursor(_))));
    assert!(matches!(reader.after("1-1@others", 1).await, Err(ReadError::Cursor(_))));
}

#[tokio::test]
async fn a_template_makes_a_stream_each_and_the_reader_finds_them() {
    let server = Server::start(&[]).await;
    let name = "hooks.{source}.{type}".to_owned();
    let inbox = inbox(&server, Options { name: name.clone(), ..options() }).await;
    let _: u64 = server.run(&["XLEN", "none"]).await;
    let of = |source: &str| EnqueueRequest { source: Arc::from(source), ..request(source, "1") };
    let (a, b) = tokio::join!(inbox.enqueue(of("a")), inbox.enqueue(of("b")));
    assert!(a.is_ok() && b.is_ok());
    assert_eq!(server.run::<u64>(&["XLEN", "hooks.a.kyc.verified"]).await, 1);
    assert_eq!(server.run::<u64>(&["XLEN", "hooks.b.kyc.verified"]).await, 1);
    let mut reader = Reader::open(&server.servers(), &name, 1).await.unwrap();
    assert_eq!(reader.after("", 10).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_stream_and_what_is_remembered_of_it_share_a_slot() {
    let server = Server::start(&["--cluster-enabled", "yes"]).await;
    let streams = Streams::parse("h.{provider}.{type}", 16).unwrap();
    for n in 0..16 {
        let one = request(&format!("e{n}"), "1");
        let stream = streams.stream(&one, n);
        let seen = stream::seen_key(&stream, &one.source, &one.identity);
        let slot: u64 = server.run(&["CLUSTER", "KEYSLOT", &stream]).await;
        assert_eq!(server.run::<u64>(&["CLUSTER", "KEYSLOT", &seen]).await, slot, "{stream} {seen}");
    }
}

/// A measurement: prints the throughput of 64 callers, and what it costs Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn throughput() {
    let partitions = std::env::var("PARTITIONS").map_or(1, |n| n.parse().unwrap());
    let callers = std::env::var("CALLERS").map_or(64, |n| n.parse().unwrap());
    let server = Server::start(&[]).await;
    let inbox = Arc::new(inbox(&server, Options { partitions, max_backlog: 10_000_000, ..options() }).await);
    let cpu = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    };
    let (start, before) = (clock::instant(), cpu());
    let mut all = tokio::task::JoinSet::new();
    for a in 0..callers {
        let inbox = inbox.clone();
        all.spawn(async move {
            for n in 0..120_000 / callers {
                let mut one = request(&format!("e{a}-{n}"), "1");
                one.event.json.push_str(&" ".repeat(1700 - one.event.json.len()));
                inbox.enqueue(one).await.unwrap();
            }
        });
    }
    all.join_all().await;
    let (seconds, used) = (start.elapsed().as_secs_f64(), cpu() - before);
    let mean = inbox.metrics.batch.get_sample_sum() / inbox.metrics.batch.get_sample_count() as f64;
    let events = inbox.metrics.batch.get_sample_sum();
    println!(
        "{partitions} partitions, {callers} callers: {:.0} events/s, {mean:.1} events a call, redis {:.1} us/event",
        events / seconds,
        used * 1e6 / events
    );
}
