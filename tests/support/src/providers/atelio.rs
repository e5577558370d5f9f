//! Atelio: a subscription is a URL. It answers with wildcards expanded, and its list has every secret.
//!
//! Assumed: a create is answered 200, a type or a wildcard that means nothing is refused, an idempotency key that comes with
//! another body is refused with 409, and errors have the shape of Bond's documents.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::call::refuse;
use super::fields::{self, default, is_meant, list, matches, of, set, text, url};
use super::schedule::BACKOFF;
use super::sign::{bond, secret, unsigned, uuid};
use super::{Atelio, Call, Delivery, Log, Refusal, Reply, Simulated, Simulator};
use crate::Request;

pub struct Provider {
    types: Vec<String>,
    subscriptions: Vec<Value>,
    /// The body and the answer of each create by its idempotency key.
    creates: BTreeMap<String, (String, Reply)>,
}

impl Atelio {
    pub const IDENTITY: &str = "fg6760e3-made-up-identity";
    pub const AUTHORIZATION: &str = "MLF0su9R5m9cp-made-up-authorization";

    pub fn start() -> Atelio {
        let types = TYPES.iter().map(|kind| (*kind).to_owned()).collect();
        Simulator::of(|_| Provider { types, subscriptions: Vec::new(), creates: BTreeMap::new() })
    }

    /// Forgets every idempotency key, as after a day.
    pub fn forget_keys(&self) {
        self.world().provider.creates.clear();
    }
}

impl Simulated for Provider {
    const BASE: &'static str = "/api/v0.1";
    const SCHEDULE: &'static [u64] = BACKOFF;

    fn answer(&mut self, call: &Call, _: &mut Log) -> Result<Reply, Refusal> {
        let is_identity = call.header("identity") == Some(Atelio::IDENTITY);
        if !is_identity || call.header("authorization") != Some(Atelio::AUTHORIZATION) {
            return refuse(401, "Identity or Authorization is missing or not valid");
        }
        call.query(&[])?;
        let (method, parts) = call.parts();
        match (method, parts.as_slice()) {
            ("POST", ["api", "v0.1", "webhooks"]) => self.create_once(call),
            ("GET", ["api", "v0.1", "webhooks"]) => {
                let listed = |known: &Value| {
                    let is_enabled = known["status"] == ENABLED;
                    let mut listed = known.clone();
                    listed["status"] = if is_enabled { "enabled" } else { "disabled" }.into();
                    listed
                };
                let all: Vec<Value> = self.subscriptions.iter().map(listed).collect();
                Ok(Reply::json(200, &json!({ "webhook_subscriptions": all })))
            }
            ("PATCH", ["api", "v0.1", "webhooks", id]) => {
                self.find(id)?;
                let mut fields = fields::read(call, &[], FIELDS)?;
                self.check(&mut fields)?;
                let subscription = self.find(id)?;
                for (name, value) in fields {
                    set(subscription, &name, Some(value));
                }
                subscription["updated_time"] = now().into();
                Ok(one(200, subscription))
            }
            ("DELETE", ["api", "v0.1", "webhooks", id]) => {
                let deleted = self.find(id)?.clone();
                self.subscriptions.retain(|known| known["id"] != deleted["id"]);
                Ok(one(200, &deleted))
            }
            (_, ["api", "v0.1", "webhooks"] | ["api", "v0.1", "webhooks", _]) => {
                refuse(405, "the method is not allowed here")
            }
            _ => refuse(404, "there is nothing here"),
        }
    }

    fn error(status: u16, detail: &str) -> Reply {
        let kind = if status < 500 { "Request Error" } else { "Server Error" };
        let code = match status {
            401 | 403 => "unauthorized",
            404 => "webhook_dne",
            _ => "webhook_schema",
        };
        Reply::json(status, &json!({ "Message": detail, "Status": status, "Code": code, "Type": kind }))
    }

    fn subscriptions(&mut self) -> &mut Vec<Value> {
        &mut self.subscriptions
    }

    /// Events may have wildcards.
    fn complete(&mut self, mut subscription: Value) -> Value {
        default(&mut subscription, "id", uuid());
        default(&mut subscription, "url", "https://elsewhere.example.com/");
        default(&mut subscription, "description", "");
        default(&mut subscription, "events", vec!["card.created"]);
        default(&mut subscription, "version", "0.1");
        default(&mut subscription, "secret", secret(24));
        default(&mut subscription, "status", ENABLED);
        default(&mut subscription, "created_time", now());
        default(&mut subscription, "updated_time", now());
        if let Ok(events) = self.expand(subscription["events"].as_array().unwrap()) {
            subscription["events"] = events.into();
        }
        subscription
    }

    fn types(&mut self) -> &mut Vec<String> {
        &mut self.types
    }

    /// The time is `occurred_at`; set it to null for an event without one.
    fn emit(&mut self, kind: &str, fields: &Value, log: &mut Log) -> String {
        let event = format!("event-{}", log.events.len() + 1);
        log.event(&event, kind);
        let mut body = json!({ "event": kind, "customer_id": uuid(), "occurred_at": now() });
        for (name, value) in fields.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        // In the order of the alphabet: `v1` of the signature is over the body written anew, in that order too.
        body.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        for subscription in &self.subscriptions {
            if subscription["status"] == ENABLED && is_meant(&subscription["events"], kind) {
                log.send(Delivery::new(of(subscription, "id"), &event, kind, body.to_string()));
            }
        }
        event
    }

    fn request(&self, delivery: &Delivery, now: i64) -> Option<(String, Request)> {
        let subscription = self.subscriptions.iter().find(|known| known["id"] == delivery.subscription)?;
        if subscription["status"] != ENABLED {
            return None;
        }
        let request = bond(unsigned(&delivery.body), of(subscription, "secret"), now);
        Some((of(subscription, "url").to_owned(), request))
    }

    fn is_success(status: u16) -> bool {
        matches!(status, 200 | 201)
    }

    fn secrets(&self) -> Vec<String> {
        let mut secrets = vec![Atelio::IDENTITY.to_owned(), Atelio::AUTHORIZATION.to_owned()];
        secrets.extend(self.subscriptions.iter().map(|known| of(known, "secret").to_owned()));
        secrets
    }
}

impl Provider {
    /// A create with a known idempotency key is answered as before.
    fn create_once(&mut self, call: &Call) -> Result<Reply, Refusal> {
        let key = call.header("idempotency-key");
        if let Some((body, reply)) = key.and_then(|key| self.creates.get(key)) {
            if *body != call.body {
                return refuse(409, "the Idempotency-Key came with another body");
            }
            return Ok(reply.clone());
        }
        let mut fields = fields::read(call, &["url", "events"], FIELDS)?;
        self.check(&mut fields)?;
        let subscription = self.complete(fields.into());
        self.subscriptions.push(subscription.clone());
        let reply = one(200, &subscription);
        if let Some(key) = key {
            self.creates.insert(key.to_owned(), (call.body.clone(), reply.clone()));
        }
        Ok(reply)
    }

    /// Checks what is given, and expands its wildcards.
    fn check(&self, fields: &mut Map<String, Value>) -> Result<(), Refusal> {
        url(fields, "url")?;
        text(fields, "description")?;
        if text(fields, "version")?.is_some_and(|version| version != "0.1") {
            return refuse(400, "version is not valid");
        }
        if text(fields, "status")?.is_some_and(|status| !matches!(status, ENABLED | DISABLED)) {
            return refuse(400, "status is not valid");
        }
        if list(fields, "events")?.is_some() {
            let events = self.expand(fields["events"].as_array().unwrap());
            let events = events.or_else(|why| refuse(400, why))?;
            fields.insert("events".to_owned(), events.into());
        }
        Ok(())
    }

    fn expand(&self, patterns: &[Value]) -> Result<Vec<String>, String> {
        if patterns.is_empty() {
            return Err("Missing Required Field(s): 'events'".to_owned());
        }
        let mut events: Vec<String> = Vec::new();
        for pattern in patterns {
            let pattern = pattern.as_str().unwrap();
            let mut meant = self.types.iter().filter(|kind| matches(pattern, kind)).peekable();
            if meant.peek().is_none() {
                return Err(format!("no event is meant by {pattern}"));
            }
            for kind in meant {
                if !events.contains(kind) {
                    events.push(kind.clone());
                }
            }
        }
        Ok(events)
    }

    fn find(&mut self, id: &str) -> Result<&mut Value, Refusal> {
        let found = self.subscriptions.iter_mut().find(|known| known["id"] == id);
        found.map_or_else(|| refuse(404, format!("Webhook {id} does not exist.")), Ok)
    }
}

fn one(status: u16, subscription: &Value) -> Reply {
    Reply::json(status, &json!({ "webhook_subscription": subscription }))
}

fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

const ENABLED: &str = "STATUS_ENABLED";
const DISABLED: &str = "STATUS_DISABLED";
const FIELDS: &[&str] = &["url", "description", "events", "version", "status"];

/// The types that the documents name.
const TYPES: &[&str] = &[
    "account.autopay.changed",
    "account.autopay.failed",
    "account.autopay.processed",
    "account.autopay.scheduled",
    "account.history.ready",
    "account.statements.generated",
    "account.statements.late_payment",
    "account.statements.ready",
    "account.statement.ready",
    "card.created",
    "card.status.active",
    "card.status.closed",
    "card.status.inactive",
    "card.status.reissue",
    "card.status.fraud",
    "card.status.lost",
    "card.status.stolen",
    "card.status.no_withdrawals",
    "card.wallet.add",
    "card.wallet.add_failure",
    "commercial.credit_application.created",
    "commercial.credit_application.submitted",
    "commercial.credit_application.under_review",
    "commercial.credit_application.approved",
    "commercial.credit_application.denied",
    "commercial.credit_application.resubmit_required",
    "commercial.credit_application.pending",
    "credit.application.created",
    "credit.application.submitted",
    "credit.application.approved",
    "credit.application.resubmit_required",
    "credit.application.adverse_action",
    "customer.updated",
    "develop.api_key.created",
    "fraud_operations.freeze.initiated",
    "fraud_operations.freeze.success",
    "fraud_operations.freeze.failed",
    "fraud_operations.unfreeze.initiated",
    "fraud_operations.unfreeze.success",
    "fraud_operations.unfreeze.failed",
    "fraud_operations.close.initiated",
    "fraud_operations.close.success",
    "fraud_operations.close.failed",
    "kyb.verification.approved",
    "kyb.verification.error",
    "kyb.verification.initiated",
    "kyb.verification.warning",
    "kyb.verification.under_review",
    "kyb.verification.rejected",
    "kyc.verification.success",
    "kyc.verification.timeout",
    "kyc.verification.error",
    "kyc.verification.failure",
    "kyc.verification.under_review",
    "kyc.verification.document_required",
    "kyc.verification.reenter_information",
    "portal.data_export",
    "transactions",
];
