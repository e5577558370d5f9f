//! A running gateway, as its operator reaches it: addresses, log, signals.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use serde_json::Value;

use super::log::Log;
use super::{Answer, Client, Process, Request, blocking, eventually, leaks, until};

/// Killed when dropped.
pub struct Gateway {
    process: Process,
    pub edge: SocketAddr,
    pub admin: SocketAddr,
    data: PathBuf,
    log: Log,
}

/// A gateway that does not listen yet: it may be waiting for a server or a port.
pub struct Starting {
    process: Process,
    data: PathBuf,
    log: Log,
}

impl Starting {
    pub(crate) fn spawn(serve: &mut Command, data: PathBuf) -> Starting {
        let mut process = Process::spawn(serve.stderr(Stdio::piped()));
        let log = Log::read(process.stderr());
        Starting { process, data, log }
    }

    pub async fn says(&self, what: &str) {
        until(what, async || self.log.contains(what)).await;
    }

    /// Asks it to reload its config.
    pub fn sighup(&self) {
        self.process.signal("HUP");
    }

    /// Waits until it listens.
    pub async fn listens(self) -> Gateway {
        self.listens_or_ends().await.unwrap_or_else(|log| panic!("{log}"))
    }

    /// Waits until it listens. If it ends instead, returns its log.
    pub async fn listens_or_ends(mut self) -> Result<Gateway, String> {
        let found = eventually("the gateway listens", async || self.look()).await;
        found.map(|addresses| self.at(addresses))
    }

    /// Blocks until it listens.
    pub(crate) fn listens_blocking(mut self) -> Gateway {
        match blocking::eventually("the gateway listens", || self.look()) {
            Ok(addresses) => self.at(addresses),
            Err(log) => panic!("{log}"),
        }
    }

    fn look(&mut self) -> Option<Result<[SocketAddr; 2], String>> {
        if let Some(ended) = self.process.ended() {
            // Its last lines may still be on their way here.
            if !self.log.is_closed() {
                return None;
            }
            return Some(Err(format!("{ended:?}\n{}", self.log.text())));
        }
        Some(Ok([self.log.address("serving")?, self.log.address("metrics and health")?]))
    }

    fn at(self, [edge, admin]: [SocketAddr; 2]) -> Gateway {
        Gateway { process: self.process, edge, admin, data: self.data, log: self.log }
    }
}

impl Gateway {
    /// Delivers on a connection of its own.
    pub async fn deliver(&self, request: &Request) -> Answer {
        let mut client = Client::connect(self.edge).await.unwrap();
        client.deliver(request).await.unwrap()
    }

    pub async fn admin(&self, path: &str) -> Answer {
        Client::connect(self.admin).await.unwrap().get(path).await.unwrap()
    }

    pub async fn ready(&self) -> bool {
        self.admin("/readyz").await.status == 200
    }

    /// The report of `/readyz`. Fails unless the status agrees with it.
    pub async fn readiness(&self) -> Value {
        let answer = self.admin("/readyz").await;
        let report = answer.json();
        assert_eq!(answer.status == 200, report["ready"] == true, "{answer:?}");
        report
    }

    /// The value of this series in `/metrics`, 0 if there is none.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.admin("/metrics").await.body;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or(0.0)
    }

    /// Everything on its standard error so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn kill9(mut self) {
        self.process.kill9();
    }

    pub fn pause(&self) {
        self.process.freeze();
    }

    pub fn resume(&self) {
        self.process.signal("CONT");
    }

    pub fn sigterm(&self) {
        self.process.signal("TERM");
    }

    pub fn sigint(&self) {
        self.process.signal("INT");
    }

    /// Asks it to reload its config.
    pub fn sighup(&self) {
        self.process.signal("HUP");
    }

    /// Waits for its end.
    pub async fn exit(&mut self) -> ExitStatus {
        eventually("the gateway ends", async || self.ended()).await
    }

    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    pub(crate) fn read_log(&self) -> &Log {
        &self.log
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the gateway's log ends\n{}", self.log.end());
        } else {
            leaks::assert_none_in("the gateway's log", &self.log.text());
        }
    }
}
