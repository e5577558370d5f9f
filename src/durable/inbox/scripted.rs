//! An inbox that does what a test tells it, and keeps what it took.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::{EnqueueError, EnqueueRequest, Enqueued};

/// The inbox; clones are the same inbox.
#[derive(Clone, Default)]
pub struct Scripted(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// What every event meets.
    all: Option<EnqueueError>,
    /// What those with these ids meet.
    some: HashMap<String, EnqueueError>,
    taken: Vec<EnqueueRequest>,
    refused: usize,
    slow: bool,
    in_flight: usize,
    most_in_flight: usize,
}

impl Scripted {
    /// From now on every event meets this; none: it takes them.
    pub fn all(&self, why: Option<EnqueueError>) {
        self.0.lock().unwrap().all = why;
    }

    /// From now on the event with this id meets this; none: as all.
    pub fn one(&self, id: &str, why: Option<EnqueueError>) {
        let some = &mut self.0.lock().unwrap().some;
        match why {
            Some(why) => some.insert(id.to_owned(), why),
            None => some.remove(id),
        };
    }

    /// What it took, in order.
    pub fn taken(&self) -> Vec<EnqueueRequest> {
        self.0.lock().unwrap().taken.clone()
    }

    /// How often it took none.
    pub fn refused(&self) -> usize {
        self.0.lock().unwrap().refused
    }

    /// From now on an answer takes a while.
    pub fn slow(&self) {
        self.0.lock().unwrap().slow = true;
    }

    /// How many were asked for at once, at most.
    pub fn most_in_flight(&self) -> usize {
        self.0.lock().unwrap().most_in_flight
    }

    pub(super) async fn enqueue(&self, request: &EnqueueRequest) -> Result<Enqueued, EnqueueError> {
        if self.begin() {
            tokio::task::yield_now().await;
        }
        let answer = self.answer(request);
        self.0.lock().unwrap().in_flight -= 1;
        answer
    }

    fn begin(&self) -> bool {
        let mut state = self.0.lock().unwrap();
        state.in_flight += 1;
        state.most_in_flight = state.most_in_flight.max(state.in_flight);
        state.slow
    }

    fn answer(&self, request: &EnqueueRequest) -> Result<Enqueued, EnqueueError> {
        let mut state = self.0.lock().unwrap();
        let id = request.event.id.clone();
        if let Some(why) = state.some.get(&id).or(state.all.as_ref()).cloned() {
            state.refused += 1;
            return Err(why);
        }
        if state.taken.iter().any(|known| known.body == request.body && known.event.id == id) {
            return Ok(Enqueued::Duplicate { id, dropped: false });
        }
        let conflict = state.taken.iter().any(|known| known.identity == request.identity);
        state.taken.push(request.clone());
        Ok(Enqueued::Accepted { id, conflict })
    }
}
