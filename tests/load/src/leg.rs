//! What is measured against what: a [`Leg`] names it, a [`Setup`] is its processes in a folder of their own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::process::Command;

use crate::Result;
use crate::process::{Probe, Server, Usage, free_address};
use crate::request::SECRET;

/// One of the servers compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leg {
    /// The bare hyper server.
    Bare,
    /// The gateway, deduplicating and queueing in its own store.
    Embedded,
    /// The gateway on a Redis that persists nothing.
    Redis,
    /// `Embedded`, with millions of identities stored before.
    Stored,
}

impl Leg {
    /// Its name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare hyper",
            Self::Embedded => "embedded",
            Self::Redis => "redis",
            Self::Stored => "embedded, filled",
        }
    }
}

/// Where the programs are, and where folders may be made.
pub(crate) struct Places {
    /// The gateway's binary.
    pub(crate) gateway: PathBuf,
    /// `redis-server`.
    pub(crate) redis: PathBuf,
    /// On a disk: on tmpfs a sync costs nothing.
    pub(crate) folder: PathBuf,
}

/// The running processes of a leg.
pub(crate) struct Setup {
    /// Where the server under test listens.
    pub(crate) address: SocketAddr,
    server: Server,
    redis: Option<Server>,
    // Last, so that it outlives the processes that write into it.
    _folder: TempDir,
}

/// A look at everything that runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// The server under test.
    pub(crate) server: Usage,
    /// Its Redis.
    pub(crate) redis: Option<Usage>,
    /// The load generator.
    pub(crate) load: Usage,
}

impl Setup {
    /// Starts the processes of `leg`, nothing stored, and waits until they are ready.
    pub(crate) async fn start(leg: Leg, places: &Places) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("run-").tempdir_in(&places.folder)?;
        let address = free_address()?;
        let (server, redis) = match leg {
            Leg::Bare => (start_bare(address, folder.path()).await?, None),
            Leg::Embedded | Leg::Stored => {
                (start_gateway(places, address, folder.path(), EMBEDDED.to_owned()).await?, None)
            }
            Leg::Redis => {
                let at = free_address()?;
                let redis = start_redis(places, at, folder.path()).await?;
                (start_gateway(places, address, folder.path(), on_redis(at)).await?, Some(redis))
            }
        };
        Ok(Self { address, server, redis, _folder: folder })
    }

    /// Processor time and memory of everything that runs.
    pub(crate) fn look(&self) -> Result<Look> {
        let redis = self.redis.as_ref().map(Server::usage).transpose()?;
        Ok(Look { server: self.server.usage()?, redis, load: Usage::own()? })
    }

    /// The last lines that the server under test printed.
    pub(crate) fn output(&self) -> String {
        self.server.output()
    }

    /// Ends the processes, the gateway before its Redis.
    pub(crate) async fn stop(self) -> Result<()> {
        self.server.stop().await?;
        if let Some(redis) = self.redis {
            redis.stop().await?;
        }
        Ok(())
    }
}

async fn start_bare(at: SocketAddr, folder: &Path) -> Result<Server> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bare", "--listen", &at.to_string()]);
    Server::start("bare", &mut command, folder, &Probe::http(at, "/")).await
}

async fn start_redis(places: &Places, at: SocketAddr, folder: &Path) -> Result<Server> {
    let mut command = Command::new(&places.redis);
    command.args(["--bind", &at.ip().to_string(), "--port", &at.port().to_string()]);
    command.args(["--save", "", "--appendonly", "no"]).current_dir(folder);
    Server::start("redis", &mut command, folder, &Probe::redis(at)).await
}

async fn start_gateway(places: &Places, at: SocketAddr, folder: &Path, stores: String) -> Result<Server> {
    let admin = free_address()?;
    let config = folder.join("hookgate.toml");
    fs::write(&config, gateway_config(at, admin, &stores))?;
    let mut command = Command::new(&places.gateway);
    command.args(["serve", "--config"]).arg(&config);
    Server::start("hookgate", &mut command, folder, &Probe::http(admin, "/readyz")).await
}

/// Defaults but for where to listen, and no spool: an event must take the way that is measured.
fn gateway_config(at: SocketAddr, admin: SocketAddr, stores: &str) -> String {
    format!(
        r#"data_dir = "data"

[edge]
listen = "{at}"

[admin]
listen = "{admin}"

[spool]
enabled = false

{stores}
[sources.basiq-bench]
provider = "basiq"
secrets = ["{SECRET}"]
"#
    )
}

const EMBEDDED: &str = r#"[dedupe]
store = "embedded"

[queue]
kind = "embedded"
"#;

/// Nothing reads the stream, so a long run would fill it to the default `max_backlog`.
fn on_redis(at: SocketAddr) -> String {
    format!(
        r#"[redis]
url = "redis://{at}/0"

[dedupe]
store = "redis"

[queue]
kind = "redis"
max_backlog = 100000000
"#
    )
}
