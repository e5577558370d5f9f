//! `edge.health_path`: what a load balancer asks on the public listener.
//!
//! Keeps true: it tells what `/readyz` tells by its status, and nothing else; a probe leaves no record and counts nowhere.

use hyper::http::request::Request;
use hyper::{Method, Response, StatusCode, Uri};

use super::{Pipeline, Rules, exchange};
use crate::respond::Body;

/// What a probe is answered; none for a request that is none.
pub(super) fn answer<B>(pipeline: &Pipeline, request: &Request<B>, rules: &Rules) -> Option<Response<Body>> {
    let asks = *request.method() == Method::GET || *request.method() == Method::HEAD;
    if !asks || !is_asked(request.uri(), rules) {
        return None;
    }
    let mut answer = Response::new(Body::default());
    if !pipeline.readiness.ready() {
        *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    if pipeline.readiness.draining() {
        exchange::close_after(&mut answer, request.version());
    }
    Some(answer)
}

/// Whether a request is to the health path, whatever its query is.
pub(super) fn is_asked(uri: &Uri, rules: &Rules) -> bool {
    rules.edge.health_path.as_ref().is_some_and(|path| path.value == uri.path())
}

/// As `Allow` lists them.
pub(super) const METHODS: &str = "GET, HEAD";
