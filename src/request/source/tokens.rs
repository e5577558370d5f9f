//! A source's tokens: the last segment of its path, and the token of a provider's validation request.

use super::{Builder, Routes, SHORT_SECRET};
use crate::config::secret::{Flaw, Secret};
use crate::config::{Config, Problem, quote_key};
use crate::provider::{Handshake, Provider};

impl Builder<'_> {
    /// The token of validation requests, which the provider's handshake and the source have together or not at all.
    pub(super) fn handshake_token(&mut self, provider: &Provider) -> Option<Secret> {
        let wants = matches!(provider.handshake, Some(Handshake::Query(query)) if query.token.is_some());
        match &self.of.handshake_token {
            Some(token) if !wants => {
                let what = format!("{} has no handshake with a token; leave it out", provider.name);
                self.error(token, "handshake_token", what);
                None
            }
            Some(token) => {
                let is_sentence = |flaw| flaw == Flaw::BlankInside;
                self.resolve_unless(token.at, &token.value, "handshake_token", is_sentence)
            }
            None => {
                if wants && !self.reported("handshake_token") {
                    let what = format!(
                        "missing; {} names a token in its handshake: expected {{ env = \"NAME\" }} or {{ file = \"PATH\" }}",
                        provider.name
                    );
                    self.error(&self.of.name.clone(), "handshake_token", what);
                }
                None
            }
        }
    }

    /// The last segment of its path.
    pub(super) fn token(&mut self) -> Option<Secret> {
        let reference = self.of.path_token.as_ref()?;
        let token = self.resolve(reference.at, &reference.value, "path_token")?;
        let text = token.expose();
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&b);
        if !text.bytes().all(fits) {
            let what = "holds a character that cannot stand in a path segment; use letters, digits and -._~";
            self.error(reference, "path_token", what.to_owned());
        } else if text.len() < SHORT_SECRET {
            let what = format!("the token has {} bytes; {SHORT_SECRET} or more resist guessing", text.len());
            self.warn(reference, "path_token", what);
        }
        Some(token)
    }
}

/// Reports paths that are the path of another source with its token: its deliveries would reach the wrong source.
pub(super) fn check_paths(routes: &Routes, config: &Config, problems: &mut Vec<Problem>) {
    for of in &config.sources {
        let Some((parent, last)) = of.path.value.rsplit_once('/') else { continue };
        let tokened = routes.tokened.get(parent);
        let taken = tokened.filter(|other| other.token.as_ref().is_some_and(|token| token.expose() == last));
        if let Some(other) = taken {
            let what = format!("is the path of the source {} with its token; choose another", other.name);
            let key = format!("sources.{}.path", quote_key(&of.name.value));
            problems.push(Problem { at: of.path.at, key, what, warning: false });
        }
    }
}
