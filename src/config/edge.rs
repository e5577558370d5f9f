//! What each key of `[edge]` and `[admin]` means: where the gateway listens, and what it takes from whom.
//!
//! Keeps true: what tells of itself beyond this machine asks for a token or speaks TLS; a header in which a client could name
//! itself is believed only from networks that the config lists.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use super::At;
use super::read::Section;
use super::sections::{MAX_TIME, MIB, SECOND, SOME_TIME};
use super::sources;
use super::units::show_duration;
use crate::peer::{self, Network};
use crate::secret::SecretRef;

/// `[edge]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Edge {
    /// Addresses to listen on; port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// How many threads serve requests.
    pub threads: usize,
    /// Bytes.
    pub max_body: usize,
    /// Connections at a time, all listeners together.
    pub max_connections: usize,
    /// Connections at a time from one client's address.
    pub max_connections_per_client: usize,
    /// Requests at a time between their head and their answer, all sources together.
    pub max_in_flight: usize,
    /// Bytes of the bodies of all requests in flight.
    pub max_in_flight_bytes: u64,
    /// For a request's head, from its first byte; on a new connection, from its start.
    pub header_timeout: Duration,
    /// Between requests on a kept connection.
    pub idle_timeout: Duration,
    /// A path that is answered as `/readyz` is. None: there is none.
    pub health_path: Option<At<String>>,
    /// For the whole body.
    pub body_timeout: Duration,
    /// For the whole request, the durable write included.
    pub request_timeout: Duration,
    /// For what is in flight at SIGTERM.
    pub drain_timeout: Duration,
    /// Share the listening ports, and take over from the gateway that has `data_dir`.
    pub reuse_port: bool,
    /// Networks whose word on who their client is is believed.
    pub trusted_proxies: Vec<Network>,
    /// Connections from `trusted_proxies` begin with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// None: plain HTTP.
    pub tls: Option<Tls>,
}

/// `[edge.tls]` and `[admin.tls]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// The first is for clients that name no host, or one that no certificate is for. At least one.
    pub certificates: Vec<KeyPair>,
    /// PEM file of the authorities that a client's certificate, then required, is held against.
    pub client_ca: Option<At<PathBuf>>,
}

/// A certificate chain and its key, PEM files.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyPair {
    /// The chain, its own certificate first.
    pub certificate: At<PathBuf>,
    /// Its key.
    pub private_key: At<PathBuf>,
}

/// `[admin]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What `Authorization: Bearer` must say to read metrics.
    pub token: Option<At<SecretRef>>,
    /// None: plain HTTP.
    pub tls: Option<Tls>,
}

/// `[edge]`.
pub(super) fn edge(section: &Section<'_>, base: &Path) -> Edge {
    let listen: Vec<_> = section.addresses("listen").into_iter().map(|listen| listen.value).collect();
    let threads = section.integer("threads", 1..=MAX_THREADS as u64);
    let threads = threads.and_then(|n| usize::try_from(n.value).ok()).unwrap_or(*CORES);
    let max_body = section.size("max_body", 1..=MAX_BODY, MIB);
    let number = |key, default| {
        let number = section.integer(key, 1..=1_000_000).map_or(default, |n| n.value);
        usize::try_from(number).unwrap_or(usize::MAX)
    };
    let max_connections = number("max_connections", 10_000);
    let max_connections_per_client = number("max_connections_per_client", 7_500);
    let max_in_flight = number("max_in_flight", 20_000);
    let in_flight_bytes = section.size("max_in_flight_bytes", 1..=i64::MAX as u64, 512 * MIB);
    let header_timeout = section.duration("header_timeout", SOME_TIME, 5 * SECOND).value;
    let idle_timeout = section.duration("idle_timeout", SOME_TIME, 75 * SECOND).value;
    let health_path = section.string("health_path", "a path such as \"/healthz\"");
    if let Some(path) = &health_path
        && let Some(wrong) = sources::odd_path(&path.value)
    {
        let what = format!("expected a path such as \"/healthz\", found {:?}: {wrong}", path.value);
        section.problem(path.at, "health_path", what);
    }
    let body_timeout = section.duration("body_timeout", SOME_TIME, 10 * SECOND).value;
    let request_timeout = section.duration("request_timeout", SOME_TIME, 15 * SECOND);
    // No time at all is a sensible drain: stop at once.
    let drain_timeout = section.duration("drain_timeout", Duration::ZERO..=MAX_TIME, 20 * SECOND).value;
    let trusted_proxies = section.networks("trusted_proxies");
    let proxy_protocol = section.flag("proxy_protocol");
    let reuse_port = section.flag("reuse_port").is_some_and(|flag| flag.value);
    let tls = tls(&section.section("tls"), base);
    section.finish();
    if request_timeout.value < body_timeout {
        let (whole, body) = (show_duration(request_timeout.value), show_duration(body_timeout));
        let what = format!("{whole} for the whole request is shorter than body_timeout, {body}");
        section.warning(request_timeout.at, "request_timeout", what);
    }
    if let Some(At { value: true, at }) = proxy_protocol
        && trusted_proxies.is_empty()
    {
        let what = "anybody could claim to be anybody; list the proxies' networks in trusted_proxies";
        section.problem(at, "proxy_protocol", what);
    }
    if peer::everybody(&trusted_proxies)
        && let Some(item) = section.item("trusted_proxies")
    {
        let what = "trusts everybody, so anybody could claim to be anybody; list the proxies' own networks";
        section.warning(item.at, "trusted_proxies", what.to_owned());
    }
    Edge {
        listen: if listen.is_empty() { vec![EDGE_LISTEN.into()] } else { listen },
        threads,
        max_body: usize::try_from(max_body).unwrap_or(usize::MAX),
        max_connections,
        max_connections_per_client,
        max_in_flight,
        // A source that has no share of its own left must find room for a body in the half that is common.
        max_in_flight_bytes: in_flight_bytes.max(max_body.saturating_mul(2)),
        header_timeout,
        idle_timeout,
        health_path,
        body_timeout,
        request_timeout: request_timeout.value,
        drain_timeout,
        reuse_port,
        trusted_proxies,
        proxy_protocol: proxy_protocol.is_some_and(|flag| flag.value),
        tls,
    }
}

/// `[admin]`.
pub(super) fn admin(section: &Section<'_>, edge: &Edge, base: &Path) -> Admin {
    let listen = section.address("listen");
    let token = section.secret("token", base);
    let tls = tls(&section.section("tls"), base);
    section.finish();
    let listen = listen.unwrap_or(At { value: ADMIN_LISTEN.into(), at: section.at() });
    if listen.value.port() != 0 && edge.listen.contains(&listen.value) {
        section.problem(listen.at, "listen", format!("{} is taken by edge.listen", listen.value));
    }
    let asked = section.item("token").is_some() || section.item("tls").is_some();
    if !listen.value.ip().to_canonical().is_loopback() && !asked {
        let what = format!(
            "{} is open beyond this machine; set admin.token or [admin.tls], or listen on 127.0.0.1",
            listen.value
        );
        section.problem(listen.at, "listen", what);
    }
    Admin { listen: listen.value, token, tls }
}

fn tls(section: &Section<'_>, base: &Path) -> Option<Tls> {
    if !section.is_present() {
        return None;
    }
    let first = key_pair(section, base);
    let client_ca = section.path("client_ca", base);
    let more: Vec<Option<KeyPair>> = section
        .items("more", "a list of { certificate = \"PATH\", private_key = \"PATH\" }")
        .into_iter()
        .flatten()
        .filter_map(|item| item.section())
        .map(|section| {
            let pair = key_pair(&section, base);
            section.finish();
            pair
        })
        .collect();
    section.finish();
    // Only whole, since a certificate is known by its place in the list.
    let certificates: Option<Vec<_>> = std::iter::once(first).chain(more).collect();
    Some(Tls { certificates: certificates?, client_ca })
}

fn key_pair(section: &Section<'_>, base: &Path) -> Option<KeyPair> {
    let certificate = section.path("certificate", base);
    let private_key = section.path("private_key", base);
    for key in ["certificate", "private_key"] {
        if section.item(key).is_none() {
            section.missing(key, "missing; expected the path of a PEM file");
        }
    }
    Some(KeyPair { certificate: certificate?, private_key: private_key? })
}

const MAX_THREADS: usize = 256;
/// The cores that this process may use, by its affinity and its cgroup's limit. Found once: a limit that changes while the
/// gateway runs is no change of the config.
static CORES: LazyLock<usize> =
    LazyLock::new(|| thread::available_parallelism().map_or(1, |cores| cores.get().min(MAX_THREADS)));
// A Redis value holds 512 MiB, and the body shares it with the rest of the event.
const MAX_BODY: u64 = 256 * MIB;
const EDGE_LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 8080);
const ADMIN_LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 9090);
