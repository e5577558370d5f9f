//! What may have become of a body between signing and capture.
//!
//! Keeps true: each alteration is undone in one way, and answers nothing where it cannot have happened.

use hyper::HeaderMap;
use hyper::header::CONTENT_LENGTH;
use serde::de::IgnoredAny;

use super::{Mistake, charset, wrapping};
use crate::secret::percent_decoded;
use crate::signature::rewritten::{Escapes, Numbers, PYTHON, Spacing, Style, Tree};

/// How the body at hand differs from the one that was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alteration {
    /// The empty body was signed.
    SignedEmpty,
    /// A line break was added at its end.
    LineBreakAdded,
    /// The line break at its end was taken away.
    LineBreakRemoved,
    /// White space was added around it.
    Padded,
    /// A byte order mark was added.
    MarkAdded,
    /// The byte order mark was taken away.
    MarkRemoved,
    /// CRLF became LF.
    CrlfToLf,
    /// LF became CRLF.
    LfToCrlf,
    /// It was percent-encoded.
    PercentEncoded,
    /// Its quotes and ampersands became HTML entities.
    HtmlEscaped,
    /// The framing of a chunked transfer was left in.
    Chunked,
    /// It is UTF-8 that was taken for Latin-1 or Windows-1252 and encoded once more.
    Utf8Twice,
    /// UTF-8 that was encoded twice was signed.
    SignedUtf8Twice,
    /// It was signed in one character set and came in another.
    Charset,
    /// It is in base64.
    Base64,
    /// It was signed in base64.
    SignedBase64,
    /// It is in hex.
    Hex,
    /// It is a JSON string that holds it.
    JsonString,
    /// It was signed as a JSON string.
    SignedJsonString,
    /// It stands in quotes.
    Quoted,
    /// It stands in a field of a logged request.
    Enveloped,
    /// Its numbers were written anew.
    Renumbered,
    /// The same JSON, written anew; the style is the signed one.
    Rewritten(Style),
}

impl Alteration {
    /// Every alteration that can have led to this body, the likeliest first.
    pub(super) fn all(body: &[u8]) -> Vec<Alteration> {
        let mut all = vec![
            Alteration::LineBreakAdded,
            Alteration::LineBreakRemoved,
            Alteration::Padded,
            Alteration::MarkAdded,
            Alteration::MarkRemoved,
            Alteration::CrlfToLf,
            Alteration::LfToCrlf,
            Alteration::SignedEmpty,
            Alteration::PercentEncoded,
            Alteration::HtmlEscaped,
            Alteration::Chunked,
            Alteration::Base64,
            Alteration::Utf8Twice,
            Alteration::Charset,
            Alteration::JsonString,
            Alteration::Enveloped,
            Alteration::Quoted,
            Alteration::Hex,
            Alteration::SignedUtf8Twice,
            Alteration::SignedBase64,
            Alteration::SignedJsonString,
        ];
        all.extend(styles(body).map(Alteration::Rewritten));
        all
    }

    /// The bodies that this alteration may have made the one at hand of.
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
                // A form has a field's name before it.
                let field = text.split_once('=').map_or(&*text, |(_, value)| value);
                [&*text, &text.replace('+', " "), field, &field.replace('+', " ")]
                    .map(|text| percent_decoded(text.as_bytes()))
                    .to_vec()
            }
            Alteration::HtmlEscaped => vec![unescaped_html(body)],
            Alteration::Chunked => unchunked(body).into_iter().collect(),
            Alteration::Utf8Twice => of_utf8(charset::undone(body), true),
            Alteration::SignedUtf8Twice => {
                of_utf8(vec![body.to_vec()], true).first().map(|body| charset::done(body)).unwrap_or_default()
            }
            Alteration::Charset => {
                let mut others = of_utf8(charset::undone(body), false);
                if std::str::from_utf8(body).is_err() {
                    others.extend(charset::done(body));
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
            // Too many to be held at once.
            Alteration::Renumbered => Vec::new(),
            Alteration::Rewritten(style) => {
                // Indentation of something deeply nested could grow without end.
                let limit = body.len().saturating_mul(8).saturating_add(SOME_BYTES);
                tree.and_then(|tree| tree.write(style, limit)).map(String::into_bytes).into_iter().collect()
            }
        };
        before.into_iter().filter(|before| before != body).collect()
    }
}

/// What shows without any secret that a body is not the one that was signed.
pub fn spoilt(headers: &HeaderMap, body: &[u8]) -> Vec<Mistake> {
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

/// How a body is wrapped, where the wrapped text is a JSON object and the whole body is not.
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

/// Those that are UTF-8, or those that are not.
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
/// A chunk's size with what may stand after it.
const LONGEST_SIZE: usize = 64;
const MARK: &[u8] = b"\xef\xbb\xbf";
const SOME_BYTES: usize = 4096;
/// A shorter body holds no number that JavaScript would round.
const LONG_NUMBER: usize = 16;
