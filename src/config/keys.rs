//! How the keys of a section are declared: one row a key, from which it is read, printed, compared and described.
//!
//! Keeps true: a new key takes one row, and an incomplete row does not compile.

use std::path::Path;

use super::Position;
use super::kinds::{Changes, References, Show, ValueKind};
use super::print::Shown;
use super::report::Report;
use super::section::Section;
use crate::config::secret::SecretRef;

/// The documentation of a key or a table.
#[derive(Clone, Debug)]
pub struct KeyDescription {
    /// The full key, such as `sources.NAME.path`.
    pub name: String,
    /// What it means.
    pub doc: &'static str,
    /// Whether a change of the value needs a restart.
    pub needs_restart: bool,
    /// The allowed values, in words.
    pub allowed: String,
    /// The default as TOML. None: there is none, or it depends on something else.
    pub default: Option<String>,
    /// An example as TOML, for a key without a default.
    pub example: Option<&'static str>,
}

/// A key by its full name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FullKey {
    /// Its tables and its own name, such as `edge.tls.certificate`.
    pub name: String,
    /// Whether a change of its value needs a restart.
    pub needs_restart: bool,
}

/// A secret or a file that a value names.
#[derive(Clone, Debug)]
pub struct Reference<'c> {
    /// The value's key.
    pub key: FullKey,
    /// The value's position.
    pub at: Position,
    /// What it names.
    pub target: Target<'c>,
}

/// See [`Reference`].
#[derive(Clone, Copy, Debug)]
pub enum Target<'c> {
    /// A secret.
    Secret(&'c SecretRef),
    /// A file without secrets.
    File(&'c Path),
    /// The file of a private key.
    PrivateKey(&'c Path),
}

impl<'c> Target<'c> {
    /// The path of the file, or of the secret's file.
    pub fn file(self) -> Option<&'c Path> {
        match self {
            Target::Secret(SecretRef::File(path)) => Some(path),
            Target::Secret(SecretRef::Env(_) | SecretRef::Plain(_)) => None,
            Target::File(path) | Target::PrivateKey(path) => Some(path),
        }
    }
}

/// A section of the file, or a table within one.
pub(super) trait Table: Clone + PartialEq + 'static {
    /// Its keys, in the order of their rows.
    fn rows() -> Vec<Row<Self>>;

    /// Reads it, and reports its unknown keys.
    fn read(section: &Section<'_>) -> Self;
}

/// A key of the table `T`.
pub(super) struct Row<T> {
    /// `name` is the name within the table.
    key: KeyDescription,
    show: Box<Show<T>>,
    changes: Box<Changes<T>>,
    references: Box<References<T>>,
    nested: Option<fn(&str, &mut Vec<KeyDescription>)>,
}

impl<T: 'static> Row<T> {
    /// The key `name`, with values of this kind in the field that `of` returns.
    pub(super) fn new<V: 'static>(
        name: &str,
        doc: &'static str,
        needs_restart: bool,
        example: Option<&'static str>,
        kind: ValueKind<V>,
        of: fn(&T) -> &V,
    ) -> Self {
        let ValueKind { allowed, default, show, changes, references, nested, .. } = kind;
        let report = Report::new("", Path::new(""));
        let absent = Section::new(&report, String::new(), Position::default(), None);
        // A table has no default to show. An example stands for a default that depends on other keys.
        let has_default = nested.is_none() && example.is_none();
        let default = if has_default { show(&default(&absent, name)).map(Shown::inline) } else { None };
        Row {
            key: KeyDescription {
                name: name.to_owned(),
                doc: doc.trim(),
                needs_restart,
                allowed,
                default,
                example,
            },
            show: Box::new(move |table| show(of(table))),
            changes: Box::new(move |now, before, key, found| changes(of(now), of(before), key, found)),
            references: Box::new(move |table, key, found| references(of(table), key, found)),
            nested,
        }
    }

    fn full_key(&self, above: &str) -> FullKey {
        let KeyDescription { name, needs_restart, .. } = &self.key;
        let name = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        FullKey { name, needs_restart: *needs_restart }
    }
}

impl FullKey {
    pub(super) fn names<'v>(&self, at: Position, target: Target<'v>) -> Reference<'v> {
        Reference { key: self.clone(), at, target }
    }
}

/// A table's keys with their values. Keys without a value are left out.
pub(super) fn show<T: Table>(table: &T) -> Vec<(String, Shown)> {
    T::rows().into_iter().filter_map(|row| Some((row.key.name, (row.show)(table)?))).collect()
}

/// Adds the keys whose values differ.
pub(super) fn changes<T: Table>(now: &T, before: &T, above: &str, found: &mut Vec<FullKey>) {
    for row in T::rows() {
        (row.changes)(now, before, row.full_key(above), found);
    }
}

/// Adds the secrets and files that a table names.
pub(super) fn references<'t, T: Table>(table: &'t T, above: &str, found: &mut Vec<Reference<'t>>) {
    for row in T::rows() {
        (row.references)(table, &row.full_key(above), found);
    }
}

/// Adds the documentation of a table's keys.
pub(super) fn describe<T: Table>(above: &str, keys: &mut Vec<KeyDescription>) {
    for row in T::rows() {
        let FullKey { name, .. } = row.full_key(above);
        keys.push(KeyDescription { name: name.clone(), ..row.key });
        if let Some(nested) = row.nested {
            nested(&name, keys);
        }
    }
}

/// Declares a table: a struct with one field a key. A row is `/// DOC`, then `KEY: TYPE = KIND, RELOAD;`. RELOAD is
/// `live` if a reload applies a change, `restart` if a change needs a restart, or `by_key` for a section, whose own
/// rows say it. A key without a fixed default also has an example: `KEY: TYPE = KIND, RELOAD, "EXAMPLE";`.
macro_rules! table {
    (
        $(#[$meta:meta])*
        pub struct $Table:ident $(, checked by $check:path)? {
            $( $(#[doc = $doc:literal])+ $key:ident: $Type:ty = $kind:expr, $reload:ident $(, $example:literal)?; )+
            $( besides { $( $(#[$other_meta:meta])* $other:ident: $Other:ty, )+ } )?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $Table {
            $( $(#[doc = $doc])+ pub $key: $Type, )+
            $($( $(#[$other_meta])* pub $other: $Other, )+)?
        }

        impl $crate::config::keys::Table for $Table {
            fn rows() -> Vec<$crate::config::keys::Row<Self>> {
                use $crate::config::keys::{Row, table};
                vec![$(
                    Row::new(
                        table!(@name $key),
                        concat!($($doc),+),
                        table!(@needs_restart $reload),
                        [$($example)?].first().copied(),
                        $kind,
                        |table: &Self| &table.$key,
                    )
                ),+]
            }

            fn read(section: &$crate::config::section::Section<'_>) -> Self {
                use $crate::config::keys::table;
                section.refuse_unknown(&[$(table!(@name $key)),+]);
                #[allow(unused_mut, reason = "only some tables are checked")]
                let mut table = $Table {
                    $( $key: section.get(table!(@name $key), $kind), )+
                    $($( $other: Default::default(), )+)?
                };
                $( $check(&mut table, section); )?
                table
            }
        }
    };
    // A key that is a word of Rust is written as `r#type`.
    (@name $key:ident) => { stringify!($key).trim_start_matches("r#") };
    (@needs_restart live) => { false };
    (@needs_restart restart) => { true };
    (@needs_restart by_key) => { false };
}
pub(super) use table;
