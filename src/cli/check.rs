//! `hookgate check`: prints every problem that `serve` would find in the config.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use super::{CommandResult, FAILED, Global, OK, block_on, print_line};
use crate::base::clock::Clock;
use crate::config::{Config, Problem};
use crate::gateway::{self, Loaded, live, subscriptions};
use crate::observe::metrics::Metrics;

#[derive(Args)]
pub(super) struct Check {
    /// Also print the effective config, with secrets redacted.
    #[arg(long)]
    print: bool,
    /// Also ask Redis, the queue and the providers' APIs, and report unsafe settings and subscriptions that differ.
    #[arg(long)]
    live: bool,
}

pub(super) fn run(global: &Global, check: &Check) -> CommandResult {
    let path = global.config_path()?;
    let shown = path.display().to_string();
    let Loaded { config, mut problems, .. } = match gateway::load(path, &Metrics::new()?, None) {
        Ok(loaded) => loaded,
        Err(unreadable) => {
            print(&shown, &[unreadable.problem()], global.json)?;
            return Ok(FAILED);
        }
    };
    if check.live && problems.iter().all(|problem| problem.warning) {
        let found = block_on(async { Ok(live::check(&config, &Clock::System).await) })?;
        problems.extend(found.iter().map(live::LocatedFinding::problem));
        problems.extend(block_on(async { Ok(subscriptions::check(&config, &Clock::System).await) })?);
    }
    print(&shown, &problems, global.json)?;
    if check.print {
        let config = config.redacted();
        let text = if global.json { json!({ "config": config }).to_string() } else { config };
        print_line(&mut io::stdout(), text.trim_end())?;
    }
    let errors = problems.iter().filter(|problem| !problem.warning).count();
    if errors == 0 {
        let summary = Summary::new(&config, path, check.live);
        if global.json {
            print_line(&mut io::stdout(), &summary.json(problems.len()).to_string())?;
        } else {
            // Standard error may be closed; the exit code says the same.
            let _ = writeln!(io::stderr(), "{}", summary.text());
        }
    }
    Ok(if errors == 0 { OK } else { FAILED })
}

/// What was checked, for a config without errors.
struct Summary {
    file: String,
    sources: usize,
    secrets: usize,
    /// The config file and the files that it names.
    files: BTreeSet<String>,
    live: bool,
}

impl Summary {
    fn new(config: &Config, path: &Path, live: bool) -> Summary {
        let files = config.files().into_iter().chain([path]);
        Summary {
            file: path.display().to_string(),
            sources: config.sources.len(),
            secrets: config.secrets_in_use().len(),
            files: files.map(|file| file.display().to_string()).collect(),
            live,
        }
    }

    fn json(&self, warnings: usize) -> Value {
        let Summary { file, sources, secrets, files, live } = self;
        json!({
            "ok": true, "file": file, "sources": sources, "secrets": secrets, "files": files, "live": live,
            "warnings": warnings,
        })
    }

    fn text(&self) -> String {
        let number =
            |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let live = if self.live { "servers checked" } else { "servers not checked (--live checks them)" };
        format!(
            "{}: ok, {}, {}, {}, {live}",
            self.file,
            number(self.sources, "source"),
            number(self.secrets, "secret"),
            number(self.files.len(), "file"),
        )
    }
}

/// Prints each problem as a line on standard output.
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
        if !print_line(&mut io::stdout(), &text)? {
            break;
        }
    }
    Ok(())
}
