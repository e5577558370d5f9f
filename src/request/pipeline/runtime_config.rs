//! What requests are held against: everything of the config that a reload may change.
//!
//! Keeps true: a request keeps the rules that it began with; who a client was found to be counts for as long as it would be
//! found out in the same way.

use std::collections::HashMap;
use std::sync::Arc;

use prometheus::Gauge;
use tokio_util::sync::CancellationToken;

use crate::base::clock::Clock;
use crate::base::label::UNKNOWN;
use crate::config::secret::Secret;
use crate::config::{Config, Edge, Problem};
use crate::net::tls;
use crate::observe::admin::AdminRules;
use crate::observe::metrics::Metrics;
use crate::request::admission::in_flight::InFlightLimit;
use crate::request::source::{Routes, Source};

/// The sources, the limits, and the listeners' certificates.
pub struct RuntimeConfig {
    /// The sources.
    pub routes: Routes,
    /// Limits and deadlines.
    pub edge: Edge,
    /// Who may have how much in flight.
    pub shares: InFlightLimit,
    /// None: plain HTTP.
    pub tls: Option<tls::Server>,
    /// What the admin listener goes by.
    pub admin: AdminRules,
    /// Cancelled once who the clients of these rules' connections are would be found out by others: such a connection ends
    /// when what is under way on it is answered.
    pub stale: Arc<CancellationToken>,
}

impl RuntimeConfig {
    /// Builds them, resolving every secret and reading every certificate. Adds what is wrong to the config's own problems, in
    /// the file's order; with an error among them, what is built must not serve. What `before` has counted is carried on.
    pub fn build(
        config: &Config,
        metrics: &Metrics,
        before: Option<&RuntimeConfig>,
        problems: &mut Vec<Problem>,
    ) -> RuntimeConfig {
        let routes = Routes::build(config, metrics, before.map(|before| &before.routes), problems);
        // Clients hold certificates against the machine's clock, whatever ours is set to.
        let now = Clock::System.now();
        let tls = config.edge.tls.as_ref().and_then(|tls| {
            let section = tls::Section { tls, key: "edge.tls", protocols: tls::HTTP, now };
            tls::Server::build(&section, before.and_then(|before| before.tls.as_ref()), problems)
        });
        let admin_tls = config.admin.tls.as_ref().and_then(|tls| {
            let section = tls::Section { tls, key: "admin.tls", protocols: tls::HTTP1, now };
            tls::Server::build(&section, before.and_then(|before| before.admin.tls.as_ref()), problems)
        });
        let admin = AdminRules {
            certificates_expire: tls.iter().chain(&admin_tls).map(tls::Server::expires).min(),
            tls: admin_tls,
            token: admin_token(config, problems),
        };
        let (sources, in_flight) = (routes.sources().count(), &metrics.edge.in_flight_bytes);
        let shares =
            InFlightLimit::new(&config.edge, sources, in_flight, before.map(|before| &before.shares));
        problems.sort();
        problems.dedup();
        let stale = Arc::default();
        RuntimeConfig { routes, edge: config.edge.clone(), shares, tls, admin, stale }
    }

    /// Takes over the connections of the rules `before`, where it finds out in the same way who a client is. Whether it does.
    pub fn take_over(&mut self, before: &RuntimeConfig) -> bool {
        let tls = match (&self.tls, &before.tls) {
            (Some(tls), Some(before)) => tls.vouches_as(before),
            (tls, before) => tls.is_some() == before.is_some(),
        };
        let (edge, then) = (&self.edge, &before.edge);
        let same =
            tls && edge.trusted_proxies == then.trusted_proxies && edge.proxy_protocol == then.proxy_protocol;
        if same {
            self.stale = before.stale.clone();
        }
        same
    }

    /// Whether they find out in the same way as the rules `before`, and all between them, who a client is.
    pub fn same_peer_rules(&self, before: &RuntimeConfig) -> bool {
        Arc::ptr_eq(&self.stale, &before.stale)
    }

    /// Every source, and the gauge of when it last had an event accepted, which is shown from now on.
    pub fn last_accepted(&self, metrics: &Metrics) -> Vec<(String, Gauge)> {
        let sources = self.routes.sources();
        sources
            .map(|source| (source.name.to_string(), metrics.last_accepted(&source.name, &source.metrics)))
            .collect()
    }

    /// Lets go of the series of sources that are not among these: a source that is gone would be waited for.
    pub fn keep_series(&self, metrics: &Metrics) {
        let sources: HashMap<&str, &Source> =
            self.routes.sources().map(|source| (&*source.name, &**source)).collect();
        metrics.retain_sources(|series| match sources.get(series.source) {
            Some(source) => {
                series.provider.is_none_or(|provider| provider == source.provider.name)
                    && series.slot.is_none_or(|slot| slot < source.keys.len())
            }
            None => series.source == UNKNOWN,
        });
    }
}

fn admin_token(config: &Config, problems: &mut Vec<Problem>) -> Option<Secret> {
    let reference = config.admin.token.as_ref()?;
    let mut problem = |what: String, warning| {
        let (at, key) = (reference.at, "admin.token".to_owned());
        problems.push(Problem { at, key, what, warning });
    };
    match reference.value.resolve() {
        Ok(token) => {
            let bytes = token.expose().len();
            if bytes < SHORT_TOKEN {
                let what = format!("the token has {bytes} bytes; {SHORT_TOKEN} or more resist guessing");
                problem(what, true);
            }
            Some(token)
        }
        Err(why) => {
            problem(why.to_string(), false);
            None
        }
    }
}

const SHORT_TOKEN: usize = 16;
