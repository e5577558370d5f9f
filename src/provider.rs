//! The providers: definitions, and code for what a definition cannot say.
//!
//! Keeps true: a provider is pure (no IO, no clock). It defines how its deliveries are signed, what identifies an event,
//! and how a payload reads in canonical terms. Reading a JSON object never fails: fields that cannot be read are left
//! out. The folder `definitions` has the built-in definitions. `catalog` lists them, and the code that adds to some of
//! them.

mod anduin;
mod atelio;
mod basiq;
pub mod catalog;
mod code;
mod definition;
mod fields;
mod form;
mod handshake;
mod iof;
pub mod normalize;
mod object;
mod pointer;
mod rules;
mod sample;
mod securitize;
pub mod signature;
mod signed_request;
mod standard_webhooks;

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Duration;

use crate::base::label::UNMAPPED;
use crate::config::definitions::BodyForm;
use crate::event::attribute::{MAX_BYTES, hash};
use crate::provider::signature::{Scheme, Signed, SignedRequest};
pub use catalog::Catalog;
pub use code::{Code, PayloadCode, SignedId};
pub use fields::Fields;
pub use handshake::{BodyHandshake, Handshake, HandshakeAnswer, QueryHandshake};
pub use object::{Object, PayloadError};
pub use rules::EventRules;
pub use sample::{SampleDelivery, uuid};

/// A provider of webhooks, compiled from its definition. It may have code too.
#[derive(Debug)]
pub struct Provider {
    /// As the config, the metrics and the events name it.
    pub name: &'static str,
    /// Where its definition is.
    pub origin: Origin,
    /// Whether and how it signs.
    pub signing: Signing,
    /// From a delivery's first attempt to its last. The dedupe window should not be shorter. None: not published.
    pub retries_for: Option<Duration>,
    /// How it validates an endpoint.
    pub handshake: Option<&'static Handshake>,
    /// Its event types and the canonical type of each. None: a type is the provider's name and its type.
    pub types: Option<Types>,
    /// The form of its bodies.
    pub body: BodyForm,
    /// What reads its payloads.
    pub reader: Reader,
    /// What code adds to its definition, or to the one that it is like. None: the definition says all.
    pub code: Option<&'static Code>,
}

/// A provider's types, each with its canonical type.
pub type Types = &'static [(&'static str, &'static str)];

/// Where a provider's definition is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In the program.
    BuiltIn,
    /// In the config.
    Config,
}

impl Origin {
    /// The origin's name.
    pub fn label(self) -> &'static str {
        match self {
            Origin::BuiltIn => "built-in",
            Origin::Config => "config",
        }
    }
}

/// What reads a provider's payloads.
#[derive(Clone, Copy, Debug)]
pub enum Reader {
    /// The rules of a definition.
    Rules(&'static EventRules),
    /// Code of the provider's own.
    Code(&'static PayloadCode),
}

impl Reader {
    /// The rules, if no code reads.
    pub fn rules(self) -> Option<&'static EventRules> {
        match self {
            Reader::Rules(rules) => Some(rules),
            Reader::Code(_) => None,
        }
    }

    /// The code, if code reads.
    pub fn code(self) -> Option<&'static PayloadCode> {
        match self {
            Reader::Rules(_) => None,
            Reader::Code(code) => Some(code),
        }
    }
}

impl Provider {
    /// Reads a payload. `body` is the whole body where the payload is an element of it. `signed` has the facts from a
    /// valid signature.
    pub fn read<'a>(
        &self,
        payload: &Object<'a>,
        body: Option<&Object<'a>>,
        request: &SignedRequest<'a>,
        signed: Option<Signed<'a>>,
    ) -> ParsedPayload<'a> {
        match self.reader {
            Reader::Rules(rules) => rules.read(payload, body, request, signed),
            Reader::Code(code) => ParsedPayload {
                id_is_signed: code.signed_id.is_some_and(|id| id.is_covered(signed)),
                ..(code.read)(payload, signed, self.types.unwrap_or_default())
            },
        }
    }

    /// What is known of a delivery whose body cannot be read: an id that the signature covers, else nothing.
    pub fn unreadable<'a>(
        &self,
        request: &SignedRequest<'a>,
        signed: Option<Signed<'a>>,
    ) -> ParsedPayload<'a> {
        let (identity, id_is_signed) = match self.reader {
            Reader::Rules(rules) => rules.unreadable(request, signed),
            Reader::Code(code) => {
                let message = signed.filter(|_| code.signed_id == Some(SignedId::Message));
                let identity = message.and_then(EventIdentity::message).unwrap_or_default();
                let id_is_signed = identity != EventIdentity::Body;
                (identity, id_is_signed)
            }
        };
        ParsedPayload { identity, id_is_signed, ..ParsedPayload::default() }
    }

    /// For the author of a definition: each key of `[event]`, its pointer, and the value there. Empty if code reads.
    pub fn places(
        &self,
        document: &normalize::Document<'_>,
        request: &SignedRequest<'_>,
        signed: Option<Signed<'_>>,
    ) -> Vec<(&'static str, &'static str, Option<String>)> {
        let body = object::Value::parse(document.json()).ok();
        self.reader.rules().map(|rules| rules.places(body, request, signed)).unwrap_or_default()
    }

    /// The algorithms of its signatures, each once.
    pub fn algorithms(&self) -> Vec<&'static str> {
        let mut algorithms: Vec<_> =
            self.signing.schemes().iter().map(|scheme| scheme.algorithm.label()).collect();
        algorithms.dedup();
        algorithms
    }

    /// Whether only a holder of a private key can sign as it does.
    pub fn signs_with_private_keys(&self) -> bool {
        let schemes = self.signing.schemes();
        !schemes.is_empty() && schemes.iter().all(|scheme| scheme.algorithm.has_public_key())
    }

    /// The canonical type of a provider's type. With a table of types, `unmapped.…` if the table lacks it; without one,
    /// the provider's name and the type.
    pub fn canonical_type(&self, kind: Option<&str>) -> Cow<'static, str> {
        let Some(kind) = kind.filter(|kind| !kind.is_empty()) else {
            return Cow::Borrowed("unmapped.unnamed");
        };
        let category = match self.types {
            Some(types) => match types.iter().find(|(known, _)| *known == kind) {
                Some((_, canonical)) => return Cow::Borrowed(canonical),
                None => Cow::Borrowed(UNMAPPED),
            },
            None => Cow::Owned(plain_letters(self.name)),
        };
        let plain = format!("{category}.{}", plain_letters(kind));
        // An attribute is bounded, so a hash replaces a longer type.
        Cow::Owned(if plain.len() <= MAX_BYTES { plain } else { format!("{category}.{}", hash(kind)) })
    }
}

/// Whether a provider signs its deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signing {
    /// Always: a source needs secrets.
    Always(&'static [Scheme]),
    /// A source has secrets, or is authenticated by other means.
    Sometimes(&'static [Scheme]),
    /// It publishes no way of signing: a source cannot have secrets.
    Never,
}

impl Signing {
    /// The schemes, of which any may match; none if it does not sign.
    pub const fn schemes(self) -> &'static [Scheme] {
        match self {
            Signing::Always(schemes) | Signing::Sometimes(schemes) => schemes,
            Signing::Never => &[],
        }
    }
}

/// The values of a parameter in a query, decoded. None: one is not UTF-8.
pub fn query_values(query: Option<&str>, name: &str) -> Vec<Option<String>> {
    let pairs = form::pairs(query.unwrap_or_default().as_bytes());
    pairs.filter(|(key, _)| key.as_deref() == Some(name)).map(|(_, value)| value).collect()
}

/// A payload in canonical terms, borrowed from its bytes where it can be.
#[derive(Debug, Default)]
pub struct ParsedPayload<'a> {
    /// The provider's type, as sent.
    pub kind: Option<Cow<'a, str>>,
    /// The identity by which a repeated delivery is recognized.
    pub identity: EventIdentity<'a>,
    /// Whether the identity is an id that the signature covers. Another body under it is then no second event.
    pub id_is_signed: bool,
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
    pub(crate) fn own(id: Option<Cow<'a, str>>) -> EventIdentity<'a> {
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
        let basiq = catalog::built_in("basiq").unwrap();
        let of = |kind: &str| basiq.canonical_type(Some(kind)).into_owned();
        assert_eq!(of("user.created"), "user.created");
        assert_eq!(of("Payment-Agreement.ÄCTIVE now"), "unmapped.payment_agreement._ctive_now");
        assert_eq!(basiq.canonical_type(None), "unmapped.unnamed");
        assert_eq!(of(""), "unmapped.unnamed");
        assert_eq!(of(&"É".repeat(591)).len(), 600);
        let long = of(&"É".repeat(592));
        assert!(long.len() == "unmapped.".len() + 32 && long != of(&"é".repeat(592)), "{long}");
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
            let provider = catalog::built_in(provider).unwrap();
            let own = provider.reader.code().unwrap().signed_id;
            assert_eq!((provider.retries_for, own), (retries, signed_id), "{}", provider.name);
        }
    }

    #[test]
    fn no_provider_maps_a_type_twice_and_every_canonical_type_is_category_dot_action() {
        for provider in catalog::built_ins() {
            let types = provider.types.unwrap_or_default();
            for (at, (kind, canonical)) in types.iter().enumerate() {
                assert!(types[..at].iter().all(|(k, _)| k != kind), "{kind}");
                let (category, action) = canonical.split_once('.').unwrap();
                assert!(!category.is_empty() && !action.is_empty(), "{canonical}");
            }
        }
    }
}
