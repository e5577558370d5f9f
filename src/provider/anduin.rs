//! Anduin: fund subscriptions. The current system signs (Standard Webhooks). The legacy one does not; fund, event,
//! investor and time identify its events.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::definition::Code;
use super::object::Object;
use super::sample::Sample;
use super::{
    Entity, EventIdentity, Fields, Handshake, Origin, ParsedPayload, Provider, Reader, SignedId, Signing,
    Status, standard_webhooks,
};
use crate::config::definitions::BodyForm;
use crate::provider::signature::Signed;

pub(super) static PROVIDER: Provider = Provider {
    name: "anduin",
    origin: Origin::BuiltIn,
    signing: Signing::Sometimes(&[standard_webhooks::SCHEME]),
    retries_for: Some(standard_webhooks::RETRIES_FOR),
    handshake: Some(&Handshake::Header("x-anduin-webhook-validation-key")),
    signed_id: Some(SignedId::Message),
    types: Some(&TYPES),
    fields: Some(&FIELDS),
    body: BodyForm::Json,
    reader: Reader::Code { read, sample },
    code: Code::NONE,
    has_subscriptions: false,
};

fn read<'a>(payload: &Object<'a>, signed: Option<Signed<'a>>) -> ParsedPayload<'a> {
    let subject = subject(payload);
    ParsedPayload {
        kind: payload.string("event"),
        identity: signed.and_then(EventIdentity::message).unwrap_or_else(|| legacy_identity(payload)),
        time: payload.time("createdAt"),
        tenant: Entity::some("fund", payload.text("fundId")),
        related: related(payload, subject.as_ref()),
        subject,
        status: status(payload),
        links: payload.links(),
        ..ParsedPayload::default()
    }
}

fn legacy_identity<'a>(payload: &Object<'a>) -> EventIdentity<'a> {
    let parts = ["fundId", "event", "lpId", "createdAt"].map(|key| payload.text(key));
    if parts.iter().all(Option::is_some) {
        EventIdentity::Parts { parts: parts.into(), and_body: false }
    } else {
        EventIdentity::Body
    }
}

fn subject<'a>(payload: &Object<'a>) -> Option<Entity<'a>> {
    Entity::some("order", payload.text("orderId"))
        .or_else(|| Entity::some("investor", payload.text("lpId")))
        .or_else(|| Entity::some("close", nested_id(payload, "close")))
        .or_else(|| Entity::some("close", nested_id(payload, "newClose")))
        .or_else(|| Entity::some("entity", payload.text("id")))
}

fn nested_id<'a>(payload: &Object<'a>, key: &str) -> Option<Cow<'a, str>> {
    payload.object(key)?.text("id")
}

fn related<'a>(payload: &Object<'a>, subject: Option<&Entity<'a>>) -> Vec<Entity<'a>> {
    let plain = |kind, key| Entity::some(kind, payload.text(key));
    let close = |key| Entity::some("close", nested_id(payload, key));
    let single = [
        plain("close", "oldCloseId"),
        plain("close", "newCloseId"),
        close("close"),
        close("previousClose"),
        close("oldClose"),
        close("newClose"),
        plain("form_submission", "formSubmissionId"),
        plain("firm", "firmId"),
    ];
    let files = payload.array("fileIds").into_iter().map(|id| id.text());
    let described = payload.array("files").into_iter().map(|file| file.object()?.text("fileId"));
    let files = files.chain(described).map(|id| Entity::some("file", id));
    super::other_entities(single.into_iter().chain(files).flatten(), [subject, None])
}

fn status<'a>(payload: &Object<'a>) -> Option<Status<'a>> {
    let from = payload.string("oldStatus").or_else(|| payload.string("previousStatus"));
    let to = payload.string("newStatus");
    (from.is_some() || to.is_some()).then_some(Status { from, to })
}

fn sample(of: &Sample<'_>) -> Value {
    let fund = format!("txn{}.fsb{}", of.short(), of.short());
    if of.kind.starts_with("fund") {
        json!({
            "event": of.kind, "createdAt": of.time, "fundId": fund, "orderId": format!("{fund}.lpp{}", of.short()),
            "oldStatus": "FORM_REVIEWED", "newStatus": "SUBMITTED",
        })
    } else {
        json!({
            "fundId": fund, "event": of.kind, "lpId": of.short(),
            "previousStatus": "FORM_REVIEWED", "newStatus": "SUBMITTED", "createdAt": of.time,
        })
    }
}

const TYPES: [(&str, &str); 25] = [
    ("new_investor_added", "investor.added"),
    ("subscription_status_changed", "subscription.status_changed"),
    ("subscription_close_changed", "subscription.close_changed"),
    ("subscription_tags_changed", "subscription.tags_changed"),
    ("documents_uploaded", "document.uploaded"),
    ("fundsub.order.created", "investor.added"),
    ("fundsub.order.status.updated", "subscription.status_changed"),
    ("fundsub.order.close.updated", "subscription.close_changed"),
    ("fundsub.order.tag.updated", "subscription.tags_changed"),
    ("fundsub.order.document.uploaded", "document.uploaded"),
    ("fundsub.order.supporting_doc.review_status.updated", "document.review_status_changed"),
    ("fundsub.order.supporting_form.status.updated", "form.status_changed"),
    ("fundsub.close.created", "close.created"),
    ("fundsub.close.updated", "close.updated"),
    ("fundsub.close.deleted", "close.deleted"),
    ("funddata.investment_entity.created", "investment_entity.created"),
    ("funddata.investment_entity.updated", "investment_entity.updated"),
    ("funddata.investment_entity.deleted", "investment_entity.deleted"),
    ("funddata.investment_entity.profile.updated", "investment_entity.profile_updated"),
    ("funddata.investment_entity.profile.conflict", "investment_entity.profile_conflicted"),
    ("funddata.investment.created", "investment.created"),
    ("funddata.investment.updated", "investment.updated"),
    ("funddata.investment.deleted", "investment.deleted"),
    ("funddata.order.investment_entity.linked", "order.investment_entity_linked"),
    ("funddata.order.investment_entity.unlinked", "order.investment_entity_unlinked"),
];

const CLOSE: &[&str] = &["customId", "id", "isDefault", "name", "targetDate"];

// The fields of both systems. Metadata is free-form, and Anduin's documents spell it `medatada`.
static FIELDS: Fields = Fields {
    top: &[
        "close",
        "contacts",
        "createdAt",
        "customId",
        "docGroup",
        "docName",
        "docType",
        "documentType",
        "event",
        "fileIds",
        "files",
        "firmId",
        "formName",
        "formSubmissionId",
        "fundId",
        "id",
        "lpId",
        "medatada",
        "metadata",
        "newClose",
        "newCloseId",
        "newStatus",
        "newTagIds",
        "oldClose",
        "oldCloseId",
        "oldStatus",
        "oldTagIds",
        "orderId",
        "previousClose",
        "previousStatus",
        "previousTags",
        "submissionMethod",
        "subscriptionDocVersion",
        "supportingDocInfo",
        "tags",
        "trackingId",
    ],
    within: &[
        ("close", CLOSE),
        ("newClose", CLOSE),
        ("oldClose", CLOSE),
        ("previousClose", CLOSE),
        ("supportingDocInfo", &["docGroup", "docName"]),
    ],
};
