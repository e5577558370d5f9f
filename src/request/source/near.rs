//! The source that a path without one misses by a usual slip in a registered URL.
//!
//! Keeps true: only the record names it, and never says whether the text in a token's place is the token; the work is bounded.

use std::sync::Arc;

use super::{Routes, Source};
use crate::config::secret::percent_decoded;

/// A source that a path misses by a slip.
pub struct Near {
    /// The source.
    pub source: Arc<Source>,
    /// The slip, for the record.
    pub detail: String,
}

impl Routes {
    /// The source that a path would lead to but for a slip, where [`Routes::find`] finds nothing.
    pub fn near(&self, path: &str) -> Option<Near> {
        let meant = Meant::of(path)?;
        let shape = meant.path.to_ascii_lowercase();
        let (source, where_to) = match self.shapes.get(shape.as_str()) {
            Some(source) if source.token.is_some() => (source, Place::TokenMissing),
            Some(source) => (source, Place::Path),
            None => {
                let (parent, _) = shape.rsplit_once('/')?;
                let source = self.shapes.get(parent).filter(|source| source.token.is_some())?;
                (source, Place::Token)
            }
        };
        let mut slips = meant.slips;
        if !meant.path.starts_with(&*source.path) {
            slips.push("upper and lower case");
        }
        if slips.is_empty() {
            return None;
        }
        let name = &source.name;
        let would_be = match where_to {
            Place::Path => format!("the path of the source {name}"),
            Place::TokenMissing => format!("the path of the source {name}, which lacks its token"),
            Place::Token => format!("under the path of the source {name}, where its token stands"),
        };
        let detail =
            format!("no source has this path; but for {}, it would be {would_be}", slips.join(" and "));
        Some(Near { source: source.clone(), detail })
    }

    /// Notes a source for [`Routes::near`].
    pub(super) fn note_shape(&mut self, source: &Arc<Source>) {
        self.shapes.entry(source.path.to_ascii_lowercase()).or_insert_with(|| source.clone());
    }
}

/// Where a path would lead to.
enum Place {
    Path,
    TokenMissing,
    Token,
}

/// A path without its slips, but for those of case.
struct Meant {
    path: String,
    slips: Vec<&'static str>,
}

impl Meant {
    fn of(path: &str) -> Option<Meant> {
        if path.len() > MAX_PATH {
            return None;
        }
        let mut slips = Vec::new();
        let decoded = String::from_utf8(percent_decoded(path.as_bytes())).ok()?;
        let mut plain = decoded.trim().to_owned();
        if decoded.len() != path.len() {
            slips.push(if plain.len() == decoded.len() { "its percent-encoding" } else { "blanks" });
        }
        if plain.trim_end_matches('/').contains("//") {
            slips.push("a doubled slash");
        }
        while plain.contains("//") {
            plain = plain.replace("//", "/");
        }
        if let Some(before) = plain.strip_suffix('/') {
            slips.push("the slash at its end");
            plain = before.to_owned();
        }
        Some(Meant { path: plain, slips })
    }
}

/// Bytes. Over that it is no slip.
const MAX_PATH: usize = 1 << 10;
