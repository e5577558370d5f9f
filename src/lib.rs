//! hookgate: an inbound webhook gateway. It verifies deliveries from fintech providers, makes them durable, and
//! forwards each event once, in one schema.
//!
//! # The map
//!
//! A folder may use the folders that this map lists further down, and a module the modules further down in its folder.
//! `tests/pure/layers.rs` enforces this, and at most 400 lines a file. "Keeps true" at the head of a file lists its
//! invariants.
//!
//! ```text
//! cli            the commands, one file each
//! gateway        builds all parts; start order, reload, drain order
//!   live           warns about risky settings of Redis and the brokers
//! subscriptions  at the providers' APIs: what the config declares, against what they have
//!   rules          what a declared subscription must have, by its provider
//!   catch_up       what the API tells about events that never arrived
//! edge           accept loop, PROXY protocol, connection limits, deadlines, HTTP/1.1 and HTTP/2, drain
//! request        handles one request
//!   pipeline       the steps of a request, in one file
//!   answer         outcome → HTTP answer
//!   admission      client address, rates, encoding, in-flight limits, reading the body
//!   source         config → sources; path → source
//!   outcome        the outcomes of a request, and the refusal reason of each error
//! provider       the providers: their definitions, and code for what a definition cannot say
//!   normalize      authenticated delivery → event and identity
//!   signature      signs and verifies by any scheme; the only module that creates a `Verified`
//! durable        the stores
//!   backup         backs up and restores every store of the data folder
//!   quarantine     keeps refused requests that may be genuine, encrypted, and verifies them again on request
//!   spool          enqueues events: to the inbox, or to disk while the inbox is unavailable; drains the disk
//!   inbox          dedupes and enqueues in one step: embedded (SQLite), redis, claimed (before a broker)
//!   broker         NATS, RabbitMQ, Kafka, HTTP services: publishes and awaits the confirm
//!   last_accepted  the time of each source's last event, across restarts
//!   reconcile      what catching up keeps in hookgate.db, and orders between a command and a gateway
//!   audit_ledger   the reject log's head, and operators' acts to be recorded, in hookgate.db
//!   database       the SQLite file: one writer, many writes per commit
//!   data_dir       the data folder: its file names, and checks before a file is opened
//! event          the normalized event
//! observe        what operators see
//!   audit          the reject log and its hash chain
//!   admin          /metrics, /livez, /readyz and /, and the state behind them
//!   console        the page for people at /: facts, HTML, the counts of the last hour
//!   metrics        every metric
//!   telemetry      logs
//!   traces         spans of requests, and their export by OpenTelemetry
//! net            TLS and its certificates, for both listeners; a close that lets the client read its answer
//! config         the config file, secrets, queue names
//! base           causes of errors, clock, files, labels, the client, reasons, runtimes, W3C trace context
//! ```
//!
//! # The way of a request
//!
//! `edge` reads a request head and calls [`request::pipeline::Pipeline::handle`]. The pipeline finds the source, reads
//! the body, verifies the raw bytes (`provider::signature`) and normalizes them to an event (`provider::normalize`).
//! Then it enqueues the event (`durable::spool`): to the inbox, else to disk. The result becomes an `outcome`, which is
//! counted and rendered. A refusal is also recorded.
//!
//! # To change something
//!
//! `HOOKGATE_BLESS=1 tests/run --test pure` writes the tables of the READMEs and the expected lines of `check` anew.
//! Read the diff.
//!
//! - A provider: `src/provider/README.md`.
//! - A metric: a row in the file of [`observe::metrics`] that has its labels, and the call that counts.
//! - A reason: a row of [`base::reason::Reason`], the row of the README at the same position (by hand), `REASONS` in
//!   `tests/edge/answers.rs`. The alerts and dashboards in `deploy/` select some reasons by name: decide about each.
//! - A config key: a row of its `table!` in [`config`], `config/full.toml`, a file in `tests/config/invalid`.
//! - A command: a file in [`cli`], a variant of its `Command`, a row of the README.
//! - A kind of queue: [`durable::broker`] says what one must do. Its keys and URLs are in `config/stores.rs`,
//!   `config/urls.rs` and `config/http_queue.rs`. `gateway/stores.rs` opens it, `gateway/live.rs` checks its settings.
//!   Tests: `tests/brokers`, `tests/chaos`, and its server in `tests/support`.

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
pub mod subscriptions;
