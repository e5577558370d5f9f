//! The runtime state built from the config, which a reload replaces.
//!
//! Keeps true: a request keeps the config that it began with. A connection's client address stays valid until a reload
//! changes how it is determined.

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
use crate::observe::traces::Sampler;
use crate::request::admission::in_flight::InFlightLimit;
use crate::request::source::{Routes, Source};

/// The sources, the limits and the listeners' certificates.
pub struct RuntimeConfig {
    /// The sources.
    pub routes: Routes,
    /// Limits and deadlines.
    pub edge: Edge,
    /// The limits of requests and bytes in flight.
    pub in_flight: InFlightLimit,
    /// None for plain HTTP.
    pub tls: Option<tls::Server>,
    /// Decides which traces are sampled; none while tracing is off.
    pub sampler: Option<Sampler>,
    /// The config of the admin listener.
    pub admin: AdminRules,
    /// Cancelled when a reload changes how the client address is determined. Connections then close after their current
    /// requests.
    pub stale: Arc<CancellationToken>,
}

impl RuntimeConfig {
    /// Builds the state, resolves every secret and reads every certificate. Adds errors and warnings to `problems` and
    /// sorts them by position; after an error, the result must not serve. Counters of `before` carry over.
    pub fn build(
        config: &Config,
        metrics: &Metrics,
        before: Option<&RuntimeConfig>,
        problems: &mut Vec<Problem>,
    ) -> RuntimeConfig {
        let routes = Routes::build(config, metrics, before.map(|before| &before.routes), problems);
        // Clients check certificate dates by real time, so use the system clock and not the gateway's.
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
        let (sources, in_flight_bytes) = (routes.sources().count(), &metrics.edge.in_flight_bytes);
        let in_flight = InFlightLimit::new(
            &config.edge,
            sources,
            in_flight_bytes,
            before.map(|before| &before.in_flight),
        );
        problems.sort();
        problems.dedup();
        let sampler = config.tracing.otlp.as_ref().map(|_| Sampler::new(config.tracing.sample));
        let stale = Arc::default();
        RuntimeConfig { routes, edge: config.edge.clone(), in_flight, tls, sampler, admin, stale }
    }

    /// Adopts the connections of `before` if both determine the client address in the same way. Returns whether it did.
    pub fn adopt_connections(&mut self, before: &RuntimeConfig) -> bool {
        let tls = match (&self.tls, &before.tls) {
            (Some(tls), Some(before)) => tls.has_same_client_ca(before),
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

    /// Whether no reload since `before` changed how the client address is determined.
    pub fn same_peer_rules(&self, before: &RuntimeConfig) -> bool {
        Arc::ptr_eq(&self.stale, &before.stale)
    }

    /// Every source with its gauge of the last accepted event. The gauges are exported from now on.
    pub fn last_accepted(&self, metrics: &Metrics) -> Vec<(String, Gauge)> {
        let sources = self.routes.sources();
        sources
            .map(|source| (source.name.to_string(), metrics.last_accepted(&source.name, &source.metrics)))
            .collect()
    }

    /// Removes the series of sources that are no longer configured, so that alerts do not wait for their events.
    pub fn retain_series(&self, metrics: &Metrics) {
        let sources: HashMap<&str, &Source> =
            self.routes.sources().map(|source| (&*source.name, &**source)).collect();
        metrics.retain_sources(|series| match sources.get(series.source) {
            Some(source) => {
                series.provider.is_none_or(|provider| provider == source.provider.name)
                    && series.slot.is_none_or(|slot| slot < source.secrets)
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
