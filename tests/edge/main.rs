//! Bytes on a connection, and the edge's answers.

mod admission;
mod answers;
mod attack;
mod client_address;
mod flood;
mod handshakes;
mod proxies;
mod tls;
