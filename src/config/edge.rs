//! The keys of `[edge]` and `[admin]`: where the gateway listens, and the limits on each client.
//!
//! Keeps true: an admin listener that other machines can reach has a token or TLS. A header that names the client is
//! trusted only from networks that the config lists.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use super::Located;
use super::keys::table;
use super::kinds::{inline, section};
use super::section::Section;
use super::sources;
use super::units::show_duration;
use super::values::{
    MAX_TIME, MIB, POSITIVE_TIME, SECOND, UNBOUNDED, address, addresses, duration, file, flag, networks,
    private_key, secret, size, text, whole,
};
use crate::base::peer::{self, Network};
use crate::config::secret::SecretRef;

table! {
    /// `[edge]`.
    pub struct Edge, checked by check_edge {
        /// The addresses to listen on: one, or a list. Port 0 takes a free port.
        listen: Vec<SocketAddr> = addresses(([127, 0, 0, 1], 8080)), live;
        /// How many threads serve requests. The default is the cores that this process may use, within its cgroup's
        /// limit.
        threads: usize = whole(1..=MAX_THREADS as u64, *CORES), restart, "2";
        /// A longer body is answered 413.
        max_body: usize = size(1..=MAX_BODY, MIB as usize), live;
        /// Connections at a time, over all addresses. A connection beyond it gets 503.
        max_connections: usize = whole(1..=1_000_000, 10_000), live;
        /// Connections at a time from one address (IPv6: one /64). Trusted proxies are excepted.
        max_connections_per_client: usize = whole(1..=1_000_000, 7_500), live;
        /// Requests at a time. A request beyond it gets 503, before its body is read. Half of it is divided among the
        /// sources, half is common, so that no source starves another. One client (IPv6: one /64) has at most three
        /// quarters of what a source can have.
        max_in_flight: usize = whole(1..=1_000_000, 20_000), live;
        /// The same for the bytes of their bodies. It counts as twice `max_body` if it is less.
        max_in_flight_bytes: u64 = size(1..=UNBOUNDED, 512 * MIB), live;
        /// The address by which providers reach this gateway, without a path. Some providers sign it.
        public_url: Option<Located<String>> = text("a URL such as \"https://hooks.example.com\"", "").located().optional(), live,
            "\"https://hooks.example.com\"";
        /// The time to send a request's head, from its first byte. On a new connection it runs from the connection's
        /// start.
        header_timeout: Duration = duration(POSITIVE_TIME, 5 * SECOND), live;
        /// The time between requests on one connection. Keep it longer than the proxy in front keeps its idle
        /// connections.
        idle_timeout: Duration = duration(POSITIVE_TIME, 75 * SECOND), live;
        /// A path for a load balancer's probes. GET and HEAD are answered 200 or 503 as `/readyz` is, and leave no
        /// record.
        health_path: Option<Located<String>> = text("a path such as \"/healthz\"", "").located().optional(), live,
            "\"/healthz\"";
        /// The time to send a request's body. A slower client gets 408.
        body_timeout: Duration = duration(POSITIVE_TIME, 10 * SECOND), live;
        /// The time from head to answer, the durable write included. After it the client gets 503.
        request_timeout: Duration = duration(POSITIVE_TIME, 15 * SECOND), live;
        /// How long a stop waits for the requests in flight. `"0s"` stops at once.
        drain_timeout: Duration = duration(Duration::ZERO..=MAX_TIME, 20 * SECOND), live;
        /// The networks whose X-Forwarded-For is believed. The client is the rightmost address outside them.
        trusted_proxies: Vec<Network> = networks(), live;
        /// With `true`, connections from `trusted_proxies` begin with a PROXY header, v1 or v2.
        proxy_protocol: bool = flag(false), live;
        /// With `true`, a second gateway may listen on the same ports, to take over from this one.
        reuse_port: bool = flag(false), restart;
        /// Without this table the gateway speaks plain HTTP. The files are read again when they change.
        tls: Option<Tls> = section().optional(), live;
    }
}

table! {
    /// `[edge.tls]` and `[admin.tls]`.
    pub struct Tls, checked by check_tls {
        /// The PEM file of the certificate chain, the listener's own certificate first. Required.
        certificate: Located<PathBuf> = file("the path of a file"), live, "\"edge.pem\"";
        /// The PEM file of its private key. Required.
        private_key: Located<PathBuf> = private_key("the path of a file"), live, "\"edge.key\"";
        /// The PEM file of authorities. Every client must show a certificate of one of them.
        client_ca: Option<Located<PathBuf>> = file("the path of a file").optional(), live, "\"clients.pem\"";
        /// More certificates. The host name for which a client asks chooses among them.
        more: Vec<KeyPair> = inline().list(MORE), live,
            "[{ certificate = \"other.pem\", private_key = \"other.key\" }]";
    }
}

table! {
    /// A certificate chain and its key, PEM files.
    pub struct KeyPair, checked by require_pair {
        /// As in the table above. Required.
        certificate: Located<PathBuf> = file("the path of a file"), live, "\"other.pem\"";
        /// As in the table above. Required.
        private_key: Located<PathBuf> = private_key("the path of a file"), live, "\"other.key\"";
    }
}

table! {
    /// `[admin]`.
    pub struct Admin, checked by check_admin {
        /// The address to listen on. Beyond this machine it needs a token or TLS.
        listen: SocketAddr = address(([127, 0, 0, 1], 9090)), live;
        /// A request for `/metrics` must have `Authorization: Bearer` with this token. The console at `/` takes it so too,
        /// or as the password of any user. `/livez` and `/readyz` ask for none.
        token: Option<Located<SecretRef>> = secret().optional(), live, "{ env = \"ADMIN_TOKEN\" }";
        /// As `[edge.tls]`.
        tls: Option<Tls> = section().optional(), live;
    }
}

fn check_edge(edge: &mut Edge, section: &Section<'_>) {
    if let Some(path) = &edge.health_path
        && let Some(wrong) = sources::path_defect(&path.value)
    {
        let what = format!("expected a path such as \"/healthz\", found {:?}: {wrong}", path.value);
        section.problem(path.at, "health_path", what);
    }
    if let Some(url) = &mut edge.public_url {
        if let Some(wrong) = public_url_flaw(&url.value) {
            let what = format!("expected a URL such as \"https://hooks.example.com\": {wrong}");
            section.problem(url.at, "public_url", what);
        }
        url.value.truncate(url.value.trim_end_matches('/').len());
    }
    if edge.request_timeout < edge.body_timeout {
        let [whole, body] = [edge.request_timeout, edge.body_timeout].map(show_duration);
        let what = format!("{whole} for the whole request is shorter than body_timeout, {body}");
        section.warning(section.position_of("request_timeout"), "request_timeout", what);
    }
    if edge.proxy_protocol && edge.trusted_proxies.is_empty() {
        let what = "any client could spoof its address; list the proxies' networks in trusted_proxies";
        section.problem(section.position_of("proxy_protocol"), "proxy_protocol", what);
    }
    if peer::covers_all(&edge.trusted_proxies) {
        let what =
            "trusts every address, so any client could spoof its address; list the proxies' own networks";
        section.warning(section.position_of("trusted_proxies"), "trusted_proxies", what);
    }
    // A source that has used its own share must still find room for one body in the common half.
    edge.max_in_flight_bytes = edge.max_in_flight_bytes.max((edge.max_body as u64).saturating_mul(2));
}

/// Why a text is no base of the sources' URLs.
fn public_url_flaw(text: &str) -> Option<&'static str> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let Some(rest) = rest else { return Some("it begins neither with https:// nor with http://") };
    let host = rest.trim_end_matches('/');
    if host.contains('@') {
        Some("it names a user")
    } else if host.contains(['/', '?', '#']) {
        Some("it has a path; the sources' own paths follow the host")
    } else if host.is_empty() || text.parse::<hyper::Uri>().is_err() {
        Some("it names no host")
    } else {
        None
    }
}

fn check_tls(tls: &mut Tls, section: &Section<'_>) {
    require_pair(tls, section);
    // A certificate is identified by its index in the list, so none may be left out.
    let listed = section.item("more").and_then(|item| item.list()).map_or(0, |list| list.len());
    if tls.more.len() != listed {
        section.reject();
    }
}

fn require_pair<T>(_: &mut T, section: &Section<'_>) {
    for key in ["certificate", "private_key"] {
        section.require(key, "the path of a PEM file");
    }
}

fn check_admin(admin: &mut Admin, section: &Section<'_>) {
    let asked = section.item("token").is_some() || section.item("tls").is_some();
    if !admin.listen.ip().to_canonical().is_loopback() && !asked {
        let what = format!(
            "{} is open beyond this machine; set admin.token or [admin.tls], or listen on 127.0.0.1",
            admin.listen
        );
        section.problem(section.position_of("listen"), "listen", what);
    }
}

impl Tls {
    /// The certificates with their keys. The first serves clients that name no host, or a host without a certificate.
    pub fn pairs(&self) -> Vec<KeyPair> {
        let first = KeyPair { certificate: self.certificate.clone(), private_key: self.private_key.clone() };
        [first].into_iter().chain(self.more.iter().cloned()).collect()
    }
}

const MORE: &str = "a list of { certificate = \"PATH\", private_key = \"PATH\" }";
const MAX_THREADS: usize = 256;
/// Read once, so that a changed CPU limit does not look like a changed config.
static CORES: LazyLock<usize> =
    LazyLock::new(|| thread::available_parallelism().map_or(1, |cores| cores.get().min(MAX_THREADS)));
// A Redis value holds 512 MiB, and the body shares it with the rest of the event.
const MAX_BODY: u64 = 256 * MIB;
