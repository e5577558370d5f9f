//! Reads the providers' JSON, whose samples differ in small ways.

use serde_json::Value;

use super::ApiError;

/// A text under any of these names, also if it was sent as a number.
pub(super) fn text(value: &Value, names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| match value.get(name)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })
}

/// A text that the provider always sends.
pub(super) fn required(value: &Value, names: &[&str]) -> Result<String, ApiError> {
    let missing = || ApiError::Unreadable(format!("its answer has no text {}", names.join(" or ")));
    text(value, names).filter(|text| !text.is_empty()).ok_or_else(missing)
}

/// A list of texts, or one text alone.
pub(super) fn texts(value: Option<&Value>) -> Vec<String> {
    items(value).iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

/// The items of a list, or one item alone.
pub(super) fn items(value: Option<&Value>) -> Vec<&Value> {
    match value {
        Some(Value::Array(items)) => items.iter().collect(),
        None | Some(Value::Null) => Vec::new(),
        Some(one) => vec![one],
    }
}

/// The items of a list under one of these names, or of the answer itself.
pub(super) fn listed<'v>(answer: &'v Value, names: &[&str]) -> Result<Vec<&'v Value>, ApiError> {
    if answer.is_array() {
        return Ok(items(Some(answer)));
    }
    let found = names.iter().find_map(|name| answer.get(name));
    match found {
        Some(found) => Ok(items(Some(found))),
        None => Err(ApiError::Unreadable(format!("its answer has no list {}", names.join(" or ")))),
    }
}

/// An id as a segment of a path.
pub(super) fn segment(id: &str) -> String {
    let kept = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let escaped = |byte: u8| if kept(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    // A segment of dots alone would lead to another path.
    if id.bytes().all(|byte| byte == b'.') {
        id.replace('.', "%2E")
    } else {
        id.bytes().map(escaped).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_may_be_one_item_and_an_id_stays_one_segment() {
        assert_eq!(texts(Some(&json!("a"))), ["a"]);
        assert_eq!(texts(Some(&json!(["a", 1, "b"]))), ["a", "b"]);
        assert_eq!(listed(&json!({"data": {"id": 1}}), &["data"]).unwrap().len(), 1);
        assert!(listed(&json!({"other": []}), &["data"]).is_err());
        assert_eq!(segment("txn0.fsb0/../x?y"), "txn0.fsb0%2F..%2Fx%3Fy");
        assert_eq!(segment(".."), "%2E%2E");
    }
}
