//! Dead letters, as their operator handles them: through its own connection, whether or not a gateway runs.
//!
//! Keeps true: waiting events are never touched. A letter sent back goes behind all waiting events and keeps its owner,
//! so that dedupe holds. Of letters given by name, all are handled or none. With "all", the oldest go first, and an
//! interruption leaves the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use crate::durable::database::{self, Found, OpenError};

/// The dead letters in a database.
pub struct DeadLetters {
    conn: Connection,
}

/// A dead letter, without its event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its number. It changes when the letter is sent back.
    pub seq: i64,
    /// When the delivery arrived.
    pub received: Timestamp,
    /// The source's name.
    pub source: String,
    /// The event's type.
    pub kind: String,
    /// The event's id.
    pub id: String,
    /// Why the event is dead.
    pub why: String,
    /// What it uses of `spool.max_bytes`.
    pub bytes: u64,
}

/// Which dead letters.
#[derive(Clone, Debug)]
pub enum Selection {
    /// All of them.
    All,
    /// Those with these numbers or ids. Digits are tried as a number first. Letters of several sources may have the
    /// same id.
    These(Vec<String>),
}

/// How many letters of each source.
pub type BySource = BTreeMap<String, usize>;

/// Why dead letters cannot be handled.
#[derive(Debug, thiserror::Error)]
pub enum DeadError {
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// The database was only used by an embedded queue.
    #[error("{} has no spool, and so no dead letters", db.display())]
    NoSpool {
        /// The database.
        db: PathBuf,
    },
    /// No dead letter has these numbers or ids.
    #[error("there is no dead letter {}; nothing was changed", .0.join(", "))]
    NoSuch(Vec<String>),
}

impl DeadLetters {
    /// Opens the database, whether or not a gateway has it open.
    ///
    /// # Errors
    /// When there is no database, it is not a hookgate database, or it has no spool.
    pub fn open(db: &Path) -> Result<DeadLetters, DeadError> {
        match database::find(db, "spool")? {
            Found::Table(conn) => Ok(DeadLetters { conn }),
            Found::NoTable => Err(DeadError::NoSpool { db: db.to_owned() }),
            Found::Empty => Err(OpenError::Empty { db: db.to_owned() }.into()),
        }
    }

    /// All dead letters, oldest first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn list(&self) -> Result<Vec<DeadLetter>, DeadError> {
        self.select("FROM spool WHERE why IS NOT NULL ORDER BY seq", i64::MAX)
    }

    /// The newest dead letters, newest first, at most `limit`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn newest(&self, limit: usize) -> Result<Vec<DeadLetter>, DeadError> {
        let of = "FROM spool INDEXED BY spool_dead WHERE why IS NOT NULL ORDER BY seq DESC";
        self.select(of, i64::try_from(limit).unwrap_or(i64::MAX))
    }

    fn select(&self, of: &str, limit: i64) -> Result<Vec<DeadLetter>, DeadError> {
        self.with(|conn| {
            conn.prepare(&format!("SELECT seq, received, source, type, id, why, bytes {of} LIMIT ?1"))?
                .query_map([limit], |row| {
                    Ok(DeadLetter {
                        seq: row.get(0)?,
                        received: Timestamp::from_microsecond(row.get(1)?).unwrap_or(Timestamp::UNIX_EPOCH),
                        source: row.get(2)?,
                        kind: row.get(3)?,
                        id: row.get(4)?,
                        why: row.get(5)?,
                        bytes: row.get::<_, i64>(6)?.unsigned_abs(),
                    })
                })?
                .collect()
        })
    }

    /// The events of the letters with this number, or else with this id: JSON, as it would enter the queue.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn events(&self, id_or_seq: &str) -> Result<Vec<String>, DeadError> {
        self.with(|conn| {
            let mut event = conn.prepare("SELECT event FROM spool WHERE seq = ?1")?;
            let letters = named(conn, id_or_seq)?;
            letters.into_iter().map(|seq| event.query_row([seq], |row| row.get(0))).collect()
        })
    }

    /// Sends letters back, behind all waiting events; a running gateway picks them up. Returns how many.
    ///
    /// # Errors
    /// When a named letter does not exist, or the database fails.
    pub fn retry(&mut self, which: &Selection) -> Result<BySource, DeadError> {
        self.change(which, |conn, seq| {
            conn.execute("UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'spool'", [])?;
            conn.execute(
                "UPDATE spool SET why = NULL, seq = (SELECT seq FROM sqlite_sequence WHERE name = 'spool')
                WHERE seq = ?1 AND why IS NOT NULL",
                [seq],
            )
        })
    }

    /// Deletes letters. Returns how many.
    ///
    /// # Errors
    /// When a named letter does not exist, or the database fails.
    pub fn delete(&mut self, which: &Selection) -> Result<BySource, DeadError> {
        self.change(which, |conn, seq| {
            conn.execute("DELETE FROM spool WHERE seq = ?1 AND why IS NOT NULL", [seq])
        })
    }

    fn change(&mut self, which: &Selection, change: Change) -> Result<BySource, DeadError> {
        let Selection::These(names) = which else { return self.change_all(change) };
        self.with(|conn| {
            let transaction = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
            let (mut letters, mut unknown) = (BTreeSet::new(), Vec::new());
            for name in names {
                let found = named(&transaction, name)?;
                if found.is_empty() {
                    unknown.push(name.clone());
                }
                letters.extend(found);
            }
            if !unknown.is_empty() {
                return Ok(Err(DeadError::NoSuch(unknown)));
            }
            let mut changed = BySource::new();
            letters.iter().try_for_each(|seq| change_one(&transaction, *seq, change, &mut changed))?;
            transaction.commit()?;
            Ok(Ok(changed))
        })?
    }

    /// Oldest first, in small transactions, so that a running gateway never waits long.
    fn change_all(&mut self, change: Change) -> Result<BySource, DeadError> {
        // Stop at the highest number of now: a letter sent back may die again under a higher number.
        let last: i64 = self.with(|conn| {
            conn.query_row("SELECT coalesce(max(seq), 0) FROM spool WHERE why IS NOT NULL", [], |row| {
                row.get(0)
            })
        })?;
        let mut changed = BySource::new();
        loop {
            let some = self.with(|conn| {
                let transaction = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
                let letters = some_up_to(&transaction, last)?;
                letters.iter().try_for_each(|seq| change_one(&transaction, *seq, change, &mut changed))?;
                transaction.commit()?;
                Ok(letters.len())
            })?;
            if some == 0 {
                return Ok(changed);
            }
            std::thread::sleep(BETWEEN);
        }
    }

    fn with<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, DeadError> {
        let db = Path::new(self.conn.path().unwrap_or_default());
        work(&self.conn).map_err(|error| DeadError::Database(OpenError::of(db, error)))
    }
}

/// Changes one letter, and returns the number of changed rows.
type Change = fn(&Connection, i64) -> rusqlite::Result<usize>;

fn change_one(conn: &Connection, seq: i64, change: Change, changed: &mut BySource) -> rusqlite::Result<()> {
    let source: String =
        conn.prepare_cached("SELECT source FROM spool WHERE seq = ?1")?.query_row([seq], |row| row.get(0))?;
    *changed.entry(source).or_default() += change(conn, seq)?;
    Ok(())
}

/// The letters with this number, or else with this id, oldest first.
fn named(conn: &Connection, name: &str) -> rusqlite::Result<Vec<i64>> {
    let by = |column: &str| -> rusqlite::Result<Vec<i64>> {
        conn.prepare_cached(&format!(
            "SELECT seq FROM spool WHERE why IS NOT NULL AND {column} = ?1 ORDER BY seq"
        ))?
        .query_map([name], |row| row.get(0))?
        .collect()
    };
    let found = by("seq")?;
    if found.is_empty() { by("id") } else { Ok(found) }
}

/// The oldest letters up to this number: as many as one transaction may change.
fn some_up_to(conn: &Connection, last: i64) -> rusqlite::Result<Vec<i64>> {
    let mut select = conn.prepare_cached(
        "SELECT seq, bytes FROM spool INDEXED BY spool_dead WHERE why IS NOT NULL AND seq <= ?1 ORDER BY seq LIMIT ?2",
    )?;
    let mut found = select.query([last, AT_ONCE])?;
    let (mut letters, mut total) = (Vec::new(), 0);
    while let Some(row) = found.next()? {
        total += row.get::<_, i64>(1)?;
        if total > AT_ONCE_BYTES && !letters.is_empty() {
            break;
        }
        letters.push(row.get(0)?);
    }
    Ok(letters)
}

const AT_ONCE: i64 = 200;
const AT_ONCE_BYTES: i64 = 4 << 20;
/// Pause between two transactions, so that a running gateway can write.
const BETWEEN: Duration = Duration::from_millis(20);
