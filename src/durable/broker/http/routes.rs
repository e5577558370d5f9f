//! Where each event goes: the first route whose type fits, the URL that the event's values make of the route's, and the
//! lane in which it keeps its place.
//!
//! Keeps true: the same event always has the same lane. There is one [`Destination`] for a URL, however many routes
//! lead there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::destination::Destination;
use super::signature::SigningKey;
use crate::config::queue_name::{Part, PlaceholderValues, QueueName};
use crate::event::type_pattern::fits;
use crate::observe::metrics::HttpRouteMetrics;

/// The routes, and the URLs in use.
pub struct Routes {
    routes: Vec<Route>,
    destinations: Mutex<HashMap<String, Arc<Destination>>>,
    /// How many destinations there were so far.
    count: AtomicU64,
}

/// A route.
pub(super) struct Route {
    pub(super) pattern: String,
    pub(super) url: QueueName,
    pub(super) keys: Vec<SigningKey>,
    /// How long a provider waits.
    pub(super) deadline: Duration,
    pub(super) metrics: HttpRouteMetrics,
}

/// The events of one URL and subject. They are posted one after the other.
#[derive(Clone)]
pub struct Lane {
    /// The URL.
    pub destination: Arc<Destination>,
    /// The event's partition key.
    pub subject: Arc<str>,
    /// How long a provider waits for the service's answer.
    pub deadline: Duration,
}

impl Routes {
    /// The last route must take every event.
    pub(super) fn new(routes: Vec<Route>) -> Routes {
        Routes { routes, destinations: Mutex::default(), count: AtomicU64::new(0) }
    }

    /// Routes to these URLs, by patterns.
    #[cfg(test)]
    pub fn to(urls: &[(&str, &str)]) -> Arc<Routes> {
        let metrics = crate::observe::metrics::Metrics::new().unwrap();
        let route = |(pattern, url): &(&str, &str)| Route {
            pattern: (*pattern).to_owned(),
            url: QueueName::parse(url).unwrap(),
            keys: Vec::new(),
            deadline: Duration::from_secs(60),
            metrics: metrics.http_route(pattern),
        };
        Arc::new(Routes::new(urls.iter().map(route).collect()))
    }

    /// The lane of an event with these values and this partition key. None: no route takes it.
    pub fn lane(&self, names: PlaceholderValues<'_>, partition_key: &str) -> Option<Lane> {
        let (route, destination) = self.find(names)?;
        Some(Lane { destination, subject: partition_key.into(), deadline: route.deadline })
    }

    pub(super) fn find(&self, names: PlaceholderValues<'_>) -> Option<(&Route, Arc<Destination>)> {
        let route = self.routes.iter().find(|route| fits(&route.pattern, names.kind))?;
        let url = fill(&route.url, names);
        let mut destinations = self.destinations.lock().unwrap_or_else(PoisonError::into_inner);
        let destination = match destinations.get(&url) {
            Some(known) => known.clone(),
            None => {
                let new = Arc::new(Destination::new(self.count.fetch_add(1, Ordering::Relaxed), &url));
                destinations.insert(url, new.clone());
                new
            }
        };
        Some((route, destination))
    }

    /// Why the queue is down: the last request to a URL in use failed. A URL is in use for a minute after a request, and
    /// while events wait for it. Forgets the others.
    pub(super) fn failure(&self) -> Option<String> {
        let mut destinations = self.destinations.lock().unwrap_or_else(PoisonError::into_inner);
        destinations.retain(|_, to| Arc::strong_count(to) > 1 || to.unused_for() < IN_USE_FOR);
        destinations.values().find_map(|to| Some(format!("the service at {}: {}", to.name(), to.failure()?)))
    }
}

/// The URL for one event, its values percent-encoded.
fn fill(url: &QueueName, names: PlaceholderValues<'_>) -> String {
    let mut filled = String::new();
    for part in url.parts() {
        let value = match part {
            Part::Text(text) => {
                filled.push_str(text);
                continue;
            }
            Part::Provider => names.provider,
            Part::Source => names.source,
            Part::Type => names.kind,
        };
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    filled.push(byte.into())
                }
                other => filled.push_str(&format!("%{other:02X}")),
            }
        }
    }
    filled
}

const IN_USE_FOR: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_percent_encoded() {
        let url = QueueName::parse("http://h/{source}/{type}?p={provider}").unwrap();
        let names = PlaceholderValues { provider: "a&b=c", source: "x-1", kind: "odd/../t\u{e9}pe%" };
        assert_eq!(fill(&url, names), "http://h/x-1/odd%2F..%2Ft%C3%A9pe%25?p=a%26b%3Dc");
    }
}
