//! The config file: TOML in, a typed [`Config`] out, and every problem at once with its line and column.
//!
//! Keeps true: an unknown key, a wrong type or a value outside its range never starts a gateway; what is not built yet is
//! refused, not ignored. What depends on a provider is checked in `request::source`, which knows the providers.

mod edge;
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
mod units;
mod unparsed;
mod urls;
mod values;

use std::path::Path;

use toml::de::DeTable;

use self::keys::Table;
use crate::base::file::{self, ReadError};
pub use edge::{Admin, Edge, KeyPair, Tls};
pub use key_positions::KeyPositions;
pub use keys::{FullKey, KeyDescription, Reference, Target};
pub(crate) use print::quote_key;
pub use root::Config;
pub(crate) use section::edit_distance;
pub use sources::{OnConflict, RateLimit, Source, SourceSecret};
pub use stores::{Audit, Dedupe, Quarantine, Queue, QueueKind, Redis, Spool, Store};
pub use units::parse_duration;
pub use unparsed::UnparsedLines;
pub(crate) use urls::{PASSWORD_BREAKS_URL, password_breaks_url, redis_url_flaw};

/// Reads the file at `path`.
///
/// # Errors
/// When there is no text to read. What is wrong with the text is in the list.
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

/// Reads a config's text; relative paths in it are relative to `base`.
///
/// Where something is invalid the config holds its default, so that later checks can add what they find to the list.
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
        /// What stood in the way.
        why: ReadError,
    },
    /// It is no config.
    #[error("the config file {0} is larger than {MAX_MIB} MiB; is it another file?")]
    TooLarge(String),
    /// It is not UTF-8.
    #[error("the config file {path} is not UTF-8 text (line {})", at.line)]
    NotText {
        /// The file.
        path: String,
        /// Where the first byte stands that is not UTF-8.
        at: Position,
        /// That byte.
        byte: u8,
        /// Whether it begins as UTF-16 does.
        is_utf16: bool,
    },
}

impl LoadError {
    /// The same as a problem of the file: at its first line where no place in it is to blame.
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

/// Far more than a config that is written by hand.
const MAX_MIB: u64 = 16;
const MAX_BYTES: u64 = MAX_MIB << 20;

/// A place in the config file, both from 1; columns count characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// A value and where it stood (where its section starts, for a default).
#[derive(Clone, Debug, Default)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where.
    pub at: Position,
}

/// A value that has only moved in the file is the same.
impl<T: PartialEq> PartialEq for Located<T> {
    fn eq(&self, other: &Located<T>) -> bool {
        self.value == other.value
    }
}

/// One thing wrong, or to be warned of, in a config file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where.
    pub at: Position,
    /// The full key, dotted: `sources.basiq-prod.secrets`.
    pub key: String,
    /// What is wrong and what is allowed.
    pub what: String,
    /// A warning does not stop the start.
    pub warning: bool,
}

impl Problem {
    /// `FILE:LINE:COL: key: what`, a warning marked as one.
    pub fn render(&self, file: &str) -> String {
        let Problem { at: Position { line, column }, key, what, warning } = self;
        let mark = if *warning { "warning: " } else { "" };
        format!("{file}:{line}:{column}: {mark}{key}: {what}")
    }
}
