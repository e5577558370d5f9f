//! Changes an event after it was written: another body came first, it was in the quarantine, or it is replayed.
//!
//! Keeps true: the text stays the same, except for the id and one more attribute. That stands before `traceparent`, which
//! is the last one before `data`.

use super::{BodyHash, Event};
use crate::base::trace_context::TraceContext;

impl Event {
    /// The event as the second or a later body with its identity. The id gets `~` and 8 hex digits of the body's
    /// SHA-256, and `conflict` is true.
    pub fn conflicting(&self, body: &BodyHash) -> Event {
        self.marked(conflict_id(&self.id, body), "\"conflict\":true,")
    }

    /// The event as accepted from the quarantine: `quarantined` is true.
    pub fn quarantined(&self) -> Event {
        self.marked(self.id.clone(), "\"quarantined\":true,")
    }

    /// The event as an operator replays it: `replayed` is true. An event that was replayed before stays as it is.
    pub fn replayed(&self) -> Event {
        // No value can hold this text: a quote in it would be escaped.
        if self.json[..self.data_start].contains(REPLAYED) {
            return self.clone();
        }
        self.marked(self.id.clone(), REPLAYED)
    }

    /// The value of `traceparent`, if the event has one.
    pub fn traceparent(&self) -> Option<&str> {
        self.json.get(self.traceparent_start()?..)?.get(TRACEPARENT.len()..)?.get(..TraceContext::LENGTH)
    }

    /// The position of the key `"traceparent"`. Its value has a fixed length. No other value ends so: a quote in it would
    /// be escaped.
    fn traceparent_start(&self) -> Option<usize> {
        let start = self.data_start.checked_sub(TRACEPARENT.len() + TraceContext::LENGTH + "\",".len())?;
        self.json.get(start..)?.starts_with(TRACEPARENT).then_some(start)
    }

    /// With an id that starts with the current id, and one more attribute.
    fn marked(&self, id: String, mark: &str) -> Event {
        let suffix = &id[self.id.len()..];
        let mut json = String::with_capacity(self.json.len() + suffix.len() + mark.len());
        json.push_str(&self.json[..self.id_end]);
        json.push_str(suffix);
        let at = self.traceparent_start().unwrap_or(self.data_start);
        json.push_str(&self.json[self.id_end..at]);
        json.push_str(mark);
        json.push_str(&self.json[at..]);
        Event {
            json,
            id_end: self.id_end + suffix.len(),
            data_start: self.data_start + suffix.len() + mark.len(),
            source: self.source.clone(),
            kind: self.kind.clone(),
            partition_key: self.partition_key.clone(),
            id,
        }
    }
}

/// The id for another body with a known identity.
pub fn conflict_id(id: &str, body: &BodyHash) -> String {
    format!("{id}~{}", hex::encode(&body.0[..4]))
}

const REPLAYED: &str = "\"replayed\":true,";
const TRACEPARENT: &str = "\"traceparent\":\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conflict_is_the_same_event_with_another_id_and_a_mark() {
        let body = BodyHash::of(b"other");
        let first = Event::for_test("quote\"d");
        let second = first.conflicting(&body);
        let [mut a, b]: [serde_json::Value; 2] =
            [&first, &second].map(|event| serde_json::from_str(&event.json).unwrap());
        a["id"] = format!("quote\"d~{}", &body.hex()[..8]).into();
        a["conflict"] = true.into();
        assert_eq!(a, b);
        assert_eq!(second.id, a["id"]);
        assert_eq!(first.quarantined().id, first.id);
        let kept: serde_json::Value =
            serde_json::from_str(&first.quarantined().conflicting(&body).json).unwrap();
        assert_eq!((&kept["quarantined"], &kept["conflict"]), (&true.into(), &true.into()));
        let third = second.conflicting(&body);
        serde_json::from_str::<serde_json::Value>(&third.json).unwrap();
    }

    #[test]
    fn marks_stand_before_the_trace_and_leave_it() {
        let trace = TraceContext { sampled: true, ..TraceContext::root([0xab; 16], [0xcd; 8]) };
        let traced = Event::of_trace("evt-1", "{}", Some(trace));
        assert_eq!(traced.traceparent(), Some(&*trace.to_string()));
        let marked = traced.quarantined().conflicting(&BodyHash::of(b"other")).replayed();
        let end = format!(
            "\"quarantined\":true,\"conflict\":true,\"replayed\":true,\"traceparent\":\"{trace}\",\"data\":{{"
        );
        assert!(marked.json.contains(&end), "{}", marked.json);
        for event in [&marked, &marked.replayed(), &Event::parse(marked.json.clone()).unwrap().0] {
            assert_eq!((event.traceparent(), &event.json), (Some(&*trace.to_string()), &marked.json));
        }
        // A payload or an id that looks like one is none.
        let written = format!("\"traceparent\":\"{trace}\",");
        for id in [written.as_str(), &written.replace('"', "\\\""), "evt-1"] {
            let event = Event::with_payload(id, &format!("{{{written}\"data\":1}}"));
            assert_eq!(event.traceparent(), None, "{}", event.json);
            assert_eq!(event.conflicting(&BodyHash::of(b"other")).traceparent(), None);
        }
    }

    #[test]
    fn a_replayed_event_is_the_same_event_with_one_mark_however_often_it_is_replayed() {
        let body = BodyHash::of(b"other");
        let lookalike = "{\"a\":\",\\\"replayed\\\":true,\",\"replayed\":true,\"b\":1}";
        for event in [
            Event::for_test("quote\"d"),
            Event::for_test(",\"replayed\":true,"),
            Event::with_payload("evt-1", lookalike).quarantined().conflicting(&body),
        ] {
            let once = event.replayed();
            let [mut before, after]: [serde_json::Value; 2] =
                [&event, &once].map(|event| serde_json::from_str(&event.json).unwrap());
            assert_eq!(before["replayed"], serde_json::Value::Null);
            before["replayed"] = true.into();
            assert_eq!((before, &once.id), (after, &event.id));
            let mark = once.offsets().1 - REPLAYED.len();
            assert!(once.json[mark..].starts_with("\"replayed\":true,\"data\":{"), "{}", once.json);
            assert_eq!(once.replayed().json, once.json);
            let (read, _) = Event::parse(once.json.clone()).unwrap();
            assert_eq!(read.replayed().json, once.json, "read back from a queue");
        }
    }
}
