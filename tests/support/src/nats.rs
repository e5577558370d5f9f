//! A NATS server with JetStream of a test's own, to be killed, frozen and restarted.

use std::process::{Command, Stdio};

use async_nats::ConnectOptions;
use async_nats::jetstream::{self, consumer, stream};
use tempfile::TempDir;

use super::process::{Process, free_port};
use super::{Taken, eventually, until};

pub struct Nats {
    /// None while it is down.
    process: Option<Process>,
    port: u16,
    folder: TempDir,
    /// The text of its config file.
    config: String,
    asks_for_login: bool,
}

impl Nats {
    pub async fn start() -> Nats {
        Nats::start_with("", false).await
    }

    /// With two users that share a password. The tests' own user has every permission, `gate` has these.
    pub async fn start_with_user(permissions: &str) -> Nats {
        let users = format!(
            "authorization {{ users = [ {{ user: tests, password: pass }}, \
             {{ user: gate, password: pass, permissions: {permissions} }} ] }}\n"
        );
        Nats::start_with(&users, true).await
    }

    async fn start_with(config: &str, asks_for_login: bool) -> Nats {
        let folder = tempfile::tempdir().unwrap();
        let mut nats = Nats { process: None, port: 0, folder, config: config.to_owned(), asks_for_login };
        eventually("a port for nats-server", async || {
            nats.port = free_port();
            nats.spawn().await.then_some(())
        })
        .await;
        nats
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// As the user of [`Nats::start_with_user`].
    pub fn url_of_gate(&self) -> String {
        format!("nats://gate:pass@127.0.0.1:{}", self.port)
    }

    pub fn kill9(&mut self) {
        self.process.take().unwrap().kill9();
    }

    /// Starts it again on the same port, with the same streams.
    pub async fn restart(&mut self) {
        assert!(self.spawn().await, "nats-server does not come back on port {}", self.port);
    }

    /// Freezes it: connections stay open, nothing is answered.
    pub fn pause(&self) {
        self.process.as_ref().unwrap().freeze();
    }

    pub fn resume(&self) {
        self.process.as_ref().unwrap().signal("CONT");
    }

    /// Makes a stream that takes these subjects.
    pub async fn create_stream(&self, name: &str, subjects: &[&str]) {
        let subjects = subjects.iter().map(|subject| (*subject).to_owned()).collect();
        self.create(stream::Config { name: name.to_owned(), subjects, ..Default::default() }).await;
    }

    pub async fn create(&self, config: stream::Config) {
        self.jetstream().await.create_stream(config).await.unwrap();
    }

    /// Makes a durable consumer of a stream.
    pub async fn create_consumer(&self, stream: &str, filter: &str) {
        let stream = self.jetstream().await.get_stream(stream).await.unwrap();
        let (durable_name, filter_subject) = (Some("reader".to_owned()), filter.to_owned());
        let config = consumer::pull::Config { durable_name, filter_subject, ..Default::default() };
        stream.create_consumer(config).await.unwrap();
    }

    pub async fn delete_stream(&self, name: &str) {
        self.jetstream().await.delete_stream(name).await.unwrap();
    }

    /// All messages of a stream, in order.
    pub async fn messages(&self, stream: &str) -> Vec<Taken> {
        let mut stream = self.jetstream().await.get_stream(stream).await.unwrap();
        let state = stream.info().await.unwrap().state.clone();
        let mut messages = Vec::new();
        for sequence in state.first_sequence.max(1)..=state.last_sequence {
            let message = stream.get_raw_message(sequence).await.unwrap();
            let headers = message.headers.iter().filter_map(|(name, values)| {
                Some((name.to_string().to_lowercase(), values.first()?.to_string()))
            });
            let mut taken = Taken {
                id: String::new(),
                name: message.subject.to_string(),
                headers: headers.collect(),
                body: String::from_utf8(message.payload.to_vec()).unwrap(),
            };
            taken.id = taken.header("nats-msg-id").to_owned();
            messages.push(taken);
        }
        messages
    }

    /// Starts it. Returns false if another process has its port.
    async fn spawn(&mut self) -> bool {
        let mut command = Command::new("nats-server");
        command.args(["--addr", "127.0.0.1", "--port", &self.port.to_string(), "--jetstream"]);
        let config = self.folder.path().join("nats.conf");
        std::fs::write(&config, &self.config).unwrap();
        command.arg("--config").arg(config);
        command.arg("--store_dir").arg(self.folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Process::spawn(&mut command);
        let mut gone = false;
        until("nats-server answers", async || {
            gone = process.ended().is_some();
            gone || self.answers().await
        })
        .await;
        self.process = Some(process);
        !gone
    }

    async fn answers(&self) -> bool {
        match self.client().await {
            Ok(client) => client.request("$JS.API.INFO", Default::default()).await.is_ok(),
            Err(_) => false,
        }
    }

    async fn jetstream(&self) -> jetstream::Context {
        jetstream::new(self.client().await.unwrap())
    }

    /// The client library does not read a login from a URL.
    async fn client(&self) -> Result<async_nats::Client, async_nats::ConnectError> {
        let options = match self.asks_for_login {
            true => ConnectOptions::with_user_and_password("tests".to_owned(), "pass".to_owned()),
            false => ConnectOptions::new(),
        };
        options.connect(format!("nats://127.0.0.1:{}", self.port)).await
    }
}
