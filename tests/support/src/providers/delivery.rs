//! Events and their deliveries: sent, sent again, and kept in a log.

use std::io::{self, Error};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::schedule::Clock;
use super::sign::{hex_id, uuid};
use super::{Simulated, World};
use crate::{Answer, Client, Request};

/// An event of the provider's.
#[derive(Clone, Debug)]
pub struct Event {
    pub id: String,
    pub kind: String,
    /// One for each subscription that it was for.
    pub deliveries: Vec<Delivery>,
}

/// An event on its way to one subscription.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The same at every attempt.
    pub message: String,
    pub event: String,
    pub kind: String,
    pub subscription: String,
    pub body: String,
    pub created: Timestamp,
    /// In order.
    pub attempts: Vec<Attempt>,
    pub state: State,
}

#[derive(Clone, Debug)]
pub struct Attempt {
    pub id: String,
    pub at: Timestamp,
    pub url: String,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// The answer, or the reason why there is none.
    pub response: String,
    pub succeeded: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Pending,
    Retrying,
    Delivered,
    Failed,
}

/// What a provider remembers of events.
#[derive(Default)]
pub struct Log {
    pub(super) events: Vec<(String, String)>,
    pub(super) deliveries: Vec<Delivery>,
    /// Numbers of the deliveries to be sent.
    queue: Vec<usize>,
}

impl State {
    pub fn is_open(self) -> bool {
        matches!(self, State::Pending | State::Retrying)
    }

    /// In IOF's words.
    pub fn word(self) -> &'static str {
        match self {
            State::Pending => "pending",
            State::Retrying => "retrying",
            State::Delivered => "delivered",
            State::Failed => "failed",
        }
    }
}

impl Delivery {
    pub fn new(subscription: &str, event: &str, kind: &str, body: String) -> Delivery {
        let (event, kind) = (event.to_owned(), kind.to_owned());
        Delivery {
            message: uuid(),
            event,
            kind,
            subscription: subscription.to_owned(),
            body,
            created: Timestamp::now(),
            attempts: Vec::new(),
            state: State::Pending,
        }
    }

    /// With one attempt, which failed then.
    pub fn failed_at(self, at: Timestamp) -> Delivery {
        let response = "connection refused".to_owned();
        let url = "https://hooks.example.com".to_owned();
        let attempt = Attempt { id: hex_id(9), at, url, status: None, response, succeeded: false };
        Delivery { created: at, attempts: vec![attempt], state: State::Failed, ..self }
    }

    /// When it was first attempted, or else made.
    pub fn first_attempt(&self) -> Timestamp {
        self.attempts.first().map_or(self.created, |attempt| attempt.at)
    }
}

impl Log {
    pub(super) fn event(&mut self, id: &str, kind: &str) {
        self.events.push((id.to_owned(), kind.to_owned()));
    }

    /// Keeps a delivery, and sends it soon.
    pub(super) fn send(&mut self, delivery: Delivery) {
        self.queue.push(self.deliveries.len());
        self.deliveries.push(delivery);
    }

    /// Sends a kept delivery again, by the whole schedule.
    pub(super) fn send_again(&mut self, number: usize) {
        self.deliveries[number].state = State::Retrying;
        self.queue.push(number);
    }

    pub(super) fn events(&self) -> Vec<Event> {
        let event = |(id, kind): &(String, String)| {
            let of_it = self.deliveries.iter().filter(|delivery| delivery.event == *id);
            Event { id: id.clone(), kind: kind.clone(), deliveries: of_it.cloned().collect() }
        };
        self.events.iter().map(event).collect()
    }
}

/// Starts what is queued.
pub(super) fn send_queued<P: Simulated>(runtime: &Handle, world: &Arc<Mutex<World<P>>>, log: &mut Log) {
    for number in log.queue.drain(..) {
        runtime.spawn(send(world.clone(), number));
    }
}

async fn send<P: Simulated>(world: Arc<Mutex<World<P>>>, number: usize) {
    for (attempts_before, seconds) in P::SCHEDULE.iter().enumerate() {
        let delay = world.lock().unwrap().clock.delay(*seconds);
        tokio::time::sleep(delay).await;
        let at = Timestamp::now();
        let (clock, request) = {
            let mut world = world.lock().unwrap();
            let request = world.provider.request(&world.log.deliveries[number], at.as_second());
            if request.is_none() {
                world.log.deliveries[number].state = State::Failed;
            }
            (world.clock.clone(), request)
        };
        let Some((url, request)) = request else { return };
        let answer = ask(&clock, &url, request).await;
        let (status, response) = match answer {
            Ok(answer) => (Some(answer.status), answer.body),
            Err(error) => (None, error.to_string()),
        };
        let succeeded = status.is_some_and(P::is_success);
        let mut world = world.lock().unwrap();
        let delivery = &mut world.log.deliveries[number];
        let subscription = delivery.subscription.clone();
        delivery.attempts.push(Attempt { id: hex_id(9), at, url, status, response, succeeded });
        let is_last = attempts_before + 1 == P::SCHEDULE.len();
        if succeeded {
            delivery.state = State::Delivered;
            return;
        }
        delivery.state = if is_last { State::Failed } else { State::Retrying };
        if is_last {
            world.provider.gave_up(&subscription);
        }
    }
}

/// Asks a URL for the header that shows its owner's consent.
pub(super) async fn validate(clock: &Clock, url: &str) -> Result<(), String> {
    let key = uuid();
    let request = Request::get("/").with(VALIDATION, &key);
    let answer = ask(clock, url, request).await.map_err(|error| error.to_string())?;
    if answer.status != 200 {
        return Err(format!("the validation request was answered {}", answer.status));
    }
    if answer.header(VALIDATION) != Some(&key) {
        return Err("the validation key did not come back".to_owned());
    }
    Ok(())
}

/// Sends a request to a URL over a connection of its own. Redirects are not followed.
async fn ask(clock: &Clock, url: &str, request: Request) -> io::Result<Answer> {
    let url: hyper::Uri = url.parse().map_err(Error::other)?;
    let authority = url.authority().ok_or_else(|| Error::other("no host"))?;
    let scheme = url.scheme_str().unwrap_or_default();
    let request = request.to(url.path_and_query().map_or("/", |path| path.as_str()));
    let request = request.with("host", authority.as_str());
    let asked = async {
        let stream = match clock.routes.get(&format!("{scheme}://{authority}")) {
            Some(address) => TcpStream::connect(address).await?,
            None if scheme == "https" => return Err(Error::other("no route for this https origin")),
            None => {
                let host = authority.host().trim_matches(['[', ']']);
                TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await?
            }
        };
        Client::over(stream)?.deliver(&request).await
    };
    let timeout: Duration = clock.patience;
    tokio::time::timeout(timeout, asked).await.unwrap_or_else(|_| Err(Error::other("no answer in time")))
}

const VALIDATION: &str = "x-anduin-webhook-validation-key";
