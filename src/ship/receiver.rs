//! Where records are shipped to: a Redis stream, or a syslog receiver.
//!
//! Keeps true: records count as taken only once Redis has answered for every one of them, or the system has taken them for the
//! network and the other end has not hung up; every step has a time limit; no error and no log holds a URL or a password.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use super::lines::Line;
use super::syslog::Origin;
use crate::inbox::redis::{Kind, Servers, inspect};
use crate::secret::Secret;

/// A receiver, connected or not.
pub struct Receiver {
    /// For the log.
    name: String,
    way: Way,
}

enum Way {
    Redis { servers: Box<Servers>, stream: String, max_len: u64, connection: Option<MultiplexedConnection> },
    Tcp { address: String, origin: Origin, connection: Option<TcpStream> },
    Udp { address: String, origin: Origin, socket: Option<UdpSocket> },
}

impl Receiver {
    /// The receiver at a URL; `stream`, about how much it keeps and the authorities to trust over TLS are for Redis.
    pub(super) fn new(
        url: &Secret,
        stream: &str,
        max_len: u64,
        ca: Option<&Path>,
    ) -> Result<Receiver, String> {
        let (scheme, rest) = url.expose().split_once("://").ok_or(NO_URL)?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address).to_owned();
        let name = format!("{scheme}://{address}");
        let way = match scheme {
            "redis" | "rediss" => {
                let servers = Servers::open(std::slice::from_ref(url), Kind::Single, ca);
                let servers = Box::new(servers.map_err(|why| why.to_string())?);
                Way::Redis { servers, stream: stream.to_owned(), max_len, connection: None }
            }
            "syslog+tcp" => {
                Way::Tcp { address: syslog(rest, TCP_PORT)?, origin: Origin::new(), connection: None }
            }
            "syslog+udp" => {
                Way::Udp { address: syslog(rest, UDP_PORT)?, origin: Origin::new(), socket: None }
            }
            _ => return Err(NO_URL.to_owned()),
        };
        Ok(Receiver { name, way })
    }

    /// Sends records; tells how many of them no receiver of this kind can take. After an error it may have some of them.
    pub(super) async fn send(&mut self, lines: &[Line]) -> Result<u64, String> {
        let within = timeout(SEND, async {
            match &mut self.way {
                Way::Redis { servers, stream, max_len, connection } => {
                    let mut to = match connection.take() {
                        Some(connection) => connection,
                        None => redis(servers).await?,
                    };
                    add(&mut to, lines, stream, *max_len).await?;
                    *connection = Some(to);
                    Ok(0)
                }
                Way::Tcp { address, origin, connection } => {
                    let mut to = match connection.take().filter(|open| !has_ended(open)) {
                        Some(open) => open,
                        None => within(CONNECT, TcpStream::connect(address.as_str())).await?,
                    };
                    let frames: String = lines.iter().map(|line| origin.frame(line)).collect();
                    stream(&mut to, frames.as_bytes()).await?;
                    *connection = Some(to);
                    Ok(0)
                }
                Way::Udp { address, origin, socket } => {
                    let to = match socket.take() {
                        Some(socket) => socket,
                        None => within(CONNECT, udp(address)).await?,
                    };
                    let refused = datagrams(&to, lines, origin).await?;
                    *socket = Some(to);
                    Ok(refused)
                }
            }
        });
        within.await.unwrap_or_else(|_| Err(format!("not taken within {} s", SEND.as_secs())))
    }
}

impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// `host:port` of what stands behind `syslog+tcp://`.
fn syslog(rest: &str, port: u16) -> Result<String, String> {
    let address = rest.strip_suffix('/').unwrap_or(rest);
    let bracketed = address.ends_with(']') || !address.contains(':');
    let address = if bracketed { format!("{address}:{port}") } else { address.to_owned() };
    let (host, port) = address.rsplit_once(':').ok_or(NO_URL)?;
    let wrong = host.is_empty() || host.contains(['@', '/', '?', '#', ' ']);
    if wrong || port.parse::<u16>().is_ok_and(|port| port == 0) || port.parse::<u16>().is_err() {
        return Err(
            "expected syslog+tcp://HOST[:PORT] or syslog+udp://HOST[:PORT], and nothing else".to_owned()
        );
    }
    Ok(address)
}

async fn within<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> Result<T, String> {
    match timeout(limit, work).await {
        Ok(done) => done.map_err(|why| why.to_string()),
        Err(_) => Err(format!("no connection within {} s", limit.as_secs())),
    }
}

async fn redis(servers: &Servers) -> Result<MultiplexedConnection, String> {
    inspect::masters(servers).await?.into_iter().next().ok_or("no server is configured")?.connection
}

async fn add(
    to: &mut MultiplexedConnection,
    lines: &[Line],
    stream: &str,
    max_len: u64,
) -> Result<(), String> {
    let mut all = redis::pipe();
    for line in lines {
        all.cmd("XADD").arg(stream).arg("MAXLEN").arg("~").arg(max_len).arg("*");
        all.arg("seq").arg(line.seq).arg("source").arg(&line.source).arg("reason").arg(&line.reason);
        all.arg("record").arg(&line.text).ignore();
    }
    all.query_async::<()>(to).await.map_err(|why| why.to_string())
}

/// Whether the other end has hung up. What it says is not read by anybody: syslog has no answers.
pub(super) fn has_ended(open: &TcpStream) -> bool {
    let mut said = [0; 512];
    for _ in 0..READS {
        match open.try_read(&mut said) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(why) => return why.kind() != io::ErrorKind::WouldBlock,
        }
    }
    false
}

/// Writes, and waits a moment for the other end to say that it is not there.
async fn stream(to: &mut TcpStream, frames: &[u8]) -> Result<(), String> {
    to.write_all(frames).await.map_err(|why| why.to_string())?;
    to.flush().await.map_err(|why| why.to_string())?;
    let ended = async {
        while to.readable().await.is_ok() {
            if has_ended(to) {
                return;
            }
            // One that talks on is always readable: the time limit must have its turn.
            yield_now().await;
        }
    };
    match timeout(SETTLE, ended).await {
        Ok(()) => Err("the receiver closed the connection".to_owned()),
        Err(_) => Ok(()),
    }
}

async fn udp(address: &str) -> io::Result<UdpSocket> {
    let to = lookup_host(address).await?.next().ok_or(io::ErrorKind::NotFound)?;
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    Ok(socket)
}

/// Sends one by one, and waits a moment for the system to hear that nobody listens.
async fn datagrams(to: &UdpSocket, lines: &[Line], origin: &Origin) -> Result<u64, String> {
    let mut refused = 0;
    for (n, line) in lines.iter().enumerate() {
        let message = origin.message(line);
        if message.len() > MAX_DATAGRAM {
            tracing::warn!(
                seq = line.seq,
                "a record of the reject log is too long for a datagram and is not shipped"
            );
            refused += 1;
            continue;
        }
        to.send(message.as_bytes()).await.map_err(|why| why.to_string())?;
        if n % BURST == BURST - 1 {
            sleep(BREATH).await;
        }
    }
    let mut said = [0; 512];
    let ended = async {
        loop {
            if let Err(why) = to.recv(&mut said).await {
                return why.to_string();
            }
        }
    };
    match timeout(SETTLE, ended).await {
        Ok(why) => Err(why),
        Err(_) => Ok(refused),
    }
}

const NO_URL: &str = "expected a URL with one of redis://, rediss://, syslog+tcp:// or syslog+udp://";
/// The port that RFC 3195 had registered for syslog over TCP, which most receivers use.
const TCP_PORT: u16 = 601;
const UDP_PORT: u16 = 514;
const CONNECT: Duration = Duration::from_secs(5);
/// For a batch, the connection included.
const SEND: Duration = Duration::from_secs(15);
/// The news that nobody is there takes a way back.
const SETTLE: Duration = Duration::from_millis(100);
/// Looks at what the other end says, which need not come to an end.
pub(super) const READS: usize = 16;
/// What UDP over IPv4 carries.
const MAX_DATAGRAM: usize = 65_507;
/// Datagrams in a row; then a break, for a receiver that has only its buffer to keep them in.
const BURST: usize = 32;
const BREATH: Duration = Duration::from_millis(5);
