//! Reads one TOML table: its values by their keys, and its unknown keys.
//!
//! Keeps true: every key that no row declares is reported, with what is allowed there.

use std::cell::Cell;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::item::Item;
use super::kinds::ValueKind;
use super::print::quote_key;
use super::report::Report;
use super::{Located, Position};

/// One table of the file, or one that the file leaves out.
pub(super) struct Section<'a> {
    report: &'a Report<'a>,
    /// The full key, empty for the file itself.
    key: String,
    at: Position,
    table: Option<&'a DeTable<'a>>,
    /// Whether a key that it needs is missing or invalid.
    incomplete: Cell<bool>,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(super) fn root(report: &'a Report<'a>, table: &'a DeTable<'a>) -> Section<'a> {
        Section::new(report, String::new(), Position { line: 1, column: 1 }, Some(table))
    }

    /// A section under the full key `key`.
    pub(super) fn new(
        report: &'a Report<'a>,
        key: String,
        at: Position,
        table: Option<&'a DeTable<'a>>,
    ) -> Self {
        Section { report, key, at, table, incomplete: Cell::new(false) }
    }

    pub(super) fn at(&self) -> Position {
        self.at
    }

    pub(super) fn base(&self) -> &'a Path {
        self.report.base()
    }

    /// The full key of its key `key`.
    pub(super) fn key_of(&self, key: &str) -> String {
        let part = quote_key(key);
        if self.key.is_empty() { part } else { format!("{}.{part}", self.key) }
    }

    pub(super) fn problem(&self, at: Position, key: &str, what: impl Into<String>) {
        self.report.problem(at, &self.key_of(key), what);
    }

    pub(super) fn warning(&self, at: Position, key: &str, what: impl Into<String>) {
        self.report.warning(at, &self.key_of(key), what);
    }

    pub(super) fn missing(&self, key: &str, what: impl Into<String>) {
        self.report.missing(self.at, &self.key_of(key), what);
    }

    /// Rejects the whole section unless `key` is present and valid. `what` says what to write.
    pub(super) fn require(&self, key: &str, what: &str) {
        if self.item(key).is_none() {
            self.missing(key, format!("missing; expected {what}"));
        }
        if self.given_at(key).is_none() {
            self.reject();
        }
    }

    /// Rejects the whole section. The problem is reported already.
    pub(super) fn reject(&self) {
        self.incomplete.set(true);
    }

    pub(super) fn is_complete(&self) -> bool {
        !self.incomplete.get()
    }

    /// Whether the file leaves it out.
    pub(super) fn is_absent(&self) -> bool {
        self.table.is_none()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.is_none_or(DeTable::is_empty)
    }

    /// The value of `key` in the file, with any type.
    pub(super) fn value(&self, key: &str) -> Option<&'a DeValue<'a>> {
        Some(self.table?.get(key)?.get_ref())
    }

    /// The value of `key`, if the file has it.
    pub(super) fn item(&self, key: &str) -> Option<Item<'a>> {
        let table = self.table?;
        let (name, value) = table.get_key_value(key)?;
        Some(Item::new(self.report, self.key_of(key), name.span().start, value).in_table(table))
    }

    /// The value of `key`, read by its kind. A missing or invalid value gives the default.
    pub(super) fn get<V>(&self, key: &str, kind: ValueKind<V>) -> V {
        let Some(item) = self.item(key) else { return (kind.default)(self, key) };
        (kind.read)(&item).unwrap_or_else(|| {
            self.report.note_invalid(self.key_of(key));
            (kind.default)(self, key)
        })
    }

    /// Whether the value of `key` was replaced by its default.
    pub(super) fn is_invalid(&self, key: &str) -> bool {
        self.report.is_invalid(&self.key_of(key))
    }

    /// The position of the value of `key`. None: the default is used.
    pub(super) fn given_at(&self, key: &str) -> Option<Position> {
        self.item(key).filter(|_| !self.is_invalid(key)).map(|item| item.at)
    }

    /// The position of the value of `key`, or of the section for a default.
    pub(super) fn position_of(&self, key: &str) -> Position {
        self.given_at(key).unwrap_or(self.at)
    }

    /// A subsection. A value that is no table counts as absent; the code that reads it reports that.
    pub(super) fn section(&self, key: &str) -> Section<'a> {
        let item = self.item(key).filter(Item::is_table);
        item.and_then(|item| item.section()).unwrap_or_else(|| self.absent(key))
    }

    /// A subsection that the file leaves out.
    pub(super) fn absent(&self, key: &str) -> Section<'a> {
        Section::new(self.report, self.key_of(key), self.at, None)
    }

    /// Every value by its name, in the order of the file, for a table whose keys are names.
    pub(super) fn items(&self) -> Vec<(Located<String>, Item<'a>)> {
        let table = self.table.into_iter().flatten();
        let items = table.map(|(name, value)| {
            let item = Item::new(self.report, self.key_of(name.get_ref()), name.span().start, value);
            (Located { value: name.get_ref().to_string(), at: item.key_at }, item)
        });
        let mut items: Vec<_> = items.collect();
        items.sort_by_key(|(name, _)| name.at);
        items
    }

    /// Every subsection by its name, in the order of the file, for a table whose keys are names.
    pub(super) fn named(&self) -> Vec<(Located<String>, Section<'a>)> {
        let items = self.items().into_iter();
        items.filter_map(|(name, item)| item.section().map(|section| (name, section))).collect()
    }

    /// Reports the keys that are not among the `known`. Returns whether there are any.
    pub(super) fn refuse_unknown(&self, known: &[&str]) -> bool {
        let mut found = false;
        for (name, _) in self.table.into_iter().flatten() {
            let key: &str = name.get_ref();
            if known.contains(&key) {
                continue;
            }
            found = true;
            let (full_key, at) = (self.key_of(key), self.report.position(name.span().start));
            if let Some((_, what)) = OF_OTHER_VERSIONS.iter().find(|(other, _)| *other == full_key) {
                self.report.problem(at, &full_key, *what);
                continue;
            }
            // Below a broken header the parser takes a section's keys for the file's own.
            if self.key.is_empty() && self.report.has_unparsed_line_above(at) {
                continue;
            }
            let near = known
                .iter()
                .filter(|other| is_near(key, other))
                .min_by_key(|other| edit_distance(key, other));
            let hint = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
            let what = format!("unknown key{hint} (allowed here: {})", known.join(", "));
            self.report.problem(at, &full_key, what);
        }
        found
    }
}

fn is_near(found: &str, known: &str) -> bool {
    let allowed = if known.len() < 5 { 1 } else { 2 };
    found.len().abs_diff(known.len()) <= allowed && edit_distance(found, known) <= allowed
}

/// Counts the single edits between two words: a letter inserted, removed or replaced, or two swapped.
pub(crate) fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let mut fewest = (last[j] + usize::from(a[i] != b[j])).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                fewest = fewest.min(before_last[j - 1] + 1);
            }
            row.push(fewest);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// The full names of keys that only a later or an earlier version has, and what to do instead.
const OF_OTHER_VERSIONS: [(&str, &str); 1] = [(
    "audit.ship",
    "this version has no such key; to have the reject log elsewhere too, let rsyslog, Vector or Fluent Bit read \
     data_dir/audit/*.jsonl; deploy/reject-log has a config for each",
)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_edits() {
        assert_eq!(edit_distance("listen", "listen"), 0);
        assert_eq!(edit_distance("lsiten", "listen"), 1);
        assert_eq!(edit_distance("lissten", "listen"), 1);
        assert_eq!(edit_distance("", "abc"), 3);
        assert!(is_near("max_bdoyy", "max_body"));
        assert!(!is_near("kin", "name"));
        assert!(!is_near("colour", "queue"));
    }
}
