//! The last success of each source's reconcile, and the events that a provider was asked to deliver again.
//!
//! Keeps true: a last success never moves back.

use rusqlite::{OptionalExtension, params};

use super::ReconcileDb;
use crate::durable::database::OpenError;

/// Times are microseconds of Unix time.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS reconcile_successes (
    source TEXT PRIMARY KEY,
    until INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reconcile_retried (
    source TEXT NOT NULL,
    id TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (source, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS reconcile_retried_at ON reconcile_retried (at);
";

impl ReconcileDb {
    /// Up to when a source was reconciled without failure. None: never. Blocks.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn last_success(&self, source: &str) -> Result<Option<i64>, OpenError> {
        self.with(|conn| {
            conn.prepare_cached("SELECT until FROM reconcile_successes WHERE source = ?1")?
                .query_row([source], |row| row.get(0))
                .optional()
        })
    }

    /// Stores a success that looked from `since` up to `until`. It counts only if it leaves no gap after the last one.
    /// Returns the last success from now on. Blocks.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn succeeded(&self, source: &str, since: i64, until: i64) -> Result<Option<i64>, OpenError> {
        self.with(|conn| {
            let set = "INSERT INTO reconcile_successes VALUES (?1, ?3)
                ON CONFLICT (source) DO UPDATE SET until = excluded.until WHERE ?2 <= until AND excluded.until > until";
            conn.prepare_cached(set)?.execute(params![source, since, until])
        })?;
        self.last_success(source)
    }

    /// Whether the provider was asked after `since` to deliver an event again. Blocks.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn was_retried(&self, source: &str, id: &str, since: i64) -> Result<bool, OpenError> {
        self.with(|conn| {
            conn.prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM reconcile_retried WHERE source = ?1 AND id = ?2 AND at > ?3)",
            )?
            .query_row(params![source, id, since], |row| row.get(0))
        })
    }

    /// Stores that the provider was asked to deliver an event again, and forgets what was asked before `forget`. Blocks.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn retried(&self, source: &str, id: &str, at: i64, forget: i64) -> Result<(), OpenError> {
        self.with(|conn| {
            conn.prepare_cached("INSERT OR REPLACE INTO reconcile_retried VALUES (?1, ?2, ?3)")?
                .execute(params![source, id, at])?;
            conn.prepare_cached("DELETE FROM reconcile_retried WHERE at < ?1")?.execute([forget]).map(drop)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::database::writer::Database;

    async fn opened(folder: &tempfile::TempDir) -> ReconcileDb {
        let db = folder.path().join("hookgate.db");
        Database::open(&db, "").unwrap().close().await;
        ReconcileDb::new(&db)
    }

    #[tokio::test]
    async fn a_success_counts_where_it_leaves_no_gap_and_moves_forward() {
        let folder = tempfile::tempdir().unwrap();
        let db = opened(&folder).await;
        assert_eq!(db.last_success("a").unwrap(), None);
        for (since, until, last) in
            [(0, 100, 100), (101, 200, 100), (100, 200, 200), (0, 150, 200), (50, 300, 300)]
        {
            assert_eq!(db.succeeded("a", since, until).unwrap(), Some(last), "{since} to {until}");
        }
        assert_eq!(opened(&folder).await.last_success("a").unwrap(), Some(300));
        assert_eq!(db.last_success("b").unwrap(), None);
    }

    #[tokio::test]
    async fn a_retry_is_remembered_for_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let db = opened(&folder).await;
        db.retried("a", "e1", 100, 0).unwrap();
        assert!(db.was_retried("a", "e1", 99).unwrap() && !db.was_retried("a", "e1", 100).unwrap());
        assert!(!db.was_retried("a", "e2", 0).unwrap() && !db.was_retried("b", "e1", 0).unwrap());
        db.retried("a", "e2", 200, 101).unwrap();
        assert!(!db.was_retried("a", "e1", 0).unwrap() && db.was_retried("a", "e2", 0).unwrap());
    }
}
