//! `hookgate health`: asks the admin listener of the configured gateway whether it is ready, for container health checks.
//!
//! Keeps true: it sends no token, since the probes ask for none. A gateway that went on serving after it refused a bad
//! config is asked too, unless that config breaks `[admin]`.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hyper::StatusCode;
use rustls::ClientConfig;
use serde_json::{Value, json};

use super::send::client::{answer, client, reachable};
use super::send::trust::Trust;
use super::terminal::safe;
use super::{CommandResult, FAILED, Failure, Global, OK, block_on, print_line};
use crate::config::{self, Admin, Config};
use crate::net::tls;

#[derive(Args)]
pub(super) struct Health {
    /// Ask whether the process serves (/livez), not whether it would take an event now (/readyz).
    #[arg(long)]
    live: bool,
    /// The client certificate to show if `admin.tls.client_ca` requests one, followed by its chain (PEM).
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// The key of that certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
}

pub(super) fn run(global: &Global, health: &Health) -> CommandResult {
    let admin = admin(global)?;
    if admin.listen.port() == 0 {
        let what = "admin.listen: the config lets the system choose the port, so its probes cannot be found";
        return Err(Failure(what.to_owned()));
    }
    let scheme = if admin.tls.is_some() { "https" } else { "http" };
    let base = format!("{scheme}://{}", reachable(admin.listen));
    let url = format!("{base}{}", if health.live { "/livez" } else { "/readyz" });
    let client = client(health.tls(&admin)?)?;
    let (status, body) = block_on(async {
        let failed = |why: String| Failure(format!("no answer from the admin listener at {base}: {why}"));
        let late = || failed(format!("it took longer than {} s", ANSWERS_WITHIN.as_secs()));
        let answered = tokio::time::timeout(ANSWERS_WITHIN, answer(client.get(&url))).await;
        let answered = answered.map_err(|_| late())?.map_err(failed)?;
        Ok((answered.status(), String::from_utf8_lossy(answered.body()).into_owned()))
    })?;
    let shown = if global.json {
        let body = serde_json::from_str(&body).unwrap_or(Value::String(body));
        json!({ "status": status.as_u16(), "body": body }).to_string()
    } else {
        safe(&format!("{} {}", status.as_u16(), body.trim_end()))
    };
    print_line(&mut io::stdout(), &shown)?;
    Ok(if status == StatusCode::OK { OK } else { FAILED })
}

/// The `[admin]` of the config. Other sections may have errors: a running gateway refuses such a config, and serves the
/// one before it.
fn admin(global: &Global) -> Result<Admin, Failure> {
    let path = global.config_path()?;
    let shown = path.display().to_string();
    let loaded = config::load(path);
    let (Config { admin, .. }, problems) =
        loaded.map_err(|unreadable| Failure(unreadable.problem().render(&shown)))?;
    let breaks = |key: &str| key.is_empty() || key == "admin" || key.starts_with("admin.");
    match problems.iter().find(|problem| !problem.warning && breaks(&problem.key)) {
        Some(problem) => Err(Failure(problem.render(&shown))),
        None => Ok(admin),
    }
}

impl Health {
    fn tls(&self, admin: &Admin) -> Result<ClientConfig, Failure> {
        let own = self.certificate.as_deref().zip(self.key.as_deref());
        match &admin.tls {
            Some(tls) => Trust::Own { key: "admin.tls", tls, advice: "" }.client(own),
            None if own.is_some() => {
                Err(Failure("--certificate is for TLS; the config has no [admin.tls]".to_owned()))
            }
            None => tls::client::of_none().map_err(Failure),
        }
    }
}

/// A health check that waits longer has failed.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
