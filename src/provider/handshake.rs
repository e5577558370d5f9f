//! How a provider validates an endpoint before it delivers.
//!
//! Keeps true: an answer holds only values from the request, the definition and the key that verified it.

use std::fmt;

use serde_json::{Map, Value as Json};

use super::object::{Object, Value};
use super::pointer::{self, Pointer, Root};
use super::signature::{Signed, SignedRequest};

/// A provider's validation of an endpoint.
#[derive(Debug)]
pub enum Handshake {
    /// A GET with this header, which is returned.
    Header(&'static str),
    /// A request with this parameter in its query, which is returned as text.
    Query(QueryHandshake),
    /// A verified POST whose body says so.
    Body(BodyHandshake),
}

/// See [`Handshake::Query`].
#[derive(Debug)]
pub struct QueryHandshake {
    /// Whether a POST with the parameter is a validation request, and not a GET.
    pub by_post: bool,
    /// The parameter that is returned.
    pub parameter: &'static str,
    /// The parameter that must equal the source's `handshake_token`, if it is there.
    pub token: Option<&'static str>,
}

/// See [`Handshake::Body`].
#[derive(Debug)]
pub struct BodyHandshake {
    /// The values that must hold.
    pub(super) when: Vec<(Pointer, Json)>,
    /// The members of the answer. None: only a status.
    pub(super) answer: Option<Vec<(&'static str, AnswerValue)>>,
    /// The status of an answer without a body.
    pub(super) status: u16,
}

/// A value of an answer.
#[derive(Debug)]
pub(super) enum AnswerValue {
    /// The value there.
    At(Pointer),
    /// Hex HMAC-SHA256 of the text there, under the key that verified.
    Hmac(Pointer),
    /// This value.
    Plain(Json),
}

/// The answer to a verified validation request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandshakeAnswer {
    /// 200 with this JSON.
    Json(String),
    /// This status, and no body.
    Status(u16),
    /// The request lacks a value of the answer.
    Incomplete(&'static str),
}

impl fmt::Display for HandshakeAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandshakeAnswer::Json(json) => write!(f, "200 with {json}"),
            HandshakeAnswer::Status(status) => write!(f, "{status}"),
            HandshakeAnswer::Incomplete(member) => write!(f, "400: it lacks the value of {member:?}"),
        }
    }
}

/// Whether two values are equal by value and JSON type: 1 and 1.0 are one number.
fn is_same(one: &Json, other: &Json) -> bool {
    match (one, other) {
        (Json::Number(one), Json::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (Json::Array(one), Json::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(one, other))
        }
        (Json::Object(one), Json::Object(other)) => {
            let has = |(name, value)| other.get(name).is_some_and(|other| is_same(value, other));
            one.len() == other.len() && one.iter().all(has)
        }
        _ => one == other,
    }
}

impl BodyHandshake {
    /// The answer, if the body is a validation request.
    pub fn answer(
        &self,
        body: &Object<'_>,
        request: &SignedRequest<'_>,
        signed: Option<Signed<'_>>,
    ) -> Option<HandshakeAnswer> {
        let holds = |(pointer, expected): &(Pointer, Json)| {
            value(pointer, body, request).is_some_and(|found| is_same(&found, expected))
        };
        if !self.when.iter().all(holds) {
            return None;
        }
        let Some(members) = &self.answer else { return Some(HandshakeAnswer::Status(self.status)) };
        let mut answer = Map::new();
        for (name, member) in members {
            let made = match member {
                AnswerValue::Plain(value) => Some(value.clone()),
                AnswerValue::At(pointer) => value(pointer, body, request),
                AnswerValue::Hmac(pointer) => {
                    let text =
                        value(pointer, body, request).and_then(|value| value.as_str().map(str::to_owned));
                    let key = signed.map(|signed| signed.key);
                    let made = text.zip(key).and_then(|(text, key)| key.hmac_sha256(text.as_bytes()));
                    made.map(|digest| hex::encode(digest).into())
                }
            };
            match made {
                Some(value) => answer.insert((*name).to_owned(), value),
                None => return Some(HandshakeAnswer::Incomplete(name)),
            };
        }
        Some(HandshakeAnswer::Json(Json::Object(answer).to_string()))
    }
}

/// The value at a pointer, with its JSON type.
fn value(pointer: &Pointer, body: &Object<'_>, request: &SignedRequest<'_>) -> Option<Json> {
    let in_object = |object: &Object<'_>, steps: &[&str]| object.at(steps).and_then(Value::json);
    match pointer.root {
        Root::Event | Root::Body => in_object(body, pointer.steps),
        Root::Form(field) if pointer.steps.is_empty() => in_object(body, &[field]),
        Root::Form(field) => {
            let text = body.string(field)?;
            in_object(&Object::parse(text.as_bytes()).ok()?, pointer.steps)
        }
        Root::Header(name) => Some(pointer::header(request, name)?.into_owned().into()),
        Root::Query(name) => Some(pointer::query(request, name)?.into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_compared_by_value_and_other_values_by_type() {
        assert!(is_same(&json!({ "a": [1, "x"] }), &json!({ "a": [1.0, "x"] })));
        for (one, other) in [
            (json!(1), json!("1")),
            (json!(1), json!(1.5)),
            (json!([1]), json!([1, 1])),
            (json!(null), json!(false)),
        ] {
            assert!(!is_same(&one, &other), "{one} {other}");
        }
    }
}
