//! Reads payloads by the rules of a definition.
//!
//! Keeps true: a rule is compiled once. Reading a payload never fails: fields that cannot be read are left out.

mod places;

use std::borrow::Cow;

use jiff::Timestamp;

use super::object::{Object, Value};
use super::pointer::{self, Each, Pointer, Root, Tree, Values};
use super::sample::Sample;
use super::signature::{Part, Scheme, Signed, SignedRequest};
use super::{Entity, EventIdentity, ParsedPayload, Status, other_entities};

/// How a definition reads an event.
#[derive(Debug, Default)]
pub struct EventRules {
    pub(super) kind: KindRule,
    pub(super) id: Vec<Source>,
    pub(super) time: Option<Source>,
    pub(super) subject: Option<EntityRule>,
    pub(super) tenant: Option<EntityRule>,
    pub(super) status: Option<(Option<Source>, Option<Source>)>,
    pub(super) related: Vec<EntityRule>,
    /// The lists that hold the events.
    pub each: Option<Each>,
    /// The headers that pointers name.
    headers: Vec<&'static str>,
    /// Pointers into the event.
    pub(super) event: Tree,
    /// Pointers into the body.
    pub(super) body: Tree,
    /// Pointers into the JSON of a form's fields, by field.
    pub(super) forms: Vec<(&'static str, Tree)>,
}

/// How an event's type is read.
#[derive(Debug)]
pub(super) enum KindRule {
    /// The values there, joined by dots.
    Joined(Vec<Source>),
    /// The name of the first that is there.
    First(Vec<Source>),
}

impl Default for KindRule {
    fn default() -> KindRule {
        KindRule::Joined(Vec::new())
    }
}

/// An entity: its kind and where its id is.
#[derive(Debug)]
pub(super) struct EntityRule {
    pub(super) kind: Word,
    pub(super) id: Source,
}

/// A word, or the place of one.
#[derive(Debug)]
pub(super) enum Word {
    Fixed(&'static str),
    At(Source),
}

/// Where a value is, compiled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub(super) pointer: Pointer,
    place: Place,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Event(usize),
    Body(usize),
    Form { field: usize, slot: usize },
    Header(&'static str),
    Query(&'static str),
}

impl EventRules {
    /// Rules that find nothing: an event has its body, and no more.
    pub fn empty() -> EventRules {
        EventRules::default()
    }

    /// Compiles a pointer for these rules.
    pub(super) fn source(&mut self, pointer: Pointer) -> Source {
        let place = match pointer.root {
            Root::Event => Place::Event(self.event.add(pointer.steps)),
            Root::Body => Place::Body(self.body.add(pointer.steps)),
            Root::Form(field) if pointer.steps.is_empty() => Place::Body(self.body.add(&[field])),
            Root::Form(field) => {
                let known = self.forms.iter().position(|(name, _)| *name == field);
                let at = known.unwrap_or_else(|| {
                    self.forms.push((field, Tree::default()));
                    self.forms.len() - 1
                });
                let slot = self.forms.get_mut(at).map_or(usize::MAX, |(_, tree)| tree.add(pointer.steps));
                Place::Form { field: at, slot }
            }
            Root::Header(name) => {
                self.headers.push(name);
                Place::Header(name)
            }
            Root::Query(name) => Place::Query(name),
        };
        Source { pointer, place }
    }

    /// The headers that these rules read.
    pub fn headers(&self) -> impl Iterator<Item = &'static str> {
        self.headers.iter().copied()
    }

    /// Calls `put` with each place that these rules read, and a sample value for it.
    pub(super) fn for_each_value(&self, of: &Sample<'_>, mut put: impl FnMut(&Pointer, serde_json::Value)) {
        let entities = self.related.iter().chain(&self.tenant).chain(&self.subject);
        for EntityRule { kind, id } in entities {
            put(&id.pointer, format!("sample_{}", of.short()).into());
            if let Word::At(source) = kind {
                put(&source.pointer, "sample".into());
            }
        }
        for source in self.status.iter().flat_map(|(from, to)| [from, to]).flatten() {
            put(&source.pointer, "sample".into());
        }
        if let Some(time) = &self.time {
            put(&time.pointer, (&*of.time).into());
        }
        for id in &self.id {
            put(&id.pointer, format!("evt_{}", of.short()).into());
        }
        match &self.kind {
            // Any one of them gives the whole type.
            KindRule::Joined(sources) => {
                for source in sources.iter().take(1) {
                    put(&source.pointer, of.kind.into());
                }
            }
            KindRule::First(sources) => {
                let named = sources.iter().find(|source| source.pointer.name() == of.kind);
                if let Some(source) = named.or(sources.first()) {
                    let id = serde_json::json!({ "id": of.number() });
                    put(&source.pointer, id);
                }
            }
        }
    }

    /// The places of the event's id that are a header or a query parameter.
    pub(super) fn id_headers(&self) -> impl Iterator<Item = &Pointer> {
        let in_head = |pointer: &&Pointer| matches!(pointer.root, Root::Header(_) | Root::Query(_));
        self.id.iter().map(|source| &source.pointer).filter(in_head)
    }

    /// Reads an event. `body` is the whole body, if it is an object.
    pub(super) fn read<'a>(
        &self,
        event: &Object<'a>,
        body: Option<&Object<'a>>,
        request: &SignedRequest<'a>,
        signed: Option<Signed<'a>>,
    ) -> ParsedPayload<'a> {
        let found = Found::of(self, Some(event), body.or(Some(event)), *request, signed);
        let kind = self.kind(&found);
        let (identity, id_is_signed) = self.identity(&found, signed, kind.as_deref());
        let entity = |rule: &EntityRule| found.entity(rule);
        let (subject, tenant) =
            (self.subject.as_ref().and_then(entity), self.tenant.as_ref().and_then(entity));
        let related =
            other_entities(self.related.iter().filter_map(entity), [subject.as_ref(), tenant.as_ref()]);
        let status = self.status.as_ref().map(|(from, to)| Status {
            from: from.as_ref().and_then(|source| found.text(source)),
            to: to.as_ref().and_then(|source| found.text(source)),
        });
        ParsedPayload {
            identity,
            id_is_signed,
            time: self.time.as_ref().and_then(|source| time(&found.text(source)?)),
            tenant,
            related,
            subject,
            status: status.filter(|status| status.from.is_some() || status.to.is_some()),
            kind,
            ..ParsedPayload::default()
        }
    }

    /// The identity of a delivery that cannot be read, and whether it is an id that the signature covers.
    pub(super) fn unreadable<'a>(
        &self,
        request: &SignedRequest<'a>,
        signed: Option<Signed<'a>>,
    ) -> (EventIdentity<'a>, bool) {
        let in_head =
            self.each.is_none() && !self.id.is_empty() && self.id_headers().count() == self.id.len();
        if !in_head {
            return (EventIdentity::Body, false);
        }
        match self.identity(&Found::of(self, None, None, *request, signed), signed, None) {
            (EventIdentity::Parts { .. }, _) => (EventIdentity::Body, false),
            identity => identity,
        }
    }

    fn kind<'a>(&self, found: &Found<'a>) -> Option<Cow<'a, str>> {
        match &self.kind {
            KindRule::Joined(sources) if sources.len() == 1 => found.text(sources.first()?),
            KindRule::Joined(sources) => {
                let words: Vec<_> = sources.iter().filter_map(|source| found.text(source)).collect();
                (!words.is_empty()).then(|| words.join(".").into())
            }
            KindRule::First(sources) => {
                let there = sources.iter().find(|source| found.is_there(source))?;
                Some(Cow::Borrowed(there.pointer.name()))
            }
        }
    }

    fn identity<'a>(
        &self,
        found: &Found<'a>,
        signed: Option<Signed<'a>>,
        kind: Option<&str>,
    ) -> (EventIdentity<'a>, bool) {
        let is_signed = || {
            signed
                .is_some_and(|signed| self.id.iter().all(|source| is_covered(signed.scheme, &source.pointer)))
        };
        let mut ids: Vec<_> = self.id.iter().map(|source| found.text(source)).collect();
        match ids.len() {
            1 if ids.iter().all(Option::is_some) => (EventIdentity::own(ids.pop().flatten()), is_signed()),
            2.. if ids.iter().any(Option::is_some) => {
                (EventIdentity::Parts { parts: ids, and_body: false }, is_signed())
            }
            _ => {
                let kind = kind.map(|kind| Cow::Owned(kind.to_owned()));
                (EventIdentity::Parts { parts: vec![kind], and_body: true }, false)
            }
        }
    }
}

/// Whether the signature covers the value at a pointer.
pub(super) fn is_covered(scheme: &Scheme, pointer: &Pointer) -> bool {
    if !scheme.algorithm.covers_body() {
        return false;
    }
    match pointer.root {
        Root::Event | Root::Body | Root::Form(_) => scheme.covers(Part::Body),
        Root::Header(name) => {
            let is_id = scheme.carriers.iter().any(|carrier| carrier.id == Some(name));
            is_id && scheme.covers(Part::Id) || scheme.covers(Part::Header(name))
        }
        Root::Query(_) => scheme.signed.iter().any(|part| matches!(part, Part::Url { .. } | Part::Query)),
    }
}

/// The values of one event that rules point at.
struct Found<'a> {
    event: Values<'a>,
    body: Values<'a>,
    /// By field and slot: whether a value is there, and its text.
    forms: Vec<Vec<(bool, Option<String>)>>,
    request: SignedRequest<'a>,
    signed: Option<Signed<'a>>,
}

impl<'a> Found<'a> {
    fn of(
        rules: &EventRules,
        event: Option<&Object<'a>>,
        body: Option<&Object<'a>>,
        request: SignedRequest<'a>,
        signed: Option<Signed<'a>>,
    ) -> Found<'a> {
        let read = |tree: &Tree, object: Option<&Object<'a>>| object.map(|object| tree.read(object));
        let form = |(field, tree): &(&'static str, Tree)| {
            let text = body.and_then(|body| body.string(field)).unwrap_or_default();
            let Ok(object) = Object::parse(text.as_bytes()) else { return Vec::new() };
            let values = tree.read(&object).into_iter();
            values
                .map(|value| (value.is_some_and(is_something), value.and_then(text_of).map(Cow::into_owned)))
                .collect()
        };
        Found {
            event: read(&rules.event, event).unwrap_or_default(),
            body: read(&rules.body, body).unwrap_or_default(),
            forms: rules.forms.iter().map(form).collect(),
            request,
            signed,
        }
    }

    /// A text or a number that is not empty.
    fn text(&self, source: &Source) -> Option<Cow<'a, str>> {
        match source.place {
            Place::Event(slot) => text_of((*self.event.get(slot)?)?),
            Place::Body(slot) => text_of((*self.body.get(slot)?)?),
            Place::Form { field, slot } => self.forms.get(field)?.get(slot)?.1.clone().map(Cow::Owned),
            Place::Header(name) => match self.message_id(name) {
                Some(id) => Some(Cow::Borrowed(id)),
                None => pointer::header(&self.request, name),
            },
            Place::Query(name) => pointer::query(&self.request, name).map(Cow::Owned),
        }
    }

    /// Whether there is a value, of any type but null.
    fn is_there(&self, source: &Source) -> bool {
        let at =
            |values: &Values<'a>, slot: usize| values.get(slot).copied().flatten().is_some_and(is_something);
        match source.place {
            Place::Event(slot) => at(&self.event, slot),
            Place::Body(slot) => at(&self.body, slot),
            Place::Form { field, slot } => {
                self.forms.get(field).and_then(|values| values.get(slot)).is_some_and(|(there, _)| *there)
            }
            Place::Header(_) | Place::Query(_) => self.text(source).is_some(),
        }
    }

    /// The signed message id, if the scheme has it in this header or in one that stands for it. It is the id of the
    /// carrier that verified.
    fn message_id(&self, header: &str) -> Option<&'a str> {
        let signed = self.signed?;
        let carries = signed.scheme.carriers.iter().any(|carrier| carrier.id == Some(header));
        signed.message_id.filter(|_| carries)
    }

    fn entity(&self, rule: &EntityRule) -> Option<Entity<'a>> {
        let kind = match &rule.kind {
            Word::Fixed(word) => Cow::Borrowed(*word),
            Word::At(source) => self.text(source)?,
        };
        Some(Entity { kind, id: self.text(&rule.id)? })
    }
}

fn text_of(value: Value<'_>) -> Option<Cow<'_, str>> {
    value.text().filter(|text| !text.is_empty())
}

fn is_something(value: Value<'_>) -> bool {
    !value.is_null()
}

/// A time in UTC: RFC 3339, or unix seconds, or unix milliseconds from 10^11 on. Digits may have a fraction.
pub(super) fn time(text: &str) -> Option<String> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || text.ends_with('.') {
        return crate::event::utc(text);
    }
    let number: i64 = whole.parse().ok()?;
    let at = if number >= FIRST_MILLISECONDS {
        Timestamp::from_millisecond(number).ok()?
    } else {
        let nanoseconds = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
        Timestamp::new(number, nanoseconds).ok()?
    };
    crate::event::utc(&at.to_string())
}

const FIRST_MILLISECONDS: i64 = 100_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_from_texts_and_numbers() {
        for (text, expected) in [
            ("2026-11-30T10:00:00+02:00", Some("2026-11-30T08:00:00Z")),
            ("1700000000", Some("2023-11-14T22:13:20Z")),
            ("1700000000123", Some("2023-11-14T22:13:20.123Z")),
            ("99999999999", Some("5138-11-16T09:46:39Z")),
            ("100000000000", Some("1973-03-03T09:46:40Z")),
            ("1355517523.000005", Some("2012-12-14T20:38:43.000005Z")),
            ("-1", None),
            ("1700000000.", None),
            ("now", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(time(text).as_deref(), expected, "{text}");
        }
    }
}
