//! Metrics of the requests to HTTP services.
//!
//! Keeps true: a route has its series from the start. The config bounds their number: no URL is a label.

use std::time::Duration;

use prometheus::{Histogram, IntCounter};

use super::DURATIONS;
use super::family::{By, metrics};
use super::labels::PostOutcome;

/// Labels of a route's series.
pub(super) struct RouteLabels<'a> {
    /// The `type` of the route; `*` for `queue.url`.
    pub(super) route: &'a str,
}

metrics! {
    /// Updated by the requests of one route.
    #[derive(Clone)]
    pub struct HttpRouteMetrics from HttpRouteFamilies for RouteLabels<'_> {
        /// Requests to HTTP services, by how they ended.
        posts: By<PostOutcome, IntCounter> = "hookgate_http_posts_total" of route by outcome;
        /// Seconds from a request to an HTTP service to its answer, or to its end without one.
        duration: Histogram = "hookgate_http_post_duration_seconds" of route with DURATIONS;
    }
}

impl HttpRouteMetrics {
    /// Counts a request that has ended.
    pub fn posted(&self, outcome: PostOutcome, took: Duration) {
        self.posts.at(outcome).inc();
        self.duration.observe(took.as_secs_f64());
    }
}
