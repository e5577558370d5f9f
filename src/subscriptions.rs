//! The provider's side: what the config declares, what the providers have, and the acts between them.
//!
//! Keeps true: nothing of a request's way depends on it. No key, token or secret is printed or logged.
//!
//! - `rules`: what a subscription needs, by its provider. `source`: a source's declaration, resolved.
//! - `api`: the providers' management APIs. `plan`: what differs. `apply`: makes it the same. `owned`: what `--prune` must
//!   leave.
//! - `kept`: which subscriptions are ours. `secret_file`: where secrets are written. `hidden`: what is never shown.
//! - `catch_up`, `provider_log`: what the providers know of events that never arrived.
//! - `look`: whether the provider's side is as declared, for `serve` and `check --live`.

pub mod api;
pub mod apply;
pub mod catch_up;
pub mod hidden;
pub mod kept;
pub mod look;
pub mod owned;
pub mod plan;
pub mod provider_log;
pub mod rules;
mod secret_file;
pub mod source;
