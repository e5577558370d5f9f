//! Orders of a command to the process that has the stores open, and their answers.
//!
//! Keeps true: an order is taken only until its time is over, and a command cancels its orders when it ends. So a gateway
//! that starts later does nothing for a command that is gone.

use rusqlite::{Result, Transaction, TransactionBehavior, params};

use super::ReconcileDb;
use crate::base::clock;
use crate::durable::database::OpenError;

/// `until` is in microseconds of Unix time. `answer` is null until there is one.
pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS reconcile_orders (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    run TEXT NOT NULL,
    until INTEGER NOT NULL,
    what TEXT NOT NULL,
    payload BLOB NOT NULL,
    answer TEXT
);
CREATE INDEX IF NOT EXISTS reconcile_unanswered ON reconcile_orders (seq) WHERE answer IS NULL;
CREATE INDEX IF NOT EXISTS reconcile_run ON reconcile_orders (run, seq);
";

/// The orders of one command.
pub struct Run(String);

/// An order that waits for its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedOrder {
    /// Its number.
    pub seq: i64,
    /// What is asked, as the command wrote it.
    pub what: String,
    /// The payload that it is about; may be empty.
    pub payload: Vec<u8>,
}

impl Run {
    /// A command's orders; none yet.
    pub fn begin() -> Run {
        Run(hex::encode(clock::random::<16>()))
    }
}

impl ReconcileDb {
    /// Places orders, all or none, to be taken until `until`. Returns their numbers. Blocks.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn place(
        &self,
        run: &Run,
        until: i64,
        orders: &[(String, &[u8])],
    ) -> std::result::Result<Vec<i64>, OpenError> {
        self.with(|conn| {
            let transaction = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
            let mut insert = transaction.prepare_cached(
                "INSERT INTO reconcile_orders (run, until, what, payload) VALUES (?1, ?2, ?3, ?4) RETURNING seq",
            )?;
            let place = |(what, payload): &(String, &[u8])| {
                insert.query_row(params![run.0, until, what, payload], |row| row.get(0))
            };
            let seqs = orders.iter().map(place).collect::<Result<_>>()?;
            drop(insert);
            transaction.commit()?;
            Ok(seqs)
        })
    }

    /// Takes the answers that arrived since the last call, by the orders' numbers. Blocks.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub fn take_answers(&self, run: &Run) -> std::result::Result<Vec<(i64, String)>, OpenError> {
        self.with(|conn| {
            let answered: Vec<(i64, String)> = conn
                .prepare_cached(
                    "SELECT seq, answer FROM reconcile_orders WHERE run = ?1 AND answer IS NOT NULL ORDER BY seq",
                )?
                .query_map([&run.0], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_>>()?;
            if !answered.is_empty() {
                let transaction = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
                let mut delete =
                    transaction.prepare_cached("DELETE FROM reconcile_orders WHERE seq = ?1")?;
                answered.iter().try_for_each(|(seq, _)| delete.execute([seq]).map(drop))?;
                drop(delete);
                transaction.commit()?;
            }
            Ok(answered)
        })
    }

    /// Cancels the orders of a command. One that is being done now is done all the same. Blocks.
    ///
    /// # Errors
    /// When the database cannot be written. Then they end with their time.
    pub fn cancel(&self, run: &Run) -> std::result::Result<(), OpenError> {
        self.with(|conn| conn.execute("DELETE FROM reconcile_orders WHERE run = ?1", [&run.0]).map(drop))
    }

    /// Some orders without an answer, oldest first: at most 64, and about 4 MiB. `now` is in
    /// microseconds of Unix time. Costs a look into an empty index while there are none. Blocks.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn pending(&self, now: i64) -> std::result::Result<Vec<PlacedOrder>, OpenError> {
        self.with(|conn| {
            let mut select = conn.prepare_cached(
                "SELECT seq, what, payload FROM reconcile_orders INDEXED BY reconcile_unanswered
                    WHERE answer IS NULL AND until > ?1 ORDER BY seq LIMIT ?2",
            )?;
            let mut rows = select.query(params![now, AT_ONCE as i64])?;
            let (mut pending, mut bytes) = (Vec::new(), 0);
            while bytes < BYTES_AT_ONCE
                && let Some(row) = rows.next()?
            {
                let order = PlacedOrder { seq: row.get(0)?, what: row.get(1)?, payload: row.get(2)? };
                bytes += order.payload.len();
                pending.push(order);
            }
            Ok(pending)
        })
    }

    /// Stores answers. The answer to a cancelled order is dropped. Blocks.
    ///
    /// # Errors
    /// When the database cannot be written. Then the orders are taken again.
    pub fn answer(&self, answers: &[(i64, String)]) -> std::result::Result<(), OpenError> {
        self.with(|conn| {
            let transaction = Transaction::new_unchecked(conn, TransactionBehavior::Immediate)?;
            let mut update = transaction.prepare_cached(
                "UPDATE reconcile_orders SET answer = ?2, payload = x'' WHERE seq = ?1 AND answer IS NULL",
            )?;
            answers.iter().try_for_each(|(seq, answer)| update.execute(params![seq, answer]).map(drop))?;
            drop(update);
            transaction.commit()
        })
    }

    /// Deletes orders whose time ended before `before`, in microseconds of Unix time: those of killed commands. Blocks.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn purge_orders(&self, before: i64) -> std::result::Result<(), OpenError> {
        self.with(|conn| {
            let is_there = "SELECT EXISTS (SELECT 1 FROM reconcile_orders WHERE until < ?1)";
            if conn.prepare_cached(is_there)?.query_row([before], |row| row.get(0))? {
                conn.execute("DELETE FROM reconcile_orders WHERE until < ?1", [before])?;
            }
            Ok(())
        })
    }
}

/// Orders that are done together.
const AT_ONCE: usize = 64;
const BYTES_AT_ONCE: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::database::writer::Database;

    async fn opened(folder: &tempfile::TempDir) -> ReconcileDb {
        let db = folder.path().join("hookgate.db");
        Database::open(&db, "").unwrap().close().await;
        ReconcileDb::new(&db)
    }

    fn order(what: &str) -> (String, &[u8]) {
        (what.to_owned(), b"{}")
    }

    #[tokio::test]
    async fn orders_are_answered_once_each_and_only_to_their_command() {
        let folder = tempfile::tempdir().unwrap();
        let (command, gateway) = (opened(&folder).await, opened(&folder).await);
        let (one, other) = (Run::begin(), Run::begin());
        let seqs = command.place(&one, 100, &[order("a"), order("b")]).unwrap();
        command.place(&other, 100, &[order("c")]).unwrap();
        let pending = gateway.pending(0).unwrap();
        assert_eq!(pending.iter().map(|order| &*order.what).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(pending[0], PlacedOrder { seq: seqs[0], what: "a".to_owned(), payload: b"{}".to_vec() });
        gateway.answer(&[(seqs[0], "yes".to_owned()), (pending[2].seq, "no".to_owned())]).unwrap();
        gateway.answer(&[(seqs[0], "again".to_owned())]).unwrap();
        assert_eq!(gateway.pending(0).unwrap().len(), 1, "the answered ones are done");
        assert_eq!(command.take_answers(&one).unwrap(), [(seqs[0], "yes".to_owned())]);
        assert_eq!(command.take_answers(&one).unwrap(), []);
        assert_eq!(command.take_answers(&other).unwrap(), [(pending[2].seq, "no".to_owned())]);
    }

    #[tokio::test]
    async fn an_order_ends_with_its_time_or_with_its_command() {
        let folder = tempfile::tempdir().unwrap();
        let db = opened(&folder).await;
        let (killed, ended) = (Run::begin(), Run::begin());
        db.place(&killed, 100, &[order("a")]).unwrap();
        let seqs = db.place(&ended, 200, &[order("b")]).unwrap();
        assert_eq!(db.pending(99).unwrap().len(), 2);
        assert_eq!(db.pending(100).unwrap().len(), 1);
        db.cancel(&ended).unwrap();
        db.answer(&[(seqs[0], "late".to_owned())]).unwrap();
        assert_eq!((db.pending(100).unwrap(), db.take_answers(&ended).unwrap()), (vec![], vec![]));
        db.purge_orders(100).unwrap();
        assert_eq!(db.pending(99).unwrap().len(), 1);
        db.purge_orders(101).unwrap();
        assert_eq!(db.pending(99).unwrap(), []);
    }

    #[tokio::test]
    async fn large_orders_are_taken_a_few_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let db = opened(&folder).await;
        let large = vec![b'x'; BYTES_AT_ONCE / 2];
        let orders: Vec<(String, &[u8])> = (0..5).map(|n| (n.to_string(), &*large)).collect();
        db.place(&Run::begin(), 100, &orders).unwrap();
        assert_eq!(db.pending(0).unwrap().len(), 2);
        let small: Vec<(String, &[u8])> = (0..100).map(|n| (n.to_string(), &b""[..])).collect();
        db.purge_orders(101).unwrap();
        db.place(&Run::begin(), 100, &small).unwrap();
        assert_eq!(db.pending(0).unwrap().len(), AT_ONCE);
    }
}
