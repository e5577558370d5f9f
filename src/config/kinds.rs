//! The kinds of values: one value, one with its position, a list, or a table of more keys.
//!
//! Keeps true: an invalid value is reported, and the default is used instead.

use super::Located;
use super::item::Item;
use super::keys::{self, FullKey, KeyDescription, Reference, Table};
use super::print::Shown;
use super::section::Section;

/// How the values of a key are read, printed and compared.
pub(super) struct ValueKind<V> {
    /// The allowed values, in words.
    pub(super) allowed: String,
    /// Reads a value from the file. None: the value is invalid, and `read` has reported it.
    pub(super) read: Box<Read<V>>,
    /// The default, for a missing or invalid value.
    pub(super) default: Box<DefaultOf<V>>,
    /// The value as TOML. None: the key is left out.
    pub(super) show: Box<Show<V>>,
    /// Adds the key if its values differ; for a table, each key in it that does.
    pub(super) changes: fn(&V, &V, FullKey, &mut Vec<FullKey>),
    /// Adds the secrets and files that a value names.
    pub(super) references: Box<References<V>>,
    /// For a table: adds the documentation of its keys.
    pub(super) nested: Option<fn(&str, &mut Vec<KeyDescription>)>,
}

type Read<V> = dyn Fn(&Item<'_>) -> Option<V>;
type DefaultOf<V> = dyn Fn(&Section<'_>, &str) -> V;
pub(super) type Show<V> = dyn Fn(&V) -> Option<Shown>;
pub(super) type Changes<V> = dyn Fn(&V, &V, FullKey, &mut Vec<FullKey>);
pub(super) type References<V> = dyn for<'v> Fn(&'v V, &FullKey, &mut Vec<Reference<'v>>);

impl<V: PartialEq + 'static> ValueKind<V> {
    /// A value without nested keys or references.
    pub(super) fn new(
        allowed: impl Into<String>,
        default: impl Fn(&Section<'_>, &str) -> V + 'static,
        read: impl Fn(&Item<'_>) -> Option<V> + 'static,
        show: impl Fn(&V) -> Option<Shown> + 'static,
    ) -> ValueKind<V> {
        let changes = |now: &V, before: &V, key: FullKey, found: &mut Vec<FullKey>| {
            if now != before {
                found.push(key);
            }
        };
        ValueKind {
            allowed: allowed.into(),
            read: Box::new(read),
            default: Box::new(default),
            show: Box::new(show),
            changes,
            references: Box::new(|_, _, _| ()),
            nested: None,
        }
    }

    /// The same kind, for values that name secrets or files.
    pub(super) fn naming(
        self,
        references: impl for<'v> Fn(&'v V, &FullKey, &mut Vec<Reference<'v>>) + 'static,
    ) -> ValueKind<V> {
        ValueKind { references: Box::new(references), ..self }
    }

    /// The same kind, with the value's position in the file.
    pub(super) fn located(self) -> ValueKind<Located<V>> {
        let ValueKind { allowed, read, default, show, .. } = self;
        let default = move |section: &Section<'_>, key: &str| Located {
            value: default(section, key),
            at: section.at(),
        };
        let read = move |item: &Item<'_>| Some(Located { value: read(item)?, at: item.at });
        ValueKind::new(allowed, default, read, move |at| show(&at.value))
    }

    /// The same kind, without a default.
    pub(super) fn optional(self) -> ValueKind<Option<V>> {
        let ValueKind { allowed, read, show, references, nested, .. } = self;
        let read = move |item: &Item<'_>| read(item).map(Some);
        let kind = ValueKind::new(allowed, |_, _| None, read, move |value: &Option<V>| show(value.as_ref()?));
        let kind = kind.naming(move |value, key, found| {
            if let Some(value) = value {
                references(value, key, found);
            }
        });
        ValueKind { nested, ..kind }
    }

    /// A list of such values. Invalid items are reported and left out.
    pub(super) fn list(self, what: &'static str) -> ValueKind<Vec<V>> {
        let ValueKind { read, show, references, .. } = self;
        let read = move |item: &Item<'_>| match item.list() {
            Some(items) => Some(items.iter().filter_map(&read).collect()),
            None => item.expected(what),
        };
        let show = move |values: &Vec<V>| {
            let shown: Vec<_> = values.iter().filter_map(|value| Some(show(value)?.inline())).collect();
            Some(Shown::Value(format!("[{}]", shown.join(", "))))
        };
        ValueKind::new(what, |_, _| Vec::new(), read, show).naming(move |values, key, found| {
            values.iter().for_each(|value| references(value, key, found));
        })
    }
}

/// A section, or a table within one.
pub(super) fn section<T: Table>() -> ValueKind<T> {
    let read = |item: &Item<'_>| {
        let section = item.section()?;
        let table = T::read(&section);
        section.is_complete().then_some(table)
    };
    let default = |section: &Section<'_>, key: &str| T::read(&section.absent(key));
    ValueKind {
        changes: |now, before, key, found| keys::changes(now, before, &key.name, found),
        nested: Some(keys::describe::<T>),
        ..ValueKind::new("a table", default, read, |table| Some(Shown::Table(keys::show(table))))
    }
    .naming(|table, key, found| keys::references(table, &key.name, found))
}

/// A table that is printed on one line.
pub(super) fn inline<T: Table>() -> ValueKind<T> {
    let ValueKind { show, .. } = section::<T>();
    let show = move |table: &T| Some(Shown::Value(show(table)?.inline()));
    ValueKind { show: Box::new(show), ..section() }
}
