//! Anduin's legacy API: an endpoint of a fund. Deliveries are not signed.
//!
//! It asks the URL before it creates or updates an endpoint. Assumed: an update makes an endpoint active again that was
//! disabled after the last attempt at a delivery, retries follow the schedule of the current system, and errors have a `message`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::call::refuse;
use super::fields::{self, default, is_meant, list, of, url};
use super::schedule::EIGHT_ATTEMPTS;
use super::sign::{hex_id, unsigned};
use super::{Anduin, Call, Delivery, Log, Refusal, Reply, Simulated, Simulator};
use crate::Request;

pub struct Provider {
    types: Vec<String>,
    subscriptions: Vec<Value>,
}

impl Anduin {
    /// The API key.
    pub const KEY: &str = "anduin-made-up-4b1f7720c9d3";
    pub const FUND: &str = "txn6qp98v5n5gg96.fsbj4vj";

    pub fn start() -> Anduin {
        let types = TYPES.iter().map(|kind| (*kind).to_owned()).collect();
        Simulator::of(|_| Provider { types, subscriptions: Vec::new() })
    }
}

impl Simulated for Provider {
    const SCHEDULE: &'static [u64] = EIGHT_ATTEMPTS;

    fn url_to_validate(&mut self, call: &Call) -> Option<String> {
        let (method, parts) = call.parts();
        let is_change = match (method, parts.as_slice()) {
            ("POST", ["api", "v1", "fundsub", _, "webhook"]) => true,
            ("PUT", ["api", "v1", "fundsub", fund, "webhook", id]) => self.find(fund, id).is_ok(),
            _ => false,
        };
        let fields = (is_change && is_authorized(call)).then(|| self.fields(call).ok())??;
        Some(fields.0)
    }

    fn answer(&mut self, call: &Call, _: &mut Log) -> Result<Reply, Refusal> {
        if !is_authorized(call) {
            return refuse(401, "the API key is missing or not valid");
        }
        call.query(&[])?;
        let (method, parts) = call.parts();
        match (method, parts.as_slice()) {
            ("GET", ["api", "v1", "fundsub", fund, "webhook"]) => {
                let endpoints: Vec<&Value> =
                    self.subscriptions.iter().filter(|known| known["fundId"] == **fund).collect();
                let body = json!({ "fundId": fund, "webhooks": endpoints, "responseType": "WebhookList" });
                Ok(Reply::json(200, &body))
            }
            ("POST", ["api", "v1", "fundsub", fund, "webhook"]) => {
                let (to, events) = self.validated(call)?;
                let endpoint = json!({ "url": to, "fundId": fund, "enabledEvents": events });
                let endpoint = self.complete(endpoint);
                self.subscriptions.push(endpoint.clone());
                Ok(Reply::json(200, &endpoint))
            }
            ("GET", ["api", "v1", "fundsub", fund, "webhook", id]) => {
                Ok(Reply::json(200, self.find(fund, id)?))
            }
            ("PUT", ["api", "v1", "fundsub", fund, "webhook", id]) => {
                self.find(fund, id)?;
                let (to, events) = self.validated(call)?;
                let endpoint = self.find(fund, id)?;
                endpoint["url"] = to.into();
                endpoint["enabledEvents"] = events.into();
                endpoint["isActive"] = true.into();
                Ok(Reply::json(200, endpoint))
            }
            ("DELETE", ["api", "v1", "fundsub", fund, "webhook", id]) => {
                let id = self.find(fund, id)?["id"].clone();
                self.subscriptions.retain(|known| known["id"] != id);
                Ok(Reply::empty(200))
            }
            (_, ["api", "v1", "fundsub", _, "webhook"] | ["api", "v1", "fundsub", _, "webhook", _]) => {
                refuse(405, "this method is not allowed here")
            }
            _ => refuse(404, "there is nothing here"),
        }
    }

    fn error(status: u16, detail: &str) -> Reply {
        Reply::json(status, &json!({ "message": detail }))
    }

    fn subscriptions(&mut self) -> &mut Vec<Value> {
        &mut self.subscriptions
    }

    fn complete(&mut self, mut subscription: Value) -> Value {
        default(&mut subscription, "fundId", Anduin::FUND);
        let id = format!("{}.wid{}", of(&subscription, "fundId"), hex_id(6));
        default(&mut subscription, "id", id);
        default(&mut subscription, "url", "https://elsewhere.example.com/");
        default(&mut subscription, "enabledEvents", vec!["new_investor_added"]);
        default(&mut subscription, "isActive", true);
        default(&mut subscription, "responseType", "WebhookEndpoint");
        subscription
    }

    fn types(&mut self) -> &mut Vec<String> {
        &mut self.types
    }

    /// For the fund of `fundId`, or [`Anduin::FUND`].
    fn emit(&mut self, kind: &str, fields: &Value, log: &mut Log) -> String {
        let event = format!("event-{}", log.events.len() + 1);
        log.event(&event, kind);
        let fund = fields["fundId"].as_str().unwrap_or(Anduin::FUND);
        let created = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.9fZ").to_string();
        let body = [
            ("fundId", fund.into()),
            ("event", kind.into()),
            ("lpId", format!("{fund}.lp{}", hex_id(7)).into()),
            ("customId", "".into()),
            ("contacts", json!([{ "email": "lp@example.com", "firstName": "Li", "lastName": "Po" }])),
            ("close", json!({ "id": "c1", "customId": "", "name": "First", "targetDate": "20/10/2023" })),
            ("tags", json!([])),
            ("medatada", json!({})),
            ("createdAt", created.into()),
        ];
        let body = fields::write(&body, fields);
        for endpoint in &self.subscriptions {
            let is_for_it = of(endpoint, "fundId") == fund && is_meant(&endpoint["enabledEvents"], kind);
            if is_for_it && endpoint["isActive"] == true {
                log.send(Delivery::new(of(endpoint, "id"), &event, kind, body.clone()));
            }
        }
        event
    }

    fn request(&self, delivery: &Delivery, _: i64) -> Option<(String, Request)> {
        let endpoint = self.subscriptions.iter().find(|known| known["id"] == delivery.subscription)?;
        let is_active = endpoint["isActive"] == true;
        is_active.then(|| (of(endpoint, "url").to_owned(), unsigned(&delivery.body)))
    }

    fn gave_up(&mut self, subscription: &str) {
        if let Some(endpoint) = self.subscriptions.iter_mut().find(|known| known["id"] == subscription) {
            endpoint["isActive"] = false.into();
        }
    }

    fn secrets(&self) -> Vec<String> {
        vec![Anduin::KEY.to_owned()]
    }
}

impl Provider {
    /// The URL and the events of a create or an update.
    fn fields(&self, call: &Call) -> Result<(String, Vec<String>), Refusal> {
        let fields = fields::read(call, &["url", "enabledEvents"], &[])?;
        let to = url(&fields, "url")?.unwrap().to_owned();
        let events = list(&fields, "enabledEvents")?.unwrap();
        if events.is_empty() {
            return refuse(400, "enabledEvents names no event");
        }
        if let Some(unknown) = events.iter().find(|name| !self.types.contains(name)) {
            return refuse(400, format!("{unknown} is no event"));
        }
        Ok((to, events))
    }

    fn validated(&self, call: &Call) -> Result<(String, Vec<String>), Refusal> {
        let fields = self.fields(call)?;
        match &call.validated {
            Some(Ok(())) => Ok(fields),
            Some(Err(why)) => refuse(400, format!("the endpoint did not pass the validation: {why}")),
            None => refuse(500, "the endpoint was not asked"),
        }
    }

    fn find(&mut self, fund: &str, id: &str) -> Result<&mut Value, Refusal> {
        let mut endpoints = self.subscriptions.iter_mut();
        let found = endpoints.find(|known| known["fundId"] == fund && known["id"] == id);
        found.map_or_else(|| refuse(404, "there is no such webhook endpoint"), Ok)
    }
}

fn is_authorized(call: &Call) -> bool {
    call.has("authorization", &format!("Bearer {}", Anduin::KEY))
}

const TYPES: [&str; 5] = [
    "new_investor_added",
    "subscription_status_changed",
    "subscription_close_changed",
    "subscription_tags_changed",
    "documents_uploaded",
];
