//! A Redis server of a test's own, to be stopped, killed, frozen and restarted.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use redis::{Cmd, FromRedisValue};
use tempfile::TempDir;

use super::process::{Process, free_port};
use super::{eventually, until};

pub struct Redis {
    /// None while it is down.
    process: Option<Process>,
    port: u16,
    folder: TempDir,
    persistence: Persistence,
    options: Vec<String>,
}

/// The data that survives a restart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// Nothing.
    Off,
    /// Every write that was answered.
    Always,
}

impl Redis {
    pub async fn start(persistence: Persistence) -> Redis {
        Redis::start_with(persistence, &[]).await
    }

    pub async fn start_with(persistence: Persistence, options: &[&str]) -> Redis {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let folder = tempfile::tempdir().unwrap();
        let mut redis = Redis { process: None, port: 0, folder, persistence, options };
        eventually("a port for redis-server", async || {
            redis.port = free_port();
            redis.spawn().await.then_some(())
        })
        .await;
        redis
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub async fn stop(&mut self) {
        let mut process = self.process.take().unwrap();
        process.signal("TERM");
        until("redis-server ends", async || process.ended().is_some()).await;
    }

    pub fn kill9(&mut self) {
        self.process.take().unwrap().kill9();
    }

    /// Starts it again on the same port, with the same data.
    pub async fn restart(&mut self) {
        assert!(self.spawn().await, "redis-server does not come back on port {}", self.port);
    }

    /// Freezes it: connections stay open, nothing is answered.
    pub fn pause(&self) {
        self.process.as_ref().unwrap().freeze();
    }

    pub fn resume(&self) {
        self.process.as_ref().unwrap().signal("CONT");
    }

    pub async fn run<T: FromRedisValue>(&self, command: &[&str]) -> T {
        self.try_run(command).await.unwrap()
    }

    /// The number of remembered identities.
    pub async fn remembered(&self) -> usize {
        self.run::<Vec<String>>(&["KEYS", "*:seen:*"]).await.len()
    }

    /// Starts it. Returns false if another process has its port.
    async fn spawn(&mut self) -> bool {
        let appendonly = if self.persistence == Persistence::Always { "yes" } else { "no" };
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
        command.args(["--appendonly", appendonly, "--appendfsync", "always"]).args(&self.options);
        command.arg("--dir").arg(self.folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut process = Process::spawn(&mut command);
        let (ours, mut gone) = (format!("process_id:{}\r\n", process.id()), false);
        until("redis-server answers", async || {
            gone = process.ended().is_some();
            gone || self.try_run::<String>(&["INFO", "server"]).await.is_ok_and(|info| info.contains(&ours))
        })
        .await;
        self.process = Some(process);
        !gone
    }

    pub async fn try_run<T: FromRedisValue>(&self, command: &[&str]) -> redis::RedisResult<T> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut cmd = Cmd::new();
        for word in command {
            cmd.arg(*word);
        }
        cmd.query_async(&mut connection).await
    }
}
