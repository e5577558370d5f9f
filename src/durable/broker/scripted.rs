//! A broker that does what a test tells it, and keeps what it took.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::{Message, PublishError};

/// The broker; clones are the same broker.
#[derive(Clone, Default)]
pub struct Scripted(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// What the next publishes end in; past its end they are confirmed.
    next: VecDeque<Turn>,
    taken: Vec<String>,
}

/// What a publish comes to.
pub struct Turn {
    /// Whether the broker has the message.
    pub takes: bool,
    /// What the publisher is told.
    pub tells: Result<(), PublishError>,
    /// Awaited before it is told, where there is one.
    pub after: Option<tokio::sync::oneshot::Receiver<()>>,
}

impl Scripted {
    /// Says what the next publish comes to that nothing was said of yet.
    pub fn then(&self, turn: Turn) {
        self.0.lock().unwrap().next.push_back(turn);
    }

    /// The ids of the messages taken, in order.
    pub fn taken(&self) -> Vec<String> {
        self.0.lock().unwrap().taken.clone()
    }

    pub(super) async fn publish(&self, message: Message<'_>) -> Result<(), PublishError> {
        let turn = {
            let mut state = self.0.lock().unwrap();
            let turn = state.next.pop_front().unwrap_or(Turn { takes: true, tells: Ok(()), after: None });
            if turn.takes {
                state.taken.push(message.id.to_owned());
            }
            turn
        };
        if let Some(after) = turn.after {
            let _ = after.await;
        }
        turn.tells
    }
}
