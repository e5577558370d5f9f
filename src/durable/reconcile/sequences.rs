//! The highest sequence number that each subscription of a source was seen with, across restarts.
//!
//! Keeps true: no request waits for a write. Numbers gather in memory and are written about once a second. A stored number
//! never falls. A kill may lose the last second; where the queue is in the same file, the next start reads it from there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use memchr::memmem;
use rusqlite::{Connection, OptionalExtension, Result, Transaction, TransactionBehavior, params};
use serde::Deserialize;

use super::ReconcileDb;
use crate::durable::database::OpenError;

/// `unwritten` has a row while numbers may be missing: from a start to the end of its drain.
pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS sequences (
    source TEXT NOT NULL,
    scope TEXT NOT NULL,
    highest INTEGER NOT NULL,
    PRIMARY KEY (source, scope)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sequences_unwritten (one INTEGER PRIMARY KEY CHECK (one = 1));
";

/// The numbers of accepted events that are not written yet.
#[derive(Default)]
pub struct Sequences {
    unwritten: Mutex<Numbers>,
}

/// By source and scope.
type Numbers = HashMap<(Arc<str>, String), u64>;

impl Sequences {
    /// Records the number of an event of this source that the queue has.
    pub fn seen(&self, source: &Arc<str>, scope: &str, number: u64) {
        let mut unwritten = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
        note(&mut unwritten, (source.clone(), scope.to_owned()), number);
    }

    /// Writes the numbers that are not written yet. Blocks.
    ///
    /// # Errors
    /// When the database cannot be written: then they wait for the next call.
    pub fn write(&self, db: &ReconcileDb) -> std::result::Result<(), OpenError> {
        let numbers = std::mem::take(&mut *self.unwritten.lock().unwrap_or_else(PoisonError::into_inner));
        if numbers.is_empty() {
            return Ok(());
        }
        let written = db
            .write_sequences(numbers.iter().map(|((source, scope), number)| (&**source, &**scope, *number)));
        if written.is_err() {
            let mut unwritten = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
            numbers.into_iter().for_each(|(key, number)| note(&mut unwritten, key, number));
        }
        written
    }
}

fn note(numbers: &mut Numbers, key: (Arc<str>, String), number: u64) {
    // A scope beyond the limit waits for the next write, so that memory stays bounded.
    if numbers.len() < MAX_SCOPES || numbers.contains_key(&key) {
        let highest = numbers.entry(key).or_default();
        *highest = number.max(*highest);
    }
}

impl ReconcileDb {
    /// The highest written number. None: the scope was never seen. Blocks.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn highest(&self, source: &str, scope: &str) -> std::result::Result<Option<u64>, OpenError> {
        self.with(|conn| {
            conn.prepare_cached("SELECT highest FROM sequences WHERE source = ?1 AND scope = ?2")?
                .query_row([source, scope], |row| row.get::<_, i64>(0))
                .optional()
                .map(|highest| highest.map(i64::cast_unsigned))
        })
    }

    /// Records a number as seen. Blocks.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn note_sequence(
        &self,
        source: &str,
        scope: &str,
        number: u64,
    ) -> std::result::Result<(), OpenError> {
        self.write_sequences([(source, scope, number)])
    }

    fn write_sequences<'n>(
        &self,
        numbers: impl IntoIterator<Item = (&'n str, &'n str, u64)>,
    ) -> std::result::Result<(), OpenError> {
        self.with(|conn| {
            let transaction = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
            let mut set = transaction.prepare_cached(SET)?;
            for (source, scope, number) in numbers {
                set.execute(params![source, scope, number.cast_signed(), MAX_SCOPES as i64])?;
            }
            drop(set);
            transaction.commit()
        })
    }

    /// Notes that numbers may be in memory only. Before that, if an earlier process ended without
    /// [`ReconcileDb::end_sequences`], reads the numbers of the last events of the embedded queue, if this database has
    /// it. `source_of` gives the source of an event by its path. Blocks.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub fn begin_sequences(&self, source_of: &HashMap<String, String>) -> std::result::Result<(), OpenError> {
        let was_killed = self.with(|conn| {
            let was_killed: bool =
                conn.query_row("SELECT EXISTS (SELECT 1 FROM sequences_unwritten)", [], |row| row.get(0))?;
            conn.execute("INSERT OR IGNORE INTO sequences_unwritten VALUES (1)", [])?;
            Ok(was_killed)
        })?;
        if !was_killed || source_of.is_empty() {
            return Ok(());
        }
        let found = self.with(last_queued)?;
        let numbers = found.iter().filter_map(|(path, scope, number)| {
            source_of.get(path).map(|source| (&**source, &**scope, *number))
        });
        self.write_sequences(numbers)
    }

    /// Notes that every number is written. Blocks.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn end_sequences(&self) -> std::result::Result<(), OpenError> {
        self.with(|conn| conn.execute("DELETE FROM sequences_unwritten", []).map(drop))
    }
}

/// The path, scope and number of each numbered event among the last ones of the embedded queue.
fn last_queued(conn: &Connection) -> Result<Vec<(String, String, u64)>> {
    if !conn.table_exists(None, "events")? {
        return Ok(Vec::new());
    }
    let mut select = conn
        .prepare("SELECT received, event FROM events WHERE event IS NOT NULL ORDER BY seq DESC LIMIT ?1")?;
    let mut rows = select.query([SCANNED])?;
    let (mut newest, mut found) = (None, Vec::new());
    while let Some(row) = rows.next()? {
        let received: i64 = row.get(0)?;
        if received < newest.get_or_insert(received).saturating_sub(SCANNED_MICROS) {
            break;
        }
        let event = row.get_ref(1)?.as_bytes().unwrap_or_default();
        // Most events have no number, and need not be parsed.
        if memmem::find(event, SEQUENCE).is_some()
            && let Ok(Numbered { source, sequence, data }) = serde_json::from_slice(event)
            && let Ok(number) = sequence.parse()
        {
            found.push((source, data.payload.subscription, number));
        }
    }
    Ok(found)
}

/// An event with a sequence number, which only Securitize's events have.
#[derive(Deserialize)]
struct Numbered {
    source: String,
    sequence: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    payload: Payload,
}

#[derive(Deserialize)]
struct Payload {
    #[serde(rename = "subscriptionId")]
    subscription: String,
}

/// SQLite's numbers are signed. A number from 2^63 on is stored as a negative one, so the sign is compared first.
const SET: &str = "
INSERT INTO sequences (source, scope, highest) SELECT ?1, ?2, ?3
    WHERE (SELECT count(*) FROM sequences WHERE source = ?1) < ?4
        OR EXISTS (SELECT 1 FROM sequences WHERE source = ?1 AND scope = ?2)
    ON CONFLICT DO UPDATE SET highest = excluded.highest
    WHERE (excluded.highest < 0, excluded.highest) > (highest < 0, highest)";
/// Of a source, and of all sources between two writes.
const MAX_SCOPES: usize = 10_000;
const SEQUENCE: &[u8] = b"\"sequence\":\"";
/// A write is at most this much late, unless the database fails.
const SCANNED_MICROS: i64 = 10_000_000;
/// More events than a gateway takes within that time on a usual disk.
const SCANNED: i64 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;
    use crate::durable::database::writer::Database;

    async fn opened(folder: &tempfile::TempDir) -> ReconcileDb {
        let db = folder.path().join("hookgate.db");
        if !db.exists() {
            Database::open(
                &db,
                "CREATE TABLE events (seq INTEGER PRIMARY KEY, received INTEGER, event TEXT);",
            )
            .unwrap()
            .close()
            .await;
        }
        ReconcileDb::new(&db)
    }

    #[tokio::test]
    async fn the_highest_number_stays_over_restarts_and_never_falls() {
        let folder = tempfile::tempdir().unwrap();
        let (db, source) = (opened(&folder).await, Arc::from("securitize"));
        let sequences = Sequences::default();
        for number in [7, 9, 8] {
            sequences.seen(&source, "sub", number);
        }
        assert_eq!(db.highest("securitize", "sub").unwrap(), None, "nothing is written yet");
        sequences.write(&db).unwrap();
        let db = opened(&folder).await;
        assert_eq!(db.highest("securitize", "sub").unwrap(), Some(9));
        assert_eq!((db.highest("securitize", "x").unwrap(), db.highest("x", "sub").unwrap()), (None, None));
        for (number, highest) in [(8, 9), (10, 10), (u64::MAX, u64::MAX), (11, u64::MAX)] {
            db.note_sequence("securitize", "sub", number).unwrap();
            assert_eq!(db.highest("securitize", "sub").unwrap(), Some(highest));
        }
    }

    #[tokio::test]
    async fn numbers_wait_for_a_database_that_refuses() {
        let folder = tempfile::tempdir().unwrap();
        let (db, sequences) = (opened(&folder).await, Sequences::default());
        sequences.seen(&Arc::from("a"), "sub", 5);
        let broken = ReconcileDb::new(&folder.path().join("none.db"));
        assert!(sequences.write(&broken).is_err());
        sequences.seen(&Arc::from("a"), "sub", 4);
        sequences.write(&db).unwrap();
        assert_eq!(db.highest("a", "sub").unwrap(), Some(5));
    }

    #[tokio::test]
    async fn the_scopes_of_a_source_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let db = opened(&folder).await;
        let scopes: Vec<String> = (0..MAX_SCOPES + 5).map(|n| n.to_string()).collect();
        db.write_sequences(scopes.iter().map(|scope| ("a", &**scope, 1))).unwrap();
        db.write_sequences([("a", "0", 2), ("b", "0", 3)]).unwrap();
        assert_eq!(db.highest("a", "0").unwrap(), Some(2), "a known one goes on");
        assert_eq!(db.highest("b", "0").unwrap(), Some(3));
        assert_eq!(db.highest("a", scopes.last().unwrap()).unwrap(), None);
    }

    #[tokio::test]
    async fn after_a_kill_the_last_events_of_the_queue_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let db = opened(&folder).await;
        let now = Clock::System.now().as_microsecond();
        let event = |path: &str, number: u64| {
            format!(
                "{{\"source\":\"{path}\",\"sequence\":\"{number:020}\",\"data\":{{\"payload\":{{\"subscriptionId\":\"sub\",\"x\":1}}}}}}"
            )
        };
        let old = now - 2 * SCANNED_MICROS;
        for (received, event) in [
            (old, event("/hooks/s", 99)),
            (now - 1, event("/hooks/s", 12)),
            (now, event("/hooks/s", 11)),
            (now, event("/hooks/gone", 50)),
            (now, "{\"source\":\"/hooks/s\",\"data\":{\"payload\":{}}}".to_owned()),
        ] {
            db.with(|conn| {
                conn.execute("INSERT INTO events (received, event) VALUES (?1, ?2)", params![received, event])
            })
            .unwrap();
        }
        let source_of = HashMap::from([("/hooks/s".to_owned(), "s".to_owned())]);
        let highest = |db: &ReconcileDb| db.highest("s", "sub").unwrap();
        db.begin_sequences(&source_of).unwrap();
        assert_eq!(highest(&db), None, "it is the first start");
        db.end_sequences().unwrap();
        db.begin_sequences(&source_of).unwrap();
        assert_eq!(highest(&db), None, "the process before ended well");
        db.begin_sequences(&source_of).unwrap();
        assert_eq!(highest(&db), Some(12));
    }
}
