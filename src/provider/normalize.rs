//! Turns an authenticated delivery into an event and the identity that dedupes it.
//!
//! Keeps true: every verified body becomes an event, even if it is no JSON. An id and an identity never depend on
//! headers that the signature does not cover, on the time, or on the order of arrival.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;

use crate::event::attribute::fits_an_id;
use crate::event::{Attributes, BodyHash, Event, Identity, Payload, digest_of_parts};
use crate::provider::signature::{Verified, VerifiedBy};
use crate::provider::{Entity, EventIdentity, Object, ParsedPayload, PayloadError, Provider, canonical_type};

/// The source that a delivery came to.
pub struct DeliveryOrigin<'a> {
    /// The source's configured name.
    pub source: &'a str,
    /// Its path without token.
    pub path: &'a Arc<str>,
    /// Its provider.
    pub provider: &'static Provider,
}

/// A delivery in canonical terms.
pub enum Normalized {
    /// An event to forward.
    Event(Box<NormalizedEvent>),
    /// A health check, which is answered and not forwarded.
    HealthCheck,
}

/// An event, and the facts about it that the gateway needs.
pub struct NormalizedEvent {
    /// The event.
    pub event: Event,
    /// The key by which it is deduped.
    pub identity: Identity,
    /// The raw body's hash.
    pub body: BodyHash,
    /// The provider's type, if its table lacks it.
    pub unmapped: Option<String>,
    /// The scope of its sequence number, and the number.
    pub sequence: Option<(String, u64)>,
    /// Whether its body is no JSON object, and the event holds the bytes instead.
    pub unreadable: bool,
}

/// A body that was read.
pub struct ParsedBody<'a> {
    /// The body's object, or why it is none.
    pub payload: Result<Object<'a>, PayloadError>,
    parsed: ParsedPayload<'a>,
}

/// Reads a body. The pipeline checks the source's filters before it calls [`normalize`].
///
/// # Errors
/// When the body is no JSON object and nothing authenticates its source: only an authentic body is forwarded unread.
pub fn read<'a>(provider: &Provider, verified: &Verified<'a>) -> Result<ParsedBody<'a>, PayloadError> {
    let payload = Object::parse(verified.body());
    let parsed = match &payload {
        Ok(payload) => provider.read(payload, verified.signed()),
        Err(error) if verified.by() == VerifiedBy::Nothing => return Err(*error),
        Err(_) => {
            let identity = provider.unreadable_identity(verified.signed());
            ParsedPayload { identity, ..ParsedPayload::default() }
        }
    };
    Ok(ParsedBody { payload, parsed })
}

/// Makes the event from a body that was read.
pub fn normalize(
    origin: &DeliveryOrigin<'_>,
    verified: &Verified<'_>,
    contents: &ParsedBody<'_>,
    at: Timestamp,
) -> Normalized {
    let parsed = &contents.parsed;
    if parsed.health_check {
        return Normalized::HealthCheck;
    }
    let body = BodyHash::of(verified.body());
    let (id, identity) = identify(origin, &parsed.identity, &body);
    let attributes = Attributes {
        id,
        source: origin.path,
        kind: match contents.payload {
            Ok(_) => canonical_type(origin.provider.types, parsed.kind.as_deref()),
            Err(_) => Cow::Borrowed(UNREADABLE),
        },
        subject: parsed.subject.as_ref().map(pair),
        time: parsed.time.as_deref(),
        recorded: at,
        provider: origin.provider.name,
        sequence: parsed.sequence,
        verified_by: verified.by().as_str(),
        event: parsed.kind.as_deref().filter(|kind| !kind.is_empty()),
        tenant: parsed.tenant.as_ref().map(pair),
        related: parsed.related.iter().map(pair).collect(),
        status: parsed.status.as_ref().map(|status| (status.from.as_deref(), status.to.as_deref())),
        links: &parsed.links,
    };
    let unreadable = contents.payload.is_err();
    let payload = match std::str::from_utf8(verified.body()) {
        Ok(text) if !unreadable => Payload::Object(text),
        _ => Payload::Bytes(verified.body()),
    };
    let event = Event::new(attributes, payload);
    let named = parsed.kind.as_deref().filter(|kind| !kind.is_empty());
    let unmapped = named.filter(|_| event.kind.starts_with("unmapped.")).map(str::to_owned);
    let sequence = parsed.sequence_scope.clone().map(Cow::into_owned).zip(parsed.sequence);
    Normalized::Event(Box::new(NormalizedEvent { event, identity, body, unmapped, sequence, unreadable }))
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
