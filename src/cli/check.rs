//! `hookgate check`: what `serve` would say of the config, and all of it.

use std::io::{self, Write};

use clap::Args;
use serde_json::json;

use super::{Done, FAILED, Failure, Global, OK, line};
use crate::config::{self, Config, Problem};
use crate::metrics::Metrics;
use crate::route::Routes;

#[derive(Args)]
pub(super) struct Check {
    /// Print the effective config too, secrets redacted.
    #[arg(long)]
    print: bool,
    /// Reach Redis and the queue, and report unsafe settings (not yet in this version).
    #[arg(long)]
    live: bool,
}

pub(super) fn run(global: &Global, check: &Check) -> Done {
    if check.live {
        return Err(Failure(
            "`check --live` is not yet in this version; without --live the config is checked".to_owned(),
        ));
    }
    let path = global.config_path()?;
    let (config, problems) = problems(path)?;
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
    Ok((config, problems))
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
