//! Reloads the config on SIGHUP and when a file changes.
//!
//! Keeps true: a new config applies whole or not at all. The problems of a refused one are logged once, with their
//! positions, and the old one stays in force. A refused config is tried again, since its cause may pass (a port in use,
//! for example). Reloads run one at a time, and read files on a thread of their own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::load::{Contents, Loaded, changed_secrets, load};
use super::watch::{Due, FileWatcher, on_own_thread};
use super::{Gateway, Sockets, StartError, stores};
use crate::config::{Config, FullKey, Problem};
use crate::edge;
use crate::gateway::live;
use crate::observe::metrics::{Metrics, ReloadResult};

/// Reloads the config file of a running gateway.
pub struct Reloads {
    path: PathBuf,
    watcher: FileWatcher,
    /// The file contents that the config in force was read from; `None` if a file changed meanwhile.
    contents: Option<Contents>,
    /// The logged errors of the last reload, if it was refused.
    refused: Option<String>,
    /// Whether the next run retries a refused config that has not changed.
    retry: bool,
}

/// The names of the sources and keys that a reload changed.
#[derive(Debug, Default)]
pub struct Changes {
    added: Vec<String>,
    removed: Vec<String>,
    changed: Vec<String>,
    keys: Vec<String>,
}

impl Reloads {
    /// For a gateway that was started with `started`, which was read from `path`.
    pub fn new(path: &Path, started: Loaded) -> Reloads {
        let current = started.is_current();
        Reloads {
            path: path.to_owned(),
            watcher: FileWatcher::new(started.stamps),
            contents: current.then_some(started.contents),
            refused: None,
            retry: false,
        }
    }

    /// Returns once the config file or a file that it names has changed, or a refused config is due for a retry.
    pub async fn due(&mut self) {
        self.retry = self.watcher.due().await == Due::Retry;
    }

    /// Reads every file again and applies the config, or logs why not. Applies an unchanged config only if `asked` to
    /// (SIGHUP). A dropped future has changed nothing.
    pub async fn run(&mut self, gateway: &mut Gateway, asked: bool) {
        let retry = std::mem::take(&mut self.retry) && !asked;
        if retry && self.still_refused().await {
            return self.watcher.retry_later();
        }
        let file = self.path.display().to_string();
        let (path, metrics) = (self.path.clone(), gateway.pipeline.metrics.clone());
        let rules = gateway.pipeline.rules.load_full();
        let reading = move || {
            let loaded = load(&path, &metrics, Some(&rules));
            loaded.map(|loaded| (loaded.is_current(), loaded))
        };
        let read = match on_own_thread("reload", reading).await {
            Some(read) => read.map_err(|why| why.to_string()),
            None => Err("cannot start a thread to read it".to_owned()),
        };
        let (current, loaded) = match read {
            Ok(read) => read,
            Err(why) => {
                self.watcher.accept_unread();
                self.watcher.retry_later();
                if self.note_refusal(gateway, &why, retry) {
                    tracing::error!("config refused: {why}; the config in force stays");
                }
                return;
            }
        };
        let contents = current.then(|| loaded.contents.clone());
        if !asked && contents.is_some() && contents == self.contents {
            self.watcher.accept(loaded.stamps, true);
            self.refused = None;
            tracing::info!("config unchanged: {file} and its files are as the config in force");
            return;
        }
        let stamps = loaded.stamps.clone();
        let files = changed_files(&loaded.contents, self.contents.as_ref());
        let stays_refused = errors(&file, &loaded.problems).is_none()
            && loaded.config.changes(&gateway.config).iter().any(|key| key.needs_restart);
        let applied = gateway.reload(loaded);
        self.watcher.accept(stamps, applied.is_ok());
        match applied {
            Ok((changes, warnings)) => {
                self.contents = contents;
                self.refused = None;
                gateway.pipeline.metrics.gateway.reloaded(ReloadResult::Applied);
                log(&file, &warnings);
                changes.log(&files);
            }
            Err(problems) => {
                if !stays_refused {
                    self.watcher.retry_later();
                }
                let why = errors(&file, &problems).unwrap_or_default();
                if self.note_refusal(gateway, &why, retry) {
                    log(&file, &problems);
                    tracing::error!(
                        "config refused: the config in force stays; no change of {file} was applied"
                    );
                }
            }
        }
    }

    /// Whether the config still has the errors that were logged. Reads it as `check` does, without touching the
    /// gateway.
    async fn still_refused(&self) -> bool {
        let path = self.path.clone();
        let reading = move || match load(&path, &Metrics::new().ok()?, None) {
            Ok(loaded) => errors(&path.display().to_string(), &loaded.problems),
            Err(why) => Some(why.to_string()),
        };
        match on_own_thread("reload", reading).await {
            Some(refused) => refused.is_some() && refused == self.refused,
            None => true,
        }
    }

    /// Notes a refusal. Counts it and returns `true`, unless it is a `retry` with the same errors as before.
    fn note_refusal(&mut self, gateway: &Gateway, why: &str, retry: bool) -> bool {
        let before = self.refused.replace(why.to_owned());
        let news = !retry || before.as_deref() != Some(why);
        if news {
            gateway.pipeline.metrics.gateway.reloaded(ReloadResult::Refused);
        }
        news
    }
}

impl Gateway {
    /// Serves by another config from now on. Requests under way keep the old rules; listeners in both configs stay
    /// open. Returns the changes and the warnings.
    ///
    /// # Errors
    /// Every problem of the config, if one of them is an error. Then nothing has changed.
    pub fn reload(&mut self, loaded: Loaded) -> Result<(Changes, Vec<Problem>), Vec<Problem>> {
        let metrics = self.pipeline.metrics.clone();
        let applied = self.apply(loaded);
        // A refused config has created metric series too; drop those.
        self.pipeline.rules.load().retain_series(&metrics);
        applied
    }

    fn apply(&mut self, loaded: Loaded) -> Result<(Changes, Vec<Problem>), Vec<Problem>> {
        let Loaded { config, mut rules, mut problems, restart_only, .. } = loaded;
        // A wrong key holds its default, so comparing it would be misleading.
        if problems.iter().all(|problem| problem.warning) {
            problems.extend(needing_a_restart(&config, &self.config));
        }
        for secret in changed_secrets(&restart_only, &self.restart_only) {
            let what =
                "the secret or file that it names has changed; that needs a restart, the rest is applied";
            let key = secret.key.clone();
            problems.push(Problem { at: secret.at, key, what: what.to_owned(), warning: true });
        }
        problems.sort();
        if problems.iter().any(|problem| !problem.warning) {
            return Err(problems);
        }
        let Sockets { edge, admin } = Sockets::bind_added(&config, &self.edge, &self.admin)
            .map_err(|why| vec![cannot_listen(&why, &config, self)])?;

        // From here on nothing can fail.
        let changes = Changes::between(&config, &self.config);
        self.qualified.store(stores::sharing_a_provider(&config).into());
        self.pipeline.enqueuer.inbox().set_names(&live::queue_names(&config));
        if self.pipeline.quarantine.is_some() {
            stores::quarantine_series(&config, &self.pipeline.metrics);
        }
        if config.edge.max_connections > self.config.edge.max_connections {
            edge::descriptors::raise(config.edge.max_connections);
        }
        let before = self.pipeline.rules.load_full();
        let same_peer_rules = rules.adopt_connections(&before);
        self.last_accepted.serve(rules.last_accepted(&self.pipeline.metrics));
        self.pipeline.rules.store(rules.into());
        self.periodic.restart(&config, &self.pipeline);
        // Only now, so that a client that reconnects meets the new rules.
        if !same_peer_rules {
            before.stale.cancel();
        }
        self.edge.change(&config.edge.listen, edge, &self.pipeline);
        if let Some(socket) = admin {
            self.admin.change(socket);
        }
        let (clock, metrics) = (&self.pipeline.clock, &self.pipeline.metrics);
        self.console.set_config(&config);
        // A new token counts for those that watch already.
        self.admin.end_console_sessions();
        // Restarted, since the queue names depend on the sources.
        let looks = self.console.looks.clone();
        let watch = super::watch_others(config.clone(), clock.clone(), metrics.clone(), looks);
        let live_watch = self.admin.spawn(watch);
        std::mem::replace(&mut self.live_watch, live_watch).cancel();
        metrics.gateway.config_loaded.set(clock.now().as_microsecond() as f64 / 1e6);
        self.config = config;
        Ok((changes, problems))
    }
}

/// A problem for each changed key that needs a restart.
fn needing_a_restart(config: &Config, before: &Config) -> Vec<Problem> {
    let changed = config.changes(before).into_iter().filter(|key| key.needs_restart);
    let problem = |FullKey { name: key, .. }| {
        Problem {
        at: config.key_positions.find(&key),
        key,
        what: "needs a restart: the gateway was started with another value; restart it, or put the old value back to \
               have the rest applied"
            .to_owned(),
        warning: false,
    }
    };
    changed.map(problem).collect()
}

fn cannot_listen(why: &StartError, config: &Config, gateway: &Gateway) -> Problem {
    let (key, what) = match why {
        StartError::Listen { key, address, why } => {
            let mut own = gateway.edge().into_iter().chain([gateway.admin()]);
            let what = format!("cannot listen on {address}: {why}");
            match own.find(|own| own.port() == address.port()) {
                Some(own) => {
                    (*key, format!("{what}; this gateway itself listens on {own} until it is restarted"))
                }
                None => (*key, format!("{what}{}", super::listen_advice(why))),
            }
        }
        other => ("edge.listen", other.to_string()),
    };
    Problem { at: config.key_positions.find(key), key: key.to_owned(), what, warning: false }
}

/// The errors among the problems, one a line; `None` without errors.
fn errors(file: &str, problems: &[Problem]) -> Option<String> {
    let errors = problems.iter().filter(|problem| !problem.warning);
    let lines: Vec<_> = errors.map(|problem| problem.render(file).to_string()).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn log(file: &str, problems: &[Problem]) {
    for problem in problems {
        let text = problem.render(file);
        if problem.warning { tracing::warn!("{text}") } else { tracing::error!("{text}") }
    }
}

/// The files whose content differs from `before`.
fn changed_files(contents: &Contents, before: Option<&Contents>) -> Vec<String> {
    let has_changed = |(path, content): &(&PathBuf, &Option<[u8; 32]>)| {
        before.and_then(|before| before.get(*path)).is_some_and(|before| before != *content)
    };
    contents.iter().filter(has_changed).map(|(path, _)| path.display().to_string()).collect()
}

impl Changes {
    fn between(config: &Config, before: &Config) -> Changes {
        let names = |config: &Config| -> BTreeSet<String> {
            config.sources.iter().map(|source| source.name.value.clone()).collect()
        };
        let (now, then) = (names(config), names(before));
        let changed = config.sources.iter().filter(|source| {
            before.sources.iter().any(|before| before.name == source.name && before != *source)
        });
        Changes {
            added: now.difference(&then).cloned().collect(),
            removed: then.difference(&now).cloned().collect(),
            changed: changed.map(|source| source.name.value.clone()).collect(),
            keys: config.changes(before).into_iter().map(|key| key.name).collect(),
        }
    }

    fn log(&self, files: &[String]) {
        tracing::info!(
            sources_added = self.added.join(" "),
            sources_removed = self.removed.join(" "),
            sources_changed = self.changed.join(" "),
            keys = self.keys.join(" "),
            files = files.join(" "),
            "config reloaded"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::base::clock::Clock;
    use crate::config;
    use crate::request::pipeline::RuntimeConfig;

    /// Stops a reload after it has stored the new rules and before it tells the connections.
    #[tokio::test]
    async fn a_connection_closes_if_the_new_rules_determine_its_client_address_differently() {
        let folder = tempfile::tempdir().unwrap();
        let config = |trusted: &str| {
            let text = format!(
                "[edge]\nlisten = \"127.0.0.1:0\"\nproxy_protocol = true\ntrusted_proxies = [{trusted}]\n\
                 [admin]\nlisten = \"127.0.0.1:0\"\n\
                 [sources.any]\nprovider = \"securitize\"\nunauthenticated = true\n"
            );
            config::parse(&text, folder.path()).0
        };
        let gateway = Gateway::start(config("\"127.0.0.1\""), Clock::System).await.unwrap();
        let mut proxy = TcpStream::connect(gateway.edge()[0]).await.unwrap();
        proxy.write_all(b"PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\r\n").await.unwrap();
        let request = b"GET /nothing HTTP/1.1\r\nhost: x\r\n\r\n";
        proxy.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            assert_ne!(proxy.read_buf(&mut answer).await.unwrap(), 0);
        }

        let pipeline = &gateway.pipeline;
        let before = pipeline.rules.load_full();
        let rules = RuntimeConfig::build(&config(""), &pipeline.metrics, Some(&before), &mut Vec::new());
        pipeline.rules.store(Arc::new(rules));
        proxy.write_all(request).await.unwrap();
        answer.clear();
        proxy.read_to_end(&mut answer).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&answer), "");
        gateway.drain().await;
    }

    #[tokio::test]
    async fn a_refusal_is_logged_and_counted_once_until_its_errors_change_or_a_sighup_asks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hookgate.toml");
        let good = "edge.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\n\
                    [sources.any]\nprovider = \"securitize\"\nunauthenticated = true\n";
        std::fs::write(&path, good).unwrap();
        let started = load(&path, &Metrics::new().unwrap(), None).unwrap();
        let mut gateway = Gateway::start(started.config.clone(), Clock::System).await.unwrap();
        let mut reloads = Reloads::new(&path, started);
        let bad = good.replace("securitize", "nobody");
        for (text, retry, asked, count) in [
            (&*bad, false, false, 1),
            (&bad, true, false, 1),
            (&bad, true, false, 1),
            (&bad, true, true, 2),
            (&bad, true, false, 2),
            (&format!("nonsense = 1\n{bad}"), true, false, 3),
            (good, true, false, 3),
            (&bad, false, false, 4),
        ] {
            std::fs::write(&path, text).unwrap();
            reloads.retry = retry;
            reloads.run(&mut gateway, asked).await;
            let series = gateway.pipeline.metrics.render().unwrap().0;
            let line = format!("hookgate_config_reloads_total{{result=\"refused\"}} {count}\n");
            assert!(series.contains(&line), "{line}{series}");
        }
        // A folder exists but cannot be read as a file.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        reloads.run(&mut gateway, false).await;
        let said = reloads.refused.as_deref().unwrap();
        assert!(said.contains("it is a directory"), "{said}");
        assert!(reloads.still_refused().await);
        gateway.drain().await;
    }
}
