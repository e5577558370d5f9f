//! Signatures and secrets in the spellings that providers use.
//!
//! Keeps true: a signature is accepted in hex of either case, or in base64 without stray bits, so a changed bit of it is
//! noticed. Only secrets, which operators copy, are read leniently.

use base64::Engine;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD, URL_SAFE};
use smallvec::SmallVec;

pub(super) use crate::config::secret::lenient_base64;

use crate::base::label::labels;

/// An HMAC-SHA256 digest.
pub(super) type Digest = [u8; 32];

/// A signature's bytes. Those of HMAC and Ed25519 need no allocation.
pub(super) type SignatureBytes = SmallVec<[u8; 64]>;

labels! {
    /// How a signature is written.
    pub enum Encoding {
        /// In either case.
        Hex = "hex",
        /// With or without padding.
        Base64 = "base64",
        /// In the alphabet for URLs, with or without padding.
        Base64Url = "base64url",
    }
}

impl Encoding {
    /// Reads a signature of `len` bytes, or of any length.
    pub(super) fn read(self, text: &str, len: Option<usize>) -> Option<SignatureBytes> {
        let engine = match self {
            Encoding::Hex => return from_hex(text, len),
            Encoding::Base64 => &PLAIN,
            Encoding::Base64Url => &OF_URLS,
        };
        let mut bytes = SignatureBytes::from_elem(0, base64::decoded_len_estimate(text.len()));
        let decoded = engine.decode_slice(text, &mut bytes).ok()?;
        bytes.truncate(decoded);
        (decoded > 0 && len.is_none_or(|len| len == decoded)).then_some(bytes)
    }

    pub(super) fn write(self, signature: &[u8]) -> String {
        match self {
            Encoding::Hex => hex::encode(signature),
            Encoding::Base64 => STANDARD.encode(signature),
            Encoding::Base64Url => URL_SAFE.encode(signature),
        }
    }
}

fn from_hex(text: &str, len: Option<usize>) -> Option<SignatureBytes> {
    let mut bytes = SignatureBytes::from_elem(0, text.len() / 2);
    hex::decode_to_slice(text, &mut bytes).ok()?;
    (!bytes.is_empty() && len.is_none_or(|len| len == bytes.len())).then_some(bytes)
}

/// An HMAC-SHA256 digest in base64 with its padding.
pub(super) fn from_base64(text: &str) -> Option<Digest> {
    let mut digest = [0; 32];
    // The length is checked first, since the slice has room for one digest only.
    if text.len() != BASE64_DIGEST_LEN {
        return None;
    }
    (STANDARD.decode_slice(text, &mut digest) == Ok(32)).then_some(digest)
}

const BASE64_DIGEST_LEN: usize = 44;
const PADDED_OR_NOT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const PLAIN: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, PADDED_OR_NOT);
const OF_URLS: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, PADDED_OR_NOT);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_without_padding_and_with_trailing_bits_decodes_as_node_does() {
        let bytes = lenient_base64("MA4V6bD7rB0Hcm2aw8ghgDeQ5UAak24DwnX0rX6").unwrap();
        assert_eq!(hex::encode(bytes), "300e15e9b0fbac1d07726d9ac3c821803790e5401a936e03c275f4ad7e");
    }

    #[test]
    fn a_signature_is_read_with_or_without_padding_and_never_with_stray_bits() {
        let (seven, length) = ([7_u8; 32], Some(32));
        for encoding in [Encoding::Base64, Encoding::Base64Url] {
            let good = encoding.write(&seven);
            let read = |text: &str| encoding.read(text, length).map(SmallVec::into_vec);
            assert_eq!(read(&good), Some(seven.to_vec()));
            assert_eq!(read(good.trim_end_matches('=')), Some(seven.to_vec()));
            let mut trailing = good.clone().into_bytes();
            trailing[42] += 1;
            assert_eq!(read(std::str::from_utf8(&trailing).unwrap()), None, "trailing bits are part of it");
            assert_eq!(encoding.read(&good, Some(31)), None);
            assert_eq!(encoding.read("", None), None);
        }
        assert_ne!(Encoding::Base64.write(&[0xff; 3]), Encoding::Base64Url.write(&[0xff; 3]));
        let lower = hex::encode([0xab; 32]);
        for text in [lower.clone(), lower.to_uppercase()] {
            assert_eq!(
                Encoding::Hex.read(&text, length).unwrap()[..],
                [0xab; 32],
                "some libraries write capitals"
            );
        }
        assert_eq!(Encoding::Hex.read(&lower[1..], length), None, "an odd length does not panic");
        assert_eq!(Encoding::Hex.read(&lower, Some(20)), None);
    }
}
