//! Finds a fragment in the `:path` of an encoded HTTP/2 head. RFC 9113, section 8.3.1, forbids one. h2 cuts it off
//! silently, so the request could not show it.
//!
//! Keeps true: a `:path` with a fragment is overwritten in place by an invalid path, which is refused as over HTTP/1.1.
//! Heads that refer to it by index get the invalid path from h2's table. No other byte changes. Fields are skipped by
//! length, not decoded.
//! Source: RFC 7541, sections 5 and 6.

use std::ops::Range;

use memchr::memchr;

/// Which fields in a connection's dynamic table are named `:path`: one bit each, the newest lowest.
///
/// A field takes at least 33 of the table's 4096 bytes, so 128 bits cover every valid index. A field that is too large
/// for the table empties it, so no valid index reaches beyond that field either. Therefore sizes need no tracking.
#[derive(Default)]
pub(super) struct Paths(u128);

impl Paths {
    /// Reads the next head. Returns None if it is invalid; h2 then ends the connection.
    pub(super) fn read(&mut self, head: &mut [u8]) -> Option<()> {
        let mut at = 0;
        while let Some(&first) = head.get(at) {
            let bits = match first {
                0x80.. => INDEXED,
                0x40.. => ADDED,
                0x20.. => TABLE_SIZE,
                _ => NOT_ADDED,
            };
            let index = integer(head, &mut at, bits)?;
            if [INDEXED, TABLE_SIZE].contains(&bits) {
                continue;
            }
            let is_path = match index {
                0 => {
                    let (huffman, name) = string(head, &mut at)?;
                    head[name] == *if huffman { PATH_IN_HUFFMAN } else { PATH }
                }
                1..FIRST_DYNAMIC => STATIC_PATHS.contains(&index),
                _ => u32::try_from(index - FIRST_DYNAMIC)
                    .is_ok_and(|newer| self.0.unbounded_shr(newer) & 1 == 1),
            };
            let start = at;
            let (huffman, value) = string(head, &mut at)?;
            if is_path && has_fragment(huffman, &head[value.clone()]) {
                // h2 now stores a field no longer than the client's, so h2 evicts no field that the client can still
                // name. The exception is a client whose Huffman code made the path longer.
                head[start] &= !HUFFMAN;
                head[value].fill(NO_PATH);
            }
            if bits == ADDED {
                self.0 = self.0 << 1 | u128::from(is_path);
            }
        }
        Some(())
    }
}

/// Reads an integer whose prefix has this many bits (RFC 7541, section 5.1).
fn integer(head: &[u8], at: &mut usize, bits: u32) -> Option<usize> {
    let most = (1 << bits) - 1;
    let mut value = usize::from(*head.get(*at)? & most);
    *at += 1;
    if value < usize::from(most) {
        return Some(value);
    }
    // h2 accepts no longer integers.
    for shift in [0, 7, 14, 21] {
        let byte = *head.get(*at)?;
        *at += 1;
        value += usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Reads a string's position, and whether it is Huffman-coded.
fn string(head: &[u8], at: &mut usize) -> Option<(bool, Range<usize>)> {
    let huffman = *head.get(*at)? & HUFFMAN != 0;
    let length = integer(head, at, 7)?;
    let string = *at..*at + length;
    *at = string.end;
    (string.end <= head.len()).then_some((huffman, string))
}

fn has_fragment(huffman: bool, path: &[u8]) -> bool {
    if !huffman {
        return memchr(b'#', path).is_some();
    }
    // The bits of the incomplete code, the first bit highest.
    let (mut bits, mut many) = (0u32, 0);
    for byte in path {
        bits |= u32::from(*byte) << (24 - many);
        many += 8;
        loop {
            // Longer codes belong to bytes for which any path is refused.
            let Some((_, length)) = CODES.iter().find(|(end, _)| bits < *end) else { return false };
            if *length > many {
                break;
            }
            if *length == HASH.1 && bits >> (32 - HASH.1) == HASH.0 {
                return true;
            }
            (bits, many) = (bits << length, many - length);
        }
    }
    false
}

/// The prefix bits of the integer that begins each kind of field.
const INDEXED: u32 = 7;
const ADDED: u32 = 6;
const TABLE_SIZE: u32 = 5;
const NOT_ADDED: u32 = 4;
const HUFFMAN: u8 = 0x80;
const PATH: &[u8] = b":path";
const PATH_IN_HUFFMAN: &[u8] = b"\xb9\x58\xd3\x3f";
/// The fields of the static table whose name is `:path`.
const STATIC_PATHS: [usize; 2] = [4, 5];
const FIRST_DYNAMIC: usize = 62;
/// h2 accepts a path that consists of these alone, and `request::admission` refuses it.
const NO_PATH: u8 = b'?';
/// The upper bound of the codes of each length, and the length, up to the longest code of a visible character. In this
/// code, longer codes are greater than shorter ones.
const CODES: [(u32, u32); 11] = [
    (0xa << 27, 5),
    (0x2e << 26, 6),
    (0x7c << 25, 7),
    (0xfe << 24, 8),
    (0x3fd << 22, 10),
    (0x7fd << 21, 11),
    (0xffc << 20, 12),
    (0x1ffe << 19, 13),
    (0x3ffe << 18, 14),
    (0x7fff << 17, 15),
    (0x7fff3 << 13, 19),
];
/// The code of `#`, and its length.
const HASH: (u32, u32) = (0xffa, 12);

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the path between these bytes of a head becomes an invalid one. All other bytes must stay.
    fn is_refused(paths: &mut Paths, before: &[u8], path: &[u8], after: &[u8]) -> bool {
        let mut head = [before, path, after].concat();
        paths.read(&mut head).unwrap();
        if head == [before, path, after].concat() {
            return false;
        }
        let mut none = path.to_vec();
        none[0] &= !HUFFMAN;
        let start = if none[0] == 0x7f { 2 } else { 1 };
        none[start..].fill(NO_PATH);
        assert_eq!(head, [before, &none, after].concat());
        true
    }

    /// The text preceded by its length.
    fn string(huffman: u8, text: &[u8]) -> Vec<u8> {
        let length = match text.len() as u8 {
            short @ ..0x7f => vec![huffman | short],
            long => vec![huffman | 0x7f, long - 0x7f],
        };
        [&length, text].concat()
    }

    #[test]
    fn a_fragment_is_refused_under_every_spelling_of_the_name() {
        let fragment = string(0, b"/a#b");
        for name in [&b"\x83\x04"[..], b"\x14", b"\x45", b"\x00\x05:path", b"\x10\x84\xb9\x58\xd3\x3f"] {
            let is_refused =
                |path: &[u8]| is_refused(&mut Paths::default(), name, path, b"\x01\x01x\x0f\x00\x01#");
            assert!(is_refused(&fragment) && is_refused(b"\x01#"), "{name:?}");
            assert!(is_refused(&string(0, &[&[b'/'; 200][..], b"#"].concat())));
            assert!(!is_refused(b"\x04/a?b") && !is_refused(b"\x00"));
        }
        for other in
            [&b"\x01"[..], b"\x00\x05:Path", b"\x00\x06:paths", b"\x00\x00", b"\x10\x84\xb9\x58\xd3\x3e"]
        {
            assert!(!is_refused(&mut Paths::default(), other, &fragment, b"\x04\x01/"), "{other:?}");
        }
        assert!(!is_refused(&mut Paths::default(), b"\x00\x05#path", &fragment, b"\x82\x84\x85"));
    }

    #[test]
    fn a_fragment_is_seen_in_huffmans_code_behind_every_visible_character() {
        // A slash, `!` to `~` but for `#`, and `#`.
        let all = b"\x63\xf8\xfe\x7f\xf2\xaf\xc7\xfa\xfe\xbf\xbf\x9f\xf7\xf4\xb2\xec\x00\x22\x65\xa6\xdc\x75\xe7\xee\x7d\xff\xfc\
            \x83\xfe\xff\xcf\xfd\x43\x76\xf5\xfc\x18\x71\x63\xc9\x97\x36\x7d\x1a\x75\x6b\xd9\xb7\x76\xfe\x1c\x79\x7e\x73\xfd\
            \xff\xdf\xff\xf0\xff\xe7\xff\x91\x7f\xfd\x1c\x64\x90\xb2\xcd\x39\xba\x75\xa2\x9a\x8f\x5f\x6b\x10\x9b\x7b\xf8\xf3\xeb\
            \xdf\xff\xef\xf9\xff\xef\xff\x7f\xeb";
        let is_refused =
            |path: &[u8]| is_refused(&mut Paths::default(), b"\x04", &string(HUFFMAN, path), b"\x82");
        assert!(is_refused(all) && is_refused(b"\x63\xfe\xbf"));
        assert!(!is_refused(&all[..all.len() - 1]));
        // After a byte that no path may have.
        assert!(!is_refused(b"\xff\xff\xff\xf0\x00\xff"));
    }

    #[test]
    fn a_name_in_the_table_is_known_again() {
        let (mut paths, fragment) = (Paths::default(), string(0, b"/#"));
        let mut is_refused = |before: &[u8]| is_refused(&mut paths, before, &fragment, b"");
        assert!(is_refused(b"\x82\x44"));
        // By its index alone nothing is sent of it; the newest field has the lowest.
        assert!(is_refused(b"\xbe\x0f\x2f") && !is_refused(b"\x40\x01x"));
        assert!(!is_refused(b"\x0f\x2f") && is_refused(b"\x3f\xe1\x1f\x0f\x30"));
        // It is added under the name of a field in the table.
        assert!(is_refused(b"\x7f\x00") && is_refused(b"\x0f\x2f") && !is_refused(b"\x0f\x30"));
        // As long as the table can have it, and no longer.
        (0..127).for_each(|_| assert!(!is_refused(b"\x40\x01x")));
        assert!(is_refused(b"\x0f\xae\x01") && !is_refused(b"\x40\x01x") && !is_refused(b"\x0f\xaf\x01"));
        assert!(!is_refused(b"\x0f\xff\xff\xff\x7f"));
    }

    #[test]
    fn an_invalid_head_is_left_to_h2() {
        for head in [
            &b"\xff"[..],
            b"\xff\xff\xff\xff\xff\x01",
            b"\x04",
            b"\x04\x05/a#b",
            b"\x00\x05:pat",
            b"\x7f\xff",
        ] {
            assert_eq!(Paths::default().read(&mut head.to_vec()), None, "{head:?}");
        }
    }
}
