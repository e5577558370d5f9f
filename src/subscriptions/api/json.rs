//! Reads the providers' JSON, whose samples differ in small ways.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
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

/// A time as providers write it: RFC 3339, also without an offset, which is UTC then, or unix seconds.
pub(super) fn time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let of_utc =
        || text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    let of_seconds = || Timestamp::from_second(text.parse().ok()?).ok();
    text.parse().ok().or_else(of_seconds).or_else(of_utc)
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

/// Reads the items of a list. One that cannot be read is left out, because it cannot be ours.
///
/// # Errors
/// When no item can be read.
pub(super) fn readable<'v, T>(
    items: impl IntoIterator<Item = &'v Value>,
    read: impl Fn(&Value) -> Result<T, ApiError>,
) -> Result<Vec<T>, ApiError> {
    let (mut found, mut failed) = (Vec::new(), None);
    for item in items {
        match read(item) {
            Ok(item) => found.push(item),
            Err(why) => failed = failed.or(Some(why)),
        }
    }
    failed.filter(|_| found.is_empty()).map_or(Ok(found), Err)
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
    fn a_time_may_lack_its_offset_or_be_in_seconds() {
        let at = Some("2026-11-30T20:41:14Z".parse().unwrap());
        let ways = [
            "2026-11-30T20:41:14Z",
            "2026-11-30T21:41:14+01:00",
            "2026-11-30T20:41:14",
            "2026-11-30 20:41:14",
            "1796071274",
        ];
        for text in ways {
            assert_eq!(time(text), at, "{text}");
        }
        assert_eq!(time("yesterday"), None);
    }

    #[test]
    fn a_list_may_be_one_item_and_an_id_stays_one_segment() {
        assert_eq!(texts(Some(&json!("a"))), ["a"]);
        assert_eq!(texts(Some(&json!(["a", 1, "b"]))), ["a", "b"]);
        assert_eq!(listed(&json!({"data": {"id": 1}}), &["data"]).unwrap().len(), 1);
        assert!(listed(&json!({"other": []}), &["data"]).is_err());
        let read = |value: &Value| required(value, &["id"]);
        assert_eq!(readable(&[json!({}), json!({"id": 1})], read).unwrap(), ["1"]);
        assert!(readable(&[json!({})], read).is_err() && readable(&[], read).unwrap().is_empty());
        assert_eq!(segment("txn0.fsb0/../x?y"), "txn0.fsb0%2F..%2Fx%3Fy");
        assert_eq!(segment(".."), "%2E%2E");
    }
}
