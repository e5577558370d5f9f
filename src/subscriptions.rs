//! The provider's side: what the config declares, and the provider's API.
//!
//! Keeps true: the way of a request does not depend on it.

pub mod rules;
