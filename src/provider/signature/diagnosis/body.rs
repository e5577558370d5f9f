//! The changes that a body may go through between signing and capture.
//!
//! Keeps true: undoing an alteration gives no body if the alteration cannot have happened.

use std::fmt;

use hyper::HeaderMap;
use hyper::header::CONTENT_LENGTH;
use serde::de::IgnoredAny;

use super::{Mistake, charset, wrapping};
use crate::config::secret::percent_decoded;
use crate::provider::signature::rewritten::{Escapes, Numbers, PYTHON, Spacing, Style, Tree};

/// Makes [`Alteration`] of its rows: the alteration, its label, and what to do. The likeliest come first.
macro_rules! alterations {
    ($($alteration:ident = $label:literal, $text:literal;)+) => {
        /// How the body at hand differs from the one that was signed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Alteration {
            $(#[doc = $text] $alteration,)+
            /// The same JSON, serialised again. The style is that of the signed body.
            Rewritten(Style),
        }

        impl Alteration {
            const PLAIN: &[Alteration] = &[$(Alteration::$alteration),+];

            pub(super) fn label(self) -> &'static str {
                match self {
                    $(Alteration::$alteration => $label,)+
                    Alteration::Rewritten(_) => "body_reserialised",
                }
            }
        }

        impl fmt::Display for Alteration {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Alteration::$alteration => f.write_str($text),)+
                    Alteration::Rewritten(style) => write!(
                        f,
                        "The body is the same JSON as the signed one, but not its bytes; signed was {style}. Sign the bytes \
                         that are sent, and let nothing on the way parse and re-serialise the body."
                    ),
                }
            }
        }
    };
}

alterations! {
    LineBreakAdded = "body_trailing_newline",
        "A line break was added at the end of the body after signing: send the signed bytes (an editor or `echo` adds one; curl \
         needs --data-binary).";
    LineBreakRemoved = "body_trailing_newline",
        "The body was signed with a line break at its end, which is gone: send the signed bytes (`$(…)` and `curl -d` strip it; \
         use --data-binary).";
    Padded = "body_white_space",
        "White space was added around the body after signing: send the signed bytes.";
    MarkAdded = "body_byte_order_mark",
        "A byte order mark was put before the body after signing: save and send it without.";
    MarkRemoved = "body_byte_order_mark",
        "The body was signed with a byte order mark, which is gone: sign and send it without.";
    CrlfToLf = "body_line_breaks",
        "The body was signed with CRLF line breaks and came with LF: send the signed bytes, in binary mode (curl needs \
         --data-binary).";
    LfToCrlf = "body_line_breaks",
        "The body was signed with LF line breaks and came with CRLF: send the signed bytes, in binary mode.";
    SignedEmpty = "signed_without_body",
        "The empty body was signed: sign after the body is there (a framework's parser may have consumed it).";
    PercentEncoded = "body_percent_encoded",
        "The body was percent-encoded after signing, as a form is: send the signed bytes as application/json.";
    HtmlEscaped = "body_html_escaped",
        "The body's quotes became HTML entities after signing: send the signed bytes.";
    Chunked = "body_chunked",
        "The framing of a chunked transfer is left in the body (the length of each part in hex): capture or forward the body \
         without it.";
    Base64 = "body_base64",
        "The body is captured in base64 (as AWS API Gateway and many log tools show it): decode it before you verify it, and \
         forward the decoded bytes.";
    Utf8Twice = "body_utf8_twice",
        "The body is UTF-8 that was taken for Latin-1 or Windows-1252 and encoded as UTF-8 a second time after signing (ë became \
         Ã«): forward and capture bytes, and let nothing on the way decode them.";
    Charset = "body_charset",
        "The body was signed in one character set and came in another (UTF-8, Latin-1, Windows-1252 or UTF-16): sign, send and \
         capture the same bytes, in UTF-8.";
    JsonString = "body_json_string",
        "The body is captured as a JSON string, with quotes escaped: take the text that the string holds.";
    Enveloped = "body_in_envelope",
        "The capture is a logged request, and the signed body is a field of it: give --body that field's content alone, decoded \
         where it is base64.";
    Quoted = "body_quoted",
        "The body stands in quotes, as a shell shows it: capture it without them.";
    Hex = "body_hex",
        "The body is captured in hex: decode it before you verify it.";
    SignedUtf8Twice = "body_utf8_twice",
        "The signed body was encoded as UTF-8 twice (Ã« for ë), and it came encoded once: the sender must sign the UTF-8 bytes \
         that it sends.";
    SignedBase64 = "body_base64",
        "The base64 of the body was signed, and the body itself came: sign the bytes that are sent.";
    SignedJsonString = "body_json_string",
        "The body was signed as a JSON string (serialised twice), and it came serialised once: sign the bytes that are sent.";
    Renumbered = "body_numbers",
        "Numbers in the body are written otherwise than in the signed one (10 for 10.0, or 1.5 for 1.50), as a parser and \
         serialiser on the way leaves them: sign the bytes that are sent, and let nothing on the way parse the body.";
}

impl Alteration {
    /// Every alteration that can have led to this body, the likeliest first.
    pub(super) fn all(body: &[u8]) -> impl Iterator<Item = Alteration> + use<> {
        Alteration::PLAIN.iter().copied().chain(styles(body).map(Alteration::Rewritten))
    }

    /// The bodies that this alteration may have turned into this one.
    pub(super) fn undone(self, body: &[u8], tree: Option<&Tree<'_>>) -> Vec<Vec<u8>> {
        let with_end = |end: &[u8]| [body, end].concat();
        let before = match self {
            Alteration::SignedEmpty => vec![Vec::new()],
            Alteration::LineBreakAdded => {
                let without_lf = body.strip_suffix(b"\n").unwrap_or(body);
                let without_crlf = without_lf.strip_suffix(b"\r").unwrap_or(without_lf);
                vec![without_lf.to_vec(), without_crlf.to_vec()]
            }
            Alteration::LineBreakRemoved => vec![with_end(b"\n"), with_end(b"\r\n")],
            Alteration::Padded => vec![body.trim_ascii().to_vec()],
            Alteration::MarkAdded => vec![body.strip_prefix(MARK).unwrap_or(body).to_vec()],
            Alteration::MarkRemoved => vec![[MARK, body].concat()],
            Alteration::CrlfToLf => vec![to_crlf(body)],
            Alteration::LfToCrlf => vec![to_lf(body)],
            Alteration::PercentEncoded => {
                let text = String::from_utf8_lossy(body);
                // A form has a field's name before the value.
                let field = text.split_once('=').map_or(&*text, |(_, value)| value);
                [&*text, &text.replace('+', " "), field, &field.replace('+', " ")]
                    .map(|text| percent_decoded(text.as_bytes()))
                    .to_vec()
            }
            Alteration::HtmlEscaped => vec![unescaped_html(body)],
            Alteration::Chunked => unchunked(body).into_iter().collect(),
            Alteration::Utf8Twice => of_utf8(charset::undo_encoding(body), true),
            Alteration::SignedUtf8Twice => of_utf8(vec![body.to_vec()], true)
                .first()
                .map(|body| charset::encode_again(body))
                .unwrap_or_default(),
            Alteration::Charset => {
                let mut others = of_utf8(charset::undo_encoding(body), false);
                if std::str::from_utf8(body).is_err() {
                    others.extend(charset::encode_again(body));
                }
                others.extend(charset::from_utf16(body));
                others
            }
            Alteration::Base64 => wrapping::from_base64(body).into_iter().collect(),
            Alteration::SignedBase64 => vec![wrapping::to_base64(body)],
            Alteration::Hex => wrapping::from_hex(body).into_iter().collect(),
            Alteration::JsonString => wrapping::from_string(body),
            Alteration::SignedJsonString => wrapping::to_string(body).into_iter().collect(),
            Alteration::Quoted => wrapping::from_quotes(body).into_iter().collect(),
            Alteration::Enveloped => wrapping::from_envelope(body),
            // There are too many to hold at once: `Search` makes them one at a time.
            Alteration::Renumbered => Vec::new(),
            Alteration::Rewritten(style) => {
                // The indentation of deeply nested JSON could fill the memory.
                let limit = body.len().saturating_mul(8).saturating_add(SOME_BYTES);
                tree.and_then(|tree| tree.write(style, limit)).map(String::into_bytes).into_iter().collect()
            }
        };
        before.into_iter().filter(|before| before != body).collect()
    }
}

/// Defects that show, without any secret, that a body is not the signed one.
pub fn body_defects(headers: &HeaderMap, body: &[u8]) -> Vec<Mistake> {
    if body.is_empty() {
        return vec![Mistake::BodyEmpty];
    }
    if unchunked(body).is_some() {
        return vec![Mistake::Altered(Alteration::Chunked)];
    }
    if let Some(alteration) = wrapped(body) {
        return vec![Mistake::Altered(alteration)];
    }
    let there = body.len() as u64;
    let told = headers.get(CONTENT_LENGTH).and_then(|told| told.to_str().ok()?.parse::<u64>().ok());
    let mut found = Vec::new();
    if let Some(told) = told.filter(|told| *told != there) {
        found.push(Mistake::BodyLength { told, there });
    }
    if body.starts_with(GZIP) {
        found.push(Mistake::BodyCompressed);
    } else if found.is_empty() && serde_json::from_slice::<IgnoredAny>(body).is_err() {
        found.push(Mistake::BodyNotJson);
    }
    found
}

/// The wrapping of a body, if the wrapped text is a JSON object and the whole body is not.
fn wrapped(body: &[u8]) -> Option<Alteration> {
    let is_object = |body: &[u8]| {
        body.trim_ascii_start().starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(body).is_ok()
    };
    if is_object(body) {
        return None;
    }
    [Alteration::Base64, Alteration::JsonString, Alteration::Quoted, Alteration::Hex]
        .into_iter()
        .find(|alteration| alteration.undone(body, None).iter().any(|within| is_object(within)))
}

/// Keeps the bodies that are UTF-8, or with `false` those that are not.
fn of_utf8(bodies: Vec<Vec<u8>>, is_utf8: bool) -> Vec<Vec<u8>> {
    bodies.into_iter().filter(|body| std::str::from_utf8(body).is_ok() == is_utf8).collect()
}

/// The content of a chunked body: each part after its length in hex, the last of length 0.
fn unchunked(body: &[u8]) -> Option<Vec<u8>> {
    let (mut content, mut rest) = (Vec::new(), body);
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n").filter(|end| *end < LONGEST_SIZE)?;
        let (size, after) = (rest.get(..end)?, rest.get(end + 2..)?);
        let size = size.split(|byte| *byte == b';').next()?.trim_ascii();
        let size = usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        if size == 0 {
            return Some(content);
        }
        let part = after.get(..size)?;
        content.extend_from_slice(part);
        rest = after.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

/// The styles that can make a difference for this body, the usual ones first.
fn styles(body: &[u8]) -> impl Iterator<Item = Style> + use<> {
    let has = |wanted: &[u8]| body.iter().any(|byte| wanted.contains(byte));
    let escapes = [
        (Escapes::Plain, true),
        (Escapes::Ascii, !body.is_ascii() || has(b"\\")),
        (Escapes::SlashAscii, has(b"/")),
        (Escapes::Slash, has(b"/")),
        (Escapes::Html, has(b"<>&\\")),
    ];
    let numbers = [
        (Numbers::AsWritten, true),
        (Numbers::Python, has(b".-+")),
        (Numbers::Javascript, has(b".-+eE") || body.len() > LONG_NUMBER),
    ];
    let spacings = [Spacing::Compact, Spacing::Python, Spacing::Pretty(2), Spacing::Pretty(4)];
    let escapes: Vec<Escapes> =
        escapes.into_iter().filter(|(_, differs)| *differs).map(|(kind, _)| kind).collect();
    let numbers: Vec<Numbers> =
        numbers.into_iter().filter(|(_, differs)| *differs).map(|(kind, _)| kind).collect();
    let mut styles = vec![PYTHON];
    for sorted in [false, true] {
        for &numbers in &numbers {
            for &escapes in &escapes {
                styles.extend(spacings.map(|spacing| Style { spacing, sorted, escapes, numbers }));
            }
        }
    }
    styles.into_iter()
}

fn to_lf(body: &[u8]) -> Vec<u8> {
    let mut bytes = body.to_vec();
    let mut after = body.iter().skip(1);
    bytes.retain(|byte| {
        let next = after.next();
        *byte != b'\r' || next != Some(&b'\n')
    });
    bytes
}

fn to_crlf(body: &[u8]) -> Vec<u8> {
    to_lf(body)
        .into_iter()
        .flat_map(|byte| [Some(b'\r').filter(|_| byte == b'\n'), Some(byte)])
        .flatten()
        .collect()
}

fn unescaped_html(body: &[u8]) -> Vec<u8> {
    let entities =
        [("&quot;", "\""), ("&#34;", "\""), ("&#39;", "'"), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")];
    let mut text = String::from_utf8_lossy(body).into_owned();
    for (entity, plain) in entities {
        text = text.replace(entity, plain);
    }
    text.into_bytes()
}

const GZIP: &[u8] = b"\x1f\x8b";
/// A chunk's size and its extensions.
const LONGEST_SIZE: usize = 64;
const MARK: &[u8] = b"\xef\xbb\xbf";
const SOME_BYTES: usize = 4096;
/// A shorter body holds no number that JavaScript would round.
const LONG_NUMBER: usize = 16;
