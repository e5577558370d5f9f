//! Answers a load balancer's probe of `edge.health_path` on the public listener.
//!
//! Keeps true: the answer has the status of `/readyz` and no body. A probe is neither recorded nor counted.

use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode, Uri};

use super::{Pipeline, RuntimeConfig, context};
use crate::request::admission;
use crate::request::answer::Body;

/// The answer to a probe; none for any other request.
pub(super) fn answer(pipeline: &Pipeline, head: &Parts, rules: &RuntimeConfig) -> Option<Response<Body>> {
    let is_probe = head.method == Method::GET || head.method == Method::HEAD;
    let well_formed = || admission::check_head(head).and_then(|()| admission::check_host(head)).is_ok();
    if !is_probe || !is_health_path(&head.uri, rules) || !well_formed() {
        return None;
    }
    let mut answer = Response::new(Body::default());
    if !pipeline.readiness.ready() {
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    if pipeline.readiness.draining() {
        context::close_after(&mut answer, head.version);
    }
    Some(answer)
}

/// Whether a request is for the health path, with any query.
pub(super) fn is_health_path(uri: &Uri, rules: &RuntimeConfig) -> bool {
    rules.edge.health_path.as_ref().is_some_and(|path| path.value == uri.path())
}

/// The value of `Allow`.
pub(super) const METHODS: &str = "GET, HEAD";
