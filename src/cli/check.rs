//! `hookgate check`: what `serve` would say of the config, and all of it.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

use clap::Args;
use serde_json::{Value, json};

use super::{Done, FAILED, Global, OK, block_on, line};
use crate::base::clock::Clock;
use crate::config::{Config, Problem};
use crate::gateway::live;
use crate::gateway::{self, Loaded};
use crate::observe::metrics::Metrics;

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
    let shown = path.display().to_string();
    let Loaded { config, mut problems, .. } = match gateway::load(path, &Metrics::new()?, None) {
        Ok(loaded) => loaded,
        Err(nothing) => {
            print(&shown, &[nothing.problem()], global.json)?;
            return Ok(FAILED);
        }
    };
    if check.live && problems.iter().all(|problem| problem.warning) {
        let found = block_on(async { Ok(live::check(&config, &Clock::System).await) })?;
        problems.extend(found.iter().map(live::LocatedFinding::problem));
    }
    print(&shown, &problems, global.json)?;
    if check.print {
        let config = config.redacted();
        let text = if global.json { json!({ "config": config }).to_string() } else { config };
        line(&mut io::stdout(), text.trim_end())?;
    }
    let errors = problems.iter().filter(|problem| !problem.warning).count();
    if errors == 0 {
        let looked = Looked::at(&config, path, check.live);
        if global.json {
            line(&mut io::stdout(), &looked.json(problems.len()).to_string())?;
        } else {
            // Standard error may be closed; the exit code says the same.
            let _ = writeln!(io::stderr(), "{}", looked.text());
        }
    }
    Ok(if errors == 0 { OK } else { FAILED })
}

/// What was looked at where nothing is wrong.
struct Looked {
    file: String,
    sources: usize,
    secrets: usize,
    /// The files that the config names, with itself.
    files: BTreeSet<String>,
    live: bool,
}

impl Looked {
    fn at(config: &Config, path: &Path, live: bool) -> Looked {
        let files = config.files().into_iter().chain([path]);
        Looked {
            file: path.display().to_string(),
            sources: config.sources.len(),
            secrets: config.secrets_in_use().len(),
            files: files.map(|file| file.display().to_string()).collect(),
            live,
        }
    }

    fn json(&self, warnings: usize) -> Value {
        let Looked { file, sources, secrets, files, live } = self;
        json!({
            "ok": true, "file": file, "sources": sources, "secrets": secrets, "files": files, "live": live,
            "warnings": warnings,
        })
    }

    fn text(&self) -> String {
        let number =
            |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        let live = if self.live { "servers asked" } else { "servers not asked (--live asks them)" };
        format!(
            "{}: ok, {}, {}, {}, {live}",
            self.file,
            number(self.sources, "source"),
            number(self.secrets, "secret"),
            number(self.files.len(), "file"),
        )
    }
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
