//! Metrics of the whole gateway: its build, its config, and unsafe settings of its servers.

use prometheus::{Gauge, IntCounter, IntGauge};

use super::family::{By, Open, metrics};
use super::labels::ReloadResult;

metrics! {
    /// Updated by the start, by reloads, and by the check of the servers' settings.
    pub struct GatewayMetrics from GatewayFamilies for () {
        /// The version and revision that runs.
        pub(super) build: Open<IntGauge> = "hookgate_build_info" by version, revision;
        /// Unix time of the last config load.
        pub config_loaded: Gauge = "hookgate_config_loaded_timestamp_seconds";
        /// Reloads of the config.
        reloads: By<ReloadResult, IntCounter> = "hookgate_config_reloads_total" by result;
        /// 1 where a server's own setting, or its absence, puts events at risk.
        unsafe_settings: Open<IntGauge> = "hookgate_unsafe_settings" by setting;
        /// Spans that were not sent: the collector is down or too slow.
        pub spans_dropped: IntCounter = "hookgate_tracing_spans_dropped_total";
    }
}

impl GatewayMetrics {
    /// Counts a reload.
    pub fn reloaded(&self, result: ReloadResult) {
        self.reloads.at(result).inc();
    }

    /// Creates the setting's series at zero, if it is missing.
    pub fn init_unsafe_setting(&self, setting: &'static str) {
        let _ = self.unsafe_settings.at(&[setting]);
    }

    /// Reports whether a setting is unsafe.
    pub fn unsafe_setting(&self, setting: &'static str, found: bool) {
        self.unsafe_settings.at(&[setting]).set(i64::from(found));
    }
}
