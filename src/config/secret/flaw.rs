//! Copying mistakes that show in a secret's text.
//!
//! Keeps true: each mistake has a name and a fix, and neither holds a part of the secret. No provider issues a text
//! with a [`Flaw`], so a flaw is an error. A text that [`Secret::decoded`] decodes may still be a secret, so that is a
//! warning.

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::IgnoredAny;

use super::{PRIVATE_KEY_PREFIX, PUBLIC_KEY_PREFIX, STANDARD_WEBHOOKS_PREFIX, Secret};

/// A mistake in a secret's text. Its `Display` text follows "the secret ".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It begins with a byte order mark.
    ByteOrderMark,
    /// It is a key in PEM form.
    Pem,
    /// It has several lines.
    LineBreak,
    /// It begins or ends with a quote.
    Quotes,
    /// It begins or ends with white space.
    BlankAround,
    /// It holds white space, a control or an invisible character.
    BlankInside,
    /// It begins with a signature's version.
    Version,
    /// It is a public key of Standard Webhooks.
    PublicKey,
    /// It is a private key of Standard Webhooks.
    PrivateKey,
    /// It is a key for something else.
    OtherKey,
    /// It is a line of a shell or an env file.
    Assignment,
    /// It is a JSON object.
    Json,
    /// It is a template's placeholder.
    Placeholder,
    /// The prefix of Standard Webhooks is misspelt or there twice.
    Prefix,
}

impl Secret {
    /// The first mistake in it.
    pub fn flaw(&self) -> Option<Flaw> {
        let text = self.0.as_str();
        let trimmed = text.trim();
        // A PEM text also has line breaks, and an assignment often has quotes: the more specific mistake comes first.
        if text.starts_with('\u{feff}') {
            Some(Flaw::ByteOrderMark)
        } else if text.contains("-----BEGIN ") {
            Some(Flaw::Pem)
        } else if trimmed.starts_with('{') && serde_json::from_str::<IgnoredAny>(trimmed).is_ok() {
            Some(Flaw::Json)
        } else if text.contains(['\n', '\r']) {
            Some(Flaw::LineBreak)
        } else if is_placeholder(trimmed) {
            Some(Flaw::Placeholder)
        } else if is_assignment(trimmed) {
            Some(Flaw::Assignment)
        } else if trimmed.starts_with(QUOTES) || trimmed.ends_with(QUOTES) || trimmed.starts_with("\\\"") {
            Some(Flaw::Quotes)
        } else if ["ssh-", "ecdsa-sha2-", "AGE-SECRET-KEY-"].iter().any(|start| trimmed.starts_with(start)) {
            Some(Flaw::OtherKey)
        } else if is_versioned(trimmed) {
            Some(Flaw::Version)
        } else if trimmed.starts_with(PUBLIC_KEY_PREFIX) {
            Some(Flaw::PublicKey)
        } else if trimmed.starts_with(PRIVATE_KEY_PREFIX) {
            Some(Flaw::PrivateKey)
        } else if trimmed.len() < text.len() {
            Some(Flaw::BlankAround)
        } else if text.contains(is_blank) {
            Some(Flaw::BlankInside)
        } else if has_odd_prefix(text) {
            Some(Flaw::Prefix)
        } else {
            None
        }
    }

    /// The secret that its base64 holds, if that is one: the text was probably encoded once too often. `is_base64`:
    /// providers issue secrets of this kind in base64.
    pub fn decoded(&self, is_base64: bool) -> Option<Secret> {
        let inner = self.decoded_text()?;
        let bare = inner.0.strip_prefix(STANDARD_WEBHOOKS_PREFIX);
        let encoded = |text: &str| lenient_base64(text).is_some_and(|bytes| bytes.len() >= SHORTEST);
        // Base64 of hex, or of letters in one case, is often a key that was encoded only once.
        let mixed = [u8::is_ascii_uppercase, u8::is_ascii_lowercase]
            .iter()
            .all(|case| inner.0.as_bytes().iter().any(case));
        let is_secret = match (bare, is_base64) {
            (Some(bare), _) => !bare.is_empty(),
            (None, true) => mixed && encoded(&inner.0),
            (None, false) => inner.0.len() >= SHORTEST,
        };
        is_secret.then_some(inner)
    }

    /// The text that its base64 holds, trimmed.
    pub(crate) fn decoded_text(&self) -> Option<Secret> {
        let bare = self.0.strip_prefix(STANDARD_WEBHOOKS_PREFIX).unwrap_or(&self.0);
        let text = String::from_utf8(lenient_base64(bare)?).ok()?;
        let inner = text.trim();
        let is_text = !inner.is_empty() && inner.bytes().all(|byte| byte.is_ascii_graphic());
        is_text.then(|| Secret::new(inner))
    }
}

/// Decodes base64 as operators copy it: padding optional, trailing bits allowed, as Node does.
pub(crate) fn lenient_base64(text: &str) -> Option<Vec<u8>> {
    LENIENT.decode(text).ok()
}

/// `v1,whsec_…` and the like, as some consoles show it; `v1,` is also how a signature begins.
fn is_versioned(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('v') else { return false };
    let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let after = after.strip_prefix('a').unwrap_or(after);
    let is_key = |text: &str| text.starts_with("wh") && text.get(2..).is_some_and(|kind| kind.contains('_'));
    let digits = rest.starts_with(|c: char| c.is_ascii_digit());
    digits && (after.starts_with(',') || after.strip_prefix(['=', ':']).is_some_and(is_key))
}

/// `NAME=` or `export NAME=` before a text that is clearly a secret.
fn is_assignment(text: &str) -> bool {
    let text = text.strip_prefix("export ").unwrap_or(text);
    let Some((name, value)) = text.split_once(['=', ':']) else { return false };
    let is_name = name.len() > 1 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let value = value.trim_start().trim_start_matches(QUOTES);
    is_name
        && [STANDARD_WEBHOOKS_PREFIX, PUBLIC_KEY_PREFIX, PRIVATE_KEY_PREFIX]
            .iter()
            .any(|start| value.starts_with(start))
        && !is_versioned(text)
}

fn is_placeholder(text: &str) -> bool {
    [("${", "}"), ("$(", ")"), ("{{", "}}"), ("<", ">")]
        .iter()
        .any(|(start, end)| text.starts_with(start) && text.ends_with(end))
}

fn has_odd_prefix(text: &str) -> bool {
    let odd = |text: &str| {
        let start: String = text.chars().take(STANDARD_WEBHOOKS_PREFIX.len()).collect();
        let start = start.to_ascii_lowercase().replace(['-', ':', '='], "_");
        start == STANDARD_WEBHOOKS_PREFIX
    };
    match text.strip_prefix(STANDARD_WEBHOOKS_PREFIX) {
        Some(rest) => odd(rest),
        None => odd(text),
    }
}

/// White space, controls, and characters without width.
fn is_blank(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}')
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flaw::ByteOrderMark => {
                "begins with a byte order mark, which would be a part of it: save the file as UTF-8 without one"
            }
            Flaw::Pem => "is a PEM text, a key or a certificate: configure the webhook's signing secret instead",
            Flaw::LineBreak => "holds a line break, which would be a part of it: put it on one line",
            Flaw::Quotes => {
                "has quotes around it or at one end, which would be a part of it: store it without quotes"
            }
            Flaw::BlankAround => {
                "has blanks (white space) around it, which would be a part of it: store it without them"
            }
            Flaw::BlankInside => {
                "holds blanks, that is white space or invisible characters: copy it again from the provider, as one word"
            }
            Flaw::Version => {
                "begins with a version such as `v1,`, which is no part of it: store what follows the comma, \
                 whsec_ included; if nothing there begins with whsec_, it is a signature and no secret"
            }
            Flaw::PublicKey => {
                "is a public key (whpk_), another kind of key, which verifies no HMAC: configure the signing secret, \
                 which begins with whsec_"
            }
            Flaw::PrivateKey => {
                "is a private key (whsk_), another kind of key, which only a sender holds: remove it from here and \
                 configure the signing secret, which begins with whsec_"
            }
            Flaw::OtherKey => {
                "is another kind of key, for SSH or age: configure the webhook's signing secret instead"
            }
            Flaw::Assignment => "is a line NAME=value: store the value alone",
            Flaw::Json => "is a JSON object: store the one field that holds the secret",
            Flaw::Placeholder => {
                "is a placeholder that no template engine has replaced: store the secret itself"
            }
            Flaw::Prefix => "does not begin with whsec_ exactly once, in lower case: copy it again from the provider",
        })
    }
}

const QUOTES: [char; 9] = ['"', '\'', '`', '“', '”', '‘', '’', '«', '»'];
/// In bytes: no provider issues a shorter key.
const SHORTEST: usize = 16;
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD as BASE64;

    use super::*;

    const BARE: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn each_mistake_has_its_name() {
        let pem = "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----";
        for (text, flaw) in [
            (format!("\u{feff}whsec_{BARE}"), Flaw::ByteOrderMark),
            (pem.to_owned(), Flaw::Pem),
            (format!("whsec_{BARE}\nwhsec_{BARE}"), Flaw::LineBreak),
            (format!("\"whsec_{BARE}\""), Flaw::Quotes),
            (format!("'{BARE}'"), Flaw::Quotes),
            (format!("“whsec_{BARE}”"), Flaw::Quotes),
            (format!(" \"whsec_{BARE}\" "), Flaw::Quotes),
            (format!("whsec_{BARE}\""), Flaw::Quotes),
            (format!("\\\"whsec_{BARE}\\\""), Flaw::Quotes),
            (format!(" whsec_{BARE}"), Flaw::BlankAround),
            (format!("whsec_{BARE}\t"), Flaw::BlankAround),
            (format!("whsec_{BARE}\u{a0}"), Flaw::BlankAround),
            (format!("whsec_ {BARE}"), Flaw::BlankInside),
            (format!("whsec_{BARE}\u{200b}"), Flaw::BlankInside),
            (format!("whsec_{BARE}\0"), Flaw::BlankInside),
            (format!("v1,whsec_{BARE}"), Flaw::Version),
            (format!("v1a,whpk_{BARE}"), Flaw::Version),
            (format!("v1=whsec_{BARE}"), Flaw::Version),
            (format!("v1,{BARE}"), Flaw::Version),
            (format!("whpk_{BARE}"), Flaw::PublicKey),
            (format!("whsk_{BARE}"), Flaw::PrivateKey),
            ("ssh-ed25519 AAAAC3Nz".to_owned(), Flaw::OtherKey),
            (format!("SECRET=whsec_{BARE}"), Flaw::Assignment),
            (format!("export SECRET=\"whsec_{BARE}\""), Flaw::Assignment),
            (format!("secret: whsec_{BARE}"), Flaw::Assignment),
            (format!("{{\"secret\":\"whsec_{BARE}\"}}"), Flaw::Json),
            ("${BASIQ_SECRET}".to_owned(), Flaw::Placeholder),
            ("{{ .Values.secret }}".to_owned(), Flaw::Placeholder),
            ("<your secret>".to_owned(), Flaw::Placeholder),
            (format!("WHSEC_{BARE}"), Flaw::Prefix),
            (format!("whsec-{BARE}"), Flaw::Prefix),
            (format!("whsec_whsec_{BARE}"), Flaw::Prefix),
        ] {
            assert_eq!(Secret::new(&*text).flaw(), Some(flaw), "{text}");
            assert!(!flaw.to_string().contains(BARE));
        }
    }

    #[test]
    fn what_providers_issue_has_none() {
        for text in [
            format!("whsec_{BARE}"),
            BARE.to_owned(),
            "whsec_XqTEJtniwuEhp0A1c1cTJNsmpR/qgOfB".to_owned(),
            "MA4V6bD7rB0Hcm2aw8ghgDeQ5UAak24DwnX0rX6".to_owned(),
            "0123456789abcdef0123456789abcdef".to_owned(),
            "QUJDREVG0123=".to_owned(),
            "v1sion-of-a-text".to_owned(),
            "p@ss:w0rd=with,all~kinds/of+text".to_owned(),
            "schlüssel-mit-umlaut".to_owned(),
        ] {
            assert_eq!(Secret::new(&*text).flaw(), None, "{text}");
        }
    }

    #[test]
    fn a_secret_that_was_encoded_once_more_is_known_by_what_is_in_it() {
        let whole = format!("whsec_{BARE}");
        for (inner, is_base64) in [(&*whole, true), (&whole, false), (BARE, true), (BARE, false)] {
            for (text, bare) in [
                (BASE64.encode(inner), false),
                (BASE64.encode(format!("{inner}\n")), false),
                (BASE64.encode(inner).trim_end_matches('=').to_owned(), false),
                (format!("whsec_{}", BASE64.encode(inner)), true),
            ] {
                if bare && !is_base64 {
                    continue;
                }
                let decoded = Secret::new(&*text).decoded(is_base64);
                assert_eq!(decoded.as_ref().map(Secret::expose), Some(inner), "{text}");
            }
        }
        // What is base64 once: of random bytes, of hex, of a passphrase; and texts that are no base64, or of something
        // else.
        let hex = BASE64.encode("0123456789abcdef0123456789abcdef");
        for (text, is_base64) in [
            (&*whole, true),
            (BARE, true),
            (&whole, false),
            (BARE, false),
            (&hex, true),
            ("hush-12345", false),
        ] {
            assert!(Secret::new(text).decoded(is_base64).is_none(), "{text}");
        }
    }
}
