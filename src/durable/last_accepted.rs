//! Stores when each source last had an event accepted, across restarts.
//!
//! Keeps true: no request waits for these writes, and no start fails because of them. While the database fails, the
//! gauges continue, and a warning is logged at most once a minute. A kill loses about one second.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use prometheus::Gauge;
use rusqlite::{Connection, Transaction, TransactionBehavior, params};
use tokio::sync::oneshot;

use crate::base::clock::Clock;
use crate::durable::database::{self, Found, OpenError};
use crate::observe::telemetry::LogThrottle;

/// The time of each source, and the thread that stores them.
pub struct LastAccepted {
    times: Arc<Mutex<Times>>,
    clock: Clock,
    /// Dropped to make the thread write once more and end.
    stop: Sender<Infallible>,
    done: oneshot::Receiver<()>,
    /// None if the thread could not be started: then nothing is stored.
    thread: Option<JoinHandle<()>>,
}

impl LastAccepted {
    /// Reads the stored times and starts the thread. The database must exist. The caller holds its lock until
    /// [`LastAccepted::close`] returns.
    pub fn open(db: &Path, clock: Clock) -> LastAccepted {
        let writer = Writer { db: db.to_owned(), conn: None, failed: 0, refusals: LogThrottle::default() };
        let stored = match writer.read() {
            Ok(stored) => stored,
            Err(error) => {
                tracing::warn!(%error, "cannot read when each source last had an event: each time starts at now");
                HashMap::new()
            }
        };
        let times = Arc::new(Mutex::new(Times { stored, ..Times::default() }));
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let (finished, done) = oneshot::channel();
        let (thread_times, since) = (times.clone(), clock.clone());
        let thread = std::thread::Builder::new()
            .name("last-accepted".to_owned())
            .spawn(move || work(writer, &thread_times, &since, &stopped, finished))
            .inspect_err(|error| {
                tracing::warn!(%error, "cannot start a thread: a restart will not know when each source last had an event");
            });
        LastAccepted { times, clock, stop, done, thread: thread.ok() }
    }

    /// Replaces the sources, each with its gauge in seconds of Unix time. A gauge at 0 is set to the source's stored
    /// time, or else to now.
    pub fn serve(&self, sources: impl IntoIterator<Item = (String, Gauge)>) {
        let now = self.clock.now().as_microsecond();
        let mut times = lock(&self.times);
        times.remove_all();
        for (source, gauge) in sources {
            if micros(&gauge) == 0 {
                let before = times.removed.get(&source).or_else(|| times.stored.get(&source));
                // A time in the future comes from a wrong clock. It would hide that the source is silent.
                let at = before.map_or(now, |before| (*before).min(now));
                gauge.set(at as f64 / 1e6);
            }
            times.served.insert(source, gauge);
        }
    }

    /// Writes the latest changes and closes the file.
    pub async fn close(self) {
        drop(self.stop);
        // The thread has sent this, or died and dropped it. Either way it has ended, and joining does not block.
        let _ = self.done.await;
        if self.thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that stores when each source last had an event has died");
        }
    }
}

/// Times are microseconds of Unix time, except in the gauges.
#[derive(Default)]
struct Times {
    served: HashMap<String, Gauge>,
    /// Removed sources whose latest time is not stored yet.
    removed: HashMap<String, i64>,
    /// The database's content, including sources that are not served.
    stored: HashMap<String, i64>,
}

impl Times {
    /// Removes every source, and keeps the times that are not stored yet.
    fn remove_all(&mut self) {
        let changed = self.changed();
        self.removed = changed;
        self.served.clear();
    }

    /// The times that the database does not have yet.
    fn changed(&self) -> HashMap<String, i64> {
        let mut changed = self.removed.clone();
        for (source, gauge) in &self.served {
            let at = micros(gauge);
            if self.stored.get(source) != Some(&at) {
                changed.insert(source.clone(), at);
            }
        }
        changed
    }

    /// Sources that are not served and had no event for [`KEEP_FOR`].
    fn outdated(&self, now: i64) -> Vec<String> {
        let long_ago = now.saturating_sub(i64::try_from(KEEP_FOR.as_micros()).unwrap_or(i64::MAX));
        let rows = self.stored.iter();
        let outdated = rows.filter(|(source, at)| **at < long_ago && !self.served.contains_key(*source));
        outdated.map(|(source, _)| source.clone()).collect()
    }

    fn on_written(&mut self, changed: HashMap<String, i64>, outdated: &[String]) {
        self.stored.extend(changed);
        self.stored.retain(|source, _| !outdated.contains(source));
        let stored = &self.stored;
        self.removed.retain(|source, at| stored.get(source) != Some(at));
    }
}

/// The thread's side of the database.
struct Writer {
    db: PathBuf,
    /// None until the database opens, and after a failure.
    conn: Option<Connection>,
    /// Failed attempts in a row.
    failed: u32,
    refusals: LogThrottle,
}

impl Writer {
    fn read(&self) -> Result<HashMap<String, i64>, OpenError> {
        let read = |conn: &Connection| {
            let mut select = conn.prepare("SELECT source, at FROM last_accepted")?;
            select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()
        };
        // Not through `open`, which writes: a full disk can still be read.
        match database::find(&self.db, "last_accepted")? {
            Found::Table(conn) => read(&conn).map_err(|error| OpenError::of(&self.db, error)),
            Found::NoTable | Found::Empty => Ok(HashMap::new()),
        }
    }

    fn open(&mut self) -> Result<&Connection, OpenError> {
        let conn = match self.conn.take() {
            Some(conn) => conn,
            None => database::join_beside(&self.db, TABLES, BUSY)?,
        };
        Ok(self.conn.insert(conn))
    }

    fn write(&mut self, times: &Mutex<Times>, outdated: &[String]) {
        let changed = lock(times).changed();
        if changed.is_empty() && outdated.is_empty() {
            return;
        }
        match self.commit(&changed, outdated) {
            Ok(()) => {
                self.failed = 0;
                lock(times).on_written(changed, outdated);
            }
            Err(error) => {
                self.conn = None;
                self.on_failure(&error);
            }
        }
    }

    fn commit(&mut self, changed: &HashMap<String, i64>, outdated: &[String]) -> Result<(), OpenError> {
        let conn = self.open()?;
        let commit = || {
            let transaction = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
            for (source, at) in changed {
                transaction.prepare_cached(SET)?.execute(params![source, at])?;
            }
            for source in outdated {
                transaction.execute("DELETE FROM last_accepted WHERE source = ?1", [source])?;
            }
            transaction.commit()
        };
        commit().map_err(|error| OpenError::of(&self.db, error))
    }

    fn on_failure(&mut self, error: &OpenError) {
        self.failed += 1;
        if self.failed < FAILURES_BEFORE_WARNING {
            return;
        }
        if let Some(times) = self.refusals.record() {
            tracing::warn!(
                %error, times,
                "cannot write down when each source last had an event: a restart will not know it"
            );
        }
    }
}

fn work(
    mut writer: Writer,
    times: &Mutex<Times>,
    clock: &Clock,
    stopped: &Receiver<Infallible>,
    finished: oneshot::Sender<()>,
) {
    let mut first = true;
    loop {
        let stopping = !matches!(stopped.recv_timeout(WRITE_INTERVAL), Err(RecvTimeoutError::Timeout));
        // By the first tick the sources are known.
        let first = std::mem::replace(&mut first, false);
        let outdated = if first { lock(times).outdated(clock.now().as_microsecond()) } else { Vec::new() };
        writer.write(times, &outdated);
        if stopping {
            break;
        }
    }
    drop(writer);
    let _ = finished.send(());
}

fn lock(times: &Mutex<Times>) -> MutexGuard<'_, Times> {
    times.lock().unwrap_or_else(PoisonError::into_inner)
}

fn micros(gauge: &Gauge) -> i64 {
    (gauge.get() * 1e6).round() as i64
}

const TABLES: &str = "CREATE TABLE IF NOT EXISTS last_accepted (
    source TEXT PRIMARY KEY,
    at INTEGER NOT NULL -- microseconds of Unix time
) WITHOUT ROWID;";
const SET: &str =
    "INSERT INTO last_accepted VALUES (?1, ?2) ON CONFLICT (source) DO UPDATE SET at = excluded.at";
const WRITE_INTERVAL: Duration = Duration::from_secs(1);
/// A source that returns within this time keeps its last time.
const KEEP_FOR: Duration = Duration::from_secs(90 * 86400);
/// Longer than any write of the gateway takes.
const BUSY: Duration = Duration::from_secs(1);
/// Failed attempts before a warning: another writer may hold the database briefly.
const FAILURES_BEFORE_WARNING: u32 = 5;

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::durable::database::writer::Database;

    fn at(seconds: i64) -> Clock {
        Clock::manual(Timestamp::from_second(seconds).unwrap())
    }

    fn gauge(value: f64) -> Gauge {
        let gauge = Gauge::new("any", "any").unwrap();
        gauge.set(value);
        gauge
    }

    /// Serves these sources with these initial gauge values, and returns the values afterwards.
    async fn served(db: &Path, seconds: i64, sources: &[(&str, f64)]) -> Vec<f64> {
        let times = LastAccepted::open(db, at(seconds));
        let gauges: Vec<_> =
            sources.iter().map(|(name, value)| ((*name).to_owned(), gauge(*value))).collect();
        times.serve(gauges.clone());
        times.close().await;
        gauges.iter().map(|(_, gauge)| gauge.get()).collect()
    }

    async fn database(folder: &tempfile::TempDir) -> PathBuf {
        let db = folder.path().join("hookgate.db");
        Database::open(&db, "").unwrap().close().await;
        db
    }

    #[tokio::test]
    async fn a_source_goes_on_with_what_it_had_and_a_new_one_begins_with_now() {
        let folder = tempfile::tempdir().unwrap();
        let db = database(&folder).await;
        assert_eq!(served(&db, 100, &[("a", 0.0), ("b", 99.5)]).await, [100.0, 99.5]);
        assert_eq!(served(&db, 200, &[("a", 0.0), ("b", 0.0), ("c", 0.0)]).await, [100.0, 99.5, 200.0]);
        // A time from a wrong clock is corrected.
        assert_eq!(served(&db, 150, &[("c", 0.0)]).await, [150.0]);
        let late = 100 + i64::try_from(KEEP_FOR.as_secs()).unwrap();
        assert_eq!(served(&db, late, &[("a", 0.0)]).await, [100.0]);
        // The row expires at the first run after [`KEEP_FOR`] that does not serve the source.
        assert_eq!(served(&db, late + 1, &[("a", 0.0)]).await, [100.0]);
        assert_eq!(served(&db, late + 2, &[("b", 0.0)]).await, [late as f64 + 2.0]);
    }

    #[tokio::test]
    async fn a_source_that_a_reload_takes_off_and_brings_back_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let db = database(&folder).await;
        let times = LastAccepted::open(&db, at(100));
        let first = gauge(0.0);
        times.serve([("a".to_owned(), first.clone())]);
        first.set(90.25);
        times.serve([("b".to_owned(), gauge(0.0))]);
        let again = gauge(0.0);
        times.serve([("a".to_owned(), again.clone())]);
        assert_eq!(again.get(), 90.25);
        times.close().await;
        assert_eq!(served(&db, 200, &[("a", 0.0), ("b", 0.0)]).await, [90.25, 100.0]);
    }

    #[tokio::test]
    async fn a_database_that_refuses_stops_nothing_and_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let db = database(&folder).await;
        let times = LastAccepted::open(&db, at(100));
        let one = gauge(0.0);
        times.serve([("a".to_owned(), one.clone())]);
        assert_eq!(one.get(), 100.0);
        std::fs::remove_file(&db).unwrap();
        std::fs::create_dir(&db).unwrap();
        times.close().await;
        let times = LastAccepted::open(&db, at(200));
        one.set(0.0);
        times.serve([("a".to_owned(), one.clone())]);
        assert_eq!(one.get(), 200.0);
        std::fs::remove_dir(&db).unwrap();
        Database::open(&db, "").unwrap().close().await;
        times.close().await;
        assert_eq!(served(&db, 300, &[("a", 0.0)]).await, [200.0]);
    }
}
