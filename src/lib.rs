//! hookgate: an inbound webhook gateway. It takes deliveries from fintech providers, verifies them, forgets nothing and
//! forwards each event once, in one schema.
//!
//! # The map
//!
//! A module may use those below it, never those above; `tests/pure/layers.rs` holds the order.
//!
//! ```text
//! cli            one file a command; decides nothing that the gateway decides
//! gateway        builds every part; start order, reload, drain order
//! backup         every store of the data folder: copied, and put back
//! live           what the servers' own settings put at risk
//! -- edge
//! listener       accept loop, PROXY protocol, places, deadlines, HTTP/1.1 and HTTP/2, drain
//! -- request path
//! pipeline       the flow: every branch of it is in one file
//! respond        outcome → answer
//! admit          client address, rates, encoding, a place in flight, a capped and timed body
//! route          config → sources; path → source
//! outcome        how a request ends, and the reason of each error
//! normalize      authenticated delivery → event and identity
//! provider       the table of providers, one file each: signing scheme, reading, sample
//! signature      signs and verifies by any scheme; the only maker of `Verified`
//! -- durable
//! quarantine     refused requests that may be genuine: kept encrypted, verified again when asked
//! spool          the hand-over: to the inbox, and to disk while that is away; what drains it
//! inbox          "seen before? if not, into the queue" as one step: embedded (SQLite), redis, claimed (before a broker)
//! broker         NATS, RabbitMQ, Kafka: publish and await the confirm
//! last_accepted  when each source last had an event, over restarts
//! audit_ledger   what hookgate.db keeps of the reject log: its head, and operators' acts on their way into it
//! database       the SQLite file: one writer at a time, many writes a commit
//! event          the normalized event
//! -- watching
//! admin          /metrics, /livez, /readyz, and the latches behind them
//! audit          the reject log and its hash chain
//! metrics        every metric
//! telemetry      logs
//! data_dir       the data folder: the names of its files, and its problems before one of them is opened
//! tls            certificates and handshakes, for both listeners
//! -- ground
//! config  reason  label  secret  clock  queue_name  peer  farewell  forward  file  runtime
//! ```
//!
//! # The way of a request
//!
//! `listener` reads a head and calls [`pipeline::Pipeline::handle`]. It finds the source (`route`), admits the body (`admit`),
//! authenticates the raw bytes (`signature`), reads them in canonical terms (`provider`, `normalize`), and hands the event
//! over (`spool`): to the `inbox`, else to disk. What comes of it becomes an `outcome`, which is counted, recorded if it is
//! a refusal, and rendered.

// Tests may unwrap and need no docs, so these are the library's lints and not the package's.
#![warn(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

pub mod admin;
pub mod admit;
pub mod audit;
pub mod audit_ledger;
pub mod backup;
pub mod broker;
pub mod cli;
pub mod clock;
pub mod config;
pub mod data_dir;
pub mod database;
pub mod event;
pub mod farewell;
pub mod file;
mod forward;
pub mod gateway;
pub mod inbox;
pub mod label;
pub mod last_accepted;
pub mod listener;
pub mod live;
pub mod metrics;
pub mod normalize;
pub mod outcome;
pub mod peer;
pub mod pipeline;
pub mod provider;
pub mod quarantine;
pub mod queue_name;
pub mod reason;
pub mod respond;
pub mod route;
pub mod runtime;
pub mod secret;
pub mod signature;
pub mod spool;
pub mod telemetry;
pub mod tls;
