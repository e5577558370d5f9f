//! A thread that checkpoints the write-ahead log into the database while the writer goes on.
//!
//! Keeps true: the log restarts regularly, however busy the writer is. A checkpoint beside a writer never reaches the
//! end of the log. So the writer moves the rest, when little is left or the log is too long.
//!
//! SQLite's own limit (`wal_autocheckpoint`) does not bound the log: a commit cannot checkpoint while the thread does.

use std::path::Path;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use rusqlite::Connection;

use crate::durable::database;

/// The checkpoint thread and its progress.
pub(super) struct Checkpoints {
    thread: Option<Thread>,
    /// A checkpoint is due when the log has grown by this many bytes.
    due: i64,
    /// The approximate length of the log.
    length: i64,
    /// How much of the log was checkpointed.
    moved: i64,
    /// The length when the current pass began.
    at_start: Option<i64>,
}

struct Thread {
    begin: Sender<()>,
    ended: Receiver<()>,
    handle: JoinHandle<()>,
}

impl Checkpoints {
    /// Starts the thread. If that fails, the writer does all checkpoints.
    pub(super) fn start(db: &Path, due: i64) -> Checkpoints {
        let thread = Thread::start(db)
            .inspect_err(|why| tracing::warn!(%why, "the writer of the embedded store checkpoints by itself"))
            .ok();
        Checkpoints { thread, due, length: 0, moved: 0, at_start: None }
    }

    pub(super) fn wrote(&mut self, bytes: i64) {
        self.length += bytes;
    }

    /// Begins a pass if one is due. True if the writer must checkpoint the rest now.
    pub(super) fn is_writers_turn(&mut self) -> bool {
        let Some(thread) = &self.thread else { return self.length >= self.due };
        if let Some(at_start) = self.at_start {
            let too_long = self.length >= WRITER_WAITS_AT * self.due;
            if too_long {
                // An error means that the thread has ended, and its pass too.
                let _ = thread.ended.recv();
            } else if thread.ended.try_recv().is_err() {
                return false;
            }
            self.at_start = None;
            self.moved = at_start;
            if too_long || self.length - self.moved <= self.due / WRITER_SHARE {
                return true;
            }
        } else if self.length - self.moved < self.due {
            return false;
        }
        self.at_start = Some(self.length);
        // If the thread has ended, the writer must do it.
        thread.begin.try_send(()).is_err()
    }

    /// Records that the writer checkpointed the rest.
    pub(super) fn moved(&mut self) {
        (self.length, self.moved) = (0, 0);
    }

    /// Ends the thread and its connection. The writer's connection is then the last, and removes the log when it
    /// closes.
    pub(super) fn stop(&mut self) {
        let Some(Thread { begin, handle, .. }) = self.thread.take() else { return };
        drop(begin);
        if handle.join().is_err() {
            tracing::error!("the embedded store's checkpoint thread panicked");
        }
    }
}

impl Drop for Checkpoints {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Thread {
    fn start(db: &Path) -> Result<Thread, String> {
        let conn = Connection::open(db).map_err(|error| error.to_string())?;
        let (begin, wanted) = crossbeam_channel::bounded(1);
        let (done, ended) = crossbeam_channel::bounded(1);
        let work = move || {
            while wanted.recv().is_ok() {
                run(&conn, "PASSIVE");
                if done.send(()).is_err() {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name("checkpoint".to_owned());
        let handle = thread.spawn(work).map_err(|error| error.to_string())?;
        Ok(Thread { begin, ended, handle })
    }
}

/// Runs a checkpoint. A failure loses no event: the log keeps them.
pub(super) fn run(conn: &Connection, mode: &str) {
    if let Err(error) = conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(())) {
        let why = database::reason(&error);
        tracing::warn!(%error, why, "the embedded store could not be checkpointed");
    }
}

/// The writer checkpoints the rest when it is at most this part of `due`.
const WRITER_SHARE: i64 = 32;
/// At this many times `due`, the writer waits for the thread's pass to end, because the log takes disk space.
const WRITER_WAITS_AT: i64 = 6;
