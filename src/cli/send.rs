//! `hookgate send`: signs a sample or a file as the provider would, and posts it.
//!
//! Keeps true: no error shows a URL's path, which may hold a token. Over TLS it sends nothing to an untrusted server.

pub(super) mod client;
mod sender;
pub(super) mod trust;
mod types;

use std::ffi::OsStr;
use std::fmt::Display;
use std::io;
use std::path::PathBuf;

use clap::builder::{RangedU64ValueParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, Args, Command, ValueEnum};
use hyper::Uri;
use rustls::ClientConfig;
use serde_json::json;

use super::terminal::safe;
use super::{CommandResult, FAILED, Failure, Global, OK, block_on, check, print_line};
use crate::base::file;
use crate::config::Config;
use crate::gateway::{self, Loaded};
use crate::observe::metrics::Metrics;
use client::reachable;
pub(super) use sender::{Answer, Sender, Signed};
use trust::Trust;

#[derive(Args)]
pub(super) struct Send {
    /// The configured source that receives the delivery.
    #[arg(long, value_name = "NAME")]
    source: String,
    /// The sample's event type, by the provider's or the canonical name. `help` lists the types and sends nothing.
    #[arg(long, value_name = "TYPE")]
    event: Option<String>,
    /// Send this file unchanged instead of a sample.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["event", "count"])]
    body: Option<PathBuf>,
    /// How many distinct events to send.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    count: usize,
    /// The gateway's URL; without a path, the source's path is added. By default the listener of the config; if that
    /// has TLS, it must show the certificate that the config names.
    #[arg(long, value_parser = UrlParser)]
    url: Option<Uri>,
    /// For an https:// URL: the authorities to trust instead of the system's, or the server's certificate itself (PEM).
    #[arg(long, value_name = "FILE", requires = "url")]
    ca: Option<PathBuf>,
    /// The client certificate to show if the server requests one, followed by its chain (PEM).
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// The key of that certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Tamper with the delivery.
    #[arg(long, value_enum)]
    tamper: Option<Tamper>,
}

/// How to tamper with a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Tamper {
    /// Change one character of the body after signing.
    Body,
    /// Change one character of the signature.
    Signature,
    /// Sign with a timestamp long past.
    Timestamp,
}

/// Parses `--url`. Its errors do not show the URL, since the path may hold a token.
#[derive(Clone)]
struct UrlParser;

impl TypedValueParser for UrlParser {
    type Value = Uri;

    fn parse_ref(&self, send: &Command, _: Option<&Arg>, url: &OsStr) -> Result<Uri, clap::Error> {
        let wrong =
            |what: &str| send.clone().error(ErrorKind::ValueValidation, format!("--url is invalid: {what}"));
        let url: Uri = url.to_string_lossy().parse().map_err(|why| wrong(&format!("{why}")))?;
        let whole = url.authority().map_or("", |authority| authority.as_str());
        if whole.contains('@') {
            return Err(wrong("it names a user, which hookgate does not use; remove the part before the @"));
        }
        if url.port_u16().is_none() && whole.trim_end_matches(':') != url.host().unwrap_or_default() {
            return Err(wrong("invalid port"));
        }
        Ok(url)
    }
}

pub(super) fn run(global: &Global, send: &Send) -> CommandResult {
    let path = global.config_path()?;
    let shown = path.display().to_string();
    let Loaded { config, rules, mut problems, .. } = match gateway::load(path, &Metrics::new()?, None) {
        Ok(loaded) => loaded,
        Err(unreadable) => return Err(Failure(unreadable.problem().render(&shown))),
    };
    problems.retain(|problem| !problem.warning);
    if !problems.is_empty() {
        check::print(&shown, &problems, global.json)?;
        return Ok(FAILED);
    }
    let routes = rules.routes;
    let mut sources = routes.sources();
    let Some(source) = sources.find(|source| *source.name == *send.source) else {
        let names: Vec<&str> = routes.sources().map(|source| &*source.name).collect();
        return Err(Failure(format!(
            "no source {:?} in the config; it has: {}",
            send.source,
            names.join(", ")
        )));
    };
    match send.event.as_deref() {
        Some(types::HELP) => {
            types::list(source.provider, global.json)?;
            return Ok(OK);
        }
        Some(asked) => types::warn_of_unknown(source.provider, asked),
        None => {}
    }
    let (base, tls) = send.target(&config)?;
    let public_url = config.edge.public_url.as_ref().map_or("", |url| &url.value);
    let sender = Sender::new(source.clone(), &base, public_url, tls)?;
    block_on(deliver(&sender, send, global.json))
}

impl Send {
    /// The base URL, and the TLS config for an https URL.
    fn target(&self, config: &Config) -> Result<(Uri, Option<ClientConfig>), Failure> {
        let (base, trust) = match (&self.url, &config.edge.tls) {
            (Some(url), _) if url.scheme_str() == Some("https") => {
                (url.clone(), Some(self.ca.as_deref().map_or(Trust::System, Trust::File)))
            }
            (Some(url), _) => (url.clone(), None),
            (None, Some(tls)) => {
                (local_url("https", config)?, Some(Trust::Own { key: "edge.tls", tls, advice: OTHER_SERVER }))
            }
            (None, None) => (local_url("http", config)?, None),
        };
        let own = self.certificate.as_deref().zip(self.key.as_deref());
        if trust.is_none() && (self.ca.is_some() || own.is_some()) {
            return Err(Failure("--ca and --certificate are for TLS; the URL is not https://".to_owned()));
        }
        Ok((base, trust.map(|trust| trust.client(own)).transpose()?))
    }
}

async fn deliver(sender: &Sender, send: &Send, json: bool) -> CommandResult {
    let mut code = OK;
    let read = |path: &PathBuf| {
        let named = |why: &dyn Display| Failure(format!("cannot read {}: {why}", path.display()));
        file::read(path, MAX_BODY).map_err(|why| named(&why))
    };
    let file = send.body.as_ref().map(read).transpose()?;
    for _ in 0..send.count {
        let mut sample = sender.sample(send.event.as_deref());
        if let Some(body) = &file {
            sample.body.clone_from(body);
        }
        let answer = sender.post(sender.sign(sample, send.tamper)?).await?;
        if !answer.status.is_success() {
            code = FAILED;
        }
        let shown = if json {
            let body = serde_json::from_str(&answer.body).unwrap_or(serde_json::Value::String(answer.body));
            json!({ "status": answer.status.as_u16(), "body": body }).to_string()
        } else {
            safe(&format!("{} {}", answer.status.as_u16(), answer.body))
        };
        if !print_line(&mut io::stdout(), &shown)? {
            break;
        }
    }
    Ok(code)
}

const OTHER_SERVER: &str = " Give --url and --ca to trust another";
/// The largest `edge.max_body` that a config can have.
const MAX_BODY: u64 = 1 << 30;

/// The URL of the first edge listener for a client on this machine.
fn local_url(scheme: &str, config: &Config) -> Result<Uri, Failure> {
    let listen = config.edge.listen.first();
    let address = listen.filter(|address| address.port() != 0).ok_or_else(|| {
        let what = "the config lets the system choose its port; give --url";
        Failure(format!("{what} {scheme}://HOST:PORT"))
    })?;
    Ok(format!("{scheme}://{}", reachable(*address)).parse()?)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Cli;

    #[test]
    fn an_invalid_url_is_wrong_usage_and_is_not_shown() {
        for (url, said) in [
            ("https://h/hooks/tok/hunter2 token", "invalid uri character"),
            ("http://h:port/hunter2", "invalid"),
            ("http://user:hunter2@127.0.0.1:1", "user"),
            ("http://hunter2@[::1]/", "user"),
        ] {
            let arguments = ["hookgate", "send", "--source", "basiq", "--url", url];
            let error = Cli::try_parse_from(arguments).err().unwrap();
            let text = error.to_string();
            assert_eq!(error.exit_code(), 2, "{text}");
            assert!(text.contains("--url") && text.contains(said) && !text.contains("hunter2"), "{text}");
        }
    }
}
