//! A JSON object read without building a tree: its members in order, each value a slice of the body.
//!
//! Keeps true: [`Object::parse`] accepts only valid JSON: UTF-8, no byte order mark, no lone surrogate, at most 128
//! levels. Of duplicate keys the last one counts. Numbers are read as written.

mod depth;

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::event::utc;
use depth::{MAX_DEPTH, check_depth_and_surrogates};

/// Why a body is no payload. The texts give the position, and repeat nothing of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// No bytes.
    #[error("the body is empty")]
    Empty,
    /// Bytes that are no text.
    #[error("the body is not UTF-8 from byte {at} on")]
    NotUtf8 {
        /// The offset of the first byte that is not.
        at: usize,
    },
    /// RFC 8259, section 8.1, lets a reader refuse it.
    #[error("the body begins with a byte order mark")]
    ByteOrderMark,
    /// Not JSON as RFC 8259 has it.
    #[error("the body is not JSON: the fault is at line {line}, column {column}")]
    NotJson {
        /// From 1.
        line: usize,
        /// In bytes, from 1; 0 for the end of the line before.
        column: usize,
    },
    /// JSON that a consumer's parser may refuse.
    #[error("the body is JSON that nests over {MAX_DEPTH} levels deep")]
    TooDeep,
    /// An escape that is no character.
    #[error("the body is JSON with half a surrogate pair in an escape")]
    LoneSurrogate,
    /// JSON, but not an object.
    #[error("the body is JSON, but not an object")]
    NotObject,
}

/// A JSON object's members, in order, each key once.
#[derive(Debug)]
pub struct Object<'a>(Vec<Member<'a>>);

impl<'a> Object<'a> {
    /// Reads a whole body.
    ///
    /// # Errors
    /// If it is no JSON, or no object.
    pub fn parse(body: &'a [u8]) -> Result<Object<'a>, PayloadError> {
        let text =
            std::str::from_utf8(body).map_err(|error| PayloadError::NotUtf8 { at: error.valid_up_to() })?;
        match Object::read(text) {
            Some(object) => check_depth_and_surrogates(text).map(|()| object),
            None => Err(no_object(text)),
        }
    }

    fn read(text: &'a str) -> Option<Object<'a>> {
        let mut json = serde_json::Deserializer::from_str(text);
        let members = json.deserialize_map(Members).ok()?;
        json.end().ok()?;
        Some(Object(last_of_each_key(members)))
    }

    /// The members, in order.
    pub fn members(&self) -> impl Iterator<Item = (&Cow<'a, str>, Value<'a>)> {
        self.0.iter().map(|(key, raw)| (key, Value(raw.get())))
    }

    /// A member's value.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, raw)| Value(raw.get()))
    }

    /// A string, or a number as written.
    pub fn text(&self, key: &str) -> Option<Cow<'a, str>> {
        self.get(key)?.text()
    }

    /// A string.
    pub fn string(&self, key: &str) -> Option<Cow<'a, str>> {
        self.get(key)?.string()
    }

    /// A time in UTC, if the text is valid RFC 3339.
    pub fn time(&self, key: &str) -> Option<String> {
        utc(&self.string(key)?)
    }

    /// An object.
    pub fn object(&self, key: &str) -> Option<Object<'a>> {
        self.get(key)?.object()
    }

    /// The members that are strings.
    pub fn strings(&self) -> Vec<(Cow<'a, str>, Cow<'a, str>)> {
        self.members().filter_map(|(key, value)| Some((key.clone(), value.string()?))).collect()
    }

    /// The members that are URLs, by their names.
    pub fn links(&self) -> Vec<(Cow<'a, str>, Cow<'a, str>)> {
        let mut links = self.strings();
        links.retain(|(_, text)| text.starts_with("https://") || text.starts_with("http://"));
        links
    }

    /// An array's elements. Any other value has none.
    pub fn array(&self, key: &str) -> Vec<Value<'a>> {
        self.get(key).and_then(Value::elements).unwrap_or_default()
    }

    /// The value at these keys and indexes (RFC 6901, section 4).
    pub fn at(&self, steps: &[&str]) -> Option<Value<'a>> {
        let (first, below) = steps.split_first()?;
        below.iter().try_fold(self.get(first)?, |value, step| match value.object() {
            Some(object) => object.get(step),
            None => value.elements()?.get(step.parse::<usize>().ok()?).copied(),
        })
    }
}

/// A value, as the body has it.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a>(&'a str);

impl<'a> Value<'a> {
    /// Reads a whole body, of any JSON type.
    ///
    /// # Errors
    /// If it is no JSON.
    pub fn parse(body: &'a [u8]) -> Result<Value<'a>, PayloadError> {
        let text =
            std::str::from_utf8(body).map_err(|error| PayloadError::NotUtf8 { at: error.valid_up_to() })?;
        match serde_json::from_str::<&RawValue>(text) {
            Ok(raw) => check_depth_and_surrogates(text).map(|()| Value(raw.get())),
            Err(_) => Err(no_object(text)),
        }
    }

    /// As the body has it.
    pub fn raw(self) -> &'a str {
        self.0
    }

    /// Whether it is null.
    pub fn is_null(self) -> bool {
        self.0 == "null"
    }

    /// The value with its JSON type. None: a number that no float holds is in it.
    pub fn json(self) -> Option<serde_json::Value> {
        serde_json::from_str(self.0).ok()
    }

    /// A string, or a number as written.
    pub fn text(self) -> Option<Cow<'a, str>> {
        match self.0.as_bytes().first()? {
            b'-' | b'0'..=b'9' => Some(Cow::Borrowed(self.0)),
            _ => self.string(),
        }
    }

    /// A string.
    pub fn string(self) -> Option<Cow<'a, str>> {
        let inner = self.0.strip_prefix('"')?.strip_suffix('"')?;
        if inner.contains('\\') {
            serde_json::from_str(self.0).ok().map(Cow::Owned)
        } else {
            Some(Cow::Borrowed(inner))
        }
    }

    /// An object.
    pub fn object(self) -> Option<Object<'a>> {
        self.0.starts_with('{').then(|| Object::read(self.0)).flatten()
    }

    /// The elements of an array.
    pub fn elements(self) -> Option<Vec<Value<'a>>> {
        if !self.0.starts_with('[') {
            return None;
        }
        let raws: Vec<&'a RawValue> = serde_json::from_str(self.0).ok()?;
        Some(raws.into_iter().map(|raw| Value(raw.get())).collect())
    }
}

/// Why a text is no object.
fn no_object(text: &str) -> PayloadError {
    if text.is_empty() {
        return PayloadError::Empty;
    }
    if text.starts_with('\u{feff}') {
        return PayloadError::ByteOrderMark;
    }
    match serde_json::from_str::<&RawValue>(text) {
        Ok(_) => check_depth_and_surrogates(text).err().unwrap_or(PayloadError::NotObject),
        Err(error) => PayloadError::NotJson { line: error.line(), column: error.column() },
    }
}

type Member<'a> = (Cow<'a, str>, &'a RawValue);

/// Keeps the last member of each key. Only a few keys are compared pairwise, since the sender chooses how many there
/// are.
fn last_of_each_key(mut members: Vec<Member<'_>>) -> Vec<Member<'_>> {
    let count = members.len();
    let comes_again = |at: usize| members[at + 1..].iter().any(|(key, _)| *key == members[at].0);
    if count <= FEW && !(0..count).any(comes_again) {
        return members;
    }
    let mut seen = HashSet::with_capacity(count);
    let mut last: Vec<bool> = members.iter().rev().map(|(key, _)| seen.insert(&**key)).collect();
    last.reverse();
    let mut last = last.into_iter();
    members.retain(|_| last.next().unwrap_or(true));
    members
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<Member<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Member<'de>>, A::Error> {
        let mut members = Vec::with_capacity(8);
        while let Some(key) = map.next_key_seed(Key)? {
            members.push((key, map.next_value()?));
        }
        Ok(members)
    }
}

/// A key, borrowed where it holds no escape.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Cow<'de, str>, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

const FEW: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nested(levels: usize) -> String {
        format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels))
    }

    #[test]
    fn bodies_nest_128_levels_at_most_and_hold_no_lone_surrogate() {
        assert!(Object::parse(nested(128).as_bytes()).is_ok());
        assert_eq!(Object::parse(nested(129).as_bytes()).unwrap_err(), PayloadError::TooDeep);
        let brackets = format!("{{\"a\":\"{}\"}}", "[{".repeat(500));
        assert!(Object::parse(brackets.as_bytes()).is_ok(), "brackets in a string do not nest");
        let closing = format!("{{\"a\":\"{}\",\"b\":{}}}", "]}".repeat(500), nested(128));
        assert!(Object::parse(closing.as_bytes()).is_err(), "nor do they close anything");
        for (body, good) in [
            (r#"{"a":{"b":"\ud83d\ude00"}}"#, true),
            (r#"{"a":{"b":"\ud83d"}}"#, false),
            (r#"{"a":["\ude00"]}"#, false),
            (r#"{"a":"\ud83d\ude00","b":"\ud83d"}"#, false),
            (r#"{"a":"\u0041","b":"\ud83d"}"#, false),
            (r#"{"a":["\ud83d\u0041"]}"#, false),
            (r#"{"a":"\\ud83d"}"#, true),
            (r#"{"\ud83d":1}"#, false),
        ] {
            let read = Object::parse(body.as_bytes()).map(|_| ());
            assert_eq!(read, if good { Ok(()) } else { Err(PayloadError::LoneSurrogate) }, "{body}");
        }
    }

    #[test]
    fn what_is_no_object_is_told_from_what_is_no_json() {
        for (body, column) in [("{", 1), ("{}x", 3), ("{'a':1}", 2), ("[1,]", 4), ("nul", 3), (" ", 1)] {
            let expected = PayloadError::NotJson { line: 1, column };
            assert_eq!(Object::parse(body.as_bytes()).unwrap_err(), expected, "{body}");
        }
        let deep = "[".repeat(129) + &"]".repeat(129);
        for (body, expected) in [
            (&b""[..], PayloadError::Empty),
            ("\u{feff}{}".as_bytes(), PayloadError::ByteOrderMark),
            (b"{\"a\":\"\xff\"}", PayloadError::NotUtf8 { at: 6 }),
            (deep.as_bytes(), PayloadError::TooDeep),
            (br#"["\ud800"]"#, PayloadError::LoneSurrogate),
        ] {
            assert_eq!(Object::parse(body).unwrap_err(), expected);
        }
        for body in ["[]", "1", "null", "\"a\"", " true "] {
            assert_eq!(Object::parse(body.as_bytes()).unwrap_err(), PayloadError::NotObject, "{body}");
        }
    }

    #[test]
    fn the_last_of_duplicate_keys_counts_and_numbers_are_as_written() {
        let object = Object::parse(br#"{"id":"a","\u0069d":1.50,"n":{},"x":null}"#).unwrap();
        assert_eq!(object.text("id").as_deref(), Some("1.50"));
        assert_eq!(object.string("id"), None);
        assert_eq!(object.text("n"), None);
        assert_eq!(object.text("x"), None);
    }

    #[test]
    fn many_keys_are_told_apart_as_few_are() {
        let repeated: Vec<String> = (0..200).map(|n| format!("\"k{}\":{n}", n % 50)).collect();
        let text = format!("{{{}}}", repeated.join(","));
        let object = Object::parse(text.as_bytes()).unwrap();
        assert_eq!(object.members().count(), 50);
        assert_eq!(object.text("k0").as_deref(), Some("150"));
    }

    proptest! {
        // serde_json's own tree is the judge; it stops at 127 levels, which generated values stay far below.
        #[test]
        fn agrees_with_serde_json_on_what_is_an_object(body in r#"[\[\]{}",:0-9a-z\\u d8ce.+-]{0,40}"#) {
            let tree = serde_json::from_str::<serde_json::Value>(&body);
            let read = Object::parse(body.as_bytes());
            match tree {
                Ok(serde_json::Value::Object(_)) => prop_assert!(read.is_ok()),
                Ok(_) => prop_assert_eq!(read.err(), Some(PayloadError::NotObject)),
                // Out of range for a float, which is JSON all the same.
                Err(e) if e.to_string().contains("out of range") => {}
                Err(_) => prop_assert!(read.is_err()),
            }
        }

        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Object::parse(&body);
        }
    }
}
