//! Every metric of the gateway, in one struct with its own registry.
//!
//! Keeps true: label values come from enums, configured source names and the canonical type table, so the config bounds
//! the number of series. Every series known at the start exists from the start, at zero.

mod audit;
mod edge;
mod family;
mod gateway;
mod http;
mod labels;
mod quarantine;
mod queue;
mod source;
mod spool;

use std::sync::Arc;

use prometheus::core::Collector;
use prometheus::{Gauge, TextEncoder};

use audit::AuditFamilies;
pub use audit::AuditMetrics;
use edge::EdgeFamilies;
pub use edge::EdgeMetrics;
use family::Families;
use gateway::GatewayFamilies;
pub use gateway::GatewayMetrics;
pub use http::HttpRouteMetrics;
use http::{HttpRouteFamilies, RouteLabels};
pub use labels::{
    EnqueueFailure, Http2Error, OutcomeLabel, PostOutcome, ReconcileOutcome, ReloadResult, TlsResult,
};
use quarantine::QuarantineFamilies;
pub use quarantine::QuarantineMetrics;
pub use queue::QueueMetrics;
use queue::{QueueFamilies, QueueLabels};
use source::SourceFamilies;
pub use source::{SourceLabels, SourceMetrics, SourceSeries, TypeLabels};
use spool::SpoolFamilies;
pub use spool::SpoolMetrics;

/// The registry, and the handles of all metrics.
pub struct Metrics {
    families: Families,
    sources: SourceFamilies,
    queues: QueueFamilies,
    http_routes: HttpRouteFamilies,
    /// Of the gateway.
    pub gateway: GatewayMetrics,
    /// Of the spool.
    pub spool: SpoolMetrics,
    /// Of the quarantine.
    pub quarantine: QuarantineMetrics,
    /// Of the listener.
    pub edge: EdgeMetrics,
    /// Of the reject log.
    pub audit: AuditMetrics,
}

const DURATIONS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0];

impl Metrics {
    /// Registers every family; no source exists yet.
    ///
    /// # Errors
    /// When two families have the same name. A test would fail first.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let mut families = Families::default();
        let process = prometheus::process_collector::ProcessCollector::for_self();
        families.registry.register(Box::new(process))?;
        let to = &mut families;
        let metrics = Metrics {
            sources: SourceFamilies::new(to)?,
            queues: QueueFamilies::new(to)?,
            http_routes: HttpRouteFamilies::new(to)?,
            gateway: GatewayFamilies::new(to)?.of(&()),
            spool: SpoolFamilies::new(to)?.of(&()),
            quarantine: QuarantineFamilies::new(to)?.of(&()),
            edge: EdgeFamilies::new(to)?.of(&()),
            audit: AuditFamilies::new(to)?.of(&()),
            families,
        };
        metrics.gateway.build.at(&[env!("CARGO_PKG_VERSION"), env!("HOOKGATE_REVISION")]).set(1);
        Ok(metrics)
    }

    /// A source's handles; its series start at zero.
    pub fn source(&self, of: &SourceLabels<'_>) -> Arc<SourceMetrics> {
        Arc::new(self.sources.of(of))
    }

    /// Exports the gauge of when a source last had an event accepted. It is 0, unless it was exported before.
    pub fn last_accepted(&self, source: &str, handles: &SourceMetrics) -> Gauge {
        self.sources.show_last_accepted(source, handles)
    }

    /// Sets whether the provider's subscriptions of a source differ from the declared ones.
    pub fn subscription_drift(&self, source: &str, drifts: bool) {
        self.sources.set_subscription_drift(source, drifts);
    }

    /// Removes the series of sources for which `keep` is false.
    pub fn retain_sources(&self, keep: impl Fn(&SourceSeries<'_>) -> bool) {
        for family in &self.families.all {
            family.retain(&keep);
        }
    }

    /// A queue's handles; its series start at zero. `queue` is the queue's kind.
    pub fn queue(&self, queue: &'static str) -> QueueMetrics {
        self.queues.of(&QueueLabels { queue })
    }

    /// The handles of a route to an HTTP service; its series start at zero. `route` is its type pattern.
    pub fn http_route(&self, route: &str) -> HttpRouteMetrics {
        self.http_routes.of(&RouteLabels { route })
    }

    /// Every family except the process metrics, including families without series.
    pub fn families(&self) -> impl Iterator<Item = &dyn Collector> {
        self.families.all.iter().map(|family| &**family as &dyn Collector)
    }

    /// The exposition text and its content type.
    ///
    /// # Errors
    /// When a family cannot be encoded.
    pub fn render(&self) -> Result<(String, String), prometheus::Error> {
        use prometheus::Encoder;
        let encoder = TextEncoder::new();
        let text = encoder.encode_to_string(&self.families.registry.gather())?;
        Ok((text, encoder.format_type().to_owned()))
    }
}
