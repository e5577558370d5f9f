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
use hookgate::provider::catalog;
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
        .map(|vector| {
            let now = vector.value["now"].as_i64().unwrap();
            hand.store(now * 1_000_000, std::sync::atomic::Ordering::SeqCst);
            send(gateway.edge()[0], vector)
        })
        .collect();
    runtime.block_on(gateway.drain());

    let data_dir = folder.path().join("data");
    let reasons = reasons(&data_dir);
    let mut events = events(&data_dir);
    let schema = jsonschema::validator_for(&serde_json::from_str(hookgate::event::SCHEMA).unwrap()).unwrap();
    let mut wrong = Vec::new();
    for (vector, answer) in vectors.iter().zip(&answers) {
        let got = events.remove(&vector.prefix());
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
    for row in catalog::built_ins() {
        let of_provider = || vectors.iter().filter(|vector| vector.provider == row.name);
        for outcome in ["accepted", "rejected"] {
            let covered = of_provider().any(|vector| vector.value["expect"]["outcome"] == outcome);
            assert!(covered, "{} has no {outcome} vector", row.name);
        }
        for (kind, canonical) in row.types.unwrap_or_default() {
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

impl Vector {
    /// The path before its own, which tells its source from those of others. It is part of a signed URL.
    fn prefix(&self) -> String {
        format!("/{}", self.name)
    }

    fn body(&self) -> Vec<u8> {
        let request = &self.value["request"];
        match request["body_base64"].as_str() {
            Some(encoded) => STANDARD.decode(encoded).unwrap(),
            None => request["body"].as_str().unwrap_or_default().as_bytes().to_vec(),
        }
    }
}

fn load() -> Vec<Vector> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut vectors = Vec::new();
    for row in catalog::built_ins() {
        let folder = root.join(row.name);
        let files = std::fs::read_dir(&folder);
        for file in files.unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
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
        "[edge]\nlisten = \"127.0.0.1:0\"\npublic_url = \"https://hooks.example.com\"\nmax_connections = 100000\n[admin]\nlisten = \"127.0.0.1:0\"\n\
        [dedupe]\nwindow = \"3650d\"\n[queue]\nretain = \"3650d\"\n[audit]\nretain = \"3650d\"\n"
            .to_owned();
    for (at, vector) in vectors.iter().enumerate() {
        text += &format!("[sources.v{at}]\npath = \"{}/hooks/{}-test\"\n", vector.prefix(), vector.provider);
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
fn send(to: SocketAddr, vector: &Vector) -> Answer {
    let (request, body) = (&vector.value["request"], vector.body());
    let text = |value: &Value| value.as_str().unwrap().chars().map(|c| c as u8).collect::<Vec<u8>>();
    let mut bytes = format!(
        "{} {}{} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n",
        request["method"].as_str().unwrap(),
        vector.prefix(),
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

/// Every event in the queue, by the first two segments of its source.
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
            let (first, _) = source.split_at(source.match_indices('/').nth(2).unwrap().0);
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
        "accepted" if expect["events"].is_array() => {
            let expected = expect["events"].as_array().unwrap();
            let ids: Vec<&Value> = expected.iter().map(|event| &event["id"]).collect();
            if said["status"] != "accepted" || said["ids"] != serde_json::json!(ids) {
                return Err(format!("answered {said} for the ids {ids:?}"));
            }
            if events.len() != expected.len() {
                return Err(format!("{} events for {}: {events:?}", events.len(), expected.len()));
            }
            // A store may order events that enter together as it likes.
            for event in &events {
                let id: Value = serde_json::from_str(&attributes_alone(event)).unwrap();
                let expected = expected.iter().find(|expected| expected["id"] == id["id"]);
                compare_element(event, vector, expected.ok_or("an event with another id")?, schema)?;
            }
            Ok(())
        }
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
        "handshake" if expect["answer"].as_str().is_some_and(|text| text.as_bytes() != answer.body) => {
            Err(format!("answered {:?}", String::from_utf8_lossy(&answer.body)))
        }
        "ignored" if said["status"] != "ignored" => Err(format!("answered {said}")),
        _ => Ok(()),
    }
}

fn compare(event: &str, vector: &Vector, schema: &jsonschema::Validator) -> Result<(), String> {
    let body = vector.body();
    let encoded = format!("\"payload_base64\":\"{}\"}}}}", STANDARD.encode(&body));
    let expected = &vector.value["expect"]["event"];
    let is_object = |text: &str| hookgate::provider::Object::parse(text.as_bytes()).is_ok();
    if is_form(vector) {
        let head = event.strip_suffix(&format!(",{encoded}"));
        let head = head.ok_or_else(|| format!("the bytes of the form are not there: {event}"))?;
        let (head, fields) = head.split_once("\"payload\":").ok_or("no payload")?;
        let fields: BTreeMap<String, Value> = serde_json::from_str(fields).map_err(|e| e.to_string())?;
        if fields.is_empty() {
            return Err(format!("no fields: {event}"));
        }
        return compare_head(&format!("{head}\"payload\":{{}},{encoded}"), expected, schema);
    }
    // In a body as deep as may be the parser would give up, and the schema says nothing of what is in it.
    let (held, stand_in) = match String::from_utf8(body) {
        Ok(text) if is_object(&text) => (format!("\"payload\":{text}}}}}"), "\"payload\":{}}}".to_owned()),
        _ => {
            let encoded = format!("\"payload\":null,{encoded}");
            (encoded.clone(), encoded)
        }
    };
    let head = event.strip_suffix(&held);
    let head = head.ok_or_else(|| format!("the payload is not the body byte for byte: {event}"))?;
    compare_head(&format!("{head}{stand_in}"), expected, schema)
}

fn is_form(vector: &Vector) -> bool {
    let headers = vector.value["request"]["headers"].as_array().unwrap();
    headers.iter().any(|header| {
        header[0].as_str().unwrap().eq_ignore_ascii_case("content-type")
            && header[1].as_str().unwrap().contains("x-www-form-urlencoded")
    })
}

/// Holds one event of a list: its payload stands in the body, byte for byte.
fn compare_element(
    event: &str,
    vector: &Vector,
    expected: &Value,
    schema: &jsonschema::Validator,
) -> Result<(), String> {
    let (head, held) = event.split_once("\"payload\":").ok_or("no payload")?;
    let held = held.strip_suffix("}}").ok_or("no end")?;
    let element = match held.strip_prefix("null,\"payload_base64\":\"") {
        Some(encoded) => STANDARD.decode(encoded.trim_end_matches('"')).unwrap(),
        None => held.as_bytes().to_vec(),
    };
    if !vector.body().windows(element.len()).any(|window| window == element) {
        return Err(format!("the payload is no part of the body: {event}"));
    }
    compare_head(&format!("{head}\"payload\":{held}}}}}"), expected, schema)
}

fn compare_head(event: &str, expected: &Value, schema: &jsonschema::Validator) -> Result<(), String> {
    let mut got: Value = serde_json::from_str(event).map_err(|e| e.to_string())?;
    if let Some(error) = schema.iter_errors(&got).next() {
        return Err(format!("against the schema: {error} in {got}"));
    }
    let source = got["source"].as_str().unwrap();
    let path = source[source.match_indices('/').nth(2).unwrap().0..].to_owned();
    got["source"] = path.into();
    let attributes = got.as_object_mut().unwrap();
    attributes.remove("recordedtime");
    let data = attributes["data"].as_object_mut().unwrap();
    data.remove("payload");
    data.remove("payload_base64");
    if got == *expected { Ok(()) } else { Err(format!("got      {got}\n    expected {expected}")) }
}
