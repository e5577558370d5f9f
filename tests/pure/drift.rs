//! Schema drift: what a provider's table does not know is told once, by name; and the table knows everything that is published.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;

use hookgate::provider::{Object, catalog};
use serde_json::Value;
use support::{Gateway, Home, iof, now, securitize, sources};

#[test]
fn a_new_field_and_a_new_type_are_told_once_over_a_hundred_deliveries() {
    let home = Home::new(&sources());
    let served = home.gateway();
    for n in 0..100 {
        let body = format!(
            "{{\"id\":\"e{n}\",\"type\":\"kyc.\\u001b[2Jinvented\",\"colour\":\"very {SECRET_VALUE}\",\
             \"data\":{{\"object\":{{\"id\":\"k\",\"deeper\":1}},\"shape\":\"{SECRET_VALUE}\"}},\"metadata\":{{\"tenantId\":\"t\"}}}}"
        );
        assert_eq!(served.ask(&iof("/hooks/iof", &body, now())).status, 200);
    }
    let told = told(&served);
    let expected = [("field", "colour"), ("field", "data.shape"), ("type", "(not a plain name)")];
    assert_eq!(told, expected.map(|(kind, name)| ("iof".to_owned(), kind.to_owned(), name.to_owned())));
    assert_eq!(served.metrics().sum("hookgate_schema_drift_total", &[("source", "iof")]), 3.0);
    assert_eq!(served.metrics().sum("hookgate_schema_drift_total", &[]), 3.0);
    assert!(!served.log().contains(SECRET_VALUE), "names are told, never values");
    assert_eq!(served.stop().0, 0);
}

#[test]
fn what_is_not_verified_or_not_forwarded_is_not_looked_at() {
    let home = Home::new(&sources());
    let served = home.gateway();
    let refused =
        iof("/hooks/iof", "{\"id\":\"e\",\"colour\":1}", now()).instead("x-iof-signature", "t=1,v1=00");
    assert_eq!(served.ask(&refused).status, 401);
    let mut check = securitize("/hooks/securitize", "sub", 1);
    check.body =
        b"{\"eventType\":\"health-check\",\"subscriptionId\":\"s\",\"colour\":1,\"nonce\":1}".to_vec();
    assert_eq!(served.ask(&check).status, 200);
    assert_eq!(served.ask(&securitize("/hooks/securitize", "sub", 2)).status, 200);
    assert!(told(&served).is_empty(), "{:?}", told(&served));
    assert_eq!(served.metrics().sum("hookgate_schema_drift_total", &[]), 0.0);
}

#[test]
fn the_names_remembered_are_bounded_and_long_ones_clipped() {
    let home = Home::new(&sources());
    let served = home.gateway();
    let long = "x".repeat(500);
    for batch in 0..4 {
        let fields: Vec<String> = (0..100).map(|n| format!("\"f{}\":1", batch * 100 + n)).collect();
        let body =
            format!("{{\"id\":\"e{batch}\",\"type\":\"kyc.verified\",\"{long}\":1,{}}}", fields.join(","));
        assert_eq!(served.ask(&iof("/hooks/iof", &body, now())).status, 200);
    }
    assert_eq!(served.metrics().sum("hookgate_schema_drift_total", &[("source", "iof")]), 256.0);
    let told = told(&served);
    assert_eq!(told.len(), 256);
    assert!(
        told.iter().all(|(.., name)| name.len() <= 64) && told.iter().any(|(.., name)| *name == long[..64])
    );
    let full = served.log().matches("so many unknown names").count();
    assert_eq!(full, 1, "that it is full is said once");
}

#[test]
fn every_field_of_the_samples_that_send_makes_is_known() {
    let home = Home::new(&sources());
    let served = home.gateway();
    let url = format!("http://{}", served.edge);
    for row in catalog::with_coded_payloads() {
        for (kind, _) in row.types.unwrap() {
            let ran = home.run(&["send", "--source", row.name, "--event", kind, "--url", &url]);
            assert_eq!(ran.code, 0, "{kind}: {ran:?}");
        }
    }
    assert!(told(&served).is_empty(), "{:?}", told(&served));
}

#[test]
fn the_vectors_of_every_type_and_of_every_published_sample_hold_known_fields_alone() {
    let mut walked = 0;
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in catalog::with_coded_payloads() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(row.name);
        for file in std::fs::read_dir(folder).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let vectors: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
            for (name, vector) in vectors {
                let event = &vector["expect"]["event"];
                let Some(kind) = event["type"].as_str() else { continue };
                let Some(body) = vector["request"]["body"].as_str() else { continue };
                if kind.starts_with("unmapped.") {
                    continue;
                }
                walked += 1;
                let payload = Object::parse(body.as_bytes()).unwrap();
                let _ = row.reader.code().unwrap().fields.for_each_unknown(&payload, |outer, field| {
                    let field = outer.map_or(field.to_owned(), |outer| format!("{outer}.{field}"));
                    found.entry(format!("{}/{name}", row.name)).or_default().insert(field);
                    ControlFlow::Continue(())
                });
            }
        }
    }
    assert!(walked > 500, "the walk found the vectors: {walked}");
    let expected = KNOWN_TO_DRIFT.iter().map(|(vector, fields)| {
        ((*vector).to_owned(), fields.iter().map(|field| (*field).to_owned()).collect())
    });
    assert_eq!(found, expected.collect());
}

/// What was logged of drift: source, kind and name, in order.
fn told(served: &Gateway) -> Vec<(String, String, String)> {
    let log = served.log();
    let mut told: Vec<_> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| {
            line["message"].as_str().is_some_and(|said| said.starts_with("schema drift: the provider"))
        })
        .map(|line| {
            assert_eq!((&line["level"], &line["provider"]), (&"WARN".into(), &line["source"]));
            assert!(line["target"].as_str().unwrap().starts_with("hookgate"));
            ["source", "kind", "name"].map(|field| line[field].as_str().unwrap().to_owned()).into()
        })
        .collect();
    told.sort();
    told
}

const SECRET_VALUE: &str = "4111-1111-1111-1111";

/// The vectors that hold more than is published, on purpose: to show that it is forwarded, and read as nothing else.
const KNOWN_TO_DRIFT: &[(&str, &[&str])] = &[
    ("anduin/links", &["fileUrl", "list", "o", "page", "s3", "text"]),
    ("anduin/ok-128-levels", &["deep"]),
    ("anduin/ok-128-levels-objects", &["d"]),
    ("anduin/ok-escaped-null", &["n"]),
    ("anduin/ok-extra-fields", &["extra", "version"]),
    ("anduin/ok-huge-number", &["m", "n"]),
    ("anduin/ok-surrogate-pair", &["n"]),
    ("anduin/ok-utf8", &["n"]),
    ("anduin/status-absent", &["status"]),
    ("atelio/doc-v1-reserialised", &["n", "name"]),
    ("atelio/doc-v2-raw-bytes", &["n", "name"]),
    ("atelio/identity-key-order-2", &["z"]),
    ("atelio/identity-not-ids", &["PERSON_ID", "customerId", "id", "person_id_", "person_ids", "xid"]),
    ("atelio/identity-one-level-down", &["details.b_id", "zone"]),
    ("atelio/identity-other-fields-free", &["n"]),
    ("atelio/identity-two-levels-down", &["details.list", "list", "more_id"]),
    ("atelio/json-depth-128", &["deep"]),
    ("atelio/json-empty-key", &[""]),
    ("atelio/json-escaped-nul", &["s"]),
    ("atelio/json-huge-number", &["n"]),
    ("atelio/json-long-digits", &["n"]),
    ("atelio/json-surrogate-pair", &["s"]),
    ("atelio/links", &["also_no", "l", "n", "no", "plain", "upload_link"]),
    ("atelio/related-repeats", &["card.account_id", "card.person_id", "details.person_id"]),
    ("atelio/status-application", &["details.application_status", "transaction.status"]),
    ("atelio/status-none", &["card.state", "details.status", "state"]),
    ("atelio/subject-none", &["card_id"]),
    ("atelio/time-none-no-ids", &["x"]),
    ("atelio/time-other-fields", &["created_time", "details.occurred_at"]),
    ("atelio/v1-duplicate-keys", &["x"]),
    ("atelio/v1-float-forms", &["f"]),
    ("atelio/v1-unicode-and-escapes", &["a", "big", "e", "l", "m"]),
    ("atelio/v1-whitespace", &["list", "n"]),
    ("basiq/key-case", &["EVENTTYPEID", "EventId", "eventid"]),
    ("basiq/links-mixed", &["links.n", "links.o", "links.rel", "links.self"]),
    ("basiq/links-top-level-ignored", &["url"]),
    ("basiq/no-time", &["createdAt", "time"]),
    ("basiq/ok-128-levels", &["deep"]),
    ("basiq/ok-128-levels-objects", &["d"]),
    ("basiq/ok-escaped-null", &["n"]),
    ("basiq/ok-extra-fields", &["extra", "version"]),
    ("basiq/ok-huge-number", &["m", "n"]),
    ("basiq/ok-surrogate-pair", &["n"]),
    ("basiq/ok-utf8", &["n"]),
    ("iof/envelope-c", &["data.amount"]),
    ("iof/id-nested-no-help", &["data.id"]),
    ("iof/json-depth-128", &["deep"]),
    ("iof/json-empty-key", &[""]),
    ("iof/json-escaped-nul", &["s"]),
    ("iof/json-huge-number", &["n"]),
    ("iof/json-long-digits", &["n"]),
    ("iof/json-surrogate-pair", &["s"]),
    ("iof/links", &["doc", "n", "other", "url"]),
    ("iof/related-other-places", &["customerId", "data.workspaceId", "tenantId", "workspaceId"]),
    ("iof/status-none", &["status"]),
    ("iof/subject-none", &["data.id"]),
    ("iof/time-other-fields", &["data.created", "occurred_at", "updated"]),
    ("securitize/extra-fields-same-identity", &["kycStatus", "list"]),
    ("securitize/key-case", &["NONCE", "Nonce", "externalid"]),
    ("securitize/links", &["documentUrl", "ftp", "list", "n", "o", "page", "text"]),
    ("securitize/nested-ignored", &["data"]),
    ("securitize/no-time", &["createdAt", "time"]),
    ("securitize/ok-128-levels", &["deep"]),
    ("securitize/ok-128-levels-objects", &["d"]),
    ("securitize/ok-escaped-null", &["n"]),
    ("securitize/ok-extra-fields", &["extra", "version"]),
    ("securitize/ok-huge-number", &["m", "n"]),
    ("securitize/ok-surrogate-pair", &["n"]),
    ("securitize/ok-utf8", &["n"]),
];
