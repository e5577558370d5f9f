//! Finds the source that an unknown path probably means, for example after a doubled slash in a registered URL.
//!
//! Keeps true: only the record names the source. It never says whether a path holds the right token. The work is
//! bounded.

use std::sync::Arc;

use super::{Routes, Source};
use crate::config::secret::percent_decoded;

/// A source whose path an unknown path nearly matches.
pub struct NearMiss {
    /// The source.
    pub source: Arc<Source>,
    /// The difference, for the record.
    pub detail: String,
}

impl Routes {
    /// The source that a path nearly matches, if [`Routes::find`] finds nothing.
    pub fn near_miss(&self, path: &str) -> Option<NearMiss> {
        let corrected = CorrectedPath::of(path)?;
        let shape = corrected.path.to_ascii_lowercase();
        let (source, near_path) = match self.shapes.get(shape.as_str()) {
            Some(source) if source.token.is_some() => (source, NearPath::TokenMissing),
            Some(source) => (source, NearPath::Path),
            None => {
                let (parent, _) = shape.rsplit_once('/')?;
                let source = self.shapes.get(parent).filter(|source| source.token.is_some())?;
                (source, NearPath::Token)
            }
        };
        let mut corrections = corrected.corrections;
        if !corrected.path.starts_with(&*source.path) {
            corrections.push("upper and lower case");
        }
        if corrections.is_empty() {
            return None;
        }
        let name = &source.name;
        let would_be = match near_path {
            NearPath::Path => format!("the path of the source {name}"),
            NearPath::TokenMissing => format!("the path of the source {name}, which lacks its token"),
            NearPath::Token => format!("under the path of the source {name}, where its token stands"),
        };
        let detail =
            format!("no source has this path; but for {}, it would be {would_be}", corrections.join(" and "));
        Some(NearMiss { source: source.clone(), detail })
    }

    /// Adds a source for [`Routes::near_miss`].
    pub(super) fn add_shape(&mut self, source: &Arc<Source>) {
        self.shapes.entry(source.path.to_ascii_lowercase()).or_insert_with(|| source.clone());
    }
}

/// What a corrected path is.
enum NearPath {
    Path,
    TokenMissing,
    Token,
}

/// A path with usual mistakes corrected, except upper and lower case.
struct CorrectedPath {
    path: String,
    corrections: Vec<&'static str>,
}

impl CorrectedPath {
    fn of(path: &str) -> Option<CorrectedPath> {
        if path.len() > MAX_PATH {
            return None;
        }
        let mut corrections = Vec::new();
        let decoded = String::from_utf8(percent_decoded(path.as_bytes())).ok()?;
        let mut plain = decoded.trim().to_owned();
        if decoded.len() != path.len() {
            corrections.push(if plain.len() == decoded.len() { "its percent-encoding" } else { "blanks" });
        }
        if plain.trim_end_matches('/').contains("//") {
            corrections.push("a doubled slash");
        }
        while plain.contains("//") {
            plain = plain.replace("//", "/");
        }
        if let Some(before) = plain.strip_suffix('/') {
            corrections.push("the slash at its end");
            plain = before.to_owned();
        }
        Some(CorrectedPath { path: plain, corrections })
    }
}

/// Bytes. A longer path is no typing mistake.
const MAX_PATH: usize = 1 << 10;
