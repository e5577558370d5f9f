//! Every request vector in `tests/vectors`, sent over HTTP to one gateway with a source of its own for each, and held against
//! its expected answer, record and event. Every event is validated against the schema.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hookgate::base::clock::Clock;
use hookgate::durable::data_dir;
use hookgate::durable::inbox::embedded::Reader;
use hookgate::gateway::Gateway;
use hookgate::observe::audit::files;
use hookgate::observe::audit::record::Record;
use hookgate::provider;
use jiff::Timestamp;
use serde_json::Value;

#[test]
fn every_vector_is_answered_recorded_and_normalized_as_expected() {
    let vectors = load();
    let folder = tempfile::tempdir().unwrap();
    let (config, problems) = hookgate::config::parse(&config(&vectors), folder.path());
    assert!(problems.iter().all(|problem| problem.warning), "{problems:?}");
    let clock = Clock::manual(Timestamp::UNIX_EPOCH);
    let Clock::Manual(hand) = clock.clone() else { unreachable!() };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let gateway = runtime.block_on(Gateway::start(config, clock)).unwrap();
    let answers: Vec<Answer> = vectors
        .iter()
        .enumerate()
        .map(|(at, vector)| {
            let now = vector.value["now"].as_i64().unwrap();
            hand.store(now * 1_000_000, std::sync::atomic::Ordering::SeqCst);
            send(gateway.edge()[0], at, &vector.value["request"])
        })
        .collect();
    runtime.block_on(gateway.drain());

    let data_dir = folder.path().join("data");
    let reasons = reasons(&data_dir);
    let mut events = events(&data_dir);
    let schema = jsonschema::validator_for(&serde_json::from_str(hookgate::event::SCHEMA).unwrap()).unwrap();
    let mut wrong = Vec::new();
    for (at, (vector, answer)) in vectors.iter().zip(&answers).enumerate() {
        let got = events.remove(&format!("/v{at}"));
        if let Err(why) = judge(vector, answer, &reasons, got, &schema) {
            wrong.push(format!(
                "{}: {}\n    {why}",
                vector.name,
                vector.value["about"].as_str().unwrap_or("")
            ));
        }
    }
    assert!(events.is_empty(), "events of no vector: {:?}", events.keys());
    assert!(wrong.is_empty(), "{} of {} vectors fail:\n{}", wrong.len(), vectors.len(), wrong.join("\n"));
}

#[test]
fn every_provider_and_every_type_has_a_vector() {
    let vectors = load();
    for row in provider::TABLE {
        let of_provider = || vectors.iter().filter(|vector| vector.provider == row.name);
        for outcome in ["accepted", "rejected"] {
            let covered = of_provider().any(|vector| vector.value["expect"]["outcome"] == outcome);
            assert!(covered, "{} has no {outcome} vector", row.name);
        }
        for (kind, canonical) in row.types {
            let covered = of_provider().any(|vector| {
                let event = &vector.value["expect"]["event"];
                event["data"]["event"] == *kind && event["type"] == *canonical
            });
            assert!(covered, "{}: no vector for {kind} as {canonical}", row.name);
        }
    }
}

struct Vector {
    provider: String,
    name: String,
    value: Value,
}

fn load() -> Vec<Vector> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut vectors = Vec::new();
    for row in provider::TABLE {
        for file in std::fs::read_dir(root.join(row.name)).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            let named: BTreeMap<String, Value> = serde_json::from_str(&text).unwrap();
            vectors.extend(named.into_iter().map(|(name, value)| Vector {
                provider: row.name.to_owned(),
                name: format!("{}/{name}", row.name),
                value,
            }));
        }
    }
    vectors
}

/// A source for every vector, so that none sees what another left. The store keeps everything: the clock jumps about.
fn config(vectors: &[Vector]) -> String {
    let mut text =
        "[edge]\nlisten = \"127.0.0.1:0\"\nmax_connections = 100000\n[admin]\nlisten = \"127.0.0.1:0\"\n\
        [dedupe]\nwindow = \"3650d\"\n[queue]\nretain = \"3650d\"\n[audit]\nretain = \"3650d\"\n"
            .to_owned();
    for (at, vector) in vectors.iter().enumerate() {
        text += &format!("[sources.v{at}]\npath = \"/v{at}/hooks/{}-test\"\n", vector.provider);
        for (key, value) in vector.value["source"].as_object().unwrap() {
            // JSON's strings, booleans and lists of strings are TOML's too.
            text += &format!("{key} = {value}\n");
        }
    }
    text
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// Writes the request byte by byte as the vector has it, which a client library would not.
fn send(to: SocketAddr, at: usize, request: &Value) -> Answer {
    let body = match request["body_base64"].as_str() {
        Some(encoded) => STANDARD.decode(encoded).unwrap(),
        None => request["body"].as_str().unwrap_or_default().as_bytes().to_vec(),
    };
    let text = |value: &Value| value.as_str().unwrap().chars().map(|c| c as u8).collect::<Vec<u8>>();
    let mut bytes = format!(
        "{} /v{at}{} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n",
        request["method"].as_str().unwrap(),
        request["path"].as_str().unwrap()
    )
    .into_bytes();
    for header in request["headers"].as_array().unwrap() {
        bytes.extend([&text(&header[0])[..], b": ", &text(&header[1])[..], b"\r\n"].concat());
    }
    bytes.extend(format!("content-length: {}\r\n\r\n", body.len()).into_bytes());
    bytes.extend(body);
    let mut stream = TcpStream::connect(to).unwrap();
    stream.write_all(&bytes).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer with a head");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers =
        lines.filter_map(|line| line.split_once(": ")).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    Answer { status, headers, body: answer[end + 4..].to_vec() }
}

/// The reason of every record, by its id.
fn reasons(data_dir: &Path) -> HashMap<String, String> {
    let mut reasons = HashMap::new();
    for file in files::list(&data_dir::audit_dir(data_dir)).unwrap() {
        for line in std::fs::read_to_string(&file.path).unwrap().lines() {
            let record = Record::parse(line.as_bytes()).unwrap();
            reasons.insert(record.id, record.reason);
        }
    }
    reasons
}

/// Every event in the queue, by the first segment of its source.
fn events(data_dir: &Path) -> HashMap<String, Vec<String>> {
    let mut reader = Reader::open(&data_dir::database_file(data_dir)).unwrap();
    let mut events: HashMap<String, Vec<String>> = HashMap::new();
    let mut cursor = 0;
    loop {
        let page = reader.after(cursor, 1000).unwrap();
        let Some((last, _)) = page.last() else { return events };
        cursor = *last;
        for (_, text) in page {
            let head: Value = serde_json::from_str(&attributes_alone(&text)).unwrap();
            let source = head["source"].as_str().unwrap();
            let first = &source[..source[1..].find('/').unwrap() + 1];
            events.entry(first.to_owned()).or_default().push(text);
        }
    }
}

/// The event up to its data: a payload may nest too deep for a tree of the whole.
fn attributes_alone(event: &str) -> String {
    format!("{}}}", event[..event.find("\"data\":").unwrap()].trim_end_matches(','))
}

fn judge(
    vector: &Vector,
    answer: &Answer,
    reasons: &HashMap<String, String>,
    events: Option<Vec<String>>,
    schema: &jsonschema::Validator,
) -> Result<(), String> {
    let expect = &vector.value["expect"];
    if expect["status"] != answer.status {
        return Err(format!(
            "status {} for {}: {}",
            answer.status,
            expect["status"],
            String::from_utf8_lossy(&answer.body)
        ));
    }
    for header in expect["headers"].as_array().into_iter().flatten() {
        let (name, value) = (header[0].as_str().unwrap(), header[1].as_str().unwrap());
        if !answer.headers.iter().any(|(k, v)| k.eq_ignore_ascii_case(name) && v == value) {
            return Err(format!("the header {name} is missing in {:?}", answer.headers));
        }
    }
    let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let mut events = events.unwrap_or_default();
    match expect["outcome"].as_str().unwrap() {
        "accepted" => {
            let event =
                if events.len() == 1 { events.remove(0) } else { return Err(format!("events: {events:?}")) };
            if said["status"] != "accepted" || said["id"] != expect["event"]["id"] {
                return Err(format!("answered {said} for the id {}", expect["event"]["id"]));
            }
            compare(&event, vector, schema)
        }
        _ if !events.is_empty() => Err(format!("let in: {events:?}")),
        "rejected" => {
            // An answer to HEAD has no body to name its record.
            let Some(reject) = said["reject"].as_str() else {
                return if vector.value["request"]["method"] == "HEAD" {
                    Ok(())
                } else {
                    Err(format!("answered {said}"))
                };
            };
            let reason = reasons.get(reject).map(String::as_str);
            let expected = expect["reason"].as_str();
            if reason == expected { Ok(()) } else { Err(format!("reason {reason:?} for {expected:?}")) }
        }
        "ignored" if said["status"] != "ignored" => Err(format!("answered {said}")),
        _ => Ok(()),
    }
}

fn compare(event: &str, vector: &Vector, schema: &jsonschema::Validator) -> Result<(), String> {
    let request = &vector.value["request"];
    let body = match request["body_base64"].as_str() {
        Some(encoded) => STANDARD.decode(encoded).unwrap(),
        None => request["body"].as_str().unwrap_or_default().as_bytes().to_vec(),
    };
    // In a body as deep as may be the parser would give up, and the schema says nothing of what is in it.
    let (held, stand_in) = match String::from_utf8(body.clone()) {
        Ok(text) if vector.value["expect"]["event"]["type"] != "unmapped.unreadable" => {
            (format!("\"payload\":{text}}}}}"), "\"payload\":{}}}".to_owned())
        }
        _ => {
            let encoded = format!("\"payload\":null,\"payload_base64\":\"{}\"}}}}", STANDARD.encode(&body));
            (encoded.clone(), encoded)
        }
    };
    let head = event.strip_suffix(&held);
    let head = head.ok_or_else(|| format!("the payload is not the body byte for byte: {event}"))?;
    let mut got: Value = serde_json::from_str(&format!("{head}{stand_in}")).map_err(|e| e.to_string())?;
    if let Some(error) = schema.iter_errors(&got).next() {
        return Err(format!("against the schema: {error} in {got}"));
    }
    let source = got["source"].as_str().unwrap();
    let path = source[1..].find('/').map(|at| source[at + 1..].to_owned());
    got["source"] = path.into();
    let attributes = got.as_object_mut().unwrap();
    attributes.remove("recordedtime");
    let data = attributes["data"].as_object_mut().unwrap();
    data.remove("payload");
    data.remove("payload_base64");
    let expected = &vector.value["expect"]["event"];
    if got == *expected { Ok(()) } else { Err(format!("got      {got}\n    expected {expected}")) }
}
