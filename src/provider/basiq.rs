//! Reads Basiq's payloads: one small envelope, in which a link names the entity.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::code::{Code, PayloadCode, SignedId};
use super::object::Object;
use super::sample::Sample;
use super::{Entity, EventIdentity, Fields, ParsedPayload, Types, standard_webhooks};
use crate::provider::signature::Signed;

pub(super) const CODE: Code = Code {
    name: "basiq",
    needs_secrets: true,
    scheme: Some(standard_webhooks::complete),
    standard_webhooks: true,
    payloads: Some(PayloadCode {
        read,
        sample,
        fields: &FIELDS,
        signed_id: Some(SignedId::Payload),
        has_subscriptions: false,
    }),
    ..Code::NONE
};

fn read<'a>(payload: &Object<'a>, _: Option<Signed<'a>>, _: Types) -> ParsedPayload<'a> {
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
