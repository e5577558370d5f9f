//! Renders outcomes as HTTP answers.
//!
//! Keeps true: an answer reveals nothing of a secret or a body, and of a failed check only its title. The id in a
//! refusal is the id of its record.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::base::clock;
use crate::base::reason::Reason;
use crate::request::outcome::{Outcome, Rejection};

/// An answer's body, held whole in memory.
pub type Body = Full<Bytes>;

/// An extension of answers that need not be sent, because the client closed the connection.
#[derive(Clone, Copy, Debug)]
pub struct ClientGone;

/// Renders an outcome. `reject` is the id of a refusal's record; `allow` lists the methods of its path.
pub fn render(outcome: &Outcome, reject: &str, allow: &'static str) -> Response<Body> {
    match outcome {
        Outcome::Accepted { id } => success(
            &Success { status: "accepted", id: Some(id) },
            SUCCESS_BYTES + "accepted".len() + id.len(),
        ),
        Outcome::Duplicate { id } => success(
            &Success { status: "duplicate", id: Some(id) },
            SUCCESS_BYTES + "duplicate".len() + id.len(),
        ),
        Outcome::Ignored => success(&Success { status: "ignored", id: None }, SUCCESS_BYTES),
        Outcome::AcceptedAll { ids, any_new } => {
            let status = if *any_new { "accepted" } else { "duplicate" };
            success(
                &SuccessAll { status, ids },
                SUCCESS_BYTES + ids.iter().map(|id| id.len() + 3).sum::<usize>(),
            )
        }
        Outcome::Handshake { status, headers, body } => {
            let mut answer = Response::new(Body::from(body.clone()));
            *answer.status_mut() = *status;
            let headers = headers.iter().map(|(name, value)| (HeaderName::from_static(name), value.clone()));
            answer.headers_mut().extend(headers);
            answer
        }
        Outcome::Rejected(rejection) => problem(rejection, reject, allow),
        Outcome::ClientGone => {
            let mut answer = with_status(StatusCode::BAD_REQUEST);
            answer.extensions_mut().insert(ClientGone);
            answer
        }
    }
}

/// A refusal's body, also for a connection over the limit.
pub fn problem_body(reason: Reason, status: StatusCode, reject: &str) -> String {
    // RFC 9457 defines all members but `reject`.
    let problem =
        Problem { kind: reason.problem_type(), title: reason.title(), status: status.as_u16(), reject };
    to_json(&problem)
}

fn problem(rejection: &Rejection, reject: &str, allow: &'static str) -> Response<Body> {
    let (reason, status) = (rejection.reason, rejection.status());
    let mut answer = with_status(status);
    *answer.body_mut() = Body::from(problem_body(reason, status, reject));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if reason == Reason::MethodNotAllowed {
        headers.insert(ALLOW, HeaderValue::from_static(allow));
    }
    if reason.retries() {
        headers.insert(RETRY_AFTER, HeaderValue::from(clock::retry_after()));
    }
    answer
}

#[derive(Serialize)]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    title: &'a str,
    status: u16,
    reject: &'a str,
}

#[derive(Serialize)]
struct Success<'a> {
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
}

#[derive(Serialize)]
struct SuccessAll<'a> {
    status: &'a str,
    ids: &'a [String],
}

/// Strings and numbers always serialise.
fn to_json(body: &impl Serialize) -> String {
    serde_json::to_string(body).unwrap_or_default()
}

fn success(body: &impl Serialize, bytes: usize) -> Response<Body> {
    // The exact capacity lets the buffer become the body without a copy.
    let mut text = Vec::with_capacity(bytes);
    // Writing into memory cannot fail.
    let _ = serde_json::to_writer(&mut text, body);
    let mut answer = Response::new(Body::from(text));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// Bytes of a success answer without its status and id.
const SUCCESS_BYTES: usize = r#"{"status":"","id":""}"#.len();

fn with_status(status: StatusCode) -> Response<Body> {
    let mut answer = Response::new(Body::default());
    *answer.status_mut() = status;
    answer
}
