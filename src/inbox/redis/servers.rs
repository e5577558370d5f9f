//! Where Redis is: one server, the master that Sentinels know, or a cluster; over TLS where the URLs say so.
//!
//! Keeps true: no error and no log holds a URL or a password; over TLS the certificate is always checked, its name too;
//! Sentinels are asked at every connection, and a server that they name is believed only once it says itself that it is
//! the master. Every connection has a time to be made and a time to answer.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, RedisResult, TlsCertificates, Value,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::config;
use crate::file;
use crate::secret::Secret;

use super::OpenError;

/// The configured servers.
pub struct Servers {
    kind: Kind,
    given: Vec<Address>,
    /// The first URL, for what holds for every server: credentials, database.
    like: ConnectionInfo,
    tls: Option<TlsCertificates>,
}

/// What the URLs are of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The one server.
    Single,
    /// The Sentinels that know a master by this name.
    Sentinel(String),
    /// Nodes of a cluster, from which the others are found.
    Cluster,
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

/// A server to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Server {
    /// The only one, or whichever the Sentinels name.
    Master,
    /// A node of a cluster.
    Node(Address),
}

/// How long a connection may take to be made, and a command to be answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) connect: Duration,
    pub(super) response: Duration,
}

impl Servers {
    /// The servers of a config.
    ///
    /// # Errors
    /// When a URL cannot be read, or [`Servers::open`] fails.
    pub fn of(config: &config::Redis) -> Result<Servers, OpenError> {
        let urls: Vec<Secret> =
            config.urls.iter().map(|url| url.value.resolve()).collect::<Result<_, _>>()?;
        let kind = match &config.sentinel {
            _ if config.cluster => Kind::Cluster,
            Some(name) => Kind::Sentinel(name.clone()),
            None => Kind::Single,
        };
        Servers::open(&urls, kind, config.ca.as_deref())
    }

    /// Reads the URLs, at least one; `ca` is the PEM file of the authorities to trust, instead of the system's.
    ///
    /// User and password are those of the first URL; for Sentinels they are the master's, and are shown to a Sentinel
    /// only if it asks for them.
    ///
    /// # Errors
    /// When a URL is none, they do not go together, or the file holds no certificate.
    pub fn open(urls: &[Secret], kind: Kind, ca: Option<&Path>) -> Result<Servers, OpenError> {
        let (mut given, mut like, mut schemes) = (Vec::new(), None, Vec::new());
        for url in urls {
            let info = url.expose().into_connection_info().map_err(|_| OpenError::Url)?;
            let (host, port, tls) = match info.addr() {
                ConnectionAddr::Tcp(host, port) => (host, port, false),
                ConnectionAddr::TcpTls { host, port, insecure: false, .. } => (host, port, true),
                _ => return Err(OpenError::Url),
            };
            // A URL has an IPv6 address in brackets, a socket has not.
            let host = host.trim_matches(['[', ']']).to_owned();
            given.push(Address { host, port: *port });
            schemes.push(tls);
            like.get_or_insert(info);
        }
        let like = like.ok_or(OpenError::Url)?;
        let tls = schemes.contains(&true);
        if tls && schemes.contains(&false) {
            return Err(OpenError::Mixed);
        }
        if kind == Kind::Cluster && like.redis_settings().db() != 0 {
            return Err(OpenError::Database);
        }
        let tls = if tls { Some(certificates(ca)?) } else { None };
        Ok(Servers { kind, given, like, tls })
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The servers as configured.
    pub(super) fn given(&self) -> &[Address] {
        &self.given
    }

    /// What a server is called in the log.
    pub(super) fn name(&self, server: &Server) -> String {
        match (server, &self.kind, self.given.first()) {
            (Server::Node(address), _, _) => address.to_string(),
            (Server::Master, Kind::Sentinel(name), _) => format!("master {name}"),
            (Server::Master, _, Some(address)) => address.to_string(),
            (Server::Master, _, None) => String::new(),
        }
    }

    /// A client for a server, which is asked for if it has to be. The error is for the log.
    pub(super) async fn find(&self, server: &Server, patience: Patience) -> Result<Client, String> {
        match (server, &self.kind, self.given.first()) {
            (Server::Node(address), _, _) => self.node(address),
            (Server::Master, Kind::Sentinel(name), _) => self.master(name, patience).await,
            (Server::Master, _, Some(address)) => self.node(address),
            (Server::Master, _, None) => Err("no server is configured".to_owned()),
        }
    }

    /// A client for the server at an address.
    fn node(&self, address: &Address) -> Result<Client, String> {
        self.client(address, self.like.redis_settings().clone()).map_err(|why| why.to_string())
    }

    fn client(&self, address: &Address, settings: RedisConnectionInfo) -> RedisResult<Client> {
        let Address { host, port } = address.clone();
        let info = self.like.clone().set_redis_settings(settings);
        match &self.tls {
            None => Client::open(info.set_addr(ConnectionAddr::Tcp(host, port))),
            Some(certificates) => {
                let at = ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
                Client::build_with_tls(info.set_addr(at), certificates.clone())
            }
        }
    }

    /// The master that the first Sentinel knows who names one that agrees.
    async fn master(&self, name: &str, patience: Patience) -> Result<Client, String> {
        let mut failed = "no Sentinel is configured".to_owned();
        for sentinel in &self.given {
            match self.master_by(sentinel, name, patience).await {
                Ok(master) => return Ok(master),
                Err(why) => failed = format!("sentinel {sentinel}: {why}"),
            }
        }
        Err(failed)
    }

    async fn master_by(&self, sentinel: &Address, name: &str, patience: Patience) -> Result<Client, String> {
        let mut question = redis::cmd("SENTINEL");
        question.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        let open = RedisConnectionInfo::default();
        let mut answer = self.ask::<Option<(String, u16)>>(sentinel, open, &question, patience).await;
        if answer.as_ref().is_err_and(|why| why.code() == Some("NOAUTH")) {
            // A Sentinel has no databases, but users like any server.
            let credentials = self.like.redis_settings().clone().set_db(0);
            answer = self.ask(sentinel, credentials, &question, patience).await;
        }
        let known = answer.map_err(|why| why.to_string())?;
        let (host, port) = known.ok_or_else(|| format!("it knows no master by the name {name:?}"))?;
        let address = Address { host, port };
        let settings = self.like.redis_settings().clone();
        // After a failover a Sentinel may for a moment still name the old one.
        let role = self.ask::<Vec<Value>>(&address, settings, &redis::cmd("ROLE"), patience).await;
        match role.map_err(|why| format!("it names {address}: {why}"))?.first() {
            Some(Value::BulkString(role)) if role == b"master" => self.node(&address),
            _ => Err(format!("it names {address}, which is no master")),
        }
    }

    /// One command on a connection of its own.
    async fn ask<T: FromRedisValue>(
        &self,
        address: &Address,
        settings: RedisConnectionInfo,
        command: &Cmd,
        patience: Patience,
    ) -> RedisResult<T> {
        let mut connection = connect(&self.client(address, settings)?, patience).await?;
        command.query_async(&mut connection).await
    }
}

/// Opens a connection.
pub(super) async fn connect(
    client: &Client,
    patience: Patience,
) -> Result<MultiplexedConnection, RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(patience.connect))
        .set_response_timeout(Some(patience.response));
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// What a server's certificate is held against.
fn certificates(ca: Option<&Path>) -> Result<TlsCertificates, OpenError> {
    // The process may have a provider already; which it is does not matter here.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let Some(path) = ca else { return Ok(TlsCertificates { client_tls: None, root_cert: None }) };
    let failed = |why: String| OpenError::Ca { path: path.display().to_string(), why };
    let pem = file::read(path, LONGEST).map_err(|why| failed(why.to_string()))?;
    if pem.len() as u64 > LONGEST {
        return Err(failed("it is larger than 4 MiB".to_owned()));
    }
    let mut roots = CertificateDer::pem_slice_iter(&pem).peekable();
    if roots.peek().is_none() || roots.any(|root| root.is_err()) {
        return Err(failed("it holds no certificate in PEM, or a broken one".to_owned()));
    }
    Ok(TlsCertificates { client_tls: None, root_cert: Some(pem) })
}

/// Every authority of a system fits in.
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
        assert_eq!(one.given(), [Address { host: "::1".to_owned(), port: 7000 }]);
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
