//! For every scheme: what was signed passes, and one changed bit anywhere does not. The signing here is not the verifier's: it is
//! the `standardwebhooks` crate, and plain HMAC-SHA256 for the others. Of what a diagnosis says, the cases that no test of the
//! command reaches.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use hookgate::config::secret::Secret;
use hookgate::provider::catalog;
use hookgate::provider::signature::diagnosis::{
    Alteration, KnownSecret, Mistake, Numbers, RefusedDelivery, Spelling, Style, diagnose,
};
use hookgate::provider::signature::{
    Algorithm, Encoding, Key, Scheme, SignatureError, SignedRequest, Verified, Verifier, sign, verify,
};
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;
use sha2::Sha256;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const TOLERANCE: i64 = 300;
const MISMATCH: SignatureError = SignatureError::Mismatch { tried: 1 };

/// A way to sign, and how the gateway is to verify it.
#[derive(Clone, Copy, Debug)]
enum Form {
    StandardWebhooks,
    BondV2,
    IofPairs,
    IofSha256,
}

const FORMS: [Form; 4] = [Form::StandardWebhooks, Form::BondV2, Form::IofPairs, Form::IofSha256];

impl Form {
    fn scheme(self) -> Scheme {
        scheme_of(match self {
            Form::StandardWebhooks => "basiq",
            Form::BondV2 => "atelio",
            Form::IofPairs | Form::IofSha256 => "iof",
        })
    }

    fn sign(self, id: &str, at: i64, body: &[u8]) -> Vec<(&'static str, String)> {
        let hex = |at: i64| {
            let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
            mac.update(format!("{at}.").as_bytes());
            mac.update(body);
            hex::encode(mac.finalize().into_bytes())
        };
        match self {
            Form::StandardWebhooks => {
                let signature = standardwebhooks::Webhook::new(SECRET).unwrap().sign(id, at, body).unwrap();
                vec![
                    ("webhook-id", id.to_owned()),
                    ("webhook-timestamp", at.to_string()),
                    ("webhook-signature", signature),
                ]
            }
            Form::BondV2 => vec![("bond-signature", format!("t={at},v2={}", hex(at)))],
            Form::IofPairs => vec![("x-iof-signature", format!("t={at},v1={}", hex(at)))],
            Form::IofSha256 => {
                vec![("x-iof-timestamp", at.to_string()), ("x-iof-signature", format!("sha256={}", hex(at)))]
            }
        }
    }
}

fn scheme_of(provider: &str) -> Scheme {
    catalog::built_in(provider).unwrap().signing.schemes()[0]
}

fn headers(of: &[(&'static str, String)]) -> Option<HeaderMap> {
    let value = |text: &String| HeaderValue::from_bytes(text.as_bytes()).ok();
    of.iter().map(|(name, text)| Some((HeaderName::from_static(name), value(text)?))).collect()
}

fn check<'a>(
    form: Form,
    headers: &'a HeaderMap,
    body: &'a [u8],
    now: i64,
) -> Result<Verified<'a>, SignatureError> {
    verify(verifiers(form, &[SECRET]), SignedRequest::post(headers, body), now, TOLERANCE)
}

/// The verifiers of a source with these secrets. A test makes few, so they are leaked.
fn verifiers(form: Form, secrets: &[&str]) -> &'static [Verifier] {
    let scheme = form.scheme();
    let key = |(slot, secret): (usize, &&str)| Key::new(&scheme, &Secret::new(*secret)).unwrap().at(slot);
    let keys = secrets.iter().enumerate().map(key).collect();
    Box::leak(Box::new([Verifier { scheme, keys }]))
}

fn form() -> impl Strategy<Value = Form> {
    proptest::sample::select(FORMS.to_vec())
}

proptest! {
    #[test]
    fn what_was_signed_passes(
        form in form(), id in "[!-~]{1,40}", at in 1_000_000_000_i64..4_000_000_000,
        body in "\\PC{0,120}", drift in -TOLERANCE..=TOLERANCE,
    ) {
        let body = body.into_bytes();
        let headers = headers(&form.sign(&id, at, &body)).unwrap();
        let verified = check(form, &headers, &body, at + drift).unwrap();
        prop_assert_eq!(verified.body(), &body[..]);
        prop_assert_eq!(verified.signed().unwrap().age, Some(drift));
        let late = check(form, &headers, &body, at + TOLERANCE + 1).unwrap_err();
        prop_assert_eq!(late, SignatureError::OutsideTolerance { age: TOLERANCE + 1, tolerance: TOLERANCE });
        prop_assert!(check(form, &headers, &body, at - TOLERANCE - 1).is_err());
    }

    #[test]
    fn a_list_passes_with_one_good_entry_however_it_is_joined(
        entries in proptest::collection::vec(
            prop_oneof!["v1,[A-Za-z0-9+/]{43}=", "v1a,[A-Za-z0-9+/]{86}==", "v2,[a-z0-9]{0,20}", "v1,[a-z]{0,9}"], 0..5),
        at in any::<prop::sample::Index>(), between in "[ \t]{0,2},[ \t]{0,2}|[ \t]{1,3}", lines in 1..4_usize,
    ) {
        let signed = Form::StandardWebhooks.sign("msg_1", 1_700_000_000, b"{}");
        let mut list = entries.clone();
        list.insert(at.index(entries.len() + 1), signed[2].1.clone());
        for (list, passes) in [(list, true), (entries, false)] {
            let lines = list.chunks(list.len().div_ceil(lines).max(1)).map(|line| line.join(&between));
            let sent: Vec<_> = signed[..2].iter().cloned().chain(lines.map(|line| ("webhook-signature", line))).collect();
            let headers = headers(&sent).unwrap();
            let checked = check(Form::StandardWebhooks, &headers, b"{}", 1_700_000_000);
            prop_assert_eq!(checked.is_ok(), passes, "{:?}", sent);
        }
    }

    #[test]
    fn pairs_pass_with_blanks_and_in_either_case(
        form in prop_oneof![Just(Form::BondV2), Just(Form::IofPairs), Just(Form::IofSha256)],
        blanks in proptest::collection::vec("[ \t]{0,2}", 4), more in "|,|,x=1|,v9=00|x,|t,",
        upper in any::<bool>(),
    ) {
        let mut signed = form.sign("", 1_700_000_000, b"{}");
        let value = &mut signed.last_mut().unwrap().1;
        let pairs: Vec<String> = value
            .split(',')
            .map(|pair| {
                let (key, text) = pair.split_once('=').unwrap();
                let text = if upper { text.to_uppercase() } else { text.to_owned() };
                let [a, b, c, d] = &blanks[..] else { unreachable!() };
                format!("{a}{key}{b}={c}{text}{d}")
            })
            .collect();
        let pairs = pairs.join(",");
        *value = if more.starts_with(',') { pairs + &more } else { more + &pairs };
        prop_assert!(check(form, &headers(&signed).unwrap(), b"{}", 1_700_000_000).is_ok(), "{:?}", signed);
    }

    #[test]
    fn one_changed_bit_in_the_body_is_refused(
        form in form(), body in "\\PC{1,80}", at in any::<prop::sample::Index>(), bit in 0..8_u32,
    ) {
        let body = body.into_bytes();
        let headers = headers(&form.sign("msg_1", 1_700_000_000, &body)).unwrap();
        let mut changed = body.clone();
        changed[at.index(body.len())] ^= 1_u8 << bit;
        let refused = check(form, &headers, &changed, 1_700_000_000).unwrap_err();
        prop_assert_eq!(refused, SignatureError::Mismatch { tried: 1 });
    }

    #[test]
    fn no_headers_make_it_panic(form in form(), values in proptest::collection::vec(".{0,80}", 3), body in ".{0,40}") {
        let names = match form {
            Form::StandardWebhooks => ["webhook-id", "webhook-timestamp", "webhook-signature"],
            Form::BondV2 => ["bond-signature", "x-a", "x-b"],
            Form::IofPairs | Form::IofSha256 => ["x-iof-signature", "x-iof-timestamp", "x-b"],
        };
        let pairs: Vec<_> = names.into_iter().zip(values).collect();
        if let Some(headers) = headers(&pairs) {
            prop_assert!(check(form, &headers, body.as_bytes(), 1_700_000_000).is_err());
        }
    }
}

#[test]
fn one_changed_bit_in_any_signing_header_is_refused() {
    let (at, body) = (1_700_000_000, br#"{"a":1}"#);
    for form in FORMS {
        let signed = form.sign("msg_1", at, body);
        let mut tried = 0;
        for which in 0..signed.len() {
            for bit in 0..signed[which].1.len() * 8 {
                let mut bytes = signed[which].1.clone().into_bytes();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let Ok(value) = HeaderValue::from_bytes(&bytes) else { continue };
                // The other case of a hex digit is no change of what is claimed.
                let text = signed[which].1.as_bytes();
                let hex = form.scheme().encoding == Encoding::Hex && text.len() - bit / 8 <= 64;
                if hex && bytes.eq_ignore_ascii_case(text) {
                    continue;
                }
                let mut changed = headers(&signed).unwrap();
                changed.insert(signed[which].0, value);
                tried += 1;
                assert!(
                    check(form, &changed, body, at).is_err(),
                    "{form:?}: bit {bit} of {}",
                    signed[which].0
                );
            }
        }
        assert!(tried > 300, "{form:?} was tried {tried} times only");
    }
}

#[test]
fn a_key_of_another_secret_never_matches_and_the_slot_tells_which_did() {
    let (at, body) = (1_700_000_000, b"{}");
    let other = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    for form in FORMS {
        let headers = headers(&form.sign("msg_1", at, body)).unwrap();
        let request = SignedRequest::post(&headers, body);
        let verified = verify(verifiers(form, &[other, SECRET]), request, at, TOLERANCE).unwrap();
        assert_eq!(verified.signed().unwrap().slot, 1);
        let refused = verify(verifiers(form, &[other]), request, at, TOLERANCE).unwrap_err();
        assert_eq!(refused, SignatureError::Mismatch { tried: 1 });
    }
}

#[test]
fn a_key_counts_from_its_first_second_to_the_last_before_its_end() {
    let at = 1_700_000_000;
    let signed = FORMS.map(|form| (form.scheme(), form.sign("msg_1", at, b"{}"), "{}".to_owned()));
    // Its secret is not a key: the body has it.
    let told = json!({ "value": [{ "clientState": SECRET, "subscriptionId": "s" }] }).to_string();
    let told = (scheme_of("microsoft-graph"), Vec::new(), told);
    for (scheme, sent, body) in signed.into_iter().chain([told]) {
        let headers = headers(&sent).unwrap();
        let checked = |not_before: Option<i64>, not_after: Option<i64>| {
            let key = Key::new(&scheme, &Secret::new(SECRET)).unwrap();
            let keys = vec![key.within(not_before.map(second), not_after.map(second))];
            let request = SignedRequest::post(&headers, body.as_bytes());
            verify(&[Verifier { scheme, keys }], request, at, TOLERANCE).map(|_| ())
        };
        for (not_before, not_after) in [(Some(at), None), (None, Some(at + 1)), (Some(at), Some(at + 1))] {
            assert_eq!(checked(not_before, not_after), Ok(()), "{sent:?} {not_before:?} {not_after:?}");
        }
        for (not_before, not_after) in [(Some(at + 1), None), (None, Some(at)), (Some(at - 9), Some(at))] {
            let refused = checked(not_before, not_after).unwrap_err();
            assert_eq!(
                refused,
                SignatureError::Mismatch { tried: 0 },
                "{sent:?} {not_before:?} {not_after:?}"
            );
        }
    }
}

#[test]
fn a_secret_that_anybody_could_guess_is_refused_at_load() {
    for text in ["whsec_", "whsec_c2hvcnQ=", "rfiuheo43934"] {
        assert!(Key::new(&scheme_of("basiq"), &Secret::new(text)).is_err(), "{text}");
    }
}

#[test]
fn a_signature_given_twice_is_one() {
    let (at, body) = (1_700_000_000, b"{}");
    for form in FORMS {
        let mut signed = form.sign("msg_1", at, body);
        let list = &mut signed.last_mut().unwrap().1;
        *list = match form {
            Form::StandardWebhooks => format!("{list} {list}"),
            Form::BondV2 | Form::IofPairs => format!("{list},{}", list.rsplit(',').next().unwrap()),
            Form::IofSha256 => format!("{list},{list}"),
        };
        assert!(check(form, &headers(&signed).unwrap(), body, at).is_ok(), "{form:?}");
    }
}

#[test]
fn an_id_or_a_timestamp_that_comes_twice_is_malformed() {
    let at = 1_700_000_000;
    let signed = Form::StandardWebhooks.sign("msg_1", at, b"{}");
    for name in ["webhook-id", "webhook-timestamp"] {
        let value = signed.iter().find(|(known, _)| *known == name).unwrap().1.clone();
        let mut headers = headers(&signed).unwrap();
        headers.append(name, HeaderValue::from_str(&value).unwrap());
        let refused = check(Form::StandardWebhooks, &headers, b"{}", at).unwrap_err();
        assert_eq!(refused, SignatureError::Malformed(name, "is there more than once"));
    }
    let mut signed = Form::IofSha256.sign("", at, b"{}");
    signed[1].1 += ",t=1,t=1";
    let refused = check(Form::IofSha256, &headers(&signed).unwrap(), b"{}", at).unwrap_err();
    assert_eq!(refused, SignatureError::Malformed("x-iof-signature", "holds more than one timestamp"));
}

#[test]
fn a_list_without_a_known_version_is_malformed() {
    let mut signed = Form::StandardWebhooks.sign("msg_1", 1_700_000_000, b"{}");
    let digest = signed[2].1.strip_prefix("v1,").unwrap().to_owned();
    for list in
        [format!("v2,{digest}"), format!("v1a,{digest}, v3,{digest}"), format!("v1 {digest}"), ",".to_owned()]
    {
        signed[2].1 = list;
        let refused =
            check(Form::StandardWebhooks, &headers(&signed).unwrap(), b"{}", 1_700_000_000).unwrap_err();
        let expected = "the header webhook-signature holds no well-formed v1 signature";
        assert_eq!(refused.to_string(), expected, "{signed:?}");
    }
}

#[test]
fn a_list_with_any_other_number_of_timestamps_than_one_says_so() {
    let at = 1_700_000_000;
    for (form, header) in [(Form::BondV2, "bond-signature"), (Form::IofPairs, "x-iof-signature")] {
        let list = form.sign("msg_1", at, b"{}").remove(0).1;
        for (list, expected) in [
            (format!("t={at},{list}"), "holds more than one timestamp"),
            (list.split_once(',').unwrap().1.to_owned(), "holds no timestamp"),
            (list.replace(&at.to_string(), ""), "holds no timestamp in unix seconds"),
        ] {
            let refused = check(form, &headers(&[(header, list.clone())]).unwrap(), b"{}", at).unwrap_err();
            assert_eq!(refused, SignatureError::Malformed(header, expected), "{list}");
        }
    }
}

/// `id.timestamp.body` is signed, so an id with a dot may hold what was signed as timestamp and as the start of a body: the same
/// signature would then vouch for the rest of that body, at another time, under as many ids as it has such places.
#[test]
fn an_id_that_takes_the_start_of_a_signed_body_to_itself_is_refused() {
    let now = 1_796_020_181;
    let old = now - 86_400;
    for start in ["{\"note\":\"a", "[\"a", " {\"note\":\"a", "\"a", "\t[1"] {
        let signed = format!("{start}.{now}.rest\"}}");
        let (_, signature) = Form::StandardWebhooks.sign("msg_1", old, signed.as_bytes()).remove(2);
        let forged = [
            ("webhook-id", format!("msg_1.{old}.{start}")),
            ("webhook-timestamp", now.to_string()),
            ("webhook-signature", signature),
        ];
        let headers = headers(&forged).unwrap();
        let refused = check(Form::StandardWebhooks, &headers, b"rest\"}", now);
        assert!(matches!(refused, Err(SignatureError::Malformed("webhook-id", _))), "{start}: {refused:?}");
    }
    // Dots alone are in some senders' ids, numbers between them too.
    for id in ["msg.1", "a.b.c", "evt.1796020181.7", "evt.1796020181.a{", ".1.", "1796020181."] {
        let genuine = headers(&Form::StandardWebhooks.sign(id, now, b"{}")).unwrap();
        assert!(check(Form::StandardWebhooks, &genuine, b"{}", now).is_ok(), "{id}");
    }
}

// -- why one does not match

fn second(at: i64) -> Timestamp {
    Timestamp::from_second(at).unwrap()
}

fn signed(scheme: &Scheme, body: &[u8]) -> HeaderMap {
    let key = Key::new(scheme, &Secret::new(SECRET)).unwrap();
    let unsigned = HeaderMap::new();
    headers(&sign(scheme, &key, "msg_1", 1000, SignedRequest::post(&unsigned, body)).unwrap()).unwrap()
}

fn diagnosed(scheme: &Scheme, dates: [Option<Timestamp>; 2], error: &SignatureError) -> Vec<Mistake> {
    let body = b"{\"a\":1}";
    let [not_before, not_after] = dates;
    let known = KnownSecret { source: "own", slot: 3, secret: Secret::new(SECRET), not_before, not_after };
    let headers = signed(scheme, body);
    diagnose(&RefusedDelivery {
        scheme,
        secrets: &[known],
        source: "own",
        request: SignedRequest::post(&headers, body),
        is_defined: false,
        error,
        at: second(1000),
    })
}

#[test]
fn a_secret_that_does_not_count_at_that_time_is_told_with_its_dates() {
    for scheme in ["basiq", "atelio", "iof"].map(scheme_of) {
        for dates in
            [[Some(second(1001)), None], [None, Some(second(1000))], [Some(second(1)), Some(second(9))]]
        {
            let [not_before, not_after] = dates;
            let told = diagnosed(&scheme, dates, &MISMATCH);
            assert_eq!(told, [Mistake::SecretNotCurrent { slot: 3, not_before, not_after }]);
        }
        let current = [Some(second(1000)), Some(second(1001))];
        assert_eq!(
            diagnosed(&scheme, current, &MISMATCH),
            [Mistake::Unexplained],
            "nothing is wrong that it knows"
        );
    }
}

/// What is said of these headers and this body, of a source that has the secret.
fn told(scheme: &Scheme, sent: &[(&'static str, String)], body: &[u8]) -> Vec<Mistake> {
    let known = KnownSecret {
        source: "own",
        slot: 0,
        secret: Secret::new(SECRET),
        not_before: None,
        not_after: None,
    };
    let headers = headers(sent).unwrap();
    let (secrets, at) = (&[known][..], second(1000));
    diagnose(&RefusedDelivery {
        scheme,
        secrets,
        source: "own",
        request: SignedRequest::post(&headers, body),
        is_defined: false,
        error: &MISMATCH,
        at,
    })
}

/// The digest that the secret's text makes of a body at 1000.
fn hex_digest(body: &[u8]) -> String {
    let (_, header) = Form::IofPairs.sign("", 1000, body).remove(0);
    header.strip_prefix("t=1000,v1=").unwrap().to_owned()
}

#[test]
fn a_digest_under_another_version_is_told_with_the_one_it_should_have() {
    let body = b"{\"a\": 1}";
    let (iof, bond, standard) = (scheme_of("iof"), scheme_of("atelio"), scheme_of("basiq"));
    let hex = hex_digest(body);
    let header = |text: String| vec![("x-iof-signature", text)];
    let expected = Mistake::Versioned { header: "x-iof-signature", expected: "v1=".to_owned() };
    assert_eq!(told(&iof, &header(format!("t=1000,v2={hex}")), body)[1..], [expected]);

    let header = |text: String| vec![("bond-signature", text)];
    let expected = Mistake::Versioned { header: "bond-signature", expected: "v2=".to_owned() };
    assert_eq!(told(&bond, &header(format!("t=1000,v3={hex}")), body)[1..], [expected]);
    let old = told(&bond, &header(format!("t=1000,v1={hex}")), body);
    assert_eq!(old, [Mistake::OldVersion], "a body as Python writes it is the same under the old version");

    let mut signed = Form::StandardWebhooks.sign("msg_1", 1000, body);
    let digest = signed[2].1.strip_prefix("v1,").unwrap().to_owned();
    signed[2].1 = format!("v2,{digest}");
    let expected = Mistake::Versioned { header: "webhook-signature", expected: "v1,".to_owned() };
    assert_eq!(told(&standard, &signed, body)[1..], [expected]);
}

#[test]
fn what_matches_nothing_is_still_told_to_be_spelt_wrong() {
    let header = |text: String| vec![("x-iof-signature", text)];
    let other = hex_digest(b"another");
    let base64 = STANDARD.encode(hex::decode(&other).unwrap());
    let spelt = Mistake::Spelt { found: Spelling::Base64, expected: Spelling::Hex };
    let both = format!("t=1000,v1={base64},v1={base64}");
    assert_eq!(told(&scheme_of("iof"), &header(both), b"{}"), [spelt, Mistake::Unexplained]);
    let one = format!("t=1000,v1={base64},v1={}", other.to_uppercase());
    assert_eq!(
        told(&scheme_of("iof"), &header(one), b"{}"),
        [Mistake::Unexplained],
        "one of them could pass"
    );
}

#[test]
fn a_missing_timestamp_is_told_once() {
    let header = |text: String| vec![("x-iof-signature", text)];
    let hex = hex_digest(b"{}");
    let apart = told(&scheme_of("iof"), &header(format!("sha256={hex}")), b"{}");
    assert_eq!(apart, [Mistake::HeaderMissing("x-iof-timestamp")]);
    let within = told(&scheme_of("iof"), &header(format!("v1={hex}")), b"{}");
    assert_eq!(within, [Mistake::TimestampMissing { header: "x-iof-signature", key: "t" }]);
}

#[test]
fn only_versions_are_taken_for_one() {
    let (iof, hex) = (scheme_of("iof"), hex_digest(b"{}"));
    let said = |text: String| told(&iof, &[("x-iof-signature", text)], b"{}");
    let unknown = Mistake::UnknownVersion { header: "x-iof-signature", known: iof.versions };
    assert!(!said(format!("t=1000,nonce={hex},v1={hex}")).contains(&unknown));
    assert!(said(format!("t=1000,v9={hex}")).contains(&unknown));
    let alone = said(format!("t=1000,mac={hex}"));
    assert!(
        alone.contains(&Mistake::NoDigest {
            header: "x-iof-signature",
            bytes: 0,
            algorithm: Algorithm::HmacSha256
        }),
        "{alone:?}"
    );
}

#[test]
fn a_long_number_as_javascript_rounds_it_is_recognised() {
    let sent = br#"{"account":12345678901234567890}"#;
    let rounded = br#"{"account":12345678901234567000}"#;
    let header = vec![("x-iof-signature", format!("t=1000,v1={}", hex_digest(rounded)))];
    let told = told(&scheme_of("iof"), &header, sent);
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
    let told = |age| diagnosed(&scheme_of("iof"), [None, None], &outside(age));
    assert_eq!(told(301), [Mistake::Stale { age: 301, tolerance: 300 }]);
    assert_eq!(told(-301), [Mistake::Ahead { by: 301, tolerance: 300 }]);
    assert_eq!(told(1_795_000_000 - 1_795_000_000_000), [Mistake::TimestampTooFine]);
    assert_eq!(told(i64::MIN), [Mistake::TimestampTooFine]);
}

#[test]
fn a_body_too_large_for_every_hypothesis_still_gets_the_likelier_ones() {
    let scheme = &scheme_of("iof");
    let mut body = vec![b'x'; 2 << 20];
    let headers = signed(scheme, &body);
    body.push(b'\n');
    let case = |body| {
        let secret = Secret::new(SECRET);
        let known = KnownSecret { source: "own", slot: 0, secret, not_before: None, not_after: None };
        let (secrets, at) = (&[known][..], second(1000));
        diagnose(&RefusedDelivery {
            scheme,
            secrets,
            source: "own",
            request: SignedRequest::post(&headers, body),
            is_defined: false,
            error: &MISMATCH,
            at,
        })
    };
    assert_eq!(case(&body), [Mistake::Altered(Alteration::LineBreakAdded)]);
    assert_eq!(case(&body[1..]), [Mistake::BodyNotJson]);
}
