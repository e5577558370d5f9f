//! Reads an event back from the text that a queue holds.
//!
//! Keeps true: the text is not changed and the payload is not decoded. Another program's text gives `None`.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Event;

/// The attributes that an event is shown and searched by.
#[derive(Clone, Debug, Deserialize)]
pub struct Head<'a> {
    /// `id`.
    #[serde(borrow)]
    pub id: Cow<'a, str>,
    /// `source`: the configured path.
    #[serde(borrow)]
    pub source: Cow<'a, str>,
    /// `type`.
    #[serde(borrow, rename = "type")]
    pub kind: Cow<'a, str>,
    /// `subject`, if the event has one.
    pub subject: Option<String>,
    /// `recordedtime`: RFC 3339.
    #[serde(borrow)]
    pub recordedtime: Cow<'a, str>,
}

impl<'a> Head<'a> {
    /// Reads an event's attributes.
    ///
    /// # Errors
    /// When the text is not an event of this schema.
    pub fn parse(json: &'a str) -> serde_json::Result<Head<'a>> {
        serde_json::from_str(json)
    }
}

impl Event {
    /// Reads a whole event, and its provider's name. `None` if no gateway wrote the text.
    pub fn parse(json: String) -> Option<(Event, String)> {
        let stored: Stored<'_> = serde_json::from_str(&json).ok()?;
        // `id` is the second attribute, and `data` is the last member.
        let id_end = (ID_START.len() + stored.raw_id.get().len()).checked_sub(1)?;
        let data_start = json.len().checked_sub(DATA_KEY.len() + stored.data.get().len() + 1)?;
        let id = serde_json::from_str(stored.raw_id.get()).ok()?;
        let Stored { source, kind, partition_key, provider, .. } = stored;
        let starts_as_written = json.starts_with(ID_START);
        let event = Event::restore(id, Arc::from(source), kind, partition_key, json, (id_end, data_start))?;
        starts_as_written.then_some((event, provider))
    }
}

#[derive(Deserialize)]
struct Stored<'a> {
    #[serde(borrow, rename = "id")]
    raw_id: &'a RawValue,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(rename = "partitionkey")]
    partition_key: String,
    provider: String,
    #[serde(borrow)]
    data: &'a RawValue,
}

const ID_START: &str = "{\"specversion\":\"1.0\",\"id\":";
const DATA_KEY: &str = "\"data\":";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::BodyHash;

    #[test]
    fn what_was_written_is_read_back() {
        let pretty = "{\n  \"data\": {\"id\": \"other\"},\r\n  \"n\": 1.0 }";
        for event in [
            Event::for_test("quote\"d, \"data\":"),
            Event::with_payload("évt", pretty),
            Event::with_payload("e", pretty).quarantined().conflicting(&BodyHash::of(b"other")),
        ] {
            let (read, provider) = Event::parse(event.json.clone()).unwrap();
            assert_eq!((read.offsets(), &read.json), (event.offsets(), &event.json));
            assert_eq!((&read.id, &read.source, &read.kind), (&event.id, &event.source, &event.kind));
            assert_eq!((&read.partition_key, provider.as_str()), (&event.partition_key, "basiq"));
            assert_eq!(Head::parse(&event.json).unwrap().id, event.id);
        }
    }

    #[test]
    fn what_no_gateway_wrote_is_no_event() {
        let event = Event::for_test("e").json;
        let reordered = event.replacen("\"specversion\":\"1.0\",\"id\":\"e\"", "\"id\":\"e\"", 1);
        for text in ["", "{}", "null", &reordered, &format!(" {event}"), &format!("{event} ")] {
            assert!(Event::parse(text.to_owned()).is_none(), "{text}");
        }
    }
}
