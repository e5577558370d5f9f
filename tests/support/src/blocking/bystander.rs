//! A well-behaved client, at the same time as others misbehave.

use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use serde_json::json;

use super::{Connection, until};
use crate::{Answer, Gateway, LOOK_AGAIN, Request, basiq};

/// It delivers one genuine event after the other until it is stopped, and keeps the answers.
pub struct Bystander {
    shared: Arc<Shared>,
    deliveries: Option<JoinHandle<Vec<Answer>>>,
}

#[derive(Default)]
struct Shared {
    begun: AtomicUsize,
    answered: AtomicUsize,
    stop: AtomicBool,
}

impl Bystander {
    /// Every second event uses a kept connection, each of the others a new one.
    pub fn of(gateway: &Gateway) -> Bystander {
        let edge = gateway.edge;
        let (mut kept, mut number) = (Connection::open(edge), 0);
        Bystander::asking(move |request| {
            number += 1;
            if number % 2 == 1 { kept.ask(request) } else { Connection::open(edge).ask(request) }
        })
    }

    /// Delivers by this function.
    pub fn asking(mut ask: impl FnMut(&Request) -> Answer + Send + 'static) -> Bystander {
        let shared = Arc::<Shared>::default();
        let seen = shared.clone();
        let deliver = move || {
            let mut answers = Vec::new();
            while !shared.stop.load(Ordering::SeqCst) {
                shared.begun.fetch_add(1, Ordering::SeqCst);
                let answer = ask(&basiq(&id(answers.len())));
                shared.answered.fetch_add(1, Ordering::SeqCst);
                answers.push(answer);
                // Others need the processor too.
                thread::sleep(LOOK_AGAIN);
            }
            answers
        };
        Bystander { shared: seen, deliveries: Some(thread::spawn(deliver)) }
    }

    /// Waits until an event that is sent from now on is answered. The attack must still be `open` then.
    pub fn is_served_while(&self, open: impl FnOnce() -> bool) {
        let begun = self.shared.begun.load(Ordering::SeqCst);
        until("another client is answered meanwhile", || {
            let ended = self.deliveries.as_ref().is_none_or(JoinHandle::is_finished);
            assert!(!ended, "another client was not answered");
            self.shared.answered.load(Ordering::SeqCst) > begun
        });
        assert!(open(), "another client was answered, but not before the attack was over");
    }

    /// Stops it. Returns the number of events, every one of which must have been accepted.
    pub fn stop(mut self) -> usize {
        self.shared.stop.store(true, Ordering::SeqCst);
        let answers = self.deliveries.take().unwrap().join();
        let answers = answers.unwrap_or_else(|panicked| panic::resume_unwind(panicked));
        for (number, answer) in answers.iter().enumerate() {
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.json(), json!({ "status": "accepted", "id": id(number) }));
        }
        answers.len()
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

fn id(number: usize) -> String {
    format!("meanwhile-{number}")
}
