//! Bodies of the type `application/x-www-form-urlencoded` (WHATWG URL, section 5.1), as a JSON object of their fields.
//!
//! Keeps true: a field that occurs once is a string, one that repeats is an array of strings, in the order of the body.
//! A body that is no UTF-8 once decoded is not read.

use crate::config::secret::percent_decoded;

/// The JSON object of a form's fields. None: a name or a value is not UTF-8.
pub(super) fn to_json(body: &[u8]) -> Option<String> {
    let mut fields: Vec<(String, Vec<String>)> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for (name, value) in pairs(body) {
        let (name, value) = (name?, value?);
        let at = *places.entry(name.clone()).or_insert_with(|| {
            fields.push((name, Vec::new()));
            fields.len() - 1
        });
        if let Some((_, values)) = fields.get_mut(at) {
            values.push(value);
        }
    }
    let fields = fields.iter().map(|(name, values)| {
        let value = match values.as_slice() {
            [one] => serde_json::to_string(one),
            several => serde_json::to_string(several),
        };
        // Strings always serialise.
        format!("{}:{}", serde_json::to_string(name).unwrap_or_default(), value.unwrap_or_default())
    });
    Some(format!("{{{}}}", fields.collect::<Vec<_>>().join(",")))
}

/// A form of an object's members. Values that are no texts are written as JSON.
pub(super) fn of_json(object: &serde_json::Value) -> String {
    let encoded = |text: &str| -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._*".contains(&byte);
        text.bytes()
            .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
            .collect()
    };
    let members = object.as_object().into_iter().flatten();
    let field = |(name, value): (&String, &serde_json::Value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{}={}", encoded(name), encoded(&text))
    };
    members.map(field).collect::<Vec<_>>().join("&")
}

/// The names and values of a form or a query, decoded. None: it is not UTF-8.
pub(super) fn pairs(text: &[u8]) -> impl Iterator<Item = (Option<String>, Option<String>)> {
    text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        let at = pair.iter().position(|byte| *byte == b'=');
        let (name, value) = at.map_or((pair, &[][..]), |at| (&pair[..at], &pair[at + 1..]));
        (decoded(name), decoded(value))
    })
}

fn decoded(text: &[u8]) -> Option<String> {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    String::from_utf8(percent_decoded(&spaced)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_become_strings_or_arrays_in_their_order() {
        for (form, json) in [
            ("", "{}"),
            ("b=1&a=x+y%26&b=2&c", r#"{"b":["1","2"],"a":"x y&","c":""}"#),
            ("payload=%7B%22a%22%3A1%7D", r#"{"payload":"{\"a\":1}"}"#),
            ("a==&&=b", r#"{"a":"=","":"b"}"#),
            ("%C3%A9=%zz%4", r#"{"é":"%zz%4"}"#),
        ] {
            assert_eq!(to_json(form.as_bytes()).as_deref(), Some(json), "{form}");
        }
        assert_eq!(to_json(b"a=%ff"), None);
    }
}
