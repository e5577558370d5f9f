//! Catching up against the providers' simulators: what never arrived enters once; and whether the provider's side is as
//! declared shows in metrics and in `check --live`.

use std::fs;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use support::blocking::until;
use support::providers::{Basiq, Delivery, Fault, Iof, Reply, Securitize, Simulated, Simulator, State};
use support::{Gateway, Home, Ran, assert_each_once, ids};

const ORIGIN: &str = "https://hooks.example.com";
const DOMAIN: &str = "c2f82d16-178c-48ea-95c0-f72227c6fef4";

/// A config with one source, `it`, which is subscribed at this provider.
fn subscribed<P: Simulated>(
    provider: &str,
    api: &Simulator<P>,
    key: &str,
    subscription: &str,
    more: &str,
) -> Home {
    let authentic = match provider {
        "securitize" => "path_token = { file = \"token\" }",
        _ => "secrets = [{ file = \"it.secret\" }]",
    };
    let home = Home::new(&format!(
        "edge.public_url = {ORIGIN:?}\n{more}\n[sources.it]\nprovider = {provider:?}\n{authentic}\n\
         [sources.it.subscription]\n{subscription}\napi = {{ base = {:?}, key = {{ file = \"api.key\" }} }}\n",
        api.url()
    ));
    home.write("token", "a-path-token-1f6b0d");
    home.write("api.key", key);
    applies(&home);
    home
}

fn basiq(api: &Simulator<support::providers::basiq::Provider>, more: &str) -> Home {
    let subscription = "events = [\"user.created\", \"consent.*\"]\nsecret_file = \"it.secret\"";
    subscribed("basiq", api, Basiq::KEY, subscription, more)
}

fn applies(home: &Home) {
    let ran = home.run(&["subscriptions", "apply", "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
}

/// Serves, and lets the provider's deliveries arrive there.
fn serve<P: Simulated>(home: &Home, api: &Simulator<P>) -> Gateway {
    let gateway = home.gateway();
    api.route(ORIGIN, gateway.edge);
    gateway
}

/// Lets deliveries lead to nothing.
fn unreachable<P: Simulated>(api: &Simulator<P>) {
    api.route(ORIGIN, ([127, 0, 0, 1], support::free_port()).into());
}

fn emit<P: Simulated>(api: &Simulator<P>, kind: &str, count: usize) -> Vec<String> {
    (0..count).map(|_| api.emit(kind, json!({}))).collect()
}

/// Waits until the provider has given up, or delivered.
fn settled<P: Simulated>(api: &Simulator<P>) {
    until("every delivery has ended", || api.is_settled());
}

fn reconcile(home: &Home, more: &[&str]) -> Ran {
    home.run(&[&["reconcile", "--source", "it", "--since", "1h", "--json"], more].concat())
}

/// The lines of a run that succeeded, and its summary.
fn reconciled(home: &Home, more: &[&str]) -> (Vec<Value>, Value) {
    let ran = reconcile(home, more);
    assert_eq!(ran.code, 0, "{ran:?}");
    let mut lines = ran.json();
    let summary = lines.pop().unwrap()["summary"].take();
    (lines, summary)
}

fn outcomes(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["outcome"].as_str().unwrap()).collect()
}

fn line(gateway: &Gateway, series: &str) -> Option<f64> {
    let text = gateway.ask_admin("/metrics").body;
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

#[test]
fn a_secret_that_basiq_rotated_is_taken_up_by_a_running_gateway_without_a_refusal() {
    let api = Basiq::start();
    let home = basiq(&api, "");
    let secret_file = home.path("it.secret");
    let before = fs::read_to_string(&secret_file).unwrap();
    fs::copy(&secret_file, home.path("before.secret")).unwrap();
    let config = fs::read_to_string(home.path("hookgate.toml")).unwrap();
    let both = "secrets = [{ file = \"it.secret\" }, { file = \"before.secret\" }]";
    home.write("hookgate.toml", config.replace("secrets = [{ file = \"it.secret\" }]", both));
    let gateway = serve(&home, &api);
    let mut all = emit(&api, "user.created", 1);
    settled(&api);

    let id = api.subscriptions()[0]["id"].as_str().unwrap().to_owned();
    let next = "whsec_mAq1Vd9cXb2Lr8sYk3Tn6wPz0hGf5jEu7iOo4aSd1fG";
    api.change(&id, |webhook| webhook["secret"] = next.into());
    // Basiq tells a secret only in the answer to a change, so a missing file makes `apply` ask.
    fs::remove_file(&secret_file).unwrap();
    applies(&home);
    assert_eq!(fs::read_to_string(&secret_file).unwrap(), next);
    until("the gateway has read the new secret", || gateway.log().contains("config reloaded"));
    all.extend(emit(&api, "user.created", 1));
    settled(&api);
    // Basiq may have signed a delivery before the rotation that arrives after it.
    api.change(&id, |webhook| webhook["secret"] = before.as_str().into());
    all.extend(emit(&api, "user.created", 1));
    settled(&api);
    assert!(api.deliveries().iter().all(|delivery| delivery.attempts.len() == 1), "{:?}", api.deliveries());
    assert_each_once(&home.events(), &all);
    let matches = |slot: u8| {
        let series = format!("hookgate_secret_matches_total{{slot=\"{slot}\",source=\"it\"}}");
        line(&gateway, &series)
    };
    // Before the rotation both files had the same secret, and the first one matched.
    assert_eq!((matches(0), matches(1)), (Some(2.0), Some(1.0)));
}

#[test]
fn what_basiq_could_not_deliver_enters_once_with_the_gateway_stopped_or_running() {
    let api = Basiq::start().writes_payloads_anew().pages_of(2);
    let home = basiq(&api, "");
    // One arrives, the others do not.
    let gateway = serve(&home, &api);
    let mut all = emit(&api, "user.created", 1);
    settled(&api);
    gateway.stop();
    unreachable(&api);
    all.extend(emit(&api, "consent.revoked", 3));
    settled(&api);
    assert!(api.subscriptions()[0]["status"] != "active", "the provider gave up");

    let (lines, summary) = reconciled(&home, &["--dry-run"]);
    let mut seen = outcomes(&lines);
    seen.sort_unstable();
    assert_eq!(seen, ["duplicate", "missing", "missing", "missing"], "{lines:?}");
    assert_eq!(summary["missing"], 3);
    assert_eq!(home.events().len(), 1, "a dry run changes nothing");

    let (lines, summary) = reconciled(&home, &[]);
    assert_eq!((&summary["accepted"], &summary["duplicate"]), (&json!(3), &json!(1)), "{lines:?}");
    let accepted = lines.iter().find(|line| line["outcome"] == "accepted").unwrap();
    assert_eq!(accepted["type"], "consent.revoked");
    let events = home.events();
    assert_each_once(&events, &all);
    assert_eq!(events[0]["verifiedby"], "standard-webhooks");
    assert!(events[1..].iter().all(|event| event["verifiedby"] == "provider-api"), "{events:?}");
    assert!(events.iter().all(|event| event["conflict"].is_null()));
    let act = &home.records("operator")[0];
    assert!(act["detail"].as_str().unwrap().contains("reconcile: 3 admitted"), "{act}");

    // A running gateway does it too, and a genuine delivery afterwards is no conflict.
    applies(&home);
    let gateway = home.gateway();
    let silent = line(&gateway, "hookgate_last_accepted_timestamp_seconds{source=\"it\"}");
    all.extend(emit(&api, "user.created", 1));
    settled(&api);
    let (lines, _) = reconciled(&home, &[]);
    assert_eq!(outcomes(&lines).iter().filter(|outcome| **outcome == "accepted").count(), 1, "{lines:?}");
    let of =
        |outcome: &str| format!("hookgate_reconciled_events_total{{outcome=\"{outcome}\",source=\"it\"}}");
    assert_eq!(line(&gateway, &of("accepted")), Some(1.0));
    assert_eq!(line(&gateway, &of("duplicate")), Some(4.0));
    assert_eq!(line(&gateway, "hookgate_last_accepted_timestamp_seconds{source=\"it\"}"), silent);
    assert!(line(&gateway, "hookgate_reconcile_last_success_timestamp_seconds{source=\"it\"}").is_some());
    assert_each_once(&home.events(), &all);
    let (lines, _) = reconciled(&home, &[]);
    assert!(outcomes(&lines).iter().all(|outcome| *outcome == "duplicate"), "{lines:?}");
    let said = gateway.stop().1;
    for secret in api.secrets() {
        assert!(!said.contains(&secret), "a secret is in the log");
    }
}

#[test]
fn only_messages_first_attempted_in_the_time_count() {
    let api = Basiq::start();
    let home = basiq(&api, "");
    let webhook = api.subscriptions()[0]["id"].as_str().unwrap().to_owned();
    let body = |id: &str| json!({ "eventTypeId": "user.created", "eventId": id }).to_string();
    let now = Timestamp::from_second(support::now()).unwrap();
    for (id, minutes) in [("old", 90), ("due", 30), ("late", 5)] {
        let delivery = Delivery::new(&webhook, id, "user.created", body(id));
        api.keep(delivery.failed_at(now - Duration::from_secs(minutes * 60)));
    }
    let (lines, _) = reconciled(&home, &["--until", "10m"]);
    assert_eq!(lines.iter().map(|line| &line["id"]).collect::<Vec<_>>(), ["due"], "{lines:?}");
    let ran = home.run(&["reconcile", "--source", "it", "--since", "8d"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("dedupe.window (7d)"), "{ran:?}");
}

#[test]
fn iof_is_asked_once_for_each_failed_event() {
    let api = Iof::start().pages_of(2);
    let subscription = "events = [\"contract.*\"]\nsecret_file = \"it.secret\"";
    let home = subscribed("iof", &api, Iof::KEY, subscription, "");
    unreachable(&api);
    let all = emit(&api, "contract.created", 3);
    settled(&api);
    let ran = reconcile(&home, &[]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("no gateway runs"), "{ran:?}");
    assert!(api.calls().iter().all(|call| !call.path.ends_with("/retry")));

    let gateway = serve(&home, &api);
    let (lines, summary) = reconciled(&home, &[]);
    assert_eq!(summary["retried"], 3, "{lines:?}");
    settled(&api);
    assert!(api.deliveries().iter().all(|delivery| delivery.state == State::Delivered));
    assert_each_once(&home.events(), &all);
    let (lines, _) = reconciled(&home, &[]);
    assert_eq!(lines, Vec::<Value>::new(), "each once");
    assert_eq!(api.calls().iter().filter(|call| call.path.ends_with("/retry")).count(), 3);
    drop(gateway);
}

#[test]
fn securitizes_missing_nonces_are_named_once() {
    let api = Securitize::start();
    let subscription = format!("events = [\"domain-investor-kyc-update\"]\ndomains = [{DOMAIN:?}]");
    let home = subscribed("securitize", &api, Securitize::KEY, &subscription, "");
    let emit = |count: usize| {
        for _ in 0..count {
            api.emit("domain-investor-kyc-update", json!({ "domainId": DOMAIN, "externalId": "5298922124" }));
        }
    };
    let gateway = serve(&home, &api);
    // A subscription that was never seen: its nonce is noted.
    let (lines, _) = reconciled(&home, &[]);
    assert_eq!(lines, Vec::<Value>::new());
    emit(2);
    settled(&api);
    let (lines, _) = reconciled(&home, &[]);
    assert_eq!(lines, Vec::<Value>::new(), "both have arrived");
    gateway.stop();
    unreachable(&api);
    emit(2);
    settled(&api);
    let (lines, summary) = reconciled(&home, &[]);
    let id = api.subscriptions()[0]["id"].as_str().unwrap().to_owned();
    let expected: Vec<Value> = [3, 4]
        .map(|nonce| json!({ "id": format!("{id}#{nonce}"), "type": "kyc.updated", "outcome": "missing" }))
        .into();
    assert_eq!(lines, expected);
    assert_eq!(summary["missing"], 2);
    let (lines, _) = reconciled(&home, &[]);
    assert_eq!(lines, Vec::<Value>::new(), "named once");
}

#[test]
fn a_source_that_cannot_catch_up_is_told_why() {
    let home = Home::new(
        "edge.public_url = \"https://hooks.example.com\"\nsubscriptions.check = \"off\"\n\
         [sources.it]\nprovider = \"atelio\"\nunauthenticated = true\n[sources.it.subscription]\nevents = [\"card.*\"]\n\
         secret_file = \"it.secret\"\napi = { base = \"http://127.0.0.1:9/\", identity = \"identity\", \
         authorization = \"authorization\" }\n[sources.other]\nprovider = \"basiq\"\nunauthenticated = true\n",
    );
    let ran = reconcile(&home, &[]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
    assert!(ran.err.contains("atelio keeps no log"), "{ran:?}");
    let ran = home.run(&["reconcile", "--source", "other", "--since", "1h"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("no subscription"), "{ran:?}");
    let api = Basiq::start();
    let home = basiq(&api, "");
    api.remove(api.subscriptions()[0]["id"].as_str().unwrap());
    let ran = reconcile(&home, &[]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("no webhook of it"), "{ran:?}");
}

#[test]
fn a_serving_gateway_catches_up_by_itself() {
    let api = Basiq::start();
    let home = basiq(&api, "");
    let text = fs::read_to_string(home.path("hookgate.toml")).unwrap();
    home.write("hookgate.toml", text + "[sources.it.reconcile]\nevery = \"1s\"\nlookback = \"1h\"\n");
    unreachable(&api);
    let all = emit(&api, "user.created", 2);
    settled(&api);
    let gateway = home.gateway();
    until("both are admitted", || home.events().len() == 2);
    assert_each_once(&home.events(), &all);
    let success = "hookgate_reconcile_last_success_timestamp_seconds{source=\"it\"}";
    until("a success shows", || line(&gateway, success).is_some_and(|at| at > 0.0));
    until("the record is written", || gateway.records().iter().any(|record| record["reason"] == "operator"));
    assert_eq!(ids(&home.events()).len(), 2);
    gateway.stop();
}

#[test]
fn drift_shows_until_the_provider_has_what_is_declared() {
    let api = Basiq::start();
    let home = basiq(&api, "subscriptions.check = \"1s\"");
    let gateway = serve(&home, &api);
    let drift = || line(&gateway, "hookgate_subscription_drift{source=\"it\"}");
    until("it is as declared", || drift() == Some(0.0));
    let webhook = api.subscriptions()[0]["id"].as_str().unwrap().to_owned();
    api.change(&webhook, |webhook| webhook["subscribedEvents"] = json!(["user.created"]));
    until("it differs", || drift() == Some(1.0));
    // A look that fails leaves it as it was.
    api.fail(usize::MAX, "GET /notifications", support::providers::Fault::Status(400));
    until("the look failed", || gateway.log().contains("cannot be looked at"));
    assert_eq!(drift(), Some(1.0));
    api.heal();
    applies(&home);
    until("it is as declared again", || drift() == Some(0.0));
    assert!(gateway.log().contains("not as declared (1 different)"), "{}", gateway.log());
    gateway.stop();
}

#[test]
fn check_live_asks_whether_the_subscription_is_there_and_enabled() {
    let api = Basiq::start();
    let home = basiq(&api, "");
    assert_eq!(home.check_live().code, 0);
    let webhook = api.subscriptions()[0]["id"].as_str().unwrap().to_owned();
    api.change(&webhook, |webhook| webhook["status"] = "disabled".into());
    let ran = home.check_live();
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("sources.it.subscription:") && ran.out.contains("disabled"), "{ran:?}");
    api.remove(&webhook);
    let ran = home.check_live();
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.out.contains("1 missing"), "{ran:?}");
}

/// Answers every list of messages by this function, which gets the call's URL.
fn answer_messages(api: &Basiq, mut answer: impl FnMut(String) -> Option<Value> + Send + 'static) {
    let base = api.url();
    api.fail_when(move |call| {
        let is_list = call.method == "GET" && call.path.contains("/messages?");
        let answer = is_list.then(|| answer(format!("{base}{}", call.path)))??;
        Some(Fault::Answer(Reply::json(200, &answer)))
    });
}

#[test]
fn an_empty_page_that_links_to_another_is_not_the_last() {
    let api = Basiq::start();
    let home = basiq(&api, "");
    unreachable(&api);
    let all = emit(&api, "user.created", 1);
    settled(&api);
    let mut is_first = true;
    answer_messages(&api, move |url| {
        // The fragment makes it another URL, and is not sent.
        std::mem::take(&mut is_first).then(|| json!({ "data": [], "links": { "next": format!("{url}#2") } }))
    });
    let (lines, _) = reconciled(&home, &[]);
    assert_eq!(outcomes(&lines), ["accepted"]);
    assert_each_once(&home.events(), &all);
}

#[test]
fn a_list_whose_link_leads_back_ends_with_an_error() {
    let api = Basiq::start();
    let home = basiq(&api, "");
    answer_messages(&api, |url| {
        let payload = json!({ "eventTypeId": "user.created", "eventId": "e1" });
        Some(json!({ "data": [{ "id": "m1", "payload": payload }], "links": { "next": url } }))
    });
    let ran = reconcile(&home, &[]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("list of messages does not end"), "{ran:?}");
}

#[test]
fn a_run_up_to_the_future_counts_up_to_now() {
    let api = Basiq::start();
    let home = basiq(&api, "");
    reconciled(&home, &["--until", "2100-01-01"]);
    let gateway = serve(&home, &api);
    reconciled(&home, &["--until", "2100-01-01"]);
    let until = line(&gateway, "hookgate_reconcile_last_success_timestamp_seconds{source=\"it\"}").unwrap();
    assert!(until <= support::now() as f64 + 1.0, "{until}");
}
