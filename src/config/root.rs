//! The whole config: its sections, the checks across sections, and the secrets and files that it names.
//!
//! Keeps true: a value that has only moved in the file is no change. Every file that a value names is listed.

use std::path::{Path, PathBuf};

use super::definitions::{Definition, definitions};
use super::edge::{Admin, Edge};
use super::keys::{self, FullKey, KeyDescription, Reference, Target, table};
use super::kinds::section;
use super::print::Shown;
use super::section::Section;
use super::sources::{self, Source, named_sources};
use super::stores::{Audit, Dedupe, Quarantine, Queue, QueueKind, Redis, Spool, Store};
use super::subscription::{self, Subscriptions};
use super::traces::Tracing;
use super::units::Unit;
use super::values::folder;
use super::{KeyPositions, Located, UnparsedLines, http_queue, print};
use crate::config::secret::SecretRef;

table! {
    /// The whole config, defaults filled in, relative paths resolved against the config file's folder.
    pub struct Config, checked by check_config {
        /// Where `hookgate.db` and the reject log are kept. Made with mode 0700 if absent.
        data_dir: PathBuf = folder("data"), restart;
        /// What providers reach.
        edge: Edge = section(), by_key;
        /// Metrics, health and the console. Keep it off the public network.
        admin: Admin = section(), by_key;
        /// The server for `dedupe` and `queue`. It is read only if one of them is in Redis.
        redis: Redis = section(), by_key;
        /// Recognizes an event that was delivered before.
        dedupe: Dedupe = section(), by_key;
        /// The queue that takes the events.
        queue: Queue = section(), by_key;
        /// Takes events while the queue is away.
        spool: Spool = section(), by_key;
        /// The reject log, in `data_dir/audit`. `deploy/reject-log` has configs for rsyslog, Vector and Fluent Bit, to
        /// read it.
        audit: Audit = section(), by_key;
        /// Keeps refused deliveries that may be genuine.
        quarantine: Quarantine = section(), by_key;
        /// The subscriptions that sources declare.
        subscriptions: Subscriptions = section(), by_key;
        /// Sends spans of requests to an OpenTelemetry collector.
        tracing: Tracing = section(), by_key;
        /// Providers that are not built in, and changed ones.
        providers: Vec<Definition> = definitions(), by_key;
        /// One table for each source. Its name appears in metrics, the reject log and events.
        sources: Vec<Source> = named_sources(), by_key;
        besides {
            /// The position of each key outside `[sources]`.
            key_positions: KeyPositions,
            /// The lines of the file that did not parse.
            unparsed_lines: UnparsedLines,
        }
    }
}

impl Config {
    /// The documentation of every key, in the order of the rows.
    pub fn keys() -> Vec<KeyDescription> {
        let mut keys = Vec::new();
        keys::describe::<Config>("", &mut keys);
        keys
    }

    /// The keys outside `[sources]` whose values differ from those of `before`.
    pub fn changes(&self, before: &Config) -> Vec<FullKey> {
        let mut changes = Vec::new();
        keys::changes(self, before, "", &mut changes);
        changes
    }

    /// The effective config as TOML, with defaults and with secrets redacted.
    pub fn redacted(&self) -> String {
        let mut config = self.clone();
        config.sources.iter_mut().for_each(subscription::hide_token);
        let mut keys = keys::show(&config);
        for (section, shown) in &mut keys {
            if section == "queue"
                && let Shown::Table(keys) = shown
            {
                keys.retain(|(key, _)| http_queue::takes(self.queue.kind, key));
            }
        }
        print::document(keys)
    }

    /// The secrets and files that it names, used or not.
    pub fn references(&self) -> Vec<Reference<'_>> {
        let mut references = Vec::new();
        keys::references(self, "", &mut references);
        references
    }

    /// The files that its values name: secrets, certificates and their keys.
    pub fn files(&self) -> Vec<&Path> {
        self.references().iter().filter_map(|reference| reference.target.file()).collect()
    }

    /// The secrets that the gateway reads to serve by this config. A URL that is written out is not one of them.
    pub fn secrets_in_use(&self) -> Vec<&SecretRef> {
        let used = self.references().into_iter().filter(|reference| self.uses(&reference.key.name));
        used.filter_map(|reference| match reference.target {
            Target::Secret(SecretRef::Plain(_))
                if ["redis.url", "queue.url", "queue.routes.url"].contains(&&*reference.key.name) =>
            {
                None
            }
            Target::Secret(secret) => Some(secret),
            Target::File(_) | Target::PrivateKey(_) => None,
        })
        .collect()
    }

    /// Whether the gateway uses this key: `redis.*` only if something is in Redis, `queue.url` only if events
    /// go to a broker, or to an HTTP service there.
    pub fn uses(&self, key: &str) -> bool {
        let redis = self.dedupe.store == Store::Redis || self.queue.kind == QueueKind::Redis;
        let url = self.queue.kind.is_claimed() && !self.queue.has_no_url();
        (redis || !key.starts_with("redis.")) && (url || key != "queue.url")
    }

    /// The URLs of the servers that this config uses, each with its key.
    pub fn urls_in_use(&self) -> Vec<(&'static str, &Located<SecretRef>)> {
        let urls =
            self.redis.url.iter().map(|url| ("redis.url", url)).chain([("queue.url", &self.queue.url)]);
        urls.filter(|(key, _)| self.uses(key)).collect()
    }
}

fn check_config(config: &mut Config, root: &Section<'_>) {
    let Config { data_dir, edge, admin, dedupe, queue, spool, sources, .. } = config;
    *data_dir = root.base().join(&data_dir);
    let section = root.section("admin");
    if admin.listen.port() != 0 && edge.listen.contains(&admin.listen) {
        let what = format!("{} is taken by edge.listen", admin.listen);
        section.problem(section.position_of("listen"), "listen", what);
    }
    check_pair(dedupe, queue, root);
    http_queue::check_deadlines(queue, edge.request_timeout, root);
    let section = root.section("spool");
    if let Some(at) = section.given_at("max_bytes")
        && spool.enabled
        && spool.max_bytes / 2 < edge.max_body as u64
    {
        let [room, body] = [spool.max_bytes, edge.max_body as u64].map(|size| Unit::Size.show(size));
        let what = format!("{room} has no room for two events of edge.max_body, {body}");
        section.warning(at, "max_bytes", what);
    }
    sources::check_all(sources, root);
    if let Some(path) = &edge.health_path {
        sources::check_health_path(path, sources, root);
    }
    subscription::check_all(config, root);
}

/// Dedupe and enqueue are one step only if one store does both. Brokers and HTTP services work with either
/// dedupe store.
fn check_pair(dedupe: &Dedupe, queue: &Queue, root: &Section<'_>) {
    let (store, kind) = (dedupe.store, queue.kind);
    let (of_store, of_kind) = (root.section("dedupe"), root.section("queue"));
    let known = !of_store.is_invalid("store") && !of_kind.is_invalid("kind");
    if !known || kind.is_claimed() || store.label() == kind.label() {
        return;
    }
    let what = format!(
        "dedupe.store = \"{}\" does not go with queue.kind = \"{}\"; allowed: embedded with embedded, redis with \
         redis, either with nats, amqp, kafka or http",
        store.label(),
        kind.label()
    );
    match of_kind.given_at("kind") {
        Some(at) => of_kind.problem(at, "kind", what),
        None => of_store.problem(of_store.position_of("store"), "store", what),
    }
}
