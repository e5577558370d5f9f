//! The edge as proxies and load balancers use it: connections that they keep, probes of theirs, networks written their way.

use std::time::Duration;

use hookgate::base::clock;
use serde_json::{Value, json};
use support::blocking::until;
use support::*;

// -- kept connections

#[test]
fn a_kept_connection_may_be_idle_for_longer_than_a_head_may_take() {
    let home = Home::new(&("edge.header_timeout = \"500ms\"\n".to_owned() + &sources()));
    let gateway = home.gateway();
    let mut kept = gateway.connect();
    let answer = kept.ask(&basiq("evt-1"));
    assert_eq!((answer.status, answer.header("keep-alive")), (200, Some("timeout=75")));
    assert_eq!(answer.header("connection"), Some("keep-alive"), "without it the other header is ignored");
    // Another connection is too slow for its head meanwhile.
    gateway.connect().ends();
    assert!(kept.is_silent());
    assert_eq!(kept.ask(&basiq("evt-2")).status, 200);
    // A head on the kept one has as little time, from its first byte.
    kept.send("POST /hooks/basiq HTTP/1.1\r\n");
    let answer = kept.answer();
    assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
    assert_eq!(answer.header("keep-alive"), None);
    assert_eq!(gateway.record_of(&answer)["reason"], "header_timeout");
    kept.ends();
}

#[test]
fn an_idle_connection_ends_after_the_time_that_it_was_told() {
    let home =
        Home::new(&("edge.header_timeout = \"10m\"\nedge.idle_timeout = \"1s\"\n".to_owned() + &sources()));
    let gateway = home.gateway();
    let mut kept = gateway.connect();
    let asked = clock::instant();
    assert_eq!(kept.ask(&basiq("evt-1")).header("keep-alive"), Some("timeout=1"));
    kept.ends();
    // A request that is sent at the last moment is on its way while the time runs out.
    assert!(asked.elapsed() >= Duration::from_secs(2), "{:?}", asked.elapsed());
    let metrics = gateway.metrics();
    assert_eq!((metrics.answered(), metrics.refused()), (1.0, 0.0), "nothing was wrong with that");
}

#[test]
fn a_connection_that_ends_is_not_told_how_long_it_is_kept() {
    let home = Home::new(&sources());
    let gateway = home.gateway();
    let told =
        |answer: &Answer| ["keep-alive", "connection"].map(|name| answer.header(name).map(str::to_owned));
    let closing = [None, Some("close".to_owned())];
    for option in ["close", "Close", "x, close"] {
        let answer = gateway.ask(&basiq("evt").with("connection", option));
        assert_eq!(told(&answer), closing, "{option}");
    }
    assert_eq!(told(&gateway.connect().ask_as(&basiq("evt"), "HTTP/1.0"))[0], None);
    assert_eq!(told(&gateway.ask(&basiq("evt").with("expect", "100-continue").to("/nothing"))), closing);
    // A refusal of a whole request ends nothing.
    assert_eq!(told(&gateway.ask(&Request::get("/nothing")))[0], Some("timeout=75".to_owned()));
    // Less than a second cannot be told.
    let home = Home::new(&("edge.idle_timeout = \"900ms\"\n".to_owned() + &sources()));
    assert_eq!(told(&home.gateway().ask(&basiq("evt"))), [None, None]);
}

#[test]
fn idle_connections_give_way_where_few_places_are_left() {
    let times = "edge.header_timeout = \"1s\"\nedge.max_connections = 4\n";
    let home = Home::new(&(times.to_owned() + &sources()));
    let gateway = home.gateway();
    let kept = |id: &str| {
        let mut kept = gateway.connect();
        assert_eq!(kept.ask(&basiq(id)).status, 200);
        kept
    };
    let idle = [kept("evt-1"), kept("evt-2"), kept("evt-3")];
    let mut full = kept("evt-4");
    let mut busy = || assert_eq!(full.ask(&basiq("evt-4")).status, 200);
    until("a newcomer is served", || {
        busy();
        let mut newcomer = gateway.connect();
        newcomer.try_send(basiq("evt-5").bytes());
        newcomer.answer().status == 200
    });
    drop(idle);
}

// -- probes

#[test]
fn a_probe_is_answered_as_readiness_is_and_leaves_nothing() {
    let home = Home::new(&("edge.health_path = \"/\"\n".to_owned() + &sources()));
    let gateway = home.gateway();
    let mut kept = gateway.connect();
    let before = gateway.metrics().answered();
    for target in ["/", "/?", "/?probe=kube", "http://10.0.0.1/"] {
        for method in ["GET", "HEAD"] {
            let probe =
                Request::new(method, target).with("user-agent", "GoogleHC/1.0").without("content-length");
            let answer = kept.ask(&probe);
            assert_eq!((answer.status, &*answer.body), (200, ""), "{method} {target}");
            assert_eq!(answer.header("content-type"), None);
        }
    }
    let answer = gateway.connect().ask_as(&Request::get("/").without("host"), "HTTP/1.0");
    assert_eq!(answer.status, 200, "as haproxy asks");
    let metrics = gateway.metrics();
    assert_eq!((metrics.answered(), metrics.refused()), (before, 0.0));
    assert!(gateway.records().is_empty());
    // Nothing else is asked there, and nothing else is answered so.
    for method in ["POST", "OPTIONS", "PUT", "get"] {
        let answer = gateway.ask(&Request::new(method, "/"));
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
        let record = gateway.record_of(&answer);
        assert_eq!((&record["reason"], &record["source"]), (&json!("method_not_allowed"), &json!("unknown")));
    }
    for target in ["//", "/x", "/%2f", "/healthz"] {
        assert_eq!(gateway.ask(&Request::get(target)).status, 404, "{target}");
    }
    assert_eq!(kept.ask(&basiq("evt-1")).status, 200);
    assert_eq!(gateway.stop().0, 0);
    assert_eq!(home.audit().lines().count(), 8);
}

#[test]
fn a_probe_is_told_that_the_gateway_is_not_ready_or_leaves() {
    // A queue that is away, and no spool.
    let config = "edge.health_path = \"/healthz\"\nspool.enabled = false\nredis.url = \"redis://127.0.0.1:1/0\"\n\
                  dedupe.store = \"redis\"\nqueue.kind = \"redis\"\n";
    let home = Home::new(&(config.to_owned() + &sources()));
    let gateway = home.gateway();
    let mut kept = gateway.connect();
    until("it is not ready", || gateway.ask_admin("/readyz").status == 503);
    let answer = kept.ask(&Request::get("/healthz?x"));
    assert_eq!((answer.status, answer.body), (503, String::new()));
    assert_eq!(gateway.metrics().refused(), 0.0);

    // What is in flight holds the drain up.
    let home = Home::new(&("edge.health_path = \"/healthz\"\n".to_owned() + &sources()));
    let gateway = home.gateway();
    let mut delivery = gateway.connect();
    let bytes = basiq("evt-1").bytes();
    delivery.send(&bytes[..bytes.len() - 1]);
    until("it is in flight", || gateway.metrics().sum("hookgate_requests_in_flight", &[]) == 1.0);
    assert_eq!(gateway.ask(&Request::get("/healthz")).status, 200);
    gateway.sigterm();
    until("it drains", || gateway.ask_admin("/readyz").status == 503);
    let answer = gateway.ask(&Request::get("/healthz"));
    assert_eq!((answer.status, answer.header("connection")), (503, Some("close")));
    assert_eq!(answer.header("keep-alive"), None);
    delivery.send(&bytes[bytes.len() - 1..]);
    let answer = delivery.answer();
    assert_eq!(
        (answer.status, answer.header("connection"), answer.header("keep-alive")),
        (200, Some("close"), None)
    );
    assert_eq!(gateway.stop().0, 0);
    assert_eq!(home.audit(), "");
}

#[test]
fn the_health_path_follows_the_config() {
    let config = |path: &str| {
        format!("edge.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\n{path}{}", sources())
    };
    let home = Home::exactly(&config(""));
    let gateway = home.gateway();
    let status = |target: &str| gateway.ask(&Request::get(target)).status;
    assert_eq!(status("/healthz"), 404);
    home.write("hookgate.toml", config("edge.health_path = \"/healthz\"\n"));
    gateway.sighup();
    until("it is answered", || status("/healthz") == 200);
    home.write("hookgate.toml", config("edge.health_path = \"/up\"\n"));
    gateway.sighup();
    until("another is", || status("/up") == 200);
    assert_eq!(status("/healthz"), 404);
}

// -- paths

#[test]
fn the_record_says_which_source_a_path_misses_by_a_slip() {
    let upper = "[sources.upper]\nprovider = \"basiq\"\npath = \"/In/Upper\"\n";
    let home = Home::new(&format!("{}{upper}secrets = [\"{STANDARD_SECRET}\"]\n", sources()));
    let gateway = home.gateway();
    let detail = |target: &str, reason: &str| {
        let answer = gateway.ask(&basiq("evt").to(target));
        let said = answer.json();
        // The client learns nothing from it.
        assert_eq!(
            (answer.status, &said["type"], &said["title"]),
            (404, &json!("urn:hookgate:problem:unknown_path"), &json!("Not found"))
        );
        assert_eq!(answer.headers.len(), gateway.ask(&Request::post("/none", "")).headers.len());
        let record = gateway.record_of(&answer);
        assert_eq!(record["reason"], reason, "{target}");
        assert!(!record.to_string().contains(&TOKEN[..8]), "{record}");
        (record["detail"].as_str().unwrap().to_owned(), record["path"].as_str().unwrap().to_owned())
    };
    let basiq = |slips: &str| {
        format!("no source has this path; but for {slips}, it would be the path of the source basiq")
    };
    for (target, slips) in [
        ("/hooks/basiq/", "the slash at its end"),
        ("/hooks/basiq//", "the slash at its end"),
        ("/hooks/basiq/?a=b", "the slash at its end"),
        ("//hooks/basiq", "a doubled slash"),
        ("/hooks///basiq", "a doubled slash"),
        ("/Hooks/BASIQ", "upper and lower case"),
        ("/hooks/b%61siq", "its percent-encoding"),
        ("/hooks%2Fbasiq", "its percent-encoding"),
        ("/hooks/basiq%20", "blanks"),
        ("/hooks//Basiq/", "a doubled slash and the slash at its end and upper and lower case"),
    ] {
        assert_eq!(
            detail(target, "unknown_path"),
            (basiq(slips), target.split('?').next().unwrap().to_owned())
        );
    }
    assert!(detail("/in/upper", "unknown_path").0.ends_with("it would be the path of the source upper"));
    for none in [
        "/",
        "//",
        "/hooks",
        "/hooks/",
        "/hooks/basiq/x",
        "/hooks/bas%ffiq",
        "/x/hooks/basiq",
        "/hooks/basiqs",
    ] {
        assert_eq!(detail(none, "unknown_path").0, "no source has this path", "{none}");
    }
    // With a token's place in it, and neither the token nor whether it is the one.
    for token in [TOKEN, "another-token", &TOKEN.to_ascii_uppercase()] {
        for (target, slips) in [
            (format!("/hooks/securitize/{token}/"), "the slash at its end"),
            (format!("/hooks//securitize/{token}"), "a doubled slash"),
            (format!("/Hooks/securitize/{token}"), "upper and lower case"),
            (format!("/hooks/%73ecuritize/{token}"), "its percent-encoding"),
        ] {
            let would_be = "under the path of the source securitize, where its token stands";
            let said = format!("no source has this path; but for {slips}, it would be {would_be}");
            assert_eq!(detail(&target, "unknown_path"), (said, "/hooks/securitize".to_owned()));
        }
    }
    let (said, _) = detail("/hooks//securitize/", "unknown_path");
    assert!(said.ends_with("it would be the path of the source securitize, which lacks its token"), "{said}");
    for target in ["/hooks/securitize", "/hooks/securitize/"] {
        let said = "the path ends where the source's token must follow";
        assert_eq!(detail(target, "path_token_mismatch"), (said.to_owned(), "/hooks/securitize".to_owned()));
    }
}

// -- networks

#[test]
fn networks_written_as_ipv6_mean_the_ipv4_networks_that_they_map() {
    let config = format!(
        "edge.trusted_proxies = [\"::ffff:127.0.0.0/104\"]\n{}\
         [sources.near]\nprovider = \"basiq\"\nsecrets = [\"{STANDARD_SECRET}\"]\nallow_ips = [\"::ffff:203.0.113.0/120\"]\n\
         [sources.one]\nprovider = \"basiq\"\nsecrets = [\"{STANDARD_SECRET}\"]\nallow_ips = [\"::ffff:198.51.100.7\"]\n",
        sources()
    );
    let home = Home::new(&config);
    let gateway = home.gateway();
    let status =
        |path: &str, from: &str| gateway.ask(&basiq("evt").to(path).with("x-forwarded-for", from)).status;
    assert_eq!(
        (status("/hooks/near", "203.0.113.9"), status("/hooks/near", "::ffff:203.0.113.9")),
        (200, 200)
    );
    assert_eq!((status("/hooks/near", "203.0.114.9"), status("/hooks/near", "2001:db8::1")), (403, 403));
    assert_eq!((status("/hooks/one", "198.51.100.7"), status("/hooks/one", "198.51.100.8")), (200, 403));
    until("all is written", || gateway.records().len() == 3);
    let clients = |network: &str| {
        let ran = home.run(&["audit", "query", "--json", "--client", network]);
        ran.json().iter().map(|record| record["client"].clone()).collect::<Vec<Value>>()
    };
    assert_eq!(clients("::ffff:203.0.114.0/120"), [json!("203.0.114.9")]);
    assert_eq!(clients("::ffff:198.51.100.8"), [json!("198.51.100.8")]);
    assert_eq!(clients("::ffff:0:0/96").len(), 2);
    assert_eq!(clients("::/0"), [json!("2001:db8::1")]);
    let wide = home.run(&["audit", "query", "--client", "::ffff:0:0/90"]);
    assert!(wide.code == 2 && wide.err.contains("0.0.0.0/0"), "{wide:?}");
}

#[test]
fn a_network_of_everybody_is_one_however_it_is_written() {
    for everybody in ["0.0.0.0/0", "::ffff:0:0/96", "::ffff:0.0.0.0/97\", \"::ffff:128.0.0.0/97"] {
        let source = "[sources.securitize]\nprovider = \"securitize\"\n";
        let home = Home::new(&format!(
            "edge.trusted_proxies = [\"{everybody}\"]\n{source}allow_ips = [\"{everybody}\"]\n"
        ));
        let ran = home.run(&["check"]);
        assert_eq!(ran.code, 1, "{ran:?}");
        for said in ["allow_ips allows every address", "warning: edge.trusted_proxies: trusts every address"]
        {
            assert!(ran.out.contains(said), "{said}: {ran:?}");
        }
    }
    let home = Home::new(&("edge.trusted_proxies = [\"::ffff:10.0.0.0/80\"]\n".to_owned() + &sources()));
    let ran = home.run(&["check"]);
    assert!(ran.code == 1 && ran.out.contains(":3:25: edge.trusted_proxies[0]: "), "{ran:?}");
}
