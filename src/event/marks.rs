//! Changes an event after it was written: another body came first, or it was in the quarantine.
//!
//! Keeps true: the text stays the same, except for the id and one more attribute before `data`.

use super::{BodyHash, Event};

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

    /// With an id that starts with the current id, and one more attribute at the end.
    fn marked(&self, id: String, mark: &str) -> Event {
        let suffix = &id[self.id.len()..];
        let mut json = String::with_capacity(self.json.len() + suffix.len() + mark.len());
        json.push_str(&self.json[..self.id_end]);
        json.push_str(suffix);
        json.push_str(&self.json[self.id_end..self.data_start]);
        json.push_str(mark);
        json.push_str(&self.json[self.data_start..]);
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
}
