//! Limits the text of an attribute: the characters that CloudEvents allows, and a maximum length.
//!
//! Keeps true: an attribute made here has no forbidden character and at most [`MAX_BYTES`]. A text that would break
//! this is replaced by its hash, so that the same text always gives the same attribute.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

/// The maximum length of an attribute, in bytes.
pub const MAX_BYTES: usize = 600;
/// The maximum length of a provider's id in an attribute, in bytes.
const MAX_ID_BYTES: usize = 256;

/// Whether a provider's id can be an event's id or part of its subject: at most 256 bytes, and only characters that
/// CloudEvents allows.
pub fn fits_an_id(id: &str) -> bool {
    id.len() <= MAX_ID_BYTES && is_allowed(id)
}

/// `<kind>/<id>`. An id that does not fit becomes `~` and its hash. So does the kind, if the result would be too long
/// or the kind has a forbidden character.
pub fn subject(kind: &str, id: &str) -> String {
    let id = if fits_an_id(id) { Cow::Borrowed(id) } else { format!("~{}", hash(id)).into() };
    let fits = kind.len() + "/".len() + id.len() <= MAX_BYTES && is_allowed(kind);
    let kind = if fits { Cow::Borrowed(kind) } else { format!("~{}", hash(kind)).into() };
    [&*kind, "/", &*id].concat()
}

/// 32 hex digits of a text's SHA-256.
pub fn hash(text: &str) -> String {
    hex::encode(&Sha256::digest(text)[..16])
}

/// Whether CloudEvents 1.0.2 (section 2.1, String) allows every character. It forbids controls and noncharacters. It
/// also forbids lone surrogates, which a Rust string cannot have.
fn is_allowed(text: &str) -> bool {
    let plain = |byte: u8| (b' '..=b'~').contains(&byte);
    text.bytes().all(plain) || text.chars().all(|c| !is_forbidden(c))
}

fn is_forbidden(c: char) -> bool {
    matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{fdd0}'..='\u{fdef}')
        || u32::from(c) & 0xfffe == 0xfffe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    #[test]
    fn controls_and_noncharacters_are_forbidden_and_nothing_else_is() {
        let forbidden: Vec<char> = (0..=u32::from(char::MAX))
            .filter_map(char::from_u32)
            .filter(|c| !is_allowed(&format!("a{c}")))
            .collect();
        // 32 controls, DEL and 32 more; 32 noncharacters in one block, and the last two of each of 17 planes.
        assert_eq!(forbidden.len(), 32 + 33 + 32 + 34);
        for c in ['\0', '\r', '\u{85}', '\u{fdef}', '\u{ffff}', '\u{1fffe}', '\u{10ffff}'] {
            assert!(forbidden.contains(&c), "{c:?}");
        }
        for c in [' ', '~', 'é', '\u{a0}', '\u{fdcf}', '\u{fdf0}', '\u{fffd}', '\u{1f3fe}'] {
            assert!(!forbidden.contains(&c), "{c:?}");
        }
    }

    #[test]
    fn the_schema_takes_what_is_allowed_and_nothing_else() {
        let schema = serde_json::from_str(crate::event::SCHEMA).unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let event: serde_json::Value = serde_json::from_str(&Event::for_test("1").json).unwrap();
        assert!(validator.is_valid(&event));
        let takes = |attribute: &str, text: String| {
            let mut event = event.clone();
            event[attribute] = text.into();
            validator.is_valid(&event)
        };
        let edges =
            [0x1f, 0x20, 0x7e, 0x7f, 0x9f, 0xa0, 0xd7ff, 0xe000, 0xfdcf, 0xfdd0, 0xfdef, 0xfdf0, 0x1f3fe];
        let last = (0..=0x10).flat_map(|plane| [0xfffd, 0xfffe, 0xffff].map(|low| plane << 16 | low));
        for c in (0..=0x1f).chain(edges).chain(last).filter_map(char::from_u32) {
            for attribute in ["id", "subject", "partitionkey"] {
                assert_eq!(takes(attribute, format!("user/a{c}b")), !is_forbidden(c), "{attribute}: {c:?}");
            }
        }
        let x = |count: usize| "x".repeat(count);
        assert!(takes("id", x(265)) && !takes("id", x(266)) && !takes("id", String::new()));
        assert!(
            takes("subject", format!("user/{}", x(595))) && !takes("subject", format!("user/{}", x(596)))
        );
        assert!(takes("type", format!("a.{}", x(598))) && !takes("type", format!("a.{}", x(599))));
        assert!(!takes("type", "a.b\n".to_owned()) && !takes("sequence", format!("{:020}\n", 1)));
    }

    #[test]
    fn the_schema_wants_the_bytes_of_what_is_not_there() {
        let schema = serde_json::from_str(crate::event::SCHEMA).unwrap();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let mut event: serde_json::Value = serde_json::from_str(&Event::for_test("1").json).unwrap();
        event["data"]["payload"] = serde_json::Value::Null;
        assert!(!validator.is_valid(&event));
        event["data"]["payload_base64"] = "".into();
        assert!(validator.is_valid(&event));
    }

    #[test]
    fn an_id_is_bounded_in_bytes() {
        assert!(fits_an_id(&"x".repeat(256)) && fits_an_id(&"é".repeat(128)));
        assert!(!fits_an_id(&"x".repeat(257)) && !fits_an_id(&"é".repeat(129)));
    }

    #[test]
    fn a_subject_is_told_by_hashes_where_it_would_not_fit() {
        let hashed = |text: &str| format!("~{}", &hex::encode(Sha256::digest(text))[..32]);
        let (long, huge, id) = ("k".repeat(343), "k".repeat(100_000), "i".repeat(256));
        assert_eq!(subject("user", "1"), "user/1");
        assert_eq!(subject("user", "a/b ~é"), "user/a/b ~é");
        assert_eq!(subject("user", "a\nb"), format!("user/{}", hashed("a\nb")));
        assert_eq!(subject("user", &huge), format!("user/{}", hashed(&huge)));
        assert_eq!(subject(&long, &id), format!("{long}/{id}"), "600 bytes");
        assert_eq!(subject(&format!("{long}k"), &id), format!("{}/{id}", hashed(&format!("{long}k"))));
        assert_eq!(subject(&huge, &huge), format!("{}/{}", hashed(&huge), hashed(&huge)));
        assert_eq!(subject("us\u{ffff}er", "1"), format!("{}/1", hashed("us\u{ffff}er")));
    }
}
