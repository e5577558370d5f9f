//! The simulators of the providers: their strictness, faults, schedules and signatures, and that a gateway takes what they send.

use std::net::SocketAddr;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use support::providers::{
    Anduin, Atelio, Basiq, Delivery, Fault, Iof, Securitize, Simulated, Simulator, State,
};
use support::{Answer, Client, Home, HttpService, Posted, Reply, Request, TOKEN, until};

#[tokio::test]
async fn a_call_that_no_document_allows_is_refused_in_the_providers_own_shape() {
    let (securitize, anduin, atelio) = (Securitize::start(), Anduin::start(), Atelio::start());
    let (basiq, iof) = (Basiq::start(), Iof::start());
    let fund = format!("/api/v1/fundsub/{}/webhook", Anduin::FUND);
    let bearer = basiq_token(&basiq).await;
    let cases = [
        (securitize.address(), securitize_key(), "/v1/webhooks/subscriptions", "/statusCode"),
        (
            anduin.address(),
            vec![("authorization", format!("Bearer {}", Anduin::KEY))],
            fund.as_str(),
            "/message",
        ),
        (atelio.address(), atelio_keys(), "/api/v0.1/webhooks", "/Status"),
        (basiq.address(), vec![("authorization", bearer)], "/notifications/webhooks", "/data/0/code"),
        (iof.address(), iof_key(), "/v1/webhooks/endpoints", "/error/code"),
    ];
    for (address, keys, path, place) in cases {
        let with_keys = |request| keyed(request, &keys);
        let refused = async |status: u16, request: Request| {
            let answer = ask(address, &request).await;
            assert_eq!(answer.status, status, "{request:?}: {answer:?}");
            assert!(answer.json().pointer(place).is_some(), "{answer:?}");
        };
        let typed = |request: Request| with_keys(request).with("content-type", "application/json");
        refused(401, Request::get(path)).await;
        refused(401, with_keys(Request::get(path)).instead(keys[0].0, "wrong")).await;
        refused(404, with_keys(Request::get("/elsewhere"))).await;
        refused(400, typed(Request::post(path, r#"{"url":"https://h.example.com/","unknown":1}"#))).await;
        refused(400, typed(Request::post(path, "no JSON"))).await;
        refused(415, with_keys(Request::post(path, "{}")).with("content-type", "text/plain")).await;
    }
}

#[tokio::test]
async fn each_fault_is_what_the_test_ordered() {
    let provider = Securitize::start();
    let create = json!({ "domainId": "d", "eventType": "health-check", "payloadUrl": "http://127.0.0.1:1/" });
    let create = Request::post("/v1/webhooks/subscriptions", create.to_string());
    let create = keyed(create, &securitize_key());
    let create = create.with("content-type", "application/json");
    let list = keyed(Request::get("/v1/webhooks/subscriptions"), &securitize_key());
    let there = || provider.subscriptions().len();
    let is_cut = async |request: &Request| {
        Client::connect(provider.address()).await.unwrap().deliver(request).await.is_err()
    };

    provider.fail(2, "POST /v1/webhooks", Fault::Status(500));
    assert_eq!(ask(provider.address(), &list).await.status, 200, "it is for another method");
    assert_eq!(ask(provider.address(), &create).await.json()["statusCode"], 500);
    assert_eq!(ask(provider.address(), &create).await.status, 500);
    provider.fail(1, "POST /v1", Fault::TooMany(None));
    provider.fail(1, "POST /v1", Fault::TooMany(Some("7".to_owned())));
    let answers = [ask(provider.address(), &create).await, ask(provider.address(), &create).await];
    assert_eq!(
        answers.each_ref().map(|answer| (answer.status, answer.header("retry-after"))),
        [(429, None), (429, Some("7"))]
    );
    provider.fail(1, "POST /v1", Fault::Redirect("http://127.0.0.1:1/".to_owned()));
    let redirect = ask(provider.address(), &create).await;
    assert_eq!((redirect.status, redirect.header("location")), (307, Some("http://127.0.0.1:1/")));
    provider.fail(1, "POST /v1", Fault::CutBefore);
    assert!(is_cut(&create).await && there() == 0);

    provider.fail(1, "POST /v1", Fault::CutAfter);
    assert!(is_cut(&create).await && there() == 1);
    let (time, begun) = (Duration::from_millis(60), tokio::time::Instant::now());
    provider.fail_when(move |call| (call.method == "POST").then_some(Fault::Slow(time)));
    assert_eq!(ask(provider.address(), &create).await.status, 201);
    assert!(begun.elapsed() >= time && there() == 2);
    provider.heal();
    assert_eq!(ask(provider.address(), &create).await.status, 201);

    let statuses: Vec<Option<u16>> = provider.writes().iter().map(|call| call.status).collect();
    let known = [500, 500, 429, 429, 307, 0, 0, 201, 201];
    assert_eq!(statuses, known.map(|status| Some(status).filter(|status| *status > 0)));
    assert_eq!(provider.calls().len(), known.len() + 1);
}

#[tokio::test]
async fn basiq_takes_a_token_until_it_ends() {
    let provider = Basiq::start();
    let ask_with = async |token: &str| {
        ask(provider.address(), &Request::get("/events/types").with("authorization", token)).await.status
    };
    let first = basiq_token(&provider).await;
    assert_eq!(ask_with(&first).await, 200);
    provider.fail(1, "GET /events", Fault::TokensEnd);
    assert_eq!([ask_with(&first).await, ask_with(&first).await], [401, 401]);
    let second = basiq_token(&provider).await;
    assert_eq!([ask_with(&first).await, ask_with(&second).await], [401, 200]);
    assert!(provider.writes().is_empty(), "a request for a token is no write");
    let short = Basiq::start().tokens_last(Duration::ZERO);
    let ended = basiq_token(&short).await;
    assert_eq!(
        ask(short.address(), &Request::get("/events/types").with("authorization", ended)).await.status,
        401
    );
}

#[tokio::test]
async fn basiqs_messages_are_paged_and_filtered() {
    let provider = Basiq::start().pages_of(2).writes_payloads_anew();
    let webhook = provider.add(json!({ "subscribedEvents": ["user.created"] }));
    for minute in 0..5 {
        let (event, at) =
            (format!("event-{minute}"), format!("2026-11-30T10:0{minute}:00.7Z").parse().unwrap());
        let kind = if minute == 3 { "user.updated" } else { "user.created" };
        let body = json!({ "eventTypeId": kind, "eventId": event }).to_string();
        provider.keep(Delivery::new(&webhook, &event, kind, body).failed_at(at));
    }
    let bearer = basiq_token(&provider).await;
    let get = async |path: &str| {
        let answer = ask(provider.address(), &Request::get(path).with("authorization", &bearer)).await;
        (answer.status, answer.body)
    };
    let all =
        async |filter: &str| {
            let filter: String = filter.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let mut path = format!("/notifications/webhooks/{webhook}/messages?filter={filter}&limit=500");
            let mut events = String::new();
            loop {
                let (status, body) = get(&path).await;
                assert_eq!(status, 200, "{body}");
                let page: Value = serde_json::from_str(&body).unwrap();
                let data = page["data"].as_array().unwrap();
                assert!(
                    data.len() <= 2 && data.iter().all(|message| message.get("attempts").is_none()),
                    "{body}"
                );
                events.extend(data.iter().map(|message| {
                    message["payload"]["eventId"].as_str().unwrap()["event-".len()..].to_owned()
                }));
                let Some(next) = page["links"]["next"].as_str() else { return events };
                path = next.strip_prefix(&provider.url()).unwrap().to_owned();
            }
        };

    assert_eq!(all("message.eventTypeId.eq('user.created')").await, "4210");
    assert_eq!(all("message.date.bt('2026-11-30T10:01:00Z','2026-11-30T10:03:00Z')").await, "321");
    assert_eq!(
        all("message.date.gteq('2026-11-30T10:01:00Z'),message.date.lt('2026-11-30T10:03:00Z')").await,
        "21"
    );
    assert_eq!(
        all("message.date.gt('2026-11-30T10:01:00Z'),message.date.lteq('2026-11-30T10:03:00Z')").await,
        "32"
    );
    assert_eq!(all("message.date.bt('2026-11-30','2026-11-30'),message.status.eq('Failed')").await, "43210");
    assert_eq!(all("message.status.eq('Success')").await, "");
    assert_eq!(all("message.eventId.eq('event-2')").await, "2");
    for wrong in
        ["message.date.eq('2026')", "event.id.eq('1')", "message.status.eq('a')x", "message.status.eq(a)"]
    {
        let (status, body) = get(&format!("/notifications/webhooks/{webhook}/messages?filter={wrong}")).await;
        assert_eq!(status, 400, "{wrong}: {body}");
    }
    let written = get(&format!("/notifications/webhooks/{webhook}/messages")).await.1;
    assert!(
        written.contains(r#""payload":{ "eventTypeId" : "user.created", "eventId" : "event-4" }"#),
        "{written}"
    );
}

#[tokio::test]
async fn basiqs_shapes_are_those_that_the_test_chose() {
    let provider = Basiq::start().event_as_text().data_as_object().approves_later();
    let endpoint = HttpService::start().await;
    let webhook = provider.add(json!({ "url": endpoint.url("/"), "subscribedEvents": ["user.created"] }));
    let bearer = basiq_token(&provider).await;
    let list = Request::get("/notifications/webhooks").with("authorization", &bearer);
    let listed = ask(provider.address(), &list).await.json();
    let data = &listed["data"];
    assert_eq!(
        (&data["subscribedEvents"], &data["status"]),
        (&json!("user.created"), &json!("pending-approval"))
    );
    provider.emit("user.created", json!({}));
    assert_eq!(provider.deliveries().len(), 0, "it is not approved yet");
    provider.change(&webhook, |webhook| webhook["status"] = "active".into());
    provider.emit("user.created", json!({}));
    until("the second event comes", async || endpoint.posted().len() == 1).await;
}

#[tokio::test]
async fn a_failing_endpoint_is_tried_by_each_providers_schedule() {
    let endpoint = HttpService::start().await;
    // Only Atelio takes 202 for a failure.
    endpoint.replies(|_| Reply::Status(202));
    let basiq =
        failing(Basiq::start(), json!({ "url": endpoint.url("/"), "subscribedEvents": ["user.created"] }));
    let event = basiq.emit("user.created", json!({}));
    until("it is delivered", async || basiq.is_settled()).await;
    assert_eq!(basiq.events()[0].deliveries[0].state, State::Delivered);
    endpoint.replies(|_| Reply::Status(503));
    basiq.emit("user.created", json!({}));
    let eight = [0, 5, 300, 1800, 7200, 18_000, 36_000, 36_000];
    let first = endpoint.posted().len();
    assert_attempts(&basiq, 1, &eight).await;
    let ids: Vec<Posted> = endpoint.posted().split_off(first);
    assert!(ids.iter().all(|posted| posted.header("webhook-id") == ids[0].header("webhook-id")), "{ids:?}");
    assert_ne!(event, ids[0].event()["eventId"]);
    assert_eq!(basiq.subscriptions()[0]["status"], "disabled");
    basiq.emit("user.created", json!({}));
    assert_eq!(basiq.deliveries().len(), 2, "a disabled webhook gets nothing");

    let anduin = failing(Anduin::start(), json!({ "url": endpoint.url("/") }));
    anduin.emit("new_investor_added", json!({}));
    assert_attempts(&anduin, 0, &eight).await;
    assert_eq!(anduin.subscriptions()[0]["isActive"], false);

    let iof = failing(Iof::start(), json!({ "url": endpoint.url("/"), "events": ["kyc.*"] }));
    iof.emit("kyc.verified", json!({}));
    assert_attempts(&iof, 0, &[0, 60, 300, 1800, 7200]).await;
    assert_eq!(iof.subscriptions()[0]["status"], "active");

    endpoint.replies(|_| Reply::Status(202));
    let atelio = failing(Atelio::start(), json!({ "url": endpoint.url("/"), "events": ["card*"] }));
    atelio.emit("card.created", json!({}));
    assert_attempts(&atelio, 0, &[0, 45, 180, 720, 2_880, 11_520, 46_080, 184_320]).await;

    endpoint.replies(|_| Reply::Status(503));
    let securitize =
        failing(Securitize::start(), json!({ "payloadUrl": endpoint.url("/"), "domainId": "d" }));
    let id = securitize.subscriptions()[0]["id"].as_str().unwrap().to_owned();
    securitize.emit("domain-investor-kyc-update", json!({ "domainId": "d" }));
    assert_attempts(&securitize, 0, &[0]).await;
    securitize.change(&id, |subscription| subscription["isActive"] = false.into());
    securitize.emit("domain-investor-kyc-update", json!({ "domainId": "d" }));
    assert_eq!((securitize.deliveries().len(), &securitize.subscriptions()[0]["nonce"]), (1, &json!(2)));
}

#[tokio::test]
async fn a_create_with_the_same_idempotency_key_is_answered_again() {
    let (atelio, iof) = (Atelio::start(), Iof::start());
    let body = |events: &str| json!({ "url": "https://h.example.com/", "events": [events] }).to_string();
    let create = |events: &str| {
        let create = Request::post("/api/v0.1/webhooks", body(events)).with("idempotency-key", "key-1");
        keyed(create.with("content-type", "application/json"), &atelio_keys())
    };
    let first = ask(atelio.address(), &create("card*")).await;
    assert_eq!(ask(atelio.address(), &create("card*")).await.body, first.body);
    assert_eq!(ask(atelio.address(), &create("kyc*")).await.status, 409);
    assert_eq!(atelio.subscriptions().len(), 1);
    let expanded = first.json()["webhook_subscription"]["events"].as_array().unwrap().len();
    assert!(expanded > 5 && !first.body.contains('*'), "{first:?}");

    let create = |events: &str| {
        let create = Request::post("/v1/webhooks/endpoints", body(events)).with("x-idempotency-key", "key-1");
        keyed(create.with("content-type", "application/json"), &iof_key())
    };
    let first = ask(iof.address(), &create("kyc.*")).await;
    assert!(first.json()["secret"].is_string(), "{first:?}");
    assert_eq!(ask(iof.address(), &create("kyc.*")).await.body, first.body);
    assert_eq!(ask(iof.address(), &create("contract.*")).await.status, 409);
    iof.forget_keys();
    assert_eq!(ask(iof.address(), &create("kyc.*")).await.status, 201);
    assert_eq!(iof.subscriptions().len(), 2);
}

#[tokio::test]
async fn atelio_signs_both_ways() {
    let (provider, endpoint) = (Atelio::start(), HttpService::start().await);
    endpoint.replies(|_| Reply::Status(201));
    let secret = "whsec_ira5jceuzhxxBxoWckAU0hLFQe79bSMZ";
    provider.add(json!({ "url": endpoint.url("/"), "secret": secret }));
    // The keys in the order of the alphabet.
    provider
        .emit("card.created", json!({ "customer_id": null, "occurred_at": null, "name": "Zoë", "n": 1.5 }));
    until("the event comes", async || endpoint.posted().len() == 1).await;
    let posted = endpoint.posted().pop().unwrap();
    assert_eq!(posted.body, r#"{"event":"card.created","n":1.5,"name":"Zoë"}"#);
    let signature = posted.header("bond-signature");
    let t = &signature["t=".len()..signature.find(',').unwrap()];
    let mac = |text: &str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(format!("{t}.{text}").as_bytes());
        hex::encode(mac.finalize().into_bytes())
    };
    let v1 = mac(r#"{"event": "card.created", "n": 1.5, "name": "Zo\u00eb"}"#);
    assert_eq!(signature, format!("t={t},v1={v1},v2={}", mac(&posted.body)));
}

#[tokio::test]
async fn a_gateway_takes_what_they_send() {
    let (securitize, anduin, atelio) = (Securitize::start(), Anduin::start(), Atelio::start());
    let (basiq, iof) = (Basiq::start(), Iof::start());
    let secret = "whsec_MA4V6bD7rB0Hcm2aw8ghgDeQ5UAak24DwnX0rX6";
    let signed: String = ["atelio", "basiq", "iof"]
        .map(|name| format!("[sources.{name}]\nprovider = \"{name}\"\nsecrets = [\"{secret}\"]\n"))
        .concat();
    let tokened: String = ["anduin", "securitize"]
        .map(|name| format!("[sources.{name}]\nprovider = \"{name}\"\npath_token = \"{TOKEN}\"\n"))
        .concat();
    let home = Home::embedded().with_sources(signed + &tokened);
    let gateway = home.serve().await;
    let url = |name: &str| format!("https://hooks.example.com/hooks/{name}");
    let with_token = |name: &str| format!("{}/{TOKEN}", url(name));
    securitize.add(json!({ "payloadUrl": with_token("securitize"), "domainId": "d" }));
    anduin.add(json!({ "url": with_token("anduin") }));
    atelio.add(json!({ "url": url("atelio"), "events": ["kyc.*"], "secret": secret }));
    basiq.add(json!({ "url": url("basiq"), "subscribedEvents": ["user.created"], "secret": secret }));
    iof.add(json!({ "url": url("iof"), "events": ["contract.*"], "secret": secret }));
    securitize.route("https://hooks.example.com", gateway.edge);
    anduin.route("https://hooks.example.com", gateway.edge);
    atelio.route("https://hooks.example.com", gateway.edge);
    basiq.route("https://hooks.example.com", gateway.edge);
    iof.route("https://hooks.example.com", gateway.edge);

    securitize.emit("domain-investor-kyc-update", json!({ "domainId": "d" }));
    anduin.emit("new_investor_added", json!({}));
    atelio.emit("kyc.verification.success", json!({}));
    let ids = [basiq.emit("user.created", json!({})), iof.emit("contract.created", json!({}))];
    until("all are delivered", async || {
        let signed = [atelio.deliveries(), basiq.deliveries(), iof.deliveries()].concat();
        let all = [signed, securitize.deliveries(), anduin.deliveries()].concat();
        all.len() == 5 && all.iter().all(|delivery| delivery.state == State::Delivered)
    })
    .await;
    let events = home.events();
    assert_eq!(events.len(), 5, "{events:?}");
    for id in ids {
        assert!(events.iter().any(|event| event["id"] == *id), "{id} in {events:?}");
    }
}

/// With this subscription, and so fast that its whole schedule is over soon.
fn failing<P: Simulated>(provider: Simulator<P>, subscription: Value) -> Simulator<P> {
    provider.add(subscription);
    provider.at_speed(FACTOR)
}

/// Waits until the delivery has failed; fails unless its attempts came by this schedule, in seconds.
async fn assert_attempts<P: Simulated>(provider: &Simulator<P>, number: usize, schedule: &[u64]) {
    until("the last attempt fails", async || provider.is_settled()).await;
    let delivery = provider.deliveries().remove(number);
    assert_eq!((delivery.state, delivery.attempts.len()), (State::Failed, schedule.len()), "{delivery:?}");
    for (pair, seconds) in delivery.attempts.windows(2).zip(&schedule[1..]) {
        let between = Duration::try_from(pair[1].at.duration_since(pair[0].at)).unwrap();
        let expected = Duration::from_secs(*seconds) / FACTOR;
        // A busy machine may be late.
        assert!(
            between >= expected && between < expected + Duration::from_secs(5),
            "{between:?} for {seconds} s"
        );
    }
}

async fn ask(address: SocketAddr, request: &Request) -> Answer {
    Client::connect(address).await.unwrap().deliver(request).await.unwrap()
}

/// The value of an Authorization header.
async fn basiq_token(provider: &Basiq) -> String {
    let form = Request::post("/token", "scope=SERVER_ACCESS")
        .with("authorization", format!("Basic {}", Basiq::KEY))
        .with("content-type", "application/x-www-form-urlencoded")
        .with("basiq-version", "3.0");
    let given = ask(provider.address(), &form).await.json();
    format!("Bearer {}", given["access_token"].as_str().unwrap())
}

fn keyed(request: Request, keys: &[(&str, String)]) -> Request {
    keys.iter().fold(request, |request, (name, key)| request.with(name, key))
}

fn securitize_key() -> Vec<(&'static str, String)> {
    vec![("authorization", format!("apiKey {}", Securitize::KEY))]
}

fn atelio_keys() -> Vec<(&'static str, String)> {
    vec![("identity", Atelio::IDENTITY.to_owned()), ("authorization", Atelio::AUTHORIZATION.to_owned())]
}

fn iof_key() -> Vec<(&'static str, String)> {
    vec![("authorization", format!("Bearer {}", Iof::KEY))]
}

/// Basiq's schedule takes half a second.
const FACTOR: u32 = 200_000;
