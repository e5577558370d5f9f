//! The series of the gateway as a whole: its build, its config, and what its servers' settings put at risk.

use prometheus::{Gauge, IntCounter, IntGauge};

use super::family::{By, Open, metrics};
use super::labels::ReloadResult;

metrics! {
    /// What the start, the reload and the look at the servers' settings feed.
    pub struct GatewayMetrics from GatewayFamilies for () {
        /// The version and revision that runs.
        pub(super) build: Open<IntGauge> = "hookgate_build_info" by version, revision;
        /// Unix time of the last config load.
        pub config_loaded: Gauge = "hookgate_config_loaded_timestamp_seconds";
        /// Reloads of the config.
        reloads: By<ReloadResult, IntCounter> = "hookgate_config_reloads_total" by result;
        /// 1 where a server's own setting, or its absence, puts events at risk.
        unsafe_settings: Open<IntGauge> = "hookgate_unsafe_settings" by setting;
    }
}

impl GatewayMetrics {
    /// Counts a reload.
    pub fn reloaded(&self, result: ReloadResult) {
        self.reloads.at(result).inc();
    }

    /// Puts a setting's series at zero, if it is not there yet.
    pub fn unsafe_setting_is_asked(&self, setting: &'static str) {
        let _ = self.unsafe_settings.at(&[setting]);
    }

    /// Says of one setting whether it is unsafe.
    pub fn unsafe_setting(&self, setting: &'static str, found: bool) {
        self.unsafe_settings.at(&[setting]).set(i64::from(found));
    }
}
