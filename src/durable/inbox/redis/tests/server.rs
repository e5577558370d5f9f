//! A Redis server for one test, on a free port and with a temporary folder. Drop ends it by its process id.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis::{Cmd, FromRedisValue};

use crate::config::secret::Secret;
use crate::durable::inbox::redis::{Kind, Servers};

pub(in crate::durable::inbox) struct Server {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Server {
    pub(in crate::durable::inbox) async fn start(extra: &[&str]) -> Server {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let child = spawn(port, &folder, extra);
        let server = Server { child, port, folder };
        server.answers().await;
        server
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    pub(in crate::durable::inbox) fn servers(&self) -> Servers {
        Servers::open(&[Secret::new(self.url())], Kind::Single, None).unwrap()
    }

    pub(in crate::durable::inbox) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").arg(signal).arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
    }

    pub(in crate::durable::inbox) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(in crate::durable::inbox) async fn restart(&mut self) {
        self.child = spawn(self.port, &self.folder, &[]);
        self.answers().await;
    }

    /// Runs one command, for a test to inspect or break the server.
    pub(in crate::durable::inbox) async fn run<T: FromRedisValue>(&self, command: &[&str]) -> T {
        self.try_run(command).await.unwrap()
    }

    async fn try_run<T: FromRedisValue>(&self, command: &[&str]) -> redis::RedisResult<T> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut cmd = Cmd::new();
        for word in command {
            cmd.arg(*word);
        }
        cmd.query_async(&mut connection).await
    }

    async fn answers(&self) {
        until("redis-server answers", async || self.try_run::<String>(&["PING"]).await.is_ok()).await;
    }

    pub(in crate::durable::inbox) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: u16, folder: &tempfile::TempDir, extra: &[&str]) -> Child {
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
    command.arg("--dir").arg(folder.path()).args(extra).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Waits for a condition, and fails the test after 10 s.
pub(in crate::durable::inbox) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "it did not come: {what}");
}
