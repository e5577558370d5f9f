//! What operators and auditors see: health, metrics, logs and the reject log.

pub mod admin;
pub mod audit;
pub mod metrics;
pub mod telemetry;
