//! Reads Atelio's payloads. Events have no id, and some no time, so the ids in the body identify them.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::code::{Code, PayloadCode};
use super::object::Object;
use super::sample::Sample;
use super::{Entity, EventIdentity, Fields, ParsedPayload, Status, Types};
use crate::provider::signature::{Scheme, Signed, Version};

pub(super) const CODE: Code = Code {
    name: "atelio",
    needs_secrets: true,
    scheme: Some(with_v1),
    payloads: Some(PayloadCode { read, sample, fields: &FIELDS, signed_id: None, has_subscriptions: false }),
    ..Code::NONE
};

/// The old v1 signs the body as Python writes it. The headers were renamed with the company.
fn with_v1(v2: Scheme) -> Scheme {
    const VERSIONS: &[Version] = &[Version { old: true, ..Version::plain("v1") }, Version::plain("v2")];
    Scheme { versions: VERSIONS, renamed: Some(("bond-", "atelio-")), ..v2 }
}

fn read<'a>(payload: &Object<'a>, _: Option<Signed<'a>>, _: Types) -> ParsedPayload<'a> {
    let ids = Ids::of(payload);
    let (subject, tenant) = (subject(payload), Entity::some("business", payload.text("business_id")));
    let times = ["occurred_at", "sent_time"];
    // The text tells events apart, even if it is no valid time.
    let told = times.iter().find_map(|key| payload.text(key));
    ParsedPayload {
        kind: payload.string("event"),
        related: super::other_entities(ids.entities(), [subject.as_ref(), tenant.as_ref()]),
        identity: ids.identity(payload.text("event"), told),
        time: times.iter().find_map(|key| payload.time(key)),
        tenant,
        subject,
        status: Status::now(status(payload)),
        links: payload.links(),
        ..ParsedPayload::default()
    }
}

/// Every `*_id` string at the top level and one level down, by its key path.
struct Ids<'a>(Vec<(String, Cow<'a, str>)>);

impl<'a> Ids<'a> {
    fn of(payload: &Object<'a>) -> Ids<'a> {
        let mut ids = Vec::new();
        for (key, value) in payload.members() {
            if key.ends_with("_id") {
                ids.extend(value.string().map(|id| (key.to_string(), id)));
            }
            for (inner, value) in value.object().iter().flat_map(Object::members) {
                if inner.ends_with("_id") {
                    ids.extend(value.string().map(|id| (format!("{key}.{inner}"), id)));
                }
            }
        }
        Ids(ids)
    }

    fn entities(&self) -> impl Iterator<Item = Entity<'a>> {
        self.0.iter().filter_map(|(path, id)| {
            let key = path.rsplit('.').next()?;
            let kind = key.strip_suffix("_id").filter(|kind| !kind.is_empty())?;
            (!id.is_empty()).then(|| Entity { kind: Cow::Owned(kind.to_owned()), id: id.clone() })
        })
    }

    fn identity(mut self, event: Option<Cow<'a, str>>, time: Option<Cow<'a, str>>) -> EventIdentity<'a> {
        self.0.sort_by(|(a, _), (b, _)| a.cmp(b));
        let and_body = time.is_none();
        let parts = [event, time].into_iter().chain(self.0.into_iter().map(|(_, id)| Some(id))).collect();
        EventIdentity::Parts { parts, and_body }
    }
}

fn subject<'a>(payload: &Object<'a>) -> Option<Entity<'a>> {
    let nested = |object: &str, key: &str| payload.object(object)?.text(key);
    Entity::some("customer", payload.text("customer_id"))
        .or_else(|| Entity::some("customer", payload.text("beneficial_owner_id")))
        .or_else(|| Entity::some("customer", nested("details", "customer_id")))
        .or_else(|| Entity::some("card", nested("card", "card_id")))
        .or_else(|| Entity::some("transaction", nested("transaction", "transaction_id")))
        .or_else(|| Entity::some("account", payload.text("account_id")))
        .or_else(|| Entity::some("business", payload.text("business_id")))
}

fn status<'a>(payload: &Object<'a>) -> Option<Cow<'a, str>> {
    payload
        .string("status")
        .or_else(|| payload.object("card")?.string("status"))
        .or_else(|| payload.object("transaction")?.string("state"))
        .or_else(|| payload.object("details")?.object("data")?.string("application_status"))
}

fn sample(of: &Sample<'_>) -> Value {
    json!({ "event": of.kind, "customer_id": of.uuid(), "occurred_at": of.time })
}

static FIELDS: Fields = Fields {
    top: &[
        "account_id",
        "amount_in_cents",
        "amount_overdue",
        "beneficial_owner_id",
        "business_id",
        "card",
        "card_account_id",
        "created_by",
        "customer_id",
        "description",
        "details",
        "documents",
        "error_code",
        "event",
        "fields",
        "identity",
        "inquiry_id",
        "key_name",
        "occurred_at",
        "person_id",
        "reasons",
        "sent_time",
        "statement_end_date",
        "statement_start_date",
        "status",
        "transaction",
        "transaction_id",
        "verification",
    ],
    within: &[
        ("card", &["card_account_id", "card_id", "customer_id", "last_four", "status"]),
        (
            "details",
            &[
                "account_id",
                "account_status_update",
                "action_type",
                "addresses",
                "bond_brand_id",
                "brand_person_id",
                "business_id",
                "credit",
                "customer_id",
                "data",
                "date_created",
                "deposit",
                "dob",
                "email",
                "end_date",
                "error_code",
                "error_message",
                "fees",
                "first_name",
                "i2c_comment_status_update",
                "kyc_requests_available",
                "last_name",
                "middle_name",
                "num_rows",
                "operation_id",
                "order_by",
                "payment_type",
                "persona_account_status_update",
                "phone",
                "phone_country_code",
                "report_type",
                "requested_by",
                "resource",
                "source",
                "ssn",
                "start_date",
                "statement_end_date",
                "statement_id",
                "statement_month",
                "statement_start_date",
                "transaction_id",
                "transaction_state",
                "transaction_type",
                "transactions",
                "type",
            ],
        ),
        ("reasons", &["bureau", "email", "ip", "mobile", "ofac"]),
        (
            "transaction",
            &[
                "account_id",
                "amount",
                "balances",
                "bond_brand_id",
                "business_id",
                "created_time",
                "currency",
                "customer_id",
                "description",
                "details",
                "fee",
                "payment_type",
                "previous_transaction_id",
                "state",
                "transaction_id",
                "transaction_type",
                "updated_time",
            ],
        ),
    ],
};
