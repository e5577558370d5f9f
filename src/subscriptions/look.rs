//! Looks whether the providers' subscriptions are as declared, for a gateway that serves and for `check --live`.

use std::sync::Arc;

use rustls::ClientConfig;

use super::kept::Kept;
use super::owned::Owned;
use super::plan::{self, Action, Options, Step};
use super::source::SourceSubscription;
use crate::base::clock::Clock;
use crate::config::{Config, Source};
use crate::net::tls::client;
use crate::provider::Catalog;

/// What a look at one source found.
#[derive(Clone, Debug)]
pub struct Look {
    /// The source's name.
    pub source: String,
    /// The steps that would make the provider's side as declared, or why it cannot be looked at.
    pub found: Result<Vec<Step>, String>,
}

impl Look {
    /// Whether the provider's side differs. None: it could not be looked at.
    pub fn drifts(&self) -> Option<bool> {
        let steps = self.found.as_ref().ok()?;
        Some(steps.iter().any(|step| step.is_drift && step.action != Action::None))
    }
}

/// Looks at every source with a subscription, one after the other.
pub async fn look(config: &Config, clock: &Clock) -> Vec<Look> {
    let sources: Vec<&Source> =
        config.sources.iter().filter(|source| source.subscription.is_some()).collect();
    if sources.is_empty() {
        return Vec::new();
    }
    let catalog = Catalog::of(&config.providers, &mut Vec::new());
    let tls = client::of_system_or_none().map(Arc::new);
    let kept = Kept::read(&config.data_dir);
    let mut looks = Vec::new();
    for source in sources {
        let found = match (&tls, &kept) {
            (Ok(tls), Ok(kept)) => steps(config, source, (&catalog, tls, clock), kept).await,
            (Err(why), _) => Err(why.clone()),
            (_, Err(why)) => Err(why.to_string()),
        };
        looks.push(Look { source: source.name.value.clone(), found });
    }
    looks
}

async fn steps(
    config: &Config,
    source: &Source,
    (catalog, tls, clock): (&Catalog, &Arc<ClientConfig>, &Clock),
    kept: &Kept,
) -> Result<Vec<Step>, String> {
    let opened = SourceSubscription::open(config, source, catalog, tls, clock);
    let Some(source) = opened.map_err(|why| why.to_string())? else { return Ok(Vec::new()) };
    let of = kept.source(&source.name, &source.base);
    let found = plan::plan(&source, &of, &Owned::of(config, kept), Options::default()).await;
    found.map_err(|why| source.hidden.hide(&why.to_string()))
}
