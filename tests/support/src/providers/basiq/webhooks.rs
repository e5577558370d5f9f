//! Basiq's webhooks: checked when they are created or updated, listed and shown.

use serde_json::{Map, Value, json};

use super::super::call::refuse;
use super::super::fields::{self, is_meant, list, of, text, url};
use super::super::{Call, Refusal, Reply};
use super::{Provider, messages, own_error};

impl Provider {
    /// The fields of a create, or of an update of this webhook.
    pub(super) fn checked(&self, call: &Call, updated: Option<&str>) -> Result<Map<String, Value>, Refusal> {
        call.query(&[])?;
        let mut fields = fields::read(call, &["url"], &["name", "description", "subscribedEvents"])?;
        text(&fields, "name")?;
        text(&fields, "description")?;
        let to = url(&fields, "url")?.unwrap().to_owned();
        // The documents declare a list, and post a bare string in the example.
        if let Some(Value::String(event)) = fields.get("subscribedEvents") {
            let event = json!([event]);
            fields.insert("subscribedEvents".to_owned(), event);
        }
        let events = list(&fields, "subscribedEvents")?.unwrap_or_default();
        if events.iter().any(|event| !self.types.contains(event)) {
            return refuse(400, "Posted subscribedEvents contains unsupported event types.");
        }
        let others =
            || self.subscriptions.iter().filter(move |known| updated.is_none_or(|id| known["id"] != id));
        if others().any(|known| known["url"] == to) {
            return refuse(409, "Webhook with provided url already exists.");
        }
        let is_taken = |event: &String| others().any(|known| is_meant(&known["subscribedEvents"], event));
        if events.iter().any(is_taken) {
            let detail = "Posted subscribedEvents contains events that are already subscribed to for this application.";
            let (code, title) = ("event-already-subscribed", "Event already subscribed");
            return Err(Refusal::Whole(own_error(400, code, title, detail, None)));
        }
        Ok(fields)
    }

    pub(super) fn list(&self, call: &Call) -> Result<Reply, Refusal> {
        let query = call.query(&["next"])?;
        let from: usize = query.first().map_or(Ok(0), |(_, next)| next.parse()).unwrap_or(usize::MAX);
        let all = self.subscriptions.iter().map(|webhook| self.shown(webhook, false).to_string());
        let size = self.shapes.webhooks_of_a_page;
        let data: Vec<String> = all.skip(from).take(size).collect();
        let link = self.link("/notifications/webhooks");
        let is_end = from.saturating_add(data.len()) >= self.subscriptions.len();
        let next = (!is_end).then(|| format!("{link}?next={}", from + data.len()));
        if self.shapes.data_as_object && data.len() == 1 {
            return Ok(messages::page_of(&data[0], 1, 1, &link, next.as_deref()));
        }
        Ok(messages::page(&data, self.subscriptions.len(), &link, next.as_deref()))
    }

    /// A webhook as the API shows it: the secret only where it is created or updated.
    pub(super) fn shown(&self, webhook: &Value, with_secret: bool) -> Value {
        let mut shown = webhook.clone();
        shown["links"] =
            json!({ "self": self.link(&format!("/notifications/webhooks/{}", of(webhook, "id"))) });
        if self.shapes.event_as_text && shown["subscribedEvents"].as_array().is_some_and(|all| all.len() == 1)
        {
            shown["subscribedEvents"] = shown["subscribedEvents"][0].take();
        }
        if !with_secret {
            shown.as_object_mut().unwrap().remove("secret");
        }
        shown
    }

    pub(super) fn event_type(&self, kind: &str) -> Value {
        let link = self.link(&format!("/events/types/{kind}"));
        json!({ "type": "eventType", "id": kind, "description": "", "links": { "self": link } })
    }

    pub(super) fn find(&mut self, id: &str) -> Result<&mut Value, Refusal> {
        let is_uuid = id.len() == 36 && id.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
        if !is_uuid {
            let (code, title) = ("path-parameter-not-valid", "Parameter value is not valid");
            let error = own_error(400, code, title, "Webhook ID value is not valid", Some("webhookId"));
            return Err(Refusal::Whole(error));
        }
        let found = self.subscriptions.iter_mut().find(|known| known["id"] == id);
        found.map_or_else(|| refuse(404, "Webhook with provided id doesn't exist."), Ok)
    }
}
