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
    assert_eq!(case(&body[1..]), [Mistake::Unexplained]);
}
