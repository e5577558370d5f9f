//! Providers: they deliver, deliver again, deliver the same at the same time to several gateways, and come back with whatever
//! was not answered 2xx. Some of what comes in is forged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use support::{Client, Request, atelio, basiq_about, within};
use tokio::task::JoinSet;

use crate::ledger::Ledger;

/// Providers at work.
pub struct Providers {
    tasks: JoinSet<()>,
    shared: Arc<Shared>,
}

struct Shared {
    edges: Vec<SocketAddr>,
    ledger: Ledger,
    stop: AtomicBool,
}

/// One event, to be signed anew at each delivery.
#[derive(Clone)]
enum Event {
    /// Id and user.
    Basiq(String, String),
    /// Customer and note: the same customer with another note is another body under one identity.
    Atelio(String, String),
}

impl Event {
    fn delivery(&self) -> Request {
        match self {
            Event::Basiq(id, user) => basiq_about(id, user),
            Event::Atelio(customer, note) => atelio(customer, note),
        }
    }
}

impl Providers {
    /// Starts them; each has its own chance out of the seed.
    pub fn start(seed: u64, edges: Vec<SocketAddr>) -> Providers {
        let shared = Arc::new(Shared { edges, ledger: Ledger::default(), stop: AtomicBool::new(false) });
        let mut tasks = JoinSet::new();
        for number in 0..PROVIDERS {
            tasks.spawn(provide(shared.clone(), StdRng::seed_from_u64(seed ^ (number << 32)), number));
        }
        Providers { tasks, shared }
    }

    /// Lets them send what is still to be sent again, and nothing new.
    pub async fn finish(mut self) -> Ledger {
        self.shared.stop.store(true, Ordering::Relaxed);
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                ended.unwrap();
            }
        };
        within(PATIENCE, "every event is taken once all is well again", all).await;
        Arc::into_inner(self.shared).unwrap().ledger
    }
}

async fn provide(shared: Arc<Shared>, mut chance: StdRng, provider: u64) {
    let (mut open, mut done) = (Vec::new(), Vec::new());
    for number in 0.. {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        // A provider whose deliveries fail does not pile up new ones for ever.
        if open.len() < MOST_OPEN {
            for event in new_events(&mut chance, &format!("{provider}-{number}")) {
                deliver_as_it_comes(&shared, &mut chance, event, &mut open, &mut done).await;
            }
        }
        if !open.is_empty() && chance.random_bool(0.5) {
            let event = open.swap_remove(chance.random_range(0..open.len()));
            again(&shared, &mut chance, event, &mut open, &mut done).await;
        }
        if !done.is_empty() && chance.random_bool(0.05) {
            // A provider that lost the answer, or an operator who pressed "redeliver".
            let event: Event = done.swap_remove(chance.random_range(0..done.len()));
            again(&shared, &mut chance, event, &mut open, &mut done).await;
        }
        tokio::time::sleep(Duration::from_millis(chance.random_range(1..15))).await;
    }
    while let Some(event) = open.pop() {
        again(&shared, &mut chance, event, &mut open, &mut done).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Mostly one; now and then two bodies under one identity.
fn new_events(chance: &mut StdRng, name: &str) -> Vec<Event> {
    if !chance.random_bool(0.05) {
        let user = format!("user-{}", chance.random_range(0..20));
        return vec![Event::Basiq(format!("event-{name}"), user)];
    }
    let customer = format!("customer-{name}");
    ["one", "other"].map(|note| Event::Atelio(customer.clone(), format!("{note} of {name}"))).to_vec()
}

async fn deliver_as_it_comes(
    shared: &Shared,
    chance: &mut StdRng,
    event: Event,
    open: &mut Vec<Event>,
    done: &mut Vec<Event>,
) {
    if chance.random_bool(0.05) {
        let mut forged = event.delivery();
        forged.body = forged.text().replacen('{', "{\"forged\":true,", 1).into();
        shared.ledger.forges(forged.text());
        send(shared, chance.random::<u16>().into(), &forged).await;
    }
    let copies = if chance.random_bool(0.1) { 3 } else { 1 };
    let delivery = event.delivery();
    shared.ledger.sends(delivery.text());
    let gateways: Vec<usize> = (0..copies).map(|_| chance.random::<u16>().into()).collect();
    let sent = gateways.into_iter().map(|gateway| send(shared, gateway, &delivery));
    let taken = futures_util::future::join_all(sent).await;
    if taken.into_iter().all(|taken| taken) { done.push(event) } else { open.push(event) }
}

async fn again(
    shared: &Shared,
    chance: &mut StdRng,
    event: Event,
    open: &mut Vec<Event>,
    done: &mut Vec<Event>,
) {
    let taken = send(shared, chance.random::<u16>().into(), &event.delivery()).await;
    if taken { done.push(event) } else { open.push(event) }
}

/// Whether it was answered 2xx, which is an obligation.
async fn send(shared: &Shared, gateway: usize, delivery: &Request) -> bool {
    let edge = shared.edges[gateway % shared.edges.len()];
    let answer = async { Client::connect(edge).await?.deliver(delivery).await };
    let Ok(Ok(answer)) = tokio::time::timeout(GIVE_UP, answer).await else { return false };
    match answer.status {
        200..=299 => {
            shared.ledger.promised(delivery.text());
            true
        }
        401 | 408 | 503 => false,
        _ => panic!("{answer:?}"),
    }
}

const PROVIDERS: u64 = 6;
const MOST_OPEN: usize = 100;
/// As a provider would: some wait no longer than that for an answer.
const GIVE_UP: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(120);
