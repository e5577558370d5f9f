//! Bodies of calls, read strictly, and bodies of deliveries, written in the documents' order.

use serde_json::{Map, Value};

use super::call::refuse;
use super::{Call, Refusal};

/// The fields of a JSON body: these must be there, those may, and no other.
pub(super) fn read(call: &Call, required: &[&str], optional: &[&str]) -> Result<Map<String, Value>, Refusal> {
    if !call.is("application/json") {
        return refuse(415, "the content type is not application/json");
    }
    let Ok(Value::Object(fields)) = serde_json::from_str(&call.body) else {
        return refuse(400, "the body is no JSON object");
    };
    if let Some(missing) = required.iter().find(|name| !fields.contains_key(**name)) {
        return refuse(400, format!("{missing} should not be empty"));
    }
    let is_known = |name: &str| required.contains(&name) || optional.contains(&name);
    if let Some(unknown) = fields.keys().find(|name| !is_known(name)) {
        return refuse(400, format!("property {unknown} should not exist"));
    }
    Ok(fields)
}

/// Fails unless the field, where it is there, is text.
pub(super) fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Refusal> {
    match fields.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => refuse(400, format!("{name} must be a string")),
    }
}

/// The same for true or false.
pub(super) fn boolean(fields: &Map<String, Value>, name: &str) -> Result<Option<bool>, Refusal> {
    match fields.get(name) {
        None => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(_) => refuse(400, format!("{name} must be a boolean value")),
    }
}

/// The same for a URL.
pub(super) fn url<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Refusal> {
    let Some(url) = text(fields, name)? else { return Ok(None) };
    let is_url = url.parse::<hyper::Uri>().is_ok_and(|url| {
        matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some_and(|host| !host.is_empty())
    });
    if is_url { Ok(Some(url)) } else { refuse(400, format!("{name} must be a URL address")) }
}

/// The same for a list of texts, without repeats.
pub(super) fn list(fields: &Map<String, Value>, name: &str) -> Result<Option<Vec<String>>, Refusal> {
    let Some(value) = fields.get(name) else { return Ok(None) };
    let items = value.as_array().map(|items| items.iter().map(|item| item.as_str().map(str::to_owned)));
    let Some(items) = items.and_then(|items| items.collect::<Option<Vec<_>>>()) else {
        return refuse(400, format!("{name} must be an array of strings"));
    };
    for (number, item) in items.iter().enumerate() {
        if items[..number].contains(item) {
            return refuse(400, format!("{name} has {item} twice"));
        }
    }
    Ok(Some(items))
}

/// Sets what is given.
pub(super) fn set(subscription: &mut Value, name: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        subscription[name] = value.into();
    }
}

/// Adds what is missing.
pub(super) fn default(subscription: &mut Value, name: &str, value: impl Into<Value>) {
    if subscription.get(name).is_none() {
        subscription[name] = value.into();
    }
}

/// A delivery's body: these fields in this order, replaced by and followed by the test's.
pub(super) fn write(fields: &[(&str, Value)], tests: &Value) -> String {
    let known = fields.iter().map(|(name, value)| (*name, tests.get(name).unwrap_or(value)));
    let is_more = |name: &&String| fields.iter().all(|(known, _)| known != name);
    let tests = tests.as_object();
    let more = tests
        .into_iter()
        .flat_map(|tests| tests.keys().filter(is_more).map(move |name| (&**name, &tests[name])));
    let fields: Vec<String> =
        known.chain(more).map(|(name, value)| format!("{}:{value}", Value::from(name))).collect();
    format!("{{{}}}", fields.join(","))
}

/// The same JSON with other blanks, and its keys in another order.
pub(super) fn written_anew(body: &str) -> String {
    fn write(value: &Value) -> String {
        match value {
            Value::Object(map) => {
                let field =
                    |(key, value): (&String, &Value)| format!("{} : {}", Value::from(&**key), write(value));
                format!("{{ {} }}", map.iter().rev().map(field).collect::<Vec<_>>().join(", "))
            }
            Value::Array(items) => {
                format!("[ {} ]", items.iter().map(write).collect::<Vec<_>>().join(", "))
            }
            _ => value.to_string(),
        }
    }
    write(&serde_json::from_str(body).unwrap())
}

/// Whether a type is named, or meant by a pattern, which ends with `*`.
pub(super) fn matches(pattern: &str, kind: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => kind.starts_with(beginning),
        None => pattern == kind,
    }
}

/// Whether one of the names and patterns in a subscription's field means this type.
pub(super) fn is_meant(patterns: &Value, kind: &str) -> bool {
    patterns.as_array().is_some_and(|all| all.iter().any(|one| matches(one.as_str().unwrap(), kind)))
}

/// The text of a field of a subscription, empty if there is none.
pub(super) fn of<'a>(subscription: &'a Value, name: &str) -> &'a str {
    subscription[name].as_str().unwrap_or_default()
}
