//! The places that a definition reads, and what is there, for its author.

use super::{EntityRule, EventRules, Found, KindRule, Source, Word};
use crate::provider::object::Value;
use crate::provider::pointer::keep;
use crate::provider::signature::Signed;
use crate::provider::signed_request::SignedRequest;

impl EventRules {
    /// Each key of `[event]`, its pointer, and the value there in the first event of a body.
    pub(in crate::provider) fn places(
        &self,
        body: Option<Value<'_>>,
        request: &SignedRequest<'_>,
        signed: Option<Signed<'_>>,
    ) -> Vec<(&'static str, &'static str, Option<String>)> {
        let elements = self.each.and_then(|each| each.elements(body?));
        let first = match (self.each, &elements) {
            (Some(_), elements) => elements.as_ref().and_then(|elements| elements.first().copied()),
            (None, _) => body,
        };
        let (event, body) = (first.and_then(Value::object), body.and_then(Value::object));
        let found = Found::of(self, event.as_ref(), body.as_ref().or(event.as_ref()), *request, signed);
        let mut places = Vec::new();
        if let Some(each) = self.each {
            let path: String = each.steps.iter().flat_map(|step| ["/", *step]).collect();
            let found = match elements.as_deref() {
                Some([_]) => "1 event".to_owned(),
                Some(elements) => format!("{} events", elements.len()),
                None => "(no list)".to_owned(),
            };
            let path = if path.is_empty() { "\"\"" } else { keep(&path) };
            places.push(("each", path, Some(found)));
        }
        for (key, source) in self.sources() {
            let value = match found.text(source) {
                Some(text) if key == "time" && super::time(&text).is_none() => Some(format!(
                    "{text} (neither RFC 3339 with an offset nor unix seconds, so the event has no time)"
                )),
                Some(text) => Some(text.into_owned()),
                None => found.is_there(source).then(|| "(no text or number)".to_owned()),
            };
            places.push((key, source.pointer.text, value));
        }
        places
    }

    fn sources(&self) -> Vec<(&'static str, &Source)> {
        let mut sources = Vec::new();
        let (KindRule::Joined(kinds) | KindRule::First(kinds)) = &self.kind;
        sources.extend(kinds.iter().map(|source| ("type", source)));
        sources.extend(self.id.iter().map(|source| ("id", source)));
        sources.extend(self.time.iter().map(|source| ("time", source)));
        let subject = self.subject.iter().map(|rule| ("subject", rule));
        let tenant = self.tenant.iter().map(|rule| ("tenant", rule));
        let related = self.related.iter().map(|rule| ("related", rule));
        for (key, EntityRule { kind, id }) in subject.chain(tenant).chain(related) {
            if let Word::At(source) = kind {
                sources.push((key, source));
            }
            sources.push((key, id));
        }
        if let Some((from, to)) = &self.status {
            sources.extend(from.iter().map(|source| ("status.from", source)));
            sources.extend(to.iter().map(|source| ("status.to", source)));
        }
        sources
    }
}
