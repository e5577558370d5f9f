//! An inbox for tests. It answers as told, and keeps the deliveries it accepted.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::durable::broker::http::Routes;

use super::{EnqueueError, EnqueueRequest, Enqueued};

/// The inbox. Clones share its state.
#[derive(Clone, Default)]
pub struct Scripted(Arc<Mutex<State>>, Option<Arc<Routes>>);

#[derive(Default)]
struct State {
    /// The error for every event.
    all: Option<EnqueueError>,
    /// The errors for events with these ids.
    some: HashMap<String, EnqueueError>,
    taken: Vec<EnqueueRequest>,
    refused: usize,
    slow: bool,
    in_flight: usize,
    most_in_flight: usize,
}

impl Scripted {
    /// In front of HTTP services, at these URLs.
    pub fn with_routes(routes: Arc<Routes>) -> Scripted {
        Scripted(Arc::default(), Some(routes))
    }

    pub(super) fn routes(&self) -> Option<&Arc<Routes>> {
        self.1.as_ref()
    }

    /// Sets the error for every event. `None` accepts them.
    pub fn all(&self, why: Option<EnqueueError>) {
        self.0.lock().unwrap().all = why;
    }

    /// Sets the error for the event with this id. `None` treats it like every event.
    pub fn one(&self, id: &str, why: Option<EnqueueError>) {
        let some = &mut self.0.lock().unwrap().some;
        match why {
            Some(why) => some.insert(id.to_owned(), why),
            None => some.remove(id),
        };
    }

    /// The accepted deliveries, in order.
    pub fn taken(&self) -> Vec<EnqueueRequest> {
        self.0.lock().unwrap().taken.clone()
    }

    /// How many deliveries failed.
    pub fn refused(&self) -> usize {
        self.0.lock().unwrap().refused
    }

    /// Makes later answers yield to other tasks first.
    pub fn slow(&self) {
        self.0.lock().unwrap().slow = true;
    }

    /// The highest number of concurrent deliveries.
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

    pub(super) fn is_known(&self, request: &EnqueueRequest) -> Result<bool, EnqueueError> {
        let state = self.0.lock().unwrap();
        match &state.all {
            Some(why) => Err(why.clone()),
            None => Ok(state.taken.iter().any(|known| known.identity == request.identity)),
        }
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
        if state.taken.iter().any(|known| known.body.may_be(&request.body) && known.event.id == id) {
            return Ok(Enqueued::Duplicate { id, dropped: false });
        }
        let conflict = state.taken.iter().any(|known| known.identity == request.identity);
        state.taken.push(request.clone());
        Ok(Enqueued::Accepted { id, conflict })
    }
}
