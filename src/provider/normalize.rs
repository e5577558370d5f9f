//! Turns an authenticated delivery into an event and the identity that dedupes it.
//!
//! Keeps true: every verified body becomes an event, even if it is no JSON. An id and an identity never depend on
//! headers that the signature does not cover, on the time, or on the order of arrival.

use std::borrow::Cow;
use std::sync::Arc;

use hyper::header::CONTENT_TYPE;
use jiff::Timestamp;

use crate::base::trace_context::TraceContext;
use crate::config::definitions::BodyForm;
use crate::event::attribute::fits_an_id;
use crate::event::{Attributes, BodyHash, Event, Identity, Payload, digest_of_parts};
use crate::provider::object::Value;
use crate::provider::signature::{SignedRequest, Verified, VerifiedBy};
use crate::provider::{
    Entity, EventIdentity, Handshake, HandshakeAnswer, Object, ParsedPayload, PayloadError, Provider, form,
};

/// The source that a delivery came to.
pub struct DeliveryOrigin<'a> {
    /// The source's configured name.
    pub source: &'a str,
    /// Its path without token.
    pub path: &'a Arc<str>,
    /// Its provider.
    pub provider: &'static Provider,
    /// The trace of the request that brought it, when tracing is on.
    pub trace: Option<TraceContext>,
}

/// A delivery in canonical terms.
pub enum Normalized {
    /// An event to forward.
    Event(Box<NormalizedEvent>),
    /// The events of a delivery that holds a list of them, in its order. None: it holds an empty list.
    Events(Vec<NormalizedEvent>),
    /// A health check, which is answered and not forwarded.
    HealthCheck,
    /// A validation request, which is answered and not forwarded.
    Handshake(HandshakeAnswer),
}

/// An event, and the facts about it that the gateway needs.
pub struct NormalizedEvent {
    /// The event.
    pub event: Event,
    /// The key by which it is deduped.
    pub identity: Identity,
    /// The hash of the raw body, or of the raw element of a list of events.
    pub body: BodyHash,
    /// Whether the identity is an id that the signature covers.
    pub id_is_signed: bool,
    /// Whether the identity depends on the body's bytes.
    pub identity_needs_body: bool,
    /// The provider's type, if its table lacks it.
    pub unmapped: Option<String>,
    /// The scope of its sequence number, and the number.
    pub sequence: Option<(String, u64)>,
    /// Whether its body is no JSON object, and the event holds the bytes instead.
    pub unreadable: bool,
}

/// A body as JSON.
pub struct Document<'a> {
    raw: &'a [u8],
    /// The JSON object of a form's fields.
    form: Option<String>,
}

impl<'a> Document<'a> {
    /// The body of a verified delivery. A form becomes JSON.
    pub fn of(provider: &Provider, request: &SignedRequest<'a>) -> Document<'a> {
        let is_form = match provider.body {
            BodyForm::Json => false,
            BodyForm::Form => true,
            BodyForm::Auto => {
                let kind = request.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
                let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
                // Nothing signs the type, and a body that is JSON must not become another event by it.
                kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
                    && Object::parse(request.body).is_err()
            }
        };
        Document { raw: request.body, form: is_form.then(|| form::to_json(request.body)).flatten() }
    }

    /// The JSON.
    pub fn json(&self) -> &[u8] {
        self.form.as_ref().map_or(self.raw, String::as_bytes)
    }
}

/// A body that was read.
pub struct ParsedBody<'a> {
    /// The body's object, or why it is none.
    pub payload: Result<Object<'a>, PayloadError>,
    events: ParsedEvents<'a>,
}

#[allow(clippy::large_enum_variant, reason = "a delivery has one of it, on the stack")]
enum ParsedEvents<'a> {
    /// The body is the event. `readable`: it is an object, and the list of events that it should hold is there.
    One { parsed: ParsedPayload<'a>, readable: bool },
    /// The elements of its lists, with what was read of each. None: the element is no object.
    Each(Vec<(&'a str, Option<ParsedPayload<'a>>)>),
    /// A validation request.
    Handshake(HandshakeAnswer),
}

/// Reads a body. The pipeline checks the source's filters before it calls [`normalize`].
///
/// # Errors
/// When the body cannot be read and nothing authenticates its source: only an authentic body is forwarded unread.
pub fn read<'a>(
    provider: &Provider,
    verified: &Verified<'a>,
    request: &SignedRequest<'a>,
    document: &'a Document<'a>,
) -> Result<ParsedBody<'a>, PayloadError> {
    let signed = verified.signed();
    let each = provider.reader.rules().and_then(|rules| rules.each);
    let (payload, elements) = match each {
        None => (Object::parse(document.json()), None),
        Some(each) => {
            let body = Value::parse(document.json());
            let elements = body.ok().and_then(|body| each.elements(body));
            (body.and_then(|body| body.object().ok_or(PayloadError::NotObject)), elements)
        }
    };
    if let (Some(Handshake::Body(handshake)), Ok(body)) = (provider.handshake, &payload)
        && let Some(answer) = handshake.answer(body, request, signed)
    {
        return Ok(ParsedBody { payload, events: ParsedEvents::Handshake(answer) });
    }
    let events = match (&payload, elements) {
        (_, Some(elements)) => {
            let read = |element: Value<'a>| {
                let object = element.object();
                let parsed =
                    object.map(|object| provider.read(&object, payload.as_ref().ok(), request, signed));
                (element.raw(), parsed)
            };
            ParsedEvents::Each(elements.into_iter().map(read).collect())
        }
        (Ok(body), None) if each.is_none() => {
            ParsedEvents::One { parsed: provider.read(body, None, request, signed), readable: true }
        }
        (Err(error), None) if verified.by() == VerifiedBy::Nothing => return Err(*error),
        _ => ParsedEvents::One { parsed: provider.unreadable(request, signed), readable: false },
    };
    Ok(ParsedBody { payload, events })
}

/// Makes the events from a body that was read.
pub fn normalize(
    origin: &DeliveryOrigin<'_>,
    verified: &Verified<'_>,
    document: &Document<'_>,
    contents: &ParsedBody<'_>,
    at: Timestamp,
) -> Normalized {
    let payload_of = |readable: bool| match std::str::from_utf8(document.json()) {
        Ok(text) if readable || contents.payload.is_ok() => {
            let bytes = document.form.is_some().then_some(document.raw);
            Payload::Object { text, bytes }
        }
        _ => Payload::Bytes(document.raw),
    };
    match &contents.events {
        ParsedEvents::One { parsed, .. } if parsed.health_check => Normalized::HealthCheck,
        ParsedEvents::Handshake(answer) => Normalized::Handshake(answer.clone()),
        ParsedEvents::One { parsed, readable } => {
            let (payload, readable) = (payload_of(*readable), *readable);
            let parts = Parts { parsed, raw: document.raw, payload, readable };
            Normalized::Event(Box::new(event(origin, verified, &parts, at)))
        }
        ParsedEvents::Each(elements) => {
            let unreadable = ParsedPayload::default();
            let one = |(raw, parsed): &(&str, Option<ParsedPayload<'_>>)| {
                let payload = match parsed {
                    Some(_) => Payload::Object { text: raw, bytes: None },
                    None => Payload::Bytes(raw.as_bytes()),
                };
                let readable = parsed.is_some();
                let parsed = parsed.as_ref().unwrap_or(&unreadable);
                event(origin, verified, &Parts { parsed, raw: raw.as_bytes(), payload, readable }, at)
            };
            Normalized::Events(elements.iter().map(one).collect())
        }
    }
}

/// What an event is made of.
struct Parts<'a> {
    parsed: &'a ParsedPayload<'a>,
    /// The bytes that identify it: the body, or the element.
    raw: &'a [u8],
    payload: Payload<'a>,
    readable: bool,
}

fn event(
    origin: &DeliveryOrigin<'_>,
    verified: &Verified<'_>,
    &Parts { parsed, raw, payload, readable }: &Parts<'_>,
    at: Timestamp,
) -> NormalizedEvent {
    let body = BodyHash::of(raw);
    let (id, identity) = identify(origin, &parsed.identity, &body);
    let attributes = Attributes {
        id,
        source: origin.path,
        kind: if readable {
            origin.provider.canonical_type(parsed.kind.as_deref())
        } else {
            Cow::Borrowed(UNREADABLE)
        },
        subject: parsed.subject.as_ref().map(pair),
        time: parsed.time.as_deref(),
        recorded: at,
        provider: origin.provider.name,
        sequence: parsed.sequence,
        verified_by: verified.by().as_str(),
        trace: origin.trace,
        event: parsed.kind.as_deref().filter(|kind| !kind.is_empty()),
        tenant: parsed.tenant.as_ref().map(pair),
        related: parsed.related.iter().map(pair).collect(),
        status: parsed.status.as_ref().map(|status| (status.from.as_deref(), status.to.as_deref())),
        links: &parsed.links,
    };
    let event = Event::new(attributes, payload);
    let named = parsed.kind.as_deref().filter(|kind| !kind.is_empty());
    let is_unmapped = origin.provider.types.is_some() && event.kind.starts_with("unmapped.");
    let unmapped = named.filter(|_| is_unmapped).map(str::to_owned);
    let sequence = parsed.sequence_scope.clone().map(Cow::into_owned).zip(parsed.sequence);
    NormalizedEvent {
        event,
        identity,
        body,
        id_is_signed: parsed.id_is_signed,
        identity_needs_body: matches!(
            parsed.identity,
            EventIdentity::Body | EventIdentity::Parts { and_body: true, .. }
        ),
        unmapped,
        sequence,
        unreadable: !readable,
    }
}

fn pair<'a>(entity: &'a Entity<'_>) -> (&'a str, &'a str) {
    (entity.kind.as_ref(), entity.id.as_ref())
}

/// The event's id, and the key under which its source dedupes it.
fn identify(
    origin: &DeliveryOrigin<'_>,
    identity: &EventIdentity<'_>,
    body: &BodyHash,
) -> (String, Identity) {
    let provider = Some(origin.provider.name.as_bytes());
    let (own, digest) = match identity {
        EventIdentity::Own(id) => (Some(id.as_ref()), digest_of_parts([provider, Some(id.as_bytes())])),
        EventIdentity::Body => (None, digest_of_parts([provider, Some(body.hex().as_bytes())])),
        EventIdentity::Parts { parts, and_body } => {
            let hex = body.hex();
            let named = parts.iter().map(|part| part.as_ref().map(|text| text.as_bytes()));
            let body = and_body.then_some(Some(hex.as_bytes()));
            (None, digest_of_parts(std::iter::once(provider).chain(named).chain(body)))
        }
    };
    let id = own.filter(|id| fits_an_id(id)).map_or_else(|| hex::encode(&digest[..16]), str::to_owned);
    let keyed = digest_of_parts([Some(origin.source.as_bytes()), Some(&digest[..])]);
    let mut key = [0; 16];
    key.copy_from_slice(&keyed[..16]);
    (id, Identity(key))
}

/// The type of an event whose body is no JSON object.
const UNREADABLE: &str = "unmapped.unreadable";

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;

    use super::*;
    use crate::provider::catalog;

    #[test]
    fn a_type_that_nothing_signs_makes_no_form_of_json() {
        let slack = catalog::built_in("slack").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "application/x-www-form-urlencoded".parse().unwrap());
        let json = |body: &[u8]| {
            let request = SignedRequest::post(&headers, body);
            String::from_utf8(Document::of(slack, &request).json().to_vec()).unwrap()
        };
        assert_eq!(json(b"{\"event_id\":\"Ev1\"}"), "{\"event_id\":\"Ev1\"}");
        assert_eq!(json(b"command=%2Fx"), "{\"command\":\"/x\"}");
    }
}
