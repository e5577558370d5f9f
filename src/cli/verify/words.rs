//! The mistakes in words: a label for machines, and what to do about it.
//!
//! Keeps true: every mistake has both; a text names headers, sources and places in the config, never a secret or a digest.

use jiff::Timestamp;

use crate::signature::diagnosis::{
    Alteration, Escapes, Form, Mistake, Numbers, Reading, Spacing, Spelling, Style,
};

/// One word a kind of mistake.
pub(super) fn label(mistake: &Mistake) -> &'static str {
    match mistake {
        Mistake::HeaderMissing(_) => "header_missing",
        Mistake::HeaderMisnamed { .. } => "header_misnamed",
        Mistake::HeaderRepeated(_) => "header_repeated",
        Mistake::HeaderNotAscii(_) => "header_not_ascii",
        Mistake::HeaderEmpty(_) => "header_empty",
        Mistake::NoDigest { .. } => "no_digest",
        Mistake::UnknownVersion { .. } => "unknown_version",
        Mistake::TimestampMissing { .. } => "timestamp_missing",
        Mistake::TimestampNotUnix => "timestamp_not_unix",
        Mistake::TimestampTooFine => "timestamp_in_milliseconds",
        Mistake::Stale { .. } => "timestamp_stale",
        Mistake::Ahead { .. } => "timestamp_ahead",
        Mistake::SecretOf(_) => "secret_of_another_source",
        Mistake::SecretNotCurrent { .. } => "secret_not_current",
        Mistake::Keyed(_) => "secret_read_otherwise",
        Mistake::SignedOver(_) => "other_string_signed",
        Mistake::Altered(Alteration::Rewritten(_)) => "body_reserialised",
        Mistake::Altered(Alteration::LineBreakAdded | Alteration::LineBreakRemoved) => {
            "body_trailing_newline"
        }
        Mistake::Altered(Alteration::CrlfToLf | Alteration::LfToCrlf) => "body_line_breaks",
        Mistake::Altered(Alteration::Padded) => "body_white_space",
        Mistake::Altered(Alteration::MarkAdded | Alteration::MarkRemoved) => "body_byte_order_mark",
        Mistake::Altered(Alteration::PercentEncoded) => "body_percent_encoded",
        Mistake::Altered(Alteration::HtmlEscaped) => "body_html_escaped",
        Mistake::Altered(Alteration::SignedEmpty) => "signed_without_body",
        Mistake::Altered(Alteration::Chunked) => "body_chunked",
        Mistake::Altered(Alteration::Utf8Twice | Alteration::SignedUtf8Twice) => "body_utf8_twice",
        Mistake::Altered(Alteration::Charset) => "body_charset",
        Mistake::Altered(Alteration::Base64 | Alteration::SignedBase64) => "body_base64",
        Mistake::Altered(Alteration::Hex) => "body_hex",
        Mistake::Altered(Alteration::JsonString | Alteration::SignedJsonString) => "body_json_string",
        Mistake::Altered(Alteration::Quoted) => "body_quoted",
        Mistake::Altered(Alteration::Enveloped) => "body_in_envelope",
        Mistake::Altered(Alteration::Renumbered) => "body_numbers",
        Mistake::BodyEmpty => "body_empty",
        Mistake::BodyLength { .. } => "body_length",
        Mistake::BodyCompressed => "body_compressed",
        Mistake::BodyNotJson => "body_not_json",
        Mistake::Spelt { .. } => "digest_encoding",
        Mistake::Versioned { .. } => "signature_version",
        Mistake::OldVersion => "old_version_only",
        Mistake::Unexplained => "unexplained",
    }
}

/// What to do.
pub(super) fn fix(mistake: &Mistake) -> String {
    match mistake {
        Mistake::HeaderMissing(name) => {
            format!("The header {name} is not there: send it, and let no proxy strip it.")
        }
        Mistake::HeaderMisnamed { found, due } => {
            let found: String = found.chars().take(MAX_NAME).collect();
            format!("The header {found} is there instead of {due}: send it as {due}.")
        }
        Mistake::HeaderRepeated(name) => {
            format!("The header {name} is there more than once, so that nobody can say which one was signed: send it once.")
        }
        Mistake::HeaderNotAscii(name) => format!("The header {name} holds bytes outside ASCII: send plain ASCII."),
        Mistake::HeaderEmpty(name) => format!("The header {name} is empty: send its value."),
        Mistake::NoDigest { header, bytes } => {
            let what = match bytes {
                0 => "neither hex nor base64".to_owned(),
                20 => "20 bytes, as SHA-1 makes them".to_owned(),
                48 => "48 bytes, as SHA-384 makes them".to_owned(),
                64 => "64 bytes, as SHA-512 makes them".to_owned(),
                _ => format!("{bytes} bytes"),
            };
            format!("What {header} holds is {what}: send a whole HMAC-SHA256, which has 32 bytes.")
        }
        Mistake::UnknownVersion { header, known } => {
            format!("No signature in {header} stands under a known version: put it under one of {}.", known.iter().map(|version| version.label).collect::<Vec<_>>().join(", "))
        }
        Mistake::TimestampMissing { header, key } => format!("{header} holds no timestamp: send {key}=UNIX in it."),
        Mistake::TimestampNotUnix => {
            "The timestamp is not a whole number: send unix seconds, digits only.".to_owned()
        }
        Mistake::TimestampTooFine => {
            "The timestamp is in milliseconds or finer: send and sign unix seconds.".to_owned()
        }
        Mistake::Stale { age, tolerance } => format!(
            "It was signed {age} s before it arrived, and {tolerance} s are tolerated: sign anew for each attempt, \
             and compare both clocks."
        ),
        Mistake::Ahead { by, tolerance } => format!(
            "It was signed {by} s after it arrived, and {tolerance} s are tolerated: one of the two clocks is wrong; \
             set both by NTP."
        ),
        Mistake::SecretOf(source) => format!(
            "It is signed with a secret of the source {source}: send it to that source's path, or configure its secret here."
        ),
        Mistake::SecretNotCurrent { slot, not_before, not_after } => {
            let (from, until) = (day("from", *not_before), day("until", *not_after));
            format!("Secret {slot} of the source's list matches, but counts only{from}{until}: change its dates, or sign with a current one.")
        }
        Mistake::Keyed(reading) => keyed(*reading).to_owned(),
        Mistake::SignedOver(form) => format!(
            "The secret is right, but another string was signed: {}.",
            match form {
                Form::Due => "the right one".to_owned(),
                Form::BodyAlone => "the body alone; sign the timestamp (and id) before it too".to_owned(),
                Form::WithoutTimestamp => "the id and the body; sign the timestamp between them too".to_owned(),
                Form::WithoutId => "the timestamp and the body; sign the id before them too".to_owned(),
                Form::Separated("") => "its parts with nothing between them; put a dot there".to_owned(),
                Form::Separated(between) => format!("its parts with {between:?} between them; put a dot there"),
                Form::OtherOrder => "its parts in another order; the order is id, timestamp, body".to_owned(),
                Form::Milliseconds => "the timestamp in milliseconds; sign the seconds that the header holds".to_owned(),
                Form::Seconds => "the timestamp in seconds; send seconds in the header too".to_owned(),
                Form::Versioned => "a version before it, as in v0:timestamp:body; sign timestamp.body".to_owned(),
            }
        ),
        Mistake::Altered(alteration) => altered(*alteration),
        Mistake::BodyEmpty => {
            "The captured body is empty: capture it whole, and look whether a proxy or a redirect drops it.".to_owned()
        }
        Mistake::BodyLength { told, there } => format!(
            "Content-Length says {told} bytes and the body has {there}: the capture, or a proxy, cut or changed it. \
             Capture it again, byte for byte; until then nothing can be said of the secret."
        ),
        Mistake::BodyCompressed => {
            "The body is compressed (gzip): capture it as it was signed, and switch compression off on the way.".to_owned()
        }
        Mistake::BodyNotJson => {
            "The body is no JSON, which every provider sends: the capture, or something on the way, cut or changed it. \
             Capture it again, byte for byte."
                .to_owned()
        }
        Mistake::Spelt { found, due } => format!(
            "The signature is written in {}, where {} is due: write it so.",
            spelling(*found),
            spelling(*due)
        ),
        Mistake::Versioned { header, due } => {
            format!("The signature is right, but does not stand under its version: write it as {due}… in {header}.")
        }
        Mistake::OldVersion => {
            "Only the old v1 signature is there, and it is right: have the provider send v2, or set accept_v1 = true on the source.".to_owned()
        }
        Mistake::Unexplained => {
            "Either it was signed with a secret that is not in this config (rotated, or of another endpoint), or the body \
             is not byte for byte what was signed; a signature does not tell which. If other deliveries of this source \
             pass, it is the body: look what changes it on the way, and capture headers and body raw, of one and the same \
             delivery. If none does, it is the secret: copy it from the provider again."
                .to_owned()
        }
    }
}

fn keyed(reading: Reading) -> &'static str {
    match reading {
        Reading::Text => {
            "The key was the secret's text as it stands: the key is what base64 decodes to after whsec_."
        }
        Reading::WithoutPrefix => {
            "The key was the secret's text without whsec_: use the secret as this scheme says (Standard Webhooks: \
             base64-decoded; Atelio and IOF: the whole text, prefix and all)."
        }
        Reading::Base64 => {
            "The key was base64-decoded: this provider's key is the secret's whole text, prefix and all."
        }
        Reading::Hex => {
            "The key was decoded from hex: use the secret as this scheme says (Standard Webhooks: base64; Atelio and IOF: the text)."
        }
        Reading::DecodedTwice => {
            "The key was what the configured secret decodes to once more from base64: it was encoded twice, once more than it \
             was issued. Configure the decoded text (in Kubernetes, data takes base64 of the secret once, stringData takes it \
             as it is)."
        }
        Reading::Base64WithPrefix => {
            "The key was base64-decoded together with whsec_: the sender must take that prefix off before it decodes."
        }
        Reading::Quoted => {
            "The key was the secret in quotes: the sender reads it from a file or a variable that holds quotes, and must take \
             them off."
        }
        Reading::EncodedAgain => {
            "The key was the base64 of the secret: the sender holds it encoded once more than it was issued, and must decode it."
        }
        Reading::WithLineBreak => {
            "The key was the secret with a line break at its end: the sender reads it from a file, and must trim it."
        }
        Reading::Trimmed => {
            "The key was the secret without the white space around it: take that out of the secret configured here."
        }
    }
}

fn altered(alteration: Alteration) -> String {
    let what = match alteration {
        Alteration::Rewritten(style) => {
            return format!(
                "The body is the same JSON as the signed one, but not its bytes; signed was {}. Sign the bytes that are \
                 sent, and let nothing on the way parse and re-serialise the body.",
                style_of(style)
            );
        }
        Alteration::LineBreakAdded => {
            "A line break was added at the end of the body after signing: send the signed bytes (an editor or `echo` adds one; curl needs --data-binary)."
        }
        Alteration::LineBreakRemoved => {
            "The body was signed with a line break at its end, which is gone: send the signed bytes (`$(…)` and `curl -d` strip it; use --data-binary)."
        }
        Alteration::Padded => "White space was added around the body after signing: send the signed bytes.",
        Alteration::MarkAdded => {
            "A byte order mark was put before the body after signing: save and send it without."
        }
        Alteration::MarkRemoved => {
            "The body was signed with a byte order mark, which is gone: sign and send it without."
        }
        Alteration::CrlfToLf => {
            "The body was signed with CRLF line breaks and came with LF: send the signed bytes, in binary mode (curl needs --data-binary)."
        }
        Alteration::LfToCrlf => {
            "The body was signed with LF line breaks and came with CRLF: send the signed bytes, in binary mode."
        }
        Alteration::SignedEmpty => {
            "The empty body was signed: sign after the body is there (a framework's parser may have consumed it)."
        }
        Alteration::PercentEncoded => {
            "The body was percent-encoded after signing, as a form is: send the signed bytes as application/json."
        }
        Alteration::Chunked => {
            "The framing of a chunked transfer is left in the body (the length of each part in hex): capture or forward the body without it."
        }
        Alteration::Utf8Twice => {
            "The body is UTF-8 that was taken for Latin-1 or Windows-1252 and encoded as UTF-8 a second time after signing \
             (ë became Ã«): forward and capture bytes, and let nothing on the way decode them."
        }
        Alteration::SignedUtf8Twice => {
            "Signed was the body encoded as UTF-8 twice (Ã« for ë), and it came encoded once: the sender must sign the UTF-8 \
             bytes that it sends."
        }
        Alteration::Charset => {
            "The body was signed in one character set and came in another (UTF-8, Latin-1, Windows-1252 or UTF-16): sign, \
             send and capture the same bytes, in UTF-8."
        }
        Alteration::Base64 => {
            "The body is captured in base64 (as AWS API Gateway and many log tools show it): decode it before you verify it, \
             and forward the decoded bytes."
        }
        Alteration::SignedBase64 => {
            "The base64 of the body was signed, and the body itself came: sign the bytes that are sent."
        }
        Alteration::Hex => "The body is captured in hex: decode it before you verify it.",
        Alteration::JsonString => {
            "The body is captured as a JSON string, with quotes escaped: take the text that the string holds."
        }
        Alteration::SignedJsonString => {
            "Signed was the body as a JSON string (serialised twice), and it came serialised once: sign the bytes that are sent."
        }
        Alteration::Quoted => "The body stands in quotes, as a shell shows it: capture it without them.",
        Alteration::Enveloped => {
            "The capture is a logged request, and the signed body is a field of it: give --body that field's content alone, \
             decoded where it is base64."
        }
        Alteration::Renumbered => {
            "Numbers in the body are written otherwise than in the signed one (such as 10 for 10.0, or 1.5 for 1.50), as a \
             parser and serialiser on the way leaves them: sign the bytes that are sent, and let nothing on the way parse the \
             body."
        }
        Alteration::HtmlEscaped => {
            "The body's quotes became HTML entities after signing: send the signed bytes."
        }
    };
    what.to_owned()
}

fn style_of(style: Style) -> String {
    let mut parts = vec![match style.spacing {
        Spacing::Compact => "the compact form".to_owned(),
        Spacing::Python => "the form with a space after commas and colons (Python's json.dumps)".to_owned(),
        Spacing::Pretty(indent) => format!("the form indented by {indent} spaces"),
    }];
    if style.sorted {
        parts.push("keys sorted".to_owned());
    }
    parts.extend(
        match style.escapes {
            Escapes::Plain => None,
            Escapes::Ascii => Some("non-ASCII as \\uXXXX"),
            Escapes::Html => Some("<, > and & as \\uXXXX (Go)"),
            Escapes::Slash => Some("slashes escaped"),
            Escapes::SlashAscii => Some("slashes escaped and non-ASCII as \\uXXXX (PHP)"),
        }
        .map(str::to_owned),
    );
    parts.extend(
        match style.numbers {
            Numbers::AsWritten => None,
            Numbers::Python => Some("numbers as Python writes them"),
            Numbers::Javascript => Some("numbers as JavaScript writes them"),
        }
        .map(str::to_owned),
    );
    parts.join(", ")
}

fn spelling(spelling: Spelling) -> &'static str {
    match spelling {
        Spelling::Hex => "hex",
        Spelling::Base64 => "base64 with its padding",
        Spelling::Base64Url => "URL-safe base64",
        Spelling::LooseBase64 => "base64 without its padding",
        Spelling::Base64OfHex => "base64 of the hex text",
    }
}

fn day(word: &str, at: Option<Timestamp>) -> String {
    at.map(|at| format!(" {word} {at}")).unwrap_or_default()
}

/// A header's name has no bound of its own in a file.
const MAX_NAME: usize = 64;
