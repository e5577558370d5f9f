//! TLS for both listeners, a close that lets the client read its answer, and helpers for stream adapters.

pub mod forward;
pub mod lingering_close;
pub mod tls;
