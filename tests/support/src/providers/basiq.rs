//! Basiq: a webhook is a URL, and an event type belongs to one webhook of an application.
//!
//! Assumed: a `POST` to a webhook makes it active again and leaves its secret and what is not posted; a webhook that was disabled
//! after the last attempt at a delivery has the status `disabled`, and what happens meanwhile is not in its log.

mod messages;
mod webhooks;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::call::refuse;
use super::fields::{default, is_meant, of, set};
use super::schedule::EIGHT_ATTEMPTS;
use super::sign::{hex_id, secret, standard, unsigned, uuid};
use super::{Basiq, Call, Delivery, Log, Refusal, Reply, Simulated, Simulator};
use crate::Request;

pub struct Provider {
    types: Vec<String>,
    subscriptions: Vec<Value>,
    tokens: Vec<(String, Instant)>,
    given_out: Vec<String>,
    shapes: Shapes,
    /// The origin of its links.
    origin: String,
}

/// What a test may choose.
struct Shapes {
    token_lasts: Duration,
    webhooks_of_a_page: usize,
    messages_of_a_page: usize,
    /// The status of a new webhook.
    first_status: &'static str,
    /// A single event is no list, as in the documents' samples.
    event_as_text: bool,
    /// A single webhook is no list, as in the documents' samples.
    data_as_object: bool,
    /// The log has payloads in another form than they were delivered in.
    writes_payloads_anew: bool,
    /// The log has what happens while a webhook is disabled, too.
    logs_while_disabled: bool,
    /// The webhook is removed after the last attempt, not disabled.
    removes: bool,
}

impl Basiq {
    /// The API key.
    pub const KEY: &str = "YmFzaXEtbWFkZS11cDprZXktMWYwYw==";

    pub fn start() -> Basiq {
        let types = TYPES.iter().map(|kind| (*kind).to_owned()).collect();
        Simulator::of(|origin| Provider {
            types,
            subscriptions: Vec::new(),
            tokens: Vec::new(),
            given_out: Vec::new(),
            shapes: Shapes {
                token_lasts: Duration::from_secs(3600),
                webhooks_of_a_page: usize::MAX,
                messages_of_a_page: messages::MAX_LIMIT,
                first_status: "active",
                event_as_text: false,
                data_as_object: false,
                writes_payloads_anew: false,
                logs_while_disabled: false,
                removes: false,
            },
            origin: origin.to_owned(),
        })
    }

    /// Tokens given out from now on last that long, in whole seconds.
    pub fn tokens_last(self, time: Duration) -> Basiq {
        self.shaped(|shapes| shapes.token_lasts = time)
    }

    /// Puts no more webhooks on a page.
    pub fn pages_of_webhooks(self, webhooks: usize) -> Basiq {
        self.shaped(|shapes| shapes.webhooks_of_a_page = webhooks)
    }

    /// Puts no more messages on a page.
    pub fn pages_of(self, messages: usize) -> Basiq {
        self.shaped(|shapes| shapes.messages_of_a_page = messages)
    }

    /// New webhooks get nothing until the test makes them active by [`Simulator::change`].
    pub fn approves_later(self) -> Basiq {
        self.shaped(|shapes| shapes.first_status = "pending-approval")
    }

    /// Writes a single event as a bare string.
    pub fn event_as_text(self) -> Basiq {
        self.shaped(|shapes| shapes.event_as_text = true)
    }

    /// Writes the `data` of a list of one as an object.
    pub fn data_as_object(self) -> Basiq {
        self.shaped(|shapes| shapes.data_as_object = true)
    }

    /// Logs payloads with other blanks and another order of keys than they were delivered with.
    pub fn writes_payloads_anew(self) -> Basiq {
        self.shaped(|shapes| shapes.writes_payloads_anew = true)
    }

    /// Logs messages for a disabled webhook too, which have no attempts.
    pub fn logs_while_disabled(self) -> Basiq {
        self.shaped(|shapes| shapes.logs_while_disabled = true)
    }

    /// Removes a webhook after the last attempt at a delivery, instead of disabling it.
    pub fn removes(self) -> Basiq {
        self.shaped(|shapes| shapes.removes = true)
    }

    /// Its links lead to this origin.
    pub fn link_to(&self, origin: &str) {
        self.world().provider.origin = origin.to_owned();
    }

    /// Ends every token that was given out.
    pub fn end_tokens(&self) {
        self.world().provider.end_tokens();
    }

    fn shaped(self, shape: impl FnOnce(&mut Shapes)) -> Basiq {
        shape(&mut self.world().provider.shapes);
        self
    }
}

impl Simulated for Provider {
    const SCHEDULE: &'static [u64] = EIGHT_ATTEMPTS;

    fn answer(&mut self, call: &Call, log: &mut Log) -> Result<Reply, Refusal> {
        let (method, parts) = call.parts();
        if parts == ["token"] {
            return if method == "POST" { self.token(call) } else { refuse(405, "Method not allowed.") };
        }
        self.authorize(call)?;
        match (method, parts.as_slice()) {
            ("GET", ["events", "types"]) => {
                call.query(&[])?;
                let data: Vec<String> =
                    self.types.iter().map(|kind| self.event_type(kind).to_string()).collect();
                Ok(messages::page(&data, data.len(), &self.link("/events/types"), None))
            }
            ("GET", ["events", "types", id]) => match self.types.iter().find(|kind| kind == id) {
                Some(kind) => Ok(Reply::json(200, &self.event_type(kind))),
                None => refuse(404, "Requested event type does not exist."),
            },
            ("POST", ["notifications", "webhooks"]) => {
                let webhook = self.checked(call, None)?;
                let webhook = self.complete(webhook.into());
                self.subscriptions.push(webhook.clone());
                Ok(Reply::json(201, &self.shown(&webhook, true)))
            }
            ("GET", ["notifications", "webhooks"]) => self.list(call),
            ("GET", ["notifications", "webhooks", id]) => {
                let webhook = self.find(id)?.clone();
                Ok(Reply::json(200, &self.shown(&webhook, false)))
            }
            ("POST", ["notifications", "webhooks", id]) => {
                self.find(id)?;
                let fields = self.checked(call, Some(id))?;
                let webhook = self.find(id)?;
                for (name, value) in fields {
                    set(webhook, &name, Some(value));
                }
                if webhook["status"] == DISABLED {
                    webhook["status"] = "active".into();
                }
                let webhook = webhook.clone();
                Ok(Reply::json(200, &self.shown(&webhook, true)))
            }
            ("DELETE", ["notifications", "webhooks", id]) => {
                self.find(id)?;
                self.subscriptions.retain(|known| known["id"] != **id);
                Ok(Reply::empty(204))
            }
            (
                "GET",
                ["notifications", "webhooks", id, "messages"]
                | ["notifications", "webhooks", id, "messages", ""],
            ) => {
                self.find(id)?;
                self.messages(call, log, id)
            }
            ("GET", ["notifications", "webhooks", id, "messages", message]) => {
                self.find(id)?;
                self.message(log, id, message)
            }
            ("POST", ["notifications", "messages", "test"]) => self.test(call, log),
            (
                _,
                ["events", "types"]
                | ["notifications", "webhooks"]
                | ["notifications", "webhooks", _]
                | ["notifications", "webhooks", _, "messages"]
                | ["notifications", "messages", "test"],
            ) => refuse(405, "Method not allowed."),
            _ => refuse(404, "Resource not found."),
        }
    }

    fn error(status: u16, detail: &str) -> Reply {
        let (code, title) = match status {
            400 | 415 => ("invalid-content", "Invalid request content"),
            401 => ("unauthorized-access", "Unauthorized Access"),
            403 => ("forbidden-access", "Forbidden Access"),
            404 => ("resource-not-found", "Requested resource is not found"),
            405 => ("method-not-allowed", "Method not allowed"),
            409 => ("resource-already-exists", "Resource already exists"),
            429 => ("too-many-requests", "Too many requests"),
            503 => ("service-unavailable", "Service Unavailable"),
            _ => ("internal-server-error", "Internal Server Error"),
        };
        own_error(status, code, title, detail, None)
    }

    /// A request for a token changes nothing.
    fn is_write(call: &Call) -> bool {
        call.method != "GET" && call.target().1 != "/token"
    }

    fn subscriptions(&mut self) -> &mut Vec<Value> {
        &mut self.subscriptions
    }

    fn complete(&mut self, mut subscription: Value) -> Value {
        default(&mut subscription, "type", "webhook");
        default(&mut subscription, "id", uuid());
        default(&mut subscription, "name", "");
        default(&mut subscription, "description", "");
        default(&mut subscription, "url", "https://elsewhere.example.com/");
        default(&mut subscription, "status", self.shapes.first_status);
        // The length of the documents' sample, which is not padded.
        default(&mut subscription, "secret", secret(29));
        default(&mut subscription, "subscribedEvents", Vec::<String>::new());
        subscription
    }

    fn types(&mut self) -> &mut Vec<String> {
        &mut self.types
    }

    /// The id is `eventId`.
    fn emit(&mut self, kind: &str, fields: &Value, log: &mut Log) -> String {
        let event = fields["eventId"].as_str().map_or_else(uuid, str::to_owned);
        log.event(&event, kind);
        let body = self.body(kind, &event, fields);
        for webhook in &self.subscriptions {
            if !is_meant(&webhook["subscribedEvents"], kind) {
                continue;
            }
            let delivery = Delivery::new(of(webhook, "id"), &event, kind, body.clone());
            match of(webhook, "status") {
                "active" => log.send(delivery),
                DISABLED if self.shapes.logs_while_disabled => {
                    log.deliveries.push(Delivery { state: super::State::Failed, ..delivery });
                }
                _ => {}
            }
        }
        event
    }

    fn request(&self, delivery: &Delivery, now: i64) -> Option<(String, Request)> {
        let webhook = self.subscriptions.iter().find(|known| known["id"] == delivery.subscription)?;
        if webhook["status"] != "active" {
            return None;
        }
        let request = standard(unsigned(&delivery.body), &delivery.message, of(webhook, "secret"), now);
        Some((of(webhook, "url").to_owned(), request))
    }

    fn gave_up(&mut self, subscription: &str) {
        if self.shapes.removes {
            self.subscriptions.retain(|known| known["id"] != subscription);
        } else if let Some(webhook) = self.subscriptions.iter_mut().find(|known| known["id"] == subscription)
        {
            webhook["status"] = DISABLED.into();
        }
    }

    fn end_tokens(&mut self) {
        self.tokens.clear();
    }

    fn secrets(&self) -> Vec<String> {
        let mut secrets = vec![Basiq::KEY.to_owned()];
        secrets.extend(self.given_out.iter().cloned());
        secrets.extend(self.subscriptions.iter().map(|known| of(known, "secret").to_owned()));
        secrets
    }
}

impl Provider {
    fn token(&mut self, call: &Call) -> Result<Reply, Refusal> {
        if !call.has("authorization", &format!("Basic {}", Basiq::KEY)) {
            return refuse(401, NOT_AUTHORIZED);
        }
        if call.header("basiq-version") != Some("3.0") {
            return refuse(400, "Header basiq-version is not valid.");
        }
        if !call.is("application/x-www-form-urlencoded") {
            return refuse(415, "Content type is not a form.");
        }
        let form: Vec<_> = form_urlencoded::parse(call.body.as_bytes()).collect();
        if form != [("scope".into(), "SERVER_ACCESS".into())] {
            return refuse(400, "Posted request not valid.");
        }
        let token = format!("eyJhbGciOiJub25lIn0.{}.made-up", hex_id(32));
        let lasts = self.shapes.token_lasts;
        self.tokens.push((token.clone(), Instant::now() + lasts));
        self.given_out.push(token.clone());
        let body = json!({ "access_token": token, "token_type": "Bearer", "expires_in": lasts.as_secs() });
        Ok(Reply::json(200, &body))
    }

    fn authorize(&self, call: &Call) -> Result<(), Refusal> {
        let token = call.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
        let is_known =
            |token: &str| self.tokens.iter().any(|(known, until)| known == token && Instant::now() < *until);
        if !token.is_some_and(is_known) {
            return refuse(401, NOT_AUTHORIZED);
        }
        match call.header("basiq-version") {
            Some(_) => refuse(400, "Header basiq-version belongs to /token."),
            None => Ok(()),
        }
    }

    fn link(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }
}

fn own_error(status: u16, code: &str, title: &str, detail: &str, parameter: Option<&str>) -> Reply {
    let mut error = json!({ "type": "error", "code": code, "title": title, "detail": detail });
    if let Some(parameter) = parameter {
        error["source"] = json!({ "parameter": parameter });
    }
    Reply::json(status, &json!({ "type": "list", "correlationId": uuid(), "data": [error] }))
}

const DISABLED: &str = "disabled";
const NOT_AUTHORIZED: &str = "You are not authorized to access this resource";

const TYPES: [&str; 15] = [
    "account.updated",
    "connection.activated",
    "connection.created",
    "connection.deleted",
    "connection.invalidated",
    "consent.created",
    "consent.expired",
    "consent.reminder",
    "consent.revoked",
    "consent.updated",
    "consent.warning",
    "transactions.updated",
    "user.created",
    "user.deleted",
    "user.updated",
];
