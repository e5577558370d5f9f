//! `hookgate verify` for a provider that the config defines: where the definition is wrong, it names the key and what that key
//! probably is.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use support::Home;

#[test]
fn a_wrong_key_of_a_definition_is_named_with_what_it_probably_is() {
    for Wrong { key, value, definition, sent } in wrong() {
        let told = told(definition, sent.clone());
        let [finding] = told["findings"].as_array().unwrap().as_slice() else { panic!("{key}: {told:#}") };
        assert_eq!(finding["mistake"], "definition", "{key} = {value}: {told:#}\n{definition}");
        let fix = finding["fix"].as_str().unwrap();
        let probably = match key {
            "signed" => format!("`signed` is probably `{value}`"),
            key => format!("`{key}` is probably {value:?}"),
        };
        assert!(fix.contains(&probably), "{probably}: {fix}\n{definition}");
        assert_eq!(
            (&told["verdict"], told["reason"].as_str().unwrap().starts_with("signature_")),
            (&"fail".into(), true)
        );
        // With the value that it says, the delivery passes.
        let corrected = with(definition, key, value);
        let passed = self::told(&corrected, sent);
        assert_eq!(
            (&passed["verdict"], &passed["findings"]),
            (&"pass".into(), &Value::Array(vec![])),
            "{corrected}\n{passed:#}"
        );
    }
}

#[test]
fn what_a_built_in_provider_signs_is_never_called_a_mistake_of_its_definition() {
    let home = Home::new(&format!("[sources.acme]\nprovider = \"github\"\nsecrets = [\"{SECRET}\"]\n"));
    let sent = Sent::by("x-hub-signature-256", format!("sha256={}", hex(SECRET, &format!("1.{BODY}"))));
    let told = ran(&home, sent.and("x-acme-time", "1"));
    let findings = told["findings"].as_array().unwrap();
    assert!(findings.iter().all(|finding| finding["mistake"] != "definition"), "{told:#}");
}

#[test]
fn two_keys_that_are_wrong_are_both_named() {
    let definition =
        "algorithm = \"hmac-sha256\"\nheader = \"x-s\"\nencoding = \"base64\"\nsigned = \"{body}.\"\n";
    let told = told(definition, Sent::by("x-s", hex(SECRET, BODY)));
    let fixes: Vec<_> =
        told["findings"].as_array().unwrap().iter().map(|finding| finding["fix"].as_str().unwrap()).collect();
    let [signed, encoding] = fixes.as_slice() else { panic!("{told:#}") };
    assert!(
        signed.contains("`signed` is probably `{body}`")
            && encoding.contains("`encoding` is probably \"hex\""),
        "{told:#}"
    );
}

#[test]
fn of_several_signatures_the_one_that_the_delivery_uses_is_explained() {
    let definition = "algorithm = \"ed25519\"\nheader = \"x-ed\"\n\n[[providers.acme.signature]]\n\
                      algorithm = \"hmac-sha256\"\nheader = \"x-s\"\nsigned = \"v1{body}\"\n";
    let told = told(definition, Sent::by("x-s", hex(SECRET, BODY)));
    let fix = told["findings"][0]["fix"].as_str().unwrap();
    assert!(fix.contains("`signed` is probably `{body}`"), "{told:#}");
}

struct Wrong {
    key: &'static str,
    value: &'static str,
    definition: &'static str,
    sent: Sent,
}

fn wrong() -> Vec<Wrong> {
    let timed = TIMED;
    let stamped = |text: String| Sent::by("x-s", hex(SECRET, &text)).and("x-t", STAMP);
    let plain = "algorithm = \"hmac-sha256\"\nheader = \"x-s\"\n";
    let case = |key, value, definition, sent| Wrong { key, value, definition, sent };
    let spelled = |text: String| Sent::by("x-s", text);
    vec![
        case("signed", "{body}", timed, stamped(BODY.to_owned())),
        case("signed", "{timestamp}:{body}", timed, stamped(format!("{STAMP}:{BODY}"))),
        case("signed", "{timestamp}{body}", timed, stamped(format!("{STAMP}{BODY}"))),
        case("signed", "{body}.{timestamp}", timed, stamped(format!("{BODY}.{STAMP}"))),
        case("signed", "{body}{timestamp}", timed, stamped(format!("{BODY}{STAMP}"))),
        case("signed", "v0:{timestamp}:{body}", timed, stamped(format!("v0:{STAMP}:{BODY}"))),
        case("signed", "{url}{body}", plain, spelled(hex(SECRET, &format!("{URL}{PATH}{BODY}")))),
        case("signed", "{method}{url}{body}", plain, spelled(hex(SECRET, &format!("POST{URL}{PATH}{BODY}")))),
        case("signed", "{path}{body}", plain, spelled(hex(SECRET, &format!("{PATH}{BODY}")))),
        // A timestamp in a header that the definition does not name.
        case(
            "signed",
            "{header:x-acme-time}.{body}",
            plain,
            spelled(hex(SECRET, &format!("{STAMP}.{BODY}"))).and("x-acme-time", STAMP),
        ),
        case(
            "signed",
            "{header:x-acme-time}{body}",
            plain,
            spelled(hex(SECRET, &format!("{STAMP}{BODY}"))).and("x-acme-time", STAMP),
        ),
        case("encoding", "base64", plain, spelled(STANDARD.encode(mac(SECRET.as_bytes(), BODY)))),
        case(
            "encoding",
            "base64url",
            plain,
            spelled(URL_SAFE.encode(mac(SECRET.as_bytes(), URL_BODY))).of(URL_BODY),
        ),
        case("encoding", "hex", BASE64, spelled(hex(SECRET, BODY))),
        case(
            "algorithm",
            "hmac-sha1",
            plain,
            spelled(hex::encode(
                Hmac::<Sha1>::new_from_slice(SECRET.as_bytes())
                    .unwrap()
                    .chain_update(BODY)
                    .finalize()
                    .into_bytes(),
            )),
        ),
        case(
            "algorithm",
            "hmac-sha384",
            plain,
            spelled(hex::encode(
                Hmac::<Sha384>::new_from_slice(SECRET.as_bytes())
                    .unwrap()
                    .chain_update(BODY)
                    .finalize()
                    .into_bytes(),
            )),
        ),
        case(
            "algorithm",
            "hmac-sha512",
            plain,
            spelled(hex::encode(
                Hmac::<Sha512>::new_from_slice(SECRET.as_bytes())
                    .unwrap()
                    .chain_update(BODY)
                    .finalize()
                    .into_bytes(),
            )),
        ),
        case("algorithm", "hmac-sha256", SHA512, spelled(hex(SECRET, BODY))),
        case("secret", "hex", plain, spelled(hex::encode(mac(&hex::decode(SECRET).unwrap(), BODY)))),
        case("secret", "base64", plain, spelled(hex::encode(mac(&STANDARD.decode(SECRET).unwrap(), BODY)))),
        case("secret", "text", OF_HEX, spelled(hex(SECRET, BODY))),
    ]
}

/// A delivery that its sender signed as it should.
#[derive(Clone)]
struct Sent {
    headers: Vec<(&'static str, String)>,
    body: &'static str,
}

impl Sent {
    fn by(header: &'static str, signature: String) -> Sent {
        Sent { headers: vec![(header, signature)], body: BODY }
    }

    fn and(mut self, header: &'static str, value: &str) -> Sent {
        self.headers.push((header, value.to_owned()));
        self
    }

    fn of(self, body: &'static str) -> Sent {
        Sent { body, ..self }
    }
}

/// The definition with another value of one key.
fn with(definition: &str, key: &str, value: &str) -> String {
    let others = definition.lines().filter(|line| !line.starts_with(&format!("{key} = ")));
    others.chain([format!("{key} = {value:?}").as_str()]).map(|line| format!("{line}\n")).collect()
}

fn told(definition: &str, sent: Sent) -> Value {
    let home = Home::new(&format!(
        "edge.public_url = \"{URL}\"\n[[providers.acme.signature]]\n{definition}\n[sources.acme]\nprovider = \"acme\"\n\
         secrets = [\"{SECRET}\"]\n"
    ));
    ran(&home, sent)
}

/// What the command says, which is nothing secret.
fn ran(home: &Home, sent: Sent) -> Value {
    let lines = sent.headers.iter().map(|(name, value)| format!("{name}: {value}\n"));
    home.write("headers", lines.collect::<String>());
    home.write("body", sent.body);
    let ran = home.run(&[
        "verify",
        "--source",
        "acme",
        "--headers",
        "headers",
        "--body",
        "body",
        "--at",
        STAMP,
        "--json",
    ]);
    for hidden in [SECRET, &sent.headers[0].1, &hex(SECRET, sent.body)] {
        assert!(!ran.out.contains(hidden) && !ran.err.contains(hidden), "{hidden} is in {ran:?}");
    }
    let [told] = &ran.json()[..] else { panic!("{ran:?}") };
    assert_eq!(ran.code, i32::from(told["verdict"] == "fail"), "{ran:?}");
    told.clone()
}

fn hex(key: &str, text: &str) -> String {
    hex::encode(mac(key.as_bytes(), text))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(text).finalize().into_bytes().to_vec()
}

const TIMED: &str =
    "algorithm = \"hmac-sha256\"\nheader = \"x-s\"\ntimestamp = \"x-t\"\nsigned = \"{timestamp}.{body}\"\n";
const BASE64: &str = "algorithm = \"hmac-sha256\"\nheader = \"x-s\"\nencoding = \"base64\"\n";
const SHA512: &str = "algorithm = \"hmac-sha512\"\nheader = \"x-s\"\n";
const OF_HEX: &str = "algorithm = \"hmac-sha256\"\nheader = \"x-s\"\nsecret = \"hex\"\n";
const URL: &str = "https://hooks.example.com";
const PATH: &str = "/hooks/acme";
const STAMP: &str = "1795000000";
/// Hex, and base64 too.
const SECRET: &str = "8f14e45fceea167a5a36dedd4bea2543c9f0f895fb98ab9159f51fd0297e236d";
const BODY: &str = r#"{"type":"order.paid","id":"ord_1"}"#;
/// Its digest has a character that only the alphabet for URLs has.
const URL_BODY: &str = r#"{"type":"order.paid","id":"ord_2"}"#;
