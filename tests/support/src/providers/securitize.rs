//! Securitize: a subscription is a domain and an event type.
//!
//! It counts events in the subscription's `nonce`, also those that it could not deliver. It keeps no log and sends nothing
//! again, and it takes a second subscription like the first. Deliveries are not signed.

use serde_json::{Value, json};

use super::call::refuse;
use super::fields::{self, boolean, default, of, set, text, url};
use super::schedule::ONE_ATTEMPT;
use super::sign::{hex_id, unsigned};
use super::{Call, Delivery, Log, Refusal, Reply, Securitize, Simulated, Simulator};
use crate::Request;

pub struct Provider {
    types: Vec<String>,
    subscriptions: Vec<Value>,
}

impl Securitize {
    /// The API key.
    pub const KEY: &str = "sz-key-7f3a91:sz-made-up-e5c0d2b8";

    pub fn start() -> Securitize {
        let types = PROPERTIES.iter().map(|(kind, _)| (*kind).to_owned()).collect();
        Simulator::of(|_| Provider { types, subscriptions: Vec::new() })
    }
}

impl Simulated for Provider {
    const SCHEDULE: &'static [u64] = ONE_ATTEMPT;

    fn answer(&mut self, call: &Call, _: &mut Log) -> Result<Reply, Refusal> {
        if !call.has("authorization", &format!("apiKey {}", Securitize::KEY)) {
            return refuse(401, "Unauthorized");
        }
        let (method, parts) = call.parts();
        match (method, parts.as_slice()) {
            ("GET", ["v1", "webhooks", "events"]) => {
                call.query(&[])?;
                let event = |kind: &String| json!({ "eventType": kind, "properties": properties(kind) });
                Ok(Reply::json(200, &self.types.iter().map(event).collect()))
            }
            ("POST", ["v1", "webhooks", "settings", "signature"]) => {
                Ok(Reply::json(201, &json!({ "publicKey": "a-public-key-of-the-simulator" })))
            }
            ("POST", ["v1", "webhooks", "subscriptions"]) => self.create(call),
            ("GET", ["v1", "webhooks", "subscriptions"]) => {
                let query = call.query(&["domainId"])?;
                let domain = query.first().map(|(_, domain)| domain);
                let is_of_it = |known: &&Value| domain.is_none_or(|domain| known["domainId"] == **domain);
                Ok(Reply::json(200, &self.subscriptions.iter().filter(is_of_it).cloned().collect()))
            }
            ("GET", ["v1", "webhooks", "subscriptions", id]) => Ok(Reply::json(200, self.find(id)?)),
            ("PATCH", ["v1", "webhooks", "subscriptions", id]) => {
                let subscription = self.find(id)?;
                let fields = fields::read(call, &[], &["payloadUrl", "isActive"])?;
                let (to, active) = (url(&fields, "payloadUrl")?, boolean(&fields, "isActive")?);
                set(subscription, "payloadUrl", to);
                set(subscription, "isActive", active);
                Ok(Reply::json(200, subscription))
            }
            ("DELETE", ["v1", "webhooks", "subscriptions", id]) => {
                let id = self.find(id)?["id"].clone();
                self.subscriptions.retain(|known| known["id"] != id);
                Ok(Reply::empty(200))
            }
            // NestJS has no 405: a method that no route has is not found.
            (method, _) => refuse(404, format!("Cannot {method} {}", call.target().1)),
        }
    }

    fn error(status: u16, detail: &str) -> Reply {
        Reply::json(status, &json!({ "statusCode": status, "message": detail }))
    }

    fn subscriptions(&mut self) -> &mut Vec<Value> {
        &mut self.subscriptions
    }

    fn complete(&mut self, mut subscription: Value) -> Value {
        default(&mut subscription, "id", hex_id(24));
        default(&mut subscription, "domainId", "c2f82d16-178c-48ea-95c0-f72227c6fef4");
        default(&mut subscription, "eventType", "domain-investor-kyc-update");
        default(&mut subscription, "nonce", 0);
        default(&mut subscription, "payloadUrl", "https://elsewhere.example.com/");
        default(&mut subscription, "isActive", true);
        subscription
    }

    fn types(&mut self) -> &mut Vec<String> {
        &mut self.types
    }

    /// Needs `domainId`. A nonce is counted for a subscription that is not active too.
    fn emit(&mut self, kind: &str, fields: &Value, log: &mut Log) -> String {
        let domain = fields["domainId"].as_str().expect("an event of Securitize has a domainId");
        let event = format!("event-{}", log.events.len() + 1);
        log.event(&event, kind);
        let is_of_it = |known: &&mut Value| of(known, "domainId") == domain && of(known, "eventType") == kind;
        for subscription in self.subscriptions.iter_mut().filter(is_of_it) {
            let nonce = subscription["nonce"].as_u64().unwrap() + 1;
            subscription["nonce"] = nonce.into();
            let of_type = properties(kind).into_iter().map(|name| (name, Value::from(SAMPLE)));
            let mut body: Vec<(&str, Value)> = of_type.collect();
            body.push(("eventType", kind.into()));
            body.push(("subscriptionId", subscription["id"].clone()));
            body.push(("nonce", nonce.into()));
            if subscription["isActive"] == true {
                let body = fields::write(&body, fields);
                log.send(Delivery::new(of(subscription, "id"), &event, kind, body));
            }
        }
        event
    }

    fn request(&self, delivery: &Delivery, _: i64) -> Option<(String, Request)> {
        let subscription = self.subscriptions.iter().find(|known| known["id"] == delivery.subscription)?;
        let is_active = subscription["isActive"] == true;
        is_active.then(|| (of(subscription, "payloadUrl").to_owned(), unsigned(&delivery.body)))
    }

    fn secrets(&self) -> Vec<String> {
        vec![Securitize::KEY.to_owned()]
    }
}

impl Provider {
    fn create(&mut self, call: &Call) -> Result<Reply, Refusal> {
        call.query(&[])?;
        let fields = fields::read(call, &["domainId", "eventType", "payloadUrl"], &["isActive"])?;
        let kind = text(&fields, "eventType")?.unwrap();
        text(&fields, "domainId")?;
        url(&fields, "payloadUrl")?;
        boolean(&fields, "isActive")?;
        if !self.types.iter().any(|known| known == kind) {
            return refuse(400, format!("eventType {kind} does not exist"));
        }
        let subscription = self.complete(fields.into());
        self.subscriptions.push(subscription.clone());
        Ok(Reply::json(201, &subscription))
    }

    fn find(&mut self, id: &str) -> Result<&mut Value, Refusal> {
        let found = self.subscriptions.iter_mut().find(|known| known["id"] == id);
        found.map_or_else(|| refuse(404, "Subscription not found"), Ok)
    }
}

/// The fields of an event's body besides those of all events.
fn properties(kind: &str) -> Vec<&'static str> {
    let known = PROPERTIES.iter().find(|(known, _)| *known == kind);
    known.map_or(&["domainId", "externalId"][..], |(_, properties)| properties).to_vec()
}

/// The event types that the document shows.
const PROPERTIES: &[(&str, &[&str])] = &[
    ("health-check", &["externalId"]),
    ("domain-investor-kyc-update", &["domainId", "externalId"]),
    ("domain-investor-subscription-agreement-update", &["domainId", "tokenId", "roundId", "externalId"]),
];
const SAMPLE: &str = "5298922124";
