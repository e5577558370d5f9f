//! The lines that did not parse, and the keys that they may assign.
//!
//! Keeps true: a missing key is reported, unless such a line may assign it.

use std::collections::BTreeMap;

/// The lines of a file that did not parse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnparsedLines {
    /// By number, from 1. A line that is one complete assignment has the last part of its key.
    lines: BTreeMap<usize, Option<String>>,
    /// Lines that begin a table.
    headers: Vec<usize>,
}

impl UnparsedLines {
    /// No unparsed lines yet; finds the lines that begin a table.
    pub(super) fn of(text: &str) -> UnparsedLines {
        let header = |(at, line): (usize, &str)| line.trim_start().starts_with('[').then_some(at + 1);
        UnparsedLines {
            lines: BTreeMap::new(),
            headers: text.lines().enumerate().filter_map(header).collect(),
        }
    }

    /// Notes a line with a syntax error. Returns `false` if the line is noted already or continues the error before it.
    pub(super) fn note(&mut self, line: usize, text: &str, complaint: &str) -> bool {
        // After an unclosed bracket or quote, the parser reports the lines that follow as well.
        let runs_on = ["array", "comma", "unclosed", "inline table", "multi-line"];
        let runs_on = runs_on.iter().any(|word| complaint.contains(word));
        let goes_on =
            runs_on && complaint.contains("comma") && self.lines.contains_key(&line.saturating_sub(1));
        let key = if runs_on { None } else { assigned(text) };
        self.lines.insert(line, key).is_none() && !goes_on
    }

    /// Whether every line parsed.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub(super) fn first(&self) -> Option<usize> {
        self.lines.keys().next().copied()
    }

    /// Whether this line did not parse.
    pub fn contains(&self, line: usize) -> bool {
        self.lines.contains_key(&line)
    }

    /// Whether one of the lines may assign `key`, of the table that begins on the line `start`.
    pub fn may_assign(&self, start: usize, key: &str) -> bool {
        if self.lines.values().any(Option::is_none) {
            return true;
        }
        let end = self.headers.iter().copied().find(|header| *header > start).unwrap_or(usize::MAX);
        let last = key.rsplit('.').next().unwrap_or(key);
        self.lines.range(start..end).any(|(_, assigned)| assigned.as_deref() == Some(last))
    }
}

/// The last part of the key that a line assigns, if its brackets and quotes are closed.
fn assigned(line: &str) -> Option<String> {
    let (key, value) = line.split_once('=')?;
    let is_key = |c: char| c.is_alphanumeric() || "_-.\"' \t".contains(c);
    let count = |wanted: char| value.matches(wanted).count();
    let is_closed = count('[') == count(']') && count('{') == count('}');
    let is_short = !value.contains("\"\"\"") && !value.contains("'''");
    let last = key.rsplit('.').next()?.trim().trim_matches(['"', '\'']);
    (is_closed && is_short && !last.is_empty() && key.chars().all(is_key)).then(|| last.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_stand_in_an_unread_line_is_hidden() {
        let mut unparsed = UnparsedLines::of("[a]\nx = 5m\n[b]\ny = 1\n");
        assert!(!unparsed.may_assign(1, "a.x"));
        assert!(unparsed.note(2, "x = 5m", "string values must be quoted"));
        assert!(
            unparsed.may_assign(1, "a.x") && !unparsed.may_assign(1, "a.y") && !unparsed.may_assign(3, "b.x")
        );
        assert!(unparsed.note(4, "y = [", "unclosed array"));
        assert!(unparsed.may_assign(1, "a.y") && unparsed.may_assign(3, "anything"));
    }

    #[test]
    fn a_line_that_is_no_whole_assignment_assigns_nothing() {
        for (line, key) in [
            ("tolerance = 5m", Some("tolerance")),
            ("  sources.a.\"secrets\"=[{ env = X }]", Some("secrets")),
            ("secrets = [{ env = \"X\" }", None),
            ("[sources.a", None),
            ("{ env = X },", None),
            ("text = \"\"\"", None),
            ("nonsense", None),
            ("= 1", None),
        ] {
            assert_eq!(assigned(line).as_deref(), key, "{line}");
        }
    }
}
