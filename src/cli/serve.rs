//! `hookgate serve`: runs the gateway until SIGTERM or SIGINT.

use std::path::Path;

use tokio::signal::unix::{SignalKind, signal};

use super::{CommandResult, FAILED, Failure, Global, OK, block_on, check};
use crate::base::clock::Clock;
use crate::config::{Config, LoadError, Problem};
use crate::gateway::{self, Gateway, HandoffLock, Loaded, Reloads};
use crate::observe::metrics::Metrics;
use crate::observe::telemetry::{self, Format};

pub(super) fn run(global: &Global, log_format: Format) -> CommandResult {
    let path = global.config_path()?;
    let format = if global.json { Format::Json } else { log_format };
    telemetry::start(format);
    match serve(path, format) {
        // A program that reads the log as JSON finds the error there too.
        Err(Failure(what)) if format == Format::Json => {
            tracing::error!("{what}");
            Ok(FAILED)
        }
        done => done,
    }
}

fn serve(path: &Path, format: Format) -> CommandResult {
    block_on(async {
        // Before anything slow: a SIGHUP without a listener would end the process.
        let (mut terminate, mut interrupt, mut hangup) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        );
        let file = path.display().to_string();
        let read = load(path)?;
        let mut loaded = match read {
            Ok(loaded) if !has_errors(&loaded) => loaded,
            Ok(Loaded { problems, .. }) => return refuse(&file, &problems, format),
            Err(nothing) => return refuse(&file, &[nothing.problem()], format),
        };
        let starting = async {
            let gateway = loop {
                let Some(handoff) = HandoffLock::acquire(&loaded.config).await? else {
                    break start(None, &loaded, &file).await?;
                };
                // Read again: the wait for the lock may have taken days.
                let before = std::mem::replace(&mut loaded, load(path)??);
                if has_errors(&loaded) {
                    log_problems(&file, &loaded);
                    tracing::error!("config refused: {file} has changed while waiting, and has errors now");
                    return Ok(None);
                }
                if same_lock(&loaded.config, &before.config) {
                    break start(Some(handoff), &loaded, &file).await?;
                }
                tracing::info!("data_dir or edge.reuse_port has changed while waiting: starting over");
            };
            Ok::<_, Failure>(Some((gateway, loaded)))
        };
        let started = tokio::select! {
            started = starting => started?,
            _ = terminate.recv() => return Ok(OK),
            _ = interrupt.recv() => return Ok(OK),
        };
        let Some((mut gateway, loaded)) = started else { return Ok(FAILED) };
        let mut reloads = Reloads::new(path, loaded);
        loop {
            let reload = async {
                let asked = tokio::select! {
                    _ = hangup.recv() => true,
                    () = reloads.due() => false,
                };
                reloads.run(&mut gateway, asked).await;
            };
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = reload => {}
            }
        }
        tracing::info!("draining");
        // The SIGHUP listener still exists, so a SIGHUP is ignored from here on.
        gateway.drain().await;
        tracing::info!("stopped");
        Ok(OK)
    })
}

fn load(path: &Path) -> Result<Result<Loaded, LoadError>, Failure> {
    Ok(gateway::load(path, &Metrics::new()?, None))
}

/// Prints the problems as `check` does. In JSON, logs them too, since standard output may go elsewhere.
fn refuse(file: &str, problems: &[Problem], format: Format) -> CommandResult {
    check::print(file, problems, format == Format::Json)?;
    if format == Format::Json {
        for problem in problems.iter().filter(|problem| !problem.warning) {
            tracing::error!("{}", problem.render(file));
        }
    }
    Ok(FAILED)
}

fn has_errors(loaded: &Loaded) -> bool {
    loaded.problems.iter().any(|problem| !problem.warning)
}

fn log_problems(file: &str, loaded: &Loaded) {
    for problem in &loaded.problems {
        let text = problem.render(file);
        if problem.warning { tracing::warn!("{text}") } else { tracing::error!("{text}") }
    }
}

/// Whether both configs need the same handoff lock.
fn same_lock(config: &Config, before: &Config) -> bool {
    config.data_dir == before.data_dir && config.edge.reuse_port == before.edge.reuse_port
}

/// Starts a gateway and logs where it listens.
async fn start(handoff: Option<HandoffLock>, loaded: &Loaded, file: &str) -> Result<Gateway, Failure> {
    log_problems(file, loaded);
    let config = loaded.config.clone();
    let (sources, queue) = (config.sources.len(), config.queue.kind.label());
    let scheme = |tls: &Option<_>| if tls.is_some() { "https" } else { "http" };
    let (edge_scheme, admin_scheme) = (scheme(&config.edge.tls), scheme(&config.admin.tls));
    let gateway = Gateway::start_with(handoff, config, Clock::System).await?;
    for edge in gateway.edge() {
        tracing::info!(address = %format!("{edge_scheme}://{edge}"), sources, queue, "serving");
    }
    tracing::info!(address = %format!("{admin_scheme}://{}", gateway.admin()), "metrics and health");
    Ok(gateway)
}
