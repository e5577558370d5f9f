//! The gateway as an attacker sees it: bytes that no client library sends, over HTTP/1.1 and HTTP/2. Every attack is answered or
//! ends its connection, is counted, and costs no other client anything. It is recorded, unless HTTP/2 itself refuses it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use support::blocking::{Bystander, Connection, eventually, is_open, until};
use support::*;

/// A gateway under attack, while another client delivers.
struct Attacked {
    bystander: Bystander,
    /// It was served while an attack was open.
    meanwhile: bool,
    gateway: Gateway,
    home: Home,
    delivered: usize,
    records: usize,
    /// What HTTP/2 itself refused, which is in no record.
    refused: f64,
}

impl Attacked {
    fn new(config: &str) -> Attacked {
        let home = Home::new(&(config.to_owned() + &sources()));
        let gateway = home.gateway();
        let bystander = Bystander::of(&gateway);
        Attacked { bystander, meanwhile: false, gateway, home, delivered: 0, records: 0, refused: 0.0 }
    }

    /// Another client is served now, while what attacks is `open`.
    fn meanwhile(&mut self, open: impl FnOnce() -> bool) {
        self.bystander.is_served_while(open);
        self.meanwhile = true;
    }

    /// The next record, which must say this of a connection or request that is nobody's; and it is counted.
    fn recorded(&mut self, reason: &str, status: u16) -> Value {
        let known = self.records;
        let record =
            eventually(&format!("{reason} is recorded"), || self.gateway.records().into_iter().nth(known));
        self.says(record, "unknown", reason, status)
    }

    fn says(&mut self, record: Value, source: &str, reason: &str, status: u16) -> Value {
        self.records += 1;
        let said = ["reason", "status", "source", "client"].map(|key| record[key].clone());
        let expected = [json!(reason), json!(status), json!(source), json!("127.0.0.1")];
        assert_eq!(said, expected, "{record}");
        assert!(self.gateway.metrics().rejects(source, reason) >= 1.0);
        record
    }

    /// HTTP/2 itself has refused something for this error, which is counted once.
    fn refused(&mut self, error: &str) {
        let before = self.refused;
        self.refused += 1.0;
        until(error, || http2_errors(&self.gateway, None) == self.refused);
        assert!(http2_errors(&self.gateway, Some(error)) >= 1.0, "{error} after {before}");
    }

    /// Holds an answer against the contract, and its record.
    fn problem(&mut self, answer: &Answer, reason: &str, status: u16) {
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
        assert_eq!(answer.json()["status"], status);
        assert_eq!(answer.json()["type"], format!("urn:hookgate:problem:{reason}"));
        let record = self.gateway.record_of(answer);
        self.says(record, "unknown", reason, status);
    }

    /// Another client is served as if nothing were.
    fn unharmed(&mut self) {
        let id = format!("evt-{}", self.delivered);
        assert_eq!(self.gateway.ask(&basiq(&id)).json(), json!({ "status": "accepted", "id": id }));
        self.delivered += 1;
    }

    /// Others were served all the time, and nothing got in but their events. Every refusal was counted once, and recorded once where
    /// HTTP/2 itself did not refuse it. Nothing is left open.
    fn over(mut self) {
        assert!(self.meanwhile, "this test does not look whether others are served meanwhile");
        self.unharmed();
        self.delivered += self.bystander.stop();
        until("every connection is gone", || self.gateway.metrics().sum("hookgate_connections", &[]) == 0.0);
        let metrics = self.gateway.metrics();
        assert_eq!(metrics.sum("hookgate_requests_in_flight", &[]), 0.0);
        assert_eq!(metrics.refused(), self.records as f64);
        assert_eq!(metrics.sum("hookgate_http2_errors_total", &[]), self.refused);
        assert_eq!(self.gateway.stop().0, 0);
        assert_eq!(self.home.events().len(), self.delivered);
        // Of a flood the log sums what is too much for it.
        let records = self.home.audit();
        let records = records.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let recorded: u64 = records.map(|record| 1 + record["suppressed"].as_u64().unwrap_or(0)).sum();
        assert_eq!(recorded, self.records as u64);
        assert_eq!(self.home.run(&["audit", "verify"]).code, 0);
    }
}

/// How much HTTP/2 itself has refused, for one error or in all.
fn http2_errors(gateway: &Gateway, error: Option<&str>) -> f64 {
    let labels: Vec<_> = error.into_iter().map(|error| ("error", error)).collect();
    gateway.metrics().sum("hookgate_http2_errors_total", &labels)
}

// -- HTTP/1: heads

#[test]
fn a_head_that_two_readers_could_read_in_two_ways_is_refused_and_nothing_after_it_is_read() {
    let mut attacked = Attacked::new("");
    let smuggled = String::from_utf8(basiq("smuggled").bytes()).unwrap();
    let post = |more: &str| format!("POST /hooks/basiq HTTP/1.1\r\nhost: x\r\n{more}\r\n");
    let heads = [
        // Where the head ends.
        "POST /hooks/basiq HTTP/1.1\nhost: x\n\n".to_owned(),
        post("a: b\nc: d\r\n"),
        post("a: b\rc: d\r\n"),
        post("a: b\0\r\n"),
        post("a: \x1b[31m\r\n"),
        post("a: b\r\n folded\r\n"),
        "\r\n".repeat(6),
        // How long the body is.
        post("content-length: 0\r\ntransfer-encoding: chunked\r\n") + "0\r\n\r\n",
        post("transfer-encoding: chunked\r\ncontent-length: 0\r\n") + "0\r\n\r\n",
        post("content-length: 0\r\ncontent-length: 0\r\n"),
        post("content-length: 0\r\ncontent-length: 5\r\n"),
        post("content-length: 0, 0\r\n"),
        post("content-length: +0\r\n"),
        post("content-length: 0x0\r\n"),
        post("content-length: 18446744073709551616\r\n"),
        post("content-length : 0\r\n"),
        post("transfer-encoding: chunked, chunked\r\n"),
        post("transfer-encoding: gzip, chunked\r\n"),
        post("transfer-encoding: xchunked\r\n"),
        post("transfer-encoding : chunked\r\n"),
        post("transfer-encoding:\x0bchunked\r\n"),
        "POST /hooks/basiq HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(),
        // Whom it is for.
        "POST /hooks/basiq HTTP/1.1\r\n\r\n".to_owned(),
        post("host: y\r\n"),
        "POST /hooks/basiq HTTP/1.1\r\nhost: x/../y\r\n\r\n".to_owned(),
        "POST /hooks/basiq HTTP/1.1\r\nhost: x y\r\n\r\n".to_owned(),
        // What it is.
        "POST  /hooks/basiq HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        "POST\t/hooks/basiq\tHTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        "POST /hooks/basiq HTTP/1.1 \r\nhost: x\r\n\r\n".to_owned(),
        "POST /hooks/basiq HTTP/1.10\r\nhost: x\r\n\r\n".to_owned(),
        "POST /hooks/basiq HTTP/2.0\r\nhost: x\r\n\r\n".to_owned(),
        "P@ST /hooks/basiq HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        "POST /hooks/b\u{e9}siq HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        "POST /hooks/basiq#x HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        "POST http://x/hooks/basiq?a# HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        "POST http://u:p@x/hooks/basiq HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        post("no colon\r\n"),
        post(": no name\r\n"),
        "\x16\x03\x01\x02\x00\x01\x00\x01\u{1}".to_owned(),
    ];
    for head in &heads {
        for in_pieces in [false, true] {
            let mut connection = attacked.gateway.connect();
            let bytes = head.clone() + &smuggled;
            if in_pieces {
                let (first, second) = bytes.as_bytes().split_at(head.len() / 2);
                if head.starts_with("POST ") {
                    connection.send("P");
                    attacked.meanwhile(|| connection.is_silent());
                    connection.send(&first[1..]);
                } else {
                    connection.send(first);
                }
                connection.try_send(second);
            } else {
                connection.send(&bytes);
            }
            let answer = connection.answer();
            attacked.problem(&answer, "http_malformed", 400);
            assert_eq!(answer.header("connection"), Some("close"), "{head:?}");
            connection.ends();
        }
    }
    attacked.over();
}

#[test]
fn what_was_asked_before_a_refused_head_is_answered_first() {
    let mut attacked = Attacked::new("");
    for bad in ["GET / HTTP/1.1\r\n\r\n", "hello\r\n\r\n", "GET / HTTP/1.1\n"] {
        let mut connection = attacked.gateway.connect();
        let good = [Request::get("/livez"), Request::get("/nothing?a=b")];
        let all: Vec<u8> = good.iter().flat_map(Request::bytes).chain(bad.bytes()).collect();
        let (most, last) = all.split_at(all.len() - 1);
        connection.send(most);
        for _ in good {
            let answer = connection.answer();
            attacked.problem(&answer, "unknown_path", 404);
        }
        if bad.starts_with("GET") {
            attacked.meanwhile(|| connection.is_silent());
        }
        connection.try_send(last);
        let answer = connection.answer();
        attacked.problem(&answer, "http_malformed", 400);
        connection.ends();
    }
    // Whoever has said that it will ask no more is not told about what it sent besides.
    let mut connection = attacked.gateway.connect();
    let last = Request::get("/nothing").with("connection", "close");
    connection.send([&last.bytes()[..], b"rubbish\r\n\r\n"].concat());
    let answer = connection.answer();
    attacked.problem(&answer, "unknown_path", 404);
    connection.ends();
    attacked.over();
}

#[test]
fn a_head_over_a_limit_is_refused_before_it_ends() {
    let mut attacked = Attacked::new("");
    let post = "POST /hooks/basiq HTTP/1.1\r\nhost: x\r\n";
    let heads = [
        format!("{post}x: {}\r\n\r\n", "y".repeat(64 << 10)),
        format!("{post}x: {}", "y".repeat(64 << 10)),
        format!("{post}{}\r\n", "x: y\r\n".repeat(100)),
        format!("POST /{} HTTP/1.1\r\nhost: x\r\n\r\n", "p".repeat(16 << 10)),
        format!("POST /{}", "p".repeat(16 << 10)),
        "P".repeat((16 << 10) + 1),
    ];
    for head in heads {
        let mut connection = attacked.gateway.connect();
        let (first, second) = head.split_at(500);
        connection.send(first);
        attacked.meanwhile(|| connection.is_silent());
        connection.send(second);
        let answer = connection.answer();
        attacked.problem(&answer, "headers_too_large", 431);
        assert_eq!(answer.header("connection"), Some("close"));
        connection.ends();
    }
    // To the byte as much is taken.
    let fits = Request::get(&format!("/{}", "p".repeat((16 << 10) - 14))).with("x", "y".repeat(40_000));
    let fits = (0..98).fold(fits, |request, _| request.with("x", "y"));
    let answer = attacked.gateway.ask(&fits);
    attacked.problem(&answer, "unknown_path", 404);
    attacked.over();
}

#[test]
fn heads_that_come_too_slowly_are_told_from_silence_and_from_idle_connections() {
    let mut attacked = Attacked::new("edge.header_timeout = \"2s\"\nedge.idle_timeout = \"2s\"\n");
    let begun = |part: &str| {
        let mut connection = attacked.gateway.connect();
        connection.send(part);
        connection
    };
    let mut halves: Vec<Connection> =
        (0..20).flat_map(|_| ["POST", "\r\nPOST / HTTP/1.1\r\nhost: x\r\nx: "].map(begun)).collect();
    // Nothing that could be answered.
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let silences = [
        ("", "the client sent nothing in time"),
        ("P", "the client sent only part of the HTTP/2 preface in time"),
        (&preface[..23], "the client sent only part of the HTTP/2 preface in time"),
        ("\r\n\r\n", "the client sent only empty lines in time"),
    ];
    let mut silent: Vec<Connection> = (0..5).flat_map(|_| silences.map(|(part, _)| begun(part))).collect();
    // Drop by drop for ever.
    let mut slow = begun("POST / HTTP/1.1\r\na: ");
    // A second head no more than a first; a kept connection on which nothing more is asked is no attack.
    let [mut kept, mut idle] = [(); 2].map(|()| begun(""));
    for connection in [&mut kept, &mut idle] {
        let answer = connection.ask(&Request::get("/nothing"));
        attacked.problem(&answer, "unknown_path", 404);
    }
    kept.send("POST / HTTP/1.1\r\n");
    attacked.meanwhile(|| {
        let mut all = halves.iter_mut().chain(&mut silent).chain([&mut slow, &mut kept, &mut idle]);
        all.all(Connection::is_silent)
    });

    until("the drops are cut off", || !slow.is_silent() || !slow.try_send("b"));
    halves.push(kept);
    for mut connection in halves {
        let answer = connection.answer();
        assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
        attacked.problem(&answer, "header_timeout", 408);
        connection.ends();
    }
    silent.into_iter().chain([idle]).for_each(Connection::ends);
    let timeouts = |gateway: &Gateway, status: u16| {
        let mut records = gateway.records();
        records.retain(|of| (&of["reason"], &of["status"]) == (&json!("header_timeout"), &json!(status)));
        records
    };
    until("the slow head's end is recorded", || timeouts(&attacked.gateway, 408).len() == 42);
    attacked.records += 1;
    let records = eventually("all are recorded", || {
        let records = timeouts(&attacked.gateway, 0);
        (records.len() >= 20).then_some(records)
    });
    for record in &records {
        attacked.says(record.clone(), "unknown", "header_timeout", 0);
    }
    let mut details: Vec<&str> = records.iter().map(|record| record["detail"].as_str().unwrap()).collect();
    let mut expected = silences.map(|(_, detail)| detail).repeat(5);
    details.sort_unstable();
    expected.sort_unstable();
    assert_eq!(details, expected);
    attacked.over();
}

// -- HTTP/1: bodies

#[test]
fn chunks_are_held_to_the_letter_and_what_stands_beside_them_to_a_bound() {
    let mut attacked = Attacked::new("");
    let chunked = |body: &str| {
        let request = Request::post("/hooks/basiq", body).with("transfer-encoding", "chunked");
        request.bytes()
    };
    let broken = [
        "5 \r\nhello\r\n0\r\n\r\n".to_owned(),
        "0x5\r\nhello\r\n0\r\n\r\n".to_owned(),
        "+5\r\nhello\r\n0\r\n\r\n".to_owned(),
        "5\nhello\r\n0\r\n\r\n".to_owned(),
        "5\r\nhello\n0\r\n\r\n".to_owned(),
        "5\r\nhello0\r\n\r\n".to_owned(),
        "10000000000000005\r\nhello\r\n0\r\n\r\n".to_owned(),
        format!("5;{}\r\nhello\r\n0\r\n\r\n", "e".repeat(9 << 10)),
        "5;a\nb\r\nhello\r\n0\r\n\r\n".to_owned(),
        format!("5\r\nhello\r\n0\r\nx: {}\r\n\r\n", "t".repeat(9 << 10)),
        format!("5\r\nhello\r\n0\r\n{}\r\n", "x: y\r\n".repeat(65)),
        "5\r\nhello\r\n0\r\n folded\r\n\r\n".to_owned(),
        "5\r\nhello\r\n0\r\nx : y\r\n\r\n".to_owned(),
        "5\r\nhello\r\n0\r\nx: y\n\r\n".to_owned(),
    ];
    for body in &broken {
        let mut connection = attacked.gateway.connect();
        connection.send(chunked(""));
        attacked.meanwhile(|| connection.is_silent());
        connection.send([body.as_bytes(), &basiq("smuggled").bytes()].concat());
        let answer = connection.answer();
        attacked.problem(&answer, "http_malformed", 400);
        connection.ends();
    }
    // Extensions and trailers mean nothing, and say nothing of the request.
    let event = basiq("evt-chunked");
    let text = String::from_utf8(event.body.clone()).unwrap();
    let (first, second) = text.split_at(10);
    let body = format!(
        "{:X};ext=\"x\"\r\n{first}\r\n{:x}\r\n{second}\r\n000\r\nwebhook-id: other\r\ncontent-length: 1\r\n\r\n",
        first.len(),
        second.len()
    );
    let mut connection = attacked.gateway.connect();
    let event = Request { body: body.into(), ..event }.with("transfer-encoding", "chunked");
    for _ in 0..2 {
        assert_eq!(connection.ask(&event).json()["id"], "evt-chunked");
    }
    drop(connection);
    attacked.delivered += 1;
    attacked.over();
}

#[test]
fn a_client_that_does_not_take_its_answers_is_dropped() {
    let mut attacked = Attacked::new("edge.body_timeout = \"2s\"\nedge.header_timeout = \"10m\"\n");
    let mut deaf = attacked.gateway.connect();
    let many = Request::get("/hooks/anduin").with("x-anduin-webhook-validation-key", "k".repeat(512));
    let many = many.bytes().repeat(100);
    let mut sent = 0;
    let mut pour = || {
        let taken = deaf.send_some(&many[sent % many.len()..]);
        sent += taken.unwrap_or(0);
        taken
    };
    // Nothing is taken of it for as long as it takes to serve another.
    loop {
        until("no more is taken", || pour() == Some(0));
        attacked.meanwhile(|| true);
        if pour().expect("it was dropped before another was served") == 0 {
            break;
        }
    }
    until("the connection is dropped", || pour().is_none());
    attacked.over();
}

// -- methods and paths

#[test]
fn no_other_spelling_of_a_path_leads_to_its_source() {
    let mut attacked = Attacked::new("");
    for target in [
        "//hooks/basiq",
        "/hooks//basiq",
        "/hooks/basiq/",
        "/hooks/./basiq",
        "/./hooks/basiq",
        "/hooks/x/../basiq",
        "/hooks/..;/hooks/basiq",
        "/hooks/basiq;x=y",
        "/hooks/basiq;",
        "/hooks/basiq%20",
        "/hooks/basiq%00",
        "/hooks/%62asiq",
        "/hooks%2fbasiq",
        "/hooks%5cbasiq",
        "/hooks\\basiq",
        "/hooks/basiq/%2e",
        "/hooks/%2e/basiq",
        "/HOOKS/basiq",
        "/hooks/basiq%3f",
        "/%2fhooks/basiq",
        "http://x.test//hooks/basiq",
        "http://x.test/hooks/%2e/basiq",
        "http://x.test",
        "x.test",
        "x.test:443",
        "*",
        "/",
    ] {
        let mut connection = attacked.gateway.connect();
        let answer = connection.ask(&basiq("evt").to(target));
        attacked.problem(&answer, "unknown_path", 404);
        attacked.meanwhile(|| connection.is_silent());
        // The connection is none the worse for it.
        let answer = connection.ask(&Request::get("/nothing"));
        attacked.problem(&answer, "unknown_path", 404);
    }
    for (target, id) in [
        ("/hooks/basiq?x=//y", "q-1"),
        ("http://x.test/hooks/basiq", "q-2"),
        ("HTTPS://x.test:8443/hooks/basiq?a=b", "q-3"),
        ("/hooks/basiq?", "q-4"),
    ] {
        assert_eq!(attacked.gateway.ask(&basiq(id).to(target)).json()["id"], id);
        attacked.delivered += 1;
    }
    attacked.over();
}

#[test]
fn methods_that_would_make_a_tunnel_or_an_echo_are_refused() {
    let mut attacked = Attacked::new("");
    for (method, target) in [("CONNECT", "x.test:443"), ("OPTIONS", "*"), ("CONNECT", "/nothing")] {
        let mut connection = attacked.gateway.connect();
        let answer = connection.ask(&Request::new(method, target));
        attacked.problem(&answer, "unknown_path", 404);
    }
    for method in ["TRACE", "OPTIONS", "PUT", "CONNECT", "PRI"] {
        let request = basiq("evt").method(method).with("x-secret", "ECHOMARK");
        let answer = attacked.gateway.ask(&request);
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{answer:?}");
        assert!(!answer.body.contains("ECHOMARK"));
        attacked.records += 1;
    }
    let mut connection = attacked.gateway.connect();
    let head = connection.ask(&basiq("evt").method("HEAD"));
    assert_eq!((head.status, head.header("allow")), (405, Some("POST")));
    attacked.records += 1;
    // Nothing stands between that head and the next.
    attacked.meanwhile(|| connection.is_silent());
    assert_eq!(connection.ask(&basiq("evt-head")).status, 200);
    drop(connection);
    attacked.delivered += 1;
    until("all are recorded", || attacked.gateway.records().len() == attacked.records);
    attacked.over();
}

#[test]
fn upgrades_and_unknown_expectations_are_passed_over() {
    let mut attacked = Attacked::new("");
    let mut connection = attacked.gateway.connect();
    for (id, name, value) in [
        ("u-1", "upgrade", "h2c"),
        ("u-2", "upgrade", "websocket"),
        ("u-3", "expect", "200-ok"),
        ("u-4", "http2-settings", "AAMAAABk"),
    ] {
        let request = basiq(id).with(name, value).with("connection", format!("keep-alive, {name}"));
        assert_eq!(connection.ask(&request).json()["id"], id);
        attacked.delivered += 1;
        attacked.meanwhile(|| connection.is_silent());
    }
    drop(connection);
    attacked.over();
}

// -- HTTP/2

/// A connection in HTTP/2, frame by frame.
struct Http2 {
    stream: TcpStream,
    read: Vec<u8>,
}

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const WHOLE: u8 = END_STREAM | END_HEADERS;
const PROTOCOL_ERROR: u8 = 1;
const CALM: u8 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let length = u32::try_from(payload.as_ref().len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload.as_ref()].concat()
}

/// Header fields, literal and without indexing.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| [&[0][..], &string(name), &string(value)].concat()).collect()
}

/// A string without Huffman's code: its length in seven bits or more, and itself.
fn string(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut length = text.len();
    if length < 127 {
        bytes.push(length as u8);
    } else {
        bytes.push(127);
        length -= 127;
        while length >= 128 {
            bytes.push((length % 128) as u8 | 0x80);
            length /= 128;
        }
        bytes.push(length as u8);
    }
    bytes.extend(text.bytes());
    bytes
}

/// With another path, in a block of literals.
fn replace_path(block: &[u8], path: &str) -> Vec<u8> {
    let of = |path: &str| [&[0][..], &string(":path"), &string(path)].concat();
    let (old, new) = (of("/nothing"), of(path));
    let at = block.windows(old.len()).position(|window| window == old).unwrap();
    [&block[..at], &new, &block[at + old.len()..]].concat()
}

const PSEUDO: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":path", "/nothing"), (":authority", "x")];

impl Http2 {
    fn open(gateway: &Gateway, settings: &[u8]) -> Http2 {
        let stream = TcpStream::connect(gateway.edge).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut connection = Http2 { stream, read: Vec::new() };
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        assert!(connection.send([&preface[..], &frame(SETTINGS, 0, 0, settings)].concat()));
        // Its limits hold once they are acknowledged.
        connection.next_of(SETTINGS);
        connection.next_of(SETTINGS);
        assert!(connection.send(frame(SETTINGS, 1, 0, [])));
        connection
    }

    /// False once the gateway takes no more.
    fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    fn is_open(&mut self) -> bool {
        is_open(&mut self.stream, &mut self.read)
    }

    fn ask(&mut self, stream: u32, fields: &[(&str, &str)]) {
        assert!(self.send(frame(HEADERS, WHOLE, stream, block(fields))));
    }

    /// None once the gateway has ended the connection.
    fn next(&mut self) -> Option<Frame> {
        loop {
            if let [a, b, c, kind, flags, d, e, f, g, ..] = self.read[..] {
                let length = u32::from_be_bytes([0, a, b, c]) as usize;
                if self.read.len() >= 9 + length {
                    let payload = self.read.drain(..9 + length).skip(9).collect();
                    let stream = u32::from_be_bytes([d, e, f, g]);
                    return Some(Frame { kind, flags, stream, payload });
                }
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes) {
                Ok(0) => return None,
                Ok(read) => self.read.extend(&bytes[..read]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("the connection goes on: {error}"),
            }
        }
    }

    fn next_of(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.next().expect("the connection goes on");
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// The body of a stream's answer.
    fn body(&mut self, stream: u32) -> Value {
        loop {
            let (of, body) = self.next_body();
            if of == stream {
                return body;
            }
        }
    }

    /// The next answer's stream and body.
    fn next_body(&mut self) -> (u32, Value) {
        loop {
            let frame = self.next_of(DATA);
            if !frame.payload.is_empty() {
                return (frame.stream, serde_json::from_slice(&frame.payload).unwrap());
            }
        }
    }

    /// The code with which the gateway resets the stream.
    fn reset(&mut self, stream: u32) -> u8 {
        let frame = self.next_of(RST_STREAM);
        assert_eq!(frame.stream, stream);
        frame.payload[3]
    }

    /// The gateway ends the connection: with this code if it says one.
    fn ends(mut self, code: Option<u8>) {
        assert_eq!(self.said_at_the_end(), code);
    }

    fn said_at_the_end(&mut self) -> Option<u8> {
        let mut said = None;
        while let Some(frame) = self.next() {
            if frame.kind == GOAWAY {
                said = Some(frame.payload[7]);
            }
        }
        said
    }

    /// It goes on, and answers.
    fn answers(&mut self, attacked: &mut Attacked, stream: u32) {
        self.ask(stream, &PSEUDO);
        assert_eq!(self.body(stream)["status"], 404);
        attacked.recorded("unknown_path", 404);
    }
}

#[test]
fn a_malformed_http2_request_costs_its_stream_and_no_other() {
    let mut attacked = Attacked::new("");
    let mut connection = Http2::open(&attacked.gateway, &[]);
    let without = |name: &str| PSEUDO.into_iter().filter(|(known, _)| *known != name).collect::<Vec<_>>();
    let with = |field: (&'static str, &'static str)| [&PSEUDO[..], &[field]].concat();
    let cases = [
        without(":path"),
        without(":method"),
        without(":scheme"),
        [&without(":path")[..], &[(":path", "")]].concat(),
        [&without(":authority")[..], &[(":authority", "a b")]].concat(),
        with((":method", "GET")),
        [&without(":path")[..], &[(":path", "http://x/hooks/basiq")]].concat(),
        [&without(":path")[..], &[(":path", "nothing")]].concat(),
        with((":status", "200")),
        with((":protocol", "websocket")),
        [&[("x", "y")], &PSEUDO[..]].concat(),
        with(("connection", "close")),
        with(("transfer-encoding", "chunked")),
        with(("upgrade", "h2c")),
        with(("keep-alive", "5")),
        with(("proxy-connection", "close")),
        with(("te", "gzip")),
        with(("content-length", "5")),
        with(("content-length", "x")),
        with(("x", " y")),
    ];
    let mut stream = 1;
    for fields in &cases {
        connection.ask(stream, fields);
        assert_eq!(connection.reset(stream), PROTOCOL_ERROR, "{fields:?}");
        attacked.refused("stream");
        attacked.meanwhile(|| connection.is_open());
        connection.answers(&mut attacked, stream + 2);
        stream += 4;
    }
    // More of a body than was said, and less.
    let fields = [&PSEUDO[..], &[("content-length", "5")]].concat();
    for body in ["hello world", "he"] {
        let head = frame(HEADERS, END_HEADERS, stream, replace_path(&block(&fields), "/hooks/basiq"));
        connection.send([head, frame(DATA, END_STREAM, stream, body)].concat());
        assert_eq!(connection.reset(stream), PROTOCOL_ERROR, "{body}");
        stream += 2;
    }
    // What has no host, or two, or more than a host, can be answered; so can a path that is not one.
    let to = |path: &'static str| [&without(":path")[..], &[(":path", path)]].concat();
    for fields in [
        to("/hooks/b\u{e4}siq"),
        to("/nothing?caf\u{e9}"),
        to("?"),
        to("/nothing#"),
        to("/hooks/basiq#fragment"),
        to("/nothing?a#b?c"),
        without(":authority"),
        with(("host", "y")),
        [&with(("host", "x"))[..], &[("host", "x")]].concat(),
        [&without(":authority")[..], &[(":authority", "user:hush@x")]].concat(),
    ] {
        connection.ask(stream, &fields);
        assert_eq!(connection.body(stream)["status"], 400);
        attacked.recorded("http_malformed", 400);
        stream += 2;
    }
    drop(connection);
    attacked.over();
}

#[test]
fn of_many_http2_requests_at_once_those_are_refused_that_have_a_fragment() {
    let mut attacked = Attacked::new("");
    let mut connection = Http2::open(&attacked.gateway, &[]);
    let ask = |stream, path| frame(HEADERS, WHOLE, stream, replace_path(&block(&PSEUDO), path));
    let indexed = |stream, field| {
        let head = replace_path(&block(&PSEUDO), "/hooks");
        let path = replace_path(&[&[0][..], &string(":path"), &string("/nothing")].concat(), "/hooks");
        let at = head.windows(path.len()).position(|window| window == path).unwrap();
        frame(HEADERS, WHOLE, stream, [&head[..at], field, &head[at + path.len()..]].concat())
    };
    let in_table = [&[0x44][..], &string("/nothing#")].concat();
    // `/#` in Huffman's code.
    let all = [
        (ask(1, "/nothing"), 404),
        (ask(3, "/nothing#"), 400),
        (ask(5, "/nothing"), 404),
        (indexed(7, &in_table), 400),
        (ask(9, ""), 0),
        (indexed(11, &[0xbe]), 400),
        (indexed(13, &[0x04, 0x83, 0x63, 0xfe, 0xbf]), 400),
        (ask(15, "/nothing#x"), 400),
        (ask(17, "/nothing"), 404),
    ];
    connection.send(all.iter().flat_map(|(frame, _)| frame.clone()).collect::<Vec<u8>>());
    let answers = all.iter().filter(|(_, status)| *status != 0).count();
    let got: BTreeMap<u32, u64> = (0..answers)
        .map(|_| connection.next_body())
        .map(|(stream, answer)| (stream, answer["status"].as_u64().unwrap()))
        .collect();
    let expected = (0u32..).map(|number| 2 * number + 1).zip(all.iter().map(|(_, status)| *status));
    assert_eq!(got, expected.filter(|(_, status)| *status != 0).collect());
    attacked.refused("stream");
    attacked.records = answers;
    attacked.meanwhile(|| connection.is_open());
    drop(connection);
    attacked.over();
}

#[test]
fn a_record_names_the_host_wherever_the_request_has_it_and_no_password_beside_it() {
    let mut attacked = Attacked::new("");
    let host = |record: &Value| record["headers"]["host"].as_str().unwrap().to_owned();
    let mut connection = Http2::open(&attacked.gateway, &[]);
    let mut stream = 1;
    for (fields, status, named) in [
        ([(":authority", "one.test:8443"), ("x", "y")], 404, "one.test:8443"),
        ([(":authority", "two.test"), ("host", "two.test")], 404, "two.test"),
        ([(":authority", "user:hush@three.test"), ("x", "y")], 400, "three.test"),
    ] {
        connection.ask(stream, &[&PSEUDO[..3], &fields].concat());
        assert_eq!(connection.body(stream)["status"], status);
        let reason = if status == 404 { "unknown_path" } else { "http_malformed" };
        assert_eq!(host(&attacked.recorded(reason, status)), named);
        stream += 2;
    }
    attacked.meanwhile(|| connection.is_open());
    drop(connection);
    let absolute = Request::get("http://four.test/nothing");
    assert_eq!(attacked.gateway.connect().ask_as(&absolute, "HTTP/1.0").status, 404);
    assert_eq!(host(&attacked.recorded("unknown_path", 404)), "four.test");
    assert_eq!(attacked.gateway.ask(&absolute).status, 404);
    assert_eq!(host(&attacked.recorded("unknown_path", 404)), "hookgate.test", "as it was sent");
    assert!(!attacked.home.audit().contains("hush"));
    attacked.over();
}

#[test]
fn frames_that_cannot_be_there_end_the_connection() {
    let mut attacked = Attacked::new("");
    let head = block(&PSEUDO);
    let cases = [
        frame(DATA, 0, 0, "x"),
        frame(DATA, 0, 1, "x"),
        frame(HEADERS, WHOLE, 0, &head),
        frame(HEADERS, WHOLE, 2, &head),
        frame(HEADERS, WHOLE | 0x8, 1, [255]),
        frame(CONTINUATION, END_HEADERS, 1, &head),
        [frame(HEADERS, 0, 1, &head), frame(PING, 0, 0, [0; 8])].concat(),
        [frame(HEADERS, 0, 1, &head), frame(CONTINUATION, END_HEADERS, 3, [])].concat(),
        frame(HEADERS, WHOLE, 1, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        frame(HEADERS, WHOLE, 1, [0xc8]),
        frame(SETTINGS, 0, 0, [0; 5]),
        frame(SETTINGS, 0, 1, []),
        frame(SETTINGS, 0, 0, [0, 4, 0xff, 0xff, 0xff, 0xff]),
        frame(SETTINGS, 1, 0, []),
        frame(PING, 0, 0, [0; 7]),
        frame(PING, 0, 1, [0; 8]),
        frame(RST_STREAM, 0, 0, [0; 4]),
        frame(RST_STREAM, 0, 1, [0; 4]),
        frame(WINDOW_UPDATE, 0, 0, [0; 4]),
        frame(WINDOW_UPDATE, 0, 0, [0x7f, 0xff, 0xff, 0xff]),
        frame(5, END_HEADERS, 1, [&[0, 0, 0, 2][..], &head].concat()),
        [&[0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1][..], &[0; 64]].concat(),
    ];
    for bytes in &cases {
        let mut connection = Http2::open(&attacked.gateway, &[]);
        connection.send(&bytes[..1]);
        attacked.meanwhile(|| connection.is_open());
        connection.send(&bytes[1..]);
        let error = match connection.said_at_the_end() {
            Some(PROTOCOL_ERROR) => "protocol",
            Some(3) => "flow_control",
            Some(6) => "frame_size",
            Some(9) => "compression",
            said => panic!("{said:?} to {}", bytes.escape_ascii()),
        };
        attacked.refused(error);
    }
    attacked.over();
}

#[test]
fn a_header_list_over_64_kib_is_431_and_one_far_over_ends_the_connection() {
    let mut attacked = Attacked::new("");
    // Plain, in several frames; and packed: one entry of the table, named again and again.
    let long = "y".repeat(5000);
    let plain = |times: usize| block(&[&PSEUDO[..], &vec![("x", long.as_str()); times]].concat());
    let packed = |times: usize| {
        let entry = [&[0x40][..], &string("x"), &string(&long[..4000])].concat();
        [&block(&PSEUDO)[..], &entry, &vec![0xbe; times]].concat()
    };
    let send = |connection: &mut Http2, stream: u32, block: &[u8]| {
        let mut frames = block.chunks(16_000).peekable();
        let mut kind = HEADERS;
        while let Some(part) = frames.next() {
            let end = if frames.peek().is_none() { END_HEADERS } else { 0 };
            let flags = end | if kind == HEADERS { END_STREAM } else { 0 };
            connection.send(frame(kind, flags, stream, part));
            kind = CONTINUATION;
        }
    };
    let mut connection = Http2::open(&attacked.gateway, &[]);
    for (stream, block) in [(1, plain(14)), (5, packed(20)), (9, packed(40))] {
        send(&mut connection, stream, &block);
        let head = connection.next_of(HEADERS);
        assert_eq!((head.stream, head.flags), (stream, WHOLE));
        attacked.refused("stream");
        attacked.meanwhile(|| connection.is_open());
        connection.answers(&mut attacked, stream + 2);
    }
    // As much as fits.
    send(&mut connection, 13, &plain(12));
    assert_eq!(connection.body(13)["status"], 404);
    attacked.recorded("unknown_path", 404);
    drop(connection);
    for block in [packed(16_000), plain(60)] {
        let mut connection = Http2::open(&attacked.gateway, &[]);
        send(&mut connection, 1, &block);
        let said = connection.said_at_the_end();
        assert!(said.is_some_and(|code| code != 0), "{said:?}");
        attacked.refused(if said == Some(CALM) { "enhance_your_calm" } else { "compression" });
        attacked.unharmed();
    }
    attacked.over();
}

#[test]
fn floods_end_the_connection() {
    let head = block(&PSEUDO);
    let reset = |stream| frame(RST_STREAM, 0, stream, [0, 0, 0, 8]);
    let open = |stream| frame(HEADERS, END_HEADERS, stream, replace_path(&head, "/hooks/basiq"));
    let streams = |many: u32| (0..many).map(|number| 2 * number + 1);
    let cases: [(&str, Vec<u8>, Option<u8>); 8] = [
        (
            "continuations",
            [frame(HEADERS, 0, 1, &head), frame(CONTINUATION, 0, 1, []).repeat(100)].concat(),
            Some(CALM),
        ),
        ("resets", streams(500).flat_map(|id| [open(id), reset(id)].concat()).collect(), Some(CALM)),
        (
            "malformed requests",
            streams(3000).flat_map(|id| frame(HEADERS, WHOLE, id, block(&PSEUDO[1..]))).collect(),
            None,
        ),
        ("empty data", [open(1), frame(DATA, 0, 1, []).repeat(3000)].concat(), Some(CALM)),
        ("pings", frame(PING, 0, 0, [0; 8]).repeat(3000), None),
        ("settings", frame(SETTINGS, 0, 0, []).repeat(3000), None),
        ("priorities", frame(2, 0, 1, [0, 0, 0, 3, 9]).repeat(3000), None),
        ("unknown frames", frame(0x42, 0, 1, "x").repeat(3000), None),
    ];
    for (what, bytes, code) in cases {
        let mut attacked = Attacked::new("");
        let mut connection = Http2::open(&attacked.gateway, &[]);
        // As much as is no flood yet.
        let (first, rest) = bytes.split_at(bytes.len() / 50);
        connection.send(first);
        attacked.meanwhile(|| connection.is_open());
        connection.send(rest);
        assert_eq!(connection.said_at_the_end(), code, "{what}");
        let calm = || http2_errors(&attacked.gateway, Some("enhance_your_calm"));
        until(what, || calm() == 1.0);
        // What h2 refused before that is counted besides.
        attacked.refused = 1.0 + http2_errors(&attacked.gateway, Some("stream"));
        assert_eq!(attacked.refused > 1.0, what == "malformed requests", "{what}");
        attacked.over();
    }
}

#[test]
fn a_client_that_resets_what_it_asks_for_is_stopped() {
    let mut attacked = Attacked::new("");
    let mut connection = Http2::open(&attacked.gateway, &[]);
    let open = replace_path(&block(&PSEUDO), "/hooks/basiq");
    // Each request is served before it is reset: the answer to a PING says so.
    let mut ask = |stream: u32| {
        let opened =
            [frame(HEADERS, END_HEADERS, stream, &open), frame(PING, 0, 0, stream.to_be_bytes().repeat(2))];
        connection.send(opened.concat());
        while let Some(came) = connection.next() {
            if came.kind == PING {
                return connection.send(frame(RST_STREAM, 0, stream, [0, 0, 0, 8]));
            }
        }
        false
    };
    let asked = (0..1000).take_while(|number| ask(2 * number + 1)).count();
    assert!((100..1000).contains(&asked), "{asked}");
    attacked.refused("enhance_your_calm");
    attacked.meanwhile(|| true);
    attacked.over();
}

#[test]
fn the_mistakes_of_one_client_do_not_cost_the_others_of_a_proxy_their_connection() {
    let mut attacked = Attacked::new("");
    let mut connection = Http2::open(&attacked.gateway, &[]);
    let mut stream = 1;
    for _ in 0..300 {
        // Its own window would be used up by the answers.
        assert!(connection.send(frame(WINDOW_UPDATE, 0, 0, [0, 0, 0x10, 0])));
        connection.ask(stream, &PSEUDO[1..]);
        assert_eq!(connection.reset(stream), PROTOCOL_ERROR);
        for good in [stream + 2, stream + 4, stream + 6] {
            connection.ask(good, &PSEUDO);
            assert_eq!(connection.body(good)["status"], 404);
        }
        stream += 8;
    }
    attacked.meanwhile(|| connection.is_open());
    drop(connection);
    assert_eq!(http2_errors(&attacked.gateway, Some("stream")), 300.0);
    (attacked.refused, attacked.records) = (300.0, 900);
    attacked.over();
}

#[test]
fn streams_over_the_limit_are_refused_and_the_others_go_on() {
    let mut attacked = Attacked::new("edge.body_timeout = \"60s\"\nedge.request_timeout = \"70s\"\n");
    let mut connection = Http2::open(&attacked.gateway, &[]);
    let open = replace_path(&block(&[&PSEUDO[..], &[("content-length", "5")]].concat()), "/hooks/basiq");
    for number in 0..256 {
        connection.send(frame(HEADERS, END_HEADERS, 2 * number + 1, &open));
    }
    until("all are open", || attacked.gateway.metrics().sum("hookgate_requests_in_flight", &[]) >= 256.0);
    connection.send(frame(HEADERS, END_HEADERS, 513, &open));
    assert_eq!(connection.reset(513), 7, "REFUSED_STREAM");
    attacked.refused("stream");
    attacked.meanwhile(|| connection.is_open());
    // One goes, one may come.
    connection.send(frame(RST_STREAM, 0, 1, [0, 0, 0, 8]));
    connection.send(frame(HEADERS, WHOLE, 515, block(&PSEUDO)));
    assert_eq!(connection.body(515)["status"], 404);
    attacked.recorded("unknown_path", 404);
    drop(connection);
    attacked.over();
}

#[test]
fn who_still_asks_on_a_connection_that_a_reload_ends_is_no_attacker() {
    let attacked = Attacked::new("");
    let mut connection = Http2::open(&attacked.gateway, &[]);
    let text = "edge.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\nedge.trusted_proxies = [\"192.0.2.0/24\"]\n";
    attacked.home.write("hookgate.toml", text.to_owned() + &sources());
    attacked.gateway.sighup();
    assert_eq!(connection.next_of(GOAWAY).payload[7], 0);
    // The ping that comes with the farewell is not answered yet: what is opened now has crossed with it.
    connection.ask(1, &PSEUDO);
    assert_eq!(connection.reset(1), 7, "REFUSED_STREAM");
    drop(connection);
    // Nothing more is asked of the bystander: the reload has ended the connection that it keeps.
    assert_eq!((attacked.gateway.metrics().refused(), http2_errors(&attacked.gateway, None)), (0.0, 0.0));
    assert!(attacked.gateway.records().is_empty());
}

#[test]
fn an_http2_client_that_takes_no_answer_or_asks_in_halves_does_not_stay() {
    let mut attacked = Attacked::new("edge.header_timeout = \"2s\"\nedge.body_timeout = \"2s\"\n");
    // A window of nothing for every stream: the answer's body can never be sent.
    let mut closed: Vec<Http2> =
        (0..10).map(|_| Http2::open(&attacked.gateway, &[0, 4, 0, 0, 0, 0])).collect();
    for connection in &mut closed {
        connection.ask(1, &PSEUDO);
        assert_eq!(connection.next_of(HEADERS).stream, 1);
        attacked.recorded("unknown_path", 404);
    }
    // A head that does not end: at its frame's end, and within.
    let mut halves: Vec<Http2> = (0..40)
        .map(|number| {
            let mut half = Http2::open(&attacked.gateway, &[]);
            let mut bytes = frame(HEADERS, END_STREAM, 1, block(&PSEUDO));
            bytes.truncate(bytes.len() - [0, 3][number % 2]);
            half.send(bytes);
            half
        })
        .collect();
    // Nothing asked: idle, and no attack.
    let mut idle = Http2::open(&attacked.gateway, &[]);
    // Idle once something was asked: that is another time. A head then has as little as the first.
    let kept: Vec<Http2> = (0..10)
        .map(|number| {
            let mut kept = Http2::open(&attacked.gateway, &[]);
            kept.answers(&mut attacked, 1);
            if number % 2 == 0 {
                assert!(kept.send(frame(HEADERS, END_STREAM, 3, block(&PSEUDO))));
            }
            kept
        })
        .collect();
    attacked.meanwhile(|| closed.iter_mut().chain(&mut halves).chain([&mut idle]).all(Http2::is_open));
    let mut number = 0;
    let (mut kept, late): (Vec<_>, Vec<_>) = kept.into_iter().partition(|_| {
        number += 1;
        number % 2 == 0
    });
    halves.extend(late);
    closed.into_iter().for_each(|connection| connection.ends(Some(0)));
    for half in halves {
        half.ends(Some(0));
        attacked.recorded("header_timeout", 0);
    }
    idle.ends(Some(0));
    for connection in &mut kept {
        connection.answers(&mut attacked, 3);
    }
    drop(kept);
    attacked.over();
}

#[test]
fn an_http2_connection_that_was_asked_ends_once_it_is_idle() {
    let mut attacked = Attacked::new("edge.header_timeout = \"10m\"\nedge.idle_timeout = \"1s\"\n");
    let mut connection = Http2::open(&attacked.gateway, &[]);
    connection.answers(&mut attacked, 1);
    attacked.meanwhile(|| connection.is_open());
    // The farewell comes with a ping; what has crossed with it is answered.
    let farewell = connection.next_of(GOAWAY);
    assert_eq!((&farewell.payload[..4], farewell.payload[7]), (&[127, 255, 255, 255][..], 0));
    let ping = connection.next_of(PING);
    connection.answers(&mut attacked, 3);
    connection.send(frame(PING, 1, 0, ping.payload));
    connection.ends(Some(0));
    attacked.over();
}

#[test]
fn an_idle_http2_connection_gives_way_where_few_places_are_left() {
    let times = "edge.header_timeout = \"1s\"\nedge.max_connections = 2\n";
    let home = Home::new(&(times.to_owned() + &sources()));
    let gateway = home.gateway();
    let mut idle = Http2::open(&gateway, &[]);
    idle.ask(1, &PSEUDO);
    assert_eq!(idle.body(1)["status"], 404);
    let (mut busy, begun) = (gateway.connect(), hookgate::base::clock::instant());
    until("a newcomer is served", || {
        assert_eq!(busy.ask(&basiq("evt-1")).status, 200);
        let mut newcomer = gateway.connect();
        newcomer.try_send(basiq("evt-2").bytes());
        newcomer.answer().status == 200
    });
    // A client that answers no PING is gone after 30 s anyway.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    idle.ends(Some(0));
}

#[test]
fn an_http2_body_that_does_not_come_to_its_end_is_answered_408() {
    let mut attacked = Attacked::new("edge.body_timeout = \"2s\"\n");
    let mut connection = Http2::open(&attacked.gateway, &[]);
    let open = replace_path(&block(&[&PSEUDO[..], &[("content-length", "5")]].concat()), "/hooks/basiq");
    let slow: BTreeSet<u32> = (0..50).map(|number| 2 * number + 1).collect();
    for stream in &slow {
        let half = frame(DATA, 0, *stream, "he");
        assert!(connection.send([frame(HEADERS, END_HEADERS, *stream, &open), half].concat()));
    }
    // Another stream of it is answered, and another client.
    connection.ask(101, &PSEUDO);
    let (first, answer) = connection.next_body();
    assert_eq!((first, &answer["status"]), (101, &json!(404)));
    attacked.recorded("unknown_path", 404);
    attacked.meanwhile(|| connection.is_open());
    assert_eq!(attacked.gateway.records().len(), 1, "and not one of the slow ones before");
    let mut answered = BTreeSet::new();
    while answered.len() < slow.len() {
        let (stream, answer) = connection.next_body();
        assert_eq!(answer["status"], 408);
        let record = eventually("it is recorded", || {
            attacked.gateway.records().into_iter().find(|record| record["id"] == answer["reject"])
        });
        assert_eq!(record.get("body_sha256"), None, "it was not read whole");
        attacked.says(record, "basiq", "body_timeout", 408);
        answered.insert(stream);
    }
    assert_eq!(answered, slow);
    // What still comes of them costs the connection nothing.
    connection.send(frame(DATA, END_STREAM, 1, "llo"));
    connection.answers(&mut attacked, 103);
    drop(connection);
    attacked.over();
}

/// The first code is NO_ERROR, with which many libraries cancel a request.
#[test]
fn an_http2_body_that_is_cut_off_is_no_delivery() {
    let mut attacked = Attacked::new("");
    let mut connection = Http2::open(&attacked.gateway, &[]);
    let event = basiq("evt-cut");
    let length = event.body.len().to_string();
    let fields = event.headers.iter().map(|(name, value)| (name.as_str(), str::from_utf8(value).unwrap()));
    let fields: Vec<_> = PSEUDO.into_iter().chain(fields).collect();
    for (number, code) in [0, 2, 5, 8].into_iter().enumerate() {
        for (declares, stream) in [(true, 4 * number + 1), (false, 4 * number + 3)] {
            let mut fields = fields.clone();
            if declares {
                fields.push(("content-length", &length));
            }
            let stream = u32::try_from(stream).unwrap();
            let head = frame(HEADERS, END_HEADERS, stream, replace_path(&block(&fields), "/hooks/basiq"));
            let half = frame(DATA, 0, stream, &event.body[..20]);
            assert!(connection.send([head, half].concat()));
            attacked.meanwhile(|| connection.is_open());
            assert!(connection.send(frame(RST_STREAM, 0, stream, [0, 0, 0, code])));
        }
    }
    connection.answers(&mut attacked, 101);
    drop(connection);
    attacked.over();
}

#[test]
fn what_stands_in_http2_trailers_says_nothing_of_the_request() {
    let mut attacked = Attacked::new("");
    let mut connection = Http2::open(&attacked.gateway, &[]);
    let event = basiq("evt-trailers");
    let fields = event.headers.iter().map(|(name, value)| (name.as_str(), str::from_utf8(value).unwrap()));
    let head = block(&PSEUDO.into_iter().chain(fields).collect::<Vec<_>>());
    let head = frame(HEADERS, END_HEADERS, 1, replace_path(&head, "/hooks/basiq"));
    assert!(connection.send([head, frame(DATA, 0, 1, &event.body)].concat()));
    attacked.meanwhile(|| connection.is_open());
    let trailers = [("webhook-id", "other"), ("webhook-signature", "v1,none")];
    assert!(connection.send(frame(HEADERS, WHOLE, 1, block(&trailers))));
    assert_eq!(connection.body(1), json!({ "status": "accepted", "id": "evt-trailers" }));
    attacked.delivered += 1;
    connection.answers(&mut attacked, 3);
    drop(connection);
    attacked.over();
}

#[test]
fn over_http2_a_head_has_no_body_and_a_tunnel_is_refused() {
    let mut attacked = Attacked::new("");
    let mut connection = Http2::open(&attacked.gateway, &[]);
    connection
        .ask(1, &[(":method", "HEAD"), (":scheme", "http"), (":path", "/hooks/basiq"), (":authority", "x")]);
    let head = connection.next_of(HEADERS);
    assert_eq!((head.stream, head.flags), (1, WHOLE), "and nothing after it");
    attacked.meanwhile(|| connection.is_open());
    connection.ask(3, &[(":method", "CONNECT"), (":authority", "x.test:443")]);
    assert_eq!(connection.body(3)["status"], 404);
    attacked.records += 1;
    attacked.recorded("unknown_path", 404);
    for path in ["//hooks/basiq", "/hooks/%62asiq", "/hooks/basiq/", "*"] {
        let stream = 2 * attacked.records as u32 + 1;
        connection
            .ask(stream, &[(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x")]);
        assert_eq!(connection.body(stream)["status"], 404);
        attacked.recorded("unknown_path", 404);
    }
    drop(connection);
    attacked.over();
}
