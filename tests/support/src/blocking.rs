//! For tests without a runtime: each call here blocks until its answer is there.

mod bystander;
mod connection;

use std::time::Instant;

use serde_json::Value;

use super::home::audit;
use super::{Answer, Gateway, Home, LOOK_AGAIN, Metrics, PATIENCE, Request};

pub use bystander::Bystander;
pub use connection::{Connection, is_open};

impl Home {
    /// Starts a gateway and blocks until it listens.
    pub fn gateway(&self) -> Gateway {
        self.start().listens_blocking()
    }

    /// The same under a limit, written as for `ulimit`: `-n 100` allows 100 open files.
    pub fn gateway_limited(&self, limit: &str) -> Gateway {
        self.start_limited(limit).listens_blocking()
    }
}

impl Gateway {
    pub fn connect(&self) -> Connection {
        Connection::open(self.edge)
    }

    /// Sends a request on a connection of its own.
    pub fn ask(&self, request: &Request) -> Answer {
        self.connect().ask(request)
    }

    pub fn ask_admin(&self, path: &str) -> Answer {
        Connection::open(self.admin).ask(&Request::get(path))
    }

    pub fn metrics(&self) -> Metrics {
        Metrics::read(&self.ask_admin("/metrics").body)
    }

    /// Blocks until the record of this refusal is written.
    pub fn record_of(&self, answer: &Answer) -> Value {
        let id = answer.json()["reject"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned();
        eventually("the refusal is recorded", || {
            self.records().into_iter().find(|record| record["id"] == *id)
        })
    }

    /// Every complete record of the reject log.
    pub fn records(&self) -> Vec<Value> {
        let text = audit(self.data());
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Closes this end of the pipe that it logs to.
    pub fn stop_reading_the_log(&self) {
        self.read_log().stop_reading();
        until("the reader of the log ends", || {
            // The reader notices at the next line, and a refusal logs one.
            self.ask(&Request::get("/nothing"));
            self.read_log().is_closed()
        });
    }

    /// Drains it. Returns its exit code and its log.
    pub fn stop(mut self) -> (i32, String) {
        self.sigterm();
        let status = eventually("the gateway stops", || self.ended());
        (status.code().unwrap_or(-1), self.log())
    }
}

/// Waits for a value.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Waits for a condition.
pub fn until(what: &str, mut true_now: impl FnMut() -> bool) {
    eventually(what, || true_now().then_some(()));
}
