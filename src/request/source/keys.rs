//! Makes a source's keys from its secrets.
//!
//! Keeps true: there is one key for each secret, in the config's order, so a slot is a secret's position in the list.

use super::{Builder, SHORT_SECRET};
use crate::provider::Provider;
use crate::provider::signature::{Key, Scheme, SecretForm};

impl Builder<'_> {
    pub(super) fn keys(&mut self, provider: &Provider, scheme: Option<Scheme>) -> Vec<Key> {
        let Some(scheme) = scheme else { return Vec::new() };
        let mut keys = Vec::new();
        for secret in &self.of.secrets {
            let dated = &secret.value;
            let Some(text) = self.resolve(secret.at, &dated.reference, "secrets") else {
                continue;
            };
            if scheme.secret == SecretForm::Text && text.expose().len() < SHORT_SECRET {
                let bytes = text.expose().len();
                let what = format!(
                    "the secret has {bytes} bytes; {} should have {SHORT_SECRET} or more",
                    provider.name
                );
                self.warn(secret, "secrets", what);
            }
            if text.decoded(scheme.secret == SecretForm::Whsec).is_some() {
                self.warn(secret, "secrets", TWICE.to_owned());
            }
            match Key::new(&scheme, &text) {
                Ok(key) => keys.push(key.within(dated.not_before, dated.not_after)),
                Err(error) => self.error(secret, "secrets", error.to_string()),
            }
        }
        keys
    }
}

const TWICE: &str = "the secret decodes from base64 to a text that is a secret itself: it was probably base64-encoded twice; store the \
    decoded text (in Kubernetes, data takes the secret base64-encoded once, stringData takes it unencoded)";
