//! Checks how deep JSON nests, and that no escape is half a surrogate pair: a consumer's parser may refuse either.

use super::PayloadError;

/// Checks the depth and the surrogates, which reading raw slices does not. Almost every body passes the quick test and
/// is not walked. `text` is otherwise valid JSON.
pub(super) fn check_depth_and_surrogates(text: &str) -> Result<(), PayloadError> {
    let bytes = text.as_bytes();
    let openings = memchr::memchr2_iter(b'{', b'[', bytes).take(MAX_DEPTH + 1).count();
    if openings <= MAX_DEPTH && memchr::memchr(b'\\', bytes).is_none() {
        return Ok(());
    }
    walk(bytes)
}

fn walk(json: &[u8]) -> Result<(), PayloadError> {
    let (mut at, mut depth, mut in_string) = (0, 0_usize, false);
    while let Some(&byte) = json.get(at) {
        at += 1;
        match byte {
            b'"' => in_string = !in_string,
            b'\\' if json.get(at) == Some(&b'u') => {
                at = end_of_escape(json, at).ok_or(PayloadError::LoneSurrogate)?;
            }
            b'\\' => at += 1,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(PayloadError::TooDeep);
        }
    }
    Ok(())
}

/// The end of the escape with its `u` at `at`, or of the pair that a high surrogate begins. None: half a pair.
fn end_of_escape(json: &[u8], at: usize) -> Option<usize> {
    let unit = |at: usize| {
        let digits = std::str::from_utf8(json.get(at + 1..at + 5)?).ok()?;
        u16::from_str_radix(digits, 16).ok()
    };
    match unit(at)? {
        0xd800..=0xdbff => {
            let low = json.get(at + 5..at + 7)? == b"\\u" && matches!(unit(at + 6)?, 0xdc00..=0xdfff);
            low.then_some(at + 11)
        }
        0xdc00..=0xdfff => None,
        _ => Some(at + 5),
    }
}

pub(super) const MAX_DEPTH: usize = 128;
