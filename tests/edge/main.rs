//! Bytes on a connection and what the edge answers them.

mod admission;
mod answers;
mod attack;
mod client_address;
mod flood;
mod proxies;
mod tls;
