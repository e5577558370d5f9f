//! The oracle with Basiq's side: its simulator delivers by its own schedule, gives up and disables the webhook while
//! gateways are killed and stay down. Afterwards `subscriptions apply` and `reconcile` run, under faults of the API and
//! with more kills. In the end each event of the provider's log is in the queue once.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use support::providers::{Basiq, Fault};
use support::{Gateway, Home, Persistence, Redis, free_port, until};

use super::{number, random};

const ORIGIN: &str = "https://hooks.example.com";
const KINDS: [&str; 3] = ["user.created", "consent.revoked", "transactions.updated"];

#[tokio::test(flavor = "multi_thread")]
async fn embedded() {
    ordeal("basiq's log, embedded", Home::embedded()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis() {
    let redis = Redis::start(Persistence::Always).await;
    ordeal("basiq's log, redis", Home::redis(&redis)).await;
}

/// A generator of numbers, by the seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize].clone()
    }
}

async fn ordeal(name: &str, home: Home) {
    let seed = number("HOOKGATE_CHAOS_SEED", random());
    // An outage costs the whole schedule of retries, so there are fewer than faults elsewhere.
    let outages = number("HOOKGATE_CHAOS_FAULTS", 10).div_ceil(5);
    eprintln!("chaos {name}: HOOKGATE_CHAOS_SEED={seed} outages={outages}");
    let mut draw = Draw(seed);
    let api = Basiq::start().writes_payloads_anew().pages_of(7);
    let home = home.with_sources(format!(
        "[sources.basiq]\nprovider = \"basiq\"\nsecrets = [{{ file = \"basiq.secret\" }}]\n\
         [sources.basiq.subscription]\nurl = \"{ORIGIN}/hooks/basiq\"\nevents = {KINDS:?}\nsecret_file = \"basiq.secret\"\n\
         api = {{ base = {:?}, key = {{ file = \"api.key\" }} }}\n",
        api.url()
    ));
    home.write("api.key", Basiq::KEY);
    heals(&home, &["subscriptions", "apply"]).await;
    let mut gateway = Some(home.serve().await);
    for _ in 0..outages {
        emit(&api, &mut draw);
        if let Some(gateway) = gateway.take() {
            route(&api, &gateway);
            // Killed at any moment: before, while and after the deliveries arrive.
            tokio::time::sleep(Duration::from_millis(draw.below(60))).await;
            gateway.kill9();
        }
        api.route(ORIGIN, ([127, 0, 0, 1], free_port()).into());
        emit(&api, &mut draw);
        until("the provider has given up", async || api.is_settled()).await;
        // Reconciled with the gateway running, stopped, or killed in between.
        let runs = draw.below(3);
        if runs > 0 {
            let serving = home.serve().await;
            route(&api, &serving);
            gateway = Some(serving);
        }
        api.fail(
            1,
            "GET /notifications",
            draw.one(&[Fault::Status(500), Fault::CutBefore, Fault::TooMany(None)]),
        );
        heals(&home, &["subscriptions", "apply"]).await;
        emit(&api, &mut draw);
        api.fail(
            1,
            "GET /notifications/webhooks/",
            draw.one(&[Fault::CutAfter, Fault::TokensEnd, Fault::Status(503)]),
        );
        if runs == 2 {
            let mut reconciling = home.command(&["reconcile", "--source", "basiq", "--since", "1h"]);
            let mut reconciling = support::Process::spawn(&mut reconciling);
            tokio::time::sleep(Duration::from_millis(draw.below(150))).await;
            if draw.below(2) == 0 {
                reconciling.kill9();
            } else if let Some(gateway) = gateway.take() {
                gateway.kill9();
                // It may have opened the stores itself, and a gateway that starts now would find them in use.
                until("the command ends", async || reconciling.ended().is_some()).await;
            }
            if gateway.is_none() {
                let serving = home.serve().await;
                route(&api, &serving);
                gateway = Some(serving);
            }
        }
        heals(&home, &["reconcile", "--source", "basiq", "--since", "1h"]).await;
    }
    if gateway.is_none() {
        let serving = home.serve().await;
        route(&api, &serving);
        gateway = Some(serving);
    }
    until("every delivery has ended", async || api.is_settled()).await;
    heals(&home, &["subscriptions", "apply"]).await;
    heals(&home, &["reconcile", "--source", "basiq", "--since", "1h"]).await;
    hold(name, &api, &home.events());
    drop(gateway);
}

fn route(api: &Basiq, gateway: &Gateway) {
    api.route(ORIGIN, gateway.edge);
}

fn emit(api: &Basiq, draw: &mut Draw) {
    for _ in 0..=draw.below(12) {
        api.emit(draw.one(&KINDS), json!({}));
    }
}

/// Runs a command until it succeeds, a few times at most.
async fn heals(home: &Home, arguments: &[&str]) {
    until("the command succeeds", async || home.run(arguments).code == 0).await;
}

/// Each event of the provider's log is in the queue once, as the provider has it, and nothing else is there.
fn hold(name: &str, api: &Basiq, queue: &[Value]) {
    let mut due: BTreeMap<String, Value> = BTreeMap::new();
    for delivery in api.deliveries() {
        due.insert(delivery.event.clone(), serde_json::from_str(&delivery.body).unwrap());
    }
    let mut by_api = 0;
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    for event in queue {
        let id = event["id"].as_str().unwrap();
        *found.entry(id).or_default() += 1;
        by_api += usize::from(event["verifiedby"] == "provider-api");
        assert_eq!(Some(&event["data"]["payload"]), due.get(id), "an event that the provider does not have");
        assert!(event["conflict"].is_null(), "{event}");
    }
    let lost: Vec<&String> = due.keys().filter(|id| !found.contains_key(id.as_str())).collect();
    let doubled: Vec<_> = found.iter().filter(|(_, count)| **count > 1).collect();
    eprintln!(
        "chaos {name}: {} events, {by_api} of them by reconcile; {} lost, {} twice",
        due.len(),
        lost.len(),
        doubled.len()
    );
    assert!(lost.is_empty() && doubled.is_empty(), "lost: {lost:?}, twice: {doubled:?}");
    assert!(by_api > 0 && by_api < due.len(), "both ways were taken");
}
