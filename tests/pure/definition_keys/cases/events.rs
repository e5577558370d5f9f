//! A case for each key of an event and of a handshake.

use serde_json::json;

use super::super::{BODY, Case, Delivery, mac};

pub(super) fn cases_of_events() -> Vec<Case> {
    vec![
        Case {
            key: "event.type",
            toml: r#"[providers.acme.event]
type = { first = ["/message", "/order"] } #!
"#,
            delivery: Delivery::of(
                r#"{"type":"paid","at":1699999995,"order":{"id":"o-1","kind":"order"},"owner":{"id":7,"kind":"shop"},"was":"open","now":"done"}"#,
            ),
            expected: vec![("/events/0/type", json!("acme.order"))],
        },
        Case {
            key: "event.id",
            toml: r#"[providers.acme.event]
id = "/order/id" #!
type = "/type"
"#,
            delivery: Delivery::of(
                r#"{"type":"paid","at":1699999995,"order":{"id":"o-1","kind":"order"},"owner":{"id":7,"kind":"shop"},"was":"open","now":"done"}"#,
            ),
            expected: vec![("/events/0/id", json!("o-1"))],
        },
        Case {
            key: "event.time",
            toml: r#"[providers.acme.event]
time = "/at" #!
"#,
            delivery: Delivery::of(
                r#"{"type":"paid","at":1699999995,"order":{"id":"o-1","kind":"order"},"owner":{"id":7,"kind":"shop"},"was":"open","now":"done"}"#,
            ),
            expected: vec![("/events/0/time", json!("2023-11-14T22:13:15Z"))],
        },
        Case {
            key: "event.subject",
            toml: r#"[providers.acme.event]
type = "/type"
subject = { kind = "order", id = "/order/id" } #!
"#,
            delivery: Delivery::of(
                r#"{"type":"paid","at":1699999995,"order":{"id":"o-1","kind":"order"},"owner":{"id":7,"kind":"shop"},"was":"open","now":"done"}"#,
            ),
            expected: vec![("/events/0/subject", json!("order/o-1"))],
        },
        Case {
            key: "event.subject.kind",
            toml: r#"[providers.acme.event]
type = "/type"

[providers.acme.event.subject]
id = "/order/id"
kind = "/order/kind" #!
"#,
            delivery: Delivery::of(
                r#"{"type":"paid","at":1699999995,"order":{"id":"o-1","kind":"order"},"owner":{"id":7,"kind":"shop"},"was":"open","now":"done"}"#,
            ),
            expected: vec![("/events/0/subject", json!("order/o-1"))],
        },
        Case {
            key: "event.subject.id",
            toml: r#"[providers.acme.event]
type = "/type"

[providers.acme.event.subject]
id = "/order/id" #!
kind = "thing"
"#,
            delivery: Delivery::of(
                r#"{"type":"paid","at":1699999995,"order":{"id":"o-1","kind":"order"},"owner":{"id":7,"kind":"shop"},"was":"open","now":"done"}"#,
            ),
            expected: vec![("/events/0/subject", json!("thing/o-1"))],
        },
        Case {
            key: "event.tenant",
            toml: r#"[providers.acme.event]
type = "/type"
tenant = { kind = "shop", id = "/owner/id" } #!
"#,
            delivery: Delivery::of(
                r#"{"type":"paid","at":1699999995,"order":{"id":"o-1","kind":"order"},"owner":{"id":7,"kind":"shop"},"was":"open","now":"done"}"#,
            ),
            expected: vec![("/events/0/data/tenant", json!({ "kind": "shop", "id": "7" }))],
        },
        Case {
            key: "event.tenant.kind",
            toml: r#"[providers.acme.event]
type = "/type"

[providers.acme.event.tenant]
id = "/owner/id"
kind = "/owner/kind" #!
"#,
            delivery: Delivery::of(
                r#"{"type":"paid","at":1699999995,"order":{"id":"o-1","kind":"order"},"owner":{"id":7,"kind":"shop"},"was":"open","now":"done"}"#,
            ),
            expected: vec![("/events/0/data/tenant/kind", json!("shop"))],
        },
        Case {
            key: "event.tenant.id",
            toml: r#"[providers.acme.event]
type = "/type"

[providers.acme.event.tenant]
id = "/owner/id" #!
kind = "shop"
"#,
            delivery: Delivery::of(
                r#"{"type":"paid","at":1699999995,"order":{"id":"o-1","kind":"order"},"owner":{"id":7,"kind":"shop"},"was":"open","now":"done"}"#,
            ),
            expected: vec![("/events/0/data/tenant/id", json!("7"))],
        },
        Case {
            key: "event.status",
            toml: r#"[providers.acme.event]
type = "/type"
status = { from = "/was", to = "/now" } #!
"#,
            delivery: Delivery::of(
                r#"{"type":"paid","at":1699999995,"order":{"id":"o-1","kind":"order"},"owner":{"id":7,"kind":"shop"},"was":"open","now":"done"}"#,
            ),
            expected: vec![("/events/0/data/status", json!({ "from": "open", "to": "done" }))],
        },
        Case {
            key: "event.status.from",
            toml: r#"[providers.acme.event]
type = "/type"

[providers.acme.event.status]
from = "/was" #!
to = "/now"
"#,
            delivery: Delivery::of(
                r#"{"type":"paid","at":1699999995,"order":{"id":"o-1","kind":"order"},"owner":{"id":7,"kind":"shop"},"was":"open","now":"done"}"#,
            ),
            expected: vec![("/events/0/data/status/from", json!("open"))],
        },
        Case {
            key: "event.status.to",
            toml: r#"[providers.acme.event]
type = "/type"

[providers.acme.event.status]
from = "/was"
to = "/now" #!
"#,
            delivery: Delivery::of(
                r#"{"type":"paid","at":1699999995,"order":{"id":"o-1","kind":"order"},"owner":{"id":7,"kind":"shop"},"was":"open","now":"done"}"#,
            ),
            expected: vec![("/events/0/data/status/to", json!("done"))],
        },
        Case {
            key: "event.related",
            toml: r#"[providers.acme.event]
type = "/type"
related = [{ kind = "shop", id = "/owner/id" }, { kind = "order", id = "/order/id" }] #!
"#,
            delivery: Delivery::of(
                r#"{"type":"paid","at":1699999995,"order":{"id":"o-1","kind":"order"},"owner":{"id":7,"kind":"shop"},"was":"open","now":"done"}"#,
            ),
            expected: vec![(
                "/events/0/data/related",
                json!([{ "kind": "shop", "id": "7" }, { "kind": "order", "id": "o-1" }]),
            )],
        },
        Case {
            key: "event.related.kind",
            toml: r#"[providers.acme.event]
type = "/type"

[[providers.acme.event.related]]
id = "/owner/id"
kind = "/owner/kind" #!
"#,
            delivery: Delivery::of(
                r#"{"type":"paid","at":1699999995,"order":{"id":"o-1","kind":"order"},"owner":{"id":7,"kind":"shop"},"was":"open","now":"done"}"#,
            ),
            expected: vec![("/events/0/data/related/0/kind", json!("shop"))],
        },
        Case {
            key: "event.related.id",
            toml: r#"[providers.acme.event]
type = "/type"

[[providers.acme.event.related]]
id = "/owner/id" #!
kind = "shop"
"#,
            delivery: Delivery::of(
                r#"{"type":"paid","at":1699999995,"order":{"id":"o-1","kind":"order"},"owner":{"id":7,"kind":"shop"},"was":"open","now":"done"}"#,
            ),
            expected: vec![("/events/0/data/related/0/id", json!("7"))],
        },
        Case {
            key: "event.each",
            toml: r#"[providers.acme.event]
type = "/type"
subject = { kind = "shop", id = "body:/shop" }
each = "/entry/*/changes" #!
"#,
            delivery: Delivery::of(
                r#"{"shop":"s-1","type":"all","entry":[{"changes":[{"type":"a"},{"type":"b"}]},{"changes":[{"type":"c"}]}]}"#,
            ),
            expected: vec![
                ("/events/0/type", json!("acme.a")),
                ("/events/1/type", json!("acme.b")),
                ("/events/2/type", json!("acme.c")),
                ("/events/2/subject", json!("shop/s-1")),
                ("/events/2/data/payload", json!({ "type": "c" })),
            ],
        },
        Case {
            key: "event.types",
            toml: r#"[providers.acme.event]
type = "/type"

[providers.acme.event.types] #!
"paid" = "invoice.paid"
"#,
            delivery: Delivery::of(
                r#"{"type":"paid","at":1699999995,"order":{"id":"o-1","kind":"order"},"owner":{"id":7,"kind":"shop"},"was":"open","now":"done"}"#,
            ),
            expected: vec![
                ("/events/0/type", json!("invoice.paid")),
                ("/events/0/data/event", json!("paid")),
            ],
        },
    ]
}

pub(super) fn cases_of_handshakes() -> Vec<Case> {
    vec![
        Case {
            key: "handshake.method",
            toml: r#"[providers.acme.handshake]
method = "POST" #!
query = "challenge"
"#,
            delivery: Delivery::of(BODY),
            expected: vec![("/handshake", json!({ "query": "challenge", "post": true, "token": null }))],
        },
        Case {
            key: "handshake.header",
            toml: r#"[providers.acme.handshake]
header = "x-key" #!
"#,
            delivery: Delivery::of(BODY),
            expected: vec![("/handshake/header", json!("x-key"))],
        },
        Case {
            key: "handshake.query",
            toml: r#"[providers.acme.handshake]
query = "challenge" #!
"#,
            delivery: Delivery::of(BODY),
            expected: vec![("/handshake/query", json!("challenge"))],
        },
        Case {
            key: "handshake.token",
            toml: r#"[providers.acme.handshake]
query = "challenge"
token = "verify" #!
"#,
            delivery: Delivery::of(BODY),
            expected: vec![("/handshake/token", json!("verify"))],
        },
        Case {
            key: "handshake.when",
            toml: r#"[providers.acme.handshake]
when = { "/type" = "order.paid", "query:a" = "b" } #!
"#,
            delivery: Delivery::of(BODY),
            expected: vec![("/answer", json!(204))],
        },
        Case {
            key: "handshake.answer",
            toml: r#"[providers.acme.signature]
algorithm = "hmac-sha256"
header = "x-s"

[providers.acme.handshake]
when = { "/type" = "order.paid" }
answer = { id = "/id", proof = "hmac:/id", ok = true } #!
"#,
            delivery: Delivery::of(BODY).with("x-s", &mac(BODY)),
            expected: vec![("/answer", json!({ "id": "ord_1", "proof": mac("ord_1"), "ok": true }))],
        },
        Case {
            key: "handshake.status",
            toml: r#"[providers.acme.handshake]
when = { "/type" = "order.paid" }
status = 202 #!
"#,
            delivery: Delivery::of(BODY),
            expected: vec![("/answer", json!(202))],
        },
    ]
}
