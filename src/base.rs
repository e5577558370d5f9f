//! Basics that every layer may use.

pub mod causes;
pub mod clock;
pub mod file;
pub mod label;
pub mod peer;
pub mod reason;
pub mod runtime;
pub mod trace_context;
