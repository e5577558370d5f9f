//! Who the client is, when proxies are in front, and how many connections it may hold: the binary, asked over the wire by a
//! proxy that is trusted (127.0.0.1) and by a stranger (127.0.0.2).

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use support::blocking::{Bystander, Connection, until};
use support::*;
use tokio::net::TcpSocket;

// -- the PROXY protocol

#[test]
fn a_trusted_proxys_header_says_who_the_client_is() {
    let home = proxied("");
    let gateway = home.gateway();
    let cases = [
        (b"PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\r\n".to_vec(), "203.0.113.7"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n".to_vec(), "2001:db8::7"),
        (b"PROXY TCP6 ::ffff:203.0.113.8 ::1 1 2\r\n".to_vec(), "203.0.113.8"),
        (v2_of("203.0.113.9", &[]), "203.0.113.9"),
        (
            v2_of("203.0.113.10", &[2, 0, 9, b'h', b'o', b'o', b'k', b'.', b't', b'e', b's', b't']),
            "203.0.113.10",
        ),
        (v2(0x21, 0x21, &[&v6("2001:db8::9"), &v6("::1"), &[1, 2, 3, 4][..]].concat()), "2001:db8::9"),
    ];
    for (header, client) in cases {
        let mut connection = gateway.connect();
        // In one piece: what follows the header must not be lost with it.
        connection.send([&header[..], &unsigned().bytes()].concat());
        let answer = connection.answer();
        assert_eq!((answer.status, client_of(&gateway, &answer)), (401, json!(client)));
        // The header is the connection's, not the request's.
        for _ in 0..2 {
            let answer = connection.ask(&unsigned());
            assert_eq!((answer.status, client_of(&gateway, &answer)), (401, json!(client)));
        }
        assert_eq!(connection.ask(&basiq(client)).status, 200);
        // Once: a second one is no HTTP.
        connection.send(&header);
        connection.send(unsigned().bytes());
        assert_eq!(connection.answer().status, 400);
        connection.ends();
    }
    until("the malformed are recorded", || gateway.metrics().rejects("unknown", "http_malformed") == 6.0);
    assert_eq!(home.events().len(), 6);
}

#[test]
fn a_header_may_come_byte_by_byte() {
    let home = proxied("");
    let gateway = home.gateway();
    let v1 = b"PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\r\n".to_vec();
    for header in [v1, v2_of("203.0.113.7", &checksum("203.0.113.7"))] {
        for pieces in [1, 2, 15, header.len() - 1, header.len(), header.len() + 1] {
            let mut connection = gateway.connect();
            for piece in [&header[..], &unsigned().bytes()].concat().chunks(pieces) {
                connection.send(piece);
            }
            assert_eq!(client_of(&gateway, &connection.answer()), json!("203.0.113.7"), "{pieces}");
        }
    }
}

#[test]
fn the_clients_that_a_source_takes_are_those_that_the_proxy_names() {
    let home = proxied("");
    let gateway = home.gateway();
    let ask = |header: &[u8]| {
        let mut connection = gateway.connect();
        connection.send(header);
        connection.ask(&standard("/hooks/near", &basiq_body(&format!("evt-{}", header.len())), now()))
    };
    assert_eq!(ask(b"PROXY TCP4 203.0.113.7 192.0.2.1 1 2\r\n").status, 200);
    assert_eq!(ask(&v2_of("203.0.113.255", &[])).status, 200);
    let answer = ask(b"PROXY TCP4 203.0.112.255 192.0.2.1 1 2\r\n");
    assert_eq!((answer.status, client_of(&gateway, &answer)), (403, json!("203.0.112.255")));
    let answer = ask(b"PROXY UNKNOWN\r\n");
    assert_eq!((answer.status, client_of(&gateway, &answer)), (403, json!("127.0.0.1")));
}

#[test]
fn a_proxy_that_speaks_for_itself_is_the_client() {
    let home = proxied("");
    let gateway = home.gateway();
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN 203.0.113.7 192.0.2.1 1 2\r\n".to_vec(),
        v2(0x20, 0x00, &[]),
        v2(0x20, 0x11, &[203, 0, 113, 7, 192, 0, 2, 1, 0, 1, 0, 2]),
        v2(0x21, 0x00, b"of nobody"),
        v2(0x21, 0x31, &[b'/'; 216]),
    ] {
        let mut connection = gateway.connect();
        connection.send(&header);
        // Nor may the client that the proxy does not name do that itself.
        let claims = unsigned().with("x-forwarded-for", "203.0.113.7");
        for request in [unsigned(), claims] {
            assert_eq!(client_of(&gateway, &connection.ask(&request)), json!("127.0.0.1"), "{header:?}");
        }
    }
}

#[test]
fn a_trusted_proxy_that_does_not_say_who_the_client_is_is_refused() {
    let home = proxied("");
    let gateway = home.gateway();
    let mut altered = v2_of("203.0.113.7", &checksum("203.0.113.7"));
    altered[19] ^= 1;
    let cases = [
        unsigned().bytes(),
        basiq("evt-1").bytes(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"PROXY TCP4 203.0.113.7 192.0.2.1 1 65536\r\n".to_vec(),
        b"PROXY TCP4 203.0.113.7 192.0.2.1 1 2\n".to_vec(),
        [b"PROXY UNKNOWN ", &[b'x'; 107][..]].concat(),
        v2(0x20, 0x00, &[0; 4081]),
        v2(0x21, 0x11, &[0; 4]),
        altered,
        // What it still sends does not cost it the answer.
        [&b"PROXY nonsense\r\n"[..], &[b'x'; 200_000]].concat(),
    ];
    for (number, bytes) in cases.iter().enumerate() {
        let mut connection = gateway.connect();
        connection.send(bytes);
        let answer = connection.answer();
        assert_eq!(answer.status, 400, "{number}");
        assert_eq!(answer.header("connection"), Some("close"));
        let record = gateway.record_of(&answer);
        let said = ["reason", "status", "source", "client", "path"].map(|key| record[key].clone());
        assert_eq!(
            said,
            [json!("http_malformed"), json!(400), json!("unknown"), json!("127.0.0.1"), json!("")]
        );
        let detail = record["detail"].as_str().unwrap();
        assert!(detail.starts_with("no PROXY protocol header from a trusted proxy: "), "{detail}");
        connection.ends();
    }
    assert_eq!(gateway.metrics().rejects("unknown", "http_malformed"), cases.len() as f64);
    assert!(home.events().is_empty());
}

#[test]
fn a_trusted_proxy_that_says_nothing_or_half_is_cut_off_in_time() {
    let home = proxied("edge.header_timeout = \"2s\"\n");
    let gateway = home.gateway();
    let edge = gateway.edge;
    let bystander = Bystander::asking(move |request| {
        let mut connection = Connection::open(edge);
        connection.send(v2_of("203.0.113.7", &[]));
        connection.ask(request)
    });
    let mut silent: Vec<Connection> = (0..13).flat_map(|_| half_headers(&gateway)).collect();
    // Drop by drop it would take minutes.
    let mut slow = gateway.connect();
    let long = v2(0x21, 0x11, &[0; 4000]);
    let mut drops = long.iter();
    bystander.is_served_while(|| silent.iter_mut().chain([&mut slow]).all(Connection::is_silent));
    until("the drops are cut off", || !slow.is_silent() || !slow.try_send([*drops.next().unwrap()]));
    silent.push(slow);
    for mut connection in silent {
        let answer = connection.answer();
        assert_eq!(answer.status, 408);
        let record = gateway.record_of(&answer);
        assert_eq!((&record["reason"], &record["client"]), (&json!("header_timeout"), &json!("127.0.0.1")));
        connection.ends();
    }
    // One that comes and goes, as health checks do, is nothing to tell of.
    for bytes in [&b""[..], b"PROXY TCP4"] {
        let mut connection = gateway.connect();
        connection.send(bytes);
        connection.finish();
        connection.ends();
    }
    let delivered = bystander.stop();
    assert_eq!(home.events().len(), delivered);
    let metrics = gateway.metrics();
    assert_eq!((metrics.refused(), metrics.rejects("unknown", "header_timeout")), (53.0, 53.0));
    until("no place is kept", || gateway.metrics().sum("hookgate_connections", &[]) == 0.0);
}

#[test]
fn to_wait_for_a_proxy_is_no_work() {
    let home = proxied("edge.header_timeout = \"2s\"\n");
    let gateway = home.gateway();
    let before = ticks(&gateway);
    for mut connection in half_headers(&gateway) {
        assert_eq!(connection.answer().status, 408);
    }
    // Four that look again and again would have kept two processors busy for two seconds.
    assert!(ticks(&gateway) - before < 60, "{} hundredths of a second", ticks(&gateway) - before);
}

/// Connections that began with nothing or half of a PROXY header.
fn half_headers(gateway: &Gateway) -> [Connection; 4] {
    let v2 = v2(0x21, 0x11, &[0; 12]);
    [&b""[..], b"P", b"PROXY TCP4 203.0.113.7 192.0.2.1 1 2\r", &v2[..27]].map(|bytes| {
        let mut connection = gateway.connect();
        connection.send(bytes);
        connection
    })
}

#[test]
fn a_stranger_cannot_say_who_it_is() {
    let home = proxied("");
    let gateway = home.gateway();
    let stranger = || from("127.0.0.2", gateway.edge);
    for header in [b"PROXY TCP4 203.0.113.7 192.0.2.1 1 2\r\n".to_vec(), v2_of("203.0.113.7", &[])] {
        let mut connection = stranger();
        connection.send([&header[..], &unsigned().bytes()].concat());
        assert_eq!(connection.answer().status, 400);
        connection.ends();
    }
    until("both are recorded", || gateway.records().len() == 2);
    for record in gateway.records() {
        assert_eq!((&record["reason"], &record["client"]), (&json!("http_malformed"), &json!("127.0.0.2")));
    }
    // Nor by the header of a request. Without one it is served as it comes.
    let answer = stranger().ask(&unsigned().with("x-forwarded-for", "203.0.113.7"));
    assert_eq!((answer.status, client_of(&gateway, &answer)), (401, json!("127.0.0.2")));
    assert_eq!(stranger().ask(&basiq("evt-1")).status, 200);
    let near = standard("/hooks/near", &basiq_body("evt-2"), now()).with("x-forwarded-for", "203.0.113.7");
    assert_eq!(stranger().ask(&near).status, 403);
}

#[test]
fn without_the_setting_a_proxy_header_is_no_http() {
    let home = forwarded();
    let gateway = home.gateway();
    let mut connection = gateway.connect();
    connection.send([&b"PROXY TCP4 203.0.113.7 192.0.2.1 1 2\r\n"[..], &unsigned().bytes()].concat());
    assert_eq!(connection.answer().status, 400);
    connection.ends();
    until("it is recorded", || gateway.records().len() == 1);
    assert_eq!(gateway.records()[0]["client"], "127.0.0.1");
}

#[test]
fn the_header_comes_before_tls() {
    let home = proxied(TLS);
    let certificate = certified(&home);
    let gateway = home.gateway();
    let mut tls = shake_hands(&gateway, &v2_of("203.0.113.7", &[]), &certificate);
    tls.write_all(&unsigned().bytes()).unwrap();
    let mut status = [0; 12];
    tls.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 401");
    until("it is recorded", || gateway.records().len() == 1);
    assert_eq!(gateway.records()[0]["client"], "203.0.113.7");
    // A handshake without it is closed without a word, which would not be understood.
    let mut connection = gateway.connect();
    connection.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    connection.ends();
    until("it is recorded", || gateway.records().len() == 2);
    let record = &gateway.records()[1];
    let said = ["reason", "status", "client"].map(|key| record[key].clone());
    assert_eq!(said, [json!("http_malformed"), json!(0), json!("127.0.0.1")]);
}

// -- X-Forwarded-For

#[test]
fn the_client_is_the_last_that_a_trusted_proxy_has_seen() {
    let home = forwarded();
    let gateway = home.gateway();
    let cases: &[(&[&str], &str)] = &[
        (&["203.0.113.7"], "203.0.113.7"),
        (&["203.0.113.7:51221"], "203.0.113.7"),
        (&["[2001:db8::7]:51221"], "2001:db8::7"),
        (&["::ffff:203.0.113.7"], "203.0.113.7"),
        // What a client sent of its own is to the left of where it was seen.
        (&["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
        (&["198.51.100.1", "203.0.113.7"], "203.0.113.7"),
        (&["unknown, 203.0.113.7, 10.0.0.2"], "203.0.113.7"),
        (&["203.0.113.7, 10.0.0.2", "10.0.0.3"], "203.0.113.7"),
        (&["10.0.0.4, 10.0.0.3"], "10.0.0.4"),
        (&["203.0.113.7, unknown, 10.0.0.3"], "10.0.0.3"),
        (&["203.0.113.7, _hidden"], "127.0.0.1"),
        (&["\"203.0.113.7\""], "127.0.0.1"),
        (&["203.0.113.7, "], "127.0.0.1"),
        (&[""], "127.0.0.1"),
        (&[], "127.0.0.1"),
    ];
    // On one connection, as a proxy sends them.
    let mut connection = gateway.connect();
    for (lines, client) in cases {
        let request = lines.iter().fold(unsigned(), |request, line| request.with("X-Forwarded-For", line));
        let answer = connection.ask(&request);
        let record = gateway.record_of(&answer);
        assert_eq!((answer.status, &record["client"]), (401, &json!(client)), "{lines:?}");
        // As it was sent, whoever was believed.
        let sent = lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(", ");
        assert_eq!(record["headers"]["x-forwarded-for"].as_str().unwrap_or(""), sent);
    }
    // The other header for this is nobody's word.
    let answer = connection.ask(&unsigned().with("forwarded", "for=203.0.113.7"));
    assert_eq!(client_of(&gateway, &answer), json!("127.0.0.1"));
    // It is who the sources know.
    let near = |evt| standard("/hooks/near", &basiq_body(evt), now());
    assert_eq!(connection.ask(&near("evt-1").with("x-forwarded-for", "203.0.113.7")).status, 200);
    assert_eq!(connection.ask(&near("evt-2").with("x-forwarded-for", "198.51.100.7")).status, 403);
    assert_eq!(
        connection.ask(&near("evt-3").with("x-forwarded-for", "203.0.113.7, 198.51.100.7")).status,
        403
    );
    assert_eq!(connection.ask(&near("evt-4")).status, 403);
}

#[test]
fn a_client_behind_both_is_told_by_the_header_only_to_a_proxy() {
    let home = proxied("");
    let gateway = home.gateway();
    let ask = |source: &str| {
        let mut connection = gateway.connect();
        connection.send(v2_of(source, &[]));
        let answer = connection.ask(&unsigned().with("x-forwarded-for", "203.0.113.7"));
        client_of(&gateway, &answer)
    };
    assert_eq!(ask("10.0.0.2"), json!("203.0.113.7"), "a proxy behind the proxy");
    assert_eq!(ask("198.51.100.1"), json!("198.51.100.1"), "a client behind the proxy");
}

#[test]
fn to_trust_every_address_is_warned_of() {
    for network in ["0.0.0.0/0", "::/0"] {
        let home = Home::new(&format!("edge.trusted_proxies = [\"{network}\"]\n{}", sources()));
        let ran = home.run(&["check"]);
        assert!(ran.out.contains("warning: edge.trusted_proxies: trusts every address"), "{ran:?}");
    }
    let ran = forwarded().run(&["check"]);
    assert!(!ran.out.contains("edge.trusted_proxies"), "{ran:?}");
}

// -- how many connections

#[test]
fn a_client_with_all_its_connections_keeps_no_other_out() {
    let home = Home::new(&("edge.max_connections_per_client = 2\n".to_owned() + &sources()));
    let gateway = home.gateway();
    let (mut first, mut second) = (gateway.connect(), gateway.connect());
    assert_eq!((first.ask(&basiq("evt-1")).status, second.ask(&basiq("evt-2")).status), (200, 200));
    for _ in 0..3 {
        let mut third = gateway.connect();
        turned_away(&gateway, &mut third, "over edge.max_connections_per_client", "127.0.0.1");
        third.ends();
    }
    let mut other = from("127.0.0.2", gateway.edge);
    assert_eq!(other.ask(&basiq("evt-3")).status, 200);
    assert_eq!((first.ask(&basiq("evt-4")).status, second.ask(&basiq("evt-5")).status), (200, 200));
    drop(first);
    until("its place is given again", || {
        let mut next = gateway.connect();
        next.try_send(basiq("evt-6").bytes());
        next.answer().status == 200
    });
    assert_eq!(other.ask(&basiq("evt-7")).status, 200);
}

#[test]
fn behind_a_proxy_connections_are_counted_by_the_client_it_names() {
    let home = proxied("edge.max_connections_per_client = 2\n");
    let gateway = home.gateway();
    let connect = |source: &str| {
        let mut connection = gateway.connect();
        let family = if source.contains(':') { "TCP6 " } else { "TCP4 " };
        connection.send(format!("PROXY {family}{source} {source} 1 2\r\n"));
        connection
    };
    for (same, other) in [
        (["203.0.113.7"; 3], "203.0.113.8"),
        (["2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:1:ffff::3"], "2001:db8:0:2::1"),
    ] {
        let [mut first, mut second, third] = same.map(|source| {
            let mut connection = connect(source);
            connection.send(basiq("evt").bytes());
            (connection.answer().status, connection)
        });
        assert_eq!((first.0, second.0, third.0), (200, 200, 503));
        let mut again = connect(same[2]);
        turned_away(&gateway, &mut again, "over edge.max_connections_per_client", same[2]);
        assert_eq!(connect(other).ask(&basiq("evt")).status, 200);
        assert_eq!((first.1.ask(&basiq("evt")).status, second.1.ask(&basiq("evt")).status), (200, 200));
        third.1.ends();
    }
    // The proxy's own connections, and those of a proxy behind it, are of many clients.
    let mut many = Vec::new();
    for header in ["PROXY UNKNOWN\r\n", "PROXY TCP4 10.0.0.2 192.0.2.1 1 2\r\n"].repeat(3) {
        let mut connection = gateway.connect();
        connection.send(header);
        assert_eq!(connection.ask(&basiq("evt")).status, 200);
        many.push(connection);
    }
    // A stranger's are its own.
    let mut strangers = [(); 2].map(|()| from("127.0.0.2", gateway.edge));
    for stranger in &mut strangers {
        assert_eq!(stranger.ask(&basiq("evt")).status, 200);
    }
    turned_away(
        &gateway,
        &mut from("127.0.0.2", gateway.edge),
        "over edge.max_connections_per_client",
        "127.0.0.2",
    );
}

#[test]
fn over_all_connections_the_record_names_that_bound() {
    let home = proxied("edge.max_connections = 2\n");
    let gateway = home.gateway();
    let mut held = gateway.connect();
    held.send("PROXY TCP4 203.0.113.7 192.0.2.1 1 2\r\n");
    assert_eq!(held.ask(&basiq("evt-1")).status, 200);
    // One of which nothing is known yet has its place, too.
    let silent = from("127.0.0.1", gateway.edge);
    until("it has", || gateway.metrics().sum("hookgate_connections", &[]) == 2.0);
    turned_away(&gateway, &mut gateway.connect(), "over edge.max_connections", "127.0.0.1");
    drop(silent);
    until("its place is given again", || {
        let mut next = gateway.connect();
        next.try_send([&b"PROXY UNKNOWN\r\n"[..], &basiq("evt-2").bytes()].concat());
        next.answer().status == 200
    });
}

#[test]
fn under_tls_a_connection_too_many_is_closed_without_a_word() {
    let home = Home::new(&format!("{TLS}edge.max_connections_per_client = 1\n{}", sources()));
    let certificate = certified(&home);
    let gateway = home.gateway();
    let mut tls = shake_hands(&gateway, b"", &certificate);
    tls.write_all(&unsigned().bytes()).unwrap();
    tls.read_exact(&mut [0; 12]).unwrap();
    gateway.connect().ends();
    until("both are recorded", || gateway.records().len() == 2);
    let record = &gateway.records()[1];
    let said = ["reason", "status", "client", "detail"].map(|key| record[key].clone());
    let detail = "over edge.max_connections_per_client";
    assert_eq!(said, [json!("overloaded"), json!(0), json!("127.0.0.1"), json!(detail)]);
}

#[test]
fn only_so_many_of_those_turned_away_keep_a_file() {
    let home = Home::new(&("edge.max_connections = 1\n".to_owned() + &sources()));
    let gateway = home.gateway();
    let mut only = gateway.connect();
    assert_eq!(only.ask(&basiq("evt-1")).status, 200);
    let files = || fs::read_dir(format!("/proc/{}/fd", gateway.id())).unwrap().count();
    let before = files();
    // They take their answer and do not let go.
    let turned_away: Vec<_> = (0..500)
        .map(|_| {
            let mut next = gateway.connect();
            assert_eq!(next.answer().status, 503);
            next
        })
        .collect();
    let more = files().saturating_sub(before);
    assert!(more <= 256 + 16, "{more} files more for {} connections", turned_away.len());
    assert_eq!(gateway.metrics().rejects("unknown", "overloaded"), 500.0);
    assert_eq!(only.ask(&basiq("evt-2")).status, 200);
}

#[test]
fn out_of_files_it_goes_on_once_there_are_some() {
    let home = Home::new(&sources());
    let gateway = home.gateway_limited("-n 100");
    assert!(gateway.log().contains("edge.max_connections needs more open files"), "{}", gateway.log());
    let held: Vec<_> = (0..150).map(|_| gateway.connect()).collect();
    until("it has no more files", || gateway.log().contains("cannot accept connections"));
    drop(held);
    let mut next = gateway.connect();
    assert_eq!(next.ask(&basiq("evt-1")).status, 200);
    assert_eq!(gateway.ask_admin("/readyz").status, 200);
}

#[test]
fn of_the_files_it_may_have_it_takes_all() {
    let home = Home::new(&("edge.max_connections = 100\n".to_owned() + &sources()));
    let gateway = home.gateway_limited("-S -n 200");
    let limits = fs::read_to_string(format!("/proc/{}/limits", gateway.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<_> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers[0], numbers[1], "{line}");
    assert!(!gateway.log().contains("needs more open files"));
}

// -- what they share

/// Behind a proxy at 127.0.0.1 that speaks the PROXY protocol, and proxies in 10.0.0.0/8.
fn proxied(more: &str) -> Home {
    Home::new(&format!("edge.proxy_protocol = true\n{TRUSTED}{more}{}{}", sources(), near()))
}

/// Behind a proxy at 127.0.0.1 that sends X-Forwarded-For, and proxies in 10.0.0.0/8. It has all the connections it wants.
fn forwarded() -> Home {
    Home::new(&format!("edge.max_connections_per_client = 1\n{TRUSTED}{}{}", sources(), near()))
}

const TRUSTED: &str = "edge.trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]\n";
const TLS: &str = "edge.tls.certificate = \"edge.pem\"\nedge.tls.private_key = \"edge.key\"\n";
/// Another source with the same secret, and few clients.
fn near() -> String {
    format!(
        "[sources.near]\nprovider = \"basiq\"\nsecrets = [\"{STANDARD_SECRET}\"]\nallow_ips = [\"203.0.113.0/24\"]\n"
    )
}

/// A request whose refusal is recorded under its source.
fn unsigned() -> Request {
    Request::post("/hooks/basiq", "{}")
}

fn client_of(gateway: &Gateway, answer: &Answer) -> Value {
    gateway.record_of(answer)["client"].clone()
}

/// A connection from another address of this machine.
fn from(address: &str, to: SocketAddr) -> Connection {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let stream = runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(address.parse().unwrap(), 0)).unwrap();
        socket.connect(to).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    Connection::over(stream)
}

/// Reads a connection's refusal, and its record.
fn turned_away(gateway: &Gateway, connection: &mut Connection, detail: &str, client: &str) {
    let answer = connection.answer();
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
    let record = gateway.record_of(&answer);
    let said = ["reason", "source", "detail", "client"].map(|key| record[key].clone());
    assert_eq!(said, [json!("overloaded"), json!("unknown"), json!(detail), json!(client)]);
}

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    [&signature[..], &[command, family], &(rest.len() as u16).to_be_bytes(), rest].concat()
}

/// A client of that address, over TCP.
fn v2_of(source: &str, extensions: &[u8]) -> Vec<u8> {
    let source: Ipv4Addr = source.parse().unwrap();
    v2(0x21, 0x11, &[&source.octets()[..], &[192, 0, 2, 1, 0xc8, 0x15, 0x01, 0xbb], extensions].concat())
}

fn v6(address: &str) -> [u8; 16] {
    address.parse::<Ipv6Addr>().unwrap().octets()
}

/// The checksum extension for `v2_of` this source.
fn checksum(source: &str) -> [u8; 7] {
    let mut crc = u32::MAX;
    for byte in v2_of(source, &[3, 0, 4, 0, 0, 0, 0]) {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    let [a, b, c, d] = (!crc).to_be_bytes();
    [3, 0, 4, a, b, c, d]
}

/// Hundredths of a second for which the process has kept a processor busy.
fn ticks(gateway: &Gateway) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", gateway.id())).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

/// Writes a certificate for the gateway; gives what its clients need to know.
fn certified(home: &Home) -> RootCertStore {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    home.write("edge.pem", made.cert.pem());
    home.write("edge.key", made.signing_key.serialize_pem());
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    roots
}

/// Begins TLS, its first message in one piece with what comes before.
fn shake_hands(
    gateway: &Gateway,
    before: &[u8],
    roots: &RootCertStore,
) -> StreamOwned<ClientConnection, TcpStream> {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
    let mut tls = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    let mut first = before.to_vec();
    tls.write_tls(&mut first).unwrap();
    let mut stream = TcpStream::connect(gateway.edge).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&first).unwrap();
    StreamOwned::new(tls, stream)
}
