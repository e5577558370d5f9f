//! What each key outside `[sources]` means: its default, its range, and how it goes with the others.
//!
//! Keeps true: the defaults are those of the documented config, and each stands once, here.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::read::{Off, Section};
use super::units::show_duration;
use super::{Admin, At, Audit, Config, Dedupe, Edge, Queue, QueueKind, Redis, Store};
use super::{item::Item, sources};
use crate::secret::{Secret, SecretRef};

/// The whole file.
pub(super) fn config(root: &Section<'_>, base: &Path) -> Config {
    let data_dir = root.string("data_dir", "a path");
    let edge = edge(&root.section("edge"));
    let admin = admin(&root.section("admin"), &edge);
    let redis = redis(&root.section("redis"), base);
    let dedupe_section = root.section("dedupe");
    let (dedupe, store) = dedupe(&dedupe_section);
    let queue_section = root.section("queue");
    let (queue, kind) = queue(&queue_section);
    pair(&dedupe_section, store, &queue_section, kind);
    spool(&root.section("spool"));
    let audit = audit(&root.section("audit"));
    root.later("quarantine", Off::Absent);
    root.later("tracing", Off::Absent);
    let sources = sources::sources(root, base);
    root.finish();
    let data_dir = data_dir.map_or(PathBuf::from("data"), |dir| PathBuf::from(dir.value));
    Config { data_dir: base.join(data_dir), edge, admin, redis, dedupe, queue, audit, sources }
}

fn edge(section: &Section<'_>) -> Edge {
    let listen: Vec<_> = section.addresses("listen").into_iter().map(|listen| listen.value).collect();
    let max_body = section.size("max_body", 1..=MAX_BODY, MIB);
    let max_connections = section.integer("max_connections", 1..=1_000_000).map_or(10_000, |n| n.value);
    let header_timeout = section.duration("header_timeout", SOME_TIME, 5 * SECOND).value;
    let body_timeout = section.duration("body_timeout", SOME_TIME, 10 * SECOND).value;
    let request_timeout = section.duration("request_timeout", SOME_TIME, 15 * SECOND);
    // No time at all is a sensible drain: stop at once.
    let drain_timeout = section.duration("drain_timeout", Duration::ZERO..=MAX_TIME, 20 * SECOND).value;
    section.later("trusted_proxies", Off::EmptyList);
    section.later("proxy_protocol", Off::False);
    section.later("reuse_port", Off::False);
    section.later("tls", Off::Absent);
    section.finish();
    if request_timeout.value < body_timeout {
        let (whole, body) = (show_duration(request_timeout.value), show_duration(body_timeout));
        let what = format!("{whole} for the whole request is shorter than body_timeout, {body}");
        section.warning(request_timeout.at, "request_timeout", what);
    }
    Edge {
        listen: if listen.is_empty() { vec![EDGE_LISTEN.into()] } else { listen },
        max_body: usize::try_from(max_body).unwrap_or(usize::MAX),
        max_connections: usize::try_from(max_connections).unwrap_or(usize::MAX),
        header_timeout,
        body_timeout,
        request_timeout: request_timeout.value,
        drain_timeout,
    }
}

fn admin(section: &Section<'_>, edge: &Edge) -> Admin {
    let listen = section.address("listen");
    section.finish();
    let listen = listen.unwrap_or(At { value: ADMIN_LISTEN.into(), at: section.at() });
    if listen.value.port() != 0 && edge.listen.contains(&listen.value) {
        section.problem(listen.at, "listen", format!("{} is taken by edge.listen", listen.value));
    }
    Admin { listen: listen.value }
}

fn redis(section: &Section<'_>, base: &Path) -> Redis {
    let url = section.item("url").and_then(|item| redis_url(&item, base));
    section.later("cluster", Off::False);
    section.finish();
    let default = || At { value: SecretRef::Plain(Secret::new(REDIS_URL)), at: section.at() };
    Redis { url: url.unwrap_or_else(default) }
}

fn redis_url(item: &Item<'_>, base: &Path) -> Option<At<SecretRef>> {
    if item.list().is_some() {
        item.not_yet("expected one URL or a secret");
        return None;
    }
    let Some(text) = item.as_text() else {
        return if item.is_table() {
            item.secret(base)
        } else {
            item.expected_secret("a redis:// URL or a secret")
        };
    };
    if text.starts_with("rediss://") {
        item.not_yet("expected redis://");
        return None;
    }
    // The text is not shown: it may hold a password.
    let Some(user) = redis_userinfo(text) else {
        item.problem(format!("expected a URL such as {REDIS_URL:?}, found another text"));
        return None;
    };
    if user.is_some() {
        item.warning(
            "a password in the config file; use { env = \"NAME\" } or { file = \"PATH\" } for the URL",
        );
    }
    Some(At { value: SecretRef::Plain(Secret::new(text)), at: item.at })
}

/// What stands before the `@` of `redis://[USER[:PASSWORD]@]HOST[:PORT][/DB]`; the outer `None` if it is no such URL.
fn redis_userinfo(url: &str) -> Option<Option<&str>> {
    let rest = url.strip_prefix("redis://")?;
    let (authority, db) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, address) = match authority.rsplit_once('@') {
        Some((user, address)) => (Some(user), address),
        None => (None, authority),
    };
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
        _ => (address, 6379_u16),
    };
    let host_only = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let name = host.strip_prefix('[').and_then(|v6| v6.strip_suffix(']'));
    let host_valid = name.map_or(!host.is_empty() && host.chars().all(host_only), |v6| {
        v6.parse::<std::net::Ipv6Addr>().is_ok()
    });
    let db_valid = db.is_empty() || db.parse::<u32>().is_ok();
    (host_valid && db_valid && port != 0).then_some(user)
}

fn dedupe(section: &Section<'_>) -> (Dedupe, Choice<Store>) {
    let present = section.item("store").is_some();
    let choices = [("embedded", Store::Embedded), ("redis", Store::Redis)];
    let store = section.one_of("store", &choices);
    let window = section.duration("window", SOME_TIME, 7 * DAY);
    section.finish();
    let value = store.as_ref().map_or(Store::Embedded, |store| store.value);
    (Dedupe { store: value, window }, Choice::new(present, store, Store::Embedded))
}

fn queue(section: &Section<'_>) -> (Queue, Choice<QueueKind>) {
    let kind = section.item("kind");
    let external = kind.as_ref().and_then(Item::as_text).filter(|kind| BROKERS.contains(kind));
    let choices = [("embedded", QueueKind::Embedded), ("redis", QueueKind::Redis)];
    let chosen = match (&kind, external) {
        (Some(item), Some(_)) => {
            item.not_yet("expected \"embedded\" or \"redis\"");
            None
        }
        _ => section.one_of("kind", &choices),
    };
    let name = section.string("name", "a name").unwrap_or(At { value: QUEUE_NAME.into(), at: section.at() });
    check_name(section, &name);
    let partitions = section.integer("partitions", 1..=4096);
    let max_backlog = section.integer("max_backlog", 1..=i64::MAX as u64).map_or(1_000_000, |n| n.value);
    let retain = section.duration("retain", SOME_TIME, 7 * DAY).value;
    section.later("ack_replicas", Off::Zero);
    if let Some(url) = section.item("url").filter(|_| external.is_none()) {
        url.warning("no effect on this kind of queue; only for nats, amqp, kafka");
    }
    section.finish();
    let choice = Choice::new(kind.is_some(), chosen, QueueKind::Embedded);
    if let (Some(n), Some(QueueKind::Embedded)) = (partitions.as_ref().filter(|n| n.value > 1), choice.value)
    {
        section.warning(n.at, "partitions", "no effect on the embedded queue; only for redis");
    }
    let kind = choice.value.unwrap_or(QueueKind::Embedded);
    let partitions = partitions.and_then(|n| u32::try_from(n.value).ok()).unwrap_or(1);
    (Queue { kind, name: name.value, partitions, max_backlog, retain }, choice)
}

fn check_name(section: &Section<'_>, name: &At<String>) {
    let problem = |what: &str| section.problem(name.at, "name", what);
    if name.value.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return problem("white space and control characters are not allowed in the name of a queue");
    }
    let mut rest = name.value.as_str();
    while let Some(brace) = rest.find(['{', '}']) {
        let placeholder = PLACEHOLDERS.iter().find_map(|known| rest[brace..].strip_prefix(known));
        match placeholder {
            Some(after) => rest = after,
            None => return problem("unknown placeholder; allowed: {provider}, {source}, {type}"),
        }
    }
}

/// Dedupe and enqueue are one step only where both are in one store.
fn pair(dedupe: &Section<'_>, store: Choice<Store>, queue: &Section<'_>, kind: Choice<QueueKind>) {
    let (Some(store_is), Some(kind_is)) = (store.value, kind.value) else { return };
    let (store_word, kind_word) = match (store_is, kind_is) {
        (Store::Embedded, QueueKind::Embedded) | (Store::Redis, QueueKind::Redis) => return,
        (Store::Embedded, QueueKind::Redis) => ("embedded", "redis"),
        (Store::Redis, QueueKind::Embedded) => ("redis", "embedded"),
    };
    let what = format!(
        "dedupe.store = \"{store_word}\" does not go with queue.kind = \"{kind_word}\"; allowed: embedded with \
         embedded, redis with redis"
    );
    match (kind.at, store.at) {
        (Some(at), _) => queue.problem(at, "kind", what),
        (None, at) => dedupe.problem(at.unwrap_or(dedupe.at()), "store", what),
    }
}

/// Nothing to return: this version has no spool, and only takes being told to have none.
fn spool(section: &Section<'_>) {
    let enabled = section.item("enabled");
    let flag = section.flag("enabled");
    section.size("max_bytes", 1..=i64::MAX as u64, 0);
    section.finish();
    match (enabled, flag) {
        (None, _) if section.is_present() => section.problem(section.at(), "enabled", SPOOL_OFF),
        (Some(item), Some(At { value: true, .. })) => item.problem(SPOOL_OFF),
        _ => {}
    }
}

fn audit(section: &Section<'_>) -> Audit {
    let retain = section.duration("retain", SOME_TIME, 90 * DAY).value;
    let max_bytes = section.size("max_bytes", 1..=i64::MAX as u64, 1 << 30);
    section.later("key", Off::Absent);
    section.later("ship", Off::Absent);
    section.finish();
    Audit { retain, max_bytes }
}

/// One half of the pair: `value` is `None` where it was invalid, `at` where it is the default.
#[derive(Clone, Copy)]
struct Choice<T> {
    value: Option<T>,
    at: Option<super::Position>,
}

impl<T> Choice<T> {
    fn new(present: bool, chosen: Option<At<T>>, default: T) -> Choice<T> {
        match chosen {
            Some(At { value, at }) => Choice { value: Some(value), at: Some(at) },
            None if present => Choice { value: None, at: None },
            None => Choice { value: Some(default), at: None },
        }
    }
}

/// From the shortest that can be written to what no arithmetic on times overflows with.
pub(super) const SOME_TIME: RangeInclusive<Duration> = Duration::from_millis(1)..=MAX_TIME;
/// A second.
pub(super) const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
const MAX_TIME: Duration = Duration::from_secs(3650 * 86_400);
const MIB: u64 = 1 << 20;
// A Redis value holds 512 MiB, and the body shares it with the rest of the event.
const MAX_BODY: u64 = 256 * MIB;
const EDGE_LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 8080);
const ADMIN_LISTEN: ([u8; 4], u16) = ([127, 0, 0, 1], 9090);
const REDIS_URL: &str = "redis://127.0.0.1:6379/0";
const QUEUE_NAME: &str = "hookgate.events";
const PLACEHOLDERS: [&str; 3] = ["{provider}", "{source}", "{type}"];
const BROKERS: [&str; 3] = ["nats", "amqp", "kafka"];
const SPOOL_OFF: &str = "not yet in this version; set enabled = false";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_url_is_known_by_its_form() {
        for url in [REDIS_URL, "redis://cache", "redis://cache:1", "redis://cache/15", "redis://[::1]:6379/0"]
        {
            assert_eq!(redis_userinfo(url), Some(None), "{url}");
        }
        assert_eq!(redis_userinfo("redis://a:b@c@host/0"), Some(Some("a:b@c")));
        assert_eq!(redis_userinfo("redis://:@[::1]"), Some(Some(":")));
        for url in [
            "",
            "redis://",
            "redis:///0",
            "redis://h:0",
            "redis://h:x",
            "redis://h/x",
            "redis://h h",
            "http://h",
        ] {
            assert_eq!(redis_userinfo(url), None, "{url}");
        }
    }
}
