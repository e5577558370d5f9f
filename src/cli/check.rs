//! `hookgate check`: what `serve` would say of the config, and all of it.

use std::io::{self, Write};

use clap::Args;
use serde_json::json;

use super::{Done, FAILED, Failure, Global, OK, block_on, line};
use crate::broker;
use crate::clock::Clock;
use crate::config::{self, Config, Problem};
use crate::inbox::redis::{OpenError, Servers};
use crate::live;
use crate::metrics::Metrics;
use crate::queue_name::QueueName;
use crate::route::Routes;

#[derive(Args)]
pub(super) struct Check {
    /// Print the effective config too, secrets redacted.
    #[arg(long)]
    print: bool,
    /// Reach Redis and the queue, and report unsafe settings.
    #[arg(long)]
    live: bool,
}

pub(super) fn run(global: &Global, check: &Check) -> Done {
    let path = global.config_path()?;
    let (config, mut problems) = problems(path)?;
    if check.live && problems.iter().all(|problem| problem.warning) {
        let found = block_on(async { Ok(live::look(&config, &Clock::System).await) })?;
        problems.extend(found.iter().map(live::Located::problem));
    }
    print(&path.display().to_string(), &problems, global.json)?;
    if check.print {
        let config = config.redacted();
        let text = if global.json { json!({ "config": config }).to_string() } else { config };
        line(&mut io::stdout(), text.trim_end())?;
    }
    let errors = problems.iter().filter(|problem| !problem.warning).count();
    if errors == 0 && !global.json {
        let sources = config.sources.len();
        let plural = if sources == 1 { "" } else { "s" };
        // Standard error may be closed; the exit code says the same.
        let _ = writeln!(io::stderr(), "{}: ok, {sources} source{plural}", path.display());
    }
    Ok(if errors == 0 { OK } else { FAILED })
}

/// The config and everything wrong with it, secrets and providers included.
pub(super) fn problems(path: &std::path::Path) -> Result<(Config, Vec<Problem>), Failure> {
    let (config, mut problems) = config::load(path)?;
    Routes::build(&config, &Metrics::new()?, &mut problems);
    for (key, url) in config.urls_in_use() {
        if let Err(why) = url.value.resolve() {
            problems.push(Problem { at: url.at, key: key.to_owned(), what: why.to_string(), warning: false });
        }
    }
    problems.extend(servers(&config));
    problems.sort();
    Ok((config, problems))
}

/// What the servers' own rules say against the config, without asking them.
fn servers(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut problem = |at, key: &str, what: String| {
        problems.push(Problem { at, key: key.to_owned(), what, warning: false });
    };
    let name = &config.queue.name;
    if let Ok(parsed) = QueueName::parse(&name.value)
        && let Err(what) = broker::check_name(config.queue.kind, &parsed)
    {
        problem(name.at, "queue.name", what.to_owned());
    }
    let used = config.urls_in_use();
    let redis = used.iter().find(|(key, _)| *key == "redis.url");
    if let Some((key, url)) = redis
        && let Err(what) = Servers::of(&config.redis)
        // A URL that cannot be read has been told of.
        && !matches!(what, OpenError::Secret(_))
    {
        problem(url.at, key, what.to_string());
    }
    problems
}

/// One line a problem, on standard output.
pub(super) fn print(file: &str, problems: &[Problem], json: bool) -> io::Result<()> {
    for problem in problems {
        let text = if json {
            let severity = if problem.warning { "warning" } else { "error" };
            json!({
                "file": file, "line": problem.at.line, "column": problem.at.column,
                "severity": severity, "key": problem.key, "what": problem.what,
            })
            .to_string()
        } else {
            problem.render(file)
        };
        if !line(&mut io::stdout(), &text)? {
            break;
        }
    }
    Ok(())
}
