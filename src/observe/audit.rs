//! The reject log: every refused request as one line of a hash chain on disk.
//!
//! Keeps true: recording never waits and never fails a request. Every reject is written, or counted in the `suppressed`
//! of a written record. The chain holds across rotation, restarts and failed writes. With a key, an anchor proves that
//! the records before it are unchanged. It proves nothing about later records: a starting gateway accepts the end of
//! the log as it is, and anchors it. The caller decides what a record shows of a request (no body, secret, query or
//! token).

mod anchor;
pub mod files;
mod journal;
mod ledger;
mod mark;
pub mod position;
mod rate_limiter;
pub mod record;
mod sealed;
pub mod tail;
pub mod verify;
mod writer;

use std::borrow::Cow;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use crossbeam_channel::{Sender, TrySendError, bounded};
use jiff::Timestamp;

use crate::base::clock::{self, Clock};
use crate::base::label::UNKNOWN;
use crate::base::reason::Note;
use crate::observe::admin::Readiness;
use crate::observe::metrics::Metrics;

pub use anchor::Key;
use journal::Journal;
pub use ledger::Ledger;
pub use mark::Mark;
use rate_limiter::{Aggregate, RejectRateLimiter};
use writer::{Message, Writer};

/// A refused request, with the parts that the log may show.
#[derive(Clone, Debug)]
pub struct Reject {
    /// From [`reject_id`]; the client got it in its answer.
    pub id: String,
    /// When it was refused.
    pub at: Timestamp,
    /// The source's name, or `unknown`.
    pub source: Arc<str>,
    /// The provider's name, or `unknown`.
    pub provider: Cow<'static, str>,
    /// The reason's label in metrics.
    pub reason: &'static str,
    /// The HTTP status of the answer; 0 if there was none.
    pub status: u16,
    /// The client's address, if it is known.
    pub client: Option<IpAddr>,
    /// The request's method.
    pub method: String,
    /// The request's path, without query and tokens.
    pub path: String,
    /// The body's SHA-256 (hex) and length, if it was read completely.
    pub body: Option<(String, u64)>,
    /// The chosen headers, with secrets fingerprinted.
    pub headers: Vec<(Cow<'static, str>, String)>,
    /// The details, for the operator.
    pub detail: String,
    /// The request was accepted, because the source has this reason set to report only.
    pub observed: bool,
}

impl Reject {
    /// The record of an operator's act, which refused nothing. `source` is the affected source, or `unknown` if there
    /// is no single one.
    pub fn operator(id: String, at: Timestamp, source: &str, detail: String) -> Reject {
        Reject {
            id,
            at,
            source: source.into(),
            provider: UNKNOWN.into(),
            reason: Note::Operator.label(),
            status: 200,
            client: None,
            method: String::new(),
            path: String::new(),
            body: None,
            headers: Vec::new(),
            detail,
            observed: false,
        }
    }
}

/// The log's limits.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The retention of a record.
    pub retain: Duration,
    /// For all files together.
    pub max_bytes: u64,
    /// Above this many rejects per second of one source and reason, the rest is aggregated into one record.
    pub per_second: u32,
    /// A new file begins before a file exceeds this.
    pub file_bytes: u64,
    /// A new file begins when a file is this old.
    pub file_age: Duration,
}

impl Options {
    /// The default limits. Files are a fraction of the total, because only whole files are deleted.
    pub fn new(retain: Duration, max_bytes: u64) -> Options {
        Options {
            retain,
            max_bytes,
            per_second: 100,
            file_bytes: FILE_BYTES.min(max_bytes / 8),
            file_age: FILE_AGE.min(retain / 8),
        }
    }
}

/// Why the log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process writes the log. Two writers would break the chain.
    #[error("another hookgate is writing the reject log in {0}; give each gateway its own data_dir")]
    Held(PathBuf),
    /// The directory or a file in it cannot be opened.
    #[error("cannot open the reject log in {path}: {why}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        why: io::Error,
    },
}

/// The request path's handle.
#[derive(Clone)]
pub struct Audit {
    inner: Arc<Inner>,
}

struct Inner {
    to_writer: Sender<Message>,
    limiter: Arc<RejectRateLimiter>,
    metrics: Arc<Metrics>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Audit {
    /// Opens the log in `dir` (created if missing), continues its chain, and starts the writer. With a key, the writer
    /// also makes anchors.
    ///
    /// # Errors
    /// When another process writes there, or the directory cannot be read or written.
    pub fn open(
        dir: &Path,
        options: Options,
        key: Option<Key>,
        clock: Clock,
        metrics: Arc<Metrics>,
        readiness: Arc<Readiness>,
    ) -> Result<Audit, OpenError> {
        let journal = Journal::open(dir, options, clock)?;
        let journal = match key {
            Some(key) => journal.with_anchors(key),
            None => journal,
        };
        Audit::start(journal, options.per_second, metrics, readiness)
            .map_err(|why| OpenError::Io { path: dir.to_owned(), why })
    }

    fn start(
        journal: Journal,
        per_second: u32,
        metrics: Arc<Metrics>,
        readiness: Arc<Readiness>,
    ) -> io::Result<Audit> {
        let limiter = Arc::new(RejectRateLimiter::new(per_second));
        let (to_writer, inbox) = bounded(WAITING);
        let writer = Writer::new(journal, inbox, Arc::clone(&limiter), Arc::clone(&metrics), readiness);
        let thread = thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run())?;
        let thread = Mutex::new(Some(thread));
        Ok(Audit { inner: Arc::new(Inner { to_writer, limiter, metrics, thread }) })
    }

    /// From now on reports the synced head to `ledger`, and records the acts that wait there. May wait for the writer.
    pub fn keep(&self, ledger: Box<dyn Ledger>) {
        // After the writer has ended, nothing is reported. Later records count as failed.
        let _ = self.inner.to_writer.send(Message::Ledger(ledger));
    }

    /// Records a reject. Never waits: rejects that the writer cannot take now are aggregated.
    pub fn record(&self, reject: Reject) {
        let inner = &*self.inner;
        let held = match inner.limiter.acquire(Box::new(reject)) {
            Err(excess) => excess,
            Ok(reject) => match inner.to_writer.try_send(Message::Reject(reject)) {
                Err(TrySendError::Full(Message::Reject(reject))) => reject,
                Err(TrySendError::Disconnected(_)) => return inner.metrics.audit.failures.inc(),
                Ok(()) | Err(TrySendError::Full(_)) => return,
            },
        };
        if inner.limiter.hold(Aggregate::one(held)) {
            // Wakes an idle writer for its first aggregate. A writer with a full queue is awake.
            let _ = inner.to_writer.try_send(Message::Aggregate);
        }
    }

    /// Writes what is queued, syncs and ends the writer. Blocks, so call it outside async code, after the last request.
    /// Later records only count as failures.
    pub fn close(&self) {
        let thread = self.inner.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        let _ = self.inner.to_writer.send(Message::Close);
        if thread.join().is_err() {
            tracing::error!("the reject log's writer panicked");
        }
        let late: u64 = self.inner.limiter.take().iter().map(|sum| 1 + sum.more).sum();
        self.inner.metrics.audit.failures.inc_by(late);
    }
}

/// Takes the lock of the log in `dir` (created if missing). The lock lasts as long as the returned file is open.
///
/// # Errors
/// When another process writes there, or the directory cannot be written.
pub fn lock(dir: &Path) -> Result<std::fs::File, OpenError> {
    journal::lock(dir).map_err(|why| match why {
        std::fs::TryLockError::WouldBlock => OpenError::Held(dir.to_owned()),
        std::fs::TryLockError::Error(why) => OpenError::Io { path: dir.to_owned(), why },
    })
}

/// A new record id: `rej_` and 20 random hex digits.
pub fn reject_id() -> String {
    format!("rej_{}", hex::encode(clock::random::<10>()))
}

/// Rejects that may wait for the writer.
const WAITING: usize = 8192;
const FILE_BYTES: u64 = 16 * 1024 * 1024;
const FILE_AGE: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests;
