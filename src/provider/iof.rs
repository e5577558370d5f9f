//! Reads IOF's payloads. Its public sources disagree on the envelope, so every field is read under each of its published
//! names.

use serde_json::{Value, json};

use super::code::{Code, PayloadCode, SignedId};
use super::object::Object;
use super::sample::Sample;
use super::{Entity, EventIdentity, Fields, ParsedPayload, Status, Types, UNMAPPED, plain_letters};
use crate::provider::signature::{Scheme, Signed, Version};

pub(super) const CODE: Code = Code {
    name: "iof",
    needs_secrets: true,
    scheme: Some(with_sha256),
    payloads: Some(PayloadCode {
        read,
        sample,
        fields: &FIELDS,
        signed_id: Some(SignedId::Payload),
        has_subscriptions: false,
    }),
    ..Code::NONE
};

/// The published form `sha256=…` has its timestamp in a header of its own.
fn with_sha256(v1: Scheme) -> Scheme {
    const VERSIONS: &[Version] =
        &[Version::plain("v1"), Version { timestamp: Some("x-iof-timestamp"), ..Version::plain("sha256") }];
    Scheme { versions: VERSIONS, ..v1 }
}

fn read<'a>(payload: &Object<'a>, _: Option<Signed<'a>>, types: Types) -> ParsedPayload<'a> {
    let kind = payload.string("type").or_else(|| payload.string("event_type"));
    let (data, metadata) = (payload.object("data"), payload.object("metadata"));
    let object = data.as_ref().and_then(|data| data.object("object"));
    let in_data = |key: &str| data.as_ref()?.text(key);
    let in_metadata = |key: &str| metadata.as_ref()?.text(key);
    let own = object.as_ref().and_then(|object| object.text("id")).filter(|id| !id.is_empty());
    let id = own.or_else(|| in_data("contractId"));
    let category = || category(kind.as_deref().unwrap_or_default(), types).into();
    let subject = id.filter(|id| !id.is_empty()).map(|id| Entity { kind: category(), id });
    let named = [
        Entity::some("workspace", in_metadata("workspaceId")),
        Entity::some("customer", in_data("customerId")),
        Entity::some("contract", in_data("contractId")),
    ];
    let status = object
        .as_ref()
        .and_then(|object| object.string("status"))
        .or_else(|| data.as_ref()?.string("status"));
    ParsedPayload {
        identity: EventIdentity::own(payload.text("id")),
        time: TIMES.iter().find_map(|key| payload.time(key)),
        tenant: Entity::some("tenant", in_metadata("tenantId")),
        related: super::other_entities(named.into_iter().flatten(), [subject.as_ref(), None]),
        subject,
        status: Status::now(status),
        links: payload.links(),
        kind,
        ..ParsedPayload::default()
    }
}

/// The kind of an event's subject, by the event's type. A type that the table lacks has the kind of the listed types
/// with the same first segment, so that the events of one subject keep their order when the provider adds a type.
fn category(kind: &str, types: Types) -> String {
    let known = types.iter().find(|(known, _)| *known == kind);
    let first = |kind: &'_ str| kind.split('.').next().unwrap_or_default().to_owned();
    let alike = known.or_else(|| types.iter().find(|(known, _)| first(known) == first(kind)));
    let category = match alike {
        Some((_, canonical)) => first(canonical),
        None => plain_letters(&first(kind)),
    };
    // Without a type the kind is `unmapped`, as in the event's canonical type.
    if category.is_empty() { UNMAPPED.to_owned() } else { category }
}

fn sample(of: &Sample<'_>) -> Value {
    json!({
        "id": format!("evt_{}", of.short()), "type": of.kind, "created": of.time,
        "data": { "object": { "id": format!("contract_{}", of.short()), "type": "MURABAHA", "status": "draft" } },
        "metadata": { "workspaceId": "ws_sample", "tenantId": "tenant_sample" },
    })
}

const TIMES: [&str; 4] = ["created", "timestamp", "created_at", "createdAt"];

// IOF publishes the fields of `data` for contracts only.
static FIELDS: Fields = Fields {
    top: &[
        "created",
        "createdAt",
        "created_at",
        "data",
        "event_type",
        "id",
        "livemode",
        "metadata",
        "timestamp",
        "type",
        "version",
    ],
    within: &[
        (
            "data",
            &[
                "contractId",
                "contractType",
                "createdAt",
                "createdBy",
                "currency",
                "customerId",
                "object",
                "principalAmount",
                "shariahCompliant",
                "startDate",
                "status",
                "tenantId",
            ],
        ),
        ("metadata", &["tenantId", "workspaceId"]),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::catalog::built_in;

    #[test]
    fn a_new_type_has_the_subject_kind_of_the_types_with_its_first_segment() {
        let types = built_in("iof").unwrap().types.unwrap();
        for (kind, expected) in [
            ("contract.created", "contract"),
            ("contract.suspended", "contract"),
            ("contract", "contract"),
            ("billing.invoice.voided", "invoice"),
            ("billing.credit_note.created", "invoice"),
            ("sukuk.issued", "sukuk"),
            ("Sukuk-Fund.issued", "sukuk_fund"),
            ("sukuk", "sukuk"),
            ("", "unmapped"),
            (".created", "unmapped"),
        ] {
            assert_eq!(category(kind, types), expected, "{kind}");
        }
    }

    #[test]
    fn types_of_one_first_segment_are_about_one_kind() {
        let types = built_in("iof").unwrap().types.unwrap();
        for (kind, canonical) in types {
            let first = kind.split('.').next().unwrap();
            assert_eq!(
                category(&format!("{first}.new"), types),
                canonical.split('.').next().unwrap(),
                "{kind}"
            );
        }
    }
}
