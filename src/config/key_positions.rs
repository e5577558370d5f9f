//! The position of each key in the file, for problems that are found only after it was read.
//!
//! Keeps true: a key that the file leaves out has the position of its section, or else the start of the file.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::Position;
use super::print::quote_key;
use super::report::Report;

/// The position of each key by its full name. Keys under `[sources]` are left out: their values have their own
/// positions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyPositions(BTreeMap<String, Position>);

impl KeyPositions {
    pub(super) fn of(report: &Report<'_>, file: &DeTable<'_>) -> KeyPositions {
        let mut positions = KeyPositions::default();
        positions.add(report, "", file);
        positions
    }

    /// The position of the key with this full name.
    pub fn find(&self, key: &str) -> Position {
        let mut key = key;
        loop {
            if let Some(at) = self.0.get(key) {
                return *at;
            }
            match key.rsplit_once('.') {
                Some((section, _)) => key = section,
                None => return Position { line: 1, column: 1 },
            }
        }
    }

    fn add(&mut self, report: &Report<'_>, section: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let part = quote_key(name.get_ref());
            let key = if section.is_empty() { part } else { format!("{section}.{part}") };
            if key == "sources" {
                continue;
            }
            match value.get_ref() {
                DeValue::Table(inner) => {
                    self.0.insert(key.clone(), report.position(name.span().start));
                    self.add(report, &key, inner);
                }
                _ => {
                    self.0.insert(key, report.position(value.span().start));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn a_key_that_is_left_out_stands_where_its_section_does() {
        let text = "data_dir = \"d\"\n\n[queue]\nkind = \"redis\"\nedge.listen = \"x\"\n[edge.tls]\ncertificate = \"c\"\n";
        let (config, _) = super::super::parse(text, Path::new(""));
        let at = |key| {
            let at = config.key_positions.find(key);
            (at.line, at.column)
        };
        assert_eq!(at("data_dir"), (1, 12));
        assert_eq!(at("queue.kind"), (4, 8));
        assert_eq!(at("queue.name"), (3, 2));
        assert_eq!(at("edge.tls.certificate"), (7, 15));
        assert_eq!(at("spool.enabled"), (1, 1));
    }
}
