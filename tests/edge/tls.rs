//! TLS as clients see it, on both listeners: the binary, asked by rustls with certificates of the test's own.

#![allow(clippy::disallowed_methods)]

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use hookgate::base::clock::Clock;
use hookgate::config;
use hookgate::net::tls::HandshakeError;
use hookgate::observe::metrics::Metrics as Counters;
use hookgate::request::pipeline::RuntimeConfig;
use http_body_util::BodyExt;
use hyper::Version;
use hyper::header::HeaderValue;
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::SignedDuration;
use jiff::tz::TimeZone;
use rcgen::{CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, Tls12Resumption};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, DigitallySignedStruct, HandshakeKind, ProtocolVersion, RootCertStore, SignatureScheme,
    SupportedProtocolVersion,
};
use serde_json::{Value, json};
use support::blocking::{Bystander, Connection, eventually, until};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

// -- what is spoken

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http1_and_http2_are_spoken_over_tls_1_2_and_1_3() {
    let authority = Authority::new();
    let home = home_with(&authority, "");
    let gateway = home.gateway();
    let mut number = 0;
    for (version, spoken) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        for (offers, http) in [
            (["h2", "http/1.1"].as_slice(), Version::HTTP_2),
            (&["http/1.1", "h2"], Version::HTTP_2),
            (&["h2"], Version::HTTP_2),
            (&["http/1.1"], Version::HTTP_11),
            (&[], Version::HTTP_11),
        ] {
            number += 1;
            let client = Client::of(&authority).version(version).offers(offers);
            let id = format!("evt-{number}");
            let seen = client.ask(gateway.edge, "edge.test", &basiq(&id)).await.unwrap();
            assert_eq!((seen.status, seen.body), (200, json!({ "status": "accepted", "id": id })));
            assert_eq!((seen.tls, seen.http), (spoken, http), "{offers:?}");
        }
    }
    let metrics = gateway.metrics();
    assert_eq!(handshakes(&metrics), [number.into(), 0.0, 0.0]);
    assert_eq!(metrics.refused(), 0.0);
    assert_eq!(home.events().len(), number as usize);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_alpn_the_first_bytes_tell_http2() {
    let authority = Authority::new();
    let home = home_with(&authority, "");
    let gateway = home.gateway();
    let mut client = Client::of(&authority);
    client.prior_knowledge = true;
    let seen = client.ask(gateway.edge, "edge.test", &basiq("evt-1")).await.unwrap();
    assert_eq!((seen.status, seen.http), (200, Version::HTTP_2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_comes_again_resumes_its_session() {
    let authority = Authority::new();
    let home = home_with(&authority, "");
    let gateway = home.gateway();
    for (version, resumption) in RESUMPTIONS {
        let client = Client::of(&authority).version(version).resuming(resumption);
        let kind = async || client.ask(gateway.edge, "edge.test", &Request::get("/")).await.unwrap().kind;
        let kinds = [kind().await, kind().await];
        assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed], "{version:?} {resumption:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_outlive_a_rebuild_of_the_rules_but_no_change_of_client_ca() {
    let (authority, other) = (Authority::new(), Authority::new());
    let home = home_with(&authority, "");
    home.write("clients.pem", authority.pem());
    home.write("others.pem", other.pem());
    let counters = Counters::new().unwrap();
    let rules = |client_ca: Option<&str>, before: Option<&RuntimeConfig>| {
        let line = client_ca.map_or(String::new(), |file| format!("edge.tls.client_ca = \"{file}\"\n"));
        let (config, mut problems) = config::parse(&config_of(&line), &home.path(""));
        let rules = RuntimeConfig::build(&config, &counters, before, &mut problems);
        problems.retain(|problem| !problem.warning);
        assert!(problems.is_empty(), "{problems:?}");
        rules
    };
    let full = Ok(HandshakeKind::Full);
    let resumed = Ok(HandshakeKind::Resumed);
    for (version, resumption) in RESUMPTIONS {
        let client = Client::of(&authority).version(version).resuming(resumption);
        let open = rules(None, None);
        assert_eq!(client.shake(&open).await, full, "{version:?} {resumption:?}");
        let open_again = rules(None, Some(&open));
        assert_eq!(client.shake(&open_again).await, resumed, "{version:?} {resumption:?}");
        let fenced = rules(Some("clients.pem"), Some(&open_again));
        let refused = client.shake(&fenced).await.unwrap_err();
        assert!(refused.contains("no certificate"), "a session from before client_ca: {refused}");

        let client = client.shows(authority.issue(|params| params.subject_alt_names = dns(&["sender.test"])));
        assert_eq!(client.shake(&fenced).await, full);
        let fenced_again = rules(Some("clients.pem"), Some(&fenced));
        assert_eq!(
            client.shake(&fenced_again).await,
            full,
            "{version:?} {resumption:?}: who must show a certificate shows it each time"
        );
        let elsewhere = rules(Some("others.pem"), Some(&fenced_again));
        let refused = client.shake(&elsewhere).await.unwrap_err();
        assert!(refused.contains("UnknownIssuer"), "a session from another client_ca: {refused}");
        // Nor does a session come back once clients need no certificate.
        let open = rules(None, Some(&elsewhere));
        assert_eq!(client.shake(&open).await, full);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_shown_the_certificate_of_the_host_that_it_names() {
    let authority = Authority::new();
    let more = "edge.tls.more = [\n\
        { certificate = \"wild.pem\", private_key = \"wild.key\" },\n\
        { certificate = \"named.pem\", private_key = \"named.key\" },\n]\n";
    let home = home_with(&authority, more);
    let wild = authority.issue(|params| params.subject_alt_names = dns(&["*.hooks.test"]));
    let named = authority.issue(|params| params.subject_alt_names = dns(&["special.hooks.test"]));
    wild.write(&home, "wild");
    named.write(&home, "named");
    let gateway = home.gateway();
    let first = home.path("edge.pem");
    let first = pem_der(&std::fs::read(first).unwrap());
    for (host, shown) in [
        ("edge.test", &first),
        ("any.hooks.test", &wild.der),
        ("ANY.Hooks.test", &wild.der),
        ("special.hooks.test", &named.der),
        ("hooks.test", &first),
        ("a.b.hooks.test", &first),
        ("stranger.test", &first),
        ("127.0.0.1", &first), // which is no name
    ] {
        let client = Client::of(&authority).careless();
        let seen = client.ask(gateway.edge, host, &Request::get("/")).await.unwrap();
        assert_eq!(&seen.shown, shown, "{host}");
    }
}

// -- clients' certificates

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_client_ca_only_its_clients_are_let_in() {
    let (authority, other) = (Authority::new(), Authority::new());
    let home = home_with(&authority, "edge.tls.client_ca = \"clients.pem\"\n");
    home.write("clients.pem", authority.pem());
    let gateway = home.gateway();
    for version in [&TLS12, &TLS13] {
        let client = || Client::of(&authority).version(version);
        let ask = async |client: Client| client.ask(gateway.edge, "edge.test", &Request::get("/")).await;
        let known = authority.issue(|params| params.subject_alt_names = dns(&["sender.test"]));
        assert_eq!(ask(client().shows(known)).await.unwrap().status, 404);
        let stranger = other.issue(|params| params.subject_alt_names = dns(&["sender.test"]));
        assert!(ask(client().shows(stranger)).await.is_err());
        let expired = authority.issue(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
        assert!(ask(client().shows(expired)).await.is_err());
        assert!(ask(client()).await.is_err());
    }
    // A client may hear of its failure before it is counted.
    until("all are counted", || handshakes(&gateway.metrics()) == [2.0, 6.0, 0.0]);
    let details = eventually("six refusals are recorded", || {
        let records = gateway.records();
        let failed = records.iter().filter(|record| record["reason"] == "tls_handshake_failed");
        let details: Vec<String> =
            failed.map(|record| record["detail"].as_str().unwrap().to_owned()).collect();
        (details.len() == 6).then_some(details)
    });
    for expected in ["UnknownIssuer", "expired", "no certificate"] {
        assert_eq!(details.iter().filter(|of| of.contains(expected)).count(), 2, "{expected}: {details:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_takes_only_clients_whose_certificate_matches() {
    let authority = Authority::new();
    let config = "edge.tls.client_ca = \"clients.pem\"\n\
        [sources.alone]\nprovider = \"securitize\"\nclient_certificate = \"*.sender.test\"\n\
        [sources.legacy]\nprovider = \"anduin\"\nclient_certificate = \"CN=Legacy, too,O=Fund\"\n\
        [sources.tokened]\nprovider = \"securitize\"\nclient_certificate = \"*.sender.test\"\n\
        path_token = \"9c2e3b7d5f5e4c0fa0f6\"\nallow_ips = [\"127.0.0.0/8\"]\n\
        [sources.signed]\nprovider = \"basiq\"\nsecrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]\n\
        client_certificate = \"*.sender.test\"\n\
        [sources.named]\nprovider = \"securitize\"\nclient_certificate = \"a.b.sender.test\"\n"
        .replace("CN=Legacy, too", "CN=Legacy\\\\, too");
    let home = home_with(&authority, &config);
    home.write("clients.pem", authority.pem());
    let gateway = home.gateway();
    let sender = Client::of(&authority)
        .shows(authority.issue(|params| params.subject_alt_names = dns(&["Hooks.Sender.test"])));
    let legacy = Client::of(&authority).shows(authority.issue(|params| {
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Fund");
        params.distinguished_name.push(DnType::CommonName, "Legacy, too");
    }));
    let stranger = Client::of(&authority)
        .shows(authority.issue(|params| params.subject_alt_names = dns(&["sender.test", "a.b.sender.test"])));
    let alone = |nonce| securitize("/hooks/alone", "sub", nonce).to("/hooks/alone");
    let named = |nonce| securitize("/hooks/named", "sub", nonce).to("/hooks/named");
    let order =
        r#"{"event":"new_investor_added","fundId":"f","lpId":"l","createdAt":"2026-11-21T10:00:00Z"}"#;
    let of_legacy = Request::post("/hooks/legacy", order).with("content-type", "application/json");
    let of_signed = |id: &str| standard("/hooks/signed", &basiq_body(id), now());
    let ask = async |client: &Client, request: Request| {
        client.ask(gateway.edge, "edge.test", &request).await.unwrap()
    };
    for (client, request) in [
        (&sender, alone(1)),
        (&legacy, of_legacy.clone()),
        (&sender, securitize("/hooks/tokened", "sub", 2)),
        (&sender, of_signed("evt-1")),
        (&stranger, named(3)),
    ] {
        let seen = ask(client, request.clone()).await;
        assert_eq!((seen.status, &seen.body["status"]), (200, &json!("accepted")), "{request:?}");
    }
    let by: Vec<Value> = home.events().iter().map(|event| event["verifiedby"].clone()).collect();
    assert_eq!(
        by,
        [
            "client-certificate",
            "client-certificate",
            "client-certificate",
            "standard-webhooks",
            "client-certificate"
        ]
    );
    for (client, request, source) in [
        (&stranger, alone(4), "alone"),
        (&legacy, alone(5), "alone"),
        (&sender, named(7), "named"),
        (&sender, of_legacy, "legacy"),
        (&legacy, securitize("/hooks/tokened", "sub", 6), "tokened"),
        // The right signature does not make up for it.
        (&stranger, of_signed("evt-2"), "signed"),
    ] {
        let seen = ask(client, request.clone()).await;
        assert_eq!((seen.status, &seen.body["title"]), (403, &json!("Client not allowed")), "{request:?}");
        let id = &seen.body["reject"];
        let record =
            eventually("it is recorded", || gateway.records().into_iter().find(|of| of["id"] == *id));
        assert_eq!((&record["reason"], &record["source"]), (&json!("client_not_allowed"), &json!(source)));
        assert!(record["detail"].as_str().unwrap().contains("client_certificate"), "{record}");
    }
    assert_eq!(home.events().len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_the_quarantine_a_source_takes_only_clients_whose_certificate_matches() {
    let authority = Authority::new();
    let config = |secret: &str, certificate: &str| {
        config_of(&format!(
            "edge.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\nedge.tls.client_ca = \"clients.pem\"\n\
             quarantine.enabled = true\nquarantine.key = \"a key that is long enough\"\n\
             [sources.signed]\nprovider = \"basiq\"\nsecrets = [\"{secret}\"]\n{certificate}\
             observe = [\"client_not_allowed\"]\nobserve_until = \"2099-01-31\"\n"
        ))
    };
    let home = home_with(&authority, "");
    home.write("clients.pem", authority.pem());
    home.write("hookgate.toml", config("whsec_QUJDREVGR0hJSktMTU5PUFFSU1RVVldY", ""));
    let gateway = home.gateway();
    let showing = |name| {
        Client::of(&authority).shows(authority.issue(|params| params.subject_alt_names = dns(&[name])))
    };
    for (number, name) in ["hooks.sender.test", "stranger.test"].into_iter().enumerate() {
        let request = standard("/hooks/signed", &basiq_body(&format!("evt-{number}")), now());
        let seen = showing(name).ask(gateway.edge, "edge.test", &request).await.unwrap();
        assert_eq!(seen.status, 401);
    }
    until("both are kept", || gateway.metrics().sum("hookgate_quarantine_kept_total", &[]) == 2.0);
    gateway.stop();
    // The name of today, which is never only observed.
    home.write("hookgate.toml", config(STANDARD_SECRET, "client_certificate = \"*.sender.test\"\n"));
    let verdicts = home.run(&["quarantine", "reverify", "--all", "--json"]).json();
    assert_eq!((&verdicts[0]["verdict"], &verdicts[0]["id"]), (&json!("admitted"), &json!("evt-0")));
    assert_eq!(verdicts[1]["reason"], "client_not_allowed", "{verdicts:?}");
    assert!(verdicts[1]["why"].as_str().unwrap().contains("does not match client_certificate"));
    assert_eq!(home.events().len(), 1);
}

// -- handshakes that come to nothing

#[test]
fn a_handshake_that_does_not_end_is_closed_counted_and_recorded() {
    let authority = Authority::new();
    let home = home_with(&authority, "edge.header_timeout = \"2s\"\n");
    let gateway = home.gateway();
    let bystander = bystander(&authority, gateway.edge);
    // Silence; the beginning of a client's first message; such a message drop by drop, which would take minutes to its end.
    let mut begun: Vec<Connection> = (0..40).map(|_| gateway.connect()).collect();
    for connection in &mut begun[20..] {
        connection.send([22, 3, 1, 2, 0, 1, 0]);
    }
    let offers = vec!["n".repeat(200); 60];
    let offers: Vec<&str> = offers.iter().map(String::as_str).collect();
    let config = Client::of(&authority).offers(&offers).config();
    let mut hello = Vec::new();
    let mut client = rustls::ClientConnection::new(config, "edge.test".try_into().unwrap()).unwrap();
    client.write_tls(&mut hello).unwrap();
    let mut slow: Vec<Connection> = (0..10).map(|_| gateway.connect()).collect();
    bystander.is_served_while(|| begun.iter_mut().chain(&mut slow).all(Connection::is_silent));
    let mut drops = hello.iter();
    until("the drops are cut off", || {
        let drop = *drops.next().expect("the whole message was taken");
        // One after the other is found out; no send of a drop tells before the next.
        slow.retain_mut(|connection| connection.try_send([drop]));
        slow.is_empty()
    });
    begun.into_iter().for_each(Connection::ends);
    let delivered = bystander.stop();
    until("all are counted", || handshakes(&gateway.metrics()) == [delivered as f64, 0.0, 50.0]);
    until("all are rejects", || gateway.metrics().rejects("unknown", "tls_handshake_failed") == 50.0);
    until("all are recorded", || gateway.records().len() == 50);
    for record in gateway.records() {
        let said = ["reason", "source", "status", "client", "method"].map(|key| record[key].clone());
        assert_eq!(
            said,
            [json!("tls_handshake_failed"), json!("unknown"), json!(0), json!("127.0.0.1"), json!("")]
        );
        assert_eq!(record["detail"], "the handshake took longer than 2s");
    }
    assert_eq!(home.run(&["audit", "verify"]).code, 0);
    assert_eq!(home.events().len(), delivered);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_handshake_is_counted_and_recorded_and_one_that_the_client_left_is_not() {
    let authority = Authority::new();
    let home = home_with(&authority, "");
    let gateway = home.gateway();
    gateway.connect().finish();
    let mut half = gateway.connect();
    half.send([22, 3, 1, 2, 0, 1, 0]);
    half.finish();
    half.ends();
    let metrics = || gateway.metrics();
    // An alert, as TLS writes it: 21, a version, a length, fatal, which.
    let mut garbage = gateway.connect();
    garbage.send(b"\x00\x01garbage and more of it");
    let alert = garbage.rest();
    assert_eq!((alert.first(), alert.get(5)), (Some(&21), Some(&2)), "{alert:?}");
    let other = Client::of(&authority).offers(&["gopher"]);
    let seen = other.ask(gateway.edge, "edge.test", &Request::get("/")).await;
    assert!(format!("{:?}", seen.err()).contains("NoApplicationProtocol"));
    let distrustful = Client::of(&Authority::new());
    let seen = distrustful.ask(gateway.edge, "edge.test", &Request::get("/")).await;
    assert!(format!("{:?}", seen.err()).contains("UnknownIssuer"));
    until("three handshakes have failed", || handshakes(&metrics()) == [0.0, 3.0, 0.0]);
    until("three are recorded", || gateway.records().len() == 3);
    let details: Vec<Value> = gateway.records().iter().map(|record| record["detail"].clone()).collect();
    for expected in ["other than a TLS handshake", "known protocol", "alert UnknownCA"] {
        let found = details.iter().filter(|detail| detail.as_str().unwrap().contains(expected));
        assert_eq!(found.count(), 1, "{expected}: {details:?}");
    }
    assert!(gateway.records().iter().all(|record| record["status"] == 0));
    until("all are gone", || metrics().sum("hookgate_connections", &[]) == 0.0);
    assert_eq!(handshakes(&metrics()), [0.0, 3.0, 0.0]);
    assert_eq!(metrics().rejects("unknown", "tls_handshake_failed"), 3.0);
}

#[test]
fn plain_http_on_the_tls_port_is_told_so() {
    let authority = Authority::new();
    let home = home_with(&authority, "");
    let gateway = home.gateway();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    for (number, bytes) in [basiq("evt-1").bytes(), preface].into_iter().enumerate() {
        let mut connection = gateway.connect();
        connection.send(bytes);
        let answer = connection.answer();
        assert_eq!((answer.status, answer.header("connection")), (400, Some("close")));
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.json()["title"], "TLS handshake failed");
        connection.finish();
        connection.ends();
        let record = gateway.record_of(&answer);
        assert_eq!((&record["reason"], &record["status"]), (&json!("tls_handshake_failed"), &json!(400)));
        assert_eq!(record["detail"], "the client speaks HTTP without TLS");
        assert_eq!(handshakes(&gateway.metrics()), [0.0, number as f64 + 1.0, 0.0]);
    }
    assert!(home.events().is_empty());
}

// -- files

#[test]
fn whatever_is_wrong_with_a_file_is_told_at_its_key() {
    let authority = Authority::new();
    let home = home_with(&authority, "");
    let issued = authority.issue(|params| params.subject_alt_names = dns(&["edge.test"]));
    issued.write(&home, "good");
    authority.issue(|_| {}).write(&home, "other");
    home.write("clients.pem", authority.pem());
    home.write("empty.pem", "nothing here\n");
    let key = issued.key_pem.clone();
    home.write("broken.key", key.replace("MI", "!!"));
    home.write("encrypted.key", key.replace("PRIVATE", "ENCRYPTED PRIVATE"));
    home.write("odd.pem", pem("CERTIFICATE", "AAAA"));
    home.write("odd.key", pem("PRIVATE KEY", "AAAA"));
    for (name, certificate, private_key, expected) in [
        ("certificate", "absent.pem", "good.key", "cannot read"),
        ("certificate", "empty.pem", "good.key", "holds no certificate in PEM form"),
        ("certificate", "good.key", "good.key", "holds no certificate in PEM form"),
        ("certificate", "odd.pem", "good.key", "does not begin with an X.509 certificate"),
        ("private_key", "good.pem", "absent.key", "cannot read"),
        ("private_key", "good.pem", "empty.pem", "holds no private key in PEM form"),
        ("private_key", "good.pem", "good.pem", "holds no private key in PEM form"),
        ("private_key", "good.pem", "broken.key", "its PEM text cannot be read"),
        ("private_key", "good.pem", "encrypted.key", "is encrypted; decrypt it"),
        ("private_key", "good.pem", "odd.key", "has an unsupported type or length"),
        ("private_key", "good.pem", "other.key", "does not match the first certificate in"),
    ] {
        for section in ["edge.tls", "admin.tls", "edge.tls.more[0]", "edge.tls.more[1]"] {
            let pair = format!("certificate = \"{certificate}\"\nprivate_key = \"{private_key}\"\n");
            let good = "certificate = \"good.pem\"\nprivate_key = \"good.key\"\n";
            let text = match section {
                "edge.tls.more[0]" => format!("[edge.tls]\n{good}[[edge.tls.more]]\n{pair}"),
                "edge.tls.more[1]" => {
                    format!("[edge.tls]\n{good}[[edge.tls.more]]\n{good}[[edge.tls.more]]\n{pair}")
                }
                section => format!("[{section}]\n{pair}"),
            };
            let said = check(&home, &text);
            let line = text.lines().count() - usize::from(name == "certificate");
            let begin = format!("hookgate.toml:{line}:{}: {section}.{name}: ", name.len() + 4);
            assert_eq!(said.len(), 1, "{said:#?}");
            assert!(said[0].contains(&begin) && said[0].contains(expected), "{begin} {expected}\n{said:#?}");
            let leaked = key.lines().find(|line| said[0].contains(*line));
            assert_eq!(leaked, None);
        }
    }
    for (file, expected) in [
        ("absent.pem", "cannot read"),
        ("empty.pem", "holds no certificate in PEM form"),
        ("odd.pem", "is not an X.509 certificate of an authority"),
    ] {
        let text = format!(
            "[edge.tls]\ncertificate = \"good.pem\"\nprivate_key = \"good.key\"\nclient_ca = \"{file}\"\n"
        );
        let said = check(&home, &text);
        assert!(said.len() == 1 && said[0].contains(":4:13: edge.tls.client_ca: "), "{said:#?}");
        assert!(said[0].contains(expected), "{said:#?}");
    }
}

#[test]
fn a_client_certificate_without_client_ca_and_an_unreadable_token_are_told_at_their_keys() {
    let authority = Authority::new();
    let home = home_with(&authority, "");
    let source = "[sources.s]\nprovider = \"securitize\"\nclient_certificate = \"*.sender.test\"\n";
    let tls = "[edge.tls]\ncertificate = \"edge.pem\"\nprivate_key = \"edge.key\"\n";
    let at = "hookgate.toml:3:22: sources.s.client_certificate: ";
    for text in [source.to_owned(), format!("{source}{tls}")] {
        let said = check(&home, &text);
        assert!(
            said.len() == 1 && said[0].contains(at) && said[0].contains("edge.tls.client_ca"),
            "{said:#?}"
        );
    }
    home.write("clients.pem", authority.pem());
    let fenced = format!("{source}{tls}client_ca = \"clients.pem\"\n");
    assert_eq!(check(&home, &fenced), [""; 0]);
    for odd in ["", "*", "s*.sender.test", "CN=sender,*"] {
        let said = check(&home, &fenced.replace("*.sender.test", odd));
        let found = format!(
            "expected a name in the certificate (host, address, e-mail address or URI), *.DOMAIN for a host one \
            label below DOMAIN, or the whole subject such as CN=sender,O=Example, found {odd:?}"
        );
        assert!(said.len() == 1 && said[0].contains(at) && said[0].ends_with(&found), "{said:#?}");
    }
    let said = check(&home, "[admin]\ntoken = { file = \"absent\" }\n");
    assert!(said.len() == 1 && said[0].contains(":2:9: admin.token: cannot read"), "{said:#?}");
    let said = check(&home, "[admin]\ntoken = { env = \"HOOKGATE_TEST_UNSET\" }\n");
    assert!(said.len() == 1 && said[0].contains(":2:9: admin.token: the environment"), "{said:#?}");
}

#[test]
fn check_warns_of_dates_and_the_metric_tells_the_first_to_come() {
    let authority = Authority::new();
    let home = home_with(&authority, "");
    let (mut soon_at, mut late_at) = (0, 0);
    let soon = authority.issue(|params| soon_at = ends(params, 5));
    let late = authority.issue(|params| late_at = ends(params, 30));
    let later = authority.issue(|params| _ = ends(params, 60));
    soon.write(&home, "soon");
    late.write(&home, "late");
    later.write(&home, "later");
    authority.issue(|params| _ = ends(params, -1)).write(&home, "past");
    let (year, month, day, _) = midnight(3);
    authority
        .issue(|params| params.not_before = rcgen::date_time_ymd(year, month, day))
        .write(&home, "early");
    let tls = |section: &str, name: &str| {
        format!("[{section}]\ncertificate = \"{name}.pem\"\nprivate_key = \"{name}.key\"\n")
    };
    for (name, expected) in
        [("past", " expired on "), ("early", " is not valid before "), ("soon", " expires on ")]
    {
        for section in ["edge.tls", "admin.tls"] {
            let ran = home_check(&home, &tls(section, name));
            let begin = format!("hookgate.toml:2:15: warning: {section}.certificate: ");
            assert!(ran.code == 0 && ran.lines().len() == 1, "{ran:?}");
            assert!(ran.out.contains(&begin) && ran.out.contains(expected), "{ran:?}");
        }
    }
    assert_eq!(check(&home, &tls("edge.tls", "late")), [""; 0]);

    let expiry = |config: &str| {
        let home_of = Home::new(&(config.to_owned() + &sources()));
        for name in ["soon", "late", "later"] {
            for kind in ["pem", "key"] {
                let file = format!("{name}.{kind}");
                home_of.write(&file, std::fs::read(home.path(&file)).unwrap());
            }
        }
        home_of.gateway().metrics().sum("hookgate_tls_certificate_expiry_timestamp_seconds", &[])
    };
    let more = "[[edge.tls.more]]\ncertificate = \"late.pem\"\nprivate_key = \"late.key\"\n";
    assert_eq!(expiry(""), 0.0);
    assert_eq!(expiry(&(tls("edge.tls", "later") + more)), late_at as f64);
    assert_eq!(expiry(&tls("edge.tls", "soon")), soon_at as f64);
}

// -- the admin listener

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_ask_for_the_token_and_probes_do_not() {
    let home = Home::new(&format!("admin.token = \"{TOKEN}\"\n{}", sources()));
    let gateway = home.gateway();
    let metrics = |authorization: &[&str]| {
        let request = Request::get("/metrics");
        let request =
            authorization.iter().fold(request, |request, value| request.with("authorization", value));
        Connection::open(gateway.admin).ask(&request)
    };
    for refused in [
        vec![],
        vec!["Bearer".to_owned()],
        vec!["Bearer ".to_owned()],
        vec![format!("Bearer {TOKEN}x")],
        vec![format!("Bearer {}", &TOKEN[1..])],
        vec![format!("Bearer {}", TOKEN.to_uppercase())],
        vec![format!("Basic {TOKEN}")],
        vec![TOKEN.to_owned()],
        vec![format!("Bearer {TOKEN}"), "Bearer other".to_owned()],
    ] {
        let answer = metrics(&refused.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")), "{refused:?}");
        assert!(!answer.body.contains("hookgate_"), "{refused:?}");
    }
    for taken in [format!("Bearer {TOKEN}"), format!("bearer {TOKEN}")] {
        let answer = metrics(&[&taken]);
        assert_eq!(answer.status, 200);
        assert!(answer.body.contains("hookgate_build_info"));
    }
    assert_eq!(gateway.ask_admin("/livez").status, 200);
    until("it is ready", || gateway.ask_admin("/readyz").status == 200);
    assert!(!gateway.stop().1.contains(TOKEN));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_listener_speaks_tls_and_no_handshake_holds_it_up() {
    let authority = Authority::new();
    let text = format!(
        "edge.tls.certificate = \"front.pem\"\nedge.tls.private_key = \"front.key\"\n\
        admin.token = \"{TOKEN}\"\n[admin.tls]\ncertificate = \"edge.pem\"\nprivate_key = \"edge.key\"\n{}",
        sources()
    );
    let home = Home::new(&text);
    let mut expires = 0;
    let issued = authority.issue(|params| {
        params.subject_alt_names = dns(&["edge.test"]);
        ends(params, 30);
    });
    issued.write(&home, "edge");
    let front = authority.issue(|params| {
        params.subject_alt_names = dns(&["edge.test"]);
        expires = ends(params, 20);
    });
    front.write(&home, "front");
    let gateway = home.gateway();
    // More than one of them, and each open to the end of the test.
    let mut endless: Vec<Connection> = (0..20).map(|_| Connection::open(gateway.admin)).collect();
    for connection in &mut endless {
        connection.send([22, 3, 1, 2, 0, 1, 0]);
    }
    for version in [&TLS12, &TLS13] {
        for offers in [["h2", "http/1.1"].as_slice(), &[]] {
            let client = Client::of(&authority).version(version).offers(offers);
            let get =
                async |request: Request| client.ask(gateway.admin, "edge.test", &request).await.unwrap();
            let seen = get(Request::get("/metrics").with("authorization", format!("Bearer {TOKEN}"))).await;
            assert_eq!((seen.status, seen.http), (200, Version::HTTP_11));
            let metrics = Metrics::read(&seen.text);
            let expiry = metrics.sum("hookgate_tls_certificate_expiry_timestamp_seconds", &[]);
            assert_eq!(expiry, expires as f64);
            assert_eq!(get(Request::get("/metrics")).await.status, 401);
            assert_eq!(get(Request::get("/livez")).await.status, 200);
            assert_eq!(get(Request::get("/livez")).await.kind, HandshakeKind::Resumed);
        }
    }
    let mut plain = Connection::open(gateway.admin);
    let answer = plain.ask(&Request::get("/livez"));
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("https://"), "{answer:?}");
    for connection in endless {
        connection.ends();
    }
    // The edge has a certificate of its own.
    let seen = Client::of(&authority).ask(gateway.edge, "edge.test", &basiq("evt-1")).await.unwrap();
    assert_eq!((seen.status, seen.shown), (200, front.der));
}

// -- send

/// A config for `send` alone, which knows the port of a gateway that took a free one.
fn with_port_of(home: &Home, gateway: &Gateway, config: &str) {
    home.write("send.toml", format!("edge.listen = \"{}\"\n{config}", gateway.edge));
}

fn send(home: &Home, more: &[&str]) -> Ran {
    Ran::of(&mut home.bare(&[&["send", "--config", "send.toml", "--source", "basiq"], more].concat()))
}

#[test]
fn send_takes_the_certificate_that_the_config_names_and_no_other() {
    let authority = Authority::new();
    let home = home_with(&authority, "");
    let gateway = home.gateway();
    with_port_of(&home, &gateway, &config_of(""));
    let ran = send(&home, &["--count", "3"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    assert!(ran.lines().iter().all(|line| line.starts_with("200 {\"status\":\"accepted\"")), "{ran:?}");
    assert_eq!(home.events().len(), 3);
    until("one connection carried them all", || handshakes(&gateway.metrics()) == [1.0, 0.0, 0.0]);
    // The same name by the same authority is another certificate.
    authority.issue(|params| params.subject_alt_names = dns(&["edge.test"])).write(&home, "other");
    with_port_of(
        &home,
        &gateway,
        &config_of("").replace("edge.pem", "other.pem").replace("edge.key", "other.key"),
    );
    let ran = send(&home, &[]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
    for part in
        ["cannot deliver to https://127.0.0.1:", "by \"CN=Test CA ", "is not the one that edge.tls names"]
    {
        assert!(ran.err.contains(part), "{part} in {ran:?}");
    }
    assert_eq!(home.events().len(), 3);
}

#[test]
fn send_trusts_the_authorities_it_is_told_for_the_host_of_its_url() {
    let (authority, other) = (Authority::new(), Authority::new());
    let home = home_with(&authority, "");
    let address = vec![SanType::IpAddress([127, 0, 0, 1].into())];
    authority.issue(|params| params.subject_alt_names = address).write(&home, "edge");
    home.write("ca.pem", authority.pem());
    home.write("stranger.pem", other.pem());
    let gateway = home.gateway();
    with_port_of(&home, &gateway, &config_of(""));
    let port = gateway.edge.port();
    let (by_address, by_name) = (format!("https://127.0.0.1:{port}"), format!("https://localhost:{port}"));
    let (whole, query) = (format!("{by_address}/hooks/basiq"), format!("{by_address}?a=b"));
    let plain = format!("http://{}", gateway.admin);
    for (url, ca) in
        [(&by_address, "ca.pem"), (&whole, "ca.pem"), (&query, "ca.pem"), (&by_address, "edge.pem")]
    {
        let ran = send(&home, &["--url", url, "--ca", ca]);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{url} {ca}: {ran:?}");
    }
    let by_system = |roots: &str| {
        let arguments = ["send", "--config", "send.toml", "--source", "basiq", "--url", &by_address];
        Ran::of(home.bare(&arguments).env("SSL_CERT_FILE", home.path(roots)).env_remove("SSL_CERT_DIR"))
    };
    assert_eq!(by_system("ca.pem").code, 0);
    assert_eq!(home.events().len(), 5);

    let refused = |ran: Ran, parts: &[&str]| {
        assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
        assert!(parts.iter().all(|part| ran.err.contains(part)), "{parts:?}: {ran:?}");
    };
    let untrusted = "no authority in stranger.pem vouches for it";
    refused(send(&home, &["--url", &by_address, "--ca", "stranger.pem"]), &["by \"CN=Test CA ", untrusted]);
    refused(by_system("stranger.pem"), &["none of the system's authorities", "--ca FILE"]);
    for ca in ["ca.pem", "edge.pem"] {
        refused(send(&home, &["--url", &by_name, "--ca", ca]), &["not valid for name", "localhost"]);
    }
    refused(send(&home, &["--url", &by_address, "--ca", "edge.key"]), &["edge.key", "no"]);
    refused(send(&home, &["--url", &by_address, "--ca", "absent.pem"]), &["absent.pem"]);
    refused(send(&home, &["--url", &plain, "--ca", "ca.pem"]), &["not https://"]);
    let to_plain = plain.replace("http:", "https:");
    refused(send(&home, &["--url", &to_plain, "--ca", "ca.pem"]), &["does not speak TLS"]);
    assert_eq!(send(&home, &["--ca", "ca.pem"]).code, 2);
    assert_eq!(home.events().len(), 5);
}

#[test]
fn send_shows_a_client_certificate_where_one_is_asked_for() {
    let authority = Authority::new();
    let tls = "edge.tls.client_ca = \"clients.pem\"\n";
    let home = home_with(&authority, tls);
    home.write("clients.pem", authority.pem());
    authority.issue(|params| params.subject_alt_names = dns(&["sender.test"])).write(&home, "sender");
    let gateway = home.gateway();
    with_port_of(&home, &gateway, &config_of(tls));
    let ran = send(&home, &["--certificate", "sender.pem", "--key", "sender.key"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    // In TLS 1.3 the server says so only once the client takes the connection for open: whoever comes first, the words are
    // the same.
    for _ in 0..30 {
        let ran = send(&home, &[]);
        assert!(ran.code == 1 && ran.err.contains("give --certificate FILE and --key FILE"), "{ran:?}");
    }
    assert_eq!(send(&home, &["--certificate", "sender.pem"]).code, 2);
    assert_eq!(home.events().len(), 1);
}

#[test]
fn send_takes_no_certificate_outside_its_dates_whoever_names_it() {
    let authority = Authority::new();
    for (from, to, why) in [(-20, -10, "has expired"), (10, 20, "is not valid yet")] {
        let home = Home::new(&config_of(""));
        home.write("ca.pem", authority.pem());
        authority
            .issue(|params| {
                let (year, month, day, _) = midnight(from);
                params.not_before = rcgen::date_time_ymd(year, month, day);
                params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
                ends(params, to);
            })
            .write(&home, "edge");
        let gateway = home.gateway();
        with_port_of(&home, &gateway, &config_of(""));
        let url = format!("https://{}", gateway.edge);
        for more in [[].as_slice(), &["--url", &url, "--ca", "edge.pem"], &["--url", &url, "--ca", "ca.pem"]]
        {
            let ran = send(&home, more);
            assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{more:?}: {ran:?}");
            assert!(ran.err.contains(why), "{more:?}: {ran:?}");
        }
        assert_eq!(home.events().len(), 0);
    }
}

#[test]
fn send_tells_what_to_do_of_a_self_signed_certificate_that_is_an_authority_too() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
    let home = Home::new(&config_of(""));
    home.write("edge.pem", params.self_signed(&key).unwrap().pem());
    home.write("edge.key", key.serialize_pem());
    home.write("stranger.pem", Authority::new().pem());
    let gateway = home.gateway();
    with_port_of(&home, &gateway, &config_of(""));
    let url = format!("https://{}", gateway.edge);
    assert_eq!(send(&home, &["--url", &url, "--ca", "edge.pem"]).code, 0);
    let ran = send(&home, &["--url", &url, "--ca", "stranger.pem"]);
    assert!(ran.code == 1 && ran.err.contains("no authority in stranger.pem vouches for it"), "{ran:?}");
}

// -- certificates and clients of the test's own

/// Who vouches for certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

/// A certificate and its key.
struct Issued {
    der: CertificateDer<'static>,
    pem: String,
    key_pem: String,
    key_der: Vec<u8>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, format!("Test CA {}", hex::encode(random())));
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Authority { issuer: Issuer::new(params, key), certificate }
    }

    fn pem(&self) -> String {
        self.certificate.pem()
    }

    fn issue(&self, of: impl FnOnce(&mut CertificateParams)) -> Issued {
        let mut params = CertificateParams::default();
        of(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued {
            der: certificate.der().clone(),
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            key_der: key.serialize_der(),
        }
    }
}

impl Issued {
    fn write(&self, home: &Home, name: &str) {
        home.write(&format!("{name}.pem"), &self.pem);
        home.write(&format!("{name}.key"), &self.key_pem);
    }
}

fn random() -> [u8; 8] {
    hookgate::base::clock::random()
}

fn dns(names: &[&str]) -> Vec<SanType> {
    names.iter().map(|name| SanType::DnsName((*name).try_into().unwrap())).collect()
}

/// Lets it end so many days from now, at midnight; when that is, in unix seconds.
fn ends(params: &mut CertificateParams, days: i64) -> i64 {
    let (year, month, day, at) = midnight(days);
    params.not_after = rcgen::date_time_ymd(year, month, day);
    at
}

fn midnight(days: i64) -> (i32, u8, u8, i64) {
    let date = (Clock::System.now() + SignedDuration::from_hours(24 * days)).to_zoned(TimeZone::UTC).date();
    let at = date.to_zoned(TimeZone::UTC).unwrap().timestamp().as_second();
    let small = |number: i8| u8::try_from(number).unwrap();
    (date.year().into(), small(date.month()), small(date.day()), at)
}

fn pem(kind: &str, base64: &str) -> String {
    format!("-----BEGIN {kind}-----\n{base64}\n-----END {kind}-----\n")
}

fn pem_der(text: &[u8]) -> CertificateDer<'static> {
    use rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(text).unwrap()
}

/// The lines of a config with TLS, and these.
fn config_of(more: &str) -> String {
    let tls = "edge.tls.certificate = \"edge.pem\"\nedge.tls.private_key = \"edge.key\"\n";
    format!("{tls}{more}{}", sources())
}

/// A folder with such a config, and the certificate of edge.test that it names.
fn home_with(authority: &Authority, more: &str) -> Home {
    let home = Home::new(&config_of(more));
    authority.issue(|params| params.subject_alt_names = dns(&["edge.test"])).write(&home, "edge");
    home
}

/// What `check` says of a config of these lines and a source.
fn home_check(home: &Home, text: &str) -> Ran {
    let source = "[sources.basiq]\nprovider = \"basiq\"\nsecrets = [{ file = \"secret\" }]\n";
    home.write("secret", STANDARD_SECRET);
    home.write("hookgate.toml", format!("{text}{source}"));
    home.run(&["check"])
}

/// The errors among it.
fn check(home: &Home, text: &str) -> Vec<String> {
    let ran = home_check(home, text);
    let errors: Vec<String> = ran.lines().iter().map(|line| (*line).to_owned()).collect();
    assert_eq!(ran.code, i32::from(!errors.is_empty()), "{ran:?}");
    errors
}

/// Completed, failed, timed out.
fn handshakes(metrics: &Metrics) -> [f64; 3] {
    ["completed", "failed", "timed_out"]
        .map(|result| metrics.sum("hookgate_tls_handshakes_total", &[("result", result)]))
}

/// A client, and what it remembers.
struct Client {
    roots: RootCertStore,
    versions: Vec<&'static SupportedProtocolVersion>,
    offers: Vec<Vec<u8>>,
    resumption: Tls12Resumption,
    shows: Option<Issued>,
    careless: bool,
    /// HTTP/2 without having said so.
    prior_knowledge: bool,
    /// Made once: rustls resumes nothing between two of them.
    config: OnceLock<Arc<ClientConfig>>,
}

/// A client that delivers all the time, and shakes hands for each event.
fn bystander(authority: &Authority, edge: SocketAddr) -> Bystander {
    let client = Client::of(authority);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    Bystander::asking(move |request| {
        let seen = runtime.block_on(client.ask(edge, "edge.test", request)).unwrap();
        Answer { status: seen.status, headers: Vec::new(), body: seen.text }
    })
}

/// What it was answered, and how.
#[derive(Debug)]
struct Seen {
    status: u16,
    text: String,
    /// Null where that is no JSON.
    body: Value,
    http: Version,
    tls: ProtocolVersion,
    kind: HandshakeKind,
    shown: CertificateDer<'static>,
}

impl Client {
    /// One that trusts the authority.
    fn of(authority: &Authority) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate.der().clone()).unwrap();
        Client {
            roots,
            versions: vec![&TLS13, &TLS12],
            offers: Vec::new(),
            resumption: Tls12Resumption::SessionIdOrTickets,
            shows: None,
            careless: false,
            prior_knowledge: false,
            config: OnceLock::new(),
        }
    }

    fn version(self, version: &'static SupportedProtocolVersion) -> Client {
        Client { versions: vec![version], ..self }
    }

    fn offers(self, offers: &[&str]) -> Client {
        Client { offers: offers.iter().map(|name| name.as_bytes().to_vec()).collect(), ..self }
    }

    fn resuming(self, resumption: Tls12Resumption) -> Client {
        Client { resumption, ..self }
    }

    /// It has this certificate from now on, and remembers nothing.
    fn shows(self, issued: Issued) -> Client {
        Client { shows: Some(issued), config: OnceLock::new(), ..self }
    }

    /// It looks at no certificate.
    fn careless(self) -> Client {
        Client { careless: true, ..self }
    }

    fn config(&self) -> Arc<ClientConfig> {
        let make = || {
            let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
            let builder = builder.with_protocol_versions(&self.versions).unwrap();
            let builder = builder.with_root_certificates(self.roots.clone());
            let mut config = match &self.shows {
                None => builder.with_no_client_auth(),
                Some(issued) => {
                    let key = PrivateKeyDer::try_from(issued.key_der.clone()).unwrap();
                    builder.with_client_auth_cert(vec![issued.der.clone()], key).unwrap()
                }
            };
            if self.careless {
                config.dangerous().set_certificate_verifier(Arc::new(Careless));
            }
            config.alpn_protocols = self.offers.clone();
            config.resumption = Resumption::in_memory_sessions(64).tls12_resumption(self.resumption);
            Arc::new(config)
        };
        self.config.get_or_init(make).clone()
    }

    /// Asks on a connection of its own.
    async fn ask(&self, to: SocketAddr, host: &str, request: &Request) -> io::Result<Seen> {
        match tokio::time::timeout(PATIENCE, self.ask_at_length(to, host, request)).await {
            Ok(seen) => seen,
            Err(_) => panic!("no answer within {PATIENCE:?}: {request:?}"),
        }
    }

    async fn ask_at_length(&self, to: SocketAddr, host: &str, request: &Request) -> io::Result<Seen> {
        let host = ServerName::try_from(host.to_owned()).unwrap();
        let stream = tokio::net::TcpStream::connect(to).await?;
        let stream = TlsConnector::from(self.config()).connect(host, stream).await?;
        let connection = stream.get_ref().1;
        let (tls, kind) = (connection.protocol_version().unwrap(), connection.handshake_kind().unwrap());
        let shown = connection.peer_certificates().unwrap()[0].clone();
        let http2 = self.prior_knowledge || connection.alpn_protocol() == Some(b"h2");
        let mut asked = request.to_hyper("https://edge.test");
        if !http2 {
            asked.headers_mut().insert("host", HeaderValue::from_static("edge.test"));
        }
        let io = TokioIo::new(stream);
        let answer = if http2 {
            let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
            let (mut sender, connection) = shaken.map_err(io::Error::other)?;
            tokio::task::spawn(connection);
            sender.send_request(asked).await
        } else {
            let shaken = hyper::client::conn::http1::handshake(io).await;
            let (mut sender, connection) = shaken.map_err(io::Error::other)?;
            tokio::task::spawn(connection);
            sender.send_request(asked).await
        };
        let (head, body) = answer.map_err(io::Error::other)?.into_parts();
        let text =
            String::from_utf8(body.collect().await.map_err(io::Error::other)?.to_bytes().to_vec()).unwrap();
        let body = serde_json::from_str(&text).unwrap_or_default();
        Ok(Seen { status: head.status.as_u16(), text, body, http: head.version, tls, kind, shown })
    }

    /// Shakes hands with the edge of these rules: how, or what is recorded of it.
    async fn shake(&self, rules: &RuntimeConfig) -> Result<HandshakeKind, String> {
        let (here, there) = tokio::io::duplex(1 << 16);
        let accept = async {
            match rules.tls.as_ref().unwrap().accept(here).await {
                Ok(mut secured) => {
                    // With this the client reads its tickets.
                    let _ = secured.stream.write_all(b"x").await;
                    Ok(secured.stream.get_ref().1.handshake_kind().unwrap())
                }
                Err(HandshakeError::Refused(_, detail)) => Err(detail),
                Err(_) => Err("the client went away".to_owned()),
            }
        };
        let connect = async {
            let host = ServerName::try_from("edge.test").unwrap();
            if let Ok(mut stream) = TlsConnector::from(self.config()).connect(host, there).await {
                let _ = stream.read(&mut [0]).await;
            }
        };
        tokio::join!(accept, connect).0
    }
}

/// Takes whatever certificate it is shown.
#[derive(Debug)]
struct Careless;

impl ServerCertVerifier for Careless {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

const RESUMPTIONS: [(&SupportedProtocolVersion, Tls12Resumption); 3] = [
    (&TLS13, Tls12Resumption::Disabled),
    (&TLS12, Tls12Resumption::SessionIdOrTickets),
    (&TLS12, Tls12Resumption::SessionIdOnly),
];
