//! Sample payloads, as each provider would send them.
//!
//! Keeps true: two samples are two events, since each has new ids.

use jiff::Timestamp;

use serde_json::Value as Json;

use super::pointer::Root;
use super::signature::{Part, TimeUnit};
use super::{EventRules, Provider, Reader, form};
use crate::config::definitions::BodyForm;
use crate::event::microseconds;

/// The values that a provider puts into its sample.
pub struct Sample<'a> {
    /// The provider's type.
    pub(super) kind: &'a str,
    /// A subscription that the source accepts, if it lists any.
    pub(super) subscription: Option<&'a str>,
    pub(super) time: String,
    pub(super) at: Timestamp,
    random: fn() -> [u8; 16],
}

impl Sample<'_> {
    pub(super) fn number(&self) -> u32 {
        let [a, b, c, d, ..] = (self.random)();
        u32::from_be_bytes([a, b, c, d])
    }

    pub(super) fn uuid(&self) -> String {
        uuid((self.random)())
    }

    /// Twelve digits of hex.
    pub(super) fn short(&self) -> String {
        hex::encode(&(self.random)()[..6])
    }
}

impl Provider {
    /// A sample delivery. `kind` is the provider's type or a canonical one. Any other type is used as it is. `secret` goes
    /// into the body where the provider sends it there.
    pub fn sample(
        &self,
        kind: Option<&str>,
        subscription: Option<&str>,
        secret: Option<&str>,
        now: Timestamp,
        random: fn() -> [u8; 16],
    ) -> SampleDelivery {
        let mut known = self.types.unwrap_or_default().iter();
        let kind = match kind {
            None => known.next().map_or("sample", |(own, _)| own),
            Some(kind) => known.find(|(_, canonical)| *canonical == kind).map_or(kind, |(own, _)| own),
        };
        let of = Sample { kind, subscription, time: microseconds(now), at: now, random };
        match self.reader {
            Reader::Code(code) => SampleDelivery {
                body: (code.sample)(&of).to_string().into_bytes(),
                ..SampleDelivery::default()
            },
            Reader::Rules(rules) => self.sample_by_rules(rules, &of, secret),
        }
    }

    fn sample_by_rules(&self, rules: &EventRules, of: &Sample<'_>, secret: Option<&str>) -> SampleDelivery {
        let mut delivery = SampleDelivery::default();
        let (mut event, mut body) = (Json::Null, Json::Null);
        rules.for_each_value(of, |pointer, value| match pointer.root {
            Root::Event => put(&mut event, pointer.steps, value),
            Root::Body => put(&mut body, pointer.steps, value),
            Root::Form(field) => {
                let mut inner =
                    body.get(field).and_then(Json::as_str).and_then(|text| serde_json::from_str(text).ok());
                let mut inner = inner.take().unwrap_or(Json::Null);
                put(&mut inner, pointer.steps, value);
                put(&mut body, &[field], inner.to_string().into());
            }
            Root::Header(name) => delivery.headers.extend(value.as_str().map(|text| (name, text.to_owned()))),
            Root::Query(name) => delivery.query.extend(value.as_str().map(|text| (name, text.to_owned()))),
        });
        for scheme in self.signing.schemes() {
            if let (Some((pointer, _)), Some(secret)) = (scheme.secret_in_body, secret) {
                put(&mut event, pointer.steps, secret.into());
            }
            if let Some(pointer) = scheme.time_in_body {
                put(&mut event, pointer.steps, in_unit(scheme.unit, of.at));
            }
            for part in scheme.signed {
                if let Part::Header(name) = part
                    && delivery.headers.iter().all(|(known, _)| known != name)
                {
                    delivery.headers.push((name, of.short()));
                }
            }
        }
        match rules.each {
            Some(each) => {
                let steps: Vec<&str> =
                    each.steps.iter().map(|step| if *step == "*" { "0" } else { *step }).collect();
                put(&mut body, &steps, Json::Array(vec![object(event)]));
            }
            None => merge(&mut body, event),
        }
        let body = if rules.each.is_some_and(|each| each.steps.is_empty()) { body } else { object(body) };
        delivery.body = match self.body {
            BodyForm::Form => {
                delivery.content_type = "application/x-www-form-urlencoded";
                form::of_json(&body).into_bytes()
            }
            BodyForm::Json | BodyForm::Auto => body.to_string().into_bytes(),
        };
        delivery
    }
}

/// A time as a body has it.
fn in_unit(unit: TimeUnit, at: Timestamp) -> Json {
    match unit {
        TimeUnit::Seconds => at.as_second().into(),
        TimeUnit::Milliseconds => at.as_millisecond().into(),
        TimeUnit::Rfc3339 => microseconds(at).into(),
    }
}

/// A sample delivery, without its signature.
#[derive(Clone, Debug)]
pub struct SampleDelivery {
    /// Headers that its provider's definition reads or covers.
    pub headers: Vec<(&'static str, String)>,
    /// The parameters of the query.
    pub query: Vec<(&'static str, String)>,
    /// The type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

impl Default for SampleDelivery {
    fn default() -> SampleDelivery {
        SampleDelivery {
            headers: Vec::new(),
            query: Vec::new(),
            content_type: "application/json",
            body: Vec::new(),
        }
    }
}

/// Sets the value at these keys. A key of digits is an array's index, and the array is filled up to it.
fn put(into: &mut Json, steps: &[&str], value: Json) {
    let Some((step, below)) = steps.split_first() else {
        *into = value;
        return;
    };
    let index: Option<usize> = step.parse().ok().filter(|at| *at < MAX_INDEX);
    let place = match index {
        Some(at) if !into.is_object() => {
            if !into.is_array() {
                *into = Json::Array(Vec::new());
            }
            let Json::Array(elements) = into else { return };
            if elements.len() <= at {
                elements.resize(at + 1, Json::Null);
            }
            elements.get_mut(at)
        }
        _ => {
            if !into.is_object() {
                *into = Json::Object(serde_json::Map::new());
            }
            let Json::Object(members) = into else { return };
            Some(members.entry(*step).or_insert(Json::Null))
        }
    };
    if let Some(place) = place {
        put(place, below, value);
    }
}

fn object(value: Json) -> Json {
    if value.is_object() { value } else { Json::Object(serde_json::Map::new()) }
}

/// Adds the members of `from` to those of `into`, in their objects too.
fn merge(into: &mut Json, from: Json) {
    match (into, from) {
        (Json::Object(into), Json::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Json::Null), value);
            }
        }
        (into, Json::Null) => object_if_null(into),
        (into, from) => *into = from,
    }
}

fn object_if_null(value: &mut Json) {
    if value.is_null() {
        *value = Json::Object(serde_json::Map::new());
    }
}

/// No sample has a longer array.
const MAX_INDEX: usize = 64;

/// A random UUID made of these bytes.
pub fn uuid(mut bytes: [u8; 16]) -> String {
    // RFC 9562: version 4, and its variant.
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex::encode(bytes);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
