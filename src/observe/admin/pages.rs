//! The console's answers: its page, and its stream of events.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
    RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use tokio_util::sync::CancellationToken;

use super::{Admin, Body, guard, plain, typed};

/// The path of the stream.
pub(super) const EVENTS: &str = "/console/events";

impl Admin {
    /// Answers a request for the page or its stream. A stream ends with `ending`.
    pub(super) async fn console(&self, request: &Parts, ending: &CancellationToken) -> Response<Body> {
        let is_page = request.uri.path() != EVENTS;
        let session = self.console.session();
        if let Some(mut refused) = self.refuse(request, is_page) {
            protect(&mut refused, NOTHING);
            return refused;
        }
        if is_page {
            let page = self.console.page().await;
            let mut answer = typed(StatusCode::OK, "text/html; charset=utf-8", page.html);
            protect(&mut answer, page.policy);
            return answer;
        }
        let after = request.headers.get("last-event-id").and_then(|id| id.to_str().ok());
        let after = after.or_else(|| request.uri.query()?.strip_prefix("after="));
        let mut answer = match self.console.events(after, session, ending.clone()) {
            None => {
                let mut answer = plain(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "too many browsers watch the console: close one, or reload the page now and then\n",
                );
                answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("10"));
                answer
            }
            Some(_) if request.method == Method::HEAD => plain(StatusCode::OK, ""),
            Some(events) => {
                let frames = events.map(|event: Bytes| Ok::<_, Infallible>(Frame::data(event)));
                Response::new(StreamBody::new(frames).boxed_unsync())
            }
        };
        if answer.status() == StatusCode::OK {
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        }
        protect(&mut answer, NOTHING);
        answer
    }

    /// The answer to a request that may not see the console.
    fn refuse(&self, request: &Parts, is_page: bool) -> Option<Response<Body>> {
        let (headers, rules) = (&request.headers, self.rules.load());
        if guard::is_of_another_site(headers, is_page) {
            return Some(plain(StatusCode::FORBIDDEN, "a page of another site may not read the console\n"));
        }
        match &rules.token {
            Some(token) if guard::has_bearer(headers, token) || guard::has_password(headers, token) => None,
            Some(_) => {
                let mut answer = plain(StatusCode::UNAUTHORIZED, SIGN_IN);
                answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(BASIC));
                Some(answer)
            }
            // A certificate for the name proves that the name is this machine's.
            None if rules.tls.is_some() || guard::names_an_address(headers) => None,
            None => Some(plain(StatusCode::MISDIRECTED_REQUEST, BY_NAME)),
        }
    }
}

/// Keeps caches, frames and other sites away from an answer.
fn protect(answer: &mut Response<Body>, policy: &'static str) {
    let headers = answer.headers_mut();
    for (name, value) in [
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, policy),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
}

const NOTHING: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const BASIC: &str = "Basic realm=\"hookgate\"";
const SIGN_IN: &str = "Sign in with any user name, and the value of admin.token as the password.\n";
const BY_NAME: &str = "Without admin.token the console answers only to an address or localhost, since another site could point its \
    own name here. Open http://127.0.0.1:PORT/, or set admin.token.\n";
