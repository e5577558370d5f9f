//! The thread that writes for the spool and the claims: takes what waits, commits it as one transaction, answers all of it.
//!
//! Keeps true: an answer `Ok` is given only after COMMIT returned; a piece of work that fails takes nothing of itself along
//! and does not harm the others of its transaction; whoever is taken from the channel is answered.

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use rusqlite::{Connection, Result, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use super::pairing::Pairing;
use super::{Layout, OpenError};
use crate::base::clock;
use crate::base::runtime::{self, Answer, Answers, Home, Reply};
use crate::observe::telemetry::LogThrottle;

/// The open database. Work is done in the order it is asked for.
pub struct Database {
    jobs: Sender<Box<dyn Job>>,
    done: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
    deferred: bool,
}

/// Why a piece of work is not done, in words that may be seen outside. None of it is in the database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub &'static str);

impl Database {
    /// Opens or makes the file, with these tables, and starts its thread. On a disk that is full or fails it is opened once work
    /// finds that mended; until then all work is refused.
    ///
    /// # Errors
    /// When another gateway has it, it cannot be written, or it is not a database this build knows.
    pub fn open(db: &Path, tables: &str) -> Result<Database, OpenError> {
        let lock = super::lock(db)?;
        let mut file = File {
            db: db.to_owned(),
            tables: tables.to_owned(),
            opened: None,
            again: clock::instant(),
            lock,
        };
        match file.open() {
            Err(why @ OpenError::Disk { .. }) => {
                tracing::warn!(%why, "the database cannot be opened; trying on");
            }
            opened => opened?,
        }
        let deferred = file.opened.is_none();
        let (jobs, waiting) = crossbeam_channel::bounded(CAPACITY);
        let (finished, done) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("database".to_owned())
            .spawn(move || work(file, &waiting, finished))
            .map_err(|error| OpenError::Store { db: db.to_owned(), why: error.to_string() })?;
        Ok(Database { jobs, done, thread, deferred })
    }

    /// Whether it could not be opened at first.
    pub fn was_deferred(&self) -> bool {
        self.deferred
    }

    /// Does `work` inside a transaction, and answers once that is committed and synced. Once this is called it happens,
    /// whoever waits.
    ///
    /// # Errors
    /// When the database refuses, or too much waits for it: then nothing of `work` is in it.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let (reply, answer) = runtime::reply();
        let job = Box::new(Work { work: Some(work), result: Err(Failure(NOT_RUN)), reply });
        match self.jobs.try_send(job) {
            Ok(()) => answer.await.unwrap_or(Err(Failure(DIED))),
            Err(TrySendError::Full(_)) => Err(Failure("too much waits for the database")),
            Err(TrySendError::Disconnected(_)) => Err(Failure(DIED)),
        }
    }

    /// Takes no more, commits what waits and lets go of the file.
    pub async fn close(self) {
        drop(self.jobs);
        // Sent, or dropped by a thread that died: either way it is at its end, and joining it takes no time.
        let _ = self.done.await;
        if self.thread.join().is_err() {
            tracing::error!("the database's thread died");
        }
    }
}

/// A piece of work, whatever it gives.
trait Job: Send {
    /// Does it. An error of one job is its own; the transaction goes on unless SQLite has given it up.
    ///
    /// # Errors
    /// Of this job; it is answered all the same.
    fn run(&mut self, conn: &Connection) -> Result<()>;
    /// The thread that asked.
    fn home(&self) -> Home;
    /// Tells how it ended: as it ran, or as all of the transaction failed.
    fn finish(self: Box<Self>, failed: Option<Failure>);
}

struct Work<T, F> {
    work: Option<F>,
    result: Result<T, Failure>,
    reply: Reply<Result<T, Failure>>,
}

/// A job whose transaction is over, and why that failed.
struct Over(Box<dyn Job>, Option<Failure>);

impl Answer for Over {
    fn deliver(self) {
        self.0.finish(self.1);
    }
}

impl<T: Send, F: FnOnce(&Connection) -> Result<T> + Send> Job for Work<T, F> {
    fn run(&mut self, conn: &Connection) -> Result<()> {
        let Some(work) = self.work.take() else { return Ok(()) };
        match within_savepoint(conn, work) {
            Ok(done) => self.result = Ok(done),
            Err(error) => {
                self.result = Err(Failure(super::reason(&error)));
                return Err(error);
            }
        }
        Ok(())
    }

    fn home(&self) -> Home {
        self.reply.home()
    }

    fn finish(self: Box<Self>, failed: Option<Failure>) {
        let result = match failed {
            Some(why) => Err(why),
            None => self.result,
        };
        self.reply.deliver(result);
    }
}

fn within_savepoint<T>(conn: &Connection, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    conn.execute_batch("SAVEPOINT work")?;
    let done = work(conn);
    if done.is_err() && !conn.is_autocommit() {
        conn.execute_batch("ROLLBACK TO work")?;
    }
    if !conn.is_autocommit() {
        conn.execute_batch("RELEASE work")?;
    }
    done
}

/// The file that the thread writes to.
struct File {
    db: PathBuf,
    tables: String,
    /// None while the disk does not let it be opened. The connection goes before what is noted of it.
    opened: Option<(Connection, Pairing)>,
    /// When to try to open it again.
    again: Instant,
    lock: std::fs::File,
}

impl File {
    fn open(&mut self) -> Result<(), OpenError> {
        self.again = clock::instant() + AGAIN;
        let (conn, pairing) = super::open(&self.db, Layout::default(), &self.tables)?;
        let checkpoints = conn.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES);
        checkpoints.map_err(|error| OpenError::of(&self.db, error))?;
        self.opened = Some((conn, pairing));
        Ok(())
    }

    /// Opens it if that is to be tried again.
    fn reopen(&mut self) {
        if self.opened.is_some() || clock::instant() < self.again {
            return;
        }
        match self.open() {
            Ok(()) => tracing::info!(database = %self.db.display(), "the database is open"),
            Err(why) => tracing::debug!(%why, "the database cannot be opened yet"),
        }
    }

    fn close(self) {
        let File { opened, lock, .. } = self;
        if let Some((conn, _pairing)) = opened
            && let Err((_, error)) = conn.close()
        {
            tracing::warn!(%error, "the database could not be closed in good order");
        }
        // Last, when nothing is written any more.
        drop(lock);
    }
}

/// The thread.
fn work(mut file: File, jobs: &Receiver<Box<dyn Job>>, finished: oneshot::Sender<()>) {
    // On a full disk every forgery causes a refused write.
    let mut refusals = LogThrottle::default();
    while let Ok(first) = jobs.recv() {
        let mut batch = vec![first];
        batch.extend(jobs.try_iter().take(BATCH - 1));
        file.reopen();
        let Some((conn, pairing)) = &mut file.opened else {
            answer(batch, Some(&Failure(NOT_OPEN)));
            continue;
        };
        let done = commit(conn, &mut batch);
        let failed = done.as_ref().err().map(|error| Failure(super::reason(error)));
        answer(batch, failed.as_ref());
        if done.is_ok() {
            pairing.committed(conn);
        }
        if let Ok(Some(error)) | Err(error) = done
            && let Some(times) = refusals.again()
        {
            tracing::warn!(database = %file.db.display(), %error, times, "the database refuses writes");
        }
    }
    file.close();
    let _ = finished.send(());
}

fn answer(batch: Vec<Box<dyn Job>>, failed: Option<&Failure>) {
    let mut answers = Answers::default();
    for job in batch {
        answers.add(job.home(), Over(job, failed.cloned()));
    }
}

/// Commits what of the batch SQLite takes; gives the last error of a piece of work that it does not.
fn commit(conn: &Connection, batch: &mut [Box<dyn Job>]) -> Result<Option<rusqlite::Error>> {
    let transaction = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
    let mut refused = None;
    for job in batch {
        refused = job.run(&transaction).err().or(refused);
        if transaction.is_autocommit() {
            // A full disk ends a transaction at once, with all that was done in it.
            return Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(FULL), None));
        }
    }
    transaction.commit()?;
    Ok(refused)
}

/// Unlike the embedded inbox, this thread has moments to spare for moving the log into the database.
const CHECKPOINT_PAGES: u32 = 1000;
/// Pieces of work that may wait for the thread.
const CAPACITY: usize = 16_384;
/// Pieces of work a transaction takes at most.
const BATCH: usize = 512;
const FULL: i32 = rusqlite::ffi::SQLITE_FULL;
/// Between two attempts to open a database on a disk that failed.
const AGAIN: Duration = Duration::from_secs(1);
const NOT_OPEN: &str = "the database cannot be opened: the disk is full or fails";
const NOT_RUN: &str = "the database did not get to it";
const DIED: &str = "the database is closed";

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "CREATE TABLE IF NOT EXISTS numbers (n INTEGER PRIMARY KEY);";

    fn insert(n: i64) -> impl FnOnce(&Connection) -> Result<usize> + Send {
        move |conn| conn.execute("INSERT INTO numbers VALUES (?1)", [n])
    }

    fn all(conn: &Connection) -> Result<Vec<i64>> {
        conn.prepare("SELECT n FROM numbers ORDER BY n")?.query_map([], |row| row.get(0))?.collect()
    }

    #[tokio::test]
    async fn one_failing_piece_of_work_does_not_take_the_others_along() {
        let folder = tempfile::tempdir().unwrap();
        let db = folder.path().join("hookgate.db");
        let database = Database::open(&db, TABLE).unwrap();
        let works = [1, 2, 1, 3].map(|n| database.write(insert(n)));
        let mut told = Vec::new();
        for work in works {
            told.push(work.await.is_ok());
        }
        assert_eq!(told, [true, true, false, true]);
        let half = database.write(|conn| insert(4)(conn).and(insert(1)(conn))).await;
        assert_eq!(half, Err(Failure("the database failed")));
        assert_eq!(database.write(all).await, Ok(vec![1, 2, 3]));
        database.close().await;
        let again = Database::open(&db, TABLE).unwrap();
        assert_eq!(again.write(all).await, Ok(vec![1, 2, 3]));
        assert!(matches!(Database::open(&db, TABLE), Err(OpenError::InUse { .. })));
    }

    #[tokio::test]
    async fn a_full_database_fails_all_that_it_did_not_take() {
        let folder = tempfile::tempdir().unwrap();
        let database =
            Database::open(&folder.path().join("hookgate.db"), "CREATE TABLE IF NOT EXISTS blobs (b BLOB);")
                .unwrap();
        let fill = |conn: &Connection| conn.execute("INSERT INTO blobs VALUES (zeroblob(100000))", []);
        let pages = "PRAGMA max_page_count = 64";
        database.write(move |conn| conn.query_row(pages, [], |_| Ok(()))).await.unwrap();
        let mut taken = 0;
        while database.write(fill).await.is_ok() {
            taken += 1;
        }
        assert_eq!(database.write(fill).await, Err(Failure("no space left for the database")));
        let count = |conn: &Connection| conn.query_row("SELECT count(*) FROM blobs", [], |row| row.get(0));
        assert_eq!(database.write(count).await, Ok(taken));
        database.write(|conn| conn.execute("DELETE FROM blobs", [])).await.unwrap();
        database.write(fill).await.unwrap();
    }
}
