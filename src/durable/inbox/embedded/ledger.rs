//! Decides on one delivery within the open transaction: look up, enqueue, remember.
//!
//! Keeps true: a row of `events` is both the queued event and the memory of its body. A conflict's row copies the
//! identity's first body and id, so each row can be purged by its own age. The identity is remembered as long as any of
//! its bodies.

use rusqlite::types::Null;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Result, params};
use sha2::{Digest, Sha256};

use crate::config::OnConflict;
use crate::durable::inbox::{EnqueueRequest, Enqueued};
use crate::event::{BodyHash, Event, Identity};

use super::identities::Identities;

/// The `events` table and the index, within one transaction.
pub(super) struct EventLedger<'a> {
    conn: &'a Connection,
    insert: CachedStatement<'a>,
    identities: &'a mut Identities,
    next: &'a mut i64,
    now: i64,
    window: i64,
}

impl<'a> EventLedger<'a> {
    /// `now` and `window` are in microseconds. `next` is the next row's `seq`.
    pub(super) fn open(
        conn: &'a Connection,
        identities: &'a mut Identities,
        next: &'a mut i64,
        now: i64,
        window: i64,
    ) -> Result<EventLedger<'a>> {
        let insert = conn.prepare_cached(
            "INSERT INTO events (seq, identity, body, received, state, id, type, source, first_body, first_id, event) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?;
        Ok(EventLedger { conn, insert, identities, next, now, window })
    }

    /// Decides on a delivery and records it.
    pub(super) fn enqueue(&mut self, delivery: &EnqueueRequest) -> Result<Enqueued> {
        let Some(known) = self.find(&delivery.identity)? else {
            let event = &delivery.event;
            self.record(delivery, FIRST, event, None)?;
            return Ok(Enqueued::Accepted { id: event.id.clone(), conflict: false });
        };
        if known.body == delivery.body {
            return Ok(Enqueued::Duplicate { id: known.id, dropped: false });
        }
        let first = known.first.unwrap_or((known.body, known.id));
        if first.0.may_be(&delivery.body) {
            return Ok(Enqueued::Duplicate { id: first.1, dropped: false });
        }
        if let Some(entered) = self.find(&conflict_key(&delivery.identity, &delivery.body.0))? {
            return Ok(Enqueued::Duplicate { id: entered.id, dropped: false });
        }
        match delivery.on_conflict {
            OnConflict::Forward => {
                let event = delivery.event.conflicting(&delivery.body);
                self.record(delivery, FORWARDED, &event, Some(&first))?;
                Ok(Enqueued::Accepted { id: event.id, conflict: true })
            }
            OnConflict::Drop => {
                self.record(delivery, DROPPED, &delivery.event, Some(&first))?;
                Ok(Enqueued::Duplicate { id: first.1, dropped: true })
            }
        }
    }

    fn find(&self, key: &Identity) -> Result<Option<Known>> {
        find(self.conn, self.identities, key, self.now - self.window)
    }

    /// Writes the row and indexes it. A dropped conflict has no event text, and the id of its identity's first event.
    fn record(
        &mut self,
        delivery: &EnqueueRequest,
        state: i64,
        event: &Event,
        first: Option<&(BodyHash, String)>,
    ) -> Result<()> {
        let seq = *self.next;
        let (first_body, first_id) = (first.map(|f| f.0.0), first.map(|f| f.1.as_str()));
        let (identity, body) = (&delivery.identity, &delivery.body);
        let (kind, source) = (event.kind.as_ref(), event.source.as_ref());
        if state == DROPPED {
            let id = first_id;
            let row = params![
                seq, identity.0, body.0, self.now, state, id, kind, source, first_body, first_id, Null
            ];
            self.insert.execute(row)?;
        } else {
            let (id, json) = (&event.id, &event.json);
            let row = params![
                seq, identity.0, body.0, self.now, state, id, kind, source, first_body, first_id, json
            ];
            self.insert.execute(row)?;
        }
        *self.next += 1;
        if state != FIRST {
            self.identities.insert(conflict_key(identity, &body.0), seq, self.now);
        }
        self.identities.insert(*identity, seq, self.now);
        Ok(())
    }
}

/// Whether an event has this identity. Entries received at or before `expired` no longer count.
pub(super) fn is_known(
    conn: &Connection,
    identities: &Identities,
    identity: &Identity,
    expired: i64,
) -> Result<bool> {
    Ok(find(conn, identities, identity, expired)?.is_some())
}

/// The row under a key, if it was received after `expired`.
fn find(conn: &Connection, identities: &Identities, key: &Identity, expired: i64) -> Result<Option<Known>> {
    let Some(entry) = identities.find(conn, key)?.filter(|entry| entry.received > expired) else {
        return Ok(None);
    };
    // After the clock was set back, the row may be purged already. Then the key is unknown.
    conn.prepare_cached("SELECT body, id, first_body, first_id FROM events WHERE seq = ?1")?
        .query_row([entry.seq], |row| {
            let first: Option<[u8; 32]> = row.get(2)?;
            Ok(Known {
                body: BodyHash(row.get(0)?),
                id: row.get(1)?,
                first: first
                    .map(|body| Ok::<_, rusqlite::Error>((BodyHash(body), row.get(3)?)))
                    .transpose()?,
            })
        })
        .optional()
}

/// The dedupe columns of a row.
struct Known {
    body: BodyHash,
    id: String,
    /// The identity's first body and id, if this row is a conflict.
    first: Option<(BodyHash, String)>,
}

/// The index key of a conflicting body. It is a hash, so it practically never equals an identity.
pub(super) fn conflict_key(identity: &Identity, body: &[u8; 32]) -> Identity {
    let digest: [u8; 32] = Sha256::new().chain_update(identity.0).chain_update(body).finalize().into();
    Identity(digest.first_chunk::<16>().copied().unwrap_or_default())
}

/// The state of an identity's first row.
pub(super) const FIRST: i64 = 0;
const FORWARDED: i64 = 1;
const DROPPED: i64 = 2;
/// An event that an operator put into the queue once more. The index of identities does not have its row.
pub(super) const REPLAYED: i64 = 3;
