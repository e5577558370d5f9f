//! A Standard Webhooks list of signatures, as senders write it and proxies join it.
//!
//! Keeps true: a list is split without knowing its versions, so that a future version hides no other entry.

use hyper::HeaderMap;
use hyper::header::HeaderValue;

use super::SignatureError;

/// The header's values: several lines of a list are one list (RFC 9110, section 5.3).
pub(super) fn lines<'a>(
    headers: &'a HeaderMap,
    name: &'static str,
) -> Result<impl Iterator<Item = &'a str>, SignatureError> {
    let values = headers.get_all(name);
    if values.iter().any(|value| value.to_str().is_err()) {
        return Err(SignatureError::Malformed(name, "is not ASCII"));
    }
    if values.iter().all(HeaderValue::is_empty) {
        return Err(SignatureError::Missing(name));
    }
    Ok(values.into_iter().filter_map(|value| value.to_str().ok()))
}

/// The entries of one header line, each `version,signature`. Blanks separate them, or a comma before the next entry's
/// version: a proxy joins two header lines by a comma (RFC 9110, section 5.3), with or without a blank after it.
pub(super) fn entries(line: &str) -> impl Iterator<Item = &str> {
    line.split(BLANKS).flat_map(joined).filter(|entry| !entry.is_empty())
}

/// The blanks of a header: a space or a tab (RFC 9110, section 5.6.3).
pub(super) const BLANKS: [char; 2] = [' ', '\t'];

/// The entries of a text without blanks.
fn joined(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let comma = text.match_indices(',').map(|(at, _)| at).find(|at| begins_entry(&text[at + 1..]));
        let entry = match comma {
            Some(at) => {
                rest = Some(&text[at + 1..]);
                &text[..at]
            }
            None => {
                rest = None;
                text
            }
        };
        // A comma with blanks around it is left at an end.
        Some(entry.trim_matches(','))
    })
}

/// Whether the text begins with a version and a comma: `v1,`, `v1a,`.
fn begins_entry(text: &str) -> bool {
    let Some((version, _)) = text.split_once(',') else { return false };
    let number = version.strip_suffix(|c: char| c.is_ascii_lowercase()).unwrap_or(version);
    let digits = number.strip_prefix('v').unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(line: &str) -> Vec<&str> {
        entries(line).collect()
    }

    #[test]
    fn entries_are_found_however_they_are_joined() {
        for between in [" ", "  ", "\t", ",", ", ", " ,", " , ", ",\t", "\t,\t", ",,"] {
            let line = format!("v1,AA={between}v1a,BB={between}v2,CC=");
            assert_eq!(of(&line), ["v1,AA=", "v1a,BB=", "v2,CC="], "{line:?}");
        }
    }

    #[test]
    fn what_is_no_separator_separates_nothing() {
        for line in
            ["v1,AA=;v1,BB=", "v1,AA=,BB=", "v1,AA=,V1,BB=", "v1,AA=,v,BB=", "v1,AA=,v1ab,BB=", "v1,AA=,v1"]
        {
            assert_eq!(of(line), [line]);
        }
        assert_eq!(of("v1, AA="), ["v1", "AA="], "a version and its signature are one word");
        assert_eq!(of(" , \t,,"), [""; 0]);
    }

    proptest! {
        #[test]
        fn nothing_but_separators_is_lost(
            // A signature that reads as a version, such as `v0x`, would begin an entry: 43 digits of base64 never do.
            signatures in proptest::collection::vec(("v[1-9][a-z]?", "[A-Z+/][A-Za-z0-9+/]{0,43}={0,2}"), 0..6),
            between in "[ \t]{0,2},?[ \t]{0,2}",
        ) {
            let separated = !between.is_empty();
            let wanted: Vec<String> = signatures.iter().map(|(version, text)| format!("{version},{text}x")).collect();
            let line = wanted.join(&between);
            if separated {
                prop_assert_eq!(of(&line), wanted);
            }
        }

        #[test]
        fn no_text_makes_it_panic(line in "\\PC{0,80}|[v1a, \t]{0,40}") {
            for entry in entries(&line) {
                prop_assert!(line.contains(entry) && !entry.contains(BLANKS));
            }
        }
    }
}
