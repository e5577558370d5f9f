//! Explains the likely mistake when Redis cannot be used, and its fix.
//!
//! Keeps true: no text holds a URL or a password, and no password is sent. A server is only asked which protocol it
//! speaks, over a new connection, and only after the configured way failed.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::servers::{Address, Kind, Server, Servers};

/// How to fix a stream that accepts no events for this reason.
pub(crate) fn of_stream(why: &str) -> &'static str {
    if why.contains("exhausted the last possible ID") {
        "an entry with the largest id that there can be was added by hand; XDEL it and XSETID the stream to the id of the \
         entry before it, or set another queue.name"
    } else {
        "see that the key is a stream or absent, and that this user has the rights on it and on {STREAM}:*"
    }
}

impl Servers {
    /// Adds the likely mistake, if there is one, to a server's failure `why`.
    pub(super) async fn advise(&self, server: &Server, why: String) -> String {
        // The driver describes an unreadable answer in several lines.
        let why = why.lines().map(str::trim).collect::<Vec<_>>().join(", ");
        let address = match (server, self.kind()) {
            (Server::Node(address), _) => Some(address),
            // Only Sentinels know the master.
            (Server::Master, Kind::Sentinel(_)) => None,
            (Server::Master, Kind::Single | Kind::Cluster) => self.configured().first(),
        };
        let advice = match self.known(&why) {
            None if !is_settled(&why) => match address {
                Some(address) => self.other_protocol(address).await,
                None => None,
            },
            known => known,
        };
        let unread = why.contains("Parse error").then_some("no Redis answers there; is it the right port?");
        let advice = advice.or(unread);
        match advice {
            Some(advice) => format!("{why}: {advice}"),
            None => why,
        }
    }

    /// Adds the likely mistake, if its words show one, to a server's answer `why`.
    pub fn explain(&self, why: &str) -> String {
        match self.known(why) {
            Some(advice) => format!("{why}: {advice}"),
            None => why.to_owned(),
        }
    }

    /// The likely mistake that the words of the server or the driver show.
    fn known(&self, why: &str) -> Option<&'static str> {
        let (user, password) = self.has_credentials();
        let says = |part: &str| why.contains(part);
        if (says("NOAUTH") || says("AuthenticationFailed")) && user && !password {
            return Some(
                "the URL has a user and no password; a password alone stands after a colon, as in :PASSWORD@HOST",
            );
        }
        let advice = [
            (
                "NOAUTH",
                "it asks for a password, and the URL has none; put it before the host, as in :PASSWORD@HOST",
            ),
            (
                "AuthenticationFailed",
                "the user or the password in the URL is wrong, or the server knows none; in a URL the signs / @ : ? # % of a \
                 password are percent-encoded, such as %2F for /",
            ),
            (
                "DB index is out of range",
                "the number at the end of the URL is a database that the server does not have; its setting `databases` says \
                 how many it has, and the first is 0",
            ),
            (
                "SELECT is not allowed in cluster mode",
                "it is a node of a cluster; set redis.cluster = true, and leave out the database at the end of the URL",
            ),
            ("cluster support disabled", "it is no node of a cluster; leave out redis.cluster"),
            (
                "unknown command 'SENTINEL'",
                "it is no Sentinel; give the URLs of the Sentinels (usually port 26379), or leave out redis.sentinel",
            ),
            (
                "it knows no master by the name",
                "set redis.sentinel to a name that the Sentinel has a `sentinel monitor` line for",
            ),
            (
                "UnknownIssuer",
                "no authority that is trusted here has signed its certificate; set redis.ca to the file of its authority",
            ),
            (
                "not valid for name",
                "its certificate is for other names than the URL has; use one of those in the URL",
            ),
            ("certificate expired", "its certificate has expired; renew it at the server"),
            (
                "CaUsedAsEndEntity",
                "its certificate is one of an authority (self-signed); give the server one that is signed by it",
            ),
            (
                "CertificateRequired",
                "it asks for a client's certificate, and hookgate shows none; set tls-auth-clients no at the server",
            ),
            ("failed to lookup address", "the name of the host in the URL is not known here"),
            (
                "Connection refused",
                "nothing listens there; is it the right host and port, and does the server run?",
            ),
        ];
        advice.into_iter().find(|(part, _)| says(part)).map(|(_, advice)| advice)
    }

    /// Checks whether the server speaks TLS although the URL says it does not, or the other way round.
    async fn other_protocol(&self, address: &Address) -> Option<&'static str> {
        if self.speaks_tls() {
            let plain = answer(address, b"PING\r\n").await?;
            // +PONG, -NOAUTH, -DENIED, -LOADING
            matches!(plain, b'+' | b'-').then_some(
                "it answers without TLS; write the scheme redis in the URL instead of rediss, or let the server listen with tls-port",
            )
        } else {
            let tls = answer(address, &hello(address)?).await?;
            // A handshake record or an alert, by RFC 8446, section 5.1.
            matches!(tls, 0x15 | 0x16).then_some(
                "it speaks TLS; write the scheme rediss in the URL instead of redis, and set redis.ca if its authority is your own",
            )
        }
    }
}

/// Whether the server answered, so that the protocol is right.
fn is_settled(why: &str) -> bool {
    ["NOPERM", "LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "certificate"]
        .iter()
        .any(|word| why.contains(word))
}

/// The first byte of the answer; none without an answer in time.
async fn answer(address: &Address, question: &[u8]) -> Option<u8> {
    let asked = async {
        let mut stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
        stream.write_all(question).await?;
        stream.read_u8().await
    };
    timeout(TIMEOUT, asked).await.ok()?.ok()
}

/// A TLS client's first record. It trusts no certificate, because the handshake ends here.
fn hello(address: &Address) -> Option<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
    let config = config.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let name = ServerName::try_from(address.host.clone()).ok()?;
    let mut client = ClientConnection::new(Arc::new(config), name).ok()?;
    let mut hello = Vec::new();
    client.write_tls(&mut hello).ok()?;
    Some(hello)
}

const TIMEOUT: Duration = Duration::from_millis(500);
