//! Makes untrusted text safe to print on a terminal.

use std::ops::RangeInclusive;

/// Escapes every character that could move the cursor, or hide or reorder other text.
pub(super) fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || STEERING.iter().any(|range| range.contains(&c)) {
            safe.extend(c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Zero-width, line-breaking and direction-changing characters.
const STEERING: [RangeInclusive<char>; 4] =
    ['\u{200b}'..='\u{200f}', '\u{2028}'..='\u{202e}', '\u{2060}'..='\u{206f}', '\u{feff}'..='\u{feff}'];
