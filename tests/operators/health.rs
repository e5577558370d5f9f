//! `hookgate health`: the admin listener of the configured gateway, asked as a container's health check asks it.

use std::fs;
use std::net::SocketAddr;

use serde_json::{Value, json};
use support::*;

/// A home whose admin listener has this address.
fn home_at(admin: &str) -> Home {
    Home::embedded().with("admin.listen", admin)
}

#[tokio::test]
async fn it_says_what_the_probes_say() {
    let port = free_port();
    let home = home_at(&format!("127.0.0.1:{port}"));
    let ran = home.run(&["health"]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
    assert!(
        ran.err.contains(&format!("at http://127.0.0.1:{port}")) && ran.err.contains("refused"),
        "{ran:?}"
    );
    let gateway = home.serve().await;
    let ran = home.run(&["health"]);
    assert!(ran.code == 0 && ran.out.starts_with("200 {\"ready\":true,"), "{ran:?}");
    let ran = home.run(&["health", "--live"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "200 {\"live\":true}\n"), "{ran:?}");
    let ran = home.run(&["health", "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let [line] = &ran.json()[..] else { panic!("{ran:?}") };
    assert_eq!((&line["status"], &line["body"]["ready"]), (&json!(200), &json!(true)), "{line}");
    // Stopped, it accepts connections and says nothing.
    gateway.pause();
    let ran = home.run(&["health"]);
    assert!(ran.code == 1 && ran.err.contains("longer than 5 s"), "{ran:?}");
    gateway.resume();
    assert_eq!(home.run(&["health"]).code, 0);
}

#[tokio::test]
async fn a_gateway_that_is_not_ready_fails_and_lives() {
    let mut redis = Redis::start(Persistence::Off).await;
    let home = Home::redis(&redis).with("admin.listen", format!("127.0.0.1:{}", free_port()));
    let gateway = home.serve().await;
    assert_eq!(home.run(&["health"]).code, 0);
    redis.kill9();
    until("it is not ready", async || !gateway.ready().await).await;
    let ran = home.run(&["health"]);
    assert!(ran.code == 1 && ran.out.starts_with("503 {\"ready\":false,"), "{ran:?}");
    let body: Value = serde_json::from_str(ran.out.trim_end().strip_prefix("503 ").unwrap()).unwrap();
    assert_eq!(body["queue"], "down", "{ran:?}");
    assert_eq!(home.run(&["health", "--live"]).code, 0);
}

#[tokio::test]
async fn a_listener_on_every_address_is_asked_at_loopback_and_without_the_token() {
    for any in ["0.0.0.0", "[::]"] {
        let token = "0123456789abcdef0123456789abcdef";
        let home = home_at(&format!("{any}:{}", free_port())).with("admin.token", token);
        let _gateway = home.serve().await;
        let ran = home.run(&["health"]);
        assert!(ran.code == 0 && ran.out.starts_with("200 "), "{any}: {ran:?}");
        assert!(!ran.out.contains(token) && !ran.err.contains(token), "{any}: {ran:?}");
    }
}

#[tokio::test]
async fn only_the_certificate_that_the_config_names_is_trusted() {
    let home = home_at(&format!("127.0.0.1:{}", free_port()))
        .with("admin.tls.certificate", "admin.pem")
        .with("admin.tls.private_key", "admin.key");
    let issue = |name: &str| {
        // For another name: the config names the certificate itself.
        let issued = rcgen::generate_simple_self_signed(["admin.test".to_owned()]).unwrap();
        home.write(&format!("{name}.pem"), issued.cert.pem());
        home.write(&format!("{name}.key"), issued.signing_key.serialize_pem());
    };
    issue("admin");
    // The probes of these tests speak no TLS; this command does.
    let _gateway = home.serve_unready().await;
    until("it is ready", async || home.run(&["health"]).code == 0).await;
    let ran = home.run(&["health"]);
    assert!(ran.code == 0 && ran.out.starts_with("200 "), "{ran:?}");
    issue("other");
    // Not beside the config that the gateway follows.
    let config = fs::read_to_string(home.path("hookgate.toml")).unwrap();
    home.write("other.toml", config.replace("\"admin.pem\"", "\"other.pem\""));
    let ran = Ran::of(&mut home.bare(&["health", "--config", "other.toml"]));
    assert!(ran.code == 1 && ran.err.contains("is not the one that admin.tls names"), "{ran:?}");
}

#[tokio::test]
async fn a_config_that_a_running_gateway_refused_is_no_sickness_of_it() {
    let home = home_at(&format!("127.0.0.1:{}", free_port()));
    let gateway = home.serve().await;
    let home = home.with("edge.max_body", "much");
    home.write_config();
    let admin: SocketAddr = gateway.admin;
    let ran = home.run(&["health"]);
    assert!(ran.code == 0 && ran.out.starts_with("200 "), "{admin}: {ran:?}");
    let home = home.with("admin.listen", "nowhere");
    let ran = home.run(&["health"]);
    assert!(ran.code == 1 && ran.err.contains("admin.listen: "), "{ran:?}");
    let home = home.with("admin.listen", "127.0.0.1:0");
    let ran = home.run(&["health"]);
    assert!(ran.code == 1 && ran.err.contains("admin.listen: ") && ran.err.contains("port"), "{ran:?}");
}
