//! A broker for tests. It answers as told, and keeps the messages it accepted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::{Message, PublishError};

/// The broker. Clones share its state.
#[derive(Clone, Default)]
pub struct Scripted(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// The results of the next publishes. When it is empty, publishes are confirmed.
    next: VecDeque<Turn>,
    taken: Vec<String>,
}

/// The result of one publish.
pub struct Turn {
    /// Whether the broker keeps the message.
    pub takes: bool,
    /// The publisher's result.
    pub tells: Result<(), PublishError>,
    /// If set, the broker answers only after this resolves.
    pub after: Option<tokio::sync::oneshot::Receiver<()>>,
}

impl Scripted {
    /// Queues the result of a later publish.
    pub fn then(&self, turn: Turn) {
        self.0.lock().unwrap().next.push_back(turn);
    }

    /// The ids of the accepted messages, in order.
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
