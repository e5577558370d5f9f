//! Claims in the data folder's database.
//!
//! Keeps true: each step is one piece of work of the database's only writer, so that nothing comes between its look and its
//! act; what it did is on disk when it answers. A claim is a row, and outlives the gateway that made it. Leases and windows go
//! by the wall clock, as nothing else outlives a process: a clock set forward ends them early, one set back late.
//!
//! A claim whose lease is over stays as a row until the identity is claimed again or the window is over: it tells that its
//! body may be in the queue.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Result, params};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::records::{Flag, Records};
use super::{Claim, EntryKind, Grant, Naming, Options};
use crate::base::clock::Clock;
use crate::config::OnConflict;
use crate::durable::database::writer::{Database, Failure};
use crate::durable::inbox::{EnqueueError, EnqueueRequest, Owner};
use crate::event::{BodyHash, Identity};
use crate::observe::admin::Readiness;

/// The tables that claims need of the database. Times are microseconds since 1970. `first` is 1 for the first body, and besides 2
/// for a plain message id, or 4 for one with the source; neither where an older version has claimed.
pub(super) const TABLES: &str = "\
CREATE TABLE IF NOT EXISTS seen (
    identity BLOB PRIMARY KEY,
    records BLOB NOT NULL,
    until INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS seen_until ON seen (until);
CREATE TABLE IF NOT EXISTS claims (
    identity BLOB PRIMARY KEY,
    owner BLOB NOT NULL,
    body BLOB NOT NULL,
    first INTEGER NOT NULL,
    until INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS claims_until ON claims (until);
";

/// Claims in the data folder's database.
pub struct EmbeddedClaims {
    database: Arc<Database>,
    clock: Clock,
    readiness: Arc<Readiness>,
    /// There is one task at most, which asks a database that fails whether it works again.
    prober: TaskTracker,
    stop: CancellationToken,
}

impl EmbeddedClaims {
    /// Claims in a database that was opened with [`super::TABLES`].
    /// Whether the database works shows in `readiness`. Must be called inside a tokio runtime.
    pub fn new(database: Arc<Database>, clock: Clock, readiness: Arc<Readiness>) -> EmbeddedClaims {
        readiness.set_dedupe(true);
        let (prober, stop) = (TaskTracker::new(), CancellationToken::new());
        let claims = EmbeddedClaims { database, clock, readiness, prober, stop };
        if claims.database.was_deferred() {
            claims.probe();
        }
        claims
    }

    /// See [`super::Claims::claim`].
    pub(super) async fn claim(&self, of: &EnqueueRequest, options: &Options) -> Result<Claim, EnqueueError> {
        let (asker, on_conflict) = (Asker::of(of), of.on_conflict);
        let asker = Asker { naming: options.naming(&of.source), ..asker };
        let (lease, window) = (micros(options.lease), micros(options.window));
        self.step(move |ledger| ledger.claim(&asker, on_conflict, lease, window)).await
    }

    /// See [`super::Claims::commit`].
    pub(super) async fn commit(
        &self,
        of: &EnqueueRequest,
        place: EntryKind,
        options: &Options,
    ) -> Result<(), EnqueueError> {
        let (asker, window) = (Asker::of(of), micros(options.window));
        self.step(move |ledger| ledger.commit(&asker, place, window)).await
    }

    /// See [`super::Claims::release`].
    pub(super) async fn release(&self, of: &EnqueueRequest, again: bool) -> Result<(), EnqueueError> {
        let asker = Asker::of(of);
        self.step(move |ledger| if again { ledger.expire(&asker) } else { ledger.end(&asker) }).await
    }

    async fn step<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Ledger<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T, EnqueueError> {
        let clock = self.clock.clone();
        let done = self.database.write(move |conn| {
            // Read when it runs, so that waiting for the writer takes nothing off the lease.
            work(&Ledger { conn, now: clock.now().as_microsecond() })
        });
        done.await.map_err(|Failure(why)| {
            self.probe();
            EnqueueError::Refused(why.to_owned())
        })
    }

    /// Tells that no claim is taken, until one would be.
    fn probe(&self) {
        self.readiness.set_dedupe(false);
        if !self.prober.is_empty() {
            return;
        }
        let (database, readiness) = (self.database.clone(), self.readiness.clone());
        let probing = async move {
            loop {
                tokio::time::sleep(PROBE_EVERY).await;
                let touch =
                    |conn: &Connection| conn.execute(TOUCH, params![[0_u8; 16], [0_u8; 16], [0_u8; 32]]);
                if database.write(touch).await.is_ok() {
                    readiness.set_dedupe(true);
                    return;
                }
            }
        };
        self.prober.spawn(self.stop.clone().run_until_cancelled_owned(probing));
    }

    /// Ends what it runs.
    pub(super) async fn close(self) {
        self.stop.cancel();
        self.prober.close();
        self.prober.wait().await;
    }
}

const PROBE_EVERY: Duration = Duration::from_secs(1);
/// A claim of nobody's, of no identity, long over: the next sweep takes it.
const TOUCH: &str =
    "INSERT OR REPLACE INTO claims (identity, owner, body, first, until) VALUES (?1, ?2, ?3, 0, 0)";

/// Who asks, and about what.
struct Asker {
    identity: Identity,
    owner: Owner,
    body: BodyHash,
    /// For a message that has no name yet.
    naming: Naming,
}

impl Asker {
    fn of(request: &EnqueueRequest) -> Asker {
        let EnqueueRequest { identity, owner, body, .. } = *request;
        Asker { identity, owner, body, naming: Naming::Plain }
    }
}

/// A claim as it is kept.
struct Held {
    owner: Owner,
    body: BodyHash,
    first: bool,
    naming: Option<Naming>,
    until: i64,
}

/// The tables within a transaction, at a time.
struct Ledger<'a> {
    conn: &'a Connection,
    now: i64,
}

impl Ledger<'_> {
    fn claim(&self, asker: &Asker, on_conflict: OnConflict, lease: i64, window: i64) -> Result<Claim> {
        let mut records = self.records(&asker.identity)?;
        match records.flag(&asker.body) {
            Some(Flag::First) => return Ok(Claim::Entered(EntryKind::First)),
            Some(Flag::Conflict) => return Ok(Claim::Entered(EntryKind::Conflict)),
            Some(Flag::Dropped) => return Ok(Claim::Dropped { anew: false }),
            Some(Flag::Perhaps) | None => {}
        }
        let held = self.held(&asker.identity)?;
        if held.as_ref().is_some_and(|held| self.is_anothers(held, asker)) {
            return Ok(Claim::InProgress);
        }
        let before = held.as_ref().filter(|held| held.body == asker.body);
        let (again, kept) = (before.is_some(), before.and_then(|held| held.naming));
        let naming = kept.unwrap_or(asker.naming);
        if let Some(held) = held.filter(|held| held.first && records.flag(&held.body).is_none()) {
            records.set(&held.body, Flag::Perhaps);
            self.remember(&asker.identity, &records, window)?;
        }
        let place = match records.first(on_conflict) {
            Some(first) if first != asker.body => EntryKind::Conflict,
            _ => EntryKind::First,
        };
        if place == EntryKind::Conflict && on_conflict == OnConflict::Drop {
            records.set(&asker.body, Flag::Dropped);
            self.remember(&asker.identity, &records, window)?;
            return Ok(Claim::Dropped { anew: true });
        }
        self.conn.prepare_cached("INSERT OR REPLACE INTO claims VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(
            params![
                asker.identity.0,
                asker.owner.0,
                asker.body.0,
                i64::from(place == EntryKind::First)
                    | match naming {
                        Naming::Plain => PLAIN,
                        Naming::WithSource => WITH_SOURCE,
                    },
                self.now.saturating_add(lease)
            ],
        )?;
        Ok(Claim::Granted(Grant { place, naming, again }))
    }

    fn commit(&self, asker: &Asker, place: EntryKind, window: i64) -> Result<()> {
        if self.held(&asker.identity)?.is_some_and(|held| self.is_anothers(&held, asker)) {
            return Ok(());
        }
        let mut records = self.records(&asker.identity)?;
        if matches!(records.flag(&asker.body), None | Some(Flag::Perhaps)) {
            records.set(
                &asker.body,
                match place {
                    EntryKind::First => Flag::First,
                    EntryKind::Conflict => Flag::Conflict,
                },
            );
            self.remember(&asker.identity, &records, window)?;
        }
        self.end(asker)?;
        self.sweep(window)
    }

    /// Ends the claim if it is the asker's.
    fn end(&self, asker: &Asker) -> Result<()> {
        self.conn
            .prepare_cached("DELETE FROM claims WHERE identity = ?1 AND owner = ?2")?
            .execute(params![asker.identity.0, asker.owner.0])?;
        Ok(())
    }

    /// Ends the lease of the asker's claim, and keeps the claim.
    fn expire(&self, asker: &Asker) -> Result<()> {
        self.conn
            .prepare_cached("UPDATE claims SET until = ?3 WHERE identity = ?1 AND owner = ?2")?
            .execute(params![asker.identity.0, asker.owner.0, self.now])?;
        Ok(())
    }

    fn is_anothers(&self, held: &Held, asker: &Asker) -> bool {
        held.owner != asker.owner && held.until > self.now
    }

    fn held(&self, identity: &Identity) -> Result<Option<Held>> {
        self.conn
            .prepare_cached("SELECT owner, body, first, until FROM claims WHERE identity = ?1")?
            .query_row([identity.0], |row| {
                let first: i64 = row.get(2)?;
                Ok(Held {
                    owner: Owner(row.get(0)?),
                    body: BodyHash(row.get(1)?),
                    first: first & 1 == 1,
                    naming: match first & (PLAIN | WITH_SOURCE) {
                        PLAIN => Some(Naming::Plain),
                        WITH_SOURCE => Some(Naming::WithSource),
                        _ => None,
                    },
                    until: row.get(3)?,
                })
            })
            .optional()
    }

    fn records(&self, identity: &Identity) -> Result<Records> {
        let bytes: Option<Vec<u8>> = self
            .conn
            .prepare_cached("SELECT records FROM seen WHERE identity = ?1 AND until > ?2")?
            .query_row(params![identity.0, self.now], |row| row.get(0))
            .optional()?;
        Ok(bytes.map(Records::of).unwrap_or_default())
    }

    fn remember(&self, identity: &Identity, records: &Records, window: i64) -> Result<()> {
        self.conn.prepare_cached("INSERT OR REPLACE INTO seen VALUES (?1, ?2, ?3)")?.execute(params![
            identity.0,
            records.bytes(),
            self.now.saturating_add(window)
        ])?;
        Ok(())
    }

    /// Deletes some of what is past its time: more than one commit adds, so that it all goes in the end.
    fn sweep(&self, window: i64) -> Result<()> {
        for (table, past) in [("seen", self.now), ("claims", self.now.saturating_sub(window))] {
            self.conn
                .prepare_cached(&format!(
                    "DELETE FROM {table} WHERE identity IN \
                     (SELECT identity FROM {table} WHERE until <= ?1 LIMIT {SWEPT})"
                ))?
                .execute([past])?;
        }
        Ok(())
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Of `first`, beside 1.
const PLAIN: i64 = 2;
const WITH_SOURCE: i64 = 4;
/// Rows of a table that go with a commit.
const SWEPT: u32 = 4;
