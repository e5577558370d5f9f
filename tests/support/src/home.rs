//! A folder with a config and a data folder. Gateways are started and commands run with it, as an operator does.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use serde_json::Value;
use tempfile::TempDir;

use super::delivery::{NEXT_SECRET, three_sources};
use super::{
    Gateway, Process, Redis, STANDARD_SECRET, Starting, blocking, eventually, hookgate, leaks, until,
};

/// Removed when dropped.
pub struct Home {
    folder: TempDir,
    settings: BTreeMap<String, Value>,
    /// The text of the config after the settings: the sources.
    rest: String,
    /// Whether the file has these settings and sources.
    written: AtomicBool,
    /// The log level of its gateways, unless it is the default.
    log: Option<&'static str>,
}

impl Home {
    /// Events go to the data folder. There are three sources, one for each kind of authentication.
    pub fn embedded() -> Home {
        Home::of(three_sources(&[STANDARD_SECRET])).listening().with("spool.enabled", false)
    }

    /// Events go to Redis.
    pub fn redis(redis: &Redis) -> Home {
        Home::redis_at(redis.url())
    }

    /// Events go to the Redis with this URL, or with these.
    pub fn redis_at(url: impl Into<Value>) -> Home {
        Home::embedded().with("dedupe.store", "redis").with("queue.kind", "redis").with("redis.url", url)
    }

    /// This config, on free ports. Its gateways log at trace level, so that a secret that can leak does.
    pub fn new(config: &str) -> Home {
        let home = Home { log: Some("trace"), ..Home::of(config.to_owned()).listening() };
        home.write_config();
        home
    }

    /// This config alone. Its gateways log at trace level, so that a secret that can leak does.
    pub fn exactly(config: &str) -> Home {
        let home = Home { log: Some("trace"), ..Home::of(config.to_owned()) };
        home.write_config();
        home
    }

    fn of(config: String) -> Home {
        Home {
            folder: tempfile::tempdir().unwrap(),
            settings: BTreeMap::new(),
            rest: config,
            written: AtomicBool::new(false),
            log: None,
        }
    }

    fn listening(self) -> Home {
        self.with("edge.listen", "127.0.0.1:0").with("admin.listen", "127.0.0.1:0")
    }

    /// Adds or replaces a setting.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Home {
        self.settings.insert(key.to_owned(), value.into());
        self.unwritten()
    }

    /// Removes a setting.
    pub fn without(mut self, key: &str) -> Home {
        self.settings.remove(key);
        self.unwritten()
    }

    /// Basiq may sign with either of its secrets.
    pub fn knowing_both_secrets(self) -> Home {
        self.with_sources(three_sources(&[STANDARD_SECRET, NEXT_SECRET]))
    }

    /// Replaces the sources.
    pub fn with_sources(self, sources: impl Into<String>) -> Home {
        Home { rest: sources.into(), ..self }.unwritten()
    }

    fn unwritten(self) -> Home {
        Home { written: AtomicBool::new(false), ..self }
    }

    /// A file or folder beside the config.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// Writes the config file, which a running gateway follows.
    pub fn write_config(&self) {
        // These JSON values are valid TOML too.
        let settings: String =
            self.settings.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        self.write("hookgate.toml", settings + &self.rest);
        self.written.store(true, Ordering::SeqCst);
    }

    /// A command with this config. The file is written first if settings have changed.
    pub fn command(&self, arguments: &[&str]) -> Command {
        if !self.written.load(Ordering::SeqCst) {
            self.write_config();
        }
        let mut command = self.bare(arguments);
        command.arg("--config").arg(self.path("hookgate.toml"));
        command
    }

    /// A command without a config. It runs in the folder.
    pub fn bare(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(hookgate());
        command.args(arguments).current_dir(self.folder.path());
        command.env_remove("HOOKGATE_CONFIG").env_remove("HOOKGATE_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(&mut self.command(arguments))
    }

    pub fn check_live(&self) -> Ran {
        self.run(&["check", "--live"])
    }

    /// The output of a command with `--json`, which must succeed.
    pub fn lines(&self, arguments: &[&str]) -> Vec<Value> {
        self.done(arguments).json()
    }

    fn done(&self, arguments: &[&str]) -> Ran {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.err);
        ran
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

    /// Starts a gateway without waiting for it.
    pub fn start(&self) -> Starting {
        let mut serve = self.command(&["serve", "--json"]);
        if let Some(level) = self.log {
            serve.env("HOOKGATE_LOG", level);
        }
        self.spawn(&mut serve)
    }

    /// The same by a [`Home::command`] of the test's own, such as one with another environment.
    pub fn start_command(&self, serve: &mut Command) -> Starting {
        self.spawn(serve)
    }

    /// The same under a limit, written as for `ulimit`: `-n 100` allows 100 open files.
    pub fn start_limited(&self, limit: &str) -> Starting {
        let gateway = self.command(&["serve", "--json"]);
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit {limit}; exec \"$0\" \"$@\"")]);
        command.arg(gateway.get_program()).args(gateway.get_args()).current_dir(self.folder.path());
        command.env_remove("HOOKGATE_LOG").stdin(Stdio::null()).stdout(Stdio::null());
        self.spawn(&mut command)
    }

    /// The same with these sockets, at most two, as systemd passes them.
    pub fn start_with_sockets(&self, sockets: impl IntoIterator<Item = OwnedFd>) -> Starting {
        let gateway = self.command(&["serve", "--json"]);
        let mut command = Command::new("sh");
        let mut sockets = sockets.into_iter();
        let [first, second] = [sockets.next(), sockets.next()];
        assert!(first.is_some() && sockets.next().is_none());
        let (redirect, count) = if second.is_some() { ("3<&0 4<&1", 2) } else { ("3<&0", 1) };
        // A shell that executes a program keeps its process id.
        let script = format!(
            "exec {redirect} </dev/null >/dev/null; LISTEN_PID=$$ LISTEN_FDS={count} exec \"$0\" \"$@\""
        );
        command.args(["-c", &script]).arg(gateway.get_program()).args(gateway.get_args());
        command.current_dir(self.folder.path()).env_remove("HOOKGATE_LOG");
        command.stdin(first.map_or_else(Stdio::null, Stdio::from));
        command.stdout(second.map_or_else(Stdio::null, Stdio::from));
        self.spawn(&mut command)
    }

    fn spawn(&self, serve: &mut Command) -> Starting {
        Starting::spawn(serve, self.path("data"))
    }

    /// Starts a gateway that must refuse to start. Returns its log.
    pub async fn refusal(&self) -> String {
        let mut process = Process::spawn(self.command(&["serve"]).stderr(Stdio::piped()));
        let ended = eventually("the gateway refuses to start", async || process.ended()).await;
        let mut said = String::new();
        process.stderr().read_to_string(&mut said).unwrap();
        assert_eq!(ended.code(), Some(1), "{said}");
        said
    }

    pub fn database(&self) -> PathBuf {
        self.path("data/hookgate.db")
    }

    /// Every event in the queue, in order.
    pub fn events(&self) -> Vec<Value> {
        self.lines(&["events", "tail", "--json"]).into_iter().map(|mut line| line["event"].take()).collect()
    }

    /// The same, byte for byte as the queue has them.
    pub fn raw_events(&self) -> Vec<String> {
        #[derive(serde::Deserialize)]
        struct Line<'a> {
            #[serde(borrow)]
            event: &'a serde_json::value::RawValue,
        }
        let event = |line: &str| serde_json::from_str::<Line<'_>>(line).unwrap().event.get().to_owned();
        self.done(&["events", "tail", "--json"]).out.lines().map(event).collect()
    }

    /// The reject log's records with this reason.
    pub fn records(&self, reason: &str) -> Vec<Value> {
        self.lines(&["audit", "query", "--reason", reason, "--json"])
    }

    /// The text of the reject log.
    pub fn audit(&self) -> String {
        audit(&self.path("data"))
    }

    /// The size of the reject log on disk.
    pub fn audit_bytes(&self) -> u64 {
        let files = fs::read_dir(self.path("data/audit")).unwrap();
        // The gateway may delete one meanwhile.
        files.filter_map(|file| Some(file.unwrap().metadata().ok()?.len())).sum()
    }
}

/// The text of the reject log in a data folder.
pub(crate) fn audit(data: &Path) -> String {
    let Ok(folder) = fs::read_dir(data.join("audit")) else { return String::new() };
    let mut files: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()
}

/// The result of a command.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(command: &mut Command) -> Ran {
        let mut process = Process::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let (out, err) = (read(process.stdout()), read(process.stderr()));
        let status = blocking::eventually("the command ends", || process.ended());
        let (out, err) = (out.join().unwrap(), err.join().unwrap());
        let what = format!("the output of {:?}", command.get_args().collect::<Vec<_>>());
        leaks::assert_none_in(&what, &out);
        leaks::assert_none_in(&what, &err);
        Ran { code: status.code().unwrap_or(-1), out, err }
    }

    /// Each line of standard output.
    pub fn lines(&self) -> Vec<&str> {
        self.out.lines().collect()
    }

    /// Each line of standard output as JSON.
    pub fn json(&self) -> Vec<Value> {
        let line = |line| serde_json::from_str(line).unwrap_or_else(|why| panic!("{why}: {line}\n{self:?}"));
        self.out.lines().map(line).collect()
    }
}

fn read(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    })
}
