//! Pointers into a delivery: RFC 6901 into its JSON, or the name of a header or of a query parameter.
//!
//! Keeps true: a pointer is parsed once, when its definition is loaded. All pointers into one object are read in one
//! walk, and each object on the way is parsed once.

use std::borrow::Cow;

use hyper::header::{HeaderName, HeaderValue};

use super::form;
use super::object::{Object, Value};
use super::signed_request::SignedRequest;

/// A place in a delivery that holds one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// As the definition has it.
    pub text: &'static str,
    /// Where it starts.
    pub root: Root,
    /// The keys and indexes below its root, unescaped.
    pub steps: &'static [&'static str],
}

/// Where a pointer starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// The event: the body, or an element of its list of events.
    Event,
    /// The body.
    Body,
    /// A header, by its name in lower case.
    Header(&'static str),
    /// A parameter of the query.
    Query(&'static str),
    /// The JSON in a field of a form.
    Form(&'static str),
}

/// Why a text is no pointer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    /// No known beginning.
    #[error(
        "expected a pointer such as \"/data/id\", \"header:x-id\", \"query:id\", \"form:payload/id\" or \"body:/id\""
    )]
    Start,
    /// RFC 6901, section 3.
    #[error("a ~ in a pointer is written ~0, and a / in a key ~1")]
    Escape,
    /// No header has this name.
    #[error("it names no possible header")]
    Header,
    /// Nothing after the colon.
    #[error("a name is missing after the colon")]
    Name,
}

impl Pointer {
    /// Parses a pointer. The result lives until the process ends, as definitions do.
    ///
    /// # Errors
    /// If the text is no pointer.
    pub fn parse(text: &str) -> Result<Pointer, PointerError> {
        let kept = keep(text);
        let named = |name: &'static str| if name.is_empty() { Err(PointerError::Name) } else { Ok(name) };
        let (root, path) = match kept.split_once(':') {
            _ if kept.starts_with('/') => (Root::Event, kept),
            Some(("body", path)) if path.starts_with('/') => (Root::Body, path),
            Some(("header", name)) => (Root::Header(header_name(named(name)?)?), ""),
            Some(("query", name)) => (Root::Query(named(name)?), ""),
            Some(("form", rest)) => {
                let (field, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                (Root::Form(named(field)?), path)
            }
            _ => return Err(PointerError::Start),
        };
        Ok(Pointer { text: kept, root, steps: steps(path)? })
    }

    /// The name of the place: the last key, or the name of the header or parameter.
    pub fn name(&self) -> &'static str {
        match (self.steps.last(), self.root) {
            (Some(last), _) => last,
            (None, Root::Header(name) | Root::Query(name) | Root::Form(name)) => name,
            (None, Root::Event | Root::Body) => "",
        }
    }
}

/// The name of a header in lower case, which lives until the process ends.
///
/// # Errors
/// If no header can have this name.
pub(super) fn header_name(name: &str) -> Result<&'static str, PointerError> {
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| PointerError::Header)?;
    Ok(keep(name.as_str()))
}

/// The keys of a path, unescaped (RFC 6901, section 4).
///
/// # Errors
/// If the path has a `~` that escapes nothing, or does not begin with `/`.
pub(super) fn steps(path: &str) -> Result<&'static [&'static str], PointerError> {
    if path.is_empty() {
        return Ok(&[]);
    }
    let path = path.strip_prefix('/').ok_or(PointerError::Start)?;
    let unescaped = |step: &str| {
        let plain = step.replace("~0", "").replace("~1", "");
        if plain.contains('~') {
            return Err(PointerError::Escape);
        }
        Ok(keep(&step.replace("~1", "/").replace("~0", "~")))
    };
    Ok(path.split('/').map(unescaped).collect::<Result<Vec<_>, _>>()?.leak())
}

/// A text of a definition. Definitions live until the process ends: a config has few, and a reload adds only new ones.
pub(super) fn keep(text: &str) -> &'static str {
    String::from(text).leak()
}

/// Pointers into one object, joined: they are read in one walk.
#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    /// How many pointers it has.
    slots: usize,
}

#[derive(Debug)]
struct Node {
    key: &'static str,
    slot: Option<usize>,
    below: Vec<Node>,
}

impl Tree {
    /// Adds a pointer's steps. Returns the index of its value in [`Tree::read`].
    pub(super) fn add(&mut self, steps: &[&'static str]) -> usize {
        let mut nodes = &mut self.nodes;
        let Some((last, before)) = steps.split_last() else { return usize::MAX };
        for step in before {
            let at = position(nodes, step);
            nodes = &mut nodes[at].below;
        }
        let at = position(nodes, last);
        *nodes[at].slot.get_or_insert_with(|| {
            self.slots += 1;
            self.slots - 1
        })
    }

    /// The values at the pointers.
    pub(super) fn read<'a>(&self, object: &Object<'a>) -> Values<'a> {
        let mut values = Values::from_elem(None, self.slots);
        fill(&self.nodes, object, &mut values);
        values
    }
}

/// The values at a tree's pointers.
pub(super) type Values<'a> = smallvec::SmallVec<[Option<Value<'a>>; 12]>;

fn position(nodes: &mut Vec<Node>, key: &'static str) -> usize {
    let found = nodes.iter().position(|node| node.key == key);
    found.unwrap_or_else(|| {
        nodes.push(Node { key, slot: None, below: Vec::new() });
        nodes.len() - 1
    })
}

fn fill<'a>(nodes: &[Node], object: &Object<'a>, values: &mut Values<'a>) {
    for node in nodes {
        if let Some(value) = object.get(node.key) {
            fill_value(node, value, values);
        }
    }
}

fn fill_value<'a>(node: &Node, value: Value<'a>, values: &mut Values<'a>) {
    if let Some(place) = node.slot.and_then(|slot| values.get_mut(slot)) {
        *place = Some(value);
    }
    if node.below.is_empty() {
        return;
    }
    if let Some(object) = value.object() {
        fill(&node.below, &object, values);
    } else if let Some(elements) = value.elements() {
        for node in &node.below {
            let element = index(node.key).and_then(|at| elements.get(at));
            if let Some(element) = element {
                fill_value(node, *element, values);
            }
        }
    }
}

/// An array's index (RFC 6901, section 4): digits without a leading zero.
fn index(key: &str) -> Option<usize> {
    let is_index = key == "0" || !key.starts_with('0') && key.bytes().all(|b| b.is_ascii_digit());
    is_index.then(|| key.parse().ok()).flatten()
}

/// The path of the lists that hold a delivery's events. `*` stands for every element or member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Each {
    /// The keys; none for the body itself.
    pub steps: &'static [&'static str],
}

impl Each {
    /// The most events that one delivery may hold.
    pub const MAX_EVENTS: usize = 1000;

    /// The elements of the lists in a body, in order. An element of a list on the way (`*`) that leads to no list is one
    /// too, so that nothing of the delivery is lost. None: there is no list at the path, or they hold too many.
    pub fn elements<'a>(self, body: Value<'a>) -> Option<Vec<Value<'a>>> {
        let mut found = Found::default();
        found.collect(body, self.steps);
        Some(found.elements).filter(|elements| found.lists > 0 && elements.len() <= Self::MAX_EVENTS)
    }
}

/// What was found on the way to the lists.
#[derive(Default)]
struct Found<'a> {
    elements: Vec<Value<'a>>,
    lists: usize,
}

impl<'a> Found<'a> {
    fn collect(&mut self, value: Value<'a>, steps: &[&str]) {
        let Some((step, below)) = steps.split_first() else {
            if let Some(elements) = value.elements() {
                self.lists += 1;
                self.elements.extend(elements);
            }
            return;
        };
        if *step == "*" {
            for element in value.elements().into_iter().flatten() {
                let before = self.lists;
                self.collect(element, below);
                if self.lists == before {
                    self.elements.push(element);
                }
            }
            for (_, member) in value.object().iter().flat_map(Object::members) {
                self.collect(member, below);
            }
        } else if let Some(member) = value.object().and_then(|object| object.get(step)) {
            self.collect(member, below);
        }
    }
}

/// The texts at a pointer: one, or one for each element of the lists. None: one of them is absent.
pub(super) fn texts(
    pointer: &Pointer,
    each: Option<Each>,
    request: &SignedRequest<'_>,
) -> Option<Vec<String>> {
    match pointer.root {
        Root::Header(name) => return Some(vec![header(request, name)?.into_owned()]),
        Root::Query(name) => return Some(vec![query(request, name)?]),
        Root::Event | Root::Body | Root::Form(_) => {}
    }
    let form;
    let body = match Value::parse(request.body) {
        Ok(body) => body,
        Err(_) => {
            form = form::to_json(request.body)?;
            Value::parse(form.as_bytes()).ok()?
        }
    };
    let events = each.map_or_else(|| Some(vec![body]), |each| each.elements(body))?;
    let text = |event: Value<'_>| {
        let object = event.object()?;
        let value = match pointer.root {
            Root::Form(field) if pointer.steps.is_empty() => object.get(field)?,
            Root::Form(field) => {
                let inner = object.string(field)?;
                return Some(Object::parse(inner.as_bytes()).ok()?.at(pointer.steps)?.text()?.into_owned());
            }
            _ => object.at(pointer.steps)?,
        };
        value.text().filter(|text| !text.is_empty()).map(Cow::into_owned)
    };
    events.into_iter().map(text).collect()
}

/// The only value of a header, if it is text and not empty.
pub(super) fn header<'a>(request: &SignedRequest<'a>, name: &str) -> Option<Cow<'a, str>> {
    let mut values = request.headers.get_all(name).iter();
    let (first, second) = (values.next()?, values.next());
    let text = HeaderValue::to_str(first).ok().filter(|text| second.is_none() && !text.is_empty())?;
    Some(Cow::Borrowed(text))
}

/// The only value of a query parameter, percent-decoded, if it is text and not empty.
pub(super) fn query(request: &SignedRequest<'_>, name: &str) -> Option<String> {
    let mut found = form::pairs(request.query().as_bytes()).filter(|(key, _)| key.as_deref() == Some(name));
    let (first, second) = (found.next()?, found.next());
    first.1.filter(|text| second.is_none() && !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_parsed_by_their_beginning() {
        let parsed = |text: &str| Pointer::parse(text).map(|pointer| (pointer.root, pointer.steps.to_vec()));
        assert_eq!(parsed("/a/b~1c~0/0"), Ok((Root::Event, vec!["a", "b/c~", "0"])));
        assert_eq!(parsed("/"), Ok((Root::Event, vec![""])));
        assert_eq!(parsed("body:/a"), Ok((Root::Body, vec!["a"])));
        assert_eq!(parsed("header:X-Id"), Ok((Root::Header("x-id"), vec![])));
        assert_eq!(parsed("query:hub.challenge"), Ok((Root::Query("hub.challenge"), vec![])));
        assert_eq!(parsed("form:payload/type"), Ok((Root::Form("payload"), vec!["type"])));
        assert_eq!(parsed("form:payload"), Ok((Root::Form("payload"), vec![])));
        for (text, error) in [
            ("", PointerError::Start),
            ("a", PointerError::Start),
            ("body:a", PointerError::Start),
            ("/a~2", PointerError::Escape),
            ("/a~", PointerError::Escape),
            ("header:a b", PointerError::Header),
            ("header:", PointerError::Name),
            ("query:", PointerError::Name),
            ("form:/a", PointerError::Name),
        ] {
            assert_eq!(parsed(text), Err(error), "{text}");
        }
    }

    #[test]
    fn values_are_found_through_objects_and_arrays_in_one_walk() {
        let body = br#"{"a":{"b":[{"c":1},"x"],"d":null},"~/":"t","a2":{"":7}}"#;
        let object = Object::parse(body).unwrap();
        let mut tree = Tree::default();
        let mut slot = |text: &str| tree.add(Pointer::parse(text).unwrap().steps);
        let slots =
            ["/a/b/0/c", "/a/b/1", "/a/d", "/~0~1", "/a2/", "/a/b/2", "/a/b/00", "/a/b/01", "/a/b/0/c"]
                .map(&mut slot);
        let values = tree.read(&object);
        let text = |at: usize| values[slots[at]].and_then(Value::text);
        assert_eq!(text(0).as_deref(), Some("1"));
        assert_eq!(text(1).as_deref(), Some("x"));
        assert!(values[slots[2]].is_some() && text(2).is_none(), "null is there, and no text");
        assert_eq!(text(3).as_deref(), Some("t"));
        assert_eq!(text(4).as_deref(), Some("7"));
        assert_eq!((text(5), text(6), text(7)), (None, None, None));
        assert_eq!(slots[0], slots[8], "one slot a pointer");
    }

    #[test]
    fn elements_are_found_below_every_entry() {
        let body = br#"{"entry":[{"changes":[{"a":1},2]},{"x":1},{"changes":[]},{"changes":[3]}],"none":[],"o":{"k":[4]}}"#;
        let body = Value::parse(body).unwrap();
        let count = |path: &str| {
            let each = Each { steps: steps(path).unwrap() };
            each.elements(body).map(|elements| elements.len())
        };
        assert_eq!(count("/entry/*/changes"), Some(4), "the entry without a list is an event of its own");
        assert_eq!(count("/none"), Some(0));
        assert_eq!(count("/entry"), Some(4));
        assert_eq!(count("/o/*"), Some(1));
        assert_eq!(count("/absent"), None);
        assert_eq!(count("/entry/*/absent"), None);
        assert_eq!(count(""), None, "the body is no list");
        let many = format!("[{}0]", "0,".repeat(Each::MAX_EVENTS - 1));
        let each = Each { steps: &[] };
        assert_eq!(each.elements(Value::parse(many.as_bytes()).unwrap()).unwrap().len(), Each::MAX_EVENTS);
        let more = many.replacen('[', "[0,", 1);
        assert!(each.elements(Value::parse(more.as_bytes()).unwrap()).is_none());
    }
}
