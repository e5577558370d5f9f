//! Claims in the data folder's database.
//!
//! Keeps true: the database's only writer runs each step as a whole, so nothing comes between its comparison and its
//! action. An answered step is on disk. A claim is a row and outlives its gateway.
//!
//! Leases and windows use the wall clock, the only clock that outlives a process. A clock set forward ends them early;
//! one set back, late.
//!
//! A claim with an ended lease stays until its identity is claimed again or the window ends. It records that its body
//! may be in the queue.

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

/// The tables for claims. Times are microseconds since 1970. `first` holds bits: 1 for the first body, 2 for a plain
/// message id, 4 for an id with the source. Rows of an older version have neither 2 nor 4.
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
    /// Holds at most one task, which retries a failing database.
    prober: TaskTracker,
    stop: CancellationToken,
}

impl EmbeddedClaims {
    /// Expects a database that was opened with [`super::TABLES`]. `readiness` reports whether it works. Must be called
    /// inside a tokio runtime.
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
        let (claimant, on_conflict) = (Claimant::of(of), of.on_conflict);
        let claimant = Claimant { naming: options.naming(&of.source), ..claimant };
        let (lease, window) = (micros(options.lease), micros(options.window));
        self.step(move |tables| tables.claim(&claimant, on_conflict, lease, window)).await
    }

    /// See [`super::Claims::commit`].
    pub(super) async fn commit(
        &self,
        of: &EnqueueRequest,
        kind: EntryKind,
        options: &Options,
    ) -> Result<(), EnqueueError> {
        let (claimant, window) = (Claimant::of(of), micros(options.window));
        self.step(move |tables| tables.commit(&claimant, kind, window)).await
    }

    /// See [`super::Claims::records`].
    pub(super) async fn records(&self, of: &EnqueueRequest) -> Result<Records, EnqueueError> {
        let identity = of.identity;
        self.step(move |tables| tables.records(&identity)).await
    }

    /// See [`super::Claims::release`].
    pub(super) async fn release(
        &self,
        of: &EnqueueRequest,
        claimed_before: bool,
    ) -> Result<(), EnqueueError> {
        let claimant = Claimant::of(of);
        self.step(move |tables| {
            if claimed_before { tables.expire_claim(&claimant) } else { tables.delete_claim(&claimant) }
        })
        .await
    }

    async fn step<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ClaimTables<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T, EnqueueError> {
        let clock = self.clock.clone();
        let done = self.database.write(move |conn| {
            // Read when the step runs, so that waiting for the writer does not shorten the lease.
            work(&ClaimTables { conn, now: clock.now().as_microsecond() })
        });
        done.await.map_err(|Failure(why)| {
            self.probe();
            EnqueueError::Refused(why.to_owned())
        })
    }

    /// Sets dedupe to not ready, and retries the database until it accepts a claim.
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

    pub(super) async fn close(self) {
        self.stop.cancel();
        self.prober.close();
        self.prober.wait().await;
    }
}

const PROBE_EVERY: Duration = Duration::from_secs(1);
/// An expired claim with zeros for identity and owner. The next sweep deletes it.
const TOUCH: &str =
    "INSERT OR REPLACE INTO claims (identity, owner, body, first, until) VALUES (?1, ?2, ?3, 0, 0)";

/// The delivery that claims: its identity, owner and body.
struct Claimant {
    identity: Identity,
    owner: Owner,
    body: BodyHash,
    /// The form of the message id if the claim has none yet.
    naming: Naming,
}

impl Claimant {
    fn of(request: &EnqueueRequest) -> Claimant {
        let EnqueueRequest { identity, owner, body, .. } = *request;
        Claimant { identity, owner, body, naming: Naming::Plain }
    }
}

/// A row of `claims`.
struct ClaimRow {
    owner: Owner,
    body: BodyHash,
    first: bool,
    naming: Option<Naming>,
    until: i64,
}

/// The tables within a transaction. `now` is in microseconds.
struct ClaimTables<'a> {
    conn: &'a Connection,
    now: i64,
}

impl ClaimTables<'_> {
    fn claim(&self, claimant: &Claimant, on_conflict: OnConflict, lease: i64, window: i64) -> Result<Claim> {
        let mut records = self.records(&claimant.identity)?;
        match records.taken(&claimant.body) {
            Some(Flag::First) => return Ok(Claim::Entered(EntryKind::First)),
            Some(Flag::Conflict) => return Ok(Claim::Entered(EntryKind::Conflict)),
            Some(Flag::Dropped) => return Ok(Claim::Dropped { newly: false }),
            Some(Flag::Perhaps) | None => {}
        }
        let held = self.claim_row(&claimant.identity)?;
        if held.as_ref().is_some_and(|held| self.is_held_by_other(held, claimant)) {
            return Ok(Claim::InProgress);
        }
        let before = held.as_ref().filter(|held| held.body.may_be(&claimant.body));
        let (claimed_before, kept) = (before.is_some(), before.and_then(|held| held.naming));
        let naming = kept.unwrap_or(claimant.naming);
        if let Some(held) = held.filter(|held| held.first && records.flag(&held.body).is_none()) {
            records.set(&held.body, Flag::Perhaps);
            self.remember(&claimant.identity, &records, window)?;
        }
        let kind = match records.first(on_conflict) {
            Some(first) if !first.may_be(&claimant.body) => EntryKind::Conflict,
            _ => EntryKind::First,
        };
        if kind == EntryKind::Conflict && on_conflict == OnConflict::Drop {
            records.set(&claimant.body, Flag::Dropped);
            self.remember(&claimant.identity, &records, window)?;
            return Ok(Claim::Dropped { newly: true });
        }
        self.conn.prepare_cached("INSERT OR REPLACE INTO claims VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(
            params![
                claimant.identity.0,
                claimant.owner.0,
                claimant.body.0,
                i64::from(kind == EntryKind::First)
                    | match naming {
                        Naming::Plain => PLAIN,
                        Naming::WithSource => WITH_SOURCE,
                    },
                self.now.saturating_add(lease)
            ],
        )?;
        Ok(Claim::Granted(Grant { kind, naming, claimed_before }))
    }

    fn commit(&self, claimant: &Claimant, kind: EntryKind, window: i64) -> Result<()> {
        if self.claim_row(&claimant.identity)?.is_some_and(|held| self.is_held_by_other(&held, claimant)) {
            return Ok(());
        }
        let mut records = self.records(&claimant.identity)?;
        if matches!(records.taken(&claimant.body), None | Some(Flag::Perhaps)) {
            records.set(
                &claimant.body,
                match kind {
                    EntryKind::First => Flag::First,
                    EntryKind::Conflict => Flag::Conflict,
                },
            );
            self.remember(&claimant.identity, &records, window)?;
        }
        self.delete_claim(claimant)?;
        self.sweep(window)
    }

    fn delete_claim(&self, claimant: &Claimant) -> Result<()> {
        self.conn
            .prepare_cached("DELETE FROM claims WHERE identity = ?1 AND owner = ?2")?
            .execute(params![claimant.identity.0, claimant.owner.0])?;
        Ok(())
    }

    /// Ends the lease of the claimant's own claim, and keeps the claim.
    fn expire_claim(&self, claimant: &Claimant) -> Result<()> {
        self.conn
            .prepare_cached("UPDATE claims SET until = ?3 WHERE identity = ?1 AND owner = ?2")?
            .execute(params![claimant.identity.0, claimant.owner.0, self.now])?;
        Ok(())
    }

    fn is_held_by_other(&self, held: &ClaimRow, claimant: &Claimant) -> bool {
        held.owner != claimant.owner && held.until > self.now
    }

    fn claim_row(&self, identity: &Identity) -> Result<Option<ClaimRow>> {
        self.conn
            .prepare_cached("SELECT owner, body, first, until FROM claims WHERE identity = ?1")?
            .query_row([identity.0], |row| {
                let first: i64 = row.get(2)?;
                Ok(ClaimRow {
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

    /// Deletes a few expired rows. It deletes more than a commit adds, so all go in time.
    fn sweep(&self, window: i64) -> Result<()> {
        for (table, past) in [("seen", self.now), ("claims", self.now.saturating_sub(window))] {
            self.conn
                .prepare_cached(&format!(
                    "DELETE FROM {table} WHERE identity IN \
                     (SELECT identity FROM {table} WHERE until <= ?1 LIMIT {SWEPT_PER_COMMIT})"
                ))?
                .execute([past])?;
        }
        Ok(())
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Bits of `first`, beside 1.
const PLAIN: i64 = 2;
const WITH_SOURCE: i64 = 4;
/// The most rows of a table that one commit deletes.
const SWEPT_PER_COMMIT: u32 = 4;
