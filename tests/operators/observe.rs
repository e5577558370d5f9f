//! What a date decides: what is only observed until then, and which secrets count.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use hookgate::base::clock::Clock;
use hookgate::config;
use hookgate::gateway::Gateway;
use jiff::Timestamp;
use serde_json::{Value, json};
use support::blocking::{Connection, eventually, until};
use support::*;
use tempfile::TempDir;
use tokio::runtime::Runtime;

// -- observing

#[test]
fn until_its_date_what_is_observed_is_accepted_counted_and_recorded() {
    let home = Home::new(&observing("2099-01-31"));
    let gateway = home.gateway();
    assert_eq!(gateway.ask(&delivery("limited", 0)).status, 200);
    for (number, (source, reason, detail)) in OBSERVED.iter().enumerate() {
        let request = delivery(source, number + 1);
        let before = gateway.metrics();
        // Under any load, two of these fall into one second.
        let answer = eventually("it is let in though it should not be", || {
            let answer = gateway.ask(&request);
            assert_eq!(answer.status, 200, "{source}: {answer:?}");
            (observed(&gateway.metrics(), source, reason) > 0.0).then_some(answer)
        });
        let id = answer.json()["id"].as_str().unwrap().to_owned();
        let after = gateway.metrics();
        assert_eq!(after.rejects(source, reason), 0.0, "{source}");
        assert_eq!(after.requests(source, "rejected"), 0.0, "{source}");
        assert_eq!(after.requests(source, "accepted") - before.requests(source, "accepted"), 1.0, "{source}");
        let record = eventually("it is recorded", || {
            gateway.records().into_iter().find(|record| record["source"] == *source)
        });
        assert_eq!(
            ["reason", "status", "observed", "client"].map(|key| record[key].clone()),
            [json!(reason), json!(200), json!(true), json!("127.0.0.1")],
            "{record}"
        );
        let prefix = "observed, not refused; enforced from 2099-02-01T00:00:00Z: ";
        let told = record["detail"].as_str().unwrap().strip_prefix(prefix).unwrap();
        assert!(told.contains(detail), "{told}");
        assert_eq!(record["body_bytes"], request.body.len(), "{record}");
        let queued = home.events();
        assert!(queued.iter().any(|event| event["id"] == *id), "{source}: {id} in {queued:?}");
    }
    let metrics = gateway.metrics();
    // The late one is in the histogram of ages once, and its secret counts as the one that matched.
    assert_eq!(metrics.sum("hookgate_signature_age_seconds_count", &[("source", "late")]), 1.0);
    assert!(metrics.sum("hookgate_signature_age_seconds_sum", &[("source", "late")]) >= 1000.0);
    assert_eq!(metrics.sum("hookgate_secret_matches_total", &[("source", "late")]), 1.0);
    assert_eq!(metrics.refused(), 0.0);
    gateway.stop();
    assert_eq!(home.run(&["audit", "verify"]).code, 0);
}

#[test]
fn after_its_date_everything_is_enforced() {
    let home = Home::new(&observing("2026-01-31"));
    let gateway = home.gateway();
    for (number, (source, reason, _)) in OBSERVED.iter().enumerate() {
        let answer = eventually("it is refused", || {
            let answer = gateway.ask(&delivery(source, number));
            (answer.status != 200).then_some(answer)
        });
        let record = gateway.record_of(&answer);
        assert_eq!(record["reason"], *reason);
        assert_eq!(record.get("observed"), None, "{record}");
        assert!(!record["detail"].as_str().unwrap().contains("observed"), "{record}");
        let metrics = gateway.metrics();
        assert_eq!((metrics.rejects(source, reason), observed(&metrics, source, reason)), (1.0, 0.0));
    }
}

#[test]
fn the_date_comes_while_the_gateway_serves() {
    let mut gateway = Clocked::start(&observing("2027-01-31T12:00:00Z"), "2027-01-31T11:59:59Z");
    let statuses = |gateway: &Clocked, round: i64| {
        ["fenced", "late", "listed"].map(|source| {
            let at = gateway.now();
            let request = match source {
                "fenced" => standard("/hooks/fenced", &basiq_body(&format!("fenced-{round}")), at),
                "late" => standard("/hooks/late", &basiq_body(&format!("late-{round}")), at - 1000),
                _ => securitize("/hooks/listed", "sub-2", round as u32),
            };
            gateway.ask(&request).status
        })
    };
    assert_eq!(statuses(&gateway, 1), [200, 200, 200]);
    gateway.set("2027-01-31T11:59:59.999999Z");
    assert_eq!(statuses(&gateway, 2), [200, 200, 200]);
    gateway.set("2027-01-31T12:00:00Z");
    assert_eq!(statuses(&gateway, 3), [403, 401, 403]);
    assert_eq!(observed(&gateway.metrics(), "late", "timestamp_outside_tolerance"), 2.0);
    gateway.stop();
}

#[test]
fn what_is_refused_all_the_same_is_not_observed_as_well() {
    let home = Home::new(&observing("2099-01-31"));
    let gateway = home.gateway();
    let forged = |request: Request| Request { body: basiq_body("evt-forged").into(), ..request };
    for (source, request, reason) in [
        // A signature is never only observed, be it from a wrong address or old.
        ("fenced", forged(delivery("fenced", 1)), "signature_mismatch"),
        ("fenced", delivery("fenced", 1).without("webhook-signature"), "signature_missing"),
        ("late", forged(delivery("late", 1)), "signature_mismatch"),
        ("late", delivery("late", 1).instead("webhook-timestamp", "1"), "signature_mismatch"),
        // And only what is listed is observed.
        (
            "fenced",
            standard("/hooks/fenced", &basiq_body("evt"), now() - 1000),
            "timestamp_outside_tolerance",
        ),
    ] {
        let answer = gateway.ask(&request);
        assert_eq!(gateway.record_of(&answer)["reason"], reason, "{source}");
    }
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum("hookgate_observed_total", &[]), 0.0);
    assert_eq!(metrics.refused(), 5.0);
    assert_eq!(gateway.records().len(), 5);
    assert_eq!(home.events().len(), 0);
}

#[test]
fn each_reason_of_one_request_is_told_once() {
    let config = format!(
        "[sources.all]\nprovider = \"basiq\"\nsecrets = [\"{STANDARD_SECRET}\"]\nallow_ips = [\"203.0.113.0/24\"]\n\
         rate_limit = {{ per_second = 1, burst = 1 }}\nclient_rate_limit = {{ per_second = 1, burst = 1 }}\n\
         observe = [\"rate_limited\", \"timestamp_outside_tolerance\", \"client_not_allowed\"]\nobserve_until = \"2099-01-31\"\n"
    );
    let home = Home::new(&config);
    let gateway = home.gateway();
    let mut sent = 0;
    until("the rate is exceeded", || {
        sent += 1;
        let request = standard("/hooks/all", &basiq_body(&format!("evt-{sent}")), now() - 1000);
        assert_eq!(gateway.ask(&request).status, 200);
        observed(&gateway.metrics(), "all", "rate_limited") > 0.0
    });
    let metrics = gateway.metrics();
    assert_eq!(observed(&metrics, "all", "rate_limited"), 1.0);
    for reason in ["client_not_allowed", "timestamp_outside_tolerance"] {
        assert_eq!(observed(&metrics, "all", reason), f64::from(sent));
    }
    until("all are recorded", || gateway.records().len() == 2 * sent as usize + 1);
}

#[test]
fn check_tells_what_is_observed_and_what_its_date_has_ended() {
    let until = Home::new(&observing("2099-01-31"));
    let ran = until.run(&["check"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let said: Vec<&str> = ran.lines().into_iter().filter(|line| line.contains("observe_until")).collect();
    assert_eq!(said.len(), 4, "{ran:?}");
    let line = "warning: sources.fenced.observe_until: client_not_allowed is only observed, not enforced, until \
        2099-02-01T00:00:00Z";
    assert!(said[0].ends_with(line), "{}", said[0]);

    let passed = Home::new(&observing("2026-01-31"));
    let ran = passed.run(&["check"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let line = "warning: sources.fenced.observe_until: observe_until has passed: client_not_allowed is enforced; leave \
        observe and observe_until out";
    assert!(ran.lines().iter().any(|said| said.ends_with(line)), "{ran:?}");
}

#[test]
fn the_only_thing_that_authenticates_a_source_cannot_be_only_observed() {
    let config = |more: &str| {
        format!(
            "[sources.open]\nprovider = \"securitize\"\nallow_ips = [\"203.0.113.0/24\"]\n{more}\
             observe = [\"client_not_allowed\"]\nobserve_until = \"2099-01-31\"\n"
        )
    };
    for command in ["check", "serve"] {
        let ran = Home::new(&config("")).run(&[command]);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.out.contains("sources.open.observe: client_not_allowed cannot be observed"), "{ran:?}");
    }
    let tokened = Home::new(&config(&format!("path_token = \"{TOKEN}\"\n"))).run(&["check"]);
    assert_eq!(tokened.code, 0, "{tokened:?}");
}

// -- dated secrets

#[test]
fn a_secret_counts_from_its_first_moment_to_its_last() {
    let other = "another-secret-of-some-length";
    let until = "not_after = \"2027-01-31T12:00:00Z\"";
    let from = "not_before = 2027-01-31T12:00:00Z, not_after = 2027-02-28";
    let config = format!(
        "[sources.old]\nprovider = \"iof\"\nsecrets = [{{ file = \"text\", {until} }}, {{ file = \"other\" }}]\n\
         [sources.new]\nprovider = \"iof\"\nsecrets = [{{ file = \"other\" }}, {{ file = \"text\", {from} }}]\n"
    );
    let mut gateway =
        Clocked::with(&config, &[("text", TEXT_SECRET), ("other", other)], "2027-01-31T11:59:59.5Z");
    let mut number = 0;
    let mut ask = |gateway: &Clocked, source: &str| {
        number += 1;
        let body = format!("{{\"type\":\"contract.created\",\"id\":\"evt-{number}\"}}");
        gateway.ask(&iof(&format!("/hooks/{source}"), &body, gateway.now())).status
    };
    assert_eq!((ask(&gateway, "old"), ask(&gateway, "new")), (200, 401));
    gateway.set("2027-01-31T12:00:00Z");
    assert_eq!((ask(&gateway, "old"), ask(&gateway, "new")), (401, 200));
    // A date means the whole day.
    gateway.set("2027-02-28T23:59:59.9Z");
    assert_eq!((ask(&gateway, "old"), ask(&gateway, "new")), (401, 200));
    gateway.set("2027-03-01T00:00:00Z");
    assert_eq!((ask(&gateway, "old"), ask(&gateway, "new")), (401, 401));
    // A slot is a place in the list, whatever counts.
    let metrics = gateway.metrics();
    let matched =
        |source, slot| metrics.sum("hookgate_secret_matches_total", &[("source", source), ("slot", slot)]);
    assert_eq!([matched("old", "0"), matched("old", "1")], [1.0, 0.0]);
    assert_eq!([matched("new", "0"), matched("new", "1")], [0.0, 2.0]);
    let records = gateway.stop();
    assert_eq!(records.len(), 5);
    assert!(
        records.iter().all(|record| record["detail"] == "no configured secret matches (1 tried)"),
        "{records:?}"
    );
}

#[test]
fn check_tells_which_secrets_have_expired_and_where_none_counts() {
    let home = Home::new(
        "[sources.next]\nprovider = \"iof\"\nsecrets = [{ file = \"one\", not_after = \"2026-01-31\" }, \
         { file = \"two\", not_before = \"2099-01-01\" }]\n\
         [sources.good]\nprovider = \"iof\"\nsecrets = [{ file = \"one\", not_after = \"2026-01-31\" }, { file = \"two\" }]\n\
         [sources.never]\nprovider = \"iof\"\nsecrets = [{ file = \"one\", not_after = \"2026-01-31\" }]\n",
    );
    home.write("one", "the-first-secret-of-these");
    home.write("two", "the-second-secret-of-these");
    let ran = home.run(&["check"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let of = |source: &str| -> Vec<String> {
        let key = format!("warning: sources.{source}.secrets: ");
        ran.lines().iter().filter_map(|line| Some(line.split_once(&key)?.1.to_owned())).collect()
    };
    let expired = "this secret has expired, at 2026-02-01T00:00:00Z; take it out";
    let none = "no secret counts now: every delivery is refused";
    assert_eq!(of("good"), [expired]);
    assert_eq!(of("next"), [&format!("{none} until 2099-01-01T00:00:00Z"), expired]);
    assert_eq!(of("never"), [none, expired]);
    // Where none counts there is nothing to sign with.
    let sent = home.run(&["send", "--source", "never", "--url", "http://127.0.0.1:1"]);
    assert_eq!(sent.code, 1);
    assert!(sent.err.contains("no secret of never counts now"), "{sent:?}");
    let sent = home.run(&["send", "--source", "good", "--url", "http://127.0.0.1:1"]);
    assert!(!sent.err.contains("counts now"), "{sent:?}");
}

#[test]
fn no_date_of_a_secret_lets_in_what_no_secret_signed() {
    let config =
        "[sources.iof]\nprovider = \"iof\"\nsecrets = [{ file = \"text\", not_after = \"2027-01-31\" }]\n";
    let mut gateway = Clocked::with(config, &[("text", TEXT_SECRET)], "2027-02-01T00:00:01Z");
    // Signed while the secret counted, and within the tolerance: it arrives when it does not.
    let signed = iof("/hooks/iof", "{}", gateway.now() - 100);
    assert_eq!(gateway.ask(&signed).status, 401);
    gateway.set("2027-01-31T23:59:00Z");
    assert_eq!(gateway.ask(&signed).status, 200);
    let records = gateway.stop();
    assert_eq!(records[0]["detail"], "no configured secret matches (0 tried)");
}

/// A source for each of the four reasons, that only observes it until `until`.
fn observing(until: &str) -> String {
    let source = |name: &str, more: &str, reason: &str| {
        format!("[sources.{name}]\n{more}\nobserve = [\"{reason}\"]\nobserve_until = \"{until}\"\n")
    };
    let basiq = format!("provider = \"basiq\"\nsecrets = [\"{STANDARD_SECRET}\"]\n");
    let listed = format!("provider = \"securitize\"\npath_token = \"{TOKEN}\"\nsubscriptions = [\"sub-1\"]");
    let fenced = format!("{basiq}allow_ips = [\"203.0.113.0/24\"]");
    let limited = format!("{basiq}rate_limit = {{ per_second = 1, burst = 1 }}");
    source("fenced", &fenced, "client_not_allowed")
        + &source("limited", &limited, "rate_limited")
        + &source("late", &basiq, "timestamp_outside_tolerance")
        + &source("listed", &listed, "subscription_not_allowed")
}

/// What that source would refuse; of the limited one, in a row with others.
fn delivery(source: &str, number: usize) -> Request {
    let body = basiq_body(&format!("evt-{source}-{number}"));
    match source {
        "late" => standard("/hooks/late", &body, now() - 1000),
        "listed" => securitize("/hooks/listed", "sub-2", number as u32),
        _ => standard(&format!("/hooks/{source}"), &body, now()),
    }
}

fn observed(metrics: &Metrics, source: &str, reason: &str) -> f64 {
    metrics.sum("hookgate_observed_total", &[("source", source), ("reason", reason)])
}

/// A gateway whose clock a test sets.
struct Clocked {
    folder: TempDir,
    runtime: Runtime,
    gateway: Option<Gateway>,
    hand: Arc<AtomicI64>,
}

impl Clocked {
    fn start(sources: &str, at: &str) -> Clocked {
        Clocked::with(sources, &[], at)
    }

    /// With these files beside its config.
    fn with(sources: &str, files: &[(&str, &str)], at: &str) -> Clocked {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let text = format!("edge.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\n{sources}");
        let (config, problems) = config::parse(&text, folder.path());
        assert!(problems.iter().all(|problem| problem.warning), "{problems:?}");
        let hand = Arc::new(AtomicI64::new(micros(at)));
        let runtime = Runtime::new().unwrap();
        let started = Gateway::start(config, Clock::Manual(hand.clone()));
        let gateway = Some(runtime.block_on(started).unwrap());
        Clocked { folder, runtime, gateway, hand }
    }

    fn set(&mut self, at: &str) {
        self.hand.store(micros(at), Ordering::SeqCst);
    }

    /// Unix seconds.
    fn now(&self) -> i64 {
        self.hand.load(Ordering::SeqCst).div_euclid(1_000_000)
    }

    fn ask(&self, request: &Request) -> Answer {
        Connection::open(self.gateway.as_ref().unwrap().edge()[0]).ask(request)
    }

    fn metrics(&self) -> Metrics {
        let admin = self.gateway.as_ref().unwrap().admin();
        Metrics::read(&Connection::open(admin).ask(&Request::get("/metrics")).body)
    }

    /// Drains it; gives what it recorded.
    fn stop(mut self) -> Vec<Value> {
        let drained = self.gateway.take().unwrap().drain();
        self.runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(60), drained).await.unwrap() });
        let files = hookgate::observe::audit::files::list(&self.folder.path().join("data/audit")).unwrap();
        let texts = files.iter().map(|file| std::fs::read_to_string(&file.path).unwrap());
        texts.collect::<String>().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn micros(at: &str) -> i64 {
    at.parse::<Timestamp>().unwrap().as_microsecond()
}

/// Each source, the reason that it only observes, and words of the record.
const OBSERVED: [(&str, &str, &str); 4] = [
    ("fenced", "client_not_allowed", "outside allow_ips"),
    ("late", "timestamp_outside_tolerance", "s old, the tolerance is 300 s"),
    ("listed", "subscription_not_allowed", "not among the source's subscriptions"),
    ("limited", "rate_limited", "over the source's rate_limit"),
];
