//! The thread that writes for the spool and the claims: it commits all waiting jobs as one transaction and answers
//! each.
//!
//! Keeps true: `Ok` is answered only after COMMIT returned. A failed job leaves nothing in the database and does not
//! harm other jobs. Every job taken from the channel is answered.

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

/// An open database. Jobs run in the order of the calls.
pub struct Database {
    jobs: Sender<Box<dyn Job>>,
    done: oneshot::Receiver<()>,
    thread: JoinHandle<()>,
    deferred: bool,
}

/// Why a job failed, in words that clients may see. Nothing of the job is in the database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub &'static str);

impl Database {
    /// Opens or creates the file with these tables, and starts its thread. If the disk is full or fails, the thread
    /// retries when jobs arrive; until then every job fails.
    ///
    /// # Errors
    /// When another gateway has it, it cannot be written, or this build does not know it.
    pub fn open(db: &Path, tables: &str) -> Result<Database, OpenError> {
        let lock = super::lock(db)?;
        let mut file = File {
            db: db.to_owned(),
            tables: tables.to_owned(),
            opened: None,
            retry_at: clock::instant(),
            lock,
        };
        match file.open() {
            Err(why @ OpenError::Disk { .. }) => {
                tracing::warn!(%why, "the database cannot be opened; it is tried again");
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

    /// Whether the first attempt to open it failed.
    pub fn was_deferred(&self) -> bool {
        self.deferred
    }

    /// Runs `work` inside a transaction, and returns after that is committed and synced. The work runs even if the
    /// caller is dropped.
    ///
    /// # Errors
    /// When the database fails or too many jobs wait: then nothing of `work` is in it.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let (reply, answer) = runtime::reply();
        let job = Box::new(Work { work: Some(work), result: Err(Failure(NOT_RUN)), reply });
        match self.jobs.try_send(job) {
            Ok(()) => answer.await.unwrap_or(Err(Failure(DIED))),
            Err(TrySendError::Full(_)) => Err(Failure("too many writes wait for the database")),
            Err(TrySendError::Disconnected(_)) => Err(Failure(DIED)),
        }
    }

    /// Takes no more jobs, commits the waiting ones and closes the file.
    pub async fn close(self) {
        drop(self.jobs);
        // The thread has sent this, or died and dropped it. Either way it has ended, and joining does not block.
        let _ = self.done.await;
        if self.thread.join().is_err() {
            tracing::error!("the database's thread died");
        }
    }
}

trait Job: Send {
    /// Runs the job. If it fails, the transaction goes on, unless SQLite has rolled it back.
    ///
    /// # Errors
    /// The job's error; the job is answered all the same.
    fn run(&mut self, conn: &Connection) -> Result<()>;
    /// The runtime thread that called.
    fn home(&self) -> Home;
    /// Answers: with the job's own result, or with the transaction's failure.
    fn finish(self: Box<Self>, failed: Option<Failure>);
}

struct Work<T, F> {
    work: Option<F>,
    result: Result<T, Failure>,
    reply: Reply<Result<T, Failure>>,
}

/// A finished job, and the transaction's failure if there was one.
struct FinishedJob(Box<dyn Job>, Option<Failure>);

impl Answer for FinishedJob {
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

/// The file as the thread sees it.
struct File {
    db: PathBuf,
    tables: String,
    /// None until the disk lets it be opened. Fields of the tuple drop in order, so the connection goes first.
    opened: Option<(Connection, Pairing)>,
    /// When to try to open it again.
    retry_at: Instant,
    lock: std::fs::File,
}

impl File {
    fn open(&mut self) -> Result<(), OpenError> {
        self.retry_at = clock::instant() + RETRY_INTERVAL;
        let (conn, pairing) = super::open(&self.db, Layout::default(), &self.tables)?;
        let checkpoints = conn.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES);
        checkpoints.map_err(|error| OpenError::of(&self.db, error))?;
        self.opened = Some((conn, pairing));
        Ok(())
    }

    /// Tries to open the file again, if it is not open and the pause is over.
    fn reopen(&mut self) {
        if self.opened.is_some() || clock::instant() < self.retry_at {
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
            tracing::warn!(%error, "the database could not be closed cleanly");
        }
        // Last, after all writes.
        drop(lock);
    }
}

fn work(mut file: File, jobs: &Receiver<Box<dyn Job>>, finished: oneshot::Sender<()>) {
    // Throttled, because on a full disk every forged request causes a failed write.
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
            && let Some(times) = refusals.record()
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
        answers.add(job.home(), FinishedJob(job, failed.cloned()));
    }
}

/// Commits the jobs that succeed. Returns the last error of a failed job.
fn commit(conn: &Connection, batch: &mut [Box<dyn Job>]) -> Result<Option<rusqlite::Error>> {
    let transaction = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
    let mut refused = None;
    for job in batch {
        refused = job.run(&transaction).err().or(refused);
        if transaction.is_autocommit() {
            // SQLite rolls back a transaction when the disk is full, and with it all earlier jobs.
            return Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(FULL), None));
        }
    }
    transaction.commit()?;
    Ok(refused)
}

/// Unlike the embedded inbox, this thread has time to checkpoint.
const CHECKPOINT_PAGES: u32 = 1000;
/// Jobs that may wait for the thread.
const CAPACITY: usize = 16_384;
/// Jobs in one transaction.
const BATCH: usize = 512;
const FULL: i32 = rusqlite::ffi::SQLITE_FULL;
/// Pause before the next attempt to open the database.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
const NOT_OPEN: &str = "the database cannot be opened: the disk is full or fails";
const NOT_RUN: &str = "the database did not run it";
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
    async fn a_failing_job_does_not_fail_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let db = folder.path().join("hookgate.db");
        let database = Database::open(&db, TABLE).unwrap();
        let works = [1, 2, 1, 3].map(|n| database.write(insert(n)));
        let mut succeeded = Vec::new();
        for work in works {
            succeeded.push(work.await.is_ok());
        }
        assert_eq!(succeeded, [true, true, false, true]);
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
    /// The jobs succeed, and only the COMMIT finds the violation.
    #[tokio::test]
    async fn no_job_is_answered_ok_if_the_commit_fails() {
        let folder = tempfile::tempdir().unwrap();
        let tables = "CREATE TABLE IF NOT EXISTS parents (n INTEGER PRIMARY KEY);
            CREATE TABLE IF NOT EXISTS numbers
                (n INTEGER PRIMARY KEY REFERENCES parents DEFERRABLE INITIALLY DEFERRED);";
        let database = Database::open(&folder.path().join("hookgate.db"), tables).unwrap();
        assert_eq!(database.write(insert(1)).await, Err(Failure("the database failed")));
        assert_eq!(database.write(all).await, Ok(vec![]));
        database.write(|conn| conn.execute("INSERT INTO parents VALUES (1)", [])).await.unwrap();
        assert_eq!(database.write(insert(1)).await, Ok(1));
        database.close().await;
    }
}
