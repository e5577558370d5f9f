//! The gateway as its operator runs it: a folder with a config, commands, a process that serves.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::{fs, thread};

use serde_json::Value;
use tempfile::TempDir;

use super::{Answer, Connection, Metrics, Request, eventually, until};

/// A folder with a config. Removed when dropped.
pub struct Home(TempDir);

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Home {
    /// A config that listens on free ports, and this.
    pub fn new(config: &str) -> Home {
        Home::exactly(&format!("edge.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\n{config}"))
    }

    /// This config.
    pub fn exactly(config: &str) -> Home {
        let home = Home(tempfile::tempdir().unwrap());
        home.write("hookgate.toml", config);
        home
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    /// A command with this config.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.bare(arguments);
        command.arg("--config").arg(self.path("hookgate.toml"));
        command
    }

    /// A command with no config, run in the folder.
    pub fn bare(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(crate::hookgate());
        command.args(arguments).current_dir(self.0.path());
        command.env_remove("HOOKGATE_CONFIG").env_remove("HOOKGATE_LOG").stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(&mut self.command(arguments))
    }

    /// Serves with a log so verbose that whatever could leak does.
    pub fn serve(&self) -> Served {
        Served::start(self.command(&["serve", "--json"]).env("HOOKGATE_LOG", "trace"), &self.path("data"))
    }

    /// Serves under a limit of its open files, which is told as to `ulimit`: `-n 100`.
    pub fn serve_limited(&self, limit: &str) -> Served {
        let gateway = self.command(&["serve", "--json"]);
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit {limit}; exec \"$0\" \"$@\"")]);
        command.arg(gateway.get_program()).args(gateway.get_args()).current_dir(self.0.path());
        command.env_remove("HOOKGATE_LOG").stdin(Stdio::null());
        Served::start(&mut command, &self.path("data"))
    }

    /// The reject log as it is on disk.
    pub fn audit(&self) -> String {
        audit(&self.path("data"))
    }

    /// The events in the queue, oldest first.
    pub fn events(&self) -> Vec<Value> {
        self.run(&["events", "tail", "--json"])
            .json()
            .into_iter()
            .map(|mut line| line["event"].take())
            .collect()
    }
}

impl Ran {
    /// Runs a command to its end.
    pub fn of(command: &mut Command) -> Ran {
        let mut process = Process::spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let out = read(process.0.stdout.take().unwrap());
        let err = read(process.0.stderr.take().unwrap());
        let status = eventually("the command ends", || process.0.try_wait().unwrap());
        let (out, err) = (out.join().unwrap(), err.join().unwrap());
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

/// A gateway that serves. Killed when dropped.
pub struct Served {
    process: Process,
    pub edge: SocketAddr,
    pub admin: SocketAddr,
    data: PathBuf,
    log: Log,
    /// Told to stop, the log's reader closes its end.
    deaf: Arc<AtomicBool>,
}

type Log = Arc<Mutex<String>>;

impl Served {
    fn start(command: &mut Command, data: &Path) -> Served {
        let mut process = Process::spawn(command.stdout(Stdio::null()).stderr(Stdio::piped()));
        let stderr = process.0.stderr.take().unwrap();
        let log = Log::default();
        let deaf = Arc::<AtomicBool>::default();
        let (lines, done) = (log.clone(), deaf.clone());
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                if done.load(Ordering::SeqCst) {
                    break;
                }
                *lines.lock().unwrap() += &(line.unwrap() + "\n");
            }
            done.store(false, Ordering::SeqCst);
        });
        let (edge, admin) = eventually("the gateway serves", || {
            let ended = process.0.try_wait().unwrap();
            let log = log.lock().unwrap();
            assert!(ended.is_none(), "{ended:?}: {log}");
            Some((address(&log, "serving")?, address(&log, "metrics and health")?))
        });
        Served { process, edge, admin, data: data.to_owned(), log, deaf }
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.process.0.id()
    }

    pub fn connect(&self) -> Connection {
        Connection::open(self.edge)
    }

    /// Sends a request on a connection of its own.
    pub fn ask(&self, request: &Request) -> Answer {
        self.connect().ask(request)
    }

    pub fn admin(&self, path: &str) -> Answer {
        Connection::open(self.admin).ask(&Request::get(path))
    }

    pub fn metrics(&self) -> Metrics {
        Metrics::read(&self.admin("/metrics").text())
    }

    /// The record of a refusal that was answered, once it is written.
    pub fn record_of(&self, answer: &Answer) -> Value {
        let id = answer.json()["reject"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned();
        eventually("the refusal is recorded", || {
            self.records().into_iter().find(|record| record["id"] == *id)
        })
    }

    /// Every record that is written.
    pub fn records(&self) -> Vec<Value> {
        let text = audit(&self.data);
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Every line logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Closes the other end of its standard error.
    pub fn stop_reading_the_log(&mut self) {
        self.deaf.store(true, Ordering::SeqCst);
        // The reader notices at the next line, and a refusal makes one.
        until("nobody reads the log", || {
            self.ask(&Request::get("/nothing"));
            !self.deaf.load(Ordering::SeqCst)
        });
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        // What every POSIX shell has built in; the crate has no other use for sending signals.
        let kill = format!("kill -s {name} {}", self.process.0.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success(), "{kill}");
    }

    /// Drains it; gives its exit code and all that it logged.
    pub fn stop(mut self) -> (i32, String) {
        self.signal("TERM");
        let status = eventually("the gateway stops", || self.process.0.try_wait().unwrap());
        (status.code().unwrap_or(-1), self.log())
    }
}

/// A child process, killed when dropped.
pub struct Process(pub Child);

impl Process {
    pub fn spawn(command: &mut Command) -> Process {
        Process(command.spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    })
}

fn address(log: &str, message: &str) -> Option<SocketAddr> {
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let said = lines.into_iter().find(|line| line["message"] == message)?;
    Some(said["address"].as_str().unwrap().split_once("://").unwrap().1.parse().unwrap())
}

fn audit(data: &Path) -> String {
    let Ok(folder) = fs::read_dir(data.join("audit")) else { return String::new() };
    let mut files: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()
}
