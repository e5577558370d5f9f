//! Logs: text or JSON lines on standard error.
//!
//! Keeps true: what is logged is about the gateway and its parts, never a secret, a body or a path token; a request is logged
//! only at debug level, by the id of its record. What the libraries would log is left out at every level: a broker's client
//! writes whole messages there, and the password it logs in with.

mod spell;

use tracing_subscriber::filter::{EnvFilter, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, registry};

pub use spell::Spell;

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
    let lines = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let lines = match format {
        Format::Text => {
            lines.with_target(false).with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed()
        }
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    let ours = filter_fn(|of| of.target().starts_with(env!("CARGO_CRATE_NAME")));
    let started = registry().with(lines.with_filter(filter).with_filter(ours)).try_init();
    // Only a test starts a second gateway in one process; the first one's log serves both.
    drop(started);
}
