//! What the sources of a config have at their providers.

use super::api::Registered;
use super::kept::Kept;
use super::source;
use crate::config::Config;

/// What the whole config has at providers: whatever else is under `edge.public_url` is stale.
#[derive(Clone, Debug, Default)]
pub struct Owned {
    /// `edge.public_url`.
    pub public_url: Option<String>,
    /// The URL of every source.
    pub urls: Vec<String>,
    /// The ids that are kept for the sources of the config.
    pub ids: Vec<String>,
    /// Why the URL of a source is not known.
    pub unknown: Option<String>,
}

impl Owned {
    /// Of this config. `kept` has the ids of its sources.
    pub fn of(config: &Config, kept: &Kept) -> Owned {
        let mut owned = Owned {
            public_url: config.edge.public_url.as_ref().map(|url| url.value.trim_end_matches('/').to_owned()),
            ..Owned::default()
        };
        for source in &config.sources {
            if let Some(subscription) = &source.subscription {
                owned.urls.extend(subscription.url.as_ref().map(|url| url.value.clone()));
                owned.ids.extend(kept.source(&source.name.value, &subscription.api.base.value).ids);
            }
            match source::public_url(config, source) {
                Ok(url) => owned.urls.extend(url),
                Err(why) => owned.unknown = Some(why.to_string()),
            }
        }
        owned
    }

    /// Whether a subscription is under `edge.public_url`, and of no source.
    pub(super) fn is_stale(&self, one: &Registered) -> bool {
        let Some(public) = &self.public_url else { return false };
        let rest = one.url.strip_prefix(public.as_str());
        let is_below = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        is_below && !self.urls.contains(&one.url) && !self.ids.contains(&one.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscriptions::api::State;

    #[test]
    fn a_url_is_stale_only_under_the_public_url_and_without_a_source() {
        let owned = Owned {
            public_url: Some("https://hooks.example.com".to_owned()),
            urls: vec!["https://hooks.example.com/hooks/a".to_owned()],
            ids: vec!["kept".to_owned()],
            unknown: None,
        };
        let of = |id: &str, url: &str| Registered {
            id: id.to_owned(),
            scope: None,
            url: url.to_owned(),
            events: Vec::new(),
            state: State::Active,
            name: None,
            description: None,
            secret: None,
            nonce: None,
        };
        for (url, stale) in [
            ("https://hooks.example.com", true),
            ("https://hooks.example.com/hooks/old", true),
            ("https://hooks.example.com/hooks/a", false),
            ("https://hooks.example.com.evil/hooks/old", false),
            ("https://other.example.com/hooks/old", false),
        ] {
            assert_eq!(owned.is_stale(&of("other", url)), stale, "{url}");
            assert!(!owned.is_stale(&of("kept", url)), "{url} of a source whose URL has changed");
        }
        assert!(!Owned::default().is_stale(&of("other", "https://hooks.example.com/hooks/old")));
    }
}
