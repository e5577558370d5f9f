//! Standard Webhooks 1.0 with a symmetric key, by which Basiq and Anduin sign.

use std::time::Duration;

use crate::provider::signature::{
    Algorithm, Carrier, Encoding, Format, Part, Scheme, SecretForm, Separator, TimeUnit, VerifiedBy, Version,
};

pub(super) const SCHEME: Scheme = Scheme {
    algorithm: Algorithm::HmacSha256,
    carriers: &[Carrier {
        header: "webhook-signature",
        timestamp: Some("webhook-timestamp"),
        id: Some("webhook-id"),
    }],
    format: Format::List(Separator::StandardWebhooks),
    versions: &[Version::plain("v1,")],
    unit: TimeUnit::Seconds,
    signed: &[Part::Id, Part::Text("."), Part::Timestamp, Part::Text("."), Part::Body],
    encoding: Encoding::Base64,
    padded: true,
    secret: SecretForm::Whsec,
    verified_by: VerifiedBy::StandardWebhooks,
    renamed: Some(("webhook-", "svix-")),
    accept_old: false,
    secret_in_body: None,
    time_in_body: None,
};

/// The schedule that Basiq and Anduin publish: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 10 h after one another.
pub(super) const RETRIES_FOR: Duration = Duration::from_secs(5 + 300 + 1800 + 7200 + 18000 + 36000 + 36000);
