//! What Anduin and Basiq do besides the grammar when they sign by Standard Webhooks.

use crate::provider::signature::Scheme;

/// Base64 keeps its padding. Headers renamed to `svix-` are explained, and not read.
pub(super) fn complete(scheme: Scheme) -> Scheme {
    Scheme { padded: true, renamed: Some(("webhook-", "svix-")), ..scheme }
}
