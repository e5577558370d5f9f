//! Streams: TLS for both listeners, a close that the client can read, and adapters around a stream.

pub mod forward;
pub mod lingering_close;
pub mod tls;
