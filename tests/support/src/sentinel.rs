//! A Redis Sentinel of a test's own. It watches one master and decides alone.

use std::process::{Command, Stdio};

use redis::FromRedisValue;
use tempfile::TempDir;

use super::process::Process;
use super::process::free_port;
use super::{Redis, until};

pub struct Sentinel {
    _process: Process,
    _folder: TempDir,
    port: u16,
}

impl Sentinel {
    /// The master's name.
    pub const NAME: &str = "main";

    /// Watches a master that has one replica, and returns once the replica is known.
    pub async fn watch(master: &Redis) -> Sentinel {
        let (folder, port, name) = (tempfile::tempdir().unwrap(), free_port(), Sentinel::NAME);
        let file = folder.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nuser gate on >s3same ~* &* +@all\nrequirepass another\nsentinel monitor {name} 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds {name} 1000\nsentinel failover-timeout {name} 3000\n",
            folder.path().display(),
            master.port()
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("redis-server");
        command.arg(&file).arg("--sentinel").stdout(Stdio::null()).stderr(Stdio::null());
        let sentinel = Sentinel { _process: Process::spawn(&mut command), _folder: folder, port };
        until("the Sentinel knows the replica", async || {
            let known = sentinel.run::<Vec<redis::Value>>(&["SENTINEL", "REPLICAS", name]).await;
            known.is_ok_and(|known| known.len() == 1)
        })
        .await;
        sentinel
    }

    /// With the user and password that it requires.
    pub fn url(&self) -> String {
        format!("redis://gate:s3same@127.0.0.1:{}", self.port)
    }

    /// Promotes the replica, as soon as the Sentinel finds it suitable.
    pub async fn fail_over(&self) {
        until("the Sentinel fails over", async || {
            self.run::<String>(&["SENTINEL", "FAILOVER", Sentinel::NAME]).await.is_ok()
        })
        .await;
    }

    async fn run<T: FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        let mut connection = redis::Client::open(self.url())?.get_multiplexed_async_connection().await?;
        let mut command = redis::Cmd::new();
        command.arg(words);
        command.query_async(&mut connection).await
    }
}
