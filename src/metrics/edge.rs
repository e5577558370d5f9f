//! The listener's series, and those of the config it serves by.
//!
//! Keeps true: every label value is one of an enum's.

use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Registry};

use super::{counters, register};

/// What the listener and the reload feed.
#[derive(Clone)]
pub struct EdgeMetrics {
    /// `hookgate_connections`.
    pub connections: IntGauge,
    /// `hookgate_requests_in_flight`.
    pub in_flight: IntGauge,
    /// `hookgate_in_flight_bytes`.
    pub in_flight_bytes: IntGauge,
    tls_handshakes: [IntCounter; TlsResult::ALL.len()],
    /// `hookgate_tls_certificate_expiry_timestamp_seconds`: the first of all to expire; 0 without TLS.
    pub tls_expiry: Gauge,
    reloads: [IntCounter; 2],
}

/// How a TLS handshake ended, as `hookgate_tls_handshakes_total` tells it. One that the client left counts nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum TlsResult {
    /// With a connection.
    Completed,
    /// With an alert.
    Failed,
    /// Not in time.
    TimedOut,
}

impl TlsResult {
    const ALL: [(TlsResult, &'static str); 3] = [
        (TlsResult::Completed, "completed"),
        (TlsResult::Failed, "failed"),
        (TlsResult::TimedOut, "timed_out"),
    ];
}

impl EdgeMetrics {
    pub(super) fn new(r: &Registry) -> Result<EdgeMetrics, prometheus::Error> {
        let handshakes: IntCounterVec =
            counters(r, "hookgate_tls_handshakes_total", "TLS handshakes of clients.", &["result"])?;
        let reloads: IntCounterVec =
            counters(r, "hookgate_config_reloads_total", "Reloads of the config.", &["result"])?;
        Ok(EdgeMetrics {
            connections: register(r, IntGauge::new("hookgate_connections", "Open client connections.")?)?,
            in_flight: register(
                r,
                IntGauge::new("hookgate_requests_in_flight", "Requests between head and answer.")?,
            )?,
            in_flight_bytes: register(
                r,
                IntGauge::new("hookgate_in_flight_bytes", "What the bodies of requests in flight hold.")?,
            )?,
            tls_handshakes: TlsResult::ALL.map(|(_, label)| handshakes.with_label_values(&[label])),
            tls_expiry: register(
                r,
                Gauge::new(
                    "hookgate_tls_certificate_expiry_timestamp_seconds",
                    "Unix time at which the first certificate expires; 0 without TLS.",
                )?,
            )?,
            reloads: ["applied", "refused"].map(|label| reloads.with_label_values(&[label])),
        })
    }

    /// Counts a TLS handshake.
    pub fn tls_handshake(&self, result: TlsResult) {
        self.tls_handshakes[result as usize].inc();
    }

    /// Counts a reload.
    pub fn reloaded(&self, applied: bool) {
        self.reloads[usize::from(!applied)].inc();
    }
}
