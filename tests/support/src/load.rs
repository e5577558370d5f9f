//! Concurrent senders: each delivers one new event after the other on a connection it keeps, until it is told to stop or
//! the gateway is gone.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::task::JoinSet;

use super::{Client, Request, basiq, basiq_about, until};

/// Senders at work.
pub struct Load {
    senders: JoinSet<()>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    begun: AtomicUsize,
    taken: Mutex<BTreeSet<String>>,
    stop: AtomicBool,
}

/// The result of a load.
pub struct Sent {
    /// The ids of all events sent.
    pub all: Vec<String>,
    /// The ids of those that were answered 200.
    pub taken: BTreeSet<String>,
}

impl Load {
    /// All events about one user.
    pub fn start(gateway: SocketAddr) -> Load {
        Load::of(gateway, basiq)
    }

    /// Each event about another user, and so spread over the partitions.
    pub fn spread(gateway: SocketAddr) -> Load {
        Load::of(gateway, |id| basiq_about(id, id))
    }

    fn of(gateway: SocketAddr, event: fn(&str) -> Request) -> Load {
        let (mut senders, shared) = (JoinSet::new(), Arc::<Shared>::default());
        for _ in 0..SENDERS {
            senders.spawn(send(gateway, event, shared.clone()));
        }
        Load { senders, shared }
    }

    /// Waits until so many more events have been answered 200: the load is on.
    pub async fn taken(&self, more: usize) {
        let taken = || self.shared.taken.lock().unwrap().len();
        let goal = taken() + more;
        until("deliveries are answered 200", async || taken() >= goal).await;
    }

    /// Lets every sender end with the delivery it is at.
    pub async fn finish(mut self) -> Sent {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.senders.join_next().await {
            ended.unwrap();
        }
        let all = (0..self.shared.begun.load(Ordering::Relaxed)).map(id).collect();
        Sent { all, taken: std::mem::take(&mut self.shared.taken.lock().unwrap()) }
    }
}

async fn send(gateway: SocketAddr, event: fn(&str) -> Request, shared: Arc<Shared>) {
    while let Ok(mut client) = Client::connect(gateway).await {
        // For as long as the connection is kept.
        loop {
            if shared.stop.load(Ordering::Relaxed) {
                return;
            }
            let id = id(shared.begun.fetch_add(1, Ordering::Relaxed));
            let Ok(answer) = client.deliver(&event(&id)).await else { break };
            match answer.status {
                200 => {
                    shared.taken.lock().unwrap().insert(id);
                }
                503 => answer.assert_come_again(),
                _ => panic!("{answer:?}"),
            }
            if answer.header("connection") == Some("close") {
                break;
            }
        }
    }
}

fn id(number: usize) -> String {
    format!("load-{number:06}")
}

const SENDERS: usize = 12;
