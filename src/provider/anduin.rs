//! Reads Anduin's payloads, of the current system and of the legacy one. The legacy one does not sign; fund, event,
//! investor and time identify its events.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::code::{Code, PayloadCode, SignedId};
use super::object::Object;
use super::sample::Sample;
use super::{Entity, EventIdentity, Fields, ParsedPayload, Status, Types, standard_webhooks};
use crate::provider::signature::Signed;

pub(super) const CODE: Code = Code {
    name: "anduin",
    scheme: Some(standard_webhooks::complete),
    standard_webhooks: true,
    payloads: Some(PayloadCode {
        read,
        sample,
        fields: &FIELDS,
        signed_id: Some(SignedId::Message),
        has_subscriptions: false,
    }),
    ..Code::NONE
};

fn read<'a>(payload: &Object<'a>, signed: Option<Signed<'a>>, _: Types) -> ParsedPayload<'a> {
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
