//! The reject log: every refused request as one line of a hash chain on disk.
//!
//! Keeps true: recording never waits and never fails a request; every reject is either written or counted in
//! the `suppressed` of a record that is; the chain holds over rotation, restarts and failed writes.
//! With a key, anchors in the chain vouch for what stands before them. They do not vouch for what follows the last one: a
//! gateway that starts takes the end of the log as it finds it, and anchors that.
//! What a record may show of a request (no body, secret, query or token) is decided by the caller.

mod anchor;
pub mod files;
mod journal;
mod ledger;
mod mark;
pub mod position;
mod rate_limiter;
pub mod record;
mod sealed;
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

/// A refused request, as much of it as the log may show.
#[derive(Clone, Debug)]
pub struct Reject {
    /// From [`reject_id`]; the refused client was told it.
    pub id: String,
    /// When it was refused.
    pub at: Timestamp,
    /// The source's name, or `unknown`.
    pub source: Arc<str>,
    /// The provider's name, or `unknown`.
    pub provider: &'static str,
    /// The reason's label.
    pub reason: &'static str,
    /// The HTTP status answered; 0 where nothing was.
    pub status: u16,
    /// Who sent it, where that is known.
    pub client: Option<IpAddr>,
    /// The request's method.
    pub method: String,
    /// The request's path, without query and tokens.
    pub path: String,
    /// SHA-256 (hex) and length of the body, where it was read whole.
    pub body: Option<(String, u64)>,
    /// The headers to keep, already chosen and fingerprinted.
    pub headers: Vec<(Cow<'static, str>, String)>,
    /// What was wrong, for the operator.
    pub detail: String,
    /// It was not refused: the source only observes this reason yet.
    pub observed: bool,
}

impl Reject {
    /// The record of what an operator did, which refused nothing. `source` is the one that it was done to, or `unknown` where
    /// it was no single one.
    pub fn operator(id: String, at: Timestamp, source: &str, detail: String) -> Reject {
        Reject {
            id,
            at,
            source: source.into(),
            provider: UNKNOWN,
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

/// The log's bounds.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long a record is kept.
    pub retain: Duration,
    /// All files together.
    pub max_bytes: u64,
    /// Above this many rejects a second of one source and reason, the rest is summed into one record.
    pub per_second: u32,
    /// A file ends before it grows past this.
    pub file_bytes: u64,
    /// A file ends when it is this old.
    pub file_age: Duration,
}

impl Options {
    /// The usual bounds. Files are a fraction of what is kept, since whole files are what is deleted.
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
    /// Two writers would break the chain.
    #[error("another hookgate is writing the reject log in {0}; give each gateway its own data_dir")]
    Held(PathBuf),
    /// The directory or a file in it.
    #[error("cannot open the reject log in {path}: {why}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
}

/// The handle that the request path records into.
#[derive(Clone)]
pub struct Audit {
    inner: Arc<Inner>,
}

struct Inner {
    to_writer: Sender<Message>,
    flood: Arc<RejectRateLimiter>,
    metrics: Arc<Metrics>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Audit {
    /// Opens the log in `dir` (created if absent), continues its chain, and starts the writer. With a key, it makes anchors.
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
            Some(key) => journal.anchored(key),
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
        let flood = Arc::new(RejectRateLimiter::new(per_second));
        let (to_writer, inbox) = bounded(WAITING);
        let writer = Writer::new(journal, inbox, Arc::clone(&flood), Arc::clone(&metrics), readiness);
        let thread = thread::Builder::new().name("audit".to_owned()).spawn(move || writer.run())?;
        let thread = Mutex::new(Some(thread));
        Ok(Audit { inner: Arc::new(Inner { to_writer, flood, metrics, thread }) })
    }

    /// Notes in `ledger` from here on how far the log is synced, and records the acts that wait there. May wait for the writer.
    pub fn keep(&self, ledger: Box<dyn Ledger>) {
        // A writer that has ended notes nothing. Records that come after it count as failed.
        let _ = self.inner.to_writer.send(Message::Ledger(ledger));
    }

    /// Records a reject. Never waits: what the writer cannot take at once is summed up.
    pub fn record(&self, reject: Reject) {
        let inner = &*self.inner;
        let held = match inner.flood.admit(Box::new(reject)) {
            Err(excess) => excess,
            Ok(reject) => match inner.to_writer.try_send(Message::Reject(reject)) {
                Err(TrySendError::Full(Message::Reject(reject))) => reject,
                Err(TrySendError::Disconnected(_)) => return inner.metrics.audit.failures.inc(),
                Ok(()) | Err(TrySendError::Full(_)) => return,
            },
        };
        if inner.flood.hold(Aggregate::one(held)) {
            // An idle writer sleeps long: it must hear of the first sum. A full one is awake.
            let _ = inner.to_writer.try_send(Message::Sums);
        }
    }

    /// Writes what waits, syncs and ends the writer. Blocks: call it where that is allowed, after the last
    /// request. What is recorded later is only counted, as a failure.
    pub fn close(&self) {
        let thread = self.inner.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else { return };
        let _ = self.inner.to_writer.send(Message::Close);
        if thread.join().is_err() {
            tracing::error!("the reject log's writer panicked");
        }
        let late: u64 = self.inner.flood.take().iter().map(|sum| 1 + sum.more).sum();
        self.inner.metrics.audit.failures.inc_by(late);
    }
}

/// Takes the lock of the log in `dir` (created if absent); held as long as the file is.
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
