//! Logs, as text or JSON lines on standard error.
//!
//! Keeps true: logs never contain a secret, a body or a path token. A request is logged only at debug level, by the id
//! of its record. Logs of libraries are dropped at every level: broker clients log whole messages and their own
//! passwords.

mod log_throttle;

use std::ffi::OsString;

use tracing_subscriber::filter::{EnvFilter, LevelFilter, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, registry};

pub use log_throttle::LogThrottle;

/// The format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging. The environment variable `HOOKGATE_LOG` is a filter, such as `debug` or
/// `hookgate::durable::inbox=trace`. Without it, or with a warning if it is invalid, the level is `info`. A second call
/// does nothing.
pub fn start(format: Format) {
    let (filter, wrong) = filter(std::env::var_os(VARIABLE));
    // If standard error is closed, reporting an error on it would panic.
    let lines = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let lines = match format {
        Format::Text => {
            lines.with_target(false).with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed()
        }
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    let ours = filter_fn(|of| of.target().starts_with(env!("CARGO_CRATE_NAME")));
    let started = registry().with(lines.with_filter(filter).with_filter(ours)).try_init();
    // Fails only in tests, which start a second gateway in one process. The first logger serves both.
    drop(started);
    if let Some(wrong) = wrong {
        tracing::warn!("{wrong}");
    }
}

/// The filter, and a warning if the given one is invalid.
fn filter(given: Option<OsString>) -> (EnvFilter, Option<String>) {
    let Some(given) = given.filter(|given| !given.is_empty()) else {
        return (EnvFilter::new(DEFAULT), None);
    };
    let read = match given.to_str() {
        Some(text) => check(text).and_then(|()| EnvFilter::try_new(text).map_err(|why| why.to_string())),
        None => Err("it is not UTF-8 text".to_owned()),
    };
    match read {
        Ok(filter) => (filter, None),
        Err(why) => {
            let what = format!(
                "{VARIABLE} is not used: {why}; expected a level (off, error, warn, info, debug, trace), or a part of hookgate \
                 with one, such as hookgate::durable::inbox=trace; several with commas. Logging at {DEFAULT}"
            );
            (EnvFilter::new(DEFAULT), Some(what))
        }
    }
}

/// Finds mistakes that the filter's own parser accepts. It reads a misspelt level as a library's name, and nothing
/// would be logged.
fn check(text: &str) -> Result<(), String> {
    let own = env!("CARGO_CRATE_NAME");
    let is_own = |target: &str| match target.split_once("::") {
        Some((first, part)) => first == own && PARTS.contains(&part.split("::").next().unwrap_or_default()),
        None => target == own,
    };
    let is_level = |level: &str| !level.is_empty() && level.parse::<LevelFilter>().is_ok();
    // Spans and their fields may hold commas. The parser reports mistakes in those itself.
    if text.contains(['[', '{']) {
        return Ok(());
    }
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some((target, _)) if !is_own(target) => {
                return Err(format!("{target:?} is not a part of hookgate"));
            }
            Some((_, level)) if !is_level(level) => return Err(format!("{level:?} is not a level")),
            None if !is_own(part) && !is_level(part) => {
                return Err(format!("{part:?} is neither a level nor a part of hookgate"));
            }
            Some(_) | None => {}
        }
    }
    Ok(())
}

const VARIABLE: &str = "HOOKGATE_LOG";
const DEFAULT: &str = "info";
/// The modules of the crate. A filter for another one would show nothing.
const PARTS: [&str; 12] = [
    "base",
    "cli",
    "config",
    "durable",
    "edge",
    "event",
    "gateway",
    "net",
    "observe",
    "provider",
    "request",
    "subscriptions",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_the_modules_of_the_crate() {
        let lines = include_str!("../lib.rs").lines();
        let modules = lines.filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
        assert!(modules.eq(PARTS));
    }

    #[test]
    fn a_filter_that_would_show_nothing_is_told() {
        for good in [
            "debug",
            "TRACE",
            "off",
            "3",
            "hookgate=debug",
            "hookgate::durable::inbox=trace,warn",
            "info, hookgate::cli",
            "hookgate[{id}]=trace",
        ] {
            assert_eq!(filter(Some(good.into())).1, None, "{good}");
        }
        for (bad, part) in [
            ("verbose", "\"verbose\""),
            ("warning", "\"warning\""),
            ("hookgate=loud", "\"loud\""),
            ("hookgate=", "\"\""),
            ("inbox=trace", "\"inbox\""),
            ("info,tokio=debug", "\"tokio\""),
            ("hookgates=debug", "\"hookgates\""),
            ("hookgate::inbox=trace", "\"hookgate::inbox\""),
        ] {
            let (used, wrong) = filter(Some(bad.into()));
            let wrong = wrong.unwrap_or_default();
            assert!(
                wrong.contains(part) && wrong.contains("hookgate::durable::inbox=trace"),
                "{bad}: {wrong}"
            );
            assert_eq!(used.to_string(), "info", "{bad}");
        }
        for none in [None, Some("".into())] {
            assert_eq!(filter(none).1, None);
        }
    }
}
