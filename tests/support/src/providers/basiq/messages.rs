//! Basiq's log of messages: paged, filtered, and with its attempts only where one message is shown; and test messages.
//!
//! Assumed: the newest message comes first, and a filter's date is that of the first attempt, in whole seconds.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::super::call::refuse;
use super::super::fields::{self, is_meant, of, text, written_anew};
use super::super::sign::uuid;
use super::super::{Call, Delivery, Log, Refusal, Reply, State};
use super::{Provider, own_error};

pub(super) const MAX_LIMIT: usize = 500;

impl Provider {
    pub(super) fn messages(&self, call: &Call, log: &Log, webhook: &str) -> Result<Reply, Refusal> {
        let query = call.query(&["limit", "filter", "next"])?;
        let of_query = |name: &str| query.iter().find(|(known, _)| known == name).map(|(_, value)| &**value);
        let limit = of_query("limit").map_or(Some(MAX_LIMIT), |limit| limit.parse().ok());
        let Some(limit) = limit.filter(|limit| (1..=MAX_LIMIT).contains(limit)) else {
            return not_valid("The provided limit parameter is not valid", "limit");
        };
        let filters = of_query("filter").map_or(Ok(Vec::new()), Filter::read_all);
        let Ok(filters) = filters else {
            return not_valid("The provided filter parameter is in invalid format or unsupported", "filter");
        };
        let mut meant: Vec<&Delivery> = log.deliveries.iter().collect();
        meant.retain(|message| {
            message.subscription == webhook && filters.iter().all(|one| one.admits(message))
        });
        // The sort keeps the order of those of one time.
        meant.reverse();
        meant.sort_by_key(|message| std::cmp::Reverse(seconds(message.first_attempt())));
        let count = meant.len();
        // A page begins behind a message, so that newer ones do not move it.
        let from = match of_query("next") {
            None => 0,
            Some(last) => match meant.iter().position(|message| message.message == last) {
                Some(position) => position + 1,
                None => return not_valid("The provided next parameter is not valid", "next"),
            },
        };
        let size = limit.min(self.shapes.messages_of_a_page);
        let page_of_it = &meant[from..count.min(from + size)];
        let data: Vec<String> = page_of_it.iter().map(|message| self.shown_message(message, false)).collect();
        let link = self.link(&format!("/notifications/webhooks/{webhook}/messages"));
        let next = (from + data.len() < count).then(|| {
            let mut next = form_urlencoded::Serializer::new(String::new());
            next.append_pair("limit", &limit.to_string());
            if let Some(filter) = of_query("filter") {
                next.append_pair("filter", filter);
            }
            next.append_pair("next", &page_of_it.last().unwrap().message);
            format!("{link}?{}", next.finish())
        });
        Ok(page(&data, count, &link, next.as_deref()))
    }

    pub(super) fn message(&self, log: &Log, webhook: &str, id: &str) -> Result<Reply, Refusal> {
        let is_it = |message: &&Delivery| message.subscription == webhook && message.message == id;
        match log.deliveries.iter().find(is_it) {
            Some(message) => Ok(Reply::text(200, self.shown_message(message, true))),
            None => refuse(404, "Message not found."),
        }
    }

    /// Sends a test message to the webhooks that subscribed to the type.
    pub(super) fn test(&mut self, call: &Call, log: &mut Log) -> Result<Reply, Refusal> {
        call.query(&[])?;
        let fields = fields::read(call, &["eventTypeId"], &["Text"])?;
        let (kind, said) = (text(&fields, "eventTypeId")?.unwrap(), text(&fields, "Text")?);
        if !self.types.iter().any(|known| known == kind) {
            return refuse(400, "Posted eventTypeId doesn't exists.");
        }
        if self.subscriptions.is_empty() {
            let detail = "No webhooks found for an app, at least one webhook should exist in the system";
            let title = "No webhooks found for an app";
            return Err(Refusal::Whole(own_error(400, "no-webhooks-found", title, detail, None)));
        }
        let event = uuid();
        log.event(&event, kind);
        let body = self.body(kind, &event, &said.map_or(Value::Null, |said| json!({ "Text": said })));
        for webhook in &self.subscriptions {
            if webhook["status"] == "active" && is_meant(&webhook["subscribedEvents"], kind) {
                log.send(Delivery::new(of(webhook, "id"), &event, kind, body.clone()));
            }
        }
        Ok(Reply::empty(201))
    }

    /// A delivery's body.
    pub(super) fn body(&self, kind: &str, event: &str, tests: &Value) -> String {
        let links = json!({
            "event": format!("https://au-api.basiq.io/events/{event}"),
            "eventEntity": format!("https://au-api.basiq.io/users/{}", uuid()),
        });
        fields::write(&[("eventTypeId", kind.into()), ("eventId", event.into()), ("links", links)], tests)
    }

    fn shown_message(&self, message: &Delivery, with_attempts: bool) -> String {
        let webhook = self.link(&format!("/notifications/webhooks/{}", message.subscription));
        let links = json!({ "self": format!("{webhook}/messages/{}", message.message), "webhook": webhook });
        let payload = match self.shapes.writes_payloads_anew {
            true => written_anew(&message.body),
            false => message.body.clone(),
        };
        let attempts =
            if with_attempts { format!(r#","attempts":{}"#, attempts(message)) } else { String::new() };
        format!(
            r#"{{"id":{},"payload":{payload}{attempts},"links":{links}}}"#,
            Value::from(&*message.message)
        )
    }
}

/// A list.
pub(super) fn page(data: &[String], count: usize, link: &str, next: Option<&str>) -> Reply {
    page_of(&format!("[{}]", data.join(",")), data.len(), count, link, next)
}

/// A list whose data is this JSON.
pub(super) fn page_of(data: &str, size: usize, count: usize, link: &str, next: Option<&str>) -> Reply {
    let mut links = json!({ "self": link });
    if let Some(next) = next {
        links["next"] = next.into();
    }
    Reply::text(
        200,
        format!(r#"{{"type":"list","size":{size},"count":{count},"data":{data},"links":{links}}}"#),
    )
}

/// The latest first, as in the documents' sample.
fn attempts(message: &Delivery) -> Value {
    let attempt = |attempt: &super::super::Attempt| {
        json!({
            "id": attempt.id,
            "url": attempt.url,
            "response": attempt.response,
            "responseStatusCode": attempt.status.unwrap_or(0),
            "timestamp": attempt.at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "status": if attempt.succeeded { "Success" } else { "Failed" },
        })
    };
    message.attempts.iter().rev().map(attempt).collect()
}

/// One filter of those that a query joins by commas.
struct Filter {
    property: String,
    condition: String,
    values: Vec<String>,
}

impl Filter {
    /// `message.date.bt('…','…'),message.status.eq('…')`
    fn read_all(text: &str) -> Result<Vec<Filter>, ()> {
        let (mut filters, mut rest) = (Vec::new(), text);
        loop {
            let (name, after) = rest.split_once('(').ok_or(())?;
            let (property, condition) = name.rsplit_once('.').ok_or(())?;
            let mut values = Vec::new();
            let mut after = after;
            rest = loop {
                let (value, behind) =
                    after.strip_prefix('\'').and_then(|text| text.split_once('\'')).ok_or(())?;
                values.push(value.to_owned());
                match behind.strip_prefix(',') {
                    Some(more) => after = more,
                    None => break behind.strip_prefix(')').ok_or(())?,
                }
            };
            let filter = Filter { property: property.to_owned(), condition: condition.to_owned(), values };
            if !filter.is_known() {
                return Err(());
            }
            filters.push(filter);
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => return if rest.is_empty() { Ok(filters) } else { Err(()) },
            }
        }
    }

    fn is_known(&self) -> bool {
        let is_date = |value: &String| range(value).is_some();
        match (&*self.property, &*self.condition, self.values.len()) {
            ("message.date", "bt", 2) | ("message.date", "gt" | "gteq" | "lt" | "lteq", 1) => {
                self.values.iter().all(is_date)
            }
            ("message.status" | "message.eventTypeId" | "message.eventId" | "message.webhookId", "eq", 1) => {
                true
            }
            _ => false,
        }
    }

    fn admits(&self, message: &Delivery) -> bool {
        let value = &self.values[0];
        match &*self.property {
            "message.status" => value == if message.state == State::Delivered { "Success" } else { "Failed" },
            "message.eventTypeId" => *value == message.kind,
            "message.eventId" => *value == message.event,
            "message.webhookId" => *value == message.subscription,
            _ => {
                let at = seconds(message.first_attempt());
                let (first, last) = range(value).unwrap();
                match &*self.condition {
                    "gt" => at > last,
                    "gteq" => at >= first,
                    "lt" => at < first,
                    "lteq" => at <= last,
                    _ => at >= first && at <= range(&self.values[1]).unwrap().1,
                }
            }
        }
    }
}

/// The first and the last moment that a filter's date means: a time, or a whole day.
fn range(date: &str) -> Option<(Timestamp, Timestamp)> {
    if let Ok(time) = date.parse() {
        return Some((time, time));
    }
    let day: Date = date.parse().ok()?;
    let first = day.to_zoned(TimeZone::UTC).ok()?.timestamp();
    Some((first, first + SignedDuration::from_secs(86_399)))
}

/// Without a fraction, as the log shows it.
fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap()
}

fn not_valid<T>(detail: &str, parameter: &str) -> Result<T, Refusal> {
    let (code, title) = ("parameter-not-valid", "Parameter value is not valid");
    Err(Refusal::Whole(own_error(400, code, title, detail, Some(parameter))))
}
