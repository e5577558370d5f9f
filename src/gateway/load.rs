//! Reads a config and every file that it names, and finds all its problems. `serve`, `check` and a reload use it.
//!
//! Keeps true: a config that a reload accepts is one that a start accepts and that `check` passes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::reject_log;
use super::watch::{self, FileStamps};
use crate::base::clock::Clock;
use crate::base::file;
use crate::config::queue_name::QueueName;
use crate::config::{self, Config, FullKey, LoadError, Position, Problem, QueueKind, Reference, Target};
use crate::durable::broker;
use crate::durable::data_dir;
use crate::durable::database;
use crate::durable::inbox::redis::{OpenError, Servers};
use crate::durable::quarantine;
use crate::observe::metrics::Metrics;
use crate::request::pipeline::RuntimeConfig;
use crate::request::source;
use crate::subscriptions;

/// A config file that was read.
pub struct Loaded {
    /// The config.
    pub config: Config,
    /// The rules built from the config. If a problem is an error, they must not be used.
    pub rules: RuntimeConfig,
    /// Every problem, in the order of the file.
    pub problems: Vec<Problem>,
    /// The stamps of its files, taken before they were read.
    pub(super) stamps: FileStamps,
    pub(super) contents: Contents,
    /// The secrets and files that only a start reads.
    pub(super) restart_only: Vec<RestartOnlySecret>,
}

/// A digest of each file's content; `None` if it could not be read.
pub(super) type Contents = BTreeMap<PathBuf, Option<[u8; 32]>>;

/// A digest of a secret or file that only a start reads.
#[derive(Clone, Debug)]
pub(super) struct RestartOnlySecret {
    pub(super) key: String,
    pub(super) at: Position,
    content: Option<[u8; 32]>,
}

/// Reads the config at `path`. The new rules keep the counts and learnt state of the rules `before`.
///
/// # Errors
/// When the file cannot be read. Problems of its text are in [`Loaded::problems`].
pub fn load(path: &Path, metrics: &Metrics, before: Option<&RuntimeConfig>) -> Result<Loaded, LoadError> {
    // Stamped before they are read, so that the next look notices a change in between.
    let mut stamps = watch::stamps([path]);
    let (config, mut problems) = config::load(path)?;
    stamps.append(&mut watch::stamps(config.files()));
    let contents = stamps.keys().map(|path| (path.clone(), content(path))).collect();
    let rules = RuntimeConfig::build(&config, metrics, before, &mut problems);
    subscriptions::rules::check(&config, &rules.routes.catalog, &mut problems);
    problems.extend(problems_beyond_rules(&config));
    // A running gateway keeps its data folder. A problem with the folder must not block a new secret.
    if before.is_none() {
        problems.extend(data_dir::problems(&config));
        problems.extend(misplaced_databases(&config));
    }
    // The parser guesses the values of a line with a syntax error, so only the syntax error is reported.
    problems.retain(|problem| problem.key == "toml" || !config.unparsed_lines.contains(problem.at.line));
    problems.sort();
    let restart_only = read_restart_only(&config);
    Ok(Loaded { config, rules, problems, stamps, contents, restart_only })
}

/// How long from `now` a running gateway may still serve by older contents of the files of the config at `path`.
pub fn unread_for(path: &Path, config: &Config, now: Timestamp) -> Duration {
    let mut stamps = watch::stamps([path]);
    stamps.append(&mut watch::stamps(config.files()));
    watch::unread_for(&stamps, now)
}

impl Loaded {
    /// Whether no file has changed since it was read. If so, the rules were built from exactly these contents.
    pub(super) fn is_current(&self) -> bool {
        watch::stamps(self.stamps.keys().map(PathBuf::as_path)) == self.stamps
    }
}

/// The problems of the parts of the config that [`RuntimeConfig`] does not use.
fn problems_beyond_rules(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut problem = |at, key: &str, what: String| {
        problems.push(Problem { at, key: key.to_owned(), what, warning: false });
    };
    let used = config.urls_in_use();
    let is_http = config.queue.kind == QueueKind::Http;
    for (key, url) in used.iter().filter(|(key, _)| !is_http || *key != "queue.url") {
        if let Err(why) = url.value.resolve() {
            problem(url.at, key, why.to_string());
        }
    }
    let name = &config.queue.name;
    if let Ok(parsed) = QueueName::parse(&name.value)
        && let Err(what) = broker::check_name(config.queue.kind, &parsed)
    {
        problem(name.at, "queue.name", what.to_owned());
    }
    let redis = used.iter().find(|(key, _)| *key == "redis.url");
    if let Some((key, url)) = redis
        && let Err(what) = Servers::of(&config.redis)
        // That problem is reported above.
        && !matches!(what, OpenError::Secret(_))
    {
        problem(url.at, key, what.to_string());
    }
    if is_http && let Err(found) = broker::http::Settings::of(&config.queue) {
        // A key without a value was replaced by its default, and is reported already.
        problems.extend(found);
    }
    problems.extend(reject_log::problems(config));
    quarantine::Key::build(&config.quarantine, &mut problems);
    problems.extend(quarantine::warnings(config));
    problems.extend(source::dated(config, Clock::System.now()));
    problems
}

/// Databases with a log file of another database beside them, or in a half-restored folder.
fn misplaced_databases(config: &Config) -> impl Iterator<Item = Problem> {
    let databases = [data_dir::database_file(&config.data_dir), data_dir::quarantine_file(&config.data_dir)];
    // A set: both databases may report the same problem of their folder.
    let whys: BTreeSet<String> =
        (databases.iter()).filter_map(|db| Some(database::pairing::check(db).err()?.to_string())).collect();
    let at = config.key_positions.find("data_dir");
    whys.into_iter().map(move |what| Problem { at, key: "data_dir".to_owned(), what, warning: false })
}

/// Reads the secrets and files that only a start reads.
pub(super) fn read_restart_only(config: &Config) -> Vec<RestartOnlySecret> {
    let read_once = |Reference { key: FullKey { name, needs_restart }, .. }: &Reference<'_>| {
        *needs_restart && config.uses(name) && (name != "quarantine.key" || config.quarantine.enabled)
    };
    let read = |Reference { key, at, target }| {
        let content = match target {
            Target::Secret(secret) => secret.resolve().ok().map(|secret| digest(secret.expose().as_bytes())),
            Target::File(path) | Target::PrivateKey(path) => content(path),
        };
        RestartOnlySecret { key: key.name, at, content }
    };
    config.references().into_iter().filter(read_once).map(read).collect()
}

/// The secrets whose content differs from `before`.
pub(super) fn changed_secrets<'l>(
    restart_only: &'l [RestartOnlySecret],
    before: &[RestartOnlySecret],
) -> impl Iterator<Item = &'l RestartOnlySecret> {
    let differ = |(now, before): &(&RestartOnlySecret, &RestartOnlySecret)| {
        now.key == before.key && now.content != before.content
    };
    let pairs: Vec<_> = restart_only.iter().zip(before).filter(differ).map(|(now, _)| now).collect();
    pairs.into_iter()
}

fn content(path: &Path) -> Option<[u8; 32]> {
    Some(digest(&file::read(path, MAX_BYTES).ok()?))
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The largest file that is compared. Endless files such as devices are refused where they are used.
const MAX_BYTES: u64 = 16 << 20;
