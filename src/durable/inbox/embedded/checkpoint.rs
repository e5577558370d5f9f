//! The thread that moves the log into the database while the writer goes on.
//!
//! Keeps true: the log starts anew now and then, however busy the writer is. A checkpoint beside a writer never reaches the end
//! of the log, so the writer moves the rest: when little is left, or when the log is too long to wait.

use std::path::Path;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use rusqlite::Connection;

use crate::durable::database;

/// The thread, and how far it is.
pub(super) struct Checkpoints {
    thread: Option<Thread>,
    /// A checkpoint is due when the log has grown by so many bytes.
    due: i64,
    /// Roughly the length of the log.
    length: i64,
    /// What of it the passes have moved.
    moved: i64,
    /// The length when the pass under way began.
    at_start: Option<i64>,
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
        Checkpoints { thread, due, length: 0, moved: 0, at_start: None }
    }

    /// The writer has committed so many bytes.
    pub(super) fn wrote(&mut self, bytes: i64) {
        self.length += bytes;
    }

    /// Begins a pass if one is due. Whether the writer has to move what is left now.
    pub(super) fn is_writers_turn(&mut self) -> bool {
        let Some(thread) = &self.thread else { return self.length >= self.due };
        if let Some(at_start) = self.at_start {
            let too_long = self.length >= MOST * self.due;
            if too_long {
                // An error means that the thread is gone, and then its pass has ended too.
                let _ = thread.ended.recv();
            } else if thread.ended.try_recv().is_err() {
                return false;
            }
            self.at_start = None;
            self.moved = at_start;
            if too_long || self.length - self.moved <= self.due / LITTLE {
                return true;
            }
        } else if self.length - self.moved < self.due {
            return false;
        }
        self.at_start = Some(self.length);
        // A thread that has ended leaves the writer to do it.
        thread.begin.try_send(()).is_err()
    }

    /// The writer has moved all that was left.
    pub(super) fn moved(&mut self) {
        (self.length, self.moved) = (0, 0);
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
/// A log of so many times what is due stops the writer until the thread's pass ends: the log takes disk space.
const MOST: i64 = 6;
