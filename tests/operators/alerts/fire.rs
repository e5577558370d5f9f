//! The alerts fire for real: gateways with faults, and a Prometheus that scrapes them and evaluates `rules.yml`. The test shortens
//! the windows, `for`, and the thresholds that are times. It changes nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use support::providers::{Basiq, Fault};
use support::*;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{RULES, alerts, read};

/// A Prometheus. Gone when dropped.
struct Prometheus {
    _process: Process,
    at: SocketAddr,
    folder: TempDir,
}

impl Prometheus {
    async fn start(rules: &str) -> Prometheus {
        let folder = tempfile::tempdir().unwrap();
        let config = read("deploy/prometheus/prometheus.yml").replace("15s", "1s");
        let (jobs, _) = config.split_once("    authorization:").unwrap();
        let found = "    file_sd_configs:\n      - files: [targets.json]\n";
        fs::write(folder.path().join("prometheus.yml"), format!("{jobs}{found}")).unwrap();
        fs::write(folder.path().join("rules.yml"), rules).unwrap();
        fs::write(folder.path().join("targets.json"), "[]").unwrap();
        let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--web.listen-address={at}"))
            .args(["--log.level=warn", "--config.file=prometheus.yml"]);
        command.args(["--storage.tsdb.path=data"]).current_dir(folder.path());
        let process = Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
        let prometheus = Prometheus { _process: process, at, folder };
        until("Prometheus is ready", async || prometheus.get("/-/ready").await.starts_with("HTTP/1.0 200"))
            .await;
        prometheus
    }

    /// HTTP/1.0, so that the answer comes in one piece.
    async fn get(&self, path: &str) -> String {
        let Ok(mut stream) = TcpStream::connect(self.at).await else { return String::new() };
        let mut answer = String::new();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// The result of a query: each series' labels and value.
    async fn query(&self, query: &str) -> Vec<(Value, f64)> {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let answer = self.get(&format!("/api/v1/query?query={encoded}")).await;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let mut body: Value = serde_json::from_str(body).unwrap();
        let Value::Array(result) = body["data"]["result"].take() else { panic!("{query}: {body}") };
        let sample =
            |series: Value| (series["metric"].clone(), series["value"][1].as_str().unwrap().parse().unwrap());
        result.into_iter().map(sample).collect()
    }

    /// The alerts that fire, or did.
    async fn fired(&self) -> BTreeSet<String> {
        let alerts =
            self.query("count by (alertname) (count_over_time(ALERTS{alertstate=\"firing\"}[10m]))").await;
        alerts.into_iter().map(|(labels, _)| labels["alertname"].as_str().unwrap().to_owned()).collect()
    }

    /// Scrapes these from now on.
    fn scrape(&self, gateways: &[&Gateway]) {
        let targets: Vec<String> = gateways.iter().map(|gateway| gateway.admin.to_string()).collect();
        fs::write(self.folder.path().join("next"), json!([{ "targets": targets }]).to_string()).unwrap();
        fs::rename(self.folder.path().join("next"), self.folder.path().join("targets.json")).unwrap();
    }
}

/// `rules.yml` with windows of ten seconds.
fn shortened() -> String {
    let mut rules = String::new();
    for line in read(RULES).replace(" offset 7d", " offset 10s").lines() {
        if line.starts_with("        for: ") {
            rules += "        for: 1s\n";
            continue;
        }
        let mut parts = line.split('[');
        rules += parts.next().unwrap();
        for part in parts {
            match part.split_once(']') {
                Some((window, after)) if window.starts_with(|c: char| c.is_ascii_digit()) => {
                    rules += &format!("[10s]{after}");
                }
                _ => rules += &format!("[{part}"),
            }
        }
        rules += "\n";
    }
    for (long, short) in [
        ("timestamp_seconds[10s])) > 86400", "timestamp_seconds[10s])) > 15"),
        (
            "hookgate_consumer_group_oldest_age_seconds) > 3600",
            "hookgate_consumer_group_oldest_age_seconds) > 5",
        ),
        ("hookgate_spool_oldest_age_seconds > 600", "hookgate_spool_oldest_age_seconds > 5"),
        ("success_timestamp_seconds) > 21600", "success_timestamp_seconds) > 10"),
        ("process_start_time_seconds < 86400", "process_start_time_seconds < 10"),
        ("process_start_time_seconds < 3600", "process_start_time_seconds < 10"),
        ("process_start_time_seconds < 900", "process_start_time_seconds < 10"),
        ("process_start_time_seconds < 600", "process_start_time_seconds < 30"),
    ] {
        assert!(rules.contains(long), "{long}");
        rules = rules.replace(long, short);
    }
    rules
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_alert_fires_for_its_fault_and_none_without() {
    let expected: BTreeSet<String> = alerts().map(|alert| alert.name).collect();
    let prometheus = Prometheus::start(&shortened()).await;
    let gone = BTreeSet::from(["HookgateGone".to_owned()]);
    until("it misses its gateways", async || prometheus.fired().await == gone).await;

    // A gateway that does well, for fifteen scrapes.
    let redis = Redis::start(Persistence::Always).await;
    let busy = Home::redis(&redis).with("spool.enabled", true).with_sources(BUSY);
    let gateway = busy.serve().await;
    let mut number = 0;
    well(&gateway, number).await;
    prometheus.scrape(&[&gateway]);
    let scraped =
        async || prometheus.query("count_over_time(up[10m])").await.iter().any(|(_, count)| *count >= 15.0);
    meanwhile("fifteen scrapes", scraped, async || {
        number += 1;
        well(&gateway, number).await;
    })
    .await;
    assert_eq!(prometheus.fired().await, gone, "nothing is wrong");

    let full = Full::start().await;
    let (_home, dead) = cut_off().await;
    let (api, _home, subscribed) = subscribed().await;
    prometheus.scrape(&[&gateway, &full.gateway, &dead, &subscribed]);
    let reconciled = "hookgate_reconcile_last_success_timestamp_seconds";
    until("it is scraped", async || !prometheus.query(reconciled).await.is_empty()).await;
    // The gateway finds the event, and cannot ask when it happened.
    api.fail_when(|call| {
        let (method, path) = call.target();
        (method == "GET" && path.contains("/messages/")).then_some(Fault::Status(422))
    });
    api.emit("user.created", json!({}));
    let (_home, restarted) = restarted().await;
    prometheus.scrape(&[&gateway, &full.gateway, &dead, &subscribed, &restarted]);
    busy.write("hookgate.toml", "[edge]\nlisten = 1\n");

    let (mut api, mut restarted) = (Some(api), Some(restarted));
    let missing = Missing(Mutex::new(expected.clone()));
    let all_fired = async || {
        let fired = prometheus.fired().await;
        *missing.0.lock().unwrap() = expected.symmetric_difference(&fired).cloned().collect();
        expected == fired
    };
    meanwhile("every alert", all_fired, async || {
        number += 1;
        badly(&gateway, number).await;
        full.deliver(number).await;
        // What has been seen goes away, for the next alert.
        let fired = prometheus.fired().await;
        let all = |names: &[&str]| names.iter().all(|name| fired.contains(*name));
        match &api {
            Some(_) if all(&["HookgateReconcileFound", "HookgateSubscriptionDrift"]) => api = None,
            Some(api) if all(&["HookgateReconcileFails"]) => api.heal(),
            _ => {}
        }
        let quiet = "ALERTS{alertname=\"HookgateSourceSilent\",alertstate=\"firing\",source=\"quiet\"}";
        if all(&["HookgateRejectLogFails", "HookgateCertificateExpires", "HookgateCertificateExpiresSoon"])
            && !prometheus.query(quiet).await.is_empty()
        {
            restarted = None;
        }
    })
    .await;
    drop((api, restarted));
}

/// Alerts that have not fired, or should not have. Told when the test fails.
struct Missing(Mutex<BTreeSet<String>>);

impl Drop for Missing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- not as expected: {:?}", self.0.lock());
        }
    }
}

/// Does a piece of work again and again until a condition holds. On a busy machine that takes longer than `until` waits: the
/// alerts need minutes of evaluations a second apart.
async fn meanwhile(what: &str, holds: impl AsyncFn() -> bool, mut work: impl AsyncFnMut()) {
    let mut pace = tokio::time::interval(Duration::from_millis(300));
    let mut look = tokio::time::interval(Duration::from_millis(500));
    let holds = async {
        while !holds().await {
            look.tick().await;
        }
    };
    within(LIMIT, what, async {
        tokio::select! {
            () = async { loop { pace.tick().await; work().await; } } => {}
            () = holds => {}
        }
    })
    .await;
}

/// What a provider does that is well.
async fn well(gateway: &Gateway, number: u32) {
    gateway.deliver(&basiq(&format!("a{number}"))).await.taken();
    gateway.deliver(&basiq_by_another_secret(&format!("b{number}"))).await.taken();
    gateway.deliver(&standard("/hooks/signed", &basiq_body(&format!("c{number}")), now())).await.taken();
    gateway.deliver(&standard("/hooks/limited", &basiq_body(&format!("d{number}")), now())).await.taken();
    gateway.deliver(&securitize("/hooks/securitize", "s", number)).await.taken();
}

/// What providers and others do that is not.
async fn badly(gateway: &Gateway, number: u32) {
    let mut requests: Vec<Request> =
        (0..9).map(|n| basiq_signed_at(&format!("skewed{number}.{n}"), 60)).collect();
    requests.extend(["one", "other"].map(|user| basiq_about(&format!("conflict{number}"), user)));
    requests.push(basiq_unreadable(&format!("no JSON {number}")));
    let unknown = basiq_body(&format!("drift{number}")).replacen('{', &format!("{{\"field{number}\":1,"), 1);
    requests.push(standard("/hooks/basiq", &unknown, now()));
    requests.push(securitize("/hooks/securitize", "s", number * 10));
    for n in 0..4 {
        let mut changed = standard("/hooks/signed", &basiq_body(&format!("forged{n}")), now());
        changed.body.push(b' ');
        requests.extend([changed, Request::post("/hooks/securitize/no-such-token", "{}")]);
    }
    requests
        .extend((0..30).map(|n| standard("/hooks/limited", &basiq_body(&format!("l{number}.{n}")), now())));
    let mut client = Client::connect(gateway.edge).await.unwrap();
    for request in &requests {
        client.deliver(request).await.unwrap();
    }
    flood(gateway).await;
}

/// More refusals of one kind than the log writes in a second (100), all at once, so that they fall into one second.
async fn flood(gateway: &Gateway) {
    let request =
        |end: &str| format!("POST /hooks/signed HTTP/1.1\r\nHost: it\r\n{end}Content-Length: 2\r\n\r\n{{}}");
    let all = request("").repeat(250) + &request("Connection: close\r\n");
    let mut stream = TcpStream::connect(gateway.edge).await.unwrap();
    let (mut answers, mut requests) = stream.split();
    let mut said = Vec::new();
    tokio::try_join!(requests.write_all(all.as_bytes()), answers.read_to_end(&mut said)).unwrap();
}

/// A gateway whose stream and spool are full. Its Redis keeps nothing over a restart.
struct Full {
    _redis: Redis,
    _home: Home,
    gateway: Gateway,
}

impl Full {
    async fn start() -> Full {
        let redis = Redis::start(Persistence::Off).await;
        let () = redis.run(&["XGROUP", "CREATE", "full", "unread", "0", "MKSTREAM"]).await;
        let home = Home::redis(&redis).with("queue.max_backlog", 20).with("spool.enabled", true);
        let home = home.with("spool.max_bytes", "16KiB").with("queue.name", "full").with_sources(FULL);
        let gateway = home.serve().await;
        Full { _redis: redis, _home: home, gateway }
    }

    async fn deliver(&self, number: u32) {
        self.gateway.deliver(&standard("/hooks/observed", &basiq_body(&format!("o{number}")), now())).await;
        for n in 0..6 {
            let event = standard("/hooks/full", &basiq_body(&format!("f{number}.{n}")), now());
            self.gateway.deliver(&event).await;
        }
    }
}

/// A gateway with a dead letter, whose Redis is gone.
async fn cut_off() -> (Home, Gateway) {
    let mut redis = Redis::start(Persistence::Always).await;
    let _: String = redis.run(&["CONFIG", "SET", "proto-max-bulk-len", "1mb"]).await;
    let home = Home::redis(&redis).with("spool.enabled", true).with("edge.max_body", "4MiB");
    let home = home.with_sources(source("dead"));
    let gateway = home.serve().await;
    let long = basiq_body("long").replace("user-1", &"x".repeat(1_500_000));
    gateway.deliver(&standard("/hooks/dead", &long, now())).await.taken();
    until("it is dead", async || gateway.metric("hookgate_spool_dead_events").await == 1.0).await;
    redis.stop().await;
    (home, gateway)
}

/// A gateway that was restarted after an event, with a certificate that is about to expire and without its reject log.
async fn restarted() -> (Home, Gateway) {
    let home = Home::embedded().with_sources(source("quiet"));
    let mut before = home.serve().await;
    before.deliver(&standard("/hooks/quiet", &basiq_body("last"), now())).await.taken();
    before.deliver(&Request::post("/hooks/quiet", "{}")).await;
    until("there is a record", async || before.metric("hookgate_audit_records_total").await == 1.0).await;
    before.sigterm();
    assert!(before.exit().await.success());
    fs::remove_dir_all(home.path("data/audit")).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["hooks.example.com".to_owned()]).unwrap();
    params.not_after = (std::time::UNIX_EPOCH + Duration::from_secs(support::now() as u64 + 86_400)).into();
    home.write("edge.pem", params.self_signed(&key).unwrap().pem());
    home.write("edge.key", key.serialize_pem());
    let home = home.with("edge.tls.certificate", "edge.pem").with("edge.tls.private_key", "edge.key");
    let gateway = home.serve().await;
    (home, gateway)
}

/// A gateway that its provider cannot reach, and asks it every second for what it could not deliver.
async fn subscribed() -> (Basiq, Home, Gateway) {
    let api = Basiq::start();
    let home = Home::embedded().with("subscriptions.check", "1s").with_sources(format!(
        "[sources.it]\nprovider = \"basiq\"\nsecrets = [{{ file = \"it.secret\" }}]\n[sources.it.subscription]\n\
         url = \"http://127.0.0.1:{}/hooks/it\"\nevents = [\"user.created\"]\nsecret_file = \"it.secret\"\n\
         api = {{ base = {:?}, key = {:?} }}\n[sources.it.reconcile]\nevery = \"1s\"\nlookback = \"1h\"\n",
        free_port(),
        api.url(),
        Basiq::KEY,
    ));
    let ran = home.run(&["subscriptions", "apply"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let gateway = home.serve().await;
    let success = "hookgate_reconcile_last_success_timestamp_seconds{source=\"it\"}";
    until("it has reconciled", async || gateway.metric(success).await > 0.0).await;
    (api, home, gateway)
}

/// A source of Basiq.
fn source(name: &str) -> String {
    format!("[sources.{name}]\nprovider = \"basiq\"\nsecrets = [{STANDARD_SECRET:?}]\n")
}

const LIMIT: Duration = Duration::from_secs(180);
const BUSY: &str = "[sources.basiq]\nprovider = \"basiq\"\n\
    secrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\", \"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\"]\n\
    [sources.signed]\nprovider = \"basiq\"\nsecrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]\n\
    [sources.limited]\nprovider = \"basiq\"\nsecrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]\n\
    rate_limit = { per_second = 8, burst = 10 }\n\
    [sources.securitize]\nprovider = \"securitize\"\npath_token = \"9c2e3b7d5f5e4c0fa0f6\"\n";
const FULL: &str = "[sources.full]\nprovider = \"basiq\"\nsecrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]\n\
    [sources.observed]\nprovider = \"basiq\"\nsecrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]\n\
    allow_ips = [\"192.0.2.0/24\"]\nobserve = [\"client_not_allowed\"]\nobserve_until = \"2999-01-01\"\n";
