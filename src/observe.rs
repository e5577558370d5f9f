//! For operators and auditors: health, metrics, logs and the reject log.

pub mod admin;
pub mod audit;
pub mod console;
pub mod metrics;
pub mod telemetry;
pub mod traces;
