//! A running gateway follows its config: by SIGHUP, and when a file has changed. All of a new config or nothing of it; nobody
//! who is connected notices.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;
use support::{
    Client, Gateway, Home, Load, Persistence, Redis, Request, STANDARD_SECRET, assert_each_once, basiq,
    basiq_by_another_secret, free_port, investor_update, until,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::task::TaskTracker;

const NEXT_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const TOKEN: &str = "9c2e3b7d5f5e4c0fa0f6";
const NEXT_TOKEN: &str = "5b0d4f1e7a9c46b28e3d";

/// A Basiq source with this name, and what else it is to say.
fn basiq_source(name: &str, more: &str) -> String {
    format!("[sources.{name}]\nprovider = \"basiq\"\nsecrets = [\"{STANDARD_SECRET}\"]\n{more}\n")
}

fn securitize_source() -> String {
    format!("[sources.securitize]\nprovider = \"securitize\"\npath_token = \"{TOKEN}\"\n")
}

async fn reloads(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric(&format!("hookgate_config_reloads_total{{result=\"{result}\"}}")).await
}

/// Writes the config, tells the gateway, and waits until that has this result once more.
async fn reload(gateway: &Gateway, home: &Home, result: &str) {
    let before = reloads(gateway, result).await;
    // It tells of a reload after all that it has to say of it.
    let word = if result == "applied" { "config reloaded" } else { "config refused" };
    let told = || gateway.log().matches(word).count();
    let told_before = told();
    home.write_config();
    gateway.sighup();
    let happened = async || reloads(gateway, result).await > before && told() > told_before;
    until(&format!("a reload is {result}"), happened).await;
}

async fn status(gateway: &Gateway, delivery: &Request) -> u16 {
    gateway.deliver(delivery).await.status
}

/// Waits until what the next secret signs is taken, and what the one before signs is not.
async fn until_the_next_secret_counts(gateway: &Gateway) {
    until("the next secret counts", async || status(gateway, &basiq_by_another_secret("next")).await == 200)
        .await;
    assert_eq!(status(gateway, &basiq("late")).await, 401);
}

/// A request whose body is not all sent yet.
struct Slow {
    client: Client,
    rest: Vec<u8>,
}

impl Slow {
    /// Returns once the gateway has the head and asks for the body.
    async fn begin(edge: SocketAddr, delivery: &Request) -> Slow {
        let request = String::from_utf8(delivery.bytes()).unwrap();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let mut client = Client::connect(edge).await.unwrap();
        client.send(format!("{head}\r\nexpect: 100-continue\r\n\r\n").as_bytes()).await.unwrap();
        assert_eq!(client.answer().await.unwrap().status, 100);
        let (first, rest) = body.as_bytes().split_at(10);
        client.send(first).await.unwrap();
        Slow { client, rest: rest.to_owned() }
    }

    /// Sends the rest. The connection, and the status.
    async fn end(mut self) -> (Client, u16) {
        self.client.send(&self.rest).await.unwrap();
        let answer = self.client.answer().await.unwrap();
        (self.client, answer.status)
    }
}

/// Callers that take a new connection for each delivery, and fail if one is not answered 200.
struct Callers {
    callers: JoinSet<()>,
    taken: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Callers {
    fn start(edge: SocketAddr) -> Callers {
        let (mut callers, taken, stop) = (JoinSet::new(), Arc::<AtomicUsize>::default(), Arc::default());
        for caller in 0..4 {
            let (taken, stop) = (taken.clone(), Arc::<AtomicBool>::clone(&stop));
            callers.spawn(async move {
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let id = format!("call-{caller}-{number}");
                    let mut client = Client::connect(edge).await.unwrap();
                    client.deliver(&basiq(&id)).await.unwrap().assert_accepted(&id);
                    taken.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Callers { callers, taken, stop }
    }

    async fn taken(&self, more: usize) {
        let goal = self.taken.load(Ordering::Relaxed) + more;
        until("calls are answered", async || {
            assert_eq!(self.callers.len(), 4);
            self.taken.load(Ordering::Relaxed) >= goal
        })
        .await;
    }

    async fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.callers.join_next().await {
            ended.unwrap();
        }
    }
}

#[tokio::test]
async fn a_secret_file_that_is_rewritten_counts_without_a_signal() {
    let home = Home::embedded()
        .with_sources("[sources.basiq]\nprovider = \"basiq\"\nsecrets = [{ file = \"basiq.secret\" }]\n");
    fs::write(home.path("basiq.secret"), STANDARD_SECRET).unwrap();
    let gateway = home.serve().await;
    assert_eq!(status(&gateway, &basiq("early")).await, 200);
    assert_eq!(status(&gateway, &basiq_by_another_secret("early")).await, 401);
    fs::write(home.path("basiq.secret"), NEXT_SECRET).unwrap();
    until_the_next_secret_counts(&gateway).await;
    until("it tells of it", async || gateway.log().contains("config reloaded")).await;
    assert_eq!(reloads(&gateway, "applied").await, 1.0);
    let said = gateway.log();
    assert!(said.contains("basiq.secret"), "{said}");
    assert!(!said.contains(&NEXT_SECRET[6..]) && !said.contains(&STANDARD_SECRET[6..]), "{said}");

    // Gone, it leaves the gateway as it is, even when a reload is asked for; and when it is back it counts.
    fs::rename(home.path("basiq.secret"), home.path("aside")).unwrap();
    reload(&gateway, &home, "refused").await;
    assert!(gateway.log().contains("cannot read the secret file"), "{}", gateway.log());
    assert_eq!(status(&gateway, &basiq_by_another_secret("kept")).await, 200);
    fs::write(home.path("basiq.secret"), STANDARD_SECRET).unwrap();
    until("the first secret counts again", async || status(&gateway, &basiq("again")).await == 200).await;
}

#[tokio::test]
async fn a_file_that_vanishes_for_good_is_told_and_counted_once_and_counts_when_it_is_back() {
    let home = Home::embedded()
        .with_sources("[sources.basiq]\nprovider = \"basiq\"\nsecrets = [{ file = \"basiq.secret\" }]\n");
    fs::write(home.path("basiq.secret"), STANDARD_SECRET).unwrap();
    let gateway = home.serve().await;
    fs::remove_file(home.path("basiq.secret")).unwrap();
    until("it is counted", async || reloads(&gateway, "refused").await == 1.0).await;
    let refused = || gateway.log().matches("config refused").count();
    until("it is told", async || refused() == 1).await;
    let said = gateway.log();
    assert!(said.contains("cannot read the secret file") && said.contains("basiq.secret"), "{said}");
    assert_eq!(status(&gateway, &basiq("kept")).await, 200);
    fs::write(home.path("basiq.secret"), NEXT_SECRET).unwrap();
    until_the_next_secret_counts(&gateway).await;

    // The config file itself.
    let config = home.path("hookgate.toml");
    let text = fs::read(&config).unwrap();
    fs::remove_file(&config).unwrap();
    until("it is told", async || refused() == 2).await;
    assert!(gateway.log().lines().last().unwrap().contains("hookgate.toml"), "{}", gateway.log());
    fs::write(&config, text).unwrap();
    until("it is back", async || gateway.log().contains("config unchanged")).await;
    assert_eq!((reloads(&gateway, "refused").await, reloads(&gateway, "applied").await), (2.0, 1.0));
}

/// Lets a gateway have so many files open.
fn limit_open_files(gateway: &Gateway, most: u32) {
    let (pid, most) = (gateway.id().to_string(), format!("--nofile={most}:"));
    assert!(Command::new("prlimit").args(["--pid", &pid, &most]).status().unwrap().success());
}

#[tokio::test]
async fn a_change_that_could_not_be_read_for_want_of_descriptors_is_told_once_and_counts_when_it_can_be() {
    let home = Home::embedded()
        .with_sources("[sources.basiq]\nprovider = \"basiq\"\nsecrets = [{ file = \"basiq.secret\" }]\n");
    fs::write(home.path("basiq.secret"), STANDARD_SECRET).unwrap();
    let gateway = home.serve().await;
    limit_open_files(&gateway, 5);
    fs::write(home.path("basiq.secret"), NEXT_SECRET).unwrap();
    until("it is told", async || gateway.log().contains("config refused")).await;
    assert!(gateway.log().contains("Too many open files"), "{}", gateway.log());
    limit_open_files(&gateway, 900);
    until_the_next_secret_counts(&gateway).await;
    assert_eq!(gateway.log().matches("config refused").count(), 1, "{}", gateway.log());
    assert_eq!((reloads(&gateway, "refused").await, reloads(&gateway, "applied").await), (1.0, 1.0));
}

#[tokio::test]
async fn an_address_that_somebody_else_has_is_told_once_and_taken_when_it_is_free() {
    let mut home = Home::embedded().with_sources(basiq_source("basiq", ""));
    let gateway = home.serve().await;
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    home = home.with("edge.listen", json!(["127.0.0.1:0", taken.to_string()]));
    home.write_config();
    until("it is told", async || gateway.log().contains("config refused")).await;
    let said = gateway.log();
    assert!(said.contains(&format!("cannot listen on {taken}")), "{said}");
    drop(other);
    until("it listens there", async || gateway.log().contains("config reloaded")).await;
    let mut client = Client::connect(taken).await.unwrap();
    client.deliver(&basiq("a")).await.unwrap().assert_accepted("a");
    assert_eq!((reloads(&gateway, "refused").await, reloads(&gateway, "applied").await), (1.0, 1.0));
}

#[tokio::test]
async fn secrets_that_are_exchanged_as_kubernetes_does_count_without_a_signal() {
    let home = Home::embedded()
        .with_sources("[sources.basiq]\nprovider = \"basiq\"\nsecrets = [{ file = \"mount/basiq\" }]\n");
    for (generation, secret) in [("..2026_1", STANDARD_SECRET), ("..2026_2", NEXT_SECRET)] {
        fs::create_dir_all(home.path("mount").join(generation)).unwrap();
        fs::write(home.path("mount").join(generation).join("basiq"), secret).unwrap();
    }
    symlink("..2026_1", home.path("mount/..data")).unwrap();
    symlink("..data/basiq", home.path("mount/basiq")).unwrap();
    let gateway = home.serve().await;
    assert_eq!(status(&gateway, &basiq("early")).await, 200);
    symlink("..2026_2", home.path("mount/..data_tmp")).unwrap();
    fs::rename(home.path("mount/..data_tmp"), home.path("mount/..data")).unwrap();
    fs::remove_dir_all(home.path("mount/..2026_1")).unwrap();
    until_the_next_secret_counts(&gateway).await;
    assert_eq!(reloads(&gateway, "refused").await, 0.0);
}

#[tokio::test]
async fn tokens_in_files_that_are_rewritten_count_without_a_signal() {
    let home = Home::embedded().with("admin.token.file", "admin.token").with_sources(
        "[sources.securitize]\nprovider = \"securitize\"\npath_token = { file = \"path.token\" }\n",
    );
    fs::write(home.path("path.token"), TOKEN).unwrap();
    fs::write(home.path("admin.token"), TOKEN).unwrap();
    let gateway = home.serve().await;
    let path = async |token: &str| {
        let delivery = investor_update(1, "d").to(&format!("/hooks/securitize/{token}"));
        status(&gateway, &delivery).await
    };
    let admin = async |token: &str| {
        let mut client = Client::connect(gateway.admin).await.unwrap();
        let head = format!("GET /metrics HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
        client.send(head.as_bytes()).await.unwrap();
        client.answer().await.unwrap().status
    };
    assert_eq!((path(TOKEN).await, path(NEXT_TOKEN).await), (200, 404));
    assert_eq!((admin(TOKEN).await, admin(NEXT_TOKEN).await), (200, 401));
    fs::write(home.path("path.token"), NEXT_TOKEN).unwrap();
    until("the path's next token counts", async || path(NEXT_TOKEN).await == 200).await;
    assert_eq!(path(TOKEN).await, 404);
    assert_eq!((admin(TOKEN).await, admin(NEXT_TOKEN).await), (200, 401), "each has its own");
    fs::write(home.path("admin.token"), NEXT_TOKEN).unwrap();
    until("the admin listener's next token counts", async || admin(NEXT_TOKEN).await == 200).await;
    assert_eq!(admin(TOKEN).await, 401);
    until("it tells of both", async || gateway.log().matches("config reloaded").count() == 2).await;
    let said = gateway.log();
    assert!(said.contains("path.token") && said.contains("admin.token"), "{said}");
    assert!(!said.contains(TOKEN) && !said.contains(NEXT_TOKEN), "{said}");
    assert!(!home.records("path_token_mismatch").is_empty());
    let records = format!("{:?}", home.records("path_token_mismatch"));
    assert!(!records.contains(TOKEN) && !records.contains(NEXT_TOKEN), "{records}");
}

#[tokio::test]
async fn sources_come_and_go_with_their_series_and_those_that_stay_count_on() {
    let home = Home::embedded()
        .with_sources(basiq_source("basiq", "") + &basiq_source("old", "") + &securitize_source());
    let gateway = home.serve().await;
    assert_eq!(status(&gateway, &basiq("a")).await, 200);
    assert_eq!(status(&gateway, &basiq("a").to("/hooks/old")).await, 200);
    assert_eq!(status(&gateway, &investor_update(1, "d")).await, 200);

    let two = format!(
        "[sources.basiq]\nprovider = \"basiq\"\nsecrets = [\"{STANDARD_SECRET}\", \"{NEXT_SECRET}\"]\n"
    );
    let home = home.with_sources(two + &basiq_source("new", ""));
    reload(&gateway, &home, "applied").await;
    assert_eq!(status(&gateway, &basiq("a").to("/hooks/new")).await, 200);
    assert_eq!(status(&gateway, &basiq("b").to("/hooks/old")).await, 404);
    assert_eq!(status(&gateway, &investor_update(2, "d")).await, 404);
    assert_eq!(status(&gateway, &basiq_by_another_secret("b")).await, 200);
    let series = gateway.admin("/metrics").await.body;
    assert!(!series.contains("source=\"old\"") && !series.contains("source=\"securitize\""), "{series}");
    assert!(series.contains("hookgate_last_accepted_timestamp_seconds{source=\"new\"}"), "{series}");
    let slot = |slot: u32| format!("hookgate_secret_matches_total{{slot=\"{slot}\",source=\"basiq\"}}");
    assert_eq!((gateway.metric(&slot(0)).await, gateway.metric(&slot(1)).await), (1.0, 1.0));
    let accepted = "hookgate_requests_total{outcome=\"accepted\",provider=\"basiq\",source=\"basiq\"}";
    assert_eq!(gateway.metric(accepted).await, 2.0);
    let said = gateway.log();
    assert!(said.contains("\"sources_added\":\"new\",\"sources_removed\":\"old securitize\""), "{said}");
    // A token that no longer opens anything is still nobody's business.
    let records = home.records("unknown_path");
    assert_eq!(records.len(), 2, "{records:?}");
    assert!(!format!("{records:?}").contains(TOKEN), "{records:?}");

    let home = home.with_sources(basiq_source("basiq", "") + &basiq_source("old", ""));
    reload(&gateway, &home, "applied").await;
    let series = gateway.admin("/metrics").await.body;
    assert!(!series.contains(&slot(1)) && series.contains(&slot(0)), "{series}");
    // It is back, and begins anew.
    let accepted = "hookgate_requests_total{outcome=\"accepted\",provider=\"basiq\",source=\"old\"}";
    assert!(series.contains(&format!("{accepted} 0")), "{series}");
}

#[tokio::test]
async fn a_bad_config_is_refused_whole_and_told_with_its_place() {
    let home = Home::embedded();
    let gateway = home.serve().await;
    let loaded = gateway.metric("hookgate_config_loaded_timestamp_seconds").await;
    let good = basiq_source("basiq", "path = \"/elsewhere\"") + &basiq_source("new", "");
    let home = home.with_sources(good.clone() + "[sources.bad]\nprovider = \"nobody\"\n");
    reload(&gateway, &home, "refused").await;
    let said = gateway.log();
    let line = fs::read_to_string(home.path("hookgate.toml")).unwrap();
    let line = 1 + line.lines().position(|line| line.contains("nobody")).unwrap();
    let place = format!("hookgate.toml:{line}:12: sources.bad.provider: no such provider");
    assert!(said.contains(&place), "{place}\n{said}");
    // Nor the half of it that is right.
    for path in ["/hooks/new", "/elsewhere"] {
        assert_eq!(status(&gateway, &basiq("a").to(path)).await, 404);
    }
    gateway.deliver(&basiq("a")).await.assert_accepted("a");
    let series = gateway.admin("/metrics").await.body;
    assert!(!series.contains("\"new\"") && !series.contains("\"bad\""), "{series}");
    assert_eq!(gateway.metric("hookgate_config_loaded_timestamp_seconds").await, loaded);

    fs::write(home.path("hookgate.toml"), "data_dir = [\n").unwrap();
    gateway.sighup();
    until("it is refused", async || reloads(&gateway, "refused").await >= 2.0).await;
    until("it says where", async || gateway.log().contains("hookgate.toml:1:13: toml: ")).await;
    assert!(!gateway.log().contains("needs a restart"), "{}", gateway.log());
    fs::remove_file(home.path("hookgate.toml")).unwrap();
    gateway.sighup();
    // Not by the count: what was there before may have been refused once more, without a signal.
    until("it is refused", async || gateway.log().contains("there is no config file")).await;
    assert_eq!(reloads(&gateway, "applied").await, 0.0);

    // Put right, it counts without a signal.
    let home = home.with_sources(good);
    home.write_config();
    until("the config is applied", async || reloads(&gateway, "applied").await == 1.0).await;
    assert_eq!(status(&gateway, &basiq("a").to("/elsewhere")).await, 200);
    assert!(gateway.metric("hookgate_config_loaded_timestamp_seconds").await > loaded);
}

#[tokio::test]
async fn what_says_the_same_is_left_alone_unless_a_reload_is_asked_for() {
    let home = Home::embedded();
    let gateway = home.serve().await;
    home.write_config();
    until("the gateway has looked", async || gateway.log().contains("config unchanged")).await;
    assert_eq!(reloads(&gateway, "applied").await, 0.0);
    reload(&gateway, &home, "applied").await;
}

#[tokio::test]
async fn a_request_under_way_keeps_its_rules_and_the_next_on_its_connection_has_the_new_ones() {
    let home = Home::embedded().with_sources(basiq_source("basiq", "") + &basiq_source("gone", ""));
    let gateway = home.serve().await;
    let (here, gone) = (basiq("a"), basiq("a").to("/hooks/gone"));
    let mut kept = Client::connect(gateway.edge).await.unwrap();
    assert_eq!(kept.deliver(&gone).await.unwrap().status, 200);
    let slow = Slow::begin(gateway.edge, &basiq("b").to("/hooks/gone")).await;

    // The one source is gone, the other has another secret.
    let next = format!("[sources.basiq]\nprovider = \"basiq\"\nsecrets = [\"{NEXT_SECRET}\"]\n");
    let home = home.with_sources(next);
    reload(&gateway, &home, "applied").await;
    assert_eq!(kept.deliver(&gone).await.unwrap().status, 404);
    assert_eq!(kept.deliver(&here).await.unwrap().status, 401);
    let (mut client, answered) = slow.end().await;
    assert_eq!(answered, 200);
    assert_eq!(client.deliver(&gone).await.unwrap().status, 404);

    let slow = Slow::begin(gateway.edge, &basiq_by_another_secret("c")).await;
    let home = home.with_sources(basiq_source("basiq", ""));
    reload(&gateway, &home, "applied").await;
    let (mut client, answered) = slow.end().await;
    assert_eq!(answered, 200);
    let again = basiq_by_another_secret("d");
    assert_eq!(client.deliver(&again).await.unwrap().status, 401);
    assert_eq!(kept.deliver(&basiq("d")).await.unwrap().status, 200);
    assert_eq!(home.events().len(), 4);
}

#[tokio::test]
async fn addresses_come_and_go_and_the_one_that_stays_refuses_nobody() {
    let [stays, comes] = [(); 2].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
    let only = |home: Home| home.with("edge.listen", json!([stays.to_string(), "127.0.0.1:0"]));
    let mut home = only(Home::embedded());
    let gateway = home.serve().await;
    let callers = Callers::start(stays);
    let mut kept = Client::connect(stays).await.unwrap();
    for round in 0..3 {
        callers.taken(50).await;
        home = home.with("edge.listen", json!(["127.0.0.1:0", comes.to_string(), stays.to_string()]));
        reload(&gateway, &home, "applied").await;
        let mut idle = Client::connect(comes).await.unwrap();
        let id = format!("idle-{round}");
        idle.deliver(&basiq(&id)).await.unwrap().assert_accepted(&id);
        let slow = Slow::begin(comes, &basiq(&format!("slow-{round}"))).await;
        callers.taken(50).await;
        home = only(home);
        reload(&gateway, &home, "applied").await;
        until("nobody listens there", async || TcpStream::connect(comes).await.is_err()).await;
        assert!(idle.closed().await);
        let (mut client, answered) = slow.end().await;
        assert_eq!(answered, 200);
        assert!(client.closed().await);
        let id = format!("kept-{round}");
        kept.deliver(&basiq(&id)).await.unwrap().assert_accepted(&id);
    }
    callers.taken(50).await;
    callers.finish().await;
}

#[tokio::test]
async fn the_admin_listener_moves() {
    let mut home = Home::embedded();
    let gateway = home.serve().await;
    let [edge, before] = [gateway.edge, gateway.admin];
    let next = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let mut scraper = Client::connect(before).await.unwrap();
    assert_eq!(scraper.get("/livez").await.unwrap().status, 200);
    home = home.with("admin.listen", next.to_string());
    home.write_config();
    gateway.sighup();
    until("it answers there", async || match Client::connect(next).await {
        Ok(mut client) => client.get("/readyz").await.unwrap().status == 200,
        Err(_) => false,
    })
    .await;
    until("and no longer here", async || TcpStream::connect(before).await.is_err()).await;
    assert_eq!(scraper.get("/livez").await.unwrap().status, 200, "who is connected is answered");
    let mut client = Client::connect(edge).await.unwrap();
    client.deliver(&basiq("a")).await.unwrap().assert_accepted("a");
}

#[tokio::test]
async fn an_address_that_is_taken_refuses_the_reload_whole() {
    let mut home = Home::embedded();
    let gateway = home.serve().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let free = SocketAddr::from(([127, 0, 0, 1], free_port()));
    home = home.with_sources(basiq_source("basiq", "") + &basiq_source("new", ""));
    // Half of it could be had.
    home = home.with("edge.listen", json!(["127.0.0.1:0", free.to_string(), address.to_string()]));
    reload(&gateway, &home, "refused").await;
    let said = format!("hookgate.toml:2:15: edge.listen: cannot listen on {address}: Address already in use");
    assert!(gateway.log().contains(&said), "{said}\n{}", gateway.log());
    assert!(TcpStream::connect(free).await.is_err(), "nothing of it is served");
    assert_eq!(status(&gateway, &basiq("a").to("/hooks/new")).await, 404);
    gateway.deliver(&basiq("a")).await.assert_accepted("a");

    home = home.with("admin.listen", free.to_string());
    reload(&gateway, &home, "refused").await;
    assert_eq!(gateway.admin("/livez").await.status, 200);
    assert!(TcpStream::connect(free).await.is_err());
    home = home.with("admin.listen", "127.0.0.1:0");

    // One that it has itself, by another name.
    let own = format!("0.0.0.0:{}", gateway.edge.port());
    let elsewhere = home.with("edge.listen", json!(["127.0.0.1:0", own]));
    reload(&gateway, &elsewhere, "refused").await;
    let said = format!("this gateway itself listens on {} until it is restarted", gateway.edge);
    assert!(gateway.log().contains(&said), "{said}\n{}", gateway.log());

    let home = elsewhere.with("edge.listen", json!(["127.0.0.1:0", free.to_string(), address.to_string()]));
    drop(taken);
    reload(&gateway, &home, "applied").await;
    for edge in [gateway.edge, free, address] {
        let mut client = Client::connect(edge).await.unwrap();
        let answer = client.deliver(&basiq("a").to("/hooks/new")).await.unwrap();
        assert_eq!(answer.status, 200);
    }
}

#[tokio::test]
async fn what_a_running_gateway_cannot_follow_refuses_the_reload_whole() {
    let mut home = Home::embedded().with("spool.enabled", false);
    let gateway = home.serve().await;
    home = home.with_sources(basiq_source("basiq", "") + &basiq_source("new", ""));
    let keys = [
        ("data_dir", json!("elsewhere")),
        ("edge.reuse_port", json!(true)),
        ("edge.threads", json!(200)),
        ("redis.url", json!("redis://127.0.0.1:1/0")),
        ("dedupe.window", json!("8d")),
        ("queue.retain", json!("1d")),
        ("queue.ignore_idle_groups", json!("1d")),
        ("spool.max_bytes", json!("512MiB")),
        ("audit.retain", json!("1d")),
        ("quarantine.max_bytes", json!("1MiB")),
    ];
    for (key, value) in keys {
        home = home.with(key, value);
        reload(&gateway, &home, "refused").await;
        let text = fs::read_to_string(home.path("hookgate.toml")).unwrap();
        let line = 1 + text.lines().position(|line| line.starts_with(key)).unwrap();
        let (said, told) = (gateway.log(), format!(": {key}: needs a restart"));
        let told = said.lines().find(|line| line.contains(&told)).unwrap_or_else(|| panic!("{told}\n{said}"));
        assert!(told.contains(&format!("hookgate.toml:{line}:")), "{told}");
        assert_eq!(status(&gateway, &basiq("a").to("/hooks/new")).await, 404, "{key}");
        home = home.without(key);
    }
    assert!(!home.path("elsewhere").exists());
    // What has only moved in the file is the same.
    home = home.with("audit.retain", "90d");
    reload(&gateway, &home, "applied").await;
    assert_eq!(status(&gateway, &basiq("a").to("/hooks/new")).await, 200);
}

#[tokio::test]
async fn another_secret_behind_what_needs_a_restart_is_warned_of_and_the_rest_applied() {
    let redis = Redis::start(Persistence::Off).await;
    let mut home = Home::embedded()
        .with("dedupe.store", "redis")
        .with("queue.kind", "redis")
        .with("redis.url.file", "redis.url");
    fs::write(home.path("redis.url"), redis.url()).unwrap();
    let gateway = home.serve().await;
    fs::write(home.path("redis.url"), format!("redis://:hush@{}/1", redis.address())).unwrap();
    home = home.with_sources(basiq_source("basiq", "") + &basiq_source("new", ""));
    reload(&gateway, &home, "applied").await;
    let said = gateway.log();
    assert!(said.contains("warning: redis.url: the secret or file that it names has changed"), "{said}");
    assert!(!said.contains("hush"), "{said}");
    gateway.deliver(&basiq("a").to("/hooks/new")).await.assert_accepted("a");
    gateway.deliver(&basiq("a")).await.assert_accepted("a");
    fs::write(home.path("redis.url"), redis.url()).unwrap();
    assert_eq!(home.events().len(), 2);
}

#[tokio::test]
async fn what_a_source_has_counted_and_learnt_outlives_a_reload() {
    let limited =
        |burst: u32| basiq_source("basiq", &format!("rate_limit = {{ per_second = 1, burst = {burst} }}"));
    let home = Home::embedded().with_sources(limited(40) + &securitize_source());
    let gateway = home.serve().await;
    let taken = async |round: &str, count: usize| {
        let mut taken = 0;
        for number in 0..count {
            let answer = gateway.deliver(&basiq(&format!("{round}-{number}"))).await;
            assert!(answer.status == 200 || answer.status == 429, "{answer:?}");
            taken += usize::from(answer.status == 200);
        }
        taken
    };
    assert!(taken("first", 60).await >= 40);
    gateway.deliver(&investor_update(1, "d")).await.taken();

    let home = home.with_sources(limited(40) + &securitize_source() + &basiq_source("new", ""));
    reload(&gateway, &home, "applied").await;
    // A limiter that began anew would take all of them.
    assert!(taken("second", 40).await < 40);
    gateway.deliver(&investor_update(5, "d")).await.taken();
    assert_eq!(gateway.metric("hookgate_sequence_gaps_total{source=\"securitize\"}").await, 3.0);
    let limited_so_far =
        gateway.metric("hookgate_rejects_total{reason=\"rate_limited\",source=\"basiq\"}").await;
    assert!(limited_so_far >= 1.0);

    let home = home.with_sources(limited(41) + &securitize_source());
    reload(&gateway, &home, "applied").await;
    assert_eq!(taken("third", 41).await, 41);
}

/// A certificate for this name, and its key, as the gateway is to have them.
fn write_certificate(home: &Home, name: &str) -> CertificateDer<'static> {
    write_certificate_until(home, name, 2100, "")
}

/// The same, until that year begins, and in this folder.
fn write_certificate_until(home: &Home, name: &str, year: i32, folder: &str) -> CertificateDer<'static> {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    let key = KeyPair::generate().unwrap();
    let made = params.self_signed(&key).unwrap();
    fs::write(home.path(folder).join("edge.pem"), made.pem()).unwrap();
    fs::write(home.path(folder).join("edge.key"), key.serialize_pem()).unwrap();
    made.der().clone()
}

/// A connection to the gateway whose certificate is this one and for this name.
async fn connect_tls(
    edge: SocketAddr,
    name: &'static str,
    certificate: &CertificateDer<'static>,
) -> std::io::Result<TlsStream<TcpStream>> {
    connect_tls_as(None, &[], edge, name, certificate).await
}

/// The same of a client that shows a certificate, and that offers these protocols.
async fn connect_tls_as(
    client: Option<&Issued>,
    offers: &[&str],
    edge: SocketAddr,
    name: &'static str,
    certificate: &CertificateDer<'static>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots);
    let mut config = match client {
        None => config.with_no_client_auth(),
        Some(Issued { certificate, key }) => {
            let key = PrivateKeyDer::try_from(key.clone()).unwrap();
            config.with_client_auth_cert(vec![certificate.clone()], key).unwrap()
        }
    };
    config.alpn_protocols = offers.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(edge).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name).unwrap(), stream).await
}

/// Who vouches for clients.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A client's certificate and its key.
struct Issued {
    certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    fn issue(&self) -> Issued {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["sender.test".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued { certificate: certificate.der().clone(), key: key.serialize_der() }
    }
}

/// What is answered; what there was of it when the connection ended before.
async fn answer_tls(stream: &mut TlsStream<TcpStream>) -> Result<String, String> {
    let mut answer = Vec::new();
    // The answer's last byte is the body's.
    while !answer.ends_with(b"}") {
        match stream.read_buf(&mut answer).await {
            Ok(read) if read > 0 => {}
            _ => return Err(String::from_utf8(answer).unwrap()),
        }
    }
    Ok(String::from_utf8(answer).unwrap())
}

/// Asserts that what is sent is not answered: the connection has ended, or ends at that.
async fn assert_ends(stream: &mut TlsStream<TcpStream>, sent: &[u8]) {
    let _ = stream.write_all(sent).await;
    assert_eq!(answer_tls(stream).await, Err(String::new()));
}

async fn deliver_tls(stream: &mut TlsStream<TcpStream>, delivery: &Request) -> String {
    stream.write_all(&delivery.bytes()).await.unwrap();
    answer_tls(stream).await.unwrap()
}

#[tokio::test]
async fn certificates_are_replaced_under_load_and_who_is_connected_stays() {
    let home =
        Home::embedded().with("edge.tls.certificate", "edge.pem").with("edge.tls.private_key", "edge.key");
    let first = write_certificate_until(&home, "first.test", 2100, "");
    let gateway = home.serve().await;
    let edge = gateway.edge;
    let expires = async || gateway.metric("hookgate_tls_certificate_expiry_timestamp_seconds").await;
    assert_eq!(expires().await, 4_102_444_800.0);
    let mut open = connect_tls(edge, "first.test", &first).await.unwrap();
    let answer = deliver_tls(&mut open, &basiq("a")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let next = write_certificate_until(&home, "next.test", 2090, "");
    let mut number = 0;
    until("the next certificate is shown", async || {
        // Whoever comes is served, with the one or the other.
        number += 1;
        let (mut stream, is_next) = match connect_tls(edge, "first.test", &first).await {
            Ok(stream) => (stream, false),
            Err(_) => (connect_tls(edge, "next.test", &next).await.unwrap(), true),
        };
        let answer = deliver_tls(&mut stream, &basiq(&format!("new-{number}"))).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        is_next
    })
    .await;
    assert!(connect_tls(edge, "first.test", &first).await.is_err());
    assert_eq!(expires().await, 3_786_912_000.0);
    let answer = deliver_tls(&mut open, &basiq("b")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    // A key of another certificate: refused, and what is there goes on.
    let other = rcgen::KeyPair::generate().unwrap();
    fs::write(home.path("edge.key"), other.serialize_pem()).unwrap();
    until("it is refused", async || gateway.log().contains(": edge.tls.")).await;
    assert_eq!(reloads(&gateway, "refused").await, 1.0);
    connect_tls(edge, "next.test", &next).await.unwrap();
    assert_eq!(expires().await, 3_786_912_000.0);
}

#[tokio::test]
async fn a_config_and_a_certificate_that_are_exchanged_as_kubernetes_does_count_without_a_signal() {
    let home = Home::embedded()
        .with("edge.tls.certificate", "mount/edge.pem")
        .with("edge.tls.private_key", "mount/edge.key");
    let generations = ["..2026_1", "..2026_2", "..2026_3"].map(|name| format!("mount/{name}"));
    for generation in &generations {
        fs::create_dir_all(home.path(generation)).unwrap();
    }
    let names = ["first.test", "second.test", "third.test"];
    let shown: Vec<_> = names
        .iter()
        .zip(&generations)
        .map(|(name, generation)| write_certificate_until(&home, name, 2100, generation))
        .collect();
    let more = home.with_sources(basiq_source("basiq", "") + &basiq_source("new", ""));
    for generation in &generations[1..] {
        more.write_config();
        fs::rename(more.path("hookgate.toml"), more.path(generation).join("hookgate.toml")).unwrap();
    }
    let home = more.with_sources(basiq_source("basiq", ""));
    home.write_config();
    fs::rename(home.path("hookgate.toml"), home.path(&generations[0]).join("hookgate.toml")).unwrap();
    symlink("..2026_1", home.path("mount/..data")).unwrap();
    for file in ["hookgate.toml", "edge.pem", "edge.key"] {
        symlink(format!("..data/{file}"), home.path("mount").join(file)).unwrap();
    }
    symlink("mount/hookgate.toml", home.path("hookgate.toml")).unwrap();
    let gateway = home.serve().await;
    let exchange = |by: &str, gone: &str| {
        symlink(by, home.path("mount/..data_tmp")).unwrap();
        fs::rename(home.path("mount/..data_tmp"), home.path("mount/..data")).unwrap();
        fs::remove_dir_all(home.path("mount").join(gone)).unwrap();
    };
    let delivered = async |number: usize, path: &str| {
        let mut stream = connect_tls(gateway.edge, names[number], &shown[number]).await.ok()?;
        let delivery = basiq(&format!("evt-{number}")).to(path);
        deliver_tls(&mut stream, &delivery).await.split(' ').nth(1).map(str::to_owned)
    };
    assert_eq!(delivered(0, "/hooks/basiq").await.as_deref(), Some("200"));
    assert_eq!(delivered(0, "/hooks/new").await.as_deref(), Some("404"));
    exchange("..2026_2", "..2026_1");
    until("the second is applied", async || delivered(1, "/hooks/basiq").await.is_some()).await;
    assert_eq!(delivered(1, "/hooks/new").await.as_deref(), Some("200"), "all of it at once");
    // The config says the same as before; only certificate and key are others.
    exchange("..2026_3", "..2026_2");
    until("the third is applied", async || delivered(2, "/hooks/new").await.is_some()).await;
    until("both are counted", async || reloads(&gateway, "applied").await == 2.0).await;
    assert_eq!(reloads(&gateway, "refused").await, 0.0);
}

#[tokio::test]
async fn a_replaced_client_ca_ends_the_connections_of_those_whom_the_one_before_vouched_for() {
    let home = Home::embedded()
        .with("edge.tls.certificate", "edge.pem")
        .with("edge.tls.private_key", "edge.key")
        .with("edge.tls.client_ca", "clients.pem")
        .with("edge.header_timeout", "1m");
    let shown = write_certificate(&home, "edge.test");
    let [before, next] = ["before", "next"].map(Authority::new);
    let [of_before, of_next] = [before.issue(), next.issue()];
    fs::write(home.path("clients.pem"), &before.pem).unwrap();
    let gateway = home.serve().await;
    let connect = async |client: &Issued, offers: &[&str]| {
        connect_tls_as(Some(client), offers, gateway.edge, "edge.test", &shown).await.unwrap()
    };
    let mut kept = connect(&of_before, &[]).await;
    let mut deliver = async |id: &str| {
        let answer = deliver_tls(&mut kept, &basiq(id)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    };
    deliver("a").await;
    let io = TokioIo::new(connect(&of_before, &["h2"]).await);
    let (mut streams, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = TaskTracker::new().spawn(connection);
    assert_eq!(
        streams.send_request(basiq("b").to_hyper("http://hookgate.test")).await.unwrap().status(),
        200
    );

    // Others reload what does not concern it, and its own certificates are replaced.
    write_certificate(&home, "elsewhere.test");
    let home = home.with_sources(basiq_source("basiq", "") + &basiq_source("new", ""));
    reload(&gateway, &home, "applied").await;
    deliver("c").await;
    assert_eq!(
        streams.send_request(basiq("d").to_hyper("http://hookgate.test")).await.unwrap().status(),
        200
    );
    fs::write(home.path("edge.pem"), "").unwrap();
    let shown = write_certificate(&home, "edge.test");
    reload(&gateway, &home, "applied").await;
    let connect = async |client: &Issued| {
        connect_tls_as(Some(client), &[], gateway.edge, "edge.test", &shown).await.unwrap()
    };

    // One request of which the body, and one of which the head is not all sent yet.
    let mut slow = connect(&of_before).await;
    let request = String::from_utf8(basiq("slow").bytes()).unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    slow.write_all(format!("{head}\r\nexpect: 100-continue\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        assert_ne!(slow.read_buf(&mut answer).await.unwrap(), 0);
    }
    let mut late = connect(&of_before).await;
    let request = basiq("late").bytes();
    let (half, rest) = request.split_at(20);
    late.write_all(half).await.unwrap();
    let completed = "hookgate_tls_handshakes_total{result=\"completed\"}";
    until("hands are shaken", async || gateway.metric(completed).await == 4.0).await;

    fs::write(home.path("clients.pem"), &next.pem).unwrap();
    reload(&gateway, &home, "applied").await;
    assert_ends(&mut late, rest).await;
    assert_ends(&mut kept, &basiq("e").bytes()).await;
    assert!(streams.send_request(basiq("f").to_hyper("http://hookgate.test")).await.is_err());
    let _ = connection.await.unwrap();
    slow.write_all(body.as_bytes()).await.unwrap();
    let answer = answer_tls(&mut slow).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("connection: close"), "{answer}");
    assert_ends(&mut slow, b"").await;
    assert_ends(&mut connect(&of_before).await, &basiq("g").bytes()).await;
    let answer = deliver_tls(&mut connect(&of_next).await, &basiq("h")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(home.events().len(), 6);
}

#[tokio::test]
async fn what_a_proxy_said_counts_no_more_once_it_is_not_trusted_or_clients_speak_tls() {
    let allowed = basiq_source("basiq", "allow_ips = [\"203.0.113.7\"]");
    let mut home = Home::embedded()
        .with_sources(&allowed)
        // Nobody is to end for want of a request.
        .with("edge.header_timeout", "1m")
        .with("edge.proxy_protocol", true)
        .with("edge.trusted_proxies", json!(["127.0.0.0/8"]));
    write_certificate(&home, "edge.test");
    let gateway = home.serve().await;
    let proxied = async || {
        let mut client = Client::connect(gateway.edge).await.unwrap();
        client.send(b"PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\r\n").await.unwrap();
        client.deliver(&basiq("a")).await.unwrap().taken();
        client
    };
    let mut kept = proxied().await;
    let trusted = |home: Home, network: &str| home.with("edge.trusted_proxies", json!([network]));
    home = trusted(home, "192.0.2.0/24");
    reload(&gateway, &home, "applied").await;
    assert!(kept.closed().await);
    assert_eq!(status(&gateway, &basiq("a")).await, 403);

    home = trusted(home, "127.0.0.0/8");
    reload(&gateway, &home, "applied").await;
    let mut kept = proxied().await;
    home = home.with("edge.max_body", "2MiB").with("edge.max_connections", 5000);
    reload(&gateway, &home, "applied").await;
    kept.deliver(&basiq("a")).await.unwrap().assert_duplicate("a");
    home = home.with("edge.proxy_protocol", false);
    reload(&gateway, &home, "applied").await;
    assert!(kept.closed().await);

    home = home.with_sources(basiq_source("basiq", ""));
    reload(&gateway, &home, "applied").await;
    let mut kept = Client::connect(gateway.edge).await.unwrap();
    kept.deliver(&basiq("a")).await.unwrap().assert_duplicate("a");
    home = home.with("edge.tls.certificate", "edge.pem").with("edge.tls.private_key", "edge.key");
    reload(&gateway, &home, "applied").await;
    assert!(kept.closed().await);
}

#[tokio::test]
async fn the_quarantines_series_come_and_go_with_the_sources() {
    let home = Home::embedded()
        .with("quarantine.enabled", true)
        .with("quarantine.key", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=")
        .with_sources(basiq_source("basiq", "") + &basiq_source("old", ""));
    let gateway = home.serve().await;
    let home = home.with_sources(basiq_source("basiq", "") + &basiq_source("new", ""));
    reload(&gateway, &home, "applied").await;
    let series = gateway.admin("/metrics").await.body;
    for family in ["kept", "dropped", "admitted"] {
        let of = |source: &str| format!("hookgate_quarantine_{family}_total{{source=\"{source}\"}} 0");
        assert!(series.contains(&of("new")) && series.contains(&of("basiq")), "{series}");
    }
    assert!(!series.contains("source=\"old\""), "{series}");
}

#[tokio::test]
async fn more_connections_than_there_may_be_open_files_are_warned_of_by_a_reload_too() {
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let limit = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let hard = limit.split_whitespace().nth(1).and_then(|hard| hard.parse::<u64>().ok());
    if hard.is_none_or(|hard| hard > MOST_CONNECTIONS) {
        return; // There is nothing to be warned of here.
    }
    let home = Home::embedded().with("edge.max_connections", 100);
    let gateway = home.serve().await;
    assert!(!gateway.log().contains("needs more open files"), "{}", gateway.log());
    let home = home.with("edge.max_connections", MOST_CONNECTIONS);
    reload(&gateway, &home, "applied").await;
    until("it warns", async || gateway.log().contains("needs more open files")).await;
}

/// What the config takes at most.
const MOST_CONNECTIONS: u64 = 1_000_000;

#[tokio::test]
async fn many_signals_at_once_under_load_disturb_nobody() {
    let home = Home::embedded();
    let gateway = home.serve().await;
    let load = Load::start(gateway.edge);
    load.taken(50).await;
    for _ in 0..20 {
        gateway.sighup();
        gateway.sighup();
        load.taken(5).await;
    }
    until("they are heeded", async || reloads(&gateway, "applied").await >= 2.0).await;
    load.taken(50).await;
    let sent = load.finish().await;
    assert_each_once(&home.events(), &sent.all);
    assert_eq!(reloads(&gateway, "refused").await, 0.0);
}

#[tokio::test]
async fn a_signal_while_it_drains_changes_nothing() {
    let home = Home::embedded();
    let mut gateway = home.serve().await;
    let slow = Slow::begin(gateway.edge, &basiq("slow")).await;
    gateway.sigterm();
    until("the gateway is unready", async || !gateway.ready().await).await;
    let home = home.with_sources(basiq_source("new", ""));
    home.write_config();
    gateway.sighup();
    gateway.deliver(&basiq("late")).await.assert_accepted("late");
    gateway.sighup();
    assert_eq!(slow.end().await.1, 200);
    assert_eq!(gateway.exit().await.code(), Some(0));
    assert_eq!(home.events().len(), 2);
}

#[tokio::test]
async fn a_signal_while_it_starts_is_heeded_once_it_serves() {
    let home = Home::embedded()
        .with("edge.reuse_port", true)
        .with("edge.listen", format!("127.0.0.1:{}", free_port()));
    let mut first = home.serve().await;
    let second = home.start();
    second.says("waiting for it to drain").await;
    let home = home.with_sources(basiq_source("basiq", "") + &basiq_source("new", ""));
    home.write_config();
    second.sighup();
    first.sigterm();
    let second = second.listens().await;
    assert_eq!(first.exit().await.code(), Some(0));
    until("the reload is applied", async || reloads(&second, "applied").await >= 1.0).await;
    second.deliver(&basiq("a").to("/hooks/new")).await.assert_accepted("a");
}
