//! Kept requests, as their operator handles them: through its own connection, whether or not a gateway runs.
//!
//! Keeps true: nothing is verified or accepted here; the process that has the quarantine open does that on request. Of
//! requests given by name, all are handled or none. Transactions are short, so that a running gateway never times out
//! waiting.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::seal::{Key, Label, UnsealError};
use super::table;
use super::{Judgement, Kept};
use crate::base::clock::{self, Clock};
use crate::durable::database::{self, Found, OpenError};

/// The requests in a quarantine.
pub struct QuarantineStore {
    conn: Connection,
}

/// A kept request, still encrypted.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its number.
    pub seq: i64,
    /// The part in clear; none if the row was tampered with and cannot be read.
    pub label: Option<Label>,
    /// The id of the key that encrypted it.
    key: Vec<u8>,
}

impl Entry {
    /// Whether it was kept under this key.
    pub fn kept_under(&self, key: &Key) -> bool {
        key.has_id(&self.key)
    }
}

/// Which requests.
#[derive(Clone, Debug)]
pub enum Selection {
    /// All of them.
    All,
    /// Those of one source.
    Source(String),
    /// Those with these numbers, or with these reject ids. Digits mean a number.
    These(Vec<String>),
}

/// How many requests of each source.
pub type BySource = BTreeMap<String, usize>;

/// Why kept requests cannot be handled.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// The database cannot be used.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// No gateway has created a quarantine here.
    #[error("{} is not there: no gateway has run with quarantine.enabled = true", db.display())]
    NoQuarantine {
        /// The database.
        db: PathBuf,
    },
    /// No kept request has these numbers or ids.
    #[error("there is no kept request {}; nothing was done", .0.join(", "))]
    NoSuch(Vec<String>),
    /// It cannot be decrypted.
    #[error("request {0}: {1}")]
    UnsealError(i64, UnsealError),
}

/// The verifications requested by one command.
#[derive(Clone, Debug)]
pub struct Run {
    id: String,
    /// The requests' numbers, oldest first.
    pub seqs: Vec<i64>,
    /// The source of each.
    sources: Vec<Arc<str>>,
}

impl Run {
    /// The source of one of its requests.
    pub fn source(&self, seq: i64) -> Option<&str> {
        let at = self.seqs.binary_search(&seq).ok()?;
        self.sources.get(at).map(|source| &**source)
    }
}

impl QuarantineStore {
    /// Opens a quarantine's database, whether or not a gateway has it open.
    ///
    /// # Errors
    /// When there is none, or the file is not a hookgate database.
    pub fn open(db: &Path) -> Result<QuarantineStore, QuarantineError> {
        let access = |why: io::Error| OpenError::Access { path: db.to_owned(), why: why.to_string() };
        if !db.try_exists().map_err(access)? {
            return Err(QuarantineError::NoQuarantine { db: db.to_owned() });
        }
        match database::find(db, "quarantine")? {
            Found::Table(conn) => Ok(QuarantineStore { conn }),
            Found::Empty => Err(QuarantineError::NoQuarantine { db: db.to_owned() }),
            Found::NoTable => Err(OpenError::NotADatabase { db: db.to_owned() }.into()),
        }
    }

    /// Passes each request to `each`, oldest first, until that returns `false`.
    ///
    /// # Errors
    /// When the database cannot be read, or an error of `each`.
    pub fn list<E: From<QuarantineError>>(
        &self,
        mut each: impl FnMut(Entry) -> Result<bool, E>,
    ) -> Result<(), E> {
        let mut after = 0;
        loop {
            let some = self.with(|conn| {
                conn.prepare_cached(&format!(
                    "SELECT seq, key, {} FROM quarantine WHERE seq > ?1 ORDER BY seq LIMIT ?2",
                    table::LABEL
                ))?
                .query_map([after, AT_ONCE], |row| {
                    let key = row.get("key").unwrap_or_default();
                    Ok(Entry { seq: row.get("seq")?, label: table::label(row), key })
                })?
                .collect::<rusqlite::Result<Vec<_>>>()
            })?;
            let Some(last) = some.last() else { return Ok(()) };
            after = last.seq;
            for entry in some {
                if !each(entry)? {
                    return Ok(());
                }
            }
        }
    }

    /// Decrypts a request, by its number or its reject id. Also returns its number.
    ///
    /// # Errors
    /// When it does not exist, has another key or was tampered with.
    pub fn show(&self, name: &str, key: &Key) -> Result<(i64, Kept), QuarantineError> {
        let no_such = || QuarantineError::NoSuch(vec![name.to_owned()]);
        let (seq, _) = self.with(|conn| named(conn, name))?.ok_or_else(no_such)?;
        let row = self.with(|conn| table::row(conn, seq))?.ok_or_else(no_such)?;
        let (label, sealed) = row.ok_or(QuarantineError::UnsealError(seq, UnsealError::Changed))?;
        let content = key.open(&label, sealed).map_err(|why| QuarantineError::UnsealError(seq, why))?;
        Ok((seq, Kept { label, content }))
    }

    /// Whether a request of this source is kept.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn has_source(&self, source: &str) -> Result<bool, QuarantineError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM quarantine WHERE source = ?1)";
        self.with(|conn| conn.query_row(sql, [source], |row| row.get(0)))
    }

    /// Deletes them. Returns how many.
    ///
    /// # Errors
    /// When a named request does not exist, or the database fails.
    pub fn delete(&self, which: &Selection) -> Result<BySource, QuarantineError> {
        let rows = self.rows(which)?;
        let mut deleted = BySource::new();
        self.each(which, &rows, |conn, (seq, source)| {
            let gone = conn.prepare_cached("DELETE FROM quarantine WHERE seq = ?1")?.execute([seq])?;
            *deleted.entry(source.to_string()).or_default() += gone;
            Ok(())
        })?;
        deleted.retain(|_, count| *count > 0);
        Ok(deleted)
    }

    /// Asks the process that has the quarantine open to verify requests again.
    ///
    /// # Errors
    /// When a named request does not exist, or the database fails: then none is verified.
    pub fn request_reverify(&self, which: &Selection, dry_run: bool) -> Result<Run, QuarantineError> {
        let (rows, id) = (self.rows(which)?, hex::encode(clock::random::<16>()));
        let now = Clock::System.now().as_microsecond();
        let (seqs, sources) = rows.iter().cloned().unzip();
        let run = Run { id, seqs, sources };
        let asked = self.each(which, &rows, |conn, (seq, _)| {
            let sql = "INSERT INTO quarantine_asked (run, seq, dry_run, at) VALUES (?1, ?2, ?3, ?4)";
            conn.prepare_cached(sql)?.execute(params![run.id, seq, dry_run, now]).map(drop)
        });
        if let Err(why) = asked {
            // An error here is not reported: the first error matters more.
            let _ = self.cancel(&run);
            return Err(why);
        }
        Ok(run)
    }

    /// Verdicts that arrived since the last call, oldest first. There may be more: call again.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn take_verdicts(&self, run: &Run) -> Result<Vec<(i64, Judgement)>, QuarantineError> {
        let told: Vec<(i64, String)> = self.with(|conn| {
            conn.prepare_cached(
                "SELECT seq, verdict FROM quarantine_asked WHERE run = ?1 AND verdict IS NOT NULL ORDER BY seq LIMIT ?2",
            )?
            .query_map(params![run.id, AT_ONCE], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect()
        })?;
        if told.is_empty() {
            return Ok(Vec::new());
        }
        self.with(|conn| {
            let transaction = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
            for (seq, _) in &told {
                let sql = "DELETE FROM quarantine_asked WHERE run = ?1 AND seq = ?2";
                transaction.prepare_cached(sql)?.execute(params![run.id, seq])?;
            }
            transaction.commit()
        })?;
        let unreadable = || Judgement::Closed { why: "its verdict cannot be read".to_owned() };
        let read = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| unreadable());
        Ok(told.iter().map(|(seq, text)| (*seq, read(text))).collect())
    }

    /// Cancels the requests that have no verdict yet.
    ///
    /// # Errors
    /// When the database refuses.
    pub fn cancel(&self, run: &Run) -> Result<(), QuarantineError> {
        let some = "DELETE FROM quarantine_asked WHERE run = ?1
            AND seq IN (SELECT seq FROM quarantine_asked WHERE run = ?1 LIMIT ?2)";
        while self.with(|conn| conn.prepare_cached(some)?.execute(params![run.id, AT_ONCE]))? > 0 {
            std::thread::sleep(BETWEEN);
        }
        Ok(())
    }

    /// Runs `work` on each row in small transactions, so that a running gateway never waits long. Rows given by name
    /// are few and go in one transaction.
    fn each(
        &self,
        which: &Selection,
        rows: &[Row],
        mut work: impl FnMut(&Connection, &Row) -> rusqlite::Result<()>,
    ) -> Result<(), QuarantineError> {
        let at_once = if matches!(which, Selection::These(_)) { rows.len() } else { AT_ONCE as usize };
        for some in rows.chunks(at_once.max(1)) {
            self.with(|conn| {
                let transaction = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
                some.iter().try_for_each(|row| work(&transaction, row))?;
                transaction.commit()
            })?;
            std::thread::sleep(BETWEEN);
        }
        Ok(())
    }

    fn rows(&self, which: &Selection) -> Result<Vec<Row>, QuarantineError> {
        let source = match which {
            Selection::All => None,
            Selection::Source(source) => Some(source),
            Selection::These(names) => return self.these(names),
        };
        self.with(|conn| {
            conn.prepare("SELECT seq, source FROM quarantine WHERE source = ?1 OR ?1 IS NULL ORDER BY seq")?
                .query_map([source], row)?
                .collect()
        })
    }

    fn these(&self, names: &[String]) -> Result<Vec<Row>, QuarantineError> {
        let (mut rows, mut unknown) = (BTreeMap::new(), Vec::new());
        for name in names {
            match self.with(|conn| named(conn, name))? {
                Some((seq, source)) => drop(rows.insert(seq, source)),
                None => unknown.push(name.clone()),
            }
        }
        if unknown.is_empty() {
            Ok(rows.into_iter().collect())
        } else {
            Err(QuarantineError::NoSuch(unknown))
        }
    }

    fn with<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, QuarantineError> {
        let db = Path::new(self.conn.path().unwrap_or_default());
        work(&self.conn).map_err(|error| QuarantineError::Database(OpenError::of(db, error)))
    }
}

/// A request's number and its source.
type Row = (i64, Arc<str>);

fn row(row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    // A tampered row may have a value that is not text.
    Ok((row.get(0)?, row.get::<_, String>(1).unwrap_or_default().into()))
}

/// The request with this number or reject id.
fn named(conn: &Connection, name: &str) -> rusqlite::Result<Option<Row>> {
    let column = if name.bytes().all(|digit| digit.is_ascii_digit()) { "seq" } else { "reject" };
    conn.prepare_cached(&format!(
        "SELECT seq, source FROM quarantine WHERE {column} = ?1 ORDER BY seq LIMIT 1"
    ))?
    .query_row([name], row)
    .optional()
}

const AT_ONCE: i64 = 200;
/// Pause between two transactions, so that a running gateway can write.
const BETWEEN: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: i64 = 2 * AT_ONCE + 50;

    /// A quarantine with [`ROWS`] requests.
    fn held(folder: &tempfile::TempDir) -> QuarantineStore {
        let db = folder.path().join("quarantine.db");
        let (conn, _) = database::open(&db, database::Layout::default(), table::TABLES).unwrap();
        conn.execute(
            "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1)
                INSERT INTO quarantine SELECT n, 0, 'a', 'basiq', '', '', '192.0.2.1', 0, '192.0.2.1', 1, x'', x'', x'' FROM n",
            [ROWS],
        )
        .unwrap();
        conn.execute_batch("CREATE TABLE seen (n INTEGER)").unwrap();
        QuarantineStore::open(&db).unwrap()
    }

    fn count(held: &QuarantineStore, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        held.with(|conn| conn.query_row(&sql, [], |row| row.get(0))).unwrap()
    }

    fn trigger(held: &QuarantineStore, when: &str, action: &str) {
        let sql = format!("CREATE TRIGGER t AFTER {when} ON quarantine_asked {action}; END");
        held.with(|conn| conn.execute_batch(&sql)).unwrap();
    }

    #[test]
    fn what_was_asked_before_an_error_is_withdrawn() {
        let folder = tempfile::tempdir().unwrap();
        let held = held(&folder);
        trigger(&held, "INSERT", "WHEN new.seq = 450 BEGIN SELECT RAISE(ABORT, 'full')");
        let kept =
            "CREATE TRIGGER k AFTER DELETE ON quarantine_asked BEGIN INSERT INTO seen VALUES (old.seq); END";
        held.with(|conn| conn.execute_batch(kept)).unwrap();
        assert!(matches!(held.request_reverify(&Selection::All, false), Err(QuarantineError::Database(_))));
        assert_eq!(count(&held, "quarantine_asked"), 0);
        assert_eq!(count(&held, "seen"), 2 * AT_ONCE, "the rest was in a transaction of its own");
        // Requests given by name are requested in one transaction.
        let these = Selection::These((1..=ROWS).map(|seq| seq.to_string()).collect());
        assert!(matches!(held.request_reverify(&these, false), Err(QuarantineError::Database(_))));
        assert_eq!((count(&held, "quarantine_asked"), count(&held, "seen")), (0, 2 * AT_ONCE));
    }

    #[test]
    fn verdicts_are_taken_and_what_has_none_is_withdrawn_a_few_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let held = held(&folder);
        let run = held.request_reverify(&Selection::Source("a".to_owned()), true).unwrap();
        assert_eq!((run.seqs.len() as i64, count(&held, "quarantine_asked")), (ROWS, ROWS));
        let judged = r#"UPDATE quarantine_asked SET verdict = '{"verdict":"passes"}' WHERE seq <= 2"#;
        held.with(|conn| conn.execute(judged, [])).unwrap();
        let passes = Judgement::Passes;
        assert_eq!(held.take_verdicts(&run).unwrap(), [(1, passes.clone()), (2, passes)]);
        let judged = r#"UPDATE quarantine_asked SET verdict = '{"verdict":"passes"}'"#;
        held.with(|conn| conn.execute(judged, [])).unwrap();
        assert_eq!(held.take_verdicts(&run).unwrap().len() as i64, AT_ONCE);
        let left = count(&held, "quarantine_asked");
        assert_eq!(left, ROWS - 2 - AT_ONCE);
        let action = "BEGIN INSERT INTO seen VALUES (1);
            SELECT RAISE(ABORT, 'full') WHERE (SELECT count(*) FROM seen) > 210";
        trigger(&held, "DELETE", action);
        assert!(held.cancel(&run).is_err());
        assert_eq!(count(&held, "quarantine_asked"), left - AT_ONCE, "the first of them are gone");
        held.with(|conn| conn.execute_batch("DROP TRIGGER t")).unwrap();
        held.cancel(&run).unwrap();
        assert_eq!(count(&held, "quarantine_asked"), 0);
    }
}
