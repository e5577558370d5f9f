//! `hookgate serve`: the gateway, until it is told to stop.

use tokio::signal::unix::{SignalKind, signal};

use super::{Done, FAILED, Failure, Global, OK, block_on, check};
use crate::clock::Clock;
use crate::gateway::{Gateway, StartError};
use crate::telemetry::{self, Format};

pub(super) fn run(global: &Global, log_format: Format) -> Done {
    let path = global.config_path()?;
    let (config, problems) = check::problems(path)?;
    let file = path.display().to_string();
    if problems.iter().any(|problem| !problem.warning) {
        check::print(&file, &problems, global.json)?;
        return Ok(FAILED);
    }
    telemetry::start(if global.json { Format::Json } else { log_format });
    for problem in &problems {
        tracing::warn!("{}", problem.render(&file));
    }
    block_on(async {
        let (mut terminate, mut interrupt, mut hangup) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        );
        let gateway = tokio::select! {
            gateway = start(config) => gateway?,
            // A start may wait for the gateway before it.
            _ = terminate.recv() => return Ok(OK),
            _ = interrupt.recv() => return Ok(OK),
        };
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                // Unheeded it would end the process without a drain.
                _ = hangup.recv() => tracing::warn!("SIGHUP: reloading is not yet in this version; restart to apply changes"),
            }
        }
        tracing::info!("draining");
        gateway.drain().await;
        tracing::info!("stopped");
        Ok(OK)
    })
}

/// Starts a gateway and logs where it listens.
async fn start(config: crate::config::Config) -> Result<Gateway, Failure> {
    let (sources, queue) = (config.sources.len(), config.queue.kind);
    let gateway =
        Gateway::start(config, Clock::System).await.map_err(|error: StartError| Failure::from(error))?;
    for edge in gateway.edge() {
        tracing::info!(address = %format!("http://{edge}"), sources, ?queue, "serving");
    }
    tracing::info!(address = %format!("http://{}", gateway.admin()), "metrics and health");
    Ok(gateway)
}
