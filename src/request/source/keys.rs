//! A source's keys, out of its secrets.
//!
//! Keeps true: one key a secret, in the config's order, so that a slot is a secret's place in the list whatever its dates.

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

const TWICE: &str = "the secret decodes from base64 to a text that is a secret itself: it was probably base64-encoded once more \
    than it was issued, that is twice; store the decoded text (in Kubernetes, data takes base64 of the secret once, stringData \
    takes it as it is)";
