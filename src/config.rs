//! The config file: TOML in, a typed [`Config`] out, and every problem at once with its line and column.
//!
//! Keeps true: no gateway starts with an unknown key, a wrong type or a value outside its range. A key of another
//! version is refused, not ignored. `request::source` checks what depends on a provider.

pub mod definitions;
mod edge;
mod http_queue;
mod item;
mod key_positions;
mod keys;
mod kinds;
mod print;
pub mod queue_name;
mod report;
mod root;
pub mod secret;
mod section;
mod sources;
mod stores;
mod subscription;
mod traces;
mod units;
mod unparsed;
mod urls;
mod values;

use std::path::Path;

use toml::de::DeTable;

use self::keys::Table;
use crate::base::file::{self, ReadError};
pub use edge::{Admin, Edge, KeyPair, Tls};
pub use http_queue::HttpRoute;
pub use key_positions::KeyPositions;
pub use keys::{FullKey, KeyDescription, Reference, Target};
pub(crate) use print::quote_key;
pub use root::Config;
pub(crate) use section::edit_distance;
pub use sources::{OnConflict, RateLimit, Source, SourceSecret};
pub use stores::{Audit, Dedupe, Quarantine, Queue, QueueKind, Redis, Spool, Store};
pub use subscription::{ProviderApi, Reconcile, Subscription, Subscriptions};
pub use traces::Tracing;
pub use units::{parse_duration, show_duration};
pub use unparsed::UnparsedLines;
pub(crate) use urls::{PASSWORD_BREAKS_URL, http_url_flaw, password_breaks_url, redis_url_flaw};

/// Reads the file at `path`.
///
/// # Errors
/// If the file cannot be read as UTF-8 text. Problems in the text are in the returned list.
pub fn load(path: &Path) -> Result<(Config, Vec<Problem>), LoadError> {
    let shown = || path.display().to_string();
    let bytes = file::read(path, MAX_BYTES).map_err(|error| match error {
        ReadError::System(error) if error.kind() == std::io::ErrorKind::NotFound => {
            LoadError::Absent(shown())
        }
        ReadError::TooLarge(_) => LoadError::TooLarge(shown()),
        why => LoadError::Unreadable { path: shown(), why },
    })?;
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let (before, rest) = bytes.split_at_checked(error.valid_up_to()).unwrap_or((&bytes, &[]));
        let line = String::from_utf8_lossy(before.rsplit(|byte| *byte == b'\n').next().unwrap_or_default());
        let column = line.trim_start_matches('\u{feff}').chars().count() + 1;
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let is_utf16 = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
        let byte = rest.first().copied().unwrap_or_default();
        LoadError::NotText { path: shown(), at: Position { line, column }, byte, is_utf16 }
    })?;
    Ok(parse(text, path.parent().unwrap_or(Path::new(""))))
}

/// Reads a config's text. Relative paths in it are relative to `base`.
///
/// An invalid value is replaced by its default, so that later checks can add more problems to the list.
pub fn parse(text: &str, base: &Path) -> (Config, Vec<Problem>) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut report = report::Report::new(text, base);
    for error in errors {
        let at = report.position(error.span().map_or(0, |span| span.start));
        report.syntax(at, error.message());
    }
    let mut config = Config::read(&section::Section::root(&report, table.get_ref()));
    config.unparsed_lines = report.unparsed().clone();
    config.key_positions = key_positions::KeyPositions::of(&report, table.get_ref());
    (config, report.into_problems())
}

/// Why there is no config to check.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No such file.
    #[error("there is no config file {0}; name another with --config")]
    Absent(String),
    /// It cannot be read.
    #[error("cannot read the config file {path}: {why}")]
    Unreadable {
        /// The file.
        path: String,
        /// The cause.
        why: ReadError,
    },
    /// It is too large for a config file.
    #[error("the config file {0} is larger than {MAX_MIB} MiB; is it another file?")]
    TooLarge(String),
    /// It is not UTF-8.
    #[error("the config file {path} is not UTF-8 text (line {})", at.line)]
    NotText {
        /// The file.
        path: String,
        /// The position of the first byte that is not UTF-8.
        at: Position,
        /// That byte.
        byte: u8,
        /// Whether it begins with a byte order mark of UTF-16.
        is_utf16: bool,
    },
}

impl LoadError {
    /// The same as a problem of the file, on its first line if the error has no position.
    pub fn problem(&self) -> Problem {
        let start = Position { line: 1, column: 1 };
        let (at, key, what) = match self {
            LoadError::NotText { is_utf16: true, .. } => {
                (start, "toml", "this is UTF-16 and not UTF-8 text: save the file as UTF-8".to_owned())
            }
            LoadError::NotText { at, byte, .. } => {
                let what = format!("the byte 0x{byte:02x} here is not UTF-8 text: save the file as UTF-8");
                (*at, "toml", what)
            }
            LoadError::Absent(_) | LoadError::Unreadable { .. } | LoadError::TooLarge(_) => {
                (start, "file", self.to_string())
            }
        };
        Problem { at, key: key.to_owned(), what, warning: false }
    }
}

/// Far more than any config that is written by hand.
const MAX_MIB: u64 = 16;
const MAX_BYTES: u64 = MAX_MIB << 20;

/// A position in the config file. Lines and columns start at 1, and columns count characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// A value and its position in the file. A default has the position of its section.
#[derive(Clone, Debug, Default)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Its position.
    pub at: Position,
}

/// Positions are not compared: a value that has only moved in the file is unchanged.
impl<T: PartialEq> PartialEq for Located<T> {
    fn eq(&self, other: &Located<T>) -> bool {
        self.value == other.value
    }
}

/// An error or a warning about a config file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Its position.
    pub at: Position,
    /// The full key, dotted: `sources.basiq-prod.secrets`.
    pub key: String,
    /// What is wrong and what is allowed.
    pub what: String,
    /// A warning does not stop the start.
    pub warning: bool,
}

impl Problem {
    /// `FILE:LINE:COL: key: what`. A warning has `warning: ` before its key.
    pub fn render(&self, file: &str) -> String {
        let Problem { at: Position { line, column }, key, what, warning } = self;
        let mark = if *warning { "warning: " } else { "" };
        format!("{file}:{line}:{column}: {mark}{key}: {what}")
    }
}
