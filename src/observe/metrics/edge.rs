//! Metrics of the listener.

use prometheus::{Gauge, IntCounter, IntGauge};

use super::family::{By, metrics};
use super::labels::{Http2Error, TlsResult};

metrics! {
    /// Updated by the listener.
    #[derive(Clone)]
    pub struct EdgeMetrics from EdgeFamilies for () {
        /// Open client connections.
        pub connections: IntGauge = "hookgate_connections";
        /// Requests between head and answer.
        pub in_flight: IntGauge = "hookgate_requests_in_flight";
        /// Bytes that the bodies of requests in flight hold.
        pub in_flight_bytes: IntGauge = "hookgate_in_flight_bytes";
        /// TLS handshakes of clients.
        tls_handshakes: By<TlsResult, IntCounter> = "hookgate_tls_handshakes_total" by result;
        /// HTTP/2 streams refused and connections ended for their client's errors, of which no record is left.
        http2_errors: By<Http2Error, IntCounter> = "hookgate_http2_errors_total" by error;
        /// Unix time at which the first certificate expires; 0 without TLS.
        pub tls_expiry: Gauge = "hookgate_tls_certificate_expiry_timestamp_seconds";
    }
}

impl EdgeMetrics {
    /// Counts a TLS handshake.
    pub fn tls_handshake(&self, result: TlsResult) {
        self.tls_handshakes.at(result).inc();
    }

    /// Counts HTTP/2 errors of clients.
    pub fn http2_errors(&self, error: Http2Error, many: usize) {
        self.http2_errors.at(error).inc_by(many as u64);
    }
}
