//! Basiq: open-banking events in one small envelope. A link names the entity.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::definition::Code;
use super::object::Object;
use super::sample::Sample;
use super::{
    Entity, EventIdentity, Fields, Origin, ParsedPayload, Provider, Reader, SignedId, Signing,
    standard_webhooks,
};
use crate::config::definitions::BodyForm;
use crate::provider::signature::Signed;

pub(super) static PROVIDER: Provider = Provider {
    name: "basiq",
    origin: Origin::BuiltIn,
    signing: Signing::Always(&[standard_webhooks::SCHEME]),
    retries_for: Some(standard_webhooks::RETRIES_FOR),
    handshake: None,
    signed_id: Some(SignedId::Payload),
    types: Some(&TYPES),
    fields: Some(&FIELDS),
    body: BodyForm::Json,
    reader: Reader::Code { read, sample },
    code: Code::NONE,
    has_subscriptions: false,
};

fn read<'a>(payload: &Object<'a>, _signed: Option<Signed<'a>>) -> ParsedPayload<'a> {
    let links = payload.object("links");
    let mut entities = match links.as_ref().and_then(|links| links.string("eventEntity")) {
        Some(Cow::Borrowed(url)) => entities(url),
        Some(Cow::Owned(url)) => entities(&url).into_iter().map(Entity::into_owned).collect(),
        None => Vec::new(),
    };
    let subject = entities.pop();
    // Basiq's documents have only `eventTypeId`, but a public receiver of its events reads `event`.
    let kind = |key| payload.string(key).filter(|kind| !kind.is_empty());
    ParsedPayload {
        kind: kind("eventTypeId").or_else(|| kind("event")),
        identity: EventIdentity::own(payload.text("eventId")),
        related: super::other_entities(entities.into_iter(), [subject.as_ref(), None]),
        subject,
        links: links.map(|links| links.strings()).unwrap_or_default(),
        ..ParsedPayload::default()
    }
}

/// Every `<plural>/<id>` of a URL's path: `…/users/1e25/transactions?…` names the user 1e25.
fn entities(url: &str) -> Vec<Entity<'_>> {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let path =
        path.split_once("://").map_or(path, |(_, rest)| rest.split_once('/').map_or("", |(_, path)| path));
    let mut segments = path.split('/').filter(|segment| !segment.is_empty()).peekable();
    let mut found = Vec::new();
    while let Some(segment) = segments.next() {
        if let (Some(kind), Some(id)) = (singular(segment), segments.peek()) {
            found.push(Entity { kind, id: Cow::Borrowed(id) });
            segments.next();
        }
    }
    found
}

fn singular(plural: &str) -> Option<Cow<'_, str>> {
    if !plural.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-' || b == b'_') {
        return None;
    }
    let kind = match plural.strip_suffix("ies") {
        Some(stem) => Cow::Owned(format!("{stem}y")),
        None => Cow::Borrowed(plural.strip_suffix('s')?),
    };
    (!kind.is_empty()).then_some(kind)
}

fn sample(of: &Sample<'_>) -> Value {
    let id = of.uuid();
    json!({
        "eventTypeId": of.kind, "eventId": id,
        "links": {
            "event": format!("https://au-api.basiq.io/events/{id}"),
            "eventEntity": format!("https://au-api.basiq.io/users/{}", of.uuid()),
        },
    })
}

const TYPES: [(&str, &str); 15] = [
    ("account.updated", "account.updated"),
    ("connection.created", "connection.created"),
    ("connection.activated", "connection.activated"),
    ("connection.deleted", "connection.deleted"),
    ("connection.invalidated", "connection.invalidated"),
    ("consent.created", "consent.created"),
    ("consent.updated", "consent.updated"),
    ("consent.revoked", "consent.revoked"),
    ("consent.expired", "consent.expired"),
    ("consent.reminder", "consent.reminder"),
    ("consent.warning", "consent.warning"),
    ("transactions.updated", "transactions.updated"),
    ("user.created", "user.created"),
    ("user.updated", "user.updated"),
    ("user.deleted", "user.deleted"),
];

static FIELDS: Fields = Fields {
    top: &["event", "eventId", "eventTypeId", "links"],
    within: &[("links", &["event", "eventEntity"])],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_pair_of_the_path_is_the_subject() {
        let last = |url| entities(url).pop().map(|e| format!("{}/{}", e.kind, e.id));
        assert_eq!(last("https://au-api.basiq.io/users/1e25").as_deref(), Some("user/1e25"));
        assert_eq!(
            last("https://x/users/U/transactions?filter=connection.id.eq('a/b')").as_deref(),
            Some("user/U")
        );
        assert_eq!(last("https://x/v3/users/U/identities/I").as_deref(), Some("identity/I"));
        assert_eq!(last("/users/U").as_deref(), Some("user/U"));
        assert_eq!(last("https://users/1").as_deref(), None);
        assert_eq!(last("/users/U/pay-links/P").as_deref(), Some("pay-link/P"));
        assert_eq!(last("/users/U/pay_links/P").as_deref(), Some("pay_link/P"));
        assert_eq!(last("/users/U/v3s/P").as_deref(), Some("user/U"));
        assert_eq!(last(""), None);
    }
}
