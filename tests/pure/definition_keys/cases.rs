//! A case for each key of a definition.

mod events;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use events::{cases_of_events, cases_of_handshakes};

use super::{BODY, Case, DATED, Delivery, mac};

pub(super) fn cases() -> Vec<Case> {
    let tables = [cases_of_definitions(), cases_of_signatures(), cases_of_events(), cases_of_handshakes()];
    tables.into_iter().flatten().collect()
}

fn cases_of_definitions() -> Vec<Case> {
    vec![
        Case {
            key: "like",
            toml: r#"[providers.acme]
like = "github" #!
retries_for = "3d"
"#,
            delivery: Delivery::of(r#"{}"#)
                .with("x-hub-signature-256", &format!("sha256={}", mac("{}")))
                .with("x-github-event", "ping")
                .with("x-github-delivery", "d-1"),
            expected: vec![("/events/0/verifiedby", json!("hmac-sha256"))],
        },
        Case {
            key: "retries_for",
            toml: r#"[providers.acme]
like = "github"
retries_for = "5d" #!
"#,
            delivery: Delivery::of("{}"),
            expected: vec![("/retries_for", json!(432_000))],
        },
        Case {
            key: "body",
            toml: r#"[providers.acme]
body = "form" #!
event = { type = "/type" }
"#,
            delivery: Delivery::of("type=order.paid&a=1&a=2"),
            expected: vec![
                ("/events/0/type", json!("acme.order.paid")),
                ("/events/0/data/payload", json!({ "type": "order.paid", "a": ["1", "2"] })),
            ],
        },
        Case {
            key: "signature",
            toml: r#"[providers.acme.signature] #!
algorithm = "hmac-sha256"
header = "x-s"

[providers.acme.event]
type = "/type"
"#,
            delivery: Delivery::of(r#"{"type":"order.paid","id":"ord_1"}"#)
                .with("x-s", &mac(r#"{"type":"order.paid","id":"ord_1"}"#)),
            expected: vec![("/events/0/verifiedby", json!("hmac-sha256"))],
        },
        Case {
            key: "event",
            toml: r#"[providers.acme.signature]
algorithm = "hmac-sha256"
header = "x-s"

[providers.acme.event] #!
type = "/type"
"#,
            delivery: Delivery::of(r#"{"type":"order.paid","id":"ord_1"}"#)
                .with("x-s", &mac(r#"{"type":"order.paid","id":"ord_1"}"#)),
            expected: vec![("/events/0/type", json!("acme.order.paid"))],
        },
        Case {
            key: "handshake",
            toml: r#"[providers.acme.event]
type = "/type"

[providers.acme.handshake] #!
header = "x-key"
"#,
            delivery: Delivery::of(r#"{"type":"order.paid","id":"ord_1"}"#),
            expected: vec![("/handshake/header", json!("x-key"))],
        },
    ]
}

fn cases_of_signatures() -> Vec<Case> {
    vec![
        Case {
            key: "signature.algorithm",
            toml: r#"[providers.acme.signature]
algorithm = "hmac-sha256" #!
header = "x-s"

[providers.acme.event]
type = "/type"
"#,
            delivery: Delivery::of(BODY).with("x-s", &mac(BODY)),
            expected: vec![("/events/0/verifiedby", json!("hmac-sha256"))],
        },
        Case {
            key: "signature.header",
            toml: r#"[providers.acme.signature]
algorithm = "hmac-sha256"
header = ["x-old", "x-s"] #!

[providers.acme.event]
type = "/type"
"#,
            delivery: Delivery::of(BODY).with("x-s", &mac(BODY)),
            expected: vec![("/events/0/verifiedby", json!("hmac-sha256"))],
        },
        Case {
            key: "signature.pointer",
            toml: r#"[providers.acme.signature]
algorithm = "equal"
pointer = "/state" #!

[providers.acme.event]
type = "/type"
"#,
            delivery: Delivery::of(r#"{"type":"order.paid","state":"a-secret-of-some-length"}"#),
            expected: vec![("/events/0/verifiedby", json!("shared-secret"))],
        },
        Case {
            key: "signature.format",
            toml: r#"[providers.acme.signature]
algorithm = "hmac-sha256"
header = "x-s"
format = "sha256={signature}" #!

[providers.acme.event]
type = "/type"
"#,
            delivery: Delivery::of(BODY).with("x-s", &format!("sha256={}", mac(BODY))),
            expected: vec![("/events/0/type", json!("acme.order.paid"))],
        },
        Case {
            key: "signature.separator",
            toml: r#"[providers.acme.signature]
algorithm = "hmac-sha256"
header = "x-s"
separator = " " #!

[providers.acme.event]
type = "/type"
"#,
            delivery: Delivery::of(BODY).with("x-s", &format!("00 {} v2", mac(BODY))),
            expected: vec![("/events/0/type", json!("acme.order.paid"))],
        },
        Case {
            key: "signature.encoding",
            toml: r#"[providers.acme.signature]
algorithm = "hmac-sha256"
header = "x-s"
encoding = "base64" #!

[providers.acme.event]
type = "/type"
"#,
            delivery: Delivery::of(BODY).with("x-s", &STANDARD.encode(hex::decode(mac(BODY)).unwrap())),
            expected: vec![("/events/0/type", json!("acme.order.paid"))],
        },
        Case {
            key: "signature.timestamp",
            toml: r#"[providers.acme.signature]
algorithm = "hmac-sha256"
header = "x-s"
timestamp = "x-t" #!
signed = "{timestamp}.{body}"

[providers.acme.event]
type = "/type"
"#,
            delivery: Delivery::of(BODY)
                .with("x-s", &mac(&format!("1699999993.{BODY}")))
                .with("x-t", "1699999993"),
            expected: vec![("/age", json!(7))],
        },
        Case {
            key: "signature.timestamp_unit",
            toml: r#"[providers.acme.signature]
algorithm = "hmac-sha256"
header = "x-s"
timestamp = "/at"
timestamp_unit = "rfc3339" #!

[providers.acme.event]
type = "/type"
"#,
            delivery: Delivery::of(DATED).with("x-s", &mac(DATED)),
            expected: vec![("/age", json!(5))],
        },
        Case {
            key: "signature.id",
            toml: r#"[providers.acme.signature]
algorithm = "hmac-sha256"
header = "x-s"
id = "x-id" #!
signed = "{id}{body}"

[providers.acme.event]
type = "/type"
"#,
            delivery: Delivery::of(BODY).with("x-s", &mac(&format!("i-1{BODY}"))).with("x-id", "i-1"),
            expected: vec![("/events/0/type", json!("acme.order.paid"))],
        },
        Case {
            key: "signature.signed",
            toml: r#"[providers.acme.signature]
algorithm = "hmac-sha256"
header = "x-s"
signed = "v0:{method} {path}?{query} {header:x-shop}\n{body}" #!

[providers.acme.event]
type = "/type"
"#,
            delivery: Delivery::of(BODY)
                .with("x-s", &mac(&format!("v0:POST /hooks/acme?a=b me\n{BODY}")))
                .with("x-shop", "me"),
            expected: vec![("/events/0/type", json!("acme.order.paid"))],
        },
        Case {
            key: "signature.secret",
            toml: r#"[providers.acme.signature]
algorithm = "hmac-sha256"
header = "x-s"
secret = "whsec" #!

[providers.acme.event]
type = "/type"
"#,
            delivery: Delivery {
                secret: "whsec_YS1zZWNyZXQtb2Ytc29tZS1sZW5ndGg=",
                ..Delivery::of(BODY).with("x-s", &mac(BODY))
            },
            expected: vec![("/events/0/type", json!("acme.order.paid"))],
        },
    ]
}
