//! A delivery's way through its lane: behind what waits, or with the lane's turn straight to the service.
//!
//! Keeps true: the turn lasts until the request has ended and the delivery has its row, if it needs one. So while a
//! request goes on after its provider was answered from the spool, no other request has its event or a later one of the
//! lane.

use std::sync::Arc;

use tokio::sync::{OwnedMutexGuard, oneshot};
use tokio::time::timeout_at;

use super::super::{Enqueuer, Spool};
use super::{LaneKey, Lanes};
use crate::base::clock;
use crate::durable::broker::http::Lane;
use crate::durable::inbox::{EnqueueError, EnqueueRequest, Enqueued};
use crate::event::Identity;

/// A delivery in its lane.
struct Entry {
    usage: LaneUse,
    lane: Lane,
    arrival: u64,
}

/// Keeps a lane in memory.
struct LaneUse {
    lanes: Arc<Lanes>,
    key: LaneKey,
}

/// The turn of a lane. The last copy releases it when it is dropped.
#[derive(Clone)]
struct Turn {
    _held: Arc<(OwnedMutexGuard<()>, LaneUse)>,
}

/// Where a delivery's row goes.
pub(in super::super) struct RowPlace {
    lanes: Arc<Lanes>,
    lane: Lane,
    arrival: u64,
}

impl RowPlace {
    /// Call on the database's thread, right after the row was written.
    pub(in super::super) fn add(&self, seq: i64) {
        self.lanes.lock().own.insert(seq);
        self.lanes.add_row(&self.lane, (self.arrival, seq));
    }
}

impl Enqueuer {
    /// Makes an event durable: at its service, else in the spool.
    ///
    /// # Errors
    /// When the service did not take it in time, and the spool did not either.
    pub(in super::super) async fn enqueue_in_lane(
        &self,
        spool: &Arc<Spool>,
        lanes: &Arc<Lanes>,
        request: Arc<EnqueueRequest>,
    ) -> Result<Enqueued, EnqueueError> {
        let Some(lane) = lanes.routes().lane(request.names(), &request.event.partition_key) else {
            return Err(EnqueueError::Unacceptable("no route takes it".to_owned()));
        };
        let (deadline, destination) = ((clock::instant() + lane.deadline).into(), lane.destination.clone());
        let is_on = spool.level.is_on();
        let entry = Entry::new(lanes, lane);
        let or_spool = async |why: EnqueueError| match is_on {
            true => spool.store(request.clone(), None, Some(entry.row_place())).await.ok_or(why),
            false => Err(why),
        };
        // What waits is not asked for at the service, so the claims tell whether it has the event already.
        let behind = async |why: EnqueueError| match timeout_at(deadline, self.inbox.entered(&request)).await
        {
            Ok(Ok(Some(known))) => Ok(known),
            _ => or_spool(why).await,
        };
        if is_on && (entry.waits_behind() || destination.is_away()) {
            return behind(refused(OLDER_WAIT)).await;
        }
        let Ok(turn) = timeout_at(deadline, entry.turn()).await else {
            return or_spool(entry.why_no_turn(&request.identity)).await;
        };
        if is_on && entry.waits_behind() {
            return behind(refused(OLDER_WAIT)).await;
        }
        let Ok(Some(permit)) = timeout_at(deadline, destination.permit()).await else {
            return or_spool(EnqueueError::Overloaded).await;
        };
        if destination.paused_until().is_some() {
            return behind(refused("the service asked for a pause")).await;
        }
        let answers = destination.answers();
        entry.hold(request.identity);
        let (answer, mut answered) = oneshot::channel();
        let (key, lanes) = (entry.usage.key.clone(), lanes.clone());
        let (inbox, sent, held, observed) =
            (self.inbox.clone(), request.clone(), turn.clone(), spool.clone());
        let posting = async move {
            let done = inbox.enqueue(sent.clone()).await;
            lanes.record(&key, done.as_ref().err());
            drop(permit);
            // The provider has its answer from the spool. The row is still there, and will be found to be known.
            if let Err(Ok(enqueued)) = answer.send(done) {
                observed.notify(|observer| observer.on_enqueued(&sent, &enqueued));
            }
            drop(held);
        };
        let stop = self.stop.clone();
        self.tasks.spawn(async move { stop.run_until_cancelled(posting).await });
        let done = match timeout_at(deadline, &mut answered).await {
            Ok(done) => done.ok(),
            Err(_) => {
                answered.close();
                answered.try_recv().ok()
            }
        };
        let stored = match done {
            None => {
                destination.on_late(answers);
                or_spool(EnqueueError::Unknown).await
            }
            Some(Err(why @ (EnqueueError::Overloaded | EnqueueError::InProgress))) => Err(why),
            Some(Err(why @ EnqueueError::Unacceptable(_))) if is_on => {
                spool.store(request.clone(), Some(why.to_string()), None).await.ok_or(why)
            }
            Some(Err(why)) => or_spool(why).await,
            Some(enqueued) => enqueued,
        };
        drop(turn);
        stored
    }
}

fn refused(why: &str) -> EnqueueError {
    EnqueueError::Refused(why.to_owned())
}

impl Entry {
    fn new(lanes: &Arc<Lanes>, lane: Lane) -> Entry {
        let arrival = lanes.lock().next_arrival();
        Entry { usage: LaneUse::new(lanes, &lane), lane, arrival }
    }

    /// Whether older events of the lane wait in the spool, or may.
    fn waits_behind(&self) -> bool {
        let mut state = self.usage.lanes.lock();
        !state.complete || !state.lane(&self.lane).rows.is_empty()
    }

    /// Waits for the lane's turn.
    async fn turn(&self) -> Turn {
        let lanes = &self.usage.lanes;
        let turn = lanes.lock().lane(&self.lane).turn.clone();
        Turn { _held: Arc::new((turn.lock_owned().await, LaneUse::new(lanes, &self.lane))) }
    }

    /// Records which event has the turn.
    fn hold(&self, identity: Identity) {
        self.usage.lanes.lock().lane(&self.lane).holder = Some(identity);
    }

    /// Why this event did not get the turn.
    fn why_no_turn(&self, identity: &Identity) -> EnqueueError {
        match self.usage.lanes.lock().lane(&self.lane).holder {
            Some(holder) if holder == *identity => EnqueueError::InProgress,
            _ => refused("an older event of its subject is on its way"),
        }
    }

    fn row_place(&self) -> RowPlace {
        RowPlace { lanes: self.usage.lanes.clone(), lane: self.lane.clone(), arrival: self.arrival }
    }
}

impl LaneUse {
    fn new(lanes: &Arc<Lanes>, lane: &Lane) -> LaneUse {
        lanes.lock().lane(lane).uses += 1;
        LaneUse { lanes: lanes.clone(), key: LaneKey::of(lane) }
    }
}

impl Drop for LaneUse {
    fn drop(&mut self) {
        let mut state = self.lanes.lock();
        let url = state.urls.get_mut(&self.key.url);
        if let Some(lane) = url.and_then(|url| url.lanes.get_mut(&self.key.subject)) {
            lane.uses -= 1;
        }
        self.lanes.schedule(&mut state, &self.key);
    }
}

const OLDER_WAIT: &str = "older events wait, and the spool takes no more";
