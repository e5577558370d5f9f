//! Public keys: PEM, or hex or base64 of the raw key or of its SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7).

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::RSAPublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

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
            None if is_pem(text) => of_pem(text),
            None if !prefixed || is_key_info(text) || is_hex_key(text) => {
                hex::decode(text).ok().or_else(|| lenient_base64(text))
            }
            _ => None,
        };
        let bytes = bytes.ok_or_else(wrong)?;
        if algorithm == Algorithm::RsaSha256 && rsa_bits(&bytes).is_some_and(|bits| bits < MIN_RSA_BITS) {
            return Err(KeyError::ShortRsa);
        }
        let key = ParsedPublicKey::new(scheme, bytes).map_err(|_| wrong())?;
        Ok(PublicKey(key))
    }

    pub(super) fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        self.0.verify_sig(text, signature).is_ok()
    }
}

/// Whether a text is evidently a public key: PEM, or hex or base64 of a SubjectPublicKeyInfo.
pub(super) fn is_public(text: &str) -> bool {
    is_pem(text) || is_key_info(text)
}

/// The DER in PEM of a public key, also of RSA alone (PKCS #1).
fn of_pem(text: &str) -> Option<Vec<u8>> {
    let mut lines = text.trim().lines().map(str::trim);
    let label = lines.next()?.strip_prefix("-----BEGIN ")?.strip_suffix("-----")?;
    if !["PUBLIC KEY", "RSA PUBLIC KEY"].contains(&label) {
        return None;
    }
    let inner: String = lines.take_while(|line| !line.starts_with("-----END")).collect();
    lenient_base64(&inner)
}

/// The bits of an RSA key's modulus. None: the bytes are none.
fn rsa_bits(der: &[u8]) -> Option<usize> {
    let key = match SubjectPublicKeyInfo::from_der(der) {
        Ok((_, info)) => return rsa_bits(&info.subject_public_key.data),
        Err(_) => RSAPublicKey::from_der(der).ok()?.1,
    };
    Some(key.key_size())
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

/// Whether a text is hex or base64 of a SubjectPublicKeyInfo: a sequence whose first member is a sequence that begins with the
/// identifier of an algorithm.
fn is_key_info(text: &str) -> bool {
    if !text.starts_with(['M', '3']) || text.len() < SHORTEST_KEY_INFO {
        return false;
    }
    let Some(der) = hex::decode(text).ok().or_else(|| lenient_base64(text)) else { return false };
    SubjectPublicKeyInfo::from_der(&der).is_ok_and(|(rest, _)| rest.is_empty())
}

const PREFIXED: &str = "whpk_ and base64 of the raw key, or PEM";
const HEX_KEY_LEN: usize = 64;
const MIN_RSA_BITS: usize = 2048;
const BARE: &str = "PEM, or hex or base64 of the raw key or of its SubjectPublicKeyInfo";
/// Characters of base64 for an Ed25519 key, which is the shortest.
const SHORTEST_KEY_INFO: usize = 58;
