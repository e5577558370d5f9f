//! A reader over one TOML table: typed getters that note what is wrong and go on with the default.
//!
//! Keeps true: every key that nobody asked for is reported; every problem says what is allowed, and what was found
//! unless that may be a secret. What a key means is not here but in `sections.rs` and `sources.rs`.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::item::Item;
use super::print::quote_key;
use super::removed;
use super::report::Report;
use super::units;
use super::{At, Position};
use crate::peer::Network;
use crate::secret::SecretRef;

/// One table of the file, or one that the file leaves out.
pub(super) struct Section<'a> {
    report: &'a Report<'a>,
    /// Dotted, empty for the file itself.
    key: String,
    at: Position,
    table: Option<&'a DeTable<'a>>,
    /// The keys that this version takes, in the order asked.
    known: RefCell<Vec<&'static str>>,
    /// The keys of later versions.
    later: RefCell<Vec<&'static str>>,
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
        Section { report, key, at, table, known: RefCell::default(), later: RefCell::default() }
    }

    /// Where it starts.
    pub(super) fn at(&self) -> Position {
        self.at
    }

    /// The full key of `key` in here.
    pub(super) fn key_of(&self, key: &str) -> String {
        let part = quote_key(key);
        if self.key.is_empty() { part } else { format!("{}.{part}", self.key) }
    }

    /// Notes a problem with `key`.
    pub(super) fn problem(&self, at: Position, key: &str, what: impl Into<String>) {
        self.report.problem(at, &self.key_of(key), what);
    }

    /// Notes a problem with a key elsewhere.
    pub(super) fn problem_at(&self, at: Position, full_key: &str, what: impl Into<String>) {
        self.report.problem(at, full_key, what);
    }

    /// Notes a warning about `key`.
    pub(super) fn warning(&self, at: Position, key: &str, what: impl Into<String>) {
        self.report.warning(at, &self.key_of(key), what);
    }

    /// Notes that `key` is absent.
    pub(super) fn missing(&self, key: &str, what: impl Into<String>) {
        self.report.missing(self.at, &self.key_of(key), what);
    }

    /// Whether the section itself stands in the file.
    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// Whether it holds nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.table.is_none_or(DeTable::is_empty)
    }

    /// The value of `key`, if it stands in the file.
    pub(super) fn item(&self, key: &'static str) -> Option<Item<'a>> {
        let mut known = self.known.borrow_mut();
        if !known.contains(&key) {
            known.push(key);
        }
        self.entry(key)
    }

    fn entry(&self, key: &str) -> Option<Item<'a>> {
        let (name, value) = self.table?.get_key_value(key)?;
        Some(Item::new(self.report, self.key_of(key), name.span().start, value))
    }

    /// A subsection.
    pub(super) fn section(&self, key: &'static str) -> Section<'a> {
        let absent = Section::new(self.report, self.key_of(key), self.at, None);
        self.item(key).and_then(|item| item.section()).unwrap_or(absent)
    }

    /// Every subsection by its name, in the order of the file, for a table whose keys are names.
    pub(super) fn named(&self) -> Vec<(At<String>, Section<'a>)> {
        let table = self.table.into_iter().flatten();
        let items = table.map(|(name, value)| {
            let item = Item::new(self.report, self.key_of(name.get_ref()), name.span().start, value);
            (At { value: name.get_ref().to_string(), at: item.key_at }, item)
        });
        let mut sections: Vec<_> =
            items.filter_map(|(name, item)| item.section().map(|section| (name, section))).collect();
        sections.sort_by_key(|(name, _)| name.at);
        sections
    }

    /// A string.
    pub(super) fn string(&self, key: &'static str, what: &str) -> Option<At<String>> {
        let item = self.item(key)?;
        Some(At { value: item.text(what)?.to_owned(), at: item.at })
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, key: &'static str) -> Option<At<bool>> {
        let item = self.item(key)?;
        match item.value() {
            DeValue::Boolean(value) => Some(At { value: *value, at: item.at }),
            _ => item.expected("true or false"),
        }
    }

    /// A whole number in `range`.
    pub(super) fn integer(&self, key: &'static str, range: RangeInclusive<u64>) -> Option<At<u64>> {
        let item = self.item(key)?;
        let number = item.value().as_integer();
        let number = number.and_then(|n| i128::from_str_radix(n.as_str(), n.radix()).ok());
        let value = number.and_then(|n| u64::try_from(n).ok()).filter(|n| range.contains(n));
        match value {
            Some(value) => Some(At { value, at: item.at }),
            None => item.expected(&format!("a whole number from {} to {}", range.start(), range.end())),
        }
    }

    /// A duration in `range`, else `default`.
    pub(super) fn duration(
        &self,
        key: &'static str,
        range: RangeInclusive<Duration>,
        default: Duration,
    ) -> At<Duration> {
        let or = At { value: default, at: self.at };
        let Some(item) = self.item(key) else { return or };
        let from_to = range_text(&range, |value| units::show_duration(*value));
        item.quantity(units::duration, &range, DURATION, &from_to).unwrap_or(or)
    }

    /// A size in `range`, else `default`.
    pub(super) fn size(&self, key: &'static str, range: RangeInclusive<u64>, default: u64) -> u64 {
        let Some(item) = self.item(key) else { return default };
        let from_to = range_text(&range, |value| units::show_size(*value));
        item.quantity(units::size, &range, SIZE, &from_to).map_or(default, |size| size.value)
    }

    /// One of the words in `choices`.
    pub(super) fn one_of<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> Option<At<T>> {
        let item = self.item(key)?;
        Some(At { value: item.choice(choices)?, at: item.at })
    }

    /// An address to listen on.
    pub(super) fn address(&self, key: &'static str) -> Option<At<SocketAddr>> {
        let item = self.item(key)?;
        Some(At { value: item.address()?, at: item.at })
    }

    /// Addresses to listen on: one, or a list of at least one; none twice.
    pub(super) fn addresses(&self, key: &'static str) -> Vec<At<SocketAddr>> {
        let Some(item) = self.item(key) else { return Vec::new() };
        let items = item.list().unwrap_or_else(|| vec![self.entry(key)].into_iter().flatten().collect());
        if items.is_empty() {
            let _: Option<()> = item.expected("at least one address");
        }
        let mut addresses: Vec<At<SocketAddr>> = Vec::new();
        for item in items {
            let Some(value) = item.address() else { continue };
            if value.port() != 0 && addresses.iter().any(|before| before.value == value) {
                item.problem(format!("{value} stands here twice"));
            }
            addresses.push(At { value, at: item.at });
        }
        addresses
    }

    /// Networks; a bare address is a network of one.
    pub(super) fn networks(&self, key: &'static str) -> Vec<Network> {
        let items = self.items(key, "a list of networks such as [\"203.0.113.0/24\"]");
        items.into_iter().flatten().filter_map(|item| item.network()).collect()
    }

    /// The items of a list, `None` where it is absent or none.
    pub(super) fn items(&self, key: &'static str, what: &str) -> Option<Vec<Item<'a>>> {
        let item = self.item(key)?;
        item.list().or_else(|| item.expected(what))
    }

    /// The path of a file.
    pub(super) fn path(&self, key: &'static str, base: &Path) -> Option<At<PathBuf>> {
        let path = self.string(key, "the path of a file")?;
        Some(At { value: base.join(path.value), at: path.at })
    }

    /// A secret.
    pub(super) fn secret(&self, key: &'static str, base: &Path) -> Option<At<SecretRef>> {
        self.item(key)?.secret(base)
    }

    /// A key that a later version will take.
    pub(super) fn later(&self, key: &'static str) {
        self.later.borrow_mut().push(key);
        if let Some(item) = self.entry(key) {
            item.not_yet("leave it out");
        }
    }

    /// Whether it holds keys that nobody asked for.
    pub(super) fn has_strangers(&self) -> bool {
        let known = self.known.borrow();
        self.table.into_iter().flatten().any(|(name, _)| !known.contains(&name.get_ref().as_ref()))
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(&self) {
        let (known, later) = (self.known.borrow(), self.later.borrow());
        for (name, _) in self.table.into_iter().flatten() {
            let key: &str = name.get_ref();
            let at = self.report.position(name.span().start);
            // Below a broken header the parser takes a section's keys for the file's own.
            let strayed = self.key.is_empty() && self.report.is_broken_above(at);
            if strayed || known.contains(&key) || later.contains(&key) {
                continue;
            }
            let full = self.key_of(key);
            if let Some(instead) = removed::instead(&full) {
                self.report.problem(at, &full, format!("this version has no such key; {instead}"));
                continue;
            }
            let near = known.iter().filter(|other| is_near(key, other)).min_by_key(|other| slips(key, other));
            let hint = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
            let what = format!("unknown key{hint} (allowed here: {})", known.join(", "));
            self.report.problem(at, &full, what);
        }
    }
}

fn range_text<T>(range: &RangeInclusive<T>, show: impl Fn(&T) -> String) -> String {
    format!("a value from {} to {}", show(range.start()), show(range.end()))
}

fn is_near(found: &str, known: &str) -> bool {
    let allowed = if known.len() < 5 { 1 } else { 2 };
    found.len().abs_diff(known.len()) <= allowed && slips(found, known) <= allowed
}

/// How many slips of the finger apart: a letter more, less or other, or two swapped.
pub(crate) fn slips(a: &str, b: &str) -> usize {
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

const DURATION: &str = "a duration such as \"250ms\", \"5s\", \"10m\", \"2h\" or \"7d\"";
const SIZE: &str = "a size such as \"64KiB\" or \"1MiB\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_slips() {
        assert_eq!(slips("listen", "listen"), 0);
        assert_eq!(slips("lsiten", "listen"), 1);
        assert_eq!(slips("lissten", "listen"), 1);
        assert_eq!(slips("", "abc"), 3);
        assert!(is_near("max_bdoyy", "max_body"));
        assert!(!is_near("kin", "name"));
        assert!(!is_near("colour", "queue"));
    }
}
