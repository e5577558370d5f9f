//! One value of the config file, and the types that it can be read as.
//!
//! Keeps true: each problem says what is allowed and what was found. It shows no value that may be a secret, and
//! nothing inside a list or a table.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::print::quote;
use super::report::Report;
use super::section::Section;
use super::units::{QuantityError, Unit};
use super::{Located, Position};
use crate::base::peer::{Network, NetworkError};
use crate::config::secret::{Secret, SecretRef};

/// A value in the file.
pub(super) struct Item<'a> {
    report: &'a Report<'a>,
    /// The full key.
    pub(super) key: String,
    /// The key's position.
    pub(super) key_at: Position,
    /// The value's position.
    pub(super) at: Position,
    value: &'a DeValue<'a>,
    /// The table that holds it.
    table: Option<&'a DeTable<'a>>,
}

impl<'a> Item<'a> {
    /// The value under the full key `key`, which starts at the byte `key_starts`.
    pub(super) fn new(
        report: &'a Report<'a>,
        key: String,
        key_starts: usize,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Self {
        let (key_at, at) = (report.position(key_starts), report.position(value.span().start));
        Item { report, key, key_at, at, value: value.get_ref(), table: None }
    }

    /// Sets the table that holds it.
    pub(super) fn in_table(self, table: &'a DeTable<'a>) -> Self {
        Item { table: Some(table), ..self }
    }

    /// The value of another key of the same table.
    pub(super) fn sibling(&self, key: &str) -> Option<&'a DeValue<'a>> {
        Some(self.table?.get(key)?.get_ref())
    }

    pub(super) fn base(&self) -> &'a Path {
        self.report.base()
    }

    pub(super) fn problem(&self, what: impl Into<String>) {
        self.report.problem(self.at, &self.key, what);
    }

    pub(super) fn warning(&self, what: impl Into<String>) {
        self.report.warning(self.at, &self.key, what);
    }

    /// Reports that another value was expected. Returns `None`, for the caller to return.
    pub(super) fn expected<T>(&self, what: &str) -> Option<T> {
        self.problem(format!("expected {what}, found {}", shown(self.value)));
        None
    }

    /// The same without showing the value.
    pub(super) fn expected_secret<T>(&self, what: &str) -> Option<T> {
        self.problem(format!("expected {what}, found {}", kind(self.value)));
        None
    }

    /// Its text, if it is a string. Reports nothing.
    pub(super) fn as_text(&self) -> Option<&'a str> {
        self.value.as_str()
    }

    /// Its value, if it is a boolean. Reports nothing.
    pub(super) fn as_flag(&self) -> Option<bool> {
        self.value.as_bool()
    }

    /// Its value as JSON. None: a date or time, which JSON lacks, is in it. Reports nothing.
    pub(super) fn json(&self) -> Option<serde_json::Value> {
        json(self.value)
    }

    /// A string that is not blank.
    pub(super) fn text(&self, what: &str) -> Option<&'a str> {
        match self.value.as_str().filter(|text| !text.trim().is_empty()) {
            Some(text) => Some(text),
            None => self.expected(what),
        }
    }

    pub(super) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    /// Its items, if it is a list. Reports nothing.
    pub(super) fn list(&self) -> Option<Vec<Item<'a>>> {
        let numbered = self.value.as_array()?.iter().enumerate();
        let item = |(number, value): (usize, &'a Spanned<DeValue<'a>>)| {
            Item::new(self.report, format!("{}[{number}]", self.key), value.span().start, value)
        };
        Some(numbered.map(item).collect())
    }

    /// Its table. Another value is reported but not shown, since it may be a secret.
    pub(super) fn section(&self) -> Option<Section<'a>> {
        match self.value.as_table() {
            Some(table) => Some(Section::new(self.report, self.key.clone(), self.at, Some(table))),
            None => self.expected_secret("a table"),
        }
    }

    /// A secret: a reference, which may also have the keys `more`, or with a warning a plain text. No problem shows the
    /// value.
    pub(super) fn secret(&self, more: &[&str]) -> Option<Located<SecretRef>> {
        let value = match self.value {
            DeValue::String(text) if text.trim().is_empty() => {
                self.problem(format!("an empty secret would authenticate every client; expected {SECRET}"));
                return None;
            }
            DeValue::String(text) => {
                self.warning(format!("a secret in the config file; use {SECRET}"));
                SecretRef::Plain(Secret::new(text.as_ref()))
            }
            DeValue::Table(_) => self.reference(more)?,
            _ => return self.expected_secret(SECRET),
        };
        Some(Located { value, at: self.at })
    }

    fn reference(&self, more: &[&str]) -> Option<SecretRef> {
        let section = self.section()?;
        let has_unknown = section.refuse_unknown(&[&["env", "file"], more].concat());
        match (section.item("env"), section.item("file")) {
            (Some(_), Some(_)) => {
                self.problem(format!("both env and file; expected either: {SECRET}"));
                None
            }
            (Some(name), None) => {
                let odd = |c: char| c == '=' || c.is_whitespace() || c.is_control();
                match name.as_text().filter(|text| !text.is_empty() && !text.contains(odd)) {
                    Some(text) => Some(SecretRef::Env(text.to_owned())),
                    None => name.expected_secret("the name of an environment variable"),
                }
            }
            (None, Some(path)) => match path.as_text().filter(|text| !text.trim().is_empty()) {
                Some(text) => Some(SecretRef::File(self.base().join(text))),
                None => path.expected_secret("a path"),
            },
            // The unknown key, perhaps a misspelt `env` or `file`, is reported already.
            (None, None) if has_unknown => None,
            (None, None) => {
                self.problem(format!("neither env nor file; expected {SECRET}"));
                None
            }
        }
    }

    /// A moment: RFC 3339, or a date in UTC. A date means its first moment; with `after_it`, the next day's first
    /// moment.
    pub(super) fn moment(&self, after_it: bool) -> Option<Timestamp> {
        let text = match self.value {
            DeValue::Datetime(found) => found.to_string(),
            DeValue::String(found) => found.to_string(),
            _ => return self.expected(MOMENT),
        };
        let of_date = |date: Date| {
            let date = if after_it { date.tomorrow().ok()? } else { date };
            date.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
        };
        // A time without an offset is refused: its moment would depend on the machine's time zone.
        let moment =
            text.parse::<Timestamp>().ok().or_else(|| of_date(Date::strptime("%Y-%m-%d", &text).ok()?));
        moment.or_else(|| self.expected(MOMENT))
    }

    /// An address with its port.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self.value.as_str().and_then(|text| text.parse().ok()) {
            Some(address) => Some(address),
            None => self.expected("an address such as \"127.0.0.1:8080\" or \"[::1]:8080\""),
        }
    }

    /// A network, or an address as a network of one.
    pub(super) fn network(&self) -> Option<Network> {
        match self.value.as_str().map(str::parse) {
            Some(Ok(network)) => Some(network),
            Some(Err(why @ NetworkError::TooWide)) => {
                self.problem(why.to_string());
                None
            }
            Some(Err(NetworkError::Malformed)) | None => {
                self.expected("a network such as \"203.0.113.0/24\" or an address")
            }
        }
    }

    pub(super) fn flag(&self) -> Option<bool> {
        self.value.as_bool().or_else(|| self.expected("true or false"))
    }

    /// A whole number in `range`.
    pub(super) fn integer(&self, range: &RangeInclusive<u64>) -> Option<u64> {
        let number = self.value.as_integer();
        let number = number.and_then(|n| i128::from_str_radix(n.as_str(), n.radix()).ok());
        let number = number.and_then(|n| u64::try_from(n).ok()).filter(|n| range.contains(n));
        number.or_else(|| self.expected(&format!("a whole number from {} to {}", range.start(), range.end())))
    }

    /// A number from 0 to 1.
    pub(super) fn fraction(&self) -> Option<f64> {
        let text = match self.value {
            DeValue::Integer(number) => number.as_str(),
            DeValue::Float(number) => number.as_str(),
            _ => "",
        };
        let number = text.parse().ok().filter(|number| (0.0..=1.0).contains(number));
        number.or_else(|| self.expected("a number from 0 to 1, such as 0.01"))
    }

    /// A number with one of these units, in `range`.
    pub(super) fn quantity(&self, unit: Unit, range: &RangeInclusive<u64>) -> Option<u64> {
        let read = match self.value {
            DeValue::String(text) => unit.read(text),
            DeValue::Integer(_) => Err(QuantityError::UnitMissing),
            _ => Err(QuantityError::NotAQuantity),
        };
        let what = unit.example();
        match read {
            Ok(value) if range.contains(&value) => Some(value),
            Ok(_) | Err(QuantityError::TooLarge) => {
                let (from, to) = (unit.show(*range.start()), unit.show(*range.end()));
                self.expected(&format!("a value from {from} to {to}"))
            }
            Err(QuantityError::NotAQuantity) => self.expected(what),
            Err(QuantityError::UnitMissing) => {
                self.problem(format!("the unit is missing; expected {what}, found {}", shown(self.value)));
                None
            }
        }
    }
}

fn json(value: &DeValue<'_>) -> Option<serde_json::Value> {
    Some(match value {
        DeValue::String(text) => text.as_ref().into(),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok()?.into(),
        DeValue::Float(number) => number.as_str().parse::<f64>().ok()?.into(),
        DeValue::Boolean(value) => (*value).into(),
        DeValue::Datetime(_) => return None,
        DeValue::Array(items) => {
            items.iter().map(|item| json(item.get_ref())).collect::<Option<Vec<_>>>()?.into()
        }
        DeValue::Table(table) => {
            let members =
                table.iter().map(|(name, value)| Some((name.get_ref().to_string(), json(value.get_ref())?)));
            serde_json::Value::Object(members.collect::<Option<_>>()?)
        }
    })
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The value as written, cut if it is long. The contents of lists and tables are not shown: they may be secrets.
fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.chars().count() > LONGEST_SHOWN => {
            let start: String = text.chars().take(LONGEST_SHOWN).collect();
            format!("{} and more", quote(&start))
        }
        DeValue::String(text) => quote(text),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Array(items) if items.is_empty() => "an empty list".to_owned(),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => kind(value).to_owned(),
    }
}

const SECRET: &str = "{ env = \"NAME\" } or { file = \"PATH\" }";
const MOMENT: &str = "a date such as 2027-01-31 (UTC) or a time such as 2027-01-31T12:00:00Z";
const LONGEST_SHOWN: usize = 60;
