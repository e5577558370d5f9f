//! The request targets of an HTTP/2 connection as its client sent them. h2 cuts a fragment off `:path`, where RFC 9113, section
//! 8.3.1, allows none; after that the request does not show it.
//!
//! Keeps true: heads are decoded in the order in which they come. A head that this decoder cannot read ends the decoding and not the
//! connection, which h2 judges by itself. The memory for heads is bounded.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use fluke_hpack::Decoder;

use super::http2::HEADER_TABLE;

/// Follows the heads of one connection.
pub(super) struct Targets {
    /// None: they can no longer be followed.
    decoder: Option<Decoder<'static>>,
    /// Encoded bytes of the head under way.
    block: Vec<u8>,
    /// The heads that were not yet asked for, oldest first.
    heads: VecDeque<Sent>,
}

/// What has to be known of a head.
struct Sent {
    /// Of its method, and its target without a fragment.
    key: u64,
    fragment: bool,
}

impl Targets {
    pub(super) fn new() -> Targets {
        let mut decoder = Decoder::new();
        decoder.set_max_allowed_table_size(HEADER_TABLE);
        Targets { decoder: Some(decoder), block: Vec::new(), heads: VecDeque::new() }
    }

    /// Takes more of a head's encoded bytes.
    pub(super) fn more(&mut self, bytes: &[u8]) {
        if self.decoder.is_none() {
            return;
        }
        if self.block.len() + bytes.len() > MAX_BLOCK {
            self.decoder = None;
            self.block = Vec::new();
            return;
        }
        self.block.extend_from_slice(bytes);
    }

    /// The head is whole.
    pub(super) fn end(&mut self) {
        let Some(decoder) = &mut self.decoder else { return };
        let (mut method, mut path) = (Vec::new(), Vec::new());
        let read = decoder.decode_with_cb(&self.block, |name, value| match &*name {
            b":method" => method = value.into_owned(),
            b":path" => path = value.into_owned(),
            _ => {}
        });
        self.block.clear();
        if read.is_err() {
            self.decoder = None;
            return;
        }
        if method.is_empty() {
            // Trailers.
            return;
        }
        let end = path.iter().position(|byte| *byte == b'#');
        let key = key(&method, &path[..end.unwrap_or(path.len())]);
        if self.heads.len() >= MAX_HEADS {
            self.heads.pop_front();
        }
        self.heads.push_back(Sent { key, fragment: end.is_some() });
    }

    /// Whether the next request, which has this method and target, had a fragment. Heads before it were refused by the library.
    pub(super) fn had_fragment(&mut self, method: &[u8], target: &[u8]) -> bool {
        let key = key(method, target);
        let Some(at) = self.heads.iter().position(|sent| sent.key == key) else { return false };
        self.heads.drain(..=at).next_back().is_some_and(|sent| sent.fragment)
    }
}

fn key(method: &[u8], target: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (method, target).hash(&mut hasher);
    hasher.finish()
}

/// Bytes of an encoded head. The library ends the connection before that.
const MAX_BLOCK: usize = 128 << 10;
/// Streams that may be open, and as many that were refused.
const MAX_HEADS: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    /// Literal fields without Huffman's code; `kind` says whether they are kept in the table.
    fn block(kind: u8, fields: &[(&str, &str)]) -> Vec<u8> {
        let text = |text: &str| [&[text.len() as u8][..], text.as_bytes()].concat();
        fields.iter().flat_map(|(name, value)| [vec![kind], text(name), text(value)].concat()).collect()
    }

    fn head(targets: &mut Targets, block: &[u8]) {
        for piece in block.chunks(3) {
            targets.more(piece);
        }
        targets.end();
    }

    #[test]
    fn a_fragment_is_known_of_the_request_that_had_it() {
        let mut targets = Targets::new();
        let ask = |path| [(":method", "POST"), (":path", path)];
        for path in ["/a", "/a#b", "/refused", "/c?d#e", "/a"] {
            head(&mut targets, &block(0, &ask(path)));
        }
        head(&mut targets, &block(0, &[("trailer", "#")]));
        let mut had = |path: &str| targets.had_fragment(b"POST", path.as_bytes());
        assert_eq!(["/a", "/a", "/c?d", "/a", "/a"].map(&mut had), [false, true, true, false, false]);
    }

    #[test]
    fn a_fragment_that_stands_in_the_table_or_in_huffmans_code_is_known() {
        let mut targets = Targets::new();
        head(&mut targets, &block(0x40, &[(":method", "GET"), (":path", "/a#b")]));
        // Both again, from the table: the last entry is the first there.
        head(&mut targets, &[0xbf, 0xbe]);
        // `/#`: six bits and twelve, the rest ones. The name is 4 of the static table.
        head(&mut targets, &[0x82, 0x04, 0x83, 0b0110_0011, 0b1111_1110, 0b1011_1111]);
        assert!(targets.had_fragment(b"GET", b"/a") && targets.had_fragment(b"GET", b"/a"));
        assert!(targets.had_fragment(b"GET", b"/"));
    }

    #[test]
    fn what_cannot_be_followed_is_left_to_the_library() {
        for broken in [vec![0xff; 6], vec![0xc8], vec![0x3f, 0xe1, 0xff, 0x03]] {
            let mut targets = Targets::new();
            head(&mut targets, &broken);
            head(&mut targets, &block(0, &[(":method", "GET"), (":path", "/a#b")]));
            assert!(!targets.had_fragment(b"GET", b"/a"), "{broken:?}");
        }
        let mut targets = Targets::new();
        for _ in 0..2 * MAX_HEADS {
            head(&mut targets, &block(0, &[(":method", "GET"), (":path", "/a#b")]));
        }
        assert_eq!(targets.heads.len(), MAX_HEADS);
        targets.more(&vec![0; MAX_BLOCK + 1]);
        assert!(targets.decoder.is_none() && targets.block.is_empty());
    }
}
