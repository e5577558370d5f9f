//! Key pairs that sign, and their public keys in each form that a secret may have.

use std::sync::LazyLock;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A key pair of each algorithm.
pub(super) struct Keys {
    ed25519: Ed25519KeyPair,
    ecdsa: EcdsaKeyPair,
    rsa: RsaKeyPair,
    random: SystemRandom,
}

pub(super) static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys {
    ed25519: Ed25519KeyPair::generate().unwrap(),
    ecdsa: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap(),
    rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
    random: SystemRandom::new(),
});

impl Keys {
    pub(super) fn sign(&self, algorithm: &str, text: &[u8]) -> Vec<u8> {
        match algorithm {
            "ed25519" => self.ed25519.sign(text).as_ref().to_vec(),
            "ecdsa-p256-sha256" => self.ecdsa.sign(&self.random, text).unwrap().as_ref().to_vec(),
            "rsa-sha256" => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                self.rsa.sign(&RSA_PKCS1_SHA256, &self.random, text, &mut signature).unwrap();
                signature
            }
            other => panic!("{other}"),
        }
    }

    /// A public key in one of the forms that a secret of it may have.
    pub(super) fn public(&self, algorithm: &str, form: usize) -> String {
        let info = |der: PublicKeyX509Der<'_>| der.as_ref().to_vec();
        let (raw, info) = match algorithm {
            "ed25519" => {
                let key = self.ed25519.public_key();
                (key.as_ref().to_vec(), info(key.as_der().unwrap()))
            }
            "ecdsa-p256-sha256" => {
                let key = self.ecdsa.public_key();
                (key.as_ref().to_vec(), info(key.as_der().unwrap()))
            }
            "rsa-sha256" => {
                let key = self.rsa.public_key();
                (key.as_ref().to_vec(), info(key.as_der().unwrap()))
            }
            other => panic!("{other}"),
        };
        match form {
            0 => {
                let lines = STANDARD.encode(&info);
                let lines: Vec<_> =
                    lines.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
                format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
            }
            1 => hex::encode(&info),
            2 => STANDARD.encode(&info),
            3 => hex::encode(&raw),
            _ => STANDARD.encode(&raw),
        }
    }
}
