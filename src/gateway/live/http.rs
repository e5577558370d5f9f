//! Checks HTTP services: each URL without placeholders has something to connect to.
//!
//! Keeps true: it sends no request. No finding shows more of a URL than host and port.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{CONNECT, Finding, LocatedFinding, Setting};
use crate::config::{Problem, Queue};
use crate::durable::broker::http::Settings;

/// Checks the URLs of this queue.
pub(super) async fn check(queue: &Queue) -> Vec<LocatedFinding> {
    let unreachable = |what: String| Finding::new(Setting::QueueUnreachable, what);
    let settings = match Settings::of(queue) {
        Ok(settings) => settings,
        Err(problems) => {
            let located = |Problem { at, what, .. }| LocatedFinding {
                key: "queue.url",
                at,
                finding: unreachable(what),
            };
            return problems.into_iter().map(located).collect();
        }
    };
    let (tls, mut found) = (settings.tls(), Vec::new());
    let mut checked = Vec::new();
    for target in settings.targets() {
        let Some(url) = target.url.fixed().and_then(|url| reqwest::Url::parse(url).ok()) else { continue };
        let (host, port) =
            (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
        let (host, is_tls) = (host.trim_matches(['[', ']']).to_owned(), url.scheme() == "https");
        if checked.contains(&(host.clone(), port)) {
            continue;
        }
        checked.push((host.clone(), port));
        let opened = tokio::time::timeout(CONNECT, connect(&host, port, is_tls.then(|| tls.clone()))).await;
        if let Err(why) =
            opened.unwrap_or_else(|_| Err(format!("no connection within {} s", CONNECT.as_secs())))
        {
            let finding = unreachable(format!("the HTTP service at {host}:{port} cannot be reached: {why}"));
            found.push(LocatedFinding { key: target.key, at: target.at, finding });
        }
    }
    found
}

async fn connect(host: &str, port: u16, tls: Option<Arc<ClientConfig>>) -> Result<(), String> {
    let stream = TcpStream::connect((host, port)).await.map_err(|why| why.to_string())?;
    let Some(tls) = tls else { return Ok(()) };
    let name = ServerName::try_from(host.to_owned()).map_err(|why| why.to_string())?;
    let connected = TlsConnector::from(tls).connect(name, stream).await;
    connected.map(drop).map_err(|why| format!("{why}; queue.ca names the authorities to trust"))
}
