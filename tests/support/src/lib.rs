//! The parts that all tests share: the real gateway as a process, real servers around it, clients, and deliveries. Those are
//! signed by the providers' published formulas, not by hookgate's own code.
//!
//! No test sleeps to wait for a result: [`until`] and [`eventually`] wait for a condition, and fail the test if it does not
//! come. Every server has a free port, so tests run side by side. [`blocking`] is for tests without a runtime.

// Tests need the system's clock: the gateways under test are processes that use it.
#![allow(clippy::disallowed_methods)]

mod answer;
pub mod blocking;
mod client;
mod cluster;
#[cfg(feature = "otlp")]
mod collector;
mod delivery;
mod disk;
mod gateway;
mod home;
mod http_service;
#[cfg(feature = "kafka")]
mod kafka;
pub mod leaks;
mod load;
mod log;
mod metrics;
mod nats;
mod process;
pub mod providers;
mod rabbitmq;
mod redis;
mod request;
mod rsyslog;
mod sentinel;
mod taken;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde_json::Value;

pub use answer::Answer;
pub use client::Client;
pub use cluster::Cluster;
#[cfg(feature = "otlp")]
pub use collector::{Answering, Collector, TakenSpan};
pub use delivery::*;
pub use disk::SmallDisk;
pub use gateway::{Gateway, Starting};
pub use home::{Home, Ran};
pub use http_service::{HttpService, Posted, Reply};
#[cfg(feature = "kafka")]
pub use kafka::kafka_messages;
pub use load::{Load, Sent};
pub use metrics::Metrics;
pub use nats::Nats;
pub use process::{Process, free_port};
pub use rabbitmq::Rabbitmq;
pub use redis::{Persistence, Redis};
pub use request::Request;
pub use rsyslog::Rsyslog;
pub use sentinel::Sentinel;
pub use taken::Taken;

/// Waits for a condition.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    eventually(what, async || holds().await.then_some(())).await;
}

/// Waits for a value.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    });
    match found.await {
        Ok(found) => found,
        Err(_) => panic!("it did not come within {PATIENCE:?}: {what}"),
    }
}

/// Fails when `work` takes longer than `bound`.
pub async fn within<T>(bound: Duration, what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(bound, work).await {
        Ok(done) => done,
        Err(_) => panic!("it took longer than {bound:?}: {what}"),
    }
}

/// Fails unless the events have exactly these ids, each once.
pub fn assert_each_once<'a>(events: &[Value], ids: impl IntoIterator<Item = &'a String>) {
    let mut counts: BTreeMap<&str, i32> = ids.into_iter().map(|id| (id.as_str(), -1)).collect();
    for event in events {
        *counts.entry(event["id"].as_str().unwrap()).or_insert(0) += 1;
    }
    let missing: Vec<_> = counts.iter().filter(|(_, count)| **count < 0).map(|(id, _)| id).collect();
    let extra: Vec<_> = counts.iter().filter(|(_, count)| **count > 0).map(|(id, _)| id).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "missing: {missing:?}; more than once, or unasked: {extra:?}"
    );
}

/// The ids of events, in order.
pub fn ids(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["id"].as_str().unwrap()).collect()
}

/// Unix seconds.
pub fn now() -> i64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since_1970.as_secs()).unwrap()
}

/// The program under test. Both cargo and nextest pass its path to every test that they run.
pub fn hookgate() -> PathBuf {
    std::env::var_os("CARGO_BIN_EXE_hookgate").expect("tests are run by cargo").into()
}

/// A test that waits this long fails.
pub const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
