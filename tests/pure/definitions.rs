//! Of any definition that the grammar allows: what was signed as it says passes, and one changed bit of anything that it covers
//! does not. A definition goes the whole way, from its TOML. The signer here is not the program's.

mod changes;
mod keys;
mod model;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use hookgate::config::definitions;
use hookgate::config::secret::Secret;
use hookgate::provider::Catalog;
use hookgate::provider::signature::{Key, Scheme, SignatureError, SignedRequest, Verified, Verifier, verify};
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use jiff::Timestamp;
use proptest::prelude::*;
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};

use keys::KEYS;
use model::{Layout, Model, Piece, SecretText, Time, model};

const PUBLIC_URL: &str = "https://hooks.example.com";
const COVERED: [&str; 2] = ["x-acme-topic", "x-acme-shop"];
const TOLERANCE: i64 = 300;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_is_signed_as_a_definition_says_passes_and_one_changed_bit_does_not(
        model in model(), at in 1_000_000_000_i64..4_000_000_000, drift in -TOLERANCE..=TOLERANCE,
    ) {
        let verifiers = model.verifiers();
        let sent = model.delivery(at);
        let now = at + drift;
        let passed = sent.verified(&verifiers, now);
        prop_assert!(passed.is_ok(), "{:?} refuses {sent:?}\n{}", passed, model.toml());
        let (verified, age) = passed.unwrap();
        prop_assert_eq!(verified, sent.body.clone());
        // A signature without a timestamp has no age.
        prop_assert_eq!(age, (model.time != Time::Absent).then_some(drift), "{}", model.toml());
        if model.time != Time::Absent {
            for late in [at + TOLERANCE + 1, at - TOLERANCE - 1] {
                let refused = sent.verified(&verifiers, late);
                prop_assert!(matches!(refused, Err(SignatureError::OutsideTolerance { .. })), "{:?}", refused);
            }
        }
        for (part, changed) in model.changes(&sent) {
            let passed = changed.verified(&verifiers, now);
            prop_assert!(passed.is_err(), "{part} is not covered: {changed:?}\n{}", model.toml());
        }
    }
}

impl Model {
    fn toml(&self) -> String {
        // JSON's strings and lists of strings are TOML's too.
        let quoted = |text: &str| serde_json::to_string(text).unwrap();
        let list = |names: Vec<String>| match names.as_slice() {
            [one] => quoted(one),
            several => serde_json::to_string(several).unwrap(),
        };
        let sets = |of: &str| (0..self.sets).map(|set| format!("X-{set}-{of}")).collect::<Vec<_>>();
        let mut lines = vec![
            format!("algorithm = {}", quoted(self.algorithm)),
            format!("header = {}", list(sets("signature"))),
            format!("encoding = {}", quoted(self.encoding)),
            format!("timestamp_unit = {}", quoted(self.unit)),
            format!(
                "signed = {}",
                quoted(&self.signed.iter().map(|piece| piece.template()).collect::<String>())
            ),
        ];
        match &self.format {
            Layout::Around { before, after, separator, .. } => {
                lines.push(format!("format = {}", quoted(&format!("{before}{{signature}}{after}"))));
                lines.extend(separator.map(|separator| format!("separator = {}", quoted(separator))));
            }
            Layout::Pairs { .. } => {
                lines.push(format!("format = {}", quoted(&self.pairs("{timestamp}", "{signature}"))));
            }
        }
        if self.time == Time::Header {
            lines.push(format!("timestamp = {}", list(sets("time"))));
        }
        if self.id {
            lines.push(format!("id = {}", list(sets("id"))));
        }
        match self.secret {
            SecretText::Form("absent") => {}
            SecretText::Form(form) => lines.push(format!("secret = {}", quoted(form))),
            SecretText::Public(form) if form % 2 == 0 => lines.push("secret = \"public-key\"".to_owned()),
            SecretText::Public(_) => {}
        }
        format!(
            "[providers.acme.signature]\n{}\n[providers.acme.event]\ntype = \"/type\"\n",
            lines.join("\n")
        )
    }

    fn pairs(&self, time: &str, text: &str) -> String {
        let Layout::Pairs { timestamp, signature, separator, signature_first } = &self.format else {
            unreachable!("only pairs have a timestamp")
        };
        let (time, text) = (format!("{timestamp}={time}"), format!("{signature}={text}"));
        if *signature_first { format!("{text}{separator}{time}") } else { format!("{time}{separator}{text}") }
    }

    /// The verifiers of a source with its secret, as the program makes them of the TOML.
    fn verifiers(&self) -> Vec<Verifier> {
        let toml = self.toml();
        let (definitions, mut problems) = definitions::parse(&toml);
        let catalog = Catalog::of(&definitions, &mut problems);
        assert_eq!(problems, [], "{toml}");
        let provider = catalog.by_name("acme").unwrap();
        let secret = Secret::new(self.secret_text());
        let verifier = |scheme: &Scheme| {
            let key = Key::new(scheme, &secret).unwrap_or_else(|error| panic!("{error}\n{toml}"));
            Verifier { scheme: *scheme, keys: vec![key] }
        };
        provider.signing.schemes().iter().map(verifier).collect()
    }

    fn secret_text(&self) -> String {
        match self.secret {
            SecretText::Form("hex") => hex::encode(&self.bytes),
            SecretText::Form("base64") => STANDARD.encode(&self.bytes),
            SecretText::Form("whsec") => format!("whsec_{}", STANDARD.encode(&self.bytes)),
            SecretText::Form(_) => self.text_secret(),
            SecretText::Public(form) => KEYS.public(self.algorithm, form),
        }
    }

    /// Letters and digits, so that it fits every format.
    fn text_secret(&self) -> String {
        hex::encode(&self.bytes)
    }

    fn delivery(&self, at: i64) -> Sent {
        let time = match self.unit {
            "s" => at.to_string(),
            "ms" => format!("{at}999"),
            _ => Timestamp::from_second(at).unwrap().to_string(),
        };
        let id = "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W".to_owned();
        let mut sent = Sent {
            headers: Vec::new(),
            body: self.body.clone(),
            method: self.method.to_owned(),
            target: self.target.clone(),
        };
        for (name, value) in COVERED.iter().zip(&self.values) {
            sent.headers.push(((*name).to_owned(), value.clone().into_bytes()));
        }
        let text = self.signed_text(&sent, &id, &time);
        let signature = self.spelled(&self.sign(&text), false);
        let wrong = self.spelled(&self.sign(&[&text[..], b"x"].concat()), true);
        for set in 0..self.sets {
            let used = set == self.used;
            if !used && !self.decoys {
                continue;
            }
            let signature = if used { &signature } else { &wrong };
            let value = match &self.format {
                Layout::Pairs { .. } => self.pairs(&time, signature),
                Layout::Around { before, after, separator: None, .. } => {
                    format!("{before}{signature}{after}")
                }
                Layout::Around { before, after, separator: Some(separator), place } => {
                    let mut entries = vec![format!("{before}{wrong}{after}"), "v9,!".to_owned()];
                    entries.retain(|entry| !entry.contains(separator));
                    entries.insert(place.index(entries.len() + 1), format!("{before}{signature}{after}"));
                    entries.join(separator)
                }
            };
            sent.headers.push((format!("x-{set}-signature"), value.into_bytes()));
            if self.time == Time::Header {
                sent.headers.push((format!("x-{set}-time"), time.clone().into_bytes()));
            }
            if self.id {
                sent.headers.push((format!("x-{set}-id"), id.clone().into_bytes()));
            }
        }
        sent
    }

    fn signed_text(&self, sent: &Sent, id: &str, time: &str) -> Vec<u8> {
        let (path, query) = sent.target.split_once('?').unwrap_or((&sent.target, ""));
        let mut text = Vec::new();
        for piece in &self.signed {
            match piece {
                Piece::Body => text.extend(&sent.body),
                Piece::Timestamp => text.extend(time.as_bytes()),
                Piece::Id => text.extend(id.as_bytes()),
                Piece::Method => text.extend(sent.method.as_bytes()),
                Piece::Url => text.extend(format!("{PUBLIC_URL}{}", sent.target).as_bytes()),
                Piece::Path => text.extend(path.as_bytes()),
                Piece::Query => text.extend(query.as_bytes()),
                Piece::Header(which) => text.extend(self.values[*which].as_bytes()),
                Piece::Text(plain) => text.extend(plain.as_bytes()),
            }
        }
        text
    }

    /// The signature of a text, by the algorithm.
    fn sign(&self, text: &[u8]) -> Vec<u8> {
        let key = match self.secret {
            SecretText::Form("text" | "absent") => self.text_secret().into_bytes(),
            _ => self.bytes.clone(),
        };
        match self.algorithm {
            "hmac-sha1" => Hmac::<Sha1>::new_from_slice(&key)
                .unwrap()
                .chain_update(text)
                .finalize()
                .into_bytes()
                .to_vec(),
            "hmac-sha256" => Hmac::<Sha256>::new_from_slice(&key)
                .unwrap()
                .chain_update(text)
                .finalize()
                .into_bytes()
                .to_vec(),
            "hmac-sha384" => Hmac::<Sha384>::new_from_slice(&key)
                .unwrap()
                .chain_update(text)
                .finalize()
                .into_bytes()
                .to_vec(),
            "hmac-sha512" => Hmac::<Sha512>::new_from_slice(&key)
                .unwrap()
                .chain_update(text)
                .finalize()
                .into_bytes()
                .to_vec(),
            "equal" => key,
            asymmetric => KEYS.sign(asymmetric, text),
        }
    }

    /// A signature as its header has it. For `equal` a wrong one is the secret and one letter more.
    fn spelled(&self, signature: &[u8], wrong: bool) -> String {
        match (self.algorithm, self.encoding, self.other_spelling) {
            ("equal", ..) => String::from_utf8(signature.to_vec()).unwrap() + if wrong { "0" } else { "" },
            (_, "hex", false) => hex::encode(signature),
            (_, "hex", true) => hex::encode_upper(signature),
            (_, "base64", false) => STANDARD.encode(signature),
            (_, "base64", true) => STANDARD_NO_PAD.encode(signature),
            (_, _, false) => URL_SAFE.encode(signature),
            (_, _, true) => URL_SAFE_NO_PAD.encode(signature),
        }
    }
}

/// A delivery.
#[derive(Clone, Debug)]
struct Sent {
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    method: String,
    target: String,
}

impl Sent {
    /// The verified body and the age, or why it is refused.
    fn verified(&self, verifiers: &[Verifier], now: i64) -> Result<(Vec<u8>, Option<i64>), SignatureError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            // What no HTTP server lets in is refused before any signature.
            let Ok(value) = HeaderValue::from_bytes(value) else {
                return Err(SignatureError::Mismatch { tried: 0 });
            };
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
        }
        let request = SignedRequest {
            headers: &headers,
            body: &self.body,
            method: &self.method,
            target: &self.target,
            public_url: PUBLIC_URL,
        };
        let told = |verified: Verified<'_>| (verified.body().to_vec(), verified.signed().unwrap().age);
        verify(verifiers, request, now, TOLERANCE).map(told)
    }
}
