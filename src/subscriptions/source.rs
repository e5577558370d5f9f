//! A source with a subscription: what its config declares, resolved, and the client of its provider.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;

use super::api::{self, Access, ApiError, Caller, Client, Declared, Facts, Kind};
use super::hidden::{HIDDEN, Hidden};
use crate::base::clock::Clock;
use crate::config::secret::{Secret, SecretError, SecretRef};
use crate::config::{Config, Located, Source, Subscription};
use crate::event::type_pattern;
use crate::provider::{Catalog, Provider};

/// A source with a subscription.
pub struct SourceSubscription {
    /// The source's name.
    pub name: String,
    /// Which provider's API it is.
    pub kind: Kind,
    /// The provider.
    pub provider: &'static Provider,
    /// Where deliveries go, with the path token.
    pub url: String,
    path_token: Option<Secret>,
    /// Event types and patterns, as declared.
    pub patterns: Vec<String>,
    /// The domains or funds.
    pub scopes: Vec<String>,
    /// A text for people.
    pub description: String,
    /// Where `apply` writes the secret.
    pub secret_file: Option<PathBuf>,
    /// The API's base, which kept ids belong to.
    pub base: String,
    /// The client.
    pub client: Client,
    /// What must not be shown.
    pub hidden: Hidden,
}

/// Why a source's subscription cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A secret cannot be read.
    #[error("{key}: {why}")]
    Secret {
        /// The config key.
        key: String,
        /// The cause.
        why: SecretError,
    },
    /// The config has a mistake that `check` names.
    #[error("{0}")]
    Config(String),
    /// The client does not start.
    #[error(transparent)]
    Api(#[from] ApiError),
}

/// What must not be shown of a config: the path tokens of all sources, and the credentials of all APIs. The token in a
/// URL is hidden also if it cannot be read here, or was replaced.
pub fn hidden(config: &Config) -> Hidden {
    let mut hidden = Hidden::default();
    let mut add = |secret: Option<&Located<SecretRef>>| {
        if let Some(secret) = secret.and_then(|secret| secret.value.resolve().ok()) {
            hidden.add(&secret);
        }
    };
    for source in &config.sources {
        add(source.path_token.as_ref());
        if let Some(Subscription { api, .. }) = &source.subscription {
            [&api.key, &api.identity, &api.authorization].into_iter().for_each(|secret| add(secret.as_ref()));
        }
    }
    let with_token = config.sources.iter().filter(|source| source.path_token.is_some());
    with_token
        .filter_map(|source| before_token(config, source))
        .for_each(|url| hidden.add_before_token(format!("{url}/")));
    hidden
}

/// The URL at which providers reach a source, up to its path token. None: `edge.public_url` is not set.
fn before_token(config: &Config, source: &Source) -> Option<String> {
    let public = config.edge.public_url.as_ref()?;
    Some(format!("{}{}", public.value.trim_end_matches('/'), source.path.value))
}

/// The URL at which providers reach a source, with its path token. None: `edge.public_url` is not set.
///
/// # Errors
/// When the token cannot be read.
pub fn public_url(config: &Config, source: &Source) -> Result<Option<String>, SourceError> {
    let Some(url) = before_token(config, source) else { return Ok(None) };
    Ok(Some(match path_token(source)? {
        Some(token) => format!("{url}/{}", token.expose()),
        None => url,
    }))
}

fn path_token(source: &Source) -> Result<Option<Secret>, SourceError> {
    let key = || format!("sources.{}.path_token", source.name.value);
    source.path_token.as_ref().map(|token| resolve(token, key)).transpose()
}

impl SourceSubscription {
    /// Opens the client of a source. None: the source has no subscription.
    ///
    /// # Errors
    /// When a secret cannot be read, or the config has a mistake.
    pub fn open(
        config: &Config,
        source: &Source,
        catalog: &Catalog,
        tls: &Arc<ClientConfig>,
        clock: &Clock,
    ) -> Result<Option<SourceSubscription>, SourceError> {
        let Some(subscription) = &source.subscription else { return Ok(None) };
        let name = &source.name.value;
        let key = |key: &str| format!("sources.{name}.subscription.{key}");
        let config_error =
            |what: &str| SourceError::Config(format!("{what}: `hookgate check` lists every problem"));
        let provider = catalog
            .by_name(&source.provider.value)
            .ok_or_else(|| config_error(&format!("sources.{name}.provider is not known")))?;
        let kind = Kind::of(provider)
            .ok_or_else(|| config_error(&format!("the provider of {name} has no API that hookgate knows")))?;
        let url = match &subscription.url {
            Some(url) => url.value.clone(),
            None => public_url(config, source)?.ok_or_else(|| {
                config_error(&format!("{} is missing, and edge.public_url too", key("url")))
            })?,
        };
        let api = &subscription.api;
        let secret = |secret: &Option<Located<SecretRef>>, name: &str| {
            secret.as_ref().map(|secret| resolve(secret, || key(name))).transpose()
        };
        let scopes: Vec<String> =
            subscription.domains.iter().chain(&subscription.funds).map(|scope| scope.value.clone()).collect();
        let text = |text: &Option<Located<String>>| text.as_ref().map(|text| text.value.clone());
        let access = Access {
            key: secret(&api.key, "api.key")?,
            identity: secret(&api.identity, "api.identity")?,
            authorization: secret(&api.authorization, "api.authorization")?,
            version: text(&api.version).unwrap_or_else(|| DEFAULT_VERSION.to_owned()),
            tenant: text(&api.tenant),
            workspace: text(&api.workspace),
            scopes: scopes.clone(),
        };
        let keys = match kind {
            Kind::Atelio => format!("{} and {}", key("api.identity"), key("api.authorization")),
            _ => key("api.key"),
        };
        let mut hidden = hidden(config);
        if let Some(secret) = subscription.secret_file.as_ref().and_then(|file| read_secret(&file.value)) {
            hidden.add(&secret);
        }
        let base = api.base.value.clone();
        let caller = Caller::new(tls.clone(), &base, keys, hidden.clone(), clock.clone())?;
        Ok(Some(SourceSubscription {
            name: name.clone(),
            kind,
            provider,
            url,
            path_token: path_token(source).ok().flatten(),
            patterns: subscription.events.iter().map(|event| event.value.clone()).collect(),
            scopes,
            description: subscription.description.clone(),
            secret_file: subscription.secret_file.as_ref().map(|file| file.value.clone()),
            base,
            client: api::open(kind, caller, access),
            hidden,
        }))
    }

    /// A URL that was kept with `***` for the path token, with the token. None: the source has none.
    pub fn with_token(&self, kept: &str) -> Option<String> {
        match &self.path_token {
            Some(token) => Some(kept.replace(HIDDEN, token.expose())),
            None => Some(kept.to_owned()).filter(|url| !url.contains(HIDDEN)),
        }
    }

    /// The facts about its API.
    pub fn facts(&self) -> &'static Facts {
        self.client.api().facts()
    }

    /// The subscriptions that the provider should have. `offered` are the types that it offers, or those that hookgate
    /// knows.
    ///
    /// # Errors
    /// The declared types and patterns that the provider does not offer.
    pub fn declared(&self, offered: &[String], is_its_own_list: bool) -> Result<Vec<Declared>, Vec<String>> {
        let facts = self.facts();
        if facts.takes_patterns {
            return Ok(self.each_scope(&self.patterns));
        }
        let mut events: Vec<String> = Vec::new();
        let mut unknown = Vec::new();
        for pattern in &self.patterns {
            let fitting: Vec<&String> =
                offered.iter().filter(|kind| type_pattern::fits(pattern, kind)).collect();
            // A list that is not the provider's own may lack a type, but a pattern must stand for something.
            if fitting.is_empty() && !is_its_own_list && !pattern.contains('*') {
                events.push(pattern.clone());
            } else if fitting.is_empty() {
                unknown.push(pattern.clone());
            }
            for kind in fitting {
                if !events.contains(kind) {
                    events.push(kind.clone());
                }
            }
        }
        if unknown.is_empty() { Ok(self.each_scope(&events)) } else { Err(unknown) }
    }

    fn each_scope(&self, events: &[String]) -> Vec<Declared> {
        if events.is_empty() {
            return Vec::new();
        }
        let declared = |scope: Option<&String>, events: Vec<String>| Declared {
            scope: scope.cloned(),
            url: self.url.clone(),
            events,
            name: self.name.clone(),
            description: self.description.clone(),
        };
        match (self.facts().scope, self.facts().one_type_each) {
            (None, _) => vec![declared(None, events.to_vec())],
            (Some(_), false) => {
                self.scopes.iter().map(|scope| declared(Some(scope), events.to_vec())).collect()
            }
            (Some(_), true) => {
                let of_scope =
                    |scope| events.iter().map(move |event| declared(Some(scope), vec![event.clone()]));
                self.scopes.iter().flat_map(of_scope).collect()
            }
        }
    }
}

/// A secret file's text. None: it is not there, or cannot be read as a secret.
pub fn read_secret(file: &Path) -> Option<Secret> {
    SecretRef::File(file.to_owned()).resolve().ok()
}

fn resolve(secret: &Located<SecretRef>, key: impl Fn() -> String) -> Result<Secret, SourceError> {
    secret.value.resolve().map_err(|why| SourceError::Secret { key: key(), why })
}

/// The only version of Atelio's envelope that it documents.
const DEFAULT_VERSION: &str = "0.1";
