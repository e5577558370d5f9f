//! Reloading: when, and what comes of it.
//!
//! Keeps true: all of a new config or nothing of it; what is refused is told with its place, and the old one goes on. It is
//! tried again, since what was in the way may pass, and is told once. One reload at a time, its reading off the threads that
//! serve.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::load::{Contents, Loaded, load, other};
use super::watch::{Due, Watch, apart};
use super::{Gateway, Sockets, StartError, stores};
use crate::config::{Config, FullKey, Problem};
use crate::edge;
use crate::gateway::live;
use crate::observe::metrics::{Metrics, ReloadResult};

/// The reloads of a gateway that serves by a config file.
pub struct Reloads {
    path: PathBuf,
    watch: Watch,
    /// What the files of the config in force hold; none if they changed while they were read.
    contents: Option<Contents>,
    /// What was told of the last reload, if it was refused.
    refused: Option<String>,
    /// Nothing has changed since.
    again: bool,
}

/// What a reload has changed, by names.
#[derive(Debug, Default)]
pub struct Changes {
    added: Vec<String>,
    removed: Vec<String>,
    changed: Vec<String>,
    keys: Vec<String>,
}

impl Reloads {
    /// Of a gateway that was started by `started`, read from `path`.
    pub fn new(path: &Path, started: Loaded) -> Reloads {
        let current = started.is_current();
        Reloads {
            path: path.to_owned(),
            watch: Watch::new(started.marks),
            contents: current.then_some(started.contents),
            refused: None,
            again: false,
        }
    }

    /// Returns once the config file, or a file that it names, has changed; or what was refused may be tried again.
    pub async fn due(&mut self) {
        self.again = self.watch.due().await == Due::Again;
    }

    /// Reads everything anew and applies it, or else says why not. Not `asked` for, what has not changed is left alone.
    /// Dropped half way, it has changed nothing.
    pub async fn run(&mut self, gateway: &mut Gateway, asked: bool) {
        let again = std::mem::take(&mut self.again) && !asked;
        if again && self.still_refused().await {
            return self.watch.try_again();
        }
        let file = self.path.display().to_string();
        let (path, metrics) = (self.path.clone(), gateway.pipeline.metrics.clone());
        let rules = gateway.pipeline.rules.load_full();
        let reading = move || {
            let loaded = load(&path, &metrics, Some(&rules));
            loaded.map(|loaded| (loaded.is_current(), loaded))
        };
        let read = match apart(reading).await {
            Some(read) => read.map_err(|why| why.to_string()),
            None => Err("no thread to read it on".to_owned()),
        };
        let (current, loaded) = match read {
            Ok(read) => read,
            Err(why) => {
                self.watch.acted_in_vain();
                self.watch.try_again();
                if self.is_news(gateway, &why, again) {
                    tracing::error!("config refused: {why}; what was read before goes on");
                }
                return;
            }
        };
        let contents = current.then(|| loaded.contents.clone());
        if !asked && contents.is_some() && contents == self.contents {
            self.watch.acted(loaded.marks, true);
            self.refused = None;
            tracing::info!("config unchanged: {file} and its files say what is in force");
            return;
        }
        let marks = loaded.marks.clone();
        let files = other_files(&loaded.contents, self.contents.as_ref());
        let stays_refused = errors(&file, &loaded.problems).is_none()
            && loaded.config.changes(&gateway.config).iter().any(|key| key.needs_restart);
        let applied = gateway.reload(loaded);
        self.watch.acted(marks, applied.is_ok());
        match applied {
            Ok((changes, warnings)) => {
                self.contents = contents;
                self.refused = None;
                gateway.pipeline.metrics.gateway.reloaded(ReloadResult::Applied);
                tell(&file, &warnings);
                changes.log(&files);
            }
            Err(problems) => {
                if !stays_refused {
                    self.watch.try_again();
                }
                let why = errors(&file, &problems).unwrap_or_default();
                if self.is_news(gateway, &why, again) {
                    tell(&file, &problems);
                    tracing::error!("config refused: {file} as it was before goes on; nothing has changed");
                }
            }
        }
    }

    /// Whether what was told is still so. Looks as `check` does, and leaves no trace of the config with the gateway.
    async fn still_refused(&self) -> bool {
        let path = self.path.clone();
        let reading = move || match load(&path, &Metrics::new().ok()?, None) {
            Ok(loaded) => errors(&path.display().to_string(), &loaded.problems),
            Err(why) => Some(why.to_string()),
        };
        match apart(reading).await {
            Some(refused) => refused.is_some() && refused == self.refused,
            None => true,
        }
    }

    /// Notes a refusal; whether it is to be told, and counts it then. Tried `again`, it is if it is another.
    fn is_news(&mut self, gateway: &Gateway, why: &str, again: bool) -> bool {
        let before = self.refused.replace(why.to_owned());
        let news = !again || before.as_deref() != Some(why);
        if news {
            gateway.pipeline.metrics.gateway.reloaded(ReloadResult::Refused);
        }
        news
    }
}

impl Gateway {
    /// Serves by another config from now on. Requests under way keep what they began with; listeners that are in both configs
    /// stay open. What was changed, and what is to be warned of.
    ///
    /// # Errors
    /// Everything wrong with it, if anything is; then nothing has changed.
    pub fn reload(&mut self, loaded: Loaded) -> Result<(Changes, Vec<Problem>), Vec<Problem>> {
        let metrics = self.pipeline.metrics.clone();
        let applied = self.apply(loaded);
        // What was built and refused has left series of its own too.
        self.pipeline.rules.load().retain_series(&metrics);
        applied
    }

    fn apply(&mut self, loaded: Loaded) -> Result<(Changes, Vec<Problem>), Vec<Problem>> {
        let Loaded { config, mut rules, mut problems, lasting, .. } = loaded;
        // A key that is wrong holds its default, which says nothing of what was meant.
        if problems.iter().all(|problem| problem.warning) {
            problems.extend(needing_a_restart(&config, &self.config));
        }
        for other in other(&lasting, &self.lasting) {
            let what = "the secret or file behind it has changed; that needs a restart, the rest is applied";
            let key = other.key.clone();
            problems.push(Problem { at: other.at, key, what: what.to_owned(), warning: true });
        }
        problems.sort();
        if problems.iter().any(|problem| !problem.warning) {
            return Err(problems);
        }
        let Sockets { edge, admin } = Sockets::added(&config, &self.edge, &self.admin)
            .map_err(|why| vec![cannot_listen(&why, &config, self)])?;

        // From here on nothing can fail.
        let changes = Changes::between(&config, &self.config);
        self.qualified.store(stores::sharing_a_provider(&config).into());
        self.pipeline.enqueuer.inbox().set_names(&live::names(&config));
        if self.pipeline.quarantine.is_some() {
            stores::quarantine_series(&config, &self.pipeline.metrics);
        }
        if config.edge.max_connections > self.config.edge.max_connections {
            edge::descriptors::raise(config.edge.max_connections);
        }
        let before = self.pipeline.rules.load_full();
        let goes_on = rules.adopt_connections(&before);
        self.last_accepted.serve(rules.last_accepted(&self.pipeline.metrics));
        self.pipeline.rules.store(rules.into());
        // Only now, so that whoever comes next comes by the new ones.
        if !goes_on {
            before.stale.cancel();
        }
        self.edge.change(&config.edge.listen, edge, &self.pipeline);
        if let Some(socket) = admin {
            self.admin.change(socket);
        }
        let (clock, metrics) = (&self.pipeline.clock, &self.pipeline.metrics);
        // It asks for the names that the sources make of the queue's.
        let looking = self.admin.beside(live::watch(config.clone(), clock.clone(), metrics.clone()));
        std::mem::replace(&mut self.looking, looking).cancel();
        metrics.gateway.config_loaded.set(clock.now().as_microsecond() as f64 / 1e6);
        self.config = config;
        Ok((changes, problems))
    }
}

/// The keys that a running gateway cannot follow, where they differ.
fn needing_a_restart(config: &Config, before: &Config) -> Vec<Problem> {
    let changed = config.changes(before).into_iter().filter(|key| key.needs_restart);
    let problem = |FullKey { name: key, .. }| {
        Problem {
        at: config.key_positions.find(&key),
        key,
        what: "needs a restart: this differs from what the gateway was started with; restart it, or put the old value \
               back to have the rest applied"
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
                Some(own) => (*key, format!("{what}; this gateway itself has {own} until it is restarted")),
                None => (*key, format!("{what}{}", super::listen_advice(why))),
            }
        }
        other => ("edge.listen", other.to_string()),
    };
    Problem { at: config.key_positions.find(key), key: key.to_owned(), what, warning: false }
}

/// The errors among the problems, as they are told; none if there is none.
fn errors(file: &str, problems: &[Problem]) -> Option<String> {
    let errors = problems.iter().filter(|problem| !problem.warning);
    let lines: Vec<_> = errors.map(|problem| problem.render(file).to_string()).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn tell(file: &str, problems: &[Problem]) {
    for problem in problems {
        let text = problem.render(file);
        if problem.warning { tracing::warn!("{text}") } else { tracing::error!("{text}") }
    }
}

/// The files that hold something else than they did.
fn other_files(contents: &Contents, before: Option<&Contents>) -> Vec<String> {
    let is_other = |(path, content): &(&PathBuf, &Option<[u8; 32]>)| {
        before.and_then(|before| before.get(*path)).is_some_and(|before| before != *content)
    };
    contents.iter().filter(is_other).map(|(path, _)| path.display().to_string()).collect()
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

    /// At the one moment of a reload at which the new rules are there and no connection has heard of it.
    #[tokio::test]
    async fn no_request_is_held_against_rules_that_would_find_out_in_another_way_who_asks() {
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
    async fn what_is_refused_is_told_and_counted_once_until_somebody_asks_or_it_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hookgate.toml");
        let good = "edge.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\n\
                    [sources.any]\nprovider = \"securitize\"\nunauthenticated = true\n";
        std::fs::write(&path, good).unwrap();
        let started = load(&path, &Metrics::new().unwrap(), None).unwrap();
        let mut gateway = Gateway::start(started.config.clone(), Clock::System).await.unwrap();
        let mut reloads = Reloads::new(&path, started);
        let bad = good.replace("securitize", "nobody");
        for (text, again, asked, count) in [
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
            reloads.again = again;
            reloads.run(&mut gateway, asked).await;
            let series = gateway.pipeline.metrics.render().unwrap().0;
            let line = format!("hookgate_config_reloads_total{{result=\"refused\"}} {count}\n");
            assert!(series.contains(&line), "{line}{series}");
        }
        // A folder, for what is there and cannot be read.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        reloads.run(&mut gateway, false).await;
        let said = reloads.refused.as_deref().unwrap();
        assert!(said.contains("it is a directory"), "{said}");
        assert!(reloads.still_refused().await);
        gateway.drain().await;
    }
}
