//! `hookgate check`: what `serve` would say of the config, and all of it.

use std::io::{self, Write};

use clap::Args;
use serde_json::json;

use super::{Done, FAILED, Global, OK, block_on, line};
use crate::clock::Clock;
use crate::config::Problem;
use crate::gateway::{self, Loaded};
use crate::live;
use crate::metrics::Metrics;

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
    let Loaded { config, mut problems, .. } = gateway::load(path, &Metrics::new()?, None)?;
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
