//! What no command-line test reaches: dates of secrets, and bounds.

use hyper::header::HeaderValue;

use super::*;
use crate::signature::{Key, SignatureError, sign};

const SCHEMES: [Scheme; 3] = [Scheme::StandardWebhooks, Scheme::Bond { accept_v1: false }, Scheme::Iof];
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const MISMATCH: SignatureError = SignatureError::Mismatch { tried: 1 };

fn second(at: i64) -> Timestamp {
    Timestamp::from_second(at).unwrap()
}

fn signed(scheme: Scheme, body: &[u8]) -> HeaderMap {
    let key = Key::new(scheme, &Secret::new(SECRET)).unwrap();
    let headers = sign(scheme, &key, "msg_1", 1000, body);
    headers
        .into_iter()
        .map(|(name, value)| (name.parse().unwrap(), HeaderValue::try_from(value).unwrap()))
        .collect()
}

fn diagnosed(scheme: Scheme, dates: [Option<Timestamp>; 2], error: &SignatureError) -> Vec<Mistake> {
    let body = b"{\"a\":1}";
    let [not_before, not_after] = dates;
    let known = Known { source: "own", slot: 3, secret: Secret::new(SECRET), not_before, not_after };
    let headers = signed(scheme, body);
    diagnose(&Case {
        scheme,
        secrets: &[known],
        source: "own",
        headers: &headers,
        body,
        error,
        at: second(1000),
    })
}

#[test]
fn a_secret_that_does_not_count_at_that_time_is_told_with_its_dates() {
    for scheme in SCHEMES {
        for dates in
            [[Some(second(1001)), None], [None, Some(second(1000))], [Some(second(1)), Some(second(9))]]
        {
            let [not_before, not_after] = dates;
            let told = diagnosed(scheme, dates, &MISMATCH);
            assert_eq!(told, [Mistake::SecretNotCurrent { slot: 3, not_before, not_after }]);
        }
        let current = [Some(second(1000)), Some(second(1001))];
        assert_eq!(
            diagnosed(scheme, current, &MISMATCH),
            [Mistake::Unexplained],
            "nothing is wrong that it knows"
        );
    }
}

/// What is said of these headers and this body, of a source that has the secret.
fn told(scheme: Scheme, headers: &[(&'static str, String)], body: &[u8]) -> Vec<Mistake> {
    let known =
        Known { source: "own", slot: 0, secret: Secret::new(SECRET), not_before: None, not_after: None };
    let headers = headers
        .iter()
        .map(|(name, value)| (name.parse().unwrap(), HeaderValue::try_from(value).unwrap()))
        .collect();
    let (secrets, at) = (&[known][..], second(1000));
    diagnose(&Case { scheme, secrets, source: "own", headers: &headers, body, error: &MISMATCH, at })
}

/// The digest that the secret's text makes of a body at 1000.
fn hex_digest(body: &[u8]) -> String {
    let key = Key::new(Scheme::Iof, &Secret::new(SECRET)).unwrap();
    hex::encode(key.digest(&[b"1000.", body]))
}

#[test]
fn a_digest_under_another_version_is_told_with_the_one_it_should_have() {
    let body = b"{\"a\": 1}";
    let hex = hex_digest(body);
    let header = |text: String| vec![("x-iof-signature", text)];
    let due = Mistake::Versioned { header: "x-iof-signature", due: "v1=" };
    assert_eq!(told(Scheme::Iof, &header(format!("t=1000,v2={hex}")), body)[1..], [due]);

    let bond = Scheme::Bond { accept_v1: false };
    let header = |text: String| vec![("bond-signature", text)];
    let due = Mistake::Versioned { header: "bond-signature", due: "v2=" };
    assert_eq!(told(bond, &header(format!("t=1000,v3={hex}")), body)[1..], [due]);
    let old = told(bond, &header(format!("t=1000,v1={hex}")), body);
    assert_eq!(old, [Mistake::OldVersion], "a body as Python writes it is the same under the old version");

    let mut signed = sign(
        Scheme::StandardWebhooks,
        &Key::new(Scheme::StandardWebhooks, &Secret::new(SECRET)).unwrap(),
        "msg_1",
        1000,
        body,
    );
    let digest = signed[2].1.strip_prefix("v1,").unwrap().to_owned();
    signed[2].1 = format!("v2,{digest}");
    let due = Mistake::Versioned { header: "webhook-signature", due: "v1," };
    assert_eq!(told(Scheme::StandardWebhooks, &signed, body)[1..], [due]);
}

#[test]
fn what_matches_nothing_is_still_told_to_be_spelt_wrong() {
    let header = |text: String| vec![("x-iof-signature", text)];
    let other = hex_digest(b"another");
    let base64 = digest::to_base64(&<[u8; 32]>::try_from(hex::decode(&other).unwrap()).unwrap());
    let spelt = Mistake::Spelt { found: Spelling::Base64, due: Spelling::Hex };
    let both = format!("t=1000,v1={base64},v1={base64}");
    assert_eq!(told(Scheme::Iof, &header(both), b"{}"), [spelt, Mistake::Unexplained]);
    let one = format!("t=1000,v1={base64},v1={}", other.to_uppercase());
    assert_eq!(told(Scheme::Iof, &header(one), b"{}"), [Mistake::Unexplained], "one of them could pass");
}

#[test]
fn a_missing_timestamp_is_told_once() {
    let header = |text: String| vec![("x-iof-signature", text)];
    let hex = hex_digest(b"{}");
    let apart = told(Scheme::Iof, &header(format!("sha256={hex}")), b"{}");
    assert_eq!(apart, [Mistake::HeaderMissing("x-iof-timestamp")]);
    let within = told(Scheme::Iof, &header(format!("v1={hex}")), b"{}");
    assert_eq!(within, [Mistake::TimestampMissing("x-iof-signature")]);
}

#[test]
fn only_versions_are_taken_for_one() {
    let hex = hex_digest(b"{}");
    let said = |text: String| told(Scheme::Iof, &[("x-iof-signature", text)], b"{}");
    let unknown = Mistake::UnknownVersion { header: "x-iof-signature", known: &["v1", "sha256"] };
    assert!(!said(format!("t=1000,nonce={hex},v1={hex}")).contains(&unknown));
    assert!(said(format!("t=1000,v9={hex}")).contains(&unknown));
    let alone = said(format!("t=1000,mac={hex}"));
    assert!(alone.contains(&Mistake::NoDigest { header: "x-iof-signature", bytes: 0 }), "{alone:?}");
}

#[test]
fn a_long_number_as_javascript_rounds_it_is_recognised() {
    let sent = br#"{"account":12345678901234567890}"#;
    let rounded = br#"{"account":12345678901234567000}"#;
    let header = vec![("x-iof-signature", format!("t=1000,v1={}", hex_digest(rounded)))];
    let told = told(Scheme::Iof, &header, sent);
    assert!(
        matches!(
            told[..],
            [Mistake::Altered(Alteration::Rewritten(Style { numbers: Numbers::Javascript, .. }))]
        ),
        "{told:?}"
    );
}

#[test]
fn an_age_is_told_from_another_unit() {
    let outside = |age| SignatureError::OutsideTolerance { age, tolerance: 300 };
    let told = |age| diagnosed(Scheme::Iof, [None, None], &outside(age));
    assert_eq!(told(301), [Mistake::Stale { age: 301, tolerance: 300 }]);
    assert_eq!(told(-301), [Mistake::Ahead { by: 301, tolerance: 300 }]);
    assert_eq!(told(1_795_000_000 - 1_795_000_000_000), [Mistake::TimestampTooFine]);
    assert_eq!(told(i64::MIN), [Mistake::TimestampTooFine]);
}

#[test]
fn a_body_too_large_for_every_hypothesis_still_gets_the_likelier_ones() {
    let scheme = Scheme::Iof;
    let mut body = vec![b'x'; 2 << 20];
    let headers = signed(scheme, &body);
    body.push(b'\n');
    let case = |body| {
        let secret = Secret::new(SECRET);
        let known = Known { source: "own", slot: 0, secret, not_before: None, not_after: None };
        let (secrets, at) = (&[known][..], second(1000));
        diagnose(&Case { scheme, secrets, source: "own", headers: &headers, body, error: &MISMATCH, at })
    };
    assert_eq!(case(&body), [Mistake::Altered(Alteration::LineBreakAdded)]);
    assert_eq!(case(&body[1..]), [Mistake::BodyNotJson]);
}
