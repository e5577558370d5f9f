//! Starts the export of spans, if the config asks for it.

use super::StartError;
use crate::config::Config;
use crate::observe::metrics::Metrics;
use crate::observe::traces::{Exporter, Traces};

/// The exporter, and what requests hand their spans to.
#[cfg(feature = "otlp")]
pub(super) fn start(config: &Config, metrics: &Metrics) -> Result<Option<(Traces, Exporter)>, StartError> {
    use crate::base::runtime::RuntimeThread;
    use crate::net::tls::client;
    use crate::observe::traces::Otlp;

    let Some(url) = &config.tracing.otlp else { return Ok(None) };
    let tls = if url.value.starts_with("https://") { client::of_system() } else { client::of_none() };
    let thread = RuntimeThread::start("traces").map_err(StartError::Threads)?;
    let entered = thread.handle().enter();
    let otlp = tls.and_then(|tls| Otlp::new(&url.value, tls)).map_err(StartError::Tracing)?;
    drop(entered);
    Ok(Some(Exporter::start(thread, otlp, metrics.gateway.spans_dropped.clone())))
}

/// No config of this build asks for it.
#[cfg(not(feature = "otlp"))]
pub(super) fn start(_: &Config, _: &Metrics) -> Result<Option<(Traces, Exporter)>, StartError> {
    Ok(None)
}
