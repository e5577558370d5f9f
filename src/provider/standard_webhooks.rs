//! Standard Webhooks 1.0, by which several providers sign.

use std::time::Duration;

use crate::provider::signature::{Encoding, Format, Part, Scheme, SecretForm, VerifiedBy, Version};

pub(super) const SCHEME: Scheme = Scheme {
    header: "webhook-signature",
    format: Format::List { timestamp: "webhook-timestamp" },
    versions: &[Version { label: "v1", timestamp: None, old: false }],
    id: Some("webhook-id"),
    signed: &[Part::Id, Part::Text("."), Part::Timestamp, Part::Text("."), Part::Body],
    encoding: Encoding::Base64,
    secret: SecretForm::Whsec,
    verified_by: VerifiedBy::StandardWebhooks,
    renamed: Some(("webhook-", "svix-")),
    accept_old: false,
};

/// The schedule that Basiq and Anduin publish: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 10 h after one another.
pub(super) const RETRIES_FOR: Duration = Duration::from_secs(5 + 300 + 1800 + 7200 + 18000 + 36000 + 36000);
