//! The gateway as its operator runs it: the binary, a config file, a data folder, signals.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;

use super::delivery::sources;
use super::process::Process;
use super::{Answer, Client, Delivery, Redis, eventually, hookgate, until};

/// A config and a data folder; gateways come and go on it.
pub struct Home {
    folder: TempDir,
    settings: BTreeMap<String, Value>,
    both_secrets: bool,
    sources: Option<String>,
}

/// A gateway that runs. Killed when dropped.
pub struct Gateway {
    process: Process,
    /// Where it takes deliveries.
    pub edge: SocketAddr,
    /// Where it tells of itself.
    pub admin: SocketAddr,
    log: Log,
}

/// A gateway that may still have to wait for something before it listens.
pub struct Starting {
    process: Process,
    log: Log,
}

/// The lines on its standard error so far.
type Log = Arc<Mutex<Vec<String>>>;

impl Home {
    /// Events go to the data folder.
    pub fn embedded() -> Home {
        let home = Home {
            folder: tempfile::tempdir().unwrap(),
            settings: BTreeMap::new(),
            both_secrets: false,
            sources: None,
        };
        home.with("edge.listen", "127.0.0.1:0")
            .with("admin.listen", "127.0.0.1:0")
            .with("spool.enabled", false)
    }

    /// Events go to Redis.
    pub fn redis(redis: &Redis) -> Home {
        Home::redis_at(redis.url())
    }

    /// Events go to the Redis with this URL, or these.
    pub fn redis_at(url: impl Into<Value>) -> Home {
        Home::embedded().with("dedupe.store", "redis").with("queue.kind", "redis").with("redis.url", url)
    }

    /// One setting more, or another value for it.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Home {
        self.settings.insert(key.to_owned(), value.into());
        self
    }

    /// One setting less.
    pub fn without(mut self, key: &str) -> Home {
        self.settings.remove(key);
        self
    }

    /// Basiq may sign with either of its secrets.
    pub fn knowing_both_secrets(mut self) -> Home {
        self.both_secrets = true;
        self
    }

    /// These sources and no other.
    pub fn with_sources(mut self, sources: impl Into<String>) -> Home {
        self.sources = Some(sources.into());
        self
    }

    /// A file or folder beside the config.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes the config, under a gateway that runs or for the next one.
    pub fn write_config(&self) {
        // What is a value in JSON is one in TOML too.
        let settings: String =
            self.settings.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        let sources = self.sources.clone().unwrap_or_else(|| sources(self.both_secrets));
        fs::write(self.path("hookgate.toml"), settings + &sources).unwrap();
    }

    /// `check --live`: its exit code, and what it prints.
    pub fn check_live(&self) -> (Option<i32>, String) {
        let mut command = self.command(&["check", "--live"]);
        let output = command.stdout(Stdio::piped()).stderr(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    }

    /// The embedded store's file.
    pub fn database(&self) -> PathBuf {
        self.folder.path().join("data/hookgate.db")
    }

    /// What the reject log takes on disk.
    pub fn audit_bytes(&self) -> u64 {
        let files = fs::read_dir(self.folder.path().join("data/audit")).unwrap();
        // One may go in the middle of it.
        files.filter_map(|file| Some(file.unwrap().metadata().ok()?.len())).sum()
    }

    /// Starts a gateway and waits until it is ready.
    pub async fn serve(&self) -> Gateway {
        let gateway = self.serve_unready().await;
        until("the gateway is ready", async || gateway.ready().await).await;
        gateway
    }

    /// Starts a gateway and waits until it listens.
    pub async fn serve_unready(&self) -> Gateway {
        self.start().listens().await
    }

    /// Starts a gateway and waits for nothing.
    pub fn start(&self) -> Starting {
        let mut process = Process::spawn(self.command(&["serve", "--json"]).stderr(Stdio::piped()));
        let (log, stderr) = (Log::default(), process.stderr());
        let kept = log.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                kept.lock().unwrap().push(line.unwrap());
            }
        });
        Starting { process, log }
    }

    /// Starts a gateway that is to refuse its start, and gives what it says.
    pub async fn refusal(&self) -> String {
        let mut process = Process::spawn(self.command(&["serve"]).stderr(Stdio::piped()));
        let ended = eventually("the gateway refuses to start", async || process.ended()).await;
        let mut said = String::new();
        process.stderr().read_to_string(&mut said).unwrap();
        assert_eq!(ended.code(), Some(1), "{said}");
        said
    }

    /// Every event in the queue, in its order.
    pub fn events(&self) -> Vec<Value> {
        self.lines(&["events", "tail", "--json"]).into_iter().map(|mut line| line["event"].take()).collect()
    }

    /// The same, each as it stands in the queue.
    pub fn raw_events(&self) -> Vec<String> {
        #[derive(serde::Deserialize)]
        struct Line<'a> {
            #[serde(borrow)]
            event: &'a serde_json::value::RawValue,
        }
        let event = |line: &String| serde_json::from_str::<Line<'_>>(line).unwrap().event.get().to_owned();
        self.printed(&["events", "tail", "--json"]).iter().map(event).collect()
    }

    /// The reject log's records with this reason.
    pub fn records(&self, reason: &str) -> Vec<Value> {
        self.lines(&["audit", "query", "--reason", reason, "--json"])
    }

    /// What a command prints with `--json`.
    pub fn lines(&self, arguments: &[&str]) -> Vec<Value> {
        self.printed(arguments).iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn printed(&self, arguments: &[&str]) -> Vec<String> {
        let output = self.command(arguments).stdout(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    /// A command on this config.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.write_config();
        let config = self.path("hookgate.toml");
        let mut command = Command::new(hookgate());
        command.env_remove("HOOKGATE_LOG").arg("--config").arg(config).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }
}

impl Starting {
    /// Waits until it says something.
    pub async fn says(&self, what: &str) {
        until(what, async || self.log.lock().unwrap().iter().any(|line| line.contains(what))).await;
    }

    /// Asks it to read its config anew.
    pub fn sighup(&self) {
        self.process.signal("HUP");
    }

    /// Waits until it listens.
    pub async fn listens(self) -> Gateway {
        match self.listens_or_ends().await {
            Ok(gateway) => gateway,
            Err(said) => panic!("{said}"),
        }
    }

    /// Waits until it listens, or else ends: then what it said.
    pub async fn listens_or_ends(mut self) -> Result<Gateway, String> {
        let found = eventually("the gateway listens", async || {
            let log = self.log.lock().unwrap();
            if let Some(ended) = self.process.ended() {
                return Some(Err(format!("{ended:?}\n{}", log.join("\n"))));
            }
            Some(Ok((address(&log, "serving")?, address(&log, "metrics and health")?)))
        })
        .await;
        found.map(|(edge, admin)| Gateway { process: self.process, edge, admin, log: self.log })
    }
}

impl Gateway {
    /// Delivers on a connection of its own.
    pub async fn deliver(&self, delivery: &Delivery) -> Answer {
        let mut client = Client::connect(self.edge).await.unwrap();
        client.deliver(delivery).await.unwrap()
    }

    pub async fn admin(&self, path: &str) -> Answer {
        Client::connect(self.admin).await.unwrap().get(path).await.unwrap()
    }

    pub async fn ready(&self) -> bool {
        self.admin("/readyz").await.status == 200
    }

    /// What `/readyz` says, and fails unless its status agrees with it.
    pub async fn readiness(&self) -> Value {
        let answer = self.admin("/readyz").await;
        let report = answer.json();
        assert_eq!(answer.status == 200, report["ready"] == true, "{answer:?}");
        report
    }

    /// The series of `/metrics` that begins like this, 0 if there is none.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.admin("/metrics").await.body;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or(0.0)
    }

    /// What it has said so far on its standard error.
    pub fn said(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// The id of its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Ends it in the middle of whatever it does.
    pub fn kill9(mut self) {
        self.process.kill9();
    }

    /// Freezes it.
    pub fn pause(&self) {
        self.process.freeze();
    }

    pub fn resume(&self) {
        self.process.signal("CONT");
    }

    /// Asks it to end.
    pub fn sigterm(&self) {
        self.process.signal("TERM");
    }

    /// Asks it to read its config anew.
    pub fn sighup(&self) {
        self.process.signal("HUP");
    }

    /// Waits for its end.
    pub async fn exit(&mut self) -> ExitStatus {
        eventually("the gateway ends", async || self.process.ended()).await
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the gateway said\n{}", self.log.lock().unwrap().join("\n"));
        }
    }
}

/// The address in the log line with this message.
fn address(log: &[String], message: &str) -> Option<SocketAddr> {
    let line = log
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|line| line["message"] == message)?;
    line["address"].as_str()?.split_once("://")?.1.parse().ok()
}
