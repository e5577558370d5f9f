//! What the fuzzer drives, and what `tests/pure/corpora.rs` replays: bytes that a stranger chooses, into each reader of them.
//!
//! A target panics where something is wrong beyond a refusal: a reader that panics, or one whose result breaks its promise.

// The fuzzer's binaries take one target each.
#![allow(dead_code, clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hookgate::base::peer::{self, forwarded};
use hookgate::config as configs;
use hookgate::config::secret::Secret;
use hookgate::edge::proxy_protocol::{self, Parsed};
use hookgate::edge::request_guard::{CloseReason, Framer};
use hookgate::observe::audit;
use hookgate::observe::audit::record::Record;
use hookgate::provider::normalize::{self, DeliveryOrigin, Document, Normalized, NormalizedEvent};
use hookgate::provider::signature::diagnosis::{KnownSecret, RefusedDelivery, diagnose};
use hookgate::provider::signature::{
    self, Encoding, Key, Scheme, SignedRequest, Verified, VerifiedBy, Verifier,
};
use hookgate::provider::{Catalog, Provider, catalog};
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::Value;

/// What takes the fuzzer's bytes.
pub type Target = fn(&[u8]);

/// Every target by its name, which is its corpus' folder too.
pub const ALL: &[(&str, Target)] = &[
    ("signature_headers", signature_headers),
    ("diagnoses", diagnoses),
    ("provider_readers", provider_readers),
    ("definitions", definitions),
    ("config", config),
    ("audit_records", audit_records),
    ("audit_logs", audit_logs),
    ("http_requests", http_requests),
    ("proxy_headers", proxy_headers),
    ("forwarded_for", forwarded_for),
];

/// Signing headers, as lines, then an empty line, then the body. The first byte chooses the scheme. What verifies holds the
/// digest that the key makes of just these bytes.
pub fn signature_headers(data: &[u8]) {
    let Some((scheme, headers, body)) = signed_delivery(data) else { return };
    let key = Key::new(&scheme, &Secret::new(SECRET)).unwrap();
    let verifiers = [Verifier { scheme, keys: vec![key.clone()] }];
    let request = SignedRequest::post(&headers, body);
    let Ok(verified) = signature::verify(&verifiers, request, NOW, i64::MAX) else { return };
    assert_eq!(verified.body(), body);
    let signed = verified.signed().unwrap();
    if scheme.accept_old {
        // Its v1 signs the body as another program would write it.
        return;
    }
    let text: Vec<String> =
        headers.values().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect();
    // Hex may be written in capitals.
    let text: Vec<String> = if scheme.encoding == Encoding::Base64 {
        text
    } else {
        text.iter().map(|value| value.to_lowercase()).collect()
    };
    let stamp = NOW - signed.age.unwrap();
    let made = signature::sign(&scheme, &key, signed.message_id.unwrap_or_default(), stamp, request).unwrap();
    // The digest stands after the last comma or equals sign that is not its padding.
    let digest = made.last().unwrap().1.trim_end_matches('=').rsplit([',', '=']).next().unwrap().to_owned();
    // A time written with zeros before it is signed as it is written.
    let plain = text.iter().any(|value| value.contains(&stamp.to_string()));
    assert!(!plain || text.iter().any(|value| value.contains(&digest)) || leading_zeros(&text), "{text:?}");
}

/// A signed delivery that was refused, to the search for why: it says something, and the same each time.
pub fn diagnoses(data: &[u8]) {
    let Some((scheme, headers, body)) = signed_delivery(data) else { return };
    let key = Key::new(&scheme, &Secret::new(SECRET)).unwrap();
    let verifiers = [Verifier { scheme, keys: vec![key] }];
    let request = SignedRequest::post(&headers, body);
    let Err(error) = signature::verify(&verifiers, request, NOW, TOLERANCE) else { return };
    let known = |source, secret: &str| KnownSecret {
        source,
        slot: 0,
        secret: Secret::new(secret),
        not_before: None,
        not_after: None,
    };
    let case = RefusedDelivery {
        scheme: &scheme,
        secrets: &[known("fuzzed", SECRET), known("other", "whsec_OtherOtherOtherOtherOther00")],
        source: "fuzzed",
        request,
        is_defined: body.first() == Some(&b'd'),
        error: &error,
        at: jiff::Timestamp::from_second(NOW).unwrap(),
    };
    let said = format!("{:?}", diagnose(&case));
    assert!(said.len() > "[]".len());
    assert_eq!(format!("{:?}", diagnose(&case)), said);
}

/// A body to each provider's reader, chosen by the first byte: it becomes an event that is JSON and holds the body as it came,
/// or, where that is no object, its bytes; no attribute holds what CloudEvents forbids; the same body, the same identity.
pub fn provider_readers(data: &[u8]) {
    let Some((choice, body)) = data.split_first() else { return };
    let all: Vec<&'static Provider> = catalog::built_ins().collect();
    let provider = all[usize::from(*choice) % all.len()];
    let headers = HeaderMap::new();
    read_as(provider, SignedRequest::post(&headers, body));
}

/// A definition, an empty line, headers, an empty line, a body: the definition is compiled or refused with positions; what
/// compiles reads the body, and refuses a signature that its secret did not make.
pub fn definitions(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (definition, rest) = text.split_once("\n\n").unwrap_or((text, ""));
    let (definitions, _) = configs::definitions::parse(definition);
    let mut problems = Vec::new();
    let catalog = Catalog::of(&definitions, &mut problems);
    assert!(problems.iter().all(|problem| problem.at.line > 0 && !problem.what.is_empty()));
    let (head, body) = rest.split_once("\n\n").unwrap_or((rest, ""));
    let headers = headers(head.as_bytes());
    let request = SignedRequest {
        target: "/hooks/fuzzed?a=b&a=c&d=%41",
        ..SignedRequest::post(&headers, body.as_bytes())
    };
    for definition in &definitions {
        let Some(provider) = catalog.by_name(&definition.name.value) else { continue };
        let schemes = provider.signing.schemes().iter();
        let verifier = |scheme: &Scheme| {
            let key = Key::new(scheme, &Secret::new(SECRET)).ok();
            Verifier { scheme: *scheme, keys: key.into_iter().collect() }
        };
        let verifiers: Vec<Verifier> = schemes.map(verifier).collect();
        let _ = signature::verify(&verifiers, request, NOW, i64::MAX);
        read_as(provider, request);
        let sample = provider.sample(None, None, Some(SECRET), jiff::Timestamp::UNIX_EPOCH, || [7; 16]);
        assert!(std::str::from_utf8(&sample.body).is_ok());
    }
}

fn read_as(provider: &'static Provider, request: SignedRequest<'_>) {
    let body = request.body;
    let events = |seconds: i64| -> Vec<NormalizedEvent> {
        let verified = Verified::by_other_means(VerifiedBy::PathToken, body);
        let document = Document::of(provider, &request);
        let contents = normalize::read(provider, &verified, &request, &document).unwrap();
        let path: Arc<str> = "/hooks/fuzzed".into();
        let origin = DeliveryOrigin { source: "fuzzed", path: &path, provider, trace: None };
        let at = jiff::Timestamp::from_second(seconds).unwrap();
        match normalize::normalize(&origin, &verified, &document, &contents, at) {
            Normalized::Event(forward) => vec![*forward],
            Normalized::Events(events) => events,
            Normalized::HealthCheck | Normalized::Handshake(_) => Vec::new(),
        }
    };
    let (one, other) = (events(NOW), events(NOW + 1));
    assert_eq!(one.len(), other.len());
    let whole = one.len() == 1 && provider.reader.rules().is_none_or(|rules| rules.each.is_none());
    for (one, other) in one.iter().zip(&other) {
        assert!(one.identity == other.identity && one.event.id == other.event.id);
        assert!(serde_json::from_str::<&serde_json::value::RawValue>(&one.event.json).is_ok());
        if whole && provider.body == configs::definitions::BodyForm::Json {
            check_payload(one, body);
        }
    }
}

fn check_payload(one: &NormalizedEvent, body: &[u8]) {
    let payload = if one.unreadable {
        let encoded = STANDARD.encode(body);
        assert!(one.event.json.ends_with(&format!("\"payload\":null,\"payload_base64\":\"{encoded}\"}}}}")));
        Value::Null
    } else {
        // What this parser refuses of a body, a number that no float holds, it refuses in the event.
        let Ok(payload) = serde_json::from_slice::<Value>(body) else { return };
        assert!(one.event.json.contains(std::str::from_utf8(body).unwrap().trim_ascii()));
        payload
    };
    let event: Value = match serde_json::from_str(&one.event.json) {
        Ok(event) => event,
        // A payload as deep as is taken is, inside the event, deeper than this parser goes.
        Err(error) => return assert!(error.to_string().contains("recursion limit"), "{error}"),
    };
    assert!(!event["id"].as_str().unwrap().is_empty());
    assert!(event["type"].as_str().unwrap().contains('.'));
    assert_eq!(event["data"]["payload"], payload);
    for attribute in event.as_object().unwrap().values().filter_map(Value::as_str) {
        assert!(attribute.len() <= 600 && !attribute.contains(forbidden), "{attribute}");
    }
}

/// CloudEvents 1.0.2, section 2.1.
fn forbidden(c: char) -> bool {
    c.is_control()
        || matches!(u32::from(c), 0xfdd0..=0xfdef)
        || matches!(u32::from(c) & 0xffff, 0xfffe | 0xffff)
}

/// A config's text: what is read without a problem prints as a config that reads the same.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (read, problems) = configs::parse(text, Path::new(""));
    for problem in &problems {
        assert!(problem.at.line > 0 && problem.at.column > 0, "{problem:?}");
    }
    if problems.is_empty() {
        let printed = read.redacted();
        let (again, problems) = configs::parse(&printed, Path::new(""));
        assert!(problems.iter().all(|problem| problem.warning), "{printed}\n{problems:?}");
        assert_eq!(again.redacted(), printed);
    }
}

/// A line of the reject log: a record that is in its one written form has one hash.
pub fn audit_records(data: &[u8]) {
    let Ok(record) = Record::parse(data) else { return };
    let line = record.line().unwrap();
    let again = Record::parse(line.as_bytes()).unwrap();
    assert_eq!(again, record);
    assert_eq!(again.digest().unwrap(), record.digest().unwrap());
}

/// A file of the reject log: where the whole of it verifies, one byte changed does not. The first two bytes say which one.
pub fn audit_logs(data: &[u8]) {
    let Some((at, log)) = data.split_first_chunk::<2>() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(LOG_FILE);
    fs::write(&path, log).unwrap();
    let Ok(verified) = audit::verify::verify(folder.path()) else { return };
    let whole = log.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    assert_eq!(verified.unfinished, whole < log.len());
    assert_eq!(usize::try_from(verified.records).unwrap(), log.iter().filter(|byte| **byte == b'\n').count());
    if whole > 0 {
        let mut changed = log[..whole].to_vec();
        changed[usize::from(u16::from_le_bytes(*at)) % (whole - 1)] ^= 1;
        fs::write(&path, changed).unwrap();
        assert!(audit::verify::verify(folder.path()).is_err());
    }
}

/// A connection's bytes to the HTTP/1.x framer: in whatever pieces they come, the same bytes pass and the same ends it; and
/// the heads that pass are heads to another parser too.
pub fn http_requests(data: &[u8]) {
    let Some((step, bytes)) = data.split_first() else { return };
    let whole = framed(bytes, bytes.len().max(1));
    let pieces = framed(bytes, usize::from(*step).max(1));
    // Of two things wrong with one head, it depends on the pieces which one is seen first.
    let kind = |end: Option<CloseReason>| end.map(|end| std::mem::discriminant(&end));
    assert_eq!((whole.0, kind(whole.1)), (pieces.0, kind(pieces.1)), "{whole:?} {pieces:?}");
    let (passed, _) = whole;
    let passed = &bytes[..passed];
    if !passed.is_empty() {
        let mut lines = [httparse::EMPTY_HEADER; 128];
        let mut request = httparse::Request::new(&mut lines);
        let start = passed.iter().position(|byte| !b"\r\n".contains(byte)).unwrap_or(0);
        assert!(request.parse(&passed[start..]).is_ok_and(|status| status.is_complete()));
    }
}

/// How many bytes pass, given so many at a time, and what ends them.
fn framed(bytes: &[u8], step: usize) -> (usize, Option<CloseReason>) {
    let mut framer = Framer::default();
    let (mut passed, mut came) = (0, 0);
    while came < bytes.len() {
        came = (came + step).min(bytes.len());
        let (more, end) = framer.read(&bytes[passed..came]);
        passed += more;
        if end.is_some() {
            return (passed, end);
        }
    }
    (passed, None)
}

/// A connection's first bytes to the PROXY protocol: a header is one only whole, and nothing after it changes it.
pub fn proxy_headers(data: &[u8]) {
    let parsed = proxy_protocol::parse(data);
    match parsed {
        Parsed::Header { len, .. } => {
            assert!(len > 0 && len <= data.len() && len <= proxy_protocol::MAX_HEADER);
            assert_eq!(proxy_protocol::parse(&data[..len]), parsed);
            assert_eq!(proxy_protocol::parse(&data[..len - 1]), Parsed::Incomplete);
        }
        Parsed::Incomplete => assert!(data.len() < proxy_protocol::MAX_HEADER),
        Parsed::Invalid(_) => {}
    }
}

/// `X-Forwarded-For` lines: from a connection that is not trusted they change nothing; else whoever is named is not trusted, or
/// everybody before was.
pub fn forwarded_for(data: &[u8]) {
    let lines = || data.split(|byte| *byte == b'\n');
    let trusted: Vec<_> = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap()).into();
    let (stranger, proxy) = ([203, 0, 113, 7].into(), [10, 0, 0, 1].into());
    assert_eq!(forwarded::client(stranger, lines(), &trusted), stranger);
    let client = forwarded::client(proxy, lines(), &trusted);
    assert_eq!(client, client.to_canonical());
    // A line in front can only speak of those before.
    let longer = std::iter::once(&b"198.51.100.1"[..]).chain(lines().collect::<Vec<_>>());
    let further = forwarded::client(proxy, longer.collect::<Vec<_>>().into_iter(), &trusted);
    assert!(further == client || peer::within(client, &trusted));
}

/// The first byte is the scheme, the lines before an empty one are headers, the rest is the body.
fn signed_delivery(data: &[u8]) -> Option<(Scheme, HeaderMap, &[u8])> {
    let (choice, rest) = data.split_first()?;
    let (provider, accept_old) = match choice % 4 {
        0 => ("basiq", false),
        1 => ("atelio", false),
        2 => ("atelio", true),
        _ => ("iof", false),
    };
    let scheme = Scheme { accept_old, ..*catalog::built_in(provider)?.signing.schemes().first()? };
    let (head, body) = match rest.windows(2).position(|two| two == b"\n\n") {
        Some(at) => (&rest[..at], &rest[at + 2..]),
        None => (rest, &rest[..0]),
    };
    Some((scheme, headers(head), body))
}

fn headers(head: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in head.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii_start());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    headers
}

fn leading_zeros(values: &[String]) -> bool {
    values.iter().any(|value| value.starts_with('0') || value.contains("t=0"))
}

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
/// In seconds.
const TOLERANCE: i64 = 300;
const LOG_FILE: &str = "00000000000000000001-20261121T100000Z.jsonl";
const NOW: i64 = 1_700_000_000;
