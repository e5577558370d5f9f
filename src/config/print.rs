//! The effective config as TOML, for `check --print`.
//!
//! Keeps true: the output reads back as a config. It shows where a secret comes from, and never its text.

use std::fmt::{Display, Write};

use crate::config::secret::SecretRef;

/// A printed value, or a table of them.
pub(super) enum Shown {
    /// As TOML.
    Value(String),
    Table(Vec<(String, Shown)>),
}

impl Shown {
    /// On one line.
    pub(super) fn inline(self) -> String {
        match self {
            Shown::Value(text) => text,
            Shown::Table(keys) => {
                let keys: Vec<_> =
                    keys.into_iter().map(|(key, shown)| format!("{key} = {}", shown.inline())).collect();
                format!("{{ {} }}", keys.join(", "))
            }
        }
    }
}

pub(super) fn document(keys: Vec<(String, Shown)>) -> String {
    let mut out = String::new();
    write_keys(&mut out, "", keys);
    out
}

/// Writes the keys of a table, then the tables in it: TOML needs this order.
fn write_keys(out: &mut String, above: &str, keys: Vec<(String, Shown)>) {
    let mut tables = Vec::new();
    for (key, shown) in keys {
        match shown {
            Shown::Value(text) => out.push_str(&format!("{key} = {text}\n")),
            Shown::Table(keys) => tables.push((key, keys)),
        }
    }
    for (key, keys) in tables {
        let name = if above.is_empty() { key } else { format!("{above}.{key}") };
        if keys.iter().any(|(_, shown)| matches!(shown, Shown::Value(_))) {
            out.push_str(&format!("\n[{name}]\n"));
        }
        write_keys(out, &name, keys);
    }
}

/// `text` as a TOML string.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// `name` as one part of a dotted TOML key.
pub(crate) fn quote_key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(bare) { name.to_owned() } else { quote(name) }
}

/// `items` as a TOML list of strings.
pub(super) fn list<T: Display>(items: &[T]) -> String {
    let quoted: Vec<_> = items.iter().map(|item| quote(&item.to_string())).collect();
    format!("[{}]", quoted.join(", "))
}

/// A secret's reference. A plain text is redacted.
pub(super) fn reference(secret: &SecretRef) -> String {
    match secret {
        SecretRef::Env(name) => format!("{{ env = {} }}", quote(name)),
        SecretRef::File(path) => format!("{{ file = {} }}", quote(&path.to_string_lossy())),
        SecretRef::Plain(_) => quote(REDACTED),
    }
}

/// A URL, or a list of URLs with commas, as operators may see it: everything before the last `@` of each is redacted.
/// That is where a password would be, even in a malformed URL.
pub(super) fn redacted_url(url: &SecretRef) -> String {
    let SecretRef::Plain(secret) = url else { return reference(url) };
    let mut urls: Vec<String> = Vec::new();
    for piece in secret.expose().split(',') {
        match urls.last_mut().filter(|before| before.contains("://") && !piece.contains("://")) {
            // A comma inside a password does not begin another URL.
            Some(before) => *before = format!("{before},{piece}"),
            None => urls.push(piece.to_owned()),
        }
    }
    let shown: Vec<_> = urls.iter().map(|url| redacted_one(url)).collect();
    quote(&shown.join(","))
}

fn redacted_one(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    match rest.rsplit_once('@') {
        None => format!("{scheme}{rest}"),
        Some((_, host)) => format!("{scheme}{REDACTED}@{host}"),
    }
}

const REDACTED: &str = "<redacted>";
