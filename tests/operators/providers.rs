//! `hookgate providers`: the list, definitions that can be pasted under another name, and a trial on a captured delivery.

use std::collections::BTreeMap;
use std::path::Path;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use support::{Home, Ran};

const SECRET: &str = "a-made-up-secret-of-acme";
const SOURCE: &str = "[sources.any]\nprovider = \"securitize\"\npath_token = \"a-token-of-this-test\"\n";

fn hmac_hex(text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(text.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

fn json_lines(ran: &Ran) -> Vec<Value> {
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn home(providers: &str) -> Home {
    Home::new(&format!("{providers}\n{SOURCE}"))
}

#[test]
fn every_built_in_and_every_defined_provider_is_listed() {
    let home = home("[providers.acme]\nlike = \"stripe\"\n[providers.acme.event.types]\n\"a\" = \"b.c\"\n");
    let listed = json_lines(&home.run(&["providers", "list", "--json"]));
    let of = |name: &str| listed.iter().find(|line| line["name"] == name).unwrap_or_else(|| panic!("{name}"));
    let mut names: Vec<&str> = listed.iter().map(|line| line["name"].as_str().unwrap()).collect();
    assert_eq!(names.pop(), Some("acme"), "defined ones follow");
    names.sort_unstable();
    let mut expected = vec!["securitize", "anduin", "basiq", "atelio", "iof"];
    expected.extend([
        "standard-webhooks",
        "github",
        "gitlab",
        "stripe",
        "shopify",
        "slack",
        "zoom",
        "meta",
        "discord",
        "hubspot",
        "paddle",
        "sendgrid",
        "square",
        "linear",
        "sentry",
        "pagerduty",
        "typeform",
        "calendly",
        "docusign",
        "telegram",
        "microsoft-graph",
    ]);
    expected.sort_unstable();
    assert_eq!(names, expected);
    let acme = json!({ "name": "acme", "origin": "config", "algorithms": ["hmac-sha256"], "types": 1 });
    assert_eq!(of("acme"), &acme);
    assert_eq!(of("securitize")["algorithms"], json!([]));
    assert_eq!(of("standard-webhooks")["algorithms"], json!(["hmac-sha256", "ed25519"]));
    let plain = home.run(&["providers", "list"]);
    assert!(
        plain.out.lines().any(|line| line.starts_with("github ") && line.contains("built-in")),
        "{plain:?}"
    );
}

/// Its body has the time that the signature covers.
#[test]
fn a_sample_has_the_time_that_is_read_from_the_body() {
    let home = Home::new("[sources.linear]\nprovider = \"linear\"\nsecrets = [{ file = \"secret\" }]\n");
    home.write("secret", "a-secret-of-linear-8d7f60b1");
    let gateway = home.gateway();
    let url = format!("http://{}", gateway.edge);
    let sent = home.run(&["send", "--source", "linear", "--url", &url]);
    assert_eq!(sent.code, 0, "{sent:?}");
}

/// What is shown of a provider, pasted under another name, takes and refuses what the provider does: its vectors pass.
#[test]
fn what_is_shown_can_be_pasted_under_another_name() {
    let shower = home("");
    let listed = json_lines(&shower.run(&["providers", "list", "--json"]));
    let mut pasted = String::new();
    let mut tried = Vec::new();
    for name in listed.iter().map(|line| line["name"].as_str().unwrap()) {
        let shown = shower.run(&["providers", "show", name]);
        assert_eq!(shown.code, 0, "{shown:?}");
        let copy = format!("providers.copy-of-{name}");
        let text = shown.out.replace(&format!("providers.{name}"), &copy);
        assert!(text.contains(&copy), "{text}");
        pasted += &text;
        tried.push(name.to_owned());
    }
    let home = Home::new(&format!("edge.public_url = \"https://hooks.example.com\"\n{pasted}\n{SOURCE}"));
    let checked = home.run(&["check"]);
    assert_eq!(checked.code, 0, "{checked:?}");
    for name in tried {
        for (case, vector) in genuine(&name).into_iter().take(3) {
            let (verdict, events) = try_vector(&home, &name, &case, &vector);
            assert!(verdict.starts_with("the signature holds"), "{name}/{case}: {verdict}");
            let expected = match vector["expect"]["events"].as_array() {
                Some(events) => events.clone(),
                None => vec![vector["expect"]["event"].clone()],
            };
            assert_eq!(events.len(), expected.len(), "{name}/{case}");
            for (event, expected) in events.iter().zip(&expected) {
                assert_eq!(event["subject"], expected["subject"], "{name}/{case}");
                assert_eq!(event["time"], expected["time"], "{name}/{case}");
                assert_eq!(event["data"]["event"], expected["data"]["event"], "{name}/{case}");
                assert_eq!(event["verifiedby"], expected["verifiedby"], "{name}/{case}");
            }
        }
    }
}

/// The vectors of a provider whose deliveries are accepted by a secret.
fn genuine(provider: &str) -> BTreeMap<String, Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(provider);
    let mut found = BTreeMap::new();
    let files = std::fs::read_dir(&folder);
    for file in files.unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let named: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
        found.extend(named.into_iter().filter(|(_, vector)| {
            vector["expect"]["outcome"] == "accepted"
                && vector["source"]["secrets"].as_array().is_some_and(|secrets| !secrets.is_empty())
                && vector["source"]["accept_v1"].is_null()
                && vector["source"]["tolerance"].is_null()
                && vector["request"]["body"].is_string()
                && vector["request"]["headers"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|header| header[1].as_str().unwrap().is_ascii())
        }));
    }
    found
}

fn try_vector(home: &Home, name: &str, case: &str, vector: &Value) -> (String, Vec<Value>) {
    let request = &vector["request"];
    let headers: String = request["headers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|header| format!("{}: {}\n", header[0].as_str().unwrap(), header[1].as_str().unwrap()))
        .collect();
    let headers = home.write("headers", headers);
    let body = home.write("body", request["body"].as_str().unwrap());
    let copy = format!("copy-of-{name}");
    let mut arguments = vec!["providers", "try", &copy, "--json"];
    let (headers, body) = (headers.display().to_string(), body.display().to_string());
    let at = vector["now"].as_i64().unwrap().to_string();
    arguments.extend(["--headers", &headers, "--body", &body, "--at", &at]);
    for secret in vector["source"]["secrets"].as_array().unwrap() {
        arguments.extend(["--secret", secret.as_str().unwrap()]);
    }
    let own = request["path"].as_str().unwrap();
    // The vectors' gateway serves each under its name, which a signed URL has too.
    let target = format!("/{name}/{case}{own}");
    arguments.extend(["--target", &target]);
    let ran = home.run(&arguments);
    let told: Value = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:?}"));
    let verdict = told["verdict"].as_str().unwrap().to_owned();
    (verdict, told["events"].as_array().unwrap().clone())
}

#[test]
fn a_trial_says_what_each_part_found_and_prints_no_secret() {
    let definition = |signed: &str| {
        format!(
            "[providers.acme.signature]\nalgorithm = \"hmac-sha256\"\nheader = \"Acme-Signature\"\n\
             format = \"t={{timestamp}},v1={{signature}}\"\nsigned = \"{signed}\"\n\
             [providers.acme.event]\ntype = \"/type\"\nid = \"/id\"\ntime = \"/created\"\n\
             subject = {{ kind = \"order\", id = \"/data/id\" }}\nstatus = {{ to = \"/data/state\" }}\n"
        )
    };
    let home = home(&definition("{timestamp}.{body}"));
    let body = r#"{"id":"evt_1","type":"order.paid","created":1764500000,"data":{"id":"o1"}}"#;
    let signature = hmac_hex(&format!("1764500001.{body}"));
    home.write("headers", format!("Acme-Signature: t=1764500001,v1={signature}\n"));
    home.write("body", body);
    home.write("secret", format!("{SECRET}\n"));
    let attempt = |more: &[&str]| {
        let (headers, body) = (home.path("headers"), home.path("body"));
        let (headers, body) = (headers.display().to_string(), body.display().to_string());
        let base = ["providers", "try", "acme", "--headers", &headers, "--body", &body, "--at", "1764500002"];
        let ran = home.run(&[&base, more].concat());
        assert!(!ran.out.contains(SECRET) && !ran.err.contains(SECRET), "{ran:?}");
        assert!(!ran.out.contains(&signature), "{ran:?}");
        ran
    };
    let secret = home.path("secret").display().to_string();
    let told = attempt(&["--secret-file", &secret]);
    assert_eq!(told.code, 0, "{told:?}");
    for expected in [
        "signature hmac-sha256 in acme-signature: 1 found; timestamp 1764500001, 1 s old; signed are 85 bytes, SHA-256 ",
        "verdict: the signature holds, by hmac-sha256",
        "event.type at /type: order.paid",
        "event.subject at /data/id: o1",
        "event.status.to at /data/state: (absent)",
        "event: {\"specversion\":\"1.0\",\"id\":\"evt_1\"",
    ] {
        assert!(told.out.contains(expected), "{expected}: {}", told.out);
    }
    let unverified = attempt(&[]);
    assert!(unverified.code == 0 && unverified.out.contains("not verified"), "{unverified:?}");
    let wrong = attempt(&["--secret", "another-made-up-secret"]);
    assert!(wrong.code == 1 && wrong.out.contains("refused: no configured secret matches"), "{wrong:?}");

    home.write("hookgate.toml", format!("{}\n{SOURCE}", definition("{body}")));
    let misdefined = attempt(&["--secret-file", &secret]);
    assert_eq!(misdefined.code, 1);
    assert!(misdefined.out.contains("`signed` is probably `{timestamp}.{body}`"), "{}", misdefined.out);
}

#[test]
fn a_trial_names_what_the_definition_gets_wrong() {
    let definition = |header: &str, format: &str, each: &str| {
        format!(
            "[providers.acme.signature]\nalgorithm = \"hmac-sha256\"\nheader = \"{header}\"\nformat = \"{format}\"\n\
             [providers.acme.event]\neach = \"{each}\"\ntype = \"/type\"\ntime = \"/at\"\n"
        )
    };
    let body = r#"{"events":[{"type":"paid","at":"2026-11-30T10:00:00"},{"type":"paid"}]}"#;
    let right = ("Acme-Signature", "sha256={signature}", "/events");
    for ((header, format, each), expected) in [
        (right, "event.each at /events: 2 events"),
        (right, "event.time at /at: 2026-11-30T10:00:00 (neither RFC 3339 with an offset nor unix seconds"),
        ((right.0, right.1, "/event"), "event.each at /event: (no list)"),
        (
            ("X-Signature-Acme", right.1, right.2),
            "If the sender puts it under another name, correct the definition",
        ),
        ((right.0, "{signature}", right.2), "`format` does not fit the value of acme-signature"),
        ((right.0, "{signature}", right.2), "holds no well-formed signature"),
    ] {
        let home = home(&definition(header, format, each));
        home.write("headers", format!("Acme-Signature: sha256={}\n", hmac_hex(body)));
        home.write("body", body);
        let (headers, body) = (home.path("headers"), home.path("body"));
        let (headers, body) = (headers.display().to_string(), body.display().to_string());
        let ran = home.run(&[
            "providers",
            "try",
            "acme",
            "--headers",
            &headers,
            "--body",
            &body,
            "--secret",
            SECRET,
        ]);
        assert!(ran.out.contains(expected), "{expected}: {ran:?}");
    }
}
