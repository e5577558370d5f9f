//! The keys of `[queue]` that only HTTP services have.
//!
//! Keeps true: every event has a URL. A key that has no effect on a kind of queue is an error and not ignored.

use std::time::Duration;

use super::item::Item;
use super::keys::table;
use super::kinds::ValueKind;
use super::print::{Shown, reference};
use super::section::Section;
use super::stores::{Queue, QueueKind};
use super::units::show_duration;
use super::urls::http_url;
use super::values::{POSITIVE_TIME, SECOND, duration, one_secret, text};
use super::{Located, Position};
use crate::config::secret::SecretRef;

table! {
    /// An item of `queue.routes`.
    pub struct HttpRoute, checked by check_route {
        /// The types of the events that go there. `*` stands for any characters, dots too. Required.
        r#type: Located<String> = text("a type such as \"invoice.*\"", "").located(), restart, "\"invoice.*\"";
        /// Where they go, as in `queue.url`. Required.
        url: Located<SecretRef> = http_url(), restart, "\"http://127.0.0.1:3000/invoices\"";
        /// As `queue.secret`, which it replaces.
        secret: Vec<Located<SecretRef>> = signing_secrets(), restart, "{ env = \"INVOICES_SECRET\" }";
        /// As `queue.deadline`, which it replaces.
        deadline: Option<Located<Duration>> = duration(POSITIVE_TIME, SECOND).located().optional(), restart, "\"1s\"";
    }
}

impl Queue {
    /// How long a provider waits for the services' answers, where a route has no deadline of its own.
    pub fn http_deadline(&self) -> Duration {
        self.deadline.as_ref().map_or(SECOND, |deadline| deadline.value)
    }

    /// Whether `queue.url` is absent, with no default.
    pub fn has_no_url(&self) -> bool {
        matches!(&self.url.value, SecretRef::Plain(url) if url.expose().is_empty())
    }
}

/// A secret, or a list of two.
pub(super) fn signing_secrets() -> ValueKind<Vec<Located<SecretRef>>> {
    let read = |item: &Item<'_>| {
        let Some(items) = item.list() else { return Some(vec![item.secret(&[])?]) };
        if items.is_empty() || items.len() > MAX_SECRETS {
            return item.expected_secret("a secret, or a list of two while one replaces the other");
        }
        Some(items.iter().filter_map(|item| item.secret(&[])).collect())
    };
    let show = |secrets: &Vec<Located<SecretRef>>| {
        let shown: Vec<_> = secrets.iter().map(|secret| reference(&secret.value)).collect();
        match shown.as_slice() {
            [] => None,
            [one] => Some(Shown::Value(one.clone())),
            several => Some(Shown::Value(format!("[{}]", several.join(", ")))),
        }
    };
    ValueKind::new("a secret, or a list of two", |_, _| Vec::new(), read, show)
        .naming(|secrets, key, found| secrets.iter().for_each(|secret| one_secret(secret, key, found)))
}

/// Checks the keys of an http queue.
pub(super) fn check(queue: &Queue, section: &Section<'_>) {
    refuse_keys(QueueKind::Http, section);
    let takes_all = queue.routes.iter().any(|route| route.r#type.value == "*");
    if section.item("url").is_none() && !takes_all && !section.is_invalid("routes") {
        section.missing(
            "url",
            "missing; expected a URL for the events that fit no route, or a route with type = \"*\"",
        );
    }
    let mut all_before: Option<Position> = None;
    for route in &queue.routes {
        if all_before.is_some() {
            section.warning(
                route.r#type.at,
                "routes",
                "no event comes to this route: the one with type = \"*\" before it takes all",
            );
        }
        if route.r#type.value == "*" {
            all_before = Some(route.r#type.at);
        }
    }
}

/// Refuses the keys that have no effect on a queue of this kind.
pub(super) fn refuse_keys(kind: QueueKind, section: &Section<'_>) {
    for key in HTTP_ALONE.iter().chain(OTHERS_ALONE) {
        if let Some(item) = section.item(key)
            && !takes(kind, key)
        {
            let of = if kind == QueueKind::Http { "not for http" } else { "only for http" };
            let what = format!("a queue of kind {} has no such key ({of}); leave it out", kind.label());
            section.problem(item.key_at, key, what);
        }
    }
}

/// Whether a queue of this kind may have this key.
pub(super) fn takes(kind: QueueKind, key: &str) -> bool {
    match kind {
        QueueKind::Http => !OTHERS_ALONE.contains(&key),
        QueueKind::Embedded | QueueKind::Redis | QueueKind::Nats | QueueKind::Amqp | QueueKind::Kafka => {
            !HTTP_ALONE.contains(&key)
        }
    }
}

/// A provider that waits longer than `edge.request_timeout` gets 503, and never the answer from the spool.
pub(super) fn check_deadlines(queue: &Queue, request_timeout: Duration, root: &Section<'_>) {
    if queue.kind != QueueKind::Http {
        return;
    }
    let section = root.section("queue");
    let own = queue.deadline.clone().unwrap_or(Located { value: queue.http_deadline(), at: section.at() });
    let of_routes = queue.routes.iter().filter_map(|route| Some(("routes", route.deadline.clone()?)));
    for (key, deadline) in [("deadline", own)].into_iter().chain(of_routes) {
        if deadline.value >= request_timeout {
            let [deadline_shown, whole] = [deadline.value, request_timeout].map(show_duration);
            let what = format!("a deadline of {deadline_shown} is not below edge.request_timeout, {whole}");
            section.problem(deadline.at, key, what);
        }
    }
}

fn check_route(_: &mut HttpRoute, section: &Section<'_>) {
    section.require("type", "a type such as \"invoice.*\", or \"*\"");
    section.require("url", "a URL such as \"http://127.0.0.1:3000/invoices\"");
}

pub(super) const ROUTES: &str = "a list of { type = \"TYPE\", url = \"URL\" }";
const MAX_SECRETS: usize = 2;
const HTTP_ALONE: &[&str] = &["routes", "secret", "authorization", "ca", "deadline"];
const OTHERS_ALONE: &[&str] =
    &["name", "partitions", "max_backlog", "retain", "ignore_idle_groups", "ack_replicas"];
