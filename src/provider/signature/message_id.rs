//! The message id of Standard Webhooks, as the signature covers it.
//!
//! Keeps true: no id holds the text that a genuine delivery has signed behind its own id.
//!
//! `id.timestamp.body` is signed, so the dots do not show where the id ends. An attacker could capture a genuine
//! delivery and split its body at digits between two dots: the rest verifies at that time, under a new id. Standard
//! Webhooks forbids dots in ids for this reason, but some senders use them.
//!
//! The same split is possible with any text between the parts, or with none. So an id of such a scheme may hold no
//! character that begins a JSON text.

use super::list::BLANKS;
use super::scheme::Part;

/// Whether an id goes on into what is signed behind it. `signed` is the scheme's text.
pub(super) fn goes_on_into_body(id: &str, signed: &[Part]) -> bool {
    let behind = signed.iter().skip_while(|part| **part != Part::Id).skip(1);
    if behind.eq(&[Part::Text("."), Part::Timestamp, Part::Text("."), Part::Body]) {
        return goes_on_after_dots(id);
    }
    let covered = signed.contains(&Part::Id) && signed.contains(&Part::Body);
    covered && id.contains(['{', '[', '"'])
}

/// Whether an id goes on with `.TIMESTAMP.` and the start of a JSON text, as the signed text of Standard Webhooks does
/// behind a genuine id.
fn goes_on_after_dots(id: &str) -> bool {
    let mut parts = id.split('.').skip(1).peekable();
    while let Some(part) = parts.next() {
        let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let begins = |next: &&str| next.trim_start_matches(BLANKS).starts_with(['{', '[', '"']);
        if is_number && parts.peek().is_some_and(begins) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_and_dots_alone_are_an_id() {
        for id in ["", ".", "..", "1.2.3", "a.1.b{", ".1.", "a..{", "a.1x.{", "{.1", "{\"a\".1.b"] {
            assert!(!goes_on_after_dots(id), "{id}");
        }
        for id in ["a.1.{", ".1.[", "a.b.1.\"", "a.1.2. \t{", "a.1.{x.2.y"] {
            assert!(goes_on_after_dots(id), "{id}");
        }
    }

    proptest! {
        /// Wherever the signed text is taken apart behind its own timestamp.
        #[test]
        fn no_part_of_a_signed_object_is_in_an_id(
            id in "[a-z0-9._]{1,12}",
            timestamp in "[0-9]{1,12}",
            body in "[ \t]{0,2}\\{[ -~]{0,40}",
            cut in 0_usize..40,
        ) {
            let signed = format!("{id}.{timestamp}.{body}");
            let first = signed.find('{').unwrap_or_default() + 1;
            let cut = (first + cut).min(signed.len());
            prop_assert!(goes_on_after_dots(&signed[..cut]));
        }
    }
}
