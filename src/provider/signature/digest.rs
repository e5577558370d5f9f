//! Digests and secrets in the spellings that providers use.
//!
//! Keeps true: a digest is accepted only in canonical base64, or in hex of either case, so no changed bit is accepted.
//! Only secrets, which operators copy, are read leniently.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

pub(super) use crate::config::secret::lenient_base64;

/// An HMAC-SHA256 digest.
pub(super) type Digest = [u8; 32];

/// How a signature is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// In either case.
    Hex,
    /// With padding.
    Base64,
}

impl Encoding {
    pub(super) fn read(self, text: &str) -> Option<Digest> {
        match self {
            Encoding::Hex => from_hex(text),
            Encoding::Base64 => from_base64(text),
        }
    }

    pub(super) fn write(self, digest: &Digest) -> String {
        match self {
            Encoding::Hex => hex::encode(digest),
            Encoding::Base64 => to_base64(digest),
        }
    }
}

pub(super) fn from_base64(text: &str) -> Option<Digest> {
    let mut digest = [0; 32];
    // The length is checked first, since the slice has room for one digest only.
    if text.len() != BASE64_DIGEST_LEN {
        return None;
    }
    (STANDARD.decode_slice(text, &mut digest) == Ok(32)).then_some(digest)
}

pub(super) fn to_base64(digest: &Digest) -> String {
    STANDARD.encode(digest)
}

pub(super) fn from_hex(text: &str) -> Option<Digest> {
    let mut digest = [0; 32];
    hex::decode_to_slice(text, &mut digest).ok()?;
    Some(digest)
}

const BASE64_DIGEST_LEN: usize = 44;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_without_padding_and_with_trailing_bits_decodes_as_node_does() {
        let bytes = lenient_base64("MA4V6bD7rB0Hcm2aw8ghgDeQ5UAak24DwnX0rX6").unwrap();
        assert_eq!(hex::encode(bytes), "300e15e9b0fbac1d07726d9ac3c821803790e5401a936e03c275f4ad7e");
    }

    #[test]
    fn a_digest_has_one_spelling() {
        let good = to_base64(&[7; 32]);
        assert_eq!(from_base64(&good), Some([7; 32]));
        assert_eq!(from_base64(good.trim_end_matches('=')), None, "padding is part of it");
        let mut trailing = good.clone().into_bytes();
        trailing[42] += 1;
        assert_eq!(
            from_base64(std::str::from_utf8(&trailing).unwrap()),
            None,
            "trailing bits are part of it"
        );
        let lower = hex::encode([0xab; 32]);
        assert_eq!(from_hex(&lower), Some([0xab; 32]));
        assert_eq!(from_hex(&lower.to_uppercase()), Some([0xab; 32]), "some libraries write capitals");
        assert_eq!(from_hex(&lower[1..]), None, "an odd length does not panic");
    }
}
