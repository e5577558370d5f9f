//! Every key of the grammar of definitions has a case here, whose outcome changes if the key's line is taken away. A key without
//! a case fails.

mod cases;

use std::collections::BTreeSet;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use hookgate::config::Config;
use hookgate::config::definitions;
use hookgate::config::secret::Secret;
use hookgate::provider::normalize::{self, DeliveryOrigin, Document, Normalized};
use hookgate::provider::signature::{Key, SignedRequest, Verified, VerifiedBy, Verifier, verify};
use hookgate::provider::{Catalog, Handshake, HandshakeAnswer, Provider};
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::Sha256;

use cases::cases;

/// What a key does.
struct Case {
    /// Below `providers.NAME`.
    key: &'static str,
    /// A definition. The line of the key ends with `#!`. Of a table, all lines up to the next empty one count.
    toml: &'static str,
    delivery: Delivery,
    /// What must be said of it, by its place in [`outcome`].
    expected: Vec<(&'static str, Value)>,
}

#[test]
fn every_key_of_a_definition_has_a_case() {
    let tried: BTreeSet<_> = cases().iter().map(|case| case.key.to_owned()).collect();
    let keys = Config::keys();
    let known: BTreeSet<_> =
        keys.iter().filter_map(|key| Some(key.name.strip_prefix("providers.NAME.")?.to_owned())).collect();
    assert!(known.len() > 35, "{known:?}");
    // The keys of tables in a list have no rows.
    let listed = ["event.related.id", "event.related.kind"].map(str::to_owned);
    assert_eq!(tried, known.into_iter().chain(listed).collect());
}

#[test]
fn every_key_does_what_its_case_says_and_nothing_without_its_line() {
    for case in cases() {
        let Case { key, toml, delivery, expected } = &case;
        assert_eq!(toml.matches("#!").count(), 1, "{key}");
        let holds = |outcome: &Value| expected.iter().all(|(at, value)| outcome.pointer(at) == Some(value));
        let with = outcome(toml, delivery);
        assert!(holds(&with), "{key}: {with:#}\n{toml}");
        let without = outcome(&without_the_marked(toml), delivery);
        assert!(!holds(&without), "{key} has no effect: {without:#}\n{toml}");
    }
}

#[test]
fn a_definition_takes_from_another_what_it_does_not_say() {
    let chain = "[providers.one]\nlike = \"stripe\"\nretries_for = \"5d\"\n\n\
         [providers.two]\nlike = \"one\"\n\n[providers.two.event]\ntype = \"/kind\"\n\n\
         [providers.acme]\nlike = \"two\"\n\n[providers.acme.event.types]\n\"paid\" = \"invoice.paid\"\n"
        .to_owned();
    let body = r#"{"kind":"paid","type":"other","id":"evt_1"}"#;
    let delivery =
        Delivery::of(body).with("stripe-signature", &format!("t={NOW},v1={}", mac(&format!("{NOW}.{body}"))));
    let told = outcome(&chain, &delivery);
    assert_eq!(told["retries_for"], 432_000, "of one: {told:#}");
    let event = &told["events"][0];
    // The signature is Stripe's, the rules are those of two, and the types its own.
    assert_eq!(
        (&event["verifiedby"], &event["type"], &event["data"]["event"]),
        (&json!("hmac-sha256"), &json!("invoice.paid"), &json!("paid"))
    );
    // The table of two has no id, so Stripe's does not count either.
    assert_ne!(event["id"], "evt_1", "{event:#}");
    let stripe = outcome("[providers.acme]\nlike = \"stripe\"\n", &delivery);
    assert_eq!(stripe["events"][0]["id"], "evt_1", "{stripe:#}");
}

#[test]
fn a_table_replaces_the_same_table_alone() {
    let body = r#"{"type":"url_verification","challenge":"c"}"#;
    let by_slack = |body: &'static str| {
        let signature = format!("v0={}", mac(&format!("v0:{NOW}:{body}")));
        Delivery::of(body)
            .with("x-slack-signature", &signature)
            .with("x-slack-request-timestamp", &NOW.to_string())
    };
    let like = "[providers.acme]\nlike = \"slack\"\n";
    let of = |more: &str, delivery: &Delivery| outcome(&format!("{like}{more}"), delivery);
    let told = of("", &by_slack(body));
    assert_eq!(told["answer"], json!({ "challenge": "c" }), "{told:#}");
    let told = of("handshake = false\n", &by_slack(body));
    assert_eq!(
        (&told["handshake"], told["events"].as_array().map(Vec::len)),
        (&Value::Null, Some(1)),
        "{told:#}"
    );
    let told =
        of("[providers.acme.handshake]\nwhen = { \"/challenge\" = \"c\" }\nstatus = 201\n", &by_slack(body));
    assert_eq!(told["answer"], 201, "{told:#}");
    let own = "[providers.acme.signature]\nalgorithm = \"hmac-sha256\"\nheader = \"x-s\"\n";
    let told = of(own, &by_slack(body));
    assert_eq!(told["refused"], "the header x-s is missing", "{told:#}");
    let told = of(own, &Delivery::of(body).with("x-s", &mac(body)));
    assert_eq!(told["answer"], json!({ "challenge": "c" }), "the handshake is still Slack's: {told:#}");
}

#[test]
fn what_a_built_in_provider_does_in_code_is_taken_with_like() {
    let text = "[providers.acme]\nlike = \"standard-webhooks\"\n";
    let (definitions, mut problems) = definitions::parse(text);
    let catalog = Catalog::of(&definitions, &mut problems);
    assert_eq!(problems, []);
    let [acme, built_in] = ["acme", "standard-webhooks"].map(|name| catalog.by_name(name).unwrap());
    assert_eq!(acme.signing, built_in.signing);
    assert_eq!(acme.code.is_some(), built_in.code.is_some());
    assert!(acme.code.is_some());
    let own = format!("{text}[providers.acme.signature]\nalgorithm = \"hmac-sha256\"\nheader = \"x-s\"\n");
    let delivery = Delivery::of(BODY).with("x-s", &mac(BODY));
    let told = outcome(&own, &delivery);
    let problem = told["problems"][0].as_str().unwrap();
    assert!(problem.contains("header:webhook-id is not covered"), "the inherited id: {told:#}");
    let told = outcome(&format!("{own}[providers.acme.event]\nid = \"/id\"\n"), &delivery);
    assert_eq!(told["events"][0]["verifiedby"], "standard-webhooks", "{told:#}");
}

/// Anduin's code takes the message id as the event's. A definition like it may not sign that header.
#[test]
fn an_id_that_the_signature_of_a_copy_does_not_cover_is_not_the_events() {
    let signature = "algorithm = \"hmac-sha256\"\nheader = \"x-s\"\nid = \"webhook-id\"\n";
    let text = format!("[providers.acme]\nlike = \"anduin\"\n[providers.acme.signature]\n{signature}");
    let id_under = |text: &str, id: &str, signed: &str| {
        let delivery = Delivery::of(BODY).with("webhook-id", id).with("x-s", &mac(signed));
        outcome(text, &delivery)["events"][0]["id"].clone()
    };
    assert_eq!(id_under(&text, "one", BODY), id_under(&text, "another", BODY));
    let covering = format!("{text}signed = \"{{id}}.{{body}}\"\n");
    assert_eq!(id_under(&covering, "one", &format!("one.{BODY}")), "one");
}

#[test]
fn a_definition_that_is_printed_is_the_same_definition() {
    for case in cases() {
        let (definitions, problems) = definitions::parse(case.toml);
        assert_eq!(problems, [], "{}", case.key);
        let shown = definitions::show(&definitions[0], "acme");
        let (again, problems) = definitions::parse(&shown);
        assert_eq!(problems, [], "{}\n{shown}", case.key);
        assert_eq!(again, definitions, "{}\n{shown}", case.key);
        assert_eq!(outcome(&shown, &case.delivery), outcome(case.toml, &case.delivery), "{shown}");
    }
}

#[test]
fn the_valid_config_has_every_key() {
    let text = include_str!("../config/valid/definitions.toml");
    let (definitions, problems) = definitions::parse(text.split("\n[sources").next().unwrap());
    assert_eq!(problems, []);
    let shown: String =
        definitions.iter().map(|definition| definitions::show(definition, &definition.name.value)).collect();
    for key in Config::keys() {
        let Some((_, name)) =
            key.name.strip_prefix("providers.NAME.").map(|key| key.rsplit_once('.').unwrap_or(("", key)))
        else {
            continue;
        };
        let stands = |text: &str| text.contains(&format!("{name} = ")) || text.contains(&format!(".{name}]"));
        assert!(stands(text) && stands(&shown), "{}\n{shown}", key.name);
    }
}

/// A delivery at [`NOW`], and the secret of its source.
struct Delivery {
    headers: HeaderMap,
    body: &'static str,
    secret: &'static str,
}

impl Delivery {
    fn of(body: &'static str) -> Delivery {
        Delivery { headers: HeaderMap::new(), body, secret: SECRET }
    }

    fn with(mut self, name: &'static str, value: &str) -> Delivery {
        self.headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        self
    }
}

/// Everything that a definition decides of a delivery.
fn outcome(toml: &str, delivery: &Delivery) -> Value {
    let (definitions, mut problems) = definitions::parse(toml);
    let catalog = Catalog::of(&definitions, &mut problems);
    let Some(provider) = catalog.by_name("acme").filter(|_| problems.is_empty()) else {
        let problems: Vec<_> = problems.iter().map(|problem| problem.render("")).collect();
        return json!({ "problems": problems });
    };
    let mut told = json!({
        "retries_for": provider.retries_for.map(|time| time.as_secs()),
        "handshake": match provider.handshake {
            None => Value::Null,
            Some(Handshake::Header(header)) => json!({ "header": header }),
            Some(Handshake::Query(query)) => {
                json!({ "query": query.parameter, "post": query.by_post, "token": query.token })
            }
            Some(Handshake::Body(_)) => json!("body"),
        },
    });
    let rest = match read(provider, delivery) {
        Ok(read) => read,
        Err(refused) => json!({ "refused": refused }),
    };
    told.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    told
}

fn read(provider: &'static Provider, delivery: &Delivery) -> Result<Value, String> {
    let target = "/hooks/acme?a=b";
    let request =
        SignedRequest { target, ..SignedRequest::post(&delivery.headers, delivery.body.as_bytes()) };
    let mut verifiers = Vec::new();
    for scheme in provider.signing.schemes() {
        let key = Key::new(scheme, &Secret::new(delivery.secret)).map_err(|error| error.to_string())?;
        verifiers.push(Verifier { scheme: *scheme, keys: vec![key] });
    }
    let verified = match verifiers.as_slice() {
        [] => Verified::by_other_means(VerifiedBy::PathToken, request.body),
        verifiers => verify(verifiers, request, NOW, 300).map_err(|error| error.to_string())?,
    };
    let document = Document::of(provider, &request);
    let contents =
        normalize::read(provider, &verified, &request, &document).map_err(|error| error.to_string())?;
    let path = Arc::from("/hooks/acme");
    let origin = DeliveryOrigin { source: "acme", path: &path, provider, trace: None };
    let at = Timestamp::from_second(NOW).unwrap();
    let age = verified.signed().and_then(|signed| signed.age);
    let events = match normalize::normalize(&origin, &verified, &document, &contents, at) {
        Normalized::Event(event) => vec![*event],
        Normalized::Events(events) => events,
        Normalized::HealthCheck => return Ok(json!({ "answer": 200 })),
        Normalized::Handshake(HandshakeAnswer::Json(text)) => {
            return Ok(json!({ "answer": serde_json::from_str::<Value>(&text).unwrap() }));
        }
        Normalized::Handshake(HandshakeAnswer::Status(status)) => return Ok(json!({ "answer": status })),
        Normalized::Handshake(HandshakeAnswer::Incomplete(member)) => return Err(member.to_owned()),
    };
    let schema = jsonschema::validator_for(&serde_json::from_str(hookgate::event::SCHEMA).unwrap()).unwrap();
    let event = |event: &normalize::NormalizedEvent| {
        let event: Value = serde_json::from_str(&event.event.json).unwrap();
        assert!(schema.is_valid(&event), "{event:#}");
        event
    };
    Ok(json!({ "age": age, "events": events.iter().map(event).collect::<Vec<_>>() }))
}

/// A definition without its marked line. Of a table, without its lines up to the next empty one.
fn without_the_marked(toml: &str) -> String {
    let lines: Vec<&str> = toml.lines().collect();
    let at = lines.iter().position(|line| line.ends_with("#!")).unwrap();
    let is_table = lines[at].starts_with('[');
    let rest = lines[at..].iter().position(|line| line.is_empty()).map_or(lines.len(), |end| at + end);
    [&lines[..at], &lines[if is_table { rest } else { at + 1 }..]].concat().join("\n")
}

/// HMAC-SHA256 under [`SECRET`], in hex.
fn mac(text: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap().chain_update(text);
    hex::encode(mac.finalize().into_bytes())
}

const SECRET: &str = "a-secret-of-some-length";
const NOW: i64 = 1_700_000_000;
const BODY: &str = r#"{"type":"order.paid","id":"ord_1"}"#;
const DATED: &str = r#"{"at":"2023-11-14T22:13:15Z"}"#;
