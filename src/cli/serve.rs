//! `hookgate serve`: the gateway, until it is told to stop.

use std::path::Path;

use tokio::signal::unix::{SignalKind, signal};

use super::{Done, FAILED, Failure, Global, OK, block_on, check};
use crate::base::clock::Clock;
use crate::config::{Config, LoadError, Problem};
use crate::gateway::{self, Gateway, HandoffLock, Loaded, Reloads};
use crate::observe::metrics::Metrics;
use crate::observe::telemetry::{self, Format};

pub(super) fn run(global: &Global, log_format: Format) -> Done {
    let path = global.config_path()?;
    let format = if global.json { Format::Json } else { log_format };
    telemetry::start(format);
    match serve(path, format) {
        // A program that reads the log as JSON learns from it why the start failed.
        Err(Failure(what)) if format == Format::Json => {
            tracing::error!("{what}");
            Ok(FAILED)
        }
        done => done,
    }
}

fn serve(path: &Path, format: Format) -> Done {
    block_on(async {
        // Before anything that takes its time: a SIGHUP without a listener would end the process.
        let (mut terminate, mut interrupt, mut hangup) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        );
        let file = path.display().to_string();
        let read = load(path)?;
        let mut loaded = match read {
            Ok(loaded) if !must_not_serve(&loaded) => loaded,
            Ok(Loaded { problems, .. }) => return refuse(&file, &problems, format),
            Err(nothing) => return refuse(&file, &[nothing.problem()], format),
        };
        let starting = async {
            let gateway = loop {
                let Some(turn) = HandoffLock::of(&loaded.config).await? else {
                    break start(None, &loaded, &file).await?;
                };
                // The gateway before it may have served for days since that was read.
                let before = std::mem::replace(&mut loaded, load(path)??);
                if must_not_serve(&loaded) {
                    log(&file, &loaded);
                    tracing::error!("config refused: what {file} says by now cannot serve");
                    return Ok(None);
                }
                if same_turn(&loaded.config, &before.config) {
                    break start(Some(turn), &loaded, &file).await?;
                }
                tracing::info!("data_dir or edge.reuse_port has changed meanwhile: beginning again");
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
        // The listener for SIGHUP is still there, and so it does nothing from here on.
        gateway.drain().await;
        tracing::info!("stopped");
        Ok(OK)
    })
}

fn load(path: &Path) -> Result<Result<Loaded, LoadError>, Failure> {
    Ok(gateway::load(path, &Metrics::new()?, None))
}

/// Prints what `check` would. In JSON the log says it as well, since standard output may go elsewhere.
fn refuse(file: &str, problems: &[Problem], format: Format) -> Done {
    check::print(file, problems, format == Format::Json)?;
    if format == Format::Json {
        for problem in problems.iter().filter(|problem| !problem.warning) {
            tracing::error!("{}", problem.render(file));
        }
    }
    Ok(FAILED)
}

fn must_not_serve(loaded: &Loaded) -> bool {
    loaded.problems.iter().any(|problem| !problem.warning)
}

/// Logs what is wrong with a config.
fn log(file: &str, loaded: &Loaded) {
    for problem in &loaded.problems {
        let text = problem.render(file);
        if problem.warning { tracing::warn!("{text}") } else { tracing::error!("{text}") }
    }
}

/// Whether the turn to serve by the one config is that to serve by the other.
fn same_turn(config: &Config, before: &Config) -> bool {
    config.data_dir == before.data_dir && config.edge.reuse_port == before.edge.reuse_port
}

/// Starts a gateway and logs where it listens.
async fn start(turn: Option<HandoffLock>, loaded: &Loaded, file: &str) -> Result<Gateway, Failure> {
    log(file, loaded);
    let config = loaded.config.clone();
    let (sources, queue) = (config.sources.len(), config.queue.kind.label());
    let scheme = |tls: &Option<_>| if tls.is_some() { "https" } else { "http" };
    let (edge_scheme, admin_scheme) = (scheme(&config.edge.tls), scheme(&config.admin.tls));
    let gateway = Gateway::start_in_turn(turn, config, Clock::System).await?;
    for edge in gateway.edge() {
        tracing::info!(address = %format!("{edge_scheme}://{edge}"), sources, queue, "serving");
    }
    tracing::info!(address = %format!("{admin_scheme}://{}", gateway.admin()), "metrics and health");
    Ok(gateway)
}
