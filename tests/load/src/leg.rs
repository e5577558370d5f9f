//! What is measured against what: a [`Leg`] names it, a [`Setup`] is its processes in a folder of their own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::process::Command;

use crate::Result;
use crate::process::{self, Probe, Server, Usage, free_address};
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
    /// `Redis`, with a provider that the config defines.
    Defined,
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
            Self::Defined => "redis, defined provider",
            Self::Stored => "embedded, filled",
        }
    }
}

/// Where the programs are, and where folders may be made.
pub(crate) struct Places {
    /// The gateway's binary.
    pub(crate) gateway: PathBuf,
    /// The build of gateway and bare server that counts allocations.
    pub(crate) counted: PathBuf,
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
    admin: Option<SocketAddr>,
    /// Where a counting build tells its allocations.
    count_at: Option<SocketAddr>,
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
        Self::of(leg, places, None).await
    }

    /// The same with builds that count allocations.
    pub(crate) async fn counting(leg: Leg, places: &Places) -> Result<Self> {
        Self::of(leg, places, Some(free_address()?)).await
    }

    async fn of(leg: Leg, places: &Places, count_at: Option<SocketAddr>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("run-").tempdir_in(&places.folder)?;
        let address = free_address()?;
        if leg == Leg::Bare {
            let server = start_bare(places, address, folder.path(), count_at).await?;
            return Ok(Self { address, server, redis: None, admin: None, count_at, _folder: folder });
        }
        let (stores, redis) = match leg {
            Leg::Redis | Leg::Defined => {
                let at = free_address()?;
                (on_redis(at), Some(start_redis(places, at, folder.path()).await?))
            }
            Leg::Bare | Leg::Embedded | Leg::Stored => (EMBEDDED.to_owned(), None),
        };
        let admin = free_address()?;
        let config = folder.path().join("hookgate.toml");
        fs::write(&config, gateway_config(address, admin, &stores, leg))?;
        let mut command = Command::new(if count_at.is_some() { &places.counted } else { &places.gateway });
        command.args(["serve", "--config"]).arg(&config);
        let server =
            start("hookgate", command, folder.path(), &Probe::http(admin, "/readyz"), count_at).await?;
        Ok(Self { address, server, redis, admin: Some(admin), count_at, _folder: folder })
    }

    /// The allocations so far of a counting build.
    pub(crate) async fn allocations(&self) -> Result<u64> {
        let at = self.count_at.ok_or("this build counts no allocations")?;
        Ok(process::get(at, "/").await?.trim().parse()?)
    }

    /// Batches so far, and the events in them.
    pub(crate) async fn batches(&self) -> Result<(f64, f64)> {
        let Some(admin) = self.admin else { return Ok((0.0, 0.0)) };
        let metrics = process::get(admin, "/metrics").await?;
        let sum = |name: &str| {
            let lines = metrics.lines().filter(|line| line.starts_with(name));
            lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
        };
        Ok((sum("hookgate_enqueue_batch_events_count"), sum("hookgate_enqueue_batch_events_sum")))
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

async fn start_bare(
    places: &Places,
    at: SocketAddr,
    folder: &Path,
    count_at: Option<SocketAddr>,
) -> Result<Server> {
    let own = std::env::current_exe()?;
    let mut command = Command::new(if count_at.is_some() { &places.counted } else { &own });
    command.args(["bare", "--listen", &at.to_string()]);
    start("bare", command, folder, &Probe::http(at, "/"), count_at).await
}

async fn start(
    name: &'static str,
    mut command: Command,
    folder: &Path,
    probe: &Probe,
    count_at: Option<SocketAddr>,
) -> Result<Server> {
    if let Some(at) = count_at {
        command.env(COUNT_AT, at.to_string());
    }
    Server::start(name, &mut command, folder, probe).await
}

async fn start_redis(places: &Places, at: SocketAddr, folder: &Path) -> Result<Server> {
    let mut command = Command::new(&places.redis);
    command.args(["--bind", &at.ip().to_string(), "--port", &at.port().to_string()]);
    command.args(["--save", "", "--appendonly", "no"]).current_dir(folder);
    Server::start("redis", &mut command, folder, &Probe::redis(at)).await
}

/// Defaults but for where to listen.
fn gateway_config(at: SocketAddr, admin: SocketAddr, stores: &str, leg: Leg) -> String {
    let (provider, definition) = match leg {
        Leg::Defined => ("defined", DEFINITION),
        Leg::Bare | Leg::Redis | Leg::Embedded | Leg::Stored => ("basiq", ""),
    };
    format!(
        r#"data_dir = "data"

[edge]
listen = "{at}"

[admin]
listen = "{admin}"

{stores}
{definition}
[sources.basiq-bench]
provider = "{provider}"
secrets = ["{SECRET}"]
"#
    )
}

/// What can be said of Basiq in the grammar of definitions: the same work as its code does.
const DEFINITION: &str = r#"[providers.defined]
like = "standard-webhooks"

[providers.defined.event]
type = "/eventTypeId"
id = "/eventId"
subject = { kind = "entity", id = "/links/eventEntity" }
related = [{ kind = "event", id = "/links/event" }]

[providers.defined.event.types]
"transactions.updated" = "transactions.updated"
"user.created" = "user.created"
"consent.revoked" = "consent.revoked"
"#;
/// Where a counting build is to tell its allocations.
const COUNT_AT: &str = "HOOKGATE_COUNT_AT";
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
