//! Providers that the config defines, over a running gateway: handshakes, forms, lists of events, and their types in the metrics.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use support::*;

#[test]
fn a_get_with_the_token_is_answered_with_its_parameter_as_text() {
    let home = Home::new(&source(
        "[providers.acme.handshake]\nquery = \"hub.challenge\"\ntoken = \"hub.verify_token\"\n",
        "secrets = [\"a-secret-of-some-length\"]\nhandshake_token = \"let me in\"\n",
    ));
    let gateway = home.gateway();
    let ask = |query: &str| gateway.ask(&Request::get(&format!("/hooks/acme{query}")));
    let answer = ask("?hub.mode=subscribe&hub.challenge=%3Cb%3E1+2&hub.verify_token=let+me%20in");
    assert_eq!((answer.status, &*answer.body), (200, "<b>1 2"));
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    let long = format!("?hub.challenge={}&hub.verify_token=let+me+in", "c".repeat(1025));
    for (query, status) in [
        ("", 400),
        ("?hub.verify_token=let+me+in", 400),
        ("?hub.challenge=&hub.verify_token=let+me+in", 400),
        ("?hub.challenge=1&hub.challenge=2&hub.verify_token=let+me+in", 400),
        ("?hub.challenge=%ff&hub.verify_token=let+me+in", 400),
        (&long, 400),
        ("?hub.challenge=1", 403),
        ("?hub.challenge=1&hub.verify_token=", 403),
        ("?hub.challenge=1&hub.verify_token=let+me+i", 403),
        ("?hub.challenge=1&hub.verify_token=let+me+in&hub.verify_token=let+me+in", 403),
    ] {
        let answer = ask(query);
        assert_eq!(answer.status, status, "{query}: {answer:?}");
        let record = gateway.record_of(&answer);
        assert_eq!(record["reason"], "handshake_invalid", "{query}: {record}");
        assert!(
            !record.to_string().contains("let me in") && !record.to_string().contains("let+me"),
            "{record}"
        );
    }
    let longest = "c".repeat(1024);
    assert_eq!(ask(&format!("?hub.challenge={longest}&hub.verify_token=let+me+in")).body, longest);
    let metrics = gateway.metrics();
    assert_eq!(
        (metrics.requests("acme", "handshake"), metrics.rejects("acme", "handshake_invalid")),
        (2.0, 10.0)
    );
    let (code, log) = gateway.stop();
    assert!(code == 0 && !log.contains("let me in"));
    assert_eq!(home.events().len(), 0);
}

#[test]
fn a_post_with_the_parameter_is_answered_without_a_signature_and_others_are_deliveries() {
    let home = Home::new(&source(
        "[providers.acme.handshake]\nmethod = \"POST\"\nquery = \"validationToken\"\n",
        "secrets = [\"a-secret-of-some-length\"]\n",
    ));
    let gateway = home.gateway();
    let answer = gateway.ask(&Request::post("/hooks/acme?validationToken=a%20b", ""));
    assert_eq!(
        (answer.status, &*answer.body, answer.header("content-type")),
        (200, "a b", Some("text/plain"))
    );
    let answer = gateway.ask(&Request::get("/hooks/acme?validationToken=a"));
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    let body = r#"{"type":"paid","id":"evt-1"}"#;
    assert_eq!(gateway.ask(&Request::post("/hooks/acme", body)).status, 401, "it is not signed");
    gateway.ask(&signed("/hooks/acme", body)).assert_accepted("evt-1");
    // What is to be returned is bounded here too.
    let answer = gateway.ask(&signed(&format!("/hooks/acme?validationToken={}", "c".repeat(1025)), body));
    assert_eq!(answer.status, 400, "{answer:?}");
    gateway.stop();
    assert_eq!(ids(&home.events()), ["evt-1"]);
}

#[test]
fn a_verified_body_that_says_so_is_answered_and_not_forwarded() {
    let home = Home::new(&source(
        "[providers.acme.handshake]\nwhen = { \"/type\" = \"check\", \"/count\" = 1 }\n\
         answer = { plainToken = \"/payload/plainToken\", encryptedToken = \"hmac:/payload/plainToken\", version = 2 }\n",
        "secrets = [\"another-secret-of-some-length\", \"a-secret-of-some-length\"]\n",
    ));
    let gateway = home.gateway();
    let check = r#"{"type":"check","count":1,"id":"evt-1","payload":{"plainToken":"pt-1"}}"#;
    let answer = gateway.ask(&signed("/hooks/acme", check));
    let expected = json!({ "plainToken": "pt-1", "encryptedToken": mac("pt-1"), "version": 2 });
    assert_eq!(
        (answer.status, answer.json(), answer.header("content-type")),
        (200, expected, Some("application/json"))
    );
    // Unsigned, it is refused as any delivery is.
    let answer = gateway.ask(&Request::post("/hooks/acme", check));
    assert_eq!(answer.status, 401, "{answer:?}");
    let answer = gateway.ask(&signed("/hooks/acme", r#"{"type":"check","count":1,"payload":{}}"#));
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(gateway.record_of(&answer)["reason"], "handshake_invalid");
    // All must hold, by value and type.
    for (other, id) in [
        (r#"{"type":"check","count":"1","id":"evt-2"}"#, "evt-2"),
        (r#"{"type":"check","count":2,"id":"evt-3"}"#, "evt-3"),
        (r#"{"type":"checked","count":1,"id":"evt-4"}"#, "evt-4"),
        (r#"{"count":1,"id":"evt-5"}"#, "evt-5"),
    ] {
        gateway.ask(&signed("/hooks/acme", other)).assert_accepted(id);
    }
    assert_eq!(gateway.metrics().requests("acme", "handshake"), 1.0);
    gateway.stop();
    assert_eq!(ids(&home.events()), ["evt-2", "evt-3", "evt-4", "evt-5"]);
}

#[test]
fn without_an_answer_the_status_is_sent_alone() {
    for (more, status) in [("", 204), ("status = 202\n", 202)] {
        let handshake = format!("[providers.acme.handshake]\nwhen = {{ \"/type\" = \"ping\" }}\n{more}");
        let home = Home::new(&source(&handshake, "secrets = [\"a-secret-of-some-length\"]\n"));
        let gateway = home.gateway();
        let answer = gateway.ask(&signed("/hooks/acme", r#"{"type":"ping"}"#));
        assert_eq!((answer.status, &*answer.body), (status, ""));
        gateway.stop();
        assert_eq!(home.events().len(), 0);
    }
}

#[test]
fn a_handshake_that_a_like_removes_is_a_delivery() {
    let config = "[providers.mine]\nlike = \"slack\"\nhandshake = false\n\
                  [sources.acme]\nprovider = \"mine\"\nsecrets = [\"a-secret-of-some-length\"]\n";
    let home = Home::new(config);
    let gateway = home.gateway();
    let (at, body) = (now().to_string(), r#"{"type":"url_verification","challenge":"c"}"#);
    let request = Request::post("/hooks/acme", body)
        .with("x-slack-request-timestamp", &at)
        .with("x-slack-signature", format!("v0={}", mac(&format!("v0:{at}:{body}"))));
    assert_eq!(gateway.ask(&request).json()["status"], "accepted");
    gateway.stop();
    assert_eq!(home.events().len(), 1);
}

#[test]
fn a_form_becomes_an_object_of_its_fields() {
    let form = "payload=%7B%22type%22%3A%22paid%22%2C%22id%22%3A%22evt-1%22%7D&tag=a&tag=b+c&empty";
    let definition = "[providers.acme]\nbody = \"auto\"\n[providers.acme.signature]\nalgorithm = \"hmac-sha256\"\nheader = \"x-s\"\n\
         [providers.acme.event]\ntype = [\"/type\", \"form:payload/type\"]\nid = \"form:payload/id\"\n";
    let home = Home::new(&format!(
        "{definition}[sources.acme]\nprovider = \"acme\"\nsecrets = [\"a-secret-of-some-length\"]\n"
    ));
    let gateway = home.gateway();
    let sent = |body: &str, kind: &str| signed("/hooks/acme", body).with("content-type", kind);
    gateway.ask(&sent(form, "application/x-www-form-urlencoded; charset=utf-8")).assert_accepted("evt-1");
    gateway.ask(&sent(form, "Application/X-WWW-Form-Urlencoded")).assert_duplicate("evt-1");
    // By its type, this is JSON; and what no text is, is unreadable.
    assert_eq!(gateway.ask(&sent(r#"{"type":"plain"}"#, "application/json")).json()["status"], "accepted");
    assert_eq!(
        gateway.ask(&sent("type=%ff", "application/x-www-form-urlencoded")).json()["status"],
        "accepted"
    );
    assert_eq!(gateway.metrics().sum("hookgate_unreadable_total", &[("source", "acme")]), 1.0);
    gateway.stop();
    let events = home.events();
    let kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["acme.paid", "acme.plain", "unmapped.unreadable"]);
    let fields = json!({ "payload": r#"{"type":"paid","id":"evt-1"}"#, "tag": ["a", "b c"], "empty": "" });
    assert_eq!(events[0]["data"]["payload"], fields);
    assert_eq!(decoded(&events[0]), form.as_bytes());
    assert_eq!((&events[2]["data"]["payload"], decoded(&events[2])), (&Value::Null, b"type=%ff".to_vec()));
}

#[test]
fn a_list_of_events_is_taken_apart_and_each_is_deduped() {
    let home = Home::new(&list("/entry/*/changes"));
    let gateway = home.gateway();
    let ask = |body: &str| gateway.ask(&signed("/hooks/acme", body));
    let taken = |answer: Answer| {
        assert_eq!(answer.status, 200, "{answer:?}");
        let said = answer.json();
        (said["status"].clone(), said["ids"].clone())
    };
    let one = r#"{"shop":"s","entry":[{"changes":[{"id":"a","type":"one"},{"id":"b", "type":"two"}]},{"changes":[]},{"changes":[{"id":"c"}]}]}"#;
    assert_eq!(taken(ask(one)), (json!("accepted"), json!(["a", "b", "c"])));
    // Another delivery with two of them: the rest is new.
    let other =
        r#"{"shop":"s","entry":[{"changes":[{"id":"c"},{"id":"d","type":"one"},{"id":"a","type":"one"}]}]}"#;
    assert_eq!(taken(ask(other)), (json!("accepted"), json!(["c", "d", "a"])));
    assert_eq!(taken(ask(one)), (json!("duplicate"), json!(["a", "b", "c"])));
    assert_eq!(ask(r#"{"entry":[{"changes":[]}]}"#).json(), json!({ "status": "ignored" }));
    // Without a list the delivery is one event, and an element that is no object is one too.
    let answer = ask(r#"{"entry":{}}"#).json();
    assert!(answer["status"] == "accepted" && answer["id"].is_string(), "{answer}");
    assert_eq!(taken(ask(r#"{"entry":[{"changes":[5,{"id":"e"}]}]}"#)).0, "accepted");
    let metrics = gateway.metrics();
    let counted = |kind| metrics.sum("hookgate_events_total", &[("source", "acme"), ("type", kind)]);
    assert_eq!((counted("acme.one"), counted("acme.two")), (2.0, 1.0));
    gateway.stop();
    let events = home.events();
    let found = |id: &str| events.iter().filter(|event| event["id"] == id).count();
    assert_eq!(["a", "b", "c", "d", "e"].map(found), [1; 5], "{events:#?}");
    assert_eq!(events.len(), 7);
    let b = home.raw_events().into_iter().find(|event| event.contains("\"id\":\"b\"")).unwrap();
    assert!(b.contains("\"payload\":{\"id\":\"b\", \"type\":\"two\"}"), "byte for byte: {b}");
    let tenants: Vec<_> = events.iter().filter(|event| event["data"]["tenant"]["id"] == "s").collect();
    assert_eq!(tenants.len(), 4, "the body's own values count for each");
    let unreadable = events.iter().filter(|event| event["type"] == "unmapped.unreadable").count();
    assert_eq!(unreadable, 2);
}

#[test]
fn a_list_of_a_thousand_events_is_taken_and_a_longer_one_is_one_event() {
    let home = Home::new(&list(""));
    let gateway = home.gateway();
    let of = |count: u32| {
        let events: Vec<_> =
            (0..count).map(|id| json!({ "id": format!("e-{count}-{id}"), "type": "one" })).collect();
        json!(events).to_string()
    };
    let answer = gateway.ask(&signed("/hooks/acme", &of(1000))).json();
    let ids: Vec<_> = (0..1000).map(|id| format!("e-1000-{id}")).collect();
    assert_eq!((&answer["status"], &answer["ids"]), (&json!("accepted"), &json!(ids)));
    let answer = gateway.ask(&signed("/hooks/acme", &of(1001))).json();
    assert!(answer["id"].is_string() && answer["ids"].is_null(), "{answer}");
    gateway.stop();
    assert_eq!(home.events().len(), 1001);
}

#[test]
fn a_provider_without_a_table_of_types_counts_its_own_up_to_a_hundred() {
    let home = Home::new(&source("", "secrets = [\"a-secret-of-some-length\"]\n"));
    let gateway = home.gateway();
    let deliver = |kind: String, id: u32| {
        let body = json!({ "type": kind, "id": format!("evt-{id}") }).to_string();
        gateway.ask(&signed("/hooks/acme", &body)).assert_accepted(&format!("evt-{id}"));
    };
    deliver("Order Paid/x".to_owned(), 0);
    let counted =
        |kind: &str| gateway.metrics().sum("hookgate_events_total", &[("source", "acme"), ("type", kind)]);
    assert_eq!(counted("acme.order_paid_x"), 1.0);
    for number in 1..100 {
        deliver(format!("kind{number}"), number);
    }
    assert_eq!((counted("acme.kind99"), counted("other")), (1.0, 0.0));
    deliver("kind100".to_owned(), 100);
    deliver("kind101".to_owned(), 101);
    deliver("kind1".to_owned(), 102);
    assert_eq!((counted("acme.kind100"), counted("other"), counted("acme.kind1")), (0.0, 2.0, 2.0));
    gateway.stop();
    // The event itself has its own type.
    assert!(home.events().iter().any(|event| event["type"] == "acme.kind101"));
}

#[test]
fn with_a_table_of_types_what_it_lacks_counts_as_unmapped() {
    let home = Home::new(&source(
        "[providers.acme.event.types]\npaid = \"invoice.paid\"\n",
        "secrets = [\"a-secret-of-some-length\"]\n",
    ));
    let gateway = home.gateway();
    for (id, kind) in [("evt-1", "paid"), ("evt-2", "Paid"), ("evt-3", "sent")] {
        gateway
            .ask(&signed("/hooks/acme", &json!({ "type": kind, "id": id }).to_string()))
            .assert_accepted(id);
    }
    let metrics = gateway.metrics();
    let counted = |kind| metrics.sum("hookgate_events_total", &[("source", "acme"), ("type", kind)]);
    assert_eq!((counted("invoice.paid"), counted("unmapped")), (1.0, 2.0));
    gateway.stop();
    let kinds: Vec<_> = home.events().iter().map(|event| event["type"].clone()).collect();
    assert_eq!(kinds, ["invoice.paid", "unmapped.paid", "unmapped.sent"]);
}

/// A provider that signs its bodies, with more of its definition, and a source of it.
fn source(definition: &str, source: &str) -> String {
    format!(
        "[providers.acme.signature]\nalgorithm = \"hmac-sha256\"\nheader = \"x-s\"\n\
         [providers.acme.event]\ntype = \"/type\"\nid = \"/id\"\n{definition}\n[sources.acme]\nprovider = \"acme\"\n{source}"
    )
}

/// The same, with events in lists.
fn list(each: &str) -> String {
    format!(
        "[providers.acme.signature]\nalgorithm = \"hmac-sha256\"\nheader = \"x-s\"\n\
         [providers.acme.event]\ntype = \"/type\"\nid = \"/id\"\neach = \"{each}\"\n\
         tenant = {{ kind = \"shop\", id = \"body:/shop\" }}\n\
         [sources.acme]\nprovider = \"acme\"\nsecrets = [\"a-secret-of-some-length\"]\n"
    )
}

fn signed(path: &str, body: &str) -> Request {
    Request::post(path, body).with("x-s", mac(body))
}

fn mac(text: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(b"a-secret-of-some-length").unwrap().chain_update(text);
    hex::encode(mac.finalize().into_bytes())
}

/// The bytes of an event's body.
fn decoded(event: &Value) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD
        .decode(event["data"]["payload_base64"].as_str().unwrap())
        .unwrap()
}
