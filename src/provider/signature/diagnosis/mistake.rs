//! The known mistakes, one row each: a label for machines, and what to do.
//!
//! Keeps true: a mistake names headers, sources and the index of a secret. It never holds a secret, a key or a digest.

use std::fmt;

use jiff::Timestamp;

use super::{Alteration, SignedString};
use crate::provider::signature::Encoding;
use crate::provider::signature::scheme::{Algorithm, Labels, Scheme, SecretForm, Version};

/// Makes [`Mistake`] of its rows: the mistake, its label, its text, and what the text shows beside the mistake's own
/// fields.
macro_rules! mistakes {
    ($($mistake:ident $(($one:ident: $one_type:ty))? $({ $($field:ident: $type:ty),+ })? =
        $label:expr, $text:literal $(, $shown:ident = $value:expr)*;)+) => {
        /// A mistake in a delivery or its signature.
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Mistake {
            $(#[doc = $text] $mistake $(($one_type))? $({ $($field: $type),+ })?,)+
        }

        impl Mistake {
            /// The label of this kind of mistake, for machines.
            #[allow(unused_variables)]
            pub fn label(&self) -> &'static str {
                match self { $(Mistake::$mistake $(($one))? $({ $($field),+ })? => $label,)+ }
            }
        }

        impl fmt::Display for Mistake {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Mistake::$mistake $(($one))? $({ $($field),+ })? => write!(f, $text $(, $shown = $value)*),)+
                }
            }
        }
    };
}

mistakes! {
    HeaderMissing(name: &'static str) = "header_missing",
        "The header {name} is missing: send it, and let no proxy remove it.";
    // Like the row above, for a definition.
    HeaderNotSent(name: &'static str) = "header_missing",
        "The header {name} is missing. If the sender puts it under another name, correct the definition. Else let no proxy \
         remove it.";
    // In a file, a header's name can be of any length.
    HeaderMisnamed { found: String, expected: &'static str } = "header_misnamed",
        "The header {found:.64} is there instead of {expected}: send it as {expected}.";
    HeaderRepeated(name: &'static str) = "header_repeated",
        "The header {name} is there more than once, and only one of them can be signed: send it once.";
    HeaderNotAscii(name: &'static str) = "header_not_ascii",
        "The header {name} holds bytes outside ASCII: send plain ASCII.";
    HeaderEmpty(name: &'static str) = "header_empty",
        "The header {name} is empty: send its value.";
    // `bytes`: 0 for a text that cannot be read.
    NoDigest { header: &'static str, bytes: usize, algorithm: Algorithm } = "no_digest",
        "{header} holds {found}: send a whole {algorithm}.", found = length(*bytes), algorithm = whole(*algorithm);
    UnknownVersion { header: &'static str, known: &'static [Version] } = "unknown_version",
        "No signature in {header} has a known version: write it with {known}.", known = Labels(known);
    TimestampMissing { header: &'static str, key: &'static str } = "timestamp_missing",
        "{header} holds no timestamp: send {key}=UNIX in it.";
    TimestampNotUnix = "timestamp_not_unix",
        "The timestamp is not a whole number: send unix seconds, digits only.";
    // Like the row above and the row below, for a definition. `unit`: its `timestamp_unit`.
    TimestampUnit { unit: &'static str } = "timestamp_unit",
        "The timestamp is not in timestamp_unit = {unit:?}: correct the definition; seconds are \"s\", milliseconds \"ms\", a \
         date and time \"rfc3339\".";
    TimestampTooFine = "timestamp_in_milliseconds",
        "The timestamp is in milliseconds or finer: send and sign unix seconds.";
    Stale { age: i64, tolerance: i64 } = "timestamp_stale",
        "It was signed {age} s before it arrived, and {tolerance} s are tolerated: sign each attempt anew, and compare both \
         clocks.";
    Ahead { by: i64, tolerance: i64 } = "timestamp_ahead",
        "It was signed {by} s after it arrived, and {tolerance} s are tolerated: one of the two clocks is wrong; set both by \
         NTP.";
    SecretOf(source: String) = "secret_of_another_source",
        "It is signed with a secret of the source {source}: send it to that source's path, or configure its secret here.";
    SecretNotCurrent { slot: usize, not_before: Option<Timestamp>, not_after: Option<Timestamp> } = "secret_not_current",
        "Secret {slot} of the source's list matches, but counts only{from}{until}: change its dates, or sign with a current one.",
        from = day("from", *not_before), until = day("until", *not_after);
    Keyed { reading: KeyReading, expected: SecretForm } = "secret_read_otherwise",
        "{said}", said = reading.said(*expected);
    // `expected`: the parts of the right string, such as `timestamp.body`.
    SignedOver { form: SignedString, expected: String } = "other_string_signed",
        "The secret is right, but another string was signed: {form}. The string to sign is {expected}.";
    Algorithm { found: &'static str, expected: &'static str } = "other_algorithm",
        "The secret is right, but the signature is by {found}: sign by {expected}.";
    // `key`: a key of the definition; `value`: what it probably is.
    Defined { key: &'static str, value: String } = "definition",
        "{said}", said = defined(key, value);
    Altered(alteration: Alteration) = alteration.label(),
        "{alteration}";
    BodyEmpty = "body_empty",
        "The captured body is empty: capture it whole, and look whether a proxy or a redirect drops it.";
    BodyLength { told: u64, there: u64 } = "body_length",
        "Content-Length says {told} bytes and the body has {there}: the capture or a proxy cut or changed it. Capture it again, \
         byte for byte; until then the secret cannot be judged.";
    BodyCompressed = "body_compressed",
        "The body is compressed (gzip): capture it as it was signed, and switch compression off on the way.";
    BodyNotJson = "body_not_json",
        "The body is no JSON, which every provider sends: the capture, or something on the way, cut or changed it. Capture it \
         again, byte for byte.";
    Spelt { found: Spelling, expected: Spelling } = "digest_encoding",
        "The signature is written in {found}: write it in {expected}.";
    // `expected`: the text before the signature, such as `v1,`.
    Versioned { header: &'static str, expected: String } = "signature_version",
        "The signature is right, but does not stand under its version: write it as {expected}… in {header}.";
    // Like the row above, for a definition.
    Formatted { header: &'static str } = "signature_version",
        "The signature is right, but `format` does not fit the value of {header}: put the text around the signature into it, as \
         in \"sha256={{signature}}\".";
    OldVersion = "old_version_only",
        "Only the old v1 signature is there, and it is right: have the provider send v2, or set accept_v1 = true on the source.";
    Unexplained = "unexplained",
        "Either it was signed with a secret that is not in this config (rotated, or of another endpoint), or the body is not \
         byte for byte the signed one; a signature does not tell which. If other deliveries of this source pass, it is the body: \
         look for what changes it on the way, and capture headers and body raw, of one and the same delivery. If none does, it \
         is the secret: copy it from the provider again.";
    // Like the row above, for a definition.
    UnexplainedDefined { url: bool } = "unexplained",
        "If other deliveries of this source pass, something changed this body on the way: capture headers and body raw. If none \
         does, either the secret is another one, or the definition differs from what the sender does: compare `signed` and \
         `secret` with its documentation{url}.", url = public_url(*url);
}

impl Mistake {
    /// The same mistake as the author of the definition may correct it.
    pub(super) fn of_definition(self, scheme: &Scheme) -> Mistake {
        match self {
            Mistake::HeaderMissing(name) => Mistake::HeaderNotSent(name),
            Mistake::TimestampNotUnix | Mistake::TimestampTooFine => {
                Mistake::TimestampUnit { unit: scheme.unit.label() }
            }
            Mistake::Versioned { header, .. } => Mistake::Formatted { header },
            Mistake::Unexplained => Mistake::UnexplainedDefined { url: scheme.covers_url() },
            other => other,
        }
    }

    /// Whether no secret can be tried until this mistake is fixed.
    pub(super) fn hides_the_signature(&self) -> bool {
        matches!(
            self,
            Mistake::HeaderMissing(_)
                | Mistake::HeaderRepeated(_)
                | Mistake::HeaderNotAscii(_)
                | Mistake::HeaderEmpty(_)
                | Mistake::NoDigest { .. }
                | Mistake::TimestampMissing { .. }
                | Mistake::BodyEmpty
                | Mistake::BodyLength { .. }
                | Mistake::BodyCompressed
                | Mistake::BodyNotJson
                | Mistake::Altered(_)
        )
    }
}

/// What a key of a definition probably is.
fn defined(key: &str, value: &str) -> String {
    let fix = "correct the definition, if other deliveries of this provider fail too";
    match key {
        "signed" => {
            let alone = if value == "{body}" { " alone" } else { "" };
            format!("The signature matches over `{value}`{alone}: `signed` is probably `{value}`; {fix}.")
        }
        _ => format!("The signature matches with {key} = {value:?}: `{key}` is probably {value:?}; {fix}."),
    }
}

fn public_url(is_signed: bool) -> &'static str {
    if is_signed { ", and edge.public_url and the path with the URL that is registered there" } else { "" }
}

/// A signature by this algorithm, and its length.
fn whole(algorithm: Algorithm) -> String {
    let name = match algorithm {
        Algorithm::HmacSha256 => "HMAC-SHA256",
        other => other.label(),
    };
    match algorithm.signature_len() {
        Some(bytes) => format!("{name}, which has {bytes} bytes"),
        None => name.to_owned(),
    }
}

fn length(bytes: usize) -> String {
    match bytes {
        0 => "neither hex nor base64".to_owned(),
        32 => "32 bytes, as SHA-256 makes them".to_owned(),
        20 => "20 bytes, as SHA-1 makes them".to_owned(),
        48 => "48 bytes, as SHA-384 makes them".to_owned(),
        64 => "64 bytes, as SHA-512 makes them".to_owned(),
        _ => format!("{bytes} bytes"),
    }
}

fn day(word: &str, at: Option<Timestamp>) -> String {
    at.map(|at| format!(" {word} {at}")).unwrap_or_default()
}

/// How a digest is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// Hex, in either case.
    Hex,
    /// Base64 with padding.
    Base64,
    /// The alphabet for URLs.
    Base64Url,
    /// Base64 without padding, or with stray bits.
    LooseBase64,
    /// The hex text once more in base64.
    Base64OfHex,
}

impl From<Encoding> for Spelling {
    fn from(encoding: Encoding) -> Spelling {
        match encoding {
            Encoding::Hex => Spelling::Hex,
            Encoding::Base64 => Spelling::Base64,
            Encoding::Base64Url => Spelling::Base64Url,
        }
    }
}

impl Spelling {
    /// Whether signatures of this encoding may be spelt so.
    pub(super) fn is_read_as(self, encoding: Encoding) -> bool {
        match self {
            Spelling::Hex => encoding == Encoding::Hex,
            Spelling::Base64 => encoding == Encoding::Base64,
            Spelling::Base64Url => encoding == Encoding::Base64Url,
            Spelling::LooseBase64 | Spelling::Base64OfHex => false,
        }
    }

    /// The encoding that a definition would name.
    pub(super) fn encoding(self) -> Option<Encoding> {
        match self {
            Spelling::Hex => Some(Encoding::Hex),
            Spelling::Base64 => Some(Encoding::Base64),
            Spelling::Base64Url => Some(Encoding::Base64Url),
            Spelling::LooseBase64 | Spelling::Base64OfHex => None,
        }
    }
}

impl fmt::Display for Spelling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Spelling::Hex => "hex",
            Spelling::Base64 => "base64 with its padding",
            Spelling::Base64Url => "URL-safe base64",
            Spelling::LooseBase64 => "base64 without its padding",
            Spelling::Base64OfHex => "base64 of the hex text",
        })
    }
}

/// How a key is made from a secret's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyReading {
    /// The text, prefix and all.
    Text,
    /// The text after `whsec_`.
    WithoutPrefix,
    /// Decoded from base64, after `whsec_`.
    Base64,
    /// Decoded from hex, after `whsec_`.
    Hex,
    /// Decoded from base64 once too often.
    DecodedTwice,
    /// Decoded from base64 together with `whsec_`.
    Base64WithPrefix,
    /// The text with a line break at its end.
    WithLineBreak,
    /// The text in quotes.
    Quoted,
    /// The base64 of the text.
    EncodedAgain,
    /// The text without the white space around it.
    Trimmed,
}

impl From<SecretForm> for KeyReading {
    fn from(form: SecretForm) -> KeyReading {
        match form {
            SecretForm::Text | SecretForm::PublicKey { .. } => KeyReading::Text,
            SecretForm::Hex => KeyReading::Hex,
            SecretForm::Base64 | SecretForm::Whsec => KeyReading::Base64,
        }
    }
}

impl KeyReading {
    /// The form of a secret that a definition would name for this reading.
    pub(super) fn form(self) -> Option<&'static str> {
        match self {
            KeyReading::Text => Some("text"),
            KeyReading::Base64 => Some("base64"),
            KeyReading::Hex => Some("hex"),
            _ => None,
        }
    }

    /// Says which key was used, and how to fix that.
    fn said(self, expected: SecretForm) -> String {
        let expected = match expected {
            SecretForm::Hex => "this provider's key is what hex decodes to",
            SecretForm::Base64 => "this provider's key is what base64 decodes to",
            SecretForm::PublicKey { .. } => "this provider's key is a public key",
            SecretForm::Text => "this provider's key is the secret's whole text, prefix and all",
            SecretForm::Whsec => "this provider's key is what base64 decodes to after whsec_",
        };
        let (key, advice) = match self {
            KeyReading::Text => ("the secret's text as it stands", expected),
            KeyReading::WithoutPrefix => ("the secret's text without whsec_", expected),
            KeyReading::Base64 => ("the secret, decoded from base64", expected),
            KeyReading::Hex => ("the secret, decoded from hex", expected),
            KeyReading::DecodedTwice => (
                "the configured secret, decoded from base64 once more",
                "it was encoded twice, once more than it was issued. Configure the decoded text (in Kubernetes, data takes base64 \
                 of the secret once, stringData takes it as it is)",
            ),
            KeyReading::Base64WithPrefix => (
                "the secret, decoded from base64 together with whsec_",
                "the sender must take that prefix off before it decodes",
            ),
            KeyReading::Quoted => (
                "the secret in quotes",
                "the sender reads it from a file or a variable that holds quotes, and must take them off",
            ),
            KeyReading::EncodedAgain => (
                "the base64 of the secret",
                "the sender holds it encoded once more than it was issued, and must decode it",
            ),
            KeyReading::WithLineBreak => (
                "the secret with a line break at its end",
                "the sender reads it from a file, and must trim it",
            ),
            KeyReading::Trimmed => (
                "the secret without the white space around it",
                "take that out of the secret configured here",
            ),
        };
        format!("The key was {key}: {advice}.")
    }
}
