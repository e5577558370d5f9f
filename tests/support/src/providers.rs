//! Simulators of the five providers: each serves its management API on a port of this machine, and signs and sends deliveries as
//! the provider does. They follow the providers' documents, share no code with hookgate, and refuse what no document allows.
//!
//! Each runs on a thread of its own, so a test may block. Retries follow the provider's schedule on a fast clock. Where
//! the documents leave a choice, the simulator's own file says what it does.

pub mod anduin;
pub mod atelio;
pub mod basiq;
mod call;
mod delivery;
mod fault;
mod fields;
pub mod iof;
mod schedule;
pub mod securitize;
mod server;
mod sign;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::Request;

pub use call::{Call, Refusal, Reply};
pub use delivery::{Attempt, Delivery, Event, Log, State};
pub use fault::Fault;

use fault::Faults;
use schedule::Clock;

pub type Anduin = Simulator<anduin::Provider>;
pub type Atelio = Simulator<atelio::Provider>;
pub type Basiq = Simulator<basiq::Provider>;
pub type Iof = Simulator<iof::Provider>;
pub type Securitize = Simulator<securitize::Provider>;

/// A provider. Gone when dropped.
pub struct Simulator<P: Simulated> {
    world: Arc<Mutex<World<P>>>,
    address: SocketAddr,
    runtime: Handle,
    /// Ends the thread, and the thread.
    thread: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// The part of a simulator that is the provider's own.
pub trait Simulated: Send + Sized + 'static {
    /// The path of the documented base URL.
    const BASE: &'static str = "";
    /// The seconds before each attempt at a delivery, counted from the end of the attempt before.
    const SCHEDULE: &'static [u64];

    /// Answers a call, with all its effects.
    fn answer(&mut self, call: &Call, log: &mut Log) -> Result<Reply, Refusal>;

    /// The URL that this call makes the provider ask before it answers.
    fn url_to_validate(&mut self, _call: &Call) -> Option<String> {
        None
    }

    /// An error in the provider's own shape.
    fn error(status: u16, detail: &str) -> Reply;

    /// Whether the call is meant to change anything.
    fn is_write(call: &Call) -> bool {
        call.method != "GET"
    }

    /// Subscriptions as the API shows them, secrets included.
    fn subscriptions(&mut self) -> &mut Vec<Value>;

    /// Adds what a subscription lacks, such as its id.
    fn complete(&mut self, subscription: Value) -> Value;

    /// The event types that it offers.
    fn types(&mut self) -> &mut Vec<String>;

    /// Makes an event and its deliveries, and returns its id. The fields are added to the body, or replace fields of it.
    fn emit(&mut self, kind: &str, fields: &Value, log: &mut Log) -> String;

    /// The URL and the signed request of a delivery, or none if the subscription takes none now.
    fn request(&self, delivery: &Delivery, now: i64) -> Option<(String, Request)>;

    /// Whether an answer with this status counts as delivered.
    fn is_success(status: u16) -> bool {
        (200..300).contains(&status)
    }

    /// The last attempt at a delivery failed.
    fn gave_up(&mut self, _subscription: &str) {}

    /// Ends every token that was given out.
    fn end_tokens(&mut self) {}

    /// Every key, token and secret that exists.
    fn secrets(&self) -> Vec<String>;
}

struct World<P> {
    provider: P,
    log: Log,
    calls: Vec<Call>,
    faults: Faults,
    clock: Clock,
}

impl<P: Simulated> Simulator<P> {
    fn of(provider: impl FnOnce(&str) -> P) -> Simulator<P> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let world = World {
            provider: provider(&format!("http://{address}")),
            log: Log::default(),
            calls: Vec::new(),
            faults: Faults::default(),
            clock: Clock::default(),
        };
        let world = Arc::new(Mutex::new(world));
        let (runtime, thread) = server::start(listener, world.clone());
        Simulator { world, address, runtime, thread: Some(thread) }
    }

    /// The base URL, as a config has it.
    pub fn url(&self) -> String {
        format!("http://{}{}", self.address, P::BASE)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Divides the delays of the schedule by this factor.
    pub fn at_speed(self, factor: u32) -> Self {
        self.world().clock.factor = factor;
        self
    }

    /// Gives an endpoint that much time to answer.
    pub fn waits_for_answers(self, time: Duration) -> Self {
        self.world().clock.patience = time;
        self
    }

    /// Sends what is for this origin, such as `https://hooks.example.com`, to this address, and without TLS.
    pub fn route(&self, origin: &str, to: SocketAddr) {
        self.world().clock.routes.insert(origin.to_owned(), to);
    }

    /// Every call, in the order in which they came.
    pub fn calls(&self) -> Vec<Call> {
        self.world().calls.clone()
    }

    /// The calls that are meant to change anything, also those that failed.
    pub fn writes(&self) -> Vec<Call> {
        self.calls().into_iter().filter(P::is_write).collect()
    }

    /// Forgets the calls so far.
    pub fn forget_calls(&self) {
        self.world().calls.clear();
    }

    /// Every subscription as the API shows it, secrets included.
    pub fn subscriptions(&self) -> Vec<Value> {
        self.world().provider.subscriptions().clone()
    }

    /// Puts a subscription there, in the API's shape. Returns its id; what is missing gets a default.
    pub fn add(&self, subscription: Value) -> String {
        let mut world = self.world();
        let subscription = world.provider.complete(subscription);
        let id = subscription["id"].as_str().unwrap().to_owned();
        world.provider.subscriptions().push(subscription);
        id
    }

    /// Changes a subscription behind the API.
    pub fn change(&self, id: &str, change: impl FnOnce(&mut Value)) {
        change(self.world().provider.subscriptions().iter_mut().find(|known| known["id"] == id).unwrap());
    }

    /// Removes a subscription behind the API.
    pub fn remove(&self, id: &str) {
        self.world().provider.subscriptions().retain(|known| known["id"] != id);
    }

    /// Replaces the event types that it offers.
    pub fn offer(&self, types: &[&str]) {
        *self.world().provider.types() = types.iter().map(|name| (*name).to_owned()).collect();
    }

    /// The event types that it offers.
    pub fn offered(&self) -> Vec<String> {
        self.world().provider.types().clone()
    }

    /// Fails the next calls, as many as `times`, that begin with this method and path, such as `POST /v1/webhooks`.
    pub fn fail(&self, times: usize, call: &str, fault: Fault) {
        self.world().faults.next(times, call, fault);
    }

    /// Asks this function for a fault before each call that has none yet.
    pub fn fail_when(&self, fault: impl FnMut(&Call) -> Option<Fault> + Send + 'static) {
        self.world().faults.when(fault);
    }

    /// Works again.
    pub fn heal(&self) {
        self.world().faults = Faults::default();
    }

    /// Makes an event, and delivers it to every active subscription that asked for it. Returns the event's id.
    pub fn emit(&self, kind: &str, fields: Value) -> String {
        let mut world = self.world();
        let world = &mut *world;
        let event = world.provider.emit(kind, &fields, &mut world.log);
        delivery::send_queued(&self.runtime, &self.world, &mut world.log);
        event
    }

    /// Every event, with its deliveries.
    pub fn events(&self) -> Vec<Event> {
        self.world().log.events()
    }

    /// Every delivery: one for each subscription that an event was for.
    pub fn deliveries(&self) -> Vec<Delivery> {
        self.world().log.deliveries.clone()
    }

    /// Puts a delivery into the log by hand; nothing is sent.
    pub fn keep(&self, delivery: Delivery) {
        self.world().log.deliveries.push(delivery);
    }

    /// Whether every delivery has succeeded or failed for good.
    pub fn is_settled(&self) -> bool {
        self.world().log.deliveries.iter().all(|delivery| !delivery.state.is_open())
    }

    /// Every key, token and secret that exists, to look for where none may be.
    pub fn secrets(&self) -> Vec<String> {
        self.world().provider.secrets()
    }

    fn world(&self) -> MutexGuard<'_, World<P>> {
        self.world.lock().unwrap()
    }
}

impl<P: Simulated> Drop for Simulator<P> {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.thread.take() {
            let _ = end.send(());
            let _ = thread.join();
        }
    }
}
