//! The Redis servers: one server, the master that Sentinels name, or a cluster. TLS if the URLs ask for it.
//!
//! Keeps true:
//! - No error and no log line holds a URL or a password.
//! - Over TLS the certificate is always checked, including its name.
//! - Sentinels are asked at each connect and while the connection lasts. The newest vote wins, and a named server is
//!   used only after it says that it is the master.
//! - Every connect and every command has a timeout.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, FromRedisValue, IntoConnectionInfo,
    Pipeline, RedisConnectionInfo, RedisError, RedisResult, TlsCertificates, Value,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::base::file;
use crate::config;
use crate::config::secret::Secret;

use super::{OpenError, said};

/// The configured servers.
pub struct Servers {
    kind: Kind,
    configured: Vec<Address>,
    /// The first URL. Its credentials and database hold for every server.
    first_url: ConnectionInfo,
    tls: Option<TlsCertificates>,
}

/// What the URLs name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One server.
    Single,
    /// Sentinels that know a master by this name.
    Sentinel(String),
    /// Nodes of a cluster, from which the others are discovered.
    Cluster,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

/// A server to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Server {
    /// The only server, or the master that the Sentinels name.
    Master,
    /// A node of a cluster.
    Node(Address),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    pub(super) connect: Duration,
    pub(super) response: Duration,
}

impl Servers {
    /// Reads the servers from a config.
    ///
    /// # Errors
    /// When a URL cannot be read, or [`Servers::open`] fails.
    pub fn of(config: &config::Redis) -> Result<Servers, OpenError> {
        let urls: Vec<Secret> = config.url.iter().map(|url| url.value.resolve()).collect::<Result<_, _>>()?;
        let kind = match &config.sentinel {
            _ if config.cluster => Kind::Cluster,
            Some(name) => Kind::Sentinel(name.clone()),
            None => Kind::Single,
        };
        Servers::open(&urls, kind, config.ca.as_ref().map(|ca| ca.value.as_path()))
    }

    /// Reads the URLs, at least one. `ca` is a PEM file of the authorities to trust instead of the system's.
    ///
    /// The first URL's user and password hold for all servers. A Sentinel gets them only if it asks for them.
    ///
    /// # Errors
    /// When a URL is malformed, the URLs do not go together, or the file holds no certificate.
    pub fn open(urls: &[Secret], kind: Kind, ca: Option<&Path>) -> Result<Servers, OpenError> {
        let (mut configured, mut first_url, mut schemes) = (Vec::new(), None, Vec::new());
        for url in urls {
            // The driver would take the text before the character as the host, and connect to another server.
            if config::password_breaks_url(url.expose()) {
                return Err(OpenError::Password);
            }
            let flawed = || match config::redis_url_flaw(url.expose()) {
                Some(flaw) => OpenError::Flawed(flaw),
                None => OpenError::Url,
            };
            let info = url.expose().into_connection_info().map_err(|_| flawed())?;
            let (host, port, tls) = match info.addr() {
                ConnectionAddr::Tcp(host, port) => (host, port, false),
                ConnectionAddr::TcpTls { host, port, insecure: false, .. } => (host, port, true),
                _ => return Err(flawed()),
            };
            // A URL writes an IPv6 address in brackets; a socket address has none.
            let host = host.trim_matches(['[', ']']).to_owned();
            configured.push(Address { host, port: *port });
            schemes.push(tls);
            first_url.get_or_insert(info);
        }
        let first_url = first_url.ok_or(OpenError::Url)?;
        let tls = schemes.contains(&true);
        if tls && schemes.contains(&false) {
            return Err(OpenError::Mixed);
        }
        if kind == Kind::Cluster && first_url.redis_settings().db() != 0 {
            return Err(OpenError::Database);
        }
        let tls = if tls { Some(certificates(ca)?) } else { None };
        Ok(Servers { kind, configured, first_url, tls })
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The configured addresses.
    pub(super) fn configured(&self) -> &[Address] {
        &self.configured
    }

    pub(super) fn speaks_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether the first URL has a user, and whether it has a password.
    pub(super) fn has_credentials(&self) -> (bool, bool) {
        let settings = self.first_url.redis_settings();
        (settings.username().is_some(), settings.password().is_some())
    }

    /// Whether the servers are configured as a cluster.
    pub fn is_cluster(&self) -> bool {
        self.kind == Kind::Cluster
    }

    /// The name of a server in the log.
    pub(super) fn name(&self, server: &Server) -> String {
        match (server, &self.kind, self.configured.first()) {
            (Server::Node(address), _, _) => address.to_string(),
            (Server::Master, Kind::Sentinel(name), _) => format!("master {name}"),
            (Server::Master, _, Some(address)) => address.to_string(),
            (Server::Master, _, None) => String::new(),
        }
    }

    /// Makes a client for a server, asking the Sentinels if necessary. The error is for the log.
    pub(super) async fn find(&self, server: &Server, timeouts: Timeouts) -> Result<Client, String> {
        match (server, &self.kind, self.configured.first()) {
            (Server::Node(address), _, _) => self.node(address),
            (Server::Master, Kind::Sentinel(name), _) => self.master(name, timeouts).await,
            (Server::Master, _, Some(address)) => self.node(address),
            (Server::Master, _, None) => Err("no server is configured".to_owned()),
        }
    }

    fn node(&self, address: &Address) -> Result<Client, String> {
        self.client(address, self.first_url.redis_settings().clone()).map_err(|why| why.to_string())
    }

    fn client(&self, address: &Address, settings: RedisConnectionInfo) -> RedisResult<Client> {
        let Address { host, port } = address.clone();
        let info = self.first_url.clone().set_redis_settings(settings);
        match &self.tls {
            None => Client::open(info.set_addr(ConnectionAddr::Tcp(host, port))),
            Some(certificates) => {
                let at = ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
                Client::build_with_tls(info.set_addr(at), certificates.clone())
            }
        }
    }

    /// Asks the Sentinels until more than half have answered, and takes the newest vote's master that confirms its
    /// role.
    ///
    /// A Sentinel that is cut off together with an old master knows only older votes.
    async fn master(&self, name: &str, timeouts: Timeouts) -> Result<Client, String> {
        let mut asked: FuturesUnordered<_> = self
            .configured
            .iter()
            .map(async |sentinel| (sentinel, self.ask_sentinel(sentinel, name, timeouts).await))
            .collect();
        let (mut named, mut failed) = (Vec::new(), "no Sentinel is configured".to_owned());
        while named.len() <= self.configured.len() / 2
            && let Some((sentinel, answer)) = asked.next().await
        {
            match answer {
                Ok((vote, address)) => named.push((vote, address)),
                Err(why) => failed = format!("sentinel {sentinel}: {why}"),
            }
        }
        // The newest vote first. Each vote has one master.
        named.sort_by(|a, b| b.cmp(a));
        named.dedup_by(|a, b| a.1 == b.1);
        for (_, address) in named {
            match self.confirmed_master(&address, timeouts).await {
                Ok(master) => return Ok(master),
                Err(why) => failed = format!("the Sentinels name {address}: {why}"),
            }
        }
        Err(failed)
    }

    /// The master that a Sentinel names, and the number of the vote that elected it.
    async fn ask_sentinel(
        &self,
        sentinel: &Address,
        name: &str,
        timeouts: Timeouts,
    ) -> Result<(u64, Address), String> {
        let mut question = redis::pipe();
        question.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        question.cmd("SENTINEL").arg("MASTER").arg(name);
        let open = RedisConnectionInfo::default();
        let mut answer = self.ask(sentinel, open, &question, timeouts).await;
        let wants_credentials = |replies: &Vec<Value>| matches!(replies.first(), Some(Value::ServerError(why)) if why.code() == "NOAUTH");
        if answer.as_ref().map_or_else(|why| why.code() == Some("NOAUTH"), wants_credentials) {
            // A Sentinel has users like any server, but no databases.
            let credentials = self.first_url.redis_settings().clone().set_db(0);
            answer = self.ask(sentinel, credentials, &question, timeouts).await;
        }
        let mut replies = answer.map_err(|why| why.to_string())?.into_iter();
        let known = match replies.next() {
            Some(Value::ServerError(why)) => return Err(said(&why)),
            Some(reply) => Option::<(String, u16)>::from_redis_value(reply).map_err(|why| why.to_string())?,
            None => None,
        };
        let (host, port) = known.ok_or_else(|| format!("it knows no master by the name {name:?}"))?;
        // The user may lack the right to ask for the vote's number.
        let of = replies.next().and_then(|reply| HashMap::<String, Value>::from_redis_value(reply).ok());
        let vote = of.and_then(|mut of| u64::from_redis_value(of.remove("config-epoch")?).ok());
        Ok((vote.unwrap_or_default(), Address { host, port }))
    }

    /// Makes a client for a server after it says that it is a master. After a failover, a Sentinel may briefly still
    /// name the old one.
    async fn confirmed_master(&self, address: &Address, timeouts: Timeouts) -> Result<Client, String> {
        let settings = self.first_url.redis_settings().clone();
        let mut question = redis::pipe();
        question.cmd("ROLE");
        let mut replies =
            self.ask(address, settings, &question, timeouts).await.map_err(|why| why.to_string())?;
        match replies.pop() {
            Some(Value::ServerError(why)) => Err(said(&why)),
            Some(Value::Array(role)) if role.first() == Some(&Value::BulkString(b"master".to_vec())) => {
                self.node(address)
            }
            _ => Err("it is no master".to_owned()),
        }
    }

    /// Sends commands over a new connection. A refusal is one of the replies.
    async fn ask(
        &self,
        address: &Address,
        settings: RedisConnectionInfo,
        commands: &Pipeline,
        timeouts: Timeouts,
    ) -> RedisResult<Vec<Value>> {
        let mut connection = connect(&self.client(address, settings)?, timeouts).await?;
        connection.send_packed_commands(commands, 0, commands.len()).await
    }
}

/// The address that a client connects to.
pub(super) fn address_of(client: &Client) -> Option<Address> {
    match client.get_connection_info().addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Some(Address { host: host.clone(), port: *port })
        }
        _ => None,
    }
}

pub(super) async fn connect(
    client: &Client,
    timeouts: Timeouts,
) -> Result<MultiplexedConnection, RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(timeouts.connect))
        .set_response_timeout(Some(timeouts.response));
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// The authorities that may sign a server's certificate.
fn certificates(ca: Option<&Path>) -> Result<TlsCertificates, OpenError> {
    // An error only means that the process has a provider already. Any provider will do.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let Some(path) = ca else { return Ok(TlsCertificates { client_tls: None, root_cert: None }) };
    let failed = |why: String| OpenError::Ca { path: path.display().to_string(), why };
    let pem = file::read(path, LONGEST).map_err(|why| failed(why.to_string()))?;
    let mut roots = CertificateDer::pem_slice_iter(&pem).peekable();
    if roots.peek().is_none() || roots.any(|root| root.is_err()) {
        return Err(failed("it holds no certificate in PEM, or a broken one".to_owned()));
    }
    Ok(TlsCertificates { client_tls: None, root_cert: Some(pem) })
}

/// Larger than a file of all authorities of a system.
const LONGEST: u64 = 4 << 20;

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(urls: &[&str], kind: Kind) -> Result<Servers, OpenError> {
        let urls: Vec<Secret> = urls.iter().map(|url| Secret::new(*url)).collect();
        Servers::open(&urls, kind, None)
    }

    #[test]
    fn no_message_repeats_a_password() {
        for (urls, kind) in [
            (&[":hush@["][..], Kind::Single),
            (&["redis://:hush@["], Kind::Single),
            (&["hush"], Kind::Single),
            (&["rediss://:hush@host/#insecure"], Kind::Single),
            (&["rediss://:hush@a", "redis://:hush@b"], Kind::Cluster),
            (&["redis://:hush@a/3"], Kind::Cluster),
        ] {
            let why = open(urls, kind).err().unwrap();
            let said = format!("{why} {why:?}");
            assert!(!said.contains("hush"), "{said}");
        }
    }

    #[test]
    fn a_server_is_called_by_its_address_alone() {
        let one = open(&["redis://user:hush@[::1]:7000/3"], Kind::Single).unwrap();
        assert_eq!(one.name(&Server::Master), "::1:7000");
        assert_eq!(one.configured(), [Address { host: "::1".to_owned(), port: 7000 }]);
        let watched = open(&["redis://:hush@a"], Kind::Sentinel("main".to_owned())).unwrap();
        assert_eq!(watched.name(&Server::Master), "master main");
    }

    #[test]
    fn a_file_of_authorities_must_hold_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let said = certificates(Some(file.path())).err().unwrap().to_string();
        assert!(said.contains("no certificate"), "{said}");
        let said = certificates(Some(Path::new("/absent.pem"))).err().unwrap().to_string();
        assert!(said.contains("/absent.pem") && said.contains("No such file"), "{said}");
    }
}
