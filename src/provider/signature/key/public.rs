//! Public keys: PEM, or hex or base64 of the raw key or of its SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7).

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;

use super::KeyError;
use crate::config::secret::{PRIVATE_KEY_PREFIX, PUBLIC_KEY_PREFIX, lenient_base64};
use crate::provider::signature::scheme::Algorithm;

/// A public key that verifies one algorithm's signatures.
#[derive(Clone)]
pub(super) struct PublicKey(ParsedPublicKey);

impl PublicKey {
    /// Reads a public key. With `prefixed`, the bare key stands after `whpk_`.
    pub(super) fn read(algorithm: Algorithm, prefixed: bool, text: &str) -> Result<PublicKey, KeyError> {
        let wrong = || KeyError::NotAPublicKey {
            algorithm: algorithm.label(),
            expected: if prefixed { PREFIXED } else { BARE },
        };
        let scheme: &'static dyn VerificationAlgorithm = match algorithm {
            Algorithm::Ed25519 => &ED25519,
            Algorithm::EcdsaP256Sha256 => &ECDSA_P256_SHA256_ASN1,
            Algorithm::RsaSha256 => &RSA_PKCS1_2048_8192_SHA256,
            Algorithm::HmacSha1
            | Algorithm::HmacSha256
            | Algorithm::HmacSha384
            | Algorithm::HmacSha512
            | Algorithm::Equal => return Err(wrong()),
        };
        let bytes = match text.strip_prefix(PUBLIC_KEY_PREFIX) {
            Some(bare) if prefixed => lenient_base64(bare),
            None if is_pem(text) => {
                SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes()).ok().map(|der| der.as_ref().to_vec())
            }
            None if !prefixed || is_key_info(text) || is_hex_key(text) => {
                hex::decode(text).ok().or_else(|| lenient_base64(text))
            }
            _ => None,
        };
        let key = bytes.and_then(|bytes| ParsedPublicKey::new(scheme, bytes).ok()).ok_or_else(wrong)?;
        Ok(PublicKey(key))
    }

    pub(super) fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        self.0.verify_sig(text, signature).is_ok()
    }
}

/// Whether a text is evidently a public key: PEM, or base64 of a SubjectPublicKeyInfo.
pub(super) fn is_public(text: &str) -> bool {
    is_pem(text) || is_key_info(text)
}

fn is_pem(text: &str) -> bool {
    text.trim_start().starts_with("-----BEGIN ")
}

/// Whether a text is evidently a private key.
pub(super) fn is_private(text: &str) -> bool {
    let head = text.trim_start().lines().next().unwrap_or_default();
    text.starts_with(PRIVATE_KEY_PREFIX) || head.starts_with("-----BEGIN") && head.contains("PRIVATE KEY")
}

/// Whether a text is hex of an Ed25519 key's length. No symmetric secret of Standard Webhooks is written so.
pub(crate) fn is_hex_key(text: &str) -> bool {
    text.len() == HEX_KEY_LEN && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a text is base64 of a SubjectPublicKeyInfo: a sequence whose first member is a sequence that begins with the
/// identifier of an algorithm.
fn is_key_info(text: &str) -> bool {
    if !text.starts_with('M') || text.len() < SHORTEST_KEY_INFO {
        return false;
    }
    let Some(der) = lenient_base64(text) else { return false };
    x509_parser::prelude::FromDer::from_der(&der)
        .is_ok_and(|(rest, _): (&[u8], x509_parser::x509::SubjectPublicKeyInfo<'_>)| rest.is_empty())
}

const PREFIXED: &str = "whpk_ and base64 of the raw key, or PEM";
const HEX_KEY_LEN: usize = 64;
const BARE: &str = "PEM, or hex or base64 of the raw key or of its SubjectPublicKeyInfo";
/// Characters of base64 for an Ed25519 key, which is the shortest.
const SHORTEST_KEY_INFO: usize = 58;
