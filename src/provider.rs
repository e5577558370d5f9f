//! The providers: one table, one file each.
//!
//! Keeps true: a provider is pure (no IO, no clock, no config). It defines how its deliveries are signed, what
//! identifies an event, and how a payload reads in canonical terms. Its event types are data, one row a type. Reading a
//! JSON object never fails: fields that cannot be read are left out.

mod anduin;
mod atelio;
mod basiq;
mod fields;
mod iof;
pub mod normalize;
mod object;
mod sample;
mod securitize;
pub mod signature;
mod standard_webhooks;

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value;

use crate::base::label::UNMAPPED;
use crate::event::attribute::{MAX_BYTES, hash};
use crate::provider::signature::{Scheme, Signed};
pub use fields::Fields;
pub use object::{Object, PayloadError};
use sample::Sample;
pub use sample::uuid;

/// A provider of webhooks: data, and the functions that read and make its payloads.
pub struct Provider {
    /// As the config, the metrics and the events name it.
    pub name: &'static str,
    /// Whether and how it signs.
    pub signing: Signing,
    /// From a delivery's first attempt to its last. The dedupe window should not be shorter. None: not published.
    pub retries_for: Option<Duration>,
    /// The header of a validation key. The provider sends it in the GET that registers an endpoint, and expects it
    /// back.
    pub challenge_header: Option<&'static str>,
    /// Where its own signed id is. Another body with the same id is no second event.
    pub signed_id: Option<SignedId>,
    /// Its event types and the canonical type of each.
    pub types: &'static [(&'static str, &'static str)],
    /// The fields that its payloads are known to have.
    pub fields: &'static Fields,
    read: for<'a> fn(&Object<'a>, Option<Signed<'a>>) -> ParsedPayload<'a>,
    sample: fn(&Sample<'_>) -> Value,
}

/// Where a delivery has the provider's own id, which its signature covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignedId {
    /// In the payload.
    Payload,
    /// In the scheme's header for the message id.
    Message,
}

impl Provider {
    /// Reads a payload. `signed` has the facts from a valid signature.
    pub fn read<'a>(&self, payload: &Object<'a>, signed: Option<Signed<'a>>) -> ParsedPayload<'a> {
        (self.read)(payload, signed)
    }

    /// The identity of a delivery whose body is no JSON object: an id that the signature covers, else the body.
    pub fn unreadable_identity<'a>(&self, signed: Option<Signed<'a>>) -> EventIdentity<'a> {
        let message = signed.filter(|_| self.signed_id == Some(SignedId::Message));
        message.and_then(EventIdentity::message).unwrap_or_default()
    }
}

/// Whether a provider signs its deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signing {
    /// Always: a source needs secrets.
    Always(Scheme),
    /// Its current system does; its old one needs a path token instead.
    Sometimes(Scheme),
    /// It publishes no way of signing: a source cannot have secrets.
    Never,
}

impl Signing {
    /// The scheme, if it signs.
    pub fn scheme(self) -> Option<Scheme> {
        match self {
            Signing::Always(scheme) | Signing::Sometimes(scheme) => Some(scheme),
            Signing::Never => None,
        }
    }
}

/// Every provider.
pub static TABLE: [&Provider; 5] =
    [&securitize::PROVIDER, &anduin::PROVIDER, &basiq::PROVIDER, &atelio::PROVIDER, &iof::PROVIDER];

/// The provider of that name.
pub fn by_name(name: &str) -> Option<&'static Provider> {
    TABLE.into_iter().find(|provider| provider.name == name)
}

/// The headers that carry signatures: a record may keep a fingerprint of them, never the text.
pub static SIGNATURE_HEADERS: LazyLock<Vec<&str>> =
    LazyLock::new(|| each_once(schemes().map(|scheme| scheme.header)));

/// The headers that carry a delivery's id or time.
pub static IDENTIFYING_HEADERS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let headers = schemes().map(|scheme| scheme.identifying_headers().collect::<Vec<_>>());
    each_once(headers.flatten())
});

fn schemes() -> impl Iterator<Item = Scheme> {
    TABLE.iter().filter_map(|provider| provider.signing.scheme())
}

fn each_once(names: impl Iterator<Item = &'static str>) -> Vec<&'static str> {
    let mut seen = HashSet::new();
    names.filter(|name| seen.insert(*name)).collect()
}

/// A payload in canonical terms, borrowed from its bytes where it can be.
#[derive(Debug, Default)]
pub struct ParsedPayload<'a> {
    /// The provider's type, as sent.
    pub kind: Option<Cow<'a, str>>,
    /// The identity by which a repeated delivery is recognized.
    pub identity: EventIdentity<'a>,
    /// When it happened, in UTC.
    pub time: Option<String>,
    /// Securitize's nonce.
    pub sequence: Option<u64>,
    /// What the nonce counts: the subscription.
    pub sequence_scope: Option<Cow<'a, str>>,
    /// The tenant that it belongs to.
    pub tenant: Option<Entity<'a>>,
    /// The entity that it is about.
    pub subject: Option<Entity<'a>>,
    /// The other entities that it names.
    pub related: Vec<Entity<'a>>,
    /// The state that it reports.
    pub status: Option<Status<'a>>,
    /// URLs by their names.
    pub links: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// A health check, which is answered and not forwarded.
    pub health_check: bool,
}

/// The parts of a delivery's identity.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum EventIdentity<'a> {
    /// The provider's own id, which is the event's too.
    Own(Cow<'a, str>),
    /// These parts in this order.
    Parts {
        /// None: the payload lacks this part.
        parts: Vec<Option<Cow<'a, str>>>,
        /// Whether the body's SHA-256 is one more part.
        and_body: bool,
    },
    /// The body's SHA-256 alone: the payload lacks a part that an identity needs.
    #[default]
    Body,
}

impl<'a> EventIdentity<'a> {
    /// The provider's own id, or the body where it is missing or empty (an event's id cannot be empty).
    fn own(id: Option<Cow<'a, str>>) -> EventIdentity<'a> {
        match id {
            Some(id) if !id.is_empty() => EventIdentity::Own(id),
            _ => EventIdentity::Body,
        }
    }

    /// The message id, if the signature covers it. An unsigned header identifies nothing, since a client can change it.
    fn message(signed: Signed<'a>) -> Option<EventIdentity<'a>> {
        Some(EventIdentity::Own(Cow::Borrowed(signed.message_id?)))
    }
}

/// An entity that a payload names, such as an investor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entity<'a> {
    /// What it is, singular, lower case.
    pub kind: Cow<'a, str>,
    /// The provider's id for it.
    pub id: Cow<'a, str>,
}

impl<'a> Entity<'a> {
    /// An entity, if there is an id for it that is not empty.
    fn some(kind: &'static str, id: Option<Cow<'a, str>>) -> Option<Entity<'a>> {
        id.filter(|id| !id.is_empty()).map(|id| Entity { kind: Cow::Borrowed(kind), id })
    }

    fn into_owned(self) -> Entity<'static> {
        Entity { kind: Cow::Owned(self.kind.into_owned()), id: Cow::Owned(self.id.into_owned()) }
    }
}

/// A change of state, in the provider's words.
#[derive(Debug, PartialEq, Eq)]
pub struct Status<'a> {
    /// The state before, if the payload has it.
    pub from: Option<Cow<'a, str>>,
    /// The state now.
    pub to: Option<Cow<'a, str>>,
}

impl<'a> Status<'a> {
    fn now(to: Option<Cow<'a, str>>) -> Option<Status<'a>> {
        to.map(|to| Status { from: None, to: Some(to) })
    }
}

/// The entities among `named` that are none of `known`, each once.
fn other_entities<'a>(
    named: impl Iterator<Item = Entity<'a>>,
    known: [Option<&Entity<'a>>; 2],
) -> Vec<Entity<'a>> {
    // The sender chooses how many there are, so they are not compared pairwise.
    let mut seen = HashSet::new();
    named.filter(|entity| !known.contains(&Some(entity)) && seen.insert(entity.clone())).collect()
}

/// The canonical type of a provider's type; `unmapped.…` if the table lacks it.
pub fn canonical_type(
    types: &'static [(&'static str, &'static str)],
    kind: Option<&str>,
) -> Cow<'static, str> {
    let Some(kind) = kind.filter(|kind| !kind.is_empty()) else {
        return Cow::Borrowed("unmapped.unnamed");
    };
    if let Some((_, canonical)) = types.iter().find(|(known, _)| *known == kind) {
        return Cow::Borrowed(canonical);
    }
    let plain = format!("{UNMAPPED}.{}", plain_letters(kind));
    // An attribute is bounded, so a hash replaces a longer type.
    Cow::Owned(if plain.len() <= MAX_BYTES { plain } else { format!("{UNMAPPED}.{}", hash(kind)) })
}

/// In lower case, everything outside `a-z0-9_.` as `_`.
fn plain_letters(kind: &str) -> String {
    let plain = |c: char| if matches!(c, 'a'..='z' | '0'..='9' | '_' | '.') { c } else { '_' };
    kind.to_lowercase().chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_type_is_unmapped_in_plain_letters() {
        let types = basiq::PROVIDER.types;
        assert_eq!(canonical_type(types, Some("user.created")), "user.created");
        assert_eq!(
            canonical_type(types, Some("Payment-Agreement.ÄCTIVE now")),
            "unmapped.payment_agreement._ctive_now"
        );
        assert_eq!(canonical_type(types, None), "unmapped.unnamed");
        assert_eq!(canonical_type(types, Some("")), "unmapped.unnamed");
        assert_eq!(canonical_type(types, Some(&"É".repeat(591))).len(), 600);
        let long = canonical_type(types, Some(&"É".repeat(592))).into_owned();
        assert!(
            long.len() == "unmapped.".len() + 32 && long != canonical_type(types, Some(&"é".repeat(592))),
            "{long}"
        );
    }

    #[test]
    fn each_provider_retries_as_long_as_it_says_and_identifies_by_what_is_signed() {
        let within =
            |hours: u64, minutes, seconds| Some(Duration::from_secs((hours * 60 + minutes) * 60 + seconds));
        let standard = within(27, 35, 5);
        for (provider, retries, signed_id) in [
            ("securitize", None, None),
            ("anduin", standard, Some(SignedId::Message)),
            ("basiq", standard, Some(SignedId::Payload)),
            ("atelio", within(72, 0, 0), None),
            ("iof", within(2, 36, 0), Some(SignedId::Payload)),
        ] {
            let provider = by_name(provider).unwrap();
            assert_eq!((provider.retries_for, provider.signed_id), (retries, signed_id), "{}", provider.name);
        }
    }

    #[test]
    fn no_provider_maps_a_type_twice_and_every_canonical_type_is_category_dot_action() {
        for provider in TABLE {
            for (at, (kind, canonical)) in provider.types.iter().enumerate() {
                assert!(provider.types[..at].iter().all(|(k, _)| k != kind), "{kind}");
                let (category, action) = canonical.split_once('.').unwrap();
                assert!(!category.is_empty() && !action.is_empty(), "{canonical}");
            }
        }
    }
}
