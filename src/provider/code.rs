//! What code adds to a built-in definition, because the grammar cannot say it.
//!
//! Keeps true: a definition without code says all of its provider. Code that a definition has is a `Code` of its name,
//! and `catalog` lists each.

use serde_json::Value;

use super::object::Object;
use super::sample::Sample;
use super::signature::{Scheme, Signed};
use super::{Fields, ParsedPayload, Types};

/// What code adds to one built-in definition.
#[derive(Debug)]
pub struct Code {
    /// The definition's name.
    pub name: &'static str,
    /// Whether a source must have secrets. The grammar leaves it to the source.
    pub needs_secrets: bool,
    /// Completes the definition's scheme, for example with a `Format` of its own. A definition with `like` does not
    /// inherit it.
    pub scheme: Option<fn(Scheme) -> Scheme>,
    /// Reads payloads, also those of a definition like it that has no `event`. None: the definition's `event` does.
    pub payloads: Option<PayloadCode>,
    /// Reads lists of signatures as senders of Standard Webhooks and proxies write them. Sets `verifiedby` to
    /// `standard-webhooks`. Takes public keys with `whpk_`. A definition with `like` inherits it.
    pub standard_webhooks: bool,
    /// Decodes some percent escapes of the signed URL. A definition with `like` inherits it.
    pub decoded_url: bool,
}

impl Code {
    /// No code.
    pub const NONE: Code = Code {
        name: "",
        needs_secrets: false,
        scheme: None,
        payloads: None,
        standard_webhooks: false,
        decoded_url: false,
    };
}

/// Code that reads a provider's payloads.
#[derive(Debug)]
pub struct PayloadCode {
    /// Reads a payload. `signed` has the facts from a valid signature. The definition has the types.
    pub read: for<'a> fn(&Object<'a>, signed: Option<Signed<'a>>, Types) -> ParsedPayload<'a>,
    /// Makes a sample payload.
    pub sample: fn(&Sample<'_>) -> Value,
    /// The fields that the payloads are known to have.
    pub fields: &'static Fields,
    /// Where the provider's own signed id is. Another body with the same id is no second event.
    pub signed_id: Option<SignedId>,
    /// Whether the payloads name the subscription that sent them, which a source may list.
    pub has_subscriptions: bool,
}

/// Where a delivery has the provider's own id, which its signature covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignedId {
    /// In the payload.
    Payload,
    /// In the scheme's header for the message id.
    Message,
}

impl SignedId {
    /// Whether this signature covers the id. A definition like the provider may sign less.
    pub fn is_covered(self, signed: Option<Signed<'_>>) -> bool {
        match self {
            SignedId::Payload => signed.is_some_and(|signed| signed.scheme.algorithm.covers_body()),
            SignedId::Message => signed.is_some_and(|signed| signed.message_id.is_some()),
        }
    }
}
