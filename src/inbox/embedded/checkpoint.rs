//! The thread that moves the log into the database while the writer goes on.
//!
//! Keeps true: the log starts anew now and then, however busy the writer is. A checkpoint beside a writer never reaches the end
//! of the log, so after some passes of the thread the little that is left is the writer's to move.

use std::path::Path;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use rusqlite::Connection;

use crate::database;

/// The thread, and how far it is.
pub(super) struct Checkpoints {
    thread: Option<Thread>,
    /// A checkpoint is due when the log has grown by so many bytes.
    due: i64,
    /// Roughly what the log has grown by since it began.
    logged: i64,
    /// What it had grown by when the pass under way began.
    at_start: Option<i64>,
    passes: u32,
}

struct Thread {
    begin: Sender<()>,
    ended: Receiver<()>,
    handle: JoinHandle<()>,
}

impl Checkpoints {
    /// Starts the thread. Without one the writer does all of it.
    pub(super) fn start(db: &Path, due: i64) -> Checkpoints {
        let thread = Thread::start(db)
            .inspect_err(|why| tracing::warn!(%why, "the writer of the embedded store checkpoints by itself"))
            .ok();
        Checkpoints { thread, due, logged: 0, at_start: None, passes: 0 }
    }

    /// The writer has committed so many bytes.
    pub(super) fn wrote(&mut self, bytes: i64) {
        self.logged += bytes;
    }

    /// Begins a pass if one is due. Whether the writer has to move what is left now.
    pub(super) fn is_writers_turn(&mut self) -> bool {
        let Some(thread) = &self.thread else { return self.logged >= self.due };
        if let Some(at_start) = self.at_start {
            if thread.ended.try_recv().is_err() {
                return false;
            }
            self.at_start = None;
            self.logged -= at_start;
            self.passes += 1;
            if self.logged <= self.due / LITTLE || self.passes >= PASSES {
                return true;
            }
        } else if self.logged < self.due {
            return false;
        }
        self.at_start = Some(self.logged);
        // A thread that has ended leaves the writer to do it.
        thread.begin.try_send(()).is_err()
    }

    /// The writer has moved all that was left.
    pub(super) fn moved(&mut self) {
        (self.logged, self.passes) = (0, 0);
    }

    /// Ends the thread and its connection, so that the writer's is the last and removes the log.
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

/// Runs a checkpoint. A failure costs no event: the log keeps them.
pub(super) fn run(conn: &Connection, mode: &str) {
    if let Err(error) = conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(())) {
        let why = database::reason(&error);
        tracing::warn!(%error, why, "the embedded store could not be checkpointed");
    }
}

/// One part in so many of a whole checkpoint is little enough for the writer.
const LITTLE: i64 = 32;
/// A writer that is faster than the thread is stopped by the last pass, which is its own.
const PASSES: u32 = 6;
