//! The effective config as TOML, for `check --print`.
//!
//! Keeps true: it reads back as a config, and shows no secret: a reference by its name, a plain text not at all.

use std::fmt::{self, Display, Write};
use std::path::PathBuf;

use super::units::{show_duration, show_size};
use super::{Admin, At, Config, Edge, KeyPair, OnConflict, QueueKind, Source, SourceSecret, Store, Tls};
use crate::secret::SecretRef;

impl Config {
    /// Everything in force, defaults included, secrets redacted.
    pub fn redacted(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = write_gateway(&mut out, self);
        for source in &self.sources {
            let _ = write_source(&mut out, source);
        }
        out
    }
}

/// `text` as a TOML string.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// `name` as one part of a dotted TOML key.
pub(crate) fn quote_key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(bare) { name.to_owned() } else { quote(name) }
}

fn write_gateway(out: &mut String, config: &Config) -> fmt::Result {
    let Config {
        data_dir,
        edge,
        admin,
        redis,
        dedupe,
        queue,
        spool,
        audit,
        quarantine,
        sources: _,
        places: _,
        unparsed: _,
    } = config;
    writeln!(out, "data_dir = {}", quote(&data_dir.to_string_lossy()))?;
    write_edge(out, edge)?;
    write_admin(out, admin)?;
    writeln!(out, "\n[redis]")?;
    let urls: Vec<_> = redis.urls.iter().map(|url| redacted_url(&url.value)).collect();
    match &urls[..] {
        [one] => writeln!(out, "url = {one}")?,
        several => writeln!(out, "url = [{}]", several.join(", "))?,
    }
    writeln!(out, "cluster = {}", redis.cluster)?;
    if let Some(name) = &redis.sentinel {
        writeln!(out, "sentinel = {}", quote(name))?;
    }
    if let Some(path) = &redis.ca {
        writeln!(out, "ca = {}", quote(&path.to_string_lossy()))?;
    }
    writeln!(out, "\n[dedupe]")?;
    writeln!(out, "store = {}", quote(dedupe.store.name()))?;
    writeln!(out, "window = {}", quote(&show_duration(dedupe.window.value)))?;
    writeln!(out, "lease = {}", quote(&show_duration(dedupe.lease)))?;
    writeln!(out, "\n[queue]")?;
    writeln!(out, "kind = {}", quote(queue.kind.name()))?;
    writeln!(out, "name = {}", quote(&queue.name.value))?;
    writeln!(out, "partitions = {}", queue.partitions)?;
    writeln!(out, "max_backlog = {}", queue.max_backlog)?;
    writeln!(out, "retain = {}", quote(&show_duration(queue.retain)))?;
    if let Some(idle) = queue.ignore_idle_groups {
        writeln!(out, "ignore_idle_groups = {}", quote(&show_duration(idle)))?;
    }
    writeln!(out, "ack_replicas = {}", queue.ack_replicas)?;
    if !matches!(queue.kind, QueueKind::Embedded | QueueKind::Redis) {
        writeln!(out, "url = {}", redacted_url(&queue.url.value))?;
    }
    writeln!(out, "\n[spool]")?;
    writeln!(out, "enabled = {}", spool.enabled)?;
    writeln!(out, "max_bytes = {}", quote(&show_size(spool.max_bytes)))?;
    writeln!(out, "\n[audit]")?;
    writeln!(out, "retain = {}", quote(&show_duration(audit.retain)))?;
    writeln!(out, "max_bytes = {}", quote(&show_size(audit.max_bytes)))?;
    write_key(out, audit.key.as_ref())?;
    writeln!(out, "\n[quarantine]")?;
    writeln!(out, "enabled = {}", quarantine.enabled)?;
    writeln!(out, "max_bytes = {}", quote(&show_size(quarantine.max_bytes)))?;
    writeln!(out, "retain = {}", quote(&show_duration(quarantine.retain)))?;
    write_key(out, quarantine.key.as_ref())
}

fn write_key(out: &mut String, key: Option<&At<SecretRef>>) -> fmt::Result {
    match key {
        Some(key) => writeln!(out, "key = {}", reference(&key.value)),
        None => Ok(()),
    }
}

fn write_edge(out: &mut String, edge: &Edge) -> fmt::Result {
    writeln!(out, "\n[edge]")?;
    writeln!(out, "listen = {}", list(&edge.listen))?;
    writeln!(out, "threads = {}", edge.threads)?;
    writeln!(out, "max_body = {}", quote(&show_size(edge.max_body as u64)))?;
    writeln!(out, "max_connections = {}", edge.max_connections)?;
    writeln!(out, "max_connections_per_client = {}", edge.max_connections_per_client)?;
    writeln!(out, "max_in_flight = {}", edge.max_in_flight)?;
    writeln!(out, "max_in_flight_bytes = {}", quote(&show_size(edge.max_in_flight_bytes)))?;
    writeln!(out, "header_timeout = {}", quote(&show_duration(edge.header_timeout)))?;
    writeln!(out, "idle_timeout = {}", quote(&show_duration(edge.idle_timeout)))?;
    if let Some(path) = &edge.health_path {
        writeln!(out, "health_path = {}", quote(&path.value))?;
    }
    writeln!(out, "body_timeout = {}", quote(&show_duration(edge.body_timeout)))?;
    writeln!(out, "request_timeout = {}", quote(&show_duration(edge.request_timeout)))?;
    writeln!(out, "drain_timeout = {}", quote(&show_duration(edge.drain_timeout)))?;
    writeln!(out, "reuse_port = {}", edge.reuse_port)?;
    writeln!(out, "trusted_proxies = {}", list(&edge.trusted_proxies))?;
    writeln!(out, "proxy_protocol = {}", edge.proxy_protocol)?;
    write_tls(out, "edge.tls", edge.tls.as_ref())
}

fn write_admin(out: &mut String, admin: &Admin) -> fmt::Result {
    writeln!(out, "\n[admin]")?;
    writeln!(out, "listen = {}", quote(&admin.listen.to_string()))?;
    if let Some(token) = &admin.token {
        writeln!(out, "token = {}", reference(&token.value))?;
    }
    write_tls(out, "admin.tls", admin.tls.as_ref())
}

fn write_tls(out: &mut String, section: &str, tls: Option<&Tls>) -> fmt::Result {
    let Some(Tls { certificates, client_ca }) = tls else { return Ok(()) };
    let path = |path: &At<PathBuf>| quote(&path.value.to_string_lossy());
    let Some((first, more)) = certificates.split_first() else { return Ok(()) };
    writeln!(out, "\n[{section}]")?;
    writeln!(out, "certificate = {}", path(&first.certificate))?;
    writeln!(out, "private_key = {}", path(&first.private_key))?;
    if let Some(ca) = client_ca {
        writeln!(out, "client_ca = {}", path(ca))?;
    }
    for KeyPair { certificate, private_key } in more {
        writeln!(out, "\n[[{section}.more]]")?;
        writeln!(out, "certificate = {}", path(certificate))?;
        writeln!(out, "private_key = {}", path(private_key))?;
    }
    Ok(())
}

fn write_source(out: &mut String, source: &Source) -> fmt::Result {
    writeln!(out, "\n[sources.{}]", quote_key(&source.name.value))?;
    writeln!(out, "provider = {}", quote(&source.provider.value))?;
    writeln!(out, "path = {}", quote(&source.path.value))?;
    let secrets: Vec<_> = source.secrets.iter().map(|secret| dated(&secret.value)).collect();
    writeln!(out, "secrets = [{}]", secrets.join(", "))?;
    writeln!(out, "tolerance = {}", quote(&show_duration(source.tolerance)))?;
    writeln!(out, "allow_ips = {}", list(&source.allow_ips))?;
    let limits = [("rate_limit", source.rate_limit), ("client_rate_limit", source.client_rate_limit)];
    for (key, limit) in limits {
        if let Some(limit) = limit {
            writeln!(out, "{key} = {{ per_second = {}, burst = {} }}", limit.per_second, limit.burst)?;
        }
    }
    if let Some(token) = &source.path_token {
        writeln!(out, "path_token = {}", reference(&token.value))?;
    }
    if let Some(name) = &source.client_certificate {
        writeln!(out, "client_certificate = {}", quote(&name.value))?;
    }
    if let Some(until) = &source.observe_until {
        let names: Vec<_> = source.observe.iter().map(|reason| reason.label()).collect();
        writeln!(out, "observe = {}", list(&names))?;
        writeln!(out, "observe_until = {}", until.value)?;
    }
    if !source.webhook_origins.is_empty() {
        writeln!(out, "webhook_origins = {}", list(&source.webhook_origins))?;
    }
    if let Some(subscriptions) = &source.subscriptions {
        writeln!(out, "subscriptions = {}", list(&subscriptions.value))?;
    }
    if let Some(on_conflict) = source.on_conflict {
        writeln!(out, "on_conflict = {}", quote(on_conflict.name()))?;
    }
    if let Some(accept_v1) = &source.accept_v1 {
        writeln!(out, "accept_v1 = {}", accept_v1.value)?;
    }
    writeln!(out, "unauthenticated = {}", source.unauthenticated.as_ref().is_some_and(|flag| flag.value))
}

fn list<T: Display>(items: &[T]) -> String {
    let quoted: Vec<_> = items.iter().map(|item| quote(&item.to_string())).collect();
    format!("[{}]", quoted.join(", "))
}

/// A source's secret, with when it counts. A plain one is printed as the text that it is not, since only a table has dates.
fn dated(secret: &SourceSecret) -> String {
    let shown = reference(&secret.reference);
    let dates = [("not_before", secret.not_before), ("not_after", secret.not_after)];
    let dates: String = dates.iter().filter_map(|(key, at)| Some(format!(", {key} = {}", (*at)?))).collect();
    match shown.strip_suffix(" }") {
        Some(table) => format!("{table}{dates} }}"),
        None => shown,
    }
}

fn reference(secret: &SecretRef) -> String {
    match secret {
        SecretRef::Env(name) => format!("{{ env = {} }}", quote(name)),
        SecretRef::File(path) => format!("{{ file = {} }}", quote(&path.to_string_lossy())),
        SecretRef::Plain(_) => quote(REDACTED),
    }
}

/// A plain URL keeps its host, which one wants to see; whatever stands before the last `@` goes, even of a URL that
/// is not well formed, since that is where a password would be. Of a list, each is treated so.
fn redacted_url(url: &SecretRef) -> String {
    let SecretRef::Plain(secret) = url else { return reference(url) };
    let mut urls: Vec<String> = Vec::new();
    for piece in secret.expose().split(',') {
        match urls.last_mut().filter(|before| before.contains("://") && !piece.contains("://")) {
            // A comma inside a password does not begin another URL.
            Some(before) => *before = format!("{before},{piece}"),
            None => urls.push(piece.to_owned()),
        }
    }
    let shown: Vec<_> = urls.iter().map(|url| redacted_one(url)).collect();
    quote(&shown.join(","))
}

fn redacted_one(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    match rest.rsplit_once('@') {
        None => format!("{scheme}{rest}"),
        Some((_, host)) => format!("{scheme}{REDACTED}@{host}"),
    }
}

impl Store {
    pub(super) fn name(self) -> &'static str {
        match self {
            Store::Embedded => "embedded",
            Store::Redis => "redis",
        }
    }
}

impl QueueKind {
    /// As the config writes it.
    pub fn name(self) -> &'static str {
        match self {
            QueueKind::Embedded => "embedded",
            QueueKind::Redis => "redis",
            QueueKind::Nats => "nats",
            QueueKind::Amqp => "amqp",
            QueueKind::Kafka => "kafka",
        }
    }
}

impl OnConflict {
    fn name(self) -> &'static str {
        match self {
            OnConflict::Forward => "forward",
            OnConflict::Drop => "drop",
        }
    }
}

const REDACTED: &str = "<redacted>";
