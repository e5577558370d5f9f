//! The keys of `[providers.NAME]`: a provider, as a definition says it.
//!
//! Keeps true: this module knows the grammar's keys and their types. `provider::definition` gives them their meaning, and
//! checks that they fit together.

use std::time::Duration;

use super::item::Item;
use super::keys::{self, Table, table};
use super::kinds::{ValueKind, inline, section};
use super::print::{Shown, list, quote, quote_key};
use super::section::Section;
use super::values::{POSITIVE_TIME, choice, duration, text, value, whole};
use super::{Located, Position, Problem};
use crate::base::label::{Label, labels};

table! {
    /// `[providers.NAME]`, as written.
    pub struct Definition, checked by check_definition {
        /// A built-in provider, or one that is defined above. A table that this definition has replaces that
        /// provider's; the other tables are taken from it.
        like: Option<Located<String>> = text("the name of a provider", "").located().optional(), live, "\"stripe\"";
        /// From a delivery's first attempt to its last. `check` warns of a shorter `dedupe.window`.
        retries_for: Option<Duration> = duration(POSITIVE_TIME, Duration::ZERO).optional(), live, "\"3d\"";
        /// The form of its bodies. `auto`: by their Content-Type.
        body: Option<BodyForm> = choice(BodyForm::ALL, BodyForm::Json).optional(), live, "\"json\"";
        /// How it signs: a table, or several (`[[providers.NAME.signature]]`), of which any may match. Without it, a
        /// source needs a token, a certificate or addresses.
        signature: Option<Vec<Signature>> = one_or_more().optional(), live;
        /// What its payloads say.
        event: Option<EventKeys> = section().optional(), live;
        /// How it validates an endpoint. `false` removes the handshake of `like`.
        handshake: Option<Option<Handshake>> = table_or_false().optional(), live;
        besides {
            /// NAME.
            name: Located<String>,
        }
    }
}

labels! {
    /// The form of a body.
    pub enum BodyForm {
        /// JSON.
        Json = "json",
        /// `application/x-www-form-urlencoded`.
        Form = "form",
        /// By the Content-Type.
        Auto = "auto",
    }
}

table! {
    /// `[providers.NAME.signature]`.
    pub struct Signature, checked by check_signature {
        /// The algorithm. Required. `equal`: the delivery holds the secret itself.
        algorithm: Located<String> = text(ALGORITHMS, "").located(), live, "\"hmac-sha256\"";
        /// The header of the signature, or a list of headers. Each one that is there is tried. Required, but for
        /// `equal` with `pointer`.
        header: Vec<Located<String>> = texts("the name of a header, or a list of names"), live, "\"Acme-Signature\"";
        /// `equal`: where the body holds the secret.
        pointer: Option<Located<String>> = text("a pointer such as \"/clientState\"", "").located().optional(), live,
            "\"/clientState\"";
        /// The header's value, such as `t={timestamp},v1={signature}` or `sha256={signature}`.
        format: Located<String> = text("a text with {signature}", "{signature}").located(), live;
        /// The header holds a list, split here. An entry that does not fit `format` is skipped.
        separator: Option<Located<String>> = separator().located().optional(), live, "\" \"";
        /// How the signature is written.
        encoding: Located<String> = text("\"hex\", \"base64\" or \"base64url\"", "hex").located(), live;
        /// The header of the timestamp if `format` has none, or a pointer. Without a timestamp no tolerance is checked.
        timestamp: Vec<Located<String>> = texts("the name of a header, a pointer, or a list of names"), live,
            "\"Acme-Timestamp\"";
        /// The unit of the timestamp.
        timestamp_unit: Located<String> = text("\"s\", \"ms\" or \"rfc3339\"", "s").located(), live;
        /// The header of `{id}`. Lists of `header`, `timestamp` and `id` go together, first with first.
        id: Vec<Located<String>> = texts("the name of a header, or a list of names"), live, "\"Acme-Delivery\"";
        /// The signed text, of `{body}`, `{timestamp}`, `{id}`, `{method}`, `{url}`, `{path}`, `{query}` and
        /// `{header:NAME}`.
        signed: Located<String> = text("a text such as \"{timestamp}.{body}\"", "{body}").located(), live;
        /// How the secret becomes a key. `public-key` is the default of public-key algorithms.
        secret: Option<Located<String>> = text(SECRETS, "").located().optional(), live, "\"text\"";
    }
}

table! {
    /// `[providers.NAME.event]`.
    pub struct EventKeys {
        /// The pointer of the event's type; a list, joined by "."; or `{ first = [...] }`, the name of the first that is
        /// there.
        r#type: Option<TypeKey> = type_key().optional(), live, "\"/type\"";
        /// The pointer of the event's id, or a list of pointers whose values are hashed together. Without it, the type
        /// and the body identify an event.
        id: Vec<Located<String>> = texts("a pointer, or a list of pointers"), live, "\"/id\"";
        /// The pointer of the event's time: RFC 3339, or a number of unix seconds (milliseconds from 10^11 on).
        time: Option<Located<String>> = text("a pointer", "").located().optional(), live, "\"/created\"";
        /// The entity that the event is about.
        subject: Option<EntityKeys> = inline().optional(), live, "{ kind = \"order\", id = \"/data/id\" }";
        /// The tenant that it belongs to.
        tenant: Option<EntityKeys> = inline().optional(), live, "{ kind = \"account\", id = \"/account\" }";
        /// The pointers of a change of state.
        status: Option<StatusKeys> = inline().optional(), live, "{ to = \"/data/status\" }";
        /// The other entities that it names.
        related: Vec<EntityKeys> = inline().list("a list of tables such as [{ kind = \"customer\", id = \"/customer\" }]"), live,
            "[{ kind = \"customer\", id = \"/customer\" }]";
        /// The arrays that hold the events, such as `/entry/*/changes`. `""` is the body itself.
        each: Option<Located<String>> = each().located().optional(), live, "\"/events\"";
        /// The provider's type and the canonical type. Others are `unmapped.…`. Without this table a type is
        /// `NAME.TYPE`.
        types: Option<Vec<(Located<String>, Located<String>)>> = types().optional(), live, "{ \"order.paid\" = \"invoice.paid\" }";
    }
}

table! {
    /// An entity: `{ kind = "order", id = "/data/id" }`.
    pub struct EntityKeys, checked by check_entity {
        /// A word, or a pointer. Required.
        kind: Located<String> = text("a word or a pointer", "").located(), live, "\"order\"";
        /// The pointer of its id. Required.
        id: Located<String> = text("a pointer", "").located(), live, "\"/data/id\"";
    }
}

table! {
    /// A change of state: `{ from = "/previous", to = "/status" }`.
    pub struct StatusKeys {
        /// The pointer of the state before.
        from: Option<Located<String>> = text("a pointer", "").located().optional(), live, "\"/data/previous\"";
        /// The pointer of the state now.
        to: Option<Located<String>> = text("a pointer", "").located().optional(), live, "\"/data/status\"";
    }
}

table! {
    /// `[providers.NAME.handshake]`.
    pub struct Handshake {
        /// The method of the validation request, `GET` or `POST`.
        method: Option<Located<String>> = text("\"GET\" or \"POST\"", "").located().optional(), live, "\"GET\"";
        /// The header that is returned.
        header: Option<Located<String>> = text("the name of a header", "").located().optional(), live, "\"x-key\"";
        /// The parameter of the query that is returned as text.
        query: Option<Located<String>> = text("the name of a parameter", "").located().optional(), live, "\"hub.challenge\"";
        /// The parameter that must equal the source's `handshake_token`.
        token: Option<Located<String>> = text("the name of a parameter", "").located().optional(), live, "\"hub.verify_token\"";
        /// The values by which a verified body is a validation request: pointers and values, all of which must hold.
        when: Vec<(Located<String>, serde_json::Value)> = values("a table such as { \"/type\" = \"url_verification\" }"), live,
            "{ \"/type\" = \"url_verification\" }";
        /// The members of the answer: pointers, `hmac:POINTER`, or plain values.
        answer: Vec<(Located<String>, serde_json::Value)> = values("a table such as { challenge = \"/challenge\" }"), live,
            "{ challenge = \"/challenge\" }";
        /// The status of an answer without a body.
        status: Option<Located<u16>> = whole(200..=299, 0_u16).located().optional(), live, "204";
    }
}

/// The type of an event.
#[derive(Clone, Debug, PartialEq)]
pub enum TypeKey {
    /// The values at these pointers, joined.
    Joined(Vec<Located<String>>),
    /// The name of the first of these pointers that is there.
    First(Vec<Located<String>>),
}

/// Reads a text of definitions alone, as the built-in ones are kept.
pub fn parse(text: &str) -> (Vec<Definition>, Vec<Problem>) {
    let (table, errors) = toml::de::DeTable::parse_recoverable(text);
    let mut report = super::report::Report::new(text, std::path::Path::new(""));
    for error in errors {
        let at = report.position(error.span().map_or(0, |span| span.start));
        report.syntax(at, error.message());
    }
    let root = Section::root(&report, table.get_ref());
    let definitions = root.item("providers").and_then(|item| (definitions().read)(&item)).unwrap_or_default();
    (definitions, report.into_problems())
}

/// The tables of all definitions, in the order of the file.
pub(super) fn definitions() -> ValueKind<Vec<Definition>> {
    let read = |item: &Item<'_>| {
        let section = item.section()?;
        let read = |(name, section): (Located<String>, Section<'_>)| Definition {
            name,
            ..Definition::read(&section)
        };
        Some(section.named().into_iter().map(read).collect())
    };
    let show = |definitions: &Vec<Definition>| {
        let one = |of: &Definition| (quote_key(&of.name.value), Shown::Table(keys::show(of)));
        Some(Shown::Table(definitions.iter().map(one).collect()))
    };
    ValueKind {
        nested: Some(|above, keys| keys::describe::<Definition>(&format!("{above}.NAME"), keys)),
        ..ValueKind::new("a table", |_, _| Vec::new(), read, show)
    }
}

/// A definition as TOML that can be pasted into a config.
pub fn show(definition: &Definition, name: &str) -> String {
    let table = Shown::Table(vec![(quote_key(name), Shown::Table(keys::show(definition)))]);
    super::print::document(vec![("providers".to_owned(), table)])
}

/// A table of signatures, or a list of them.
fn one_or_more() -> ValueKind<Vec<Signature>> {
    let read = |item: &Item<'_>| {
        let one = |item: &Item<'_>| Some(Signature::read(&item.section()?));
        match item.list() {
            Some(items) if items.is_empty() => item.expected("a table, or a list of at least one"),
            Some(items) => Some(items.iter().filter_map(one).collect()),
            None => Some(vec![one(item)?]),
        }
    };
    let show = |signatures: &Vec<Signature>| {
        let mut tables = signatures.iter().map(|signature| Shown::Table(keys::show(signature)));
        match (tables.next(), signatures.len()) {
            (one, 0 | 1) => one,
            (first, _) => {
                let tables: Vec<_> = first.into_iter().chain(tables).map(Shown::inline).collect();
                Some(Shown::Value(format!("[{}]", tables.join(", "))))
            }
        }
    };
    ValueKind {
        nested: Some(keys::describe::<Signature>),
        ..ValueKind::new("a table", |_, _| Vec::new(), read, show)
    }
}

fn table_or_false() -> ValueKind<Option<Handshake>> {
    let ValueKind { read, show, nested, .. } = section::<Handshake>();
    let read = move |item: &Item<'_>| match item.as_flag() {
        Some(false) => Some(None),
        Some(true) => item.expected("a table, or false"),
        None => read(item).map(Some),
    };
    let show = move |handshake: &Option<Handshake>| match handshake {
        Some(handshake) => show(handshake),
        None => Some(Shown::Value("false".to_owned())),
    };
    ValueKind { nested, ..ValueKind::new("a table", |_, _| None, read, show) }
}

/// A text, or a list of texts.
fn texts(what: &'static str) -> ValueKind<Vec<Located<String>>> {
    let read = move |item: &Item<'_>| located_texts(item, what);
    // An empty list is refused, so a key without a value is left out.
    let show = |texts: &Vec<Located<String>>| (!texts.is_empty()).then(|| Shown::Value(shown_texts(texts)));
    ValueKind::new(what, |_, _| Vec::new(), read, show)
}

fn located_texts(item: &Item<'_>, what: &str) -> Option<Vec<Located<String>>> {
    let one = |item: &Item<'_>| Some(Located { value: item.text(what)?.to_owned(), at: item.at });
    match item.list() {
        Some(items) if items.is_empty() => item.expected(what),
        Some(items) => items.iter().map(one).collect(),
        None => Some(vec![one(item)?]),
    }
}

fn shown_texts(texts: &[Located<String>]) -> String {
    match texts {
        [one] => quote(&one.value),
        several => list(&several.iter().map(|text| &*text.value).collect::<Vec<_>>()),
    }
}

fn type_key() -> ValueKind<TypeKey> {
    const WHAT: &str = "a pointer, a list of pointers, or { first = [\"/a\", \"/b\"] }";
    let read = |item: &Item<'_>| {
        if !item.is_table() {
            return Some(TypeKey::Joined(located_texts(item, WHAT)?));
        }
        let section = item.section()?;
        section.refuse_unknown(&["first"]);
        let Some(first) = section.item("first") else { return item.expected_secret(WHAT) };
        Some(TypeKey::First(located_texts(&first, "a list of pointers")?))
    };
    let show = |key: &TypeKey| match key {
        TypeKey::Joined(pointers) => shown_texts(pointers),
        TypeKey::First(pointers) => {
            let texts: Vec<&str> = pointers.iter().map(|text| &*text.value).collect();
            format!("{{ first = {} }}", list(&texts))
        }
    };
    value(WHAT, TypeKey::Joined(Vec::new()), read, show)
}

/// A separator may be a blank, which other texts may not be.
fn separator() -> ValueKind<String> {
    let what = "a text that is not empty, such as \" \" or \",\"";
    let read = move |item: &Item<'_>| match item.as_text().filter(|text| !text.is_empty()) {
        Some(text) => Some(text.to_owned()),
        None => item.expected(what),
    };
    value(what, String::new(), read, |text| quote(text))
}

/// The path of the lists of events, which may be empty.
fn each() -> ValueKind<String> {
    let what = "the path of an array such as \"/events\", or \"\" for the body itself";
    let read = move |item: &Item<'_>| match item.as_text() {
        Some(text) => Some(text.to_owned()),
        None => item.expected(what),
    };
    value(what, String::new(), read, |text| quote(text))
}

fn types() -> ValueKind<Vec<(Located<String>, Located<String>)>> {
    let read = |item: &Item<'_>| {
        let section = item.section()?;
        let one = |(name, item): (Located<String>, Item<'_>)| {
            let canonical = item.text("a canonical type such as \"invoice.paid\"")?;
            Some((name, Located { value: canonical.to_owned(), at: item.at }))
        };
        Some(section.items().into_iter().filter_map(one).collect())
    };
    let show = |types: &Vec<(Located<String>, Located<String>)>| {
        let one = |(from, to): &(Located<String>, Located<String>)| {
            (quote_key(&from.value), Shown::Value(quote(&to.value)))
        };
        Some(Shown::Table(types.iter().map(one).collect()))
    };
    ValueKind::new("a table of types", |_, _| Vec::new(), read, show)
}

/// A table of names and JSON values.
fn values(what: &'static str) -> ValueKind<Vec<(Located<String>, serde_json::Value)>> {
    let read = move |item: &Item<'_>| {
        let section = item.section()?;
        let one = |(name, item): (Located<String>, Item<'_>)| match item.json() {
            Some(value) => Some((name, value)),
            None => item.expected("a text, a number, true or false, or a table or list of them"),
        };
        Some(section.items().into_iter().filter_map(one).collect())
    };
    let show = |values: &Vec<(Located<String>, serde_json::Value)>| {
        // Texts, numbers and booleans are written alike in JSON and TOML.
        let one = |(name, value): &(Located<String>, serde_json::Value)| {
            format!("{} = {value}", quote_key(&name.value))
        };
        let shown: Vec<_> = values.iter().map(one).collect();
        (!values.is_empty()).then(|| Shown::Value(format!("{{ {} }}", shown.join(", "))))
    };
    ValueKind::new(what, |_, _| Vec::new(), read, show)
}

fn check_definition(_: &mut Definition, section: &Section<'_>) {
    if section.is_empty() {
        section.missing("signature", "an empty definition; expected at least like, signature or event");
    }
}

fn check_signature(_: &mut Signature, section: &Section<'_>) {
    if section.item("algorithm").is_none() {
        section.missing("algorithm", format!("missing; expected {ALGORITHMS}"));
    }
    if section.item("header").is_none() && section.item("pointer").is_none() {
        let what = "missing; expected the name of the signature's header, or for equal a pointer";
        section.missing("header", what);
    }
}

fn check_entity(_: &mut EntityKeys, section: &Section<'_>) {
    section.require("kind", "a word or a pointer");
    section.require("id", "a pointer");
}

/// The position of a definition, for problems without one.
pub fn position(definition: &Definition) -> Position {
    definition.name.at
}

const ALGORITHMS: &str = "an algorithm: \"hmac-sha1\", \"hmac-sha256\", \"hmac-sha384\", \"hmac-sha512\", \"ed25519\", \
    \"ecdsa-p256-sha256\", \"rsa-sha256\" or \"equal\"";
const SECRETS: &str = "\"text\", \"hex\", \"base64\", \"whsec\" or \"public-key\"";
