//! The problems of one file, and their positions.
//!
//! Keeps true: a position counts lines and characters from 1. A syntax error is reported once, and not again for the
//! value that the parser made of it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::Path;

use super::{Position, Problem, UnparsedLines};

/// Collects problems. Shared by every section of one file, hence the cell.
pub(super) struct Report<'t> {
    text: &'t str,
    /// The folder that relative paths start at.
    base: &'t Path,
    /// Byte offsets.
    line_starts: Vec<usize>,
    /// Lines with a syntax error.
    unparsed: UnparsedLines,
    /// The full keys of values that are replaced by their defaults.
    invalid: RefCell<BTreeSet<String>>,
    problems: RefCell<Vec<Problem>>,
}

impl<'t> Report<'t> {
    pub(super) fn new(text: &'t str, base: &'t Path) -> Report<'t> {
        let after_breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        let line_starts = std::iter::once(0).chain(after_breaks).collect();
        let unparsed = UnparsedLines::of(text);
        Report {
            text,
            base,
            line_starts,
            unparsed,
            invalid: RefCell::default(),
            problems: RefCell::default(),
        }
    }

    /// The folder that relative paths start at.
    pub(super) fn base(&self) -> &'t Path {
        self.base
    }

    /// Notes that a key's value is replaced by its default.
    pub(super) fn note_invalid(&self, full_key: String) {
        self.invalid.borrow_mut().insert(full_key);
    }

    /// Whether a key's value was replaced by its default.
    pub(super) fn is_invalid(&self, full_key: &str) -> bool {
        self.invalid.borrow().contains(full_key)
    }

    /// The position of the byte `offset`.
    pub(super) fn position(&self, offset: usize) -> Position {
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = self.line_starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let rest = self.text.get(start..).unwrap_or("");
        let before = rest.char_indices().take_while(|(at, _)| start + at < offset).count();
        Position { line, column: before + 1 }
    }

    /// Notes a syntax error. The parser's messages hold no text of the file.
    pub(super) fn syntax(&mut self, at: Position, what: &str) {
        let line = self.text.lines().nth(at.line.saturating_sub(1)).unwrap_or_default();
        if self.unparsed.note(at.line, line, what) {
            // The usual mistake is a text without quotes, which the parser calls a bad number.
            let unquoted = what.starts_with("invalid") && !what.contains("string");
            let hint = if unquoted { "; is it a text without quotes?" } else { "" };
            self.push(at, "toml", format!("{what}{hint}"), false);
        }
    }

    /// The lines that did not parse.
    pub(super) fn unparsed(&self) -> &UnparsedLines {
        &self.unparsed
    }

    /// Whether a line above did not parse.
    pub(super) fn has_unparsed_line_above(&self, at: Position) -> bool {
        self.unparsed.first().is_some_and(|line| line < at.line)
    }

    /// Notes a problem, which stops the start.
    pub(super) fn problem(&self, at: Position, key: &str, what: impl Into<String>) {
        if !self.unparsed.contains(at.line) {
            self.push(at, key, what.into(), false);
        }
    }

    /// Notes that a key is missing, unless a line that did not parse may hold it.
    pub(super) fn missing(&self, at: Position, key: &str, what: impl Into<String>) {
        if !self.unparsed.may_assign(at.line, key) {
            self.push(at, key, what.into(), false);
        }
    }

    /// Notes a warning, which does not stop the start.
    pub(super) fn warning(&self, at: Position, key: &str, what: impl Into<String>) {
        if !self.unparsed.contains(at.line) {
            self.push(at, key, what.into(), true);
        }
    }

    /// Every problem, in the order of the file.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort();
        problems
    }

    fn push(&self, at: Position, key: &str, what: String, warning: bool) {
        self.problems.borrow_mut().push(Problem { at, key: key.to_owned(), what, warning });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters() {
        let report = Report::new("a\nžluť = 1\r\n\n", Path::new(""));
        let at = |offset| (report.position(offset).line, report.position(offset).column);
        assert_eq!(at(0), (1, 1));
        assert_eq!(at(1), (1, 2));
        assert_eq!(at(2), (2, 1));
        assert_eq!(at(4), (2, 2)); // after a letter of two bytes
        assert_eq!(at("a\nžluť = ".len()), (2, 8));
        assert_eq!(at(9999), (4, 1)); // past the end is the end
    }
}
