//! Atelio (formerly Bond): cards, accounts, KYC. Events have no id, and some no time, so the ids in the body identify
//! them.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::{Value, json};

use super::definition::Code;
use super::object::Object;
use super::sample::Sample;
use super::{Entity, EventIdentity, Fields, Origin, ParsedPayload, Provider, Reader, Signing, Status};
use crate::config::definitions::BodyForm;
use crate::provider::signature::{
    Algorithm, Carrier, Encoding, Format, Part, Scheme, SecretForm, Signed, TimeUnit, VerifiedBy, Version,
};

pub(super) static PROVIDER: Provider = Provider {
    name: "atelio",
    origin: Origin::BuiltIn,
    signing: Signing::Always(&[SCHEME]),
    retries_for: Some(Duration::from_secs(3 * 24 * 3600)),
    handshake: None,
    signed_id: None,
    types: Some(&TYPES),
    fields: Some(&FIELDS),
    body: BodyForm::Json,
    reader: Reader::Code { read, sample },
    code: Code::NONE,
    has_subscriptions: false,
};

const SCHEME: Scheme = Scheme {
    algorithm: Algorithm::HmacSha256,
    carriers: &[Carrier { header: "bond-signature", timestamp: None, id: None }],
    format: Format::Pairs { separator: ",", timestamp: "t" },
    versions: &[Version { timestamp: None, old: true, ..Version::plain("v1") }, Version::plain("v2")],
    unit: TimeUnit::Seconds,
    signed: &[Part::Timestamp, Part::Text("."), Part::Body],
    encoding: Encoding::Hex,
    padded: false,
    secret: SecretForm::Text,
    verified_by: VerifiedBy::Signature(Algorithm::HmacSha256),
    renamed: Some(("bond-", "atelio-")),
    accept_old: false,
    secret_in_body: None,
    time_in_body: None,
};

fn read<'a>(payload: &Object<'a>, _signed: Option<Signed<'a>>) -> ParsedPayload<'a> {
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

const TYPES: [(&str, &str); 62] = [
    ("account.autopay.changed", "account.autopay_changed"),
    ("account.autopay.failed", "account.autopay_failed"),
    ("account.autopay.processed", "account.autopay_processed"),
    ("account.autopay.scheduled", "account.autopay_scheduled"),
    ("account.history.ready", "account.history_ready"),
    ("account.statements.generated", "account.statement_generated"),
    ("account.statements.late_payment", "account.statement_late_payment"),
    ("account.statements.ready", "account.statement_ready"),
    ("account.statement.ready", "account.statement_ready"),
    ("card.created", "card.created"),
    ("card.status.active", "card.activated"),
    ("card.status.closed", "card.closed"),
    ("card.status.inactive", "card.deactivated"),
    ("card.status.reissue", "card.reissued"),
    ("card.status.fraud", "card.flagged_fraud"),
    ("card.status.lost", "card.lost"),
    ("card.status.stolen", "card.stolen"),
    ("card.status.no_withdrawals", "card.withdrawals_blocked"),
    ("card.wallet.add", "card.wallet_added"),
    ("card.wallet.add_failure", "card.wallet_add_failed"),
    ("commercial.credit_application.created", "commercial_credit.application_created"),
    ("commercial.credit_application.submitted", "commercial_credit.application_submitted"),
    ("commercial.credit_application.under_review", "commercial_credit.application_under_review"),
    ("commercial.credit_application.approved", "commercial_credit.application_approved"),
    ("commercial.credit_application.denied", "commercial_credit.application_denied"),
    ("commercial.credit_application.resubmit_required", "commercial_credit.application_resubmit_required"),
    ("commercial.credit_application.pending", "commercial_credit.application_pending"),
    ("credit.application.created", "credit.application_created"),
    ("credit.application.submitted", "credit.application_submitted"),
    ("credit.application.approved", "credit.application_approved"),
    ("credit.application.resubmit_required", "credit.application_resubmit_required"),
    ("credit.application.adverse_action", "credit.application_adverse_action"),
    ("customer.updated", "customer.updated"),
    ("develop.api_key.created", "api_key.created"),
    ("fraud_operations.freeze.initiated", "fraud.freeze_initiated"),
    ("fraud_operations.freeze.success", "fraud.freeze_succeeded"),
    ("fraud_operations.freeze.failed", "fraud.freeze_failed"),
    ("fraud_operations.unfreeze.initiated", "fraud.unfreeze_initiated"),
    ("fraud_operations.unfreeze.success", "fraud.unfreeze_succeeded"),
    ("fraud_operations.unfreeze.failed", "fraud.unfreeze_failed"),
    ("fraud_operations.close.initiated", "fraud.close_initiated"),
    ("fraud_operations.close.success", "fraud.close_succeeded"),
    ("fraud_operations.close.failed", "fraud.close_failed"),
    ("kyb.verification.approved", "kyb.verified"),
    ("kyb.verification.rejected", "kyb.rejected"),
    ("kyb.verification.error", "kyb.errored"),
    ("kyb.verification.initiated", "kyb.started"),
    ("kyb.verification.warning", "kyb.warned"),
    ("kyb.verification.under_review", "kyb.under_review"),
    ("kyc.verification.success", "kyc.verified"),
    ("kyc.verification.failure", "kyc.rejected"),
    ("kyc.verification.failed", "kyc.rejected"),
    ("kyc.verification.error", "kyc.errored"),
    ("kyc.verification.timeout", "kyc.timed_out"),
    ("kyc.verification.under_review", "kyc.under_review"),
    ("kyc.verification.document_required", "kyc.document_required"),
    ("kyc.verification.documents_required", "kyc.document_required"),
    ("kyc.verification.reenter_information", "kyc.information_required"),
    ("kyc.verification.incorrect_information", "kyc.information_required"),
    ("kyc.verification.kba", "kyc.kba_required"),
    ("portal.data_export", "portal.data_exported"),
    ("transactions", "transactions.updated"),
];

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
