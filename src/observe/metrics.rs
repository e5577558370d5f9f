//! Every metric of the gateway, in one struct with its own registry.
//!
//! Keeps true: label values come from enums, configured source names and the canonical type table, so the number of series
//! is bounded by the config; every series that can be known at the start is there from the start, at zero.

mod audit;
mod edge;
mod family;
mod gateway;
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
pub use labels::{EnqueueFailure, Http2Error, OutcomeLabel, ReloadResult, TlsResult};
use quarantine::QuarantineFamilies;
pub use quarantine::QuarantineMetrics;
pub use queue::QueueMetrics;
use queue::{QueueFamilies, QueueLabels};
use source::SourceFamilies;
pub use source::{SourceLabels, SourceMetrics, SourceSeries};
use spool::SpoolFamilies;
pub use spool::SpoolMetrics;

/// The registry and the handles to all that is in it.
pub struct Metrics {
    families: Families,
    sources: SourceFamilies,
    queues: QueueFamilies,
    /// The gateway's own.
    pub gateway: GatewayMetrics,
    /// The spool's.
    pub spool: SpoolMetrics,
    /// The quarantine's.
    pub quarantine: QuarantineMetrics,
    /// The listener's.
    pub edge: EdgeMetrics,
    /// The reject log's.
    pub audit: AuditMetrics,
}

const DURATIONS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0];

impl Metrics {
    /// Every family registered, no source known yet.
    ///
    /// # Errors
    /// When two families have one name; a test builds it, so a build that passes them never meets it.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let mut families = Families::default();
        let process = prometheus::process_collector::ProcessCollector::for_self();
        families.registry.register(Box::new(process))?;
        let to = &mut families;
        let metrics = Metrics {
            sources: SourceFamilies::new(to)?,
            queues: QueueFamilies::new(to)?,
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

    /// One source's handles, its series at zero.
    pub fn source(&self, of: &SourceLabels<'_>) -> Arc<SourceMetrics> {
        Arc::new(self.sources.of(of))
    }

    /// The gauge of when a source last had an event accepted, shown from now on; at 0, unless it was shown before.
    pub fn last_accepted(&self, source: &str, handles: &SourceMetrics) -> Gauge {
        self.sources.show_last_accepted(source, handles)
    }

    /// Removes every source's series but those for which `keep` is true.
    pub fn retain_sources(&self, keep: impl Fn(&SourceSeries<'_>) -> bool) {
        for family in &self.families.all {
            family.retain(&keep);
        }
    }

    /// One queue's handles, its series at zero. `queue` is its kind.
    pub fn queue(&self, queue: &'static str) -> QueueMetrics {
        self.queues.of(&QueueLabels { queue })
    }

    /// Every family but those of the process, also those that have no series yet.
    pub fn families(&self) -> impl Iterator<Item = &dyn Collector> {
        self.families.all.iter().map(|family| &**family as &dyn Collector)
    }

    /// The exposition text and its content type.
    ///
    /// # Errors
    /// When the encoder meets a family it cannot write.
    pub fn render(&self) -> Result<(String, String), prometheus::Error> {
        use prometheus::Encoder;
        let encoder = TextEncoder::new();
        let text = encoder.encode_to_string(&self.families.registry.gather())?;
        Ok((text, encoder.format_type().to_owned()))
    }
}
