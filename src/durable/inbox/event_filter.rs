//! Decides which events of a queue an operator asked for.
//!
//! Keeps true: every queue is searched by the same rules. A filter that is not set matches every event.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::event::Head;
use crate::event::type_pattern::fits;

/// The wanted events. An event must match every filter that is set.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// One of these ids.
    pub ids: Option<BTreeSet<String>>,
    /// `source`: a source's path.
    pub source: Option<String>,
    /// `type`; `*` stands for any characters, dots too.
    pub kind: Option<String>,
    /// `subject`.
    pub subject: Option<String>,
    /// `recordedtime` is this time or later.
    pub since: Option<Timestamp>,
    /// `recordedtime` is before this time.
    pub until: Option<Timestamp>,
}

impl EventFilter {
    /// Whether an event matches. A text that is not an event of this schema never does.
    pub fn wants(&self, event: &str) -> bool {
        let Ok(head) = Head::parse(event) else { return false };
        self.wants_columns(&head.id, &head.kind, &head.source) && self.wants_rest(&head)
    }

    /// The same for an event that is stored with its id, type and source beside it. Reads the text only if it must.
    pub(super) fn wants_stored<'t, E>(
        &self,
        (id, kind, source): (&str, &str, &str),
        event: impl FnOnce() -> Result<&'t str, E>,
    ) -> Result<bool, E> {
        if !self.wants_columns(id, kind, source) {
            return Ok(false);
        }
        if self.subject.is_none() && self.since.is_none() && self.until.is_none() {
            return Ok(true);
        }
        let event = event()?;
        Ok(Head::parse(event).is_ok_and(|head| self.wants_rest(&head)))
    }

    fn wants_columns(&self, id: &str, kind: &str, source: &str) -> bool {
        self.ids.as_ref().is_none_or(|ids| ids.contains(id))
            && self.source.as_ref().is_none_or(|wanted| wanted == source)
            && self.kind.as_ref().is_none_or(|pattern| fits(pattern, kind))
    }

    fn wants_rest(&self, head: &Head<'_>) -> bool {
        if self.subject.is_some() && self.subject != head.subject {
            return false;
        }
        if self.since.is_none() && self.until.is_none() {
            return true;
        }
        let Ok(at) = head.recordedtime.parse::<Timestamp>() else { return false };
        self.since.is_none_or(|since| at >= since) && self.until.is_none_or(|until| at < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    #[test]
    fn an_event_must_match_every_filter() {
        let event = Event::for_test("evt-1");
        let recorded = Timestamp::UNIX_EPOCH;
        let text = |text: &str| Some(text.to_owned());
        let all = EventFilter {
            ids: Some(["evt-0", "evt-1"].map(str::to_owned).into()),
            source: text("/hooks/test"),
            kind: text("kyc.*"),
            subject: None,
            since: Some(recorded),
            until: Some(recorded + jiff::SignedDuration::from_micros(1)),
        };
        let wants = |filter: &EventFilter| {
            let columns = (event.id.as_str(), event.kind.as_ref(), event.source.as_ref());
            let stored = filter.wants_stored(columns, || Ok::<_, ()>(&*event.json)).unwrap();
            assert_eq!(filter.wants(&event.json), stored, "{filter:?}");
            stored
        };
        assert!(wants(&all) && wants(&EventFilter::default()));
        for wrong in [
            EventFilter { ids: Some(BTreeSet::new()), ..all.clone() },
            EventFilter { source: text("/hooks/tes"), ..all.clone() },
            EventFilter { kind: text("kyc"), ..all.clone() },
            EventFilter { subject: text("user/1"), ..all.clone() },
            EventFilter { since: all.until, ..all.clone() },
            EventFilter { until: Some(recorded), ..all.clone() },
        ] {
            assert!(!wants(&wrong), "{wrong:?}");
        }
        assert!(!EventFilter::default().wants("{}"), "no event");
    }
}
