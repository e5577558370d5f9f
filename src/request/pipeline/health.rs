//! `edge.health_path`: the answer to a load balancer's probe on the public listener.
//!
//! Keeps true: the answer has the status of `/readyz` and no body; a probe leaves no record and no count.

use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode, Uri};

use super::{Pipeline, RuntimeConfig, context};
use crate::request::admission;
use crate::request::answer::Body;

/// The answer to a probe; none for another request.
pub(super) fn answer(pipeline: &Pipeline, head: &Parts, rules: &RuntimeConfig) -> Option<Response<Body>> {
    let asks = head.method == Method::GET || head.method == Method::HEAD;
    let well_formed = || admission::head(head).and_then(|()| admission::host(head)).is_ok();
    if !asks || !is_asked(&head.uri, rules) || !well_formed() {
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

/// Whether a request is to the health path, whatever its query is.
pub(super) fn is_asked(uri: &Uri, rules: &RuntimeConfig) -> bool {
    rules.edge.health_path.as_ref().is_some_and(|path| path.value == uri.path())
}

/// As `Allow` lists them.
pub(super) const METHODS: &str = "GET, HEAD";
