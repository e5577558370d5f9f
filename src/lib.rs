//! hookgate: an inbound webhook gateway. It takes deliveries from fintech providers, verifies them, forgets nothing and
//! forwards each event once, in one schema.
//!
//! # The map
//!
//! A folder may use those below it, and a module those below it in its folder. `tests/pure/layers.rs` holds the order.
//!
//! ```text
//! cli            one file a command; decides nothing that the gateway decides
//! gateway        builds every part; start order, reload, drain order
//!   live           what the servers' own settings put at risk
//! edge           accept loop, PROXY protocol, connection limits, deadlines, HTTP/1.1 and HTTP/2, drain
//! request        one request's way
//!   pipeline       the flow: every branch of it is in one file
//!   answer         outcome → answer
//!   admission      client address, rates, encoding, a place in flight, a capped and timed body
//!   source         config → sources; path → source
//!   outcome        how a request ends, and the reason of each error
//! provider       the table of providers, one file each: signing scheme, reading, sample
//!   normalize      authenticated delivery → event and identity
//!   signature      signs and verifies by any scheme; the only maker of `Verified`
//! durable
//!   backup         every store of the data folder: copied, and put back
//!   quarantine     refused requests that may be genuine: kept encrypted, verified again when asked
//!   spool          the hand-over: to the inbox, and to disk while that is away; what drains it
//!   inbox          "seen before? if not, into the queue" as one step: embedded (SQLite), redis, claimed (before a broker)
//!   broker         NATS, RabbitMQ, Kafka: publish and await the confirm
//!   last_accepted  when each source last had an event, over restarts
//!   audit_ledger   what hookgate.db keeps of the reject log: its head, and operators' acts on their way into it
//!   database       the SQLite file: one writer at a time, many writes a commit
//!   data_dir       the data folder: the names of its files, and its problems before one of them is opened
//! event          the normalized event
//! observe
//!   audit          the reject log and its hash chain
//!   admin          /metrics, /livez, /readyz, and the latches behind them
//!   metrics        every metric
//!   telemetry      logs
//! net            TLS and its certificates, for both listeners; a close that the client can read
//! config         the config file, secrets, names of queues
//! base           clock, files, labels, the peer, reasons, runtimes
//! ```
//!
//! # The way of a request
//!
//! `edge` reads a head and calls [`request::pipeline::Pipeline::handle`]. The pipeline finds the source, admits the body,
//! authenticates the raw bytes (`provider::signature`), and reads them in canonical terms (`provider::normalize`). Then it hands
//! the event over (`durable::spool`): to the inbox, else to disk. The result becomes an `outcome`, which is counted, recorded
//! if it is a refusal, and rendered.

// Tests may unwrap and need no docs, so these are the library's lints and not the package's.
#![warn(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

pub mod base;
pub mod cli;
pub mod config;
pub mod durable;
pub mod edge;
pub mod event;
pub mod gateway;
pub mod net;
pub mod observe;
pub mod provider;
pub mod request;
