//! Reads a config with all that it names, and finds everything that is wrong with it: for `serve`, `check` and a reload alike.
//!
//! Keeps true: what a reload accepts, a start accepts, and `check` passes.

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
use crate::config::{self, Config, FullKey, LoadError, Position, Problem, Reference, Target};
use crate::durable::broker;
use crate::durable::data_dir;
use crate::durable::database;
use crate::durable::inbox::redis::{OpenError, Servers};
use crate::durable::quarantine;
use crate::observe::metrics::Metrics;
use crate::request::pipeline::RuntimeConfig;
use crate::request::source;

/// A config file as it was read.
pub struct Loaded {
    /// The config.
    pub config: Config,
    /// What is built of it. With an error among the problems it must not serve.
    pub rules: RuntimeConfig,
    /// Everything wrong with it, in the order of the file.
    pub problems: Vec<Problem>,
    /// Its files, as they were before they were read.
    pub(super) marks: FileStamps,
    /// What was in them.
    pub(super) contents: Contents,
    /// What is behind the references that are only read at the start.
    pub(super) lasting: Vec<RestartOnlySecret>,
}

/// A fingerprint of each file's content; none where it could not be read.
pub(super) type Contents = BTreeMap<PathBuf, Option<[u8; 32]>>;

/// A fingerprint of what is behind a reference that only a restart reads anew.
#[derive(Clone, Debug)]
pub(super) struct RestartOnlySecret {
    pub(super) key: String,
    pub(super) at: Position,
    content: Option<[u8; 32]>,
}

/// Reads the config at `path`. What was counted and learnt under the rules `before` is carried on.
///
/// # Errors
/// When there is no text to read. What is wrong with the text is among the problems.
pub fn load(path: &Path, metrics: &Metrics, before: Option<&RuntimeConfig>) -> Result<Loaded, LoadError> {
    // Looked at before they are read: what changes meanwhile is then seen by the next look.
    let mut marks = watch::look([path]);
    let (config, mut problems) = config::load(path)?;
    marks.append(&mut watch::look(config.files()));
    let contents = marks.keys().map(|path| (path.clone(), content(path))).collect();
    let rules = RuntimeConfig::build(&config, metrics, before, &mut problems);
    problems.extend(beyond_rules(&config));
    // A running gateway keeps its data folder. Trouble with that must not hold back a new secret.
    if before.is_none() {
        problems.extend(data_dir::problems(&config));
        problems.extend(misplaced(&config));
    }
    // The values that the parser made of a line with a syntax error are odd: only the syntax error is reported.
    problems.retain(|problem| problem.key == "toml" || !config.unparsed_lines.contains(problem.at.line));
    problems.sort();
    let lasting = lasting(&config);
    Ok(Loaded { config, rules, problems, marks, contents, lasting })
}

/// For how long yet a gateway that serves by the config at `path` may not have read what is there now: its files are looked
/// at, and so it is that long after they changed.
pub fn unread_for(path: &Path, config: &Config, now: Timestamp) -> Duration {
    let mut marks = watch::look([path]);
    marks.append(&mut watch::look(config.files()));
    watch::unread_for(&marks, now)
}

impl Loaded {
    /// Whether nothing has changed since it was read, so that its contents are those that its rules are made of.
    pub(super) fn is_current(&self) -> bool {
        watch::look(self.marks.keys().map(PathBuf::as_path)) == self.marks
    }
}

/// What is wrong with the parts of the config that its rules are not made of.
fn beyond_rules(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut problem = |at, key: &str, what: String| {
        problems.push(Problem { at, key: key.to_owned(), what, warning: false });
    };
    let used = config.urls_in_use();
    for (key, url) in &used {
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
        // A URL that cannot be read has been told of.
        && !matches!(what, OpenError::Secret(_))
    {
        problem(url.at, key, what.to_string());
    }
    problems.extend(reject_log::problems(config));
    quarantine::Key::build(&config.quarantine, &mut problems);
    problems.extend(quarantine::warnings(config));
    problems.extend(source::dated(config, Clock::System.now()));
    problems
}

/// Databases that lie beside a log that is not theirs, or in a half restored folder.
fn misplaced(config: &Config) -> impl Iterator<Item = Problem> {
    let databases = [data_dir::database_file(&config.data_dir), data_dir::quarantine_file(&config.data_dir)];
    // Both may say the same of their folder.
    let whys: BTreeSet<String> =
        (databases.iter()).filter_map(|db| Some(database::pairing::check(db).err()?.to_string())).collect();
    let at = config.key_positions.find("data_dir");
    whys.into_iter().map(move |what| Problem { at, key: "data_dir".to_owned(), what, warning: false })
}

/// Reads what is behind the references that are only read at the start.
pub(super) fn lasting(config: &Config) -> Vec<RestartOnlySecret> {
    let read_once = |Reference { key: FullKey { name, needs_restart }, .. }: &Reference<'_>| {
        *needs_restart && config.uses(name) && (name != "quarantine.key" || config.quarantine.enabled)
    };
    let lasting = |Reference { key, at, target }| {
        let content = match target {
            Target::Secret(secret) => secret.resolve().ok().map(|secret| digest(secret.expose().as_bytes())),
            Target::File(path) | Target::PrivateKey(path) => content(path),
        };
        RestartOnlySecret { key: key.name, at, content }
    };
    config.references().into_iter().filter(read_once).map(lasting).collect()
}

/// Of two readings of the same references, those of the later one that read something else.
pub(super) fn other<'l>(
    lasting: &'l [RestartOnlySecret],
    before: &[RestartOnlySecret],
) -> impl Iterator<Item = &'l RestartOnlySecret> {
    let differ = |(now, before): &(&RestartOnlySecret, &RestartOnlySecret)| {
        now.key == before.key && now.content != before.content
    };
    let pairs: Vec<_> = lasting.iter().zip(before).filter(differ).map(|(now, _)| now).collect();
    pairs.into_iter()
}

fn content(path: &Path) -> Option<[u8; 32]> {
    Some(digest(&file::read(path, LONGEST).ok()?))
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// As much of a file as counts. What has no end, such as a device, is refused where it is used.
const LONGEST: u64 = 16 << 20;
