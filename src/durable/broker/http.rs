//! Internal HTTP services: posts an event as a structured CloudEvent, and awaits the answer.
//!
//! Keeps true:
//! - `Ok` means that the service answered 2xx.
//! - When a publish ends, its request is over: none is left on its way. A connection may still be kept for the next.
//! - No redirect and no proxy leads a request elsewhere. Over TLS the certificate is always checked.
//! - No text shows a URL beyond its host and port.
//!
//! `settings`: out of the config. `routes`: which URL an event has. `destination`: the state of each URL. `answer`:
//! what a status means. `signature`: Standard Webhooks. Order and backoff are the spool's, in its `lanes`.

mod answer;
mod destination;
mod routes;
mod settings;
mod signature;

use std::error::Error;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, Url, retry};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use self::answer::Answer;
use self::destination::Ended;
use super::{Message, OpenError, PublishError, TRACEPARENT, Watch};
use crate::base::causes::causes;
use crate::base::clock::{self, Clock};
use crate::observe::admin::QueueState;
use crate::observe::metrics::{Metrics, PostOutcome};

pub use destination::Destination;
pub use routes::{Lane, Routes};
pub use settings::{Settings, Target};

/// The HTTP services.
pub struct Http {
    client: Client,
    authorization: Option<HeaderValue>,
    routes: Arc<Routes>,
    clock: Clock,
    state: Arc<Reported>,
    tasks: TaskTracker,
    stop: DropGuard,
}

impl Http {
    /// Needs no service to be there. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the client library does not start.
    pub fn open(
        settings: Settings,
        watch: Watch,
        metrics: &Metrics,
        clock: Clock,
    ) -> Result<Http, OpenError> {
        let Settings { tls, authorization, .. } = &settings;
        let client = Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .no_proxy()
            .redirect(Policy::none())
            .retry(retry::never())
            .user_agent(concat!("hookgate/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build()
            .map_err(|why| OpenError::Client(why.without_url().to_string()))?;
        let authorization = authorization.clone();
        let routes = Arc::new(settings.routes(metrics));
        let state = Arc::new(Reported { watch, routes: routes.clone(), failure: Mutex::default() });
        state.watch.set(QueueState::Up, None);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let reported = state.clone();
        let refresh = async move {
            loop {
                tokio::time::sleep(REFRESH_INTERVAL).await;
                reported.refresh();
            }
        };
        tasks.spawn(stop.clone().run_until_cancelled_owned(refresh));
        Ok(Http { client, authorization, routes, clock, state, tasks, stop: stop.drop_guard() })
    }

    /// Where each event goes.
    pub fn routes(&self) -> &Arc<Routes> {
        &self.routes
    }

    pub(super) async fn publish(&self, message: Message<'_>, deadline: Instant) -> Result<(), PublishError> {
        let unusable =
            || PublishError::Unacceptable("its values make no URL out of queue.url or its route".to_owned());
        let (route, destination) = self.routes.find(message.names).ok_or_else(unusable)?;
        let url = destination.url.clone().ok_or_else(unusable)?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/cloudevents+json"));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let trace = message.event.traceparent().and_then(|trace| HeaderValue::from_str(trace).ok());
        headers.extend(trace.map(|trace| (HeaderName::from_static(TRACEPARENT), trace)));
        let (id, json) = (&message.event.id, &message.event.json);
        signature::add(&mut headers, &route.keys, id, json, self.clock.now())
            .map_err(|why| PublishError::Unacceptable(why.to_string()))?;
        let begun = clock::instant();
        let posted = tokio::time::timeout_at(deadline.into(), self.post(url, headers, json.clone())).await;
        let answer = posted.unwrap_or(Err(Failure::NoAnswer("it did not answer in time".to_owned())));
        route.metrics.posted(outcome(&answer), begun.elapsed());
        let (ended, published) = explain(answer);
        destination.record(ended);
        self.state.refresh();
        published
    }

    async fn post(&self, url: Url, headers: HeaderMap, json: String) -> Result<Answer, Failure> {
        let request = self.client.post(url).headers(headers).body(json);
        let response = request.send().await.map_err(|why| Failure::of(&why.without_url()))?;
        let (status, retry_after) = (response.status(), response.headers().get(RETRY_AFTER).cloned());
        read_to_end(response).await.map_err(|why| Failure::of(&why.without_url()))?;
        Ok(Answer::of(status, retry_after.as_ref(), self.clock.now()))
    }

    pub(super) async fn close(self) {
        drop(self.stop);
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Reads the body, so that the connection can be kept and a broken answer shows. Gives up a long one.
async fn read_to_end(mut response: Response) -> reqwest::Result<()> {
    let mut length = 0;
    while let Some(chunk) = response.chunk().await? {
        length += chunk.len();
        if length > MAX_ANSWER {
            break;
        }
    }
    Ok(())
}

/// Why there was no whole answer.
enum Failure {
    /// Nothing was sent.
    Unreachable(String),
    /// The service may have the event.
    NoAnswer(String),
}

impl Failure {
    fn of(error: &reqwest::Error) -> Failure {
        let why = words(error);
        if error.is_connect() { Failure::Unreachable(why) } else { Failure::NoAnswer(why) }
    }
}

fn outcome(answer: &Result<Answer, Failure>) -> PostOutcome {
    match answer {
        Ok(Answer::Confirmed) => PostOutcome::Confirmed,
        Ok(Answer::Refused(_)) => PostOutcome::Refused,
        Ok(Answer::NotNow(..)) => PostOutcome::NotNow,
        Err(Failure::Unreachable(_)) => PostOutcome::Unreachable,
        Err(Failure::NoAnswer(_)) => PostOutcome::NoAnswer,
    }
}

/// What an answer means for the service's state, and for the event.
fn explain(answer: Result<Answer, Failure>) -> (Ended, Result<(), PublishError>) {
    match answer {
        Ok(Answer::Confirmed) => (Ended::Answered, Ok(())),
        // The service is well: this event is at fault, or its route.
        Ok(Answer::Refused(code)) => {
            (Ended::Answered, Err(PublishError::Rejected(format!("it answered {code}"))))
        }
        Ok(Answer::NotNow(code, pause)) => {
            let why = format!("it answered {code}");
            (Ended::Failed(why.clone(), pause), Err(PublishError::NotNow(why)))
        }
        Err(Failure::Unreachable(why)) => (Ended::Unreachable(why), Err(PublishError::Unreachable)),
        Err(Failure::NoAnswer(why)) => (Ended::NoAnswer(why.clone()), Err(PublishError::Unconfirmed(why))),
    }
}

/// The innermost cause of an error, which is the one that helps.
fn words(error: &(dyn Error + 'static)) -> String {
    let causes = || causes(error);
    if let Some(why) = causes().find_map(|cause| cause.downcast_ref::<rustls::Error>()) {
        return match why {
            rustls::Error::InvalidCertificate(why) => {
                format!("its certificate is not trusted ({why:?}); queue.ca names the authorities to trust")
            }
            rustls::Error::InvalidMessage(_) => "it does not speak TLS there; is it http://?".to_owned(),
            why => why.to_string(),
        };
    }
    let io = causes().find_map(|cause| cause.downcast_ref::<io::Error>());
    if io.is_some_and(|io| io.kind() == io::ErrorKind::ConnectionRefused) {
        return "nothing listens there".to_owned();
    }
    let broken = |cause: &hyper::Error| cause.is_incomplete_message() || cause.is_canceled();
    if causes().filter_map(|cause| cause.downcast_ref()).any(broken) {
        return "it closed the connection without an answer".to_owned();
    }
    causes().last().map_or_else(String::new, ToString::to_string)
}

/// Keeps metrics and readiness up to date.
struct Reported {
    watch: Watch,
    routes: Arc<Routes>,
    /// As reported last.
    failure: Mutex<Option<String>>,
}

impl Reported {
    fn refresh(&self) {
        let mut reported = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let failure = self.routes.failure();
        if *reported != failure {
            let state = if failure.is_none() { QueueState::Up } else { QueueState::Down };
            self.watch.set(state, failure.as_deref());
            *reported = failure;
        }
    }
}

/// The longest time for a request, from the claim to the end of its answer.
pub const POST_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Shorter than most services keep idle connections, so that few requests meet a connection that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
const MAX_ANSWER: usize = 64 << 10;
