//! What a provider's API hands over enters once, whatever the queue is, and whether the gateway runs, is stopped or was
//! killed. The messages here are as a provider's log may have them: the same object, written anew.

use std::time::Duration;

use hookgate::base::clock::Clock;
use hookgate::config::{self, Config};
use hookgate::gateway::reconcile::Admitter;
use hookgate::gateway::reconcile::catching_up::{CatchingUp, CatchingUpError, Line, Summary};
use hookgate::provider::signature::ProviderApiPayload;
use hookgate::request::pipeline::{Admission, AdmissionOutcome};
use hookgate::subscriptions::catch_up::{
    Answer, CatchUp, FailedEvent, FailedEvents, LogError, LoggedMessage, MessageLog, Nonces,
    SubscriptionNonce,
};
use jiff::Timestamp;
use serde_json::Value;
use support::{
    Gateway, Home, HttpService, Nats, Persistence, Posted, Redis, assert_each_once, basiq, basiq_about,
    basiq_body, ids, securitize, until,
};

/// A Basiq event as the log has it.
fn logged(id: &str) -> ProviderApiPayload {
    let event: Value = serde_json::from_str(&basiq_body(id)).unwrap();
    LoggedMessage::new(format!("msg_{id}"), format!(" {event:#}\n")).payload
}

fn payloads(ids: &[&str]) -> Vec<ProviderApiPayload> {
    ids.iter().map(|id| logged(id)).collect()
}

fn config(home: &Home) -> Config {
    config::load(&home.path("hookgate.toml")).unwrap().0
}

async fn admitter(home: &Home) -> Admitter {
    Admitter::open(&config(home), Clock::System).await.unwrap()
}

/// Admits these, and returns each outcome.
async fn admit(admitter: &Admitter, ids: &[&str], dry_run: bool) -> Vec<AdmissionOutcome> {
    let admissions = admitter.admit("basiq", &payloads(ids), dry_run).await.unwrap();
    for (Admission { id, kind, .. }, asked) in admissions.iter().zip(ids) {
        assert_eq!((id.as_deref(), kind.as_deref()), (Some(*asked), Some("user.created")));
    }
    admissions.into_iter().map(|admission| admission.outcome).collect()
}

use AdmissionOutcome::{Accepted, Duplicate, Missing};

const LAST: &str = "hookgate_last_accepted_timestamp_seconds{source=\"basiq\"}";

async fn counted(gateway: &Gateway, outcome: &str) -> f64 {
    let series = format!("hookgate_reconciled_events_total{{outcome=\"{outcome}\",source=\"basiq\"}}");
    gateway.metric(&series).await
}

/// Admits events before and after their deliveries, into a running gateway, a stopped one, and one that runs again.
async fn admitted_once(home: &Home) {
    let mut gateway = home.serve().await;
    gateway.deliver(&basiq("a")).await.assert_accepted("a");
    let last = gateway.metric(LAST).await;
    let running = admitter(home).await;
    assert!(running.gateway_runs());
    assert_eq!(admit(&running, &["a", "b"], true).await, [Duplicate, Missing]);
    assert_eq!(counted(&gateway, "duplicate").await, 0.0, "a dry run counts nothing");
    assert_eq!(admit(&running, &["a", "b"], false).await, [Duplicate, Accepted]);
    gateway.deliver(&basiq("b")).await.assert_duplicate("b");
    assert_eq!(admit(&running, &["b"], false).await, [Duplicate]);
    assert_eq!((counted(&gateway, "accepted").await, counted(&gateway, "duplicate").await), (1.0, 2.0));
    let events = "hookgate_events_total{source=\"basiq\",type=\"user.created\"}";
    assert_eq!(gateway.metric(events).await, 2.0);
    assert_eq!(gateway.metric("hookgate_conflicts_total{source=\"basiq\"}").await, 0.0);
    let requests = "hookgate_requests_total{outcome=\"accepted\",provider=\"basiq\",source=\"basiq\"}";
    assert_eq!(gateway.metric(requests).await, 1.0);
    assert_eq!(gateway.metric(LAST).await, last, "a silent provider shows");
    running.close().await;
    gateway.sigterm();
    assert!(gateway.exit().await.success());

    let alone = admitter(home).await;
    assert!(!alone.gateway_runs());
    assert_eq!(admit(&alone, &["b", "c", "d"], true).await, [Duplicate, Missing, Missing]);
    assert_eq!(admit(&alone, &["a", "b", "c"], false).await, [Duplicate, Duplicate, Accepted]);
    alone.close().await;

    let gateway = home.serve().await;
    gateway.deliver(&basiq("c")).await.assert_duplicate("c");
    let running = admitter(home).await;
    assert_eq!(admit(&running, &["c", "d"], false).await, [Duplicate, Accepted]);
    running.close().await;
    gateway.kill9();
    let gateway = home.serve().await;
    gateway.deliver(&basiq("d")).await.assert_duplicate("d");
}

fn names() -> [String; 4] {
    ["a", "b", "c", "d"].map(str::to_owned)
}

#[tokio::test]
async fn it_enters_the_embedded_queue_once() {
    let home = Home::embedded();
    admitted_once(&home).await;
    let events = home.events();
    assert_each_once(&events, &names());
    assert_eq!(events[0]["verifiedby"], "standard-webhooks");
    assert_eq!(events[1]["verifiedby"], "provider-api");
    assert_eq!(events[1]["data"]["payload"]["eventId"], "b");
    assert!(home.records("conflict").is_empty());
}

#[tokio::test]
async fn it_enters_redis_once_with_the_spool_and_without() {
    for spool in [false, true] {
        let redis = Redis::start(Persistence::Always).await;
        let home = Home::redis(&redis).with("spool.enabled", spool);
        admitted_once(&home).await;
        assert_each_once(&home.events(), &names());
    }
}

#[tokio::test]
async fn it_is_published_once_with_claims_in_either_store_and_with_the_spool() {
    let (nats, redis) = (Nats::start().await, Redis::start(Persistence::Always).await);
    let ways = [(false, false), (true, false), (false, true), (true, true)];
    for (at, (claims_in_redis, spool)) in ways.into_iter().enumerate() {
        let stream = format!("S{at}");
        nats.create_stream(&stream, &[&format!("hooks.{at}")]).await;
        let mut home = Home::embedded()
            .with("queue.kind", "nats")
            .with("queue.url", nats.url())
            .with("queue.name", format!("hooks.{at}"))
            .with("spool.enabled", spool);
        if claims_in_redis {
            home = home.with("dedupe.store", "redis").with("redis.url", redis.url());
        }
        admitted_once(&home).await;
        let events: Vec<Value> = nats
            .messages(&stream)
            .await
            .iter()
            .map(|taken| serde_json::from_str(&taken.body).unwrap())
            .collect();
        assert_each_once(&events, &names());
    }
}

#[tokio::test]
async fn it_is_posted_once_to_an_internal_service() {
    let service = HttpService::start().await;
    let home = Home::embedded()
        .with("queue.kind", "http")
        .with("queue.url", service.url("/events"))
        .with("spool.enabled", true);
    admitted_once(&home).await;
    until("the service has them", async || service.taken().len() >= names().len()).await;
    let events: Vec<Value> = service.taken().iter().map(Posted::event).collect();
    assert_each_once(&events, &names());
}

#[tokio::test]
async fn while_redis_is_away_it_waits_in_the_spool_and_enters_once() {
    let mut redis = Redis::start(Persistence::Always).await;
    let home = Home::redis(&redis).with("spool.enabled", true);
    let gateway = home.serve().await;
    let running = admitter(&home).await;
    redis.stop().await;
    until("the queue is down", async || gateway.readiness().await["queue"] == "down").await;
    assert!(matches!(admit(&running, &["a"], true).await[..], [AdmissionOutcome::Failed { .. }]));
    assert_eq!(admit(&running, &["a"], false).await, [Accepted]);
    assert_eq!(admit(&running, &["a"], true).await, [Duplicate], "the spool has it");
    gateway.deliver(&basiq("a")).await.assert_duplicate("a");
    gateway.deliver(&basiq_about("a", "another-user")).await.assert_duplicate("a");
    gateway.deliver(&basiq("b")).await.assert_accepted("b");
    assert_eq!(admit(&running, &["b"], false).await, [Duplicate]);
    redis.restart().await;
    until("the spool is drained", async || gateway.readiness().await["spool"] == "empty").await;
    assert_each_once(&home.events(), &["a".to_owned(), "b".to_owned()]);
    assert_eq!(gateway.metric("hookgate_conflicts_total{source=\"basiq\"}").await, 0.0);
    running.close().await;
}

#[tokio::test]
async fn many_commands_at_once_get_their_own_answers_and_an_event_enters_once() {
    let home = Home::embedded();
    let _gateway = home.serve().await;
    let names: Vec<String> = (0..150).map(|n| format!("e{n}")).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let (one, other) = (admitter(&home).await, admitter(&home).await);
    let (first, second) = tokio::join!(admit(&one, &all, false), admit(&other, &all, false));
    let accepted = first.iter().chain(&second).filter(|outcome| **outcome == Accepted).count();
    assert_eq!((accepted, first.len() + second.len()), (150, 300));
    assert_each_once(&home.events(), &names);
    one.close().await;
    other.close().await;
    let left: i64 = rusqlite::Connection::open(home.database())
        .unwrap()
        .query_row("SELECT count(*) FROM reconcile_orders", [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 0);
}

/// The running gateway has read its secrets, which the operator's shell need not have.
#[tokio::test]
async fn a_command_needs_no_secret_of_the_sources_while_a_gateway_runs() {
    let home = Home::embedded().with_sources(
        "[sources.basiq]\nprovider = \"basiq\"\nsecrets = [{ file = \"secret\" }]\n".to_owned(),
    );
    home.write("secret", support::STANDARD_SECRET);
    let mut gateway = home.serve().await;
    std::fs::remove_file(home.path("secret")).unwrap();
    let running = admitter(&home).await;
    assert_eq!(admit(&running, &["a"], false).await, [Accepted]);
    running.close().await;
    gateway.sigterm();
    assert!(gateway.exit().await.success());
    let Err(why) = Admitter::open(&config(&home), Clock::System).await else { panic!("it has no secret") };
    assert!(why.to_string().contains("the config has 1 problem"), "{why}");
}

#[tokio::test]
async fn what_names_no_event_is_not_admitted() {
    let home = Home::embedded();
    home.write_config();
    let alone = admitter(&home).await;
    let payload = |text: &str| LoggedMessage::new("m".to_owned(), text.to_owned()).payload;
    for text in ["{\"eventTypeId\":\"user.created\"}", "[]", "nothing"] {
        let admissions = alone.admit("basiq", &[payload(text)], false).await.unwrap();
        let AdmissionOutcome::Failed { why } = &admissions[0].outcome else {
            panic!("{text}: {admissions:?}")
        };
        assert!(why.contains("names no event id") && admissions[0].id.is_none(), "{why}");
    }
    let admissions = alone.admit("none", &[payload("{}")], false).await.unwrap();
    assert!(
        matches!(&admissions[0].outcome, AdmissionOutcome::Failed { why } if why.contains("no such source"))
    );
    alone.close().await;
}

#[tokio::test]
async fn series_are_there_from_the_start_for_sources_with_the_section() {
    let sections = "[sources.basiq.subscription]\nevents = [\"user.created\"]\nsecret_file = \"s\"\n\
        api = { base = \"http://127.0.0.1:1\", key = \"k\" }\nurl = \"https://h.example/hooks/basiq\"\n\
        [sources.basiq.reconcile]\nevery = \"1h\"\nlookback = \"1d\"\n";
    let sources = support::sources();
    let at = sources.find("[sources.anduin]").unwrap();
    let home = Home::embedded().with_sources(format!("{}{sections}{}", &sources[..at], &sources[at..]));
    let gateway = home.serve().await;
    let text = async || gateway.admin("/metrics").await.body;
    let success = "hookgate_reconcile_last_success_timestamp_seconds{source=\"basiq\"} 0";
    until("the last success shows", async || text().await.contains(success)).await;
    let text = text().await;
    assert!(text.contains("hookgate_subscription_drift{source=\"basiq\"} 0"), "{text}");
    assert_eq!(text.matches("hookgate_reconciled_events_total{").count(), 5, "{text}");
    for (name, series) in [("reconcile_last_success", 1), ("subscription_drift", 1)] {
        assert_eq!(text.lines().filter(|line| line.starts_with(&format!("hookgate_{name}"))).count(), series);
    }
}

/// A log of these messages, with the second of each first attempt, two messages a page.
struct Log {
    messages: Vec<(&'static str, Option<i64>)>,
    next: usize,
    looked_at: std::sync::Mutex<Vec<String>>,
}

impl MessageLog for Log {
    fn next_page(&mut self) -> Answer<'_, Option<Vec<LoggedMessage>>> {
        let page: Vec<_> = self.messages.iter().skip(self.next).take(2).collect();
        self.next += 2;
        let message =
            |(id, _): &&(&'static str, _)| LoggedMessage { id: format!("m-{id}"), payload: logged(id) };
        let page = page.iter().map(message).collect::<Vec<_>>();
        Box::pin(async move { Ok(Some(page).filter(|page| !page.is_empty())) })
    }

    fn first_attempt<'a>(&'a self, id: &'a str) -> Answer<'a, Option<Timestamp>> {
        self.looked_at.lock().unwrap().push(id.to_owned());
        let at = self.messages.iter().find(|(name, _)| id == format!("m-{name}")).and_then(|(_, at)| *at);
        let at = match at {
            Some(-1) => Err(LogError("503".to_owned())),
            at => Ok(at.map(|at| Timestamp::from_second(at).unwrap())),
        };
        Box::pin(async move { at })
    }
}

/// Runs it from second 100 up to 200. Returns the lines as `ID OUTCOME`, and the summary.
async fn caught_up(
    admitter: &Admitter,
    source: &str,
    dry_run: bool,
    log: CatchUp,
) -> (Vec<String>, Summary, Result<(), CatchingUpError>) {
    // These times are long ago.
    caught_up_within(Duration::from_secs(200 * 365 * 86_400), admitter, source, dry_run, log).await
}

/// The same with this `dedupe.window`.
async fn caught_up_within(
    window: Duration,
    admitter: &Admitter,
    source: &str,
    dry_run: bool,
    log: CatchUp,
) -> (Vec<String>, Summary, Result<(), CatchingUpError>) {
    let mut lines = Vec::new();
    let mut each = |line: Line| lines.push(format!("{} {}", line.id, line.outcome.label()));
    let mut run = CatchingUp {
        admitter,
        source,
        since: Timestamp::from_second(100).unwrap(),
        until: Timestamp::from_second(200).unwrap(),
        window,
        clock: &Clock::System,
        dry_run,
        canonical: &str::to_owned,
        each: &mut each,
        summary: Summary::default(),
    };
    let done = run.run(log).await;
    let summary = run.summary;
    (lines, summary, done)
}

#[tokio::test]
async fn messages_that_never_arrived_are_admitted_by_their_first_attempt() {
    let home = Home::embedded();
    let gateway = home.serve().await;
    for id in ["known", "known-2"] {
        gateway.deliver(&basiq(id)).await.assert_accepted(id);
    }
    let running = admitter(&home).await;
    let log = || Log {
        messages: vec![
            ("late", Some(199)),
            ("known", None),
            ("early", Some(100)),
            ("before", Some(99)),
            ("after", Some(200)),
            ("untried", None),
            ("broken", Some(-1)),
            ("known-2", None),
        ],
        next: 0,
        looked_at: std::sync::Mutex::default(),
    };
    let messages = || CatchUp::Messages(Box::new(log()));
    let (lines, ..) = caught_up(&running, "basiq", true, messages()).await;
    let expected = ["known duplicate", "late missing", "early missing", "known-2 duplicate", "broken failed"];
    assert_eq!(lines, expected);
    assert_eq!(home.events().len(), 2, "a dry run admits nothing");
    let (lines, summary, done) = caught_up(&running, "basiq", false, messages()).await;
    let expected =
        ["known duplicate", "late accepted", "early accepted", "known-2 duplicate", "broken failed"];
    assert_eq!(lines, expected);
    let counts: Vec<u64> = summary.counts().map(|(_, count)| count).collect();
    assert_eq!(counts, [2, 2, 0, 0, 1]);
    assert!(done.is_ok(), "the rest is done");
    assert_eq!((counted(&gateway, "accepted").await, counted(&gateway, "duplicate").await), (2.0, 2.0));
    assert_eq!(counted(&gateway, "failed").await, 1.0);
    assert_eq!(ids(&home.events()), ["known", "known-2", "late", "early"]);
    let mut log = log();
    let (_, again, _) = {
        log.messages.truncate(6);
        caught_up(&running, "basiq", false, CatchUp::Messages(Box::new(log))).await
    };
    let counts: Vec<u64> = again.counts().map(|(_, count)| count).collect();
    assert_eq!(counts, [0, 3, 0, 0, 0]);
    running.close().await;
}

#[tokio::test]
async fn what_the_window_may_have_forgotten_meanwhile_is_not_admitted() {
    let home = Home::embedded();
    let _gateway = home.serve().await;
    let running = admitter(&home).await;
    let messages = vec![("forgotten", Some(140)), ("at-the-edge", Some(160)), ("remembered", Some(199))];
    let log = Log { messages, next: 0, looked_at: std::sync::Mutex::default() };
    // It begins at second 150.
    let window = Duration::from_secs(support::now() as u64 - 150);
    let log = CatchUp::Messages(Box::new(log));
    let (lines, ..) = caught_up_within(window, &running, "basiq", false, log).await;
    assert_eq!(lines, ["forgotten failed", "at-the-edge failed", "remembered accepted"]);
    assert_eq!(ids(&home.events()), ["remembered"]);
    running.close().await;
}

/// Failed events, and those that were retried.
struct Failures(Vec<&'static str>, std::sync::Arc<std::sync::Mutex<Vec<String>>>);

impl FailedEvents for Failures {
    fn next_page(&mut self) -> Answer<'_, Option<Vec<FailedEvent>>> {
        let page: Vec<_> = self.0.drain(..).collect();
        let event = |id: &&str| FailedEvent { id: (*id).to_owned(), kind: Some("kyc.verified".to_owned()) };
        let page = page.iter().map(event).collect::<Vec<_>>();
        Box::pin(async move { Ok(Some(page).filter(|page| !page.is_empty())) })
    }

    fn retry<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        self.1.lock().unwrap().push(id.to_owned());
        let done = if id == "bad" { Err(LogError("404".to_owned())) } else { Ok(()) };
        Box::pin(async move { done })
    }
}

#[tokio::test]
async fn failed_events_are_retried_once_and_only_while_a_gateway_runs() {
    let home = Home::new(&support::sources());
    let retried = std::sync::Arc::default();
    let failures =
        || CatchUp::Retry(Box::new(Failures(vec!["e1", "bad", "e2"], std::sync::Arc::clone(&retried))));
    let alone = admitter(&home).await;
    let (lines, _, done) = caught_up(&alone, "iof", false, failures()).await;
    assert!(matches!(done, Err(CatchingUpError::NoGateway)));
    assert_eq!((lines.len(), retried.lock().unwrap().len()), (0, 0));
    alone.close().await;
    let _gateway = home.serve().await;
    let running = admitter(&home).await;
    let (lines, ..) = caught_up(&running, "iof", true, failures()).await;
    assert_eq!(lines, ["e1 missing", "bad missing", "e2 missing"]);
    let (lines, ..) = caught_up(&running, "iof", false, failures()).await;
    assert_eq!(lines, ["e1 retried", "bad failed", "e2 retried"]);
    running.close().await;
    let again = admitter(&home).await;
    let (lines, ..) = caught_up(&again, "iof", false, failures()).await;
    assert_eq!(lines, ["bad failed"], "once each");
    assert_eq!(*retried.lock().unwrap(), ["e1", "bad", "e2", "bad"]);
    again.close().await;
}

/// The counters of subscriptions.
struct Counters(Vec<(&'static str, u64)>);

impl Nonces for Counters {
    fn read(&mut self) -> Answer<'_, Vec<SubscriptionNonce>> {
        let all = self.0.iter().map(|(subscription, nonce)| SubscriptionNonce {
            subscription: (*subscription).to_owned(),
            kind: "domain-investor-kyc-update".to_owned(),
            nonce: *nonce,
        });
        let all = all.collect();
        Box::pin(async move { Ok(all) })
    }
}

/// The numbers that are named while a gateway runs, and once it is stopped or killed.
#[tokio::test]
async fn missing_numbers_are_named_once_and_an_accepted_one_never() {
    let home = Home::new(&support::sources());
    let named = async |admitter: &Admitter, counters: &[(&'static str, u64)]| {
        let log = CatchUp::Nonces(Box::new(Counters(counters.to_vec())));
        let (lines, _, done) = caught_up(admitter, "securitize", false, log).await;
        done.unwrap();
        lines
    };
    let mut gateway = home.serve().await;
    let deliver = async |gateway: &Gateway, nonce| {
        assert_eq!(gateway.deliver(&securitize("/hooks/securitize", "sub", nonce)).await.status, 200);
    };
    deliver(&gateway, 3).await;
    let running = admitter(&home).await;
    assert_eq!(named(&running, &[("sub", 3), ("new", 40)]).await, [""; 0], "a new one is noted only");
    assert_eq!(
        named(&running, &[("sub", 5), ("new", 41)]).await,
        ["sub#4 missing", "sub#5 missing", "new#41 missing"]
    );
    assert_eq!(named(&running, &[("sub", 5), ("new", 41)]).await, [""; 0], "named once");
    let gaps = gateway.metric("hookgate_sequence_gaps_total{source=\"securitize\"}").await;
    assert_eq!(gaps, 0.0, "that counts only what deliveries show");
    for number in [6, 7, 8, 9] {
        deliver(&gateway, number).await;
        // Written at once, and not at the next second.
        assert_eq!(running.highest("securitize", "sub").await.unwrap(), Some(number.into()));
    }
    assert_eq!(
        named(&running, &[("sub", 9)]).await,
        [""; 0],
        "the gateway is asked for what it has not written yet"
    );
    running.close().await;
    deliver(&gateway, 10).await;
    gateway.sigterm();
    assert!(gateway.exit().await.success());
    let alone = admitter(&home).await;
    assert_eq!(named(&alone, &[("sub", 10)]).await, [""; 0]);
    alone.close().await;

    let gateway = home.serve().await;
    deliver(&gateway, 11).await;
    gateway.kill9();
    let alone = admitter(&home).await;
    assert_eq!(named(&alone, &[("sub", 12)]).await, ["sub#12 missing"], "11 is read from the queue");
    alone.close().await;
    let gateway = home.serve().await;
    deliver(&gateway, 13).await;
    gateway.kill9();
    let _gateway = home.serve().await;
    let running = admitter(&home).await;
    assert_eq!(named(&running, &[("sub", 14)]).await, ["sub#14 missing"]);
    running.close().await;
}
