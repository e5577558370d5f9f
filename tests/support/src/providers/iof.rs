//! Islamic Open Finance: an endpoint has a URL and patterns of event types. Its secret is shown once, and there is no list call.
//!
//! Assumed: a create is answered 201, a delete 204, a retry 200 with the event; lists and errors have the published envelope; an
//! event in the list is the delivered one, with `endpointId` and `status`; an idempotency key answers again what it answered
//! before, the secret too, and with another body 409. A retry takes the whole schedule. No endpoint is ever disabled.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::call::refuse;
use super::fields::{self, default, is_meant, list, of, set, text, url};
use super::schedule::FIVE_ATTEMPTS;
use super::sign::{self, hex_id, secret, unsigned, uuid};
use super::{Call, Delivery, Iof, Log, Refusal, Reply, Simulated, Simulator, State};
use crate::Request;

pub struct Provider {
    types: Vec<String>,
    subscriptions: Vec<Value>,
    /// The body and the answer of each create by its idempotency key.
    creates: BTreeMap<String, (String, Reply)>,
    /// The headers that a call must have besides the key.
    needed: BTreeMap<&'static str, String>,
    page: usize,
    /// Whether an update is answered with the endpoint.
    tells_updates: bool,
}

impl Iof {
    /// The API key.
    pub const KEY: &str = "iof_sk_test_made_up_51c07be9";

    pub fn start() -> Iof {
        let types = TYPES.iter().map(|kind| (*kind).to_owned()).collect();
        Simulator::of(|_| Provider {
            types,
            subscriptions: Vec::new(),
            creates: BTreeMap::new(),
            needed: BTreeMap::new(),
            page: MAX_LIMIT,
            tells_updates: true,
        })
    }

    /// Refuses calls that are not for this tenant and this workspace.
    pub fn needs(self, tenant: &str, workspace: &str) -> Iof {
        let needed = [("x-tenant-id", tenant.to_owned()), ("x-workspace-id", workspace.to_owned())];
        self.world().provider.needed = needed.into();
        self
    }

    /// Puts no more events on a page.
    pub fn pages_of(self, events: usize) -> Iof {
        self.world().provider.page = events;
        self
    }

    /// Answers updates with 204. The documents do not show the answer.
    pub fn answer_updates_with_nothing(&self) {
        self.world().provider.tells_updates = false;
    }

    /// Forgets every idempotency key.
    pub fn forget_keys(&self) {
        self.world().provider.creates.clear();
    }
}

impl Simulated for Provider {
    const SCHEDULE: &'static [u64] = FIVE_ATTEMPTS;

    fn answer(&mut self, call: &Call, log: &mut Log) -> Result<Reply, Refusal> {
        if !call.has("authorization", &format!("Bearer {}", Iof::KEY)) {
            return refuse(401, "the API key is missing or not valid");
        }
        if let Some((name, _)) =
            self.needed.iter().find(|(name, value)| call.header(name) != Some(value.as_str()))
        {
            return refuse(403, format!("{name} is missing or not yours"));
        }
        let (method, parts) = call.parts();
        match (method, parts.as_slice()) {
            ("POST", ["v1", "webhooks", "endpoints"]) => self.create_once(call),
            ("GET", ["v1", "webhooks", "endpoints", id]) => {
                Ok(Reply::json(200, &without_secret(self.find(id)?)))
            }
            ("PATCH", ["v1", "webhooks", "endpoints", id]) => {
                self.find(id)?;
                let fields = fields::read(call, &[], &["url", "events", "status"])?;
                check(&fields)?;
                let endpoint = self.find(id)?;
                for (name, value) in fields {
                    set(endpoint, &name, Some(value));
                }
                let shown = without_secret(endpoint);
                Ok(if self.tells_updates { Reply::json(200, &shown) } else { Reply::empty(204) })
            }
            ("DELETE", ["v1", "webhooks", "endpoints", id]) => {
                let id = self.find(id)?["id"].clone();
                self.subscriptions.retain(|known| known["id"] != id);
                Ok(Reply::empty(204))
            }
            ("GET", ["v1", "webhooks", "events"]) => self.list(call, log),
            ("POST", ["v1", "webhooks", "events", id, "retry"]) => retry(call, log, id),
            (_, ["v1", "webhooks", "endpoints" | "events"] | ["v1", "webhooks", "endpoints", _]) => {
                refuse(405, "the method is not allowed here")
            }
            _ => refuse(404, "there is nothing here"),
        }
    }

    fn error(status: u16, detail: &str) -> Reply {
        let code = match status {
            400 | 415 => "validation_error",
            401 => "unauthorized",
            403 => "forbidden",
            404 => "not_found",
            405 => "method_not_allowed",
            409 => "idempotency_conflict",
            429 => "rate_limit_exceeded",
            _ => "internal_error",
        };
        Reply::json(status, &json!({ "error": { "code": code, "message": detail } }))
    }

    fn subscriptions(&mut self) -> &mut Vec<Value> {
        &mut self.subscriptions
    }

    fn complete(&mut self, mut subscription: Value) -> Value {
        default(&mut subscription, "id", format!("we_{}", hex_id(12)));
        default(&mut subscription, "url", "https://elsewhere.example.com/");
        default(&mut subscription, "events", vec!["contract.*"]);
        default(&mut subscription, "secret", secret(24));
        default(&mut subscription, "status", "active");
        default(&mut subscription, "createdAt", now());
        subscription
    }

    fn types(&mut self) -> &mut Vec<String> {
        &mut self.types
    }

    fn emit(&mut self, kind: &str, fields: &Value, log: &mut Log) -> String {
        let id = fields["id"].as_str().map_or_else(|| format!("evt_{}", hex_id(12)), str::to_owned);
        log.event(&id, kind);
        let object = json!({ "id": format!("con_{}", hex_id(6)), "type": "MURABAHA", "status": "draft" });
        let body = [
            ("id", Value::from(&*id)),
            ("type", kind.into()),
            ("created", now().into()),
            ("data", json!({ "object": object })),
            ("metadata", json!({ "workspaceId": "ws_123", "tenantId": "tenant_456" })),
        ];
        let body = fields::write(&body, fields);
        for endpoint in &self.subscriptions {
            if endpoint["status"] == "active" && is_meant(&endpoint["events"], kind) {
                log.send(Delivery::new(of(endpoint, "id"), &id, kind, body.clone()));
            }
        }
        id
    }

    fn request(&self, delivery: &Delivery, now: i64) -> Option<(String, Request)> {
        let endpoint = self.subscriptions.iter().find(|known| known["id"] == delivery.subscription)?;
        if endpoint["status"] != "active" {
            return None;
        }
        let request = sign::iof(unsigned(&delivery.body), of(endpoint, "secret"), now);
        Some((of(endpoint, "url").to_owned(), request))
    }

    fn secrets(&self) -> Vec<String> {
        let mut secrets = vec![Iof::KEY.to_owned()];
        secrets.extend(self.subscriptions.iter().map(|known| of(known, "secret").to_owned()));
        secrets
    }
}

impl Provider {
    /// A create with a known idempotency key is answered as before.
    fn create_once(&mut self, call: &Call) -> Result<Reply, Refusal> {
        call.query(&[])?;
        let key = call.header("x-idempotency-key");
        if let Some((body, reply)) = key.and_then(|key| self.creates.get(key)) {
            if *body != call.body {
                return refuse(409, "the X-Idempotency-Key came with another body");
            }
            return Ok(reply.clone());
        }
        let fields = fields::read(call, &["url", "events"], &["secret"])?;
        check(&fields)?;
        let endpoint = self.complete(fields.into());
        self.subscriptions.push(endpoint.clone());
        let reply = Reply::json(201, &endpoint);
        if let Some(key) = key {
            self.creates.insert(key.to_owned(), (call.body.clone(), reply.clone()));
        }
        Ok(reply)
    }

    fn list(&self, call: &Call, log: &Log) -> Result<Reply, Refusal> {
        let query = call.query(&["endpointId", "status", "limit", "page"])?;
        let of_query = |name: &str| query.iter().find(|(known, _)| known == name).map(|(_, value)| &**value);
        let number = |name: &str, default: usize| {
            let value = of_query(name).map_or(Ok(default), str::parse);
            value
                .ok()
                .filter(|value| *value > 0)
                .map_or_else(|| refuse(400, format!("{name} is no number")), Ok)
        };
        let (limit, page) = (number("limit", DEFAULT_LIMIT)?, number("page", 1)?);
        if limit > MAX_LIMIT {
            return refuse(400, format!("limit is over {MAX_LIMIT}"));
        }
        let status = of_query("status");
        if status.is_some_and(|status| !STATES.iter().any(|state| state.word() == status)) {
            return refuse(400, "status is no status");
        }
        let is_asked_for = |delivery: &&Delivery| {
            of_query("endpointId").is_none_or(|id| delivery.subscription == id)
                && status.is_none_or(|status| delivery.state.word() == status)
        };
        // The newest first.
        let all: Vec<Value> = log.deliveries.iter().filter(is_asked_for).rev().map(shown).collect();
        let (total, size) = (all.len(), limit.min(self.page));
        let data: Vec<Value> = all.into_iter().skip((page - 1) * size).take(size).collect();
        let pages = total.div_ceil(size);
        let pagination = json!({
            "page": page, "perPage": size, "total": total, "totalPages": pages, "hasMore": page < pages,
        });
        let meta = json!({ "requestId": uuid(), "timestamp": now() });
        Ok(Reply::json(200, &json!({ "data": data, "meta": meta, "pagination": pagination })))
    }

    fn find(&mut self, id: &str) -> Result<&mut Value, Refusal> {
        let found = self.subscriptions.iter_mut().find(|known| known["id"] == id);
        found.map_or_else(|| refuse(404, "there is no such endpoint"), Ok)
    }
}

/// Sends an event again, to every endpoint that it was for and that has not got it.
fn retry(call: &Call, log: &mut Log, id: &str) -> Result<Reply, Refusal> {
    call.query(&[])?;
    if !call.body.is_empty() && call.body != "{}" {
        return refuse(400, "a retry has no fields");
    }
    let of_it: Vec<usize> =
        (0..log.deliveries.len()).filter(|number| log.deliveries[*number].event == id).collect();
    let Some(last) = of_it.last().copied() else { return refuse(404, "there is no such event") };
    for number in of_it {
        if log.deliveries[number].state == State::Failed {
            log.send_again(number);
        }
    }
    Ok(Reply::json(200, &shown(&log.deliveries[last])))
}

/// An event as the API shows it.
fn shown(delivery: &Delivery) -> Value {
    let mut event: Value = serde_json::from_str(&delivery.body).unwrap();
    event["endpointId"] = delivery.subscription.clone().into();
    event["status"] = delivery.state.word().into();
    event["attempts"] = delivery.attempts.len().into();
    event
}

fn check(fields: &Map<String, Value>) -> Result<(), Refusal> {
    url(fields, "url")?;
    if text(fields, "secret")?.is_some_and(|secret| secret.len() < 16) {
        return refuse(400, "secret is too short");
    }
    if text(fields, "status")?.is_some_and(|status| !matches!(status, "active" | "disabled")) {
        return refuse(400, "status is not valid");
    }
    let is_type = |name: &String| {
        let name = name.strip_suffix(".*").unwrap_or(name);
        let is_segment = |segment: &str| {
            !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        };
        name.split('.').all(is_segment)
    };
    match list(fields, "events")? {
        Some(events) if events.is_empty() || !events.iter().all(is_type) => {
            refuse(400, "events is not valid")
        }
        _ => Ok(()),
    }
}

fn without_secret(endpoint: &Value) -> Value {
    let mut endpoint = endpoint.clone();
    endpoint.as_object_mut().unwrap().remove("secret");
    endpoint
}

fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

const STATES: [State; 4] = [State::Pending, State::Retrying, State::Delivered, State::Failed];
const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 100;

/// The types of the document. Others are taken too, since newer documents name more.
const TYPES: [&str; 13] = [
    "contract.created",
    "contract.updated",
    "contract.activated",
    "contract.matured",
    "contract.closed",
    "kyc.submitted",
    "kyc.verified",
    "kyc.rejected",
    "kyc.expired",
    "compliance.check.completed",
    "compliance.alert.triggered",
    "billing.invoice.created",
    "billing.invoice.paid",
];
