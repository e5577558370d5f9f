//! The edge as a provider, a stranger and an operator see it: the binary, asked over the wire. Every row of the contract's two
//! tables of answers, the deadlines, the limits, the reject log and the metrics.

#![allow(clippy::disallowed_methods)]

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use support::blocking::{Bystander, Connection, until};
use support::*;

// -- the tables

#[test]
fn what_is_not_refused_is_answered_200() {
    let home = Home::new(&sources());
    let gateway = home.gateway();
    let mut connection = gateway.connect();
    let mut ask = |request: &Request| {
        let answer = connection.ask(request);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    };
    let answer = ask(&basiq("evt-1"));
    assert_eq!(answer.json(), json!({ "status": "accepted", "id": "evt-1" }));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(ask(&basiq("evt-1")).json(), json!({ "status": "duplicate", "id": "evt-1" }));
    let check = json!({ "eventType": "health-check", "externalId": "1" }).to_string();
    let answer = ask(&Request::post(&format!("/hooks/securitize/{TOKEN}"), check));
    assert_eq!(answer.json(), json!({ "status": "ignored" }));
    let key = "k".repeat(512);
    let answer = ask(&Request::get("/hooks/anduin").with(CHALLENGE, &key));
    assert_eq!((answer.header(CHALLENGE), &*answer.body), (Some(key.as_str()), ""));
    // The target as a client of a proxy sends it; a version without Host; an encoding that is none.
    ask(&basiq("evt-2").to("http://elsewhere.test/hooks/basiq?a=b"));
    ask(&basiq("evt-3").with("content-encoding", "identity"));
    for word in [
        "",
        "utf-8",
        "UTF8",
        "none",
        "aws-chunked",
        "identity, none",
        "x",
        "x-",
        "7bit",
        "gzipped",
        "not-gzip",
        "x-x-gzip",
    ] {
        let answer = ask(&basiq("evt-3").with("content-encoding", word).with("content-encoding", "identity"));
        assert_eq!(answer.json()["status"], "duplicate", "{word}");
    }
    let answer = gateway.connect().ask_as(&basiq("evt-4").without("host"), "HTTP/1.0");
    assert_eq!(answer.json(), json!({ "status": "accepted", "id": "evt-4" }));

    let metrics = gateway.metrics();
    let counted = |source| {
        ["accepted", "duplicate", "ignored", "handshake", "rejected"].map(|o| metrics.requests(source, o))
    };
    assert_eq!(counted("basiq"), [4.0, 13.0, 0.0, 0.0, 0.0]);
    assert_eq!(counted("securitize"), [0.0, 0.0, 1.0, 0.0, 0.0]);
    assert_eq!(counted("anduin"), [0.0, 0.0, 0.0, 1.0, 0.0]);
    assert_eq!(metrics.answered(), 19.0);
    assert_eq!(metrics.refused(), 0.0);
    assert_eq!(metrics.sum("hookgate_events_total", &[("source", "basiq"), ("type", "user.created")]), 4.0);
    assert_eq!(metrics.sum("hookgate_secret_matches_total", &[("source", "basiq"), ("slot", "0")]), 17.0);
    assert_eq!(gateway.stop().0, 0);
    let ids: Vec<Value> = home.events().iter().map(|event| event["id"].clone()).collect();
    assert_eq!(ids, ["evt-1", "evt-2", "evt-3", "evt-4"]);
    assert_eq!(home.audit(), "");
}

#[test]
fn every_refusal_is_answered_recorded_and_counted_as_the_contract_says() {
    let config = "edge.max_body = \"512B\"\n".to_owned()
        + &sources()
        + &format!(
            "[sources.fenced]\nprovider = \"basiq\"\nsecrets = [\"{STANDARD_SECRET}\"]\nallow_ips = [\"203.0.113.0/24\"]\n\
             [sources.listed]\nprovider = \"securitize\"\npath_token = \"{TOKEN}\"\nsubscriptions = [\"sub-1\"]\n"
        )
        + OPEN;
    let home = Home::new(&config);
    let gateway = home.gateway();
    let accepted = gateway.ask(&securitize("/hooks/listed", "sub-1", 1));
    assert_eq!(accepted.status, 200, "{accepted:?}");
    let cases = refusals();
    let expected = cases.len();
    for Case { source, reason, status, request } in cases {
        let before = gateway.metrics();
        let answer = gateway.ask(&request);
        assert_eq!(answer.status, status, "{reason}: {request:?}\n{answer:?}");
        if request.method == "HEAD" {
            assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        } else {
            let record = problem(&gateway, &answer, status);
            let said = ["reason", "status", "source", "method"].map(|key| record[key].clone());
            assert_eq!(
                said,
                [json!(reason), json!(status), json!(source), json!(request.method)],
                "{request:?}\n{record}"
            );
        }
        let allow = match (status, source) {
            (405, "anduin") => Some("GET, POST"),
            (405, _) => Some("POST"),
            _ => None,
        };
        assert_eq!(answer.header("allow"), allow, "{request:?}");
        assert_eq!(answer.header("retry-after"), None, "{request:?}");
        let after = gateway.metrics();
        assert_eq!(
            after.rejects(source, reason) - before.rejects(source, reason),
            1.0,
            "{reason}: {request:?}"
        );
        assert_eq!(
            after.requests(source, "rejected") - before.requests(source, "rejected"),
            1.0,
            "{request:?}"
        );
        assert_eq!(
            (after.refused() - before.refused(), after.answered() - before.answered()),
            (1.0, 1.0),
            "{request:?}"
        );
    }
    assert_eq!(gateway.metrics().refused(), expected as f64);
    gateway.stop();
    assert_eq!(home.audit().lines().count(), expected);
    assert_eq!(home.events().len(), 1);
}

struct Case {
    source: &'static str,
    reason: &'static str,
    status: u16,
    request: Request,
}

fn refusals() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut case = |source, reason, status, request| cases.push(Case { source, reason, status, request });

    for target in [
        "/",
        "*",
        "/hooks",
        "/hooks/",
        "/hooks/basiq/",
        "/hooks/basiq/x",
        "/hooks//basiq",
        "/hooks/b%61siq",
        "/Hooks/basiq",
    ] {
        case("unknown", "unknown_path", 404, basiq("evt").to(target));
    }
    case("unknown", "unknown_path", 404, Request::get("/metrics"));
    case("unknown", "unknown_path", 404, Request::new("DELETE", "/nothing"));
    case("unknown", "unknown_path", 404, Request::new("HEAD", "/nothing"));
    for target in ["/hooks/securitize", "/hooks/securitize/", "/hooks/securitize/wrong"] {
        case("securitize", "path_token_mismatch", 404, Request::post(target, "{}"));
        case("securitize", "path_token_mismatch", 404, Request::new("PUT", target));
    }
    let near = &TOKEN[..TOKEN.len() - 1];
    case("securitize", "path_token_mismatch", 404, Request::post(&format!("/hooks/securitize/{near}"), "{}"));
    case(
        "securitize",
        "path_token_mismatch",
        404,
        Request::post(&format!("/hooks/securitize/{TOKEN}x"), "{}"),
    );

    for method in ["HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "PURGE", "post"] {
        case("basiq", "method_not_allowed", 405, basiq("evt").method(method));
        case("anduin", "method_not_allowed", 405, Request::new(method, "/hooks/anduin"));
    }
    case("basiq", "method_not_allowed", 405, Request::get("/hooks/basiq").with(CHALLENGE, "key"));

    case("fenced", "client_not_allowed", 403, basiq("evt").to("/hooks/fenced"));
    // Believed only of a trusted proxy, and there is none.
    case(
        "fenced",
        "client_not_allowed",
        403,
        basiq("evt").to("/hooks/fenced").with("x-forwarded-for", "203.0.113.7"),
    );

    for encoding in [
        "gzip",
        "br",
        "identity, gzip",
        "Deflate",
        "ZSTD",
        "compress",
        "x-gzip",
        "X-Compress",
        "utf-8 ,\tbr\t",
        "aws-chunked,gzip",
    ] {
        case("basiq", "unsupported_encoding", 415, basiq("evt").with("content-encoding", encoding));
    }
    let twice = basiq("evt").with("content-encoding", "utf-8").with("content-encoding", "gzip");
    case("basiq", "unsupported_encoding", 415, twice);

    case("basiq", "body_too_large", 413, Request::post("/hooks/basiq", "x".repeat(513)));
    let chunked = Request::post("/hooks/basiq", format!("201\r\n{}\r\n0\r\n\r\n", "x".repeat(0x201)));
    case("basiq", "body_too_large", 413, chunked.with("transfer-encoding", "chunked"));
    let many = Request::post("/hooks/basiq", "80\r\n".to_owned() + &"x".repeat(0x80) + "\r\n");
    let many = Request { body: many.body.repeat(5), ..many };
    case("basiq", "body_too_large", 413, many.with("transfer-encoding", "chunked"));

    let challenge = Request::get("/hooks/anduin");
    case("anduin", "handshake_invalid", 400, challenge.clone());
    case("anduin", "handshake_invalid", 400, challenge.clone().with(CHALLENGE, ""));
    case("anduin", "handshake_invalid", 400, challenge.clone().with(CHALLENGE, "k".repeat(513)));
    case("anduin", "handshake_invalid", 400, challenge.clone().with(CHALLENGE, "one").with(CHALLENGE, "two"));
    case("anduin", "handshake_invalid", 400, challenge.with(CHALLENGE, "clé"));

    for header in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        case("basiq", "signature_missing", 401, basiq("evt").without(header));
        case("basiq", "signature_missing", 401, basiq("evt").instead(header, ""));
        if header != "webhook-signature" {
            case("basiq", "signature_malformed", 401, basiq("evt").with(header, "1"));
        }
        case("basiq", "signature_malformed", 401, basiq("evt").instead(header, "\u{e9}"));
    }
    let (bonded, other) = (|| bond("/hooks/atelio", "{}", now()), || iof("/hooks/iof", "{}", now()));
    case("atelio", "signature_missing", 401, bonded().without("bond-signature"));
    case("iof", "signature_missing", 401, other().without("x-iof-signature"));
    case(
        "iof",
        "signature_missing",
        401,
        other().instead("x-iof-signature", format!("sha256={}", "0".repeat(64))),
    );
    // Another provider's signature, however good, is none.
    case("iof", "signature_missing", 401, bonded().to("/hooks/iof"));
    for text in ["v1,", "v1,AAAA", "v2,AAAA", "nonsense", "v1a,H+UZhk4QDof6z8hHd2kZRclLRM3eHnziJR7ocw8vVW8="]
    {
        case("basiq", "signature_malformed", 401, basiq("evt").instead("webhook-signature", text));
    }
    for stamp in ["soon", "1.5", "-1", "+1"] {
        case("basiq", "signature_malformed", 401, basiq("evt").instead("webhook-timestamp", stamp));
    }
    for text in [
        "t=1",
        "v2=00",
        "t=1,v3=00",
        &format!("v2={}", "0".repeat(64)),
        &format!("t=1,t=1,v2={}", "0".repeat(64)),
    ] {
        case("atelio", "signature_malformed", 401, bonded().instead("bond-signature", text));
    }
    case("iof", "signature_malformed", 401, other().instead("x-iof-signature", "t=1,v1=00"));

    // One bit of anything that is signed; another path's secret; a signature as old as it is wrong.
    let body = basiq_body("evt");
    let spoilt = |spoil: fn(Request) -> Request| spoil(basiq("evt"));
    case(
        "basiq",
        "signature_mismatch",
        401,
        Request { body: body.replace("evt", "evu").into(), ..basiq("evt") },
    );
    case("basiq", "signature_mismatch", 401, Request { body: (body + "\n").into(), ..basiq("evt") });
    case("basiq", "signature_mismatch", 401, spoilt(|it| it.instead("webhook-id", "msg_another")));
    case(
        "basiq",
        "signature_mismatch",
        401,
        spoilt(|it| it.instead("webhook-timestamp", (now() + 1).to_string())),
    );
    case("basiq", "signature_mismatch", 401, spoilt(|it| it.instead("webhook-timestamp", "1")));
    case("basiq", "signature_mismatch", 401, spoilt(|it| it.instead("webhook-timestamp", "9".repeat(30))));
    let zeros = "0".repeat(64);
    case(
        "atelio",
        "signature_mismatch",
        401,
        bonded().instead("bond-signature", format!("t={},v2={zeros}", now())),
    );
    case(
        "atelio",
        "signature_mismatch",
        401,
        bonded().instead("bond-signature", format!("t={},v1={zeros}", now())),
    );
    case(
        "iof",
        "signature_mismatch",
        401,
        other().instead("x-iof-signature", format!("t={},v1={zeros}", now())),
    );
    case("iof", "signature_mismatch", 401, Request { body: b"{ }".to_vec(), ..other() });

    for at in [now() - 400, now() + 400, 0] {
        case("basiq", "timestamp_outside_tolerance", 401, standard("/hooks/basiq", &basiq_body("evt"), at));
        case("atelio", "timestamp_outside_tolerance", 401, bond("/hooks/atelio", "{}", at));
        case("iof", "timestamp_outside_tolerance", 401, iof("/hooks/iof", "{}", at));
    }

    case("listed", "subscription_not_allowed", 403, securitize("/hooks/listed", "sub-2", 1));
    case("listed", "subscription_not_allowed", 403, securitize("/hooks/listed", "", 1));
    let unnamed = format!("/hooks/listed/{TOKEN}");
    case(
        "listed",
        "subscription_not_allowed",
        403,
        Request::post(&unnamed, r#"{"eventType":"health-check"}"#),
    );

    let deep = "{\"a\":".repeat(129) + "1" + &"}".repeat(129);
    for body in [
        "",
        "x",
        "{",
        "{}x",
        "{'a':1}",
        "{\"a\":1,}",
        "\u{feff}{}",
        r#"{"a":"\ud800"}"#,
        &deep,
        "{\"a\":\"\u{1}\"}",
    ] {
        case("open", "payload_not_json", 400, Request::post("/hooks/open", &body[..body.len().min(512)]));
    }
    case("open", "payload_not_json", 400, Request::post("/hooks/open", b"{\"a\":\"\xff\"}".to_vec()));
    for body in ["[]", "[{}]", "1", "\"x\"", "null", "true"] {
        case("open", "payload_invalid", 400, Request::post("/hooks/open", body));
    }
    cases
}

/// Holds a refusal's answer against RFC 9457 and the contract; gives its record.
fn problem(gateway: &Gateway, answer: &Answer, status: u16) -> Value {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
    let said = answer.json();
    let keys: BTreeSet<&str> = said.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["reject", "status", "title", "type"].into(), "{said}");
    assert_eq!(said["status"], status);
    assert!(!said["title"].as_str().unwrap().is_empty());
    let kind = said["type"].as_str().unwrap();
    let record = gateway.record_of(answer);
    let reason = record["reason"].as_str().unwrap();
    // A wrong token must not be told from an unknown path.
    let told = if reason == "path_token_mismatch" { "unknown_path" } else { reason };
    assert_eq!(kind, format!("urn:hookgate:problem:{told}"));
    assert_eq!(record["status"], status);
    assert!(record["id"].as_str().unwrap().starts_with("rej_"));
    record
}

#[test]
fn of_several_reasons_the_first_in_order_answers() {
    let limited = "rate_limit = { per_second = 1, burst = 1 }\n";
    let config = "edge.max_body = \"256B\"\n".to_owned()
        + &sources()
        + &format!(
            "[sources.fenced]\nprovider = \"basiq\"\nsecrets = [\"{STANDARD_SECRET}\"]\nallow_ips = [\"203.0.113.0/24\"]\n{limited}\
             [sources.limited]\nprovider = \"basiq\"\nsecrets = [\"{STANDARD_SECRET}\"]\n{limited}"
        )
        + OPEN;
    let home = Home::new(&config);
    let gateway = home.gateway();
    let large = "x".repeat(257);
    let worst =
        || Request::new("PUT", "/hooks/nothing").with("content-encoding", "gzip").with("webhook-id", "msg");
    let worst = || Request { body: large.clone().into_bytes(), ..worst() };
    let reason = |request: &Request| {
        let answer = gateway.ask(request);
        gateway.record_of(&answer)["reason"].as_str().unwrap().to_owned()
    };
    assert_eq!(reason(&worst()), "unknown_path");
    assert_eq!(reason(&worst().to("/hooks/fenced")), "method_not_allowed");
    for _ in 0..3 {
        assert_eq!(reason(&worst().to("/hooks/fenced").method("POST")), "client_not_allowed");
    }
    // A method that is refused takes nothing from the rate.
    for _ in 0..3 {
        assert_eq!(reason(&worst().to("/hooks/limited")), "method_not_allowed");
    }
    // Under any load some two of these fall into one second.
    until("the rate is exceeded", || reason(&worst().to("/hooks/limited").method("POST")) == "rate_limited");
    assert_eq!(reason(&worst().to("/hooks/basiq").method("POST")), "unsupported_encoding");
    let large = worst().to("/hooks/basiq").method("POST").without("content-encoding");
    assert_eq!(reason(&large), "body_too_large");
    assert_eq!(reason(&Request { body: b"x".to_vec(), ..large }), "signature_missing");
    let stale = standard("/hooks/basiq", "[", now() - 1000);
    assert_eq!(reason(&stale.clone().instead("webhook-signature", "v1,AAAA")), "signature_malformed");
    assert_eq!(reason(&Request { body: b"x".to_vec(), ..stale.clone() }), "signature_mismatch");
    assert_eq!(reason(&stale), "timestamp_outside_tolerance");
    let open = Request { body: b"[".to_vec(), ..worst().to("/hooks/open").method("POST") };
    assert_eq!(reason(&open), "unsupported_encoding");
    assert_eq!(reason(&open.clone().without("content-encoding")), "payload_not_json");
}

#[test]
fn a_verified_body_that_cannot_be_read_is_forwarded_as_its_bytes() {
    let home = Home::new(
        &(sources()
            + &format!(
                "[sources.listed]\nprovider = \"securitize\"\npath_token = \"{TOKEN}\"\nsubscriptions = [\"sub-1\"]\n\
                 [sources.near]\nprovider = \"securitize\"\nallow_ips = [\"127.0.0.0/8\"]\n"
            )),
    );
    let gateway = home.gateway();
    let tokened = |name: &str, body: &[u8]| Request::post(&format!("/hooks/{name}/{TOKEN}"), body.to_vec());
    let mut expected = Vec::new();
    for (at, body) in
        [&b""[..], b"x", b"[]", b"null", b"\xef\xbb\xbf{}", b"{\"a\":\"\xff\"}", br#"{"a":"\ud800"}"#]
            .iter()
            .enumerate()
    {
        let text = String::from_utf8(body.to_vec()).unwrap_or_default();
        let mut requests = vec![
            ("securitize", tokened("securitize", body)),
            ("listed", tokened("listed", body)),
            ("near", Request::post("/hooks/near", body.to_vec())),
        ];
        // The helper signs text.
        if text.as_bytes() == *body {
            requests.push(("basiq", standard("/hooks/basiq", &text, now())));
            requests.push(("atelio", bond("/hooks/atelio", &text, now())));
            requests.push(("iof", iof("/hooks/iof", &text, now())));
        }
        // Its identity is the message id, which the helper makes one and the same.
        if at == 0 {
            requests.push(("anduin", standard("/hooks/anduin", &text, now())));
        }
        for (source, request) in requests {
            let (first, again) = (gateway.ask(&request), gateway.ask(&request));
            assert_eq!(
                (first.status, first.json()["status"].clone()),
                (200, json!("accepted")),
                "{source}: {body:?}"
            );
            assert_eq!(
                (again.status, again.json()["status"].clone()),
                (200, json!("duplicate")),
                "{source}: {body:?}"
            );
            assert_eq!(first.json()["id"], again.json()["id"]);
            expected.push((source, first.json()["id"].clone(), STANDARD.encode(body)));
        }
    }
    // Another body under Anduin's message id is a duplicate that is recorded, as for one that can be read.
    let other = gateway.ask(&standard("/hooks/anduin", "[1]", now()));
    assert_eq!(other.json(), json!({ "status": "duplicate", "id": "msg_p5jXN8AQM9LWM0D4loKWxJek" }));
    let metrics = gateway.metrics();
    for source in ["securitize", "listed", "near", "basiq", "atelio", "iof", "anduin"] {
        let count = expected.iter().filter(|(of, ..)| *of == source).count() as f64;
        assert_eq!(metrics.sum("hookgate_unreadable_total", &[("source", source)]), count, "{source}");
        assert_eq!(metrics.sum("hookgate_events_total", &[("source", source), ("type", "unmapped")]), count);
        assert_eq!(metrics.sum("hookgate_schema_drift_total", &[("source", source)]), 0.0);
    }
    assert_eq!(
        (metrics.refused(), metrics.sum("hookgate_conflicts_total", &[("source", "anduin")])),
        (0.0, 1.0)
    );
    gateway.stop();
    let events = home.events();
    assert_eq!(events.len(), expected.len());
    for (event, (source, id, bytes)) in events.iter().zip(expected) {
        assert_eq!((&event["source"], &event["id"]), (&json!(format!("/hooks/{source}")), &id));
        assert_eq!((&event["type"], &event["partitionkey"]), (&json!("unmapped.unreadable"), &id));
        let data = json!({
            "event": null, "tenant": null, "subject": null, "related": [], "status": null, "links": {}, "payload": null,
            "payload_base64": bytes,
        });
        assert_eq!(event["data"], data);
        assert_eq!(event.get("subject"), None);
    }
    assert_eq!(home.audit().lines().count(), 1, "the conflict");
}

#[test]
fn an_unknown_path_and_a_wrong_token_cannot_be_told_apart() {
    let home = Home::new(&sources());
    let gateway = home.gateway();
    let plain = |target: &str, method: &str, more: &[(&str, &str)]| {
        let mut request = Request { body: b"{}".to_vec(), ..Request::new(method, target) };
        for (name, value) in more {
            request = request.with(name, value);
        }
        let mut answer = gateway.ask(&request);
        let text = if method == "HEAD" { String::new() } else { answer.body };
        let id = text.split("rej_").nth(1).map_or("", |rest| &rest[..20]).to_owned();
        answer.headers.retain(|(name, _)| name != "date");
        (answer.status, answer.headers, text.replace(&id, "ID"))
    };
    for method in ["POST", "GET", "HEAD", "PUT", "OPTIONS"] {
        for more in [
            &[][..],
            &[("content-encoding", "gzip")],
            &[("expect", "100-continue"), ("content-length", "99999999")],
        ] {
            let unknown = plain("/hooks/nothing/guess", method, more);
            for target in
                ["/hooks/securitize/guess", "/hooks/securitize", "/hooks/securitize/", "/hooks/nothing"]
            {
                assert_eq!(plain(target, method, more), unknown, "{method} {target}");
            }
        }
    }
}

#[test]
fn over_its_rate_a_source_is_told_when_to_come_again() {
    let home = Home::new(&(sources() + "rate_limit = { per_second = 1, burst = 2 }\n"));
    let gateway = home.gateway();
    let mut connection = gateway.connect();
    let mut refused = Vec::new();
    let mut sent = 0.0;
    while refused.len() < 40 {
        let answer = connection.ask(&securitize("/hooks/securitize", "sub-1", refused.len() as u32));
        sent += 1.0;
        if answer.status != 200 {
            let record = problem(&gateway, &answer, 429);
            assert_eq!(
                (&record["reason"], &record["source"]),
                (&json!("rate_limited"), &json!("securitize"))
            );
            refused.push(retry_after(&answer));
        }
    }
    assert!(refused.iter().collect::<BTreeSet<_>>().len() > 1, "no jitter: {refused:?}");
    // The other sources are not held to it.
    assert_eq!(gateway.ask(&basiq("evt")).status, 200);
    let metrics = gateway.metrics();
    assert_eq!(metrics.rejects("securitize", "rate_limited"), refused.len() as f64);
    assert_eq!(metrics.answered(), sent + 1.0);
}

fn retry_after(answer: &Answer) -> u32 {
    let seconds = answer.header("retry-after").unwrap_or_else(|| panic!("{answer:?}")).parse().unwrap();
    assert!((1..=30).contains(&seconds), "{seconds}");
    seconds
}

#[test]
fn without_a_queue_the_answer_is_503_and_says_when_to_come_again() {
    let config = "dedupe.store = \"redis\"\nqueue.kind = \"redis\"\nredis.url = \"redis://127.0.0.1:1\"\n\
        spool.enabled = false\n"
        .to_owned()
        + &sources();
    let home = Home::new(&config);
    let gateway = home.gateway();
    let answer = gateway.ask(&basiq("evt"));
    let record = problem(&gateway, &answer, 503);
    assert_eq!((&record["reason"], &record["source"]), (&json!("queue_unavailable"), &json!("basiq")));
    retry_after(&answer);
    assert_eq!(gateway.metrics().rejects("basiq", "queue_unavailable"), 1.0);
    assert_eq!(gateway.ask_admin("/readyz").status, 503);
    // What needs no queue is answered all the same.
    assert_eq!(gateway.ask(&Request::get("/hooks/anduin").with(CHALLENGE, "key")).status, 200);
    assert_eq!(gateway.ask(&basiq("evt").without("webhook-id")).status, 401);
}

// -- bodies

#[test]
fn a_client_in_the_middle_of_ten_megabytes_reads_its_413() {
    let home = Home::new(&sources());
    let gateway = home.gateway();
    let bystander = Bystander::of(&gateway);
    let ten_megabytes = vec![b'x'; 10 << 20];
    // As a simple client does it: everything is written before anything is read.
    let ask = |request: Request| {
        let mut connection = gateway.connect();
        let bytes = request.bytes();
        let (first, second) = bytes.split_at(bytes.len() / 2);
        connection.send(first);
        bystander.is_served_while(|| true);
        connection.send(second);
        connection.answer()
    };
    for _ in 0..4 {
        let answer = ask(Request::post("/hooks/basiq", ten_megabytes.clone()));
        assert_eq!(problem(&gateway, &answer, 413)["reason"], "body_too_large");

        let mut connection = gateway.connect();
        let request = Request::post("/hooks/basiq", "").with("transfer-encoding", "chunked");
        connection.send(request.bytes());
        for number in 0..160 {
            connection.send([b"10000\r\n", &ten_megabytes[..0x10000], b"\r\n"].concat());
            if number == 80 {
                bystander.is_served_while(|| true);
            }
        }
        connection.send("0\r\n\r\n");
        let answer = connection.answer();
        assert_eq!(problem(&gateway, &answer, 413)["reason"], "body_too_large");
    }
    // Other refusals are as readable, and a body is not read where nobody wants it.
    let answer = ask(Request::post("/hooks/nothing", ten_megabytes.clone()));
    assert_eq!(problem(&gateway, &answer, 404)["reason"], "unknown_path");
    let answer = ask(Request::post("/hooks/basiq", ten_megabytes).with("content-encoding", "gzip"));
    assert_eq!(problem(&gateway, &answer, 415)["reason"], "unsupported_encoding");
    let delivered = bystander.stop() as f64;
    let metrics = gateway.metrics();
    assert_eq!(metrics.rejects("basiq", "body_too_large"), 8.0);
    assert_eq!(metrics.sum("hookgate_request_body_bytes_count", &[]), delivered);
    assert_eq!((metrics.answered(), metrics.refused()), (10.0 + delivered, 10.0));
}

#[test]
fn a_client_that_asks_first_is_told_before_it_sends() {
    let home = Home::new(&("edge.max_body = \"1KiB\"\n".to_owned() + &sources()));
    let gateway = home.gateway();
    let bystander = Bystander::of(&gateway);
    let asking = |request: Request| Request { body: Vec::new(), ..request }.with("expect", "100-continue");

    let mut connection = gateway.connect();
    connection.send(asking(Request::post("/hooks/basiq", "")).with("content-length", "1025").bytes());
    let answer = connection.answer();
    assert_eq!(problem(&gateway, &answer, 413)["reason"], "body_too_large");
    assert_eq!(answer.header("connection"), Some("close"));
    // The body that was announced may or may not follow: nothing after it can be read as a request.
    connection.ends();

    let mut connection = gateway.connect();
    connection.send(asking(basiq("evt").to("/hooks/nothing")).with("content-length", "10").bytes());
    assert_eq!(problem(&gateway, &connection.answer(), 404)["reason"], "unknown_path");
    connection.ends();

    let mut connection = gateway.connect();
    let (whole, body) = (basiq("evt"), basiq("evt").body);
    connection.send(asking(whole).with("content-length", body.len().to_string()).bytes());
    let go_on = connection.head();
    assert_eq!((go_on.status, go_on.headers.len()), (100, 0));
    bystander.is_served_while(|| connection.is_silent());
    connection.send(body);
    assert_eq!(connection.answer().json()["status"], "accepted");
    let delivered = bystander.stop();
    assert_eq!(home.events().len(), 1 + delivered);
}

#[test]
fn a_body_that_does_not_come_to_its_end_is_answered_408() {
    let home = Home::new(&("edge.body_timeout = \"2s\"\n".to_owned() + &sources()));
    let gateway = home.gateway();
    let bystander = Bystander::of(&gateway);
    // Nothing of it; half of it; a chunk and no more; drop by drop for ever.
    let length = |sent: &str| Request::post("/hooks/basiq", sent).with("content-length", "100");
    let chunked = Request::post("/hooks/basiq", "5\r\nhello\r\n").with("transfer-encoding", "chunked");
    let kinds = [length(""), length("{\"half\":"), chunked.clone()];
    let begun = |request: &Request| {
        let mut connection = gateway.connect();
        connection.send(request.bytes());
        connection
    };
    let mut halves: Vec<Connection> = kinds.iter().cycle().take(50).map(begun).collect();
    let mut slow = begun(&chunked);
    bystander.is_served_while(|| halves.iter_mut().chain([&mut slow]).all(Connection::is_silent));
    // Every drop in time by itself.
    until("the drops are cut off", || !slow.is_silent() || !slow.try_send("1\r\nx\r\n"));
    assert_eq!(slow.answer().status, 408);
    for mut connection in halves {
        let answer = connection.answer();
        let record = problem(&gateway, &answer, 408);
        assert_eq!((&record["reason"], &record["source"]), (&json!("body_timeout"), &json!("basiq")));
        assert_eq!(
            (record.get("body_sha256"), record.get("body_bytes")),
            (None, None),
            "it was not read whole"
        );
        connection.ends();
    }
    let delivered = bystander.stop();
    let metrics = gateway.metrics();
    assert_eq!(metrics.rejects("basiq", "body_timeout"), 51.0);
    assert_eq!((metrics.answered(), metrics.refused()), (51.0 + delivered as f64, 51.0));
    assert_eq!(home.events().len(), delivered);
}

#[test]
fn all_of_a_request_may_take_less_time_than_its_body_alone() {
    let home = Home::new(&("edge.request_timeout = \"1s\"\n".to_owned() + &sources()));
    let gateway = home.gateway();
    let mut connection = gateway.connect();
    connection.send(Request::post("/hooks/basiq", "half").with("content-length", "8").bytes());
    let answer = connection.answer();
    let record = problem(&gateway, &answer, 503);
    assert_eq!((&record["reason"], &record["source"]), (&json!("overloaded"), &json!("basiq")));
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    assert_eq!(home.events().len(), 0);
}

// -- what is no HTTP

#[test]
fn what_is_no_http_is_refused_and_the_connection_ends() {
    let home = Home::new(&sources());
    let gateway = home.gateway();
    let post = |more: &str| format!("POST /hooks/basiq HTTP/1.1\r\nhost: x\r\n{more}\r\n");
    let cases: [Vec<u8>; 15] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS client\r\n\r\n".to_vec(),
        b"\0\0\0\0\r\n\r\n".to_vec(),
        b"hello\r\n\r\n".to_vec(),
        b"POST /hooks/basiq\r\n\r\n".to_vec(),
        b"POST /hooks/basiq HTTP/3.0\r\nhost: x\r\n\r\n".to_vec(),
        b"POST /hooks basiq HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        post("a: b\r\n folded\r\n").into(),
        post("a : b\r\n").into(),
        post("no colon\r\n").into(),
        post("a: b\0c\r\n").into(),
        post("content-length: 2\r\ncontent-length: 3\r\n").into(),
        post("content-length: two\r\n").into(),
        post("content-length: -1\r\n").into(),
        post("transfer-encoding: gzip\r\n").into(),
        post("transfer-encoding: chunked, gzip\r\n").into(),
    ];
    for (number, bytes) in cases.iter().enumerate() {
        let shown = String::from_utf8_lossy(bytes);
        let mut connection = gateway.connect();
        connection.send(bytes);
        problem(&gateway, &connection.answer(), 400);
        connection.ends();
        let count = number as f64 + 1.0;
        until(&format!("counted: {shown}"), || {
            gateway.metrics().rejects("unknown", "http_malformed") == count
        });
        until("recorded", || gateway.records().len() == number + 1);
        let record = &gateway.records()[number];
        let said = ["reason", "status", "source", "provider", "client"].map(|key| record[key].clone());
        assert_eq!(
            said,
            [json!("http_malformed"), json!(400), json!("unknown"), json!("unknown"), json!("127.0.0.1")]
        );
    }
    let metrics = gateway.metrics();
    assert_eq!((metrics.answered(), metrics.refused()), (15.0, 15.0));
    assert_eq!(metrics.requests("unknown", "rejected"), 15.0);
}

#[test]
fn a_broken_chunk_is_nobodys_request_and_ends_the_connection() {
    let home = Home::new(&sources());
    let gateway = home.gateway();
    let broken = [
        "zz\r\nhello\r\n",
        "\r\n",
        "5\r\nhello world\r\n0\r\n\r\n",
        "-5\r\n",
        "ffffffffffffffffff\r\n",
        "5\r\nhelloX\r\n",
    ];
    for (number, body) in broken.iter().enumerate() {
        let mut connection = gateway.connect();
        let request = basiq("evt").with("transfer-encoding", "chunked");
        connection.send(Request { body: body.as_bytes().to_vec(), ..request }.bytes());
        let answer = connection.answer();
        let record = problem(&gateway, &answer, 400);
        assert_eq!(
            (&record["reason"], &record["source"]),
            (&json!("http_malformed"), &json!("unknown")),
            "{body}"
        );
        assert_eq!(answer.header("connection"), Some("close"));
        connection.ends();
        let metrics = gateway.metrics();
        assert_eq!(metrics.rejects("unknown", "http_malformed"), number as f64 + 1.0);
        assert_eq!((metrics.answered(), metrics.requests("basiq", "rejected")), (number as f64 + 1.0, 0.0));
    }
}

#[test]
fn a_request_of_two_lengths_smuggles_nothing() {
    let home = Home::new(&sources());
    let gateway = home.gateway();
    let smuggled = basiq("smuggled").bytes();
    for order in [["content-length", "transfer-encoding"], ["transfer-encoding", "content-length"]] {
        let body = [b"0\r\n\r\n", &smuggled[..]].concat();
        let mut request = Request::post("/hooks/basiq", body);
        for name in order {
            let length = request.body.len().to_string();
            request = request.with(name, if name == "content-length" { length.as_str() } else { "chunked" });
        }
        let mut connection = gateway.connect();
        connection.send(request.bytes());
        // RFC 9112, 6.3: it may be refused, and nothing is read after it.
        problem(&gateway, &connection.answer(), 400);
        connection.ends();
    }
    gateway.stop();
    assert!(home.events().is_empty());
}

#[test]
fn a_head_over_the_limits_is_answered_431_and_the_connection_ends() {
    let home = Home::new(&sources());
    let gateway = home.gateway();
    let long = basiq("evt").with("x-long", "x".repeat(70_000));
    let many = (0..200).fold(basiq("evt"), |request, number| request.with(&format!("x-{number}"), "y"));
    let path = basiq("evt").to(&format!("/{}", "p".repeat(70_000)));
    for (number, request) in [long, many, path].iter().enumerate() {
        let mut connection = gateway.connect();
        connection.send(request.bytes());
        problem(&gateway, &connection.answer(), 431);
        connection.ends();
        until("counted and recorded", || {
            let metrics = gateway.metrics();
            let counted = metrics.rejects("unknown", "headers_too_large") == number as f64 + 1.0;
            counted && metrics.answered() == number as f64 + 1.0 && gateway.records().len() == number + 1
        });
        let record = gateway.records().remove(number);
        let said = ["reason", "status", "source"].map(|key| record[key].clone());
        assert_eq!(said, [json!("headers_too_large"), json!(431), json!("unknown")]);
    }
    let fits = basiq("evt").with("x-long", "x".repeat(30_000));
    assert_eq!(gateway.ask(&fits).status, 200);
}

#[test]
fn a_client_that_hangs_up_counts_nothing() {
    let home = Home::new(&sources());
    let gateway = home.gateway();
    let whole = basiq("evt").bytes();
    let head = whole.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let chunked = Request::post("/hooks/basiq", "5\r\nhel").with("transfer-encoding", "chunked").bytes();
    let mut parts: Vec<&[u8]> = vec![&chunked, b"PRI * HTTP/2.0\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"];
    parts.extend([0, 1, 20, head - 1, head, head + 5].map(|end| &whole[..end]));
    for part in parts {
        let mut gone = gateway.connect();
        gone.send(part);
        drop(gone);
        // With its sending side alone closed it is no less gone in the middle of a request.
        let mut half = gateway.connect();
        half.send(part);
        half.finish();
        drop(half.rest());
    }
    until("every connection is gone", || gateway.metrics().sum("hookgate_connections", &[]) == 0.0);
    assert_eq!(gateway.ask(&basiq("evt")).status, 200);
    let metrics = gateway.metrics();
    assert_eq!((metrics.answered(), metrics.refused()), (1.0, 0.0));
    assert_eq!(metrics.sum("hookgate_requests_in_flight", &[]), 0.0);
    gateway.stop();
    assert_eq!(home.audit(), "");
    assert_eq!(home.events().len(), 1);
}

// -- connections

#[test]
fn over_the_limit_a_connection_is_turned_away_and_the_others_go_on() {
    let home = Home::new(&("edge.max_connections = 2\n".to_owned() + &sources()));
    let gateway = home.gateway();
    let (mut first, mut second) = (gateway.connect(), gateway.connect());
    assert_eq!(first.ask(&basiq("evt-1")).status, 200);
    assert_eq!(second.ask(&basiq("evt-2")).status, 200);
    for _ in 0..3 {
        let mut third = gateway.connect();
        // It may be answered before it asks.
        third.try_send(basiq("evt-3").bytes());
        let answer = third.answer();
        let record = problem(&gateway, &answer, 503);
        assert_eq!((&record["reason"], &record["source"]), (&json!("overloaded"), &json!("unknown")));
        retry_after(&answer);
        assert_eq!(answer.header("connection"), Some("close"));
        third.ends();
    }
    assert_eq!(first.ask(&basiq("evt-4")).status, 200);
    assert_eq!(second.ask(&basiq("evt-5")).status, 200);
    let metrics = gateway.metrics();
    assert_eq!(
        (metrics.rejects("unknown", "overloaded"), metrics.requests("unknown", "rejected")),
        (3.0, 3.0)
    );
    assert_eq!(metrics.answered(), 7.0);
}

#[test]
fn connections_that_were_turned_away_take_no_place() {
    let home = Home::new(&("edge.max_connections = 1\n".to_owned() + &sources()));
    let gateway = home.gateway();
    let mut only = gateway.connect();
    assert_eq!(only.ask(&basiq("evt-1")).status, 200);
    // They come all the time and do not let go.
    let mut turned_away = VecDeque::new();
    let mut come = || {
        let mut next = gateway.connect();
        next.try_send(basiq("evt-2").bytes());
        let status = next.answer().status;
        turned_away.push_back(next);
        if turned_away.len() > 100 {
            turned_away.pop_front();
        }
        status
    };
    for _ in 0..3 {
        assert_eq!(come(), 503);
    }
    drop(only);
    until("the place is given again", || come() == 200);
}

#[test]
fn a_connection_that_does_not_ask_is_closed() {
    let times = "edge.header_timeout = \"2s\"\nedge.idle_timeout = \"2s\"\n";
    let home = Home::new(&(times.to_owned() + &sources()));
    let gateway = home.gateway();
    let bystander = Bystander::of(&gateway);
    let begun = |bytes: &[u8]| {
        let mut connection = gateway.connect();
        connection.send(bytes);
        connection
    };
    let kinds = [&b""[..], b"P", b"PRI * HTTP/2.0\r\n", b"\r\n\r\n"];
    let mut silent: Vec<Connection> = kinds.into_iter().cycle().take(48).map(begun).collect();
    // Half of a head can be answered. Drop by drop is no head either.
    let mut half = begun(b"POST /hooks/basiq HTTP/1.1\r\nhost: x\r\n");
    let mut slow = begun(b"POST /hooks/basiq HTTP/1.1\r\na: ");
    // Between two requests.
    let mut kept = gateway.connect();
    assert_eq!(kept.ask(&basiq("evt-1")).status, 200);
    assert_eq!(kept.ask(&basiq("evt-2")).status, 200);
    bystander.is_served_while(|| {
        silent.iter_mut().chain([&mut half, &mut slow, &mut kept]).all(Connection::is_silent)
    });
    until("the slow head is cut off", || !slow.is_silent() || !slow.try_send("b"));
    assert_eq!(slow.answer().status, 408);
    assert_eq!(problem(&gateway, &half.answer(), 408)["reason"], "header_timeout");
    silent.into_iter().chain([half, slow, kept]).for_each(Connection::ends);
    let delivered = bystander.stop() as f64;
    until("every connection is gone", || gateway.metrics().sum("hookgate_connections", &[]) == 0.0);
    let metrics = gateway.metrics();
    assert_eq!((metrics.answered(), metrics.refused()), (52.0 + delivered, 50.0));
    assert_eq!(metrics.rejects("unknown", "header_timeout"), 50.0);
}

#[test]
fn an_http2_connection_that_does_not_ask_is_closed() {
    let home = Home::new(&("edge.header_timeout = \"2s\"\n".to_owned() + &sources()));
    let gateway = home.gateway();
    let bystander = Bystander::of(&gateway);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice();
    let settings = [preface, b"\0\0\0\x04\0\0\0\0\0"].concat();
    // A head whose end does not come: HEADERS on stream 1 without END_HEADERS.
    let half = [&settings[..], b"\0\0\x01\x01\0\0\0\0\x01\x83"].concat();
    let begun = hookgate::base::clock::instant();
    let kinds = [preface, &settings, &half].into_iter().cycle().take(51);
    let mut open: Vec<Connection> = kinds
        .map(|bytes| {
            let mut connection = gateway.connect();
            connection.send(bytes);
            connection
        })
        .collect();
    bystander.is_served_while(|| open.iter_mut().all(Connection::is_open));
    for connection in open {
        // Settings, then the farewell; that this client acknowledges nothing does not keep it open.
        connection.rest();
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "closed after {:?}", begun.elapsed());
    let delivered = bystander.stop() as f64;
    // Only the half head was an attempt at something.
    until("it is counted", || gateway.metrics().rejects("unknown", "header_timeout") == 17.0);
    assert_eq!(gateway.metrics().answered(), 17.0 + delivered);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let home = Home::new(&sources());
    let gateway = home.gateway();
    let mut connection = gateway.connect();
    let all = [
        basiq("evt-1"),
        basiq("evt-1"),
        basiq("evt-2").without("webhook-id"),
        basiq("evt-3").to("/nothing"),
        basiq("evt-4"),
    ];
    connection.send(all.iter().flat_map(Request::bytes).collect::<Vec<u8>>());
    let answers: Vec<Answer> = all.iter().map(|_| connection.answer()).collect();
    assert_eq!(answers.iter().map(|answer| answer.status).collect::<Vec<_>>(), [200, 200, 401, 404, 200]);
    assert_eq!(answers[1].json()["status"], "duplicate");
    assert_eq!(answers[4].json()["id"], "evt-4");
    // Whoever has sent all there is may close that side and wait.
    connection.send(basiq("evt-5").bytes());
    connection.finish();
    assert_eq!(connection.answer().json()["id"], "evt-5");
    connection.ends();
}

#[test]
fn http_1_0_needs_no_host_and_is_closed_after_its_answer() {
    let home = Home::new(&sources());
    let gateway = home.gateway();
    let mut connection = gateway.connect();
    let answer = connection.ask_as(&basiq("evt-1").without("host"), "HTTP/1.0");
    assert_eq!(answer.json()["status"], "accepted");
    connection.ends();
    let mut connection = gateway.connect();
    assert_eq!(connection.ask_as(&basiq("evt-2").to("/nothing"), "HTTP/1.0").status, 404);
    connection.ends();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_with_prior_knowledge_is_answered_alike() {
    let home = Home::new(&("edge.max_body = \"64KiB\"\n".to_owned() + &sources() + OPEN));
    let gateway = home.gateway();
    let stream = tokio::net::TcpStream::connect(gateway.edge).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::task::spawn(connection);
    let ask = async |request: Request| {
        let asked = request.to_hyper(&format!("http://{}", gateway.edge));
        let (head, body) = sender.clone().send_request(asked).await.unwrap().into_parts();
        assert_eq!(head.version, hyper::Version::HTTP_2);
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let headers =
            head.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
        Answer { status: head.status.as_u16(), headers: headers.collect(), body }
    };
    assert_eq!(ask(basiq("evt-1")).await.json(), json!({ "status": "accepted", "id": "evt-1" }));
    assert_eq!(ask(basiq("evt-1")).await.json(), json!({ "status": "duplicate", "id": "evt-1" }));
    let answer = ask(Request::get("/hooks/anduin").with(CHALLENGE, "key")).await;
    assert_eq!((answer.status, answer.header(CHALLENGE)), (200, Some("key")));
    let answers = [
        (404, "unknown_path", ask(basiq("evt").to("/nothing")).await),
        (404, "path_token_mismatch", ask(basiq("evt").to("/hooks/securitize/no")).await),
        (405, "method_not_allowed", ask(basiq("evt").method("PUT")).await),
        (413, "body_too_large", ask(Request::post("/hooks/basiq", vec![b'x'; 10 << 20])).await),
        (401, "signature_missing", ask(basiq("evt").without("webhook-signature")).await),
        (400, "payload_invalid", ask(Request::post("/hooks/open", "[]")).await),
    ];
    for (status, reason, answer) in &answers {
        assert_eq!(problem(&gateway, answer, *status)["reason"], *reason);
    }
    // As much of a head as over HTTP/1.1, and no more.
    let filled = |count| (0..count).fold(Request::get("/nothing"), |of, n| of.with(&format!("x-{n}"), "1"));
    for (status, asked) in [
        (404, filled(100)),
        (431, filled(101)),
        (404, Request::get(&format!("/{}", "x".repeat((16 << 10) - 1)))),
        (431, Request::get(&format!("/{}?{}", "x".repeat(8 << 10), "y".repeat(8 << 10)))),
    ] {
        let reason = if status == 431 { "headers_too_large" } else { "unknown_path" };
        assert_eq!(problem(&gateway, &ask(asked).await, status)["reason"], reason);
    }
    let signature = "0123456789abcdef".repeat(4);
    let answer = ask(Request::get(&format!("http://{signature}/nothing"))).await;
    let record = problem(&gateway, &answer, 404).to_string();
    assert!(record.contains("\"host\":\"sha256:") && !record.contains(&signature), "{record}");
    assert_eq!(ask(securitize("/hooks/securitize", "sub-1", 1)).await.status, 200);
    // Many at once on one connection.
    let many = (0..100).map(|number| ask(basiq(&format!("many-{number}"))));
    for answer in futures_in_order(many).await {
        assert_eq!(answer.json()["status"], "accepted");
    }
    assert_eq!(gateway.metrics().answered(), 115.0);
    connection.abort();
    let (code, log) = gateway.stop();
    assert_eq!(code, 0);
    for secret in [TOKEN, "msg_p5jXN8AQM9LWM0D4loKWxJek", "eventTypeId", "v1,"] {
        assert_eq!(log.lines().find(|line| line.contains(secret)), None, "{secret} is in the log");
    }
}

/// Runs them at once on this task.
async fn futures_in_order<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> = all.map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|cx| {
        for (one, done) in running.iter_mut().filter(|(_, done)| done.is_none()) {
            if let std::task::Poll::Ready(output) = one.as_mut().poll(cx) {
                *done = Some(output);
            }
        }
        if running.iter().all(|(_, done)| done.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    running.into_iter().filter_map(|(_, done)| done).collect()
}

// -- what is kept of a refusal

#[test]
fn a_record_keeps_the_listed_headers_and_no_others() {
    let home = Home::new(&sources());
    let gateway = home.gateway();
    let kept = [
        "content-encoding",
        "content-length",
        "content-type",
        "host",
        "user-agent",
        "webhook-id",
        "webhook-signature",
        "webhook-timestamp",
        "bond-signature",
        "x-forwarded-for",
        "x-iof-signature",
        "x-iof-timestamp",
    ];
    let dropped = [
        "authorization",
        "cookie",
        "proxy-authorization",
        "x-api-key",
        "referer",
        "accept",
        "forwarded",
        "x-real-ip",
        "x-securitize-signature",
        "from",
        "origin",
        "traceparent",
        CHALLENGE,
        "via",
        "x-iof-event-id",
    ];
    let mut request = Request::post("/hooks/nothing", "body");
    for name in kept.iter().chain(&dropped).filter(|name| **name != "content-length") {
        request = request.with(name, format!("value-of-{name}"));
    }
    let answer = gateway.ask(&request.with("content-length", "4"));
    let record = gateway.record_of(&answer);
    let headers = record["headers"].as_object().unwrap();
    let names: BTreeSet<&str> = headers.keys().map(String::as_str).collect();
    assert_eq!(names, kept.into_iter().collect());
    for (name, value) in headers {
        let value = value.as_str().unwrap();
        match name.as_str() {
            "content-length" => assert_eq!(value, "4"),
            name if name.ends_with("-signature") => {
                let fingerprint = value.strip_prefix("sha256:").unwrap();
                assert!((8..=32).contains(&fingerprint.len()), "{value}");
                assert!(fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit()), "{value}");
            }
            name => assert_eq!(value, format!("value-of-{name}")),
        }
    }
}

#[test]
fn headers_sent_twice_or_not_in_ascii_are_recorded_and_break_nothing() {
    let home = Home::new(&sources());
    let gateway = home.gateway();
    let request = Request::post("/hooks/nothing", "")
        .with("user-agent", "one")
        .with("user-agent", "two")
        .with("x-forwarded-for", "203.0.113.7")
        .with("X-Forwarded-For", "198.51.100.1")
        .with("content-type", b"text/\xe9\xff".as_slice())
        .with("webhook-id", "caf\u{e9}")
        .with("webhook-signature", b"\xff\xfe".as_slice())
        .with("webhook-signature", "v1,AAAA");
    let record = gateway.record_of(&gateway.ask(&request));
    let headers = &record["headers"];
    assert_eq!(headers["user-agent"], "one, two");
    assert_eq!(headers["x-forwarded-for"], "203.0.113.7, 198.51.100.1");
    assert_eq!(headers["content-type"], "text/\u{fffd}\u{fffd}");
    assert_eq!(headers["webhook-id"], "café");
    assert!(headers["webhook-signature"].as_str().unwrap().starts_with("sha256:"));
    // Hundreds of them, and long ones, are not for a stranger to put on our disk.
    let flood = (0..90)
        .fold(Request::post("/hooks/nothing", ""), |request, _| request.with("user-agent", "x".repeat(500)));
    let record = gateway.record_of(&gateway.ask(&flood));
    assert!(record.to_string().len() < 5000, "{record}");
    gateway.stop();
    assert_eq!(home.run(&["audit", "verify"]).code, 0);
}

#[test]
fn a_path_token_is_nowhere_to_be_read() {
    let home = Home::new(&sources());
    let gateway = home.gateway();
    let encoded: String = TOKEN.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let twice = encoded.replace('%', "%25");
    let partly = format!("%{:02x}{}", TOKEN.as_bytes()[0], &TOKEN[1..]);
    let post = |target: String| Request::post(&target, "{}");
    let cases = [
        post(format!("/hooks/securitize/{TOKEN}")).with("content-encoding", "gzip"),
        post(format!("/hooks/securitize/{TOKEN}?{TOKEN}={TOKEN}")).method("PUT"),
        post(format!("/hooks/securitize/{TOKEN}/more")),
        post(format!("/hooks/securitize/{TOKEN}x")),
        post(format!("/hooks/securitize/{encoded}")),
        post(format!("/hooks/securitize/{partly}")),
        post(format!("/elsewhere/{TOKEN}")),
        post(format!("/elsewhere/{encoded}")),
        post(format!("/elsewhere/{twice}")),
        post(format!("/{partly}/elsewhere")),
        post(format!("/{TOKEN}")),
        post(format!("/nothing?token={TOKEN}")),
        post(format!("http://{TOKEN}/nothing")),
        post(format!("/{}{TOKEN}", "p".repeat(500))),
        post("/nothing".to_owned()).with("user-agent", format!("agent {TOKEN} {encoded}")),
        post("/nothing".to_owned()).with("user-agent", TOKEN.to_owned() + " " + TOKEN),
        post("/nothing".to_owned()).with("host", TOKEN),
        post("/nothing".to_owned()).with("x-forwarded-for", &partly),
        post("/nothing".to_owned()).with("content-type", TOKEN),
        post("/nothing".to_owned())
            .with("webhook-id", TOKEN)
            .with("webhook-timestamp", TOKEN)
            .with("x-iof-timestamp", TOKEN),
        post("/nothing".to_owned()).with("webhook-signature", TOKEN),
        post("/nothing".to_owned()).with("content-encoding", TOKEN),
        post("/hooks/basiq".to_owned()).with("webhook-id", TOKEN),
        post("/nothing".to_owned()).method(TOKEN),
        // Where the record is cut the token must not stick out in part.
        post("/nothing".to_owned()).with("user-agent", format!("{}{TOKEN}", "x".repeat(240))),
        post("/nothing".to_owned()).with("user-agent", format!("{}{encoded}", "x".repeat(200))),
    ];
    for request in &cases {
        gateway.record_of(&gateway.ask(request));
    }
    let accepted = gateway.ask(&securitize("/hooks/securitize", "sub-1", 1));
    assert_eq!(accepted.status, 200);
    let metrics = gateway.ask_admin("/metrics").body;
    let (code, log) = gateway.stop();
    assert_eq!(code, 0);
    let audit = home.audit();
    assert_eq!(audit.lines().count(), cases.len());
    let events = home.run(&["events", "tail", "--json"]).out;
    for (what, text) in [("reject log", audit), ("log", log), ("metrics", metrics), ("events", events)] {
        let text = text.to_lowercase();
        assert!(!text.is_empty(), "{what}");
        let (once, twice) = (encoded[..30].to_lowercase(), twice[..50].to_lowercase());
        for part in [&TOKEN[..10], &TOKEN[10..], &once, &twice] {
            let line = text.lines().find(|line| line.contains(part));
            assert_eq!(line, None, "the token {TOKEN} is in the {what}");
        }
    }
}

#[test]
fn of_a_query_a_body_a_secret_and_a_signature_nothing_is_kept() {
    let home = Home::new(&(sources() + OPEN));
    let gateway = home.gateway();
    let marked = |request: Request| request.to("/hooks/basiq?in-the-query=QUERYMARK");
    let signed = |body: &str| marked(standard("/hooks/basiq", body, now()));
    let body = "{\"eventId\":\"BODYMARK\",\"<BODYMARK>\":[\"BODYMARK\"]}";
    let signature = |request: &Request| {
        let header = request.headers.iter().find(|(name, _)| name == "webhook-signature").unwrap();
        String::from_utf8(header.1.clone()).unwrap().trim_start_matches("v1,").to_owned()
    };
    let good = signed(body);
    let cases = [
        signed(&format!("{body}x")).to("/hooks/open?in-the-query=QUERYMARK"),
        signed("[\"BODYMARK\"]").to("/hooks/open?in-the-query=QUERYMARK"),
        signed("\"BODYMARK\"").to("/hooks/open?in-the-query=QUERYMARK"),
        Request { body: body.replace(":", " :").into_bytes(), ..good.clone() },
        marked(standard("/hooks/basiq", body, now() - 1000)),
        good.clone().with("webhook-timestamp", "1"),
        good.clone().without("webhook-id"),
        marked(bond("/", body, now())),
        good.clone().with("content-encoding", "gzip"),
        good.clone().to("/nothing?in-the-query=QUERYMARK"),
        good.clone().to("http://x.test/nothing?in-the-query=QUERYMARK#QUERYMARK"),
        good.clone()
            .with("authorization", format!("Bearer {STANDARD_SECRET}"))
            .with("user-agent", STANDARD_SECRET)
            .method("PUT"),
        good.clone().with("user-agent", format!("k={}", &STANDARD_SECRET[6..])).to("/nothing"),
        // The signature where it does not belong, of a request that is genuine but for one byte.
        Request { body: [body.as_bytes(), b"\n"].concat(), ..good.clone() }
            .instead("webhook-id", signature(&good))
            .with("user-agent", format!("v1,{}", signature(&good)))
            .with("content-type", signature(&good))
            .with("x-forwarded-for", format!("203.0.113.7, {}", signature(&good))),
        // Lists of signatures, each in its header and where it does not belong.
        Request { body: b"{}".to_vec(), ..good.clone() }
            .instead("webhook-signature", format!("v1,{0},v1,{0}", signature(&good)))
            .with("webhook-signature", format!("v1a,{0}\tv1,{0} , v1,{0}", signature(&good)))
            .with("user-agent", format!("v1,{0},v1,{0};v1,{0}\tv1,{0}", signature(&good))),
        bond("/nothing", body, now() - 1000)
            .with("user-agent", bond("/", body, now() - 1000).headers.last().unwrap().1.clone()),
    ];
    let mut answers = Vec::new();
    for request in &cases {
        let answer = gateway.ask(request);
        assert!(answer.status >= 400, "{request:?}: {answer:?}");
        gateway.record_of(&answer);
        answers.push(format!("{answer:?} {}", answer.body));
    }
    assert_eq!(gateway.ask(&good).status, 200);
    let metrics = gateway.ask_admin("/metrics").body;
    let (_, log) = gateway.stop();
    let mut secret = vec![
        "QUERYMARK".to_owned(),
        "BODYMARK".to_owned(),
        STANDARD_SECRET[6..].to_owned(),
        TEXT_SECRET[6..].to_owned(),
    ];
    secret.extend([signature(&good), signature(&cases[0]), signature(&cases[4])]);
    let bond = String::from_utf8(cases[7].headers.last().unwrap().1.clone()).unwrap();
    secret.push(bond.split("v2=").nth(1).unwrap().to_owned());
    let bond = String::from_utf8(cases.last().unwrap().headers.last().unwrap().1.clone()).unwrap();
    secret.push(bond.split("v2=").nth(1).unwrap().to_owned());
    let record = home.audit().lines().rev().nth(1).unwrap().to_owned();
    assert!(record.contains("\"user-agent\":\"v1,sha256:"), "{record}");
    for (what, text) in
        [("reject log", home.audit()), ("log", log), ("metrics", metrics), ("answers", answers.join("\n"))]
    {
        for part in &secret {
            let line = text.lines().find(|line| line.contains(part));
            assert_eq!(line, None, "{part} is in the {what}");
        }
    }
}

#[test]
fn a_body_that_was_read_is_recorded_by_its_hash() {
    use sha2::{Digest, Sha256};
    let home = Home::new(&sources());
    let gateway = home.gateway();
    let body = basiq_body("evt");
    let record = gateway.record_of(&gateway.ask(&basiq("evt").without("webhook-id")));
    assert_eq!(record["body_sha256"], hex::encode(Sha256::digest(&body)));
    assert_eq!(record["body_bytes"], body.len());
    assert_eq!((&record["path"], &record["method"]), (&json!("/hooks/basiq"), &json!("POST")));
    assert_eq!((&record["client"], &record["provider"]), (&json!("127.0.0.1"), &json!("basiq")));
    let record = gateway.record_of(&gateway.ask(&basiq("evt").method("PUT")));
    assert_eq!((record.get("body_sha256"), record.get("body_bytes")), (None, None));
}

#[test]
fn a_dropped_conflict_is_recorded_and_no_reject() {
    let home = Home::new(&sources());
    let gateway = home.gateway();
    assert_eq!(gateway.ask(&basiq("evt")).status, 200);
    let other = "{\"eventTypeId\":\"user.updated\",\"eventId\":\"evt\"}";
    let conflict = || standard("/hooks/basiq?QUERYMARK", other, now());
    let chunks = format!("{:x}\r\n{other}\r\n0\r\n\r\n", other.len());
    let chunked = Request { body: chunks.into(), ..conflict() }.with("transfer-encoding", "chunked");
    for request in [chunked, conflict()] {
        let answer = gateway.ask(&request);
        assert_eq!(answer.json(), json!({ "status": "duplicate", "id": "evt" }));
    }
    until("the conflict is recorded", || !gateway.records().is_empty());
    let metrics = gateway.metrics();
    assert_eq!((metrics.refused(), metrics.sum("hookgate_conflicts_total", &[])), (0.0, 1.0));
    gateway.stop();
    let record: Value = serde_json::from_str(home.audit().trim_end()).unwrap();
    assert_eq!((&record["reason"], &record["status"]), (&json!("conflict"), &json!(200)));
    assert_eq!(record["body_bytes"], other.len());
    assert!(!home.audit().contains("QUERYMARK"));
}

// -- metrics and health

#[test]
fn every_metric_is_there_at_the_start_and_at_zero() {
    let home = Home::new(&sources());
    let gateway = home.gateway();
    let answer = gateway.ask_admin("/metrics");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4"));
    let metrics = Metrics::read(&answer.body);
    for (kind, names) in [("counter", COUNTERS.as_slice()), ("histogram", &HISTOGRAMS), ("gauge", &GAUGES)] {
        for name in names {
            assert_eq!(metrics.types.get(*name).map(String::as_str), Some(kind), "{name}");
            let samples =
                metrics.samples.iter().filter(|(known, ..)| known.trim_end_matches("_count") == *name);
            assert!(samples.count() > 0, "{name} has no series");
        }
    }
    for (name, labels, value) in &metrics.samples {
        let told = [
            "hookgate_build_info",
            "hookgate_queue_up",
            "hookgate_config_loaded_timestamp_seconds",
            "hookgate_last_accepted_timestamp_seconds",
        ];
        if !told.contains(&name.as_str()) && !name.starts_with("process_") {
            assert_eq!(*value, 0.0, "{name} {labels:?}");
        }
        assert!(!labels.values().any(|value| value.contains("hooks/")), "{name} {labels:?}");
    }
    assert!(metrics.types.keys().all(|name| name.starts_with("hookgate_") || name.starts_with("process_")));
    let named: BTreeSet<String> =
        ["unknown", "basiq", "anduin", "atelio", "iof", "securitize"].map(str::to_owned).into();
    assert_eq!(metrics.values("hookgate_requests_total", "source"), named);
    assert_eq!(metrics.values("hookgate_rejects_total", "source"), named);
    let outcomes: BTreeSet<String> = OUTCOMES.map(str::to_owned).into();
    assert_eq!(metrics.values("hookgate_requests_total", "outcome"), outcomes);
    let reasons: BTreeSet<String> = REASONS.map(str::to_owned).into();
    assert_eq!(metrics.values("hookgate_rejects_total", "reason"), reasons);
    let kinds: BTreeSet<String> = ["refused", "unreachable", "timeout"].map(str::to_owned).into();
    assert_eq!(metrics.values("hookgate_enqueue_failures_total", "kind"), kinds);
    assert_eq!(metrics.sum("hookgate_queue_up", &[("queue", "embedded")]), 1.0);
    assert_eq!(metrics.sum("hookgate_build_info", &[]), 1.0);
    assert!((metrics.sum("hookgate_config_loaded_timestamp_seconds", &[]) - now() as f64).abs() < 600.0);
}

#[test]
fn the_counts_are_those_of_the_requests_sent() {
    let home = Home::new(&sources());
    let gateway = home.gateway();
    let mut connection = gateway.connect();
    for number in 0..20 {
        connection.ask(&basiq(&format!("evt-{}", number % 7)));
        connection.ask(&basiq("evt").without("webhook-id"));
        connection.ask(&basiq("evt").to("/nothing"));
        connection.ask(&Request::get("/hooks/anduin").with(CHALLENGE, "key"));
        connection.ask(&securitize("/hooks/securitize", "sub-1", number * 10));
    }
    let metrics = gateway.metrics();
    assert_eq!(metrics.answered(), 100.0);
    assert_eq!((metrics.requests("basiq", "accepted"), metrics.requests("basiq", "duplicate")), (7.0, 13.0));
    assert_eq!(
        (metrics.requests("basiq", "rejected"), metrics.requests("unknown", "rejected")),
        (20.0, 20.0)
    );
    assert_eq!(
        (metrics.requests("anduin", "handshake"), metrics.requests("securitize", "accepted")),
        (20.0, 20.0)
    );
    assert_eq!(metrics.refused(), metrics.sum("hookgate_requests_total", &[("outcome", "rejected")]));
    assert_eq!(metrics.sum("hookgate_request_duration_seconds_count", &[]), 100.0);
    assert_eq!(metrics.sum("hookgate_request_body_bytes_count", &[("source", "basiq")]), 40.0);
    assert_eq!(metrics.sum("hookgate_signature_age_seconds_count", &[("source", "basiq")]), 20.0);
    assert_eq!(metrics.sum("hookgate_events_total", &[]), 27.0);
    assert_eq!(metrics.sum("hookgate_sequence_gaps_total", &[("source", "securitize")]), 19.0 * 9.0);
    assert_eq!(metrics.sum("hookgate_enqueue_batch_events_sum", &[]), 40.0);
    let last = metrics.sum("hookgate_last_accepted_timestamp_seconds", &[("source", "basiq")]);
    assert!((last - now() as f64).abs() < 600.0, "{last}");
    // Where nothing came in, it is when the source was first served.
    let first = metrics.sum("hookgate_last_accepted_timestamp_seconds", &[("source", "iof")]);
    assert!(0.0 < first && first <= last, "{first} {last}");
    until("every record is written", || gateway.metrics().sum("hookgate_audit_records_total", &[]) == 40.0);
}

#[test]
fn health_is_told_on_the_admin_listener_alone() {
    let home = Home::new(&sources());
    let gateway = home.gateway();
    assert_eq!(gateway.ask_admin("/livez").status, 200);
    let ready = gateway.ask_admin("/readyz");
    assert_eq!((ready.status, ready.header("content-type")), (200, Some("application/json")));
    let told = ready.json();
    for (key, value) in [
        ("ready", json!(true)),
        ("queue", json!("up")),
        ("dedupe", json!("up")),
        ("spool", json!("empty")),
        ("draining", json!(false)),
    ] {
        assert_eq!(told[key], value, "{told}");
    }
    assert_eq!(gateway.ask_admin("/nothing").status, 404);
    let posted = Connection::open(gateway.admin).ask(&Request::post("/metrics", ""));
    assert_eq!((posted.status, posted.header("allow")), (405, Some("GET, HEAD")));
    let posted = Connection::open(gateway.admin).ask(&basiq("evt"));
    assert!(posted.status >= 404, "deliveries are not taken here");
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(gateway.ask(&Request::get(path)).status, 404, "{path} is nothing for the public");
    }
    assert!(!home.path("data").metadata().unwrap().permissions().readonly());
}

/// A source that nothing authenticates.
const OPEN: &str = "[sources.open]\nprovider = \"securitize\"\nunauthenticated = true\n";
const CHALLENGE: &str = "x-anduin-webhook-validation-key";
const OUTCOMES: [&str; 5] = ["accepted", "duplicate", "ignored", "handshake", "rejected"];
const REASONS: [&str; 23] = [
    "unknown_path",
    "path_token_mismatch",
    "method_not_allowed",
    "client_not_allowed",
    "rate_limited",
    "body_too_large",
    "body_timeout",
    "handshake_invalid",
    "signature_missing",
    "signature_malformed",
    "signature_mismatch",
    "timestamp_outside_tolerance",
    "subscription_not_allowed",
    "payload_not_json",
    "payload_invalid",
    "unsupported_encoding",
    "header_timeout",
    "tls_handshake_failed",
    "http_malformed",
    "headers_too_large",
    "overloaded",
    "in_progress",
    "queue_unavailable",
];
const COUNTERS: [&str; 16] = [
    "hookgate_unreadable_total",
    "hookgate_tls_handshakes_total",
    "hookgate_http2_errors_total",
    "hookgate_config_reloads_total",
    "hookgate_schema_drift_total",
    "hookgate_audit_anchors_total",
    "hookgate_requests_total",
    "hookgate_rejects_total",
    "hookgate_events_total",
    "hookgate_conflicts_total",
    "hookgate_secret_matches_total",
    "hookgate_sequence_gaps_total",
    "hookgate_enqueue_failures_total",
    "hookgate_audit_records_total",
    "hookgate_audit_suppressed_total",
    "hookgate_spool_dead_total",
];
const HISTOGRAMS: [&str; 5] = [
    "hookgate_request_duration_seconds",
    "hookgate_request_body_bytes",
    "hookgate_signature_age_seconds",
    "hookgate_enqueue_duration_seconds",
    "hookgate_enqueue_batch_events",
];
const GAUGES: [&str; 14] = [
    "hookgate_in_flight_bytes",
    "hookgate_tls_certificate_expiry_timestamp_seconds",
    "hookgate_last_accepted_timestamp_seconds",
    "hookgate_queue_up",
    "hookgate_queue_full",
    "hookgate_connections",
    "hookgate_requests_in_flight",
    "hookgate_config_loaded_timestamp_seconds",
    "hookgate_build_info",
    "hookgate_spool_events",
    "hookgate_spool_bytes",
    "hookgate_spool_max_bytes",
    "hookgate_spool_oldest_age_seconds",
    "hookgate_spool_dead_events",
];
