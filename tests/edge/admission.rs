//! Who is let in when there is too much of it: the rates of a source and of its clients, the shares of what may be in flight,
//! and the validation that a CloudEvents sender asks for first.

use serde_json::Value;
use support::blocking::{Connection, until};
use support::*;

// -- rates

#[test]
fn a_client_over_its_rate_takes_nothing_from_the_others() {
    let limits =
        "client_rate_limit = { per_second = 1, burst = 4 }\nrate_limit = { per_second = 1, burst = 100 }\n";
    let home = Home::exactly(&two_sources("", limits));
    let gateway = home.gateway();
    let mut flood = gateway.connect();
    let mut refused = 0;
    for number in 0..300 {
        let answer = flood.ask(&basiq(&format!("flood-{number}")));
        if answer.status == 200 {
            continue;
        }
        refused += 1;
        if refused <= 3 {
            let record = refusal(&gateway, &answer, 429, "rate_limited");
            assert_eq!(record["detail"], "over the source's client_rate_limit");
            assert!(answer.header("retry-after").is_some());
        }
    }
    assert!(refused > 200, "{refused}");
    // Had the flood been counted on the source's own rate, nothing would be left of it.
    for client in [2, 3, 4] {
        let mut other = Connection::open_from([127, 0, 0, client], gateway.edge);
        for number in 0..4 {
            let answer = other.ask(&basiq(&format!("other-{client}-{number}")));
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
    assert_eq!(gateway.metrics().rejects("basiq", "rate_limited"), f64::from(refused));
}

#[test]
fn clients_within_their_own_rates_are_held_to_the_one_of_all() {
    let limits =
        "client_rate_limit = { per_second = 1, burst = 50 }\nrate_limit = { per_second = 1, burst = 3 }\n";
    let home = Home::exactly(&two_sources("", limits));
    let gateway = home.gateway();
    let mut details = Vec::new();
    for client in 1..=20 {
        let mut one = Connection::open_from([127, 0, 1, client], gateway.edge);
        let answer = one.ask(&basiq(&format!("evt-{client}")));
        if answer.status != 200 {
            details.push(refusal(&gateway, &answer, 429, "rate_limited")["detail"].clone());
        }
    }
    assert!(!details.is_empty());
    assert!(details.iter().all(|detail| detail == "over the source's rate_limit"), "{details:?}");
}

// -- shares

#[test]
fn a_source_that_takes_every_place_it_can_leaves_the_others_theirs() {
    let home = Home::exactly(&two_sources("max_in_flight = 8", ""));
    let gateway = home.gateway();
    // Its share is two, and the common part four. One client could take two of them.
    let mut slow: Vec<Connection> = Vec::new();
    for places in 1..=6 {
        slow.push(begun(&gateway, 1 + places as u8, 100));
        until("it has its place", || in_flight(&gateway) == places);
    }
    for asks in [false, true] {
        let mut connection = gateway.connect();
        let request = basiq("evt-shed");
        let body = request.body.clone();
        if asks {
            let head = Request { body: Vec::new(), ..request };
            let length = body.len().to_string();
            connection.send(head.with("content-length", length).with("expect", "100-continue").bytes());
        } else {
            connection.send(request.bytes());
        }
        // Had it been asked for its body, the first answer would be 100.
        let answer = connection.answer();
        let record = refusal(&gateway, &answer, 503, "overloaded");
        assert!(record["detail"].as_str().unwrap().contains("edge.max_in_flight:"), "{record}");
        assert_eq!((record["source"].as_str(), record.get("body_bytes")), (Some("basiq"), None));
        assert!(answer.header("retry-after").is_some());
    }
    assert_eq!(in_flight(&gateway), 6);
    let mut other = gateway.connect();
    let waiting = begun_to(&gateway, 8, "/hooks/anduin", 100);
    until("its place is taken too", || in_flight(&gateway) == 7);
    for number in 0..30 {
        let answer = other.ask(&anduin(number));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let full = begun_to(&gateway, 8, "/hooks/anduin", 100);
    until("both of its places are taken", || in_flight(&gateway) == 8);
    let answer = other.ask(&anduin(30));
    assert_eq!(refusal(&gateway, &answer, 503, "overloaded")["source"], "anduin");
    drop((full, waiting));

    // Who hangs up gives the place back, and so does who goes on.
    slow.truncate(3);
    until("the places are back", || in_flight(&gateway) == 3);
    for mut connection in slow {
        connection.send("x".repeat(100));
        assert_eq!(connection.answer().status, 401);
    }
    until("nothing is in flight", || in_flight(&gateway) == 0);
    let mut full: Vec<_> = (2..8).map(|client| begun(&gateway, client, 100)).collect();
    until("all can be taken anew", || in_flight(&gateway) == 6);
    full.pop();
    until("one is given back", || in_flight(&gateway) == 5);
    assert_eq!(gateway.ask(&basiq("evt")).status, 200);
    drop(full);
    until("nothing is in flight", || in_flight(&gateway) == 0);
    assert_eq!(held(&gateway), 0);
    assert_eq!(gateway.metrics().sum("hookgate_request_body_bytes_count", &[("source", "basiq")]), 4.0);
}

#[test]
fn a_source_whose_bodies_fill_the_bytes_leaves_the_others_theirs() {
    let edge = "max_body = \"64KiB\"\nmax_in_flight_bytes = \"512KiB\"";
    let home = Home::exactly(&two_sources(edge, ""));
    let gateway = home.gateway();
    // Its share is two bodies of the largest size, and the common part four.
    let mut slow: Vec<Connection> = Vec::new();
    for bodies in 1..=6 {
        slow.push(begun(&gateway, 1 + bodies as u8, 64 * KIB));
        until("its first step is counted before it comes", || held(&gateway) == bodies * 64 * KIB);
    }
    let answer = gateway.ask(&basiq("evt-shed"));
    let record = refusal(&gateway, &answer, 503, "overloaded");
    assert!(record["detail"].as_str().unwrap().contains("edge.max_in_flight_bytes:"), "{record}");
    let chunked = Request::post("/hooks/basiq", "0\r\n\r\n").with("transfer-encoding", "chunked");
    refusal(&gateway, &gateway.ask(&chunked), 503, "overloaded");
    // Too large is too large, however much there is.
    let large = Request::post("/hooks/basiq", "").with("content-length", (64 * KIB + 1).to_string());
    let mut connection = gateway.connect();
    connection.send(large.bytes());
    refusal(&gateway, &connection.answer(), 413, "body_too_large");

    let mut other = gateway.connect();
    for number in 0..30 {
        assert_eq!(other.ask(&anduin(number)).status, 200);
        assert_eq!(other.ask(&in_chunks(&anduin(100 + number))).status, 200);
    }
    assert_eq!(held(&gateway), 6 * 64 * KIB);
    slow.truncate(2);
    until("what was hung up on is given back", || held(&gateway) == 2 * 64 * KIB);
    for mut connection in slow {
        connection.send("x".repeat(64 * KIB));
        assert_eq!(connection.answer().status, 401);
    }
    until("nothing is held", || held(&gateway) == 0 && in_flight(&gateway) == 0);
    assert_eq!(gateway.ask(&basiq("evt")).status, 200);
}

#[test]
fn a_body_is_counted_as_it_comes_whether_its_length_is_told_or_not() {
    // One client may have more than the largest body.
    let edge = "max_body = \"1MiB\"\nmax_in_flight_bytes = \"2MiB\"";
    let home = Home::exactly(&two_sources(edge, ""));
    let gateway = home.gateway();
    let chunk = |bytes: usize| format!("{bytes:x}\r\n{}\r\n", "x".repeat(bytes));
    let chunked = Request::post("/hooks/basiq", "").with("transfer-encoding", "chunked");
    let mut first = gateway.connect();
    first.send(chunked.bytes());
    until("a first step is counted", || held(&gateway) == 64 * KIB);
    first.send(chunk(1000 * KIB));
    until("it is counted in steps", || held(&gateway) == 1024 * KIB);
    // The share is half a mebibyte and the common part one: there is room for half a one more.
    let mut second = client(&gateway, 2);
    second.send(chunked.bytes());
    second.send(chunk(500 * KIB));
    until("there is room for that", || held(&gateway) == 1536 * KIB);
    second.send(chunk(100 * KIB));
    let record = refusal(&gateway, &second.answer(), 503, "overloaded");
    assert!(record["detail"].as_str().unwrap().contains("edge.max_in_flight_bytes:"), "{record}");
    until("what was shed is given back", || held(&gateway) == 1024 * KIB);
    let mut third = client(&gateway, 3);
    assert_eq!(third.ask(&in_chunks(&anduin(1))).status, 200);
    let declared = begun(&gateway, 2, 10 * KIB);
    until("a short one is counted whole", || held(&gateway) == 1034 * KIB);
    drop(declared);
    let mut declared = begun(&gateway, 2, 1000 * KIB);
    until("of a long one a step is counted", || held(&gateway) == 1088 * KIB);
    declared.send("x".repeat(300 * KIB));
    until("and more as it comes", || held(&gateway) == 1344 * KIB);
    declared.send("x".repeat(300 * KIB));
    let record = refusal(&gateway, &declared.answer(), 503, "overloaded");
    assert!(record["detail"].as_str().unwrap().contains("this source's own quota"), "{record}");
    first.send("0\r\n\r\n");
    refusal(&gateway, &first.answer(), 401, "signature_missing");
    let mut whole = begun(&gateway, 2, 1000 * KIB);
    whole.send("x".repeat(1000 * KIB));
    refusal(&gateway, &whole.answer(), 401, "signature_missing");
    until("nothing is held", || held(&gateway) == 0 && in_flight(&gateway) == 0);
}

#[test]
fn lengths_that_one_client_declares_and_does_not_send_keep_no_other_out() {
    // A source can have 48 requests, or 6 MiB, which is 96 first steps; one client three quarters of that.
    for (edge, part, key) in [
        ("max_in_flight = 64", 36, "edge.max_in_flight:"),
        ("max_body = \"1MiB\"\nmax_in_flight_bytes = \"8MiB\"", 72, "edge.max_in_flight_bytes:"),
    ] {
        let home = Home::exactly(&two_sources(edge, ""));
        let gateway = home.gateway();
        let mut streams = client(&gateway, 1);
        streams.send(declared_over_http2(STREAMS));
        let shed = || {
            let metrics = gateway.metrics();
            metrics.rejects("basiq", "overloaded") + metrics.rejects("anduin", "overloaded")
        };
        until("all but its part is refused", || shed() as usize == STREAMS - part);
        let as_much = || (in_flight(&gateway), held(&gateway)) == (part, part * 64 * KIB);
        until("its part is in flight", as_much);
        // Whatever the protocol, and whatever the source.
        for request in [basiq("evt-shed"), anduin(0)] {
            let answer = client(&gateway, 1).ask(&request);
            let record = refusal(&gateway, &answer, 503, "overloaded");
            let detail = record["detail"].as_str().unwrap();
            assert!(detail.contains(key) && detail.contains("this client's quota is used up"), "{record}");
            assert!(answer.header("retry-after").is_some());
        }
        let mut other = client(&gateway, 2);
        for number in 0..30 {
            assert_eq!(other.ask(&basiq(&format!("evt-{number}"))).status, 200);
            assert_eq!(other.ask(&anduin(number)).status, 200);
        }
        until("its part is still in flight", as_much);
        drop(streams);
        until("what it had is given back", || held(&gateway) == 0 && in_flight(&gateway) == 0);
        assert_eq!(client(&gateway, 1).ask(&basiq("evt-after")).status, 200);
    }
}

#[test]
fn a_trusted_proxy_carries_many_clients_and_each_has_its_part() {
    let edge = "max_in_flight = 16\ntrusted_proxies = [\"127.0.0.1\"]";
    let home = Home::exactly(&two_sources(edge, ""));
    let gateway = home.gateway();
    let forwarded = |client: Option<&str>| {
        let request = Request::post("/hooks/basiq", "").with("content-length", "100");
        let mut connection = gateway.connect();
        connection
            .send(client.into_iter().fold(request, |all, one| all.with("x-forwarded-for", one)).bytes());
        connection
    };
    // The source may have twelve, and one client nine of them.
    let wait = |clients: &[Option<&str>]| {
        let mut waiting = Vec::new();
        for (places, client) in clients.iter().enumerate() {
            waiting.push(forwarded(*client));
            until("it has its place", || in_flight(&gateway) == 1 + places);
        }
        waiting
    };
    drop(wait(&[None; 11]));
    until("nothing is in flight", || in_flight(&gateway) == 0);
    let waiting = wait(&[&[Some("203.0.113.7"); 9][..], &[Some("203.0.113.8")]].concat());
    let record = refusal(&gateway, &forwarded(Some("203.0.113.7")).answer(), 503, "overloaded");
    assert!(record["detail"].as_str().unwrap().contains("this client's quota is used up"), "{record}");
    drop(waiting);
    until("nothing is in flight", || in_flight(&gateway) == 0);
}

#[test]
fn clients_that_a_trusted_proxy_does_not_name_do_not_share_the_rate_of_one() {
    let rates =
        "client_rate_limit = { per_second = 1, burst = 2 }\nrate_limit = { per_second = 1, burst = 20 }\n";
    let home = Home::exactly(&two_sources("trusted_proxies = [\"127.0.0.1\"]", rates));
    let gateway = home.gateway();
    for number in 0..10 {
        assert_eq!(gateway.ask(&basiq(&format!("evt-{number}"))).status, 200, "{number}");
    }
    let over = |request: &dyn Fn() -> Request, key: &str| {
        let mut last = None;
        until("the rate is exceeded", || {
            let answer = gateway.ask(&request());
            let refused = answer.status != 200;
            last = Some(answer);
            refused
        });
        let record = refusal(&gateway, &last.unwrap(), 429, "rate_limited");
        assert_eq!(record["detail"], format!("over the source's {key}"), "{record}");
    };
    over(&|| basiq("evt").with("x-forwarded-for", "203.0.113.7"), "client_rate_limit");
    over(&|| basiq("evt"), "rate_limit");
}

#[test]
fn however_a_body_ends_what_it_held_is_given_back() {
    let edge =
        "body_timeout = \"300ms\"\nmax_body = \"64KiB\"\nmax_in_flight_bytes = \"128KiB\"\nmax_in_flight = 4";
    let home = Home::exactly(&two_sources(edge, ""));
    let gateway = home.gateway();
    let chunked = Request::post("/hooks/basiq", "").with("transfer-encoding", "chunked");
    // More often than there are places, so that one that leaked would be missed.
    for round in 0..4 {
        let mut late = begun(&gateway, 1, 32 * KIB);
        assert_eq!(late.answer().status, 408);
        let mut late = gateway.connect();
        late.send(chunked.bytes());
        assert_eq!(late.answer().status, 408);
        let mut broken = gateway.connect();
        broken.send(chunked.bytes());
        broken.send("nonsense\r\n");
        assert_eq!(broken.answer().status, 400);
        let mut large = gateway.connect();
        large.send(chunked.bytes());
        large.send(format!("{:x}\r\n{}\r\n", 65 * KIB, "x".repeat(65 * KIB)));
        assert_eq!(large.answer().status, 413);
        let gone = begun(&gateway, 2, 32 * KIB);
        drop(gone);
        let mut gone = client(&gateway, 3);
        gone.send(basiq(&format!("gone-{round}")).bytes());
        drop(gone);
        until("nothing is held", || held(&gateway) == 0 && in_flight(&gateway) == 0);
        assert_eq!(gateway.ask(&basiq(&format!("evt-{round}"))).status, 200);
        let empty = gateway.ask(&Request::post("/hooks/basiq", ""));
        refusal(&gateway, &empty, 401, "signature_missing");
    }
}

// -- validation

#[test]
fn a_listed_origin_is_granted_and_no_other() {
    let token = format!("[sources.tokened]\nprovider = \"securitize\"\npath_token = \"{TOKEN}\"\n");
    let origins = "webhook_origins = [\"Events.Example.com\", \"other.example.com\"]\n";
    let rated = format!("{origins}rate_limit = {{ per_second = 500, burst = 1000 }}\n");
    let config = two_sources("", &rated) + origins + &token + origins;
    let home = Home::exactly(&config);
    let gateway = home.gateway();
    let ask = |path: &str| Request::new("OPTIONS", path);
    let granted = |path: &str, origin: &str| {
        let answer = gateway.ask(
            &ask(path)
                .with("WebHook-Request-Origin", origin)
                .with("WebHook-Request-Rate", "120")
                .with("WebHook-Request-Callback", format!("http://{}/called-back", gateway.edge)),
        );
        assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{answer:?}");
        assert_eq!(answer.header("webhook-allowed-origin"), Some(origin));
        ["allow", "webhook-allowed-rate"].map(|name| answer.header(name).unwrap().to_owned())
    };
    assert_eq!(granted("/hooks/basiq", "events.example.com"), ["POST, OPTIONS", "30000"]);
    assert_eq!(granted("/hooks/basiq", "OTHER.example.com"), ["POST, OPTIONS", "30000"]);
    assert_eq!(granted("/hooks/anduin", "events.example.com"), ["GET, POST, OPTIONS", "*"]);
    let tokened = format!("/hooks/tokened/{TOKEN}");
    assert_eq!(granted(&tokened, "events.example.com"), ["POST, OPTIONS", "*"]);

    let origin = "WebHook-Request-Origin";
    for request in [
        ask("/hooks/basiq"),
        ask("/hooks/basiq").with(origin, ""),
        ask("/hooks/basiq").with(origin, "*"),
        ask("/hooks/basiq").with(origin, "evil.example.com"),
        ask("/hooks/basiq").with(origin, "events.example.com.evil.com"),
        ask("/hooks/basiq").with(origin, "events.example.com, other.example.com"),
        ask("/hooks/basiq").with(origin, "é.example.com"),
        ask("/hooks/basiq").with(origin, "events.example.com").with(origin, "events.example.com"),
        ask(&tokened).with(origin, "evil.example.com"),
        ask("/hooks/basiq").method("PUT").with(origin, "events.example.com"),
    ] {
        let answer = gateway.ask(&request);
        refusal(&gateway, &answer, 405, "method_not_allowed");
        assert_eq!(answer.header("allow"), Some("POST, OPTIONS"), "{request:?}");
        assert!(!answer.headers.iter().any(|(name, _)| name.starts_with("webhook-")), "{answer:?}");
    }
    let listed = |path: &str| ask(path).with(origin, "events.example.com");
    refusal(&gateway, &gateway.ask(&listed("/hooks/tokened")), 404, "path_token_mismatch");
    refusal(&gateway, &gateway.ask(&listed("/hooks/tokened/wrong")), 404, "path_token_mismatch");
    let metrics = gateway.metrics();
    assert_eq!(metrics.requests("basiq", "handshake"), 2.0);
    assert_eq!(metrics.requests("tokened", "handshake"), 1.0);
    assert_eq!(metrics.rejects("basiq", "method_not_allowed"), 9.0);
    // Nobody was called back, and the next delivery is a delivery.
    assert_eq!(metrics.rejects("unknown", "unknown_path"), 0.0);
    assert_eq!(gateway.ask(&basiq("evt")).status, 200);
}

#[test]
fn no_rate_is_granted_that_would_be_refused() {
    let origins = "webhook_origins = [\"events.example.com\"]\n";
    let rate = |key: &str, per_second: u32| format!("{key} = {{ per_second = {per_second}, burst = 10 }}\n");
    let both = rate("rate_limit", 500) + &rate("client_rate_limit", 2);
    let other = format!("[sources.other]\nprovider = \"basiq\"\nsecrets = [\"{STANDARD_SECRET}\"]\n");
    let config = two_sources("", &(both + origins))
        + &rate("client_rate_limit", 3)
        + origins
        + &other
        + &rate("rate_limit", 4)
        + &rate("client_rate_limit", 500)
        + origins;
    let home = Home::exactly(&config);
    let gateway = home.gateway();
    for (path, granted) in [("/hooks/basiq", "120"), ("/hooks/anduin", "180"), ("/hooks/other", "240")] {
        let request = Request::new("OPTIONS", path).with("WebHook-Request-Origin", "events.example.com");
        let answer = gateway.ask(&request);
        assert_eq!((answer.status, answer.header("webhook-allowed-rate")), (200, Some(granted)), "{path}");
    }
}

#[test]
fn before_a_grant_come_the_clients_address_and_rate() {
    let limit =
        "webhook_origins = [\"events.example.com\"]\nclient_rate_limit = { per_second = 1, burst = 2 }\n";
    let config = two_sources("", limit)
        + "webhook_origins = [\"events.example.com\"]\nallow_ips = [\"127.0.0.9\", \"203.0.113.0/24\"]\n";
    let home = Home::exactly(&config);
    let gateway = home.gateway();
    let ask = |path, origin: &str| Request::new("OPTIONS", path).with("WebHook-Request-Origin", origin);
    // A stranger does not even hear which origins there are.
    for origin in ["events.example.com", "evil.example.com"] {
        refusal(&gateway, &gateway.ask(&ask("/hooks/anduin", origin)), 403, "client_not_allowed");
    }
    let mut allowed = Connection::open_from([127, 0, 0, 9], gateway.edge);
    assert_eq!(allowed.ask(&ask("/hooks/anduin", "events.example.com")).status, 200);
    let mut last = None;
    until("the rate is exceeded", || {
        let answer = gateway.ask(&ask("/hooks/basiq", "events.example.com"));
        let refused = answer.status != 200;
        last = Some(answer);
        refused
    });
    refusal(&gateway, &last.unwrap(), 429, "rate_limited");
}

#[test]
fn without_origins_options_is_refused_whatever_it_says() {
    let home = Home::exactly(&two_sources("", ""));
    let gateway = home.gateway();
    for (path, allow) in [("/hooks/basiq", "POST"), ("/hooks/anduin", "GET, POST")] {
        let request = Request::new("OPTIONS", path).with("WebHook-Request-Origin", "events.example.com");
        let answer = gateway.ask(&request);
        refusal(&gateway, &answer, 405, "method_not_allowed");
        assert_eq!(answer.header("allow"), Some(allow));
    }
}

/// The sources basiq, with `basiq` in its section, and anduin, whose section is the last. Nothing is slow enough to end.
fn two_sources(edge: &str, basiq: &str) -> String {
    let patient = if edge.contains("body_timeout") { "" } else { "body_timeout = \"60s\"\n" };
    format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\n[edge]\nlisten = \"127.0.0.1:0\"\nrequest_timeout = \"60s\"\n{patient}{edge}\n\
         [sources.basiq]\nprovider = \"basiq\"\nsecrets = [\"{STANDARD_SECRET}\"]\n{basiq}\
         [sources.anduin]\nprovider = \"anduin\"\nsecrets = [\"{STANDARD_SECRET}\"]\n"
    )
}

fn anduin(number: usize) -> Request {
    let body = format!("{{\"event\":\"documents_uploaded\",\"number\":{number}}}");
    standard("/hooks/anduin", &body, now())
}

/// The same request, its length not told.
fn in_chunks(request: &Request) -> Request {
    let body = String::from_utf8(request.body.clone()).unwrap();
    let body = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).into_bytes();
    Request { body, ..request.clone() }.with("transfer-encoding", "chunked")
}

/// A connection from 127.0.0.`host`: one client each.
fn client(gateway: &Gateway, host: u8) -> Connection {
    Connection::open_from([127, 0, 0, host], gateway.edge)
}

/// One with a request whose body, of so many bytes, does not come.
fn begun(gateway: &Gateway, host: u8, bytes: usize) -> Connection {
    begun_to(gateway, host, "/hooks/basiq", bytes)
}

fn begun_to(gateway: &Gateway, host: u8, path: &str, bytes: usize) -> Connection {
    let mut connection = client(gateway, host);
    connection.send(Request::post(path, "").with("content-length", bytes.to_string()).bytes());
    connection
}

fn in_flight(gateway: &Gateway) -> usize {
    gateway.metrics().sum("hookgate_requests_in_flight", &[]) as usize
}

fn held(gateway: &Gateway) -> usize {
    gateway.metrics().sum("hookgate_in_flight_bytes", &[]) as usize
}

/// The record of a refusal, for this reason.
fn refusal(gateway: &Gateway, answer: &Answer, status: u16, reason: &str) -> Value {
    assert_eq!(answer.status, status, "{answer:?}");
    let record = gateway.record_of(answer);
    assert_eq!(record["reason"], reason, "{record}");
    record
}

/// HTTP/2 up to so many streams, to one source and the other by turns, each with a length of 1 MiB and no byte of it.
fn declared_over_http2(streams: usize) -> Vec<u8> {
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const END_HEADERS: u8 = 4;
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    // Literals that are not indexed: a zero, and name and value with their lengths.
    let field = |name: &str, value: &str| {
        let string = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        [vec![0], string(name), string(value)].concat()
    };
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    for (stream, path) in
        (1..).step_by(2).zip(["/hooks/basiq", "/hooks/anduin"].into_iter().cycle()).take(streams)
    {
        let head = [
            field(":method", "POST"),
            field(":scheme", "http"),
            field(":path", path),
            field(":authority", "hookgate.test"),
            field("content-length", "1048576"),
        ];
        bytes.extend(frame(HEADERS, END_HEADERS, stream, &head.concat()));
    }
    bytes
}

/// As many as a connection may have.
const STREAMS: usize = 256;
const KIB: usize = 1024;
