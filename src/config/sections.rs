//! What each key outside `[sources]` means: its default, its range, and how it goes with the others.
//!
//! Keeps true: the defaults are those of the documented config, and each stands once, here.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::read::Section;
use super::units::show_size;
use super::{At, Audit, Config, Dedupe, Quarantine, Queue, QueueKind, Spool, Store};
use super::{Places, Unparsed, edge, servers, sources};
use crate::queue_name::QueueName;

/// The whole file.
pub(super) fn config(root: &Section<'_>, base: &Path) -> Config {
    let data_dir = root.string("data_dir", "a path");
    let edge = edge::edge(&root.section("edge"), base);
    let admin = edge::admin(&root.section("admin"), &edge, base);
    let redis = servers::redis(&root.section("redis"), base);
    let dedupe_section = root.section("dedupe");
    let (dedupe, store) = dedupe(&dedupe_section);
    let queue_section = root.section("queue");
    let (queue, kind) = queue(&queue_section, base);
    pair(&dedupe_section, store, &queue_section, kind);
    let spool = spool(&root.section("spool"), edge.max_body);
    let audit = audit(&root.section("audit"), base);
    let quarantine = quarantine(&root.section("quarantine"), base);
    root.later("tracing");
    let sources = sources::sources(root, base);
    if let Some(path) = &edge.health_path {
        sources::check_health_path(root, path, &sources);
    }
    root.finish();
    let data_dir = data_dir.map_or(PathBuf::from("data"), |dir| PathBuf::from(dir.value));
    Config {
        data_dir: base.join(data_dir),
        edge,
        admin,
        redis,
        dedupe,
        queue,
        spool,
        audit,
        quarantine,
        sources,
        places: Places::default(),
        unparsed: Unparsed::default(),
    }
}

fn dedupe(section: &Section<'_>) -> (Dedupe, Choice<Store>) {
    let present = section.item("store").is_some();
    let choices = [("embedded", Store::Embedded), ("redis", Store::Redis)];
    let store = section.one_of("store", &choices);
    let window = section.duration("window", SOME_TIME, 7 * DAY);
    let lease = section.duration("lease", LEASE, 10 * SECOND).value;
    section.finish();
    let value = store.as_ref().map_or(Store::Embedded, |store| store.value);
    (Dedupe { store: value, window, lease }, Choice::new(present, store, Store::Embedded))
}

fn queue(section: &Section<'_>, base: &Path) -> (Queue, Choice<QueueKind>) {
    let present = section.item("kind").is_some();
    let choices = [
        ("embedded", QueueKind::Embedded),
        ("redis", QueueKind::Redis),
        ("nats", QueueKind::Nats),
        ("amqp", QueueKind::Amqp),
        ("kafka", QueueKind::Kafka),
    ];
    let chosen = section.one_of("kind", &choices);
    if let Some(At { value: QueueKind::Kafka, at }) = chosen
        && !cfg!(feature = "kafka")
    {
        section.problem(at, "kind", "this build has no Kafka; build it with `--features kafka`");
    }
    let name = section.string("name", "a name").unwrap_or(At { value: QUEUE_NAME.into(), at: section.at() });
    if let Err(what) = QueueName::parse(&name.value) {
        section.problem(name.at, "name", what);
    }
    let partitions = section.integer("partitions", 1..=4096);
    let max_backlog = section.integer("max_backlog", 1..=i64::MAX as u64).map_or(1_000_000, |n| n.value);
    let retain = section.duration("retain", SOME_TIME, 7 * DAY).value;
    let idle = section
        .item("ignore_idle_groups")
        .map(|_| section.duration("ignore_idle_groups", SOME_TIME, 30 * DAY));
    let ack_replicas = section.integer("ack_replicas", 0..=16);
    let choice = Choice::new(present, chosen, QueueKind::Embedded);
    let url = servers::queue_url(section, choice.value, base);
    section.finish();
    let only_redis = [("partitions", partitions.as_ref(), 1), ("ack_replicas", ack_replicas.as_ref(), 0)];
    for (key, number, none) in only_redis {
        if let (Some(n), Some(kind)) = (number.filter(|n| n.value > none), choice.value)
            && kind != QueueKind::Redis
        {
            section.warning(
                n.at,
                key,
                format!("no effect on a queue of kind {}; only for redis", kind.name()),
            );
        }
    }
    if let (Some(idle), Some(kind)) = (&idle, choice.value)
        && kind != QueueKind::Redis
    {
        let what = format!("no effect on a queue of kind {}; only for redis", kind.name());
        section.warning(idle.at, "ignore_idle_groups", what);
    }
    let small = |n: Option<At<u64>>, or| n.and_then(|n| u32::try_from(n.value).ok()).unwrap_or(or);
    let queue = Queue {
        kind: choice.value.unwrap_or(QueueKind::Embedded),
        name,
        partitions: small(partitions, 1),
        max_backlog,
        retain,
        ignore_idle_groups: idle.map(|idle| idle.value),
        ack_replicas: small(ack_replicas, 0),
        url,
    };
    (queue, choice)
}

/// Dedupe and enqueue are one step only where both are in one store; a broker goes with either dedupe store.
fn pair(dedupe: &Section<'_>, store: Choice<Store>, queue: &Section<'_>, kind: Choice<QueueKind>) {
    let (Some(store_is), Some(kind_is)) = (store.value, kind.value) else { return };
    match (store_is, kind_is) {
        (Store::Embedded, QueueKind::Redis) | (Store::Redis, QueueKind::Embedded) => {}
        _ => return,
    }
    let what = format!(
        "dedupe.store = \"{}\" does not go with queue.kind = \"{}\"; allowed: embedded with embedded, redis with \
         redis, either with nats, amqp or kafka",
        store_is.name(),
        kind_is.name()
    );
    match (kind.at, store.at) {
        (Some(at), _) => queue.problem(at, "kind", what),
        (None, at) => dedupe.problem(at.unwrap_or(dedupe.at()), "store", what),
    }
}

fn spool(section: &Section<'_>, max_body: usize) -> Spool {
    let enabled = section.flag("enabled").is_none_or(|flag| flag.value);
    let max_bytes = section.size("max_bytes", 1..=i64::MAX as u64, 1 << 30);
    let max_body = max_body as u64;
    if let Some(item) = section.item("max_bytes")
        && enabled
        && max_bytes / 2 < max_body
    {
        let (room, body) = (show_size(max_bytes), show_size(max_body));
        item.warning(format!("{room} has no room for two events of edge.max_body, {body}"));
    }
    section.finish();
    Spool { enabled, max_bytes }
}

fn audit(section: &Section<'_>, base: &Path) -> Audit {
    let retain = section.duration("retain", SOME_TIME, 90 * DAY).value;
    let max_bytes = section.size("max_bytes", 1..=i64::MAX as u64, 1 << 30);
    let key = section.secret("key", base);
    section.finish();
    Audit { retain, max_bytes, key }
}

fn quarantine(section: &Section<'_>, base: &Path) -> Quarantine {
    let enabled = section.flag("enabled").is_some_and(|flag| flag.value);
    let max_bytes = section.size("max_bytes", 1..=i64::MAX as u64, 256 * MIB);
    let retain = section.duration("retain", SOME_TIME, 7 * DAY).value;
    let key = section.secret("key", base);
    if enabled && section.item("key").is_none() {
        section.missing(
            "key",
            "missing; what is kept is encrypted: expected { env = \"NAME\" } or { file = \"PATH\" }",
        );
    }
    section.finish();
    Quarantine { enabled, max_bytes, retain, key }
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
/// Long enough for a broker's confirm, short enough that a provider's next try gets in.
const LEASE: RangeInclusive<Duration> = SECOND..=Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// The longest.
pub(super) const MAX_TIME: Duration = Duration::from_secs(3650 * 86_400);
/// A mebibyte.
pub(super) const MIB: u64 = 1 << 20;
const QUEUE_NAME: &str = "hookgate.events";
