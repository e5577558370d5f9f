//! Internal HTTP services as the queue: what was answered 200 reaches its service, in order, and no later than the service lets it.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use hookgate::base::clock;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use support::{
    Client, Gateway, Home, HttpService, Persistence, Posted, Redis, Reply, atelio, basiq, basiq_about,
    eventually, investor_update, until,
};

fn before(service: &HttpService) -> Home {
    before_path(service, "/events")
}

fn before_path(service: &HttpService, path: &str) -> Home {
    Home::embedded()
        .with("queue.kind", "http")
        .with("queue.url", service.url(path))
        .with("spool.enabled", true)
}

/// Waits until the service has taken this many events, and returns their ids in order.
async fn takes(service: &HttpService, count: usize) -> Vec<String> {
    until(&format!("the service takes {count} events"), async || service.taken().len() >= count).await;
    service.taken().iter().map(Posted::id).collect()
}

async fn posts(service: &HttpService, count: usize) -> Vec<Posted> {
    until(&format!("{count} requests come"), async || service.posted().len() >= count).await;
    service.posted()
}

async fn drained(gateway: &Gateway) {
    until("the spool is empty", async || gateway.metric("hookgate_spool_events").await == 0.0).await;
}

/// The signature of a request by this key, independent of hookgate's code.
fn signature(posted: &Posted, key: &str) -> String {
    let key = STANDARD.decode(key).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    let (id, at) = (posted.header("webhook-id"), posted.header("webhook-timestamp"));
    mac.update(format!("{id}.{at}.{}", posted.body).as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

const KEY: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEXT_KEY: &str = "C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

#[tokio::test]
async fn each_event_is_posted_once_as_a_signed_cloudevent() {
    let redis = Redis::start(Persistence::Off).await;
    for in_redis in [false, true] {
        let service = HttpService::start().await;
        let mut home = before(&service)
            .with("queue.secret", vec![format!("whsec_{KEY}"), NEXT_KEY.to_owned()])
            .with("queue.authorization", "Bearer hush");
        if in_redis {
            home = home.with("dedupe.store", "redis").with("redis.url", redis.url());
        }
        let gateway = home.serve().await;
        let (plain, dotted) = (basiq("plain-1"), basiq("dotted.1"));
        let (one, other) = (atelio("customer", "one"), atelio("customer", "other"));
        let mut ids = Vec::new();
        for delivery in [&plain, &dotted, &one, &other] {
            let (status, id) = gateway.deliver(delivery).await.taken();
            assert_eq!(status, "accepted");
            gateway.deliver(delivery).await.assert_duplicate(&id);
            ids.push(id);
        }
        assert_eq!(ids[3], ids[2].clone() + &other.conflict_suffix());
        let posted = service.posted();
        assert_eq!(posted.iter().map(Posted::id).collect::<Vec<_>>(), ids);
        let schema: Value = serde_json::from_str(hookgate::event::SCHEMA).unwrap();
        let schema = jsonschema::validator_for(&schema).unwrap();
        for one in &posted {
            assert!(schema.is_valid(&one.event()), "{}", one.body);
            assert_eq!(one.path, "/events");
            assert_eq!(one.header("content-type"), "application/cloudevents+json");
            assert_eq!(one.header("authorization"), "Bearer hush");
            let both = [signature(one, KEY), signature(one, NEXT_KEY)].join(" ");
            assert_eq!(one.header("webhook-signature"), both);
            assert!((support::now() - one.header("webhook-timestamp").parse::<i64>().unwrap()).abs() < 60);
        }
        let hashed = format!("~{}", &hex::encode(Sha256::digest("dotted.1"))[..32]);
        let sent: Vec<_> = posted.iter().map(|one| one.header("webhook-id")).collect();
        assert_eq!(sent, [&ids[0], &hashed, &ids[2], &ids[3]]);
        assert_eq!(posted[0].event()["data"]["payload"].to_string(), sorted(plain.text()));
        assert!(posted.iter().all(|one| one.connection == posted[0].connection), "connections are kept");
        assert!(!gateway.log().contains("hush") && !gateway.log().contains(KEY));
        assert_eq!(gateway.metric("hookgate_http_posts_total{outcome=\"confirmed\",route=\"*\"}").await, 4.0);
    }
}

fn sorted(json: &str) -> String {
    serde_json::from_str::<Value>(json).unwrap().to_string()
}

#[tokio::test]
async fn an_event_goes_to_the_first_route_that_fits_else_to_the_queues_url() {
    let (service, other) = (HttpService::start().await, HttpService::start().await);
    let routes = json!([
        { "type": "kyc.verified", "url": service.url("/verified"), "secret": NEXT_KEY },
        { "type": "kyc.*", "url": service.url("/kyc?of={source}&type={type}") },
    ]);
    let home = before_path(&other, "/{provider}/{source}/{type}").with("queue.secret", KEY);
    let home = home.with_sources(tables(&routes) + &support::sources());
    let gateway = home.serve().await;
    gateway.deliver(&atelio("customer", "one")).await.taken();
    gateway.deliver(&investor_update(1, "domain")).await.taken();
    gateway.deliver(&basiq("plain")).await.taken();
    let (posted, elsewhere) = (service.posted(), other.posted());
    let paths = |posted: &[Posted]| posted.iter().map(|one| one.path.clone()).collect::<Vec<_>>();
    assert_eq!(paths(&posted), ["/verified", "/kyc?of=securitize&type=kyc.updated"]);
    assert_eq!(paths(&elsewhere), ["/basiq/basiq/user.created"]);
    assert_eq!(posted[0].header("webhook-signature"), signature(&posted[0], NEXT_KEY), "the route's own");
    assert_eq!(posted[1].header("webhook-signature"), signature(&posted[1], KEY));
    assert_eq!(elsewhere[0].header("webhook-signature"), signature(&elsewhere[0], KEY));
}

/// The routes as tables behind the settings, which are dotted keys.
fn tables(routes: &Value) -> String {
    let table = |route: &Value| {
        let keys = route.as_object().unwrap().iter().map(|(key, value)| format!("{key} = {value}\n"));
        format!("[[queue.routes]]\n{}", keys.collect::<String>())
    };
    routes.as_array().unwrap().iter().map(table).collect()
}

/// The provider does not wait for it, and the one request counts.
#[tokio::test]
async fn a_late_confirm_counts_and_the_event_is_posted_once() {
    let service = HttpService::start().await;
    service.replies(|_| Reply::Hang);
    let home = before(&service).with("queue.deadline", "300ms");
    let gateway = home.serve().await;
    let began = clock::instant();
    gateway.deliver(&basiq_about("late", "one")).await.assert_accepted("late");
    assert!(began.elapsed() >= Duration::from_millis(300), "the service had its time");
    assert_eq!(gateway.metric("hookgate_spool_events").await, 1.0);
    gateway.deliver(&basiq_about("late", "one")).await.assert_duplicate("late");
    gateway.deliver(&basiq_about("next", "one")).await.assert_accepted("next");
    assert_eq!(service.posted().len(), 1, "no second request meanwhile, and no later event of the subject");
    service.replies(|_| Reply::Status(200));
    assert_eq!(takes(&service, 2).await, ["late", "next"]);
    drained(&gateway).await;
    assert_eq!(service.posted().len(), 2);
    gateway.deliver(&basiq_about("late", "one")).await.assert_duplicate("late");
    assert_eq!(service.posted().len(), 2);
}

#[tokio::test]
async fn without_the_spool_a_late_confirm_counts_for_the_providers_next_try() {
    let service = HttpService::start().await;
    service.replies(|_| Reply::Hang);
    let home = before(&service).with("queue.deadline", "300ms").with("spool.enabled", false);
    let gateway = home.serve().await;
    gateway.deliver(&basiq("late")).await.assert_come_again();
    let again = gateway.deliver(&basiq("late")).await;
    again.assert_come_again();
    assert!(again.body.contains("in_progress"), "{again:?}");
    let next = gateway.deliver(&basiq("next")).await;
    next.assert_come_again();
    assert!(next.body.contains("queue_unavailable"), "it waits for its subject: {next:?}");
    assert_eq!(service.posted().len(), 1, "no second request meanwhile");
    service.replies(|_| Reply::Status(200));
    takes(&service, 1).await;
    eventually("the retry is a duplicate", async || {
        let answer = gateway.deliver(&basiq("late")).await;
        (answer.status == 200).then(|| answer.assert_duplicate("late"))
    })
    .await;
    // A failure leaves no claim behind: the next try is posted at once.
    service.replies(|_| Reply::Status(500));
    gateway.deliver(&basiq("failed")).await.assert_come_again();
    service.replies(|_| Reply::Status(200));
    gateway.deliver(&basiq("failed")).await.assert_accepted("failed");
    assert_eq!(service.posted().len(), 3);
}

/// The claim is renewed while the request lasts, and ends soon after its gateway died.
#[tokio::test]
async fn a_request_that_outlasts_the_lease_is_joined_by_no_other_gateways() {
    let (service, redis) = (HttpService::start().await, Redis::start(Persistence::Off).await);
    service.replies(|_| Reply::Hang);
    let home = || {
        let home = before(&service).with("queue.deadline", "300ms").with("spool.enabled", false);
        home.with("dedupe.store", "redis").with("redis.url", redis.url()).with("dedupe.lease", "1s")
    };
    let (one, other) = (home(), home());
    let (gateway, survivor) = (one.serve().await, other.serve().await);
    gateway.deliver(&basiq("event")).await.assert_come_again();
    let began = clock::instant();
    while began.elapsed() < Duration::from_secs(3) {
        let answer = survivor.deliver(&basiq("event")).await;
        assert!(answer.body.contains("in_progress"), "{answer:?}");
    }
    assert_eq!(service.posted().len(), 1);
    gateway.kill9();
    service.replies(|_| Reply::Status(200));
    eventually("the lease ends", async || {
        let answer = survivor.deliver(&basiq("event")).await;
        (answer.status == 200).then(|| answer.assert_accepted("event"))
    })
    .await;
}

/// Each failure that may pass: the event comes again under its id until it is taken, and others are not held up.
#[tokio::test]
async fn what_is_not_taken_now_comes_again_under_its_id() {
    let failures = [
        Reply::Status(408),
        Reply::Status(425),
        Reply::Status(429),
        Reply::Status(500),
        Reply::Status(502),
        Reply::Status(503),
        Reply::Cut,
        Reply::CutWithin,
        Reply::With(500, "retry-after", "3600".to_owned()),
        Reply::With(503, "retry-after", "soon".to_owned()),
    ];
    let service = HttpService::start().await;
    let first: BTreeMap<String, Reply> = failures
        .iter()
        .enumerate()
        .map(|(number, reply)| (format!("user/u{number}"), reply.clone()))
        .collect();
    let seen = std::sync::Mutex::new(std::collections::BTreeSet::new());
    service.replies(move |posted| {
        let subject = posted.event()["subject"].as_str().unwrap().to_owned();
        match first.get(&subject) {
            Some(reply) if seen.lock().unwrap().insert(subject) => reply.clone(),
            _ => Reply::Status(200),
        }
    });
    let home = before(&service).with("queue.secret", KEY);
    let gateway = home.serve().await;
    for number in 0..failures.len() {
        let id = format!("e{number}");
        gateway.deliver(&basiq_about(&id, &format!("u{number}"))).await.assert_accepted(&id);
    }
    gateway.deliver(&basiq_about("other", "other")).await.assert_accepted("other");
    until("the other is not held up", async || service.taken().iter().any(|one| one.id() == "other")).await;
    drained(&gateway).await;
    let posted = service.posted();
    for (number, failure) in failures.iter().enumerate() {
        let id = format!("e{number}");
        let tries: Vec<_> = posted.iter().filter(|one| one.header("webhook-id") == id).collect();
        assert_eq!(tries.len(), 2, "{failure:?}");
        assert!(tries[1].at - tries[0].at >= Duration::from_millis(990), "a backoff of a second");
        assert_eq!(tries[0].body, tries[1].body);
    }
    assert_eq!(gateway.metric("hookgate_spool_dead_events").await, 0.0);
}

/// 429 and 503 with a time: no request to that URL before it, whatever its subject; and others are not held up.
#[tokio::test]
async fn retry_after_pauses_the_url_and_no_other() {
    for status in [429, 503] {
        let (service, other) = (HttpService::start().await, HttpService::start().await);
        service.replies(move |_| Reply::With(status, "retry-after", "2".to_owned()));
        let routes = json!([{ "type": "kyc.*", "url": other.url("/kyc") }]);
        let home = before(&service).with_sources(tables(&routes) + &support::sources());
        let gateway = home.serve().await;
        gateway.deliver(&basiq_about("first", "one")).await.assert_accepted("first");
        service.replies(|_| Reply::Status(200));
        gateway.deliver(&basiq_about("second", "two")).await.assert_accepted("second");
        gateway.deliver(&atelio("customer", "")).await.taken();
        assert_eq!(other.taken().len(), 1);
        takes(&service, 2).await;
        let posted = service.posted();
        assert_eq!(posted.len(), 3);
        assert!(
            posted[1].at - posted[0].at >= Duration::from_millis(1990),
            "{status}: nothing before its time"
        );
    }
}

#[tokio::test]
async fn a_refusal_is_tried_again_and_a_redirect_is_not_followed() {
    let (service, elsewhere) = (HttpService::start().await, HttpService::start().await);
    let target = elsewhere.url("/stolen");
    service.replies(move |posted| match posted.event()["subject"].as_str().unwrap() {
        "user/moved" => Reply::With(307, "location", target.clone()),
        "user/bad" => Reply::Status(422),
        _ => Reply::Status(200),
    });
    let gateway = before(&service).serve().await;
    for user in ["moved", "bad", "good"] {
        gateway.deliver(&basiq_about(user, user)).await.assert_accepted(user);
    }
    posts(&service, 5).await;
    assert_eq!(service.taken().len(), 1);
    assert!(elsewhere.posted().is_empty(), "the event does not leave the service");
    assert_eq!(gateway.metric("hookgate_spool_events").await, 2.0);
    assert_eq!(gateway.metric("hookgate_queue_up{queue=\"http\"}").await, 1.0, "the service is well");
    let refused = "hookgate_http_posts_total{outcome=\"refused\",route=\"*\"}";
    assert!(gateway.metric(refused).await >= 4.0);
}

/// Takes about four minutes: run it with `--ignored`.
#[tokio::test]
#[ignore = "waits through ten real backoffs"]
async fn after_ten_refusals_an_event_is_a_dead_letter_and_frees_its_subject() {
    let service = HttpService::start().await;
    service.replies(|posted| if posted.id() == "bad" { Reply::Status(400) } else { Reply::Status(200) });
    let home = before(&service);
    let gateway = home.serve().await;
    for id in ["bad", "good"] {
        gateway.deliver(&basiq_about(id, "one")).await.assert_accepted(id);
    }
    let began = clock::instant();
    while gateway.metric("hookgate_spool_dead_total{source=\"basiq\"}").await == 0.0 {
        assert!(began.elapsed() < Duration::from_secs(400));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(takes(&service, 1).await, ["good"]);
    let tries = service.posted().iter().filter(|one| one.id() == "bad").count();
    assert_eq!(tries, 10);
    let letters = home.lines(&["events", "dead", "list", "--json"]);
    assert_eq!(support::ids(&letters), ["bad"]);
    service.replies(|_| Reply::Status(200));
    assert_eq!(home.lines(&["events", "dead", "retry", "--all", "--json"])[0]["retried"], 1);
    takes(&service, 2).await;
}

#[tokio::test]
async fn the_events_of_a_subject_keep_their_order() {
    let service = HttpService::start().await;
    let tries = std::sync::atomic::AtomicUsize::new(0);
    service.replies(move |posted| match posted.id().as_str() {
        "a0" if tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 2 => Reply::Status(500),
        _ => Reply::Status(200),
    });
    let home = before(&service);
    let gateway = home.serve().await;
    for number in 0..5 {
        for subject in ["a", "b"] {
            let id = format!("{subject}{number}");
            gateway.deliver(&basiq_about(&id, subject)).await.assert_accepted(&id);
        }
    }
    let b_before_a = |taken: Vec<String>| {
        let (a, b): (Vec<_>, Vec<_>) = taken.into_iter().partition(|id| id.starts_with('a'));
        (a, b)
    };
    let (a, b) = b_before_a(takes(&service, 5).await);
    assert_eq!((a.len(), b.len()), (0, 5), "the other subject is not held up");
    let (a, _) = b_before_a(takes(&service, 10).await);
    assert_eq!(a, ["a0", "a1", "a2", "a3", "a4"]);
    drained(&gateway).await;
}

/// Deliveries that come at the same time are posted one after the other, without the spool.
#[tokio::test]
async fn a_subject_has_one_request_at_a_time() {
    let service = HttpService::start().await;
    service.replies(|_| Reply::Slow(Duration::from_millis(20)));
    let gateway = before(&service).with("queue.deadline", "10s").serve().await;
    let deliveries = (0..10).map(|number| basiq_about(&format!("e{number}"), "one")).collect::<Vec<_>>();
    let answers = futures_util::future::join_all(deliveries.iter().map(|one| gateway.deliver(one))).await;
    for (number, answer) in answers.iter().enumerate() {
        answer.assert_accepted(&format!("e{number}"));
    }
    assert!(service.posted().iter().all(|one| one.under_way == 1));
    assert_eq!(gateway.metric("hookgate_spool_events").await, 0.0);
}

#[tokio::test]
async fn a_url_has_at_most_32_requests_at_a_time() {
    let service = HttpService::start().await;
    service.replies(|_| Reply::Hang);
    let gateway = before(&service).with("queue.deadline", "300ms").serve().await;
    let deliveries: Vec<_> = (0..40).map(|n| basiq_about(&format!("e{n}"), &format!("u{n}"))).collect();
    let answers = futures_util::future::join_all(deliveries.iter().map(|one| gateway.deliver(one))).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "from the spool");
    posts(&service, 32).await;
    gateway.deliver(&basiq_about("more", "more")).await.assert_accepted("more");
    assert_eq!(service.posted().len(), 32);
    service.replies(|_| Reply::Status(200));
    takes(&service, 41).await;
    drained(&gateway).await;
    assert_eq!(service.posted().iter().map(|one| one.under_way).max(), Some(32));
    assert_eq!(service.posted().len(), 41);
}

#[tokio::test]
async fn a_url_that_fails_holds_up_no_other() {
    let (mut down, service) = (HttpService::start().await, HttpService::start().await);
    let routes = json!([{ "type": "kyc.*", "url": down.url("/kyc") }]);
    let home = before(&service).with_sources(tables(&routes) + &support::sources());
    let gateway = home.serve().await;
    down.kill().await;
    for number in 0..20 {
        gateway.deliver(&atelio(&format!("customer-{number}"), "")).await.taken();
        let id = format!("e{number}");
        gateway.deliver(&basiq_about(&id, "customer")).await.assert_accepted(&id);
    }
    assert_eq!(service.taken().len(), 20, "each before its provider was answered");
    assert_eq!(gateway.metric("hookgate_spool_events").await, 20.0);
    assert_eq!(gateway.metric("hookgate_queue_up{queue=\"http\"}").await, 0.0);
    let readiness = gateway.readiness().await;
    assert_eq!((&readiness["ready"], &readiness["queue"]), (&true.into(), &"down".into()));
    let detail = readiness["queue_detail"].as_str().unwrap();
    assert!(detail.contains(&down.address().to_string()) && detail.contains("nothing listens"), "{detail}");
    down.restart().await;
    takes(&down, 20).await;
    drained(&gateway).await;
    until("the queue is up", async || gateway.metric("hookgate_queue_up{queue=\"http\"}").await == 1.0).await;
}

#[tokio::test]
async fn the_queue_is_up_while_the_last_answer_was_no_failure() {
    let mut service = HttpService::start().await;
    let gateway = before(&service).with("spool.enabled", false).serve().await;
    let up = async || gateway.metric("hookgate_queue_up{queue=\"http\"}").await;
    assert_eq!(up().await, 1.0);
    service.replies(|_| Reply::Status(500));
    gateway.deliver(&basiq("one")).await.assert_come_again();
    assert_eq!((up().await, gateway.ready().await), (0.0, false));
    service.replies(|_| Reply::Status(422));
    gateway.deliver(&basiq("two")).await.assert_come_again();
    assert_eq!(up().await, 1.0, "it answers, and this event is at fault");
    service.kill().await;
    gateway.deliver(&basiq("three")).await.assert_come_again();
    assert_eq!(up().await, 0.0);
    service.restart().await;
    service.replies(|_| Reply::Status(200));
    gateway.deliver(&basiq("one")).await.assert_accepted("one");
    assert_eq!((up().await, gateway.ready().await), (1.0, true));
}

#[tokio::test]
async fn what_waits_survives_the_gateway() {
    let mut service = HttpService::start().await;
    let home = before(&service);
    let gateway = home.serve().await;
    service.kill().await;
    for number in 0..6 {
        let id = format!("e{number}");
        gateway.deliver(&basiq_about(&id, &format!("user-{}", number % 2))).await.assert_accepted(&id);
    }
    gateway.kill9();
    service.restart().await;
    let gateway = home.serve_unready().await;
    gateway.deliver(&basiq_about("e6", "user-0")).await.assert_accepted("e6");
    let taken = takes(&service, 7).await;
    let even: Vec<_> = taken.iter().filter(|id| ["e0", "e2", "e4", "e6"].contains(&id.as_str())).collect();
    assert_eq!(even, ["e0", "e2", "e4", "e6"]);
    drained(&gateway).await;
    assert_eq!(service.taken().len(), 7);
}

#[tokio::test]
async fn a_known_event_is_a_duplicate_while_its_subject_waits() {
    let mut service = HttpService::start().await;
    let home = before(&service);
    let gateway = home.serve().await;
    gateway.deliver(&basiq_about("first", "user")).await.assert_accepted("first");
    assert_eq!(takes(&service, 1).await, ["first"]);
    service.kill().await;
    gateway.deliver(&basiq_about("second", "user")).await.assert_accepted("second");
    gateway.deliver(&basiq_about("first", "user")).await.assert_duplicate("first");
    gateway.deliver(&basiq_about("second", "user")).await.assert_duplicate("second");
    assert_eq!(gateway.metric("hookgate_spool_events").await, 1.0);
    let events = "hookgate_events_total{source=\"basiq\",type=\"user.created\"}";
    assert_eq!(gateway.metric(events).await, 2.0);
}

/// Its provider has its answer from the spool, and the request is under way when the gateway stops.
#[tokio::test]
async fn a_stop_sends_no_second_request_beside_one_that_is_under_way() {
    let service = HttpService::start().await;
    service.replies(|_| Reply::Hang);
    let home = before(&service).with("queue.deadline", "300ms");
    let mut gateway = home.serve().await;
    gateway.deliver(&basiq_about("late", "user")).await.assert_accepted("late");
    assert_eq!(service.posted().len(), 1);
    gateway.sigterm();
    until("it takes no connections any more", async || Client::connect(gateway.edge).await.is_err()).await;
    service.replies(|_| Reply::Status(200));
    assert_eq!(gateway.exit().await.code(), Some(0));
    assert_eq!(service.posted().len(), 1, "the one that was under way");
    let gateway = home.serve().await;
    drained(&gateway).await;
    assert_eq!(service.posted().len(), 1, "its 2xx counted");
}

/// A stop does not wait for a service that hangs, and loses nothing.
#[tokio::test]
async fn a_stop_leaves_what_hangs_to_the_next_start() {
    let service = HttpService::start().await;
    service.replies(|_| Reply::Hang);
    let home = before(&service).with("queue.deadline", "300ms");
    let mut gateway = home.serve().await;
    for id in ["one", "two"] {
        gateway.deliver(&basiq_about(id, "user")).await.assert_accepted(id);
    }
    until("the queue is known to be silent", async || {
        gateway.metric("hookgate_queue_up{queue=\"http\"}").await == 0.0
    })
    .await;
    gateway.sigterm();
    let stopping = clock::instant();
    assert_eq!(gateway.exit().await.code(), Some(0));
    assert!(stopping.elapsed() < Duration::from_secs(25), "{:?}", stopping.elapsed());
    service.replies(|_| Reply::Status(200));
    let gateway = home.serve().await;
    drained(&gateway).await;
    let mut taken: Vec<_> = service.taken().iter().map(Posted::id).collect();
    taken.dedup();
    assert_eq!(taken, ["one", "two"], "the first perhaps again, under its id");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_live_opens_a_connection_to_each_url_and_sends_nothing() {
    let (mut service, other) = (HttpService::start().await, HttpService::start().await);
    let routes = json!([
        { "type": "kyc.*", "url": other.url("/kyc") },
        { "type": "user.*", "url": "http://127.0.0.1:1/{type}" },
    ]);
    let home = before(&service).with_sources(tables(&routes) + &support::sources());
    let ran = home.check_live();
    assert_eq!(ran.code, 0, "{ran:?}");
    until("a connection each", async || (service.connections(), other.connections()) == (1, 1)).await;
    assert!(service.posted().is_empty());
    service.kill().await;
    let ran = home.check_live();
    assert_eq!(ran.code, 1, "{ran:?}");
    let found: Vec<_> = ran.lines().into_iter().filter(|line| line.contains("cannot be reached")).collect();
    assert_eq!(found.len(), 1, "{ran:?}");
    assert!(found[0].contains(": queue.url: the HTTP service at ") && !found[0].contains("://"), "{ran:?}");
}

#[tokio::test]
async fn the_queues_events_cannot_be_read_here() {
    let service = HttpService::start().await;
    let home = before(&service);
    for arguments in [&["tail"][..], &["query"], &["show", "1"], &["replay", "1"]] {
        let ran = home.run(&[&["events"], arguments].concat());
        assert_eq!(ran.code, 1, "{arguments:?}");
        assert!(ran.err.contains("kind http") && ran.err.lines().count() == 1, "{ran:?}");
        assert!(ran.err.contains(&format!("events {}", arguments[0])), "{ran:?}");
    }
}

/// A TLS listener in front of a service, with a certificate of an authority of its own.
async fn over_tls(service: &HttpService, home: &Home) -> (std::net::SocketAddr, tokio::task::JoinSet<()>) {
    let folder = home.path("");
    let made = Command::new("openssl")
        .current_dir(&folder)
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-keyout", "service.key", "-out", "service.pem", "-subj", "/CN=127.0.0.1"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    use rustls::pki_types::pem::PemObject;
    let chain = vec![rustls::pki_types::CertificateDer::from_pem_file(folder.join("service.pem")).unwrap()];
    let key = rustls::pki_types::PrivateKeyDer::from_pem_file(folder.join("service.key")).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, to) = (listener.local_addr().unwrap(), service.address());
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let acceptor = acceptor.clone();
            connections.spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut behind = tokio::net::TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut behind).await;
            });
        }
    });
    (address, tasks)
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_only_a_trusted_service_gets_events() {
    let service = HttpService::start().await;
    let home = before(&service);
    let (address, _tasks) = over_tls(&service, &home).await;
    let home = home.with("queue.url", format!("https://{address}/events"));
    // The system does not trust it.
    let gateway = home.serve().await;
    gateway.deliver(&basiq("secret")).await.assert_accepted("secret");
    let detail = gateway.readiness().await["queue_detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("not trusted") && detail.contains("queue.ca"), "{detail}");
    assert!(service.posted().is_empty());
    assert_eq!(home.check_live().code, 1);
    drop(gateway);

    let home = home.with("queue.ca", "service.pem");
    let ran = home.check_live();
    assert_eq!(ran.code, 0, "{ran:?}");
    let gateway = home.serve().await;
    assert_eq!(takes(&service, 1).await, ["secret"]);
    drained(&gateway).await;
}
