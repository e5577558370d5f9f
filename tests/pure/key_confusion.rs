//! No key serves as a key of another kind, and no stronger signature is replaced by a weaker one: sources are built from secret
//! files, as a start builds them, and an attacker signs with everything that a public key tells.

use std::sync::Arc;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use hookgate::config;
use hookgate::observe::metrics::Metrics;
use hookgate::provider::signature::{SignatureError, SignedRequest, verify};
use hookgate::request::source::{Routes, Source};
use hyper::HeaderMap;
use hyper::header::HeaderValue;
use proptest::prelude::*;
use sha2::Sha256;

const BODY: &str = r#"{"type":"invoice.paid"}"#;
const AT: i64 = 1_700_000_000;
const BYTES: [u8; 32] = [7; 32];

#[test]
fn a_public_key_verifies_v1a_alone_and_is_no_key_of_hmac() {
    let keys = Keys::new();
    for text in [keys.whpk(), keys.pem()] {
        let source = built("standard-webhooks", &[&text]).unwrap();
        assert_eq!(verified(&source, &[keys.v1a()]), Ok(0), "the sender's own signature");
        for (what, key) in keys.told() {
            for entry in [format!("v1,{}", mac(&key)), format!("v1a,{}", mac(&key))] {
                assert!(
                    verified(&source, std::slice::from_ref(&entry)).is_err(),
                    "{entry} by HMAC with {what}"
                );
            }
        }
    }
}

#[test]
fn a_secret_verifies_v1_alone_and_is_no_public_key() {
    let source = built("standard-webhooks", &[&whsec()]).unwrap();
    assert_eq!(verified(&source, &[v1()]), Ok(0));
    // An attacker may know no secret, but must not gain from one that is the seed or the public half of a key pair.
    let seeded = Ed25519KeyPair::from_seed_unchecked(&BYTES).unwrap();
    let by_seed = format!("v1a,{}", STANDARD.encode(seeded.sign(&signed())));
    assert!(verified(&source, &[by_seed]).is_err(), "the secret as a seed");
    let keys = Keys::new();
    let public = format!("whsec_{}", STANDARD.encode(keys.raw()));
    let source = built("standard-webhooks", &[&public]).unwrap();
    assert!(verified(&source, &[keys.v1a()]).is_err(), "the secret's bytes as a public key");
}

#[test]
fn with_keys_of_both_kinds_each_signature_needs_its_own() {
    let keys = Keys::new();
    let source = built("standard-webhooks", &[&whsec(), &keys.whpk()]).unwrap();
    assert_eq!(verified(&source, &[v1()]), Ok(0));
    assert_eq!(verified(&source, &[keys.v1a()]), Ok(1));
    assert_eq!(verified(&source, &["v1a,AA==".to_owned(), v1()]), Ok(0));
    for (what, key) in keys.told() {
        assert!(verified(&source, &[format!("v1,{}", mac(&key))]).is_err(), "{what}");
    }
    let swapped = [v1().replace("v1,", "v1a,"), keys.v1a().replace("v1a,", "v1,")];
    assert!(verified(&source, &swapped).is_err(), "each under the version of the other");
}

#[test]
fn v1a_alone_is_refused_by_a_source_that_has_secrets_alone() {
    let keys = Keys::new();
    for provider in ["standard-webhooks", "basiq", "anduin"] {
        let source = built(provider, &[&whsec()]).unwrap();
        assert_eq!(verified(&source, &[v1()]), Ok(0), "{provider}");
        let refused = verified(&source, &[keys.v1a()]).unwrap_err();
        let reason =
            matches!(refused, SignatureError::NoSignature(..) | SignatureError::Mismatch { tried: 0 });
        assert!(reason, "{provider}: {refused}");
    }
}

#[test]
fn a_key_of_the_wrong_kind_is_refused_when_the_config_is_loaded() {
    let keys = Keys::new();
    let acme = "[providers.acme.signature]\nalgorithm = \"hmac-sha256\"\nheader = \"x-s\"\n";
    let pem = "a PEM text";
    let public = "this is a public key, which is no secret";
    let prefixed = "a public key (whpk_)";
    let private = "this is a private key, which only the sender holds";
    for (provider, secret, said) in [
        ("github", keys.pem(), pem),
        ("github", keys.info(), public),
        ("github", keys.whpk(), prefixed),
        ("stripe", keys.pem(), pem),
        ("slack", keys.info(), public),
        ("acme", keys.pem(), pem),
        ("acme", keys.info(), public),
        ("acme", keys.whpk(), prefixed),
        ("telegram", keys.whpk(), prefixed),
        ("basiq", keys.whpk(), prefixed),
        ("basiq", keys.pem(), pem),
        ("atelio", keys.whpk(), prefixed),
        ("atelio", keys.pem(), pem),
        ("acme", keys.private(), pem),
        ("github", keys.private(), pem),
        ("discord", keys.private(), private),
        ("sendgrid", keys.private(), private),
        ("standard-webhooks", keys.private(), private),
        ("standard-webhooks", format!("whsk_{}", STANDARD.encode([1; 64])), "a private key (whsk_)"),
        ("standard-webhooks", format!("whpk_{}", STANDARD.encode([1; 16])), "no public key for ed25519"),
        ("discord", whsec(), "a whsec_ secret cannot be a secret of discord"),
        ("discord", "correct-horse-battery-staple".to_owned(), "no public key for ed25519"),
        // The key of another algorithm.
        ("sendgrid", keys.pem(), "no public key for ecdsa-p256-sha256"),
    ] {
        let text = if provider == "acme" { acme } else { "" };
        let problems = built_with(text, provider, &[&secret]).err().unwrap_or_default();
        let [problem] = problems.as_slice() else { panic!("{provider} with {secret}: {problems:?}") };
        assert!(problem.contains(said) && problem.contains("sources.a.secrets"), "{provider}: {problem}");
        assert!(!problem.contains(&secret), "{problem}");
    }
}

#[test]
fn public_keys_are_taken_in_every_form_where_an_algorithm_has_them() {
    let keys = Keys::new();
    let acme = "[providers.acme.signature]\nalgorithm = \"ed25519\"\nheader = \"x-s\"\n";
    for text in [keys.pem(), keys.info(), hex::encode(keys.raw()), STANDARD.encode(keys.raw())] {
        built_with(acme, "acme", &[&text]).unwrap_or_else(|problems| panic!("{text}: {problems:?}"));
        built("discord", &[&text]).unwrap_or_else(|problems| panic!("{text}: {problems:?}"));
    }
}

proptest! {
    /// No list of signatures that are made of public values alone passes.
    #[test]
    fn no_list_without_a_genuine_entry_passes(
        entries in proptest::collection::vec(("v1|v1a|v2|V1|v1b|", 0..6_usize, "[ ,\t]{1,2}"), 1..5),
    ) {
        let keys = Keys::new();
        let source = built("standard-webhooks", &[&whsec(), &keys.whpk()]).unwrap();
        let told = keys.told();
        let other = Keys::new();
        let texts = [mac(&told[0].1), mac(&told[1].1), mac(&told[2].1), mac(&told[3].1), other.v1a()[4..].to_owned(), String::new()];
        let line: String = entries.iter().map(|(version, which, between)| format!("{version},{}{between}", texts[*which])).collect();
        prop_assert!(verified(&source, &[line]).is_err());
    }
}

#[test]
fn a_public_key_is_no_secret_beside_a_scheme_for_secrets() {
    let keys = Keys::new();
    let acme = "[[providers.acme.signature]]\nalgorithm = \"hmac-sha256\"\nheader = \"x-s\"\n\
                [[providers.acme.signature]]\nalgorithm = \"ed25519\"\nheader = \"x-e\"\n";
    let info = STANDARD.decode(keys.info()).unwrap();
    let forms =
        [hex::encode(keys.raw()), STANDARD.encode(keys.raw()), keys.info(), hex::encode(info), keys.pem()];
    for key in &forms {
        let source = built_with(acme, "acme", &[key, "a text of some length"]).unwrap();
        let keys: Vec<_> = source.verifiers.iter().map(|verifier| &verifier.keys[..]).collect();
        let [[secret], [public]] = keys[..] else { panic!("{key}: {keys:?}") };
        assert_eq!(secret.hmac_sha256(b"abc"), Some(hmac_of(b"a text of some length", b"abc")), "{key}");
        assert_eq!(public.hmac_sha256(b"abc"), None, "{key}");
    }
    let info_in_hex = &forms[3];
    let source = built("standard-webhooks", &[info_in_hex]).unwrap();
    assert_eq!(verified(&source, &[keys.v1a()]), Ok(0));
}

#[test]
fn an_rsa_key_has_2048_bits_and_may_be_of_rsa_alone() {
    let acme = "[providers.acme.signature]\nalgorithm = \"rsa-sha256\"\nheader = \"x-s\"\n";
    let Err(short) = built_with(acme, "acme", &[SHORT_RSA]) else { panic!("a short key passes") };
    assert!(short[0].contains("under 2048 bits"), "{short:?}");
    assert!(built_with(acme, "acme", &[RSA_ALONE]).is_ok());
}

#[test]
fn a_handshake_is_answered_under_a_key_of_any_hmac() {
    for algorithm in ["hmac-sha1", "hmac-sha256", "hmac-sha384", "hmac-sha512"] {
        let acme = format!("[providers.acme.signature]\nalgorithm = \"{algorithm}\"\nheader = \"x-s\"\n");
        let source = built_with(&acme, "acme", &["a text of some length"]).unwrap();
        let answer = source.verifiers[0].keys[0].hmac_sha256(b"abc");
        assert_eq!(answer, Some(hmac_of(b"a text of some length", b"abc")), "{algorithm}");
    }
}

fn hmac_of(key: &[u8], text: &[u8]) -> [u8; 32] {
    Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(text).finalize().into_bytes().into()
}

/// 1024 bits, made for this test.
const SHORT_RSA: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC7hrm0GkEf/lHispCdsMXyHJJY\n\
D/7siyDffOC89IAzwfAPJEoPHUbh0/fofgNsLp/VqzUENbDD2u+P5Hy/Zuhsecpq\n\
t27ScEQJyM4yAXf3bJpDQZimanuxyiuCM4DJd+llP+rksA2I6Iu5cjYdC4Y6TM+6\n\
D5rJPaPQUlf8V2WoUQIDAQAB\n\
-----END PUBLIC KEY-----\n\
";
/// PKCS #1, made for this test.
const RSA_ALONE: &str = "\
-----BEGIN RSA PUBLIC KEY-----\n\
MIIBCgKCAQEAzRz/kL9yFHlcwtBk3CEoCYGRdvnB8iZoeqQI0XmXkMQasXdj7wij\n\
KupInUI8DV1kHFA2Z//JWvNb8K/K/b40lVcuV5Gy6FAFnBgVroEEjc76bAdtgoaz\n\
PLTT/ThS1TW1iahXplJiOMRqBadUkClUkYJv48BDHNI6nMz9TobV0DB7hjrQGDoy\n\
SwsQwY57iYRktq+Y0GlIv3qbKQd0UNa6al4UlA1137HJimi3z2lM5ZLrhkI8tUj3\n\
Llnm2awpnzsnn8TAsBgMnloXMyNR7vBak0/P4NIK3rHNNBGV6/d+gNGX0qdtigxI\n\
v2b5vLQprb+ZNMEqxxdoAPOfowpnVwbuQwIDAQAB\n\
-----END RSA PUBLIC KEY-----\n\
";

/// A key pair, and the forms of its keys.
struct Keys(Ed25519KeyPair);

impl Keys {
    fn new() -> Keys {
        Keys(Ed25519KeyPair::generate().unwrap())
    }

    fn raw(&self) -> Vec<u8> {
        self.0.public_key().as_ref().to_vec()
    }

    fn whpk(&self) -> String {
        format!("whpk_{}", STANDARD.encode(self.raw()))
    }

    /// Base64 of its SubjectPublicKeyInfo.
    fn info(&self) -> String {
        let info: PublicKeyX509Der<'_> = self.0.public_key().as_der().unwrap();
        STANDARD.encode(info.as_ref())
    }

    fn pem(&self) -> String {
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", self.info())
    }

    fn private(&self) -> String {
        let document = self.0.to_pkcs8().unwrap();
        format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            STANDARD.encode(document.as_ref())
        )
    }

    fn v1a(&self) -> String {
        format!("v1a,{}", STANDARD.encode(self.0.sign(&signed())))
    }

    /// What everybody may know of it, as keys of HMAC.
    fn told(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("its bytes", self.raw()),
            ("its base64", STANDARD.encode(self.raw()).into_bytes()),
            ("its text", self.whpk().into_bytes()),
            ("its PEM", self.pem().into_bytes()),
            ("its info", STANDARD.decode(self.info()).unwrap()),
            ("its hex", hex::encode(self.raw()).into_bytes()),
            ("nothing", Vec::new()),
        ]
    }
}

/// What Standard Webhooks signs.
fn signed() -> Vec<u8> {
    format!("msg_1.{AT}.{BODY}").into_bytes()
}

fn mac(key: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(signed());
    STANDARD.encode(mac.finalize().into_bytes())
}

fn whsec() -> String {
    format!("whsec_{}", STANDARD.encode(BYTES))
}

fn v1() -> String {
    format!("v1,{}", mac(&BYTES))
}

/// The slot of the secret that verifies a delivery with these signatures.
fn verified(source: &Source, signatures: &[String]) -> Result<usize, SignatureError> {
    let mut headers = HeaderMap::new();
    headers.append("webhook-id", HeaderValue::from_static("msg_1"));
    headers.append("webhook-timestamp", AT.into());
    headers.append("webhook-signature", signatures.join(" ").parse().unwrap());
    let request = SignedRequest::post(&headers, BODY.as_bytes());
    verify(&source.verifiers, request, AT, 300).map(|verified| verified.signed().unwrap().slot)
}

fn built(provider: &str, secrets: &[&str]) -> Result<Arc<Source>, Vec<String>> {
    built_with("", provider, secrets)
}

/// A source with these secrets, each in a file; or the errors.
fn built_with(definitions: &str, provider: &str, secrets: &[&str]) -> Result<Arc<Source>, Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (at, secret) in secrets.iter().enumerate() {
        std::fs::write(folder.path().join(at.to_string()), secret).unwrap();
        files.push(format!("{{ file = \"{at}\" }}"));
    }
    let source = format!("[sources.a]\nprovider = \"{provider}\"\nsecrets = [{}]\n", files.join(", "));
    let (config, mut problems) = config::parse(&format!("{definitions}{source}"), folder.path());
    let routes = Routes::build(&config, &Metrics::new().unwrap(), None, &mut problems);
    problems.retain(|problem| !problem.warning);
    if problems.is_empty() {
        return Ok(routes.sources().next().unwrap().clone());
    }
    Err(problems.iter().map(|problem| problem.render("f")).collect())
}
