//! IOF (Islamic Open Finance): contracts, KYC, compliance, billing. Its public sources disagree on the envelope, so
//! every field is read under each of its published names.

use std::time::Duration;

use serde_json::{Value, json};

use super::definition::Code;
use super::object::Object;
use super::sample::Sample;
use super::{
    Entity, EventIdentity, Fields, Origin, ParsedPayload, Provider, Reader, SignedId, Signing, Status,
    UNMAPPED, plain_letters,
};
use crate::config::definitions::BodyForm;
use crate::provider::signature::{
    Algorithm, Carrier, Encoding, Format, Part, Scheme, SecretForm, Signed, TimeUnit, VerifiedBy, Version,
};

pub(super) static PROVIDER: Provider = Provider {
    name: "iof",
    origin: Origin::BuiltIn,
    signing: Signing::Always(&[SCHEME]),
    retries_for: Some(Duration::from_secs(60 + 300 + 1800 + 7200)),
    handshake: None,
    signed_id: Some(SignedId::Payload),
    types: Some(&TYPES),
    fields: Some(&FIELDS),
    body: BodyForm::Json,
    reader: Reader::Code { read, sample },
    code: Code::NONE,
    has_subscriptions: false,
};

const SCHEME: Scheme = Scheme {
    algorithm: Algorithm::HmacSha256,
    carriers: &[Carrier { header: "x-iof-signature", timestamp: None, id: None }],
    format: Format::Pairs { separator: ",", timestamp: "t" },
    versions: &[
        Version::plain("v1"),
        Version { timestamp: Some("x-iof-timestamp"), old: false, ..Version::plain("sha256") },
    ],
    unit: TimeUnit::Seconds,
    signed: &[Part::Timestamp, Part::Text("."), Part::Body],
    encoding: Encoding::Hex,
    padded: false,
    secret: SecretForm::Text,
    verified_by: VerifiedBy::Signature(Algorithm::HmacSha256),
    renamed: None,
    accept_old: false,
    secret_in_body: None,
    time_in_body: None,
};

fn read<'a>(payload: &Object<'a>, _signed: Option<Signed<'a>>) -> ParsedPayload<'a> {
    let kind = payload.string("type").or_else(|| payload.string("event_type"));
    let (data, metadata) = (payload.object("data"), payload.object("metadata"));
    let object = data.as_ref().and_then(|data| data.object("object"));
    let in_data = |key: &str| data.as_ref()?.text(key);
    let in_metadata = |key: &str| metadata.as_ref()?.text(key);
    let own = object.as_ref().and_then(|object| object.text("id")).filter(|id| !id.is_empty());
    let id = own.or_else(|| in_data("contractId"));
    let category = || category(kind.as_deref().unwrap_or_default()).into();
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
fn category(kind: &str) -> String {
    let known = TYPES.iter().find(|(known, _)| *known == kind);
    let first = |kind: &'_ str| kind.split('.').next().unwrap_or_default().to_owned();
    let alike = known.or_else(|| TYPES.iter().find(|(known, _)| first(known) == first(kind)));
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

const TYPES: [(&str, &str); 45] = [
    ("contract.created", "contract.created"),
    ("contract.updated", "contract.updated"),
    ("contract.activated", "contract.activated"),
    ("contract.matured", "contract.matured"),
    ("contract.closed", "contract.closed"),
    ("contract.executed", "contract.executed"),
    ("contract.approved", "contract.approved"),
    ("contract.rejected", "contract.rejected"),
    ("contract.terminated", "contract.terminated"),
    ("contract.renewed", "contract.renewed"),
    ("contract.defaulted", "contract.defaulted"),
    ("contract.completed", "contract.completed"),
    ("contract.cancelled", "contract.cancelled"),
    ("contract.payment.received", "contract.payment_received"),
    ("payment.received", "payment.received"),
    ("payment.failed", "payment.failed"),
    ("kyc.submitted", "kyc.submitted"),
    ("kyc.verified", "kyc.verified"),
    ("kyc.approved", "kyc.verified"),
    ("kyc.rejected", "kyc.rejected"),
    ("kyc.expired", "kyc.expired"),
    ("kyc.verification.started", "kyc.started"),
    ("kyc.verification.completed", "kyc.completed"),
    ("kyc.verification.failed", "kyc.rejected"),
    ("kyc.verification.expired", "kyc.expired"),
    ("kyc.document.uploaded", "kyc.document_uploaded"),
    ("kyc.document.verified", "kyc.document_verified"),
    ("kyc.document.rejected", "kyc.document_rejected"),
    ("kyc.document.expired", "kyc.document_expired"),
    ("kyc.screening.started", "kyc.screening_started"),
    ("kyc.screening.completed", "kyc.screening_completed"),
    ("kyc.screening.match_found", "kyc.screening_match_found"),
    ("kyc.screening.cleared", "kyc.screening_cleared"),
    ("kyc.risk.score_updated", "kyc.risk_score_updated"),
    ("kyc.risk.level_changed", "kyc.risk_level_changed"),
    ("compliance.check.completed", "compliance.check_completed"),
    ("compliance.alert.triggered", "compliance.alert_triggered"),
    ("compliance.alert", "compliance.alert_triggered"),
    ("compliance.review.required", "compliance.review_required"),
    ("billing.invoice.created", "invoice.created"),
    ("billing.invoice.paid", "invoice.paid"),
    ("card.authorization.approved", "card.authorization_approved"),
    ("shariah.breach.detected", "shariah.breach_detected"),
    ("shariah.approved", "shariah.approved"),
    ("shariah.rejected", "shariah.rejected"),
];

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

    #[test]
    fn a_new_type_has_the_subject_kind_of_the_types_with_its_first_segment() {
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
            assert_eq!(category(kind), expected, "{kind}");
        }
    }

    #[test]
    fn types_of_one_first_segment_are_about_one_kind() {
        for (kind, canonical) in TYPES {
            let first = kind.split('.').next().unwrap();
            assert_eq!(category(&format!("{first}.new")), canonical.split('.').next().unwrap(), "{kind}");
        }
    }
}
