//! Logs: text or JSON lines on standard error.
//!
//! Keeps true: what is logged is about the gateway and its parts, never a secret, a body or a path token; a request is logged
//! only at debug level, by the id of its record.

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// Starts logging. The environment variable `HOOKGATE_LOG` takes a filter (`debug`, `hookgate::inbox=trace`); without it,
/// `info`. A second call does nothing.
pub fn start(format: Format) {
    let filter = EnvFilter::try_from_env("HOOKGATE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // Where standard error is gone, telling of that on standard error would panic.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let started = match format {
        Format::Text => builder
            .with_target(false)
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    // Only a test starts a second gateway in one process; the first one's log serves both.
    drop(started);
}
