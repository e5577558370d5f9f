//! The normalized event: CloudEvents 1.0 attributes, canonical data, and the provider's raw body.
//!
//! Keeps true: an event is serialised once, as compact JSON with a fixed order of attributes. `data.payload` is the
//! body byte for byte. If the body is not a JSON object, `data.payload_base64` has its bytes instead.

pub mod attribute;
mod head;
mod marks;
pub(crate) mod time;
pub mod type_pattern;

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::base::trace_context::TraceContext;
pub use head::Head;
pub use marks::conflict_id;
pub use time::utc;

/// The JSON Schema (2020-12) that every event validates against.
pub const SCHEMA: &str = include_str!("event/schema.json");

/// SHA-256 of a delivery's raw body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BodyHash(pub [u8; 32]);

impl BodyHash {
    /// Stands for a body whose bytes as delivered are not known: a provider's log may have written it anew. No body
    /// hashes to it.
    pub const UNKNOWN: BodyHash = BodyHash([0; 32]);

    /// Whether both may be of one body: they are the same, or one of them is [`BodyHash::UNKNOWN`].
    pub fn may_be(&self, other: &BodyHash) -> bool {
        self == other || *self == BodyHash::UNKNOWN || *other == BodyHash::UNKNOWN
    }

    /// Hashes a body.
    pub fn of(body: &[u8]) -> BodyHash {
        BodyHash(Sha256::digest(body).into())
    }

    /// 64 lower-case hex digits.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

/// Two deliveries of one source with the same identity are the same event. It is the first 16 bytes of a SHA-256 over
/// the source's name and the identity that its provider defines. It is uniformly distributed, so stores may use it
/// directly as a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Identity(pub [u8; 16]);

/// SHA-256 over parts. Each part follows its length (8 bytes, big-endian), so that different lists of parts never hash
/// the same input. An absent part has the length 2^64-1 and no bytes.
pub fn digest_of_parts<'a>(parts: impl IntoIterator<Item = Option<&'a [u8]>>) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in parts {
        match part {
            Some(bytes) => {
                digest.update((bytes.len() as u64).to_be_bytes());
                digest.update(bytes);
            }
            None => digest.update(u64::MAX.to_be_bytes()),
        }
    }
    digest.finalize().into()
}

/// An event's attributes and data, in the order in which they are written. None is omitted, or written as null where
/// the schema says so.
pub struct Attributes<'a> {
    /// `id`; must satisfy [`attribute::fits_an_id`].
    pub id: String,
    /// `source`.
    pub source: &'a Arc<str>,
    /// `type`.
    pub kind: Cow<'static, str>,
    /// `subject`, and `data.subject`.
    pub subject: Option<(&'a str, &'a str)>,
    /// `time`, already in UTC.
    pub time: Option<&'a str>,
    /// `recordedtime`.
    pub recorded: Timestamp,
    /// `provider`.
    pub provider: &'static str,
    /// `sequence`.
    pub sequence: Option<u64>,
    /// `verifiedby`.
    pub verified_by: &'static str,
    /// `traceparent`.
    pub trace: Option<TraceContext>,
    /// `data.event`.
    pub event: Option<&'a str>,
    /// `data.tenant`.
    pub tenant: Option<(&'a str, &'a str)>,
    /// `data.related`.
    pub related: Vec<(&'a str, &'a str)>,
    /// `data.status`: from, to.
    pub status: Option<(Option<&'a str>, Option<&'a str>)>,
    /// `data.links`.
    pub links: &'a [(Cow<'a, str>, Cow<'a, str>)],
}

/// A provider's body, as stored in `data`.
#[derive(Clone, Copy)]
pub enum Payload<'a> {
    /// Goes to `payload`: the text of a JSON object. `bytes` go to `payload_base64` besides, where the object was made of
    /// a form.
    Object {
        /// The object.
        text: &'a str,
        /// The body that it was made of, if it is not the body itself.
        bytes: Option<&'a [u8]>,
    },
    /// Goes to `payload_base64`, and `payload` is null: a body that is not a JSON object.
    Bytes(&'a [u8]),
}

impl Payload<'_> {
    fn len(self) -> usize {
        let encoded = |bytes: &[u8]| base64::encoded_len(bytes.len(), true).unwrap_or_default();
        match self {
            Payload::Object { text, bytes } => text.len() + bytes.map_or(0, encoded),
            Payload::Bytes(bytes) => encoded(bytes),
        }
    }
}

/// An event ready for the queue.
#[derive(Clone, Debug)]
pub struct Event {
    /// CloudEvents `id`.
    pub id: String,
    /// CloudEvents `source`: the configured path, without the path token.
    pub source: Arc<str>,
    /// CloudEvents `type`: the canonical type.
    pub kind: Cow<'static, str>,
    /// CloudEvents `partitionkey`.
    pub partition_key: String,
    /// The whole event: compact JSON, except for the payload, which is unchanged.
    pub json: String,
    /// The position of the id's closing quote in `json`.
    id_end: usize,
    /// The position of the key `"data"` in `json`.
    data_start: usize,
}

impl Event {
    /// Builds and serialises an event.
    pub fn new(of: Attributes<'_>, payload: Payload<'_>) -> Event {
        let partition_key = match of.subject {
            Some((kind, id)) => attribute::subject(kind, id),
            None => of.id.clone(),
        };
        let mut json = Json(String::with_capacity(payload.len() + of.links.len() * 128 + 768));
        json.raw("{\"specversion\":\"1.0\"");
        json.string("id", &of.id);
        let id_end = json.0.len() - 1;
        json.string("source", of.source);
        json.string("type", &of.kind);
        if of.subject.is_some() {
            json.string("subject", &partition_key);
        }
        if let Some(time) = of.time {
            json.string("time", time);
        }
        json.plain("recordedtime", format_args!("{:.6}", of.recorded));
        json.raw(",\"datacontenttype\":\"application/json\",\"dataschema\":\"urn:hookgate:event:1\"");
        json.string("provider", of.provider);
        json.string("partitionkey", &partition_key);
        if let Some(number) = of.sequence {
            json.plain("sequence", format_args!("{number:020}"));
        }
        json.string("verifiedby", of.verified_by);
        if let Some(trace) = of.trace {
            json.plain("traceparent", format_args!("{trace}"));
        }
        json.raw(",");
        let data_start = json.0.len();
        json.data(&of, payload);
        let Attributes { id, source, kind, .. } = of;
        Event { id, source: source.clone(), kind, partition_key, json: json.0, id_end, data_start }
    }

    /// Rebuilds an event from its stored parts: `id`, `source`, `type`, partition key, text, and [`Event::offsets`].
    /// None if the offsets do not fit the text.
    pub fn restore(
        id: String,
        source: Arc<str>,
        kind: String,
        partition_key: String,
        json: String,
        (id_end, data_start): (usize, usize),
    ) -> Option<Event> {
        let fits = id_end <= data_start
            && json.get(id_end..).is_some_and(|rest| rest.starts_with('"'))
            && json.get(data_start..).is_some_and(|rest| rest.starts_with("\"data\""));
        fits.then_some(Event { id, source, kind: kind.into(), partition_key, json, id_end, data_start })
    }

    /// The positions in `json` of the id's closing quote and of the key `"data"`.
    pub fn offsets(&self) -> (usize, usize) {
        (self.id_end, self.data_start)
    }
}

/// RFC 3339 in UTC with six fraction digits.
pub fn microseconds(at: Timestamp) -> String {
    format!("{at:.6}")
}

/// Builds the JSON text.
struct Json(String);

impl Json {
    fn raw(&mut self, text: &str) {
        self.0.push_str(text);
    }

    fn string(&mut self, name: &str, value: &str) {
        self.raw(",\"");
        self.raw(name);
        self.raw("\":");
        self.quoted(value);
    }

    /// For text that needs no JSON escapes.
    fn plain(&mut self, name: &str, value: fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, ",\"{name}\":\"{value}\"");
    }

    fn quoted(&mut self, text: &str) {
        // Without an early exit the compiler vectorizes this loop, and almost no text needs an escape.
        let special = |found: bool, b: &u8| {
            found | (*b < b' ') | (*b == b'"') | (*b == b'\\') | matches!(*b, 0x7f | 0xc2 | 0xe2)
        };
        if text.as_bytes().iter().fold(false, special) {
            self.escaped(text);
        } else {
            self.raw("\"");
            self.raw(text);
            self.raw("\"");
        }
    }

    /// Escapes more than JSON requires: characters that many programs treat as line breaks (U+0085, U+2028, U+2029),
    /// and terminal controls (U+007F to U+009F). So every reader of lines sees an event as one line.
    fn escaped(&mut self, text: &str) {
        for c in serde_json::Value::from(text).to_string().chars() {
            if matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}') {
                self.raw(&format!("\\u{:04x}", u32::from(c)));
            } else {
                self.0.push(c);
            }
        }
    }

    fn nullable(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.quoted(text),
            None => self.raw("null"),
        }
    }

    fn entity(&mut self, (kind, id): (&str, &str)) {
        self.raw("{\"kind\":");
        self.quoted(kind);
        self.string("id", id);
        self.raw("}");
    }

    fn maybe_entity(&mut self, entity: Option<(&str, &str)>) {
        match entity {
            Some(entity) => self.entity(entity),
            None => self.raw("null"),
        }
    }

    fn data(&mut self, of: &Attributes<'_>, payload: Payload<'_>) {
        self.raw("\"data\":{\"event\":");
        self.nullable(of.event);
        self.raw(",\"tenant\":");
        self.maybe_entity(of.tenant);
        self.raw(",\"subject\":");
        self.maybe_entity(of.subject);
        self.raw(",\"related\":[");
        for (at, entity) in of.related.iter().enumerate() {
            self.raw(if at == 0 { "" } else { "," });
            self.entity(*entity);
        }
        self.raw("],\"status\":");
        match of.status {
            Some((from, to)) => {
                self.raw("{\"from\":");
                self.nullable(from);
                self.raw(",\"to\":");
                self.nullable(to);
                self.raw("}");
            }
            None => self.raw("null"),
        }
        self.raw(",\"links\":{");
        for (at, (name, url)) in of.links.iter().enumerate() {
            self.raw(if at == 0 { "" } else { "," });
            self.quoted(name);
            self.raw(":");
            self.quoted(url);
        }
        self.raw("},\"payload\":");
        let bytes = match payload {
            Payload::Object { text, bytes } => {
                self.raw(text);
                bytes
            }
            Payload::Bytes(bytes) => {
                self.raw("null");
                Some(bytes)
            }
        };
        if let Some(bytes) = bytes {
            self.raw(",\"payload_base64\":\"");
            STANDARD.encode_string(bytes, &mut self.0);
            self.raw("\"");
        }
        self.raw("}}");
    }
}

#[cfg(test)]
impl Event {
    /// A small event, for tests.
    pub(crate) fn for_test(id: &str) -> Event {
        Event::with_payload(id, "{}")
    }

    /// An event with this payload, for tests.
    pub(crate) fn with_payload(id: &str, payload: &str) -> Event {
        Event::of_trace(id, payload, None)
    }

    /// The same, of a traced request.
    pub(crate) fn of_trace(id: &str, payload: &str, trace: Option<TraceContext>) -> Event {
        let source: Arc<str> = "/hooks/test".into();
        let of = Attributes {
            id: id.to_owned(),
            source: &source,
            kind: "kyc.verified".into(),
            subject: None,
            time: None,
            recorded: Timestamp::UNIX_EPOCH,
            provider: "basiq",
            sequence: None,
            verified_by: "standard-webhooks",
            trace,
            event: Some("user.created"),
            tenant: None,
            related: vec![],
            status: None,
            links: &[],
        };
        Event::new(of, Payload::Object { text: payload, bytes: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_stays_on_one_line_for_every_reader_of_lines() {
        for odd in ["\u{85}", "\u{2028}", "\u{2029}", "\u{7f}", "\u{9b}", "\n", "\u{b}", "\u{c}", "\u{1c}"] {
            let text = format!("é{odd}“");
            let mut json = Json(String::new());
            json.quoted(&text);
            assert!(!json.0.contains(odd), "{odd:?}: {}", json.0);
            assert_eq!(serde_json::from_str::<String>(&json.0).unwrap(), text);
        }
    }

    #[test]
    fn parts_cannot_be_shifted_into_one_another() {
        let digest = |parts: &[Option<&str>]| digest_of_parts(parts.iter().map(|p| p.map(str::as_bytes)));
        assert_ne!(digest(&[Some("ab"), Some("c")]), digest(&[Some("a"), Some("bc")]));
        assert_ne!(digest(&[None]), digest(&[Some("")]));
    }
}
